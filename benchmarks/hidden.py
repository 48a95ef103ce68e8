"""Join two large sets with hidden membership and add up a column over the rows that matched, against DuckDB's answer.

    python -m benchmarks.hidden [--items 1000000] [--repeat 1] [--json]

Two owners and a dealer are three processes with TLS between them on loopback.  Each owner has as many e-mail addresses, half of
them common; the second one, the sender, has an amount in cents for each.  The clock runs from Python strings, with links up and
kernels loaded, to shares of the join, and on to the opened count and sum.  Both are compared with what DuckDB says of
the same addresses and amounts, in the same run; a difference is an error.  Seconds are the slower owner's, bytes are frames
that all three processes sent.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.matching import TAG, addresses, first_of
from benchmarks.parties import NAMES, OWNERS, connect, run_processes
from benchmarks.peer_rr22 import cpu_seconds, peak_mib
from benchmarks.peers import say

Record = dict[str, Any]
LARGEST_CENTS = 100_000


def cents(first: int, count: int) -> npt.NDArray[np.int64]:
    """An amount for each person."""
    return (np.arange(first, first + count) * 48_271 + 11) % 2_147_483_647 % (LARGEST_CENTS + 1)


def party(order: dict[str, Any]) -> Record:
    """One process's part, over inherited sockets."""
    from mpc import kinds
    from mpc.dealer import run_dealer
    from mpc.matching import hidden

    me, n = order["me"], order["items"]
    kinds.warm_up()
    if me == "dealer":
        channel = connect(order)
        cpu, start = cpu_seconds(), time.perf_counter()
        run_dealer(channel, OWNERS)
        return report(channel, cpu, [start, time.perf_counter()])
    hidden.warm_up()
    owner = OWNERS.index(me)
    first = first_of(owner, (n, n))
    items = [TAG + address.encode() for address in addresses(first, n)]
    amounts = cents(first, n)
    channel = connect(order)
    cpu, clock = cpu_seconds(), [time.perf_counter()]
    found = owner_part(channel, owner, items, amounts, clock)
    return report(channel, cpu, clock) | found


def owner_part(channel: Any, owner: int, items: list[bytes], amounts: Any, clock: list[float]) -> Record:
    """An owner: from strings to shares, and on to what is opened."""
    from mpc.dealer import Correlations
    from mpc.matching import hidden
    from mpc.measure import Column, plan_sums, reveal_count, sums, total
    from mpc.session import Session

    column = Column("cents", 0, LARGEST_CENTS)
    session = Session(channel, OWNERS, owner, Correlations(channel, "dealer", owner, len(OWNERS)))
    columns = column.words(amounts)[:, None] if owner == 1 else np.empty((len(items), 0), dtype=np.uint64)
    joined = hidden.join_items(session, items, columns, 1 - owner, 0, b"benchmark")
    clock.append(time.perf_counter())
    matches = reveal_count(session, total(joined))
    (added,) = sums(session, session.correlations.plan([plan_sums(joined)])[0], joined, [column])
    clock.append(time.perf_counter())
    session.correlations.close()
    return {"count": matches, "sum": added, "bins": joined.n_bins}


def report(channel: Any, cpu: float, clock: list[float]) -> Record:
    """What a process says of its run."""
    return {
        "seconds": clock[-1] - clock[0],
        "join_seconds": clock[1] - clock[0],
        "cpu_seconds": cpu_seconds() - cpu,
        "bytes": sum(channel.bytes_sent.values()),
        "rounds": channel.rounds,
        "peak_mib": peak_mib(),
    }


def by_duckdb(n: int) -> tuple[tuple[int, int], float]:
    """Count and sum by DuckDB on the same data, and its seconds."""
    import duckdb
    import pyarrow as pa

    left, right = (pa.table({"email": addresses(first_of(i, (n, n)), n)}) for i in (0, 1))
    right = right.append_column("cents", pa.array(cents(first_of(1, (n, n)), n)))
    with duckdb.connect(config={"threads": 1}) as db:
        db.register("left_side", left)
        db.register("right_side", right)
        start = time.perf_counter()
        query = "SELECT count(*), coalesce(sum(cents), 0)::HUGEINT FROM left_side JOIN right_side USING (email)"
        row = db.execute(query).fetchone()
        seconds = time.perf_counter() - start
    assert row is not None
    return (int(row[0]), int(row[1])), seconds


def measure(n: int, repeat: int) -> Record:
    """Runs of the three processes, their medians, and DuckDB's answer, which must be theirs."""
    load = os.getloadavg()[0]
    turns = []
    for _ in range(repeat):
        turns.append(run_processes("benchmarks.hidden", {"items": n}, None, NAMES))
        say(f"{turns[-1]['a']['seconds']:.2f} s")
    (matches, total), seconds = by_duckdb(n)
    for turn in turns:
        for owner in OWNERS:
            got = turn[owner]["count"], turn[owner]["sum"]
            assert got == (matches, total), f"{owner} has {got}, DuckDB {(matches, total)}"
    slowest = {
        key: statistics.median(max(t[o][key] for o in OWNERS) for t in turns) for key in ("seconds", "join_seconds")
    }
    return slowest | {
        "items": n,
        "load": load,
        "turns": repeat,
        "cpu_seconds": {name: statistics.median(t[name]["cpu_seconds"] for t in turns) for name in NAMES},
        "bytes": {name: turns[0][name]["bytes"] for name in NAMES},
        "bytes_per_item": sum(turns[0][name]["bytes"] for name in NAMES) / max(1, n),
        "rounds": turns[0]["a"]["rounds"],
        "peak_mib": {name: max(t[name]["peak_mib"] for t in turns) for name in NAMES},
        "bins": turns[0]["a"]["bins"],
        "count": matches,
        "sum": total,
        "duckdb_seconds": seconds,
    }


def render(out: Record) -> str:
    """What was measured, as text."""
    lines = [
        f"{out['items']:,} x {out['items']:,} addresses in {out['bins']:,} bins; medians of {out['turns']}; "
        f"load {out['load']:.1f} at the start",
        f"strings to shares {out['join_seconds']:.2f} s, to the opened count and sum {out['seconds']:.2f} s",
        f"{out['bytes_per_item']:.1f} bytes an item, {out['rounds']} rounds",
        f"{'':10}{'CPU s':>10}{'MB sent':>10}{'peak MiB':>10}",
    ]
    for name in NAMES:
        lines.append(
            f"{name:10}{out['cpu_seconds'][name]:>10.2f}{out['bytes'][name] / 1e6:>10.2f}{out['peak_mib'][name]:>10}"
        )
    lines.append(
        f"{out['count']:,} matches, {out['sum'] / 100:,.2f} in all: DuckDB says the same, after {out['duckdb_seconds']:.2f} s"
    )
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--items", type=int, default=1_000_000, help="of each owner (default: 1,000,000)")
    parser.add_argument("--repeat", type=int, default=1, help="runs (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args(words)
    if a.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    out = measure(a.items, a.repeat)
    print(json.dumps(out) if a.json else render(out), flush=True)


if __name__ == "__main__":
    main()
