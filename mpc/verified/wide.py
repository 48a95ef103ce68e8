"""Matrix products and convolutions modulo 2^128, both as batches of matrix products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.triples import Triple
from mpc.verified.ring128 import Wide

Words = npt.NDArray[Any]
Sizes = tuple[int, int, int, int]
"""Products in the batch, rows, inner dimension and columns of each."""


def sizes(triple: Triple) -> Sizes:
    """Of any product but `mul`.  A convolution is one product of patches and kernels for each group."""
    if triple.op == "matmul":
        left, right = _matrix_shapes(triple)
        batch = np.broadcast_shapes(left[:-2], right[:-2])
        return math.prod(batch), left[-2], left[-1], right[-1]
    out, groups = triple.shape, triple.groups
    patches = out[0] * math.prod(out[2:])
    inner = triple.shape0[1] // groups * math.prod(triple.shape1[2:])
    return groups, patches, inner, out[1] // groups


def _matrix_shapes(triple: Triple) -> tuple[tuple[int, ...], tuple[int, ...]]:
    a, b = triple.shape0, triple.shape1
    return ((1, *a) if len(a) == 1 else a), ((*b, 1) if len(b) == 1 else b)


def operands(triple: Triple, a: Wide, b: Wide) -> tuple[Wide, Wide]:
    """The matrices: (batch, n, d, 2) and (batch, d, k, 2)."""
    batch, n, d, k = sizes(triple)
    if triple.op == "matmul":
        left, right = _matrix_shapes(triple)
        lead = np.broadcast_shapes(left[:-2], right[:-2])
        A = np.broadcast_to(a.reshape(*left, 2), (*lead, n, d, 2))
        B = np.broadcast_to(b.reshape(*right, 2), (*lead, d, k, 2))
        return A.reshape(batch, n, d, 2), B.reshape(batch, d, k, 2)
    if triple.op.startswith("conv_transpose"):
        # The kernels turned round, with their inputs and outputs swapped, over the spread input.
        turned, taps = np.flip(b, axis=tuple(range(2, b.ndim - 1))), math.prod(triple.shape1[2:])
        kernels = turned.reshape(batch, d // taps, k, taps, 2).transpose(0, 1, 3, 2, 4).reshape(batch, d, k, 2)
        return _patches(triple, _spread(triple, a), 1).reshape(batch, n, d, 2), np.ascontiguousarray(kernels)
    kernels = b.reshape(batch, k, d, 2).transpose(0, 2, 1, 3)
    padded = np.pad(a, [(0, 0), (0, 0), *((p, p) for p in triple.padding), (0, 0)])
    return _patches(triple, padded, None).reshape(batch, n, d, 2), np.ascontiguousarray(kernels)


def _spread(triple: Triple, a: Wide) -> Wide:
    """The input of a transposed convolution with its steps between the elements, and the edges that the kernels need."""
    steps = list(zip(triple.shape0[2:], triple.shape1[2:], triple.stride, triple.padding, triple.dilation, strict=True))
    spread = np.zeros((*a.shape[:2], *((n - 1) * s + 1 for n, _, s, _, _ in steps), 2), dtype=np.uint64)
    spread[(slice(None), slice(None), *(slice(None, None, s) for _, _, s, _, _ in steps))] = a
    edges = [d * (k - 1) - p for _, k, _, p, d in steps]
    spread = np.pad(spread, [(0, 0), (0, 0), *((max(e, 0), max(e, 0)) for e in edges), (0, 0)])
    inside = [slice(max(-e, 0), size - max(-e, 0)) for e, size in zip(edges, spread.shape[2:-1], strict=True)]
    return spread[(slice(None), slice(None), *inside)]


def _patches(triple: Triple, x: Wide, stride: int | None) -> Wide:
    """Every patch of the padded input that meets a kernel: (groups, batch, *out, channels, *kernel, 2)."""
    dims = len(triple.stride)
    for axis in reversed(range(dims)):
        starts = np.arange(triple.shape[2 + axis]) * (stride or triple.stride[axis])
        taps = np.arange(triple.shape1[2 + axis]) * triple.dilation[axis]
        x = np.take(x, starts[:, None] + taps, axis=2 + axis)
    x = x.reshape(x.shape[0], triple.groups, -1, *x.shape[2:])
    outs, taps_at = [3 + 2 * i for i in range(dims)], [4 + 2 * i for i in range(dims)]
    return np.ascontiguousarray(x.transpose(1, 0, *outs, 2, *taps_at, x.ndim - 1))


def as_matrices(triple: Triple, c: Wide) -> Wide:
    """The result as (batch, n, k, 2)."""
    batch, n, _, k = sizes(triple)
    if triple.op == "matmul":
        return c.reshape(batch, n, k, 2)
    images, _, *out = triple.shape
    split = c.reshape(images, batch, k, math.prod(out), 2).transpose(1, 0, 3, 2, 4)
    return np.ascontiguousarray(split).reshape(batch, n, k, 2)


def from_matrices(triple: Triple, C: Wide) -> Wide:
    """The result from (batch, n, k, 2): `as_matrices` undone."""
    batch, _, _, k = sizes(triple)
    if triple.op == "matmul":
        return C.reshape(*triple.shape, 2)
    images, _, *out = triple.shape
    split = C.reshape(batch, images, math.prod(out), k, 2).transpose(1, 0, 3, 2, 4)
    return np.ascontiguousarray(split).reshape(*triple.shape, 2)
