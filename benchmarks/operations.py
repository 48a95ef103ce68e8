"""What the engine benchmark measures of ours: the operations of its table.

An operation has its inputs, its plain answer and the function that sets it up outside of the clock.  Those that peers have
too take inputs and answers from `benchmarks.workload`.  `benchmarks.more_operations` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks import workload
from benchmarks.workload import GROUPS, Arrays, answer, inputs

F = 20
"""Fractional bits of every fixed-point operand."""

Words = np.ndarray
Run = Callable[[], Words]
Prepare = Callable[[Any, Arrays], Run]
"""Given the session and the plain operands: set up outside of the clock, and return what runs against it."""


@dataclass(frozen=True)
class Operation:
    """One of ours.

    n: the size that `values` makes operands of.  plain: their answer, None where there is nothing to compare with.  bits:
    fractional bits of the result.  bound: the error that fails the benchmark.  target: the most seconds it may take.
    each: how many times one run does it; figures are divided by it.  randomness: where it comes from, whatever is asked for.
    unordered: the result may come in any order.
    """

    what: str
    n: int
    values: Callable[[int], Arrays]
    plain: Callable[..., np.ndarray] | None
    prepare: Prepare
    bits: int = F
    bound: float = 0.0
    target: float | None = None
    each: int = 1
    randomness: str = ""
    unordered: bool = False


def also_peers(name: str, prepare: Prepare, *, wider: float = 1.0, **more: Any) -> Operation:
    """An operation that peers have too.  wider: how much wider than theirs our interval is."""
    there = workload.OPERATIONS[name]
    ours: dict[str, Any] = (
        {"what": there.title, "n": there.n, "prepare": prepare}
        | {"values": lambda n: tuple(x * wider for x in inputs(name, n)), "plain": lambda *x: answer(name, x)}
        | more
    )
    return Operation(**ours)


def fixed(values: np.ndarray, frac_bits: int) -> Words:
    """Fixed point."""
    return np.rint(values * 2.0**frac_bits).astype(np.int64)


def share(session: Any, values: np.ndarray, frac_bits: int = F, bits: int = 64) -> Words:
    """This owner's share of values that both know; a benchmark has no secrets."""
    word = np.dtype(f"u{bits // 8}")
    mask = np.random.default_rng(values.size).integers(0, 2**bits, values.shape, dtype=word)
    return mask if session.me else fixed(values, frac_bits).astype(word) - mask


def product(session: Any, arrays: Arrays) -> Run:
    """A fixed-point product: the ring product and the exact truncation, planned at once."""
    from mpc.products import multiply, plan_matmul, plan_multiply
    from mpc.truncation import plan_truncation, truncate

    a, b = (share(session, x) for x in arrays)
    requests = [plan_matmul(a.shape, b.shape) if a.ndim == 2 else plan_multiply(a.shape), plan_truncation(a.size, F)]

    def run() -> Words:
        first, second = session.correlations.plan(requests)
        return np.asarray(truncate(session, multiply(session, first, a, b), second))

    return run


ONE = 200


def one(session: Any, arrays: Arrays) -> Run:
    """Products of single elements one after another, planned together, as an algorithm plans a loop."""
    from mpc.products import multiply, plan_multiply
    from mpc.truncation import plan_truncation, truncate

    x, y = (share(session, w) for w in arrays)
    requests = [plan_multiply(x.shape), plan_truncation(x.size, F)] * ONE

    def run() -> Words:
        tickets = session.correlations.plan(requests)
        for first, second in zip(tickets[::2], tickets[1::2], strict=True):
            out = truncate(session, multiply(session, first, x, y), second)
        return np.asarray(out)

    return run


def one_in_the_ring(session: Any, arrays: Arrays) -> Run:
    """The same without the truncation, which stock CrypTen does locally and inexactly: one round."""
    from mpc.products import multiply, plan_multiply

    x, y = (share(session, w) for w in arrays)

    def run() -> Words:
        for ticket in session.correlations.plan([plan_multiply(x.shape)] * ONE):
            out = multiply(session, ticket, x, y)
        return out

    return run


def one_through_crypten(session: Any, arrays: Arrays) -> Run:
    """The same through CrypTen's operator, which asks the dealer each time."""
    from mpc.engine import from_words, mpc_tensor, to_words

    x, y = (mpc_tensor(from_words(share(session, w), F)) for w in arrays)

    def run() -> Words:
        for _ in range(ONE):
            out = x * y
        return np.asarray(to_words(out._tensor))

    return run


def comparison(name: str) -> Prepare:
    """A test of `mpc.compare` for each value."""

    def prepare(session: Any, arrays: Arrays) -> Run:
        from mpc import compare

        x = share(session, arrays[0])
        plan, protocol = getattr(compare, f"plan_{name}"), getattr(compare, name)
        return lambda: np.asarray(protocol(session, session.correlations.plan(plan(x.size)), x))

    return prepare


def function(name: str, **use: Any) -> Prepare:
    """A function of `mpc.functions`.  use: as its `Range` or `Domain` takes it."""

    def prepare(session: Any, arrays: Arrays) -> Run:
        from mpc import functions

        shares = [share(session, x) for x in arrays]
        where = (functions.Range if name in {"sigmoid", "tanh", "gelu"} else functions.Domain)(**use)
        requests = getattr(functions, f"plan_{name}")(shares[0].size, where)
        protocol = getattr(functions, name)
        return lambda: np.asarray(protocol(session, session.correlations.plan(requests), *shares, where))

    return prepare


