"""Bit-sliced words: one word holds the same bit of 64 elements, so that one instruction works on 64 of them.

n elements have planes of ceil(n / 64) words.  Element e is bit e mod 64 of word e // 64; what fills the last word is zero.
A bit shared by exclusive or is such a plane at every party.  The operations here are local and linear, and work on
pieces that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[Any]
WORD_BITS = 64
ALL = np.uint64((1 << WORD_BITS) - 1)
BLOCK_WORDS = 256
"""Columns worked on at once: 64 planes of so many words are 128 KiB."""


def n_words(n: int) -> int:
    """Words in a plane of n elements."""
    return -(-n // WORD_BITS)


def blocks(m: int) -> Iterator[slice]:
    """The columns 0 to m in pieces."""
    return (slice(start, min(start + BLOCK_WORDS, m)) for start in range(0, m, BLOCK_WORDS))


def planes(words: Words) -> Words:
    """Transpose bits: (n,) words to (64, ceil(n / 64)), where row b holds bit b of every element."""
    n, m = len(words), n_words(len(words))
    out = np.empty((WORD_BITS, m), dtype=np.uint64)
    for part in blocks(m):
        elements = words[part.start * WORD_BITS : part.stop * WORD_BITS]
        if part.stop * WORD_BITS > n:
            elements = np.concatenate([elements, np.zeros(part.stop * WORD_BITS - n, dtype=np.uint64)])
        square = elements.reshape(-1, WORD_BITS).T.copy()
        _transpose(square)
        out[:, part] = square
    return out


def _transpose(a: Words) -> None:
    """Transpose 64 x 64 bit squares in place, one per column, by swapping quarters of ever smaller squares.

    Source: Warren, Hacker's Delight, section 7-3.
    """
    half, mask = WORD_BITS // 2, (1 << WORD_BITS // 2) - 1
    swap = np.empty((WORD_BITS // 2, a.shape[1]), dtype=np.uint64)
    while half:
        pairs = a.reshape(-1, 2, half, a.shape[1])
        top, bottom, t = pairs[:, 0], pairs[:, 1], swap.reshape(-1, half, a.shape[1])
        np.right_shift(top, np.uint64(half), out=t)
        t ^= bottom
        t &= np.uint64(mask)
        bottom ^= t
        t <<= np.uint64(half)
        top ^= t
        half //= 2
        mask ^= mask << half


def unpacked(plane: Words, n: int) -> npt.NDArray[np.bool_]:
    """The n bits of one plane, an element each."""
    return np.unpackbits(plane.view(np.uint8), count=n, bitorder="little").view(np.bool_)


def unpacked_rows(rows: Words, n: int) -> npt.NDArray[np.bool_]:
    """The n bits of every plane of (rows, m): (rows, n)."""
    return np.unpackbits(rows.view(np.uint8), axis=-1, count=n, bitorder="little").view(np.bool_)


def products(factors: Sequence[Words], out: Words) -> None:
    """All products of distinct factors: out[T] is the AND of those in the set T; out[0] is all ones.

    The first of k factors is the highest bit of T, so out has 2^k rows.
    """
    out[0] = ALL
    for i, factor in enumerate(reversed(factors)):
        np.bitwise_and(out[: 1 << i], factor, out=out[1 << i : 2 << i])


def shifted(table: Words, public: Words) -> Words:
    """Put factor f + `public` in place of the highest factor f of a table of `products`, and drop it from the sets.

    table: shares (2k, ...).  Returns shares (k, ...) of (f + public) times the products of the other factors.
    """
    half = len(table) // 2
    out = np.bitwise_and(table[:half], public)
    out ^= table[half:]
    return out
