"""Whether rows are still like those a model was trained on: stability indices of inputs, and of scores that nobody sees.

The population stability index compares shares of rows in a few bands: the sum of (a - e) ln(a / e) over the bands, e the share
in training and a the share now.  Of an input (then also called characteristic stability index) each owner computes it alone;
the bands of its columns are cut on the training rows and kept with its part of the model.  Of the score, how many rows fall
in each band between public cut points is counted on shares, and opened if no band has fewer rows than an agreed minimum.  The
deciles of the training scores, which make good cut points, can be found without showing a score too.

Counts are smoothed by half a row in each band, so that an empty band does not make the index infinite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from mpc.compare import (
    any_negative,
    less_than,
    open_any,
    plan_any_negative,
    plan_less_than,
    plan_reveal_negative,
    reveal_negative,
)
from mpc.errors import LocalProtocolError, Refused
from mpc.session import Session
from vertical.encoding import Feature
from vertical.score import LARGEST, ROWS_AT_ONCE
from vertical.scores import Scores

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
Verdict = Literal["stable", "shifted", "different"]

BANDS = 10
MAX_BANDS = 64
MOST_LEVELS = 20
"""Levels of a category with a band of their own; the others share one."""
SHIFTED, DIFFERENT = 0.10, 0.25
"""From here on an index is said to be shifted, or different: the rule of thumb of credit scoring."""
STEPS = 12
"""Bisections of a quantile: it is found to a 4096th of the scores' range."""


def stability_index(expected: Floats, counts: npt.NDArray[Any]) -> float:
    """The index of shares in training and of counts now.

    expected: (k,) shares that add up to 1.  counts: (k,) rows now, not all zero.
    """
    k, n = len(counts), float(np.sum(counts))
    now = (counts + 0.5) / (n + 0.5 * k)
    before = (expected * n + 0.5) / (n + 0.5 * k)
    return float(((now - before) * np.log(now / before)).sum())


def verdict(index: float) -> Verdict:
    """What people call an index of this size."""
    return "stable" if index < SHIFTED else "shifted" if index < DIFFERENT else "different"


