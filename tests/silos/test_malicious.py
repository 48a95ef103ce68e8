"""A coordinator whose operator cheats, with all of its keys and its database: who notices, and in which words.

docs/log-threats.md has a row for each of these; the last test keeps the two together.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from coordinator import ca, server
from coordinator import home as homes
from coordinator.enrol import revocation
from coordinator.envelope import Statement, digest, fingerprint, parse
from coordinator.note import VerifierKey, open_checkpoint
from silos import checkpoints, roster, watch
from silos.board import FINAL
from silos.client import CoordinatorClient, connect
from silos.config import Home, init_home
from silos.consent import Expected, check_key, own_chain, verify_consents
from silos.diary import Diary
from silos.disclosure import disclosure
from silos.enrol import join
from silos.errors import (
    ConsentError,
    CoordinatorRefused,
    CoordinatorUnreachable,
    LogForked,
    LogRewritten,
    OwnNameTaken,
    RosterForged,
)
from silos.identity import create_identity, load_identity
from silos.rotation import rotate
from silos.spec import spec_digest
from silos.times import to_text, utcnow
from silos.tls import client_context, make_request
from tests.coordinator.world import TestSilo, consent_body
from tests.silos.malice import Operator, carry, point
from tests.silos.world import BOUND_S, World, coordinator_world, enrolled_world, make_spec, registry, running_nodes

ROOT = Path(__file__).parents[2]
REWRITTEN = r"^the log of https://127\.0\.0\.1:\d+ has been rewritten: "
FORGED = r"^the roster of https://127\.0\.0\.1:\d+ is not to be trusted about "
FORKED = r"^the log of https://127\.0\.0\.1:\d+ is not the one that "


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A coordinator and two silos that have looked at it."""
    async with coordinator_world(tmp_path) as made:
        for name in ("lender", "platform"):
            await made.enrol(name)
        for name in ("lender", "platform"):
            await look(made, name)
        yield made


async def look(world: World, silo: str) -> int:
    home = world.home(silo)
    async with connect(home) as client:
        return (await watch.look(client, home)).size


def operator(world: World) -> Operator:
    return Operator(world.coordinator)


# --- histories that were seen


async def test_an_entry_is_dropped(world: World) -> None:
    evil = operator(world)
    evil.rewrite(evil.rows()[:1])
    for name in ("lender", "platform"):
        with pytest.raises(LogRewritten, match=REWRITTEN + "it has 1 entries, and it had 2$"):
            await look(world, name)


async def test_an_entry_is_dropped_and_the_log_is_filled_up(world: World) -> None:
    await world.enrol("dealer")
    evil = operator(world)
    evil.rewrite([evil.rows()[0], evil.rows()[2], evil.rows()[2]])
    for name in ("lender", "platform"):
        with pytest.raises(LogRewritten, match=REWRITTEN + "it does not lead on from the 2 entries that it had: "):
            await look(world, name)


async def test_entries_are_reordered(world: World) -> None:
    evil = operator(world)
    evil.rewrite(evil.rows()[::-1])
    with pytest.raises(LogRewritten, match=REWRITTEN + "it does not lead on from the 2 entries that it had: "):
        await look(world, "lender")


async def test_an_entry_is_edited(world: World) -> None:
    evil = operator(world)
    first, second = evil.rows()
    evil.rewrite([first, second._replace(envelope=second.envelope.replace(b"a", b"b", 1))])
    with pytest.raises(LogRewritten, match=REWRITTEN + "it does not lead on from the 2 entries that it had: "):
        await look(world, "lender")
    await check_fresh_eyes(world, "entry 1: ")


async def check_fresh_eyes(world: World, why: str) -> None:
    """A silo that looks for the first time reads the signatures."""
    home = world.home("lender")
    home.checkpoint.unlink()
    home.roster.unlink()
    with pytest.raises(RosterForged, match=FORGED + f"a silo: {why}"):
        await look(world, "lender")


async def test_the_database_is_rolled_back_to_a_backup(world: World, tmp_path: Path) -> None:
    evil = operator(world)
    older = evil.copy(tmp_path / "older")
    await world.enrol("dealer")
    assert await look(world, "lender") == 3
    async with older.serving() as (url, _):
        for name in ("lender", "platform"):
            point(world.home(name), url)
        with pytest.raises(LogRewritten, match=REWRITTEN + "it has 2 entries, and it had 3$"):
            await look(world, "lender")
        # lender has shown it the checkpoint that it lost, so that nobody's entries grow a second log from there.
        why = "this log was seen with 3 entries that its database does not have; it takes no entry until its newer database"
        with pytest.raises(CoordinatorUnreachable, match=f"^the coordinator is in trouble: {why} is restored$"):
            await rotate(world.home("platform"))


