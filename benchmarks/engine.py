"""The engine's operations beside stock CrypTen's and SPU's: two owners and a dealer as processes over real TLS.

    python -m benchmarks.engine [--operations NAME ...] [--list] [--repeat 3] [--scale 1] [--json]
                                [--randomness dealer|verified-dealer|ot] [--network lan|10ms-100mbit|50ms-20mbit]
                                [--peers none|crypten|spu|all] [--timeout 900] [--saved FILE]

Each operation runs in processes of its own.  The dealer is asked for nothing before the clock starts, so its work and its
traffic are in the figures, and so is the check of a verified dealer.  Reported are medians over the repeats of the
wall-clock seconds until the slower owner has its shares, CPU seconds of all processes, bytes sent, rounds, and the largest
error against NumPy; every result is checked against its bound.  The peers compute the same from the same inputs in the
same run, each in an environment of its own that is made on first use: see docs/benchmarks.md.  A network stands between our
processes only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import more_operations, operations, peers, table, workload
from benchmarks.operations import Operation
from benchmarks.parties import NAMES, OWNERS, connect, run_processes
from benchmarks.shaping import NETWORKS
from benchmarks.workload import Arrays, Record

OPERATIONS = operations.OPERATIONS | more_operations.OPERATIONS
DEALER = "dealer"
RANDOMNESS = (DEALER, "verified-dealer", "ot")


def spent(channel: Any) -> tuple[float, float, int, int]:
    """Seconds, CPU seconds, bytes sent to the other owner and rounds, so far."""
    sent = sum(channel.bytes_sent[peer] for peer in channel.bytes_sent if peer != DEALER)
    return time.perf_counter(), time.process_time(), sent, channel.rounds


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.kinds import warm_up

    warm_up()
    if order["randomness"] == "ot":
        from mpc.ot import products

        products.warm_up()
    channel = connect(order)
    return deal(channel, order) if order["me"] == DEALER else own(channel, order)


def deal(channel: Any, order: dict[str, Any]) -> dict[str, Any]:
    """The dealer's part: what a turn costs it, on average."""
    from mpc.dealer import run_dealer

    cpu, turns = time.process_time(), order["repeat"] + 1
    run_dealer(channel, OWNERS)
    cpu = time.process_time() - cpu
    return {"cpu_seconds": cpu / turns, "bytes_sent": sum(channel.bytes_sent.values()) / turns}


def own(channel: Any, order: dict[str, Any]) -> dict[str, Any]:
    """An owner's part: every turn, and the largest error; or why this source of randomness has nothing for the operation."""
    from mpc.engine import bind
    from mpc.errors import LocalProtocolError
    from mpc.session import Session
    from mpc.supply import supply

    index, randomness = OWNERS.index(order["me"]), order["randomness"]
    source = supply(randomness, channel, OWNERS, None if randomness == "ot" else DEALER, index)
    session = Session(channel, OWNERS, index, source)
    try:
        with bind(session):
            return take_turns(session, OPERATIONS[order["operation"]], order["n"], order["repeat"])
    except LocalProtocolError as refused:
        if randomness == DEALER:  # offers everything: this is a mistake of ours
            raise
        return {"refused": str(refused)}
    finally:
        source.close()


def take_turns(session: Any, operation: Operation, n: int, repeat: int) -> dict[str, Any]:
    """Do an operation of size n, check it, and do it again."""
    arrays = operation.values(n)
    right = None if operation.plain is None else operation.plain(*arrays)
    run, turns, error = operation.prepare(session, arrays), [], 0.0
    for _ in range(repeat + 1):
        session.exchange("benchmark/start", np.zeros(0, dtype=np.uint64))
        before = spent(session.channel)
        out = run()
        session.correlations.settle()
        turns.append([b - a for a, b in zip(before, spent(session.channel), strict=True)])
        if right is not None:
            error = max(error, difference(session.open_words("benchmark/check", out), right, operation))
    assert error <= operation.bound, f"error {error} over {operation.bound}"
    return {"turns": turns[1:], "error": error}  # the first turn touches fresh memory and is not counted


def difference(opened: np.ndarray, right: np.ndarray, operation: Operation) -> float:
    """The largest error of a result."""
    got = opened.view(f"i{opened.itemsize}") * 2.0**-operation.bits
    if operation.unordered:
        got, right = np.sort(got), np.sort(right)
    assert got.shape == right.shape
    return float(np.abs(got - right).max(initial=0.0))


