"""The kernels of set intersection's malicious variant compiled by numba; `mpc.matching.wide_numpy` has the same ones.

Columns are worked on in squares of 512: each of the 258 bits of a column is then a plane of 8 words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import binding, ir  # type: ignore[import-untyped]

from mpc.compiled import compiled
from mpc.llvm import LANES, intrinsic, load, plus, store, vector_step
from mpc.matching import parameters
from mpc.matching import wide_code as code
from mpc.matching.field128 import reduced
from mpc.matching.kernels_numba import prepared
from mpc.ot.vectors import KEY_WORDS, _encrypt, _round_keys, mix, swap

__all__ = ["add_code", "hashed", "mask", "parities", "prepared", "unmask"]

Words = npt.NDArray[Any]
LENGTH, FIELD_BITS, SQUARE, WIDTH, TILE = 43, 6, 512, 224, 128
"""Written out, because code in the cache is compiled again only when its own file has changed."""
if (LENGTH, FIELD_BITS, SQUARE) != (code.LENGTH, code.SYMBOL_BITS, parameters.SQUARE):
    raise ArithmeticError("the compiled kernels have other parameters")
if (WIDTH, TILE) != (parameters.WIDTH, parameters.TILE):
    raise ArithmeticError("the compiled kernels have other parameters")
LEAVES = 64
PLANES, WORDS, MESSAGE_BYTES = 256, 4, 16
"""Planes of a column's whole words; the words; bytes of a message."""
GROUP = 4
"""Squares whose streams are made for one tree before the next: its keys stay in the first-level cache."""
STRIDE = 8 * GROUP
BLOCKS = 4 * FIELD_BITS
"""Blocks of a leaf's stream for a square: 4 for each plane of symbols."""

_FEATURES = binding.get_host_cpu_features()
if not _FEATURES.get("pclmul"):
    raise ImportError("this processor has no carry-less multiplication for the compiled kernels")
_WIDE_PRODUCTS = bool(_FEATURES.get("vpclmulqdq") and _FEATURES.get("avx512f"))
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_V4 = ir.VectorType(_I64, 4)
_BLOCKS = ir.VectorType(_I64, 2 * LANES)
_FACTORS = ir.VectorType(_I64, 8 if _WIDE_PRODUCTS else 2)


