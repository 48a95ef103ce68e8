"""Points on disk: pieces of any number of bits, what is found again after a crash, rows that share an identifier, and the
order that both owners of a job have their rows in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError
from mpc.matching.buckets import Store, bucket_count_bits
from mpc.matching.hashes import hash_list
from mpc.matching.protocol import match
from silos import leftovers
from silos import match as matching
from silos import points as module
from silos.checkpoint_files import CheckpointFiles, SpillError
from silos.points import Points, gather
from silos.tasks import Task
from tests.harness import Message, Run, Tamper, run_parties, try_parties
from tests.silos.world import make_spec
from vertical.align import Identifiers
from vertical.batches import Column, Items
from vertical.identifiers import RULES, DuplicateIdentifiersError
from vertical.linkage import Matched, key_tag

SESSION = bytes(16)
TEXT = (("text/v1", None),)


def column(values: list[str]) -> Column:
    raw = [value.encode() for value in values]
    offsets = np.cumsum([0, *map(len, raw)]).astype(np.int64)
    return Column(np.frombuffer(b"".join(raw), np.uint8), offsets, np.array([bool(v) for v in raw]))


def read(own: Identifiers, *keys: list[str], batch: int = 100) -> Iterator[list[Items]]:
    """Columns of text, a few rows at a time."""
    for at in range(0, len(keys[0]), batch):
        yield own.add([[column(values[at : at + batch])] for values in keys])


def never(own: Identifiers) -> Iterator[list[Items]]:
    raise AssertionError("the data is read again")
    yield own.add([])


def gathered(
    root: Path, *keys: list[str], duplicates: str = "first", session: bytes = SESSION
) -> tuple[Points, Identifiers]:
    own = Identifiers(TEXT * len(keys))
    return gather(root, own, read(own, *keys), session, len(keys[0]), duplicates), own


def names(n: int, start: int = 0) -> list[str]:
    return [f"name {i}" for i in range(start, start + n)]


def hashed(values: list[str]) -> np.ndarray:
    """The points of values of the first key, in their order."""
    return hash_list([key_tag(0) + bytes(RULES["text/v1"].item([value])) for value in values], SESSION)  # type: ignore[arg-type]


def ascending(words: np.ndarray) -> np.ndarray:
    return words[np.lexsort((words[:, 1], words[:, 0]))]


@pytest.mark.parametrize("per_bucket", [16, 1 << 16], ids=["64 buckets on disk", "one bucket on disk"])
def test_a_piece_has_the_points_of_its_bits_whether_the_disk_has_finer_or_coarser_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_bucket: int
) -> None:
    monkeypatch.setattr(module, "POINTS_IN_BUCKET", per_bucket)
    values = names(1000)
    store, own = gathered(tmp_path / "m", values)
    everything = ascending(hashed(values))
    rows = {tuple(word): row for row, word in enumerate(hashed(values).tolist())}
    assert (store.n_points, own.n_rows) == (1000, 1000)
    for bits in (0, 1, 3, 6, 8):
        pieces = [store.piece(bits, b) for b in range(1 << bits)]
        assert np.array_equal(np.concatenate([piece.words for piece in pieces]), everything)
        for b, piece in enumerate(pieces):
            assert bits == 0 or np.all(piece.words[:, 0] >> np.uint64(64 - bits) == b)
            assert np.array_equal(piece.words, store.bucket(bits, b))
            assert [rows[tuple(word)] for word in piece.words.tolist()] == piece.rows.tolist()
            assert piece.offsets.tolist() == list(range(len(piece.words) + 1))
            assert len(piece.key) == len(piece.words)
    store.close()


def test_points_that_were_gathered_are_not_read_again(tmp_path: Path) -> None:
    values = ["", *names(300), "name 3"]
    first, own = gathered(tmp_path / "m", values)
    first.save(3, "bucket", np.arange(5))
    first.close()
    later = Identifiers(TEXT)
    again = gather(tmp_path / "m", later, never(later), SESSION, len(values), "first")
    assert (again.n_points, again.digest, again.known) == (first.n_points, first.digest, first.known)
    assert (again.n_points, again.known.duplicates) == (300, (1,))
    assert (later.n_rows, later.reasons) == (own.n_rows, own.reasons)
    assert again.load(3, "bucket").tolist() == list(range(5))
    assert again.load(4, "bucket") is None
    again.close()


def test_points_that_were_not_all_gathered_are_gathered_anew_and_steps_of_before_go(tmp_path: Path) -> None:
    first, _ = gathered(tmp_path / "m", names(300))
    first.save(0, "bucket", np.arange(5))
    first.close()
    (tmp_path / "m" / "gathered.json").unlink()  # as if the process had died right before
    again, own = gathered(tmp_path / "m", names(200))
    assert (again.n_points, own.n_rows) == (200, 200)
    assert again.load(0, "bucket") is None
    again.close()


def test_steps_of_another_session_and_damaged_points_are_no_use(tmp_path: Path) -> None:
    first, _ = gathered(tmp_path / "m", names(300))
    first.save(0, "bucket", np.arange(5))
    first.close()
    later = Identifiers(TEXT)
    other = gather(tmp_path / "m", later, never(later), bytes(range(16)), 300, "first")
    with pytest.raises(SpillError, match="damaged"):
        other.load(0, "bucket")
    other.close()
    file = tmp_path / "m" / "points" / "points"
    raw = bytearray(file.read_bytes())
    raw[100] ^= 1
    file.write_bytes(raw)
    damaged = gather(tmp_path / "m", later, never(later), SESSION, 300, "first")
    with pytest.raises(SpillError, match="damaged"):
        damaged.bucket(0, 0)
    damaged.close()


def test_everything_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    store, _ = gathered(tmp_path / "m", names(10))
    store.save(0, "bucket", np.arange(3))
    store.close()
    for path in [tmp_path / "m", *(tmp_path / "m").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_digest_is_that_of_the_set_whatever_its_order_and_its_duplicates(tmp_path: Path) -> None:
    values = names(200)
    stores = [gathered(tmp_path / str(i), v)[0] for i, v in enumerate((values, values[::-1], values * 2, values[1:]))]
    assert len({store.digest for store in stores[:3]}) == 1
    assert stores[3].digest != stores[0].digest
    assert stores[0].digest == hashlib.sha256(ascending(hashed(values)).tobytes()).digest()
    for store in stores:
        store.close()


def test_duplicates_are_refused_with_their_number_and_the_rule(tmp_path: Path) -> None:
    with pytest.raises(DuplicateIdentifiersError, match=r"2.*text/v1") as caught:
        gathered(tmp_path / "m", ["", "", "a", "b", "a", "b"], duplicates="refuse")
    assert "name" not in str(caught.value)
    with pytest.raises(DuplicateIdentifiersError):  # and again when the job goes on
        gathered(tmp_path / "m", ["", "", "a", "b", "a", "b"], duplicates="refuse")


def rows_of(matched: Matched) -> list[list[int]]:
    ends = matched.offsets.tolist()
    return [matched.rows[a:b].tolist() for a, b in pairwise(ends)]


@pytest.mark.parametrize("bits", [0, 2])
def test_rows_behind_matched_points(tmp_path: Path, bits: int) -> None:
    values = ["a", "b", "a", "c", "a", "b"]
    store, _ = gathered(tmp_path / "m", values, ["", "x", "", "", "", "x"])
    assert (store.n_points, store.known.duplicates) == (4, (3, 1))
    everything = [np.arange(len(store.bucket(bits, b))) for b in range(1 << bits)]
    first, every = (store.matched(bits, everything, how) for how in ("first", "expand"))
    assert sorted(rows_of(first)) == [[0], [1], [1], [3]]
    assert sorted(rows_of(every)) == [[0, 2, 4], [1, 5], [1, 5], [3]]
    assert [int(k) for k in every.key] == [int(k) for k in first.key]
    assert sorted(zip(every.key.tolist(), rows_of(every), strict=True))[-1] == (1, [1, 5])
    assert every.n_keys == 2
    chosen = store.matched(bits, (where[::-1][:1] for where in everything), "first")
    assert len(chosen.rows) == sum(len(where) > 0 for where in everything)
    none = store.matched(bits, (where[:0] for where in everything), "expand")
    assert (len(none.rows), len(none.key), none.offsets.tolist()) == (0, 0, [0])
    store.close()


def test_a_matching_in_buckets_finds_the_rows(tmp_path: Path) -> None:
    """Both sides' stores have other buckets on disk than the matching has."""
    sets = {"shop": names(500), "bank": [*names(200), *names(300, 1000), "name 7"]}
    stores: dict[str, Store] = {}
    for who, values in sets.items():
        stores[who] = gathered(tmp_path / who, values)[0]
    bits = bucket_count_bits(500, 500, 100)
    assert bits == 3

    def play(who: str, other: str, leader: bool) -> list[int]:
        store = stores[who]
        assert isinstance(store, Points)

        def run(channel):  # type: ignore[no-untyped-def]
            found = match(store, other, SESSION, channel, 0, leader, bucket_points=100)
            return store.matched(found.bits, found, "first").rows.tolist()

        return run  # type: ignore[return-value]

    ended = run_parties({"shop": play("shop", "bank", True), "bank": play("bank", "shop", False)})  # type: ignore[dict-item]
    pairs = list(zip(ended["shop"], ended["bank"], strict=True))
    assert len(pairs) == 200
    assert set(pairs) == {(i, i) for i in range(200)}
    for store in stores.values():
        assert isinstance(store, Points)
        store.close()


