"""Train boosted trees over two owners' columns: three processes, real TLS on loopback, beside XGBoost on the same bins.

    python -m benchmarks.trees [--sizes small large] [--rows N --columns D --bins B --trees T --depth L] [--data adult ...]
                               [--routing hidden|revealed] [--no-xgboost] [--json]
                               [--network lan|10ms-100mbit|50ms-20mbit]

small: 10,000 x 20, 10 trees of depth 4; large: 100,000 x 40, 20 trees of depth 5; 32 bins, half of the columns at each owner,
synthetic data with 20,000 rows more that are held out.  With --data real data sets instead, cut by columns, of whose rows
30 % are held out.

Reported are the seconds from the first byte of the set-up to the last tree (links and processes up, kernels loaded), the
seconds between the first tree and the last over the trees between them, the seconds to score the rows held out, the AUC on
them of our model and of XGBoost's, megabytes that every party sent, rounds and each process's peak memory.  XGBoost is
installed with pip into `.bench/xgboost` the first time, trains on one thread, and is given the bins.
"""

from __future__ import annotations

import argparse
import base64
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parties import NAMES, OWNERS, connect, run_processes
from benchmarks.peers import ROOT, Unavailable, environment
from benchmarks.shaping import NETWORKS

SIZES = {
    "small": {"rows": 10_000, "columns": 20, "bins": 32, "trees": 10, "depth": 4},
    "large": {"rows": 100_000, "columns": 40, "bins": 32, "trees": 20, "depth": 5},
}
HELD_OUT = 20_000
XGBOOST = ("xgboost-cpu==3.2.0", "numpy==2.4.6")


