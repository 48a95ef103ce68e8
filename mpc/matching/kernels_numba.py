"""The kernels of set intersection compiled by numba.

Needs an x86 processor with AES instructions; anywhere else importing this module raises ImportError, and `kernels_numpy`,
which has the same functions with the same results, serves instead.  One thread, no Python lock held, cached on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]

from mpc.compiled import compiled
from mpc.llvm import V8, intrinsic, load, plus, store, vector_step
from mpc.matching import blake3_numba, code, parameters
from mpc.matching.store_numba import decode, merge, order, solve
from mpc.ot.aes import schedules
from mpc.ot.vectors import FIELD_BITS, KEY_WORDS, LEAVES, fold, mix, swap

__all__ = ["add_code", "decode", "hash_items", "hash_rows", "mask", "merge", "order", "prepared", "solve", "unmask"]

Words = npt.NDArray[Any]
LENGTH, WORDS, TILE = 53, 4, 128
"""Written out, because code in the cache is compiled again only when its own file has changed."""
if (LENGTH, WORDS, TILE) != (code.LENGTH, code.WORDS, parameters.TILE):
    raise ArithmeticError("the compiled kernels have other parameters")
GROUP = 8
"""Tiles whose streams are made for one tree before the next: its keys stay in the first-level cache."""
STRIDE = 8 * GROUP
SYMBOLS = 64
"""Rows of a tile before it is transposed: the code's symbols and zeros."""
_I64 = ir.IntType(64)
_V4 = ir.VectorType(_I64, 4)
_LOW, _HIGH = ir.Constant(V8, [0x1111111111111111] * 8), ir.Constant(V8, [0xEEEEEEEEEEEEEEEE] * 8)


@intrinsic
def _horner(typingctx, rows, row, stride, out, to):  # type: ignore[no-untyped-def]
    """Sum over bits i of a^i times row i, for 128 nibbles in each of four rows."""

    def body(builder: Any, rows: Any, row: Any, stride: Any, out: Any, to: Any) -> None:
        one, three = ir.Constant(V8, [1] * 8), ir.Constant(V8, [3] * 8)
        total: Any = None
        for bit in reversed(range(FIELD_BITS)):
            value = load(builder, rows, builder.add(row, builder.mul(stride, ir.Constant(_I64, bit))))
            if total is not None:
                top = builder.and_(builder.lshr(total, three), _LOW)
                shifted = builder.and_(builder.shl(total, one), _HIGH)
                total = builder.xor(shifted, builder.xor(top, builder.shl(top, one)))
                value = builder.xor(value, total)
            total = value
        store(builder, total, out, to)

    return vector_step(body)(typingctx, rows, row, stride, out, to)


@intrinsic
def _add_entries(typingctx, table, message, out, to):  # type: ignore[no-untyped-def]
    """out[to:to + 4] ^= the codeword of a message, or a multiple of it."""

    def body(builder: Any, table: Any, message: Any, out: Any, to: Any) -> None:
        total = load(builder, out, to, _V4)
        for k in range(8):
            byte = builder.and_(builder.lshr(message, ir.Constant(_I64, 8 * k)), ir.Constant(_I64, 255))
            entry = builder.shl(plus(builder, byte, 256 * k), ir.Constant(_I64, 2))
            total = builder.xor(total, load(builder, table, entry, _V4))
        store(builder, total, out, to)

    return vector_step(body)(typingctx, table, message, out, to)


@compiled
def _turn(a: Words, base: int, stride: int) -> None:  # pragma: no cover
    """Transpose squares of 16 x 16 nibbles in place: 64 rows of 8 words, 32 squares.  It is its own inverse."""
    half, mask = 8, 0x00000000FFFFFFFF
    while half:
        for first in range(0, SYMBOLS, 2 * half):
            for row in range(first, first + half):
                swap(a, base + stride * row, base + stride * (row + half), 4 * half, mask)
        half >>= 1
        mask ^= mask << (4 * half)


@compiled
def _streams(
    keys: Words, counter: int, first: int, count: int, receiving: bool, delta: Words, d: Words, c: Words, x: Words
) -> None:  # pragma: no cover
    """The streams of `count` tiles from number `first` on, as rows of symbols in x, which is then turned to columns.

    If we receive, d is written: the sum of all leaves and the code's symbols c.  If not, d is read.
    """
    rows, u = np.empty(FIELD_BITS * STRIDE, dtype=np.uint64), np.empty(8, dtype=np.uint64)
    for tree in range(LENGTH):
        for t in range(count):
            at = 8 * (LENGTH * (first + t) + tree)
            fold(keys, tree * LEAVES * KEY_WORDS, counter + 4 * (first + t), rows, 8 * t, STRIDE, u, 0)
            if receiving:
                for w in range(8):
                    d[at + w] = u[w] ^ c[tree * STRIDE + 8 * t + w]
            else:
                for bit in range(FIELD_BITS):
                    mix(rows, 8 * t + bit * STRIDE, d, at, -(delta[tree] >> bit & 1))
            _horner(rows, 8 * t, STRIDE, x, tree * STRIDE + 8 * t)
    for i in range(LENGTH * STRIDE, SYMBOLS * STRIDE):
        x[i] = 0
    for t in range(count):
        _turn(x, 8 * t, STRIDE)


