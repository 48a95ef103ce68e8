"""Which rows are in which node while a tree grows: known to nobody, or, where the settings say so, to every owner."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation
from mpc.session import Session
from mpc.wire import recv_words, send_words
from vertical.trees import paths, rows
from vertical.trees.settings import Settings
from vertical.trees.splits import NO_SPLIT
from vertical.trees.supply import Supply

Words = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Routing(Protocol):
    """The rows of one tree."""

    def vectors(self) -> Words:
        """(n, 2 nodes) words of 32 bits: gradients and Hessians of the root, or of a level's left children."""

    def descend(self, owners: Ints, mine: Bools, *, last: bool) -> None:
        """Go one level down.  owners: of the nodes' splits.  mine: (nodes, n), where our own splits send rows left."""

    def values(self, leaves: Words) -> Words:
        """Shares of the leaf's weight that every row falls into, (n,)."""


def plan_descent(settings: Settings, level: int, n: int, owners: int) -> list[Correlation]:
    """What going down from this level asks of the dealer."""
    if settings.routing == "revealed" or level == settings.depth - 1:
        return []
    return rows.plan_children(1 << level, n, owners)


def plan_values(settings: Settings, n: int) -> list[Correlation]:
    """What the leaves' values ask of the dealer."""
    return [] if settings.routing == "revealed" else paths.plan_upwards(1, settings.depth, n)


class Hidden:
    """Nobody knows."""

    def __init__(self, session: Session, supply: Supply, both: Words) -> None:
        self._session, self._supply = session, supply
        self._state = rows.of_gradients(both, len(session.parties))
        self._vectors = rows.vectors_of_root(both)
        self._bits: list[Words] = []

    def vectors(self) -> Words:
        """As `Routing`."""
        return self._vectors

    def descend(self, owners: Ints, mine: Bools, *, last: bool) -> None:
        """As `Routing`.

        Reveals, Cost, Security, Source: as `vertical.trees.rows.left_children`.
        """
        bits = paths.as_shares(self._session.me, owners, mine)
        self._bits.append(bits)
        if not last:
            left = rows.left_children(self._session, self._supply.take()[0], self._state, bits)
            self._vectors = rows.vectors(left, first=self._session.me == 0)
            self._state = rows.children(self._state, left)

    def values(self, leaves: Words) -> Words:
        """As `Routing`.

        Reveals, Cost, Security, Source: as `vertical.trees.paths.upwards`.
        """
        return np.asarray(paths.upwards(self._session, self._supply, self._bits, leaves)[0])


class Revealed:
    """Every owner knows; the gradients stay shared."""

    def __init__(self, session: Session, both: Words) -> None:
        self._session = session
        self._both = rows.vectors_of_root(both)
        self._node = np.zeros(len(self._both), dtype=np.int64)
        self._vectors = self._both

    def vectors(self) -> Words:
        """As `Routing`."""
        return self._vectors

    def descend(self, owners: Ints, mine: Bools, *, last: bool) -> None:
        """As `Routing`: every owner tells where the rows of its nodes go.

        Reveals: to every owner, which rows go left in every node.
        Cost: 1 round; n / 8 bytes to every other owner.
        Security: what is revealed is the setting's purpose.
        Source: Cheng et al., "SecureBoost", IEEE Intelligent Systems 2021 (routing in the clear).
        """
        session, n = self._session, len(self._node)
        decided = owners[self._node]
        left = mine[self._node, np.arange(n)] & (decided == session.me)
        packed = np.packbits(left)
        for peer in session.peers:
            send_words(session.channel, peer, "trees/routing", packed)
        for i, name in enumerate(session.parties):
            if i != session.me:
                said = recv_words(session.channel, name, "trees/routing", packed.shape, np.uint8)
                left |= np.unpackbits(said, count=n).astype(bool) & (decided == i)
        left |= decided == NO_SPLIT
        self._node = 2 * self._node + ~left
        if not last:
            self._vectors = np.zeros((n, 2 * len(owners)), dtype=np.uint32)
            here = np.flatnonzero(left)
            for half in range(2):
                self._vectors[here, self._node[here] + half] = self._both[here, half]

    def values(self, leaves: Words) -> Words:
        """As `Routing`; nothing is sent."""
        return np.asarray(leaves[self._node])
