"""The page for approvers over real HTTP: who gets in, what is shown, and that no other page can answer for a person."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from silos.approvals import read_decided, read_pending, said
from silos.approvals_server import COOKIE, HEADERS, serving
from tests.silos.approvals_world import ANA, BO, PASSPHRASE, Desk, desk, keep_keys, public
from tests.silos.world import BOUND_S, JOB

PURPOSE = "credit <script>alert(1)</script> risk"


class Forms(HTMLParser):
    """Every form of a page: its address and its fields."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str]] = {}
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.loaded += [values[name] for name in ("src", "href", "action") if name in values]
        assert not any(name.startswith("on") or name == "style" for name in values)
        if tag == "form":
            assert values["method"] == "post"
            self._now = self.found.setdefault(values["action"], {})
        elif tag in ("input", "textarea", "select"):
            self._now[values["name"]] = values.get("value", "")


@dataclass
class Visit:
    """A browser's session with a page that is served."""

    at: Desk
    address: str
    http: aiohttp.ClientSession

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.http.get(self.url(path), headers=headers, allow_redirects=False) as reply:
            text = await reply.text()
            assert {name: reply.headers[name] for name in HEADERS} == dict(HEADERS)
            return reply.status, text

    async def post(self, path: str, fields: dict[str, str], **headers: str) -> tuple[int, str]:
        async with self.http.post(self.url(path), data=fields, headers=headers, allow_redirects=False) as reply:
            return reply.status, await reply.text() or reply.headers.get("Location", "")

    async def enter(self) -> None:
        status, _ = await self.get(urlsplit(self.address).path)
        assert status == 303

    async def forms(self) -> Forms:
        status, text = await self.get(f"/job/{JOB}")
        assert status == 200
        return Forms(text)

    def url(self, path: str) -> str:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}{path}"


@asynccontextmanager
async def visit(root: Path, needed: int = 1) -> AsyncIterator[tuple[Visit, asyncio.Task[Any]]]:
    """A waiting job, and somebody who has the printed address."""
    with desk(root, purpose=PURPOSE) as at:
        keep_keys(at.home)
        waiting = asyncio.create_task(at.wait(needed))
        await at.asked()
        jar = aiohttp.CookieJar(unsafe=True)
        async with serving(at.home, 0) as address, aiohttp.ClientSession(cookie_jar=jar) as http:
            try:
                yield Visit(at, address, http), waiting
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)


def alert(text: str) -> str:
    """The sentence about what went wrong."""
    return re.findall(r'role="alert">([^<]*)<', text)[0]


