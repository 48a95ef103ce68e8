"""Sets in buckets, so that memory depends on a bucket's size only: which points a bucket has, and what it is filled up to.

A point's bucket is its top bits.  Points are hashes, so buckets hold about equally many, but how many exactly is a histogram
of hashes that either side could test guesses against.  Therefore each is filled up with random points to a bound that follows
from the size of the whole set; a bucket that would need more is an error, which happens with a probability below 2^-40.

What a side keeps between attempts goes through the same interface as its points: files are no business of a protocol.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.rng import Prg

Words = npt.NDArray[Any]
Positions = npt.NDArray[np.int64]

BUCKET_POINTS = 1 << 20
"""Points of the larger set in a bucket, at most and on average."""
OVERFLOW_BITS = 41
"""No bucket of a side overflows except with a probability of two to the minus this."""
SENTINEL, DUMMY = -1, -2
"""Positions of what is filled in: the point that both sides have, and points that nobody has."""


class Store(Protocol):
    """One side's points, and what it keeps between attempts at one matching.

    A point is 128 bits in two words (`mpc.matching.hashes`), the top bits in the first one.
    """

    @property
    def n_points(self) -> int:
        """How many distinct points there are in all."""

    @property
    def digest(self) -> bytes:
        """A hash of all points; another one if the set is another one."""

    def bucket(self, bits: int, b: int) -> Words:
        """(m, 2): the distinct points whose top `bits` bits are b, ascending."""

    def save(self, step: int, name: str, array: Words) -> None:
        """Keep an array, in place of an earlier one.  When this returns it will be there after a crash, whole."""

    def load(self, step: int, name: str) -> Words | None:
        """What was kept, or None."""


class MemoryStore:
    """A store without files: after a crash everything begins anew."""

    def __init__(self, words: Words) -> None:
        """words: (n, 2), ascending."""
        self._words, self._kept = words, dict[tuple[int, str], Words]()

    @property
    def n_points(self) -> int:
        """How many points there are."""
        return len(self._words)

    @property
    def digest(self) -> bytes:
        """A hash of all points."""
        return hashlib.sha256(self._words.data).digest()

    def place(self, bits: int, b: int) -> int:
        """Where a bucket begins."""
        return int(np.searchsorted(self._words[:, 0], np.uint64(b << 64 - bits))) if b else 0

    def bucket(self, bits: int, b: int) -> Words:
        """The points whose top bits are b."""
        end = self.place(bits, b + 1) if b + 1 < 1 << bits else len(self._words)
        return self._words[self.place(bits, b) : end]

    def save(self, step: int, name: str, array: Words) -> None:
        """Keep an array."""
        self._kept[step, name] = array

    def load(self, step: int, name: str) -> Words | None:
        """What was kept, or None."""
        return self._kept.get((step, name))


def bucket_count_bits(n: int, m: int, bucket_points: int) -> int:
    """Logarithm of the number of buckets for two sets' sizes."""
    return (max(1, -(-max(n, m) // bucket_points)) - 1).bit_length()


def bound(n: int, bits: int) -> int:
    """What each of 2^bits buckets of n points is filled up to.

    By Bernstein's inequality a bucket of mean u = n / 2^bits holds u + t points or more with a probability below
    exp(-t^2 / (2 u + 2 t / 3)).  That is exp(-L) for t = (L + sqrt(L^2 + 18 u L)) / 3, and L = (bits + OVERFLOW_BITS) ln 2 is
    enough for all buckets together.  In integers, so that both sides find the same: ln 2 < 7 / 10, everything rounded up.
    """
    if bits == 0:
        return n
    count, tenfold = 1 << bits, 7 * (bits + OVERFLOW_BITS)
    root = math.isqrt(tenfold**2 + -(-180 * n * tenfold // count)) + 1
    return min(n, -(-n // count) - (-(tenfold + root) // 30))


@dataclass(frozen=True, repr=False)
class Filled:
    """A bucket as it goes into the protocol.

    words: (size + 1, 2), ascending.  positions: where in the bucket each one is, SENTINEL or DUMMY.
    """

    words: Words
    positions: Positions


def checked(store: Store, bits: int, b: int) -> Words:
    """A bucket's points.  Raises: LocalProtocolError if they are not distinct, in order and in the right bucket."""
    words, most = store.bucket(bits, b), bound(store.n_points, bits)
    first, second = words[:, 0], words[:, 1]
    if np.any((first[1:] == first[:-1]) & (second[1:] == second[:-1])):
        raise LocalProtocolError(f"identifiers to be matched are distinct, got repeated ones in bucket {b}")
    if np.any((first[1:] < first[:-1]) | (first[1:] == first[:-1]) & (second[1:] < second[:-1])):
        raise LocalProtocolError(f"points of bucket {b} are not in ascending order")
    if bits and len(first) and (int(first[0]) >> 64 - bits != b or int(first[-1]) >> 64 - bits != b):
        raise LocalProtocolError(f"bucket {b} has points of another one")
    if len(words) > most:
        raise LocalProtocolError(f"bucket {b} has {len(words)} points, more than the {most} that hashes fill it with")
    return words


def fill(words: Words, size: int, bits: int, sentinel: bytes, noise: Prg) -> Filled:
    """Add the sentinel and random points, which nobody else has, to `size` points beside it.

    Points lose their bucket's bits, so that those of a bucket are spread over all of the range.
    """
    words = _spread(words, bits)
    more = np.concatenate(
        [np.frombuffer(sentinel[:16], dtype=np.uint64).reshape(1, 2), noise.words((size - len(words), 2))]
    )
    order = np.argsort(more[:, 0])
    at = np.searchsorted(words[:, 0], more[order, 0])
    positions = np.insert(np.arange(len(words)), at, np.where(order == 0, SENTINEL, DUMMY))
    return Filled(np.insert(words, at, more[order], axis=0), positions)


def _spread(words: Words, bits: int) -> Words:
    """Shift the 128 bits up."""
    if bits == 0:
        return words
    out = np.empty_like(words)
    out[:, 0] = words[:, 0] << np.uint64(bits) | words[:, 1] >> np.uint64(64 - bits)
    out[:, 1] = words[:, 1] << np.uint64(bits)
    return out
