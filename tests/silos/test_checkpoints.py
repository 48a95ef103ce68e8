"""The checkpoint that a silo keeps: honest growth passes, every other log is refused, and a node stops at one."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator import server
from coordinator.note import Checkpoint
from silos.checkpoints import LogHead, check_growth, follow, save
from silos.client import CoordinatorClient
from silos.config import Enrolment, Home, init_home
from silos.enrol import join
from silos.errors import ConfigError, CoordinatorRefused, LogRewritten
from silos.node import Node
from silos.validation import write_private
from tests.silos import bundles
from tests.silos.world import World, registry

URL = "https://log.example:8443"
LOG = [f"entry {n}".encode() for n in range(12)]
OTHER = [b"another past", *LOG[1:]]


@dataclass
class Log:
    """A log behind the two calls; proves growth of what it has now, whatever it had before."""

    entries: list[bytes]
    signer: str = "log"

    async def checkpoint(self) -> str:
        return bundles.checkpoint(self.entries, self.signer)

    async def consistency(self, first: int, second: int) -> list[bytes]:
        return bundles.growth(first, self.entries[:second])


class Mute(Log):
    async def consistency(self, first: int, second: int) -> list[bytes]:
        raise CoordinatorRefused(404, "there is no proof")


class Closed(Log):
    async def consistency(self, first: int, second: int) -> list[bytes]:
        raise CoordinatorRefused(403, "lender has been revoked")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    init_home(tmp_path / "lender", "lender")
    place = Home(tmp_path / "lender")
    enrolment = Enrolment(url=URL, log_key=bundles.vkey(), origin=bundles.ORIGIN, silo="lender")
    write_private(place.coordinator, enrolment.model_dump_json())
    return place


def look(log: LogHead, home: Home) -> int:
    return asyncio.run(follow(log, home)).size


def refused(log: LogHead, home: Home, why: str) -> None:
    """The sentence names the log, and what was kept stays."""
    before = home.checkpoint.read_bytes() if home.checkpoint.exists() else None
    with pytest.raises(LogRewritten, match=f"^the log of {URL} has been rewritten: {why}"):
        look(log, home)
    assert (home.checkpoint.read_bytes() if home.checkpoint.exists() else None) == before


def test_a_log_that_grows_is_followed(home: Home) -> None:
    for size in (1, 2, 2, 3, 7, 8, 8, 12):
        assert look(Log(LOG[:size]), home) == size
        assert home.checkpoint.read_text(encoding="utf-8") == bundles.checkpoint(LOG[:size])
    assert home.checkpoint.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("size", [1, 7, 8])
def test_every_other_log_is_refused(home: Home, size: int) -> None:
    look(Log(LOG[:size]), home)
    refused(Log(OTHER[:size]), home, f"it does not lead on from the {size} entries that it had: two trees of one size")
    refused(Log(OTHER), home, f"it does not lead on from the {size} entries that it had: the consistency proof leads")
    refused(Log(LOG[: size - 1]), home, f"it has {size - 1} entries, and it had {size}$")
    refused(Log(LOG, "mallory"), home, "its checkpoint is not by the log key of our enrolment: ")
    refused(Mute(LOG), home, "it cannot prove that it kept its first entries: there is no proof")
    with pytest.raises(CoordinatorRefused, match="lender has been revoked"):
        look(Closed(LOG), home)
    assert look(Log(LOG), home) == len(LOG)


def test_the_first_look_wants_our_enrolment_and_the_right_key(home: Home) -> None:
    refused(Log([]), home, "it has 0 entries, and it had 1")
    refused(Log(LOG, "mallory"), home, "its checkpoint is not by the log key")
    assert not home.checkpoint.exists()
    check_growth(None, Checkpoint(bundles.ORIGIN, 1, bundles.tree(LOG[:1])), [], URL)


@pytest.mark.parametrize("text", [b"", b"nonsense", b"\xff", bundles.checkpoint(LOG, "mallory").encode()])
def test_a_kept_checkpoint_that_is_none_is_no_reason_to_trust_the_log(home: Home, text: bytes) -> None:
    home.checkpoint.write_bytes(text)
    with pytest.raises(ConfigError, match=r"checkpoint is no checkpoint of the log of https://log\.example"):
        look(Log(LOG), home)
    assert home.checkpoint.read_bytes() == text


def test_a_checkpoint_is_saved_only_under_the_log_key(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "kept"
    with pytest.raises(LogRewritten):
        asyncio.run(save(Log(LOG, "mallory"), home.load_enrolment(), target))
    assert not target.exists()
    assert asyncio.run(save(Log(LOG), home.load_enrolment(), target)).size == len(LOG)
    assert target.read_text(encoding="utf-8") == bundles.checkpoint(LOG)


def test_the_real_client_can_be_asked() -> None:
    for name in ("checkpoint", "consistency"):
        assert asyncio.iscoroutinefunction(getattr(CoordinatorClient, name))
        assert asyncio.iscoroutinefunction(getattr(LogHead, name))


async def test_a_node_stops_when_the_log_is_rolled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator restores an old copy of the database while the node is away for a moment."""
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def following(client: LogHead, home: Home) -> Checkpoint:
        head = await follow(client, home)
        seen.put_nowait(head.size)
        return head

    monkeypatch.setattr("silos.checkpoints.follow", following)
    place, older = tmp_path / "coordinator", tmp_path / "older.db"
    server.init_home(place, ["127.0.0.1"], "test/log")
    home = Home(tmp_path / "lender")
    init_home(home.root, "lender")
    async with server.running(place, "127.0.0.1", 0) as running:
        port = running.port
        world = World(tmp_path, f"https://127.0.0.1:{port}", place)
        await join(home, world.url, world.token("lender"))
    shutil.copy(place / "coordinator.db", older)
    async with server.running(place, "127.0.0.1", port):
        node = asyncio.create_task(Node(home, registry).run(asyncio.Event()))
        assert await asyncio.wait_for(seen.get(), 20) == 1
        await world.enrol("platform")
    async with server.running(place, "127.0.0.1", port):  # the node has come back, and the log has grown
        assert await asyncio.wait_for(seen.get(), 20) == 2
    shutil.copy(older, place / "coordinator.db")
    async with server.running(place, "127.0.0.1", port):
        with pytest.raises(LogRewritten, match="it has 1 entries, and it had 2"):
            await asyncio.wait_for(node, 60)
        with pytest.raises(LogRewritten, match=f"^the log of {world.url} has been rewritten"):
            await Node(home, registry).run(asyncio.Event())
    assert "\n2\n" in home.checkpoint.read_text(encoding="utf-8")
