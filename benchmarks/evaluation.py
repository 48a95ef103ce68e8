"""Evaluate scores that nobody sees, on real data: three processes, real TLS on loopback, against the plain computation.

    python -m benchmarks.evaluation [--data adult ...] [--rows N] [--thresholds K] [--repeat 3] [--json]
                                    [--network lan|10ms-100mbit|50ms-20mbit]

For each data set a logistic regression is fitted in the clear on both owners' columns and 70 % of the rows; each owner keeps
its part of the score of the other 30 %.  The owners then evaluate the sum of their parts: all figures, 20 points of the
curves, three thresholds, and where there is a column to split by, figures by group.  What they get is compared with
scikit-learn and NumPy on the same rows: AUC and KS by scikit-learn and by its curve, tables by sorting.  "equal" counts
printed numbers that are the same, character by character.  Seconds are from the first message to the finished report, links
and processes already up and kernels loaded: the median of the repeats; bytes are of frames that every party sent.

`--rows N` evaluates N rows drawn with replacement instead, and `--thresholds K` that many thresholds, for the time it takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parties import NAMES, OWNERS, connect, run_processes
from benchmarks.shaping import NETWORKS

SETS = ("adult", "credit_default_taiwan", "hillstrom", "fraud", "heart", "obp_clicks")
GROUPS = {"adult": "gender", "credit_default_taiwan": "SEX", "hillstrom": "channel", "fraud": "provider"}
THRESHOLDS = ("0.5", "0.1", "0.25")
BOUND = 32.0
BITS = 24
SALT = bytes(range(16))


def parts_of(name: str, rows: int | None) -> dict[str, Any]:
    """Each owner's part of the held-out rows' scores, the labels, and the column to split by."""
    from sklearn.linear_model import LogisticRegression

    from benchmarks.datasets import load
    from vertical.encoding import fit
    from vertical.split import holdout

    data = load(name)
    held = holdout([b"%d" % i for i in range(len(data.y))], SALT, 30)
    blocks = []
    for columns, features in zip(data.columns, data.features, strict=True):
        encoder = fit(columns, features, ~held, winsorise_sd=8, rare_category=20)
        blocks.append(encoder.transform(columns))
    X = np.hstack(blocks)
    model = LogisticRegression(C=1.0, max_iter=2000).fit(X[~held], data.y[~held])
    cut = blocks[0].shape[1]
    weights = (model.coef_[0][:cut], model.coef_[0][cut:])
    parts = [block[held] @ w for block, w in zip(blocks, weights, strict=True)]
    parts[data.active] += model.intercept_[0]
    out: dict[str, Any] = {"parts": np.stack(parts), "y": data.y[held], "active": data.active}
    column = GROUPS.get(name)
    if column is not None:
        owner = next(i for i, columns in enumerate(data.columns) if column in columns)
        values = data.columns[owner][column][held]
        out |= {"owner": owner, "group": np.array(["(missing)" if v is None else str(v) for v in values])}
    if rows is not None:
        drawn = np.random.default_rng(7).integers(0, len(out["y"]), rows)
        out |= {"parts": out["parts"][:, drawn], "y": out["y"][drawn]}
        out |= {"group": out["group"][drawn]} if "group" in out else {}
    return out


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.dealer import Correlations, run_dealer
    from mpc.engine import bind
    from mpc.kinds import warm_up
    from mpc.session import Session
    from vertical.metrics import Group, Settings, evaluate
    from vertical.scores import Scores

    me = order["me"]
    warm_up()
    figures: dict[str, Any] = {}
    index = OWNERS.index(me) if me in OWNERS else 0
    given = dict(np.load(order["file"])) if me in OWNERS else {}
    channel = connect(order)
    cpu, start = time.process_time(), time.perf_counter()
    if me == "dealer":
        run_dealer(channel, OWNERS)
    else:
        active = int(given["active"])
        groups = []
        if "group" in given:
            own = given["group"].astype(object) if int(given["owner"]) == index else None
            groups = [Group(order["column"], int(given["owner"]), own)]
        session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
        scores = Scores.of_part(given["parts"][index], BOUND, len(OWNERS))
        y = given["y"] if index == active else None
        with bind(session):
            figures = evaluate(session, scores, y, active, Settings(thresholds=tuple(order["thresholds"])), groups)
        session.correlations.close()
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "bytes_sent": sum(channel.bytes_sent.values()),
        "rounds": channel.rounds,
        "figures": figures,
    }


def plain(given: dict[str, Any], bins: int, thresholds: tuple[str, ...]) -> dict[str, Any]:
    """The same figures in the clear, from the same fixed-point scores."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score, roc_curve

    words = sum(np.rint(np.clip(p, -BOUND / 2, BOUND / 2) * 2**BITS).astype(np.int64) for p in given["parts"])
    z, y, n = words / 2**BITS, given["y"], len(given["y"])
    p = 1 / (1 + np.exp(-np.clip(z, -16, 16)))
    fpr, tpr, _ = roc_curve(y, words, drop_intermediate=False)
    order = np.argsort(-words, kind="stable")
    pieces = [order[b * n // bins : (b + 1) * n // bins] for b in range(bins)]
    gains, calibration, seen = [], [], 0.0
    for piece in pieces:
        seen += y[piece].sum()
        rate = y[piece].mean()
        gains.append([f"{int(y[piece].sum())}", f"{rate:.4f}", f"{rate / y.mean():.4f}", f"{seen / y.sum():.4f}"])
        calibration.append([f"{p[piece].mean():.4f}", f"{rate:.4f}"])
    confusion = []
    for text in thresholds:
        chosen = words >= round(np.log(float(text) / (1 - float(text))) * 2**BITS)
        confusion.append([int((chosen & (y == 1)).sum()), int((chosen & (y == 0)).sum())])
    return {
        "auc": [f"{roc_auc_score(y, words):.4f}"],
        "ks": [f"{np.abs(tpr - fpr).max():.4f}"],
        "gains": gains,
        "calibration": calibration,
        "confusion": confusion,
        "loss": [f"{log_loss(y, p):.4f}", f"{brier_score_loss(y, p):.4f}", f"{p.mean():.4f}"],
        "groups": _plain_groups(given, words, p),
        "real_auc": roc_auc_score(y, given["parts"].sum(axis=0)),
    }


def _plain_groups(given: dict[str, Any], words: np.ndarray, p: np.ndarray) -> list[list[str]]:
    from sklearn.metrics import roc_auc_score

    out = []
    names, counts = np.unique(given.get("group", np.array([])), return_counts=True)
    for _, name in sorted(zip(-counts, names, strict=True)):
        rows = given["group"] == name
        y, chosen = given["y"][rows], words[rows] >= 0
        if min(y.sum(), len(y) - y.sum()) >= 10:
            hits = f"{(chosen & (y == 1)).sum() / y.sum():.4f}"
            area = f"{roc_auc_score(y, words[rows]):.4f}"
            out.append([str(name), f"{chosen.mean():.4f}", hits, f"{p[rows].mean():.4f}", area])
    return out


def printed(figures: dict[str, Any]) -> dict[str, Any]:
    """The secure figures in the order of `plain`."""
    loss = figures["loss"]
    table = figures["groups"][0]["table"] if figures["groups"] else []
    keys = ("group", "selection_rate", "true_positive_rate", "mean_prediction", "auc")
    return {
        "auc": [figures["auc"]],
        "ks": [figures["ks"]],
        "gains": [[f"{g['outcome']}", g["rate"], g["lift"], g["gain"]] for g in figures["gains"]],
        "calibration": [[c["predicted"], c["observed"]] for c in figures["calibration"]],
        "confusion": [[c["true_positives"], c["false_positives"]] for c in figures["confusion"]],
        "loss": [loss["log_loss"], loss["brier"], loss["mean_prediction"]],
        "groups": [[row[key] for key in keys] for row in table if not row["group"].startswith("(small")],
    }


def measure(
    name: str, rows: int | None, thresholds: tuple[str, ...], repeat: int, network: str | None
) -> dict[str, Any]:
    """One data set: figures of both sides, and what the secure side took."""
    given = parts_of(name, rows)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "parts.npz"
        np.savez(file, **given)
        order = {"file": str(file), "column": GROUPS.get(name, ""), "thresholds": thresholds}
        runs = [run_processes("benchmarks.evaluation", order, network) for _ in range(repeat)]
    figures = runs[0]["a"]["figures"]
    assert all(run[owner]["figures"] == figures for run in runs for owner in OWNERS), "reports differ"
    clear, ours = plain(given, len(figures["gains"]), thresholds), printed(figures)
    equal = {}
    for key, value in ours.items():
        mine, theirs = (np.array(v, dtype=object).reshape(-1).tolist() for v in (value, clear[key]))
        assert len(mine) == len(theirs), f"{key}: {mine} and {theirs}"
        same = sum(str(a) == str(b) for a, b in zip(mine, theirs, strict=True))
        equal[key] = [same, len(mine)]
    return {
        "data": name,
        "rows": len(given["y"]),
        "positives": int(given["y"].sum()),
        "spread": float(given["parts"].sum(axis=0).std()),
        "auc": figures["auc"],
        "auc_error": abs(float(figures["auc"]) - clear["real_auc"]),
        "ks": figures["ks"],
        "equal": equal,
        "seconds": statistics.median(max(run[n]["seconds"] for n in NAMES) for run in runs),
        "cpu_seconds": statistics.median(sum(run[n]["cpu_seconds"] for n in NAMES) for run in runs),
        "mb_sent": {n: runs[0][n]["bytes_sent"] / 1e6 for n in NAMES},
        "rounds": runs[0]["a"]["rounds"],
    }


def show(lines: list[dict[str, Any]]) -> None:
    """A table for people."""
    print(
        f"{'data':22} {'rows':>7} {'AUC':>6} {'|error|':>8} {'KS':>6}  equal: ks lift calib. confus. loss groups",
        end="",
    )
    print(f" {'s':>6} {'CPU s':>6} {'MB a':>6} {'b':>6} {'dealer':>7} {'rounds':>6}")
    for line in lines:
        cells = [
            "/".join(map(str, line["equal"][k])) for k in ("ks", "gains", "calibration", "confusion", "loss", "groups")
        ]
        sent = line["mb_sent"]
        print(f"{line['data']:22} {line['rows']:7} {line['auc']:>6} {line['auc_error']:8.1e} {line['ks']:>6}", end="  ")
        print(" ".join(f"{cell:>7}" for cell in cells), end=" ")
        print(f"{line['seconds']:6.2f} {line['cpu_seconds']:6.2f} {sent['a']:6.1f} {sent['b']:6.1f}", end=" ")
        print(f"{sent['dealer']:7.1f} {line['rounds']:6}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--data", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--rows", type=int, help="evaluate so many rows, drawn with replacement")
    parser.add_argument("--thresholds", type=int, help="how many; the default are 0.5, 0.1 and 0.25")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--network", choices=list(NETWORKS), help="default: straight over loopback")
    parser.add_argument("--json", action="store_true", help="print one JSON document per data set")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    k = arguments.thresholds
    thresholds = THRESHOLDS if k is None else ("0.5", *(f"{i / (2 * k):g}" for i in range(1, k)))
    asked = (arguments.rows, thresholds, arguments.repeat, arguments.network)
    lines = [measure(name, *asked) for name in arguments.data]
    if arguments.json:
        for line in lines:
            print(json.dumps(line))
    else:
        show(lines)


if __name__ == "__main__":
    main()
