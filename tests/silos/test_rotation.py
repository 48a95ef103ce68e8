"""A silo's identity key is replaced, over a real coordinator: cut off anywhere, refused, and what the old key is worth."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from coordinator.envelope import Statement, digest, fingerprint
from coordinator.server import list_silos, revoke
from silos import policy, roster, rotation, watch
from silos.cli import main
from silos.client import CoordinatorClient, connect
from silos.config import Home, init_home
from silos.diary import Diary
from silos.enrol import join
from silos.errors import (
    ConfigError,
    CoordinatorRefused,
    CoordinatorUnreachable,
    LogRewritten,
    OwnNameTaken,
)
from silos.identity import Identity, load_identity
from silos.node import Node, only_node
from silos.rotation import rotate
from silos.spec import spec_digest
from silos.times import utcnow
from tests.silos.world import World, coordinator_world, enrolled_world, make_spec, registry


async def pinned(home: Home, pin: str, silo: str = "lender") -> str:
    """The key that a partner, which pinned `pin`, accepts now."""
    async with connect(home) as client:
        await watch.look(client, home)
    return roster.load(home).followed({silo: pin})[silo]


async def test_a_partner_follows_and_the_old_key_says_nothing_more(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        first, _ = await world.enrol("lender"), await world.enrol("platform")
        home, partner = world.home("lender"), world.home("platform")
        old = load_identity(home.identity)
        done = await rotate(home)
        assert (done.old, done.index) == (first, 2)
        assert load_identity(home.identity).fingerprint == done.new != first
        assert not home.next_identity.exists()
        assert home.identity.stat().st_mode & 0o077 == 0
        assert await pinned(partner, first) == done.new
        again = await rotate(home)
        assert [await pinned(partner, pin) for pin in (first, done.new, again.new)] == [again.new] * 3
        assert await pinned(partner, "0" * 64) == "0" * 64
        async with connect(home) as client:
            (lender, _) = await watch.roster(client, home)
            assert lender["fingerprint"] == again.new
            spec = make_spec().document()
            entries = [_said(old, event, spec, body) for event, body in _first(spec)]
            with pytest.raises(CoordinatorRefused, match=r"^the signature on 'proposed' is not that of lender$"):
                await client.submit(entries)


def _first(spec: dict) -> list[tuple[str, dict]]:
    disclosure = {"v": 1, "spec_digest": digest(spec)}
    return [("proposed", {"spec": spec}), ("disclosed", {"disclosure": disclosure})]


def _said(identity: Identity, event: str, spec: dict, body: dict) -> bytes:
    time = "2026-03-01T12:00:00Z"
    return identity.seal(Statement(event, spec["job"], digest(spec), "lender", 0, "", time, body))


CUTS = ("key", "statement", "posted", "seen", "renamed")


@pytest.mark.parametrize("cut", CUTS)
async def test_a_rotation_that_is_cut_off_goes_on(tmp_path: Path, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends after each step; the next run leads to the one key that the first one drew."""

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    async def lost(self: CoordinatorClient, entry: bytes) -> int:
        await real_rotate(self, entry)
        raise CoordinatorUnreachable("the answer was lost")

    real_rotate = CoordinatorClient.rotate
    async with coordinator_world(tmp_path) as world:
        first, _ = await world.enrol("lender"), await world.enrol("platform")
        home = world.home("lender")
        with monkeypatch.context() as patch:
            if cut == "key":
                patch.setattr(rotation, "_own", killed)
            elif cut == "statement":
                patch.setattr(rotation, "_post", killed)
            elif cut == "posted":
                patch.setattr(CoordinatorClient, "rotate", lost)
            elif cut == "seen":
                patch.setattr(Path, "replace", _replace_but(home.next_identity, Killed))
            else:
                patch.setattr(rotation, "sync_directory", _sync_but(home, Killed))
            with pytest.raises((Killed, CoordinatorUnreachable)):
                await rotate(home)
        drafted = load_identity(home.next_identity if cut != "renamed" else home.identity).fingerprint
        if cut in ("posted", "seen"):
            async with connect(home) as client:
                sentence = "^the rotation of the key of lender is not finished; run 'accord silo rotate' again$"
                with pytest.raises(ConfigError, match=sentence):
                    await watch.look(client, home)
        if cut != "renamed":
            done = await rotate(home)
            assert (done.old, done.new, done.index) == (first, drafted, 2)
        assert load_identity(home.identity).fingerprint == drafted
        assert await pinned(world.home("platform"), first) == drafted
        async with connect(home) as client:
            assert (await watch.look(client, home)).size == 3
        after = await rotate(home)  # nothing that was left behind stands in the way
        assert (after.old, after.index) == (drafted, 3)


