"""Train a neural network over two owners' columns of "adult": three processes, real TLS, beside PyTorch and CrypTen.

    python -m benchmarks.network [--epochs 10] [--rows N] [--batch 512] [--activation tanh|sigmoid|silu] [--batches 3]
                                 [--peers none|crypten] [--network lan|10ms-100mbit|50ms-20mbit] [--json]

The network is 64-32-1.  A third of the rows, chosen at random, is held out; the AUC on them is that of the clipped scores
which the owners hold in shares, put together here only.  PyTorch trains the same network in the clear: the same first
weights, batches, optimiser and epochs, in double precision.  Seconds are of an epoch, without the first one, which warms up
all caches; the check of ranges at its end is in it.  Two more rows have a few batches measured and say what an epoch of them
would take: the same network by CrypTen's autograd on our engine, and by stock CrypTen 0.4.1 (its own dealer, party 0, which
sees all masks; in an environment of its own, see benchmarks.peers).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.parties import OWNERS, connect, run_processes
from benchmarks.shaping import NETWORKS
from vertical.network import Settings, batches, first_weights, order, scores, train
from vertical.network_scales import WEIGHT_BITS

Order = dict[str, Any]
HIDDEN = (64, 32)


def data(rows: int | None) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Encoded columns of both owners, label and which rows are held out."""
    from benchmarks.datasets import load
    from vertical.encoding import fit

    adult = load("adult")
    rng = np.random.default_rng(20_11)
    if rows is not None:
        adult = adult.take(rng.permutation(len(adult.y))[:rows])
    held = rng.random(len(adult.y)) < 1 / 3
    owned = zip(adult.columns, adult.features, strict=True)
    inputs = [fit(c, f, ~held, winsorise_sd=8, rare_category=30).transform(c) for c, f in owned]
    return inputs, adult.y, held


def settings_of(order_: Order) -> Settings:
    """The network's settings."""
    return Settings(hidden=HIDDEN, activation=order_["activation"], epochs=order_["epochs"], batch=order_["batch"])


def party(order_: Order) -> Order:
    """One process's part, over inherited sockets."""
    from mpc.dealer import Correlations, run_dealer
    from mpc.engine import bind
    from mpc.kinds import warm_up
    from mpc.session import Session

    warm_up()
    me = order_["me"]
    inputs, y, held = data(order_["rows"]) if me != "dealer" else ([], np.empty(0), np.empty(0))
    channel = connect(order_)
    if me == "dealer":
        start = time.process_time()
        run_dealer(channel, OWNERS)
        return {"bytes_sent": sum(channel.bytes_sent.values()), "cpu_seconds": time.process_time() - start}
    index = OWNERS.index(me)
    session = Session(channel, OWNERS, index, Correlations(channel, "dealer", index, len(OWNERS)))
    with bind(session):
        if order_["mode"] == "autograd":
            out = autograd(session, inputs, y, held, order_)
        else:
            out = direct(session, inputs[index], y if index == 0 else None, held, order_)
    session.correlations.close()
    return out


def spent(channel: Any) -> tuple[float, float, int, int]:
    """Seconds, CPU seconds, bytes sent to the other owner and rounds, so far."""
    sent = sum(channel.bytes_sent[peer] for peer in channel.bytes_sent if peer != "dealer")
    return time.perf_counter(), time.process_time(), sent, channel.rounds


def direct(session: Any, X: np.ndarray, y: np.ndarray | None, held: np.ndarray, order_: Order) -> Order:
    """vertical.network: what every epoch took, and our share of the held-out rows' scores."""
    marks = [spent(session.channel)]
    fitted = train(
        session,
        X[~held],
        None if y is None else y[~held],
        settings_of(order_),
        lambda _done, _total: marks.append(spent(session.channel)),
    )
    before = spent(session.channel)
    scored = scores(session, fitted, X[held])
    took = [b - a for a, b in zip(before, spent(session.channel), strict=True)]
    epochs = [[b - a for a, b in zip(*pair, strict=True)] for pair in pairwise(marks)]
    return {"epochs": epochs, "scoring": took, "scores": base64.b64encode(scored.words.tobytes()).decode()}


