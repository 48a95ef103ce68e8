"""Generalised linear models other than logistic on real data, three processes over TLS, against statsmodels and scikit-learn.

    python -m benchmarks.glm_families [--case poisson-bikes gamma-limits ...] [--network lan|10ms-100mbit|50ms-20mbit] [--json]

Both sides get the same standardised rows, all of them.  Reported are how far the deviance is above that of the reference (for a
sparse model the penalised objective), the largest relative difference of a standard error, seconds from the first byte to the
opened coefficients, seconds of the reference in the clear, megabytes between the owners and from the dealer, and
communication rounds.  The reference is statsmodels', and scikit-learn's for multinomial and sparse models.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from benchmarks.datasets import CUTS, FOLDER, load
from benchmarks.parties import OWNERS, connect, run_processes

WINSORISE_SD, RARE_CATEGORY = 8, 100
POWER, PENALTY = 1.5, 0.005


@dataclass(frozen=True)
class Case:
    """A model and its data.  label: a column other than the data set's label, which is then left out of the inputs.

    cuts: a multinomial label has a class for each interval between them.
    """

    model: str
    data: str
    label: str | None = None
    cuts: tuple[float, ...] = ()
    passes: int = 20


CASES = {
    "poisson-bikes": Case("poisson", "bike_sharing"),
    "poisson-visits": Case("poisson", "randhie"),
    "gamma-limits": Case("gamma", "credit_default_taiwan", "LIMIT_BAL"),
    "tweedie-spend": Case("tweedie", "hillstrom", "spend"),
    "linear-hours": Case("linear", "adult", "hours-per-week"),
    "multinomial-limits": Case("multinomial", "credit_default_taiwan", "LIMIT_BAL", (50e3, 140e3, 240e3), 40),
    "multinomial-hours": Case("multinomial", "adult", "hours-per-week", (39.5, 40.5), 40),
    "lasso-income": Case("lasso", "adult"),
}


def prepared(case: Case) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Each owner's standardised inputs, the label, and who has it."""
    from vertical.encoding import fit

    data = load(case.data)
    y = data.y
    if case.label is not None:
        file = FOLDER / f"{CUTS[case.data].file}.parquet"
        rows = duckdb.read_parquet(str(file)).filter(f'"{CUTS[case.data].label}" is not null')
        y = np.asarray(rows.project(f'"{case.label}" as y').fetchnumpy()["y"], dtype=np.float64)
    if case.cuts:
        y = np.digitize(y, case.cuts).astype(np.float64)
    everything = np.ones(len(y), dtype=bool)
    blocks = []
    for columns, features in zip(data.columns, data.features, strict=True):
        kept = [f for f in features if f.column != case.label]
        encoder = fit(columns, kept, everything, winsorise_sd=WINSORISE_SD, rare_category=RARE_CATEGORY)
        blocks.append(encoder.transform(columns))
    return blocks, y, data.active


def trained(session: Any, case: Case, inputs: np.ndarray, y: np.ndarray | None) -> dict[str, Any]:
    """One owner's part of the case's model."""
    from vertical import glm, linear, multinomial, sparse

    if case.model == "linear":
        return linear.train(session, inputs, y, linear.Settings()).document()
    if case.model == "multinomial":
        return multinomial.train(session, inputs, y, multinomial.Settings(passes=case.passes)).document()
    if case.model == "lasso":
        return sparse.train(session, inputs, y, sparse.Settings("logistic", PENALTY)).document()
    settings = glm.Settings(family=case.model, power=POWER, passes=case.passes)
    return glm.train(session, inputs, y, settings).document()


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.dealer import Correlations, run_dealer
    from mpc.engine import bind
    from mpc.kinds import warm_up
    from mpc.session import Session

    me, case = order["me"], CASES[order["case"]]
    index = OWNERS.index(me) if me in OWNERS else -1
    blocks, y, active = prepared(case)
    warm_up()
    channel = connect(order)
    start, model = time.perf_counter(), None
    if index < 0:
        run_dealer(channel, OWNERS)
    else:
        session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
        with bind(session):
            model = trained(session, case, blocks[index], y if index == active else None)
        session.correlations.close()
    return {
        "seconds": time.perf_counter() - start,
        "bytes_sent": dict(channel.bytes_sent),
        "rounds": channel.rounds,
        "model": model,
    }


