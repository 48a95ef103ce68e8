"""Checked randomness: an honest dealer always passes, a wrong word anywhere is noticed, and the checks cost what they say."""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc._comparison import AnyBit, Chain, Digits, PackedBits
from mpc.compare import less_than_zero, plan_less_than_zero
from mpc.dealer import Correlations, run_dealer
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.fourier import FourierTuple, Waves
from mpc.matrix import MatrixMask, MatrixProduct
from mpc.session import Session
from mpc.shuffle import Permutation
from mpc.triples import BinaryTriple, BitPair, SquarePair, Triple
from mpc.truncation import Truncation, plan_truncation, truncate
from mpc.verified import kinds as verified_kinds
from mpc.verified import ring128
from mpc.verified import source as verified
from mpc.verified.bits import CheckedAnd, CheckedAnyBit, CheckedChain, CheckedDigits
from mpc.verified.kinds import CheckedBits, CheckedSquare, CheckedTriple, CheckedTruncation
from mpc.verified.matrices import CheckedPermutation, CheckedProduct
from mpc.verified.source import Verified
from tests.harness import run_parties, try_parties
from tests.mpc.playing import NAMES, joined, results, split
from tests.mpc.test_compare import uniform_bytes


def triple(op="mul", a=(4,), b=(4,), **conv):
    return Triple(op=op, shape0=a, shape1=b, **conv)


TRIPLES = [
    triple(),
    triple(a=(), b=()),
    triple(a=(0,), b=(0,)),
    triple(a=(1,), b=(0, 1)),
    triple(a=(3, 1), b=(4,)),
    triple(a=(4,), b=(3, 1)),
    triple(a=(2, 1, 3), b=(1, 5, 1)),
    triple("matmul", (3, 4), (4, 2)),
    triple("matmul", (4,), (4,)),
    triple("matmul", (1, 1), (1, 1)),
    triple("matmul", (3, 0), (0, 2)),
    triple("matmul", (0, 3), (3, 2)),
    triple("matmul", (5, 2, 3), (3, 4)),
    triple("matmul", (3,), (5, 3, 2)),
    triple("conv1d", (2, 4, 9), (6, 2, 3), stride=(2,), padding=(1,), dilation=(2,), groups=2),
    triple("conv2d", (2, 3, 5, 6), (4, 3, 2, 3), stride=(1, 2), padding=(1, 0), dilation=(1, 2)),
    triple("conv_transpose1d", (2, 4, 5), (4, 3, 3), stride=(2,), padding=(1,), dilation=(2,), groups=2),
    triple("conv_transpose2d", (2, 3, 3, 4), (3, 2, 2, 1), stride=(1, 3), padding=(0, 2), dilation=(1, 1)),
    triple("conv_transpose1d", (1, 1, 6), (1, 1, 2), stride=(1,), padding=(3,), dilation=(1,)),
]
OTHERS = [
    SquarePair(shape=(3, 2)),
    SquarePair(shape=(0,)),
    BinaryTriple(shape0=(3, 1), shape1=(2,)),
    BinaryTriple(shape0=(0,), shape1=(1,)),
    Chain(groups=2, m=3, order=True, equality=True),
    Chain(groups=1, m=1, order=True, equality=False),
    Chain(groups=4, m=2, order=False, equality=True),
    Chain(groups=1, m=0, order=False, equality=True),
    Digits(n=70, signed=True),
    Digits(n=65, signed=False),
    Digits(n=0, signed=True),
    AnyBit(m=2),
    AnyBit(m=0),
    PackedBits(n=70),
    PackedBits(n=3, rows=4),
    PackedBits(n=0),
    BitPair(shape=(3, 5)),
    BitPair(shape=()),
    Truncation(n=5, divisor=1 << 20),
    Truncation(n=1, divisor=2),
    Truncation(n=1, divisor=1 << 62),
    Truncation(n=0, divisor=4),
    Truncation(n=6, divisor=3),
    FourierTuple(n=4, harmonics=[1, 3, 5]),
    FourierTuple(n=0, harmonics=[1]),
    Waves(n=5, count=3, step=2, basis_bits=20),
    Permutation(n=5, m=2, owner=1),
    Permutation(n=1, m=1, owner=0),
    Permutation(n=0, m=1, owner=0),
]
SINGLE = [*TRIPLES, *OTHERS]


