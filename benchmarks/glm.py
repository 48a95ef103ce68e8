"""Logistic regression with standard errors on real data, three processes over TLS, against statsmodels and scikit-learn.

    python -m benchmarks.glm [--data credit_default_taiwan adult hillstrom] [--network lan|10ms-100mbit|50ms-20mbit] [--json]

Both sides get the same standardised training rows (four fifths).  Reported are the largest difference of a coefficient in
standard errors, the largest relative difference of a standard error, how many decisions at 5 per cent are equal (of
coefficients whose p-value in statsmodels is not between 0.0495 and 0.0505, one per cent of the border), how many were reported
as not estimable instead, the difference of the AUC on held-out rows from scikit-learn's, seconds from the first byte to the
opened table, megabytes between the owners and from the dealer, and communication rounds.  Coefficients that are reported as
not estimable are left out of the differences, and statsmodels must not find them significant.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from typing import Any

import numpy as np

from benchmarks.parties import OWNERS, connect, run_processes

DATA = ("credit_default_taiwan", "adult", "hillstrom")
WINSORISE_SD, RARE_CATEGORY, HELD_OUT = 8, 100, 5
BORDER = (0.0495, 0.0505)


def prepared(name: str) -> tuple[list[np.ndarray], np.ndarray, int, np.ndarray, list[list[str]]]:
    """Each owner's standardised inputs, the label, who has it, which rows are held out, and the inputs' names."""
    from benchmarks.datasets import load
    from vertical.encoding import fit

    data = load(name)
    held = np.random.default_rng(5).permutation(len(data.y)) % HELD_OUT == 0
    blocks, names = [], []
    for columns, features in zip(data.columns, data.features, strict=True):
        encoder = fit(columns, features, ~held, winsorise_sd=WINSORISE_SD, rare_category=RARE_CATEGORY)
        blocks.append(encoder.transform(columns))
        names.append([i.name for i in encoder.inputs])
    return blocks, data.y, data.active, held, names


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.dealer import Correlations, run_dealer
    from mpc.engine import bind
    from mpc.kinds import warm_up
    from mpc.session import Session
    from vertical.glm import Settings, train

    me = order["me"]
    index = OWNERS.index(me) if me in OWNERS else -1
    blocks, y, active, held, _ = prepared(order["data"])
    warm_up()
    channel = connect(order)
    start, model = time.perf_counter(), None
    if index < 0:
        run_dealer(channel, OWNERS)
    else:
        session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
        with bind(session):
            settings = Settings(passes=order["passes"])
            model = train(session, blocks[index][~held], y[~held] if index == active else None, settings)
        session.correlations.close()
    return {
        "seconds": time.perf_counter() - start,
        "bytes_sent": dict(channel.bytes_sent),
        "rounds": channel.rounds,
        "model": None if model is None else model.document(),
    }


def measure(name: str, passes: int, network: str | None) -> dict[str, Any]:
    """The secure run beside statsmodels and scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    from vertical.glm import Fitted

    blocks, y, active, held, _ = prepared(name)
    out = run_processes("benchmarks.glm", {"data": name, "passes": passes}, network)
    models = [Fitted.from_document(out[owner]["model"]) for owner in OWNERS]
    X = np.hstack(blocks)
    plain = LogisticRegression(C=np.inf, tol=1e-8, max_iter=5000).fit(X[~held], y[~held])
    score = sum(m.part(b[held]) for m, b in zip(models, blocks, strict=True))
    auc = float(roc_auc_score(y[held], score))
    sent = [sum(v for k, v in out[owner]["bytes_sent"].items() if k != "dealer") / 1e6 for owner in OWNERS]
    return {
        "data": name,
        "rows": int((~held).sum()),
        **compared(models, active, X[~held], y[~held]),
        "auc": auc,
        "auc_difference": auc - float(roc_auc_score(y[held], plain.decision_function(X[held]))),
        "seconds": max(out[p]["seconds"] for p in (*OWNERS, "dealer")),
        "mb_between_owners": sum(sent),
        "mb_from_dealer": sum(out["dealer"]["bytes_sent"].values()) / 1e6,
        "rounds": out[OWNERS[0]]["rounds"],
    }


def compared(models: list[Any], active: int, X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """The models' coefficients, standard errors and decisions beside statsmodels'."""
    import statsmodels.api as sm
    from scipy.stats import norm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        design = np.column_stack([X, np.ones(len(X))])
        reference = sm.GLM(y, design, family=sm.families.Binomial()).fit(maxiter=200, tol=1e-12)
    coefficients = np.concatenate([*(m.weights for m in models), [models[active].intercept]])
    errors = np.concatenate([*(m.inference.errors for m in models), [models[active].inference.intercept_error]])
    usable = np.isfinite(errors)
    ours, theirs = 2 * norm.sf(np.abs(coefficients / errors)), reference.pvalues
    clear = usable & ((theirs < BORDER[0]) | (theirs > BORDER[1]))
    away = np.abs(coefficients - reference.params) / reference.bse
    return {
        "inputs": len(coefficients),
        "largest_difference_in_errors": float(away[usable].max()),
        "largest_error_difference": float(np.abs(errors / reference.bse - 1)[usable].max()),
        "decisions": int(clear.sum()),
        "equal_decisions": int(((ours < 0.05) == (theirs < 0.05))[clear].sum()),
        "not_estimable": int((~usable).sum()),
        "not_estimable_but_significant": int((theirs[~usable] < 0.05).sum()),
        "settled": all(m.inference.settled for m in models),
    }


def show(results: list[dict[str, Any]]) -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Logistic regression with standard errors: two owners and a dealer")
    heads = ("data", "rows", "inputs", "|b - b'|/SE", "SE differs", "decisions", "not est.", "AUC", "AUC - sklearn's")
    for head in (*heads, "seconds", "MB owners", "MB dealer", "rounds"):
        table.add_column(head, justify="left" if head == "data" else "right")
    for r in results:
        table.add_row(
            r["data"],
            f"{r['rows']:,}",
            str(r["inputs"]),
            f"{r['largest_difference_in_errors']:.4f}",
            f"{r['largest_error_difference']:.3%}",
            f"{r['equal_decisions']}/{r['decisions']}",
            str(r["not_estimable"]),
            f"{r['auc']:.4f}",
            f"{r['auc_difference']:+.5f}",
            f"{r['seconds']:.2f}",
            f"{r['mb_between_owners']:.1f}",
            f"{r['mb_from_dealer']:.1f}",
            str(r["rounds"]),
        )
    Console(width=150).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--data", nargs="+", default=list(DATA))
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--network", help="round trip and rate; default: straight over loopback")
    parser.add_argument("--json", action="store_true", help="print one JSON document per data set")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    results = [measure(name, arguments.passes, arguments.network) for name in arguments.data]
    for result in results if arguments.json else ():
        print(json.dumps(result))
    if not arguments.json:
        show(results)


if __name__ == "__main__":
    main()
