"""Does a joint model beat what each organisation could do alone?  Real data, three processes, real TLS on loopback.

    python -m benchmarks.joint [--sets adult heart ...] [--json]

Each data set is cut by columns as `benchmarks.datasets` says.  The joint model is trained and evaluated in secret, as a job
does it.  "Alone" is the better of a linear model and of boosted trees by scikit-learn, in the clear, on one owner's columns:
for the owner without the label that is more than it could do in reality, since it is given the label.  All are fitted on the
same 70 % of the rows and evaluated on the other 30 %: the AUC, and for counts D2, the part of the deviance explained.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from benchmarks.datasets import CUTS, Dataset, load
from benchmarks.parties import NAMES, OWNERS, connect, run_processes

HELD_OUT = 0.3
MODELS: dict[str, dict[str, Any]] = {
    "adult": {"kind": "trees", "depth": 4, "trees": 20},
    "credit_default_taiwan": {"kind": "trees", "depth": 3, "trees": 20, "learning_rate": 0.2},
    "hillstrom": {"kind": "glm"},
    "fraud": {"kind": "glm"},
    "heart": {"kind": "glm", "ridge": 10.0},
    "randhie": {"kind": "trees", "objective": "poisson", "depth": 4, "trees": 20},
    "bike_sharing": {"kind": "trees", "objective": "poisson", "depth": 4, "trees": 20, "learning_rate": 0.5},
    "reviews": {"kind": "glm"},
}


def held_out(rows: int) -> np.ndarray:
    """Which rows are held out; the same in every process."""
    return np.random.default_rng(11).random(rows) < HELD_OUT


def learner(name: str) -> Any:
    """The joint model of a data set."""
    from vertical import regression
    from vertical.learners import GlmLearner, TreesLearner
    from vertical.trees.settings import Settings

    chosen = dict(MODELS[name])
    if chosen.pop("kind") == "trees":
        return TreesLearner(Settings(**chosen))
    return GlmLearner(regression.Settings(**{"ridge": 1.0, "inference": False, "family": CUTS[name].family, **chosen}))


def features(data: Dataset, owner: int) -> list[Any]:
    """The features of an owner; a text is read as one."""
    from vertical.encoding import Feature

    return [Feature(f.column, "text") if "Text" in f.column else f for f in data.features[owner]]


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.dealer import Correlations, run_dealer
    from mpc.engine import bind
    from mpc.kinds import warm_up
    from mpc.session import Session
    from vertical.families import Rows
    from vertical.learners import Encoding
    from vertical.metrics import Settings, evaluate

    me, name = order["me"], order["set"]
    warm_up()
    if me == "dealer":
        channel = connect(order)
        start = time.perf_counter()
        run_dealer(channel, OWNERS)
        return report(channel, start, None)
    index, model, data = OWNERS.index(me), learner(name), load(name)
    held = held_out(len(data.y))
    encoder = model.encode(data.columns[index], features(data, index), ~held, Encoding(8, 30))
    inputs = encoder.transform(data.columns[index])
    y = data.y if index == data.active else None
    channel = connect(order)
    start = time.perf_counter()
    session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
    with bind(session):
        rows = None if y is None else Rows(y[~held])
        fitted = model.train(session, model.take(inputs, ~held), rows, lambda _done, _total: None, None)
        scores = model.scores(session, fitted, model.take(inputs, held), None)
        wanted = "auc" if model.family == "logistic" else "loss"
        found = evaluate(
            session,
            scores,
            None if y is None else y[held],
            data.active,
            Settings(family=model.family, wanted=(wanted,)),
        )
    session.correlations.close()
    return report(channel, start, found)


def report(channel: Any, start: float, found: Any) -> dict[str, Any]:
    """What a process tells."""
    return {
        "seconds": time.perf_counter() - start,
        "bytes_sent": sum(channel.bytes_sent.values()),
        "rounds": channel.rounds,
        "figures": found,
    }


def alone(data: Dataset, owner: int) -> float:
    """The best that one owner's columns give in the clear."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, PoissonRegressor
    from sklearn.metrics import d2_tweedie_score, roc_auc_score

    from vertical.encoding import fit

    held = held_out(len(data.y))
    encoder = fit(data.columns[owner], features(data, owner), ~held, winsorise_sd=8, rare_category=30)
    X, y = encoder.transform(data.columns[owner]), data.y
    found = []
    if data.family == "logistic":
        for model in (LogisticRegression(max_iter=1000), HistGradientBoostingClassifier(random_state=1)):
            score = model.fit(X[~held], y[~held]).predict_proba(X[held])[:, 1]
            found.append(float(roc_auc_score(y[held], score)))
    else:
        for model in (
            PoissonRegressor(alpha=0, max_iter=1000),
            HistGradientBoostingRegressor(loss="poisson", random_state=1),
        ):
            mean = np.maximum(model.fit(X[~held], y[~held]).predict(X[held]), 1e-9)
            found.append(float(d2_tweedie_score(y[held], mean, power=1)))
    return max(found)


def measure(name: str) -> dict[str, Any]:
    """One data set."""
    data = load(name)
    out = run_processes("benchmarks.joint", {"set": name}, None)
    figures = out["a"]["figures"]
    assert figures == out["b"]["figures"]
    figure, joint = ("AUC", figures["auc"]) if "auc" in figures else ("D2", figures["loss"]["d2"])
    return {
        "set": name,
        "rows": len(data.y),
        "model": MODELS[name]["kind"],
        "figure": figure,
        "owners": list(data.owners),
        "alone": [alone(data, owner) for owner in range(2)],
        "joint": float(joint),
        "seconds": max(out[n]["seconds"] for n in NAMES),
        "mb": sum(out[n]["bytes_sent"] for n in NAMES) / 1e6,
        "rounds": out["a"]["rounds"],
    }


def show(results: list[dict[str, Any]]) -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="A joint model beside what each organisation could do alone (held-out rows)")
    for column in ("data set", "rows", "model", "figure", "alone", "joint", "gain", "seconds", "MB", "rounds"):
        table.add_column(column, justify="left" if column in ("data set", "model", "figure", "alone") else "right")
    for r in results:
        single = ", ".join(f"{owner} {value:.4f}" for owner, value in zip(r["owners"], r["alone"], strict=True))
        gain = r["joint"] - max(r["alone"])
        table.add_row(
            r["set"], f"{r['rows']:,}", r["model"], r["figure"], single, f"{r['joint']:.4f}", f"{gain:+.4f}",
            f"{r['seconds']:.1f}", f"{r['mb']:.0f}", f"{r['rounds']:,}",
        )  # fmt: skip
    console = Console(width=150)
    console.print(table)
    better = [r["set"] for r in results if r["joint"] > max(r["alone"])]
    console.print(
        f"The joint model is better than the best of each alone on {len(better)} of {len(results)}: {', '.join(better)}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sets", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--json", action="store_true", help="print one JSON document per data set")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    results = []
    for name in arguments.sets:
        results.append(measure(name))
        if arguments.json:
            print(json.dumps(results[-1]), flush=True)
    if not arguments.json:
        show(results)


if __name__ == "__main__":
    main()
