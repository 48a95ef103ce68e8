"""Writes that share a commit: each is answered for itself, after the commit; and several coordinators on one database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from coordinator import home as homes
from coordinator import merkle, writing
from coordinator.errors import Conflict, Corrupt, Unavailable
from coordinator.home import Home, HomeError
from coordinator.log import Entry
from coordinator.note import open_checkpoint, verifier_key
from coordinator.server import init_home
from coordinator.store import Store
from coordinator.writing import StoreThread
from tests.coordinator.crashes import Round, dump, put_on_roster
from tests.coordinator.world import ORIGIN, START, TestSilo, disclosure_of, make_spec

WAIT_S = 60


@pytest.fixture
def home(tmp_path: Path, database: str) -> Home:
    init_home(tmp_path / "c", ["localhost"], ORIGIN, database)
    home = homes.load(tmp_path / "c")
    with closing(home.open_store()) as store:
        put_on_roster(store)
    return home


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with closing(home.open_store()) as opened:
        yield opened


@pytest.fixture
async def thread(home: Home) -> AsyncIterator[StoreThread]:
    opened = StoreThread(home.open_store)
    await opened.start()
    yield opened
    await opened.stop()


def commits(store: Store) -> list[int]:
    """The sizes that get signed from now on, in order."""
    sign, sizes = store.log._sign, []

    def counted(size: int, root: bytes) -> str:
        sizes.append(size)
        return sign(size, root)

    store.log._sign = counted
    return sizes


def test_a_batch_is_one_commit_and_one_head(home: Home, store: Store) -> None:
    rounds, sizes = [Round(number, home) for number in range(4)], commits(store)
    outcomes = store.together([partial(one.submit, store) for one in rounds])
    assert [[index for index, _ in outcome] for outcome in outcomes] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert sizes == [8]
    seen = open_checkpoint(store.log.checkpoint(), verifier_key(ORIGIN, home.log_key))
    for index, envelope in enumerate(store.log.envelopes(0, 8)):
        proof = store.log.inclusion(index, 8)
        merkle.verify_inclusion(merkle.leaf_hash(envelope), index, 8, proof, seen.root)


def test_a_refused_write_takes_nothing_with_it_and_leaves_nothing(home: Home, store: Store) -> None:
    """The refused one is a job whose first entry is fine and whose second is not: half of it had been written."""
    first, last, spec, thief = Round(1, home), Round(2, home), make_spec(), TestSilo("lender")
    half = [
        Entry.parse(Round(3, home).first[0].envelope),
        Entry.parse(thief.say("disclosed", spec, {"disclosure": disclosure_of(spec)}, seq=1)),
    ]
    outcomes = store.together(
        [partial(first.submit, store), partial(store.submit, half, START), partial(last.submit, store)]
    )
    assert str(outcomes[1]) == "the signature on 'disclosed' is not that of lender"
    assert [[index for index, _ in outcome] for outcome in (outcomes[0], outcomes[2])] == [[0, 1], [2, 3]]
    assert store.job(half[0].sealed.statement.job) is None
    assert store.log.envelopes(0, 9) == [entry.envelope for entry in (*first.first, *last.first)]
    store.log.check(partial(open_checkpoint, key=verifier_key(ORIGIN, home.log_key)))


def test_the_same_entry_twice_in_a_batch_gets_one_index(home: Home, store: Store) -> None:
    this = Round(1, home)
    assert store.together([partial(this.submit, store)] * 3) == [this.submit(store)] * 3
    outcomes = store.together([partial(this.consent_one, store, 0), partial(this.consent_one, store, 0)])
    assert outcomes == [2, 2]
    assert store.log.size() == 3


def test_a_key_that_changes_within_a_batch_changes_for_the_rest_of_it(home: Home, store: Store) -> None:
    this = Round(1, home)
    this.add_token(store)
    this.enrol(store)
    spec = make_spec()
    said = [
        this.silo.say("proposed", spec, {"spec": spec}),
        this.silo.say("disclosed", spec, {"disclosure": disclosure_of(spec)}),
    ]
    entries = [Entry.parse(envelope) for envelope in said]
    works = [partial(store.submit, entries, START), partial(this.rotate, store)]
    cancelled = Entry.parse(this.silo.say("cancelled", spec, {"reason": "x"}))
    outcomes = store.together([*works, partial(store.append, cancelled, START)])
    assert str(outcomes[2]) == "the signature on 'cancelled' is not that of silo-1"


def test_a_write_that_cannot_be_done_does_not_keep_the_others_from_it(home: Home, store: Store) -> None:
    """An error that nobody foresaw breaks the commit; each write is then done alone."""
    first, last = Round(1, home), Round(2, home)

    def broken() -> None:
        raise KeyError("unforeseen")

    outcomes = store.together([partial(first.submit, store), broken, partial(last.submit, store)])
    assert isinstance(outcomes[1], KeyError)
    assert [[index for index, _ in outcome] for outcome in (outcomes[0], outcomes[2])] == [[0, 1], [2, 3]]


def test_nothing_is_left_of_a_batch_whose_commit_fails(
    home: Home, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    this, before = Round(1, home), dump(store)

    def full() -> None:
        raise Unavailable("the database cannot be used now: disk full")

    monkeypatch.setattr(store._db, "commit", full)
    outcomes = store.together([partial(this.submit, store), partial(this.add_token, store)])
    assert [str(outcome) for outcome in outcomes] == ["the database cannot be used now: disk full"] * 2
    assert dump(store) == before
    monkeypatch.undo()
    assert [index for index, _ in this.submit(store)] == [0, 1]


async def test_writes_that_wait_share_a_commit_and_keep_their_order(home: Home, thread: StoreThread) -> None:
    sizes = await thread.call(commits)
    go = threading.Event()
    blocked = asyncio.create_task(thread.call(lambda _: go.wait(WAIT_S)))  # meanwhile all others arrive
    rounds = [Round(number, home) for number in range(5)]
    tasks = [asyncio.create_task(thread.write(lambda store, one=one: one.submit(store))) for one in rounds]
    early = asyncio.create_task(thread.write(lambda store: store.append(rounds[0].batch[2], START)))
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    go.set()
    assert await blocked
    assert [[index for index, _ in await task] for task in tasks] == [[n, n + 1] for n in range(0, 10, 2)]
    with pytest.raises(Conflict, match="has seq 0"):
        await early
    assert sizes == [10]


async def test_a_caller_that_leaves_does_not_stop_its_write(home: Home, thread: StoreThread) -> None:
    go, this = threading.Event(), Round(1, home)
    blocked = asyncio.create_task(thread.call(lambda _: go.wait(WAIT_S)))
    leaves = asyncio.create_task(thread.write(this.submit))
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    go.set()
    await blocked
    assert await thread.write(lambda store: store.log.size()) == 2


async def test_a_commit_takes_no_more_than_its_share(
    home: Home, thread: StoreThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_TOGETHER", 2)
    sizes = await thread.call(commits)
    go = threading.Event()
    blocked = asyncio.create_task(thread.call(lambda _: go.wait(WAIT_S)))
    tasks = [asyncio.create_task(thread.write(Round(number, home).submit)) for number in range(5)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(blocked, *tasks)
    assert sizes == [4, 8, 10]


async def test_stopping_finishes_what_waits(home: Home) -> None:
    thread = StoreThread(home.open_store)
    with pytest.raises(RuntimeError, match="not open"):
        await thread.write(Round(0, home).submit)
    await thread.start()
    tasks = [asyncio.create_task(thread.write(Round(number, home).submit)) for number in range(3)]
    await asyncio.sleep(0)
    await thread.stop()
    assert all(task.done() for task in tasks)
    with closing(home.open_store()) as store:
        assert store.log.size() == 6


def test_two_coordinators_on_one_database_write_one_log(home: Home) -> None:
    """Each in its own thread, as fast as they can; every entry is in the log once, at the index that was answered."""
    rounds = [[Round(10 * who + number, home) for number in range(8)] for who in range(2)]
    answers: dict[int, bytes] = {}
    failed: list[BaseException] = []

    def write(mine: list[Round]) -> None:
        try:
            with closing(home.open_store()) as store:
                for one in mine:
                    answers.update(one.submit(store))
        except BaseException as exc:
            failed.append(exc)

    threads = [threading.Thread(target=write, args=(mine,)) for mine in rounds]
    for one in threads:
        one.start()
    for one in threads:
        one.join(WAIT_S)
    assert failed == []
    with closing(home.open_store()) as store:  # checks the tree
        assert dict(enumerate(store.log.envelopes(0, 99))) == answers
        assert len(answers) == 32


def test_a_database_is_made_once(home: Home, tmp_path: Path) -> None:
    if not home.database:
        with pytest.raises(Conflict, match=r"^the database holds tables already$"):
            home.open_store(create=True)
        return
    with pytest.raises(HomeError, match=r"^no log can be made there: the database holds tables already$"):
        init_home(tmp_path / "second", ["localhost"], ORIGIN, home.database)
    assert not (tmp_path / "second").exists()
    assert home.database not in repr(home)
    assert not (home.path / homes.DATABASE).exists()


def test_an_address_that_is_none_is_refused_without_quoting_it(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match=r"^a coordinator's database is at an address that begins with postgresql://$"):
        init_home(tmp_path / "c", ["localhost"], ORIGIN, "mysql://u:secret@h/d")
    with pytest.raises(
        Corrupt, match=r"^the database's address is not one that PostgreSQL's libpq accepts$"
    ) as refused:
        init_home(tmp_path / "c", ["localhost"], ORIGIN, "postgresql://u:secret@h/d?no_such_option=1")
    assert "secret" not in repr(refused.value)
    with pytest.raises(HomeError, match=r"^no log can be made there: the database cannot be used now: ") as away:
        init_home(tmp_path / "c", ["localhost"], ORIGIN, f"postgresql://u:secret@/d?host={tmp_path}")
    assert "secret" not in str(away.value)
    assert list(tmp_path.iterdir()) == []
