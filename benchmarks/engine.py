"""The engine's operations beside stock CrypTen's and SPU's: two owners and a dealer as processes over real TLS.

    python -m benchmarks.engine [--operations NAME ...] [--peers none|crypten|spu|all] [--repeat 5] [--json]
                                [--network lan|10ms-100mbit|50ms-20mbit]

Each operation runs in processes of its own.  The dealer is asked for nothing before the clock starts, so its work and its
traffic are in the figures.  Reported are medians over the repeats of the wall-clock seconds until the slower owner has its
shares, CPU seconds of all processes, bytes sent, rounds, and the largest error against NumPy; every result is checked
against its bound.  The peers compute the same from the same inputs in the same run, each in an environment of its own that
is made on first use: see docs/benchmarks.md.  A network stands between our processes only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import peers, table, workload
from benchmarks.parties import NAMES, OWNERS, connect, run_processes
from benchmarks.shaping import NETWORKS
from benchmarks.workload import GROUPS, answer, inputs

F = 20
"""Fractional bits of every fixed-point operand."""

Words = np.ndarray
Run = Callable[[], Words]
Prepare = Callable[[Any, tuple[Words, ...]], Run]
"""Given the session and the operands as fixed point: set up outside of the clock, and return what runs against it."""


@dataclass(frozen=True)
class Operation:
    """One of ours.

    bits: fractional bits of the result.  bound: the error that fails the benchmark.  target: the most seconds it may take.
    each: how many times one run does it; figures are divided by it.  like: the workload's operation with the same inputs
    and answer, where the name is another.  dealt: whether there is a dealer.
    """

    prepare: Prepare
    bits: int
    bound: float
    target: float | None
    each: int = 1
    like: str = ""
    what: str = ""
    dealt: bool = True


def share(session: Any, words: Words) -> Words:
    """This owner's share of words that both can make; a benchmark has no secrets."""
    mask = np.random.default_rng(words.size).integers(0, 2**64, words.shape, dtype=np.uint64)
    return mask if session.me else words.view(np.uint64) - mask


def product(session: Any, operands: tuple[Words, ...]) -> Run:
    """A fixed-point product: the ring product and the exact truncation, planned at once."""
    from mpc.products import multiply, plan_matmul, plan_multiply
    from mpc.truncation import plan_truncation, truncate

    a, b = (share(session, x) for x in operands)
    requests = [plan_matmul(a.shape, b.shape) if a.ndim == 2 else plan_multiply(a.shape), plan_truncation(a.size, F)]

    def run() -> Words:
        first, second = session.correlations.plan(requests)
        return np.asarray(truncate(session, multiply(session, first, a, b), second))

    return run


ONE = 200


def one(session: Any, operands: tuple[Words, ...]) -> Run:
    """Products of single elements one after another, planned together, as an algorithm plans a loop."""
    from mpc.products import multiply, plan_multiply
    from mpc.truncation import plan_truncation, truncate

    x, y = (share(session, w) for w in operands)
    requests = [plan_multiply((1,)), plan_truncation(1, F)] * ONE

    def run() -> Words:
        tickets = session.correlations.plan(requests)
        for first, second in zip(tickets[::2], tickets[1::2], strict=True):
            out = truncate(session, multiply(session, first, x, y), second)
        return np.asarray(out)

    return run


def one_in_the_ring(session: Any, operands: tuple[Words, ...]) -> Run:
    """The same without the truncation, which stock CrypTen does locally and inexactly: one round."""
    from mpc.products import multiply, plan_multiply

    x, y = (share(session, w) for w in operands)

    def run() -> Words:
        for ticket in session.correlations.plan([plan_multiply((1,))] * ONE):
            out = multiply(session, ticket, x, y)
        return out

    return run


def one_through_crypten(session: Any, operands: tuple[Words, ...]) -> Run:
    """The same through CrypTen's operator, which asks the dealer each time."""
    from mpc.engine import from_words, mpc_tensor, to_words

    x, y = (mpc_tensor(from_words(share(session, w), F)) for w in operands)

    def run() -> Words:
        for _ in range(ONE):
            out = x * y
        return np.asarray(to_words(out._tensor))

    return run


def compare(session: Any, operands: tuple[Words, ...]) -> Run:
    """Signs."""
    from mpc.compare import less_than_zero, plan_less_than_zero

    x = share(session, operands[0])
    return lambda: less_than_zero(session, session.correlations.plan(plan_less_than_zero(x.size)), x)


