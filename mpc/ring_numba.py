"""The ring's kernels compiled by numba: exact modulo 2^64 or 2^32, one thread, no Python lock held, cached on disk.

Everything is signed here, because numba turns a product of signed and unsigned words into a float; two's complement wraps
the same.  `word` is the ring's signed type: int64 or int32.  Operands are C-contiguous unless said, of `word` or narrower.
`mpc.ring` checks and prepares them, and is what to call.  `mpc.ring_numpy` has the same functions with the same results.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compiled import compiled as _compiled

Words = npt.NDArray[Any]

WIDTH = 64
"""Columns of a packed tile.  A constant, so that the compiler unrolls and vectorises the innermost loop without checks."""
DEPTH = 256
"""Rows of a packed tile: WIDTH * DEPTH words fit the second-level cache of any recent CPU."""
FEW = 16
"""Up to this many rows or columns, packing the other operand costs more than it saves."""
STRIP, SPAN = 64, 1024
"""Rows and columns of the wide operand kept in cache while every row of the narrow one passes over them."""
LONG = 1024
"""Up to this many columns the sums stay in the nearest cache, and a transposed product takes one row at a time, else four."""
SLAB = 1 << 15
"""Words of a histogram filled at a time: they fit the second-level cache."""

WAVES = 512
"""Angles worked on at once: their cosines and sines fit the nearest cache."""
COARSE, FINE_BITS = 4096, 20
"""Entries of a table of sines, and the bits of a 32-bit angle below them."""
FINE_MASK, FINE_STEP = (1 << FINE_BITS) - 1, 6.283185307179586 / (1 << 32)
SIXTH, SIXTH4 = 1 / 6, 1 / 24
ROUNDER, ROUNDER_BITS = 6755399441055744.0, 0x4338000000000000
"""1.5 * 2^52, and its bits: a number below 2^51 added to it is rounded to an integer, which is the difference of the bits."""


@_compiled
def _times(X: Words, v: Words, out: Words) -> None:  # pragma: no cover - compiled
    word = out.dtype.type
    n, d = X.shape
    for i in range(n):
        acc = word(0)
        for j in range(d):
            acc = word(acc + word(X[i, j]) * v[j])
        out[i] = acc


@_compiled
def _transpose_times(X: Words, v: Words, out: Words) -> None:  # pragma: no cover - compiled
    word = out.dtype.type
    n, d = X.shape
    whole = n - n % 4 if d > LONG else 0
    for i in range(0, whole, 4):
        a, b, c, e = v[i], v[i + 1], v[i + 2], v[i + 3]
        for j in range(d):
            out[j] += word(X[i, j]) * a + word(X[i + 1, j]) * b + word(X[i + 2, j]) * c + word(X[i + 3, j]) * e
    for i in range(whole, n):
        for j in range(d):
            out[j] += word(X[i, j]) * v[i]


@_compiled
def _few_rows(A: Words, B: Words, out: Words) -> None:  # pragma: no cover - compiled
    """out += A B for few rows of A (any layout): whole rows of B, added up four at a time."""
    word = out.dtype.type
    n, d = A.shape
    k = B.shape[1]
    for left in range(0, k, SPAN):
        right = min(k, left + SPAN)
        for first in range(0, d, STRIP):
            last = min(d, first + STRIP)
            whole = last - (last - first) % 4
            for i in range(n):
                for j in range(first, whole, 4):
                    a, b, c, e = word(A[i, j]), word(A[i, j + 1]), word(A[i, j + 2]), word(A[i, j + 3])
                    x, y, z, w = B[j][left:right], B[j + 1][left:right], B[j + 2][left:right], B[j + 3][left:right]
                    total = out[i][left:right]
                    for q in range(total.size):  # from zero: then no index can be negative, and the loop vectorises
                        total[q] += a * word(x[q]) + b * word(y[q]) + c * word(z[q]) + e * word(w[q])
                for j in range(whole, last):
                    a, x, total = word(A[i, j]), B[j][left:right], out[i][left:right]
                    for q in range(total.size):
                        total[q] += a * word(x[q])


@_compiled
def _dots(A: Words, B: Words, out: Words) -> None:  # pragma: no cover - compiled
    """Out = A B^T for few rows of B: inner products, four at a time, so that a row of A is read once for four."""
    word = out.dtype.type
    n, d = A.shape
    k = B.shape[0]
    whole = k - k % 4
    for i in range(n):
        for q in range(0, whole, 4):
            a, b, c, e = word(0), word(0), word(0), word(0)
            for j in range(d):
                x = word(A[i, j])
                a = word(a + x * word(B[q, j]))
                b = word(b + x * word(B[q + 1, j]))
                c = word(c + x * word(B[q + 2, j]))
                e = word(e + x * word(B[q + 3, j]))
            out[i, q], out[i, q + 1], out[i, q + 2], out[i, q + 3] = a, b, c, e
        for q in range(whole, k):
            a = word(0)
            for j in range(d):
                a = word(a + word(A[i, j]) * word(B[q, j]))
            out[i, q] = a


@_compiled
def _tile(A: Words, i: int, first: int, depth: int, panel: Words, acc: Words) -> None:  # pragma: no cover - compiled
    """acc (2 * WIDTH) += rows i and i + 1 of A times the panel; depth is a multiple of four."""
    word = acc.dtype.type
    for q in range(0, depth, 4):
        j = first + q
        a0, a1, a2, a3 = word(A[i, j]), word(A[i, j + 1]), word(A[i, j + 2]), word(A[i, j + 3])
        b0, b1, b2, b3 = word(A[i + 1, j]), word(A[i + 1, j + 1]), word(A[i + 1, j + 2]), word(A[i + 1, j + 3])
        rows = panel[q * WIDTH : (q + 4) * WIDTH]
        for c in range(WIDTH):
            x, y, z, w = rows[c], rows[WIDTH + c], rows[2 * WIDTH + c], rows[3 * WIDTH + c]
            acc[c] += a0 * x + a1 * y + a2 * z + a3 * w
            acc[WIDTH + c] += b0 * x + b1 * y + b2 * z + b3 * w


@_compiled
def _packed(A: Words, B: Words, out: Words) -> None:  # pragma: no cover - compiled
    """out += A B, any layouts: B is copied tile by tile, and every pair of rows of A passes over the tile."""
    word = out.dtype.type
    n, d = A.shape
    k = B.shape[1]
    panel = np.zeros(DEPTH * WIDTH, out.dtype)
    acc = np.zeros(2 * WIDTH, out.dtype)
    for left in range(0, k, WIDTH):
        width = min(WIDTH, k - left)
        for first in range(0, d, DEPTH):
            depth = min(DEPTH, d - first)
            whole = depth - depth % 4
            for q in range(depth):
                for c in range(width):
                    panel[q * WIDTH + c] = word(B[first + q, left + c])
            for i in range(0, n, 2):
                pair = min(2, n - i)
                acc[:] = 0
                if pair == 2:
                    _tile(A, i, first, whole, panel, acc)
                for r in range(pair):
                    for q in range(whole if pair == 2 else 0, depth):
                        a = word(A[i + r, first + q])
                        for c in range(WIDTH):
                            acc[r * WIDTH + c] += a * panel[q * WIDTH + c]
                    for c in range(width):
                        out[i + r, left + c] += acc[r * WIDTH + c]


@_compiled
def _histogram(bins: Words, values: Words, out: Words) -> None:  # pragma: no cover - compiled
    n, d = bins.shape
    n_bins, k = out.shape[1:]
    slab = max(1, SLAB // max(1, n_bins * k))
    for first in range(0, d, slab):
        last = min(d, first + slab)
        for i in range(n):
            if k == 1:
                for f in range(first, last):
                    out[f, bins[i, f], 0] += values[i, 0]
            elif k == 2:
                for f in range(first, last):
                    b = bins[i, f]
                    out[f, b, 0] += values[i, 0]
                    out[f, b, 1] += values[i, 1]
            else:
                for f in range(first, last):
                    b = bins[i, f]
                    for c in range(k):
                        out[f, b, c] += values[i, c]


@_compiled
def _rotations(
    angles: Words, table: Words, step: int, first: Words, turn: Words
) -> None:  # pragma: no cover - compiled
    """Cosine and sine of 32-bit angles, and of `step` (1 or 2) times them; rows of (2, n)."""
    for i in range(angles.size):
        a = np.int64(angles[i])
        b = np.float64(a & FINE_MASK) * FINE_STEP
        b2 = b * b
        cb = 1.0 - b2 * (0.5 - b2 * SIXTH4)
        sb = b - b * b2 * SIXTH
        h = a >> FINE_BITS
        C, S = table[(h + COARSE // 4) & (COARSE - 1)], table[h]
        first[0, i] = C * cb - S * sb
        first[1, i] = S * cb + C * sb
    for i in range(angles.size):
        c, s = first[0, i], first[1, i]
        if step == 2:
            turn[0, i] = c * c - s * s
            turn[1, i] = 2.0 * (c * s)
        else:
            turn[0, i] = c
            turn[1, i] = s


@_compiled
def _turned(now: Words, turn: Words) -> None:  # pragma: no cover - compiled
    """From one harmonic to the next, in place."""
    for i in range(now.shape[1]):
        c, s, tc, ts = now[0, i], now[1, i], turn[0, i], turn[1, i]
        now[0, i] = c * tc - s * ts
        now[1, i] = s * tc + c * ts


@_compiled
def _waves(r: Words, step: int, scale: float, table: Words, out: Words) -> None:  # pragma: no cover - compiled
    now, turn, tmp = np.empty((2, WAVES)), np.empty((2, WAVES)), np.empty((2, WAVES))
    bits = tmp.view(np.int64)
    for start in range(0, r.size, WAVES):
        size = min(WAVES, r.size - start)
        _rotations(r[start : start + size], table, step, now[:, :size], turn[:, :size])
        for q in range(out.shape[0] // 2):
            for p in range(2):
                row = out[2 * q + p, start : start + size]
                for i in range(size):
                    tmp[p, i] = now[p, i] * scale + ROUNDER
                for i in range(size):
                    row[i] = bits[p, i] - ROUNDER_BITS
            _turned(now[:, :size], turn[:, :size])


@_compiled
def _combine(
    m: Words, step: int, a: Words, b: Words, table: Words, shares: Words, out: Words
) -> None:  # pragma: no cover - compiled
    now, turn, tmp = np.empty((2, WAVES)), np.empty((2, WAVES)), np.empty((2, WAVES))
    bits = tmp.view(np.int64)
    for start in range(0, m.size, WAVES):
        size = min(WAVES, m.size - start)
        total = out[start : start + size]
        _rotations(m[start : start + size], table, step, now[:, :size], turn[:, :size])
        for q in range(a.size):
            x, y = shares[2 * q, start : start + size], shares[2 * q + 1, start : start + size]
            aq, bq = a[q], b[q]
            for i in range(size):
                c, s = now[0, i], now[1, i]
                tmp[0, i] = (aq * c + bq * s) + ROUNDER
                tmp[1, i] = (aq * s - bq * c) + ROUNDER
            for i in range(size):
                total[i] += (bits[0, i] - ROUNDER_BITS) * x[i] + (bits[1, i] - ROUNDER_BITS) * y[i]
            _turned(now[:, :size], turn[:, :size])


@_compiled
def _basis(r: Words, harmonics: Words, table: Words, scale: float, out: Words) -> None:  # pragma: no cover - compiled
    quarter = np.uint16(1 << 14)
    for q in range(harmonics.size):
        k = np.uint16(harmonics[q])
        for i in range(r.size):
            a = np.uint16(k * r[i])
            out[2 * q, i] = np.int64(np.rint(table[np.uint16(a + quarter)] * scale))
            out[2 * q + 1, i] = np.int64(np.rint(table[a] * scale))


@_compiled
def _series(
    m: Words, harmonics: Words, coefs: Words, table: Words, shares: Words, out: Words
) -> None:  # pragma: no cover - compiled
    quarter = np.uint16(1 << 14)
    for q in range(harmonics.size):
        k = np.uint16(harmonics[q])
        coef = coefs[q]
        for i in range(m.size):
            a = np.uint16(k * m[i])
            s = np.int64(np.rint(table[a] * coef))
            c = np.int64(np.rint(table[np.uint16(a + quarter)] * coef))
            out[i] += s * shares[2 * q, i] - c * shares[2 * q + 1, i]


@_compiled
def _moments(
    m: Words, harmonics: Words, scale: float, table: Words, shares: Words, out: Words
) -> None:  # pragma: no cover - compiled
    quarter = np.uint16(1 << 14)
    for q in range(harmonics.size):
        k = np.uint16(harmonics[q])
        for i in range(m.size):
            a = np.uint16(k * m[i])
            s = np.int64(np.rint(table[a] * scale))
            c = np.int64(np.rint(table[np.uint16(a + quarter)] * scale))
            out[0, q] += c * shares[2 * q, i] + s * shares[2 * q + 1, i]
            out[1, q] += s * shares[2 * q, i] - c * shares[2 * q + 1, i]


def times(X: Words, v: Words) -> Words:
    """X v; v is of the ring's signed type."""
    out = np.zeros(X.shape[0], dtype=v.dtype)
    _times(X, v, out)
    return out


