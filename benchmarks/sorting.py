"""Sort, find the best and sum by group: two owners and a dealer as processes, real TLS on loopback, against plain NumPy.

    python -m benchmarks.sorting [--task sort top-k argmax group-sum group-sum-by-owner] [--n N] [--groups 64] [--repeat 3]
                                 [--json] [--network lan|10ms-100mbit|50ms-20mbit]

Sorted are 100,000 rows of a key and one column, summed are 10,000 rows of one column by 64 groups, unless said.  The dealer
is asked for nothing before the clock starts, so its work and its traffic are in the figures.  Reported are medians over the
repeats of the wall-clock seconds until the slower owner has its shares, CPU seconds of all three processes, frame bytes, and
the ratio to NumPy's time for the plain answer in the same run.  Every result is checked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from benchmarks.compare import spent
from benchmarks.parties import OWNERS, connect, run_processes
from benchmarks.shaping import NETWORKS

ROWS = {"sort": 100_000, "top-k": 100_000, "argmax": 10_000, "group-sum": 10_000, "group-sum-by-owner": 10_000}
KEY_BITS, BEST, CANDIDATES = 40, 10, 16


def table(task: str, n: int, n_groups: int) -> np.ndarray:
    """Signed rows: a key and a column, or candidates to choose from."""
    rng = np.random.default_rng(20_12)
    if task == "argmax":
        return rng.integers(-(2**40), 2**40, (n, CANDIDATES))
    bound = n_groups if task.startswith("group") else 2 ** (KEY_BITS - 1)
    return np.column_stack([rng.integers(0, bound, n), rng.integers(-(2**40), 2**40, n)])


def plain(task: str, x: np.ndarray, n_groups: int) -> np.ndarray:
    """The answer."""
    if task == "argmax":
        return np.stack([x.max(axis=1), x.argmax(axis=1)])
    if task in ("sort", "top-k"):
        order = np.argsort(x[:, 0] if task == "sort" else -x[:, 0], kind="stable")
        return x[order[: len(x) if task == "sort" else BEST]]
    sums = np.zeros(n_groups, dtype=np.int64)
    np.add.at(sums, x[:, 0], x[:, 1])
    return np.stack([sums, np.bincount(x[:, 0], minlength=n_groups)]) if task == "group-sum" else sums


def secure(session: Any, order: dict[str, Any], share: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Shares of the answer.  key: the plain first column, for the party that owns it."""
    from mpc import extrema, groups, sorting

    task, n, n_groups = order["task"], order["n"], order["groups"]
    plan = session.correlations.plan
    if task == "sort":
        return sorting.sort(session, share, KEY_BITS)[0]
    if task == "top-k":
        return sorting.top_k(session, share, BEST, KEY_BITS)[0]
    if task == "argmax":
        return np.stack(extrema.argmax(session, plan(extrema.plan_argmax(*share.shape)), share))
    if task == "group-sum":
        tickets = plan(groups.plan_group_sum(n, 1, n_groups))
        sums, counts = groups.group_sum(session, tickets, share[:, 0], share[:, 1:], n_groups)
        return np.stack([sums[:, 0], counts])
    tickets = plan(groups.plan_group_sum_by_owner(n, 1, n_groups, 0))
    return groups.group_sum_by_owner(session, tickets, share[:, 1:], n_groups, None if session.me else key)[:, 0]


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc import groups, kinds
    from mpc.dealer import Correlations, run_dealer
    from mpc.session import Session

    kinds.warm_up()
    groups.warm_up()
    me, n = order["me"], order["n"]
    channel = connect(order)
    if me == "dealer":
        cpu = time.process_time()
        run_dealer(channel, OWNERS)
        each = (time.process_time() - cpu) / (order["repeat"] + 1)
        return {"cpu_seconds": each, "bytes_sent": sum(channel.bytes_sent.values()) / (order["repeat"] + 1)}
    index = OWNERS.index(me)
    session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
    x = table(order["task"], n, order["groups"])
    right = plain(order["task"], x, order["groups"]).view(np.uint64)
    mask = np.random.default_rng(1).integers(0, 2**64, x.shape, dtype=np.uint64)
    share = mask if index else x.view(np.uint64) - mask
    turns = []
    for _ in range(order["repeat"] + 1):
        session.exchange("benchmark/start", np.zeros(0, dtype=np.uint64))
        before = spent(channel)
        out = secure(session, order, share, x[:, 0])
        turns.append([b - a for a, b in zip(before, spent(channel), strict=True)])
        assert (session.open_words("benchmark/check", out) == right).all()
    session.correlations.close()
    return {"turns": turns[1:]}  # the first turn touches fresh memory and is not counted


def measure(task: str, n: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of the protocol, and of NumPy on the plain rows."""
    x, clear = table(task, n, arguments.groups), []
    for _ in range(arguments.repeat):
        start = time.perf_counter()
        plain(task, x, arguments.groups)
        clear.append(time.perf_counter() - start)
    order = {"task": task, "n": n, "groups": arguments.groups, "repeat": arguments.repeat}
    out = run_processes("benchmarks.sorting", order, arguments.network)
    pairs = list(zip(*(out[name]["turns"] for name in OWNERS), strict=True))
    seconds = statistics.median(max(a[0], b[0]) for a, b in pairs)
    return {
        "task": task,
        "n": n,
        "network": arguments.network,
        "seconds": seconds,
        "cpu_seconds": statistics.median(a[1] + b[1] for a, b in pairs) + out["dealer"]["cpu_seconds"],
        "rounds": statistics.median(a[3] for a, _ in pairs),
        "mb_between_owners": statistics.median(a[2] + b[2] for a, b in pairs) / 1e6,
        "mb_from_dealer": out["dealer"]["bytes_sent"] / 1e6,
        "numpy_seconds": statistics.median(clear),
        "ratio": seconds / statistics.median(clear),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--task", choices=list(ROWS), nargs="+", default=list(ROWS))
    parser.add_argument("--n", type=int, help="rows; default: 100,000 for sort and top-k, else 10,000")
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--network", choices=list(NETWORKS), help="default: straight over loopback")
    parser.add_argument("--json", action="store_true", help="print one JSON document per line")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    for task in arguments.task:
        r = measure(task, arguments.n or ROWS[task], arguments)
        line = (
            f"{task}, {r['n']:,} rows: {r['seconds']:.3f} s ({r['cpu_seconds']:.3f} CPU s), {r['rounds']:.0f} rounds, "
            f"{r['mb_between_owners']:.1f} MB between the owners and {r['mb_from_dealer']:.1f} MB from the dealer; "
            f"NumPy in the clear {r['numpy_seconds']:.5f} s: ratio {r['ratio']:.0f}"
        )
        print(json.dumps(r) if arguments.json else line)


if __name__ == "__main__":
    main()
