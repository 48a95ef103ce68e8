"""Every kind of correlation that two parties make themselves is what a dealer would have dealt, at the stated cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.compare import AnyBit, Chain, Digits, PackedBits, less_than_zero, plan_less_than_zero
from mpc.correlations import Correlation
from mpc.errors import LocalProtocolError
from mpc.fourier import SERIES_BITS, FourierTuple, Waves, fit_sigmoid, odd_series
from mpc.gram import MatrixGram, MatrixWeights
from mpc.matrix import MatrixMask, MatrixProduct, mask_matrices, multiply
from mpc.ot.source import ObliviousTransfers
from mpc.shuffle import Permutation
from mpc.triples import BinaryTriple, BitPair, SquarePair, Triple
from mpc.truncation import Truncation, plan_truncation, truncate
from tests.harness import run_parties
from tests.mpc.playing import joined, split
from tests.mpc.test_compare import uniform_bytes
from tests.mpc.transfers import NAMES, between, cheap_set_up

RNG = np.random.default_rng(21)


@pytest.fixture(autouse=True, scope="module")
def _cheap():
    """The base transfers are `test_ot`'s business; one test below makes them for real."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpc.ot.products.set_up", cheap_set_up)
        yield


def drawn(*requests: Correlation, **options):
    """Both parties' (drawn, derived) for each request, and the run."""

    def body(session):
        return [session.correlations.take(ticket) for ticket in session.correlations.plan(requests)]

    run = between(body, **options)
    return list(zip(run["a"], run["b"])), run


def check(*requests: Correlation, off_by: int = 0) -> None:
    """The shares of each request are of what its class derives from what was drawn."""
    memory: dict[int, np.ndarray] = {}
    for request, sides in zip(requests, drawn(*requests)[0]):
        for me, (own, _) in enumerate(sides):
            assert [(w.shape, w.dtype) for w in own] == [(p.shape, p.dtype) for p in request.uniform(me)]
        expected = request.derive([own for own, _ in sides], memory)
        for piece, value, *shares in zip(request.derived(), expected, *(derived for _, derived in sides), strict=True):
            assert all(s.shape == piece.shape and s.dtype == piece.dtype for s in shares)
            if off_by:
                assert np.abs((piece.combine(shares) - value).view(np.int64)).max(initial=0) <= off_by
            else:
                np.testing.assert_array_equal(piece.combine(shares), value)


PAIRS = [((), ()), ((0,), (0,)), ((1,), (1,)), ((9,), (9,)), ((3, 1), (1, 5)), ((2, 3), ())]


@pytest.mark.parametrize(("shape0", "shape1"), [*PAIRS, ((5000,), (5000,))])
def test_triples(shape0, shape1):
    check(
        Triple(op="mul", shape0=shape0, shape1=shape1),
        BinaryTriple(shape0=shape0, shape1=shape1),
        SquarePair(shape=shape0),
        BitPair(shape=shape0),
    )


@pytest.mark.parametrize(
    ("shape0", "shape1"),
    [
        ((5,), (5,)),
        ((3, 5), (5, 4)),
        ((5,), (5, 2)),
        ((70, 3), (3,)),
        ((2, 1, 3, 5), (4, 5, 2)),
        ((3, 0), (0, 4)),
        ((0, 3), (3, 4)),
        ((3, 4), (4, 0)),
        ((3, 700), (700, 11)),
    ],
)
def test_triples_of_matrices(shape0, shape1):
    check(Triple(op="matmul", shape0=shape0, shape1=shape1))


@settings(max_examples=15)
@given(st.tuples(*[st.integers(0, 12)] * 3), st.sampled_from([32, 64]), st.integers(0, 1), st.booleans())
def test_products_with_masks_of_any_shape(dims, bits, owner, transpose):
    n, d, vectors = dims
    n_in, n_out = (n, d) if transpose else (d, n)
    check(
        MatrixMask(matrix=7, owner=owner, n_rows=n, n_cols=d, bits=bits),
        MatrixProduct(matrix=7, owner=owner, transpose=transpose, n_in=n_in, n_out=n_out, vectors=vectors, bits=bits),
    )


