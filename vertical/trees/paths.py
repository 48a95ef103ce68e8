"""From the leaves up: what a tree adds to every row's score, when each split's direction is known to its owner alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation
from mpc.products import multiply, plan_multiply
from mpc.session import Session
from vertical.trees.splits import NO_SPLIT
from vertical.trees.supply import Supply

Words = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


def goes_left(codes: npt.NDArray[np.uint8], feature: int, last_bin: int, missing_left: bool) -> Bools:
    """Which rows a split sends to the left."""
    code = codes[:, feature]
    return np.asarray(np.where(code == 0, missing_left, code <= last_bin))


def as_shares(me: int, owners: npt.NDArray[np.int64], mine: Bools) -> Words:
    """Shares of the bits "left", (nodes, n): ours where we own the split; where there is none, all rows go left.

    mine: (nodes, n), what our own splits say; anything elsewhere.
    """
    out = np.where((owners == me)[:, None], mine, False).astype(np.uint64)
    if me == 0:
        out[owners == NO_SPLIT] = 1
    return out


def plan_upwards(trees: int, depth: int, n: int) -> list[Correlation]:
    """What `upwards` asks of the dealer."""
    widths = [trees << level for level in reversed(range(depth))]
    return [plan_multiply((widths[0], n), (widths[0], 1)), *(plan_multiply((width, n)) for width in widths[1:])]


def upwards(session: Session, supply: Supply, bits: Sequence[Words], leaves: Words) -> Words:
    """Shares of the value of the leaf that every row falls into, (trees, n).

    supply: has the tickets for `plan_upwards(trees, depth, n)` next.  bits: by level, (trees 2^level, n) shares of "left".
    leaves: (trees 2^depth,) shares.

    Reveals: nothing.
    Cost: depth rounds; to every other party 8 (2^depth + 2^(depth - 1) - 2) bytes a row and tree, and 4 2^depth a tree; the
        dealer sends 8 (2^depth - 1) bytes a row and tree in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.products.multiply_many`.
    Raises: LocalProtocolError if the tickets are not for this.
    """
    values = leaves[:, None]
    for bit in reversed(bits):
        left, right = values[0::2], values[1::2]
        values = right + multiply(session, supply.take()[0], bit, np.ascontiguousarray(left - right))
    return values
