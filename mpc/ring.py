"""Words of Z_2^64 and Z_2^32: exact, wrapping products, histograms, and fixed point.

An operand is either ring words (uint64 or uint32, which name the ring) or an owner's integers (int16, int32 or int64), which
stand for their residues.  Results are words.  The kernels are numba's, or NumPy's where numba is missing, with the same
results: see docs/kernels.md.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[Any]

SIGNED: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.uint64): np.dtype(np.int64),
    np.dtype(np.uint32): np.dtype(np.int32),
}
INTEGERS = (np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64))
BINS = (np.dtype(np.uint8), np.dtype(np.uint16))


def _load() -> ModuleType:
    try:
        from mpc import ring_numba
    except ImportError:
        from mpc import ring_numpy

        return ring_numpy
    return ring_numba


kernels = _load()
"""`mpc.ring_numba` if it can be imported, otherwise `mpc.ring_numpy`."""


def _ring(*operands: Words) -> np.dtype[Any]:
    """The word type of the ring that the operands live in; integers alone live in Z_2^64."""
    words = {x.dtype for x in operands if x.dtype not in INTEGERS}
    if len(words) > 1 or not words <= SIGNED.keys():
        raise ValueError(f"no ring holds operands of types {', '.join(str(x.dtype) for x in operands)}")
    return words.pop() if words else np.dtype(np.uint64)


def _ready(x: Words, ring: np.dtype[Any]) -> Words:
    """x as signed numbers no wider than the ring, contiguous in either order.

    Always a read-only view, for the compiler makes two kernels of one that is given both kinds.
    """
    signed = SIGNED[ring]
    if x.dtype == ring:
        x = x.view(signed)
    elif x.dtype.itemsize > ring.itemsize:
        x = x.astype(signed)  # keeps the low bits, which are the residue
    if not x.flags.aligned or not (x.flags.c_contiguous or x.flags.f_contiguous):
        x = np.array(x, order="C")
    view = x.view()
    view.flags.writeable = False
    return view


def _vector(v: Words, ring: np.dtype[Any]) -> Words:
    return _ready(_ready(v, ring).astype(SIGNED[ring], copy=False), ring)


def times(X: Words, v: Words) -> Words:
    """X v in the ring.  X: (n, d) words or integers; v: (d,) words or integers; returns (n,) words.

    Raises: ValueError if the shapes do not fit or the operands are of two rings.
    """
    ring = _ring(X, v)
    if X.ndim != 2 or v.shape != X.shape[1:]:
        raise ValueError(f"shapes {X.shape} and {v.shape} do not multiply")
    A, b = _ready(X, ring), _vector(v, ring)
    out: Words = kernels.times(A, b) if A.flags.c_contiguous else kernels.transpose_times(A.T, b)
    return out.view(ring)


def transpose_times(X: Words, v: Words) -> Words:
    """X^T v in the ring.  X: (n, d) words or integers; v: (n,) words or integers; returns (d,) words.

    Raises: as `times`.
    """
    return times(X.T, v)


def matmul(A: Words, B: Words) -> Words:
    """A B in the ring.  A: (n, d), B: (d, k), words or integers in any layout; returns (n, k) words.

    Raises: as `times`.
    """
    ring = _ring(A, B)
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[0]:
        raise ValueError(f"shapes {A.shape} and {B.shape} do not multiply")
    if B.shape[1] == 1:
        return times(A, B[:, 0]).reshape(-1, 1)
    if A.shape[0] == 1:
        return times(B.T, A[0]).reshape(1, -1)
    out: Words = kernels.matmul(_ready(A, ring), _ready(B, ring), SIGNED[ring])
    return out.view(ring)


def transpose_matmul(A: Words, B: Words) -> Words:
    """A^T B in the ring.  A: (n, d), B: (n, k), words or integers in any layout; returns (d, k) words.

    Raises: as `times`.
    """
    return matmul(A.T, B)


def histogram(bins: Words, values: Words, n_bins: int) -> Words:
    """Sums of rows of `values` per feature and bin, in the ring.

    bins: (n, d) uint8 or uint16, each below n_bins; values: (n, k) words or integers; returns (d, n_bins, k) words.

    Raises: ValueError if the shapes or types do not fit or a bin is out of range.
    """
    ring = _ring(values)
    if bins.ndim != 2 or bins.dtype not in BINS or values.ndim != 2 or len(bins) != len(values):
        raise ValueError(f"bins {bins.shape} {bins.dtype} and values {values.shape} make no histogram")
    if n_bins < 0 or (bins.size and int(bins.max()) >= n_bins):
        raise ValueError(f"a bin is not below {n_bins}")
    index = np.require(bins, requirements=("C", "A")).view()
    index.flags.writeable = False
    table: Words = kernels.histogram(index, _vector(np.ascontiguousarray(values), ring), n_bins)
    return table.view(ring)


def encode(values: npt.ArrayLike, frac_bits: int) -> Words:
    """Fixed point: round(values * 2^frac_bits) as ring words.

    Raises: ValueError if a value is not finite or its encoding needs more than 62 bits.
    """
    scaled = np.rint(np.asarray(values, dtype=np.float64) * 2.0**frac_bits)
    if not np.isfinite(scaled).all() or np.abs(scaled).max(initial=0) >= 2.0**62:
        raise ValueError(f"a value does not fit fixed point with {frac_bits} fractional bits")
    return scaled.astype(np.int64).view(np.uint64)


def decode(words: Words, frac_bits: int) -> npt.NDArray[np.float64]:
    """Real numbers of opened ring words with `frac_bits` fractional bits."""
    return words.view(np.int64).astype(np.float64) * 2.0**-frac_bits


def warm_up() -> None:
    """Load or compile the kernels that the protocols use: products in Z_2^64."""
    words = np.zeros(4, dtype=np.uint64)
    for dtype in (np.int16, np.int32, np.uint64):
        matrix = np.zeros((4, 4), dtype=dtype)
        times(matrix, words)
        transpose_times(matrix, words)
    for n, d, k in ((20, 2, 80), (80, 2, 20), (2, 2, 20), (20, 2, 2)):
        matmul(np.zeros((n, d), dtype=np.uint64), np.zeros((d, k), dtype=np.uint64))
