"""What every column of the engine benchmark computes: names, sizes, inputs and plain answers.

The peers run this in their own environments, so it needs NumPy and nothing else.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

Record = dict[str, Any]
Arrays = tuple[np.ndarray, ...]

GROUPS = 100
TURNS_OF_LIGHT = 20
"""An operation of milliseconds is repeated this many times more often."""


@dataclass(frozen=True)
class Operation:
    """One row group of the table: what is computed, and on how much."""

    title: str
    n: int


OPERATIONS = {
    "compare": Operation("x < 0, 1,000,000 values", 1_000_000),
    "sigmoid": Operation("sigmoid, 1,000,000 values", 1_000_000),
    "multiply": Operation("x * y, 1,000,000 values", 1_000_000),
    "matmul": Operation("(1000 x 1000) (1000 x 1000)", 1_000),
    "owner_product": Operation("an owner's X v, X 100,000 x 100", 100_000),
    "owner_product_transposed": Operation("an owner's X^T u, X 100,000 x 100", 100_000),
    "sort": Operation("sort, 100,000 values", 100_000),
    "groupby_sum": Operation(f"sums of 10,000 values in {GROUPS} groups", 10_000),
    "divide": Operation("x / y, 1,000,000 values", 1_000_000),
    "one": Operation("x * y, one value", 1),
    "masks": Operation("masks, 1 GB on one core", 125_000_000),
    "multiply_dealerless": Operation("x * y, 1,000,000 values, no dealer", 1_000_000),
}


def inputs(name: str, n: int | None = None) -> Arrays:
    """The values that an operation takes: float64 arrays whose values fit float32, so that nobody rounds them on the way in.

    n: another size than the operation's own.
    """
    rng, n = np.random.default_rng(20_11), OPERATIONS[name].n if n is None else n

    def within(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, shape).astype(np.float32).astype(np.float64)

    match name:
        case "compare" | "sort":
            return (within(-100, 100, n),)
        case "sigmoid":
            return (within(-8, 8, n),)
        case "multiply" | "one" | "multiply_dealerless":
            return within(-10, 10, n), within(-10, 10, n)
        case "matmul":
            return within(-1, 1, n, n), within(-1, 1, n, n)
        case "owner_product":
            return within(-1, 1, n, 100), within(-1, 1, 100)
        case "owner_product_transposed":
            return within(-1, 1, n, 100), within(-1, 1, n)
        case "groupby_sum":
            return rng.integers(0, GROUPS, n).astype(np.float64), within(-100, 100, n)
        case "divide":
            return within(-10, 10, n), within(1, 100, n)
        case _:
            return ()


def answer(name: str, arrays: Arrays) -> np.ndarray:
    """The plain result, in float64."""
    x, y = arrays[0], arrays[-1]
    match name:
        case "compare":
            return (x < 0).astype(np.float64)
        case "sigmoid":
            return 1 / (1 + np.exp(-x))
        case "matmul" | "owner_product":
            return x @ y
        case "owner_product_transposed":
            return x.T @ y
        case "sort":
            return np.sort(x)
        case "groupby_sum":
            return np.bincount(x.astype(np.int64), y, GROUPS)
        case "divide":
            return x / y
        case _:
            return x * y


def turns(name: str, repeat: int) -> int:
    """How often an operation is measured."""
    return repeat * TURNS_OF_LIGHT if OPERATIONS[name].n == 1 else repeat


def record(name: str, spent: list[list[tuple[float, float]]], result: np.ndarray | None, **more: Any) -> Record:
    """One line of output: medians over the turns.

    spent: for each turn, every party's wall-clock and CPU seconds; a turn lasts as long as its slowest party, and costs what
    all of them spend.  result: of the last turn.  more: mb, rounds and note, where they are known.
    """
    out: Record = {
        "operation": name,
        "seconds": statistics.median(max(seconds for seconds, _ in parties) for parties in spent),
        "cpu_seconds": statistics.median(sum(cpu for _, cpu in parties) for parties in spent),
        "mb": None,
        "rounds": None,
        "error": None,
        "note": "",
    } | more
    if result is not None:
        away = np.abs(np.asarray(result, dtype=np.float64) - answer(name, inputs(name)))
        out["error"] = float(away.max())
        if far := int((away > 0.5).sum()):
            wrong = f"{far:,} of {away.size:,} results are off by more than 0.5"
            out["note"] = f"{out['note']}; {wrong}" if out["note"] else wrong
    return out


def dash(name: str, why: str) -> Record:
    """The line of an operation that was not measured."""
    return {"operation": name} | dict.fromkeys(("seconds", "cpu_seconds", "mb", "rounds", "error")) | {"note": why}
