"""Monotone constraints: a split may not go against one, and what lies below a split may not either.

No split with children in the wrong order is chosen (`splits`).  Below a constrained split the middle of its children's weights
separates the two subtrees: it is the upper limit of every leaf on one side and the lower limit of every leaf on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than_zero, plan_less_than_zero
from mpc.correlations import Correlation
from mpc.products import multiply, plan_multiply
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from vertical.trees.settings import SCORE_BITS, Settings
from vertical.trees.supply import Supply

Words = npt.NDArray[Any]


def _plan_clamp(count: int) -> list[Correlation]:
    return [*plan_less_than_zero(2 * count), plan_multiply((2 * count,))]


def plan_bounded(depth: int) -> list[Correlation]:
    """What `bounded` asks of the dealer."""
    out: list[Correlation] = []
    for level in range(depth):
        out += [*_plan_clamp(1 << level), plan_multiply((4 << level,))]
    return [*out, *_plan_clamp(1 << depth), plan_truncation(1 << depth, 1)]


def bounded(
    session: Session, supply: Supply, weights: Sequence[Words], directions: Sequence[Words], settings: Settings
) -> Words:
    """Shares of the leaves' weights, moved where a constraint above them asks for it.

    supply: has the tickets for `plan_bounded(depth)` next.  weights: per level, shares (2 nodes,) of the weights of its nodes'
    children.  directions: per level, shares (2, nodes) of 1 where its split's score must rise, and where it must fall.

    Reveals: nothing.
    Cost: 6 rounds a level and 6 more; about 150 bytes a node to every other party.
    Security: semi-honest parties; the dealer does not collude.
    Source: Chen and Guestrin's XGBoost (limits passed down from the middle of a constrained split's children).
    Raises: LocalProtocolError if the tickets are not for this.
    """
    # Everything is doubled, so that a middle is a sum.
    limit = round(2 * settings.learning_rate * (settings.leaf + 1) * 2**SCORE_BITS)
    high = np.array([limit if session.me == 0 else 0], dtype=np.uint64)
    low = np.negative(high)
    for weight, (rising, falling) in zip(weights, directions, strict=True):
        middle = _clamp(session, supply, weight[0::2] + weight[1::2], low, high)
        bits = np.concatenate([rising, rising, falling, falling])
        moves = np.concatenate([middle - high, middle - low, middle - low, middle - high])
        a, b, c, d = np.split(multiply(session, supply.take()[0], bits, moves), 4)
        high, low = np.stack([high + a, high + d], axis=1).reshape(-1), np.stack([low + c, low + b], axis=1).reshape(-1)
    doubled = _clamp(session, supply, weights[-1] << np.uint64(1), low, high)
    return truncate(session, doubled, supply.take()[0])


def _clamp(session: Session, supply: Supply, x: Words, low: Words, high: Words) -> Words:
    """x, or the limit that it is beyond."""
    room = np.concatenate([x - low, high - x])
    bit = less_than_zero(session, supply.take(4), room)
    under, over = np.split(multiply(session, supply.take()[0], bit, room), 2)
    return np.asarray(x - under + over)
