"""Which matched rows are held out for evaluation: both owners compute it alone and agree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_PERSON = b"accord-holdout-1"


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
    if not 16 <= len(salt) <= 64:
        raise ValueError(f"the salt of a split has 16 to 64 bytes, got {len(salt)}")
    if not 0 <= percent <= 100:
        raise ValueError(f"a percentage is from 0 to 100, got {percent}")
    below = (percent << 64) // 100
    keyed = hashlib.blake2b(key=salt, person=_PERSON, digest_size=8)
    held = np.empty(len(items), dtype=np.bool_)
    for i, item in enumerate(items):
        state = keyed.copy()
        state.update(item)
        held[i] = int.from_bytes(state.digest(), "big") < below
    return held
