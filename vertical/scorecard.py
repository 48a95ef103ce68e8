"""Scorecard points of a logistic model, owner by owner, and why a row has few of them.

Points are linear in the log-odds: `base_points` at odds of `base_odds` to one for the good outcome, and `pdo` points more
double these odds.  So each owner has the points of its own columns; the owner of the label has those of the base and of the
intercept; a row's points are the sum of all owners' points.  What is here is computed by one owner from its own part of the
model and its own columns.  Nothing is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from vertical.contributions import Category, Number, Term, table
from vertical.stability import Bands, Reference

Floats = npt.NDArray[np.float64]
MAX_REASONS = 10


@dataclass(frozen=True)
class Scale:
    """How points are counted.

    good: the label's value that earns points; 0 where the label says default or fraud.  decimals: to which the points of each
    column are rounded.
    """

    base_points: float = 600.0
    base_odds: float = 50.0
    pdo: float = 20.0
    good: Literal[0, 1] = 0
    decimals: int = 0

    def __post_init__(self) -> None:
        if not (self.base_odds > 0 and self.pdo > 0 and math.isfinite(self.base_points)) or not 0 <= self.decimals <= 6:
            raise LocalProtocolError("odds and points to double them are positive, and points have 0 to 6 decimals")

    @property
    def factor(self) -> float:
        """Points for each unit of the score, which is the log-odds of label 1."""
        return self.pdo / math.log(2) * (1 if self.good == 1 else -1)

    def base(self, intercept: float) -> float:
        """The points of a row without any column's."""
        return self.base_points - self.pdo / math.log(2) * math.log(self.base_odds) + self.factor * intercept

    def of_probability(self, p: Floats) -> Floats:
        """All points of rows with these probabilities of label 1: what a recipient of probabilities computes."""
        return self.base(0.0) + self.factor * np.log(p / (1 - p))


@dataclass(frozen=True)
class Line:
    """One line of a scorecard.

    points: of the level; of a number's band at its lower end, and `to` at its upper one, between which they are linear.
    """

    column: str
    attribute: str
    points: float
    to: float | None


def scorecard(scale: Scale, found: list[Term], intercept: float | None, reference: Reference) -> list[Line]:
    """The scorecard of an owner's part of a model, a band or level to a line.

    found: from `vertical.contributions.terms`.  intercept: at the owner of the label, None elsewhere.  reference: its bands are
    the lines of numbers.
    """
    lines = [] if intercept is None else [Line("", "base", _rounded(scale, scale.base(intercept)), None)]
    bands = {each.column: each for each in reference.bands}
    for term in found:
        lines += _levels(scale, term) if isinstance(term, Category) else _bands(scale, term, bands.get(term.column))
    return lines


def _rounded(scale: Scale, points: float) -> float:
    return round(points, scale.decimals) + 0.0  # no minus zero


def _levels(scale: Scale, term: Category) -> list[Line]:
    values = [*term.levels.items(), ("any other", term.other)]
    return [Line(term.column, name, _rounded(scale, scale.factor * value), None) for name, value in values]


def _bands(scale: Scale, term: Number, bands: Bands | None) -> list[Line]:
    ends = [-math.inf, *(bands.edges if bands else ()), math.inf]
    finite = np.clip(ends, term.mean + term.low * term.sd, term.mean + term.high * term.sd)
    points = [_rounded(scale, scale.factor * value) for value in term.of(finite).tolist()]
    lines = [
        Line(term.column, f"{low:g} to {high:g}", a, b)
        for low, high, a, b in zip(ends[:-1], ends[1:], points[:-1], points[1:], strict=True)
    ]
    return [*lines, Line(term.column, "missing", _rounded(scale, scale.factor * term.missing), None)]


def points_of(scale: Scale, found: list[Term], columns: Mapping[str, npt.NDArray[Any]]) -> Floats:
    """(n, terms) the points that each of our columns gives each row, rounded as the scale says."""
    return np.round(scale.factor * table(found, columns), scale.decimals) + 0.0


def reasons(
    scale: Scale,
    found: list[Term],
    columns: Mapping[str, npt.NDArray[Any]],
    most: int = 4,
    against: Literal["average", "best"] = "average",
) -> list[list[str]]:
    """For each row, up to `most` of our columns that cost it the most points, the worst first.

    against: compared with the average row of training, for which every column has 0 points, or with the most points that the
    column gives to any row.  A column that costs nothing is no reason.

    Raises: LocalProtocolError for a number of reasons that is not 1 to MAX_REASONS.
    """
    if not 1 <= most <= MAX_REASONS:
        raise LocalProtocolError(f"there are 1 to {MAX_REASONS} reasons for a row, not {most}")
    own = scale.factor * table(found, columns)
    compared = np.zeros(len(found))
    if against == "best":
        compared = np.array([max(scale.factor * t.largest, scale.factor * t.smallest) for t in found])
    lost = compared - own
    order = np.argsort(-lost, axis=1, kind="stable")[:, :most]
    return [
        [found[i].column for i in places if lost[row, i] > 0.5 * 10.0**-scale.decimals]
        for row, places in enumerate(order.tolist())
    ]