async def test_the_coordinators_own_entry_is_backdated(world: World) -> None:
    lender = load_identity(world.home("lender").identity)
    past = utcnow() - dt.timedelta(days=1)
    operator(world).say(revocation("lender", lender.public, "long ago", (0, ""), past))
    why = f"entry 2, 'revoked', is dated {to_text(past)}, and the log did not hold it at "
    with pytest.raises(RosterForged, match=FORGED + f"lender: {re.escape(why)}"):
        await look(world, "platform")


# --- statements about a job that nobody had seen in the log yet


async def test_a_refusal_is_withheld(tmp_path: Path) -> None:
    """It is taken and not logged: nothing runs without this silo's consent, and the silo finds its statement missing."""
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        home, spec = world.home("lender"), make_spec(now=utcnow())
        await world.submit(spec, "platform")
        diary = Diary(home.job(spec.job), "lender", spec.job, spec_digest(spec), load_identity(home.identity))
        await diary.say(client, "refused", {"reason": "not now", "rule": ""})
        await watch.check_said(client, home, spec.job)
        evil = operator(world)
        evil.rewrite([row for row in evil.rows() if "refused" not in event(row.envelope)])
        home.checkpoint.unlink()  # as if this silo had not looked between
        sentence = f"it took our 'refused' about job {spec.job} and does not hold it$"
        with pytest.raises(LogRewritten, match=REWRITTEN + sentence):
            await watch.check_said(client, home, spec.job)
        shown = [base64.b64decode(e["envelope"]) for e in (await client.job(spec.job))["entries"]]
        keys = {s["silo"]: base64.b64decode(s["identity_key"]) for s in await client.roster()}
        pins = {name: fingerprint(key) for name, key in keys.items()}
        expected = Expected(spec, spec_digest(spec), digest(disclosure(spec, registry)), pins)
        with pytest.raises(ConsentError, match=r"^lender has consented 0 times, expected once$"):
            verify_consents(expected, shown, keys, utcnow())


def event(envelope: bytes) -> str:
    return parse(envelope).statement.event


async def test_a_statement_is_shown_that_is_not_in_the_log(tmp_path: Path) -> None:
    """What a job rests on is asked for in the log: an account of the job alone is worth nothing."""
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        home, spec = world.home("lender"), make_spec(now=utcnow())
        await world.submit(spec, "platform")
        view = await client.job(spec.job)
        shown = {int(e["index"]): base64.b64decode(e["envelope"]) for e in view["entries"]}
        assert [event(raw) for raw in shown.values()] == ["proposed", "disclosed"]
        now = await watch.look(client, home)
        await checkpoints.check_included(client, home, now, shown)
        edited = {index: raw.replace(b"a", b"b", 1) for index, raw in shown.items()}
        with pytest.raises(LogRewritten, match=REWRITTEN + "it does not hold entry 3 as it shows it: "):
            await checkpoints.check_included(client, home, now, edited)
        swapped = dict(zip(shown, reversed(shown.values()), strict=True))
        with pytest.raises(LogRewritten, match=REWRITTEN + "it does not hold entry 3 as it shows it: "):
            await checkpoints.check_included(client, home, now, swapped)
        with pytest.raises(LogRewritten, match=REWRITTEN + "it shows entry 99 and has 5 entries$"):
            await checkpoints.check_included(client, home, now, {99: b"{}"})
        platform = load_identity(world.home("platform").identity)
        with pytest.raises(
            ConsentError, match=r"^the statements of platform about this job are not complete or not in"
        ):
            own_chain("platform", list(shown.values())[::-1], platform.public)
        with pytest.raises(
            ConsentError, match=r"^the statements of platform about this job are not complete or not in"
        ):
            own_chain("platform", list(shown.values())[1:], platform.public)


async def test_a_consent_is_put_before_what_its_signer_saw(world: World) -> None:
    spec, home = make_spec(now=utcnow()).document(), world.home("lender")
    body = consent_body(TestSilo("platform"), spec, head={"size": 9, "root": "ab" * 32})
    statement = Statement("consented", spec["job"], digest(spec), "platform", 0, "", to_text(utcnow()), body)
    operator(world).append(raw := load_identity(world.home("platform").identity).seal(statement))
    async with connect(home) as client:
        now = await watch.look(client, home)
        why = "it holds the consent of platform as entry 2, and platform had seen 9 entries when it signed$"
        with pytest.raises(LogRewritten, match=REWRITTEN + why):
            await checkpoints.check_included(client, home, now, {2: raw})


# --- keys


async def test_a_silos_key_is_swapped_in_the_list(world: World, tmp_path: Path) -> None:
    operator(world).set_key("platform", create_identity(tmp_path / "evil.key").public)
    why = "its list gives this silo a key that no signed entry of its log leads to$"
    with pytest.raises(RosterForged, match=FORGED + f"platform: {why}"):
        await listed(world, "lender")


