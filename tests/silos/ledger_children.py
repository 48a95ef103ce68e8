"""Processes that use a ledger and are killed, or that all want the last of a budget; run as a module with one thread.

python -m tests.silos.ledger_children crash FOLDER     for every point at which it can be killed a folder 0, 1, ...
python -m tests.silos.ledger_children race FOLDER N    prints how many of N processes got their share
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from silos.budget import BudgetError, Ledger, Limit
from silos.config import Home

A, B, C = "a" * 32, "b" * 32, "c" * 32
SHARE, LIMIT = {"platform": Decimal("0.02")}, Limit(Decimal("0.05"), Decimal("0.000001"))
"""Two jobs fit, three do not."""

STEPS: list[Callable[[Ledger], Any]] = [
    lambda ledger: ledger.reserve(A, "loans", SHARE, LIMIT),
    lambda ledger: ledger.reserve_use(A, "rule", 2),
    lambda ledger: ledger.start(A),
    lambda ledger: ledger.reserve(B, "loans", SHARE, LIMIT),
    lambda ledger: ledger.reserve_use(B, "rule", 2),
    lambda ledger: ledger.void(B),
    lambda ledger: ledger.commit(A),
    lambda ledger: ledger.reserve(C, "loans", SHARE, LIMIT),
    lambda ledger: ledger.reserve_use(C, "rule", 2),
    lambda ledger: ledger.start(C),
]


def run(folder: Path, kill_at: int) -> None:
    """All steps; before the kill_at-th statement, or the kill_at-th time that one is done and nobody knows, it is killed.

    notes: lines of "begun N" and "done N SIZE", the size of the write-ahead log when step N was acknowledged.
    """
    points = 0

    def point(_statement: str = "") -> None:
        nonlocal points
        if points == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        points += 1

    home = Home(folder)
    with open(folder / "notes", "w", encoding="ascii", buffering=1) as notes, Ledger(home, trace=point) as ledger:
        for n, step in enumerate(STEPS):
            notes.write(f"begun {n}\n")
            step(ledger)
            point()
            notes.write(f"done {n} {(home.state / 'ledger.db-wal').stat().st_size}\n")
        os._exit(0)


def crash(root: Path) -> None:
    """Kill one process after the other, each one statement later, until one gets to the end."""
    for kill_at in range(10_000):
        folder = root / str(kill_at)
        (folder / "jobs").mkdir(parents=True)
        child = os.fork()
        if child == 0:
            run(folder, kill_at)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert status == 0
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


def race(root: Path, n: int) -> None:
    """All reserve at once what a tenth of the budget is; jobs are named by the process."""
    (root / "jobs").mkdir()
    reading, writing = os.pipe()
    children = []
    for i in range(n):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent closes it
            try:
                with Ledger(Home(root)) as ledger:
                    ledger.reserve(f"{i:032x}", "loans", {"platform": Decimal("0.005")}, LIMIT)
                    ledger.reserve_use(f"{i:032x}", "rule", None)
            except BudgetError as exc:
                os._exit(3 if "is spent, and the job takes" in str(exc) else 4)
            os._exit(0)
        children.append(child)
    os.close(writing)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(
        json.dumps(
            {"admitted": codes.count(0), "refused": codes.count(3), "other": n - codes.count(0) - codes.count(3)}
        )
    )


if __name__ == "__main__":
    if sys.argv[1] == "crash":
        crash(Path(sys.argv[2]))
    else:
        race(Path(sys.argv[2]), int(sys.argv[3]))