def autograd(session: Any, inputs: list[np.ndarray], y: np.ndarray, held: np.ndarray, order_: Order) -> Order:
    """The same network by CrypTen's autograd on our engine: what each batch took."""
    import torch

    from mpc.engine import crypten

    settings, X = settings_of(order_), np.hstack(inputs)[~held]
    layers = [torch.nn.Linear(X.shape[1], HIDDEN[0]), torch.nn.Tanh(), torch.nn.Linear(*HIDDEN), torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN[1], 1))
    private = crypten.nn.from_pytorch(model, torch.zeros(1, X.shape[1]))
    private.encrypt(src=0)
    private.train()
    loss = crypten.nn.BCEWithLogitsLoss()
    optimiser = crypten.optim.SGD(private.parameters(), lr=settings.learning_rate, momentum=settings.momentum)
    took = []
    for rows in batches(settings, len(X))[: order_["batches"] + 1]:
        before = spent(session.channel)
        # Whoever owns them, the columns are shared: CrypTen has no product with a matrix that one party keeps.
        x = crypten.cryptensor(torch.tensor(X[rows], dtype=torch.float32), src=0)
        target = crypten.cryptensor(torch.tensor(y[~held][rows, None], dtype=torch.float32), src=0)
        optimiser.zero_grad()
        loss(private(x), target).backward()
        optimiser.step()
        took.append([b - a for a, b in zip(before, spent(session.channel), strict=True)])
    return {"epochs": took}


def in_the_clear(inputs: list[np.ndarray], y: np.ndarray, held: np.ndarray, settings: Settings) -> tuple[Any, float]:
    """The same network by PyTorch: scores of the held-out rows, and seconds of an epoch."""
    import torch

    from mpc.ring import decode

    torch.set_num_threads(1)
    X, t = torch.tensor(np.clip(np.hstack(inputs), -8, 8)), torch.tensor(y)
    shape = settings.shape([part.shape[1] for part in inputs])
    weights = [decode(w, WEIGHT_BITS) for w in shape.split(first_weights(settings, shape))]
    linear = [torch.tensor(part.copy(), requires_grad=True) for w in weights for part in (w[:-1], w[-1])]
    activation = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": torch.nn.functional.silu}[settings.activation]

    def forward(x: Any) -> Any:
        for i in range(0, len(linear), 2):
            x = (x if i == 0 else activation(x)) @ linear[i] + linear[i + 1]
        return x[:, 0]

    rates = {"lr": settings.learning_rate, "momentum": settings.momentum, "weight_decay": settings.weight_decay}
    optimiser, loss = torch.optim.SGD(linear, **rates), torch.nn.functional.binary_cross_entropy_with_logits
    mine, rest = X[torch.tensor(~held)], t[torch.tensor(~held)]
    cuts, took = batches(settings, len(rest)), []
    for epoch in range(settings.epochs):
        start = time.perf_counter()
        for b in order(settings, epoch, len(cuts)):
            optimiser.zero_grad()
            loss(forward(mine[cuts[b]]), rest[cuts[b]]).backward()
            optimiser.step()
        took.append(time.perf_counter() - start)
    return forward(X[torch.tensor(held)]).detach().numpy(), statistics.median(took)


def stock(width: int, settings: Settings, n_batches: int, timeout_s: float) -> Order:
    """What batches of the same network take by stock CrypTen, in its own environment; or why there are no figures."""
    try:
        python = peers.crypten_environment()
    except peers.Unavailable as reason:
        return {"note": str(reason)}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        order_ = {"folder": folder, "width": width, "hidden": HIDDEN, "batch": settings.batch, "batches": n_batches}
        quiet, out = os.environ | {"OMP_NUM_THREADS": "1"}, []
        for index in range(peers.PARTIES):
            errors = stack.enter_context((Path(folder) / f"stderr-{index}").open("w", encoding="utf-8"))
            command = [str(python), "-m", "benchmarks.peer_network", json.dumps(order_ | {"party": index})]
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": errors}
            out.append(stack.enter_context(subprocess.Popen(command, cwd=peers.ROOT, env=quiet, text=True, **pipes)))
            stack.callback(out[-1].kill)
        try:
            texts = [process.communicate(timeout=timeout_s)[0] for process in out]
        except subprocess.TimeoutExpired:
            return {"note": f"took longer than {timeout_s:.0f} s"}
        if any(process.returncode for process in out):
            return {"note": peers.last_line((Path(folder) / "stderr-0").read_text(errors="replace"))}
    found: Order = json.loads(texts[0].splitlines()[-1])
    return found


