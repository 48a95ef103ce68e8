"""Masks for columns of codewords: the receiver's v and the sender's w with w = v + Delta c for the receiver's codewords c.

53 trees of 16 leaves, grown by the receiver.  The sender chooses a leaf of each, which is a symbol of its Delta, and by four
base transfers a tree learns every leaf but that one.  With r_x the stream of leaf x the receiver has u = sum r_x and
v = sum x r_x, the sender sum (x + Delta) r_x = v + Delta u.  The receiver sends d = u + c, and the sender adds Delta d.
All in GF(16), symbol by symbol of the code.

Base transfers and trees are those of `mpc.ot.extension`, in one direction.

Source: Roy, "SoftSpokenOT", CRYPTO 2022 (subspace VOLE from punctured trees); Masny, Rindal, CCS 2019 (base transfers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mpc.curve25519 import POINT_BYTES
from mpc.matching import code
from mpc.matching.kernels import kernels
from mpc.ot.extension import SEED_BYTES, BaseTransfers, grow_tree, puncture_tree
from mpc.rng import Prg

Words = npt.NDArray[Any]
Leaves = Sequence[Sequence[bytes]]
PAIR_BYTES = 2 * POINT_BYTES
BLOCKS = 4
"""Blocks of every leaf's stream for a tile of columns."""
_OWNER = 0


@dataclass(frozen=True)
class Shape:
    """How many trees there are, and of how many levels."""

    trees: int
    depth: int

    @property
    def points_bytes(self) -> int:
        """Of the sender's points: a pair for each level of each tree."""
        return self.trees * self.depth * PAIR_BYTES

    @property
    def sums_bytes(self) -> int:
        """Of the sums of all trees."""
        return self.trees * self.tree_bytes

    @property
    def tree_bytes(self) -> int:
        """Of one tree's sums: two for each level."""
        return 2 * self.depth * SEED_BYTES


SHAPE = Shape(code.LENGTH, code.SYMBOL_BITS)
TREES = SHAPE.trees


def joined(leaves: Leaves) -> npt.NDArray[np.uint8]:
    """The AES keys of all trees, (k, 16)."""
    raw = b"".join(leaf for tree in leaves for leaf in tree)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, SEED_BYTES)


class Masker:
    """The receiver's end: all leaves, and how much of their streams is spent."""

    def __init__(self, leaves: Leaves) -> None:
        self._keys, self._spent = kernels.prepared(joined(leaves)), 0
        self._table = code.tables()

    def mask(self, solved: Words) -> tuple[Words, Words]:
        """The message d (tiles, 53, 8) for the next columns' values, and their v (columns, 4)."""
        d, v = kernels.mask(self._keys, self._spent, solved, self._table)
        self._spent += BLOCKS * len(d)
        return d, v


class Unmasker:
    """The sender's end: Delta, all leaves but one of each tree, and how much of their streams is spent."""

    def __init__(self, delta: Sequence[int], leaves: Leaves) -> None:
        self._keys, self._spent = kernels.prepared(joined(leaves)), 0
        self._delta = np.array(delta, dtype=np.int64)
        self._table = code.tables(self._delta)

    def unmask(self, d: Words) -> Words:
        """The next columns' w (columns, 4)."""
        w: Words = kernels.unmask(self._keys, self._spent, d, self._delta)
        self._spent += BLOCKS * len(d)
        return w

    def add_code(self, values: Words, messages: Words) -> None:
        """values (n, 4) += Delta times the codewords of the messages (n,)."""
        kernels.add_code(values, messages, self._table)


def grow_leaves(
    shape: Shape, session: bytes, scalar: X25519PrivateKey, points: bytes, noise: Prg
) -> tuple[Leaves, bytes]:
    """All leaves of the receiver's trees from the sender's points, and the sums that the sender needs.

    session: 32 bytes that no other run has.  Raises: ValueError if a point is none, or has low order.
    """
    base, public, depth = BaseTransfers(session, _OWNER), scalar.public_key().public_bytes_raw(), shape.depth
    starts = range(0, shape.points_bytes, PAIR_BYTES)
    pairs = [base.keys(i, scalar, public, points[at : at + PAIR_BYTES]) for i, at in enumerate(starts)]
    roots = noise.words((shape.trees, SEED_BYTES), np.uint8)
    trees = [grow_tree(roots[i].tobytes(), pairs[depth * i : depth * (i + 1)]) for i in range(shape.trees)]
    return [leaves for leaves, _ in trees], b"".join(sums for _, sums in trees)


def grow(session: bytes, scalar: X25519PrivateKey, points: bytes, noise: Prg) -> tuple[Masker, bytes]:
    """The receiver's end from the sender's points, and the sums that the sender needs; as `grow_leaves`."""
    leaves, sums = grow_leaves(SHAPE, session, scalar, points, noise)
    return Masker(leaves), sums


class Choice:
    """The sender's choice of Delta, a leaf of each tree, and the points that stand for it."""

    def __init__(self, session: bytes, public: bytes, noise: Prg, shape: Shape = SHAPE) -> None:
        """public: the receiver's key.  Raises: ValueError if it has low order."""
        self.delta: list[int] = (noise.words(shape.trees, np.uint8) & (1 << shape.depth) - 1).tolist()
        self._shape = shape
        base, key = BaseTransfers(session, _OWNER), X25519PublicKey.from_public_bytes(public)
        away = [1 - (leaf >> shape.depth - 1 - level & 1) for leaf in self.delta for level in range(shape.depth)]
        chosen = [base.choose(i, bit, noise.words(65, np.uint8).tobytes()) for i, bit in enumerate(away)]
        self.points = b"".join(pair for _, pair in chosen)
        self._keys = [
            base.key(i, bit, public, pair, secret.exchange(key))
            for i, (bit, (secret, pair)) in enumerate(zip(away, chosen, strict=True))
        ]

    def leaves(self, sums: bytes) -> Leaves:
        """The leaves of every tree but the chosen one, by their distance from it, with the receiver's sums."""
        depth, size = self._shape.depth, self._shape.tree_bytes
        return [
            puncture_tree(leaf, self._keys[depth * i : depth * (i + 1)], sums[size * i : size * (i + 1)])
            for i, leaf in enumerate(self.delta)
        ]

    def unmasker(self, sums: bytes) -> Unmasker:
        """The sender's end, with the receiver's sums."""
        return Unmasker(self.delta, self.leaves(sums))