def _replace_but(path: Path, error: type[BaseException]):
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self == path:
            raise error
        return real(self, target)

    return replace


def _sync_but(home: Home, error: type[BaseException]):
    real = rotation.sync_directory

    def sync(path: Path) -> None:
        real(path)
        if not home.next_identity.exists():
            raise error

    return sync


async def test_a_rotation_waits_for_the_jobs_that_the_old_key_consented_to(tmp_path: Path) -> None:
    async with enrolled_world(tmp_path) as world:
        home, spec = world.home("lender"), make_spec(now=utcnow())
        first = load_identity(home.identity)
        with only_node(home), pytest.raises(ConfigError, match=r"^another node serves .*lender already$"):
            await rotate(home)
        await world.submit(spec, "platform")
        own = Diary(home.job(spec.job), "lender", spec.job, spec_digest(spec), first)
        consent = own.write("consented", {"disclosure_digest": "0" * 64})
        sentence = (
            f"lender spoke with its present key about jobs that are not over: {spec.job}; wait for them, or let them"
        )
        with pytest.raises(ConfigError, match=f"^{sentence} fail with --force$"):
            await rotate(home)
        assert load_identity(home.identity).fingerprint == first.fingerprint
        done = await rotate(home, force=True)
        assert done.old == first.fingerprint
        async with connect(home) as client:
            with pytest.raises(CoordinatorRefused, match=r"^the signature on 'consented' is not that of lender$"):
                await client.post_entry(spec.job, consent.read_bytes())


async def test_what_the_coordinator_does_not_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with coordinator_world(tmp_path) as world:
        first = await world.enrol("lender")
        await world.enrol("platform")
        home = world.home("lender")
        theirs = load_identity(world.home("platform").identity)
        with monkeypatch.context() as patch:  # the proof is by another key than the one that takes over
            patch.setattr(Identity, "public_b64", property(lambda _, text=theirs.public_b64: text))
            with pytest.raises(
                CoordinatorRefused, match=r"^the proof is not the new key's signature over the silo's name"
            ):
                await rotate(home)
        home.next_identity.write_bytes(world.home("platform").identity.read_bytes())
        with pytest.raises(CoordinatorRefused, match=r"^the identity key was used before$"):
            await rotate(home)
        home.next_identity.unlink()
        with monkeypatch.context() as patch:  # signed by a key that is not the silo's

            def other(path: Path) -> Identity:
                return theirs if path == home.identity else load_identity(path)

            patch.setattr(rotation, "load_identity", other)
            with pytest.raises(CoordinatorRefused, match=r"^the proof is not the new key's signature"):
                await rotate(home)
        assert fingerprint_of(world, "lender") == first
        done = await rotate(home)
        assert fingerprint_of(world, "lender") == done.new


def fingerprint_of(world: World, name: str) -> str:
    return next(fingerprint(s.identity_key) for s in list_silos(world.coordinator) if s.name == name)


