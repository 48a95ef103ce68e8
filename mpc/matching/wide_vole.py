"""Masks for columns of codewords as in `mpc.matching.vole`, over GF(64), for parties that may not follow the protocol.

43 trees of 64 leaves.  A receiver could send sums from which different choices of the sender lead to different leaves,
and learn from how the run goes on what the sender chose.  So of every leaf a check value is made, a hash, and the
receiver also sends each tree's sum of them, and one hash of all.  The sender finds the check value that it lacks from the
sum, and compares.  Where that passes, all choices with which it passes have the same leaves.

Source: Roy, "SoftSpokenOT", CRYPTO 2022 (consistency of punctured trees); Boyle et al., CCS 2019; Yang et al., "Ferret",
CCS 2020.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mpc.matching import okvs
from mpc.matching import wide_code as code
from mpc.matching.hashes import Rows
from mpc.matching.kernels import wide
from mpc.matching.parameters import SQUARE
from mpc.matching.vole import Choice, Leaves, Shape, grow_leaves, joined
from mpc.rng import Prg

Words = npt.NDArray[Any]
SHAPE = Shape(code.LENGTH, code.SYMBOL_BITS)
CHECK_BYTES = 32
TREES_BYTES = SHAPE.sums_bytes + (SHAPE.trees + 1) * CHECK_BYTES
"""Of the receiver's message with all sums."""
BLOCKS = 4 * code.SYMBOL_BITS
"""Blocks of every leaf's stream for a square of columns."""


@dataclass(frozen=True)
class Columns:
    """v or w: (c, 4) words, and planes (2, c / 64) of the bits that do not fit into them."""

    words: Words
    spare: Words

    @classmethod
    def of(cls, n: int) -> Columns:
        """Room for n columns."""
        return cls(np.empty((n, code.WORDS), dtype=np.uint64), np.empty((code.SPARE, n // 64), dtype=np.uint64))

    def put(self, at: int, words: Words, spare: Words) -> None:
        """Columns from number `at` on, a multiple of 64."""
        self.words[at : at + len(words)] = words
        self.spare[:, at // 64 : at // 64 + spare.shape[1]] = spare

    def decode(self, rows: Rows) -> Words:
        """(n, 5): for every row the sum of the columns that it selects."""
        values = np.empty((len(rows.start), code.WORDS + 1), dtype=np.uint64)
        values[:, : code.WORDS] = okvs.decode(self.words, rows.start, rows.band)
        wide.parities(self.spare, rows.start, rows.band, values)
        return values


class Masker:
    """The receiver's end: all leaves, and how much of their streams is spent."""

    def __init__(self, leaves: Leaves) -> None:
        self._keys, self._spent = wide.prepared(joined(leaves)), 0
        self._table, _ = code.tables()

    def mask(self, solved: Words) -> tuple[Words, Words, Words]:
        """The message d (squares, 43, 6, 8) for the next columns' values (c, 2), and their v with its spare planes."""
        d, v, spare = wide.mask(self._keys, self._spent, solved, self._table)
        self._spent += BLOCKS * len(d)
        return d, v, spare


class Unmasker:
    """The sender's end: Delta, all leaves but one of each tree, and how much of their streams is spent."""

    def __init__(self, delta: Sequence[int], leaves: Leaves) -> None:
        self._keys, self._spent = wide.prepared(joined(leaves)), 0
        self._delta = np.array(delta, dtype=np.int64)
        self._table, self._spare = code.tables(self._delta)

    def unmask(self, d: Words) -> tuple[Words, Words]:
        """The next columns' w, with its spare planes."""
        w, spare = wide.unmask(self._keys, self._spent, d, self._delta)
        self._spent += BLOCKS * len(d)
        return w, spare

    def add_code(self, values: Words, messages: Words) -> None:
        """values (n, 5) += Delta times the codewords of the messages (n, 2)."""
        wide.add_code(values, messages, self._table, self._spare)


def masked_columns(n_columns: int) -> int:
    """How many columns are masked for so many of a store: at least 128 random ones follow them."""
    return -(-(n_columns + 128) // SQUARE) * SQUARE


# --- set-up


def _check(session: bytes, tree: int, leaf: int, key: bytes) -> bytes:
    label = session + tree.to_bytes(2, "big") + leaf.to_bytes(2, "big")
    return hashlib.blake2b(label + key, digest_size=CHECK_BYTES, person=b"accord/psi/leaf").digest()


def _sum(values: Sequence[bytes]) -> bytes:
    rows = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(-1, CHECK_BYTES)
    total: Words = np.bitwise_xor.reduce(rows, axis=0)
    return total.tobytes()


def _digest(session: bytes, checks: Sequence[bytes]) -> bytes:
    return hashlib.sha256(b"accord/matching/leaves" + session + b"".join(checks)).digest()


def grow(session: bytes, scalar: X25519PrivateKey, points: bytes, noise: Prg) -> tuple[Masker, bytes]:
    """The receiver's end from the sender's points, and the sums that the sender needs.

    session: 32 bytes that no other run has.  Raises: ValueError if a point is none, or has low order.
    """
    leaves, sums = grow_leaves(SHAPE, session, scalar, points, noise)
    checks = [[_check(session, i, x, key) for x, key in enumerate(tree)] for i, tree in enumerate(leaves)]
    totals = b"".join(_sum(tree) for tree in checks)
    return Masker(leaves), sums + totals + _digest(session, [check for tree in checks for check in tree])


def unmasker(choice: Choice, session: bytes, message: bytes) -> Unmasker:
    """The sender's end, with the receiver's sums.

    Raises: ValueError if another choice would have led to other leaves.
    """
    leaves, checks = choice.leaves(message[: SHAPE.sums_bytes]), list[bytes]()
    for i, (tree, hole) in enumerate(zip(leaves, choice.delta, strict=True)):
        at = SHAPE.sums_bytes + CHECK_BYTES * i
        # By number, not by distance; the one at the hole is what is left of the sum.
        known = [_check(session, i, x, tree[x ^ hole]) for x in range(len(tree)) if x != hole]
        checks += [*known[:hole], _sum([*known, message[at : at + CHECK_BYTES]]), *known[hole:]]
    if not hmac.compare_digest(_digest(session, checks), message[-CHECK_BYTES:]):
        raise ValueError("the sums of a tree contradict its leaves")
    return Unmasker(choice.delta, leaves)
