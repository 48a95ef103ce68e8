"""Train a logistic regression over two owners' columns: three processes, real TLS on loopback, against scikit-learn.

    python -m benchmarks.vertical_logistic [--rows 100000] [--columns 100 ...] [--passes N] [--repeat 3] [--json]
                                           [--inference] [--network lan|10ms-100mbit|50ms-20mbit]
                                           [--peers none|spu]

The data is synthetic.  Unless told how many, it makes the fewest passes (of 4, 6, 8, 12, 16, 24, 32, 48, 64) that bring the
AUC within 0.001 of scikit-learn's.  Reported are the medians over the repeats of the seconds from the first byte of the
set-up to the opened coefficients (links and processes already up, kernels loaded), CPU seconds of all three processes over
that span, frame bytes every party sent, communication rounds, and each process's peak memory.  "Per pass" bytes come from a
second run with fewer passes, so the set-up, which masks every owner's columns once, is told apart from what repeats.

With --network, `benchmarks.shaping` stands between every two processes: it says what its delays and rates mean.  Then
what the network alone takes is reported too: one delay for each round, and the busiest link's time for its bytes.

With --peers spu, SecretFlow SPU trains on the same rows beside it: `benchmarks.peer_spu_logistic` says how.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from typing import Any

import numpy as np

from benchmarks import peer_spu_logistic as spu
from benchmarks.parties import NAMES, OWNERS, connect, run_processes
from benchmarks.shaping import NETWORKS

PASSES = (4, 6, 8, 12, 16, 24, 32, 48, 64)
CLOSE = 1e-3


def data(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated columns and labels from a logistic model; half of the columns matter.  Standardised."""
    rng = np.random.default_rng(20_11)
    X = rng.normal(size=(rows, columns)) + 0.6 * rng.normal(size=(rows, 1))
    weights = np.where(np.arange(columns) % 2 == 0, rng.normal(0, 2 / np.sqrt(columns), columns), 0)
    y = (rng.random(rows) < 1 / (1 + np.exp(-(X @ weights - 0.5)))).astype(np.float64)
    return (X - X.mean(0)) / X.std(0), y


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets."""
    from mpc.dealer import Correlations, run_dealer
    from mpc.engine import bind
    from mpc.kinds import warm_up
    from mpc.session import Session
    from vertical.glm import Settings, train

    me = order["me"]
    X, y = data(order["rows"], order["columns"]) if me != "dealer" else (np.empty((0, 0)), np.empty(0))
    half = order["columns"] // 2
    warm_up()
    channel = connect(order)
    cpu, start = time.process_time(), time.perf_counter()
    weights: list[float] = []
    if me == "dealer":
        run_dealer(channel, OWNERS)
    else:
        index = OWNERS.index(me)
        session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
        block = X[:, :half] if index == 0 else X[:, half:]
        settings = Settings(
            ridge=1.0, passes=order["passes"], harmonics=order["harmonics"], inference=order["inference"]
        )
        with bind(session):
            fitted = train(session, block, y if index == 0 else None, settings)
        session.correlations.close()
        last = [] if fitted.intercept is None else [float(fitted.intercept)]
        weights = [*fitted.weights.tolist(), *last]
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "bytes_sent": dict(channel.bytes_sent),
        "rounds": channel.rounds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "weights": weights,
    }


def run(order: dict[str, Any], passes: int, network: str | None) -> dict[str, dict[str, Any]]:
    """One run of three processes, over `network` or straight over loopback."""
    return run_processes("benchmarks.vertical_logistic", order | {"passes": passes}, network)


def auc_of(result: dict[str, dict[str, Any]], X: np.ndarray, y: np.ndarray) -> float:
    """AUC on the training rows of the model that the owners hold together."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, X @ np.array([*result["a"]["weights"][:-1], *result["b"]["weights"]])))