async def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def accord(*words: str) -> Any:
        with pytest.raises(SystemExit) as done:
            await asyncio.to_thread(main, [*words, "--json"])
        assert done.value.code == 0
        return json.loads(capsys.readouterr().out)

    async with coordinator_world(tmp_path) as world:
        pins = {name: await world.enrol(name) for name in ("lender", "platform", "dealer")}
        homes = {name: str(world.home(name).root) for name in pins}
        policy.pin(world.home("platform").policy, "lender", pins["lender"])
        policy.pin(world.home("platform").policy, "dealer", "0" * 64)
        before = await accord("silo", "partners", "--home", homes["platform"])
        assert {row["silo"]: row["pinned"] for row in before} == {
            "lender": "yes",
            "platform": "no",
            "dealer": "another key",
        }
        done = await accord("silo", "rotate", "--home", homes["lender"])
        assert done == {
            "silo": "lender",
            "old_fingerprint": pins["lender"],
            "fingerprint": done["fingerprint"],
            "index": 3,
        }
        after = {row["silo"]: row for row in await accord("silo", "partners", "--home", homes["platform"])}
        assert after["lender"]["fingerprint"] == done["fingerprint"]
        assert after["lender"]["pinned"] == "rotated from the pinned key; compare it and pin it again"


async def test_a_revocation_is_in_the_log_with_its_reason(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        for name in ("lender", "platform", "dealer"):
            await world.enrol(name)
        home = world.home("platform")
        revoke(world.coordinator, "lender", "the laptop was stolen")
        revoke(world.coordinator, "lender", "the laptop was stolen")  # once is enough
        revoke(world.coordinator, "dealer")
        async with connect(home) as client:
            assert [silo["silo"] for silo in await watch.roster(client, home)] == ["platform"]
        known = roster.load(home)
        assert [name for name, member in known.silos.items() if member.revoked] == ["lender", "dealer"]
        kept = json.loads(home.roster.read_text(encoding="utf-8"))
        assert (kept["size"], len(kept["entries"])) == (5, 5)
        async with connect(world.home("lender")) as client:
            with pytest.raises(CoordinatorRefused, match=r"^lender has been revoked$"):
                await watch.look(client, world.home("lender"))
        with pytest.raises(CoordinatorRefused, match="the identity key was revoked; make another one"):
            await join(world.home("lender"), world.url, world.token("lender", allow_replace=True))
        anew = World(tmp_path / "anew", world.url, world.coordinator).home("lender")
        anew.root.parent.mkdir()
        init_home(anew.root, "lender")
        await join(anew, world.url, world.token("lender", allow_replace=True))
        async with connect(anew) as client:
            await watch.look(client, anew)


async def test_a_name_that_went_to_another_key_is_told_until_the_silo_joins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator lets another home take the name, by mistake or not; the old home notices as soon as it can look."""
    async with coordinator_world(tmp_path) as world:
        await world.enrol("lender")
        home = world.home("lender")
        async with connect(home) as client:
            await watch.look(client, home)
            other = World(tmp_path / "other", world.url, world.coordinator)
            other.root.mkdir()
            init_home(other.home("lender").root, "lender")
            await join(other.home("lender"), world.url, world.token("lender", allow_replace=True))
            with pytest.raises(CoordinatorRefused, match=r"^the TLS key of lender is no longer accepted$"):
                await watch.look(client, home)
        tls = [
            (home.tls_key, other.home("lender").tls_key),
            (home.tls_certificate, other.home("lender").tls_certificate),
        ]
        kept = [mine.read_bytes() for mine, _ in tls]
        for mine, theirs in tls:  # a coordinator that goes on talking to the old home does not hide it
            mine.write_bytes(theirs.read_bytes())
        with pytest.raises(
            OwnNameTaken, match=r"^lender no longer speaks for itself in the log of https://127\.0\.0\.1"
        ):
            await Node(home, registry).run(asyncio.Event())
        for (mine, _), raw in zip(tls, kept, strict=True):
            mine.write_bytes(raw)
        monkeypatch.setattr("silos.enrol.utcnow", lambda: utcnow() + dt.timedelta(seconds=5))  # not the same enrolment
        await join(home, world.url, world.token("lender", allow_replace=True))
        async with connect(home) as client:
            assert (await watch.look(client, home)).size == 3
        ghost = home.load_enrolment().model_dump_json().replace('"lender"', '"ghost"')
        home.coordinator.write_text(ghost)
        with pytest.raises(LogRewritten, match="it does not hold the enrolment of ghost"):
            watch.check_own_name(home, roster.load(home))