def seconds_in_the_clear(operation: Operation, arrays: Arrays, repeat: int) -> float | None:
    """What NumPy takes for the plain answer."""
    if operation.plain is None:
        return None
    took = []
    for _ in range(repeat):
        start = time.perf_counter()
        operation.plain(*arrays)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def measure(name: str, repeat: int, scale: float, randomness: str, network: str | None) -> Record:
    """Medians of one operation, per time that it is done."""
    operation = OPERATIONS[name]
    randomness, n = operation.randomness or randomness, max(1, int(operation.n * scale))
    note = "" if randomness in {DEALER, operation.randomness} else f"randomness: {randomness}"
    if n != operation.n:
        note = f"{note}; size {n:,}".removeprefix("; ")
    order = {"operation": name, "n": n, "repeat": repeat, "randomness": randomness}
    out = run_processes("benchmarks.engine", order, network, OWNERS if randomness == "ot" else NAMES)
    if why := out[OWNERS[0]].get("refused"):
        return workload.dash(name, why) | {"what": operation.what}
    pairs = list(zip(*(out[owner]["turns"] for owner in OWNERS), strict=True))
    dealer, each = out.get(DEALER, {"cpu_seconds": 0.0, "bytes_sent": 0}), operation.each
    return {
        "operation": name,
        "what": operation.what,
        "seconds": statistics.median(max(a[0], b[0]) for a, b in pairs) / each,
        "cpu_seconds": (statistics.median(a[1] + b[1] for a, b in pairs) + dealer["cpu_seconds"]) / each,
        "rounds": max(turn[3] for turn in pairs[0]) / each,
        "mb_between_owners": sum(turn[2] for turn in pairs[0]) / 1e6 / each,
        "mb_from_dealer": dealer["bytes_sent"] / 1e6 / each,
        "error": max(out[owner]["error"] for owner in OWNERS),
        "numpy_seconds": seconds_in_the_clear(operation, operation.values(n), repeat),
        "note": note,
    }


def listing() -> str:
    """Every operation: its name, what it computes, and the most seconds that it should take."""
    width = max(len(name) for name in OPERATIONS)
    lines = []
    for name, operation in OPERATIONS.items():
        target = "" if operation.target is None else f", {operation.target:g} s at most"
        lines.append(f"{name:{width}}  {operation.what}{target}")
    return "\n".join(lines)


def targets_of(names: Sequence[str]) -> dict[str, float]:
    """The targets of those operations that have one; they are for the whole size, with a dealer who is trusted."""
    chosen = ((name, OPERATIONS[name].target) for name in names)
    return {name: target for name, target in chosen if target is not None}


def arguments_of(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    peers.add_arguments(parser, tuple(OPERATIONS))
    parser.set_defaults(operations=list(operations.OPERATIONS))
    parser.add_argument(
        "--list", action="store_true", help="name every operation; measured by default are the first ones"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of our sizes; other than 1 without peers only")
    parser.add_argument("--randomness", choices=RANDOMNESS, default=DEALER, help="where ours comes from")
    parser.add_argument(
        "--network", choices=list(NETWORKS), help="between our processes; default: straight over loopback"
    )
    parser.add_argument("--saved", type=Path, help="what benchmarks.peers has printed, instead of measuring peers")
    parser.add_argument("--json", action="store_true", help="print one JSON document per operation")
    arguments = parser.parse_args(words)
    if arguments.scale != 1 and (arguments.peers != "none" or arguments.saved):
        parser.error("peers have one size: --scale needs --peers none")
    return arguments


def main(words: list[str] | None = None) -> None:
    """Command line."""
    a = arguments_of(words)
    if a.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    if a.list:
        print(listing())
        return
    ours = []
    for name in a.operations:
        ours.append(line := measure(name, a.repeat, a.scale, a.randomness, a.network))
        peers.say(f"{table.OURS}: {name} " + (line["note"] if line["seconds"] is None else f"{line['seconds']:.4f} s"))
    shared = [name for name in a.operations if name in workload.OPERATIONS]
    theirs = (
        table.load(a.saved, shared) if a.saved else peers.measure(peers.chosen(a.peers), shared, a.repeat, a.timeout)
    )
    targets = targets_of(a.operations) if (a.scale, a.randomness) == (1, DEALER) else {}
    if a.json:
        for block in table.compare(ours, theirs, targets):
            print(json.dumps(block))
    else:
        print(table.render(ours, theirs, targets))


if __name__ == "__main__":
    main()