@pytest.mark.parametrize("values", [[], ["", ""]], ids=["no rows", "no identifiers"])
def test_no_points_at_all(tmp_path: Path, values: list[str]) -> None:
    store, own = gathered(tmp_path / "m", values)
    assert (store.n_points, own.n_rows, len(store.bucket(1, 1))) == (0, len(values), 0)
    assert len(store.matched(0, [np.empty(0, np.int64)], "first").rows) == 0
    store.close()
    later = Identifiers(TEXT)
    again = gather(tmp_path / "m", later, never(later), SESSION, len(values), "first")
    assert again.digest == store.digest
    again.close()


# --- the order of the rows, whatever happens to links and workers

OWNERS = ("lender", "platform")
TABLES = {
    "lender": (["a", "a", "b", "c", "d", ""], ["p", "q", "r", "p", "", "s"]),
    "platform": (["b", "a", "x", "a", "c"], ["", "p", "q", "r", "s"]),
}
SHARED = {(0, 1), (0, 3), (1, 1), (1, 3), (2, 0), (3, 4)}
"""Which rows are pairs: all by the first key."""


class Job:
    """Two owners of a job that pairs rows with all of theirs: what is on disk, and what their nodes would do next."""

    def __init__(self, root: Path) -> None:
        parties = [{"silo": me, "dataset": me, "keys": [["one"], ["two"]]} for me in OWNERS]
        align = {"duplicates": "expand", "keys": ["text/v1", "text/v1"], "minimum_matches": 1}
        self.spec = make_spec(kind="vertical.match", dealer=None, parties=parties, release=["rows"], align=align)
        self.root, self.released = root, dict[str, list[int]]()

    def worker(self, me: str, *, linked: bool = True) -> Callable[[Any], list[int]]:
        """Its own rows, in order."""

        def run(channel: Any) -> list[int]:
            store, _ = gathered(self.root / me / leftovers.MATCHING_FOLDER, *TABLES[me], duplicates="expand")
            task = Task(self.spec, me, None, 6, self.root / me, self.root, SESSION, lambda: channel, lambda *_: None)
            try:
                rows = matching._agreed_rows(task, store, channel, linked=linked)
                return [int(row) for row in rows[:, 0]]
            finally:
                store.close()

        return run

    def attempt(self, tamper: Tamper | None = None) -> Run:
        """Both workers, with a link."""
        run = try_parties({me: self.worker(me) for me in OWNERS}, tamper=tamper)
        self.released.update(run.results)
        return run

    def go_on(self, tamper: Tamper | None = None) -> None:
        """What the nodes do next, as `silos.attempts` decides it; who is alone is given no link."""
        waiting = [me for me in OWNERS if me not in self.released]
        alone = [me for me in waiting if leftovers.all_kept(self.root / me)]
        alone += [me for me in waiting if leftovers.own_kept(self.root / me) and self.released and me not in alone]
        for me in alone:
            self.released.update(run_parties({me: self.worker(me, linked=False)}).results)
        if not alone:
            assert not self.released, "an owner is left behind"
            assert {type(error) for error in self.attempt(tamper).errors.values()} <= {PeerLost}

    def pairs(self) -> list[tuple[int, int]]:
        """Row i of one table and row i of the other."""
        return list(zip(*(self.released[me] for me in OWNERS), strict=True))


