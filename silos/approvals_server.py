"""A local page for persons who approve jobs: it listens on 127.0.0.1 only and is opened with an address that works once.

The address sets a cookie; every other request needs it.  Other web pages in the same browser can neither read nor send
anything: the Host must be this machine, the cookie is SameSite=Strict, and a form must carry a token that only our pages hold.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aiohttp import web

from silos import approvals_page
from silos.approvals import (
    ApprovalError,
    Pending,
    all_decided,
    all_pending,
    approve,
    approver_keys,
    denial,
    deny,
    read_decided,
    read_pending,
    said,
)
from silos.approvals_text import sections, when
from silos.approvers import key_file, load_key
from silos.config import Home
from silos.errors import SiloError
from silos.times import utcnow

COOKIE = "accord_approvals"
MAX_FORM_BYTES = 16 * 1024
MOST_SHOWN = 50
LOCAL_NAMES = frozenset({"127.0.0.1", "localhost"})
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with "no-referrer" browsers send no Origin with a form
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(home: Home, port: int) -> AsyncIterator[str]:
    """Serve until the block ends; yields the address that opens the page once.  port: 0 for any free one.

    Raises: OSError if the port is taken; ConfigError if the home is not usable.
    """
    site = _Site(home)
    runner = web.AppRunner(site.application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/open/{site.entrance}"
    finally:
        await runner.cleanup()


class _Site:
    """What one run of the server knows: its home and three secrets."""

    def __init__(self, home: Home) -> None:
        self._home, self._silo = home, home.load_config().name
        self.entrance = secrets.token_urlsafe(32)
        self._session, self._csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._used = False
        self._opening = asyncio.Lock()  # opening a key takes memory, and guessing should take time

    def application(self) -> web.Application:
        """The routes, guarded."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_FORM_BYTES)
        app.add_routes(
            [
                web.get("/open/{token}", self._open),
                web.get("/style.css", self._style),
                web.get("/", self._overview),
                web.get("/job/{job:[0-9a-f]{32}}", self._job),
                web.post("/job/{job:[0-9a-f]{32}}/approve", self._approve),
                web.post("/job/{job:[0-9a-f]{32}}/deny", self._deny),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Who may ask, and what every answer carries."""
        try:
            self._check(request)
            reply = await handler(request)
        except web.HTTPException as exc:
            reply = _plain(exc.status, exc.text or exc.reason)
        except SiloError as exc:
            reply = _plain(409, f"{exc}.")
        for name, value in HEADERS.items():
            reply.headers[name] = value
        return reply

    def _check(self, request: web.Request) -> None:
        host = urlsplit(f"//{request.host}").hostname
        if host not in LOCAL_NAMES:
            raise web.HTTPForbidden(text="This page is for this machine only.")
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise web.HTTPForbidden(text="Another page sent you here; open the address yourself.")
        if request.path.startswith("/open/") or request.path == "/style.css":
            return
        if not _same(request.cookies.get(COOKIE, ""), self._session):
            raise web.HTTPForbidden(text="Open the address that 'accord approvals serve' printed.")

    async def _open(self, request: web.Request) -> web.StreamResponse:
        if self._used or not _same(request.match_info["token"], self.entrance):
            raise web.HTTPForbidden(text="This address works once. Start 'accord approvals serve' again for a new one.")
        self._used = True
        reply = web.Response(status=303, headers={"Location": "/"})
        reply.set_cookie(COOKIE, self._session, httponly=True, samesite="Strict", path="/")
        return reply

    async def _style(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text=approvals_page.STYLE, content_type="text/css")

    async def _overview(self, _: web.Request) -> web.StreamResponse:
        keys = approver_keys(self._home)
        waiting = [(one, said(self._home, one, keys)) for one in all_pending(self._home)]
        return _html(approvals_page.overview(self._silo, waiting, all_decided(self._home, MOST_SHOWN)))

    async def _job(self, request: web.Request) -> web.StreamResponse:
        job = request.match_info["job"]
        try:
            pending = read_pending(self._home, job)
        except ApprovalError as exc:
            decided = read_decided(self._home, job)
            if decided is None:
                raise web.HTTPNotFound(text=f"{exc}.") from exc
            return _html(approvals_page.answered(decided, sections(decided.asked)))
        return self._question(pending)

    async def _approve(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request)
        pending = read_pending(self._home, request.match_info["job"])
        name = form.get("name", "")
        try:
            if not _same(form.get("spec_digest", ""), pending.spec_digest):
                raise ApprovalError("this is not the job that was shown")
            if name not in approver_keys(self._home):
                raise ApprovalError(f"the policy of {self._silo} does not name '{name}' as an approver")
            async with self._opening:
                path = key_file(self._home.root / "approvers", name)
                key = await asyncio.to_thread(load_key, path, form.get("passphrase", ""))
            approve(self._home, pending, name, key, approver_keys(self._home), utcnow())
        except SiloError as exc:
            return self._question(pending, str(exc))
        return web.Response(status=303, headers={"Location": f"/job/{pending.job}"})

    async def _deny(self, request: web.Request) -> web.StreamResponse:
        form = await self._form(request)
        pending = read_pending(self._home, request.match_info["job"])
        try:
            deny(self._home, pending, form.get("name", ""), form.get("reason", ""), approver_keys(self._home), utcnow())
        except SiloError as exc:
            return self._question(pending, str(exc))
        return web.Response(status=303, headers={"Location": f"/job/{pending.job}"})

    async def _form(self, request: web.Request) -> dict[str, str]:
        """The fields of a form that is ours.  Raises: HTTPForbidden."""
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="The form was sent by another page.")
        fields = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        if not _same(fields.get("csrf", ""), self._csrf):
            raise web.HTTPForbidden(text="The form was not made by this page.")
        return fields

    def _question(self, pending: Pending, error: str = "") -> web.Response:
        keys = approver_keys(self._home)
        yes, no = said(self._home, pending, keys), denial(self._home, pending.job)
        answers = [f"{one.name} approved it on {when(one.time)}" for one in yes]
        who = None
        if no is not None:
            answers.append(f"{no.name} said no on {when(no.time)}: {no.reason}; the node refuses the job")
        elif len(yes) >= pending.needed:
            answers.append("Nobody else is needed; the node goes on with the job")
        else:
            signed, folder = {one.name for one in yes}, self._home.root / "approvers"
            can_sign = [name for name in keys if name not in signed and key_file(folder, name).exists()]
            who = approvals_page.Who(can_sign, list(keys))
        text = approvals_page.question(pending, sections(pending), answers, who, self._csrf, error)
        return _html(text, 400 if error else 200)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html")


def _plain(status: int, sentence: str) -> web.Response:
    return _html(approvals_page.message("Not possible", sentence), status)
