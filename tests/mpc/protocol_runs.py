"""A run of every protocol on three very different secrets, for statistics of what it sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc import compare, functions, smooth
from mpc._crypten.seams import to_tensor
from mpc.engine import BinarySharedTensor, MPCTensor, bind, crypten, mpc_tensor, reveal_to, share_from
from mpc.extrema import argmax, plan_argmax
from mpc.fourier import FourierTuple, fit_sigmoid, odd_series
from mpc.gram import gram, plan_gram, plan_weighted_gram, weighted_gram
from mpc.groups import group_sum, group_sum_by_owner, one_hot, plan_group_sum, plan_group_sum_by_owner, plan_one_hot
from mpc.matrix import mask_matrices, multiply
from mpc.onehot import OneHot
from mpc.products import multiply_many, plan_matmul, plan_multiply, plan_square, select, square
from mpc.session import Session
from mpc.shuffle import plan_shuffle, shuffle
from mpc.sorting import sort, top_k
from mpc.triples import Triple
from mpc.truncation import Truncation, plan_truncation, truncate_many
from tests.harness import Run
from tests.mpc.playing import play
from tests.mpc.source_runs import (
    of_base_transfers,
    of_checked_comparisons,
    of_checked_matrices,
    of_checked_products,
    of_checks,
    of_evaluation,
    of_training,
    of_transfers,
    without_a_dealer,
)
from tests.mpc.transcripts import ENDS, Case, N, secret, shared

UNIT = 1 << 20


def of_products(parties: int) -> Callable[[int], Run]:
    shapes = [(N,), (N,), (40, 64), (64, 40), (2, 2, 30, 40), (4, 2, 15, 20)]

    def run(which: int) -> Run:
        x, y, a, b, image, filters = (
            shared(secret(which, shape, *ENDS, i), parties, i) for i, shape in enumerate(shapes)
        )
        bit = shared(secret(which, (N,), 0, 1), parties, 9)
        conv = Triple(op="conv2d", shape0=shapes[4], shape1=shapes[5], stride=(1, 1), padding=(0, 0), dilation=(1, 1))

        def body(s: Session) -> None:
            product = plan_multiply((N,))
            t = s.correlations.plan([product, plan_matmul((40, 64), (64, 40)), conv, product, plan_square((N,))])
            me = s.me
            multiply_many(s, [(t[0], x[me], y[me]), (t[1], a[me], b[me]), (t[2], image[me], filters[me])])
            select(s, t[3], bit[me], x[me], y[me])
            square(s, t[4], x[me])

        return play(parties, body)

    return run


def of_words(plan: Any, protocol: Any, low: int, high: int, *, n: int = N, parties: int = 2) -> Callable[[int], Run]:
    """protocol(session, tickets, share) on n words from low to high."""

    def run(which: int) -> Run:
        x = shared(secret(which, (n,), low, high), parties)
        return play(parties, lambda s: protocol(s, s.correlations.plan(plan), x[s.me]))

    return run


def truncated(s: Session, t: Any, x: np.ndarray) -> None:
    truncate_many(s, t, [x, x[:600], x])


TRUNCATIONS = [plan_truncation(N, 20), plan_truncation(600, 7), Truncation(n=N, divisor=1000)]
RANGES = [(-(2**61), 2**61), (1 - 2**61, 2**61 - 1)] * 1280
PERIODS = fit_sigmoid(64, 3)


def compared(s: Session, t: Any, x: np.ndarray) -> None:
    """Several thresholds, signs, zeros, all in one run."""
    compare.less_than_zero(s, t[:4], x)
    compare.is_zero(s, t[4:8], x)
    compare.less_than(s, t[8:12], x, (0, 17, -(2**60)))


def checked(s: Session, t: Any, x: np.ndarray) -> None:
    """Many ranges for few values, so that there are many words to open; and the sign of any."""
    _, words = compare.less_than_within(s, t[:-7], x, (3,), RANGES)
    word = compare.any_negative(s, t[-7:-3], x)
    compare.open_any(s, np.concatenate([words, word]))
    compare.reveal_negative(s, t[-3:], x)


def of_division(which: int) -> Run:
    below = shared(secret(which, (N,), UNIT >> 8, (UNIT << 8) - 1))
    above = shared(secret(which, (N,), -UNIT // 256, UNIT // 256, 1), holder=1)
    return play(
        2, lambda s: functions.divide(s, s.correlations.plan(functions.plan_divide(N)), above[s.me], below[s.me])
    )


def of_matrices(bits: int) -> Callable[[int], Run]:
    word, n = {32: np.uint32, 64: np.uint64}[bits], 2700

    def run(which: int) -> Run:
        codes = secret(which, (n, 2), 0, 2, 1).astype(np.uint8)
        mine = [secret(which, (n, 6), -(2**15), 2**15 - 1).astype(np.int16), OneHot(codes, 3)]
        long = [shared(secret(which, (n, 2), *ENDS, 2), holder=1 - i) for i in range(2)]
        short = [shared(secret(which, (6, 60), *ENDS, 3), holder=1 - i) for i in range(2)]

        def body(s: Session) -> None:
            matrices = mask_matrices(s, [m.shape for m in mine], mine[s.me], 0, bits)
            requests = [m.request(transpose=True, vectors=2) for m in matrices]
            requests += [m.request(transpose=False, vectors=60) for m in matrices]
            vectors = [v[s.me].astype(word) for v in (*long, *short)]
            multiply(s, list(zip(matrices * 2, s.correlations.plan(requests), vectors, strict=True)))

        return play(2, body)

    return run


def of_grams(which: int) -> Run:
    n = 3000
    mine = [secret(which, (n, 3), -999, 999).astype(np.int16), OneHot(secret(which, (n,), 0, 4).astype(np.uint8), 5)]
    weights = shared(secret(which, (n,), *ENDS))

    def body(s: Session) -> None:
        matrices = mask_matrices(s, [m.shape for m in mine], mine[s.me], 0, keep_mask=True)
        gram(s, s.correlations.plan(plan_gram(matrices)), matrices)
        weighted_gram(s, s.correlations.plan(plan_weighted_gram(matrices)), matrices, weights[s.me])

    return play(2, body)


def of_rows(parties: int) -> Callable[[int], Run]:
    def run(which: int) -> Run:
        x = shared(secret(which, (N, 2), *ENDS), parties)
        return play(parties, lambda s: shuffle(s, s.correlations.plan(plan_shuffle(N, 2, parties)), x[s.me]))

    return run


def of_sorting(which: int) -> Run:
    """Ascending keys, or equal ones, which stay in their order: the same ranks."""
    n = 1500
    key = (np.zeros(n), np.arange(n) * 2**29 - 2**39, np.arange(n) ** 3 // 7)[which].astype(np.int64)
    x = shared(np.column_stack([key, secret(which, (n,), *ENDS)]))

    def body(s: Session) -> None:
        sort(s, x[s.me], 42)
        top_k(s, x[s.me], 20, 42, descending=False)

    return play(2, body)


def of_extrema(which: int) -> Run:
    x = shared(secret(which, (200, 11), -(2**61), 2**61))
    return play(2, lambda s: argmax(s, s.correlations.plan(plan_argmax(200, 11)), x[s.me]))


def of_groups(which: int) -> Run:
    """A shared key, in two forms, of 16 groups, so 4 bits are masked; then an owner's, for 256 rows with those added."""
    n, small = 42_000, 246
    key, values = shared(secret(which, (n,), 0, 15)), shared(secret(which, (n, 1), *ENDS))
    owned, columns = secret(which, (small,), 0, 9), shared(secret(which, (small, 1), *ENDS))

    def body(s: Session) -> None:
        group_sum(s, s.correlations.plan(plan_group_sum(3000, 1, 16)), key[s.me][:3000], values[s.me][:3000], 16)
        one_hot(s, s.correlations.plan(plan_one_hot(n, 16)), key[s.me], 16)
        for _ in range(40):
            tickets = s.correlations.plan(plan_group_sum_by_owner(small, 1, 10, 1))
            group_sum_by_owner(s, tickets, columns[s.me], 10, owned if s.me == 1 else None)

    return play(2, body)


