"""A join with hidden membership: against plain sets, what is sent, where bins fail, and every way a peer can misbehave."""

from __future__ import annotations

import itertools
import sys
from dataclasses import fields, replace
from functools import cache
from math import comb, lgamma, log, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.special import gammaln

from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError
from mpc.matching import cuckoo, hidden, hidden_reveals, okvs
from mpc.matching.hidden import MAX_COLUMNS, join, join_items, kept, plan_kept
from mpc.psi import MAX_ITEMS
from mpc.wire import Kind
from tests.harness import Run
from tests.mpc.hidden_runs import SUPPLIES, Rows, between, check_run, opened, quick, sets, with_kept, words
from tests.mpc.playing import play, results
from tests.mpc.test_transcripts import EXEMPT
from tests.mpc.transcripts import ENDS, Case, Checks, check_alike, check_uniform, enough, secret, streams

__all__ = ["quick"]
PUBLIC = {"hidden/hello": "sizes, a role and a nonce", "hidden/attempt": "0 unless bins failed; public"}


# --- results


@pytest.mark.parametrize("mode", SUPPLIES)
@pytest.mark.parametrize("receiver", [0, 1])
def test_exactly_the_common_rows_match_with_their_columns(mode, receiver) -> None:
    check_run(Rows(sets(60, 90, 25), receiver=receiver), mode)


@pytest.mark.parametrize(
    ("n", "m", "common"),
    [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (1, 1, 1), (40, 40, 40), (40, 50, 0), (3, 900, 2), (900, 3, 2)],
)
def test_edges(n, m, common) -> None:
    check_run(Rows(sets(n, m, common)))


@pytest.mark.parametrize("k", [(0, 0), (0, 3), (3, 0), (1, 9)])
def test_any_number_of_columns_also_none(k) -> None:
    check_run(Rows(sets(30, 30, 12), k))


def test_a_larger_join() -> None:
    check_run(Rows(sets(3000, 4000, 1300), (1, 1)))


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)), st.integers(0, 1))
def test_equals_plain_set_intersection(a, b, receiver) -> None:
    items = [[b"%d" % i for i in sorted(group, key=lambda i: i * 7 % 31)] for group in (a, b)]

    def body(session):
        mine = items[session.me]
        return join_items(session, mine, words(len(mine), 0), 0, receiver, b"s")

    joined = results(between(body))
    rows = joined[receiver].rows[opened(joined) == 1].tolist()
    assert sorted(items[receiver][row] for row in rows) == sorted(set(items[0]) & set(items[1]))


def test_columns_of_identifiers_stay_with_them() -> None:
    names = [b"d", b"a", b"c", b"b"]
    columns = np.arange(4, dtype=np.uint64)[:, None]

    def body(session):
        mine = names if session.me == 0 else [b"c", b"d"]
        return join_items(session, mine, columns[: len(mine)], 1, 0, b"s")

    joined = results(between(body))
    bits, rows = opened(joined), joined[0].rows
    both = joined[0].columns + joined[1].columns
    found = {names[row]: both[at].tolist() for at, row in enumerate(rows) if bits[at]}
    assert found == {b"c": [2, 0], b"d": [0, 1]}


def test_shares_are_in_no_repr() -> None:
    joined = results(between(Rows(sets(5, 5, 2)).join))[0]
    assert "n_sender=5" in repr(joined)
    assert "array" not in repr(joined)
    assert [f.name for f in fields(joined) if f.repr] == ["receiver", "n_receiver", "n_sender"]


def test_one_row_is_in_other_bins_in_another_run() -> None:
    rows = Rows(sets(40, 40, 20))
    first, second = (results(between(rows.join))[0].rows.tolist() for _ in range(2))
    assert first != second


# --- what is sent


def _sent(run: Run, sender: str, *tags: str) -> int:
    return sum(m.size for m in run.transcript if m.sender == sender and m.tag.startswith(tags))