def data(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of which most matter, in clusters, and labels of which a few are wrong; the hold-out comes last."""
    from sklearn.datasets import make_classification

    X, y = make_classification(
        rows + HELD_OUT,
        columns,
        n_informative=columns * 5 // 8,
        n_redundant=columns // 8,
        n_clusters_per_class=8,
        flip_y=0.03,
        random_state=3,
    )
    return X, y.astype(np.float64)


@dataclass(frozen=True)
class Problem:
    """Every owner's columns as bins, fitted on the rows of `train`; labels; and the index of their owner."""

    blocks: tuple[Any, ...]
    y: np.ndarray
    train: np.ndarray
    active: int


def problem(order: dict[str, Any]) -> Problem:
    """What an order is about: synthetic data, or a real data set cut by columns, of which 30 % are held out."""
    from benchmarks.datasets import load
    from vertical.binning import Binner
    from vertical.encoding import Feature

    if order["data"] is None:
        X, y = data(order["rows"], order["columns"])
        half, active = order["columns"] // 2, 0
        train = np.arange(len(y)) < order["rows"]
        owned = [{f"x{i}": X[:, i] for i in part} for part in np.split(np.arange(X.shape[1]), [half])]
        wanted = [[Feature(name, "number") for name in columns] for columns in owned]
    else:
        real = load(order["data"])
        y, active = real.y, real.active
        train = np.random.default_rng(5).random(len(y)) < 0.7
        owned, wanted = list(real.columns), list(real.features)
    binners = [
        Binner.fit(columns, features, train, order["bins"], rare_category=20)
        for columns, features in zip(owned, wanted, strict=True)
    ]
    blocks = tuple(binner.transform(columns) for binner, columns in zip(binners, owned, strict=True))
    return Problem(blocks, y, train, active)


def share_of(order: dict[str, Any], index: int | None) -> tuple[Any, Any, np.ndarray | None]:
    """One owner's training rows, hold-out and, at one owner, labels."""
    if index is None:
        return None, None, None
    all_of_it = problem(order)
    own, train = all_of_it.blocks[index], all_of_it.train
    return own.take(train), own.take(~train), all_of_it.y[train] if index == all_of_it.active else None


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.dealer import Correlations, run_dealer
    from mpc.engine import bind
    from mpc.kinds import warm_up
    from mpc.session import Session
    from vertical.trees import histogram
    from vertical.trees.predict import scores
    from vertical.trees.settings import Settings
    from vertical.trees.train import train

    me = order["me"]
    index = None if me == "dealer" else OWNERS.index(me)
    rows, held, y = share_of(order, index)
    warm_up()
    histogram.warm_up()
    channel = connect(order)
    cpu, start = time.process_time(), time.perf_counter()
    report: dict[str, Any] = {}
    if index is None:
        run_dealer(channel, OWNERS)
    else:
        session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
        settings = Settings(trees=order["trees"], depth=order["depth"], routing=order["routing"])
        ticks: list[float] = []
        with bind(session):
            fitted = train(session, rows, y, settings, lambda _done, _all: ticks.append(time.perf_counter()))
            report = {
                "seconds": time.perf_counter() - start,
                "per_tree": (ticks[-1] - ticks[0]) / max(1, len(ticks) - 1),
                "bytes_sent": dict(channel.bytes_sent),
                "rounds": channel.rounds,
                "train_cpu_seconds": time.process_time() - cpu,
                "train_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
            before = time.perf_counter()
            found = scores(session, fitted, held)
            report["score_seconds"] = time.perf_counter() - before
        session.correlations.close()
        report |= {"words": base64.b64encode(found.words.tobytes()).decode(), "frac_bits": found.frac_bits}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    dealt = {"bytes_sent": dict(channel.bytes_sent)} if index is None else {}
    return report | dealt | {"cpu_seconds": time.process_time() - cpu, "peak_mib": peak}


def xgboost(order: dict[str, Any]) -> dict[str, Any]:
    """XGBoost's seconds and AUC on the same bins.  Raises: Unavailable if it cannot be installed."""
    from sklearn.metrics import roc_auc_score

    python = environment("xgboost", XGBOOST)
    given = problem(order)
    table, y, train = np.concatenate([block.codes for block in given.blocks], axis=1), given.y, given.train
    settings = {
        "trees": order["trees"],
        "max_depth": order["depth"],
        "max_bin": 256,
        "tree_method": "hist",
        "objective": "binary:logistic",
        "eta": 0.3,
        "lambda": 1.0,
        "nthread": 1,
        "verbosity": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("train", table[train]), ("test", table[~train]), ("label", y[train])):
            np.save(Path(folder) / f"{name}.npy", array.astype(np.float32))
        command = [str(python), str(ROOT / "benchmarks" / "peer_xgboost.py"), folder, json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        margins = np.load(Path(folder) / "margins.npy")
    report: dict[str, Any] = json.loads(done.stdout)
    return report | {"auc": float(roc_auc_score(y[~train], margins))}


def measure(order: dict[str, Any], network: str | None, *, beside: bool) -> dict[str, Any]:
    """One run, and XGBoost beside it."""
    from sklearn.metrics import roc_auc_score

    result = run_processes("benchmarks.trees", order, network)
    given = problem(order)
    words = [np.frombuffer(base64.b64decode(result[n]["words"]), dtype=np.uint64) for n in OWNERS]
    margins = np.add.reduce(words).view(np.int64) * 2.0 ** -result["a"]["frac_bits"]
    out = dict(order)
    out |= {key: max(result[n][key] for n in OWNERS) for key in ("seconds", "per_tree", "score_seconds", "rounds")}
    out |= {
        "cpu_seconds": {n: result[n]["cpu_seconds"] for n in NAMES},
        "mb_sent": {n: sum(result[n]["bytes_sent"].values()) / 1e6 for n in NAMES},
        "peak_mib": {n: result[n]["peak_mib"] for n in NAMES},
        "auc": float(roc_auc_score(given.y[~given.train], margins)),
        "rows": int(given.train.sum()),
        "held_out": int((~given.train).sum()),
        "columns": sum(len(block.names) for block in given.blocks),
        "network": network,
    }
    try:
        out["xgboost"] = xgboost(order) if beside else None
    except Unavailable as why:
        out["xgboost"] = {"unavailable": str(why)}
    return out


def show(result: dict[str, Any]) -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table

    size = f"{result['rows']:,} rows x {result['columns']} columns, {result['bins']} bins"
    trees = f"{result['trees']} trees of depth {result['depth']}, routing {result['routing']}"
    table = Table(title=f"{result['data'] or 'synthetic'}: {size}, {trees}")
    for column in ("party", "MB sent", "CPU s", "peak MiB"):
        table.add_column(column, justify="left" if column == "party" else "right")
    for name in NAMES:
        sent, cpu, peak = (result[key][name] for key in ("mb_sent", "cpu_seconds", "peak_mib"))
        table.add_row(name, f"{sent:.1f}", f"{cpu:.1f}", str(peak))
    console = Console()
    console.print(table)
    console.print(
        f"{result['seconds']:.2f} s in all, {result['per_tree']:.2f} s a tree, {result['rounds']} rounds; "
        f"{result['held_out']:,} rows scored in {result['score_seconds']:.2f} s; AUC on them {result['auc']:.5f}"
    )
    beside = result["xgboost"]
    if beside and "auc" in beside:
        console.print(
            f"XGBoost {beside['version']} on the same bins: {beside['seconds']:.2f} s, AUC {beside['auc']:.5f}"
        )
    elif beside:
        console.print(f"XGBoost: {beside['unavailable']}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    for name in ("rows", "columns", "bins", "trees", "depth"):
        parser.add_argument(f"--{name}", type=int, help="instead of the size's own")
    parser.add_argument(
        "--data", nargs="+", help="real data sets of 0/1 labels (benchmarks.datasets), not synthetic ones"
    )
    parser.add_argument("--routing", choices=["hidden", "revealed"], default="hidden")
    parser.add_argument("--no-xgboost", action="store_true", help="without the peer")
    parser.add_argument(
        "--network", choices=list(NETWORKS), help="round trip and rate; default: straight over loopback"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document per size")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    for size in arguments.sizes:
        own = {name: getattr(arguments, name) for name in SIZES[size] if getattr(arguments, name) is not None}
        order = SIZES[size] | own | {"routing": arguments.routing}
        for name in arguments.data or [None]:
            result = measure(order | {"data": name}, arguments.network, beside=not arguments.no_xgboost)
            print(json.dumps(result)) if arguments.json else show(result)


if __name__ == "__main__":
    main()
