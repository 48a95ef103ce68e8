"""Sorting is exact and stable, and what it opens has the same distribution for every data set."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpc import sorting
from mpc.compare import plan_less_than_zero
from mpc.errors import LocalProtocolError
from mpc.sorting import partition, sort, top_k
from tests.mpc.playing import NAMES, joined, play, results, split
from tests.mpc.test_compare import known_keys, uniform_bytes  # noqa: F401


def ran(n_parties: int, table: np.ndarray, protocol, sharing: int = 5):
    """Run protocol(session, share) on shares of signed rows; returns (run, columns, row numbers)."""
    shares = split(table.astype(np.int64).view(np.uint64), n_parties, sharing)
    run = play(n_parties, lambda session: protocol(session, shares[session.me]))
    columns, rows = (joined([r[i] for r in results(run)]).view(np.int64) for i in range(2))
    return run, columns, rows


def stable(key: np.ndarray, *, descending: bool) -> np.ndarray:
    return np.argsort(-key.astype(object) if descending else key, kind="stable")


def check(
    n_parties: int, table: np.ndarray, key_bits: int, *, descending: bool, k: int | None = None, sharing: int = 5
):
    def protocol(session, share):
        if k is None:
            return sort(session, share, key_bits, descending=descending)
        return top_k(session, share, k, key_bits, descending=descending)

    _, columns, rows = ran(n_parties, table, protocol, sharing)
    expected = stable(table[:, 0], descending=descending)[:k]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(columns, table[expected])


@pytest.mark.parametrize("n_parties", [2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 16, 17, 40, 300])
@pytest.mark.parametrize("descending", [False, True])
def test_rows_are_sorted_and_ties_stay_in_order(n_parties, n, descending):
    rng = np.random.default_rng(n)
    payload = rng.integers(-(2**63), 2**63, (n, 1))
    for key in (rng.integers(-3, 3, n), np.zeros(n, dtype=np.int64), np.arange(n), -np.arange(n)):
        check(n_parties, np.column_stack([key, payload]), 12, descending=descending)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("n", [2, 64, 65])
def test_keys_at_the_ends_of_the_range(n, descending):
    bits = 62 - (n - 1).bit_length()
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    key = np.random.default_rng(n).choice([low, low + 1, -1, 0, 1, high - 1, high], n)
    key[:2] = low, high
    check(2, key[:, None], bits, descending=descending)
    check(3, key[:, None], bits, descending=descending, k=2)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-4, 4) | st.integers(-(2**40), 2**40), max_size=90),
    st.sampled_from([2, 3]),
    st.booleans(),
    st.none() | st.integers(0, 100),
    st.integers(0, 2**32),
)
@example([], 2, False, None, 0)
@example([5], 2, True, 3, 0)
def test_any_keys(key, n_parties, descending, k, sharing):
    table = np.array([(x, i * 3) for i, x in enumerate(key)], dtype=np.int64).reshape(-1, 2)
    check(n_parties, table, 42, descending=descending, k=k, sharing=sharing)


@pytest.mark.parametrize("k", [0, 1, 10, 700, 2000])
def test_the_best_rows_of_many(k):
    rng = np.random.default_rng(k)
    table = np.column_stack([rng.integers(-50, 50, 2000), np.arange(2000)])
    check(2, table, 8, descending=True, k=k)


def levels_of(key: np.ndarray, limit: int, seed: int) -> tuple[list[int], list[np.ndarray], np.ndarray]:
    """Comparisons and outcomes of every level when these keys are shuffled in the clear, and the order found."""
    n = len(key)
    shuffled = np.random.default_rng(seed).permutation(n)
    distinct = key[shuffled] * n + shuffled
    levels, counts, opened = partition(n, limit), [], []
    try:
        i, j = next(levels)
        while True:
            assert (i != j).all()
            counts.append(len(i))
            opened.append(distinct[i] < distinct[j])
            i, j = levels.send(opened[-1])
    except StopIteration as end:
        return counts, opened, shuffled[end.value]


@pytest.mark.parametrize("n", [2, 3, 15, 16, 17, 18, 50, 200, 511, 512, 600, 3000])
def test_the_partition_finds_the_first_of_any_number(n):
    for seed in range(5):
        key = np.random.default_rng(seed).integers(0, n, n)
        for limit in {0, 1, 2, n // 20, n // 3, n - 1, n}:
            order = levels_of(key, limit, seed)[2]
            np.testing.assert_array_equal(np.sort(order), np.arange(n))
            np.testing.assert_array_equal(order[:limit], stable(key, descending=False)[:limit])


@pytest.mark.parametrize(
    ("n", "runs", "levels", "each"), [(100, 400, 3.7, 10.9), (1000, 100, 6.9, 16.8), (10_000, 6, 9.0, 22.6)]
)
def test_levels_and_comparisons_are_what_the_docstring_says(n, runs, levels, each):
    drawn = [levels_of(np.arange(n), n, seed)[0] for seed in range(runs)]
    n_levels, n_compared = np.array([len(c) for c in drawn]), np.array([sum(c) for c in drawn])
    assert n_levels.max() <= 6 + np.log2(n)
    assert n_compared.max() <= 2 * n * np.log2(n) + 16 * n
    assert abs(n_levels.mean() - levels) < 0.4
    assert abs(n_compared.mean() / n - each) < 0.6


def test_a_few_of_many_cost_a_few_comparisons():
    for k in (1, 20):
        drawn = [levels_of(np.arange(10_000), k, seed)[0] for seed in range(20)]
        assert np.mean([len(c) for c in drawn]) < 5
        assert np.mean([sum(c) for c in drawn]) < 2 * 10_000


def test_the_outcomes_do_not_depend_on_the_data():
    """Sorted, constant, random and reversed keys: the same numbers of levels and comparisons and the same shares of ones.

    Means of independent runs differ by less than 6 standard errors; so does the share of ones at every level.
    """
    n, runs = 300, 100
    rng = np.random.default_rng(0)
    keys = [np.arange(n), np.zeros(n, dtype=np.int64), rng.integers(-(2**40), 2**40, n), -np.arange(n)]
    seen = []
    for which, key in enumerate(keys):
        rows = []
        for seed in range(runs):
            counts, opened, _ = levels_of(key, n, 1000 * which + seed)
            ones = [bits.mean() for bits in opened[:3]]
            rows.append([len(counts), sum(counts), *counts[:3], *ones, opened[0][0]])
        seen.append(np.array(rows, dtype=np.float64))
    for a in seen:
        error = np.sqrt((a.var(axis=0) + seen[0].var(axis=0)) / runs) + 1e-12
        assert (np.abs(a.mean(axis=0) - seen[0].mean(axis=0)) <= 6 * error).all()
    same = [levels_of(key, n, 7) for key in (np.arange(n), np.arange(n) * 5 - 9)]
    for bits, others in zip(same[0][1], same[1][1]):  # outcomes are a function of the order alone
        np.testing.assert_array_equal(bits, others)


def test_what_the_protocol_opens_has_the_same_shape_for_the_same_order(monkeypatch):
    """With the dealer's keys fixed, so is the order that the rows are shuffled to; keys of one order look the same."""
    n, shapes = 60, []
    for key in (np.arange(n), np.arange(n) * 1000 - 7, np.zeros(n, dtype=np.int64)):
        counter = itertools.count()
        monkeypatch.setattr("mpc.dealer.fresh_key", lambda c=counter: hashlib.sha256(b"k%d" % next(c)).digest())
        run, _, _ = ran(2, key[:, None], lambda session, share: sort(session, share, 20))
        bits = [np.frombuffer(x.body, np.uint64) for x in run.transcript if (x.sender, x.tag) == ("a", "sorting/order")]
        other = [
            np.frombuffer(x.body, np.uint64) for x in run.transcript if (x.sender, x.tag) == ("b", "sorting/order")
        ]
        shapes.append((run.shape(), [(x ^ y).tolist() for x, y in zip(bits, other)]))
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("n_parties", [2, 3])
def test_the_cost_is_the_stated_one(n_parties, monkeypatch):
    n, m, calls = 400, 2, []
    opened = sorting.reveal_negative

    def counted(session, tickets, share, tag):
        if session.me == 0:
            calls.append(share.size)
        return opened(session, tickets, share, tag)

    monkeypatch.setattr(sorting, "reveal_negative", counted)
    table = np.random.default_rng(4).integers(-9, 9, (n, m))
    run, _, _ = ran(n_parties, table, lambda session, share: sort(session, share, 10))
    assert len(calls) <= 6 + np.log2(n)
    assert sum(calls) <= 2 * n * np.log2(n) + 16 * n
    planes = [-(-c // 64) for c in calls]
    for sender in NAMES[:n_parties]:
        for receiver in set(NAMES[:n_parties]) - {sender}:
            sent = [x for x in run.transcript if (x.sender, x.receiver) == (sender, receiver)]
            assert sum(x.size for x in sent) == 8 * n * (m + 1) + sum(8 * c for c in calls) + 280 * sum(planes)
            assert len(sent) == 1 + 4 * len(calls)
    dealt = sum(x.size for x in run.transcript if x.tag == "dealer/correction")
    assert dealt == 8 * n_parties * n * (m + 1) + 2688 * sum(planes)


def test_long_levels_are_compared_in_several_calls(monkeypatch):
    monkeypatch.setattr(sorting, "CALL", 1000)
    check(2, np.random.default_rng(5).integers(-99, 99, (400, 2)), 8, descending=False)


@pytest.mark.parametrize("value", [0, 2**40, -(2**40)])
def test_all_that_is_sent_but_the_outcomes_is_uniform(value, known_keys):  # noqa: F811
    run, _, _ = ran(2, np.full((1500, 1), value), lambda session, share: sort(session, share, 42))
    for tag in ("shuffle/mask", "compare/mask", "compare/join", "sorting/order"):
        from_a, from_b = (
            np.concatenate([np.frombuffer(m.body, np.uint64) for m in run.transcript if (m.sender, m.tag) == (s, tag)])
            for s in "ab"
        )
        uniform_bytes(from_a)
        uniform_bytes(from_b)
        if tag in ("compare/mask", "compare/join"):
            uniform_bytes(from_a + from_b if tag == "compare/mask" else from_a ^ from_b)


def test_what_cannot_be_sorted_is_refused():
    rows = np.zeros((5, 2), dtype=np.uint64)
    cases = [
        (lambda session: sort(session, rows, 60), "1 to 59 bits, not 60"),
        (lambda session: sort(session, rows, 0), "1 to 59 bits, not 0"),
        (lambda session: sort(session, rows[:, :0], 8), "have a key"),
        (lambda session: sort(session, rows[0], 8), "have a key"),
        (lambda session: sort(session, rows.view(np.int64), 8), "have a key"),
        (lambda session: top_k(session, rows, -1, 8), "-1 best rows"),
    ]

    def while_open(session):
        session.correlations.plan(plan_less_than_zero(3))
        sort(session, rows, 8)

    for body, why in [*cases, (while_open, "out of order")]:
        with pytest.raises(LocalProtocolError, match=why):
            play(2, body)
