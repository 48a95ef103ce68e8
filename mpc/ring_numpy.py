"""The ring's kernels in NumPy alone, for a machine without numba: the same functions and the same results, slower.

Operands are as in `mpc.ring_numba`.  Products of matrices go through float64 BLAS in 16-bit limbs: a limb's product has at
most 32 bits, so that BLOCK of them add up below 2^53, where float64 is still exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[Any]

LIMB_BITS = 16
BLOCK = 1 << 20
"""Elements of an operand split into limbs at a time, so also a bound on the inner dimension of one BLAS call."""
FEW = 32
"""Up to this many rows or columns, one pass for each is faster than splitting the other operand."""
QUARTER = np.uint16(1 << 14)
COARSE, FINE_BITS = 4096, 20
FINE_STEP = 6.283185307179586 / (1 << 32)


def times(X: Words, v: Words) -> Words:
    """X v; v is of the ring's signed type."""
    out: Words = np.einsum("ij,j->i", X, v, dtype=v.dtype, casting="safe")
    return out


def transpose_times(X: Words, v: Words) -> Words:
    """X^T v; v is of the ring's signed type."""
    out: Words = np.einsum("ij,i->j", X, v, dtype=v.dtype, casting="safe")
    return out


def _limbs(X: Words) -> list[npt.NDArray[np.float64]]:
    """X = sum over i of limb_i 2^(16 i); all but the last are unsigned."""
    last = X.dtype.itemsize * 8 // LIMB_BITS - 1
    low = [(X >> LIMB_BITS * i) & ((1 << LIMB_BITS) - 1) for i in range(last)] if last else []
    return [limb.astype(np.float64) for limb in (*low, X >> LIMB_BITS * last)]


def _blocks(size: int, length: int) -> Iterator[slice]:
    """Slices of at most `length` that cover range(size)."""
    return (slice(start, min(size, start + length)) for start in range(0, size, length))