def measure(order: dict[str, Any], passes: int | None, repeat: int, network: str | None) -> dict[str, Any]:
    """Medians of the secure run and of scikit-learn on the same rows.

    order: rows, columns, harmonics and inference, as the command line has them.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    rows, columns = order["rows"], order["columns"]
    X, y = data(rows, columns)
    plain, model = [], LogisticRegression(C=1.0, max_iter=1000)
    for _ in range(repeat):
        start = time.perf_counter()
        model.fit(X, y)
        plain.append(time.perf_counter() - start)
    target = float(roc_auc_score(y, model.decision_function(X)))
    for made in PASSES if passes is None else (passes,):
        last = run(order, made, network)
        if abs(auc_of(last, X, y) - target) < CLOSE:
            break
    runs = [last, *(run(order, made, network) for _ in range(repeat - 1))]
    fewer = made if order["inference"] else max(1, made // 2)  # with Newton steps fewer passes mean more steps
    short = last if order["inference"] else run(order, fewer, network)
    seconds = statistics.median(max(r[n]["seconds"] for n in NAMES) for r in runs)
    return {
        "rows": rows,
        "columns": columns,
        "passes": made,
        "seconds": seconds,
        "cpu_seconds": statistics.median(sum(r[n]["cpu_seconds"] for n in NAMES) for r in runs),
        "sklearn_seconds": statistics.median(plain),
        "ratio": seconds / statistics.median(plain),
        "auc": auc_of(last, X, y),
        "sklearn_auc": target,
        "rounds": last["a"]["rounds"],
        "peak_mib": {n: last[n]["peak_mib"] for n in NAMES},
        **traffic(last, short, made, fewer),
        "network": None if network is None else alone(network, last),
    }


def traffic(full: dict[str, Any], short: dict[str, Any], made: int, fewer: int) -> dict[str, dict[str, float]]:
    """Megabytes that each party sent in a run of `made` passes; one of `fewer` passes tells what repeats."""
    sent = {n: sum(full[n]["bytes_sent"].values()) / 1e6 for n in NAMES}
    per_pass = {n: (sent[n] - sum(short[n]["bytes_sent"].values()) / 1e6) / max(1, made - fewer) for n in NAMES}
    return {
        "mb_sent": sent,
        "mb_sent_per_pass": per_pass,
        "mb_sent_once": {n: sent[n] - per_pass[n] * made for n in NAMES},
    }


def alone(name: str, result: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the network would take if computing took nothing.

    A round in which both parties send at once takes one delay, not two, so that is all that is counted for it.
    """
    network = NETWORKS[name]
    links = {(p, q): sent for p in NAMES for q, sent in result[p]["bytes_sent"].items()}
    busiest = max(links, key=lambda link: links[link])
    return {
        "name": name,
        "delay_seconds": result["a"]["rounds"] * network.round_trip_s / 2,
        "busiest_link": list(busiest),
        "busiest_link_mb": links[busiest] / 1e6,
        "busiest_link_seconds": 0.0 if network.bytes_per_s is None else links[busiest] / network.bytes_per_s,
        "shaper_cpu_seconds": result["network"]["cpu_seconds"],
    }


def show(result: dict[str, Any]) -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table

    network = result["network"]
    title = f"{result['rows']:,} rows x {result['columns']} columns, {result['passes']} passes"
    table = Table(title=f"{title}, network: {network['name'] if network else 'loopback'}")
    for column in ("party", "MB sent", "of these once", "MB per pass", "peak MiB"):
        table.add_column(column, justify="left" if column == "party" else "right")
    for name in NAMES:
        sent, once, each = (result[key][name] for key in ("mb_sent", "mb_sent_once", "mb_sent_per_pass"))
        table.add_row(name, f"{sent:.2f}", f"{once:.2f}", f"{each:.3f}", str(result["peak_mib"][name]))
    console = Console()
    console.print(table)
    console.print(
        f"{result['seconds']:.2f} s for all three together ({result['cpu_seconds']:.2f} CPU s), {result['rounds']} rounds; "
        f"scikit-learn in the clear {result['sklearn_seconds']:.2f} s: ratio {result['ratio']:.1f}\n"
        f"AUC {result['auc']:.5f}, scikit-learn {result['sklearn_auc']:.5f}"
    )
    if network:
        console.print(
            f"The network alone: {network['delay_seconds']:.2f} s for a delay each round; "
            f"{network['busiest_link_seconds']:.2f} s for the {network['busiest_link_mb']:.2f} MB from "
            f"{' to '.join(network['busiest_link'])}, its busiest link"
        )
    if spu.NAME in result:
        console.print(spu.text(result[spu.NAME]), markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, nargs="+", default=[50, 100, 200], help="one table for each")
    parser.add_argument("--passes", type=int, help="passes over the rows; default: until the AUC is close")
    parser.add_argument("--harmonics", type=int, default=10)
    parser.add_argument("--inference", action="store_true", help="go on with Newton steps and standard errors")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--network", choices=list(NETWORKS), help="round trip and rate; default: straight over loopback"
    )
    parser.add_argument("--peers", choices=("none", spu.NAME), default="none", help="who trains beside ours")
    parser.add_argument("--json", action="store_true", help="print one JSON document per table")
    arguments = parser.parse_args()
    if arguments.network and arguments.peers != "none":
        parser.error("--network is for ours alone: with it, --peers none")
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    for columns in arguments.columns:
        order = {"rows": arguments.rows, "columns": columns, "harmonics": arguments.harmonics}
        order["inference"] = arguments.inference
        result = measure(order, arguments.passes, arguments.repeat, arguments.network)
        if arguments.peers == spu.NAME:
            result[spu.NAME] = spu.beside(result, *data(arguments.rows, columns), CLOSE)
        print(json.dumps(result)) if arguments.json else show(result)


if __name__ == "__main__":
    main()
