"""Weights of leaves from shared sums of gradients and Hessians, clamped by comparison before anything is divided."""

from __future__ import annotations

from math import ceil, floor, log2
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than_zero, plan_less_than_zero
from mpc.correlations import Correlation
from mpc.functions import Domain, divide, plan_divide
from mpc.products import multiply, plan_multiply
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from vertical.trees.settings import SCORE_BITS, Scale, Settings
from vertical.trees.splits import NO_SPLIT, Chosen
from vertical.trees.supply import Supply

Words = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
LEAF_BITS = 8
"""Binary places of a leaf's limit."""
RATE_BITS = 20
"""Binary places of the learning rate."""


def _domain(scale: Scale) -> Domain:
    """Of a leaf's Hessian with its regularisation.  An empty leaf may lie below: its dividend is zero, and so the quotient."""
    high = ceil(log2(scale.total) / 2) * 2 + 2
    bits = min(20, 40 - high)
    low = max(high - 24, floor(log2(scale.reg_lambda) / 2) * 2 - 2, -(bits // 2) * 2)
    return Domain(low, high, bits, checked=False)


def plan_weights(scale: Scale, count: int) -> list[Correlation]:
    """What `weights` of so many nodes asks of the dealer."""
    domain = _domain(scale)
    surplus = scale.bits + LEAF_BITS - domain.frac_bits
    return [
        *plan_less_than_zero(2 * count),
        plan_multiply((2 * count,)),
        *([plan_truncation(count, surplus)] if surplus > 0 else []),
        *plan_divide(count, domain),
        plan_truncation(count, domain.frac_bits + RATE_BITS - SCORE_BITS),
    ]


def weights(session: Session, supply: Supply, sums: Words, settings: Settings, scale: Scale) -> Words:
    """Shares of -rate G / (H + lambda), limited to the rate times settings.leaf, with SCORE_BITS fractional bits.

    supply: has the tickets for `plan_weights` next.  sums: (count, 2) shares of G and H in units of 2^-scale.bits.

    Reveals: nothing.
    Cost: 16 rounds; about 400 bytes a node to every other party, and as many from the dealer.
    Security: semi-honest parties; the dealer does not collude.
    Source: Chen and Guestrin, KDD 2016.
    Raises: LocalProtocolError if the tickets are not for this.
    """
    domain, count = _domain(scale), len(sums)
    once = np.uint64(max(1, round(scale.reg_lambda * scale.unit)) if session.me == 0 else 0)
    a = sums[:, 1] + once
    # G is kept within +-limit a before the division, because a quotient must not leave the division's range.
    dividend = sums[:, 0] << np.uint64(LEAF_BITS)
    most = a * np.uint64(floor(settings.leaf * 2**LEAF_BITS))
    room = np.concatenate([most - dividend, most + dividend])
    bit = less_than_zero(session, supply.take(4), room)
    above, below = np.split(multiply(session, supply.take()[0], bit, room), 2)
    dividend = dividend + above - below
    surplus = scale.bits + LEAF_BITS - domain.frac_bits
    dividend = truncate(session, dividend, supply.take()[0]) if surplus > 0 else dividend << np.uint64(-surplus)
    divisor = a << np.uint64(domain.frac_bits - scale.bits)
    quotient = divide(session, supply.take(len(plan_divide(count, domain))), dividend, divisor, domain)
    rate = round(settings.learning_rate * 2**RATE_BITS)
    return truncate(session, np.negative(quotient * np.uint64(rate)), supply.take()[0])


def plan_child_sums(nodes: int, count: int) -> list[Correlation]:
    """What `child_sums` asks of the dealer."""
    return [plan_multiply((nodes, count, 1), (nodes, count, 2))]


def child_sums(session: Session, supply: Supply, chosen: Chosen, owners: Ints, own: Ints) -> Words:
    """Shares (2 nodes, 2) of the sums in the children of every node, in the order of the next level.

    chosen: of `splits.choose`.  owners, own: of `splits.announce`.  A node that is not split goes to the left whole.

    Reveals: nothing; each owner enters which candidate its split is under a mask.
    Cost: 1 round; to every other party 24 bytes a node and candidate; the dealer sends 16 in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.products.multiply_many`.
    Raises: LocalProtocolError if the ticket is not for this.
    """
    nodes, count = chosen.left.shape[:2]
    place = np.zeros((nodes, count, 1), dtype=np.uint64)
    split = np.flatnonzero(own != NO_SPLIT)
    place[split, own[split]] = 1
    left = multiply(session, supply.take()[0], place, chosen.left).sum(axis=1, dtype=np.uint64)
    ended = owners == NO_SPLIT
    left[ended] += chosen.whole[ended]
    return np.stack([left, chosen.whole - left], axis=1).reshape(2 * nodes, 2)
