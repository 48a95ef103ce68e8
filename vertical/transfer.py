"""Few shared customers, many of one's own: inputs that every owner learns alone on all of its rows, for a joint head.

With a thousand matched rows, a joint model of a hundred columns has little to learn from; but each owner has far more rows
that nobody else has.  An owner's columns, encoded on all of its rows, are turned into their leading principal components
there.  The owner of the label also has labels for rows that are not shared: it fits a local model on those, and the joint
head gets that model's log-odds instead of components.  The head, a generalised linear model or a network, is trained on the
shared rows as ever and sees only these inputs.  They are few on purpose: what the head has to learn from is little.

All of this is local.  Nothing is sent, so nothing is revealed; what the head reveals is up to the head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.bool_]
FORMAT = "accord-transfer-1"
LIMIT = 8.0
"""Inputs of the head are limited to so many standard deviations."""
LEAST_ROWS = 50
"""A local model is not fitted on fewer rows of either class."""


@dataclass(frozen=True)
class TransferSettings:
    """variance: how much of all columns' variance the components keep.  dims: at most so many.  ridge: of the local model."""

    variance: float = 0.7
    dims: int = 128
    ridge: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.variance <= 1 and 1 <= self.dims <= 4096 and self.ridge > 0):
            raise LocalProtocolError("variance is above 0 and at most 1, dims from 1 to 4096, and the ridge above 0")


@dataclass(frozen=True)
class Representation:
    """What an owner has learned alone: how its encoded columns become the inputs of the joint head.

    mean: (d,), basis: (d, k) of the encoded columns; an input is (column - mean) times basis, and has mean 0 and variance 1
    over the rows that it was fitted on.  With a local model, k is 1.
    """

    mean: Floats = field(repr=False)
    basis: Floats = field(repr=False)

    @classmethod
    def fit(
        cls, inputs: Floats, settings: TransferSettings, y: Floats | None = None, unshared: Rows | None = None
    ) -> Self:
        """From all of our rows that may be learned from.

        inputs: (n, d) encoded columns.  y: (n,) labels 0/1, at the owner of the label.  unshared: which rows are of nobody
        else; the local model is fitted on those only, for its log-odds would be too good on rows that it has seen.

        Source: Pearson 1901 (principal components); Liu et al., IEEE Intelligent Systems 2020 (federated transfer with a
            joint head), here without its approximated loss.
        Raises: LocalProtocolError if there are no rows, or too few of either class.
        """
        n, d = inputs.shape
        if n < 2 or not np.isfinite(inputs).all():
            raise LocalProtocolError("a representation is learned from two rows or more, without missing values")
        mean = inputs.mean(axis=0)
        if y is not None:
            rows = np.ones(n, dtype=np.bool_) if unshared is None else unshared
            weights = _local_weights(inputs[rows], y[rows], settings.ridge)
            return cls(mean, _scaled(inputs, weights))
        values, vectors = np.linalg.eigh(np.cov(inputs.T, bias=True).reshape(d, d))
        values, vectors = values[::-1], vectors[:, ::-1]
        reached = np.cumsum(values) / max(float(values.sum()), 1e-300)
        k = min(settings.dims, int(np.searchsorted(reached, settings.variance - 1e-12)) + 1, int((values > 1e-9).sum()))
        if k < 1:
            raise LocalProtocolError("no column varies over the rows a representation is learned from")
        # The sign of a component is arbitrary: its largest entry is made positive, so that a fit can be repeated.
        chosen = vectors[:, :k]
        signs = np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(k)])
        return cls(mean, _scaled(inputs, chosen * signs))

    def transform(self, inputs: Floats) -> Floats:
        """(n, k) inputs of the joint head, for any encoded rows."""
        return np.clip((inputs - self.mean) @ self.basis, -LIMIT, LIMIT)

    def document(self) -> dict[str, Any]:
        """As plain data, for the owner's own part of a model."""
        return {
            "format": FORMAT,
            "mean": _texts(self.mean),
            "basis": [_texts(row) for row in self.basis],
        }

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """What `document` returned.  Raises: LocalProtocolError for anything else."""
        try:
            if document["format"] != FORMAT:
                raise ValueError("not a representation")
            mean, basis = _numbers(document["mean"]), np.array([_numbers(row) for row in document["basis"]])
            if basis.ndim != 2 or len(mean) != len(basis):
                raise ValueError("shapes do not fit")
        except (KeyError, TypeError, ValueError) as exc:
            raise LocalProtocolError("this is not a representation of columns, or it is damaged") from exc
        return cls(mean, basis)


def _local_weights(inputs: Floats, y: Floats, ridge: float) -> Floats:
    """(d, 1) weights of a logistic regression; its intercept is the head's business."""
    from sklearn.linear_model import LogisticRegression  # only the owner of the label pays for loading it

    if not np.isin(y, (0.0, 1.0)).all() or min((y == 0).sum(), (y == 1).sum()) < LEAST_ROWS:
        raise LocalProtocolError(f"a local model takes {LEAST_ROWS} rows or more of either class, labelled 0 and 1")
    return np.asarray(LogisticRegression(C=1 / ridge, max_iter=1000).fit(inputs, y).coef_.T, dtype=np.float64)


def _scaled(inputs: Floats, directions: Floats) -> Floats:
    """Directions, (d, k), so that what comes out of the rows has unit variance.

    Raises: LocalProtocolError if it does not vary.
    """
    sd = (inputs @ directions).std(axis=0)
    if (sd <= 0).any():
        raise LocalProtocolError("what was learned says the same of every row")
    return np.asarray(directions / sd)


def _texts(values: Floats) -> list[str]:
    return [repr(float(value)) for value in values]


def _numbers(texts: list[str]) -> Floats:
    if not all(type(text) is str for text in texts):
        raise ValueError("not numbers as text")
    out = np.array([float(text) for text in texts])
    if not np.isfinite(out).all():
        raise ValueError("not finite")
    return out