def measure(name: str, network: str | None) -> dict[str, Any]:
    """The secure run beside the reference in the clear."""
    case = CASES[name]
    blocks, y, _ = prepared(case)
    out = run_processes("benchmarks.glm_families", {"case": name}, network)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = plain(case, np.hstack(blocks), y)
    plain_seconds = time.perf_counter() - start
    models = [_model(case).from_document(out[owner]["model"]) for owner in OWNERS]
    weights = np.concatenate([m.weights for m in models])
    ours = reference.measure(sum(m.part(b) for m, b in zip(models, blocks, strict=True)), weights)
    errors = None
    if reference.errors is not None:
        found = np.concatenate([m.inference.errors for m in models])
        errors = float(np.nanmax(np.abs(found / reference.errors - 1)))
    sent = [sum(v for k, v in out[owner]["bytes_sent"].items() if k != "dealer") / 1e6 for owner in OWNERS]
    return {
        "case": name,
        "rows": len(y),
        "inputs": len(weights) + 1,
        "deviance": ours,
        "excess": ours / reference.best - 1,
        "largest_error_difference": errors,
        "seconds": max(out[p]["seconds"] for p in (*OWNERS, "dealer")),
        "plain_seconds": plain_seconds,
        "mb_between_owners": sum(sent),
        "mb_from_dealer": sum(out["dealer"]["bytes_sent"].values()) / 1e6,
        "rounds": out[OWNERS[0]]["rounds"],
    }


def _model(case: Case) -> Any:
    from vertical import glm, linear, multinomial

    return {"linear": linear.Fitted, "multinomial": multinomial.Fitted}.get(case.model, glm.Fitted)


@dataclass(frozen=True)
class Reference:
    """measure: what is compared, of linear predictors and weights.  best: its value for the reference.  errors: of weights."""

    measure: Any
    best: float
    errors: np.ndarray | None = None


def plain(case: Case, X: np.ndarray, y: np.ndarray) -> Reference:
    """The same model in the clear."""
    import statsmodels.api as sm
    from sklearn.linear_model import LogisticRegression

    n = len(y)
    if case.model == "multinomial":

        def deviance(eta: np.ndarray, _weights: np.ndarray) -> float:
            top = eta.max(axis=1, keepdims=True)
            logs = np.log(np.exp(eta - top).sum(axis=1)) + top[:, 0]
            return float(2 * (logs - eta[np.arange(n), y.astype(int)]).sum())

        softmax = LogisticRegression(tol=1e-8, max_iter=5000).fit(X, y)
        return Reference(deviance, deviance(softmax.decision_function(X), softmax.coef_))
    if case.model == "lasso":

        def objective(eta: np.ndarray, weights: np.ndarray) -> float:
            return float((np.logaddexp(0, eta) - y * eta).mean() + PENALTY * np.abs(weights).sum())

        lasso = LogisticRegression(
            penalty="elasticnet", l1_ratio=1.0, C=1 / (PENALTY * n), solver="saga", tol=1e-6, max_iter=5000
        ).fit(X, y)
        return Reference(objective, objective(lasso.decision_function(X), lasso.coef_[0]))
    design = sm.add_constant(X)
    if case.model == "linear":
        squares = sm.OLS(y, design).fit()
        return Reference(lambda eta, _weights: float(((y - eta) ** 2).sum()), squares.ssr, squares.bse[1:])
    log = sm.families.links.Log()
    families = {
        "poisson": sm.families.Poisson(),
        "gamma": sm.families.Gamma(log),
        "tweedie": sm.families.Tweedie(var_power=POWER, link=log),
    }
    family = families[case.model]
    fitted = sm.GLM(y, design, family=family).fit()
    return Reference(
        lambda eta, _weights: float(family.deviance(y, np.exp(eta))), float(fitted.deviance), fitted.bse[1:]
    )


def show(results: list[dict[str, Any]]) -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Generalised linear models: two owners and a dealer")
    for head in (
        "case",
        "rows",
        "inputs",
        "deviance above",
        "SE differs",
        "seconds",
        "plain s",
        "MB owners",
        "MB dealer",
    ):
        table.add_column(head, justify="left" if head == "case" else "right")
    table.add_column("rounds", justify="right")
    for r in results:
        errors = r["largest_error_difference"]
        table.add_row(
            r["case"],
            f"{r['rows']:,}",
            str(r["inputs"]),
            f"{r['excess']:+.5%}",
            "-" if errors is None else f"{errors:.3%}",
            f"{r['seconds']:.2f}",
            f"{r['plain_seconds']:.2f}",
            f"{r['mb_between_owners']:.1f}",
            f"{r['mb_from_dealer']:.1f}",
            str(r["rounds"]),
        )
    Console(width=150).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--network", help="round trip and rate; default: straight over loopback")
    parser.add_argument("--json", action="store_true", help="print one JSON document per case")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    results = [measure(name, arguments.network) for name in arguments.case]
    for result in results if arguments.json else ():
        print(json.dumps(result))
    if not arguments.json:
        show(results)


if __name__ == "__main__":
    main()
