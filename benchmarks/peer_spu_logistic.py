"""SecretFlow SPU 0.9.5 trains a logistic regression: how its two parties are started here, and one of them in its environment.

It is the training of SPU's own example `ss_lr`, with its defaults: stochastic gradient descent over batches of 1,024 rows in
their order, the rate 0.1, no ridge, and the straight line 1/2 + z/4 in the sigmoid's place.  Rows that fill no batch are left
out.  `benchmarks.peer_spu` says how the parties run: SEMI2K, two processes on loopback.  Rows and labels are shared and the
program of an epoch is compiled before the clock starts.  After every epoch, off the clock, party 0 opens the coefficients
and takes their AUC.

A party reads its order as a line of JSON; party 0 prints one.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import PARTIES, ROOT, Unavailable, free_ports, last_line, say, spu_environment
from benchmarks.workload import Record

NAME = "spu"
PROTOCOL, BATCH, RATE = "SEMI2K", 1024, 0.1
FEWEST_EPOCHS = 3
EPOCHS_S = 60
"""No further epoch begins after so many seconds of them."""
TIMEOUT_S = 900
POLL_S = 0.1
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def auc(scores: np.ndarray, y: np.ndarray) -> float:
    """The share of pairs of a positive and a negative row that the scores put in order; scores that repeat are not expected."""
    ranks = np.empty(len(y))
    ranks[np.argsort(scores)] = np.arange(1, len(y) + 1)
    positive = int(y.sum())
    return float((ranks[y == 1].sum() - positive * (positive + 1) / 2) / (positive * (len(y) - positive)))


def summary(epochs: Sequence[Sequence[Sequence[float]]], aucs: Sequence[float], target: float, close: float) -> Record:
    """What an epoch takes, and how many until the AUC is close; the rest is None if it never is.

    epochs: of each one, seconds and CPU seconds of each party.
    """
    wall = [max(seconds for seconds, _ in each) for each in epochs]
    cpu = [sum(seconds for _, seconds in each) for each in epochs]
    needed = next((made for made, each in enumerate(aucs, 1) if abs(each - target) <= close), None)
    return {
        "protocol": PROTOCOL,
        "made": len(epochs),
        "seconds": statistics.median(wall),
        "cpu_seconds": statistics.median(cpu),
        "epochs": needed,
        "seconds_to_close": None if needed is None else sum(wall[:needed]),
        "cpu_seconds_to_close": None if needed is None else sum(cpu[:needed]),
        "auc": aucs[-1 if needed is None else needed - 1],
    }


# --- on our side


def beside(ours: Record, X: np.ndarray, y: np.ndarray, close: float) -> Record:
    """SPU's figures on the same rows, and ours over them; only a note why if there are none.

    ours: the seconds and CPU seconds of our whole training, and scikit-learn's AUC.
    """
    try:
        python = spu_environment()
        say(f"{NAME}: logistic regression")
        out = train(python, X, y, {"target": ours["sklearn_auc"], "close": close, "seconds": EPOCHS_S}, TIMEOUT_S)
    except Unavailable as reason:
        return {"note": str(reason)}
    ratios = {
        "epoch": ours["seconds"] / out["seconds"],
        "epoch_cpu": ours["cpu_seconds"] / out["cpu_seconds"],
        "close": None if out["epochs"] is None else ours["seconds"] / out["seconds_to_close"],
        "close_cpu": None if out["epochs"] is None else ours["cpu_seconds"] / out["cpu_seconds_to_close"],
    }
    return out | {"ratios": ratios}


def train(python: Path, X: np.ndarray, y: np.ndarray, order: dict[str, Any], timeout_s: float) -> Record:
    """Run both parties on these rows; party 0's record.

    Raises: Unavailable if a party fails, or they take longer than timeout_s.
    """
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        np.save(folder / "X.npy", X.astype(np.float32))
        np.save(folder / "y.npy", y.astype(np.float32))
        order = order | {"folder": name, "ports": free_ports(PARTIES), "protocol": PROTOCOL}
        logs = [folder / f"party-{party}" for party in range(PARTIES)]
        processes = []
        for party, log in enumerate(logs):
            out = stack.enter_context(log.open("w", encoding="utf-8"))
            process = stack.enter_context(
                subprocess.Popen(
                    [str(python), "-m", "benchmarks.peer_spu_logistic"],
                    cwd=ROOT,
                    env=os.environ | THREADS,
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            stack.callback(process.kill)  # before the wait at the end of the line above
            processes.append(process)
            assert process.stdin is not None
            # A party that is gone already says why below.
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(json.dumps(order | {"party": party}) + "\n")
        _wait(processes, logs, timeout_s)
        lines = logs[0].read_text(encoding="utf-8", errors="replace").splitlines()
    found: list[Record] = [json.loads(line) for line in lines if line.startswith('{"protocol"')]
    if not found:
        raise Unavailable("party 0 reported nothing")
    return found[-1]


def _wait(processes: Sequence[subprocess.Popen[str]], logs: Sequence[Path], timeout_s: float) -> None:
    """Wait for all; if one fails nobody waits for the other."""
    deadline = time.monotonic() + timeout_s
    while None in (ended := [process.poll() for process in processes]) and not any(ended):
        if time.monotonic() > deadline:
            raise Unavailable(f"took longer than {timeout_s:.0f} s")
        time.sleep(POLL_S)
    for party, code in enumerate(ended):
        if code:
            raise Unavailable(f"party {party} failed: {last_line(logs[party].read_text(errors='replace'))}")


def text(out: Record) -> str:
    """Its figures beside ours, for people."""
    if "note" in out:
        return f"{NAME}: {out['note']}"
    ratios, took = out["ratios"], f"{out['seconds']:.2f} s ({out['cpu_seconds']:.2f} CPU s)"
    each = f"{NAME}, an epoch: {took}, {out['mb']:.1f} MB sent under {out['protocol']}"
    ours = f"our whole training over one epoch: {ratios['epoch']:.2f} (CPU s {ratios['epoch_cpu']:.2f})"
    if out["epochs"] is None:
        return f"{each}\nAUC {out['auc']:.5f}, not close after {out['made']} epochs\n{ours}"
    whole = f"{out['seconds_to_close']:.2f} s ({out['cpu_seconds_to_close']:.2f} CPU s)"
    return (
        f"{each}\nAUC {out['auc']:.5f}, close after {out['epochs']} epochs: {whole}\n"
        f"{ours}, over those epochs: {ratios['close']:.2f} (CPU s {ratios['close_cpu']:.2f})"
    )


# --- in SPU's environment


def epoch(x: Any, y: Any, w: Any, b: Any) -> Any:
    """One pass over the batches, unrolled as the example does it."""
    size = min(BATCH, len(y))
    for start in range(0, len(y) - size + 1, size):
        rows = x[start : start + size]
        off = 0.5 + 0.25 * (rows @ w + b) - y[start : start + size]
        w = w - (RATE * (rows.T @ off)) / size
        b = b - (RATE * off.sum()) / size
    return w, b


def party(order: dict[str, Any]) -> Record | None:
    """One party's part; party 0 has the record."""
    import spu
    from spu.utils import frontend

    from benchmarks.peer_spu import Party

    folder, me = Path(order["folder"]), Party(order)
    X, y = np.load(folder / "X.npy"), np.load(folder / "y.npy")
    arrays = {"x": X, "y": y, "w": np.zeros(X.shape[1], np.float32), "b": np.zeros((), np.float32)}
    for key, values in arrays.items():
        me.put(key, values)
    secret = [spu.Visibility.VIS_SECRET] * len(arrays)
    start = time.perf_counter()
    program, _ = frontend.compile(
        frontend.Kind.JAX, epoch, list(arrays.values()), {}, list(arrays), secret, lambda _: ["next_w", "next_b"]
    )
    compiled = time.perf_counter() - start
    epochs: list[list[tuple[float, float]]] = []
    aucs: list[float] = []
    near = False
    while len(epochs) < FEWEST_EPOCHS or not (near or sum(max(each)[0] for each in epochs) > order["seconds"]):
        epochs.append(me.spent(program))
        for key in ("w", "b"):
            me.runtime.set_var(key, me.runtime.get_var(f"next_{key}"))
        weights = me.open("w")  # the intercept moves no AUC
        if me.rank == 0:
            aucs.append(auc(X @ weights, y))
            near = near or abs(aucs[-1] - order["target"]) <= order["close"]
        near = json.loads(me.link.all_gather(json.dumps(near))[0])  # both go on or neither: party 0 says
    traffic = me.traffic()
    me.link.stop_link()
    if me.rank != 0:
        return None
    found = summary(epochs, aucs, order["target"], order["close"])
    return found | {"mb": traffic["mb"], "compile_seconds": compiled}


if __name__ == "__main__":
    if (result := party(json.loads(sys.stdin.readline()))) is not None:
        print("\n" + json.dumps(result), flush=True)
