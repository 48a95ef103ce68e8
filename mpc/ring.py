"""Kernels on words of Z_2^64: exact, wrapping, one pass over memory.

Matrices are row-major.  A matrix is either an owner's small integers (int16, or int64 for tiny ones) or uniform ring words
(uint64); vectors and results are uint64 words.  Compiled by numba on first use and cached on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Words = npt.NDArray[Any]


@njit(cache=True, nogil=True)
def _times(X: Words, v: Words, out: Words) -> None:  # pragma: no cover - compiled
    n, d = X.shape
    for i in range(n):
        acc = np.int64(0)
        for j in range(d):
            acc += np.int64(X[i, j]) * v[j]
        out[i] = acc


@njit(cache=True, nogil=True)
def _transpose_times(X: Words, v: Words, out: Words) -> None:  # pragma: no cover - compiled
    n, d = X.shape
    whole = n - n % 4
    for i in range(0, whole, 4):
        a, b, c, e = v[i], v[i + 1], v[i + 2], v[i + 3]
        for j in range(d):
            out[j] += (
                np.int64(X[i, j]) * a
                + np.int64(X[i + 1, j]) * b
                + np.int64(X[i + 2, j]) * c
                + np.int64(X[i + 3, j]) * e
            )
    for i in range(whole, n):
        for j in range(d):
            out[j] += np.int64(X[i, j]) * v[i]


def _signed(X: Words) -> Words:
    return X.view(np.int64) if X.dtype == np.uint64 else X


def times(X: Words, v: Words) -> Words:
    """X v mod 2^64.  X: (n, d) int16, int64 or uint64; v: (d,) uint64; returns (n,) uint64."""
    out = np.zeros(X.shape[0], dtype=np.int64)
    _times(_signed(X), _signed(v), out)
    return out.view(np.uint64)


def transpose_times(X: Words, v: Words) -> Words:
    """X^T v mod 2^64.  X: (n, d) int16, int64 or uint64; v: (n,) uint64; returns (d,) uint64."""
    out = np.zeros(X.shape[1], dtype=np.int64)
    _transpose_times(_signed(X), _signed(v), out)
    return out.view(np.uint64)


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
    """Load or compile this module's kernels."""
    words = np.zeros(4, dtype=np.uint64)
    for dtype in (np.int16, np.int64, np.uint64):
        matrix = np.zeros((4, 4), dtype=dtype)
        times(matrix, words)
        transpose_times(matrix, words)
