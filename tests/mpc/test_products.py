"""Products of shared words equal NumPy's in Z_2^64, cost one round, and open nothing but uniform words."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import LocalProtocolError
from mpc.products import (
    multiply,
    multiply_many,
    plan_matmul,
    plan_multiply,
    plan_square,
    select,
    square,
)
from mpc.triples import Triple
from mpc.truncation import Truncation
from tests.mpc.playing import NAMES, joined, play, results, split

WORDS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63, 2**64 - 1, 2**62, 2**63 - 1])
SHAPES = [((), ()), ((0,), (0,)), ((3,), (3,)), ((4, 1), (1, 5)), ((2, 3), (3,)), ((), (7,)), ((70_000,), (70_000,))]


def uniform(shape, seed: int) -> np.ndarray:
    return np.array(np.random.default_rng(seed).integers(0, 2**64, shape, dtype=np.uint64))


def run(n_parties: int, requests, operands, protocol):
    """The protocol on shares of the operands; returns (run, list of opened results)."""
    shares = [
        [split(np.asarray(w), n_parties, seed=11 * i + j) for j, w in enumerate(xs)] for i, xs in enumerate(operands)
    ]

    def body(session):
        tickets = session.correlations.plan(requests)
        mine = [[np.asarray(s[session.me]) for s in xs] for xs in shares]
        return protocol(session, tickets, mine)

    played = play(n_parties, body)
    return played, [joined([np.asarray(r) for r in rs]) for rs in zip(*results(played), strict=True)]


def many(session, tickets, operands):
    return multiply_many(session, [(t, x, y) for t, (x, y) in zip(tickets, operands, strict=True)])


@pytest.mark.parametrize("n_parties", [2, 3, 5])
def test_products_of_every_kind_are_exact_in_one_round(n_parties):
    operands = [(uniform(a, 1), uniform(b, 2)) for a, b in SHAPES]
    requests = [plan_multiply(a, b) for a, b in SHAPES]
    expected = [np.multiply(x, y) for x, y in operands]
    for a, b in (((3, 4), (4, 2)), ((5,), (5, 3)), ((2, 3, 4), (4, 1))):
        operands.append((uniform(a, 3), uniform(b, 4)))
        requests.append(plan_matmul(a, b))
        expected.append(operands[-1][0] @ operands[-1][1])
    conv = {"stride": (2,), "padding": (1,), "dilation": (1,)}
    requests.append(Triple(op="conv1d", shape0=(1, 1, 5), shape1=(1, 1, 3), **conv))
    signal, kernel = np.arange(5, dtype=np.uint64), np.array([1, 10, 100], dtype=np.uint64)
    operands.append((signal.reshape(1, 1, 5), kernel.reshape(1, 1, 3)))
    padded = np.concatenate([[0], signal, [0]])
    expected.append(np.array([[[int(padded[i : i + 3] @ kernel) for i in (0, 2, 4)]]], dtype=np.uint64))
    played, got = run(n_parties, requests, operands, many)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e)
    between = [m for m in played.transcript if "dealer" not in (m.sender, m.receiver)]
    small = sum(x.size + y.size for x, y in operands) * 8
    for sender, receiver in itertools.permutations(NAMES[:n_parties], 2):
        assert sum(m.size for m in between if (m.sender, m.receiver) == (sender, receiver)) == small


@given(st.lists(st.tuples(WORDS, WORDS), max_size=20), st.sampled_from([2, 3, 5]))
def test_any_words(pairs, n_parties):
    x, y = (np.array([p[i] for p in pairs], dtype=np.uint64) for i in (0, 1))
    _, (got,) = run(n_parties, [plan_multiply(x.shape)], [(x, y)], many)
    np.testing.assert_array_equal(got, x * y)


@pytest.mark.parametrize("n_parties", [2, 3, 5])
@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (9000,)])
def test_squares_cost_half_a_product(n_parties, shape):
    x = uniform(shape, 7)
    played, (got,) = run(n_parties, [plan_square(shape)], [(x,)], lambda s, t, o: [square(s, t[0], o[0][0])])
    np.testing.assert_array_equal(got, x * x)
    dealt = sum(m.size for m in played.transcript if m.tag == "dealer/correction")
    assert dealt == 8 * x.size
    assert played.bytes_sent("a", "b") == 8 * x.size


@pytest.mark.parametrize("n_parties", [2, 3])
def test_selection_takes_the_first_where_the_bit_is_one(n_parties):
    bit = np.array([1, 0, 1, 0], dtype=np.uint64)
    x, y = uniform(4, 1), uniform(4, 2)
    _, (got,) = run(n_parties, [plan_multiply((4,))], [(bit, x, y)], lambda s, t, o: [select(s, t[0], *o[0])])
    np.testing.assert_array_equal(got, np.where(bit == 1, x, y))


@pytest.mark.parametrize("n_parties", [2, 3])
def test_the_dealer_sends_every_word_once_and_large_pieces_in_equal_parts(n_parties):
    n = 30_000
    played, _ = run(n_parties, [plan_multiply((n,))], [(uniform(n, 1), uniform(n, 2))], many)
    dealt = dict.fromkeys(NAMES[:n_parties], 0)
    for m in played.transcript:
        if m.tag == "dealer/correction":
            dealt[m.receiver] += m.size
    assert set(dealt.values()) == {8 * n // n_parties}


@pytest.mark.parametrize("secret", [0, 1, 2**63, 2**64 - 1])
def test_what_is_opened_is_uniform_whatever_the_operands(secret):
    x = np.full(60_000, secret, dtype=np.uint64)
    played, _ = run(2, [plan_multiply(x.shape), plan_square(x.shape)], [(x, x), (x,)], both)
    for tag in ("products/open", "products/square"):
        a, b = (
            np.concatenate(
                [np.frombuffer(m.body, np.uint64) for m in played.transcript if (m.sender, m.tag) == (s, tag)]
            )
            for s in "ab"
        )
        for words in (a, b, a + b):
            counts = np.bincount(words.view(np.uint8), minlength=256)
            chi2 = float(((counts - counts.mean()) ** 2 / counts.mean()).sum())
            assert chi2 < 255 + 8 * np.sqrt(2 * 255)


def both(session, tickets, operands):
    (x, y), (z,) = operands
    return [multiply(session, tickets[0], x, y), square(session, tickets[1], z)]


def test_a_ticket_for_other_operands_is_refused_before_anything_is_sent():
    def body(session):
        product, squares, other = session.correlations.plan(
            [plan_multiply((3,)), plan_square((3,)), Truncation(n=3, divisor=2)]
        )
        x = np.zeros(3, dtype=np.uint64)
        for ticket, a, b in ((product, x, x[:2]), (squares, x, x), (other, x, x), (product, x.view(np.int64), x)):
            with pytest.raises(LocalProtocolError, match="is not for a product"):
                multiply(session, ticket, a, b)
        for ticket, a in ((product, x), (squares, x[:2]), (squares, x.view(np.int64))):
            with pytest.raises(LocalProtocolError, match="is not for squaring"):
                square(session, ticket, a)
        for ticket in (product, squares, other):
            session.correlations.take(ticket)

    play(2, body)


def test_shapes_that_do_not_fit_make_no_plan():
    with pytest.raises(ValueError, match="broadcast"):
        plan_multiply((3,), (4,))
    with pytest.raises(ValueError, match="do not multiply"):
        plan_matmul((3, 2), (3, 2))
