"""Predict with a stored model: many rows at once, and one row at a time, between two owners' processes and a dealer's.

    python -m benchmarks.scoring [--rows 100000] [--columns 20] [--questions 2000] [--json]

Real TLS on loopback.  The model is linear in each owner's columns, as every generalised linear model is; a model of trees or
a network ends in shares of one score for each row in the same way, so from there on all is the same.

Batch: seconds from the owners' encoded columns to the recipient's predictions, and frame bytes that all processes sent.
Online: from a question on the recipient's local socket, in a process of its own, to the answer: through the recipient's worker
to the other owner and back.  Medians, the 99th percentile and the largest of as many questions.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parties import NAMES, OWNERS, connect, run_processes

KINDS = ("decision", "decile", "rounded", "probability")


def output_of(kind: str) -> Any:
    """The output that is measured."""
    from vertical.score import Output

    if kind == "rounded":
        return Output.rounded((0,))
    cuts = {"decision": (0.3,), "decile": tuple(i / 10 for i in range(1, 10)), "probability": ()}[kind]
    return Output(kind, (0,), cuts=cuts)  # type: ignore[arg-type]


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.dealer import Correlations, run_dealer
    from mpc.engine import bind
    from mpc.kinds import warm_up
    from mpc.session import Session
    from vertical.scores import Scores

    me = order["me"]
    warm_up()
    channel = connect(order)
    start, told = time.perf_counter(), None
    if me == "dealer":
        run_dealer(channel, OWNERS)
    else:
        index = OWNERS.index(me)
        rng = np.random.default_rng(index)
        X, w = rng.normal(size=(order["rows"], order["columns"])), rng.normal(0, 0.2, order["columns"])
        session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
        start = time.perf_counter()
        with bind(session):
            scores = Scores.of_part(X @ w, 1 << 20, len(OWNERS))
            told = (_online if order["online"] else _batch)(session, scores, order)
        session.correlations.close()
    return {"seconds": time.perf_counter() - start, "bytes_sent": dict(channel.bytes_sent), "told": told}


def _batch(session: Any, scores: Any, order: dict[str, Any]) -> Any:
    from vertical.score import predict

    found = predict(session, scores, output_of(order["kind"]), order["columns"])
    return None if found is None else float(np.mean(found))


def _online(session: Any, scores: Any, order: dict[str, Any]) -> Any:
    """The other owner answers; the recipient's worker serves its socket, and the client asks from a process of its own."""
    import subprocess

    from silos.questions import serve
    from vertical.online import Online

    run = Online(session, scores, output_of(order["kind"]), order["columns"], order["questions"] + 100)
    if session.me != 0:
        run.answer()
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "benchmarks.scoring",
            "--client",
            folder,
            "--questions",
            str(order["questions"]),
        ]
        client = subprocess.Popen([*command, "--rows", str(order["rows"])], stdout=subprocess.PIPE, text=True)
        serve(Path(folder), run, lambda key: int(key[0]), silent_s=60, until=time.monotonic() + 300)
        return json.loads(client.communicate()[0])


def ask(folder: Path, questions: int, rows: int) -> list[float]:
    """In the client's process: seconds that each question took."""
    from silos.errors import ConfigError
    from silos.questions import Scorer

    while True:
        try:
            scorer = Scorer(folder)
            break
        except ConfigError:
            threading.Event().wait(0.05)
    took, asked = [], np.random.default_rng(1).integers(0, rows, questions + 50)
    with scorer:
        for row in asked.tolist():
            start = time.perf_counter()
            scorer.score(str(row))
            took.append(time.perf_counter() - start)
        scorer.end()
    return took[50:]


def measure(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both ways of asking for one output."""
    order = {"rows": arguments.rows, "columns": arguments.columns, "kind": kind, "questions": arguments.questions}
    batch = run_processes("benchmarks.scoring", order | {"online": False}, None)
    online = run_processes("benchmarks.scoring", order | {"online": True}, None)
    took = np.array(online["a"]["told"]) * 1e3
    return {
        "output": kind,
        "batch_seconds": max(batch[name]["seconds"] for name in OWNERS),
        "mb_sent": {name: sum(batch[name]["bytes_sent"].values()) / 1e6 for name in NAMES},
        "online_ms": {"p50": float(np.median(took)), "p99": float(np.quantile(took, 0.99)), "most": float(took.max())},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--client", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=20, help="of each owner")
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="print one JSON document per output")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    if arguments.client:
        print(json.dumps(ask(arguments.client, arguments.questions, arguments.rows)))
        return
    for kind in KINDS:
        result = measure(kind, arguments)
        if arguments.json:
            print(json.dumps(result))
            continue
        sent, online = result["mb_sent"], result["online_ms"]
        print(
            f"{kind:12} {arguments.rows:,} rows {result['batch_seconds']:.2f} s, MB sent: owners "
            f"{sent['a'] + sent['b']:.2f}, dealer {sent['dealer']:.2f}; one row: p50 {online['p50']:.2f} ms, "
            f"p99 {online['p99']:.2f} ms, most {online['most']:.1f} ms"
        )


if __name__ == "__main__":
    main()