def cut(tag: str, sender: str) -> Tamper:
    """From a message of one owner on, nothing of it arrives; what the other one sent meanwhile still does."""
    over = list[bool]()

    def tamper(message: Message) -> Message | None:
        if (message.tag, message.sender) == (tag, sender):
            over.append(True)
        return None if over and message.sender == sender else message

    return tamper


CUTS = [(tag, who) for tag in ("matching/rows", "linkage/rows", "linkage/vote", "match/kept") for who in OWNERS]


@pytest.mark.parametrize("first", [cut for cut in CUTS if cut != ("matching/rows", "platform")], ids="-".join)
def test_both_release_the_order_of_one_attempt_wherever_links_are_cut(tmp_path: Path, first: tuple[str, str]) -> None:
    for i, second in enumerate(
        [None, ("linkage/vote", "lender"), ("match/kept", "lender"), ("match/kept", "platform")]
    ):
        job = Job(tmp_path / str(i))
        job.go_on(cut(*first))
        for _ in range(4):
            if len(job.released) < len(OWNERS):
                job.go_on(None if second is None else cut(*second))
                second = None
        assert set(job.pairs()) == SHARED
        assert len(job.pairs()) == len(SHARED)
        digests = [
            CheckpointFiles(job.root / me / "matching" / "steps", SESSION.hex()).load(0, "linked") for me in OWNERS
        ]
        assert digests[0] is not None
        assert digests[1] is not None
        assert np.array_equal(digests[0][-2:], digests[1][-2:])


