"""How an owner turns its own columns into model inputs: fitted on the training rows, stated in the model file.

Numbers: missing values become the training mean and add an indicator column; values are standardised with the training
mean and standard deviation and winsorised at `winsorise_sd` of them.  Categories: one indicator column per level except the
most frequent one; levels with fewer than `rare_category` training rows, and levels unseen in training, count as the pooled
level "other"; a missing value is the level "missing".  Indicator columns are standardised like numbers.  Columns that do not
vary over the training rows are left out and named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[Any]
OTHER, MISSING = "other", "missing"


@dataclass(frozen=True)
class Feature:
    """One column as the job's spec asks for it."""

    column: str
    kind: Literal["number", "category"]


@dataclass(frozen=True)
class Input:
    """One model input: where it comes from and how it is scaled.

    level: the category it indicates, None for a number, MISSING for a number's indicator (kind "missing").
    """

    column: str
    kind: Literal["number", "category", "missing"]
    level: str | None
    mean: float
    sd: float

    @property
    def name(self) -> str:
        """Readable and unique within the owner's block."""
        return self.column if self.kind == "number" else f"{self.column}={self.level}"


@dataclass(frozen=True)
class Encoder:
    """A fitted encoding of one owner's columns."""

    inputs: tuple[Input, ...]
    levels: dict[str, tuple[str, ...]]
    fill: dict[str, float]
    winsorise_sd: int
    dropped: tuple[str, ...]

    def transform(self, columns: Mapping[str, Column]) -> Floats:
        """(n, d) standardised inputs of any rows that have the fitted columns."""
        blocks = []
        for item in self.inputs:
            raw = _raw(columns[item.column], item, self)
            blocks.append(np.clip((raw - item.mean) / item.sd, -self.winsorise_sd, self.winsorise_sd))
        return np.column_stack(blocks) if blocks else np.empty((_n_rows(columns), 0))

    def describe(self) -> list[dict[str, Any]]:
        """The encoding as plain data for the model file."""
        return [
            {"input": i.name, "column": i.column, "kind": i.kind, "level": i.level, "mean": i.mean, "sd": i.sd}
            for i in self.inputs
        ]


def fit(
    columns: Mapping[str, Column],
    features: list[Feature],
    train: npt.NDArray[np.bool_],
    *,
    winsorise_sd: int,
    rare_category: int,
) -> Encoder:
    """Fit the encoding on the rows where `train` is true.

    columns: name -> (n,) float64 with NaN for missing (numbers) or str with None for missing (categories).
    Raises: LocalProtocolError if there is no training row.
    """
    if not train.any():
        raise LocalProtocolError("there is no training row to fit the encoding on")
    levels: dict[str, tuple[str, ...]] = {}
    fill: dict[str, float] = {}
    wanted: list[tuple[str, Literal["number", "category", "missing"], str | None]] = []
    for feature in features:
        column = columns[feature.column]
        if feature.kind == "number":
            known = column[train & np.isfinite(column)]
            fill[feature.column] = float(known.mean()) if known.size else 0.0
            wanted.append((feature.column, "number", None))
            if not np.isfinite(column[train]).all():
                wanted.append((feature.column, "missing", MISSING))
        else:
            kept = _levels(column[train], rare_category)
            levels[feature.column] = kept
            wanted += [(feature.column, "category", level) for level in kept[1:]]
    unscaled = Encoder((), levels, fill, winsorise_sd, ())
    inputs: list[Input] = []
    dropped: list[Input] = []
    for name, kind, level in wanted:
        raw = _raw(columns[name], Input(name, kind, level, 0.0, 1.0), unscaled)[train]
        item = Input(name, kind, level, float(raw.mean()), float(raw.std()))
        (inputs if item.sd > 0 else dropped).append(item)
    return Encoder(tuple(inputs), levels, fill, winsorise_sd, tuple(i.name for i in dropped))


def _levels(column: Column, rare: int) -> tuple[str, ...]:
    """Levels with an indicator, most frequent first (ties by name); the first one is the reference."""
    names, counts = np.unique(_text(column), return_counts=True)
    frequent = {str(n): int(c) for n, c in zip(names, counts, strict=True) if c >= rare and n != OTHER}
    pooled = int(counts.sum()) - sum(frequent.values())
    if pooled or not frequent:
        frequent[OTHER] = pooled
    return tuple(sorted(frequent, key=lambda level: (-frequent[level], level)))


def _raw(column: Column, item: Input, encoder: Encoder) -> Floats:
    if item.kind == "number":
        return np.where(np.isfinite(column), column, encoder.fill[item.column]).astype(np.float64)
    if item.kind == "missing":
        return (~np.isfinite(column)).astype(np.float64)
    text = _text(column)
    if item.level == OTHER:
        return np.asarray(~np.isin(text, [x for x in encoder.levels[item.column] if x != OTHER]), dtype=np.float64)
    return np.asarray(text == item.level, dtype=np.float64)


def _text(column: Column) -> npt.NDArray[np.str_]:
    return np.array([MISSING if value is None else str(value) for value in column], dtype=np.str_)


def _n_rows(columns: Mapping[str, Column]) -> int:
    return len(next(iter(columns.values()))) if columns else 0
