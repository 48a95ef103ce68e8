"""The compiled kernels of the key-value store, and of sorted tables of hashes.  `kernels_numba` passes them on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from mpc.compiled import compiled
from mpc.llvm import intrinsic, load, plus, store, vector_step
from mpc.matching import parameters

Words = npt.NDArray[Any]
WORDS, WIDTH = 4, 224
"""Written out, because code in the cache is compiled again only when its own file has changed."""
if WIDTH != parameters.WIDTH:
    raise ArithmeticError("the compiled kernels have other parameters")
GROUPS = 64
"""Groups of 4 columns whose sums are at hand; a shifted band touches 57."""
NIBBLES = (WIDTH + 3 + 3) // 4

_I64 = ir.IntType(64)
_V4 = ir.VectorType(_I64, 4)


@intrinsic
def _subset_sums(typingctx, table, to, columns, frm):  # type: ignore[no-untyped-def]
    """The 16 sums of subsets of 4 columns of 4 words."""

    def body(builder: Any, table: Any, to: Any, columns: Any, frm: Any) -> None:
        sums = [ir.Constant(_V4, [0] * 4)]
        for i in range(4):
            column = load(builder, columns, plus(builder, frm, 4 * i), _V4)
            sums += [builder.xor(value, column) for value in sums]
        for i, value in enumerate(sums):
            store(builder, value, table, plus(builder, to, 4 * i))

    return vector_step(body)(typingctx, table, to, columns, frm)


@intrinsic
def _gather(typingctx, table, group, b0, b1, b2, b3, out, to):  # type: ignore[no-untyped-def]
    """Sum of one entry of each of NIBBLES groups, the one that the band's nibble names."""

    def body(builder: Any, table: Any, group: Any, b0: Any, b1: Any, b2: Any, b3: Any, out: Any, to: Any) -> None:
        parts: list[Any] = [ir.Constant(_V4, [0] * 4)] * 4
        for k in range(NIBBLES):
            word = builder.lshr((b0, b1, b2, b3)[k // 16], ir.Constant(_I64, 4 * (k % 16)))
            slot = builder.and_(plus(builder, group, k), ir.Constant(_I64, GROUPS - 1))
            entry = builder.add(
                builder.shl(slot, ir.Constant(_I64, 6)),
                builder.shl(builder.and_(word, ir.Constant(_I64, 15)), ir.Constant(_I64, 2)),
            )
            parts[k % 4] = builder.xor(parts[k % 4], load(builder, table, entry, _V4))
        total = builder.xor(builder.xor(parts[0], parts[1]), builder.xor(parts[2], parts[3]))
        store(builder, total, out, to)

    return vector_step(body)(typingctx, table, group, b0, b1, b2, b3, out, to)


@intrinsic
def _zeros_below(typingctx, x):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """How many zeros are below the lowest bit of a number that is not zero."""

    def codegen(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@compiled
def _eliminate(start: Words, band: Words, values: Words, held: Words, right: Words) -> bool:  # pragma: no cover
    """Rows (start, band) to rows with different first columns: held[c] is the band from column c on; its bit 0 is set."""
    one, all_bits, size = np.uint64(1), np.uint64(64), values.shape[1]
    v = np.empty(size, dtype=np.uint64)
    for i in range(start.size):
        c = start[i]
        for q in range(size):
            v[q] = values[i, q]
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
                for q in range(size):
                    right[c, q] = v[q]
                break
            b0 ^= held[c, 0]
            b1 ^= held[c, 1]
            b2 ^= held[c, 2]
            b3 ^= held[c, 3]
            for q in range(size):
                v[q] ^= right[c, q]
    return True


@compiled
def _substitute(held: Words, right: Words, solved: Words, which: int) -> None:  # pragma: no cover
    """One word of the columns from the last to the first, with the sums of 4 columns each at hand."""
    table = np.zeros(16 * GROUPS, dtype=np.uint64)
    for group in range(solved.shape[0] // 4 - 1, -1, -1):
        base = 16 * (group % GROUPS)
        for i in range(16):
            table[base + i] = 0
        for bit in range(3, -1, -1):
            c = 4 * group + bit
            v = solved[c, which]
            if held[c, 0] & np.uint64(1):
                up, down = np.uint64(bit), np.uint64(63 - bit)
                v, b = right[c, which], np.uint64(0)
                for q in range(WORDS):
                    word = held[c, q]
                    # Bits of the word before that the shift moves here; two shifts, because one by 64 is undefined.
                    shifted = word << up | (b >> np.uint64(1)) >> down
                    b = word
                    for k in range(16):
                        slot = (group + 16 * q + k) & (GROUPS - 1)
                        v ^= table[16 * slot + np.int64(shifted >> np.uint64(4 * k) & np.uint64(15))]
            solved[c, which] = v
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


def solve(start: Words, band: Words, values: Words, columns: Words) -> bool:
    """Whether the rows are independent; if so the columns are such that every row's sum is its value.

    values: (n, k).  columns: (c, k); those that no row needs stay as they are.
    """
    held, right = np.zeros((len(columns), 4), dtype=np.uint64), np.empty(columns.shape, dtype=np.uint64)
    if not _eliminate(start, band, values, held, right):
        return False
    for which in range(columns.shape[1]):
        _substitute(held, right, columns, which)
    return True


def decode(columns: Words, start: Words, band: Words) -> Words:
    """(n, WORDS): for every row, the sum of the columns that its band selects.  start: ascending."""
    out = np.empty((len(start), WORDS), dtype=np.uint64)
    _decode(columns.reshape(-1), start, band, out.reshape(-1))
    return out


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