def matmul(A: Words, B: Words, word: Any) -> Words:
    """A B for operands of any layout."""
    (n, d), k = A.shape, B.shape[1]
    if 0 < n < k and n <= FEW:
        return np.ascontiguousarray(matmul(B.T, A.T, word).T)
    if 0 < k <= FEW:
        return np.stack([times(A, np.ascontiguousarray(column, dtype=word)) for column in B.T], axis=1)
    ring_limbs = np.dtype(word).itemsize * 8 // LIMB_BITS
    out = np.zeros((n, k), dtype=word)
    for inner in _blocks(d, max(1, BLOCK // max(1, k))):
        right = _limbs(B[inner])
        for rows in _blocks(n, max(1, BLOCK // (inner.stop - inner.start))):
            for i, a in enumerate(_limbs(A[rows, inner])):
                for j, b in enumerate(right[: max(0, ring_limbs - i)]):
                    out[rows] += (a @ b).astype(np.int64).astype(word) << np.dtype(word).type(LIMB_BITS * (i + j))
    return out


def histogram(bins: Words, values: Words, n_bins: int) -> Words:
    """Sums of `values` per feature and bin; every bin must be below n_bins."""
    out = np.zeros((bins.shape[1], values.shape[1], n_bins), dtype=values.dtype)
    columns = np.ascontiguousarray(values.T)
    for feature, sums in zip(bins.T, out, strict=True):
        index = feature.astype(np.intp)
        for column, total in zip(columns, sums, strict=True):
            np.add.at(total, index, column)
    return np.ascontiguousarray(out.transpose(0, 2, 1))


def _rounded(table: Words, angles: Words, scale: float) -> Words:
    # The table is float32 and the product float64, as in the compiled kernel.
    return np.rint(table[angles].astype(np.float64) * np.float64(scale)).astype(np.int64)


def basis(r: Words, harmonics: Words, table: Words, scale: float) -> Words:
    """Rows 2q and 2q+1: the table's cosine and sine of harmonic q at angle r, times `scale`, rounded.  (2K, n) int64."""
    out = np.empty((2 * harmonics.size, r.size), dtype=np.int64)
    for q, k in enumerate(harmonics.astype(np.uint16)):
        angles = r * k
        out[2 * q] = _rounded(table, angles + QUARTER, scale)
        out[2 * q + 1] = _rounded(table, angles, scale)
    return out


def series(m: Words, harmonics: Words, coefs: Words, table: Words, shares: Words) -> Words:
    """Sum over q of coefs[q] (sin(k m) shares[2q] - cos(k m) shares[2q+1]), each factor rounded.  (n,) int64."""
    out = np.zeros(m.size, dtype=np.int64)
    for q, k in enumerate(harmonics.astype(np.uint16)):
        angles = m * k
        out += _rounded(table, angles, coefs[q]) * shares[2 * q]
        out -= _rounded(table, angles + QUARTER, coefs[q]) * shares[2 * q + 1]
    return out


def moments(m: Words, harmonics: Words, scale: float, table: Words, shares: Words) -> Words:
    """Sums over the angles of the cosines and sines of m minus the shared angle.  (2, K) int64."""
    out = np.zeros((2, harmonics.size), dtype=np.int64)
    for q, k in enumerate(harmonics.astype(np.uint16)):
        angles = m * k
        s, c = _rounded(table, angles, scale), _rounded(table, angles + QUARTER, scale)
        out[0, q] = (c * shares[2 * q] + s * shares[2 * q + 1]).sum()
        out[1, q] = (s * shares[2 * q] - c * shares[2 * q + 1]).sum()
    return out


def add_products(c: Words, e: Words, d: Words, a: Words, b: Words, whole: bool) -> None:
    """Add e b + a d, and e d if `whole`, to c; flat words of one type."""
    c += e * (b + d if whole else b)
    c += a * d


def _rotations(angles: Words, table: Words) -> Words:
    """Cosine and sine of 32-bit angles: (2, n), by the same steps as the compiled kernel."""
    wide = angles.astype(np.int64)
    b = (wide & ((1 << FINE_BITS) - 1)).astype(np.float64) * FINE_STEP
    b2 = b * b
    cb = 1.0 - b2 * (0.5 - b2 * (1 / 24))
    sb = b - b * b2 * (1 / 6)
    h = wide >> FINE_BITS
    C, S = table[(h + COARSE // 4) & (COARSE - 1)], table[h]
    return np.stack([C * cb - S * sb, S * cb + C * sb])


def _harmonics(angles: Words, step: int, count: int, table: Words) -> Iterator[tuple[Words, Words]]:
    c, s = _rotations(angles, table)
    tc, ts = (c * c - s * s, 2.0 * (c * s)) if step == 2 else (c, s)
    for _ in range(count):
        yield c, s
        c, s = c * tc - s * ts, s * tc + c * ts


def _whole(values: Words) -> Words:
    return np.rint(values).astype(np.int64)


def waves(r: Words, step: int, count: int, scale: float, table: Words) -> Words:
    """Rows 2q and 2q+1: cosine and sine of 1 + step * q times the 32-bit angle r, times `scale`, rounded.  (2K, n) int64."""
    out = np.empty((2 * count, r.size), dtype=np.int64)
    for q, (c, s) in enumerate(_harmonics(r, step, count, table)):
        out[2 * q], out[2 * q + 1] = _whole(c * scale), _whole(s * scale)
    return out


def combine(m: Words, step: int, coefs: Words, table: Words, shares: Words) -> Words:
    """Sum over q of a_q cos k(m - r) + b_q sin k(m - r), from shares of cos k r and sin k r; each factor rounded.  (n,) int64.

    k = 1 + step * q.  coefs: (2, K), the a_q and the b_q.
    """
    out = np.zeros(m.size, dtype=np.int64)
    for q, (c, s) in enumerate(_harmonics(m, step, coefs.shape[1], table)):
        a, b = coefs[:, q]
        out += _whole(a * c + b * s) * shares[2 * q]
        out += _whole(a * s - b * c) * shares[2 * q + 1]
    return out
