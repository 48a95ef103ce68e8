"""The kernels of set intersection compiled by numba.

Needs an x86 processor with AES instructions; anywhere else importing this module raises ImportError, and `kernels_numpy`,
which has the same functions with the same results, serves instead.  One thread, no Python lock held, cached on disk.
"""

from __future__ import annotations

from typing import Any

import numba.extending
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from mpc.compiled import compiled
from mpc.matching import blake3_numba, code, parameters
from mpc.ot.aes import schedules
from mpc.ot.vectors import FIELD_BITS, KEY_WORDS, LEAVES, _fold, _load, _mix, _plus, _store, _swap, _vector_step

__all__ = ["add_code", "decode", "hash_items", "hash_rows", "mask", "merge", "order", "prepared", "solve", "unmask"]

Words = npt.NDArray[Any]
intrinsic: Any = numba.extending.intrinsic
LENGTH, WORDS, TILE, WIDTH = 53, 4, 128, 224
"""Written out, because code in the cache is compiled again only when its own file has changed."""
if (LENGTH, WORDS, TILE, WIDTH) != (code.LENGTH, code.WORDS, parameters.TILE, parameters.WIDTH):
    raise ArithmeticError("the compiled kernels have other parameters")
GROUP = 8
"""Tiles whose streams are made for one tree before the next: its keys stay in the first-level cache."""
STRIDE = 8 * GROUP
SYMBOLS = 64
"""Rows of a tile before it is transposed: the code's symbols and zeros."""
GROUPS = 64
"""Groups of 4 columns whose sums are at hand; a shifted band touches 57."""
NIBBLES = (WIDTH + 3 + 3) // 4

_I64 = ir.IntType(64)
_V4, _V8 = ir.VectorType(_I64, 4), ir.VectorType(_I64, 8)
_LOW, _HIGH = ir.Constant(_V8, [0x1111111111111111] * 8), ir.Constant(_V8, [0xEEEEEEEEEEEEEEEE] * 8)


@intrinsic
def _horner(typingctx, rows, row, stride, out, to):  # type: ignore[no-untyped-def]
    """Sum over bits i of a^i times row i, for 128 nibbles in each of four rows."""

    def body(builder: Any, rows: Any, row: Any, stride: Any, out: Any, to: Any) -> None:
        one, three = ir.Constant(_V8, [1] * 8), ir.Constant(_V8, [3] * 8)
        total: Any = None
        for bit in reversed(range(FIELD_BITS)):
            value = _load(builder, rows, builder.add(row, builder.mul(stride, ir.Constant(_I64, bit))))
            if total is not None:
                top = builder.and_(builder.lshr(total, three), _LOW)
                shifted = builder.and_(builder.shl(total, one), _HIGH)
                total = builder.xor(shifted, builder.xor(top, builder.shl(top, one)))
                value = builder.xor(value, total)
            total = value
        _store(builder, total, out, to)

    return _vector_step(body)(typingctx, rows, row, stride, out, to)


@intrinsic
def _subset_sums(typingctx, table, to, columns, frm):  # type: ignore[no-untyped-def]
    """The 16 sums of subsets of 4 columns of 4 words."""

    def body(builder: Any, table: Any, to: Any, columns: Any, frm: Any) -> None:
        sums = [ir.Constant(_V4, [0] * 4)]
        for i in range(4):
            column = _load(builder, columns, _plus(builder, frm, 4 * i), _V4)
            sums += [builder.xor(value, column) for value in sums]
        for i, value in enumerate(sums):
            _store(builder, value, table, _plus(builder, to, 4 * i))

    return _vector_step(body)(typingctx, table, to, columns, frm)


