"""Matching in buckets: their bound, what fills them up, sorted tables, results, what is sent, faults, and stopping anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mpc import rng
from mpc.errors import LocalProtocolError, PeerLost, ProtocolError, Refused, RemoteProtocolError
from mpc.matching import hashes, ledger, okvs, protocol, tables, vole
from mpc.matching.buckets import DUMMY, SENTINEL, MemoryStore, bound, bucket_count_bits, fill
from mpc.matching.kernels import kernels
from mpc.matching.protocol import Matches, intersect, match
from mpc.rng import Prg
from tests.harness import Run, run_parties, try_parties
from tests.mpc.test_matching import SPOILT, QuickTransfers

RNG = np.random.default_rng
SESSION = bytes(range(16))


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vole, "BaseTransfers", QuickTransfers)
        yield


def _words(seed: int, n: int) -> np.ndarray:
    words = RNG(seed).integers(0, 2**64, (n, 2), dtype=np.uint64)
    return words[kernels.order(words)]


def _sets(n: int, m: int, common: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Points of both sides, ascending."""
    whole = RNG(seed).integers(0, 2**64, (n + m - common, 2), dtype=np.uint64)
    return tuple(part[kernels.order(part)] for part in (whole[:n], whole[n - common :]))


def _pair(
    stores, bucket_points: int, minimum: int = 0, progress=(None, None), session=SESSION, security=("semi-honest",) * 2
):
    def side(i: int, peer: str):
        options = {"security": security[i], "bucket_points": bucket_points}
        return lambda c: match(stores[i], peer, session, c, minimum, i == 0, progress[i], **options)

    return {"lender": side(0, "platform"), "platform": side(1, "lender")}


def _stores(a: np.ndarray, b: np.ndarray) -> tuple[MemoryStore, MemoryStore]:
    return MemoryStore(a), MemoryStore(b)


def _found(store: MemoryStore, found: Matches) -> list[tuple[int, ...]]:
    """The matched points, in the order of the result."""
    return [tuple(row) for b, at in enumerate(found) for row in store.bucket(found.bits, b)[at].tolist()]


def _common(a: np.ndarray, b: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, a.tolist())) & set(map(tuple, b.tolist()))


def _assert_right(run: Run, stores, a: np.ndarray, b: np.ndarray) -> None:
    at_lender, at_platform = (_found(s, run[name]) for s, name in zip(stores, ("lender", "platform")))
    assert at_lender == at_platform
    assert len(set(at_lender)) == len(at_lender) == run["lender"].n_matches == run["platform"].n_matches
    assert set(at_lender) == _common(a, b)


# --- how many, and how full


@pytest.mark.parametrize(
    ("n", "m", "size", "bits"),
    [
        (0, 0, 8, 0),
        (1, 8, 8, 0),
        (9, 1, 8, 1),
        (16, 16, 8, 1),
        (17, 0, 8, 2),
        (2**20, 2**20, 2**20, 0),
        (2**20 + 1, 5, 2**20, 1),
        (10**7, 10**7, 2**20, 4),
        (2**24, 1, 2**20, 4),
    ],
)
def test_buckets_are_the_fewest_that_are_small_enough(n, m, size, bits) -> None:
    assert bucket_count_bits(n, m, size) == bits


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10])
@pytest.mark.parametrize("n", [1, 30, 1000, 60_000, 10**6, 10**7, 2**24])
def test_buckets_overflow_with_a_probability_below_two_to_the_minus_41(n: int, bits: int) -> None:
    most = bound(n, bits)
    assert n / 2**bits <= most <= n
    assert bits * np.log(2) + binom.logsf(most, n, 2.0**-bits) < -41 * np.log(2)


def test_filling_up_is_cheap() -> None:
    assert bound(5, 0) == 5
    assert bound(10**7, 4) / (10**7 / 16) < 1.0102
    assert bound(2**24, 4) / 2**20 < 1.008


