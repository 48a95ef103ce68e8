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
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mpc.curve25519 import POINT_BYTES
from mpc.matching import code
from mpc.matching.kernels import kernels
from mpc.ot.extension import SEED_BYTES, _Base, grow_tree, puncture_tree
from mpc.rng import Prg

Words = npt.NDArray[Any]
TREES, DEPTH = code.LENGTH, code.SYMBOL_BITS
TRANSFERS = TREES * DEPTH
PAIR_BYTES = 2 * POINT_BYTES
SUMS_BYTES = 2 * DEPTH * SEED_BYTES
BLOCKS = 4
"""Blocks of every leaf's stream for a tile of columns."""
_OWNER = 0


def _prepared(leaves: Sequence[Sequence[bytes]]) -> Words:
    raw = b"".join(leaf for tree in leaves for leaf in tree)
    keys: Words = kernels.prepared(np.frombuffer(raw, dtype=np.uint8).reshape(-1, SEED_BYTES))
    return keys


class Masker:
    """The receiver's end: all leaves, and how much of their streams is spent."""

    def __init__(self, leaves: Sequence[Sequence[bytes]]) -> None:
        self._keys, self._spent = _prepared(leaves), 0
        self._table = code.tables()

    def mask(self, solved: Words) -> tuple[Words, Words]:
        """The message d (tiles, 53, 8) for the next columns' values, and their v (columns, 4)."""
        d, v = kernels.mask(self._keys, self._spent, solved, self._table)
        self._spent += BLOCKS * len(d)
        return d, v


class Unmasker:
    """The sender's end: Delta, all leaves but one of each tree, and how much of their streams is spent."""

    def __init__(self, delta: Sequence[int], leaves: Sequence[Sequence[bytes]]) -> None:
        self._keys, self._spent = _prepared(leaves), 0
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


def grow(session: bytes, scalar: X25519PrivateKey, points: bytes, noise: Prg) -> tuple[Masker, bytes]:
    """The receiver's end from the sender's points, and the sums that the sender needs.

    session: 32 bytes that no other run has.  Raises: ValueError if a point is none, or has low order.
    """
    base, public = _Base(session, _OWNER), scalar.public_key().public_bytes_raw()
    pairs = [base.keys(i, scalar, public, points[PAIR_BYTES * i : PAIR_BYTES * (i + 1)]) for i in range(TRANSFERS)]
    roots = noise.words((TREES, SEED_BYTES), np.uint8)
    trees = [grow_tree(roots[i].tobytes(), pairs[DEPTH * i : DEPTH * (i + 1)]) for i in range(TREES)]
    return Masker([leaves for leaves, _ in trees]), b"".join(sums for _, sums in trees)


class Choice:
    """The sender's choice of Delta, and the points that stand for it."""

    def __init__(self, session: bytes, public: bytes, noise: Prg) -> None:
        """public: the receiver's key.  Raises: ValueError if it has low order."""
        self._delta = (noise.words(TREES, np.uint8) & 15).tolist()
        base, key = _Base(session, _OWNER), X25519PublicKey.from_public_bytes(public)
        away = [1 - (leaf >> DEPTH - 1 - level & 1) for leaf in self._delta for level in range(DEPTH)]
        chosen = [base.choose(i, bit, noise.words(65, np.uint8).tobytes()) for i, bit in enumerate(away)]
        self.points = b"".join(pair for _, pair in chosen)
        self._keys = [
            base.key(i, bit, public, pair, secret.exchange(key))
            for i, (bit, (secret, pair)) in enumerate(zip(away, chosen, strict=True))
        ]

    def unmasker(self, sums: bytes) -> Unmasker:
        """The sender's end, with the receiver's sums."""
        leaves = [
            puncture_tree(leaf, self._keys[DEPTH * i : DEPTH * (i + 1)], sums[SUMS_BYTES * i : SUMS_BYTES * (i + 1)])
            for i, leaf in enumerate(self._delta)
        ]
        return Unmasker(self._delta, leaves)