@pytest.mark.parametrize("bits", [32, 64])
def test_gram_matrices_of_masks_weighted_and_not(bits):
    columns = (5, 3, 1)
    masks = [MatrixMask(matrix=i, owner=min(i, 1), n_rows=33, n_cols=d, bits=bits) for i, d in enumerate(columns)]
    grams = [
        MatrixGram(left=i, right=j, n_rows=33, n_left=columns[i], n_right=columns[j], bits=bits)
        for i in range(3)
        for j in range(3)
    ]
    check(*masks, *grams, MatrixWeights(matrices=(0, 1, 2), n_cols=columns, n_rows=33, bits=bits))


@pytest.mark.parametrize("n", [0, 1, 9, 100])
@pytest.mark.parametrize("shift", [1, 2, 20, 61, 62])
def test_truncations(n, shift):
    check(plan_truncation(n, shift))


@pytest.mark.parametrize("n", [0, 1, 64, 65, 300])
def test_what_comparisons_ask_for(n):
    check(
        *(Digits(n=n, signed=signed) for signed in (False, True)),
        *(PackedBits(n=n, rows=rows) for rows in (0, 1, 3)),
        AnyBit(m=n // 8),
    )


@pytest.mark.parametrize(("groups", "m"), [(4, 0), (1, 1), (4, 9)])
def test_chains(groups, m):
    wanted = [(True, True), (True, False), (False, True)]
    check(*(Chain(groups=groups, m=m, order=order, equality=equality) for order, equality in wanted))


@pytest.mark.parametrize("harmonics", [[1], [1, 3], [1, 3, 5, 32767]])
def test_sines_and_cosines_are_within_the_stated_units(harmonics):
    for n in (0, 1, 501):
        check(FourierTuple(n=n, harmonics=harmonics), off_by=2)


@pytest.mark.parametrize("basis_bits", [1, 14, 22, 30])
def test_waves_are_within_the_stated_units(basis_bits):
    check(Waves(n=301, count=3, step=2, basis_bits=basis_bits), off_by=2)


def test_many_chunks_are_as_good_as_one(monkeypatch):
    for name, value in (("CHUNK_WORDS", 16), ("FEWEST_WORDS", 8), ("MESSAGE_WORDS", 32)):
        monkeypatch.setattr(f"mpc.ot.products.{name}", value)
    check(
        Triple(op="mul", shape0=(101,), shape1=(101,)),
        Triple(op="matmul", shape0=(5, 13), shape1=(13, 17)),
        *plan_less_than_zero(700),
        plan_truncation(101, 20),
        MatrixMask(matrix=1, owner=0, n_rows=37, n_cols=5, bits=32),
        MatrixProduct(matrix=1, owner=0, transpose=True, n_in=37, n_out=5, bits=32),
    )


# --- cost, transcript ---


def padded(n: int) -> int:
    return -(-n // 8) * 8


def one_way(n: int, message: int) -> int:
    """Bytes for products of n words, of which each party chooses half."""
    return (padded(n // 2) + padded(n - n // 2)) * (256 + message)


def planes(m: int, *sizes: int) -> int:
    """Bytes for m words AND tables of so many planes, both ways."""
    return 2 * padded(m) * sum(256 + 8 * t for t in sizes)


def truncation_bytes(shift: int) -> int:
    shifts = [*range(1, shift + 1), *range(1, 64 - shift), 1]
    return sum(8 - s // 8 for s in shifts)


@pytest.mark.parametrize("n", [1, 64, 200, 4100])
def test_the_cost_is_what_the_page_says(n):
    m = -(-n // 64)
    cases = [
        (Triple(op="mul", shape0=(n,), shape1=(n,)), 2 * padded(n) * 544),
        (Triple(op="matmul", shape0=(3, n), shape1=(n, 5)), 2 * padded(3 * n) * (256 + 288 * 5)),
        (SquarePair(shape=(n,)), one_way(n, 280)),
        (BinaryTriple(shape0=(n,), shape1=(n,)), planes(n, 1)),
        (BitPair(shape=(n,)), one_way(m, 512)),
        (PackedBits(n=n, rows=2), one_way(2 * m, 512)),
        (plan_truncation(n, 20), one_way(n, truncation_bytes(20))),
        (Digits(n=n, signed=True), one_way(n, 280) + planes(16 * m, 1, 3, 7)),
        (Chain(groups=4, m=m, order=True, equality=True), planes(4 * m, 1, 3, 1, 3, 7, 7)),
        (AnyBit(m=m), planes(m, 64)),
        (FourierTuple(n=n, harmonics=[1, 3]), one_way(n, 64 * 18)),
        (FourierTuple(n=n, harmonics=[1]), one_way(n, 32 * 18)),
        (Waves(n=n, count=2, step=1, basis_bits=20), 2 * one_way(n, 2 * 24 * 18)),
    ]
    for request, expected in cases:
        run = drawn(request)[1]
        assert sum(run.bytes_sent(name) for name in NAMES) == expected, request
        assert run.shape() == drawn(request)[1].shape()
    masked = [
        MatrixMask(matrix=1, owner=0, n_rows=n, n_cols=3),
        MatrixProduct(matrix=1, owner=0, transpose=False, n_in=3, n_out=n),
    ]
    run = drawn(*masked)[1]
    assert (run.bytes_sent("b"), run.bytes_sent("a")) == (8 * 256, 8 * 288 * n)
    assert truncation_bytes(20) == 394


def test_a_comparison_costs_1234_bytes_a_word():
    run = drawn(*plan_less_than_zero(64 * 64))[1]
    assert sum(run.bytes_sent(name) for name in NAMES) == 64 * 64 * 1233.75


def test_shares_and_draws_are_uniform():
    requests = (
        Triple(op="mul", shape0=(4000,), shape1=(4000,)),
        plan_truncation(4000, 20),
        Digits(n=4000, signed=True),
        PackedBits(n=4000),
        Waves(n=4000, count=1, step=1, basis_bits=20),
    )
    for sides in drawn(*requests)[0]:
        for own, derived in sides:
            for words in (*own, *derived):
                if words.dtype == np.uint64:
                    uniform_bytes(words.reshape(-1))


def test_fresh_sessions_and_tickets_share_nothing():
    one, two = (drawn(SquarePair(shape=(50,)), SquarePair(shape=(50,)))[0] for _ in range(2))
    words = np.concatenate([side[0][0] for pair in one + two for side in pair])
    assert len(set(words.tolist())) == len(words)


# --- what is refused ---


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (
            Triple(op="conv1d", shape0=(1, 1, 5), shape1=(1, 1, 2), stride=(1,), padding=(0,), dilation=(1,)),
            "'triple' for 'conv1d' is not",
        ),
        (Truncation(n=1, divisor=10), "'truncation' by 10, which is not a power of two, is not"),
        (Permutation(n=3, m=1, owner=0), "'permutation' is not"),
    ],
)
def test_what_needs_a_dealer_is_refused_when_it_is_planned(request_, what):
    with pytest.raises(LocalProtocolError, match=f"{what} offered without a dealer"):
        between(lambda session: session.correlations.plan([request_]))


def test_a_third_party_and_a_mask_used_twice_are_refused():
    with pytest.raises(LocalProtocolError, match="parties 0 and 1, not for party 2"):
        ObliviousTransfers(None, "a", 2)
    mask = MatrixMask(matrix=3, owner=0, n_rows=2, n_cols=2)
    with pytest.raises(LocalProtocolError, match="number 3 is taken"):
        drawn(mask, mask)
    with pytest.raises(LocalProtocolError, match="no mask of this shape under number 3"):
        drawn(mask, MatrixProduct(matrix=3, owner=0, transpose=False, n_in=3, n_out=2))
    with pytest.raises(LocalProtocolError, match="out of order"):
        between(lambda session: session.correlations.take(session.correlations.plan([mask, mask])[1]))


# --- protocols on top ---


def test_protocols_run_on_it_with_real_base_transfers(monkeypatch):
    from mpc.ot.extension import set_up

    monkeypatch.setattr("mpc.ot.products.set_up", set_up)
    x = np.array([0, 1, -1, 2**63 - 1, -(2**63), 1 << 40, -(1 << 40)], dtype=np.int64)
    shares = split(x.view(np.uint64), 2)
    result = between(lambda s: less_than_zero(s, s.correlations.plan(plan_less_than_zero(x.size)), shares[s.me]))
    np.testing.assert_array_equal(joined([result[name] for name in NAMES]), x < 0)
    assert {m.receiver for m in result.transcript} == set(NAMES)


def opened(body) -> np.ndarray:
    run = between(body)
    return joined([run[name] for name in NAMES])


def test_products_by_triples():
    x, y = (RNG.integers(0, 2**64, 33, dtype=np.uint64) for _ in range(2))
    xs, ys = split(x, 2), split(y, 2, 6)

    def body(session):
        ticket = session.correlations.plan([Triple(op="mul", shape0=(33,), shape1=(33,))])[0]
        (a, b), (c,) = session.correlations.take(ticket)
        e, f = session.open_many("test/open", [xs[session.me] - a, ys[session.me] - b])
        return c + e * b + f * a + (e * f if session.me == 0 else np.uint64(0))

    np.testing.assert_array_equal(opened(body), x * y)


def test_truncation_of_shares():
    x = RNG.integers(-(2**61), 2**61, 200)
    shares = split(x.view(np.uint64), 2)
    out = opened(lambda s: truncate(s, shares[s.me], s.correlations.plan([plan_truncation(200, 20)])[0]))
    assert set((out.view(np.int64) - (x >> 20)).tolist()) <= {0, 1}


def test_products_with_a_masked_matrix():
    X = [RNG.integers(-99, 99, (17, 3)), RNG.integers(-99, 99, (17, 2))]
    v = [RNG.integers(0, 2**64, 3, dtype=np.uint64), RNG.integers(0, 2**64, 17, dtype=np.uint64)]
    shares = [split(w, 2) for w in v]

    def body(session):
        left, right = mask_matrices(session, [(17, 3), (17, 2)], X[session.me], 0)
        tickets = session.correlations.plan([left.request(transpose=False), right.request(transpose=True)])
        factors = [(left, tickets[0], shares[0][session.me]), (right, tickets[1], shares[1][session.me])]
        return np.concatenate([out.reshape(-1) for out in multiply(session, factors)])

    expected = [X[0].view(np.uint64) @ v[0], X[1].T.view(np.uint64) @ v[1]]
    np.testing.assert_array_equal(opened(body), np.concatenate(expected))


def test_a_series_of_sines():
    z = np.linspace(-7, 7, 101)
    shares = split(np.rint(z * 2**20).astype(np.int64).view(np.uint64), 2)
    harmonics, coefs, error = fit_sigmoid(32.0, 6)

    def body(session):
        ticket = session.correlations.plan([FourierTuple(n=101, harmonics=harmonics)])[0]
        return odd_series(session, ticket, shares[session.me], 25, coefs)

    got = opened(body).view(np.int64) / 2.0**SERIES_BITS
    # a basis word is off by two units of 2^-14 at most; the opened angle by two steps of 2^-16 turns
    bound = (
        error
        + np.abs(coefs).sum() * (2 * 2.5 * 2.0**-14 + 2.0**-12)
        + 2 * 2 * math.pi / 2**16 * np.abs(coefs * harmonics).sum()
    )
    assert np.abs(got - (1 / (1 + np.exp(-z)) - 0.5)).max() < bound


def test_both_parties_must_ask_for_the_same():
    def party(me):
        def run(channel):
            source = ObliviousTransfers(channel, NAMES[1 - me], me)
            source.draw(SquarePair(shape=(16 + 16 * me,)))

        return run

    from mpc.errors import ProtocolError

    with pytest.raises(ProtocolError):
        run_parties({name: party(me) for me, name in enumerate(NAMES)})
