"""An owner's inputs in coordinates in which a step needs no tuning: its own block whitened, in the clear.

For inputs X of n rows the change of basis T has T^T (c X^T X + ridge I) T = n I, where c is about the largest Fisher weight.
So every owner's part of the Hessian is at most n I, whatever the scales and correlations of its columns; those between
owners remain.  Columns that depend on one another within the owner's block lose directions, not digits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.rng import Prg

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]

INPUT_BITS = 10
"""Fractional bits of a whitened input, rounded at random: a column of two values is not shifted as a whole, as it would be if
all rows of one value were rounded the same way."""
SMALLEST = 1e-9
"""Directions with less of the largest variance than this are taken for exact dependence."""


@dataclass(frozen=True)
class Block:
    """One owner's part.

    basis: T (d, r).  inputs: X T, (n, r), and at the owner of the label a last, constant column; integers with INPUT_BITS.
    ridge: the penalty in these coordinates, square.  constant: the intercept's input, 0 without one.  dependent: (d,), true
    for a column that is a combination of others of this owner.
    """

    basis: Floats = field(repr=False)
    inputs: Words = field(repr=False)
    ridge: Floats = field(repr=False)
    constant: float
    dependent: npt.NDArray[np.bool_] = field(repr=False)

    def rows(self) -> tuple[Floats, Floats]:
        """What takes u to coefficients, the intercept's last: rows of length 1, and the lengths that they had."""
        full = self.basis
        if self.constant:
            full = np.pad(full, ((0, 1), (0, 1)))
            full[-1, -1] = self.constant
        lengths = np.linalg.norm(full, axis=1)
        return full / np.where(lengths > 0, lengths, 1)[:, None], lengths

    def coefficients(self, u: Floats) -> tuple[Floats, Floats | None]:
        """Coefficients of the standardised inputs and the intercept, for u of shape (columns,) or (columns, outputs)."""
        if not self.constant:
            return self.basis @ u, None
        return self.basis @ u[:-1], np.atleast_1d(u[-1] * self.constant)


def constant_input(curvature: float) -> float:
    """The intercept's input, which gives it the curvature of a whitened column, rounded as inputs are."""
    return float(np.rint(2.0**INPUT_BITS / np.sqrt(curvature)) / 2**INPUT_BITS)


def whiten(X: Floats, ridge: float, curvature: float, *, intercept: bool) -> Block:
    """Whiten a block of inputs.  X: (n, d).

    Raises: LocalProtocolError if a value is not finite or no column varies and there is no intercept.
    """
    n, d = X.shape
    if not np.isfinite(X).all():
        raise LocalProtocolError("an input of ours is not a finite number")
    second = X.T @ X / n
    values, vectors = np.linalg.eigh(curvature * second + ridge / n * np.eye(d))
    kept = values > SMALLEST * max(values.max(initial=0.0), 1e-12)
    lost = vectors[:, ~kept]
    dependent = (lost**2).sum(axis=1) > 1e-6
    basis = vectors[:, kept] / np.sqrt(values[kept])
    if basis.shape[1] == 0 and not intercept:
        raise LocalProtocolError("none of our inputs varies")
    inputs, penalty = X @ basis, ridge * basis.T @ basis
    constant = 0.0
    if intercept:
        constant = constant_input(curvature)
        inputs = np.column_stack([inputs, np.full(n, constant)])
        penalty = np.pad(penalty, ((0, 1), (0, 1)))
    return Block(basis, _integers(inputs), penalty, constant, dependent)


def _integers(inputs: Floats) -> Words:
    """In steps of 2^-INPUT_BITS, up or down at random so that the mean is right; what is whole, as the constant is, stays.

    No entry exceeds sqrt(n / curvature), so that four bytes are enough, two where they can be.  The generator's key is a digest
    of the inputs, which nobody else has: training that goes on after a crash rounds them as before.
    """
    key = hashlib.sha256(np.ascontiguousarray(inputs).view(np.uint8).data).digest()
    uniform = Prg(key).words(inputs.shape, np.uint32)
    scaled = np.floor(inputs * 2.0**INPUT_BITS + uniform * 2.0**-32)
    largest = float(np.abs(scaled).max(initial=0.0))
    if largest >= 2**31:
        raise LocalProtocolError("an input of ours is too large")
    return np.asarray(scaled.astype(np.int16 if largest < 2**15 else np.int32))