def party(me: int, names, body):
    def run(channel):
        inner = Correlations(channel, "dealer", me, len(names))
        source = Verified(inner, channel, names, me, "dealer")
        result = body(Session(channel, names, me, source))
        source.close()
        return result

    return run


def roles(n_parties: int, body):
    names = NAMES[:n_parties]
    parties = {name: party(i, names, body) for i, name in enumerate(names)}
    return {**parties, "dealer": lambda channel: run_dealer(channel, names)}


def play(n_parties: int, body):
    return run_parties(roles(n_parties, body))


def is_right(request, shares) -> bool:
    """Whether what the parties were handed out is what the request says."""
    drawn, dealt = [d for d, _ in shares], [s for _, s in shares]
    for d, s, me in zip(drawn, dealt, itertools.count()):
        assert [(w.shape, w.dtype) for w in d] == [(p.shape, np.dtype(p.dtype)) for p in request.uniform(me)]
        assert [(w.shape, w.dtype) for w in s] == [(p.shape, np.dtype(p.dtype)) for p in request.derived()]
    expected = request.derive(drawn, {})
    pieces = enumerate(request.derived())
    return all(np.array_equal(piece.combine([s[i] for s in dealt]), expected[i]) for i, piece in pieces)


@pytest.mark.parametrize("n_parties", [2, 3, 5])
@pytest.mark.parametrize("request_", SINGLE, ids=repr)
def test_what_an_honest_dealer_deals_is_handed_out_and_passes(request_, n_parties):
    run = play(n_parties, lambda session: session.correlations.draw(request_))
    assert is_right(request_, results(run))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("n_parties", [2, 3])
@pytest.mark.parametrize(("n", "d"), [(5, 3), (1, 1), (0, 2), (4, 0)])
def test_products_with_masked_matrices_pass_and_are_right(n, d, n_parties, bits):
    mask = MatrixMask(matrix=7, owner=1, n_rows=n, n_cols=d, bits=bits)
    common = {"matrix": 7, "owner": 1, "bits": bits}
    products = [
        MatrixProduct(transpose=False, n_in=d, n_out=n, **common),
        MatrixProduct(transpose=True, n_in=n, n_out=d, **common),
        MatrixProduct(transpose=False, n_in=d, n_out=n, vectors=3, **common),
        MatrixProduct(transpose=True, n_in=n, n_out=d, vectors=2, holder=0, **common),
    ]

    def body(session):
        source = session.correlations
        tickets = source.plan([mask, *products, products[0]])
        out = [source.take(ticket) for ticket in tickets[:-1]]
        source.settle()
        return [*out, source.take(tickets[-1])]

    run = play(n_parties, body)
    out = results(run)
    U = out[1][0][0][0]
    assert U.dtype == np.dtype(f"uint{bits}")
    for i, product in enumerate((*products, products[0]), start=1):
        drawn = [party[i][0] for party in out]
        expected = product.derive(drawn, {7: U})[0]
        piece = product.derived()[0]
        np.testing.assert_array_equal(piece.combine([party[i][1][0] for party in out]), expected)
    # Each direction of the matrix is opened once, however often it is multiplied and checked.
    opened = [m.size for m in run.transcript if (m.sender, m.receiver, m.tag) == ("b", "a", "verified/matrix")]
    assert opened == [16 * d, 16 * n]


ERRORS = {"one": 1, "top": 1 << 63, "next": 1 << 62}
WIDE = [  # request, the kind it becomes, how many of its wide words matter
    (triple(a=(3,), b=(3,)), CheckedTriple, 3),
    (triple(a=(2, 1), b=(3,)), CheckedTriple, 6),
    (triple("matmul", (3, 2), (2, 4)), CheckedTriple, 12),
    (triple("matmul", (2, 1, 2), (2, 2)), CheckedTriple, 4),
    (triple("conv1d", (1, 2, 5), (2, 2, 3), stride=(1,), padding=(0,), dilation=(1,)), CheckedTriple, 6),
    (SquarePair(shape=(4,)), CheckedSquare, 4),
    (Permutation(n=4, m=2, owner=0), CheckedPermutation, 8),
    (PackedBits(n=5), CheckedBits, 5),
    (BitPair(shape=(2, 2)), CheckedBits, 4),
    (Truncation(n=2, divisor=1 << 20), CheckedTruncation, 128),
    (Digits(n=2, signed=True), CheckedDigits, 128),
]
BITWISE = [  # request, the kind it becomes, which derived piece
    (BinaryTriple(shape0=(3,), shape1=(3,)), CheckedAnd, 0),
    (Chain(groups=2, m=1, order=True, equality=True), CheckedChain, 0),
    (AnyBit(m=2), CheckedAnyBit, 0),
    (AnyBit(m=2), CheckedAnyBit, 1),
]


