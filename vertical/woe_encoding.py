"""Columns as inputs of a model through their weights of evidence: what takes the place of `vertical.encoding.Encoder`.

Every column becomes one input: the weight of the bin that its value is in, standardised over the training rows.  Missing values
and categories need nothing of their own, as they are bins like others.  Columns whose bins all weigh the same are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.session import Session
from vertical.binning import Binner
from vertical.encoding import Feature, Input
from vertical.woe import Evidence, Settings, evidence

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[Any]
FORMAT = "accord-woe-1"
FIRST = 1 << 20
"""Number of the first masked matrix; training in the same session uses lower ones."""


@dataclass(frozen=True)
class WoeEncoder:
    """A fitted encoding of one owner's columns."""

    binner: Binner
    evidence: Evidence = field(repr=False)
    winsorise_sd: None = None
    """Nothing is winsorised: a weight is as large as its bin makes it."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The model inputs, one for each column that says something."""
        used = [self.evidence.columns[i] for i in self.evidence.used]
        return tuple(Input(c.name, "number", None, *c.spread) for c in used)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Columns whose bins all weigh the same."""
        used = set(self.evidence.used)
        return tuple(c.name for i, c in enumerate(self.evidence.columns) if i not in used)

    def transform(self, columns: Mapping[str, Column]) -> Floats:
        """(n, d) standardised weights of any rows that have the fitted columns."""
        return self.evidence.inputs(self.binner.transform(columns))

    def describe(self) -> list[dict[str, Any]]:
        """The inputs as plain data for the model file; `bins` says what each group of bins holds and weighs."""
        out = []
        for i, item in zip(self.evidence.used, self.inputs, strict=True):
            column, bins = self.evidence.columns[i], self.binner.features[i]
            groups = [
                {
                    "holds": [bins.label(code) for code, group in enumerate(column.groups) if group == place],
                    "weight": repr(weight),
                }
                for place, weight in enumerate(column.weights)
            ]
            out.append(
                {
                    "input": item.name,
                    "column": item.column,
                    "kind": "woe",
                    "level": None,
                    "mean": item.mean,
                    "sd": item.sd,
                    "bins": groups,
                }
            )
        return out

    def document(self) -> dict[str, Any]:
        """All of it as plain data, for the owner's own part of a model."""
        return {"format": FORMAT, "bins": self.binner.describe(), "weights": self.evidence.document()}

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """What `document` returned.  Raises: LocalProtocolError for anything else."""
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise LocalProtocolError("this is not an encoding by weights of evidence")
        binner, found = Binner.from_document(document.get("bins")), Evidence.from_document(document.get("weights"))
        same = [f.column for f in binner.features] == [c.name for c in found.columns]
        if not same or any(len(c.groups) != f.used for c, f in zip(found.columns, binner.features, strict=True)):
            raise LocalProtocolError("the kept bins and weights are of different columns")
        return cls(binner, found)

    def schema_hash(self) -> str:
        """SHA-256, in hex, of what the inputs are: columns, kinds and levels in order; not of any statistic."""
        schema = [[f.column, f.kind, list(f.levels)] for f in self.binner.features]
        return hashlib.sha256(b"accord-woe-schema-1\n" + json.dumps(schema).encode()).hexdigest()


def fit_woe(
    session: Session,
    columns: Mapping[str, Column],
    features: Sequence[Feature],
    y: npt.NDArray[Any] | None,
    bins: tuple[int, int],
    settings: Settings,
) -> WoeEncoder:
    """Fit the encoding on training rows; every owner calls this at once with its own.

    columns: of the training rows only.  features: numbers and categories.  y: their labels, zeros and ones, at exactly one
    owner.  bins: of each column, and the fewest rows of a category's level with a bin of its own.

    Reveals: as `vertical.woe.evidence`.
    Cost: as `vertical.woe.evidence`.
    Security: as `vertical.woe.evidence`.
    Source: as `vertical.woe.evidence`.
    Raises: as `vertical.woe.evidence`; LocalProtocolError for a text column.
    """
    wrong = [feature.column for feature in features if feature.kind == "text"]
    if wrong:
        raise LocalProtocolError(f"column '{wrong[0]}' is text, which has no weight of evidence")
    rows = len(next(iter(columns.values())))
    binner = Binner.fit(columns, features, np.ones(rows, dtype=bool), bins[0], rare_category=bins[1])
    return WoeEncoder(binner, evidence(session, binner, binner.transform(columns), y, settings, FIRST))
