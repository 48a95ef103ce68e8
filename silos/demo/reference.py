"""What the same job gives in the clear: only the demonstration and the tests can compute it, because they hold both sides.

Rows, hold-out and encoding are made by the very functions that the silos use, so the difference that remains is the
cryptography's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from silos.inputs import read_columns, read_identifiers
from silos.spec import Glm
from silos.tables import Source
from vertical.align import Identifiers
from vertical.encoding import Feature, fit
from vertical.linkage import pool
from vertical.split import holdout

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """scikit-learn's answers.

    matched, held_out: rows.  joint: AUC on held-out rows of the model on all columns; alone: of each silo's columns with
    the label.  coefficients: per silo, input name -> coefficient of the joint model; intercept: its intercept.
    """

    matched: int
    held_out: int
    joint: float
    alone: dict[str, float]
    coefficients: dict[str, dict[str, float]]
    intercept: float


def reference(spec: Glm, datasets: Mapping[str, Mapping[str, Any]]) -> Reference:
    """Join, encode, fit and score in the clear.  datasets: silo -> {"path", "format"}."""
    sources = {silo: Source(silo, datasets[silo]["format"], str(datasets[silo]["path"])) for silo in spec.owners}
    keys = tuple((key.rule, key.region) for key in spec.align.keys)
    rows: dict[str, dict[bytes, int]] = {}
    for party in spec.parties:
        batches = [i for b in read_identifiers(sources[party.silo], party.keys, Identifiers(keys)) for i in b]
        own = pool(batches, [rule for rule, _ in keys], spec.align.duplicates)
        rows[party.silo] = dict(zip(own.items, own.rows.tolist(), strict=True))
    first, second = spec.owners
    people = sorted(rows[first].keys() & rows[second].keys())
    held = holdout(people, bytes.fromhex(spec.evaluate.salt), spec.evaluate.holdout_percent)
    blocks: dict[str, Floats] = {}
    names: dict[str, list[str]] = {}
    for party in spec.parties:
        silo, encoding = party.silo, spec.encoding
        picked = np.array([rows[silo][person] for person in people], dtype=np.int64)
        columns = read_columns(sources[silo], party.number_columns, party.category_columns, silo)
        aligned = {name: column[picked] for name, column in columns.items()}
        encoder = fit(
            aligned,
            [Feature(f.column, f.as_) for f in party.features],
            ~held,
            winsorise_sd=encoding.winsorise_sd,
            rare_category=encoding.rare_category,
        )
        blocks[silo], names[silo] = encoder.transform(aligned), [item.name for item in encoder.inputs]
        if party.label is not None:
            y = aligned[party.label]
    ridge = float(spec.train.ridge)
    joint, model = _score(np.hstack([blocks[s] for s in spec.owners]), y, held, ridge)
    split = np.split(model.coef_[0], np.cumsum([blocks[s].shape[1] for s in spec.owners])[:-1])
    return Reference(
        matched=len(people),
        held_out=int(held.sum()),
        joint=joint,
        alone={silo: _score(blocks[silo], y, held, ridge)[0] for silo in spec.owners},
        coefficients={
            silo: dict(zip(names[silo], map(float, part), strict=True))
            for silo, part in zip(spec.owners, split, strict=True)
        },
        intercept=float(model.intercept_[0]),
    )


def _score(
    X: Floats, y: npt.NDArray[Any], held: npt.NDArray[np.bool_], ridge: float
) -> tuple[float, LogisticRegression]:
    model = LogisticRegression(C=1 / ridge, tol=1e-8, max_iter=5000).fit(X[~held], y[~held])
    return float(roc_auc_score(y[held], model.decision_function(X[held]))), model
