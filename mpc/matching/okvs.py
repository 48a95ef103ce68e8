"""Oblivious key-value store: columns P such that the sum of those that a key's row selects is the key's value.

A row is a band: `WIDTH` random bits from a random column on.  Rows in the order of their first column are eliminated from
left to right and solved from right to left.  Columns that no row needs stay zero; here P is never seen, only masked.

There are 1.1 times as many columns as keys, and a band's width beyond that.  The chance that some rows depend on each other
is then about 2^-(0.2691 WIDTH - 15.21) by the authors' measurements for 2^20 keys, below 2^-45.

Source: Bienstock, Patel, Seo, Yeo, "Near-optimal oblivious key-value stores for efficient PSI, PSU and volume-hiding
multi-maps", USENIX Security 2023 (RB-OKVS).
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from mpc.matching.kernels import kernels
from mpc.matching.parameters import TILE, WIDTH

Words = npt.NDArray[Any]


def columns(n_keys: int) -> int:
    """How many columns hold so many keys."""
    return -(-(-(-11 * n_keys // 10) + WIDTH) // TILE) * TILE


def solve(start: Words, band: Words, values: Words, n_columns: int) -> Words | None:
    """P (n_columns,), or None if the rows depend on each other.

    start: first columns, ascending.  band: (n, 4 or more), the bits of the columns from there on.  values: (n,) words.
    """
    found, solved = kernels.solve(start, band, values, n_columns)
    return solved if found else None


def decode(held: Words, start: Words, band: Words) -> Words:
    """The sum of the columns that each row selects, of columns of four words."""
    decoded: Words = kernels.decode(held, start, band)
    return decoded
