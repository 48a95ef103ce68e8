"""The kernels of set intersection's malicious variant in NumPy: slower than `wide_numba`, equal results."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc.matching.field128 import by_x
from mpc.matching.parameters import SQUARE, TILE, WIDTH
from mpc.matching.wide_code import LENGTH, SPARE, SYMBOL_BITS, WORDS

Words = npt.NDArray[Any]
LEAVES = 1 << SYMBOL_BITS
BLOCKS = 4 * SYMBOL_BITS
AT_ONCE = 1 << 14
"""Columns or rows worked on at a time, to bound memory."""


def prepared(keys: npt.NDArray[np.uint8]) -> Words:
    """AES keys (k, 16) in the form the other functions take."""
    return keys.copy()


def _sums(keys: Words, counter: int, squares: int, tree: int) -> tuple[Words, Words]:
    """Sums of one tree's streams: of all leaves (planes, squares, 8), and of those with each bit set (bits, planes, ...)."""
    blocks = np.zeros((BLOCKS * squares, 2), dtype=np.uint64)
    blocks[:, 0] = np.arange(counter, counter + len(blocks), dtype=np.uint64)
    total = np.zeros(2 * len(blocks), dtype=np.uint64)
    rows = np.zeros((SYMBOL_BITS, 2 * len(blocks)), dtype=np.uint64)
    for leaf in range(LEAVES):
        # The mode only says that every block is on its own: the blocks are counters.
        encryptor = Cipher(algorithms.AES(keys[LEAVES * tree + leaf].tobytes()), modes.ECB()).encryptor()  # noqa: S305
        stream = np.frombuffer(encryptor.update(blocks.tobytes()), dtype=np.uint64)
        total ^= stream
        for bit in range(SYMBOL_BITS):
            if leaf >> bit & 1:
                rows[bit] ^= stream
    shape = (squares, SYMBOL_BITS, 8)
    return total.reshape(shape).transpose(1, 0, 2), rows.reshape(SYMBOL_BITS, *shape).transpose(0, 2, 1, 3)


def _horner(rows: Words) -> Words:
    """Sum over bits b of a^b times the symbols with the planes rows[b]."""
    total: Words = rows[-1].copy()
    for row in rows[-2::-1]:
        total = np.roll(total, 1, axis=0)  # times a, and a^6 = a + 1
        total[1] ^= total[0]
        total ^= row
    return total


def _bits(words: Words) -> Words:
    """(..., 64 n) bits of (..., n) words."""
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")


def _words(bits: Words) -> Words:
    return np.packbits(np.ascontiguousarray(bits), axis=-1, bitorder="little").view(np.uint64)


def _columns(planes: Words) -> tuple[Words, Words]:
    """(LENGTH, 6, squares, 8) planes as columns (512 squares, WORDS) and spare planes."""
    flat = planes.reshape(LENGTH * SYMBOL_BITS, -1)
    return _words(_bits(flat[: 64 * WORDS]).T), flat[64 * WORDS :].copy()


def mask(keys: Words, counter: int, solved: Words, table: Words) -> tuple[Words, Words, Words]:
    """As `mpc.matching.wide_numba.mask`."""
    squares = len(solved) // SQUARE
    codewords = np.zeros((len(solved), WORDS + 1), dtype=np.uint64)
    add_code(codewords, solved, table, np.zeros(1 << SPARE, dtype=np.uint64))
    planes = np.zeros((LENGTH * SYMBOL_BITS, 8 * squares), dtype=np.uint64)
    planes[: 64 * WORDS] = _words(_bits(codewords[:, :WORDS]).T)
    d = planes.reshape(LENGTH, SYMBOL_BITS, squares, 8)
    v = np.empty_like(d)
    for tree in range(LENGTH):
        total, rows = _sums(keys, counter, squares, tree)
        d[tree] ^= total
        v[tree] = _horner(rows)
    return np.ascontiguousarray(d.transpose(2, 0, 1, 3)), *_columns(v)


def unmask(keys: Words, counter: int, d: Words, delta: Words) -> tuple[Words, Words]:
    """As `mpc.matching.wide_numba.unmask`."""
    w = np.empty((LENGTH, SYMBOL_BITS, len(d), 8), dtype=np.uint64)
    for tree in range(LENGTH):
        _, rows = _sums(keys, counter, len(d), tree)
        for bit in range(SYMBOL_BITS):
            if int(delta[tree]) >> bit & 1:
                rows[bit] ^= d[:, tree].transpose(1, 0, 2)
        w[tree] = _horner(rows)
    return _columns(w)


def add_code(values: Words, messages: Words, table: Words, spare: Words) -> None:
    """As `mpc.matching.wide_numba.add_code`."""
    for k in range(len(table)):
        byte = messages[:, k // 8] >> np.uint64(8 * (k % 8)) & np.uint64(255)
        values[:, :WORDS] ^= table[k, byte.astype(np.int64)]
    values[:, WORDS] ^= spare[(messages[:, 1] >> np.uint64(62)).astype(np.int64)]


def parities(spare: Words, start: Words, band: Words, values: Words) -> None:
    """As `mpc.matching.wide_numba.parities`."""
    planes = _bits(spare)
    for first in range(0, len(start), AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        chosen = _bits(band[rows, :WORDS])[:, :WIDTH]
        at = start[rows, None] + np.arange(WIDTH)
        odd = [np.bitwise_xor.reduce(plane[at] & chosen, axis=1).astype(np.uint64) for plane in planes]
        values[rows, WORDS] = sum(bit << np.uint64(s) for s, bit in enumerate(odd))


def hashed(columns: Words, spare: Words, factors: Words) -> Words:
    """As `mpc.matching.wide_numba.hashed`: a product of matrices over GF(2), whose second one has x^b times the factor of
    its tile for column b of that tile."""
    total = np.zeros((64 * columns.shape[1] + len(spare), 128), dtype=np.int64)
    for first in range(0, len(columns), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        rows = [factors[first // TILE : (first + AT_ONCE) // TILE]]
        for _ in range(TILE - 1):
            rows.append(by_x(rows[-1]))
        matrix = _bits(np.stack(rows, axis=1).reshape(-1, 2))
        bits = np.concatenate([_bits(columns[part]), _bits(spare[:, first // 64 : (first + AT_ONCE) // 64]).T], axis=1)
        # Counts below 2^24, so single precision is exact.
        total += (bits.T.astype(np.float32) @ matrix.astype(np.float32)).astype(np.int64)
    return _words((total & 1).astype(np.uint8))