@dataclass(frozen=True)
class Bands:
    """The bands of one column, and the share of training rows in each.

    edges: between the bands of a number, each the lower end of the next.  levels: of a category, each with a band; one more
    band is for all others.  The last band is for missing values.
    """

    column: str
    kind: Literal["number", "category"]
    edges: tuple[float, ...]
    levels: tuple[str, ...]
    shares: tuple[float, ...] = field(repr=False)

    @property
    def names(self) -> list[str]:
        """What to call the bands."""
        if self.kind == "category":
            return [*self.levels, "other", "missing"]
        ends = ["", *(f"{edge:g}" for edge in self.edges), ""]
        return [*(f"[{low}, {high})" for low, high in pairwise(ends)), "missing"]

    def counts(self, column: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Rows in each band: floats with NaN for missing, or text with None."""
        if self.kind == "number":
            known = np.isfinite(column)
            place = np.where(known, np.searchsorted(self.edges, column, side="right"), len(self.edges) + 1)
            return np.bincount(place, minlength=len(self.edges) + 2)
        of = {level: i for i, level in enumerate(self.levels)}
        other = len(of)
        place = np.array([other + 1 if v is None else of.get(str(v), other) for v in column], dtype=np.int64)
        return np.bincount(place, minlength=other + 2)


@dataclass(frozen=True)
class Drift:
    """How one column has moved.  expected, found: shares of rows in each band."""

    column: str
    index: float
    verdict: Verdict
    bands: list[str]
    expected: list[float]
    found: list[float]


@dataclass(frozen=True)
class Reference:
    """What an owner keeps of its training rows to compare later rows with: shares, and no rows."""

    bands: tuple[Bands, ...]

    @classmethod
    def of(
        cls, columns: Mapping[str, npt.NDArray[Any]], features: Sequence[Feature], train: npt.NDArray[np.bool_]
    ) -> Self:
        """Cut bands at the deciles of numbers and at the most frequent levels of categories, over the training rows.

        Raises: LocalProtocolError if there is no training row.
        """
        if not train.any():
            raise LocalProtocolError("there is no training row to cut bands on")
        return cls(tuple(_cut(feature, columns[feature.column][train]) for feature in features))

    def drift(self, columns: Mapping[str, npt.NDArray[Any]]) -> list[Drift]:
        """The index of every column, the largest first.  Raises: LocalProtocolError if there are no rows."""
        found = []
        for each in self.bands:
            counts = each.counts(columns[each.column])
            if not counts.sum():
                raise LocalProtocolError("there are no rows to compare with those of training")
            index = stability_index(np.array(each.shares), counts)
            now = (counts / counts.sum()).tolist()
            found.append(Drift(each.column, index, verdict(index), each.names, list(each.shares), now))
        return sorted(found, key=lambda one: -one.index)

    def document(self) -> dict[str, Any]:
        """What is kept on disk."""
        columns = [
            {
                "column": each.column,
                "kind": each.kind,
                "edges": [repr(edge) for edge in each.edges],
                "levels": list(each.levels),
                "shares": [repr(share) for share in each.shares],
            }
            for each in self.bands
        ]
        return {"columns": columns}

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The inverse of `document`.  Raises: LocalProtocolError if it is none."""
        try:
            return cls(tuple(_band(raw) for raw in document["columns"]))
        except (KeyError, TypeError, ValueError) as exc:
            raise LocalProtocolError("this is not what a model keeps of its training rows") from exc


def _cut(feature: Feature, column: npt.NDArray[Any]) -> Bands:
    if feature.kind == "number":
        known = column[np.isfinite(column)]
        ends = np.quantile(known, np.arange(1, BANDS) / BANDS, method="higher") if len(known) else np.empty(0)
        inner = np.unique(ends)
        edges = tuple(float(edge) for edge in inner if edge > known.min())
        plain = Bands(feature.column, "number", edges, (), ())
    else:
        names, often = np.unique([str(v) for v in column if v is not None], return_counts=True)
        order = sorted(range(len(names)), key=lambda i: (-int(often[i]), str(names[i])))[:MOST_LEVELS]
        plain = Bands(feature.column, "category", (), tuple(str(names[i]) for i in order), ())
    counts = plain.counts(column)
    shares = tuple((counts / counts.sum()).tolist())
    return Bands(plain.column, plain.kind, plain.edges, plain.levels, shares)


def _band(raw: Any) -> Bands:
    edges = tuple(float(edge) for edge in raw["edges"])
    shares, levels = tuple(float(share) for share in raw["shares"]), tuple(raw["levels"])
    n_bands = (len(edges) + 2) if raw["kind"] == "number" else len(levels) + 2
    good = raw["kind"] in ("number", "category") and isinstance(raw["column"], str)
    good = good and all(isinstance(level, str) for level in levels) and list(edges) == sorted(set(edges))
    if not good or len(shares) != n_bands or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError("not the bands of a column")
    return Bands(raw["column"], raw["kind"], edges, levels, shares)


def score_bands(session: Session, scores: Scores, cuts: Sequence[float], minimum: int) -> npt.NDArray[np.int64]:
    """How many rows have a score in each band between public cut points; every owner learns it.

    scores: ours of n aligned rows.  cuts: ascending, on the scale of the score; a band has its lower end.  minimum: the fewest
    rows that a band may have.  Returns (len(cuts) + 1,) counts.

    Reveals: to every owner, whether a band has fewer rows than the minimum; if none has, the counts.
    Cost: for k cut points 10 rounds for up to ROWS_AT_ONCE rows, and 4 for each further piece of as many; to every other owner
        8 n + 280 k m + 16 (k + 1) + 288 bytes, m = ceil(n / 64); the dealer sends 8 k n + (1864 + 824 k) m + 2696 in all.
    Security: semi-honest owners; the dealer does not collude.  Counts of sets of rows that differ by one row tell that row's
        band, which no count alone can prevent.
    Source: as `mpc.compare`.
    Raises: Refused, at every owner, if a band has fewer rows than the minimum; LocalProtocolError for cut points that are not
        ascending or scores that are too large.
    """
    words = [math.ceil(cut * 2.0**scores.frac_bits) for cut in cuts]
    if not 1 <= len(words) < MAX_BANDS or sorted(set(words)) != words or max(map(abs, words)) >= LARGEST:
        raise LocalProtocolError(f"a score has 2 to {MAX_BANDS} bands, between ascending cut points")
    below = _below(session, scores.words, words)
    everybody = np.array([len(scores) if session.me == 0 else 0], dtype=np.uint64)
    counts = np.diff(np.concatenate([np.zeros(1, dtype=np.uint64), below, everybody]))
    least = np.uint64(minimum if session.me == 0 else 0)
    few = any_negative(session, session.correlations.plan(plan_any_negative(len(counts))), counts - least)
    session.correlations.settle()
    if open_any(session, few, "stability/few")[0]:
        raise Refused(f"a band of the score has fewer than {minimum} rows")
    return session.open_words("stability/counts", counts).view(np.int64)


def quantiles(
    session: Session, scores: Scores, fractions: Sequence[float], ends: tuple[float, float], steps: int = STEPS
) -> list[float]:
    """Quantiles of scores by bisection, to (high - low) / 2^steps for ends = (low, high); every owner learns them.

    scores: ours of n aligned rows.  fractions: each between 0 and 1.  Each result is the lowest point of the grid that at
    least so many of the rows are below, or the upper end.

    Reveals: to every owner, the quantiles.  What is opened on the way is whether a quantile is above a point of the grid, which
        the result says too.
    Cost: for k fractions 8 rounds a step; to every other owner 8 n + 280 k m + 8 k + 280 ceil(k / 64) bytes a step, m =
        ceil(n / 64); the dealer sends 8 k n + (1864 + 824 k) m + 2688 ceil(k / 64) in all a step.
    Security: semi-honest owners; the dealer does not collude.  A quantile of few rows is close to the score of one: the caller
        asks for rows enough.
    Source: bisection; comparisons as `mpc.compare`.
    Raises: LocalProtocolError for fractions or ends that are none.
    """
    limits = [math.floor(end * 2.0**scores.frac_bits) for end in ends]
    if not fractions or not all(0 < each < 1 for each in fractions) or not -LARGEST < limits[0] < limits[1] < LARGEST:
        raise LocalProtocolError("quantiles are of fractions between 0 and 1, and between two ends")
    k, targets = len(fractions), [math.ceil(each * len(scores)) for each in fractions]
    wanted = np.array(targets if session.me == 0 else [0] * k, dtype=np.uint64)
    low, high = [limits[0]] * k, [limits[1]] * k
    for _ in range(steps):
        middle = [(a + b) // 2 for a, b in zip(low, high, strict=True)]
        short = _below(session, scores.words, middle) - wanted
        tickets = session.correlations.plan(plan_reveal_negative(k))
        session.correlations.settle()
        fewer = reveal_negative(session, tickets, short, "stability/quantiles").tolist()
        low = [m if less else a for less, a, m in zip(fewer, low, middle, strict=True)]
        high = [b if less else m for less, b, m in zip(fewer, high, middle, strict=True)]
    return [each * 2.0**-scores.frac_bits for each in high]


def _below(session: Session, words: Words, cuts: Sequence[int]) -> Words:
    """Shares of how many values are below each cut point: (k,) words of scale 1."""
    parts = [words[i : i + ROWS_AT_ONCE] for i in range(0, len(words), ROWS_AT_ONCE)]
    plans = [plan_less_than(len(part), len(cuts)) for part in parts]
    tickets = iter(session.correlations.plan([request for plan in plans for request in plan]))
    total = np.zeros(len(cuts), dtype=np.uint64)
    for part, plan in zip(parts, plans, strict=True):
        bits = less_than(session, [next(tickets) for _ in plan], part, cuts)
        total += bits.sum(axis=1, dtype=np.uint64)
    return total
