"""What the engine benchmark measures when it is asked to: functions, tables of rows, owners' matrices, raw material."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.operations import (
    UNIT,
    F,
    Operation,
    Prepare,
    Run,
    Words,
    comparison,
    fixed,
    function,
    owned,
    share,
    there_and_back,
)
from benchmarks.workload import GROUPS, Arrays

MILLION = 1_000_000
ROWS, COLUMNS = 100_000, 100
THRESHOLDS = tuple(range(-75, 100, 25))
BEST, CANDIDATES, KEY_BITS = 10, 16, 40
CUT = 20
"""Bits that a truncation drops."""
TOGETHER = 10
"""Passes that are planned at once."""


# --- inputs: the same for everybody, each time


def uniform(low: float, high: float) -> Callable[[int], Arrays]:
    """Values all over an interval."""
    return lambda n: (np.random.default_rng(20_12).uniform(low, high, n),)


def integers(bound: int, *more: int) -> Callable[[int], Arrays]:
    """Whole numbers -bound <= x < bound."""
    return lambda n: (np.random.default_rng(20_12).integers(-bound, bound, (n, *more)).astype(np.float64),)


def matrix_and_vectors(k: int = 0) -> Callable[[int], Arrays]:
    """X and what it and its transpose are multiplied by, k vectors each; small enough for the ring of 32 bits."""

    def values(n: int) -> Arrays:
        rng, wide = np.random.default_rng(20_12), (k,) if k else ()
        shapes = ((2**11, (n, COLUMNS)), (2**8, (COLUMNS, *wide)), (2**8, (n, *wide)))
        return tuple(rng.integers(-bound, bound, shape).astype(np.float64) for bound, shape in shapes)

    return values


def keys_and_values(n: int) -> Arrays:
    """A group and a value of each row."""
    rng = np.random.default_rng(20_12)
    return rng.integers(0, GROUPS, n).astype(np.float64), rng.uniform(-100, 100, n)


# --- comparisons and functions


def less_than(session: Any, arrays: Arrays) -> Run:
    """Each value with each threshold, from one opened mask."""
    from mpc.compare import less_than as protocol
    from mpc.compare import plan_less_than

    x, thresholds = share(session, arrays[0]), [t << F for t in THRESHOLDS]
    return lambda: protocol(session, session.correlations.plan(plan_less_than(x.size, len(thresholds))), x, thresholds)


def gelu(x: np.ndarray) -> np.ndarray:
    """The plain answer."""
    from scipy.special import erf

    return np.asarray(x * (1 + erf(x / np.sqrt(2))) / 2)


def one_round(name: str, plain: Callable[..., np.ndarray], what: str) -> Operation:
    """A function by its Fourier series, with the check that the values are in its interval."""
    prepare = function(name, out_bits=26)
    return Operation(f"{what}, checked, 1,000,000 values", MILLION, uniform(-8, 8), plain, prepare, 26, 2e-3)


def piecewise(name: str, plain: Callable[..., np.ndarray], interval: tuple[float, float], bound: float) -> Operation:
    """A function by octaves, with the check that the values are in its domain."""
    prepare = function(name, **({"low": -12, "high": 12} if name == "exp" else {}))
    return Operation(f"{name}, 1,000,000 values", MILLION, uniform(*interval), plain, prepare, F, bound)


# --- rows


def top_k(session: Any, arrays: Arrays) -> Run:
    """Rows of a key and a column."""
    from mpc.sorting import top_k as protocol

    rows = share(session, arrays[0], 0)
    return lambda: protocol(session, rows, BEST, KEY_BITS)[0]


def argmax(session: Any, arrays: Arrays) -> Run:
    """The largest value of each row, and its place."""
    from mpc.extrema import argmax as protocol
    from mpc.extrema import plan_argmax

    x = share(session, arrays[0], 0)
    return lambda: np.stack(protocol(session, session.correlations.plan(plan_argmax(*x.shape)), x))


def shuffle(session: Any, arrays: Arrays) -> Run:
    """Into an order that nobody knows."""
    from mpc.shuffle import plan_shuffle
    from mpc.shuffle import shuffle as protocol

    rows = share(session, arrays[0].reshape(-1, 1))
    requests = plan_shuffle(len(rows), 1, len(session.parties))
    return lambda: protocol(session, session.correlations.plan(requests), rows)[:, 0]


def group_sum_by_owner(session: Any, arrays: Arrays) -> Run:
    """Sums by a key that owner 0 knows."""
    from mpc.groups import group_sum_by_owner as protocol
    from mpc.groups import plan_group_sum_by_owner

    values = share(session, arrays[1].reshape(-1, 1))
    key = None if session.me else arrays[0].astype(np.int64)
    requests = plan_group_sum_by_owner(len(values), 1, GROUPS, 0)
    return lambda: protocol(session, session.correlations.plan(requests), values, GROUPS, key)[:, 0]


def best_rows(x: np.ndarray) -> np.ndarray:
    """The plain answer."""
    return x[np.argsort(-x[:, 0], kind="stable")[:BEST]]


def sums(key: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The plain answer."""
    return np.bincount(key.astype(np.int64), values, GROUPS)


