"""The field of 2^128 elements, for hashing: polynomials over GF(2) modulo x^128 + x^7 + x^2 + x + 1.

An element is two 64-bit words, the low one first; bit i stands for x^i.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[Any]
ELEMENT_BYTES = 16
_ONE, _TOP = np.uint64(1), np.uint64(63)
_TAIL = (0, 1, 2, 7)
"""x^128 is the sum of these powers of x."""
_MODULUS = 1 << 128 | sum(1 << power for power in _TAIL)


def reduced(products: Words) -> Words:
    """(n, 2) elements of polynomials of degree below 256, (n, 4) words."""
    low, high, over = products[:, 0].copy(), products[:, 1].copy(), np.zeros(len(products), dtype=np.uint64)
    for power in _TAIL:
        low ^= products[:, 2] << np.uint64(power)
        high ^= products[:, 3] << np.uint64(power)
        if power:
            high ^= products[:, 2] >> np.uint64(64 - power)
            over ^= products[:, 3] >> np.uint64(64 - power)
    for power in _TAIL:
        low ^= over << np.uint64(power)
    return np.stack([low, high], axis=1)


def by_x(elements: Words) -> Words:
    """x times elements (n, 2)."""
    over = elements[:, 1] >> _TOP
    low = elements[:, 0] << _ONE ^ over * np.uint64(0b10000111)
    return np.stack([low, elements[:, 1] << _ONE | elements[:, 0] >> _TOP], axis=1)


def times(elements: Words, factor: Words) -> Words:
    """A factor (2,) times elements (n, 2), with tables of what each value of each of their bytes gives."""
    rows, row = list[bytes](), int.from_bytes(factor.tobytes(), "little")
    for _ in range(8 * ELEMENT_BYTES):
        rows.append(row.to_bytes(ELEMENT_BYTES, "little"))
        row = row << 1 ^ (_MODULUS if row >> 127 else 0)
    multiples = np.frombuffer(b"".join(rows), dtype=np.uint64).reshape(-1, 2)
    tables = np.zeros((ELEMENT_BYTES, 1, 2), dtype=np.uint64)
    for bit in range(8):
        tables = np.concatenate([tables, tables ^ multiples[bit::8, None]], axis=1)
    raw, result = np.ascontiguousarray(elements).view(np.uint8), np.zeros_like(elements)
    for k in range(ELEMENT_BYTES):
        result ^= tables[k, raw[:, k]]
    return result


def powers(base: Words, n: int) -> Words:
    """(n, 2): base^(n - 1), ..., base, 1."""
    found = np.array([[1, 0]], dtype=np.uint64)
    while len(found) < n:
        found = np.concatenate([found, times(found, times(found[-1:], base)[0])])
    return np.ascontiguousarray(found[:n][::-1])