def transpose_times(X: Words, v: Words) -> Words:
    """X^T v; v is of the ring's signed type."""
    out = np.zeros(X.shape[1], dtype=v.dtype)
    _transpose_times(X, v, out)
    return out


def matmul(A: Words, B: Words, word: Any) -> Words:
    """A B for operands that are contiguous in either order."""
    n, k = A.shape[0], B.shape[1]
    # The longer side is the one to vectorise over: a tile that is mostly padding wastes what it packs.
    padded = -(-k // WIDTH) * WIDTH
    if k < n and (k <= FEW or 4 * padded > 5 * k):
        return np.ascontiguousarray(matmul(B.T, A.T, word).T)
    if n <= FEW and not B.flags.c_contiguous:
        out = np.empty((k, n), dtype=word)
        _dots(B.T, _read_only(A), out)
        return np.ascontiguousarray(out.T)
    out = np.zeros((n, k), dtype=word)
    if n <= FEW:
        _few_rows(A, B, out)
    else:
        _packed(A, B, out)
    return out


def _read_only(A: Words) -> Words:
    view = np.ascontiguousarray(A).view()
    view.flags.writeable = False
    return view


def histogram(bins: Words, values: Words, n_bins: int) -> Words:
    """Sums of `values` per feature and bin; every bin must be below n_bins, which is not checked here."""
    out = np.zeros((bins.shape[1], n_bins, values.shape[1]), dtype=values.dtype)
    _histogram(bins, values, out)
    return out


def basis(r: Words, harmonics: Words, table: Words, scale: float) -> Words:
    """Rows 2q and 2q+1: the table's cosine and sine of harmonic q at angle r, times `scale`, rounded.  (2K, n) int64."""
    out = np.empty((2 * harmonics.size, r.size), dtype=np.int64)
    _basis(r, harmonics, table, scale, out)
    return out


def series(m: Words, harmonics: Words, coefs: Words, table: Words, shares: Words) -> Words:
    """Sum over q of coefs[q] (sin(k m) shares[2q] - cos(k m) shares[2q+1]), each factor rounded.  (n,) int64."""
    out = np.zeros(m.size, dtype=np.int64)
    _series(m, harmonics, coefs, table, shares, out)
    return out


def moments(m: Words, harmonics: Words, scale: float, table: Words, shares: Words) -> Words:
    """Sums over the angles of the cosines and sines of m minus the shared angle.  (2, K) int64."""
    out = np.zeros((2, harmonics.size), dtype=np.int64)
    _moments(m, harmonics, scale, table, shares, out)
    return out


@_compiled
def _add_products(c: Words, e: Words, d: Words, a: Words, b: Words, whole: bool) -> None:  # pragma: no cover - compiled
    for i in range(c.size):
        c[i] += e[i] * (b[i] + d[i] if whole else b[i]) + a[i] * d[i]


def add_products(c: Words, e: Words, d: Words, a: Words, b: Words, whole: bool) -> None:
    """Add e b + a d, and e d if `whole`, to c; flat words of one type."""
    _add_products(*(w.view(np.int64) for w in (c, e, d, a, b)), whole)


def waves(r: Words, step: int, count: int, scale: float, table: Words) -> Words:
    """Rows 2q and 2q+1: cosine and sine of 1 + step * q times the 32-bit angle r, times `scale`, rounded.  (2K, n) int64."""
    out = np.empty((2 * count, r.size), dtype=np.int64)
    _waves(r, step, scale, table, out)
    return out


def combine(m: Words, step: int, coefs: Words, table: Words, shares: Words) -> Words:
    """Sum over q of a_q cos k(m - r) + b_q sin k(m - r), from shares of cos k r and sin k r; each factor rounded.  (n,) int64.

    k = 1 + step * q.  coefs: (2, K), the a_q and the b_q.
    """
    out = np.zeros(m.size, dtype=np.int64)
    _combine(m, step, coefs[0], coefs[1], table, shares, out)
    return out
