"""The process, or the server of the database, dies between every two writes; and every write of a commit is lost in turn.

docs/log.md has the table of what is found afterwards; these tests are what it says.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from coordinator import home as homes
from coordinator import merkle
from coordinator.errors import NotAuthenticated, Unavailable
from coordinator.home import Home
from coordinator.note import verifier_key
from coordinator.server import init_home
from coordinator.store import Store
from tests.coordinator.crashes import Round, Stepping, check_round, connect, dump, head, killer, put_on_roster
from tests.coordinator.postgres_server import PostgresServer
from tests.coordinator.world import ORIGIN

WRITES = ("add_token", "enrol", "submit", "consent", "cosign", "rotate", "revoke")


@pytest.fixture
def home(tmp_path: Path, database: str) -> Home:
    init_home(tmp_path / "c", ["localhost"], ORIGIN, database)
    home = homes.load(tmp_path / "c")
    with closing(home.open_store()) as store:
        put_on_roster(store)
    return home


def stepping_store(home: Home, step: Callable[[str], None]) -> Store:
    return Store(Stepping(connect(home), step), verifier_key(home.origin, home.log_key), home.sign_head)


def in_a_child(work: Callable[[int], None]) -> tuple[list[dict], int]:
    """Run `work` in a process of its own; returns what it said through the pipe, line by line, and how it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(writer)
            os._exit(0)
        finally:
            os._exit(9)  # an assertion in the child
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = [json.loads(line) for line in pipe if line.endswith("\n")]
    return said, os.waitpid(child, 0)[1]


def play(this: Round, store: Store, pipe: int) -> None:
    """All writes of a round, each one acknowledged when it returned."""
    for name in WRITES:
        done = getattr(this, name)(store)
        logged = (
            [(index, merkle.leaf_hash(envelope).hex()) for index, envelope in done] if isinstance(done, list) else done
        )
        os.write(pipe, json.dumps({"write": name, "done": logged}).encode() + b"\n")


def play_until(home: Home, at: int, this: Round, pipe: int) -> None:
    play(this, stepping_store(home, killer(at)), pipe)


def check_after_a_crash(home: Home, this: Round, said: list[dict], before: tuple[int, bytes], acked: dict) -> None:
    acked |= {index: leaf for line in said if isinstance(line["done"], list) for index, leaf in line["done"]}
    with closing(home.open_store()) as store:  # checks that head, entries and tree fit each other
        size, root = head(home, store)
        merkle.verify_consistency(before[0], size, store.log.consistency(before[0], size), before[1], root)
        for index, leaf in acked.items():
            assert store.log.stored(0, index).hex() == leaf, "an acknowledged entry is at its index"
        there = check_round(store, this)
        for line in said:
            assert there.get(line["write"], True), f"{line['write']} was acknowledged"
            if line["write"] == "cosign":
                assert "\u2014 lender " in store.cosigned_note(1)
        # Whoever got no answer asks again, and gets the old index or a new one; never a second entry.
        if not there["add_token"]:
            this.add_token(store)
        if there["enrol"]:
            with pytest.raises(NotAuthenticated, match="used already"):
                this.enrol(store)
        else:
            this.enrol(store)
        for name in ("submit", "consent", "rotate"):
            old = store.log.size()
            assert all(index < old for index, _ in getattr(this, name)(store)) == there[name]
        if not there["revoke"]:
            this.revoke(store)
        assert all(check_round(store, this).values())


def test_the_process_is_killed_at_every_step_of_every_write(home: Home) -> None:
    acked: dict[int, str] = {}
    with closing(home.open_store()) as store:
        Round(0, home).submit(store)  # no proof leads on from the empty tree
    at, status = 0, signal.SIGKILL
    while status == signal.SIGKILL:
        at += 1
        this = Round(at, home)
        with closing(home.open_store()) as store:
            before = head(home, store)
        said, status = in_a_child(partial(play_until, home, at, this))
        assert status in (0, signal.SIGKILL), "killed, or done"
        check_after_a_crash(home, this, said, before, acked)
    assert at > 40, f"only {at} steps were cut"
    assert [line["write"] for line in said] == list(WRITES)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