def bound(body: Callable[[Session], Any]) -> Run:
    def within(s: Session) -> None:
        with bind(s):
            body(s)

    return play(2, within)


def of_the_engine(which: int) -> Run:
    values = [secret(which, (40, 64), -8 * UNIT, 8 * UNIT, i) / UNIT for i in range(2)]

    def body(s: Session) -> None:
        x, y = (share_from(owner, v if s.me == owner else None, v.shape, 20) for owner, v in enumerate(values))
        front = mpc_tensor(x)
        front.relu()
        (front * mpc_tensor(y)).sum()
        front.matmul(mpc_tensor(y).t())
        front.sigmoid()
        mpc_tensor(x[:8]).max(dim=0)
        reveal_to(x - y, 0)
        reveal_to(x + y, 1)

    return bound(body)


def of_circuits(which: int) -> Run:
    """Conversion to bits, and an addition and a product of bits."""
    values = secret(which, (300,), -(2**40), 2**40) / UNIT

    def body(s: Session) -> None:
        x = mpc_tensor(share_from(0, values if s.me == 0 else None, values.shape, 20)).to(crypten.mpc.binary)
        x._tensor & x._tensor

    return bound(body)


def of_bits(which: int) -> Run:
    """Conversion of bits to ring words opens nothing but the lowest bit of a word."""
    values = to_tensor(secret(which, (3000,), *ENDS).view(np.uint64))

    def body(s: Session) -> None:
        x = BinarySharedTensor(values if s.me == 0 else None, size=values.size(), src=0)
        MPCTensor.from_shares(x.share, ptype=crypten.mpc.binary).to(crypten.mpc.arithmetic)

    return bound(body)