@pytest.mark.parametrize(("n", "bits"), [(0, 3), (1, 0), (1, 3), (500, 0), (500, 2), (3000, 5)])
def test_a_filled_bucket_has_all_points_a_sentinel_and_random_ones(n: int, bits: int) -> None:
    store, found = MemoryStore(_words(2, n)), []
    for b in range(1 << bits):
        words, size = store.bucket(bits, b), bound(n, bits)
        filled = [fill(words, size, bits, bytes(range(16)), Prg(bytes([i]) * 32)) for i in range(2)]
        for one in filled:
            assert one.words.shape == (size + 1, 2)
            assert np.array_equal(one.words, one.words[kernels.order(one.words)])
            assert one.words[one.positions == SENTINEL].tobytes() == bytes(range(16))
            assert np.count_nonzero(one.positions == DUMMY) == size - len(words)
            assert np.array_equal(one.positions[one.positions >= 0], np.arange(len(words)))
            own = one.words[one.positions >= 0]
            back = (own[:, 0] >> np.uint64(bits)) | np.uint64(b << 64 - bits) if bits else own[:, 0]
            assert np.array_equal(back, words[:, 0])
        assert not np.intersect1d(*(one.words[one.positions == DUMMY] for one in filled)).size
        found.append(words)
    assert np.array_equal(np.concatenate(found), _words(2, n))