async def listed(world: World, silo: str) -> list[dict[str, str]]:
    home = world.home(silo)
    async with connect(home) as client:
        return await watch.roster(client, home)


async def test_a_silos_name_is_given_to_a_key_of_the_operator(world: World, tmp_path: Path) -> None:
    """With an entry in the log, as an operator can make it.  The partner has the true key pinned; the silo is told."""
    pinned = load_identity(world.home("platform").identity).fingerprint
    evil, forged = operator(world), create_identity(tmp_path / "evil.key")
    body = {"identity_key": forged.public_b64}
    evil.append(forged.seal(Statement("enrolled", "", "", "platform", 0, "", to_text(utcnow()), body)))
    evil.set_key("platform", forged.public)
    why = f"entry 2 gives the name to the key {forged.fingerprint}, which is not ours; "
    mine = rf"^platform no longer speaks for itself in the log of https://127\.0\.0\.1:\d+: {why}"
    with pytest.raises(OwnNameTaken, match=mine):
        await look(world, "platform")
    shown = {silo["silo"]: silo["identity_key"] for silo in await listed(world, "lender")}
    pins = roster.load(world.home("lender")).followed({"platform": pinned})
    with pytest.raises(ConsentError, match=r"^the key presented for platform is not the one pinned in the policy$"):
        check_key("platform", base64.b64decode(shown["platform"]), pins)


async def test_an_old_roster_is_shown_again(world: World) -> None:
    evil, home = operator(world), world.home("platform")
    old = load_identity(home.identity)
    await rotate(home)
    assert await look(world, "lender") == 3
    evil.set_key("platform", old.public)
    with pytest.raises(RosterForged, match=FORGED + "platform: its list gives this silo a key that was rotated$"):
        await listed(world, "lender")
    evil.append(evil.rows()[1].envelope)  # and so that the log says it too
    why = "entry 3 repeats an enrolment of platform from before its present key$"
    with pytest.raises(RosterForged, match=FORGED + f"platform: {why}"):
        await look(world, "lender")


async def test_a_silo_is_left_out_of_the_list_or_made_up(world: World) -> None:
    server.revoke(world.coordinator, "platform")
    assert [silo["silo"] for silo in await listed(world, "lender")] == ["lender"]
    evil = operator(world)
    evil.rewrite(evil.rows()[:2])  # the revocation is not in the log that others are shown
    home = world.home("lender")
    home.checkpoint.unlink()
    home.roster.unlink()
    with pytest.raises(RosterForged, match=FORGED + "platform: its list leaves this silo out$"):
        await listed(world, "lender")