def sigmoid(session: Any, operands: tuple[Words, ...]) -> Run:
    """One round, for values whose bound the caller knows."""
    from mpc.functions import Range, plan_sigmoid
    from mpc.functions import sigmoid as protocol

    x, use = share(session, operands[0]), Range(out_bits=26, checked=False)
    return lambda: protocol(session, session.correlations.plan(plan_sigmoid(x.size, use)), x, use)


def divide(session: Any, operands: tuple[Words, ...]) -> Run:
    """With the check that the divisor and the quotient are in range."""
    from mpc.functions import divide as protocol
    from mpc.functions import plan_divide

    y, x = (share(session, w) for w in operands)
    return lambda: protocol(session, session.correlations.plan(plan_divide(x.size)), y, x)


def owned(*, forward: bool, backward: bool) -> Prepare:
    """Products with a matrix of owner 0 after its masking: X v, X^T u, or both, one after the other."""

    def prepare(session: Any, operands: tuple[Words, ...]) -> Run:
        from mpc.matrix import mask_matrices, multiply

        X, v = operands
        n, d = X.shape
        mine = X.astype(np.int32) if session.me == 0 else np.zeros((n, 0), dtype=np.int32)
        matrix, _ = mask_matrices(session, [(n, d), (n, 0)], mine, 0)
        thin, tall = (
            share(session, w) for w in ((v, fixed(inputs("owner_product_transposed")[1])) if forward else (v, v))
        )
        steps = [(False, thin)] * forward + [(True, tall)] * backward
        requests = [matrix.request(transpose=transpose) for transpose, _ in steps]

        def run() -> Words:
            tickets = session.correlations.plan(requests)
            out = [multiply(session, [(matrix, t, w)])[0] for t, (_, w) in zip(tickets, steps, strict=True)]
            return np.asarray(out[0])

        return run

    return prepare


def sort(session: Any, operands: tuple[Words, ...]) -> Run:
    """Stable, of rows with a key and their numbers."""
    from mpc.sorting import sort as protocol

    rows = share(session, operands[0].reshape(-1, 1))
    return lambda: protocol(session, rows, F + 8)[0][:, 0]


def group_sum(session: Any, operands: tuple[Words, ...]) -> Run:
    """Sums and counts by a shared key."""
    from mpc.groups import group_sum as protocol
    from mpc.groups import plan_group_sum

    key, values = share(session, operands[0] >> F), share(session, operands[1].reshape(-1, 1))

    def run() -> Words:
        tickets = session.correlations.plan(plan_group_sum(len(key), 1, GROUPS))
        return protocol(session, tickets, key, values, GROUPS)[0][:, 0]

    return run


