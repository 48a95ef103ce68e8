"""The compiled loops of `mpc.ot.kernels_numba`: AES through the processor's own instructions, on 8 words at a time.

The steps that numba has no words for are vector code (`mpc.llvm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]

from mpc.compiled import compiled
from mpc.llvm import LANES, V8, intrinsic, load, plus, store, vector_step

Words = npt.NDArray[Any]
Mode = tuple[bool, bool, int]
FIELD_BITS, TILE, KEY_WORDS = 4, 8, 22  # the last: of an expanded AES-128 key
LEAVES, TREES = 1 << FIELD_BITS, 128 // FIELD_BITS
GROUP = 8
"""Tiles extended at once: 128 rows of so many times 64 bytes stay in the second-level cache."""

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BYTES, _AES = ir.VectorType(_I8, 64), ir.VectorType(_I64, 2 * LANES)
_SUFFIX = "" if LANES == 1 else ".512"


def _mask(indices: Sequence[int]) -> Any:
    return ir.Constant(ir.VectorType(_I32, len(indices)), list(indices))


def _pick(builder: Any, a: Any, b: Any, indices: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, _mask(indices))


def _splat(builder: Any, scalar: Any, kind: Any = V8) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return _pick(builder, one, ir.Constant(kind, ir.Undefined), [0] * kind.count)


def _round_keys(builder: Any, data: Any, offset: Any) -> list[Any]:
    pair = ir.VectorType(_I64, 2)
    keys = [load(builder, data, plus(builder, offset, 2 * i), pair) for i in range(11)]
    return [_pick(builder, key, key, [0, 1] * LANES) for key in keys]


def _encrypt(builder: Any, blocks: list[Any], keys: Sequence[list[Any]]) -> list[Any]:
    """AES-128 of every vector of blocks under its own key, all in step so that they hide each other's latency."""
    kind = ir.FunctionType(_AES, [_AES, _AES])
    middle, last = (
        builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        for name in (f"llvm.x86.aesni.aesenc{_SUFFIX}", f"llvm.x86.aesni.aesenclast{_SUFFIX}")
    )
    blocks = [builder.xor(b, key[0]) for b, key in zip(blocks, keys, strict=True)]
    for i in range(1, 10):
        blocks = [builder.call(middle, [b, key[i]]) for b, key in zip(blocks, keys, strict=True)]
    return [builder.call(last, [b, key[10]]) for b, key in zip(blocks, keys, strict=True)]


