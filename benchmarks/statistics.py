"""Statistics before modelling between two owners, over TLS: correlations, inflation factors, weights of evidence, selection.

    python -m benchmarks.statistics [--rows 100000] [--columns 50] [--binned 40] [--bins 10] [--select 20]
                                    [--network lan|10ms-100mbit|50ms-20mbit] [--only gram woe select] [--json]

"gram": correlations with the label, between all columns of two owners, and all variance inflation factors.  "woe": weights of
evidence of one owner's columns with the label at the other one; "setup" is the time until the masked one-hot matrix has
arrived, "after" what comes behind it.  "select": stepwise selection.  Seconds from the first byte to the result, megabytes from
owner to owner (the larger of both directions) and from the dealer; results are compared with NumPy's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.parties import OWNERS, connect, run_processes

PARTS = ("gram", "woe", "select")


def columns(order: dict[str, Any]) -> tuple[list[np.ndarray], np.ndarray]:
    """Correlated columns cut in two, and a label of a logistic model."""
    n, d = order["rows"], order["select"] if order["part"] == "select" else order["columns"]
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, 2 * d)) + 0.7 * rng.normal(size=(n, 4)) @ rng.normal(size=(4, 2 * d))
    weights = np.where(np.arange(2 * d) % 3 == 0, 1.0, 0.0) * rng.normal(0, 1.5 / np.sqrt(d), 2 * d)
    y = (rng.random(n) < 1 / (1 + np.exp(1 - X @ weights))).astype(float)
    return [X[:, :d], X[:, d:]], y


def gram_part(session: Any, order: dict[str, Any], index: int) -> Callable[[], Any]:
    """Correlations and inflation factors."""
    from vertical.statistics import Settings, statistics

    parts, y = columns(order)

    def body() -> Any:
        found: Any = statistics(session, parts[index], y if index == 0 else None, Settings())
        return {"vif": found.vif.tolist(), "label": found.label.tolist(), "cross": found.cross[1 - index].tolist()}

    return body


def woe_part(session: Any, order: dict[str, Any], index: int) -> Callable[[], Any]:
    """Weights of evidence of the second owner's columns."""
    from vertical.binning import Binner
    from vertical.encoding import Feature
    from vertical.woe import Settings, evidence

    n, d = order["rows"], order["binned"]
    rng = np.random.default_rng(4)
    made = rng.normal(size=(n, d)).astype(np.float64)
    y = (rng.random(n) < 1 / (1 + np.exp(2 - made @ rng.normal(0, 0.3, d)))).astype(float)
    names = [f"x{i}" for i in range(d)] if index else []
    table = dict(zip(names, made.T, strict=True)) if index else {"none": made[:, 0]}
    binner = Binner.fit(table, [Feature(name, "number") for name in names], np.ones(n, dtype=bool), order["bins"] + 1)
    binned = binner.transform(table)

    def body() -> Any:
        found = evidence(session, binner, binned, None if index else y, Settings(share=0.0))
        return {"values": [c.value for c in found.columns]}

    return body


def select_part(session: Any, order: dict[str, Any], index: int) -> Callable[[], Any]:
    """Stepwise selection."""
    from vertical.stepwise import Settings, select

    parts, y = columns(order)

    def body() -> Any:
        found = select(session, parts[index], y if index == 0 else None, Settings())
        return {"own": list(found.own), "steps": len(found.steps)}

    return body