# --- owners' matrices


def masking(session: Any, arrays: Arrays) -> Run:
    """Owner 0 sends its matrix masked; every time it is a new version, with a mask of its own."""
    from mpc.matrix import mask_matrices

    X, numbers = arrays[0].astype(np.int16), itertools.count(0, 2)
    shapes = [X.shape, (len(X), 0)]

    def run() -> Words:
        mask_matrices(session, shapes, X[:, : shapes[session.me][1]], next(numbers))
        return np.zeros(0, dtype=np.uint64)

    return run


def squares(*, weighted: bool) -> Prepare:
    """X^T X, or X^T diag(w) X with shared weights, of two owners' halves of the columns."""

    def prepare(session: Any, arrays: Arrays) -> Run:
        from mpc import gram
        from mpc.matrix import mask_matrices

        halves = np.split(fixed(arrays[0], 0).astype(np.int16), [COLUMNS // 2], axis=1)
        blocks = mask_matrices(session, [half.shape for half in halves], halves[session.me], 0, keep_mask=True)
        plan = session.correlations.plan
        if not weighted:
            return lambda: gram.gram(session, plan(gram.plan_gram(blocks)), blocks)
        weights = share(session, arrays[2], 0)
        return lambda: gram.weighted_gram(session, plan(gram.plan_weighted_gram(blocks)), blocks, weights)

    return prepare


def passes(what: str, *, vectors: int = 0, **how: Any) -> Operation:
    """X v and then X^T u in whole numbers of 16 bits, X 100,000 x 100."""
    title = f"X v, then X^T u, {what}"
    prepare = owned(False, True, frac_bits=0, **how)
    each = how.get("together", 1)
    return Operation(title, ROWS, matrix_and_vectors(vectors), there_and_back, prepare, 0, each=each)


# --- raw material


def truncate(session: Any, arrays: Arrays) -> Run:
    """Division by a power of two."""
    from mpc.truncation import plan_truncation
    from mpc.truncation import truncate as protocol

    x = share(session, arrays[0], 0)

    def run() -> Words:
        (ticket,) = session.correlations.plan([plan_truncation(x.size, CUT)])
        return protocol(session, x, ticket)

    return run


def square(session: Any, arrays: Arrays) -> Run:
    """In the ring."""
    from mpc.products import plan_square
    from mpc.products import square as protocol

    x = share(session, arrays[0])
    return lambda: protocol(session, session.correlations.plan([plan_square(x.shape)])[0], x)


def transfers(session: Any, _arrays: Arrays) -> Run:
    """What two parties without a dealer do once."""
    from mpc.supply import supply

    def run() -> Words:
        supply("ot", session.channel, session.parties, None, session.me).close()
        return np.zeros(0, dtype=np.uint64)

    return run


OPERATIONS: dict[str, Operation] = {
    "is_zero": Operation("x = 0, 1,000,000 values", MILLION, integers(4), lambda x: x == 0, comparison("is_zero"), 0),
    "less_than": Operation(
        f"x < t for {len(THRESHOLDS)} thresholds t, 100,000 values",
        100_000,
        integers(100),
        lambda x: x < np.array(THRESHOLDS)[:, None],
        less_than,
        0,
    ),
    "sigmoid_checked": one_round("sigmoid", lambda x: 1 / (1 + np.exp(-x)), "sigmoid"),
    "tanh": one_round("tanh", np.tanh, "tanh"),
    "gelu": one_round("gelu", gelu, "GELU"),
    "divide_unchecked": Operation(
        "(1 + x) / x, unchecked, 1,000,000 values",
        MILLION,
        lambda n: (1 + uniform(1, 100)(n)[0], uniform(1, 100)(n)[0]),
        lambda y, x: y / x,
        function("divide", checked=False),
        F,
        0.01,
    ),
    "reciprocal": piecewise("reciprocal", lambda x: 1 / x, (1, 100), 1e-3),
    "sqrt": piecewise("sqrt", np.sqrt, (0.01, 100), 1e-2),
    "inverse_sqrt": piecewise("inverse_sqrt", lambda x: 1 / np.sqrt(x), (1, 100), 1e-3),
    "log": piecewise("log", np.log, (0.01, 100), 1e-2),
    "exp": piecewise("exp", np.exp, (-4, 4), 1e-2),
    "top_k": Operation(
        f"the {BEST} best of 100,000 rows of 2", ROWS, integers(2 ** (KEY_BITS - 1), 2), best_rows, top_k, 0
    ),
    "argmax": Operation(
        f"argmax of {CANDIDATES} values, 10,000 rows",
        10_000,
        integers(2**40, CANDIDATES),
        lambda x: np.stack([x.max(axis=1), x.argmax(axis=1)]),
        argmax,
        0,
    ),
    "shuffle": Operation(
        "shuffle, 100,000 values", ROWS, uniform(-100, 100), np.asarray, shuffle, F, UNIT, unordered=True
    ),
    "group_sum_by_owner": Operation(
        f"sums of 10,000 values in {GROUPS} groups of an owner's",
        10_000,
        keys_and_values,
        sums,
        group_sum_by_owner,
        F,
        1e-3,
    ),
    "owner_masking": Operation("masking X, 100,000 x 100", ROWS, matrix_and_vectors(), None, masking),
    "owner_pass_32_bits": passes("ring of 32 bits", bits=32),
    "owner_pass_8_vectors": passes("8 vectors each", vectors=8),
    "owner_passes_ahead": passes(f"{TOGETHER} times, planned at once", together=TOGETHER),
    "owners_pass": passes("50 columns of each owner", split=True),
    "gram": Operation(
        "X^T X, 50 columns of each owner",
        ROWS,
        matrix_and_vectors(),
        lambda X, _v, _w: X.T @ X,
        squares(weighted=False),
        0,
    ),
    "weighted_gram": Operation(
        "X^T diag(w) X, 50 columns of each owner",
        ROWS,
        matrix_and_vectors(),
        lambda X, _v, w: X.T @ (w[:, None] * X),
        squares(weighted=True),
        0,
    ),
    "truncate": Operation(
        f"x / 2^{CUT}, 1,000,000 values", MILLION, integers(2**40), lambda x: x / 2**CUT, truncate, 0, 1.0
    ),
    "square": Operation(
        "x * x in the ring, 1,000,000 values", MILLION, uniform(-10, 10), np.square, square, 2 * F, 24 * UNIT
    ),
    "transfers": Operation("base transfers, once a session", 1, lambda _: (), None, transfers, randomness="ot"),
}
"""By name only."""
