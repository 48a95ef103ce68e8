"""Products of all owners' columns with each other, on shares: X^T X for X = [X_1 ... X_k], from one message for each column.

Each owner but the last masks its columns once; for two owners a < b the block X_a^T X_b is the product of the masked X_a with
vectors that b alone holds.  With two owners every column crosses once.  Every source of randomness can serve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Ticket
from mpc.matrix import mask_matrices, multiply, plan_masks
from mpc.ring import transpose_matmul
from mpc.session import Session

Words = npt.NDArray[Any]


def plan_joint_gram(n: int, widths: Sequence[int], first: int) -> list[Correlation]:
    """What `joint_gram` of n rows of so many columns of each owner asks of the dealer."""
    masks = plan_masks(_masked(n, widths), first)
    products = [
        masks[a].product(transpose=True).model_copy(update={"holder": b, "vectors": widths[b]})
        for a, b in _pairs(len(widths))
    ]
    return [*masks, *products]


def joint_gram(session: Session, tickets: Sequence[Ticket], mine: Words, widths: Sequence[int], first: int) -> Words:
    """Shares of X^T X, (D, D) words, for all owners' columns side by side.

    tickets: for `plan_joint_gram`.  mine: (n, our width) integers.  first: number of the first of one matrix for each owner.

    Reveals: nothing.
    Cost: 2 rounds; 8 n bytes for each of our columns to every other owner, and as much again to each before us if there is
        one behind us; the dealer sends 8 bytes in all for each product of columns of different owners.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.matrix.multiply`.
    Raises: as `mpc.matrix.mask_matrices` and `mpc.matrix.multiply`.
    """
    n, k, me = len(mine), len(widths), session.me
    own = mine if me < k - 1 else mine[:, :0]
    matrices = mask_matrices(session, _masked(n, widths), np.ascontiguousarray(own), first, tickets=tickets[:k])
    held = mine.astype(np.int64).view(np.uint64)
    vectors = held[:, 0] if held.shape[1] == 1 else held
    pairs = _pairs(k)
    factors = [(matrices[a], t, vectors if b == me else None) for (a, b), t in zip(pairs, tickets[k:], strict=True)]
    cut = np.cumsum([0, *widths])
    out = np.zeros((int(cut[-1]), int(cut[-1])), dtype=np.uint64)
    for (a, b), block in zip(pairs, multiply(session, factors), strict=True):
        here, there = slice(cut[a], cut[a + 1]), slice(cut[b], cut[b + 1])
        out[here, there] = block.reshape(widths[a], widths[b])
        out[there, here] = out[here, there].T
    part = slice(cut[me], cut[me + 1])
    out[part, part] = transpose_matmul(mine, held)
    return out


def _masked(n: int, widths: Sequence[int]) -> list[tuple[int, int]]:
    """What is masked: the columns of all owners but the last."""
    return [(n, width) for width in widths[:-1]] + [(n, 0)]


def _pairs(k: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(k) for b in range(a + 1, k)]
