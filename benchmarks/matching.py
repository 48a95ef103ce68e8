"""Match two large sets of e-mail addresses between two processes over TLS on loopback.

    python -m benchmarks.matching [--items 1048576] [--peer-items N] [--repeat 3] [--fallback] [--json]

Half of the smaller set is in both.  Items go in as Python strings of bytes and row numbers come out.  Reported are medians
over the repeats of the slower side's seconds (links and processes already up, kernels loaded), CPU seconds of each side over
that span, frame bytes of both, and each process's peak memory, which includes the set itself.  Every run's result is checked.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from typing import Any

from benchmarks.parties import OWNERS, connect, run_processes


def people(first: int, count: int) -> list[bytes]:
    """Normalised addresses, all of different people, in an order that says nothing about who they are."""
    step = 2_654_435_761  # prime: another number for each below 10^10
    return [b"email\0v1\0user%010d@example.com" % ((first + i) * step % 10**10) for i in range(count)]


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    if order["fallback"]:
        sys.modules["mpc.matching.kernels_numba"] = None  # type: ignore[assignment]
    from mpc.matching.kernels import warm_up
    from mpc.matching.protocol import intersect

    me, sizes = order["me"], order["sizes"]
    first, own = me == OWNERS[0], sizes[OWNERS.index(me)]
    common = min(sizes) // 2
    items = people(0 if first else sizes[0] - common, own)
    warm_up()
    channel = connect(order)
    peer = OWNERS[1 if first else 0]
    cpu, start = time.process_time(), time.perf_counter()
    alignment = intersect(items, peer, b"benchmark", channel, 0, first)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    rows = alignment.rows
    inside = (rows >= own - common) if first else (rows < common)
    assert len(rows) == inside.sum() == common, "wrong matches"
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "bytes_sent": sum(channel.bytes_sent.values()),
        "rounds": channel.rounds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure(sizes: tuple[int, int], repeat: int, fallback: bool) -> dict[str, Any]:
    """Medians over some runs."""
    order = {"sizes": sizes, "fallback": fallback}
    runs = [run_processes("benchmarks.matching", order, None, OWNERS) for _ in range(repeat)]

    def median(what: Any) -> float:
        return statistics.median(what(run) for run in runs)

    sent = sum(runs[0][name]["bytes_sent"] for name in OWNERS)
    return {
        "items": list(sizes),
        "seconds": median(lambda run: max(run[name]["seconds"] for name in OWNERS)),
        "cpu_seconds": [median(lambda run, name=name: run[name]["cpu_seconds"]) for name in OWNERS],
        "bytes": sent,
        "bytes_per_item": sent / max(sizes),
        "peak_mib": [max(run[name]["peak_mib"] for run in runs) for name in OWNERS],
        "rounds": max(runs[0][name]["rounds"] for name in OWNERS),
    }


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1 << 20)
    parser.add_argument("--peer-items", type=int)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--fallback", action="store_true", help="without compiled kernels")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    out = measure((args.items, args.items if args.peer_items is None else args.peer_items), args.repeat, args.fallback)
    if args.json:
        print(json.dumps(out))
        return
    print(f"{out['items'][0]:,} x {out['items'][1]:,} items: {out['seconds']:.2f} s", end=", ")
    print(f"CPU {out['cpu_seconds'][0]:.2f} s (receiver) and {out['cpu_seconds'][1]:.2f} s (sender)", end=", ")
    print(f"{out['bytes_per_item']:.1f} bytes an item in {out['rounds']} rounds, peak {out['peak_mib']} MiB")


if __name__ == "__main__":
    main()
