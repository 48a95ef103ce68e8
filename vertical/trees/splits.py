"""The best split of every node of a level, from shared sums of gradients and Hessians, without opening any of them.

With a = HL + lambda, b = HR + lambda and S = a + b, a split lowers the loss by

    GL^2 / a + GR^2 / b - G^2 / S  =  u^2 / (S p (1 - p))        u = GL - G p,   p = a / S

so within a node the best one has the largest |u| / sqrt(p (1 - p)).  The sign of u is that of the right child's weight minus
the left one's, which is all that a monotone constraint asks for.  A power of 4 that is shared brings S to the upper end of
30 bits; then u times S / 2^30 and p (1 - p) times the square of that are products without a division, and one inverse square
root of the latter brings the two together: the factor cancels.  "No split" is a candidate of its own and comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log2, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc import functions
from mpc.compare import less_than_zero, plan_less_than_zero, plan_reveal_less_than, reveal_less_than
from mpc.correlations import Correlation
from mpc.errors import RemoteProtocolError
from mpc.extrema import argmax, plan_argmax
from mpc.functions import Domain, inverse_sqrt, plan_inverse_sqrt, plan_sqrt
from mpc.products import multiply, multiply_many, plan_multiply
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from mpc.wire import recv_words, send_words
from vertical.trees.settings import SUM_BITS, Candidates, Scale
from vertical.trees.supply import Supply

Words = npt.NDArray[Any]
UNIT = Domain(checked=False)
"""Of p (1 - p) 2^10, which is between 2^-8 and 2^8 if no child has less than 2^-17.9 of its parent."""
GAIN_BITS = 15
"""Binary places that |u| / sqrt(p (1 - p)) gains on u."""
LIFT = 32
MAX_PENALTY = 1 << 36
"""Beyond it no split is worth its gamma, and the product with a square root of S, below 2^24, still fits a word."""
NO_SPLIT = -1


@dataclass(frozen=True)
class Rule:
    """How splits are judged, in fixed-point units.

    regularisation: lambda.  least: a child's smallest Hessian.  edges: S below the i-th one is scaled by another 4.
    monotone: per candidate.  penalty: sqrt(gamma) 2^GAIN_BITS.  root: the domain of S's square root.
    """

    regularisation: int
    least: int
    edges: tuple[int, ...]
    monotone: npt.NDArray[np.int64]
    penalty: int
    root: Domain

    @classmethod
    def of(cls, scale: Scale, candidates: Candidates) -> Rule:
        """The rule of one tree."""
        regularisation = max(1, round(scale.reg_lambda * scale.unit))
        edges = range(SUM_BITS - 2, floor(log2(2 * regularisation)), -2)
        high = ceil(log2(scale.total) / 2) * 2 + 2
        low = max(high - 24, floor(log2(2 * scale.reg_lambda) / 2) * 2, -(scale.bits // 2) * 2)
        return cls(
            regularisation=regularisation,
            least=max(1, round(scale.least * scale.unit)),
            edges=tuple(1 << e for e in edges),
            monotone=candidates.monotone,
            penalty=min(round(sqrt(scale.gamma) * 2.0**GAIN_BITS), MAX_PENALTY),
            root=Domain(low, high, scale.bits, checked=False),
        )


def plan_choice(rule: Rule, nodes: int) -> list[Correlation]:
    """What `choose` asks of the dealer."""
    count = len(rule.monotone)
    each, one = plan_multiply((nodes, count)), plan_multiply((nodes, count), (nodes, 1))
    pairs = nodes * count
    return [
        plan_truncation(2 * (pairs + nodes), LIFT),
        *plan_less_than_zero(2 * pairs + nodes * len(rule.edges)),
        *(each, one, plan_multiply((nodes, 1))),
        *(one, one, each),
        plan_truncation(2 * pairs, SUM_BITS),
        *plan_inverse_sqrt(pairs, UNIT),
        *plan_less_than_zero(pairs),
        *(each, each, each),
        *(plan_sqrt(nodes, rule.root) if rule.penalty else ()),
        *plan_argmax(nodes, count + 1),
    ]


@dataclass(frozen=True)
class Chosen:
    """Shares of every node's best split.

    index: (nodes,), 0 for no split, else 1 + the candidate's number.  left: (nodes, candidates, 2) sums of gradients and of
    Hessians to the left, and whole: (nodes, 2) of the node, all in units of 2^-bits.
    """

    index: Words
    left: Words
    whole: Words


def choose(session: Session, supply: Supply, left: Words, whole: Words, rule: Rule) -> Chosen:
    """The best split of every node.

    supply: has the tickets for `plan_choice` next.  left: (nodes, candidates, 2) words of 32 bits, shares of the sums to the
    left of every candidate; whole: (nodes, 2).

    Reveals: nothing.
    Cost: 24 rounds and those of `mpc.extrema.argmax` for candidates + 1 values, and 8 more if gamma is not 0; about 350 bytes
        per node and candidate to every other party, and about 950 from the dealer in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: Chen and Guestrin, KDD 2016 (the gain); Lu et al., "Squirrel", USENIX Security 2023 (trees on shares).
    Raises: LocalProtocolError if the tickets are not for this.
    """
    nodes, count = left.shape[:2]
    words = np.concatenate([left.reshape(-1), whole.reshape(-1)]).astype(np.uint64) << np.uint64(LIFT)
    words = truncate(session, words, supply.take()[0])
    cut = left.size
    left, whole = words[:cut].reshape(left.shape), words[cut:].reshape(whole.shape)
    G, H = whole[:, :1], whole[:, 1:]
    valid_left, valid_right, power = _compared(session, supply, left[..., 1], H, rule)
    once = np.uint64(rule.regularisation if session.me == 0 else 0)
    first = supply.take(3)
    valid, a, S = multiply_many(
        session,
        list(zip(first, (valid_left, left[..., 1] + once, H + once + once), (valid_right, power, power), strict=True)),
    )
    b = S - a
    second = supply.take(3)
    GL_S, G_a, ab = multiply_many(session, list(zip(second, (left[..., 0], a, a), (S, G, b), strict=True)))
    u, q = np.split(truncate(session, np.concatenate([GL_S - G_a, ab]), supply.take()[0]), 2, axis=0)
    root = inverse_sqrt(session, supply.take(len(plan_inverse_sqrt(q.size, UNIT))), q, UNIT)
    negative = less_than_zero(session, supply.take(4), u)
    sign = _signs(session, negative, rule)
    size, factor = multiply_many(session, list(zip(supply.take(2), (u, sign), (root, valid), strict=True)))
    gain = multiply(session, supply.take()[0], size, factor)
    none = np.zeros((nodes, 1), dtype=np.uint64)
    if rule.penalty:
        none = np.uint64(rule.penalty) * functions.sqrt(
            session, supply.take(len(plan_sqrt(nodes, rule.root))), H + once + once, rule.root
        )
    _, index = argmax(session, supply.take(len(plan_argmax(nodes, count + 1))), np.concatenate([none, gain], axis=1))
    return Chosen(index, left, whole)


def _compared(session: Session, supply: Supply, HL: Words, H: Words, rule: Rule) -> tuple[Words, Words, Words]:
    """Whether the left and the right child are heavy enough, and the power of 4 that scales a node; one comparison."""
    least, first = np.uint64(rule.least), session.me == 0
    lighter = [HL, H - HL]
    if first:
        lighter = [x - least for x in lighter]
    S = H.repeat(len(rule.edges), axis=1)
    if first:
        S += np.uint64(2 * rule.regularisation) - np.array(rule.edges, dtype=np.uint64)
    below = less_than_zero(session, supply.take(4), np.concatenate([x.reshape(-1) for x in (*lighter, S)]))
    left, right, scaled = np.split(below, [HL.size, 2 * HL.size])
    one = np.uint64(1 if first else 0)
    steps = np.array([3 * 4**i for i in range(len(rule.edges))], dtype=np.uint64)
    power = one + (scaled.reshape(S.shape) * steps).sum(axis=1, keepdims=True, dtype=np.uint64)
    return (one - left).reshape(HL.shape), (one - right).reshape(HL.shape), power


def _signs(session: Session, negative: Words, rule: Rule) -> Words:
    """Shares of what makes u a gain: its sign, or the direction that a constraint asks for."""
    one = np.uint64(1 if session.me == 0 else 0)
    sign = one - np.uint64(2) * negative
    fixed = rule.monotone != 0
    sign[:, fixed] = rule.monotone[fixed].astype(np.uint64) * one
    return sign


def plan_announcement(candidates: Candidates, nodes: int) -> list[Correlation]:
    """What `announce` asks of the dealer."""
    return list(plan_reveal_less_than(nodes, len(candidates.columns)))


def announce(
    session: Session, supply: Supply, index: Words, candidates: Candidates, ended: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Tell everybody who owns the best split of every node, and that owner alone which one it is.

    index: (nodes,) shares as in `Chosen`.  ended: nodes below one without a split, which get none either.
    Returns the owners, NO_SPLIT for none, and our own candidates, NO_SPLIT elsewhere.

    Reveals: to every party, the owner of each node's split or that it has none; to that owner, which candidate it is.
    Cost: 5 rounds; to every other party 16 bytes a node and as `mpc.compare.reveal_less_than`.
    Security: semi-honest parties; the dealer does not collude.
    Source: additive secret sharing; as `mpc.compare.less_than_zero`.
    Raises: LocalProtocolError if the tickets are not for this; RemoteProtocolError if what is opened to us is no split of ours.
    """
    session.correlations.settle()
    hidden = np.where(ended, np.uint64(0), index)
    thresholds = [1, *(1 + start for start in candidates.starts[1:])]
    tickets = supply.take(len(plan_announcement(candidates, len(index))))
    below = reveal_less_than(session, tickets, hidden, thresholds, "trees/owner")
    owners = (~below).sum(axis=0) - 1
    for i, name in enumerate(session.parties):
        if i != session.me:
            send_words(session.channel, name, "trees/split", np.where(owners == i, hidden, np.uint64(0)))
    total = np.where(owners == session.me, hidden, np.uint64(0))
    for name in session.peers:
        total = total + recv_words(session.channel, name, "trees/split", total.shape, np.uint64)
    mine = np.where(owners == session.me, total.astype(np.int64) - 1, NO_SPLIT)
    own = mine[owners == session.me]
    if not ((own >= 0) & (own < len(candidates))).all() or (candidates.owner[own] != session.me).any():
        raise RemoteProtocolError(
            session.peers[0], "trees/split", "a split that was opened to us is none of our candidates"
        )
    return owners, mine
