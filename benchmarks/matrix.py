"""Products with owners' matrices: two owners and a dealer as processes, real TLS on loopback, against plain NumPy.

    python -m benchmarks.matrix [--rows 100000] [--columns 50,50 100,0] [--test pass|gram|weighted] [--repeat 5] [--json]
                                [--bits 64|32] [--vectors 1] [--ahead] [--network lan|10ms-100mbit|50ms-20mbit]

`pass` is X v and then X^T u for all columns, with shared v and u: what one pass over the rows of a linear model needs.  `gram`
is X^T X, `weighted` is X^T diag(w) X with shared w.  --columns says how many columns each owner has; their entries are int16.
Every matrix is masked once before the clock starts, which is reported by itself.  The dealer is asked for nothing else before
the clock starts, so its work and its traffic are in the figures; with --ahead all repeats are asked for at once, as a
training job does, and the seconds are those of all divided by their number.

Reported are medians over the repeats of the wall-clock seconds until the slower owner has its shares, CPU seconds of all three
processes, frame bytes, and the ratio to NumPy's float64 products in the same run.  Every result is checked.
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

TESTS = ("pass", "gram", "weighted")


def block(rows: int, columns: int, owner: int) -> np.ndarray:
    """An owner's columns."""
    return np.random.default_rng(20_11 + owner).integers(-(2**11), 2**11, (rows, columns)).astype(np.int16)


def plain(X: np.ndarray, v: np.ndarray, u: np.ndarray, test: str) -> list[np.ndarray]:
    """The answer: v and u are (d, k) and (n, k), of the type to compute in."""
    if test == "pass":
        return [X @ v, X.T @ u]
    return [X.T @ X if test == "gram" else X.T @ (u[:, :1] * X)]


def vectors(order: dict[str, Any], rows: int) -> np.ndarray:
    """Small integers to multiply with: float64 and the ring agree on the result."""
    return np.random.default_rng(rows).integers(-(2**8), 2**8, (rows, order["vectors"]))


def part(values: np.ndarray, order: dict[str, Any], me: int) -> np.ndarray:
    """One owner's share of the values."""
    word = np.dtype(f"u{order['bits'] // 8}")
    mask = np.random.default_rng(1).integers(0, 2 ** order["bits"], values.shape, dtype=word)
    return mask if me else values.astype(word) - mask


def task(session: Any, order: dict[str, Any]) -> tuple[float, list[Any], Callable[[list[Any]], list[np.ndarray]]]:
    """Mask, and return the seconds that took, what one repeat asks of the dealer, and the repeat itself."""
    from mpc.gram import gram, plan_gram, plan_weighted_gram, weighted_gram
    from mpc.matrix import mask_matrices, multiply

    n, columns, k = order["rows"], order["columns"], order["vectors"]
    mine = block(n, columns[session.me], session.me)
    v, u = part(vectors(order, sum(columns)), order, session.me), part(vectors(order, n), order, session.me)
    session.exchange("benchmark/start", np.zeros(0, dtype=np.uint64))
    start = time.perf_counter()
    keep = order["test"] != "pass"
    blocks = mask_matrices(session, [(n, d) for d in columns], mine, 0, order["bits"], keep_mask=keep)
    seconds = time.perf_counter() - start
    if order["test"] == "gram":
        return seconds, plan_gram(blocks), lambda tickets: [gram(session, tickets, blocks)]
    if order["test"] == "weighted":
        return seconds, plan_weighted_gram(blocks), lambda tickets: [weighted_gram(session, tickets, blocks, u[:, 0])]
    held = [m for m in blocks if m.content.shape[1]]
    parts = [p for p in np.split(v, np.cumsum(columns)[:-1]) if len(p)]
    flat = (lambda x: x[:, 0]) if k == 1 else (lambda x: x)

    def one_pass(tickets: list[Any]) -> list[np.ndarray]:
        forward = multiply(session, [(m, t, flat(p)) for m, t, p in zip(held, tickets, parts, strict=False)])
        back = multiply(session, [(m, t, flat(u)) for m, t in zip(held, tickets[len(held) :], strict=True)])
        return [np.add.reduce(forward).reshape(n, k), np.concatenate(back).reshape(sum(columns), k)]

    return seconds, [m.request(transpose=t, vectors=k) for t in (False, True) for m in held], one_pass


