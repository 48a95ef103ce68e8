"""Products of matrices for `mpc.ot.source`: of shared ones, and of masks that one party knows.

One side of a product is cut into its bits, which choose; the other side's rows are the messages.  A choosing word costs 64
transfers (32 in the small ring) however long the row is, so the side with the smaller outer dimension chooses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.gram import MatrixGram, MatrixWeights
from mpc.matrix import WORD, Bits, MatrixMask, MatrixProduct
from mpc.ot.products import HALVES, WHOLE, Transfers
from mpc.ring import transpose_matmul

Words = npt.NDArray[Any]
Shape = tuple[int, int]


def cross(transfers: Transfers, left: Words, right: Words) -> Words:
    """Shares of our left (n, d) times the peer's right (d, k), plus its left times our right; uint64 words."""
    if left.shape[0] <= right.shape[1]:
        return _contract(transfers, left, right, (*left.shape, right.shape[1]), 64)
    return _contract(transfers, right.T, left.T, (*right.T.shape, left.shape[0]), 64).T


def private_product(
    transfers: Transfers, left: Words | None, right: Words | None, dims: tuple[int, int, int], bits: Bits = 64
) -> Words:
    """Shares of a matrix (n, d) that one party has times one (d, k) that the other has; dims: n, d, k."""
    n, d, k = dims
    if n <= k:
        return _contract(transfers, left, right, dims, bits)
    swapped = _contract(
        transfers, None if right is None else right.T, None if left is None else left.T, (k, d, n), bits
    )
    return swapped.T


