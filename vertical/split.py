"""Which matched rows are held out, or in which fold they are: all owners compute it alone and agree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Parts = npt.NDArray[np.intp]
_PERSON = b"accord-holdout-1"
_FOLDS = b"accord-folds-1"
MAX_FOLDS = 1000


def holdout(items: Sequence[bytes], salt: bytes, percent: int) -> npt.NDArray[np.bool_]:
    """True for each item that belongs to the test part.

    items: prepared identifiers.  salt: 16 to 64 bytes that both owners have from the job's specification; another salt
    is another split.  percent: 0 to 100, the expected share of the test part.

    The choice depends on the identifier and the salt only: not on the order, the other items or the features.  A row
    that is held out at some percentage is held out at every larger one.  The salt is not a secret from the owners, so
    an owner knows for each of its identifiers which part it would be in; nothing is sent.
    Raises: ValueError when the salt or the percentage is out of range.
    Source: BLAKE2b keyed and personalised (RFC 7693), 64 bits of it compared with the threshold.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"a percentage is from 0 to 100, got {percent}")
    below = (percent << 64) // 100
    return np.array([number < below for number in _numbers(items, salt, _PERSON)], dtype=np.bool_)


def folds(items: Sequence[bytes], salt: bytes, k: int) -> Parts:
    """The fold of each item, 0 to k - 1, for cross-validation; folds are of nearly the same size.

    items: prepared identifiers.  salt: as in `holdout`; the folds are independent of what is held out under the same salt.
    k: 2 to 1000.

    As in `holdout`, an item's fold depends on the identifier, the salt and k only, and nothing is sent.  So folds of n items
    differ in size by some sqrt(n / k), and an item keeps its fold when others come or go.
    Raises: ValueError when the salt or k is out of range.
    Source: BLAKE2b keyed and personalised (RFC 7693), 64 bits of it times k, divided by 2^64.
    """
    if not 2 <= k <= MAX_FOLDS:
        raise ValueError(f"there are 2 to {MAX_FOLDS} folds, got {k}")
    return np.array([number * k >> 64 for number in _numbers(items, salt, _FOLDS)], dtype=np.intp)


def _numbers(items: Sequence[bytes], salt: bytes, person: bytes) -> Iterator[int]:
    """A number from 0 to 2^64 - 1 for each item."""
    if not 16 <= len(salt) <= 64:
        raise ValueError(f"the salt of a split has 16 to 64 bytes, got {len(salt)}")
    keyed = hashlib.blake2b(key=salt, person=person, digest_size=8)
    for item in items:
        state = keyed.copy()
        state.update(item)
        yield int.from_bytes(state.digest(), "big")
