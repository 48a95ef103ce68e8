"""A linear code over GF(16) of length 53 and dimension 16 in which two codewords differ in at least 32 places.

The places are points of the curve y^4 + y = x^5 over GF(16), which has 64 of them; a message of 16 symbols is a function
in the span of the monomials x^i y^j with 4 i + 5 j <= 21, and its codeword is the function's values.  Such a function has
a pole of order at most 21 at the one point at infinity and nowhere else, hence at most 21 zeros.  So a codeword of all 64
places has at least 43 symbols that are not zero, and one without the last 11 places at least 32.

Symbols are nibbles: bit i stands for a^i with a^4 = a + 1.  Symbol i of a codeword is nibble i of its four 64-bit words,
the low ones first; a message is one such word.

Source: Stichtenoth, "A note on Hermitian codes over GF(q^2)", IEEE Trans. Inf. Theory 1988.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LENGTH, DIMENSION, DISTANCE = 53, 16, 32
POLE_ORDER = 21
SYMBOL_BITS = 4
WORDS = 4
"""Words of a codeword; the last one's upper 11 nibbles are zero."""

Words = npt.NDArray[Any]
Symbols = npt.NDArray[np.int64]


def times(a: int, b: int) -> int:
    """Product in GF(16)."""
    product = 0
    for i in range(SYMBOL_BITS):
        product ^= (a << i) * (b >> i & 1)
    for i in range(2 * SYMBOL_BITS - 2, SYMBOL_BITS - 1, -1):
        product ^= (0b10011 << i - SYMBOL_BITS) * (product >> i & 1)
    return product


def _power(a: int, n: int) -> int:
    result = 1
    for _ in range(n):
        result = times(result, a)
    return result


def points() -> list[tuple[int, int]]:
    """The curve's 64 points, apart from the one at infinity."""
    field = range(16)
    return [(x, y) for x in field for y in field if _power(y, 4) ^ y == _power(x, 5)]


def monomials() -> list[tuple[int, int]]:
    """Exponents (i, j) of x^i y^j, one function for each pole order: j < 4 because y^4 = x^5 + y."""
    return [(i, j) for j in range(4) for i in range(POLE_ORDER) if 4 * i + 5 * j <= POLE_ORDER]


def generator() -> Symbols:
    """(DIMENSION, LENGTH): the monomials' values at the first 53 points."""
    places = points()[:LENGTH]
    return np.array([[times(_power(x, i), _power(y, j)) for x, y in places] for i, j in monomials()], dtype=np.int64)


PRODUCTS = np.array([[times(a, b) for b in range(16)] for a in range(16)], dtype=np.int64)
"""PRODUCTS[a, b] = a b."""


def packed(symbols: Symbols) -> Words:
    """(..., LENGTH) symbols as (..., WORDS) words."""
    wide = np.zeros((*symbols.shape[:-1], 64), dtype=np.uint8)
    wide[..., :LENGTH] = symbols
    words: Words = (wide[..., ::2] | wide[..., 1::2] << 4).view(np.uint64)
    return words


def tables(factors: Symbols | None = None) -> Words:
    """(8, 256, WORDS): what each value of each byte of a message adds to the codeword.

    factors: LENGTH symbols that the codeword is multiplied by, place by place.
    """
    rows = generator()
    byte = np.arange(256)
    low, high = PRODUCTS[byte & 15], PRODUCTS[byte >> 4]
    symbols = np.stack([low[:, rows[2 * k]] ^ high[:, rows[2 * k + 1]] for k in range(DIMENSION // 2)])
    return packed(symbols if factors is None else PRODUCTS[factors, symbols])