async def test_a_tls_certificate_in_the_name_of_a_silo(tmp_path: Path) -> None:
    """It opens a connection in that name, and no more: a statement needs the silo's identity key."""
    async with enrolled_world(tmp_path) as world:
        home, spec = world.home("lender"), make_spec(now=utcnow())
        await world.submit(spec, "platform")
        place, request = homes.load(world.coordinator), make_request("lender")
        certificate = ca.issue_silo(place.authority, request.csr, "lender", utcnow())
        operator(world).set_tls_key("lender", ca.spki_hash(request.csr.public_key()))
        (tmp_path / "evil.key").write_bytes(request.key_pem)
        (tmp_path / "evil.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        context = client_context(home.ca.read_text(), tmp_path / "evil.key", tmp_path / "evil.pem")
        own = Diary(tmp_path / "d", "lender", spec.job, spec_digest(spec), create_identity(tmp_path / "other.key"))
        async with CoordinatorClient(world.url, context) as client:
            assert (await client.job(spec.job))["state"] == "disclosed"
            with pytest.raises(CoordinatorRefused, match=r"^the signature on 'refused' is not that of lender$"):
                await own.say(client, "refused", {"reason": "x", "rule": ""})
        refusal = next((tmp_path / "d" / "entries").glob("refused-*")).read_bytes()
        with pytest.raises(ConsentError, match=r"^the signature on 'refused' is not that of lender$"):
            own_chain("lender", [refusal], load_identity(home.identity).public)  # nor would a partner believe it
        with pytest.raises(CoordinatorRefused, match=r"^the TLS key of lender is no longer accepted$"):
            await look(world, "lender")  # and the true one notices that it is locked out


# --- two logs


async def test_two_silos_are_shown_two_logs_and_have_a_job_together(tmp_path: Path) -> None:
    """Real nodes; the operator carries the job's statements between its two logs, and changes nothing in them."""
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(enrolled_world(tmp_path))
        logs = [operator(world).copy(tmp_path / name) for name in ("one", "two")]
        (one, first), (two, second) = [await stack.enter_async_context(log.serving()) for log in logs]
        for name, log in (("shadow", logs[0]), ("ghost", logs[1])):
            await enrol_at(tmp_path, name, log, one if log is logs[0] else two)
        for name, url in (("lender", one), ("platform", two), ("dealer", two)):
            point(world.home(name), url)
        spec = make_spec(now=utcnow())
        await stack.enter_async_context(running_nodes(world, "lender", "platform", "dealer"))
        await world.submit(spec)
        async with asyncio.timeout(BOUND_S), connect(world.home("lender")) as client:
            while (await client.job(spec.job))["state"] not in FINAL:
                await carry(first, second, spec.job)
                await asyncio.sleep(0.05)
            job = await client.job(spec.job)
        assert job["state"] == "failed"
        pattern = (
            r"(lender|platform|dealer) failed at \w+: the log of (\S+) is not the one that (lender|platform|dealer) was"
        )
        found = re.match(pattern + r" shown: the first \d+ entries are others: ", job["reason"])
        assert found, job["reason"]
        assert ("lender" in (found[1], found[3])) != ({"platform", "dealer"} == {found[1], found[3]})
        (folder,) = world.home(found[1]).evidence.iterdir()
        assert sorted(path.name for path in folder.iterdir()) == ["ours", f"signed-by-{found[3]}"]


async def enrol_at(folder: Path, name: str, log: Operator, url: str) -> None:
    init_home(folder / name, name)
    await join(Home(folder / name), url, server.create_token(log.home, name))


async def test_two_logs_meet_in_a_cosigned_checkpoint(world: World, tmp_path: Path) -> None:
    """A witness's line comes to a silo that is shown another log: the two signed checkpoints are the proof."""
    logs = [operator(world).copy(tmp_path / name) for name in ("one", "two")]
    async with AsyncExitStack() as stack:
        (one, _), (two, _) = [await stack.enter_async_context(log.serving()) for log in logs]
        await enrol_at(tmp_path, "shadow", logs[0], one)
        await enrol_at(tmp_path, "ghost", logs[1], two)
        for name, url in (("lender", one), ("platform", two)):
            point(world.home(name), url)
            world.home(name).cosigned.unlink(missing_ok=True)  # long ago
            assert await look(world, name) == 3
        home = world.home("lender")
        async with connect(world.home("platform")) as client:
            theirs = await client.cosigned(1)
        note = home.checkpoint.read_text(encoding="utf-8")
        key = VerifierKey.parse(home.load_enrolment().log_key)
        ours, other = open_checkpoint(note, key), open_checkpoint(theirs, key)
        async with connect(home) as client:
            client.cosigned = lambda _: asyncio.sleep(0, theirs)  # type: ignore[method-assign,assignment]
            with pytest.raises(LogForked, match=FORKED + "platform was shown: the first 3 entries are others: "):
                await watch.look(client, home)
        (folder,) = home.evidence.iterdir()
        kept = {path.name: open_checkpoint(path.read_text(encoding="utf-8"), key) for path in folder.iterdir()}
        assert kept == {"ours": ours, "cosigned": other}  # one log key signed both
        assert (ours.size, ours.root == other.root) == (3, False)


async def test_one_silo_is_shown_an_old_log(tmp_path: Path) -> None:
    """Nothing is wrong with an old checkpoint by itself; its age ends at what the silo itself or a partner said since."""
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(enrolled_world(tmp_path))
        frozen = operator(world).copy(tmp_path / "frozen")
        old, running = await stack.enter_async_context(frozen.serving())
        spec, home = make_spec(now=utcnow()), world.home("lender")
        await world.submit(spec, "platform")
        async with connect(world.home("platform")) as client:
            head = await watch.look(client, world.home("platform"))
        point(home, old)
        assert await look(world, "lender") == 3  # not told from a day on which nothing happens
        async with connect(home) as client:
            now = await watch.look(client, home)
            seen = {"platform": (head.size, head.root)}
            why = "platform was shown: it has 3 entries, and 5 were shown there before; both heads are kept in "
            with pytest.raises(LogForked, match=FORKED + why):
                await checkpoints.check_heads(client, home, now, seen)
        assert running.coordinator.origin == "test/log"


# --- the page about all this


def test_the_page_has_a_row_for_every_test_and_no_other() -> None:
    page = (ROOT / "docs" / "log-threats.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page)
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name
    ours = set(re.findall(r"^(?:async )?def (test_\w+)\(", Path(__file__).read_text(encoding="utf-8"), re.MULTILINE))
    here = {name for path, name in named if path == "tests/silos/test_malicious.py"}
    assert here == ours - {"test_the_page_has_a_row_for_every_test_and_no_other"}
