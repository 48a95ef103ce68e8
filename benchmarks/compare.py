"""Compare shared values with zero: two owners and a dealer as processes, real TLS on loopback, against plain NumPy.

    python -m benchmarks.compare [--n 1000000] [--test negative|zero] [--repeat 5] [--json]
                                 [--network lan|10ms-100mbit|50ms-20mbit]

The dealer is asked for nothing before the clock starts, so its work and its traffic are in the figures.  Reported are medians
over the repeats of the wall-clock seconds until the slower owner has its shares, CPU seconds of all three processes, frame
bytes, and the ratio to NumPy's comparison of as many plain words in the same run.  Every result is checked.  With
--network, `benchmarks.shaping` stands between every two processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from benchmarks.parties import OWNERS, connect, run_processes
from benchmarks.shaping import NETWORKS


def values(n: int) -> np.ndarray:
    """Signed words of every magnitude, zeros among them."""
    rng = np.random.default_rng(20_11)
    return rng.integers(-(2**63), 2**63, n) >> rng.integers(0, 64, n)


def plain(x: np.ndarray, test: str) -> np.ndarray:
    """The answer."""
    return x < 0 if test == "negative" else x == 0


def spent(channel: Any) -> tuple[float, float, int, int]:
    """Seconds, CPU seconds, bytes sent to the other owner and rounds, so far."""
    sent = sum(channel.bytes_sent[peer] for peer in channel.bytes_sent if peer != "dealer")
    return time.perf_counter(), time.process_time(), sent, channel.rounds


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc import compare
    from mpc.dealer import Correlations, run_dealer
    from mpc.session import Session

    me, n = order["me"], order["n"]
    channel = connect(order)
    if me == "dealer":
        cpu = time.process_time()
        run_dealer(channel, OWNERS)
        each = (time.process_time() - cpu) / (order["repeat"] + 1)
        return {"cpu_seconds": each, "bytes_sent": sum(channel.bytes_sent.values()) / (order["repeat"] + 1)}
    index = OWNERS.index(me)
    session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
    x = values(n).view(np.uint64)
    mask = np.random.default_rng(1).integers(0, 2**64, n, dtype=np.uint64)
    share = mask if index else x - mask
    plan, run = (
        (compare.plan_less_than_zero, compare.less_than_zero)
        if order["test"] == "negative"
        else (compare.plan_is_zero, compare.is_zero)
    )
    turns = []
    for _ in range(order["repeat"] + 1):
        session.exchange("benchmark/start", np.zeros(0, dtype=np.uint64))
        before = spent(channel)
        out = run(session, session.correlations.plan(plan(n)), share)
        turns.append([b - a for a, b in zip(before, spent(channel), strict=True)])
        right = plain(x.view(np.int64), order["test"]).astype(np.uint64)
        assert (session.open_words("benchmark/check", out) == right).all()
    session.correlations.close()
    return {"turns": turns[1:]}  # the first turn touches fresh memory and is not counted


def measure(n: int, test: str, repeat: int, network: str | None) -> dict[str, Any]:
    """Medians of the secure comparison, and of NumPy's on as many words."""
    x, clear = values(n), []
    for _ in range(repeat):
        start = time.perf_counter()
        plain(x, test)
        clear.append(time.perf_counter() - start)
    out = run_processes("benchmarks.compare", {"n": n, "test": test, "repeat": repeat}, network)
    pairs = list(zip(*(out[name]["turns"] for name in OWNERS), strict=True))
    seconds = statistics.median(max(a[0], b[0]) for a, b in pairs)
    return {
        "n": n,
        "test": test,
        "network": network,
        "seconds": seconds,
        "cpu_seconds": statistics.median(a[1] + b[1] for a, b in pairs) + out["dealer"]["cpu_seconds"],
        "rounds": pairs[0][0][3],
        "mb_between_owners": sum(turn[2] for turn in pairs[0]) / 1e6,
        "mb_from_dealer": out["dealer"]["bytes_sent"] / 1e6,
        "numpy_seconds": statistics.median(clear),
        "ratio": seconds / statistics.median(clear),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, nargs="+", default=[1_000_000], help="one line for each")
    parser.add_argument("--test", choices=("negative", "zero"), nargs="+", default=["negative", "zero"])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--network", choices=list(NETWORKS), help="default: straight over loopback")
    parser.add_argument("--json", action="store_true", help="print one JSON document per line")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    for n in arguments.n:
        for test in arguments.test:
            r = measure(n, test, arguments.repeat, arguments.network)
            line = (
                f"{test}, {n:,} words: {r['seconds']:.3f} s ({r['cpu_seconds']:.3f} CPU s), {r['rounds']} rounds, "
                f"{r['mb_between_owners']:.1f} MB between the owners and {r['mb_from_dealer']:.1f} MB from the dealer; "
                f"NumPy in the clear {r['numpy_seconds']:.5f} s: ratio {r['ratio']:.0f}"
            )
            print(json.dumps(r) if arguments.json else line)


if __name__ == "__main__":
    main()