def masks(_session: Any, _operands: tuple[Words, ...]) -> Run:
    """A gigabyte of masks, no message."""
    from mpc.rng import Prg, fresh_key

    stream, out = Prg(fresh_key()), np.zeros(1_000_000_000 // 16 // 8, dtype=np.uint64)

    def run() -> Words:
        for _ in range(16):
            stream.fill(out.view(np.uint8).data)
        assert 0.49 < np.unpackbits(out[:4096].view(np.uint8)).mean() < 0.51
        return out[:0]

    return run


UNIT = 2.0**-F
OPERATIONS: dict[str, Operation] = {
    "compare": Operation(compare, 0, 0, 0.7),
    "sigmoid": Operation(sigmoid, 26, 2e-3, 0.5),
    "multiply": Operation(product, F, 24 * UNIT, 0.22),
    "matmul": Operation(product, F, 1e-3, 1.2),
    "owner_product": Operation(owned(forward=True, backward=False), 2 * F, 1e-3, None),
    "owner_product_transposed": Operation(owned(forward=False, backward=True), 2 * F, 1e-2, None),
    "owner_pass": Operation(
        owned(forward=True, backward=True), 2 * F, 1e-3, 0.12, like="owner_product", what="an owner's X v, then X^T u"
    ),
    "sort": Operation(sort, F, UNIT, 4),
    "groupby_sum": Operation(group_sum, F, 1e-3, 0.1),
    "divide": Operation(divide, F, 0.01, 2.5),
    "one": Operation(one, F, 24 * UNIT, 0.0004, ONE),
    "one_in_the_ring": Operation(
        one_in_the_ring, 2 * F, 24 * UNIT, None, ONE, "one", "x * y, one value, not truncated"
    ),
    "one_through_crypten": Operation(one_through_crypten, F, 24 * UNIT, None, ONE, "one", "x * y, one CrypTen tensor"),
    "masks": Operation(masks, 0, 0, 0.5),
    "multiply_dealerless": Operation(product, F, 24 * UNIT, 12, dealt=False),
}
WIDER = {"sigmoid": 2.0}
"""The sigmoid is measured on twice the peers' interval, [-16, 16]."""


def fixed(values: np.ndarray) -> Words:
    """Fixed point with F fractional bits."""
    return np.rint(values * 2.0**F).astype(np.int64)


def spent(channel: Any) -> tuple[float, float, int, int]:
    """Seconds, CPU seconds, bytes sent to the other owner and rounds, so far."""
    sent = sum(channel.bytes_sent[peer] for peer in channel.bytes_sent if peer != "dealer")
    return time.perf_counter(), time.process_time(), sent, channel.rounds


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.dealer import run_dealer
    from mpc.engine import bind
    from mpc.kinds import warm_up
    from mpc.session import Session
    from mpc.supply import supply

    me, operation, turns = order["me"], OPERATIONS[order["operation"]], order["repeat"] + 1
    warm_up()
    if not operation.dealt:
        from mpc.ot import products as transfers

        transfers.warm_up()
    channel = connect(order)
    if me == "dealer":
        cpu = time.process_time()
        run_dealer(channel, OWNERS)
        cpu = time.process_time() - cpu
        return {"cpu_seconds": cpu / turns, "bytes_sent": sum(channel.bytes_sent.values()) / turns}
    index = OWNERS.index(me)
    source = supply(
        *(("dealer", channel, OWNERS, "dealer") if operation.dealt else ("ot", channel, OWNERS, None)), index
    )
    session = Session(channel, OWNERS, index, source)
    name = operation.like or order["operation"]
    arrays = tuple(x * WIDER.get(name, 1) for x in inputs(name))
    took, errors = [], []
    with bind(session):
        run = operation.prepare(session, tuple(fixed(x) for x in arrays))
        for _ in range(turns):
            session.exchange("benchmark/start", np.zeros(0, dtype=np.uint64))
            before = spent(channel)
            out = run()
            took.append([b - a for a, b in zip(before, spent(channel), strict=True)])
            if arrays:
                got = session.open_words("benchmark/check", out).view(np.int64) * 2.0**-operation.bits
                errors.append(float(np.abs(got - answer(name, arrays)).max()))
    source.close()
    error = max(errors, default=0.0)
    assert error <= operation.bound, f"{order['operation']}: error {error} over {operation.bound}"
    return {"turns": took[1:], "error": error}  # the first turn touches fresh memory and is not counted


def measure(name: str, repeat: int, network: str | None) -> dict[str, Any]:
    """Medians of one operation, per time that it is done."""
    operation = OPERATIONS[name]
    order, names = {"operation": name, "repeat": repeat}, NAMES if operation.dealt else OWNERS
    out = run_processes("benchmarks.engine", order, network, names)
    pairs = list(zip(*(out[owner]["turns"] for owner in OWNERS), strict=True))
    dealer = out.get("dealer", {"cpu_seconds": 0.0, "bytes_sent": 0})
    each = operation.each
    return {
        "operation": name,
        "what": operation.what,
        "seconds": statistics.median(max(a[0], b[0]) for a, b in pairs) / each,
        "cpu_seconds": (statistics.median(a[1] + b[1] for a, b in pairs) + dealer["cpu_seconds"]) / each,
        "rounds": pairs[0][0][3] / each,
        "mb_between_owners": sum(turn[2] for turn in pairs[0]) / 1e6 / each,
        "mb_from_dealer": dealer["bytes_sent"] / 1e6 / each,
        "error": max(out[owner]["error"] for owner in OWNERS),
        "note": "",
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    peers.add_arguments(parser, tuple(OPERATIONS))
    parser.add_argument(
        "--network", choices=list(NETWORKS), help="between our processes; default: straight over loopback"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document per operation")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    ours = []
    for name in arguments.operations:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        ours.append(measure(name, arguments.repeat, arguments.network))
    theirs = [name for name in arguments.operations if name in workload.OPERATIONS]
    others = peers.measure(peers.chosen(arguments.peers), theirs, arguments.repeat, arguments.timeout)
    targets = {name: operation.target for name, operation in OPERATIONS.items() if operation.target is not None}
    if arguments.json:
        for block in table.compare(ours, others, targets):
            print(json.dumps(block))
    else:
        print(table.render(ours, others, targets))


if __name__ == "__main__":
    main()
