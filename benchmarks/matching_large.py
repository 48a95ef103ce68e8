"""Match sets that do not fit into memory as strings: from Parquet files to row numbers, in buckets, between two processes.

    python -m benchmarks.matching_large [--items 10000000] [--security semi-honest|malicious] [--repeat 1] [--json]

E-mail addresses, half of them in both files.  The clock starts before a process opens its file, with links up and kernels
loaded, and stops when it has the numbers of its matched rows; what it keeps on disk to go on after a crash is part of that.
Reported are the slower side's seconds, CPU seconds, bytes that the links carried, and peak memory of each process.  Every
run's result is checked at both sides.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.parties import OWNERS, connect, run_processes

Record = dict[str, Any]
STEP = 2_654_435_761  # prime: another number for each below 10^10


def write_addresses(path: Path, first: int, count: int) -> None:
    """A Parquet file of addresses of people number `first` and on, in an order that says nothing about who they are."""
    import duckdb

    rows = f"SELECT printf('user%010d@example.com', ((i + {first}) * {STEP}) % 10000000000) AS email FROM range({count}) t(i)"  # noqa: S608
    with duckdb.connect(config={"memory_limit": "1GiB", "temp_directory": str(path.parent)}) as db:
        db.execute(f"COPY ({rows}) TO '{path}' (FORMAT parquet)")


def party(order: Record) -> Record:
    """One process's part, over inherited sockets."""
    from mpc.matching import protocol
    from mpc.matching.kernels import warm_up
    from silos.inputs import read_identifiers
    from silos.points import gather
    from silos.tables import Source
    from vertical import batches
    from vertical.align import Identifiers

    warm_up()
    batches.warm_up()
    channel, leads = connect(order), order["me"] == OWNERS[0]
    folder, n = Path(order["folder"]) / order["me"], order["items"]
    folder.mkdir()
    cpu, start = time.process_time(), time.perf_counter()
    own = Identifiers((("email/v1", None),))
    source = Source("people", "parquet", str(folder) + ".parquet")
    points = gather(
        folder / "matching", own, read_identifiers(source, [["email"]], own, folder), b"benchmark", n, "refuse"
    )
    gathered = time.perf_counter() - start
    found = protocol.match(
        points, OWNERS[1 if leads else 0], b"benchmark", channel, 0, leads, security=order["security"]
    )
    rows = points.matched(found.bits, found, "refuse").rows
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    common = n // 2
    right = (rows >= n - common) if leads else (rows < common)
    assert len(rows) == right.sum() == common, "wrong matches"
    return {
        "seconds": seconds,
        "seconds_gathering": gathered,
        "cpu_seconds": cpu_seconds,
        "bytes_sent": sum(channel.bytes_sent.values()),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "buckets": 1 << found.bits,
    }


def measure(items: int, security: str, repeat: int) -> Record:
    """Medians over some runs."""
    runs = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(prefix="accord-") as folder:
            for name, first in zip(OWNERS, (0, items - items // 2), strict=True):
                write_addresses(Path(folder) / f"{name}.parquet", first, items)
            order = {"items": items, "folder": folder, "security": security}
            runs.append(run_processes("benchmarks.matching_large", order, None, OWNERS))
    sent = sum(runs[0][name]["bytes_sent"] for name in OWNERS)
    return {
        "items": items,
        "security": security,
        "buckets": runs[0][OWNERS[0]]["buckets"],
        "seconds": statistics.median(max(run[name]["seconds"] for name in OWNERS) for run in runs),
        "seconds_gathering": statistics.median(max(run[name]["seconds_gathering"] for name in OWNERS) for run in runs),
        "cpu_seconds": [statistics.median(run[name]["cpu_seconds"] for run in runs) for name in OWNERS],
        "bytes_per_item": sent / items,
        "peak_mib": [max(run[name]["peak_mib"] for run in runs) for name in OWNERS],
    }


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000_000, help="identifiers on each side")
    parser.add_argument("--security", choices=("semi-honest", "malicious"), default="semi-honest")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    out = measure(args.items, args.security, args.repeat)
    if args.json:
        print(json.dumps(out))
        return
    print(
        f"{out['items']:,} x {out['items']:,} e-mail addresses from Parquet files, {out['security']}: {out['seconds']:.1f} s"
    )
    print(f"  of these {out['seconds_gathering']:.1f} s to read, normalise and hash; {out['buckets']} buckets")
    print(f"  CPU {out['cpu_seconds'][0]:.1f} s (receiver) and {out['cpu_seconds'][1]:.1f} s (sender)")
    print(f"  {out['bytes_per_item']:.1f} bytes an item on the links, peak {out['peak_mib']} MiB")


if __name__ == "__main__":
    main()
