"""Words of Z_2^128 as pairs of 64-bit limbs: what checks of randomness are computed in.

An array of n words has shape (..., 2), lowest limb first.  Everything wraps modulo 2^128 and is exact.  The products are
numba's where it can be imported, otherwise NumPy's with the same results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[Any]
Wide = npt.NDArray[Any]
"""uint64, last axis of length 2."""

_HALF, _LOW = np.uint64(32), np.uint64((1 << 32) - 1)


def _load() -> Callable[..., Any] | None:
    try:
        from mpc.compiled import compiled
    except ImportError:
        return None
    return compiled


def _mul_limbs(a0: Any, a1: Any, b0: Any, b1: Any) -> tuple[Any, Any]:
    """Product of (a0, a1) and (b0, b1), by halves of the low limbs."""
    p, q = a0 & _LOW, a0 >> _HALF
    r, s = b0 & _LOW, b0 >> _HALF
    pr, ps, qr = p * r, p * s, q * r
    middle = (pr >> _HALF) + (ps & _LOW) + (qr & _LOW)
    high = q * s + (ps >> _HALF) + (qr >> _HALF) + (middle >> _HALF)
    return a0 * b0, high + a0 * b1 + a1 * b0


_compiler = _load()


def _compiled(function: Callable[..., Any]) -> Any:
    return function if _compiler is None else _compiler(function)


_fast_mul = _compiled(_mul_limbs)


@_compiled
def _mul_kernel(x: Words, y: Words, out: Words) -> None:  # pragma: no cover - compiled
    for i in range(x.shape[0]):
        out[i, 0], out[i, 1] = _fast_mul(x[i, 0], x[i, 1], y[i, 0], y[i, 1])


@_compiled
def _matmul_kernel(A: Words, B: Words, out: Words) -> None:  # pragma: no cover - compiled
    """out = A B for (b, n, d, 2) and (b, d, k, 2); a single column is summed without memory in between."""
    batch, n, d, _ = A.shape
    k = B.shape[2]
    zero, one = np.uint64(0), np.uint64(1)
    for g in range(batch):
        for i in range(n):
            if k == 1:
                low, high = zero, zero
                for q in range(d):
                    p0, p1 = _fast_mul(A[g, i, q, 0], A[g, i, q, 1], B[g, q, 0, 0], B[g, q, 0, 1])
                    low += p0
                    high += p1 + (one if low < p0 else zero)
                out[g, i, 0, 0], out[g, i, 0, 1] = low, high
                continue
            row = out[g, i]
            row[:] = zero
            for q in range(d):
                a0, a1 = A[g, i, q, 0], A[g, i, q, 1]
                for j in range(k):
                    p0, p1 = _fast_mul(a0, a1, B[g, q, j, 0], B[g, q, j, 1])
                    low = row[j, 0] + p0
                    row[j, 0] = low
                    row[j, 1] += p1 + (one if low < p0 else zero)


def wide(words: Words) -> Wide:
    """The same numbers, read as unsigned, with an upper limb of zero."""
    out = np.zeros((*words.shape, 2), dtype=np.uint64)
    out[..., 0] = words
    return out


def low(x: Wide) -> Words:
    """The residues modulo 2^64, as an array of their own."""
    return x[..., 0].copy()


def add(x: Wide, y: Wide) -> Wide:
    """x + y."""
    out = x + y
    out[..., 1] += out[..., 0] < y[..., 0]
    return out


def subtract(x: Wide, y: Wide) -> Wide:
    """x - y."""
    out = x - y
    out[..., 1] -= x[..., 0] < y[..., 0]
    return out


def multiply(x: Wide, y: Wide) -> Wide:
    """x y, word by word, broadcast."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    if _compiler is None:
        return np.stack(_mul_limbs(x[..., 0], x[..., 1], y[..., 0], y[..., 1]), axis=-1).reshape(shape)
    whole = (w if w.shape == shape else np.broadcast_to(w, shape) for w in (x, y))
    a, b = (np.ascontiguousarray(w).reshape(-1, 2) for w in whole)
    out = np.empty_like(a)
    _mul_kernel(_writeable(a), _writeable(b), out)
    return out.reshape(shape)


def _writeable(x: Words) -> Words:
    """So that the compiler makes one kernel and not one for every kind of operand."""
    return x if x.flags.writeable else x.copy()


def total(x: Wide, axis: int | tuple[int, ...] = 0) -> Wide:
    """Sum over one or more axes, counted from the first; fewer than 2^32 words."""
    low_half = (x[..., 0] & _LOW).sum(axis=axis, dtype=np.uint64)
    high_half = (x[..., 0] >> _HALF).sum(axis=axis, dtype=np.uint64)
    first = np.asarray(low_half + (high_half << _HALF))
    second = x[..., 1].sum(axis=axis, dtype=np.uint64) + (high_half >> _HALF) + (first < low_half)
    out: Wide = np.stack([first, second], axis=-1)
    return out


def dot(x: Wide, y: Wide) -> Wide:
    """Sum of the products of two arrays of one shape: (2,)."""
    flat = [w.reshape(1, -1, 2) for w in (x, y)]
    out: Wide = matmul(flat[0], flat[1].reshape(-1, 1, 2))[0, 0]
    return out


def matmul(A: Wide, B: Wide) -> Wide:
    """A B.  A: (..., n, d, 2), B: (..., d, k, 2), with the same leading axes; returns (..., n, k, 2).

    Raises: ValueError if the shapes do not fit.
    """
    if A.shape[:-3] != B.shape[:-3] or A.shape[-2] != B.shape[-3]:
        raise ValueError(f"shapes {A.shape} and {B.shape} do not multiply")
    lead, (n, d), k = A.shape[:-3], A.shape[-3:-1], B.shape[-2]
    batch = math.prod(lead)
    out = np.zeros((batch, n, k, 2), dtype=np.uint64)
    left, right = A.reshape(batch, n, d, 2), B.reshape(batch, d, k, 2)
    if _compiler is not None:
        _matmul_kernel(*(_writeable(np.ascontiguousarray(w)) for w in (left, right)), out)
    else:
        for g, i in np.ndindex(batch, n):
            for block in range(0, d, 1024):
                part = slice(block, block + 1024)
                out[g, i] = add(out[g, i], total(multiply(left[g, i, part, None], right[g, part])))
    return out.reshape(*lead, n, k, 2)


def warm_up() -> None:
    """Load or compile the kernels."""
    x = np.zeros((1, 1, 1, 2), dtype=np.uint64)
    multiply(x, x)
    matmul(x, x)
