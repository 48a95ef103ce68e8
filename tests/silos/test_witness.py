"""Silos as witnesses over a real coordinator: what is cosigned, how often, and which lines count."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from pathlib import Path

import pytest

from coordinator import server
from coordinator.cosign import WitnessKey, cosignatures, verify_cosignature
from coordinator.note import Checkpoint, VerifierKey, open_checkpoint
from silos import roster, watch, witness
from silos.client import CoordinatorClient, connect
from silos.config import Home
from silos.errors import CoordinatorRefused, LogRewritten
from silos.identity import create_identity, load_identity
from silos.rotation import rotate
from silos.times import utcnow
from tests.silos.malice import Operator
from tests.silos.world import BOUND_S, World, coordinator_world


def long_ago(home: Home) -> None:
    """As if the last cosignature were older than LEAST_BETWEEN."""
    before = (utcnow() - dt.timedelta(hours=1)).timestamp()
    os.utime(home.cosigned, (before, before))


async def look(world: World, name: str) -> int:
    home = world.home(name)
    async with connect(home) as client:
        return (await watch.look(client, home)).size


async def cosigned(world: World, name: str, least: int) -> str:
    async with connect(world.home(name)) as client:
        return await client.cosigned(least)


def names(note: str) -> list[str]:
    return [line.name for line in cosignatures(note)]


async def test_every_silo_cosigns_what_it_has_verified(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        for name in ("lender", "platform"):
            await world.enrol(name)
        with pytest.raises(CoordinatorRefused, match=r"^no checkpoint is cosigned by 1 witnesses yet$"):
            await cosigned(world, "lender", 1)
        for name in ("lender", "platform"):
            await look(world, name)
        home = world.home("lender")
        note = await cosigned(world, "lender", 2)
        assert names(note) == ["lender", "platform"]
        key = VerifierKey.parse(home.load_enrolment().log_key)
        assert open_checkpoint(note, key).size == 2
        for name in names(note):
            witnessing = WitnessKey(name, load_identity(world.home(name).identity).public)
            made = verify_cosignature(note, witnessing)
            assert abs(made.time - utcnow().timestamp()) < 3600
            kept = world.home(name).cosigned.read_text(encoding="utf-8")
            assert made.line in kept.splitlines()
        async with connect(home) as client:
            assert names(await client.checkpoint()) == ["lender", "platform"]  # the newest one is cosigned too


async def test_not_more_often_than_it_should_and_never_a_smaller_one(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        await world.enrol("lender")
        home = world.home("lender")
        assert await look(world, "lender") == 1
        os.utime(home.cosigned, (utcnow().timestamp() + 3600,) * 2)
        first = home.cosigned.read_text(encoding="utf-8")
        await world.enrol("platform")
        assert await look(world, "lender") == 2
        assert home.cosigned.read_text(encoding="utf-8") == first
        long_ago(home)
        assert await look(world, "lender") == 2
        second = home.cosigned.read_text(encoding="utf-8")
        key = VerifierKey.parse(home.load_enrolment().log_key)
        assert open_checkpoint(second, key).size == 2
        long_ago(home)
        assert await look(world, "lender") == 2
        assert home.cosigned.read_text(encoding="utf-8") == second
        assert names(await cosigned(world, "lender", 1)) == ["lender"]


async def test_witnesses_meet_at_the_same_checkpoint(tmp_path: Path) -> None:
    """Each cosigns what the others did before it cosigns what is new, so that some checkpoint has the lines of all."""
    async with coordinator_world(tmp_path) as world:
        await world.enrol("lender")
        await look(world, "lender")
        await world.enrol("platform")
        assert await look(world, "platform") == 2
        first = await cosigned(world, "lender", 2)
        assert (names(first), "\n1\n" in first) == (["lender", "platform"], True)
        newest = await cosigned(world, "lender", 1)
        assert (names(newest), "\n2\n" in newest) == (["platform"], True)


async def test_the_line_of_another_key_does_not_count(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        for name in ("lender", "platform"):
            await world.enrol(name)
        for name in ("lender", "platform"):
            await look(world, name)
        home = world.home("lender")
        known = roster.load(home)
        note = await cosigned(world, "lender", 1)
        forged = create_identity(tmp_path / "other.key").cosign(note, "ghost", int(utcnow().timestamp()))
        async with connect(home) as client:
            found = await witness.fetch(client, home, known)
            assert found is not None
            assert list(found.by) == ["platform"]
            for wrong in (
                note.replace("\u2014 platform ", "\u2014 lender "),
                "\n".join([*note.splitlines()[:5], forged, ""]),
                note.replace("\n2\n", "\n3\n"),
                "nonsense",
            ):
                client.cosigned = lambda _, text=wrong: asyncio.sleep(0, text)  # type: ignore[method-assign,misc]
                assert await witness.fetch(client, home, known) is None


async def test_what_the_coordinator_takes_for_a_cosignature(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        for name in ("lender", "platform"):
            await world.enrol(name)
        home = world.home("lender")
        async with connect(home) as client:
            note = await client.checkpoint()
            platform = load_identity(world.home("platform").identity)
            line = platform.cosign(note, "platform", int(utcnow().timestamp()))
            for text, why in (
                (note, "the checkpoint is not cosigned by lender"),
                (note + line + "\n", "the checkpoint is not cosigned by lender"),
                ("nonsense", "the note has no signatures"),
            ):
                with pytest.raises(CoordinatorRefused, match=f"^{why}$"):
                    await client.cosign(text)


async def test_a_node_goes_on_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.05)
    async with coordinator_world(tmp_path) as world:
        for name in ("lender", "platform"):
            await world.enrol(name)
        home = world.home("lender")
        await look(world, "lender")
        async with connect(home) as client:
            keeping = asyncio.create_task(watch.keep(client, home))
            Operator(world.coordinator).rewrite(Operator(world.coordinator).rows()[:1])
            with pytest.raises(LogRewritten, match=r"it has 1 entries, and it had 2$"):
                await asyncio.wait_for(keeping, BOUND_S)


async def test_one_refusal_is_let_pass_and_two_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.05)
    async with coordinator_world(tmp_path) as world:
        await world.enrol("platform")
        home, refusals = world.home("platform"), []

        async def refuse_once(client: CoordinatorClient, home: Home) -> Checkpoint:
            refusals.append(home)
            if len(refusals) == 1:
                raise CoordinatorRefused(403, "the TLS key of platform is no longer accepted")
            server.revoke(world.coordinator, "platform")
            return await real_look(client, home)

        real_look = watch.look
        monkeypatch.setattr(watch, "look", refuse_once)
        async with connect(home) as client:
            with pytest.raises(CoordinatorRefused, match=r"^platform has been revoked$"):
                await asyncio.wait_for(watch.keep(client, home), BOUND_S)
        assert len(refusals) == 2


async def test_a_new_key_cosigns_under_the_same_name(tmp_path: Path) -> None:
    async with coordinator_world(tmp_path) as world:
        await world.enrol("lender")
        home = world.home("lender")
        await look(world, "lender")
        done = await rotate(home)
        long_ago(home)
        assert await look(world, "lender") == 2
        note = await cosigned(world, "lender", 1)
        verify_cosignature(note, WitnessKey("lender", load_identity(home.identity).public))
        assert load_identity(home.identity).fingerprint == done.new
