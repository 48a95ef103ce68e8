"""Functions of shared values: two owners and a dealer as processes, real TLS on loopback, against plain NumPy.

    python -m benchmarks.functions [--n 1000000] [--function divide sigmoid ...] [--unchecked] [--repeat 3] [--json]
                                   [--network lan|10ms-100mbit|50ms-20mbit]

The dealer is asked for nothing before the clock starts, so its work and its traffic are in the figures.  Reported are medians
over the repeats of the wall-clock seconds until the slower owner has its shares, CPU seconds of all three processes, frame
bytes, and the ratio to NumPy's time for as many plain numbers in the same run; also the largest error, relative where the
result is above 1.  With --network, `benchmarks.shaping` stands between every two processes.
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

FRAC_BITS, ONE_ROUND_BITS = 20, 26
FUNCTIONS = ("divide", "reciprocal", "sqrt", "inverse_sqrt", "log", "exp", "sigmoid", "tanh", "gelu")


def values(n: int, function: str) -> np.ndarray:
    """Numbers all over the domain, as multiples of 2^-20."""
    rng = np.random.default_rng(20_11)
    around_zero = function in ("sigmoid", "tanh", "gelu", "exp")
    x = rng.uniform(-8, 8, n) if around_zero else np.exp2(rng.uniform(-8, 7.99, n))
    return np.rint(x * 2.0**FRAC_BITS)


def plain(x: np.ndarray, function: str) -> np.ndarray:
    """The answer; dividends are 1 + x."""
    simple = {"sqrt": np.sqrt, "log": np.log, "exp": np.exp, "tanh": np.tanh}
    if function in simple:
        out: np.ndarray = simple[function](x)
        return out
    if function == "gelu":
        from scipy.special import erf

        return np.asarray(x * (1 + erf(x / np.sqrt(2))) / 2)
    if function == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-x)))
    return {"divide": lambda: (1 + x) / x, "reciprocal": lambda: 1 / x, "inverse_sqrt": lambda: 1 / np.sqrt(x)}[
        function
    ]()


def spent(channel: Any) -> tuple[float, float, int, int]:
    """Seconds, CPU seconds, bytes sent to the other owner and rounds, so far."""
    sent = sum(channel.bytes_sent[peer] for peer in channel.bytes_sent if peer != "dealer")
    return time.perf_counter(), time.process_time(), sent, channel.rounds


def ways(function: str, n: int, checked: bool) -> tuple[Any, Any, int]:
    """The plan, a function of (session, tickets, share) and the fractional bits of the result."""
    from mpc import functions as f

    plan, run = getattr(f, f"plan_{function}"), getattr(f, function)
    if function in ("sigmoid", "tanh", "gelu"):
        use = f.Range(checked=checked, out_bits=ONE_ROUND_BITS)
        return plan(n, use), lambda s, t, x: run(s, t, x, use), ONE_ROUND_BITS
    domain = f.Domain(low=-12, high=12, checked=checked) if function == "exp" else f.Domain(checked=checked)
    if function == "divide":
        one = np.uint64(1 << FRAC_BITS)
        return plan(n, domain), lambda s, t, x: run(s, t, x + one * np.uint64(s.me == 0), x, domain), FRAC_BITS
    return plan(n, domain), lambda s, t, x: run(s, t, x, domain), FRAC_BITS


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc import kinds
    from mpc.dealer import Correlations, run_dealer
    from mpc.session import Session

    me, n = order["me"], order["n"]
    kinds.warm_up()
    channel = connect(order)
    if me == "dealer":
        cpu = time.process_time()
        run_dealer(channel, OWNERS)
        each = (time.process_time() - cpu) / (order["repeat"] + 1)
        return {"cpu_seconds": each, "bytes_sent": sum(channel.bytes_sent.values()) / (order["repeat"] + 1)}
    index = OWNERS.index(me)
    session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
    x = values(n, order["function"])
    mask = np.random.default_rng(1).integers(0, 2**64, n, dtype=np.uint64)
    share = mask if index else x.astype(np.int64).view(np.uint64) - mask
    plan, run, bits = ways(order["function"], n, order["checked"])
    right, turns, error = plain(x * 2.0**-FRAC_BITS, order["function"]), [], 0.0
    for _ in range(order["repeat"] + 1):
        session.exchange("benchmark/start", np.zeros(0, dtype=np.uint64))
        before = spent(channel)
        out = run(session, session.correlations.plan(plan), share)
        turns.append([b - a for a, b in zip(before, spent(channel), strict=True)])
        got = session.open_words("benchmark/check", out).view(np.int64) * 2.0**-bits
        error = float((np.abs(got - right) / np.maximum(1, np.abs(right))).max(initial=0))
    session.correlations.close()
    return {"turns": turns[1:], "error": error}  # the first turn touches fresh memory and is not counted


def measure(n: int, function: str, checked: bool, repeat: int, network: str | None) -> dict[str, Any]:
    """Medians of the secure function, and of NumPy's on as many numbers."""
    x, clear = values(n, function) * 2.0**-FRAC_BITS, []
    for _ in range(repeat):
        start = time.perf_counter()
        plain(x, function)
        clear.append(time.perf_counter() - start)
    order = {"n": n, "function": function, "checked": checked, "repeat": repeat}
    out = run_processes("benchmarks.functions", order, network)
    pairs = list(zip(*(out[name]["turns"] for name in OWNERS), strict=True))
    seconds = statistics.median(max(a[0], b[0]) for a, b in pairs)
    return {
        **order,
        "network": network,
        "seconds": seconds,
        "cpu_seconds": statistics.median(a[1] + b[1] for a, b in pairs) + out["dealer"]["cpu_seconds"],
        "rounds": pairs[0][0][3],
        "mb_between_owners": sum(turn[2] for turn in pairs[0]) / 1e6,
        "mb_from_dealer": out["dealer"]["bytes_sent"] / 1e6,
        "error": out["a"]["error"],
        "numpy_seconds": statistics.median(clear),
        "ratio": seconds / statistics.median(clear),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, nargs="+", default=[1_000_000], help="one line for each")
    parser.add_argument("--function", choices=FUNCTIONS, nargs="+", default=["divide", "sigmoid"])
    parser.add_argument("--unchecked", action="store_true", help="leave out the check of the domain")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--network", choices=list(NETWORKS), help="default: straight over loopback")
    parser.add_argument("--json", action="store_true", help="print one JSON document per line")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    for n in arguments.n:
        for function in arguments.function:
            r = measure(n, function, not arguments.unchecked, arguments.repeat, arguments.network)
            line = (
                f"{function}, {n:,} words: {r['seconds']:.3f} s ({r['cpu_seconds']:.3f} CPU s), {r['rounds']} rounds, "
                f"{r['mb_between_owners']:.1f} MB between the owners and {r['mb_from_dealer']:.1f} MB from the dealer, "
                f"error {r['error']:.1e}; NumPy in the clear {r['numpy_seconds']:.5f} s: ratio {r['ratio']:.0f}"
            )
            print(json.dumps(r) if arguments.json else line)


if __name__ == "__main__":
    main()