def line(label: str, per_epoch: list[list[float]], times: float) -> Order:
    """A row of the table: medians of what was measured, `times` over."""
    seconds, cpu, sent, rounds = (statistics.median(column) * times for column in zip(*per_epoch, strict=True))
    return {"label": label, "seconds": seconds, "cpu_seconds": cpu, "mb": sent / 1e6, "rounds": rounds}


def measure(arguments: argparse.Namespace) -> Order:
    """All of it."""
    from sklearn.metrics import roc_auc_score

    order_ = {name: getattr(arguments, name) for name in ("rows", "epochs", "batch", "activation", "batches")}
    inputs, y, held = data(arguments.rows)
    settings = settings_of(order_)
    steps = len(batches(settings, int((~held).sum())))
    run = run_processes("benchmarks.network", order_ | {"mode": "direct"}, arguments.network)
    total = sum(np.frombuffer(base64.b64decode(run[name]["scores"]), dtype=np.uint64) for name in OWNERS)
    plain, seconds = in_the_clear(inputs, y, held, settings)
    lines = [line("vertical.network", run["a"]["epochs"][1:] or run["a"]["epochs"], 1)]
    lines[0]["dealer_mb"] = run["dealer"]["bytes_sent"] / 1e6 / settings.epochs
    lines[0]["dealer_cpu_seconds"] = run["dealer"]["cpu_seconds"] / settings.epochs
    lines.append({"label": "PyTorch in the clear", "seconds": seconds})
    if arguments.batches:
        other = run_processes("benchmarks.network", order_ | {"mode": "autograd", "epochs": 1}, arguments.network)
        lines.append(line("CrypTen's autograd on this engine", other["a"]["epochs"][1:], steps))
        lines[-1]["dealer_mb"] = other["dealer"]["bytes_sent"] / 1e6 / (arguments.batches + 1) * steps
    if arguments.batches and arguments.peers == "crypten":
        found = stock(sum(part.shape[1] for part in inputs), settings, arguments.batches, arguments.timeout)
        label = "stock CrypTen 0.4.1"
        lines.append(line(label, found["turns"], steps) if "turns" in found else {"label": label, **found})
    return {
        "rows": int((~held).sum()),
        "inputs": [part.shape[1] for part in inputs],
        "epochs": settings.epochs,
        "batches": steps,
        "activation": settings.activation,
        "auc": float(roc_auc_score(y[held], total.view(np.int64))),
        "pytorch_auc": float(roc_auc_score(y[held], plain)),
        "scoring_seconds": run["a"]["scoring"][0],
        "scored_rows": int(held.sum()),
        "lines": lines,
    }


def show(result: Order) -> None:
    """A table for people."""
    from rich.console import Console
    from rich.table import Table

    title = f"{result['rows']:,} rows x {'+'.join(map(str, result['inputs']))} inputs, 64-32-1, {result['activation']}"
    table = Table(title=f"{title}; one epoch of {result['batches']} batches")
    names = ("", "seconds", "owner's CPU s", "MB to the other owner", "rounds", "dealer MB", "note")
    for name in names:
        table.add_column(name, justify="right" if name else "left")
    keys = ("seconds", "cpu_seconds", "mb", "rounds", "dealer_mb")
    for row in result["lines"]:
        cells = [f"{row[key]:,.2f}" if key in row else "-" for key in keys]
        table.add_row(row["label"], *cells, row.get("note", ""))
    console = Console()
    console.print(table)
    console.print(
        f"AUC on {result['scored_rows']:,} held-out rows after {result['epochs']} epochs: {result['auc']:.4f}, PyTorch "
        f"{result['pytorch_auc']:.4f}; they were scored in {result['scoring_seconds']:.2f} s"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help="of the data set; default: all 48,842")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--activation", choices=("tanh", "sigmoid", "silu"), default="tanh")
    parser.add_argument("--batches", type=int, default=3, help="measured by CrypTen; 0: none")
    parser.add_argument("--peers", choices=("none", "crypten"), default="crypten")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for stock CrypTen")
    parser.add_argument("--network", choices=list(NETWORKS), help="between our processes; default: loopback")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    if arguments.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    result = measure(arguments)
    print(json.dumps(result)) if arguments.json else show(result)


if __name__ == "__main__":
    main()