@intrinsic
def _fold(typingctx, keys, at, counter, rows, row, stride, total, out):  # type: ignore[no-untyped-def]
    """One tree's streams for LANES blocks: the sum of all leaves, and of those with each bit of their number set."""

    def body(builder: Any, *args: Any) -> None:
        keys, at, counter, rows, row, stride, total, out = args
        block = ir.Constant(_BLOCKS, [0, 0] * LANES)
        for lane in range(LANES):
            block = builder.insert_element(block, plus(builder, counter, lane), ir.Constant(_I32, 2 * lane))
        sums: list[Any] = [None] * (FIELD_BITS + 1)

        def add(i: int, value: Any) -> None:
            sums[i] = value if sums[i] is None else builder.xor(sums[i], value)

        for first in range(0, LEAVES, 8):
            schedule = [
                _round_keys(builder, keys, plus(builder, at, leaf * KEY_WORDS)) for leaf in range(first, first + 8)
            ]
            values = _encrypt(builder, [block] * 8, schedule)
            for bit in range(3):
                for value in values[1::2]:
                    add(bit, value)
                values = [builder.xor(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
            for bit in (bit for bit in range(3, FIELD_BITS) if first >> bit & 1):
                add(bit, values[0])
            add(FIELD_BITS, values[0])
        for bit in range(FIELD_BITS):
            store(builder, sums[bit], rows, builder.add(row, builder.mul(stride, ir.Constant(_I64, bit))))
        store(builder, sums[FIELD_BITS], total, out)

    return vector_step(body)(typingctx, keys, at, counter, rows, row, stride, total, out)


@intrinsic
def _horner(typingctx, rows, out, to, stride):  # type: ignore[no-untyped-def]
    """Sum over bits b of a^b times the symbols whose planes are 6 b to 6 b + 5 of `rows`, as planes of `out`."""

    def body(builder: Any, rows: Any, out: Any, to: Any, stride: Any) -> None:
        powers: list[Any] = [None] * (2 * FIELD_BITS - 1)
        for b in range(FIELD_BITS):
            for p in range(FIELD_BITS):
                value = load(builder, rows, ir.Constant(_I64, 8 * (FIELD_BITS * b + p)))
                powers[b + p] = value if powers[b + p] is None else builder.xor(powers[b + p], value)
        for power in range(2 * FIELD_BITS - 2, FIELD_BITS - 1, -1):
            for lower in (power - FIELD_BITS, power - FIELD_BITS + 1):
                powers[lower] = builder.xor(powers[lower], powers[power])
        for p in range(FIELD_BITS):
            store(builder, powers[p], out, builder.add(to, builder.mul(stride, ir.Constant(_I64, p))))

    return vector_step(body)(typingctx, rows, out, to, stride)


@intrinsic
def _add_entries(typingctx, table, low, high, out, to):  # type: ignore[no-untyped-def]
    """out[to:to + 4] ^= the codeword of a message of two words, or a multiple of it."""

    def body(builder: Any, table: Any, low: Any, high: Any, out: Any, to: Any) -> None:
        total = load(builder, out, to, _V4)
        for k in range(MESSAGE_BYTES):
            word = builder.lshr((low, high)[k // 8], ir.Constant(_I64, 8 * (k % 8)))
            at = plus(builder, builder.and_(word, ir.Constant(_I64, 255)), 256 * k)
            total = builder.xor(total, load(builder, table, builder.shl(at, ir.Constant(_I64, 2)), _V4))
        store(builder, total, out, to)

    return vector_step(body)(typingctx, table, low, high, out, to)


@intrinsic
def _add_products(typingctx, x, at, factors, frm, sums, to):  # type: ignore[no-untyped-def]
    """Add four polynomials of 128 bits, each times its factor, to three sums: of low, middle and high halves' products."""

    def body(builder: Any, x: Any, at: Any, factors: Any, frm: Any, sums: Any, to: Any) -> None:
        name = "llvm.x86.pclmulqdq.512" if _WIDE_PRODUCTS else "llvm.x86.pclmulqdq"
        kind = ir.FunctionType(_FACTORS, [_FACTORS, _FACTORS, _I8])
        multiply = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        for part in range(0, 8, _FACTORS.count):
            a = load(builder, x, plus(builder, at, part), _FACTORS)
            b = load(builder, factors, plus(builder, frm, part), _FACTORS)
            low, up, down, high = (
                builder.call(multiply, [a, b, ir.Constant(_I8, i)]) for i in (0x00, 0x01, 0x10, 0x11)
            )
            for i, value in enumerate((low, builder.xor(up, down), high)):
                there = plus(builder, to, 8 * i + part)
                store(builder, builder.xor(load(builder, sums, there, _FACTORS), value), sums, there)

    return vector_step(body)(typingctx, x, at, factors, frm, sums, to)


@compiled
def _turn(a: Words, base: int, stride: int) -> None:  # pragma: no cover
    """Transpose 8 squares of 64 x 64 bits in place: 64 rows of 8 words.  It is its own inverse."""
    half, mask = 32, 0xFFFFFFFF
    while half:
        for first in range(0, 64, 2 * half):
            for row in range(first, first + half):
                swap(a, base + stride * row, base + stride * (row + half), half, mask)
        half >>= 1
        mask ^= mask << half


@compiled
def _streams(
    keys: Words, counter: int, first: int, count: int, receiving: bool, delta: Words, d: Words, c: Words, x: Words
) -> None:  # pragma: no cover
    """The streams of `count` squares from number `first` on, as planes in x.

    If we receive, d is written: the sum of all leaves and the code's planes c.  If not, d is read.
    """
    size = 8 * FIELD_BITS
    rows, u = np.empty(FIELD_BITS * size, dtype=np.uint64), np.empty(size, dtype=np.uint64)
    for tree in range(LENGTH):
        for t in range(count):
            at = size * (LENGTH * (first + t) + tree)
            block = counter + BLOCKS * (first + t)
            for part in range(0, BLOCKS, LANES):
                _fold(keys, tree * LEAVES * KEY_WORDS, block + part, rows, 2 * part, size, u, 2 * part)
            if receiving:
                for p in range(FIELD_BITS):
                    for w in range(8):
                        d[at + 8 * p + w] = u[8 * p + w] ^ c[(FIELD_BITS * tree + p) * STRIDE + 8 * t + w]
            else:
                for bit in range(FIELD_BITS):
                    for p in range(FIELD_BITS):
                        mix(rows, size * bit + 8 * p, d, at + 8 * p, -(delta[tree] >> bit & 1))
            _horner(rows, x, FIELD_BITS * tree * STRIDE + 8 * t, STRIDE)


@compiled
def _mask(
    keys: Words, counter: int, solved: Words, table: Words, delta: Words, d: Words, out: Words, spare: Words
) -> None:  # pragma: no cover
    """The receiver's streams if there is a solution, otherwise the sender's."""
    squares, receiving = spare.shape[1] // 8, solved.size > 0
    planes = LENGTH * FIELD_BITS
    c, x = np.zeros(planes * STRIDE, dtype=np.uint64), np.empty(planes * STRIDE, dtype=np.uint64)
    word = np.empty(WORDS, dtype=np.uint64)
    for first in range(0, squares, GROUP):
        count = min(GROUP, squares - first)
        for t in range(count if receiving else 0):
            for i in range(SQUARE):
                for q in range(WORDS):
                    word[q] = 0
                message = 2 * (SQUARE * (first + t) + i)
                _add_entries(table, solved[message], solved[message + 1], word, 0)
                for q in range(WORDS):
                    c[(64 * q + i % 64) * STRIDE + 8 * t + i // 64] = word[q]
            for q in range(WORDS):
                _turn(c, 64 * q * STRIDE + 8 * t, STRIDE)
        _streams(keys, counter, first, count, receiving, delta, d, c, x)
        for t in range(count):
            for q in range(WORDS):
                _turn(x, 64 * q * STRIDE + 8 * t, STRIDE)
            for i in range(SQUARE):
                for q in range(WORDS):
                    out[WORDS * (SQUARE * (first + t) + i) + q] = x[(64 * q + i % 64) * STRIDE + 8 * t + i // 64]
            for s in range(planes - PLANES):
                for w in range(8):
                    spare[s, 8 * (first + t) + w] = x[(PLANES + s) * STRIDE + 8 * t + w]


@compiled
def _add_code(values: Words, messages: Words, table: Words, spare: Words) -> None:  # pragma: no cover
    flat = values.reshape(-1)
    for i in range(messages.shape[0]):
        _add_entries(table, messages[i, 0], messages[i, 1], flat, (WORDS + 1) * i)
        values[i, WORDS] ^= spare[np.int64(messages[i, 1] >> np.uint64(62))]


@compiled
def _parities(spare: Words, start: Words, band: Words, values: Words) -> None:  # pragma: no cover
    """The last word of the values: for each spare plane, whether the band selects an odd number of its bits."""
    one, last = np.uint64(1), spare.shape[1] - 1
    for i in range(start.size):
        at, down = start[i] // 64, np.uint64(start[i] % 64)
        up, word = np.uint64(63) - down, np.uint64(0)
        for s in range(spare.shape[0]):
            total = np.uint64(0)
            for q in range(WORDS):
                # Two shifts, because one by 64 is undefined.
                upper = spare[s, min(at + q + 1, last)] << one << up
                total ^= band[i, q] & (spare[s, min(at + q, last)] >> down | upper)
            for half in (32, 16, 8, 4, 2, 1):
                total ^= total >> np.uint64(half)
            word |= (total & one) << np.uint64(s)
        values[i, WORDS] = word


@compiled
def _hash(columns: Words, spare: Words, factors: Words, sums: Words) -> None:  # pragma: no cover
    """sums: 24 words for each plane of the columns and for each spare one."""
    words, a = columns.shape[1], np.empty(SQUARE, dtype=np.uint64)
    flat = spare.reshape(-1)
    for square in range(columns.shape[0] // SQUARE):
        for q in range(words):
            for i in range(SQUARE):
                a[8 * (i % 64) + i // 64] = columns[SQUARE * square + i, q]
            _turn(a, 0, 8)
            for r in range(64):
                _add_products(a, 8 * r, factors, 8 * square, sums, 24 * (64 * q + r))
        for s in range(spare.shape[0]):
            _add_products(flat, s * spare.shape[1] + 8 * square, factors, 8 * square, sums, 24 * (64 * words + s))


def mask(keys: Words, counter: int, solved: Words, table: Words) -> tuple[Words, Words, Words]:
    """The receiver's message d (squares, LENGTH, 6, 8), and its values v (columns, WORDS) with their spare planes.

    keys: all leaves, prepared.  counter: of 128-bit blocks of their streams; 24 are used for each square of 512 columns.
    solved: (columns, 2) words.  table: the code's.  Spare planes: (2, columns / 64).
    """
    n = len(solved)
    d = np.empty((n // SQUARE, LENGTH, FIELD_BITS, 8), dtype=np.uint64)
    v, spare = np.empty((n, WORDS), dtype=np.uint64), np.empty((code.SPARE, n // 64), dtype=np.uint64)
    none = np.empty(0, dtype=np.int64)
    _mask(keys, counter, solved.reshape(-1), table.reshape(-1), none, d.reshape(-1), v.reshape(-1), spare)
    return d, v, spare


def unmask(keys: Words, counter: int, d: Words, delta: Words) -> tuple[Words, Words]:
    """The sender's w = v + delta * code(solved), (columns, WORDS), with its spare planes.

    keys: prepared; the leaf with number y of a tree is the receiver's leaf y + delta, and number 0 is not looked at.
    """
    n, none = SQUARE * len(d), np.empty(0, dtype=np.uint64)
    w, spare = np.empty((n, WORDS), dtype=np.uint64), np.empty((code.SPARE, n // 64), dtype=np.uint64)
    _mask(keys, counter, none, none, delta, d.reshape(-1), w.reshape(-1), spare)
    return w, spare


def add_code(values: Words, messages: Words, table: Words, spare: Words) -> None:
    """values (n, WORDS + 1) ^= what the tables say of the messages (n, 2)."""
    _add_code(values, messages, table.reshape(-1), spare)


def parities(spare: Words, start: Words, band: Words, values: Words) -> None:
    """values[:, WORDS] = the sums of the spare bits that each row selects.  values: (n, WORDS + 1)."""
    _parities(spare, start, band, values)


def hashed(columns: Words, spare: Words, factors: Words) -> Words:
    """(64 k + s, 2): for each bit of the columns (c, k) and each spare plane (s, c / 64) the sum over tiles of 128 columns of
    their bits, a polynomial, times the tile's factor; `mpc.matching.field128`.  factors: (c / 128, 2)."""
    sums = np.zeros((64 * columns.shape[1] + len(spare), 3, 4, 2), dtype=np.uint64)
    _hash(columns, spare, factors.reshape(-1), sums.reshape(-1))
    low, middle, high = np.bitwise_xor.reduce(sums, axis=2).transpose(1, 0, 2)
    return reduced(np.stack([low[:, 0], low[:, 1] ^ middle[:, 0], high[:, 0] ^ middle[:, 1], high[:, 1]], axis=1))