def _hashed(builder: Any, pairs: Sequence[tuple[Any, Any]], keys: list[Any]) -> list[tuple[Any, Any]]:
    """AES(x) + x for 8 blocks x each, given and returned as their low and high words."""
    n = 2 * LANES
    blocks: list[Any] = []
    for lo, hi in pairs:
        whole = [i // 2 + 8 * (i % 2) for i in range(16)]
        blocks += [_pick(builder, lo, hi, whole[i : i + n]) for i in range(0, 16, n)]
    out = [builder.xor(c, b) for c, b in zip(_encrypt(builder, blocks, [keys] * len(blocks)), blocks, strict=True)]
    each = 16 // n
    result: list[tuple[Any, Any]] = []
    for at in range(0, len(out), each):
        parts = out[at : at + each]
        while len(parts) > 2:
            width = parts[0].type.count
            parts = [_pick(builder, a, b, range(2 * width)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        low, high = (_pick(builder, parts[0], parts[1], range(half, 16, 2)) for half in (0, 1))
        result.append((low, high))
    return result


@intrinsic
def fold(typingctx, keys, at, counter, rows, row, stride, total, out):  # type: ignore[no-untyped-def]
    """One tree's part of one tile: sums of the leaves' streams, all of them and those with each bit of their number set."""

    def body(builder: Any, *args: Any) -> None:
        keys, at, counter, rows, row, stride, total, out = args
        for part in range(4 // LANES):
            block = ir.Constant(_AES, [0, 0] * LANES)
            for lane in range(LANES):
                number = plus(builder, counter, part * LANES + lane)
                block = builder.insert_element(block, number, ir.Constant(_I32, 2 * lane))
            sums: list[Any] = [None] * (FIELD_BITS + 1)

            def add(i: int, value: Any, sums: list[Any] = sums) -> None:
                sums[i] = value if sums[i] is None else builder.xor(sums[i], value)

            for first in range(0, LEAVES, 8):
                group = range(first, min(first + 8, LEAVES))
                schedule = [_round_keys(builder, keys, plus(builder, at, leaf * KEY_WORDS)) for leaf in group]
                for leaf, value in zip(group, _encrypt(builder, [block] * len(group), schedule), strict=True):
                    add(FIELD_BITS, value)
                    for bit in range(FIELD_BITS):
                        if leaf >> bit & 1:
                            add(bit, value)
            for bit in range(FIELD_BITS):
                to = builder.add(row, builder.mul(stride, ir.Constant(_I64, bit)))
                store(builder, sums[bit], rows, plus(builder, to, 2 * LANES * part))
            store(builder, sums[FIELD_BITS], total, plus(builder, out, 2 * LANES * part))

    return vector_step(body)(typingctx, keys, at, counter, rows, row, stride, total, out)


@intrinsic
def swap(typingctx, a, top, bottom, shift, mask):  # type: ignore[no-untyped-def]
    """Exchange the high part of 8 words for the low part of 8 others."""

    def body(builder: Any, a: Any, top: Any, bottom: Any, shift: Any, mask: Any) -> None:
        upper, lower, by = load(builder, a, top), load(builder, a, bottom), _splat(builder, shift)
        t = builder.and_(builder.xor(builder.lshr(upper, by), lower), _splat(builder, mask))
        store(builder, builder.xor(lower, t), a, bottom)
        store(builder, builder.xor(upper, builder.shl(t, by)), a, top)

    return vector_step(body)(typingctx, a, top, bottom, shift, mask)


@intrinsic
def mix(typingctx, a, to, b, frm, mask):  # type: ignore[no-untyped-def]
    """a[to:to + 8] ^= b[frm:frm + 8] & mask"""

    def body(builder: Any, a: Any, to: Any, b: Any, frm: Any, mask: Any) -> None:
        term = builder.and_(load(builder, b, frm), _splat(builder, mask))
        store(builder, builder.xor(load(builder, a, to), term), a, to)

    return vector_step(body)(typingctx, a, to, b, frm, mask)


@intrinsic
def _hash(typingctx, key, which, x, lo, hi, tweak, out, to):  # type: ignore[no-untyped-def]
    """Hashes of 8 blocks under the key that begins at `which`: low words to out[to:], high words 8 further."""

    def body(builder: Any, *args: Any) -> None:
        key, which, x, lo, hi, tweak, out, to = args
        low = builder.xor(load(builder, x, lo), _splat(builder, tweak))
        keys = _round_keys(builder, key, which)
        ((a, b),) = _hashed(builder, [(low, load(builder, x, hi))], keys)
        store(builder, a, out, to)
        store(builder, b, out, plus(builder, to, 8))

    return vector_step(body)(typingctx, key, which, x, lo, hi, tweak, out, to)


@intrinsic
def _hash_two(typingctx, key, which, x, lo, hi, tweak, delta, out, to):  # type: ignore[no-untyped-def]
    """Hashes of 8 blocks, as `_hash`, and 16 words further those of the same blocks plus delta."""

    def body(builder: Any, *args: Any) -> None:
        key, which, x, lo, hi, tweak, delta, out, to = args
        low, high = builder.xor(load(builder, x, lo), _splat(builder, tweak)), load(builder, x, hi)
        d = [_splat(builder, builder.load(builder.gep(delta, [ir.Constant(_I64, i)]))) for i in range(2)]
        keys = _round_keys(builder, key, which)
        pairs = _hashed(builder, [(low, high), (builder.xor(low, d[0]), builder.xor(high, d[1]))], keys)
        for i, value in enumerate(word for pair in pairs for word in pair):
            store(builder, value, out, plus(builder, to, 8 * i))

    return vector_step(body)(typingctx, key, which, x, lo, hi, tweak, delta, out, to)


GUARD_BITS = 8
"""Further fractional bits of a guarded product, sent as one byte."""
CARRY = 32
"""Where among the hashes of `_hash_two` the sender keeps what its last message carries, and behind it that message."""
_PLANES = [8 * (i % 8) + i // 8 for i in range(64)]
"""Byte j of 8 words side by side, for j = 0 to 7; its own inverse."""


@intrinsic
def _emit(typingctx, h, zero, pad, a, at, drop, keep, share, to, shift, message, out):  # type: ignore[no-untyped-def]
    """The sender's part for one bit of 8 words: its share, and the message with its low bytes first."""

    def body(builder: Any, *args: Any) -> None:
        h, zero, pad, a, at, drop, keep, share, to, shift, message, out = args
        width = _splat(builder, pad)
        h0, h1 = (builder.and_(load(builder, h, plus(builder, zero, i)), width) for i in (0, 16))
        value = builder.and_(builder.lshr(load(builder, a, at), _splat(builder, drop)), _splat(builder, keep))
        mine = builder.sub(load(builder, share, to), builder.shl(h0, _splat(builder, shift)))
        store(builder, mine, share, to)
        carried = builder.add(value, load(builder, h, ir.Constant(_I64, CARRY)))
        total = builder.add(builder.sub(h0, h1), carried)
        store(builder, total, h, ir.Constant(_I64, CARRY + 8))
        sent = builder.bitcast(total, _BYTES)
        store(builder, _pick(builder, sent, sent, _PLANES), message, out)

    return vector_step(body)(typingctx, h, zero, pad, a, at, drop, keep, share, to, shift, message, out)


@intrinsic
def _absorb(typingctx, h, at, pad, choice, word, bit, share, to, shift, message, frm):  # type: ignore[no-untyped-def]
    """The receiver's part for one bit of 8 words.  Bytes of the next message end up above the product, and stay there."""

    def body(builder: Any, *args: Any) -> None:
        h, at, pad, choice, word, bit, share, to, shift, message, frm = args
        planes = load(builder, message, frm, _BYTES)
        sent = builder.bitcast(_pick(builder, planes, planes, _PLANES), V8)
        chosen = builder.and_(builder.lshr(load(builder, choice, word), _splat(builder, bit)), ir.Constant(V8, [1] * 8))
        mask = builder.sub(ir.Constant(V8, [0] * 8), chosen)
        width = _splat(builder, pad)
        got = builder.add(builder.and_(load(builder, h, at), width), builder.and_(builder.and_(sent, width), mask))
        total = builder.add(load(builder, share, to), builder.shl(got, _splat(builder, shift)))
        store(builder, total, share, to)

    return vector_step(body)(typingctx, h, at, pad, choice, word, bit, share, to, shift, message, frm)


@compiled
def _square(a: Words, base: int) -> None:  # pragma: no cover
    """Transpose 8 squares of 64 x 64 bits in place: a[base + 8 r + w] is row r of square w.  Hacker's Delight, 7-3."""
    half, mask = 32, 0xFFFFFFFF
    while half:
        for first in range(0, 64, 2 * half):
            for row in range(first, first + half):
                swap(a, base + 8 * row, base + 8 * (row + half), half, mask)
        half >>= 1
        mask ^= mask << half


@compiled
def extend(
    keys: Words, counter: int, choice: Words, delta: Words, receiving: bool, d: Words, x: Words
) -> None:  # pragma: no cover
    """Blocks x of every transfer; corrections d are written if we receive, and read if not."""
    tiles = x.size // 1024
    rows, u = np.empty(128 * GROUP * 8, dtype=np.uint64), np.empty(8, dtype=np.uint64)
    stride = GROUP * 8
    for first in range(0, tiles, GROUP):
        count = min(GROUP, tiles - first)
        for tree in range(TREES):
            for t in range(count):
                tile = first + t
                row, at = FIELD_BITS * tree * stride + 8 * t, 8 * (TREES * tile + tree)
                fold(keys, tree * LEAVES * KEY_WORDS, counter + 4 * tile, rows, row, stride, u, 0)
                if receiving:
                    for w in range(8):
                        d[at + w] = u[w] ^ choice[8 * tile + w]
                else:
                    for bit in range(FIELD_BITS):
                        mix(rows, row + bit * stride, d, at, -(delta[tree] >> bit & 1))
        for t in range(count):
            base = 1024 * (first + t)
            for r in range(128):
                for w in range(8):
                    x[base + 8 * r + w] = rows[r * stride + 8 * t + w]
            _square(x, base)
            _square(x, base + 512)


@compiled
def ring_send(
    x: Words, delta: Words, key: Words, a: Words, rows: Words, mode: Mode, share: Words, message: Words
) -> None:  # pragma: no cover
    """As `mpc.ot.kernels_numba.ring_send`; mode: bitwise, guarded, tweak."""
    bitwise, guarded, tweak = mode
    tiles, choices, width = a.shape[0], a.shape[1], a.shape[2]
    values, shares = a.reshape(-1), share.reshape(-1)
    n_out = share.shape[1]
    h = np.zeros(CARRY + 16, dtype=np.uint64)
    out = 0
    for tile in range(tiles):
        for r in range(64):
            shift, size, to = rows[r, 0], rows[r, 1], rows[r, 2]
            if size == 0:
                continue
            drop, keep = (r, 1) if bitwise else (0, -1)
            lo = 1024 * tile + 8 * r
            source = (tile * choices + r * choices // 64) * width
            target = (tile * n_out + to) * width
            for i in range(width):
                if i % 2 == 0:
                    _hash_two(key, tile * KEY_WORDS, x, lo, lo + 512, tweak + i // 2, delta, h, 0)
                column, pad = (i ^ 1, 255 if i % 2 == 0 else -1) if guarded else (i, -1)
                at, to_at = 8 * (source + column), 8 * (target + column)
                _emit(h, 8 * (column % 2), pad, values, at, drop, keep, shares, to_at, shift, message, out)
                out += 8 if pad > 0 else 8 * size
                for w in range(8 if guarded else 0):
                    h[CARRY + w] = np.uint64(np.int64(h[CARRY + 8 + w]) >> GUARD_BITS) if pad > 0 else np.uint64(0)


@compiled
def ring_receive(
    x: Words, key: Words, choice: Words, rows: Words, guarded: bool, tweak: int, message: Words, share: Words
) -> None:  # pragma: no cover
    """As `mpc.ot.kernels_numba.ring_receive`."""
    tiles, n_out, width = share.shape[0], share.shape[1], share.shape[2]
    shares = share.reshape(-1)
    h = np.empty(16, dtype=np.uint64)
    at = 0
    for tile in range(tiles):
        for r in range(64):
            shift, size, to = rows[r, 0], rows[r, 1], rows[r, 2]
            if size == 0:
                continue
            lo = 1024 * tile + 8 * r
            target = (tile * n_out + to) * width
            for i in range(width):
                if i % 2 == 0:
                    _hash(key, tile * KEY_WORDS, x, lo, lo + 512, tweak + i // 2, h, 0)
                column, pad = (i ^ 1, 255 if i % 2 == 0 else -1) if guarded else (i, -1)
                to_at = 8 * (target + column)
                _absorb(h, 8 * (column % 2), pad, choice, 8 * tile, r, shares, to_at, shift, message, at)
                at += 8 if pad > 0 else 8 * size


@compiled
def bits_send(
    x: Words, delta: Words, key: Words, table: Words, share: Words, message: Words
) -> None:  # pragma: no cover
    """As `mpc.ot.kernels_numba.bits_send`."""
    tiles, planes = table.shape[0], table.shape[1]
    zero, one, h = np.empty(512, dtype=np.uint64), np.empty(512, dtype=np.uint64), np.empty(32, dtype=np.uint64)
    for tile in range(tiles):
        for r in range(64):
            _hash_two(key, tile * KEY_WORDS, x, 1024 * tile + 8 * r, 1024 * tile + 512 + 8 * r, 0, delta, h, 0)
            for w in range(8):
                zero[8 * r + w] = h[w]
                one[8 * r + w] = h[w] ^ h[16 + w]
        _square(zero, 0)
        _square(one, 0)
        for j in range(planes):
            for w in range(8):
                share[tile, j, w] = zero[8 * j + w]
                message[tile, j, w] = one[8 * j + w] ^ table[tile, j, w]


@compiled
def bits_receive(x: Words, key: Words, choice: Words, message: Words, share: Words) -> None:  # pragma: no cover
    """As `mpc.ot.kernels_numba.bits_receive`."""
    tiles, planes = message.shape[0], message.shape[1]
    mine, h = np.empty(512, dtype=np.uint64), np.empty(16, dtype=np.uint64)
    for tile in range(tiles):
        for r in range(64):
            _hash(key, tile * KEY_WORDS, x, 1024 * tile + 8 * r, 1024 * tile + 512 + 8 * r, 0, h, 0)
            for w in range(8):
                mine[8 * r + w] = h[w]
        _square(mine, 0)
        for j in range(planes):
            for w in range(8):
                share[tile, j, w] = mine[8 * j + w] ^ (message[tile, j, w] & choice[8 * tile + w])
