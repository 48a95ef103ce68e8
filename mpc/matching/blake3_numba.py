"""BLAKE3 of 16 short inputs at a time, one in each lane of a vector, compiled by numba through LLVM.

The part of the function that one chunk needs: keyed, up to 1024 bytes.  No instructions are required that LLVM cannot replace.

Source: O'Connor, Aumasson, Neves, Wilcox-O'Hearn, "BLAKE3: one function, fast everywhere", 2020.
"""

from __future__ import annotations

from typing import Any

import numba.extending
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]

from mpc.compiled import compiled
from mpc.llvm import load, pointer, store, vector_step
from mpc.matching.parameters import (
    BLOCK_BYTES,
    CHUNK_END,
    CHUNK_START,
    IV,
    KEYED,
    ORDER,
    QUARTERS,
    ROOT,
    ROUNDS,
)

Words = npt.NDArray[Any]
intrinsic: Any = numba.extending.intrinsic
WHOLE = CHUNK_START | CHUNK_END | ROOT | KEYED
LANES = 16
_LANE = ir.VectorType(ir.IntType(32), LANES)


def _rotated(builder: Any, x: Any, by: int) -> Any:
    name = "llvm.fshr.v16i32"
    kind = ir.FunctionType(_LANE, [_LANE] * 3)
    shift = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(shift, [x, x, ir.Constant(_LANE, [by] * LANES)])


def _quarter(builder: Any, v: list[Any], at: tuple[int, ...], x: Any, y: Any) -> None:
    a, b, c, d = at
    for word, first, second in ((x, 16, 12), (y, 8, 7)):
        v[a] = builder.add(builder.add(v[a], v[b]), word)
        v[d] = _rotated(builder, builder.xor(v[d], v[a]), first)
        v[c] = builder.add(v[c], v[d])
        v[b] = _rotated(builder, builder.xor(v[b], v[c]), second)


@intrinsic
def _compress(typingctx, chain, message, size, flags, out):  # type: ignore[no-untyped-def]
    """out (16 x 16 lanes) from the chaining value (8 x 16), message (16 x 16), sizes (16) and flags (16)."""

    def body(builder: Any, chain: Any, message: Any, size: Any, flags: Any, out: Any) -> None:
        def row(data: Any, i: int) -> Any:
            return load(builder, data, ir.Constant(ir.IntType(64), LANES * i), _LANE)

        before = [row(chain, i) for i in range(8)]
        fixed = [ir.Constant(_LANE, [word] * LANES) for word in (*IV, 0, 0)]
        v, m = [*before, *fixed, row(size, 0), row(flags, 0)], [row(message, i) for i in range(16)]
        for _ in range(ROUNDS):
            for i, at in enumerate(QUARTERS):
                _quarter(builder, v, at, m[2 * i], m[2 * i + 1])
            m = [m[i] for i in ORDER]
        after = [builder.xor(v[i], v[i + 8]) for i in range(8)]
        after += [builder.xor(v[i + 8], before[i]) for i in range(8)]
        for i, value in enumerate(after):
            store(builder, value, out, ir.Constant(ir.IntType(64), LANES * i))

    return vector_step(body)(typingctx, chain, message, size, flags, out)


@intrinsic
def _word_at(typingctx, data, at, out, to):  # type: ignore[no-untyped-def]
    """out[to] = the 32-bit word at data[at:]."""

    def body(builder: Any, data: Any, at: Any, out: Any, to: Any) -> None:
        word = builder.load(pointer(builder, data, at, ir.IntType(32)), align=1)
        builder.store(word, pointer(builder, out, to, ir.IntType(32)), align=1)

    return vector_step(body)(typingctx, data, at, out, to)


@compiled
def hash_items(key: Words, data: Words, offsets: Words, out: Words) -> None:  # pragma: no cover
    """As `mpc.matching.kernels_numba.hash_items`; behind `data` are BLOCK_BYTES to spare."""
    n = offsets.size - 1
    chain, message = np.empty(128, dtype=np.uint32), np.empty(256, dtype=np.uint32)
    size, flags, digest = np.empty(16, dtype=np.uint32), np.empty(16, dtype=np.uint32), np.empty(256, dtype=np.uint32)
    for first in range(0, n, LANES):
        count = min(LANES, n - first)
        most = 1
        for lane in range(count):
            most = max(most, (offsets[first + lane + 1] - offsets[first + lane] + BLOCK_BYTES - 1) // BLOCK_BYTES)
        for i in range(128):
            chain[i] = key[i // LANES]
        for block in range(most):
            for lane in range(LANES):
                i = min(first + lane, n - 1)
                length = offsets[i + 1] - offsets[i]
                last = max(1, (length + BLOCK_BYTES - 1) // BLOCK_BYTES) - 1
                here = min(max(length - BLOCK_BYTES * block, 0), BLOCK_BYTES)
                start = offsets[i] + BLOCK_BYTES * min(block, last)
                size[lane] = here
                flags[lane] = KEYED | (CHUNK_START if block == 0 else 0) | (CHUNK_END | ROOT if block == last else 0)
                for word in range(16):
                    at = LANES * word + lane
                    rest = here - 4 * word
                    if rest <= 0:
                        message[at] = 0
                        continue
                    _word_at(data, start + 4 * word, message, at)
                    if rest < 4:
                        message[at] &= np.uint32((1 << 8 * rest) - 1)
            _compress(chain, message, size, flags, digest)
            for lane in range(count):
                i = first + lane
                if block == max(1, (offsets[i + 1] - offsets[i] + BLOCK_BYTES - 1) // BLOCK_BYTES) - 1:
                    for word in range(2):
                        low, high = digest[LANES * 2 * word + lane], digest[LANES * (2 * word + 1) + lane]
                        out[i, word] = np.uint64(low) | np.uint64(high) << np.uint64(32)
            # A lane that has ended goes on with its digest; nobody reads what comes of it.
            for i in range(128):
                chain[i] = digest[i]


@compiled
def hash_rows(key: Words, parts: Words, more: Words, out: Words) -> None:  # pragma: no cover
    """Whole 64-byte outputs for rows made of the words of `parts` and then those of `more`, at most 8 in all."""
    n, width, extra = parts.shape[0], parts.shape[1], more.shape[1]
    chain, message = np.empty(128, dtype=np.uint32), np.zeros(256, dtype=np.uint32)
    size, flags, digest = np.empty(16, dtype=np.uint32), np.empty(16, dtype=np.uint32), np.empty(256, dtype=np.uint32)
    for i in range(128):
        chain[i] = key[i // LANES]
    for lane in range(LANES):
        size[lane] = 8 * (width + extra)
        flags[lane] = WHOLE
    words = out.shape[1]
    for first in range(0, n, LANES):
        count = min(LANES, n - first)
        for lane in range(count):
            for word in range(width + extra):
                value = parts[first + lane, word] if word < width else more[first + lane, word - width]
                message[LANES * 2 * word + lane] = np.uint32(value & np.uint64(0xFFFFFFFF))
                message[LANES * (2 * word + 1) + lane] = np.uint32(value >> np.uint64(32))
        _compress(chain, message, size, flags, digest)
        for lane in range(count):
            for word in range(words):
                low, high = digest[LANES * 2 * word + lane], digest[LANES * (2 * word + 1) + lane]
                out[first + lane, word] = np.uint64(low) | np.uint64(high) << np.uint64(32)