class Watched:
    """A channel that notes when the first message behind the masked matrices is sent."""

    def __init__(self, channel: Any) -> None:
        self._channel, self.reached = channel, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def send(self, to: str, tag: str, kind: Any, body: Any) -> None:
        """As the channel's."""
        self._channel.send(to, tag, kind, body)

    def recv(self, frm: str, tag: str, kind: Any, **limits: Any) -> Any:
        """As the channel's."""
        out = self._channel.recv(frm, tag, kind, **limits)
        if tag == "matrix/mask":
            self.reached = time.perf_counter()
        return out


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.dealer import Correlations, run_dealer
    from mpc.engine import bind
    from mpc.kinds import warm_up
    from mpc.session import Session

    me = order["me"]
    index = OWNERS.index(me) if me in OWNERS else -1
    warm_up()
    channel = Watched(connect(order))
    result, start = None, time.perf_counter()
    if index < 0:
        run_dealer(channel, OWNERS)
    else:
        session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
        made = {"gram": gram_part, "woe": woe_part, "select": select_part}[order["part"]]
        body = made(session, order, index)
        session.exchange("ready", np.zeros(1, dtype=np.uint64))
        start = time.perf_counter()
        with bind(session):
            result = body()
        session.correlations.close()
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "after": end - channel.reached,
        "bytes_sent": dict(channel.bytes_sent),
        "rounds": channel.rounds,
        "result": result,
    }


def measure(part: str, order: dict[str, Any]) -> dict[str, Any]:
    """One part, beside NumPy."""
    order = {**order, "part": part}
    out = run_processes("benchmarks.statistics", order, order["network"])
    sent = [sum(v for k, v in out[owner]["bytes_sent"].items() if k != "dealer") / 1e6 for owner in OWNERS]
    found = [out[owner]["result"] for owner in OWNERS]
    return {
        "part": part,
        "seconds": max(out[p]["seconds"] for p in OWNERS),
        "after_masks": max(out[p]["after"] for p in OWNERS),
        "mb_between_owners": max(sent),
        "mb_from_dealer": sum(out["dealer"]["bytes_sent"].values()) / 1e6,
        "rounds": out[OWNERS[0]]["rounds"],
        **compared(part, order, found),
    }


def compared(part: str, order: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    """How far the results are from those of the joined table."""
    if part == "woe":
        return {"largest value": max(found[1]["values"])}
    parts, y = columns(order)
    if part == "select":
        return {"steps": found[0]["steps"], "chosen": sum(len(f["own"]) for f in found)}
    d, R = parts[0].shape[1], np.corrcoef(np.column_stack([*parts, y]).T)
    vif = np.diag(np.linalg.inv(R[:-1, :-1]))
    got = np.concatenate([f["vif"] for f in found])
    label = np.concatenate([f["label"] for f in found])
    return {
        "largest VIF": float(vif.max()),
        "VIF differs by": float(np.abs(got / vif - 1).max()),
        "correlation differs by": float(
            max(np.abs(label - R[:-1, -1]).max(), np.abs(np.array(found[0]["cross"]) - R[:d, d:-1]).max())
        ),
    }


def show(results: list[dict[str, Any]]) -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Statistics before modelling: two owners and a dealer")
    for head in ("part", "seconds", "after the masks", "MB owners", "MB dealer", "rounds", "result"):
        table.add_column(head, justify="left" if head in ("part", "result") else "right")
    for r in results:
        known = ("part", "seconds", "after_masks", "mb_between_owners", "mb_from_dealer", "rounds")
        rest = ", ".join(f"{key} {value:.4g}" for key, value in r.items() if key not in known)
        figures = [f"{r[key]:.2f}" for key in known[1:3]] + [f"{r[key]:.1f}" for key in known[3:5]]
        table.add_row(r["part"], *figures, str(r["rounds"]), rest)
    Console(width=150).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=50, help="of each owner, for correlations")
    parser.add_argument("--binned", type=int, default=40)
    parser.add_argument("--bins", type=int, default=10)
    parser.add_argument("--select", type=int, default=20, help="columns of each owner, for the selection")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--network", help="round trip and rate; default: straight over loopback")
    parser.add_argument("--json", action="store_true", help="print one JSON document per part")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    order = {key: getattr(arguments, key) for key in ("rows", "columns", "binned", "bins", "select", "network")}
    results = [measure(part, order) for part in arguments.only]
    for result in results if arguments.json else ():
        print(json.dumps(result))
    if not arguments.json:
        show(results)


if __name__ == "__main__":
    main()
