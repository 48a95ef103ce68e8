"""The largest of shared values, for CrypTen: maximum, its place, and pooling by it.

The functions stand in for CrypTen's own of the same purpose and take its tensors as they are; this module does not import
CrypTen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mpc import compare, products
from mpc._crypten.nn import Tensor, like
from mpc._crypten.seams import current, to_tensor, to_words
from mpc.correlations import Correlation
from mpc.errors import LocalProtocolError

LOWEST = -(1 << 61)
"""The word that pads what a maximum is taken of: below every value in range, and far enough from them not to wrap."""


# CrypTen pads a maximum with -2^24 units in everybody's share: -16 n for n parties at 20 bits, above many real values.


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def max_pool2d(
    self: Tensor,
    kernel_size: Any,
    padding: Any = 0,
    stride: Any = None,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest value of every window; of equal ones the first, as in PyTorch."""
    k, p, d = _pair(kernel_size), _pair(padding), _pair(dilation)
    s = k if stride is None else _pair(stride)
    share = self.share
    edges = [(p[i], p[i] + _overhang(share.shape[i - 2], k[i], p[i], s[i], d[i], ceil_mode)) for i in (0, 1)]
    lowest = LOWEST if current().session.me == 0 else 0
    share = torch.nn.functional.pad(share, (*edges[1], *edges[0]), value=lowest)
    for i, axis in enumerate(range(share.dim() - 2, share.dim())):
        share = share.unfold(axis, (k[i] - 1) * d[i] + 1, s[i])  # the window goes to the end
    windows = share[..., :: d[0], :: d[1]].contiguous()
    flat = like(self, windows.reshape(*windows.shape[:-2], k[0] * k[1]))
    largest, place = flat.max(dim=-1, one_hot=True)
    return (largest, place.reshape(*windows.shape)) if return_indices else largest


def _overhang(n: int, k: int, p: int, s: int, d: int, ceil_mode: bool) -> int:
    """How far the last window reaches over the padded edge; it starts inside the padded input."""
    if not ceil_mode:
        return 0
    reach = n + 2 * p - d * (k - 1) - 1
    steps = -(-reach // s)
    if steps * s >= n + p:
        steps -= 1
    return max(0, steps * s - reach)


def max_pool2d_backward(
    self: Tensor,
    indices: Tensor,
    kernel_size: Any,
    padding: Any = 0,
    stride: Any = None,
    dilation: Any = 1,
    ceil_mode: bool = False,  # noqa: ARG001 - the size of the gradient says it
    output_size: Any = None,
) -> Tensor:
    """Every window's gradient, added where its largest value was; CrypTen's swaps height and width where they differ."""
    k, p, d = _pair(kernel_size), _pair(padding), _pair(dilation)
    s = k if stride is None else _pair(stride)
    height, width = self.size(2), self.size(3)
    parts = self.reshape(*self.size(), 1, 1).mul(indices)
    reach = [(n - 1) * s[i] + (k[i] - 1) * d[i] + 1 for i, n in enumerate((height, width))]
    size = [r - 2 * p[i] for i, r in enumerate(reach)] if output_size is None else list(output_size)[-2:]
    whole = [max(reach[i], size[i] + p[i]) for i in (0, 1)]
    out = torch.zeros(*self.size()[:2], *whole, dtype=torch.int64)
    for i in range(k[0]):
        for j in range(k[1]):
            rows = slice(i * d[0], i * d[0] + s[0] * (height - 1) + 1, s[0])
            cols = slice(j * d[1], j * d[1] + s[1] * (width - 1) + 1, s[1])
            out[:, :, rows, cols] += parts.share[..., i, j]
    return like(parts, out[:, :, p[0] : p[0] + size[0], p[1] : p[1] + size[1]].contiguous())


# CrypTen finds the largest value in some 50 rounds for ten, and of equal ones marks a random one.


def argmax_helper(
    tensor: Tensor,
    dim: int | None = None,
    one_hot: bool = True,  # noqa: ARG001 - the caller turns the mark into an index
    method: str = "",  # noqa: ARG001 - there is one
    _return_max: bool = False,
) -> Any:
    """Where the largest value is, as shared zeros and a one of scale 1; of equal ones it is the first."""
    largest, place = _largest(tensor, dim)
    return (place, largest) if _return_max else place


def max_helper(tensor: Tensor, dim: int | None = None, method: str = "") -> Tensor:  # noqa: ARG001 - CrypTen's
    """The largest value, over one dimension or all."""
    return _largest(tensor, dim)[0]


def _largest(tensor: Tensor, dim: int | None) -> tuple[Tensor, Tensor]:
    share = tensor.share.reshape(-1) if dim is None or tensor.dim() == 0 else tensor.share
    axis = share.dim() - 1 if dim is None or tensor.dim() == 0 else dim % share.dim()
    moved = share.movedim(axis, -1)
    if not moved.shape[-1]:
        raise LocalProtocolError("nothing is the largest of no values")
    values, marks = tournament(to_words(moved.reshape(-1, moved.shape[-1])))
    largest, place = to_tensor(values).reshape(moved.shape[:-1]), to_tensor(marks).reshape(moved.shape)
    place = place.movedim(-1, axis)
    flat = dim is None or tensor.dim() == 0
    return like(tensor, largest), like(tensor, place.reshape(tensor.size()) if flat else place.contiguous(), 0)


def tournament(words: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The largest of every row of (m, n) shared words, and its place as zeros and a one of scale 1; neighbours meet first.

    Reveals: nothing; every opened word is uniform.
    Cost: 5 ceil(log2 n) rounds: each time a comparison and, in one round, the products that keep the larger and its mark.
    Security: semi-honest parties; the dealer does not collude.
    Source: Catrina and de Hoogh, SCN 2010 (selection by comparison).
    """
    session, (m, n) = current().session, words.shape
    sizes, requests = [n], list[Correlation]()
    while sizes[-1] > 1:
        pairs, reach = _meeting(n, sizes, len(sizes) - 1)
        requests += compare.plan_less_than_zero(m * pairs)
        requests += [products.plan_multiply((m, pairs)), products.plan_multiply((m, reach))]
        sizes.append(sizes[-1] - pairs)
    tickets = session.correlations.plan(requests)
    values, marks = words, np.full((m, n), np.uint64(session.me == 0))
    for level in range(len(sizes) - 1):
        pairs, reach = _meeting(n, sizes, level)
        width, odd, used = 1 << level, sizes[level] % 2, len(requests) // (len(sizes) - 1)
        *order, keep, mark = tickets[level * used : (level + 1) * used]
        left, right = (np.ascontiguousarray(values[:, i : 2 * pairs : 2]) for i in (0, 1))
        less = compare.less_than_zero(session, order, np.asarray(left - right))
        places = np.arange(reach)
        lost = less[:, places // (2 * width)]  # 1 for the places of the left group if it is smaller ...
        won = np.where(places // width % 2 == 0, np.uint64(session.me == 0) - lost, lost)  # ... and of the right one
        taken, kept = products.multiply_many(
            session,
            [(keep, less, np.asarray(right - left)), (mark, won, np.ascontiguousarray(marks[:, :reach]))],
        )
        marks[:, :reach] = kept
        values = np.concatenate([left + taken, values[:, -1:]] if odd else [left + taken], axis=1)
    return values[:, 0].copy(), marks


def _meeting(n: int, sizes: list[int], level: int) -> tuple[int, int]:
    """How many pairs of groups meet, and how many places are in them; an odd group out waits."""
    pairs = sizes[level] // 2
    return pairs, min(n, (pairs << level) * 2)
