"""From identifiers to rows of the key-value store, and from values to tags.

Everything is keyed BLAKE3 under keys that are bound to the session.  An identifier becomes a point, 128 bits under a key that
depends on the session id only; this fixes a party's set.  A row needs the random nonces that both parties sent after that.
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

AT_ONCE = 1 << 16
"""Items that are hashed at a time."""


def bound_key(purpose: str, *parts: bytes) -> bytes:
    """32 bytes for one purpose; parts of any lengths."""
    hasher = hashlib.sha256(b"accord/matching/" + purpose.encode() + b"\0")
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.digest()


def _words(key: bytes) -> Words:
    return np.frombuffer(key, dtype=np.uint32)


@dataclass(frozen=True, repr=False)
class Identifiers:
    """A set, hashed and in order, with the sentinel that every set has.

    words: (n + 1, 2), ascending by the first.  rows: the item each one came from; n for the sentinel.
    """

    words: Words
    rows: npt.NDArray[np.int64]

    def repeated(self) -> int:
        """How many are equal to the one before."""
        return int(np.count_nonzero(np.all(self.words[1:] == self.words[:-1], axis=1)))


def hash_buffer(data: Words, offsets: Words, session_id: bytes) -> Words:
    """(n, 2): points of the items data[offsets[i]:offsets[i + 1]], in their order.

    data: uint8, such as the buffer of a column of Apache Arrow; it is not copied.  offsets: (n + 1,) int64.
    """
    key, n = bound_key("identifier", session_id), len(offsets) - 1
    words = np.empty((n, 2), dtype=np.uint64)
    # Compiled code is for buffers that cannot be written; and it reads some bytes beyond an item's end.
    data = data.view()
    data.flags.writeable = False
    inside = int(np.searchsorted(offsets[1:], len(data) - BLOCK_BYTES, side="right"))
    _hash_into(words[:inside], key, data, offsets[: inside + 1])
    if inside < n:
        rest = np.frombuffer(data[offsets[inside] : offsets[n]].tobytes() + bytes(BLOCK_BYTES), dtype=np.uint8)
        _hash_into(words[inside:], key, rest, offsets[inside:] - offsets[inside])
    return words


def _hash_into(words: Words, key: bytes, data: Words, offsets: Words) -> None:
    """Runs of items that are short enough for the kernel, and the others one by one."""
    long = np.flatnonzero(np.diff(offsets) > CHUNK_BYTES)
    for i in long.tolist():
        item = data[offsets[i] : offsets[i + 1]]
        digest = hashlib.blake2b(item.data, digest_size=16, key=key, person=b"accord/long").digest()
        words[i] = np.frombuffer(digest, dtype=np.uint64)
    for begin, end in zip([0, *(long + 1).tolist()], [*long.tolist(), len(words)], strict=True):
        for at in range(begin, end, AT_ONCE):
            to = min(at + AT_ONCE, end)
            words[at:to] = kernels.hash_items(_words(key), data, offsets[at : to + 1].copy())


def hash_list(items: Sequence[bytes], session_id: bytes) -> Words:
    """(n, 2): points of the items, in their order."""
    words = np.empty((len(items), 2), dtype=np.uint64)
    for at in range(0, len(items), AT_ONCE):
        part = items[at : at + AT_ONCE]
        offsets = np.zeros(len(part) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, part), dtype=np.int64, count=len(part)), out=offsets[1:])
        data = np.frombuffer(b"".join([*part, bytes(BLOCK_BYTES)]), dtype=np.uint8)
        words[at : at + AT_ONCE] = hash_buffer(data, offsets, session_id)
    return words


def identify(items: Sequence[bytes], session_id: bytes) -> Identifiers:
    """Hash all items to 128 bits each and sort them."""
    words = np.empty((len(items) + 1, 2), dtype=np.uint64)
    words[:-1] = hash_list(items, session_id)
    words[-1] = np.frombuffer(bound_key("sentinel", bound_key("identifier", session_id))[:16], dtype=np.uint64)
    order = kernels.order(words)
    return Identifiers(np.take(words, order, axis=0), order)


@dataclass(frozen=True, repr=False)
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


def tags(values: Words, words: Words, key: bytes, n_words: int = 4) -> Words:
    """(n, n_words up to 8): a hash of each value with its point, two matrices of at most 8 columns together."""
    hashed: Words = kernels.hash_rows(_words(key), values, words, n_words)
    return hashed
