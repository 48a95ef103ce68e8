"""What each of an owner's columns adds to the score of a row, read off its encoding and its weights.

A generalised linear model is a sum over columns, and each owner can say its own part of the sum column by column: for a number
a straight line between two limits, and another value where it is missing; for a category one value for each level.  Points and
exported models are made of these.  Nothing is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from vertical.encoding import MISSING, OTHER, Encoder

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[Any]
CLOSE = 1e-9
_UNSEEN = "\x00"
"""A level that no file holds."""


@dataclass(frozen=True)
class Number:
    """weight * clip((x - mean) / sd, low, high) + present, or `missing` where there is no number."""

    column: str
    mean: float
    sd: float
    low: float
    high: float
    weight: float
    present: float
    missing: float

    def of(self, column: Column) -> Floats:
        """(n,) of a column of floats."""
        known = np.isfinite(column)
        scaled = np.clip((np.where(known, column, self.mean) - self.mean) / self.sd, self.low, self.high)
        return np.where(known, self.weight * scaled + self.present, self.missing)

    @property
    def largest(self) -> float:
        """The most it adds to any row."""
        return max(self.weight * self.low + self.present, self.weight * self.high + self.present, self.missing)

    @property
    def smallest(self) -> float:
        """The least it adds to any row."""
        return min(self.weight * self.low + self.present, self.weight * self.high + self.present, self.missing)


@dataclass(frozen=True)
class Category:
    """A value for each level, the level "missing" among them, and `other` for those that training has not seen."""

    column: str
    levels: dict[str, float]
    other: float

    def of(self, column: Column) -> Floats:
        """(n,) of a column of text with None for missing."""
        texts = (MISSING if value is None else str(value) for value in column)
        return np.array([self.levels.get(text, self.other) for text in texts], dtype=np.float64)

    @property
    def largest(self) -> float:
        """The most it adds to any row."""
        return max(self.other, *self.levels.values())

    @property
    def smallest(self) -> float:
        """The least it adds to any row."""
        return min(self.other, *self.levels.values())


Term = Number | Category


def terms(encoder: Encoder, weights: Floats) -> list[Term]:
    """One term for each column that the encoding makes inputs of, in the order of these.

    weights: (d,) of the standardised inputs.

    Raises: LocalProtocolError if there are not as many weights as inputs, or an input is of a kind that is no such term.
    """
    if weights.shape != (len(encoder.inputs),):
        raise LocalProtocolError(f"{len(encoder.inputs)} inputs do not have {weights.shape} weights")
    found: list[Term] = []
    for column in dict.fromkeys(item.column for item in encoder.inputs):
        chosen = [i for i, item in enumerate(encoder.inputs) if item.column == column]
        if column in encoder.texts:
            raise LocalProtocolError(
                f"column '{column}' is text, and what it adds to a score cannot be told in a table"
            )
        own = replace(encoder, inputs=tuple(encoder.inputs[i] for i in chosen), texts={})
        found.append(_term(own, weights[chosen], column))
    return found


def _term(own: Encoder, weights: Floats, column: str) -> Term:
    def adds(values: list[Any], kind: type) -> list[float]:
        inputs = own.transform({column: np.array(values, dtype=kind)})
        return [float(value) for value in inputs @ weights]

    if own.inputs[0].kind == "category":
        names = [level for level in own.levels[column] if level not in (OTHER, MISSING)]
        *known, missing, other = adds([*names, None, _UNSEEN], object)
        return Category(column, {**dict(zip(names, known, strict=True)), MISSING: missing}, other)
    item = next((i for i, item in enumerate(own.inputs) if item.kind == "number"), None)
    if item is None:  # a number that is constant where it is known: only that it is missing counts
        constant = own.fill[column]
        return _checked(Number(column, constant, 1.0, 0.0, 0.0, 0.0, *adds([constant, np.nan], float)), adds)
    mean, sd, limit = own.inputs[item].mean, own.inputs[item].sd, float(own.winsorise_sd)
    low, high = ((end - mean) / sd for end in own.limits.get(column, (-math.inf, math.inf)))
    present, missing = adds([mean, np.nan], float)
    term = Number(column, mean, sd, max(low, -limit), min(high, limit), float(weights[item]), present, missing)
    return _checked(term, adds)


def _checked(term: Number, adds: Any) -> Number:
    """What the encoder says about a few numbers must be what the term says."""
    probes = [term.mean + term.sd * step for step in (-1e6, -3.0, -0.5, 0.25, 2.0, 1e6)]
    if np.abs(term.of(np.array(probes)) - np.array(adds(probes, float))).max() > CLOSE * (1 + abs(term.largest)):
        raise LocalProtocolError(f"column '{term.column}' is encoded in a way that cannot be told column by column")
    return term


def table(found: list[Term], columns: Mapping[str, Column]) -> Floats:
    """(n, terms) what each adds to each row."""
    return np.column_stack([term.of(columns[term.column]) for term in found])
