"""The largest of every row and its index are exact, the lowest index wins, and nothing is learned."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import LocalProtocolError
from mpc.extrema import argmax, argmin, plan_argmax
from tests.mpc.playing import NAMES, joined, play, results, split
from tests.mpc.test_compare import known_keys, uniform_bytes  # noqa: F401


def played(protocol, n_parties: int, x: np.ndarray, sharing: int = 5):
    shares = split(x.astype(np.int64).view(np.uint64), n_parties, sharing)

    def body(session):
        return protocol(session, session.correlations.plan(plan_argmax(*x.shape)), shares[session.me])

    run = play(n_parties, body)
    value, index = (joined([r[i] for r in results(run)]) for i in range(2))
    return run, value.view(np.int64), index.view(np.int64)


@pytest.mark.parametrize("n_parties", [2, 3, 5])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 21])
def test_the_largest_and_smallest_with_the_lowest_index(n_parties, k):
    rng = np.random.default_rng(k)
    ties = rng.integers(-2, 2, (20, k))
    wide = rng.integers(-(2**62) + 1, 2**62, (20, k))
    x = np.concatenate([ties, wide, np.zeros((1, k), dtype=np.int64), np.sort(wide[:2]), -np.sort(-wide[:2])])
    _, value, index = played(argmax, n_parties, x)
    np.testing.assert_array_equal(value, x.max(axis=1))
    np.testing.assert_array_equal(index, x.argmax(axis=1))
    _, value, index = played(argmin, n_parties, x)
    np.testing.assert_array_equal(value, x.min(axis=1))
    np.testing.assert_array_equal(index, x.argmin(axis=1))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(1, 13), st.integers(0, 2**32), st.sampled_from([1, 3, 2**62 - 1]))
def test_any_shape_and_sharing(rows, k, seed, bound):
    x = np.random.default_rng(seed).integers(-bound, bound + 1, (rows, k))
    _, value, index = played(argmax, 2, x, seed)
    np.testing.assert_array_equal(value, x.max(axis=1))
    np.testing.assert_array_equal(index, x.argmax(axis=1))


def stated(rows: int, k: int) -> tuple[int, int, int]:
    """Rounds, bytes to every other party and bytes from the dealer that the docstring states."""
    rounds = sent = dealt = 0
    first = True
    while k > 1:
        f = min(4, k)
        k = -(-k // f)
        duels = f * (f - 1) // 2 * rows * k
        m = -(-duels // 64)
        rounds += f + 3
        sent += 8 * duels + 280 * m + 8 * rows * k * f * (2 * (f - 2) + (2 if first else 3))
        dealt += 8 * duels + 2688 * m + 8 * rows * k * f * (f - 1 if first else f)
        first = False
    return rounds, sent, dealt


@pytest.mark.parametrize(("rows", "k"), [(0, 4), (3, 1), (3, 2), (70, 3), (5, 4), (33, 10), (100, 64)])
def test_the_cost_is_the_stated_one_and_depends_on_the_shape_only(rows, k):
    shapes = []
    for seed in range(2):
        x = np.random.default_rng(seed).integers(-(seed * 2**61), seed * 2**61 + 1, (rows, k))
        run = played(argmax, 3, x)[0]
        shapes.append(run.shape())
        rounds, sent, dealt = stated(rows, k)
        for sender, receiver in itertools.permutations(NAMES[:3], 2):
            mine = [m for m in run.transcript if (m.sender, m.receiver) == (sender, receiver)]
            assert (len(mine), sum(m.size for m in mine)) == (rounds, sent)
        assert sum(m.size for m in run.transcript if m.tag == "dealer/correction") == dealt
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("value", [0, -1, 2**61])
def test_everything_opened_is_uniform_whatever_the_value(value, known_keys):  # noqa: F811
    run, _, _ = played(argmax, 2, np.full((4000, 4), value))
    for tag in ("compare/mask", "compare/join", "compare/bit", "products/open"):
        from_a, from_b = (
            np.concatenate([np.frombuffer(m.body, np.uint64) for m in run.transcript if (m.sender, m.tag) == (s, tag)])
            for s in "ab"
        )
        additive = tag in ("compare/mask", "products/open")
        for words in (from_a, from_b, from_a + from_b if additive else from_a ^ from_b):
            uniform_bytes(words)


def test_wrong_tickets_and_arrays_are_refused():
    def body(plan, share):
        return lambda session: argmax(session, session.correlations.plan(plan), share)

    words = np.zeros((2, 5), dtype=np.uint64)
    for plan, share, why in [
        (plan_argmax(2, 4), words, "not for the largest of 5"),
        (plan_argmax(3, 5), words, "not for the largest of 5"),
        (plan_argmax(2, 5)[::-1], words, "not for the largest of 5"),
        (plan_argmax(2, 5), words[:, :0], "not defined"),
        (plan_argmax(2, 5), words.view(np.int64), "not defined"),
        (plan_argmax(2, 5), words[0], "not defined"),
    ]:
        with pytest.raises(LocalProtocolError, match=why):
            play(2, body(plan, share))