def spent(channel: Any) -> tuple[float, float, int]:
    """Seconds, CPU seconds and bytes sent to the other owner, so far."""
    sent = sum(channel.bytes_sent[peer] for peer in channel.bytes_sent if peer != "dealer")
    return time.perf_counter(), time.process_time(), sent


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc import gram  # noqa: F401  (registers what the dealer is asked for)
    from mpc.dealer import Correlations, run_dealer
    from mpc.kinds import warm_up
    from mpc.session import Session

    me, turns = order["me"], order["repeat"] + 1
    warm_up()
    channel = connect(order)
    if me == "dealer":
        cpu = time.process_time()
        run_dealer(channel, OWNERS)
        return {"cpu_seconds": (time.process_time() - cpu) / turns, "bytes": sum(channel.bytes_sent.values()) / turns}
    index = OWNERS.index(me)
    session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
    masking, requests, repeat = task(session, order)
    X = np.concatenate([block(order["rows"], d, i) for i, d in enumerate(order["columns"])], axis=1).astype(np.float64)
    u, v = vectors(order, order["rows"]), vectors(order, X.shape[1])
    right = plain(X, v.astype(np.float64), u.astype(np.float64), order["test"])
    out, measured = [], []
    tickets = session.correlations.plan(requests * order["repeat"]) if order["ahead"] else []
    session.exchange("benchmark/start", np.zeros(0, dtype=np.uint64))
    for _ in range(turns - order["ahead"]):
        if not order["ahead"]:
            session.exchange("benchmark/start", np.zeros(0, dtype=np.uint64))
        before = spent(channel)
        now, tickets = tickets[: len(requests)], tickets[len(requests) :]
        out = repeat(now or session.correlations.plan(requests))
        measured.append([b - a for a, b in zip(before, spent(channel), strict=True)])
    for share, answer in zip(out, right, strict=True):
        word = np.dtype(f"u{order['bits'] // 8}")
        assert (session.open_words("benchmark/check", share) == answer.astype(np.int64).astype(word)).all()
    session.correlations.close()
    first = 0 if order["ahead"] else 1  # the first turn touches fresh memory and is not counted
    return {"turns": measured[first:], "masking": masking}


def measure(order: dict[str, Any], network: str | None) -> dict[str, Any]:
    """Medians of the secure products, and of NumPy's float64 products of the same numbers."""
    X = np.concatenate([block(order["rows"], d, i) for i, d in enumerate(order["columns"])], axis=1).astype(np.float64)
    v, u = (vectors(order, size).astype(np.float64) for size in (X.shape[1], X.shape[0]))
    clear = []
    for _ in range(order["repeat"]):
        start = time.perf_counter()
        plain(X, v, u, order["test"])
        clear.append(time.perf_counter() - start)
    out = run_processes("benchmarks.matrix", order, network)
    pairs = list(zip(*(out[name]["turns"] for name in OWNERS), strict=True))
    each = [max(a[0], b[0]) for a, b in pairs]
    seconds = statistics.mean(each) if order["ahead"] else statistics.median(each)
    return order | {
        "network": network,
        "seconds": seconds,
        "cpu_seconds": statistics.median(a[1] + b[1] for a, b in pairs) + out["dealer"]["cpu_seconds"],
        "dealer_cpu_seconds": out["dealer"]["cpu_seconds"],
        "mb_between_owners": sum(turn[2] for turn in pairs[0]) / 1e6,
        "mb_from_dealer": out["dealer"]["bytes"] / 1e6,
        "masking_seconds": max(out[name]["masking"] for name in OWNERS),
        "numpy_seconds": statistics.median(clear),
        "ratio": seconds / statistics.median(clear),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", nargs="+", default=["50,50", "100,0"], help="per owner; one line for each")
    parser.add_argument("--test", choices=TESTS, nargs="+", default=["pass"])
    parser.add_argument("--bits", type=int, choices=(32, 64), default=64)
    parser.add_argument("--vectors", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--ahead", action="store_true", help="ask the dealer for all repeats at once")
    parser.add_argument("--network", choices=list(NETWORKS), help="default: straight over loopback")
    parser.add_argument("--json", action="store_true", help="print one JSON document per line")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    for text in arguments.columns:
        for test in arguments.test:
            columns = [int(d) for d in text.split(",")]
            shared = {name: getattr(arguments, name) for name in ("rows", "bits", "vectors", "repeat", "ahead")}
            r = measure(shared | {"columns": columns, "test": test}, arguments.network)
            line = (
                f"{test}, {arguments.rows:,} rows x {text} columns, {arguments.bits} bits: {r['seconds']:.3f} s "
                f"({r['cpu_seconds']:.3f} CPU s, of these the dealer {r['dealer_cpu_seconds']:.3f}), "
                f"{r['mb_between_owners']:.1f} MB between the owners and {r['mb_from_dealer']:.1f} MB from the dealer; "
                f"masked once in {r['masking_seconds']:.2f} s; NumPy in the clear {r['numpy_seconds']:.4f} s: "
                f"ratio {r['ratio']:.1f}"
            )
            print(json.dumps(r) if arguments.json else line)


if __name__ == "__main__":
    main()