@intrinsic
def _gather(typingctx, table, group, b0, b1, b2, b3, out, to):  # type: ignore[no-untyped-def]
    """Sum of one entry of each of NIBBLES groups, the one that the band's nibble names."""

    def body(builder: Any, table: Any, group: Any, b0: Any, b1: Any, b2: Any, b3: Any, out: Any, to: Any) -> None:
        parts: list[Any] = [ir.Constant(_V4, [0] * 4)] * 4
        for k in range(NIBBLES):
            word = builder.lshr((b0, b1, b2, b3)[k // 16], ir.Constant(_I64, 4 * (k % 16)))
            slot = builder.and_(_plus(builder, group, k), ir.Constant(_I64, GROUPS - 1))
            entry = builder.add(
                builder.shl(slot, ir.Constant(_I64, 6)),
                builder.shl(builder.and_(word, ir.Constant(_I64, 15)), ir.Constant(_I64, 2)),
            )
            parts[k % 4] = builder.xor(parts[k % 4], _load(builder, table, entry, _V4))
        total = builder.xor(builder.xor(parts[0], parts[1]), builder.xor(parts[2], parts[3]))
        _store(builder, total, out, to)

    return _vector_step(body)(typingctx, table, group, b0, b1, b2, b3, out, to)


@intrinsic
def _add_entries(typingctx, table, message, out, to):  # type: ignore[no-untyped-def]
    """out[to:to + 4] ^= the codeword of a message, or a multiple of it."""

    def body(builder: Any, table: Any, message: Any, out: Any, to: Any) -> None:
        total = _load(builder, out, to, _V4)
        for k in range(8):
            byte = builder.and_(builder.lshr(message, ir.Constant(_I64, 8 * k)), ir.Constant(_I64, 255))
            entry = builder.shl(_plus(builder, byte, 256 * k), ir.Constant(_I64, 2))
            total = builder.xor(total, _load(builder, table, entry, _V4))
        _store(builder, total, out, to)

    return _vector_step(body)(typingctx, table, message, out, to)


@compiled
def _turn(a: Words, base: int, stride: int) -> None:  # pragma: no cover
    """Transpose squares of 16 x 16 nibbles in place: 64 rows of 8 words, 32 squares.  It is its own inverse."""
    half, mask = 8, 0x00000000FFFFFFFF
    while half:
        for first in range(0, SYMBOLS, 2 * half):
            for row in range(first, first + half):
                _swap(a, base + stride * row, base + stride * (row + half), 4 * half, mask)
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
            _fold(keys, tree * LEAVES * KEY_WORDS, counter + 4 * (first + t), rows, 8 * t, STRIDE, u, 0)
            if receiving:
                for w in range(8):
                    d[at + w] = u[w] ^ c[tree * STRIDE + 8 * t + w]
            else:
                for bit in range(FIELD_BITS):
                    _mix(rows, 8 * t + bit * STRIDE, d, at, -(delta[tree] >> bit & 1))
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


@intrinsic
def _zeros_below(typingctx, x):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """How many zeros are below the lowest bit of a number that is not zero."""

    def codegen(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@compiled
def _eliminate(start: Words, band: Words, values: Words, held: Words, right: Words) -> bool:  # pragma: no cover
    """Rows (start, band) to rows with different first columns: held[c] is the band from column c on; its bit 0 is set."""
    one, all_bits = np.uint64(1), np.uint64(64)
    for i in range(start.size):
        c, v = start[i], values[i]
        b0, b1, b2, b3 = band[i, 0], band[i, 1], band[i, 2], band[i, 3]
        while True:
            if b0 == 0:
                if b1 == 0 and b2 == 0 and b3 == 0:
                    return False
                b0, b1, b2, b3 = b1, b2, b3, np.uint64(0)
                c += 64
                continue
            low = np.uint64(_zeros_below(b0))
            if low > 0:
                up = all_bits - low
                b0, b1, b2 = b0 >> low | b1 << up, b1 >> low | b2 << up, b2 >> low | b3 << up
                b3 >>= low
                c += np.int64(low)
            if held[c, 0] & one == 0:
                held[c, 0], held[c, 1], held[c, 2], held[c, 3] = b0, b1, b2, b3
                right[c] = v
                break
            b0 ^= held[c, 0]
            b1 ^= held[c, 1]
            b2 ^= held[c, 2]
            b3 ^= held[c, 3]
            v ^= right[c]
    return True


@compiled
def _substitute(held: Words, right: Words, solved: Words) -> None:  # pragma: no cover
    """Columns from the last to the first, with the sums of 4 columns each at hand."""
    table = np.zeros(16 * GROUPS, dtype=np.uint64)
    for group in range(solved.size // 4 - 1, -1, -1):
        base = 16 * (group % GROUPS)
        for i in range(16):
            table[base + i] = 0
        for bit in range(3, -1, -1):
            c = 4 * group + bit
            v = np.uint64(0)
            if held[c, 0] & np.uint64(1):
                up, down = np.uint64(bit), np.uint64(63 - bit)
                v, b = right[c], np.uint64(0)
                for q in range(WORDS):
                    word = held[c, q]
                    # Bits of the word before that the shift moves here; two shifts, because one by 64 is undefined.
                    shifted = word << up | (b >> np.uint64(1)) >> down
                    b = word
                    for k in range(16):
                        slot = (group + 16 * q + k) & (GROUPS - 1)
                        v ^= table[16 * slot + np.int64(shifted >> np.uint64(4 * k) & np.uint64(15))]
            solved[c] = v
            for i in range(16):
                if i >> bit & 1:
                    table[base + i] ^= v


@compiled
def _decode(columns: Words, start: Words, band: Words, out: Words) -> None:  # pragma: no cover
    table = np.zeros(4 * 16 * GROUPS, dtype=np.uint64)
    done, last = 0, columns.size // (4 * WORDS)
    one = np.uint64(1)
    for i in range(start.size):
        group, up = start[i] // 4, np.uint64(start[i] % 4)
        done = max(done, group)
        while done < min(group + NIBBLES, last):
            _subset_sums(table, 64 * (done % GROUPS), columns, 16 * done)
            done += 1
        down = np.uint64(63) - up
        b0, b1, b2, b3 = band[i, 0], band[i, 1], band[i, 2], band[i, 3]
        b3 = b3 << up | (b2 >> one) >> down
        b2 = b2 << up | (b1 >> one) >> down
        b1 = b1 << up | (b0 >> one) >> down
        _gather(table, group, b0 << up, b1, b2, b3, out, WORDS * i)


@compiled
def _add_code(values: Words, messages: Words, table: Words) -> None:  # pragma: no cover
    for i in range(messages.size):
        _add_entries(table, messages[i], values, WORDS * i)


@compiled
def _merge(a: Words, b: Words, places: Words) -> int:  # pragma: no cover
    i = j = found = 0
    while i < a.shape[0] and j < b.shape[0]:
        if a[i, 0] == b[j, 0] and a[i, 1] == b[j, 1]:
            places[found, 0], places[found, 1] = i, j
            found += 1
            i += 1
            j += 1
        elif a[i, 0] < b[j, 0] or (a[i, 0] == b[j, 0] and a[i, 1] < b[j, 1]):
            i += 1
        else:
            j += 1
    return found


@compiled
def _order(words: Words, bits: int, begin: Words, first: Words, order: Words) -> None:  # pragma: no cover
    """Scatter by the upper bits, of which hashes have all values equally often, then insert."""
    n, drop = words.shape[0], np.uint64(64 - bits)
    for i in range(n):
        begin[np.int64(words[i, 0] >> drop) + 1] += 1
    for b in range(begin.size - 1):
        begin[b + 1] += begin[b]
    for i in range(n):
        bucket = np.int64(words[i, 0] >> drop)
        to = begin[bucket]
        first[to], order[to] = words[i, 0], i
        begin[bucket] = to + 1
    # Places before are never after these: what is inserted stops inside its own bucket.
    for i in range(1, n):
        key, row, at = first[i], order[i], i
        while at > 0 and (first[at - 1] > key or (first[at - 1] == key and words[order[at - 1], 1] > words[row, 1])):
            first[at], order[at] = first[at - 1], order[at - 1]
            at -= 1
        first[at], order[at] = key, row


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


def solve(start: Words, band: Words, values: Words, n_columns: int) -> tuple[bool, Words]:
    """Whether the rows are independent, and if so the columns; those that no row needs are zero."""
    held, right = np.zeros((n_columns, 4), dtype=np.uint64), np.empty(n_columns, dtype=np.uint64)
    solved = np.zeros(n_columns, dtype=np.uint64)
    if not _eliminate(start, band, values, held, right):
        return False, solved
    _substitute(held, right, solved)
    return True, solved


def decode(columns: Words, start: Words, band: Words) -> Words:
    """(n, WORDS): for every row, the sum of the columns that its band selects.  start: ascending."""
    out = np.empty((len(start), WORDS), dtype=np.uint64)
    _decode(columns.reshape(-1), start, band, out.reshape(-1))
    return out


def add_code(values: Words, messages: Words, table: Words) -> None:
    """values (n, WORDS) ^= what the table says of the messages (n,)."""
    _add_code(values.reshape(-1), messages, table.reshape(-1))


def merge(a: Words, b: Words) -> Words:
    """(k, 2): places in a and in b of rows with the same first two words; both are in their ascending order."""
    places = np.empty((min(len(a), len(b)), 2), dtype=np.int64)
    return places[: _merge(a, b, places)]


def order(words: Words) -> npt.NDArray[np.int64]:
    """The order of rows of hashes by their first word, and by the second where the first ones are equal."""
    bits = max(1, len(words).bit_length() - 3)
    begin, out = np.zeros((1 << bits) + 1, dtype=np.int64), np.empty(len(words), dtype=np.int64)
    _order(words, bits, begin, np.empty(len(words), dtype=np.uint64), out)
    return out
