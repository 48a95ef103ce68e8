"""What checking the dealer costs: the same products with and without, two owners and a dealer as processes over TLS.

    python -m benchmarks.verified [--work multiply|matmul|matrix|truncate] [--scale 1.0] [--repeat 3] [--json]
                                  [--network lan|10ms-100mbit|50ms-20mbit]

multiply: a million products of shared words; matmul: two shared matrices of 256 x 256; matrix: a vector times an owner's
matrix of 100,000 x 100; truncate: a thousand divisions.  --scale changes the sizes.  The dealer is asked for nothing before
the clock starts, and the check is part of every turn.  Reported are medians over the repeats of the wall-clock seconds until
the slower owner is done, frame bytes, and the ratio to the unchecked run of the same size.  Every result is checked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.parties import OWNERS, connect, run_processes
from benchmarks.shaping import NETWORKS

WORK = ("multiply", "matmul", "matrix", "truncate")


def sizes(work: str, scale: float) -> tuple[int, ...]:
    """Of the operands."""
    if work in ("multiply", "truncate"):
        return (max(1, int((1_000_000 if work == "multiply" else 1000) * scale)),)
    if work == "matmul":
        return (max(1, int(256 * scale)),) * 2
    return (max(1, int(100_000 * scale)), 100)


def turn(session: Any, work: str, shape: tuple[int, ...]) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Set up one kind of work; what is returned does it once, with the check, and returns the share and what is right."""
    from mpc.triples import Triple, product
    from mpc.truncation import plan_truncation, truncate

    me, source = session.me, session.correlations
    rng = np.random.default_rng(1)
    x, y = (rng.integers(0, 2**40, shape, dtype=np.uint64) for _ in range(2))
    if work == "matrix":
        return _matrix(session, x, y[0])

    def once() -> tuple[np.ndarray, np.ndarray]:
        if work == "truncate":
            (ticket,) = source.plan([plan_truncation(shape[0], 20)])
            out = truncate(session, x * np.uint64(me), ticket)
            source.settle()
            return out, x >> np.uint64(20)
        op: Any = "mul" if work == "multiply" else "matmul"
        (ticket,) = source.plan([Triple(op=op, shape0=shape, shape1=shape)])
        a, b = source.begin(ticket)
        opened = session.open_words("benchmark/open", np.stack([x * np.uint64(me) - a, y * np.uint64(me) - b]))
        (c,) = source.finish(ticket)
        c += product(op, opened[0], b) + product(op, a, opened[1])
        if me == 0:
            c += product(op, opened[0], opened[1])
        source.settle()
        return c, product(op, x, y)

    return once


def _matrix(session: Any, x: np.ndarray, v: np.ndarray) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    from mpc.matrix import mask_matrices, multiply
    from mpc.ring import times

    X = x.astype(np.int64) % 1000
    mine = X if session.me == 0 else np.zeros((1, 1), dtype=np.int64)
    matrix = mask_matrices(session, [X.shape, (1, 1)], mine, 0)[0]

    def once() -> tuple[np.ndarray, np.ndarray]:
        (ticket,) = session.correlations.plan([matrix.request(transpose=False)])
        (out,) = multiply(session, [(matrix, ticket, v * np.uint64(session.me))])
        session.correlations.settle()
        return out, times(X, v)

    return once


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc import ring
    from mpc.dealer import Correlations, run_dealer
    from mpc.session import Session
    from mpc.verified import ring128
    from mpc.verified.source import Verified

    me = order["me"]
    ring.warm_up()
    ring128.warm_up()
    channel = connect(order)
    if me == "dealer":
        run_dealer(channel, OWNERS)
        return {"bytes_sent": sum(channel.bytes_sent.values()) / (order["repeat"] + 1)}
    index = OWNERS.index(me)
    source: Any = Correlations(channel, "dealer", index, len(OWNERS))
    if order["checked"]:
        source = Verified(source, channel, OWNERS, index, "dealer")
    session = Session(channel, OWNERS, index, source)
    once = turn(session, order["work"], tuple(order["shape"]))
    turns = []
    for _ in range(order["repeat"] + 1):
        session.exchange("benchmark/start", np.zeros(0, dtype=np.uint64))
        start, sent, rounds = time.perf_counter(), channel.bytes_sent[OWNERS[1 - index]], channel.rounds
        share, right = once()
        after = time.perf_counter(), channel.bytes_sent[OWNERS[1 - index]], channel.rounds
        turns.append([after[0] - start, after[1] - sent, after[2] - rounds])
        error = session.open_words("benchmark/check", share) - right
        assert int(error.max()) <= (order["work"] == "truncate")
    source.close()
    return {"turns": turns[1:]}  # the first turn touches fresh memory and is not counted


def measure(work: str, scale: float, repeat: int, network: str | None) -> dict[str, Any]:
    """Medians with and without the check."""
    result: dict[str, Any] = {"work": work, "shape": sizes(work, scale), "network": network}
    for name, checked in (("plain", False), ("checked", True)):
        order = {"work": work, "shape": sizes(work, scale), "repeat": repeat, "checked": checked}
        out = run_processes("benchmarks.verified", order, network)
        pairs = list(zip(*(out[owner]["turns"] for owner in OWNERS), strict=True))
        result[name] = {
            "seconds": statistics.median(max(a[0], b[0]) for a, b in pairs),
            "mb_between_owners": sum(t[1] for t in pairs[0]) / 1e6,
            "rounds": pairs[0][0][2],
            "mb_from_dealer": out["dealer"]["bytes_sent"] / 1e6,
        }
    result["ratio"] = result["checked"]["seconds"] / result["plain"]["seconds"]
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=WORK, nargs="+", default=list(WORK))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--network", choices=list(NETWORKS), help="default: straight over loopback")
    parser.add_argument("--json", action="store_true", help="print one JSON document per line")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    for work in arguments.work:
        r = measure(work, arguments.scale, arguments.repeat, arguments.network)
        shape = " x ".join(f"{n:,}" for n in r["shape"])
        parts = [
            f"{name} {m['seconds']:.3f} s, {m['rounds']} rounds, {m['mb_between_owners']:.1f} MB between the owners, "
            f"{m['mb_from_dealer']:.1f} MB from the dealer"
            for name, m in (("plain", r["plain"]), ("checked", r["checked"]))
        ]
        print(json.dumps(r) if arguments.json else f"{work}, {shape}: {'; '.join(parts)}; ratio {r['ratio']:.1f}")


if __name__ == "__main__":
    main()
