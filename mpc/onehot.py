"""What the owner of a matrix computes with it alone: products with words, for integers, for words and for one-hot codes.

A one-hot matrix is never expanded by its owner for a product: X v gathers rows of v by code, X^T v is a histogram.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.ring import BINS, histogram, matmul

Words = npt.NDArray[Any]


@dataclass(frozen=True)
class OneHot:
    """An (n, d * n_bins) matrix of zeros and ones, given as codes: one 1 in each row for every feature.

    codes: (n, d) or (n,) uint8 or uint16, each below n_bins.  Column f * n_bins + b says whether feature f is in bin b.

    Raises: LocalProtocolError if the codes are of another type or too large.
    """

    codes: Words = field(repr=False)
    n_bins: int

    def __post_init__(self) -> None:
        if self.codes.ndim not in (1, 2) or self.codes.dtype not in BINS:
            raise LocalProtocolError(f"codes are (n,) or (n, d) uint8 or uint16, not {self.codes.shape}")
        if self.n_bins < 1 or int(self.codes.max(initial=0)) >= self.n_bins:
            raise LocalProtocolError(f"a code is not below the number of bins, {self.n_bins}")
        if self.codes.ndim == 1:
            object.__setattr__(self, "codes", self.codes[:, None])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that the codes stand for."""
        n, d = self.codes.shape
        return n, d * self.n_bins

    def frozen(self) -> OneHot:
        """A copy whose codes cannot be changed."""
        return OneHot(frozen(self.codes), self.n_bins)

    def add_to(self, out: Words, values: Words | None = None) -> None:
        """Add row i's value, or 1, to the places of its ones in `out`, C-contiguous words of our shape."""
        places = np.arange(self.codes.size) * self.n_bins + self.codes.reshape(-1)
        # No place comes twice, so the indexed addition loses nothing.
        out.reshape(-1)[places] += out.dtype.type(1) if values is None else np.repeat(values, self.codes.shape[1])

    def times(self, v: Words) -> Words:
        """X v.  v: (columns, k) words; returns (n, k)."""
        table = v.reshape(self.codes.shape[1], self.n_bins, v.shape[1])
        out = np.zeros((len(self.codes), v.shape[1]), dtype=v.dtype)
        for rows, code in zip(table, self.codes.T, strict=True):
            out += rows[code]
        return out

    def transpose_times(self, v: Words) -> Words:
        """X^T v.  v: (n, k) words; returns (columns, k)."""
        return histogram(self.codes, v, self.n_bins).reshape(self.shape[1], v.shape[1])

    def cross(self, other: OneHot, weights: Words) -> Words:
        """X^T diag(weights) Y for another one-hot Y: sums over the rows that share a pair of bins."""
        a, b = self.n_bins, other.n_bins
        out = np.zeros((self.codes.shape[1], a, other.codes.shape[1], b), dtype=weights.dtype)
        for f, left in enumerate(self.codes.T):
            for g, right in enumerate(other.codes.T):
                cells = np.zeros(a * b, dtype=weights.dtype)
                np.add.at(cells, left.astype(np.intp) * b + right, weights)
                out[f, :, g] = cells.reshape(a, b)
        return out.reshape(self.shape[1], other.shape[1])


Matrix = Words | OneHot
"""A matrix as its owner holds it."""


def frozen(x: Words) -> Words:
    """A C-contiguous copy that cannot be written, not even by setting its flag: it lies in an immutable bytes object."""
    out: Words = np.frombuffer(x.tobytes(), dtype=x.dtype) if x.size else np.empty(0, dtype=x.dtype)
    out.flags.writeable = False
    return out.reshape(x.shape)


def is_frozen(X: Matrix) -> bool:
    """Whether `frozen` made it: nothing that Python or NumPy offers can write to it."""
    x: Any = X.codes if isinstance(X, OneHot) else X
    if x.size == 0:
        return True
    while isinstance(x, np.ndarray):
        if x.flags.writeable:
            return False
        x = x.base
    return isinstance(x, bytes)


def product(X: Matrix, v: Words, *, transpose: bool) -> Words:
    """X v or X^T v in the ring of v's words.  v: (columns or n, k); returns (n or columns, k)."""
    if isinstance(X, OneHot):
        return X.transpose_times(v) if transpose else X.times(v)
    return matmul(X.T if transpose else X, v)


def scaled(X: Matrix, weights: Words) -> Words:
    """diag(weights) X as words of the weights' ring, expanded."""
    if isinstance(X, OneHot):
        out = np.zeros(X.shape, dtype=weights.dtype)
        X.add_to(out, weights)
        return out
    out = X.astype(weights.dtype)
    out *= weights[:, None]
    return out


def cross(X: Matrix, Y: Matrix, weights: Words) -> Words:
    """X^T diag(weights) Y in the ring of the weights."""
    if isinstance(X, OneHot) and isinstance(Y, OneHot):
        return X.cross(Y, weights)
    if isinstance(Y, OneHot):
        return np.ascontiguousarray(product(Y, scaled(X, weights), transpose=True).T)
    return product(X, scaled(Y, weights), transpose=True)