def spoil(monkeypatch, cls, change) -> None:
    """Let the dealer change what it derives for a kind."""
    honest = cls.derive

    def derive(self, drawn, memory):
        out = [np.array(piece) for piece in honest(self, drawn, memory)]
        change(out)
        return out

    monkeypatch.setattr(cls, "derive", derive)


def add_wide(rng, count: int, error: int | None):
    def change(out):
        e = int(rng.integers(1, 1 << 63)) if error is None else error
        word = np.array([[e, int(rng.integers(0, 1 << 63)) if error is None else 0]], dtype=np.uint64)
        i = int(rng.integers(count))
        out[0][i : i + 1] = ring128.add(out[0][i : i + 1], word)

    return change


def caught(n_parties: int, requests) -> bool:
    """Whether all parties blame the dealer; nobody does or everybody."""
    run = try_parties(
        roles(n_parties, lambda s: [s.correlations.take(ticket) for ticket in s.correlations.plan(requests)])
    )
    errors = [run.errors.get(name) for name in NAMES[:n_parties]]
    assert all(e is None for e in errors) or all(isinstance(e, RemoteProtocolError) for e in errors), errors
    if errors[0] is None:
        return False
    assert {(e.party, e.tag) for e in errors} == {("dealer", "verified/check")}
    assert "the dealer's randomness is wrong" in str(errors[0])
    assert "dealer" in run.results
    return True


@pytest.mark.parametrize("error", [1, 1 << 63, 1 << 62, None])
@pytest.mark.parametrize(("request_", "kind", "count"), WIDE, ids=lambda x: getattr(x, "kind", None))
@pytest.mark.parametrize("n_parties", [2, 3])
def test_one_wrong_word_is_noticed_by_all(n_parties, request_, kind, count, error, monkeypatch):
    spoil(monkeypatch, kind, add_wide(np.random.default_rng(3), count, error))
    for _ in range(4):
        assert caught(n_parties, [request_])


@pytest.mark.parametrize(("request_", "kind", "count"), WIDE, ids=lambda x: getattr(x, "kind", None))
def test_the_error_that_half_of_all_factors_cancel_in_the_smaller_ring_never_escapes(
    request_, kind, count, monkeypatch
):
    spoil(monkeypatch, kind, add_wide(np.random.default_rng(4), count, 1 << 63))
    assert sum(caught(2, [request_]) for _ in range(200)) == 200


def matrix_job(transpose: bool, vectors: int = 1):
    n_in, n_out = (5, 3) if transpose else (3, 5)
    mask = MatrixMask(matrix=0, owner=0, n_rows=5, n_cols=3)
    product = MatrixProduct(matrix=0, owner=0, transpose=transpose, n_in=n_in, n_out=n_out, vectors=vectors)
    return [mask, product, product]


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("vectors", [1, 2])
def test_a_wrong_matrix_product_never_escapes(transpose, vectors, monkeypatch):
    job = matrix_job(transpose, vectors)
    spoil(monkeypatch, CheckedProduct, add_wide(np.random.default_rng(5), job[1].n_out * vectors, 1 << 63))
    assert sum(caught(2, job) for _ in range(200)) == 200
    assert caught(3, job)


def test_errors_of_two_products_do_not_cancel(monkeypatch):
    turn = itertools.cycle([1, (1 << 128) - 1])

    def change(out):
        e = next(turn)
        word = np.array([[e & (1 << 64) - 1, e >> 64]], dtype=np.uint64)
        out[0][:1] = ring128.add(out[0][:1], word)

    spoil(monkeypatch, CheckedProduct, change)
    assert all(caught(2, matrix_job(False)) for _ in range(20))


