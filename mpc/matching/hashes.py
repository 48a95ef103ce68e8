"""From identifiers to rows of the key-value store, and from values to tags.

Everything is keyed BLAKE3 under keys that are bound to the session, and to the attempt.  An identifier becomes 128 bits
under a key that depends on the session id only; this fixes a party's set.  A row needs the random nonces that both parties
sent after that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.matching.kernels import kernels
from mpc.matching.parameters import BLOCK_BYTES, CHUNK_BYTES, WIDTH

Words = npt.NDArray[Any]


def bound_key(purpose: str, *parts: bytes) -> bytes:
    """32 bytes for one purpose; parts of any lengths."""
    hasher = hashlib.sha256(b"accord/matching/" + purpose.encode() + b"\0")
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.digest()


def _words(key: bytes) -> Words:
    return np.frombuffer(key, dtype=np.uint32)


@dataclass(frozen=True)
class Identifiers:
    """A set, hashed and in order, with the sentinel that every set has.

    words: (n + 1, 2), ascending by the first.  rows: the item each one came from; n for the sentinel.
    """

    words: Words
    rows: npt.NDArray[np.int64]

    def repeated(self) -> int:
        """How many are equal to the one before."""
        return int(np.count_nonzero(np.all(self.words[1:] == self.words[:-1], axis=1)))


def identify(items: Sequence[bytes], session_id: bytes, attempt: int) -> Identifiers:
    """Hash all items to 128 bits each and sort them."""
    key = bound_key("identifier", session_id, bytes([attempt]))
    words = np.empty((len(items) + 1, 2), dtype=np.uint64)
    words[-1] = np.frombuffer(bound_key("sentinel", key)[:16], dtype=np.uint64)
    lengths = np.fromiter(map(len, items), dtype=np.int64, count=len(items))
    long = np.flatnonzero(lengths > CHUNK_BYTES)
    short = [b"" if len(item) > CHUNK_BYTES else item for item in items] if len(long) else items
    lengths[long] = 0
    offsets = np.zeros(len(items) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    data = np.frombuffer(b"".join([*short, bytes(BLOCK_BYTES)]), dtype=np.uint8)
    words[:-1] = kernels.hash_items(_words(key), data, offsets)
    for i in long.tolist():
        digest = hashlib.blake2b(items[i], digest_size=16, key=key, person=b"accord/long").digest()
        words[i] = np.frombuffer(digest, dtype=np.uint64)
    order = kernels.order(words)
    return Identifiers(np.take(words, order, axis=0), order)


@dataclass(frozen=True)
class Rows:
    """First columns (n,) int64, ascending; bands of WIDTH bits, the first four words of (n, 5); values (n,)."""

    start: Words
    band: Words
    value: Words


def expand(words: Words, key: bytes, n_columns: int) -> Rows:
    """Every identifier's row.  Its first column follows the identifier's order, so that rows need not be sorted again."""
    digest = kernels.hash_rows(_words(key), words, np.empty((len(words), 0), dtype=np.uint64), 5)
    span, half = np.uint64(n_columns - WIDTH + 1), np.uint64(32)
    high, low = words[:, 0] >> half, words[:, 0] & np.uint64(0xFFFFFFFF)
    start = (high * span + (low * span >> half)) >> half
    digest[:, 3] &= np.uint64((1 << WIDTH % 64) - 1)
    return Rows(start.astype(np.int64), digest, digest[:, 4].copy())


def tags(values: Words, words: Words, key: bytes) -> Words:
    """(n, 4): of each value, hashed with its identifier, two words of tag and two of proof."""
    hashed: Words = kernels.hash_rows(_words(key), values, words, 4)
    return hashed