def test_who_knows_that_the_other_has_its_rows_uses_no_link(tmp_path: Path) -> None:
    """A worker that outlived its node for a moment can have heard it after the node looked and opened links again."""
    job = Job(tmp_path)
    run = job.attempt(cut("match/kept", "platform"))
    assert list(run.errors) == ["lender"]
    before = (tmp_path / "platform/matching/steps/00000000.linked").read_bytes()
    run = job.attempt(cut("matching/hello", "lender"))
    assert isinstance(run.errors["lender"], PeerLost)
    assert not [message for message in run.transcript if message.sender == "platform"]
    assert (tmp_path / "platform/matching/steps/00000000.linked").read_bytes() == before
    job.go_on()
    assert set(job.pairs()) == SHARED


@pytest.mark.parametrize("linked", [True, False])
def test_rows_of_two_attempts_are_not_released(tmp_path: Path, linked: bool) -> None:
    job = Job(tmp_path)
    job.attempt()
    steps = CheckpointFiles(tmp_path / "lender/matching/steps", SESSION.hex())
    kept = steps.load(0, leftovers.OWN_KEPT)
    assert kept is not None
    steps.save(0, leftovers.OWN_KEPT, np.concatenate([kept[:-2], kept[-2:] ^ 1]))
    with pytest.raises(LocalProtocolError, match="not those that the other owner has"):
        run_parties({"lender": job.worker("lender", linked=linked)})


@pytest.mark.parametrize("liar", OWNERS)
def test_an_order_of_another_attempt_is_noticed(tmp_path: Path, liar: str) -> None:
    """Rows that would not fit are not released, and neither owner counts them as kept by both."""
    job, other = Job(tmp_path), next(me for me in OWNERS if me != liar)

    def tamper(message: Message) -> Message:
        if (message.tag, message.sender) != ("match/kept", liar):
            return message
        return replace(message, body=bytes([message.body[0] ^ 1]) + message.body[1:])

    run = job.attempt(tamper)
    error = run.errors[other]
    assert isinstance(error, RemoteProtocolError)
    assert (error.party, error.tag, error.why) == (liar, "match/kept", "rows in another order than ours")
    assert not leftovers.all_kept(tmp_path / other)


def test_the_hash_of_an_order_is_of_the_rows_of_both(tmp_path: Path) -> None:
    """It is the same at both, and another one for other rows, another job, and other pairs of the same rows."""
    digests = set()
    for i, (session, tables) in enumerate(product((SESSION, bytes(range(16))), (TABLES, dict(TABLES, lender=LESS)))):
        stores = {me: gathered(tmp_path / f"{i}{me}", *tables[me], session=session)[0] for me in OWNERS}
        job = Job(tmp_path)

        def order(me: str, stores: Any = stores, session: bytes = session, job: Job = job) -> Callable[[Any], bytes]:
            task = Task(job.spec, me, None, 6, job.root, job.root, session, lambda: None, lambda *_: None)  # type: ignore[arg-type,return-value]
            return lambda channel: matching._matched_rows(task, stores[me], channel)[1]

        run = run_parties({me: order(me) for me in OWNERS})
        assert run["lender"] == run["platform"]
        digests.add(run["lender"])
        for store in stores.values():
            store.close()
    assert len(digests) == 4


LESS = (["a", "a", "b", "c", "d", ""], ["p", "q", "r", "p", "", ""])