async def test_the_printed_address_works_once_and_on_this_machine_only(tmp_path: Path) -> None:
    async with visit(tmp_path) as (page, _):
        assert urlsplit(page.address).hostname == "127.0.0.1"
        for path in ("/", f"/job/{JOB}"):
            status, text = await page.get(path)
            assert status == 403
            assert "Open the address that &#x27;accord approvals serve&#x27; printed." in text
            assert "credit" not in text
        assert (await page.get("/open/guess"))[0] == 403
        async with page.http.get(page.address, allow_redirects=False) as reply:
            assert (reply.status, reply.headers["Location"]) == (303, "/")
            cookie = reply.headers["Set-Cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        assert {"HttpOnly", "Path=/", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
        assert (await page.get("/"))[0] == 200
        status, text = await page.get(urlsplit(page.address).path)
        assert (status, "This address works once." in text) == (403, True)
        for headers in ({"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await page.get("/", **headers))[0] == 403
        assert (await page.get("/", Host="localhost:9999"))[0] == 200, "through a tunnel from another port"
        assert (await page.get(f"/job/{'f' * 32}"))[0] == 404
        assert (await page.get("/job/../policy.toml"))[0] == 404


async def test_pages_hold_everything_and_load_nothing(tmp_path: Path) -> None:
    async with visit(tmp_path) as (page, _):
        await page.enter()
        _, overview = await page.get("/")
        _, job = await page.get(f"/job/{JOB}")
        for text in (overview, job):
            forms = Forms(text)
            assert not forms.tags & {"script", "img", "iframe", "object", "style"}
            assert all(address.startswith(("/", "#answer")) for address in forms.loaded)
            assert "credit &lt;script&gt;" in text
            assert text.count("<h1>") == 1
        for line in (
            "What the columns of lender are used for",
            "platform learns",
            "This holds if",
            "rule &#x27;credit-model&#x27; of the policy allows it if one person here approves it",
        ):
            assert line in job
        for field in re.findall(r"<(?:input|select|textarea)[^>]*>", job):
            name = re.search(r'id="(\w+)"', field)
            assert 'type="hidden"' in field or (name is not None and f'<label for="{name[1]}">' in job)
        async with page.http.get(page.url("/style.css")) as reply:
            assert reply.content_type == "text/css"
            assert "prefers-color-scheme:dark" in await reply.text()


async def test_a_person_approves_with_the_passphrase(tmp_path: Path) -> None:
    async with visit(tmp_path, needed=2) as (page, waiting):
        await page.enter()
        path = f"/job/{JOB}/approve"
        form = (await page.forms()).found[path]
        status, text = await page.post(path, {**form, "name": ANA, "passphrase": "not this one"})
        assert status == 400
        assert alert(text).startswith("The passphrase does not open ")
        assert "not this one" not in text
        status, text = await page.post(path, {**form, "name": "../../identity", "passphrase": PASSPHRASE})
        assert status == 400
        assert alert(text) == "The policy of lender does not name &#x27;../../identity&#x27; as an approver."
        assert said(page.at.home, read_pending(page.at.home, JOB), public()) == []
        assert await page.post(path, {**form, "name": ANA, "passphrase": PASSPHRASE}) == (303, f"/job/{JOB}")
        _, text = await page.get(f"/job/{JOB}")
        assert re.search(r"Ana Ruiz approved it on 20\d\d-", text)
        status, text = await page.post(path, {**form, "name": ANA, "passphrase": PASSPHRASE})
        assert (status, alert(text)) == (400, f"Ana Ruiz has approved job {JOB} already.")
        assert (await page.post(path, {**form, "name": BO, "passphrase": PASSPHRASE}))[0] == 303
        async with asyncio.timeout(BOUND_S):
            assert {one["name"] for one in await waiting} == {ANA, BO}
        _, text = await page.get(f"/job/{JOB}")
        assert "<form" not in text
        assert "Approved by " in text
        _, text = await page.get("/")
        assert "Nothing waits for you." in text
        assert "Earlier decisions" in text


async def test_a_person_refuses_with_a_reason(tmp_path: Path) -> None:
    async with visit(tmp_path) as (page, waiting):
        await page.enter()
        path = f"/job/{JOB}/deny"
        form = (await page.forms()).found[path]
        status, text = await page.post(path, {**form, "name": BO, "reason": " "})
        assert (status, alert(text)) == (400, "A reason is one sentence of at most 600 characters.")
        assert await page.post(path, {**form, "name": BO, "reason": "the <b> campaign has ended"}) == (
            303,
            f"/job/{JOB}",
        )
        _, text = await page.get(f"/job/{JOB}")
        assert "the &lt;b&gt; campaign has ended" in text
        assert "<form" not in text
        async with asyncio.timeout(BOUND_S):
            assert "said no" in str((await asyncio.gather(waiting, return_exceptions=True))[0])
        decided = read_decided(page.at.home, JOB)
        assert decided is not None
        assert decided.outcome == "refused"
        status, text = await page.post(path, {**form, "name": BO, "reason": "again"})
        assert status == 409


async def test_no_other_page_can_answer(tmp_path: Path) -> None:
    async with visit(tmp_path) as (page, waiting):
        path = f"/job/{JOB}/deny"
        fields = {"name": BO, "reason": "because", "csrf": "guess"}
        assert (await page.post(path, fields))[0] == 403, "without the cookie"
        await page.enter()
        form = (await page.forms()).found[path]
        status, text = await page.post(path, fields)
        assert (status, "The form was not made by this page." in text) == (403, True)
        good = {**form, "name": BO, "reason": "because"}
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Sec-Fetch-Site": "same-site"},
            {"Host": "evil.example"},
        ):
            assert (await page.post(path, good, **headers))[0] == 403, headers
        assert (await page.post(path, {**good, "reason": "x" * 20_000}))[0] == 413
        assert (await page.get(path))[0] == 405
        assert not waiting.done()
        changed = {**(await page.forms()).found[f"/job/{JOB}/approve"], "spec_digest": "0" * 64}
        status, text = await page.post(f"/job/{JOB}/approve", {**changed, "name": ANA, "passphrase": PASSPHRASE})
        assert (status, alert(text)) == (400, "This is not the job that was shown.")
        own = page.url("")
        assert (await page.post(path, good, Origin=own))[0] == 303
