"""How an owner turns its own columns into bins: fitted on the training rows, stated in the model file.

Bin 0 holds the missing values of every column.  Numbers: intervals that hold about as many training rows each; a value that
is very frequent gets one alone, and a number outside the training range counts to the nearest interval.  Categories: a bin
for each frequent level, the most frequent first, and a last one for rare levels together with all that training has not seen.
The label plays no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from vertical.encoding import Feature

Column = npt.NDArray[Any]
Kind = Literal["number", "category"]
MISSING = 0
"""The bin of missing values."""
MIN_BINS, MAX_BINS = 4, 256


@dataclass(frozen=True)
class Binned:
    """An owner's aligned rows as bins.

    codes: (n, d) uint8, each below n_bins; 0 is missing.  names: of the d features.  missing: for each feature, whether the
    rows that the bins were fitted on have missing values.
    """

    codes: npt.NDArray[np.uint8] = field(repr=False)
    n_bins: int
    names: tuple[str, ...]
    missing: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: npt.NDArray[Any]) -> Binned:
        """The same features of these rows only (a mask or indices)."""
        return Binned(self.codes[rows], self.n_bins, self.names, self.missing)


@dataclass(frozen=True)
class Bins:
    """The bins of one feature.

    edges: upper ends of all intervals but the last, ascending; bin 1 + i holds edges[i - 1] < x <= edges[i].  levels: of a
    category, most frequent first, in bins 1, 2, ...; the bin after them holds everything else.  missing: as in `Binned`.
    """

    column: str
    kind: Kind
    edges: tuple[float, ...]
    levels: tuple[str, ...]
    missing: bool

    @property
    def used(self) -> int:
        """How many bins this feature has, that of missing values included."""
        return 2 + len(self.edges if self.kind == "number" else self.levels)

    def codes(self, column: Column) -> npt.NDArray[np.uint8]:
        """The bin of each value."""
        if self.kind == "number":
            known = np.isfinite(column.astype(np.float64))
            code = 1 + np.searchsorted(
                np.array(self.edges, dtype=np.float64), np.where(known, column, 0.0), side="left"
            )
            return np.where(known, code, MISSING).astype(np.uint8)
        places = {level: 1 + i for i, level in enumerate(self.levels)}
        rest = 1 + len(self.levels)
        found = [MISSING if value is None else places.get(str(value), rest) for value in column]
        return np.array(found, dtype=np.uint8)

    def label(self, code: int) -> str:
        """What a bin holds, in words."""
        if code == MISSING:
            return "missing"
        if self.kind == "category":
            return self.levels[code - 1] if code <= len(self.levels) else "any other"
        low = f"{self.edges[code - 2]:g} < " if code >= 2 else ""
        high = f" <= {self.edges[code - 1]:g}" if code <= len(self.edges) else ""
        return f"{low}x{high}"


@dataclass(frozen=True)
class Binner:
    """A fitted binning of one owner's columns.  n_bins: common to all features; each uses so many or fewer."""

    n_bins: int
    features: tuple[Bins, ...]

    @classmethod
    def fit(
        cls,
        columns: Mapping[str, Column],
        features: Sequence[Feature],
        train: npt.NDArray[np.bool_],
        bins: int = 32,
        *,
        rare_category: int = 1,
    ) -> Self:
        """Fit on the rows where `train` is true.

        columns: name -> (n,) float64 with NaN for missing (numbers), or str with None for missing (categories).  bins: 4 to
        256, that of missing values included.  rare_category: levels with fewer training rows share the last bin.

        Raises: LocalProtocolError if there is no training row or no such number of bins.
        """
        if not MIN_BINS <= bins <= MAX_BINS:
            raise LocalProtocolError(f"a feature has {MIN_BINS} to {MAX_BINS} bins, not {bins}")
        if not train.any():
            raise LocalProtocolError("there is no training row to fit the bins on")
        fitted = []
        for feature in features:
            column = columns[feature.column][train]
            if feature.kind == "number":
                known = np.isfinite(column.astype(np.float64))
                edges = _edges(column[known].astype(np.float64), bins - 1)
                fitted.append(Bins(feature.column, "number", edges, (), not known.all()))
            else:
                missing = any(value is None for value in column)
                fitted.append(Bins(feature.column, "category", (), _levels(column, bins - 2, rare_category), missing))
        return cls(bins, tuple(fitted))

    def transform(self, columns: Mapping[str, Column]) -> Binned:
        """The bins of any rows that have the fitted columns."""
        codes = [feature.codes(columns[feature.column]) for feature in self.features]
        rows = len(next(iter(columns.values()))) if columns else 0
        table = np.column_stack(codes) if codes else np.empty((rows, 0), dtype=np.uint8)
        names = tuple(feature.column for feature in self.features)
        return Binned(table, self.n_bins, names, tuple(feature.missing for feature in self.features))

    def edges(self, feature: int) -> tuple[float, ...]:
        """The inner edges of one number's intervals; empty for a category."""
        return self.features[feature].edges

    def describe(self) -> dict[str, Any]:
        """The binning as plain data for the model file; `from_document` reads it."""
        return {
            "n_bins": self.n_bins,
            "features": [
                {
                    "column": f.column,
                    "kind": f.kind,
                    "edges": [repr(edge) for edge in f.edges],
                    "levels": list(f.levels),
                    "missing": f.missing,
                }
                for f in self.features
            ],
        }

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Read what `describe` wrote.

        Raises: LocalProtocolError if it is not such a document.
        """
        try:
            n_bins, features = document["n_bins"], tuple(_bins(raw) for raw in document["features"])
            good = set(document) == {"n_bins", "features"} and type(n_bins) is int and MIN_BINS <= n_bins <= MAX_BINS
        except (KeyError, TypeError, ValueError) as exc:
            raise LocalProtocolError("the description of the bins is malformed") from exc
        if not good or any(feature.used > n_bins for feature in features):
            raise LocalProtocolError("the description of the bins is malformed")
        return cls(n_bins, features)


def _bins(raw: Any) -> Bins:
    """One feature of a document.  Raises: ValueError, KeyError or TypeError if it is malformed."""
    edges = tuple(float(edge) for edge in raw["edges"])
    kind, levels = raw["kind"], tuple(raw["levels"])
    ascending = all(np.isfinite(edges)) and all(a < b for a, b in pairwise(edges))
    known = kind in ("number", "category") and not (levels if kind == "number" else edges)
    texts = all(isinstance(text, str) for text in (raw["column"], *levels)) and len(set(levels)) == len(levels)
    if not (ascending and known and texts and isinstance(raw["missing"], bool)) or len(raw) != 5:
        raise ValueError("a feature of the bins is malformed")
    return Bins(raw["column"], kind, edges, levels, raw["missing"])


def _edges(known: npt.NDArray[np.float64], intervals: int) -> tuple[float, ...]:
    """Upper ends of at most `intervals` intervals, but for the last: each takes an equal part of what is left of the rows."""
    values, counts = np.unique(known, return_counts=True)
    ends = np.cumsum(counts)
    edges: list[float] = []
    place = done = 0
    while place < len(values) - 1 and len(edges) < intervals - 1:
        left = intervals - len(edges)
        if len(values) - place <= left:
            edges += [float(value) for value in values[place:-1]]
            break
        wanted = done + (ends[-1] - done) / left
        last = int(np.searchsorted(ends, wanted, side="left"))
        if last > place and wanted - ends[last - 1] <= ends[last] - wanted:
            last -= 1  # stopping one value earlier is closer to the equal part
        if last >= len(values) - 1:
            break
        edges.append(float(values[last]))
        place, done = last + 1, int(ends[last])
    return tuple(edges)


def _levels(column: Column, most: int, rare: int) -> tuple[str, ...]:
    """The levels with a bin of their own, most frequent first, ties by name."""
    texts = np.array([str(value) for value in column if value is not None], dtype=np.str_)
    names, counts = np.unique(texts, return_counts=True)
    order = sorted(zip(names, counts, strict=True), key=lambda item: (-int(item[1]), str(item[0])))
    return tuple(str(name) for name, count in order if count >= rare)[:most]