def _contract(
    transfers: Transfers, choosing: Words | None, values: Words | None, dims: tuple[int, int, int], bits: Bits
) -> Words:
    """Shares of choosing (n, d) times the peer's values (d, k), and of the peer's choosing times ours, added up."""
    n, d, k = dims
    out = np.zeros((n, k), dtype=WORD[bits])
    per = 64 // bits
    choice = _packed(choosing, bits) if choosing is not None else np.empty(0, dtype=np.uint64)
    columns = np.empty((k, d), dtype=WORD[bits]) if values is None else np.ascontiguousarray(values.T)

    def ours(part: slice, cols: slice) -> Words:
        elements = np.arange(part.start * per, part.stop * per) % max(d, 1)
        chosen = columns[cols][:, elements].astype(np.uint64)
        return np.moveaxis(chosen.reshape(len(chosen), -1, per), 2, 0)

    def add(_: bool, part: slice, cols: slice, share: Words) -> None:
        start, stop = part.start * per, min(part.stop * per, n * d)
        each = np.moveaxis(share, 0, 2).reshape(share.shape[1], -1)[:, : stop - start].astype(WORD[bits])
        first, last = start // d, (stop - 1) // d
        cuts = [max(i * d, start) - start for i in range(first, last + 1)]
        out[first : last + 1, cols] += np.add.reduceat(each, cuts, axis=1).T

    n_send = 0 if values is None else -(-n * d // per)
    kind = replace(WHOLE if bits == 64 else HALVES, width=k)
    transfers.products(kind, choice if k else choice[:0], n_send if k else 0, ours, add)
    return out


def _packed(words: Words, bits: Bits) -> Words:
    """Choice words: the words themselves, or two of them in one."""
    flat = np.ascontiguousarray(words, dtype=WORD[bits]).reshape(-1)
    if bits == 64:
        return flat
    even = np.zeros(len(flat) + len(flat) % 2, dtype=np.uint32)
    even[: len(flat)] = flat
    return even.view(np.uint64)


class Masks:
    """The masks of matrices: ours, and the shapes of the peer's; and what is derived from them."""

    def __init__(self, transfers: Transfers, me: int) -> None:
        self._transfers, self._me = transfers, me
        self._ours: dict[int, Words] = {}
        self._shapes: dict[int, tuple[Shape, Bits]] = {}

    def mask(self, request: MatrixMask, drawn: list[Words]) -> list[Words]:
        """Remember U."""
        if request.matrix in self._shapes or request.owner not in (0, 1):
            raise LocalProtocolError(f"matrix number {request.matrix} is taken or has no such owner")
        self._shapes[request.matrix] = (request.n_rows, request.n_cols), request.bits
        if drawn:
            self._ours[request.matrix] = drawn[0]
        return []

    def product(self, request: MatrixProduct, drawn: list[Words]) -> list[Words]:
        """U r or U^T r, as r^T U^T or r^T U."""
        outer = (request.n_in, request.n_out) if request.transpose else (request.n_out, request.n_in)
        mask = self._remembered(request.matrix, outer, request.bits)
        if mask is not None and not request.transpose:
            mask = mask.T
        dims = (request.vectors, request.n_in, request.n_out)
        r = drawn[0].T if drawn else None
        return [private_product(self._transfers, r, mask, dims, request.bits).T]

    def gram(self, request: MatrixGram, drawn: list[Words]) -> list[Words]:
        """U_left^T U_right; local where one party knows both."""
        left = self._remembered(request.left, (request.n_rows, request.n_left), request.bits)
        right = self._remembered(request.right, (request.n_rows, request.n_right), request.bits)
        return [self._inner(left, right, (request.n_left, request.n_rows, request.n_right), request.bits)]

    def weights(self, request: MatrixWeights, drawn: list[Words]) -> list[Words]:
        """diag(r) U_i, whose owner multiplies its share of r itself, and then U_i^T diag(r) U_j."""
        n, bits = request.n_rows, request.bits
        sizes = list(zip(request.matrices, request.n_cols, strict=True))
        masks = [self._remembered(number, (n, d), bits) for number, d in sizes]
        (r,) = drawn
        weighted = [self._scaled(mask, r, d) for mask, d in zip(masks, request.n_cols, strict=True)]
        blocks = []
        for i, left in enumerate(masks):
            for j in range(i, len(masks)):
                dims = (request.n_cols[i], n, request.n_cols[j])
                # The owner of U_i has a share of diag(r) U_j too; the peer has the other.
                if left is None:
                    blocks.append(private_product(self._transfers, None, weighted[j], dims, bits))
                else:
                    block = private_product(self._transfers, left.T, None, dims, bits)
                    blocks.append(block + transpose_matmul(left, weighted[j]))
        return weighted + blocks

    def _inner(self, left: Words | None, right: Words | None, dims: tuple[int, int, int], bits: Bits) -> Words:
        if left is not None and right is not None:
            return transpose_matmul(left, right)
        if left is None and right is None:
            return np.zeros((dims[0], dims[2]), dtype=WORD[bits])
        return private_product(self._transfers, None if left is None else left.T, right, dims, bits)

    def _scaled(self, mask: Words | None, r: Words, width: int) -> Words:
        """Shares of diag(r) U.  The bits of the peer's r choose among multiples of U's rows."""
        n, wide = len(r), replace(WHOLE, width=width)
        rows = np.empty((0, width), dtype=r.dtype) if mask is None else mask
        out = np.zeros((n, width), dtype=np.uint64) if mask is None else (r[:, None] * mask).astype(np.uint64)

        def ours(part: slice, cols: slice) -> Words:
            return rows[part, cols].T.astype(np.uint64)[None]

        def add(_: bool, part: slice, cols: slice, share: Words) -> None:
            out[part, cols] += share[0].T

        choice = r.astype(np.uint64) if mask is None else np.empty(0, dtype=np.uint64)
        if width:
            self._transfers.products(wide, choice, len(rows), ours, add)
        return out.astype(r.dtype)

    def _remembered(self, number: int, shape: Shape, bits: Bits) -> Words | None:
        """Our mask, or None if it is the peer's."""
        if self._shapes.get(number) != (shape, bits):
            raise LocalProtocolError(f"no mask of this shape under number {number}")
        return self._ours.get(number)