DOMAIN = (UNIT >> 8, (UNIT << 8) - 1)
COMPARISONS = [*compare.plan_less_than_zero(N), *compare.plan_is_zero(N), *compare.plan_less_than(N, 3)]
RANGE_CHECKS = [
    *compare.plan_less_than_within(64, 1, len(RANGES)),
    *compare.plan_any_negative(64),
    *compare.plan_reveal_negative(64),
]
ANGLES = [FourierTuple(n=12_000, harmonics=PERIODS[0])]


def plan_of(function: str, module: Any = functions, n: int = N) -> tuple[Any, Any]:
    return getattr(module, f"plan_{function}")(n), getattr(module, function)


MIXED = "some of its words add up in the ring, others by exclusive or"

CASES = {
    "products": Case(of_products(2)),
    "products of three": Case(of_products(3)),
    "truncation": Case(of_words(TRUNCATIONS, truncated, -(2**61), 2**61)),
    "comparison": Case(of_words(COMPARISONS, compared, -(2**61), 2**61)),
    "comparison of three": Case(of_words(COMPARISONS, compared, -(2**61), 2**61, parties=3)),
    "ranges": Case(of_words(RANGE_CHECKS, checked, -(2**60), 2**60, n=64)),
    "signs": Case(of_words(compare.plan_reveal_negative(64 * N), compare.reveal_negative, *ENDS, n=64 * N)),
    "angles": Case(of_words(ANGLES, lambda s, t, x: odd_series(s, t[0], x, 40, PERIODS[1]), -(2**37), 2**37, n=12_000)),
    "division": Case(of_division),
    "square root": Case(of_words(*plan_of("sqrt"), *DOMAIN)),
    "logarithm": Case(of_words(*plan_of("log"), *DOMAIN)),
    "exponential": Case(of_words(*plan_of("exp"), -5 * UNIT, 5 * UNIT)),
    "sigmoid": Case(of_words(*plan_of("sigmoid", smooth, 2 * N), -16 * UNIT, 16 * UNIT, n=2 * N)),
    "matrices": Case(of_matrices(64)),
    "matrices of 32 bits": Case(of_matrices(32)),
    "Gram matrices": Case(of_grams),
    "shuffle": Case(of_rows(2)),
    "shuffle of three": Case(of_rows(3)),
    "sorting": Case(of_sorting, same_keys=True),
    "extrema": Case(of_extrema),
    "groups": Case(of_groups, low_bits={"groups/key": 4}, orders={"groups/order": 256}),
    "engine": Case(of_the_engine),
    "circuits": Case(of_circuits),
    "bits": Case(of_bits, low_bits={"crypten/open": 1}),
    "checked products": Case(of_checked_products),
    "checked matrices": Case(of_checked_matrices),
    "checked comparisons": Case(of_checked_comparisons, not_opened={"verified/mask": MIXED}),
    "checks": Case(of_checks, not_opened={"verified/mask": MIXED}),
    "transfers": Case(of_transfers),
    "without a dealer": Case(without_a_dealer),
    "base transfers": Case(of_base_transfers),
    "training": Case(of_training),
    "evaluation": Case(of_evaluation),
}