def owned(
    *steps: bool, split: bool = False, frac_bits: int = F, bits: Literal[32, 64] = 64, together: int = 1
) -> Prepare:
    """Products with a matrix, after its masking: X v, or X^T u where a step is True, one after the other.

    Operands: the matrix, then what it is multiplied by in each step.  split: half of the columns are owner 1's, else all are
    owner 0's.  bits: of the ring.  together: how many times the steps are done, all planned at once, as a training job does.
    """

    def prepare(session: Any, arrays: Arrays) -> Run:
        from mpc.matrix import mask_matrices, multiply

        X, *vectors = arrays
        cut = X.shape[1] // 2 if split else X.shape[1]
        mine = np.split(fixed(X, frac_bits), [cut], axis=1)[session.me].astype(np.int32 if frac_bits else np.int16)
        shapes = [(len(X), cut), (len(X), X.shape[1] - cut)]
        matrices = [m for m in mask_matrices(session, shapes, mine, 0, bits) if m.content.shape[1]]
        shared = [share(session, v, frac_bits, bits) for v in vectors]
        factors = [[w] * 2 if t else np.split(w, [cut]) for t, w in zip(steps, shared, strict=True)]
        k = shared[0].shape[1] if shared[0].ndim == 2 else 1
        requests = [m.request(transpose=t, vectors=k) for t in steps for m in matrices] * together

        def once(tickets: Sequence[Any]) -> Words:
            out, rest = [], iter(tickets)
            for transpose, parts in zip(steps, factors, strict=True):
                made = multiply(session, [(m, next(rest), w) for m, w in zip(matrices, parts, strict=False)])
                out.append(np.concatenate(made) if transpose else np.add.reduce(made, dtype=made[0].dtype))
            return np.concatenate(out)

        def run() -> Words:
            tickets = session.correlations.plan(requests)
            size = len(tickets) // together
            return [once(tickets[i : i + size]) for i in range(0, len(tickets), size)][-1]

        return run

    return prepare


def there_and_back(X: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The plain answer to both steps."""
    return np.concatenate([X @ v, X.T @ u])


def sort(session: Any, arrays: Arrays) -> Run:
    """Stable, of rows with a key and their numbers."""
    from mpc.sorting import sort as protocol

    rows = share(session, arrays[0].reshape(-1, 1))
    return lambda: protocol(session, rows, F + 8)[0][:, 0]


def group_sum(session: Any, arrays: Arrays) -> Run:
    """Sums and counts by a shared key."""
    from mpc.groups import group_sum as protocol
    from mpc.groups import plan_group_sum

    key, values = share(session, arrays[0], 0), share(session, arrays[1].reshape(-1, 1))

    def run() -> Words:
        tickets = session.correlations.plan(plan_group_sum(len(key), 1, GROUPS))
        return protocol(session, tickets, key, values, GROUPS)[0][:, 0]

    return run


PIECES = 16


def masks(_session: Any, arrays: Arrays) -> Run:
    """Words of masks, no message."""
    from mpc.rng import Prg, fresh_key

    stream, out = Prg(fresh_key()), arrays[0]

    def run() -> Words:
        for _ in range(PIECES):
            stream.fill(out.view(np.uint8).data)
        assert 0.48 < np.unpackbits(out[:4096].view(np.uint8)).mean() < 0.52
        return out[:0]

    return run


UNIT = 2.0**-F
OPERATIONS: dict[str, Operation] = {
    "compare": also_peers("compare", comparison("less_than_zero"), bits=0, target=0.7),
    "sigmoid": also_peers(  # one round, for values whose bound the caller knows
        "sigmoid", function("sigmoid", out_bits=26, checked=False), wider=2.0, bits=26, bound=2e-3, target=0.5
    ),
    "multiply": also_peers("multiply", product, bound=24 * UNIT, target=0.22),
    "matmul": also_peers("matmul", product, bound=1e-3, target=1.2),
    "owner_product": also_peers("owner_product", owned(False), bits=2 * F, bound=1e-3),
    "owner_product_transposed": also_peers("owner_product_transposed", owned(True), bits=2 * F, bound=1e-2),
    "owner_pass": also_peers(
        "owner_product",
        owned(False, True),
        what="an owner's X v, then X^T u",
        values=lambda n: (*inputs("owner_product", n), inputs("owner_product_transposed", n)[1]),
        plain=there_and_back,
        bits=2 * F,
        bound=1e-2,
        target=0.12,
    ),
    "sort": also_peers("sort", sort, bound=UNIT, target=4.0),
    "groupby_sum": also_peers("groupby_sum", group_sum, bound=1e-3, target=0.1),
    "divide": also_peers("divide", function("divide"), bound=0.01, target=2.5),  # checks divisor and quotient
    "one": also_peers("one", one, bound=24 * UNIT, target=0.0004, each=ONE),
    "one_in_the_ring": also_peers(
        "one", one_in_the_ring, what="x * y, one value, not truncated", bits=2 * F, bound=24 * UNIT, each=ONE
    ),
    "one_through_crypten": also_peers(
        "one", one_through_crypten, what="x * y, one CrypTen tensor", bound=24 * UNIT, each=ONE
    ),
    "masks": also_peers(
        "masks", masks, values=lambda n: (np.zeros(max(512, n // PIECES), dtype=np.uint64),), plain=None, target=0.5
    ),
    "multiply_dealerless": also_peers("multiply_dealerless", product, bound=24 * UNIT, target=12.0, randomness="ot"),
}
"""The table's, in its order; what else can be measured is in `benchmarks.more_operations`."""
