"""A linear code over GF(64) of length 43 and dimension 22 in which two codewords differ in at least 22 places.

A Reed-Solomon code: place i stands for the element i of the field, and a codeword is the values of a polynomial of degree
below 22 at its places.  Two such polynomials agree in at most 21 places, so their codewords differ in at least 22.  The
message is the polynomial's values at 22 of the places, the first 21 and the last: it can be read off the codeword.

Symbols are 6 bits: bit i stands for a^i with a^6 = a + 1.  A message has 128 bits, two words, of which the last symbol gets 2;
its other 4 are zero.  A codeword has 258 bits.  Four words hold 256 of them, symbol after symbol with low bits first; the
two that are left, the upper bits of the last symbol, are kept apart as *spare* bits.

Source: Reed, Solomon, "Polynomial codes over certain finite fields", J. SIAM 1960.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LENGTH, DIMENSION, DISTANCE = 43, 22, 22
SYMBOL_BITS = 6
WORDS, SPARE = 4, 2
MESSAGE_WORDS = 2
PLACES = (*range(DIMENSION - 1), LENGTH - 1)
"""Where the message's symbols stand in the codeword."""

Words = npt.NDArray[Any]
Symbols = npt.NDArray[np.int64]


def times(a: int, b: int) -> int:
    """Product in GF(64)."""
    product = 0
    for i in range(SYMBOL_BITS):
        product ^= (a << i) * (b >> i & 1)
    for i in range(2 * SYMBOL_BITS - 2, SYMBOL_BITS - 1, -1):
        product ^= (0b1000011 << i - SYMBOL_BITS) * (product >> i & 1)
    return product


PRODUCTS = np.array([[times(a, b) for b in range(64)] for a in range(64)], dtype=np.int64)
"""PRODUCTS[a, b] = a b."""


_INVERSES = np.argmax(PRODUCTS == 1, axis=1)
"""Of all elements but 0."""


def generator() -> Symbols:
    """(DIMENSION, LENGTH): in row k the polynomial that is 1 at the message's place k and 0 at its others."""
    rows, places = np.ones((DIMENSION, LENGTH), dtype=np.int64), np.arange(LENGTH)
    for k, own in enumerate(PLACES):
        for other in PLACES[:k] + PLACES[k + 1 :]:
            rows[k] = PRODUCTS[rows[k], PRODUCTS[places ^ other, _INVERSES[own ^ other]]]
    return rows


def packed(symbols: Symbols) -> tuple[Words, Words]:
    """(..., LENGTH) symbols as (..., WORDS) words and the spare bits as numbers (...,)."""
    bits = (symbols[..., None] >> np.arange(SYMBOL_BITS) & 1).reshape(*symbols.shape[:-1], LENGTH * SYMBOL_BITS)
    whole = np.packbits(bits[..., : 64 * WORDS].astype(np.uint8), axis=-1, bitorder="little")
    return whole.view(np.uint64), (symbols[..., -1] >> SYMBOL_BITS - SPARE).astype(np.uint64)


def tables(factors: Symbols | None = None) -> tuple[Words, Words]:
    """(16, 256, WORDS): what each value of each byte of a message adds to the codeword; (4,): the spare bits of those values
    of the message's last symbol, which alone has an effect on them.

    factors: LENGTH symbols that the codeword is multiplied by, place by place.
    """
    given = np.ones(LENGTH, dtype=np.int64) if factors is None else factors
    places = [divmod(bit, SYMBOL_BITS) for bit in range(64 * MESSAGE_WORDS)]
    rows = generator()
    codewords, _ = packed(PRODUCTS[given, np.stack([PRODUCTS[rows[symbol], 1 << bit] for symbol, bit in places])])
    sums = np.zeros((8 * MESSAGE_WORDS, 1, WORDS), dtype=np.uint64)
    for bit in range(8):
        sums = np.concatenate([sums, sums ^ codewords[bit::8, None]], axis=1)
    return sums, (PRODUCTS[given[-1], np.arange(4)] >> SYMBOL_BITS - SPARE).astype(np.uint64)