@pytest.mark.parametrize(("n", "m", "k"), [(0, 0, 0), (1, 3, 1), (60, 90, 2), (900, 300, 0), (300, 20_000, 1)])
def test_cost_is_the_one_stated(n, m, k) -> None:
    run = between(Rows(sets(n, m, min(n, m) // 2), (3, k)).join)
    b = -(-(13 * n + 2400) // 30) * 3
    w = -(-b // 64)

    def c(x: int) -> int:
        return -(-(-(-11 * (x + 1) // 10) + 224) // 128) * 128

    assert b == cuckoo.n_bins(n)
    assert run.bytes_sent("a", "b") == 6874 + 26.5 * c(b) + 8 * b + 168 * w
    assert run.bytes_sent("b", "a") == 13656 + 8 * (k + 1) * c(3 * m) + 8 * b + 168 * w
    assert _sent(run, "dealer", "dealer/correction") == 8 * b + 2360 * w
    own = [m.sender for m in run.transcript if "dealer" not in (m.sender, m.receiver) and m.tag != "hidden/hello"]
    one_way = [name for name, _ in itertools.groupby(own[: own.index("b", own.index("b") + 1) + 1])]
    assert one_way == ["a", "b", "a", "b"]  # public, points, masked, hint: four messages that wait for each other
    assert [m.tag for m in run.transcript if m.sender == "a" and m.tag.startswith("compare/")] == [
        "compare/mask",
        "compare/join",
        "compare/join",
        "compare/bit",
    ]


@pytest.mark.parametrize("mode", ["dealer", "verified-dealer"])
def test_bins_are_compared_in_parts(mode, monkeypatch) -> None:
    rows = Rows(sets(300, 200, 90), (1, 1))
    whole = check_run(rows, mode)
    monkeypatch.setattr(hidden, "PART_BINS", 192)
    run = check_run(rows, mode)
    for one in (whole, run):
        sizes = [m.size for m in one.transcript if (m.tag, m.sender) == ("compare/mask", "a")]
        assert sizes == [8 * 630] if one is whole else [8 * 192] * 3 + [8 * 54]
    if mode == "dealer":
        assert whole.bytes_sent("a", "b") == run.bytes_sent("a", "b")


def test_shape_depends_on_sizes_only() -> None:
    shapes = {tuple(between(with_kept(Rows(sets(50, 70, c, seed=c)))).shape()) for c in (0, 20, 50)}
    assert len(shapes) == 1


def of_join(which: int) -> Run:
    """Nothing, everything or half matches; columns are all zero, or the ends of the ring, or between."""
    n = 2000
    rows = Rows(sets(n, n, (0, n, n // 2)[which], seed=5), (1, 1))
    rows.columns = tuple(secret(which, (n, 1), *ENDS, i).astype(np.int64).view(np.uint64) for i in (0, 1))
    return between(with_kept(rows))


def test_everything_opened_is_uniform_whatever_matches() -> None:
    case, exempt = Case(of_join), EXEMPT | PUBLIC
    for tag in ("matching/hint", "matching/masked"):  # looked at here, too
        del exempt[tag]
    runs = [of_join(which) for which in range(3)]
    assert len({tuple(run.shape()) for run in runs}) == 1
    checks, seen = Checks(), [streams(run, case, exempt) for run in runs]
    for each in seen:
        check_uniform(checks, case, each)
    for each in seen[1:]:
        check_alike(checks, case, seen[0], each)
    assert {"matching/hint", "matching/masked", "products/open", "compare/mask"} <= enough(seen[0])


def test_no_point_is_sent_and_nothing_is_sent_twice() -> None:
    rows = Rows(sets(60, 60, 30))
    runs = [between(rows.join).transcript for _ in range(2)]
    sent = b"".join(m.body for t in runs for m in t)
    for point in np.concatenate([*rows.points, *rows.columns[:1]]):
        assert point.tobytes() not in sent
    one, two = (
        {m.body for m in t if m.tag in ("matching/masked", "matching/hint") or "compare/" in m.tag} for t in runs
    )
    assert not one & two


def test_what_is_revealed_is_declared() -> None:
    assert {r.name for r in hidden_reveals.HIDDEN} == {"hidden.sizes", "hidden.shapes", "hidden.traffic"}
    assert {r.to for r in hidden_reveals.MEASURES} == {"owners"}


# --- bins


@cache
def _ways(balls: int, bins: int) -> int:
    """Ways to put numbered balls into numbered bins, at least two into each."""
    if bins == 0:
        return balls == 0
    return sum(comb(balls, j) * _ways(balls - j, bins - 1) for j in range(2, balls - 2 * (bins - 1) + 1))


def _few(n: int, bins: int, t: int) -> float:
    """log2 of the expected number of sets of t points with t - 1 bins, each chosen twice at least; exact."""
    third, total = bins // 3, 0
    for split in itertools.product(range(1, min(t, third + 1)), repeat=3):
        if sum(split) == t - 1:
            total += np.prod([_ways(t, s) * comb(third, s) for s in split], dtype=object)
    return log2(comb(n, t)) + (log2(total) if total else -9e9) - 3 * t * log2(third)


def _log_choose(a: int, b: np.ndarray) -> np.ndarray:
    return np.asarray(gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1))


def _many(n: int, bins: int, t: np.ndarray) -> np.ndarray:
    """The same from above, for many t at once.

    At most t! g(x)^s / x^t for any x > 0 of the ways to put t balls into s bins have two in each, g(x) = e^x - 1 - x; and the
    three thirds' choices of s bins in all are those of s bins among all.
    """
    s, low, high = t - 1.0, np.full(len(t), 1e-3), np.full(len(t), 50.0)
    for _ in range(50):  # the best x: where x g'(x) / g(x) is the balls in a bin
        x = (low + high) / 2
        less = x * np.expm1(x) / (np.expm1(x) - x) < 3 * t / s
        low, high = np.where(less, x, low), np.where(less, high, x)
    ways = 3 * gammaln(t + 1) + s * np.log(np.expm1(x) - x) - 3 * t * np.log(x)
    return np.asarray((_log_choose(n, t) + _log_choose(bins, s) + ways - 3 * t * log(bins / 3)) / log(2))


EXACT = 14


def failure(n: int, bins: int) -> float:
    """log2 of a bound of the probability that n points do not fit."""
    terms = [np.array([_few(n, bins, t)]) for t in range(4, min(n, EXACT) + 1)]
    for at in range(EXACT + 1, n + 1, 1 << 18):
        terms.append(_many(n, bins, np.arange(at, min(n + 1, at + (1 << 18)))))
    every = np.concatenate([np.array([-9e9]), *terms])
    return float(every.max() + np.log2(np.exp2(every - every.max()).sum()))


@pytest.mark.parametrize("n", [0, 3, 4, 9, 30, 60, 100, 150, 200, 300, 450, 600, 1000, 3000, 10_000, 100_000, 1 << 20])
def test_points_do_not_fit_with_a_probability_below_2_to_the_minus_40(n) -> None:
    assert failure(n, cuckoo.n_bins(n)) < -40


def test_the_largest_set_has_a_bound_too() -> None:
    """The expected number falls from t = 4 on, then rises to a peak of 2^-14,000; 400 values of t stand for their blocks."""
    bins = cuckoo.n_bins(MAX_ITEMS)
    t = np.unique(np.geomspace(EXACT, MAX_ITEMS, 4000).astype(np.int64))
    terms = _many(MAX_ITEMS, bins, t) + lgamma(2)
    assert terms.max() + log2(MAX_ITEMS) < -90
    assert max(_few(MAX_ITEMS, bins, t) for t in range(4, EXACT)) < -90


@pytest.mark.parametrize(("n", "bins"), [(4, 6), (8, 12), (20, 24), (60, 69)])
def test_the_rate_of_failures_is_within_its_bound(n, bins) -> None:
    """With too few bins.  Four points fail in six bins with probability 1/512, exactly the bound."""
    runs = 20_000
    points = np.random.default_rng(n).integers(0, 2**64, (n * runs, 2), dtype=np.uint64)
    chosen = cuckoo.places(points, bytes(32), bins).reshape(3, runs, n)
    failed = sum(cuckoo.table(chosen[:, i], bins) is None for i in range(runs))
    bound = min(1.0, 2.0 ** failure(n, bins))
    assert failed <= runs * bound + 5 * np.sqrt(runs * bound)
    assert failed > 0
    if n == 4:
        assert abs(failed - runs / 512) < 5 * np.sqrt(runs / 512)


def test_a_place_is_found_exactly_if_there_is_one() -> None:
    rng, outcomes = np.random.default_rng(4), set()
    for _ in range(400):
        chosen = rng.integers(0, 6, (3, 15)).astype(np.uint64) + np.array([[0], [6], [12]], dtype=np.uint64)
        table = cuckoo.table(chosen, 18)
        graph = csr_matrix((np.ones(45), (np.tile(np.arange(15), 3), chosen.reshape(-1).astype(int))), shape=(15, 18))
        possible = (maximum_bipartite_matching(graph, perm_type="column") >= 0).all()
        assert (table is not None) == possible
        outcomes.add(bool(possible))
        plain = np.full(18, -1, dtype=np.int64)
        assert cuckoo.fill_plain(chosen.T.astype(np.int64), plain) == possible
        if table is not None:
            np.testing.assert_array_equal(plain, table)
            assert sorted(table[table >= 0]) == list(range(15))
            assert all(at in chosen[:, point] for at, point in enumerate(table) if point >= 0)
    assert outcomes == {False, True}


def test_both_forms_of_the_search_fill_alike() -> None:
    points = sets(3000, 0, 0)[0]
    bins = cuckoo.n_bins(3000)
    chosen = cuckoo.places(points, bytes(32), bins)
    assert (chosen // np.uint64(bins // 3) == np.arange(3)[:, None]).all()
    plain = np.full(bins, -1, dtype=np.int64)
    assert cuckoo.fill_plain(np.ascontiguousarray(chosen.T).view(np.int64), plain)
    np.testing.assert_array_equal(cuckoo.table(chosen, bins), plain)


def test_bins_are_chosen_evenly() -> None:
    """Chi-square of 30 bins of each third: 29 degrees of freedom, beyond 90 with a probability below 1e-7."""
    chosen = cuckoo.places(sets(30_000, 0, 0)[0], bytes(range(32)), 90)
    for third, row in enumerate(chosen):
        counts = np.bincount(row.astype(int) - 30 * third, minlength=30)
        assert ((counts - 1000) ** 2 / 1000).sum() < 90


def test_without_numba_the_plain_search_serves(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mpc.matching.cuckoo_numba", None)
    check_run(Rows(sets(50, 40, 20)))
    monkeypatch.setattr(cuckoo, "fill_plain", lambda *_: False)
    assert cuckoo.table(np.zeros((3, 1), dtype=np.uint64), 3) is None


def test_other_bins_are_tried_and_both_sides_know(monkeypatch) -> None:
    real, seen = cuckoo.table, []

    def fails_twice(chosen, bins):
        seen.append(chosen.tolist())
        return None if len(seen) < 3 else real(chosen, bins)

    monkeypatch.setattr(cuckoo, "table", fails_twice)
    run = check_run(Rows(sets(50, 50, 20)))
    assert next(m.body for m in run.transcript if m.tag == "hidden/attempt") == b"\2"
    assert seen[0] != seen[1] != seen[2]


def test_attempts_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(cuckoo, "table", lambda *_: None)
    run = between(Rows(sets(5, 5, 2)).join, every=True)
    assert str(run.errors["a"]) == "the identifiers could not be put into bins in 3 attempts"
    assert isinstance(run.errors["b"], PeerLost)


# --- unusable arguments


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda x, c: (x[::-1], c, 1, 0, b"s"), "distinct and ascending"),
        (lambda x, c: (np.repeat(x[:1], 4, axis=0), c, 1, 0, b"s"), "distinct and ascending"),
        (lambda x, c: (x.view(np.int64), c, 1, 0, b"s"), "points of two words"),
        (lambda x, c: (x.reshape(-1), c, 1, 0, b"s"), "points of two words"),
        (lambda x, c: (x, c[:3], 1, 0, b"s"), "4 points have as many rows"),
        (lambda x, c: (x, c.view(np.int64), 1, 0, b"s"), "4 points have as many rows"),
        (lambda x, c: (x, np.repeat(c, MAX_COLUMNS + 1, axis=1), 1, 0, b"s"), "at most 64 words"),
        (lambda x, c: (x, c, MAX_COLUMNS + 1, 0, b"s"), "the other owner has 0 to 64 columns, got 65"),
        (lambda x, c: (x, c, -1, 0, b"s"), "the other owner has 0 to 64 columns, got -1"),
        (lambda x, c: (x, c, 1, 2, b"s"), "receiver 2"),
        (lambda x, c: (x, c, 1, 0, b""), "1 to 255 bytes"),
        (lambda x, c: (x, c, 1, 0, bytes(256)), "1 to 255 bytes"),
    ],
)
def test_unusable_arguments_are_our_own_fault_and_nothing_is_sent(change, why) -> None:
    run = between(lambda s: join(s, *change(sets(4, 0, 0)[0], words(4, 1))), every=True)
    for party in "ab":
        assert isinstance(run.errors[party], LocalProtocolError)
        assert why in str(run.errors[party])
    assert not [m for m in run.transcript if m.tag.startswith(("hidden/", "matching/"))]


@pytest.mark.parametrize(
    ("items", "rows", "why"), [([b"a", b"b", b"a"], 3, "got 1 repeated"), ([b"a"], 2, "1 identifiers have as many")]
)
def test_unusable_identifiers_are_our_own_fault(items, rows, why) -> None:
    run = between(lambda s: join_items(s, items, words(rows, 1), 1, 0, b"s"), every=True)
    assert isinstance(run.errors["a"], LocalProtocolError)
    assert why in str(run.errors["a"])


def test_three_parties_cannot_join() -> None:
    with pytest.raises(LocalProtocolError, match="between parties 0 and 1"):
        play(3, lambda s: join(s, sets(1, 0, 0)[0], words(1, 0), 0, 0, b"s"))


def test_a_ticket_is_for_one_join() -> None:
    rows = Rows(sets(5, 5, 2))

    def body(session):
        joined = rows.join(session)
        (ticket,) = session.correlations.plan([plan_kept(replace(joined, matched=joined.matched[:-3]))])
        return kept(session, ticket, joined)

    run = between(body, every=True)
    assert "not for a product" in str(run.errors["a"])


# --- faults

ROWS = Rows(sets(40, 60, 20))


def _fault(tag: str, sender: str, change) -> Run:
    return between(
        ROWS.join,
        every=True,
        tamper=lambda m: change(m) if (m.tag, m.sender) == (tag, sender) and m.receiver in "ab" else m,
    )


def _byte(at: int, value: int):
    return lambda m: replace(m, body=m.body[:at] + bytes([value]) + m.body[at + 1 :])


@pytest.mark.parametrize(
    ("tag", "sender", "change", "step", "why"),
    [
        (
            "hidden/hello",
            "a",
            _byte(4, 1),
            "hidden/hello",
            "expected at most 4194304 points, got 4294967336",
        ),
        ("hidden/hello", "b", _byte(8, 65), "hidden/hello", "expected 1 columns, got 65"),
        ("hidden/hello", "b", _byte(8, 2), "hidden/hello", "expected 1 columns, got 2"),
        ("hidden/hello", "a", _byte(8, 0), "hidden/hello", "expected 2 columns, got 0"),
        ("hidden/hello", "b", _byte(16, 1), "hidden/hello", "expected receiver=0, got 1"),
        ("hidden/attempt", "a", _byte(0, 3), "hidden/attempt", "expected fewer than 3 attempts, got 3"),
        ("hidden/hello", "b", _byte(30, 0), "matching/hint", "no answer to the point that both sides have"),
        ("matching/hint-key", "b", _byte(3, 0), "matching/hint", "no answer to the point that both sides have"),
    ],
)
def test_wrong_contents_are_the_senders_fault(tag, sender, change, step, why) -> None:
    run = _fault(tag, sender, change)
    wrong = [e for e in run.errors.values() if isinstance(e, RemoteProtocolError) and e.why.startswith(why)]
    assert [(e.party, e.tag) for e in wrong] == [(sender, step)]
    assert not run.results.keys() & {"a", "b"}


SENT_BY = {
    "a": [
        "hidden/hello",
        "matching/public",
        "hidden/attempt",
        "matching/masked",
        "compare/mask",
        "compare/join",
        "compare/bit",
    ],
    "b": ["hidden/hello", "matching/points", "matching/hint-key", "matching/hint", "compare/mask"],
}
SPOILT = {
    "shorter": lambda m: replace(m, body=m.body[:-1]),
    "longer": lambda m: replace(m, body=m.body + b"\0"),
    "empty": lambda m: replace(m, body=b""),
    "another kind": lambda m: replace(m, kind=Kind.WORDS16),
    "another tag": lambda m: replace(m, tag="hidden/other"),
    "twice": lambda m: [m, m],
    "lost": lambda _: None,
}


@pytest.mark.parametrize(("sender", "tag"), [(s, tag) for s, tags in SENT_BY.items() for tag in tags])
def test_spoilt_messages_are_noticed_at_once(sender, tag) -> None:
    other = "b" if sender == "a" else "a"
    for how, change in SPOILT.items():
        if (how, tag) == ("twice", "compare/bit"):
            continue  # nothing is read after it
        error = _fault(tag, sender, change).errors[other]
        if how == "lost" and isinstance(error, PeerLost):
            continue  # all wait, for each other or as the dealer does; the harness says it to one of them first
        assert isinstance(error, RemoteProtocolError), how
        assert error.party == sender, how


def test_an_oversized_or_reordered_hint_is_noticed(monkeypatch) -> None:
    monkeypatch.setattr("mpc.matching.opprf.CHUNK_COLUMNS", 256)
    held = []

    def later(m):
        """The first part of the hint arrives after the second."""
        held.append(m)
        return None if len(held) == 1 else [m, held[0]] if len(held) == 2 else m

    assert okvs.columns(3 * 60 + 1) > 256
    error = _fault("matching/hint", "b", later).errors["a"]
    assert isinstance(error, RemoteProtocolError)
    assert (error.party, error.tag) == ("b", "matching/hint")


def test_another_session_is_noticed() -> None:
    run = between(lambda s: ROWS.join(s, b"one" if s.me else b"other"), every=True)
    error = run.errors["a"]
    assert isinstance(error, RemoteProtocolError)
    assert error.why == "no answer to the point that both sides have"


def test_a_message_of_another_run_is_noticed() -> None:
    before = between(ROWS.join).transcript
    for tag in ("matching/masked", "matching/hint"):
        old = next(m for m in before if m.tag == tag)
        error = _fault(tag, old.sender, lambda _, old=old: old).errors["a"]
        assert isinstance(error, RemoteProtocolError)
        assert error.why == "no answer to the point that both sides have"


def test_a_peer_that_stops_ends_the_run() -> None:
    """Whatever the last message is that a peer sends."""
    for sender, tags in SENT_BY.items():
        for tag in tags:
            seen = []

            def stop(m, sender=sender, tag=tag, seen=seen):
                gone = bool(seen)
                seen.extend([m] if (m.sender, m.tag) == (sender, tag) else [])
                return None if gone and m.sender == sender and m.receiver in "ab" else m

            run = between(ROWS.join, every=True, tamper=stop)
            if tag != "compare/bit":
                error = run.errors["b" if sender == "a" else "a"]
                assert isinstance(error, PeerLost | RemoteProtocolError)