@compiled
def _mask(
    keys: Words, counter: int, solved: Words, table: Words, delta: Words, d: Words, out: Words
) -> None:  # pragma: no cover
    """The receiver's streams if there is a solution, otherwise the sender's."""
    tiles, receiving = out.size // (WORDS * TILE), solved.size > 0
    c, x = np.zeros(SYMBOLS * STRIDE, dtype=np.uint64), np.empty(SYMBOLS * STRIDE, dtype=np.uint64)
    word = np.empty(WORDS, dtype=np.uint64)
    for first in range(0, tiles, GROUP):
        count = min(GROUP, tiles - first)
        for t in range(count if receiving else 0):
            for i in range(TILE):
                for q in range(WORDS):
                    word[q] = 0
                _add_entries(table, solved[TILE * (first + t) + i], word, 0)
                for q in range(WORDS):
                    c[(16 * q + i % 16) * STRIDE + 8 * t + i // 16] = word[q]
            _turn(c, 8 * t, STRIDE)
        _streams(keys, counter, first, count, receiving, delta, d, c, x)
        for t in range(count):
            for i in range(TILE):
                for q in range(WORDS):
                    to = WORDS * (TILE * (first + t) + i) + q
                    out[to] = x[(16 * q + i % 16) * STRIDE + 8 * t + i // 16]


@compiled
def _add_code(values: Words, messages: Words, table: Words) -> None:  # pragma: no cover
    for i in range(messages.size):
        _add_entries(table, messages[i], values, WORDS * i)


def prepared(keys: npt.NDArray[np.uint8]) -> Words:
    """AES keys (k, 16) in the form the other functions take."""
    return schedules(keys).reshape(-1)


def hash_items(key: Words, data: Words, offsets: Words) -> Words:
    """(n, 2): the first 16 bytes of keyed BLAKE3 of data[offsets[i]:offsets[i + 1]], each at most 1024 bytes.

    key: 8 words of 32 bits.  data: with 64 bytes to spare at the end.  offsets: (n + 1,) int64.
    """
    out = np.empty((len(offsets) - 1, 2), dtype=np.uint64)
    blake3_numba.hash_items(key, data, offsets, out)
    return out


def hash_rows(key: Words, parts: Words, more: Words, n_words: int) -> Words:
    """(n, n_words): keyed BLAKE3 of the words of `parts` and `more`, two matrices with at most 8 columns together."""
    out = np.empty((len(parts), n_words), dtype=np.uint64)
    blake3_numba.hash_rows(key, parts, more, out)
    return out


def mask(keys: Words, counter: int, solved: Words, table: Words) -> tuple[Words, Words]:
    """The receiver's message d (tiles, LENGTH, 8) and its values v (columns, WORDS).

    keys: all leaves, prepared.  counter: of 128-bit blocks of their streams; 4 are used for each tile of 128 columns.
    solved: (columns,) words.  table: the code's.
    """
    tiles = len(solved) // TILE
    d, v = np.empty((tiles, LENGTH, 8), dtype=np.uint64), np.empty((len(solved), WORDS), dtype=np.uint64)
    _mask(keys, counter, solved, table.reshape(-1), np.empty(0, dtype=np.int64), d.reshape(-1), v.reshape(-1))
    return d, v


def unmask(keys: Words, counter: int, d: Words, delta: Words) -> Words:
    """The sender's w = v + delta * code(solved), (columns, WORDS).

    keys: prepared; the leaf with number y of a tree is the receiver's leaf y + delta, and number 0 is not looked at.
    """
    w, none = np.empty((TILE * len(d), WORDS), dtype=np.uint64), np.empty(0, dtype=np.uint64)
    _mask(keys, counter, none, none, delta, d.reshape(-1), w.reshape(-1))
    return w


def add_code(values: Words, messages: Words, table: Words) -> None:
    """values (n, WORDS) ^= what the table says of the messages (n,)."""
    _add_code(values.reshape(-1), messages, table.reshape(-1))
