"""Match three or more large sets of e-mail addresses between as many processes over TLS on loopback.

    python -m benchmarks.star [--sizes 1e5 1e6] [--owners 3] [--repeat 3] [--json]

A quarter of each set is in all of them, and another quarter is shared with the next owner only.  Each process has links and
kernels ready before the clock starts; its input is a list of byte strings, its result row numbers, which are checked.
Reported for the leader and for the largest of the others: seconds, CPU seconds, megabytes sent (headers included) and peak
memory (with Python, the kernels and the list); times are medians, memory is the largest of all turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.matching import TAG, addresses, digest
from benchmarks.parties import connect, run_processes
from benchmarks.peer_rr22 import cpu_seconds, peak_mib

NAMES = tuple("abcdefghij")
FEWEST = 3
Record = dict[str, Any]


def people(owner: int, size: int, owners: int) -> list[str]:
    """One owner's addresses: a quarter that all have, one shared with the next owner, one with the one before, and its own."""
    quarter = size // 4
    shared = [quarter * (1 + i) for i in (owner, (owner - 1) % owners)]
    own = quarter * (1 + owners) + size * owner
    parts = [(0, quarter), *((first, quarter) for first in shared), (own, size - 3 * quarter)]
    return [who for first, count in parts for who in addresses(first, count)]


def party(order: Record) -> Record:
    """One process's part, over inherited sockets."""
    from mpc.matching import star
    from mpc.matching.kernels import warm_up

    names = tuple(order["certificates"])
    me = names.index(order["me"])
    warm_up()
    items = [TAG + who.encode() for who in people(me, order["size"], len(names))]
    channel = connect(order)
    cpu, start = cpu_seconds(), time.perf_counter()
    rows = star.intersect(items, names, me, b"benchmark", channel, 0).rows
    seconds, spent = time.perf_counter() - start, cpu_seconds() - cpu
    found = [items[row].removeprefix(TAG).decode() for row in rows]
    return {
        "seconds": seconds,
        "cpu_seconds": spent,
        "mb": sum(channel.bytes_sent.values()) / 1e6,
        "peak_mib": peak_mib(),
        "rounds": channel.rounds,
        "digests": [digest(found), digest(sorted(found))],
    }


def turn(size: int, owners: int) -> list[Record]:
    """One run of all owners, checked: what each reports, the leader first."""
    names = NAMES[:owners]
    out = run_processes("benchmarks.star", {"size": size}, None, names)
    reports = [out[name] for name in names]
    assert len({report["digests"][0] for report in reports}) == 1, "owners have different rows, or in another order"
    assert reports[0]["digests"][1] == digest(sorted(addresses(0, size // 4))), "wrong matches"
    return reports


def summary(turns: Sequence[Sequence[Record]]) -> Record:
    """Medians over turns, for the leader and for the largest of the others."""
    sides = {"leader": [reports[:1] for reports in turns], "spoke": [reports[1:] for reports in turns]}
    out: Record = {"seconds": statistics.median(max(r["seconds"] for r in reports) for reports in turns)}
    for name, each in sides.items():
        out[name] = {
            "cpu_seconds": statistics.median(max(r["cpu_seconds"] for r in reports) for reports in each),
            "mb": max(r["mb"] for reports in each for r in reports),
            "peak_mib": max(r["peak_mib"] for reports in each for r in reports),
            "rounds": max(r["rounds"] for reports in each for r in reports),
        }
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1e5"], help="identifiers of each owner")
    parser.add_argument("--owners", type=int, default=FEWEST, choices=range(FEWEST, len(NAMES) + 1))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    lines = []
    for size in (int(float(word)) for word in args.sizes):
        lines.append(
            {"items": size, "owners": args.owners, "turns": args.repeat}
            | summary([turn(size, args.owners) for _ in range(args.repeat)])
        )
    if args.json:
        print(json.dumps(lines))
        return
    for line in lines:
        print(f"{line['owners']} owners with {line['items']:,} each: {line['seconds']:.2f} s")
        for side in ("leader", "spoke"):
            x = line[side]
            print(f"  {side:7} CPU {x['cpu_seconds']:.2f} s, sent {x['mb']:.2f} MB,", end=" ")
            print(f"peak {x['peak_mib']} MiB, {x['rounds']} rounds")


if __name__ == "__main__":
    main()
