"""Correlated randomness that two parties make themselves: two processes, real TLS on loopback, no dealer.

    python -m benchmarks.dealerless [--n 1000000] [--what multiply compare truncate square and-words] [--repeat 2]
                                    [--network lan|10ms-100mbit|50ms-20mbit] [--fallback] [--json]

Each line is the material for n operations, made once both parties are connected and their base transfers are done: the
wall-clock seconds of the slower party, CPU seconds of both, megabytes that both send together, and the ratio of the seconds
to what a dealer's own computation of the same values takes in one process, which is what the second party's ignorance costs.
The best of the repeats is shown.  The results are checked on the first turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from benchmarks.parties import OWNERS, connect, run_processes
from benchmarks.shaping import NETWORKS
from mpc.compare import plan_less_than_zero
from mpc.correlations import Correlation
from mpc.triples import BinaryTriple, SquarePair, Triple
from mpc.truncation import Truncation

WORK = ("multiply", "compare", "truncate", "square", "and-words")


def requests(what: str, n: int) -> list[Correlation]:
    """The correlations that n operations need."""
    if what == "compare":
        return list(plan_less_than_zero(n))
    if what == "truncate":
        return [Truncation(n=n, divisor=1 << 20)]
    if what == "square":
        return [SquarePair(shape=(n,))]
    if what == "and-words":
        return [BinaryTriple(shape0=(n,), shape1=(n,))]
    return [Triple(op="mul", shape0=(n,), shape1=(n,))]


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.ot import extension as ot
    from mpc.ot import kernels_numpy as ot_numpy
    from mpc.ot import products as ot_products
    from mpc.ot.source import ObliviousTransfers
    from mpc.session import Session

    if order["fallback"]:
        ot.kernels = ot_products.kernels = ot_numpy
    channel = connect(order)
    me = OWNERS.index(order["me"])
    start, cpu = time.perf_counter(), time.process_time()
    source = ObliviousTransfers(channel, OWNERS[1 - me], me)
    session = Session(channel, OWNERS, me, source)
    out: dict[str, Any] = {"set-up": [time.perf_counter() - start, time.process_time() - cpu, 0]}
    for what in order["what"]:
        turns = []
        _check(session, what)
        for _ in range(order["repeat"]):
            session.exchange("benchmark/start", np.zeros(0, dtype=np.uint64))
            sent = sum(channel.bytes_sent.values())
            start, cpu = time.perf_counter(), time.process_time()
            for ticket in source.plan(requests(what, order["n"])):
                source.take(ticket)
            turns.append([time.perf_counter() - start, time.process_time() - cpu])
            turns[-1].append(sum(channel.bytes_sent.values()) - sent)
        out[what] = min(turns)
    return out


def _check(session: Any, what: str) -> None:
    """A small turn, which also loads the kernels: open everything and derive it again."""
    for request in requests(what, 1000):
        drawn, derived = session.correlations.draw(request)
        pieces = list(request.uniform(session.me)) + list(request.derived())
        opened = []
        for piece, share in zip(pieces, drawn + derived, strict=True):
            opened.append(piece.combine([share, *session.exchange("benchmark/check", share)]))
        zeros = [np.zeros_like(w) for w in drawn]
        expected = request.derive([opened[: len(drawn)], zeros], {})
        assert all((a == b).all() for a, b in zip(opened[len(drawn) :], expected, strict=True))


def clear(what: str, n: int) -> float:
    """Seconds a dealer's computation takes."""
    rng = np.random.default_rng(3)
    seconds = 0.0
    for request in requests(what, n):
        pieces = request.uniform(0)
        drawn = [[rng.integers(0, 255, p.shape).astype(p.dtype) for p in pieces] for _ in OWNERS]
        start = time.perf_counter()
        request.derive(drawn, {})
        seconds += time.perf_counter() - start
    return seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--what", choices=WORK, nargs="+", default=list(WORK))
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--network", choices=list(NETWORKS), help="default: straight over loopback")
    parser.add_argument("--fallback", action="store_true", help="without the compiled kernels")
    parser.add_argument("--json", action="store_true", help="print one JSON document per line")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    order = {"n": arguments.n, "what": arguments.what, "repeat": arguments.repeat, "fallback": arguments.fallback}
    out = run_processes("benchmarks.dealerless", order, arguments.network, OWNERS)
    for what in ("set-up", *arguments.what):
        a, b = (out[name][what] for name in OWNERS)
        r = {
            "what": what,
            "n": arguments.n,
            "network": arguments.network,
            "seconds": max(a[0], b[0]),
            "cpu_seconds": a[1] + b[1],
            "mb": (a[2] + b[2]) / 1e6,
        }
        line = f"{what}: {r['seconds']:.2f} s ({r['cpu_seconds']:.2f} CPU s)"
        if what != "set-up":
            r["ratio"] = r["seconds"] / clear(what, arguments.n)
            line += f" for {arguments.n:,}, {r['mb']:.1f} MB; {r['ratio']:.0f} times a dealer's computation"
        print(json.dumps(r) if arguments.json else line)


if __name__ == "__main__":
    main()
