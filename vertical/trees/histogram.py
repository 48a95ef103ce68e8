"""Sums of shared gradients and Hessians in every bin of every feature, and on the left of every candidate split.

Every owner's bins are a one-hot matrix under a mask that is sent once.  The sums of a level are its transposed products with
the level's vectors, in Z_2^32.  Only left children are summed; their siblings are what is left of the parent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc import ring
from mpc.correlations import Correlation
from mpc.matrix import MatrixMask, OwnerMatrix, multiply
from mpc.session import Session
from vertical.trees.settings import Candidates, Layout
from vertical.trees.supply import Supply

Words = npt.NDArray[Any]


def plan_sums(masks: Sequence[MatrixMask], nodes: int) -> list[Correlation]:
    """What `sums` over so many nodes asks of the dealer."""
    products = [mask.product(transpose=True) for mask in masks if mask.n_cols]
    return [product.model_copy(update={"vectors": 2 * nodes}) for product in products]


def sums(session: Session, supply: Supply, matrices: Sequence[OwnerMatrix], layout: Layout, v: Words) -> list[Words]:
    """Per owner shares of the sums in all bins, (features, n_bins, nodes, 2), words of 32 bits.

    v: (n, 2 nodes) words of 32 bits, of each node the gradients and the Hessians.

    Reveals: nothing.
    Cost: 1 round; to the owner of each matrix 8 bytes a row and node from every other party; the dealer sends 8 bytes a
        bin, feature and node in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.matrix.mask_matrices`.
    Raises: LocalProtocolError if the tickets are not for this.
    """
    wanted = [matrix for matrix in matrices if matrix.content.shape[1]]
    tickets = supply.take(len(wanted))
    flat = iter(multiply(session, [(matrix, ticket, v) for matrix, ticket in zip(wanted, tickets, strict=True)]))
    nodes = v.shape[1] // 2
    return [
        next(flat).reshape(b.features, b.n_bins, nodes, 2)
        if b.features
        else np.empty((0, b.n_bins, nodes, 2), np.uint32)
        for b in layout.blocks
    ]


def level(parents: list[Words] | None, left: list[Words]) -> list[Words]:
    """Sums of all nodes of a level, from those of the level above and of the left children."""
    if parents is None:
        return left
    out = []
    for parent, part in zip(parents, left, strict=True):
        both = np.empty((*part.shape[:2], 2 * part.shape[2], 2), dtype=np.uint32)
        both[:, :, 0::2] = part
        np.subtract(parent, part, out=both[:, :, 1::2])
        out.append(both)
    return out


def to_the_left(tables: Sequence[Words], layout: Layout, candidates: Candidates) -> tuple[Words, Words]:
    """(nodes, candidates, 2): sums to the left of every candidate, in their order; and (nodes, 2) of the whole nodes."""
    parts = []
    for table, block, columns in zip(tables, layout.blocks, candidates.columns, strict=True):
        if not block.features:
            continue
        chosen = table[columns]
        below = np.cumsum(chosen, axis=1, dtype=np.uint32)
        parts.append(_flat(below[:, 1 : block.n_bins - 1]))
        gaps = np.array(block.missing, dtype=bool)[columns]
        parts.append(_flat(below[gaps, 1:] - chosen[gaps, :1]))
    whole = next(table for table in tables if len(table))[0].sum(axis=0, dtype=np.uint32)
    return np.ascontiguousarray(np.concatenate(parts).swapaxes(0, 1)), whole


def _flat(part: Words) -> Words:
    return part.reshape(-1, *part.shape[2:])


def masks_needed(layout: Layout) -> list[int]:
    """Columns of every owner's one-hot matrix."""
    return [block.features * block.n_bins for block in layout.blocks]


def warm_up() -> None:
    """Load or compile the kernels of Z_2^32, so that nobody in a session waits for another one's compiler."""
    bins = np.zeros((4, 2), dtype=np.uint8)
    mask = np.zeros((40, 20), dtype=np.uint32)
    for vectors in (2, 4, 20):
        ring.histogram(bins, np.zeros((4, vectors), dtype=np.uint32), 4)
        ring.matmul(mask.T, np.zeros((40, vectors), dtype=np.uint32))
