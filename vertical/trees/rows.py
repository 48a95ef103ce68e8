"""The gradients of every row, restricted to the nodes of a level: shared, so that nobody knows which rows are in a node.

Two owners keep a row's gradient g and Hessian h in one word, h + 2^32 g, and one product with the bit that says "left" moves
both to the child.  The halves of uniform shares of that word are shares of h and of g - 1 modulo 2^32: the lower halves add
up to h + 2^32, except with probability h / 2^32, when g gains one unit of its last place.  More owners could carry more than
once, so they keep two words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Ticket
from mpc.products import multiply, plan_multiply
from mpc.session import Session

Words = npt.NDArray[Any]
HALF = np.uint64(32)


def of_gradients(both: Words, owners: int) -> Words:
    """The state of the root, (1, ...), from shares (2, n) of gradients and Hessians."""
    if owners == 2:
        return np.asarray((both[1] + (both[0] << HALF))[None])
    return both[None]


def vectors_of_root(both: Words) -> Words:
    """(n, 2) words of 32 bits, gradient and Hessian."""
    return np.ascontiguousarray(both.T.astype(np.uint32))


def vectors(state: Words, *, first: bool) -> Words:
    """(n, 2 nodes) words of 32 bits from products: of every node its gradient, then its Hessian; `first` at one owner."""
    if state.ndim == 3:
        return np.ascontiguousarray(np.moveaxis(state, 2, 0).reshape(state.shape[2], -1).astype(np.uint32))
    out = np.empty((state.shape[1], len(state), 2), dtype=np.uint32)
    out[..., 1] = state.T.astype(np.uint32)
    out[..., 0] = (state >> HALF).T.astype(np.uint32)
    if first:
        out[..., 0] += np.uint32(1)
    return out.reshape(len(out), -1)


def plan_children(nodes: int, n: int, owners: int) -> list[Correlation]:
    """What `left_children` asks of the dealer."""
    return [plan_multiply((nodes, n)) if owners == 2 else plan_multiply((nodes, 1, n), (nodes, 2, n))]


def left_children(session: Session, ticket: Ticket, state: Words, bits: Words) -> Words:
    """The state of every node's left child, from shares of the bits that say "left", (nodes, n), with 1 for yes.

    Reveals: nothing.
    Cost: 1 round; to every other party 16 bytes a row and node, for more than two owners 24; the dealer sends half, or
        two thirds, of that in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.products.multiply_many`.
    Raises: as `mpc.products.multiply_many`.
    """
    return multiply(session, ticket, bits if state.ndim == 2 else bits[:, None], state)


def children(state: Words, left: Words) -> Words:
    """Left and right children side by side, in the order of the next level."""
    out = np.empty((2 * len(state), *state.shape[1:]), dtype=np.uint64)
    out[0::2] = left
    np.subtract(state, left, out=out[1::2])
    return out