def test_products_with_another_matrix_than_the_mask_are_noticed(monkeypatch):
    spoil(monkeypatch, CheckedProduct, lambda out: out[0].__iadd__(np.uint64(1)))
    assert caught(2, matrix_job(True))


@pytest.mark.parametrize(("request_", "kind", "piece"), BITWISE, ids=lambda x: getattr(x, "kind", None))
def test_one_flipped_bit_never_escapes(request_, kind, piece, monkeypatch):
    rng = np.random.default_rng(6)

    def change(out):
        flat = out[piece].reshape(-1)
        flat[rng.integers(flat.size)] ^= np.uint64(1) << np.uint64(rng.integers(64))

    spoil(monkeypatch, kind, change)
    assert sum(caught(2, [request_]) for _ in range(200)) == 200
    assert caught(3, [request_])


@pytest.mark.parametrize("signed", [False, True])
def test_every_wrong_product_of_digits_is_noticed_or_not_used(signed, monkeypatch):
    request = Digits(n=3, signed=signed)
    single = {0} if signed else set()  # the parties take the bits themselves from elsewhere
    for rows, _, step in request._layout():
        single |= {rows.start + chosen // step - 1 for chosen in (1, 2, 4, 8) if chosen % step == 0}
    row = itertools.count()
    spoil(monkeypatch, CheckedDigits, lambda out: out[1].__setitem__((r := next(row), 0), out[1][r, 0] ^ np.uint64(2)))
    for r in range(request.n_planes):
        run = try_parties(roles(2, lambda s: s.correlations.draw(request)))
        assert bool(run.errors) == (r not in single)
        assert run.errors or is_right(request, results(run))


def lie(monkeypatch, cls, piece: int, rng) -> None:
    """Let the dealer derive everything, C and all, as if party 0 had drawn another first word of a uniform piece."""
    honest = cls.derive

    def derive(self, drawn, memory):
        first = [np.array(words) for words in drawn[0]]
        flat = first[piece].reshape(-1)
        flat[0] = rng.integers(0, np.iinfo(flat.dtype).max, dtype=flat.dtype)
        return honest(self, [first, *drawn[1:]], memory)

    monkeypatch.setattr(cls, "derive", derive)


LIES = [
    (request, kind, piece)
    for request, kind, *_ in [*WIDE, *BITWISE[:3]]
    for piece in range(len(verified._CHECKS[type(request)](request, 2).request.uniform(0)))
]


@pytest.mark.parametrize(("request_", "kind", "piece"), LIES, ids=lambda x: getattr(x, "kind", None))
@pytest.mark.parametrize("n_parties", [2, 3])
def test_a_dealer_that_is_consistent_about_other_draws_is_noticed_or_right(
    request_, kind, piece, n_parties, monkeypatch
):
    lie(monkeypatch, kind, piece, np.random.default_rng(9))
    noticed = 0
    for _ in range(16):
        run = try_parties(roles(n_parties, lambda s: s.correlations.draw(request_)))
        if run.errors:
            assert {run.errors[name].party for name in NAMES[:n_parties]} == {"dealer"}
            noticed += 1
        else:  # for example a permutation that sorts the other word to the same place
            assert is_right(request_, results(run))
    assert noticed or piece  # what the job is handed comes first, and half of all other bytes change a bit


@pytest.mark.parametrize("request_", [Truncation(n=2, divisor=8), Digits(n=2, signed=True)], ids=lambda r: r.kind)
@pytest.mark.parametrize("n_parties", [2, 3])
def test_digits_that_make_the_mask_but_are_not_bits_are_noticed(request_, n_parties, monkeypatch):
    honest = verified_kinds.deal_digits

    def deal(R, mask):
        b, above, _ = honest(R, mask)
        b[0, 0] = ring128.add(b[0, 0], np.array([2, 0], dtype=np.uint64))
        b[0, 1] = ring128.subtract(b[0, 1], np.array([1, 0], dtype=np.uint64))
        return [b, above, ring128.dot(mask, b)]

    for module in ("kinds", "bits"):
        monkeypatch.setattr(f"mpc.verified.{module}.deal_digits", deal)
    assert all(caught(n_parties, [request_]) for _ in range(20))


@pytest.mark.parametrize("n_parties", [2, 3])
def test_bits_of_the_right_parity_that_are_no_bits_are_noticed(n_parties, monkeypatch):
    def derive(self, drawn, memory):
        b = ring128.wide(self._bits(self.uniform(0)[0].combine([d[0] for d in drawn])))
        b[0] = ring128.add(b[0], np.array([1 << 63, 0], dtype=np.uint64))
        return [self.filled(b, ring128.dot(self.drawn(drawn, 1), b)), np.zeros(1, dtype=np.uint64)]

    monkeypatch.setattr(CheckedBits, "derive", derive)
    assert all(caught(n_parties, [PackedBits(n=3)]) for _ in range(40))


def test_an_upper_limb_that_is_wrong_harms_nobody(monkeypatch):
    request = triple()

    def change(out):
        out[0][0, 1] += np.uint64(1 << 63)

    spoil(monkeypatch, CheckedTriple, change)
    escaped = 0
    for _ in range(60):
        run = try_parties(roles(2, lambda s: s.correlations.draw(request)))
        if not run.errors:
            escaped += 1
            assert is_right(request, results(run))
    assert 10 < escaped < 50  # half of all coefficients are even


TWICE = [
    FourierTuple(n=8, harmonics=[1, 2]),
    Waves(n=8, count=2, step=1, basis_bits=20),
    Truncation(n=8, divisor=6),
]


def wrong_rows(columns):
    def change(out):
        for i in columns if out[-1].shape[-1] == 16 else ():  # the dealer's, not the eight that a party recomputes
            out[-1].reshape(-1, 16)[0, i] ^= np.uint64(1 << 63)

    return change


@pytest.mark.parametrize("request_", TWICE, ids=lambda r: r.kind)
def test_a_wrong_row_of_two_is_opened_half_of_the_time(request_, monkeypatch):
    spoil(monkeypatch, type(request_), wrong_rows([3]))
    assert 70 < sum(caught(2, [request_]) for _ in range(200)) < 130  # 4 standard deviations


@pytest.mark.parametrize("request_", TWICE, ids=lambda r: r.kind)
@pytest.mark.parametrize("n_parties", [2, 3])
def test_wrong_rows_escape_as_seldom_as_stated(request_, n_parties, monkeypatch):
    spoil(monkeypatch, type(request_), wrong_rows(range(4)))
    missed = sum(not caught(n_parties, [request_]) for _ in range(128))
    assert missed <= 8 + 6 * 3  # 128 / 16 expected


def test_two_wrong_rows_of_one_pair_never_escape(monkeypatch):
    spoil(monkeypatch, FourierTuple, wrong_rows([2, 10]))
    assert all(caught(n, [TWICE[0]]) for n in (2, 3) for _ in range(20))


def wide_bytes(n: int, n_parties: int) -> int:
    """Wide words from the dealer, filled up so that everybody's part is a whole number of them."""
    return 16 * n_parties * -(-n // n_parties)


COSTS = [  # request, wide words opened, bit masks opened, wide words from the dealer, other bytes from it
    (triple(a=(40, 1), b=(30,)), 30, 0, 1201, 0),
    (triple("matmul", (3, 7), (7, 5)), 7, 0, 15 + 5, 0),
    (triple("matmul", (2, 3, 7), (7, 5)), 14, 0, 30 + 10, 0),
    (triple("conv1d", (2, 4, 9), (6, 2, 3), stride=(1,), padding=(0,), dilation=(1,), groups=2), 12, 0, 84 + 6, 0),
    (SquarePair(shape=(9,)), 9, 0, 10, 0),
    (Permutation(n=9, m=2, owner=0), 9, 0, 20, 0),
    (PackedBits(n=70), 70, 0, 71, 8),
    (BitPair(shape=(7,)), 7, 0, 8, 8),
    (Truncation(n=9, divisor=4), 64 * 9, 0, 65 * 9 + 1, 0),
    (BinaryTriple(shape0=(3, 1), shape1=(2,)), 0, 64 * 6, 0, 48 + 8),
    (Chain(groups=2, m=3, order=True, equality=True), 0, 64 * 36, 0, 22 * 48 + 8),
    (AnyBit(m=3), 0, 64 * 3, 0, 16),
    (Digits(n=70, signed=True), 64 * 70, 64 * 96, 65 * 70 + 1, 233 * 16 + 8),
]


@pytest.mark.parametrize("n_parties", [2, 3])
@pytest.mark.parametrize(("request_", "opened", "masks", "wide", "other"), COSTS, ids=lambda x: getattr(x, "kind", ""))
def test_the_cost_is_the_stated_one(request_, opened, masks, wide, other, n_parties):
    run = play(n_parties, lambda session: session.correlations.draw(request_))
    for sender, receiver in itertools.permutations(NAMES[:n_parties], 2):
        sent = [(m.tag, m.size) for m in run.transcript if (m.sender, m.receiver) == (sender, receiver)]
        first = [("verified/coin", 32)] if sender == "a" else []
        assert sent == [*first, ("verified/mask", 16 * opened + 8 * masks), ("verified/check", 56)]
    dealt = sum(m.size for m in run.transcript if m.tag == "dealer/correction")
    assert dealt == (wide_bytes(wide, n_parties) if wide else 0) + other


@pytest.mark.parametrize(("request_", "drawn", "dealt"), zip(TWICE, (16, 32, 64), (256, 256, 128), strict=True))
def test_the_cost_of_rows_dealt_twice_is_the_stated_one(request_, drawn, dealt):
    run = play(3, lambda session: session.correlations.draw(request_))
    sent = dict.fromkeys(itertools.permutations("abc", 2), 0)
    for m in run.transcript:
        if m.tag == "verified/rows":
            sent[m.sender, m.receiver] += m.size
    assert {pair: size for pair, size in sent.items() if size} == {("a", "b"): drawn, ("c", "b"): drawn + dealt}
    assert sum(m.size for m in run.transcript if m.tag == "dealer/correction") == 2 * dealt
    if isinstance(request_, FourierTuple):
        assert (drawn, dealt) == (2 * 8, 16 * 2 * 8)


def test_the_cost_of_a_matrix_product_is_the_stated_one():
    job = matrix_job(False, vectors=2)
    run = play(2, lambda session: [session.correlations.take(t) for t in session.correlations.plan(job)])
    sizes = {}
    for m in run.transcript:
        if m.tag.startswith("verified/"):
            sizes[m.sender, m.tag] = m.size
    assert sizes == {
        ("a", "verified/coin"): 32,
        ("a", "verified/matrix"): 16 * 3,
        ("a", "verified/check"): 56,
        ("b", "verified/check"): 56,
    }
    assert sum(m.size for m in run.transcript if m.tag == "dealer/correction") == 2 * wide_bytes(2 * 6, 2)


def test_settling_costs_nothing_when_nothing_was_used_and_two_rounds_when_something_was():
    def body(session):
        source = session.correlations
        source.settle()
        unused, _ = source.plan([triple(), triple()])
        assert source.waiting_bytes == 0
        source.begin(unused)
        source.settle()
        source.finish(unused)
        assert source.waiting_bytes == 2 * 4 * 16
        source.settle()
        source.settle()
        return source.waiting_bytes, repr(source), source.used["triple"].count

    run = play(2, body)
    assert results(run) == [(0, "Verified(used=1)", 1)] * 2
    sent = [m.tag for m in run.transcript if (m.sender, m.receiver) == ("b", "a")]
    assert sent == ["verified/mask", "verified/check"]


@pytest.fixture
def known_keys(monkeypatch):
    """The dealer's keys and the coin, fixed: every run of a test sees the same transcript."""
    counter = itertools.count()
    for module in ("dealer", "verified.source"):
        monkeypatch.setattr(f"mpc.{module}.fresh_key", lambda: hashlib.sha256(b"key/%d" % next(counter)).digest())


N = 4000


@pytest.mark.parametrize(
    "request_",
    [
        triple(a=(N,), b=(N,)),
        triple("matmul", (4, N), (N, 2)),
        SquarePair(shape=(N,)),
        PackedBits(n=N),
        Truncation(n=64, divisor=16),
        BinaryTriple(shape0=(64,), shape1=(64,)),
        Chain(groups=1, m=16, order=True, equality=True),
        AnyBit(m=64),
        Digits(n=64, signed=True),
        Permutation(n=N, m=2, owner=1),
    ],
    ids=lambda r: r.kind,
)
def test_what_is_opened_for_a_check_is_uniform(request_, known_keys):
    run = play(2, lambda session: session.correlations.draw(request_))
    from_a, from_b = (
        np.frombuffer(next(m.body for m in run.transcript if (m.sender, m.tag) == (s, "verified/mask")), np.uint64)
        for s in "ab"
    )
    opened = ring128.add(from_a.reshape(-1, 2), from_b.reshape(-1, 2)).reshape(-1)
    opened = from_a ^ from_b if request_.kind in ("and", "chain", "any-bit") else opened
    for words in (opened, from_a, from_b):
        if words.any() or request_.kind != "permutation":  # a party that does not know the order has nothing to open
            uniform_bytes(np.array(words))
    checks = [np.frombuffer(m.body, np.uint64)[:3] for m in run.transcript if m.tag == "verified/check"]
    low = ring128.add(checks[0][None, :2], checks[1][None, :2])
    assert not low.any()
    assert checks[0][2] == checks[1][2]


def test_what_an_owner_opens_of_its_mask_is_uniform(known_keys):
    mask = MatrixMask(matrix=0, owner=0, n_rows=N, n_cols=2)
    product = MatrixProduct(matrix=0, owner=0, transpose=True, n_in=N, n_out=2)
    run = play(2, lambda session: [session.correlations.take(t) for t in session.correlations.plan([mask, product])])
    (body,) = [m.body for m in run.transcript if m.tag == "verified/matrix"]
    uniform_bytes(np.frombuffer(body, np.uint64))


def test_shares_of_the_sums_hide_what_they_are_made_of():
    seen = set()
    for _ in range(20):
        run = play(2, lambda session: session.correlations.draw(PackedBits(n=1)))
        seen |= {m.body[i : i + 8] for m in run.transcript if m.tag == "verified/check" for i in (0, 8, 16)}
    assert len(seen) == 20 * 5  # the two shares of the parity are equal


def test_the_dealer_is_told_shapes_and_nothing_else():
    run = play(3, lambda session: [session.correlations.draw(r) for r in OTHERS])
    said = {(m.sender, m.tag) for m in run.transcript if m.receiver == "dealer"}
    assert said == {("a", "dealer/request")}
    coin = next(m.body for m in run.transcript if m.tag == "verified/coin")
    assert not any(coin in m.body or coin.hex().encode() in m.body for m in run.transcript if m.receiver == "dealer")


def test_the_shape_of_a_transcript_depends_on_sizes_only():
    shapes = [play(2, lambda session: [session.correlations.draw(r) for r in SINGLE]).shape() for _ in range(2)]
    assert shapes[0] == shapes[1]


def test_a_kind_without_a_check_is_refused_before_anything_is_asked_for():
    from mpc.gram import MatrixGram

    request = MatrixGram(left=0, right=1, n_rows=1, n_left=1, n_right=1)

    def body(session):
        with pytest.raises(LocalProtocolError, match="kind 'matrix-gram' cannot be verified"):
            session.correlations.plan([triple(), request])
        return session.correlations.draw(triple())

    assert is_right(triple(), results(play(2, body)))


def test_every_kind_that_is_checked_says_how_in_the_module_and_on_its_page():
    page = (Path(__file__).parents[2] / "docs/protocols/verified-dealer.md").read_text(encoding="utf-8")
    for cls in verified._CHECKS:
        kind = cls.model_fields["kind"].default
        assert re.search(rf"\b{kind}\b", verified.__doc__), kind
        assert f"`{kind}`" in page, kind


def test_one_party_alone_has_nobody_to_check_with():
    with pytest.raises(LocalProtocolError, match="one party alone"):
        run_parties(roles(1, lambda _: None))


def test_tickets_are_good_once_and_in_order():
    def body(session):
        first, second = session.correlations.plan([triple(), triple()])
        with pytest.raises(LocalProtocolError, match="out of order"):
            session.correlations.take(second)
        session.correlations.take(first)
        with pytest.raises(LocalProtocolError, match="already used"):
            session.correlations.begin(first)
        session.correlations.take(second)

    play(2, body)


def test_once_wrong_always_wrong_and_nothing_more_is_said(monkeypatch):
    spoil(monkeypatch, CheckedSquare, add_wide(np.random.default_rng(1), 1, 1))

    def body(session):
        source = session.correlations
        source.draw(SquarePair(shape=(1,)))
        for _ in range(2):
            with pytest.raises(RemoteProtocolError, match="nothing that was computed with it may be released"):
                source.settle()

    run = try_parties(roles(2, body))
    assert all(isinstance(run.errors[name], RemoteProtocolError) for name in "ab")  # closing says so again
    assert len([m for m in run.transcript if m.tag == "verified/check"]) == 2


@pytest.mark.parametrize("n_parties", [2, 3])
def test_protocols_run_on_checked_randomness(n_parties):
    x = np.array([5 << 20, -(7 << 20), 0, -1, 1 << 40], dtype=np.int64)
    shares = split(x.view(np.uint64), n_parties)

    def body(session):
        source, mine = session.correlations, shares[session.me]
        negative = less_than_zero(session, source.plan(plan_less_than_zero(5)), mine)
        source.settle()
        return negative, truncate(session, mine, source.plan([plan_truncation(5, 20)])[0])

    out = results(play(n_parties, body))
    np.testing.assert_array_equal(joined([o[0] for o in out]), x < 0)
    assert set((joined([o[1] for o in out]).view(np.int64) - (x >> 20)).tolist()) <= {0, 1}


def test_training_on_checked_randomness_is_right_and_a_wrong_dealer_ends_it(monkeypatch):
    from mpc.engine import bind
    from vertical import glm

    options = glm.Settings(ridge=1.0, passes=12, harmonics=4, inference=False)
    rng = np.random.default_rng(8)
    X = rng.normal(size=(40, 3))
    y = (X.sum(axis=1) + rng.normal(size=40) > 0).astype(float)

    def body(session):
        mine = X[:, :2] if session.me == 0 else X[:, 2:]
        with bind(session):
            return glm.train(session, mine, y if session.me == 0 else None, options).weights

    weights = np.concatenate(results(play(2, body)))
    assert (weights > 0.3).all()
    spoil(monkeypatch, CheckedProduct, add_wide(rng, 3, 1 << 63))
    run = try_parties(roles(2, body))
    assert {run.errors[name].party for name in "ab"} == {"dealer"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(SINGLE) | st.none(), max_size=12), st.sampled_from([2, 3]))
def test_any_mix_of_requests_passes_and_may_be_settled_anywhere(mix, n_parties):
    requests = [request for request in mix if request is not None]

    def body(session):
        source, out = session.correlations, []
        tickets = iter(source.plan(requests))
        for request in mix:
            if request is None:
                source.settle()
            else:
                out.append(source.take(next(tickets)))
        return out

    out = results(play(n_parties, body))
    assert all(is_right(request, [party[i] for party in out]) for i, request in enumerate(requests))


def as_integers(x: np.ndarray) -> np.ndarray:
    return x[..., 0].astype(object) + (x[..., 1].astype(object) << 64)


EDGES = np.array([0, 1, 2, (1 << 32) - 1, 1 << 32, 1 << 63, (1 << 64) - 1], dtype=np.uint64)


@pytest.mark.parametrize("compiled", [True, False])
def test_arithmetic_of_two_limbs_is_exact(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(ring128, "_compiler", None)
    rng = np.random.default_rng(2)
    x = np.concatenate([list(itertools.product(EDGES, EDGES)), rng.integers(0, 2**64, (51, 2), dtype=np.uint64)])
    y, a = x[::-1][:, None], as_integers(x)
    b, M = as_integers(y), 1 << 128
    assert (as_integers(ring128.add(*np.broadcast_arrays(x, y))) == (a + b) % M).all()
    assert (as_integers(ring128.subtract(*np.broadcast_arrays(x, y))) == (a - b) % M).all()
    assert (as_integers(ring128.multiply(x, y)) == a * b % M).all()
    A, B = x[:60].reshape(2, 6, 5, 2), x[40:100].reshape(2, 5, 6, 2)
    assert (as_integers(ring128.matmul(A, B)) == np.matmul(as_integers(A), as_integers(B)) % M).all()
    assert (as_integers(ring128.total(A, axis=(0, 2))) == as_integers(A).sum(axis=(0, 2)) % M).all()
    assert as_integers(ring128.dot(x, x[::-1])) == (a * a[::-1]).sum() % M
    assert ring128.matmul(np.zeros((2, 0, 2), np.uint64), np.zeros((0, 3, 2), np.uint64)).shape == (2, 3, 2)
    with pytest.raises(ValueError, match="do not multiply"):
        ring128.matmul(A, A)
