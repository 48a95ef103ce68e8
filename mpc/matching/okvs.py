"""Oblivious key-value store: columns P such that the sum of those that a key's row selects is the key's value.

A row is a band: `WIDTH` random bits from a random column on.  Rows in the order of their first column are eliminated from
left to right and solved from right to left.  Columns that no row needs stay as they are: zero where P is only seen masked,
random where it is seen, because their places would tell about the keys.

There are 1.1 times as many columns as keys, and a band's width beyond that.  The chance that some rows depend on each other
is then about 2^-(0.2691 WIDTH - 15.21) by the authors' measurements for 2^20 keys, below 2^-45.

Source: Bienstock, Patel, Seo, Yeo, "Near-optimal oblivious key-value stores for efficient PSI, PSU and volume-hiding
multi-maps", USENIX Security 2023 (RB-OKVS).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.matching.kernels import kernels
from mpc.matching.parameters import TILE, WIDTH

Words = npt.NDArray[Any]
_AT_ONCE = 4
"""Words of columns that the kernel adds at once."""


def columns(n_keys: int) -> int:
    """How many columns hold so many keys."""
    return -(-(-(-11 * n_keys // 10) + WIDTH) // TILE) * TILE


def solve(start: Words, band: Words, values: Words, free: Words) -> Words | None:
    """P (c, k), or None if the rows depend on each other.

    start: first columns, ascending.  band: (n, 4 or more), the bits of the columns from there on.  values: (n, k) words.
    free: (c, k), what columns hold that no row needs; random if P will be seen.  It is overwritten.
    """
    return free if kernels.solve(start, band, values, free) else None


def decode(held: Words, start: Words, band: Words) -> Words:
    """(n, k): the sum of the columns that each row selects.  held: (c, k)."""
    parts = []
    for at in range(0, held.shape[1], _AT_ONCE):
        part = held[:, at : at + _AT_ONCE]
        width = part.shape[1]
        if width < _AT_ONCE:
            part = np.concatenate([part, np.zeros((len(held), _AT_ONCE - width), dtype=np.uint64)], axis=1)
        parts.append(kernels.decode(np.ascontiguousarray(part), start, band)[:, :width])
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