class Wrong(MemoryStore):
    """Says that it has as many points as the other one, and gives others."""

    def __init__(self, words: np.ndarray, given) -> None:
        super().__init__(words)
        self._given = given

    def bucket(self, bits: int, b: int) -> np.ndarray:
        return self._given(super().bucket(bits, b))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (lambda w: w[::-1].copy(), "points of bucket 0 are not in ascending order"),
        (lambda w: np.repeat(w, 2, axis=0)[: len(w)], "identifiers to be matched are distinct, got repeated ones in"),
        (lambda w: w | np.uint64(1 << 63), "bucket 0 has points of another one"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_a_store_that_gives_other_points_is_our_own_fault(given, why: str, side: int) -> None:
    a, b = _sets(100, 100, 50)
    stores = list(_stores(a, b))
    stores[side] = Wrong((a, b)[side], given)
    run = try_parties(_pair(stores, 20))
    mine, other = ("lender", "platform") if side == 0 else ("platform", "lender")
    assert isinstance(run.errors[mine], LocalProtocolError)
    assert why in str(run.errors[mine])
    assert isinstance(run.errors[other], PeerLost)


@pytest.mark.parametrize("side", [0, 1])
def test_an_overfull_bucket_is_our_own_fault_and_nothing_of_it_is_sent(side: int) -> None:
    a, b = _sets(400, 400, 50)
    crowded = a.copy()
    crowded[:, 0] >>= np.uint64(3)
    stores = [crowded, b] if side == 0 else [b, crowded]
    run = try_parties(_pair(_stores(*stores), 50))
    mine = ("lender", "platform")[side]
    assert isinstance(run.errors[mine], LocalProtocolError)
    assert str(run.errors[mine]).startswith("bucket 0 has 400 points, more than the ")
    assert not [m for m in run.transcript if m.tag == ("matching/masked", "matching/tags")[side]]


# --- items to points


def test_points_are_the_same_from_lists_and_from_buffers() -> None:
    items = [bytes([i % 251]) * n for i, n in enumerate([3, 0, 1, 63, 64, 65, 1024, 1025, 7, 5000, 2000, 40, 2])] * 3
    offsets = np.cumsum([0, *map(len, items)])
    data = np.frombuffer(b"".join(items), dtype=np.uint8)
    expected = hashes.hash_list(items, SESSION)
    for buffer in (data, data.copy(), np.concatenate([data, np.zeros(64, np.uint8)])):
        assert np.array_equal(hashes.hash_buffer(buffer, offsets, SESSION), expected)
    inside = hashes.hash_buffer(np.concatenate([data[:9], data, data[:70]]), offsets[4:20] + 9, SESSION)
    assert np.array_equal(inside, expected[4:19])
    assert hashes.hash_buffer(data[:0], offsets[:1], SESSION).shape == (0, 2)
    known = hashes.identify(items[:13], SESSION)
    assert np.array_equal(known.words[known.rows < 13], expected[known.rows[known.rows < 13]])


def test_more_items_than_are_hashed_at_a_time(monkeypatch) -> None:
    items = [b"x" * (i % 70) + b"%d" % i for i in range(100)]
    expected = hashes.hash_list(items, SESSION)
    monkeypatch.setattr(hashes, "AT_ONCE", 7)
    assert np.array_equal(hashes.hash_list(items, SESSION), expected)


# --- tables


def _table(n: int, whole: bool, seed: int = 5) -> np.ndarray:
    tags = RNG(seed).integers(0, 2**64, (n, 4), dtype=np.uint64)
    if not whole:
        tables.cut(tags, n)
    return tags[kernels.order(tags)]


def _sent(tags: np.ndarray, whole: bool, tamper=None) -> Run:
    return try_parties(
        {"a": lambda c: tables.send_table(c, "b", tags, whole),
         "b": lambda c: tables.recv_table(c, "a", len(tags), whole)},
        tamper=tamper,
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.booleans(), st.integers(0, 2**32))
def test_a_table_arrives_as_it_was(n: int, whole: bool, seed: int) -> None:
    tags = _table(n, whole, seed)
    run = _sent(tags, whole)
    assert np.array_equal(run["b"], tags[:, :2])
    b = int(np.ceil(np.log2(n)))
    assert run.bytes_sent("a") == 8 * n + -(-(n + 2**b - 1) // 8) + (n * -(-(64 - b) // 8) if whole else 0)


def test_extreme_tags_arrive_as_they_were() -> None:
    for n in (1, 2, 3, 4, 5, 8, 9):
        for whole in (False, True):
            tags = np.zeros((n, 2), dtype=np.uint64)
            tags[:, 1] = np.arange(n).astype(np.uint64) << np.uint64(64 - max(1, tables.bucket_bits(n)))
            tags[n // 2 :, 0] = 2**64 - 1
            if not whole:
                tables.cut(tags, n)
            tags = np.unique(tags, axis=0)
            if len(tags) == n:
                assert np.array_equal(_sent(tags, whole)["b"], tags)


@pytest.mark.parametrize(
    ("tag", "body", "why"),
    [
        ("upper", b"\0\0", "the tags are not as many as the identifiers"),
        ("upper", b"\xff\0", "the tags are not as many as the identifiers"),
        ("upper", b"\x0f\x80", "the tags are not as many as the identifiers"),  # the last one beyond all 12 bits
        ("tags", bytes(40), "tags out of order, or one twice"),
    ],
)
def test_a_spoilt_table_is_the_senders_fault(tag: str, body: bytes, why: str) -> None:
    tags = _table(5, whole=False)
    tags[:, 0] >>= np.uint64(8)  # the same upper bits
    run = _sent(tags, False, lambda m: replace(m, body=body) if m.tag == f"matching/{tag}" else m)
    assert isinstance(run.errors["b"], RemoteProtocolError)
    assert (run.errors["b"].party, run.errors["b"].why) == ("a", why)


# --- results


@pytest.mark.parametrize("count", [1, 2, 8, 64])
@pytest.mark.parametrize(("n", "m", "common"), [(2000, 2000, 700), (3, 2000, 2), (2000, 3, 2), (2000, 0, 0)])
def test_equals_plain_sets_over_any_number_of_buckets(count: int, n: int, m: int, common: int) -> None:
    a, b = _sets(n, m, common)
    stores = _stores(a, b)
    run = run_parties(_pair(stores, 2000 // count))
    _assert_right(run, stores, a, b)
    assert run["lender"].bits == run["platform"].bits
    assert bucket_count_bits(n, m, 2000 // count) == run["lender"].bits
    assert len(list(run["lender"])) >= count
    assert (run["lender"].n_own, run["lender"].n_peer) == (n, m)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.sampled_from([1, 3, 10, 100]))
def test_equals_plain_sets_at_all_sizes(n: int, m: int, common: int, size: int) -> None:
    a, b = _sets(n, m, min(n, m, common))
    stores = _stores(a, b)
    _assert_right(run_parties(_pair(stores, size)), stores, a, b)


def test_rows_of_items_come_from_all_buckets_and_do_not_depend_on_the_order_of_the_input(monkeypatch) -> None:
    monkeypatch.setattr(match, "__kwdefaults__", {**match.__kwdefaults__, "bucket_points": 100})
    people, others = [b"%d" % i for i in range(700)], [b"%d" % i for i in range(300, 900)]
    found = []
    for items in (people, people[::-1]):
        keys = iter(bytes([i]) * 32 for i in range(100))
        for module in (protocol, protocol.Receiver, protocol.Sender):
            scope = module if module is protocol else __import__("sys").modules[module.__module__]
            monkeypatch.setattr(scope, "fresh_prg", lambda keys=keys: rng.Prg(next(keys)))
        run = run_parties(
            {"lender": lambda c, items=items: intersect(items, "platform", SESSION, c, 0, True),
             "platform": lambda c: intersect(others, "lender", SESSION, c, 0, False)}
        )  # fmt: skip
        found.append([items[i] for i in run["lender"].rows])
        assert found[-1] == [others[i] for i in run["platform"].rows]
        assert set(found[-1]) == set(people) & set(others)
    assert found[0] == found[1]


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_progress_grows_to_all_identifiers_and_columns_of_all_buckets(security: str) -> None:
    seen: dict[str, list[tuple[int, int]]] = {"lender": [], "platform": []}
    a, b = _sets(100, 300, 50)
    progress = tuple(lambda d, t, name=name: seen[name].append((d, t)) for name in seen)
    run_parties(_pair(_stores(a, b), 40, progress=progress, security=(security, security)))
    columns = okvs.columns(bound(100, 3) + 1)
    if security == "malicious":
        columns = -(-(columns + 128) // 512) * 512
    for name, n in (("lender", 100), ("platform", 300)):
        total = n + 8 * (bound(n, 3) + columns)
        assert seen[name][-1] == (total, total)
        assert {t for _, t in seen[name]} == {total}
        assert [d for d, _ in seen[name]] == sorted({d for d, _ in seen[name]})


# --- what is sent


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
@pytest.mark.parametrize(("n", "m", "size"), [(300, 500, 60), (0, 100, 50), (100, 1, 10), (40, 50, 50)])
def test_cost_is_the_one_stated_and_the_result_is_right(n: int, m: int, size: int, security: str) -> None:
    a, b = _sets(n, m, min(n, m))
    stores = _stores(a, b)
    run = run_parties(_pair(stores, size, security=(security, security)))
    _assert_right(run, stores, a, b)
    bits = bucket_count_bits(n, m, size)
    B, N, M = 1 << bits, bound(n, bits) + 1, bound(m, bits) + 1
    c, low = -(-(-(-11 * N // 10) + 224) // 128) * 128, int(np.ceil(np.log2(M)))
    table = 8 * M + -(-(M + 2**low - 1) // 8)
    if security == "semi-honest":
        assert run.bytes_sent("lender") == 6938 + B * (17 + 26.5 * c + -(-M // 8))
        assert run.bytes_sent("platform") == 13682 + B * table
    else:
        k = -(-(c + 128) // 512) * 512
        assert run.bytes_sent("lender") == 9818 + B * (6225 + 32.25 * k + -(-M // 8))
        assert run.bytes_sent("platform") == 16626 + B * (16 + table + M * -(-(64 - low) // 8))
    rounds = 1 + sum(x.sender != y.sender for x, y in zip(run.transcript[2:], run.transcript[3:], strict=False))
    assert rounds == 5 + (2 if security == "semi-honest" else 4) * B


@pytest.mark.parametrize("security", [("semi-honest", "malicious"), ("malicious", "semi-honest")])
def test_both_sides_must_take_the_same_variant(security: tuple[str, str]) -> None:
    run = try_parties(_pair(_stores(A, B), 20, security=security))
    for error in run.errors.values():
        assert isinstance(error, RemoteProtocolError)
        assert error.why == "another session, security or size of buckets than ours"
    assert len(run.errors) == 2
    run = try_parties(_pair(_stores(A, B), 20, security=("none", "none")))
    assert str(run.errors["lender"]) == "security is semi-honest or malicious, got 'none'"


def test_shape_depends_on_sizes_only_and_not_on_what_buckets_hold() -> None:
    shapes = set()
    for seed, common in ((1, 0), (2, 150), (3, 90)):
        a, b = _sets(150, 400, common, seed)
        shapes.add(tuple(run_parties(_pair(_stores(a, b), 30)).shape()))
    assert len(shapes) == 1


@pytest.mark.parametrize(("minimum", "last"), [(51, "vote"), (50, "rows")])
def test_nothing_about_rows_is_told_before_all_buckets_and_both_votes(minimum: int, last: str) -> None:
    a, b = _sets(200, 200, 50)
    run = try_parties(_pair(_stores(a, b), 50, minimum=minimum))
    tags = [m.tag.removeprefix("matching/") for m in run.transcript if m.sender == "lender"]
    assert tags == ["hello", "public", "trees", *["attempt", "masked"] * 4, "vote", *["rows"] * (4 * (last == "rows"))]
    assert run.transcript[-1].tag == f"matching/{last}"
    assert [type(e) for e in run.errors.values()] == ([Refused] * 2 if last == "vote" else [])
    assert "50" not in "".join(str(e).replace(f"minimum of {minimum}", "") for e in run.errors.values())


def test_no_block_of_a_stream_is_used_for_two_buckets(monkeypatch) -> None:
    spent: dict[bytes, list[range]] = {}
    for name, real in (("mask", vole.kernels.mask), ("unmask", vole.kernels.unmask)):

        def recorded(keys, counter, columns, *other, name=name, real=real):
            tiles = len(columns) // 128 if name == "mask" else len(columns)
            spent.setdefault(keys.tobytes(), []).append(range(counter, counter + 4 * tiles))
            return real(keys, counter, columns, *other)

        monkeypatch.setattr(vole.kernels, name, recorded)
    a, b = _sets(300, 300, 50)
    run_parties(_pair(_stores(a, b), 20))
    assert len(spent) == 2
    for ranges in spent.values():
        assert len(ranges) == 16
        assert [r.start for r in ranges[1:]] == [r.stop for r in ranges[:-1]]


# --- faults

A, B = _sets(60, 70, 30)
SENT_BY = {"lender": ["attempt", "masked", "rows"], "platform": ["upper", "tags"]}


class Second:
    """Changes the message of one step about the second bucket, knowing the one about the first."""

    def __init__(self, tag: str, change) -> None:
        self._tag, self._change, self._seen = f"matching/{tag}", change, []

    def __call__(self, m):
        if m.tag != self._tag:
            return m
        self._seen.append(m)
        return self._change(*self._seen) if len(self._seen) == 2 else m


def _blamed(run: Run, party: str, sender: str, may_be_lost: bool = False) -> None:
    error = run.errors[party]
    assert isinstance(error, (RemoteProtocolError, PeerLost) if may_be_lost else RemoteProtocolError)
    assert error.party == sender
    assert party not in run.results


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize(("sender", "tag"), [(sender, tag) for sender, tags in SENT_BY.items() for tag in tags])
def test_every_message_about_a_later_bucket_is_checked(sender: str, tag: str, how: str) -> None:
    other = "platform" if sender == "lender" else "lender"
    run = try_parties(_pair(_stores(A, B), 20), tamper=Second(tag, lambda _, m: SPOILT[how](m)))
    _blamed(run, other, sender, how == "lost")


@pytest.mark.parametrize(
    ("tag", "blamed"), [("masked", "platform"), ("upper", "platform"), ("tags", "platform"), ("rows", "lender")]
)
def test_messages_of_another_bucket_are_no_answer(tag: str, blamed: str) -> None:
    """Replayed from the first bucket.  What the receiver sent in vain it sees in the answers: the sentinel is missing."""
    run = try_parties(_pair(_stores(A, B), 20), tamper=Second(tag, lambda first, _: first))
    _blamed(run, "platform" if blamed == "lender" else "lender", blamed)


@pytest.mark.parametrize(("tag", "sender"), [("masked", "platform"), ("tags", "platform")])
def test_noise_about_a_later_bucket_is_no_result(tag: str, sender: str) -> None:
    noise = RNG(1)
    run = try_parties(_pair(_stores(A, B), 20), tamper=Second(tag, lambda _, m: replace(m, body=noise.bytes(m.size))))
    _blamed(run, "lender", sender)


def test_rows_of_two_buckets_in_another_order_are_refused() -> None:
    held = []

    def swap(m):
        if m.tag != "matching/rows" or len(held) > 1:
            return m
        held.append(m)
        return None if len(held) == 1 else held[::-1]

    run = try_parties(_pair(_stores(A, B), 20), tamper=swap)
    _blamed(run, "platform", "lender")
    assert run.errors["platform"].why == "matches that it cannot have found"


# --- going on


class Dies(Exception):
    """Stands for a crash."""


class Fragile(MemoryStore):
    """Its owner dies right before or after it has kept something for the so manieth time."""

    def __init__(self, words: np.ndarray) -> None:
        super().__init__(words)
        self.lives, self.first = None, True

    def save(self, step: int, name: str, array: np.ndarray) -> None:
        if self.lives is not None:
            self.lives -= 1
        if self.lives == -1 and self.first:
            raise Dies
        super().save(step, name, array.copy())
        if self.lives == -1:
            raise Dies


def _ends_well(stores, a: np.ndarray, b: np.ndarray, size: int) -> None:
    for store in stores:
        store.lives = None
    _assert_right(run_parties(_pair(stores, size)), stores, a, b)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("side", [0, 1])
def test_a_crash_at_any_write_of_either_side_changes_nothing(side: int, first: bool) -> None:
    """And a second one, of the other side, in the second attempt: before or after it keeps the first bucket anew."""
    a, b = _sets(30, 40, 20)
    for lives, second in product(range(11), (1, 2)):
        stores = Fragile(a), Fragile(b)
        stores[side].lives, stores[side].first = lives, first
        died = "Dies" in str([type(e) for e in try_parties(_pair(stores, 10)).errors.values()])
        assert died == (lives < (2 + 4 + 4 * side))
        stores[side].lives, stores[1 - side].lives = None, second
        try_parties(_pair(stores, 10))
        _ends_well(stores, a, b, 10)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("side", [0, 1])
def test_a_crash_at_any_write_with_a_single_bucket_changes_nothing(side: int, first: bool) -> None:
    a, b = _sets(30, 40, 20)
    for lives in range(3 + side):
        stores = Fragile(a), Fragile(b)
        stores[side].lives, stores[side].first = lives, first
        run = try_parties(_pair(stores, 40))
        assert "Dies" in str([type(e) for e in run.errors.values()])
        mine = ("lender", "platform")[side]
        assert bool(lives) == any(m.sender == mine for m in run.transcript)  # the salt is kept before the first message
        _ends_well(stores, a, b, 40)


@pytest.mark.parametrize("size", [10, 40])
def test_the_commitment_is_the_same_in_every_attempt(size: int) -> None:
    stores = _fragile(*_sets(30, 40, 20))
    seen = set()
    for last in ("hello", "public", "masked", "vote", "rows"):
        run = try_parties(_pair(stores, size), tamper=lambda m, last=last: None if m.tag == f"matching/{last}" else m)
        assert run.errors
        seen |= {(m.sender, m.body[81:]) for m in run.transcript if m.tag == "matching/hello"}
    assert len(seen) == 2


def test_a_link_that_ends_at_any_message_changes_nothing() -> None:
    a, b = _sets(30, 40, 20)
    whole = len(run_parties(_pair(_stores(a, b), 10)).transcript)
    for stop in range(whole):
        stores, sent = (Fragile(a), Fragile(b)), []

        def cut(m, sent=sent, stop=stop):
            sent.append(m)
            return None if len(sent) > stop else m

        run = try_parties(_pair(stores, 10), tamper=cut)
        assert all(isinstance(e, ProtocolError) for e in run.errors.values())
        assert run.errors
        _ends_well(stores, a, b, 10)


def test_what_is_done_is_not_done_again_and_progress_goes_on() -> None:
    a, b = _sets(300, 300, 100)
    stores, seen = (Fragile(a), Fragile(b)), []
    stores[0].lives = 2 + 5
    try_parties(_pair(stores, 40))
    stores[0].lives = None
    run = run_parties(_pair(stores, 40, progress=(lambda *at: seen.append(at), None)))
    assert sum(m.tag == "matching/upper" for m in run.transcript) == 3
    assert len([m for m in run.transcript if m.tag == "matching/rows"]) == 8
    one = bound(300, 3) + okvs.columns(bound(300, 3) + 1)
    assert seen[0] == (300 + 5 * one, 300 + 8 * one)
    assert seen[-1] == (300 + 8 * one, 300 + 8 * one)
    again = run_parties(_pair(stores, 40))
    assert [m.tag.removeprefix("matching/") for m in again.transcript] == [*["hello"] * 2, *["vote"] * 2, *["rows"] * 8]
    _assert_right(again, stores, a, b)


def _fragile(a: np.ndarray, b: np.ndarray) -> list[Fragile]:
    return [Fragile(a), Fragile(b)]


def _half_done(
    size: int = 20, lives: int = 5, security: str = "semi-honest"
) -> tuple[np.ndarray, np.ndarray, list[Fragile]]:
    a, b = _sets(100, 100, 40)
    stores = _fragile(a, b)
    stores[0].lives = lives
    try_parties(_pair(stores, size, security=(security,) * 2))
    stores[0].lives = None
    return a, b, stores


VARIANTS = pytest.mark.parametrize("security", ["semi-honest", "malicious"])
SIDES = pytest.mark.parametrize(("side", "mine", "other"), [(0, "lender", "platform"), (1, "platform", "lender")])


def _refused_at_hello(run: Run, other: str, mine: str, why: str) -> None:
    error = run.errors[other]
    assert isinstance(error, RemoteProtocolError)
    assert (error.party, error.tag, error.why) == (mine, "matching/hello", why)
    assert not [m for m in run.transcript if m.sender == other and m.tag != "matching/hello"]


@VARIANTS
@SIDES
@pytest.mark.parametrize(
    ("size", "lives"), [(1000, 2), (20, 2), (20, 5)], ids=["one bucket", "nothing done", "some done"]
)
@pytest.mark.parametrize("seed", [1, 9], ids=["lost", "another"])
def test_a_peer_with_another_set_or_none_of_its_files_is_refused(
    side: int, mine: str, other: str, size: int, lives: int, seed: int, security: str
) -> None:
    """With one bucket, and when it says that nothing is done, too.  Without its salt not even the same set is known again."""
    a, b, stores = _half_done(size, lives, security)
    kept = stores[side]
    stores[side] = Fragile((a, b)[side] if seed == 1 else _words(seed, 100))
    run = try_parties(_pair(stores, size, security=(security,) * 2))
    _refused_at_hello(run, other, mine, "its identifiers are not those that this matching began with")
    stores[side] = kept
    _assert_right(run_parties(_pair(stores, size, security=(security,) * 2)), stores, a, b)


@VARIANTS
@SIDES
@pytest.mark.parametrize("lives", [2, 5, None], ids=["nothing done", "some done", "all done"])
@pytest.mark.parametrize("n", [0, 99, 101, 700, 20])
def test_a_peer_that_comes_back_with_another_size_is_refused(
    side: int, mine: str, other: str, lives: int | None, n: int, security: str
) -> None:
    """With its own commitment, and as many finished buckets as there would be: what was kept lies in other ones."""
    _, _, stores = _half_done(20, lives, security)
    done = 1 << bucket_count_bits(n, 100, 20)

    def lie(m):
        if (m.tag, m.sender) != ("matching/hello", mine):
            return m
        return replace(m, body=n.to_bytes(8, "little") + m.body[8:41] + done.to_bytes(8, "little") + m.body[49:])

    run = try_parties(_pair(stores, 20, security=(security,) * 2), tamper=lie)
    _refused_at_hello(run, other, mine, f"expected 100 identifiers as in the first attempt, got {n}")


def test_what_was_kept_in_other_buckets_is_no_use(monkeypatch) -> None:
    """As after a change of the rule for their number."""
    _, _, stores = _half_done()
    monkeypatch.setattr(protocol.buckets, "bucket_count_bits", lambda n, m, size: bucket_count_bits(n, m, size) + 1)
    run = try_parties(_pair(stores, 20))
    for error in run.errors.values():
        assert isinstance(error, LocalProtocolError)
        assert str(error) == "what was kept is in 8 buckets, not 16; begin this matching anew"
    assert len(run.errors) == 2


def test_matches_beyond_what_was_kept_are_refused() -> None:
    a, b = _sets(60, 70, 30)
    stores = _stores(a, b)
    run_parties(_pair(stores, 20))
    kept = stores[1]._kept[0, "bucket"]
    stores[1]._kept[0, "bucket"] = np.concatenate([kept[:2], kept[-1:]])
    run = try_parties(_pair(stores, 20))
    error = run.errors["platform"]
    assert isinstance(error, RemoteProtocolError)
    assert (error.party, error.tag, error.why) == ("lender", "matching/rows", "matches beyond the last tag")


@pytest.mark.parametrize("side", [0, 1])
def test_a_changed_set_is_refused_by_its_owner(side: int) -> None:
    _, _, stores = _half_done()
    other = Fragile(_words(9, 100))
    other._kept = stores[side]._kept
    stores[side] = other
    run = try_parties(_pair(stores, 20))
    mine = ("lender", "platform")[side]
    assert isinstance(run.errors[mine], LocalProtocolError)
    assert str(run.errors[mine]).startswith("our own identifiers are not those that this matching began with")
    assert not [m for m in run.transcript if m.sender == mine]


@pytest.mark.parametrize("side", [0, 1])
def test_a_changed_set_is_noticed_by_the_peer(side: int) -> None:
    a, b, stores = _half_done()
    mine, other = ("lender", "platform") if side == 0 else ("platform", "lender")
    change = lambda m: replace(m, body=m.body[:-1] + bytes([m.body[-1] ^ 1]))  # noqa: E731
    run = try_parties(
        _pair(stores, 20), tamper=lambda m: change(m) if (m.tag, m.sender) == ("matching/hello", mine) else m
    )
    error = run.errors[other]
    assert isinstance(error, RemoteProtocolError)
    assert (error.party, error.tag) == (mine, "matching/hello")
    assert error.why == "its identifiers are not those that this matching began with"
    _ends_well(stores, a, b, 20)


def test_commitments_say_nothing_about_the_set() -> None:
    seen = set()
    for _ in range(2):
        run = run_parties(_pair(_stores(A, A), 20))
        seen |= {m.body[81:] for m in run.transcript if m.tag == "matching/hello"}
    assert len(seen) == 4


def test_other_parameters_than_before_are_refused() -> None:
    _, _, stores = _half_done()
    for pair in (_pair(stores, 21), _pair(stores, 20, session=b"another"), _pair(stores[::-1], 20)):
        run = try_parties(pair)
        assert "what was kept belongs to a matching with other parameters; begin this one anew" in {
            str(e) for e in run.errors.values()
        }


def test_a_lost_file_of_the_last_attempt_means_less_is_done() -> None:
    a, b, stores = _half_done()
    del stores[0]._kept[1, "bucket"]
    _ends_well(stores, a, b, 20)


@pytest.mark.parametrize("side", [0, 1])
def test_a_lost_file_of_an_earlier_attempt_is_our_own_fault(side: int) -> None:
    _, _, stores = _half_done()
    stores[0].lives = 2
    try_parties(_pair(stores, 20))
    del stores[side]._kept[0, "bucket"]
    stores[0].lives = None
    run = try_parties(_pair(stores, 20))
    error = run.errors[("lender", "platform")[side]]
    assert isinstance(error, LocalProtocolError)
    assert str(error) == "what was kept of bucket 0 is gone; begin this matching anew"


def test_foreign_files_are_our_own_fault() -> None:
    _, _, stores = _half_done()
    stores[0]._kept[0, "run"] = np.zeros(3, np.uint8)
    run = try_parties(_pair(stores, 20))
    assert isinstance(run.errors["lender"], LocalProtocolError)
    assert str(run.errors["lender"]) == "what was kept of this matching is not what it keeps"


def test_attempts_are_limited() -> None:
    """Each one lets a dishonest receiver ask for other points."""
    a, b = _sets(30, 40, 20)
    stores = _fragile(a, b)
    for attempt in range(ledger.MAX_ATTEMPTS + 1):
        run = try_parties(_pair(stores, 40), tamper=lambda m: None if m.tag == "matching/upper" else m)
        ours = isinstance(run.errors["lender"], LocalProtocolError)
        assert ours == (attempt == ledger.MAX_ATTEMPTS)
    assert str(run.errors["lender"]).startswith("this matching was begun 32 times and never ended")


def test_results_whose_file_is_gone() -> None:
    a, b = _sets(60, 70, 30)
    stores = _stores(a, b)
    run = run_parties(_pair(stores, 20))
    for name, store, kept in zip(("lender", "platform"), stores, ("bucket", "matched")):
        del store._kept[1, kept]
        assert len(run[name].positions(0))
        with pytest.raises(LocalProtocolError, match="what was kept of bucket 1 is gone"):
            run[name].positions(1)


def test_unusable_sizes() -> None:
    class Huge(MemoryStore):
        @property
        def n_points(self) -> int:
            return protocol.MAX_ITEMS + 1

    run = try_parties(_pair((Huge(A), MemoryStore(B)), 20))
    assert str(run.errors["lender"]) == "at most 16777216 identifiers can be matched this way, got 16777217"
    run = try_parties(_pair(_stores(A, B), 0))
    assert str(run.errors["lender"]) == "a bucket has at least one point, got 0"
    assert not run.transcript