@pytest.mark.parametrize("moment", ["before INSERT INTO entry", "before COMMIT", "after COMMIT"])
def test_the_server_of_the_database_is_killed(home: Home, postgres: PostgresServer, moment: str) -> None:
    """The first of these steps in a batch; the coordinator says that it cannot, and goes on when the server is back."""
    acked: dict[int, str] = {}
    this, killed = Round(1, home), []
    with closing(home.open_store()) as store:
        this.add_token(store)
        this.enrol(store)
        this.submit(store)
        before = head(home, store)

    def step(name: str) -> None:
        if name == moment and not killed:
            killed.append(postgres.kill())

    with closing(stepping_store(home, step)) as store:
        works = [partial(this.consent_one, store, number) for number in range(2)]
        outcomes = store.together(works)
        assert {type(outcome).__name__ for outcome in outcomes} == (
            {"int"} if moment == "after COMMIT" else {"Unavailable"}
        )
        leaves = [merkle.leaf_hash(entry.envelope).hex() for entry in this.consents]
        said = [{"write": "consent", "done": list(zip(outcomes, leaves))}]
        postgres.start()
        assert store.together(works) == [before[0], before[0] + 1]
        this.consent_one(store, 2)
    check_after_a_crash(home, this, said if moment == "after COMMIT" else [], before, acked)


# --- SQLite, with writes lost


FRAME, PAGE, WAL_HEADER = 24, 4096, 32


def filled(wal: bytes) -> int:
    """Where the frames of the WAL's present life end: they bear the salt that is in its header."""
    end = WAL_HEADER if wal else 0
    while wal[end:] and wal[end + 8 : end + 16] == wal[16:24]:
        end += FRAME + PAGE
    return end


def pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Each write that SQLite makes of a WAL from `start` to `end`: its header, and each frame's header and page."""
    if start == 0:
        yield 0, WAL_HEADER
        start = WAL_HEADER
    while start < end:
        yield start, start + FRAME
        yield start + FRAME, start + FRAME + PAGE
        start += FRAME + PAGE


def images(old: bytes, new: bytes, writes: list[tuple[int, int]]) -> Iterator[bytes]:
    """A file as a power cut may leave it when nothing of these writes was synced.

    Each write is the last that reached the disk, whole or by half; and each one alone is lost.
    """
    old = old.ljust(len(new), b"\0")
    for start, end in writes:
        middle = (start + end) // 2
        yield new[:start] + old[start:]
        yield new[:middle] + old[middle:]
        yield new[:start] + old[start:end] + new[end:]
        yield new[:end] + old[end:]


def recovered(home: Home, place: Path, db: bytes, wal: bytes) -> list:
    """What the store finds in these two files."""
    (place / "coordinator.db").write_bytes(db)
    (place / "coordinator.db-wal").write_bytes(wal)
    (place / "coordinator.db-shm").unlink(missing_ok=True)
    image = homes.Home(place, home.origin, home.hosts, home.authority, home.log_key)
    with closing(image.open_store()) as store:
        return dump(store)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_every_write_of_a_commit_is_lost_in_turn(home: Home, tmp_path: Path) -> None:
    place = tmp_path / "image"
    place.mkdir()
    this, file, wal = Round(1, home), home.path / "coordinator.db", home.path / "coordinator.db-wal"
    with closing(home.open_store()) as store:
        for name in WRITES:
            if name == "submit":  # from here on the WAL begins anew
                store._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            db, old, before = file.read_bytes(), wal.read_bytes(), dump(store)
            getattr(this, name)(store)
            new, after = wal.read_bytes(), dump(store)
            start = 0 if name == "submit" else filled(old)
            end = filled(new)
            assert before != after
            for image in images(old, new, list(pieces(start, end))):
                assert recovered(home, place, db, image) == (after if image == new else before), name


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_every_write_of_a_checkpoint_is_lost_in_turn(home: Home, tmp_path: Path) -> None:
    """SQLite copies the WAL into the file now and then; until that is synced the WAL has everything."""
    place = tmp_path / "image"
    place.mkdir()
    this, file, wal = Round(1, home), home.path / "coordinator.db", home.path / "coordinator.db-wal"
    with closing(home.open_store()) as store:
        for name in WRITES:
            getattr(this, name)(store)
        old, state = file.read_bytes(), dump(store)
        store._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        new = file.read_bytes()
        old = old.ljust(len(new), b"\0")
        pages = [(at, at + PAGE) for at in range(0, len(new), PAGE) if old[at : at + PAGE] != new[at : at + PAGE]]
        assert len(pages) > 5
        for image in images(old, new, pages):
            assert recovered(home, place, image, wal.read_bytes()) == state


def test_a_commit_whose_answer_is_lost_is_answered_when_it_is_asked_again(home: Home) -> None:
    this = Round(1, home)
    with closing(home.open_store()) as store:
        this.submit(store)

    lost = []

    def step(name: str) -> None:
        if name == "after COMMIT" and not lost:
            lost.append(name)
            raise Unavailable("the database cannot be used now: the connection was lost")

    with closing(stepping_store(home, step)) as store:
        works = [partial(this.consent_one, store, number) for number in range(3)]
        assert [str(outcome) for outcome in store.together(works)] == [
            "the database cannot be used now: the connection was lost"
        ] * 3
        assert store.together(works) == [2, 3, 4]
