"""The kernels of set intersection in NumPy and Python's integers: slower than `kernels_numba`, equal results."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc.matching.code import LENGTH, SYMBOL_BITS, WORDS, packed
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
    TILE,
    WIDTH,
)

Words = npt.NDArray[Any]
LEAVES = 1 << SYMBOL_BITS
AT_ONCE = 1 << 13
"""Rows worked on at a time, to bound memory."""
_LOW, _HIGH = np.uint64(0x1111111111111111), np.uint64(0xEEEEEEEEEEEEEEEE)


def prepared(keys: npt.NDArray[np.uint8]) -> Words:
    """AES keys (k, 16) in the form the other functions take."""
    return keys.copy()


# --- BLAKE3


def _rotated(x: Words, by: int) -> Words:
    turned: Words = x >> np.uint32(by) | x << np.uint32(32 - by)
    return turned


def _compress(chain: Words, message: Words, size: Words, flags: Words) -> Words:
    """(16, n) words from the chaining values (8, n), messages (16, n), sizes (n,) and flags (n,)."""
    fixed = [np.full(chain.shape[1], word, dtype=np.uint32) for word in (*IV, 0, 0)]
    v, m = [*chain.copy(), *fixed, size, flags], list(message)
    for _ in range(ROUNDS):
        for i, (a, b, c, d) in enumerate(QUARTERS):
            for word, first, second in ((m[2 * i], 16, 12), (m[2 * i + 1], 8, 7)):
                v[a] = v[a] + v[b] + word
                v[d] = _rotated(v[d] ^ v[a], first)
                v[c] = v[c] + v[d]
                v[b] = _rotated(v[b] ^ v[c], second)
        m = [m[i] for i in ORDER]
    return np.stack([*(v[i] ^ v[i + 8] for i in range(8)), *(v[i + 8] ^ chain[i] for i in range(8))])


def hash_items(key: Words, data: Words, offsets: Words) -> Words:
    """As `mpc.matching.kernels_numba.hash_items`."""
    out = np.empty((len(offsets) - 1, 2), dtype=np.uint64)
    for first in range(0, len(out), AT_ONCE):
        starts, ends = offsets[:-1][first : first + AT_ONCE], offsets[1:][first : first + AT_ONCE]
        last = np.maximum(1, -(-(ends - starts) // BLOCK_BYTES)) - 1
        chain = np.repeat(key[:, None], len(starts), axis=1)
        for block in range(int(last.max()) + 1):
            here = np.clip(ends - starts - BLOCK_BYTES * block, 0, BLOCK_BYTES)
            at = (starts + BLOCK_BYTES * np.minimum(block, last))[:, None] + np.arange(BLOCK_BYTES)
            raw = np.where(np.arange(BLOCK_BYTES) < here[:, None], data[at], np.uint8(0))
            flags = np.full(len(starts), KEYED | (CHUNK_START if block == 0 else 0), dtype=np.uint32)
            flags |= np.where(block == last, np.uint32(CHUNK_END | ROOT), np.uint32(0))
            chain = _compress(chain[:8], raw.view(np.uint32).T, here.astype(np.uint32), flags)
            done = np.flatnonzero(block == last)
            out[first + done] = np.ascontiguousarray(chain[:4, done].T).view(np.uint64)
    return out


def hash_rows(key: Words, parts: Words, more: Words, n_words: int) -> Words:
    """As `mpc.matching.kernels_numba.hash_rows`."""
    out = np.empty((len(parts), n_words), dtype=np.uint64)
    width = parts.shape[1] + more.shape[1]
    for first in range(0, len(parts), AT_ONCE):
        rows = np.concatenate([parts[first : first + AT_ONCE], more[first : first + AT_ONCE]], axis=1)
        message = np.zeros((len(rows), 8), dtype=np.uint64)
        message[:, :width] = rows
        size = np.full(len(rows), 8 * width, dtype=np.uint32)
        flags = np.full(len(rows), CHUNK_START | CHUNK_END | ROOT | KEYED, dtype=np.uint32)
        digest = _compress(np.repeat(key[:, None], len(rows), axis=1), message.view(np.uint32).T, size, flags)
        out[first : first + len(rows)] = np.ascontiguousarray(digest.T).view(np.uint64)[:, :n_words]
    return out


# --- streams


def _sums(keys: Words, counter: int, tiles: int, tree: int) -> tuple[Words, Words]:
    """Sums of one tree's streams: of all leaves (8 tiles,), and of those with each bit set (bits, 8 tiles)."""
    blocks = np.zeros((4 * tiles, 2), dtype=np.uint64)
    blocks[:, 0] = np.arange(counter, counter + 4 * tiles, dtype=np.uint64)
    total, rows = np.zeros(8 * tiles, dtype=np.uint64), np.zeros((SYMBOL_BITS, 8 * tiles), dtype=np.uint64)
    for leaf in range(LEAVES):
        # The mode only says that every block is on its own: the blocks are counters.
        encryptor = Cipher(algorithms.AES(keys[LEAVES * tree + leaf].tobytes()), modes.ECB()).encryptor()  # noqa: S305
        stream = np.frombuffer(encryptor.update(blocks.tobytes()), dtype=np.uint64)
        total ^= stream
        for bit in range(SYMBOL_BITS):
            if leaf >> bit & 1:
                rows[bit] ^= stream
    return total, rows


def _horner(rows: Words) -> Words:
    """Sum over bits i of a^i times row i."""
    total: Words = rows[-1]
    for row in rows[-2::-1]:
        top = total >> np.uint64(3) & _LOW
        total = total << np.uint64(1) & _HIGH ^ top ^ top << np.uint64(1) ^ row
    return total


def _columns(symbols: Words) -> Words:
    """(LENGTH, words) rows of nibbles as (16 words, WORDS)."""
    raw = symbols.view(np.uint8)
    nibbles = np.stack([raw & 15, raw >> 4], axis=-1).reshape(LENGTH, -1)
    return packed(np.ascontiguousarray(nibbles.T).astype(np.int64))


def _rows(columns: Words) -> Words:
    """The inverse of `_columns`."""
    raw = columns.view(np.uint8)
    nibbles = np.stack([raw & 15, raw >> 4], axis=-1).reshape(len(columns), -1)[:, :LENGTH].T
    return np.ascontiguousarray(nibbles[:, ::2] | nibbles[:, 1::2] << 4).view(np.uint64)


def mask(keys: Words, counter: int, solved: Words, table: Words) -> tuple[Words, Words]:
    """As `mpc.matching.kernels_numba.mask`."""
    tiles = len(solved) // TILE
    codewords = np.zeros((len(solved), WORDS), dtype=np.uint64)
    add_code(codewords, solved, table)
    d, v = _rows(codewords), np.empty((LENGTH, 8 * tiles), dtype=np.uint64)
    for tree in range(LENGTH):
        total, rows = _sums(keys, counter, tiles, tree)
        d[tree] ^= total
        v[tree] = _horner(rows)
    return np.ascontiguousarray(d.reshape(LENGTH, tiles, 8).transpose(1, 0, 2)), _columns(v)


def unmask(keys: Words, counter: int, d: Words, delta: Words) -> Words:
    """As `mpc.matching.kernels_numba.unmask`."""
    w = np.empty((LENGTH, 8 * len(d)), dtype=np.uint64)
    for tree in range(LENGTH):
        _, rows = _sums(keys, counter, len(d), tree)
        for bit in range(SYMBOL_BITS):
            if int(delta[tree]) >> bit & 1:
                rows[bit] ^= d[:, tree].reshape(-1)
        w[tree] = _horner(rows)
    return _columns(w)


# --- key-value store


def solve(start: Words, band: Words, values: Words, columns: Words) -> bool:
    """As `mpc.matching.kernels_numba.solve`."""
    n_columns, size = len(columns), 8 * values.shape[1]
    held, right = [0] * n_columns, [0] * n_columns
    bands, sums = np.ascontiguousarray(band[:, :WORDS]).tobytes(), np.ascontiguousarray(values).tobytes()
    for i, first in enumerate(start.tolist()):
        b = int.from_bytes(bands[32 * i : 32 * (i + 1)], "little")
        v, c = int.from_bytes(sums[size * i : size * (i + 1)], "little"), first
        while True:
            if b == 0:
                return False
            low = (b & -b).bit_length() - 1
            b, c = b >> low, c + low
            if not held[c]:
                held[c], right[c] = b, v
                break
            b, v = b ^ held[c], v ^ right[c]
    for c in range(n_columns - 1, -1, -1):
        if held[c]:
            columns[c] = 0
            chosen = np.unpackbits(np.frombuffer(held[c].to_bytes(32, "little"), dtype=np.uint8), bitorder="little")
            there = columns[c : c + 256]
            total = np.bitwise_xor.reduce(there[chosen[: len(there)].astype(bool)], axis=0)
            columns[c] = np.frombuffer(right[c].to_bytes(size, "little"), dtype=np.uint64) ^ total
    return True


def decode(columns: Words, start: Words, band: Words) -> Words:
    """As `mpc.matching.kernels_numba.decode`."""
    out = np.zeros((len(start), WORDS), dtype=np.uint64)
    for first in range(0, len(start), AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        for j in range(WIDTH):
            bit = band[rows, j // 64] >> np.uint64(j % 64) & np.uint64(1)
            out[rows] ^= columns[start[rows] + j] * bit[:, None]
    return out


def add_code(values: Words, messages: Words, table: Words) -> None:
    """As `mpc.matching.kernels_numba.add_code`."""
    for k in range(8):
        values ^= table[k, (messages >> np.uint64(8 * k) & np.uint64(255)).astype(np.int64)]


def merge(a: Words, b: Words) -> Words:
    """As `mpc.matching.kernels_numba.merge`."""
    places = {row: j for j, row in enumerate(map(tuple, b[:, :2].tolist()))}
    found = [(i, places[row]) for i, row in enumerate(map(tuple, a[:, :2].tolist())) if row in places]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def order(words: Words) -> npt.NDArray[np.int64]:
    """As `mpc.matching.kernels_numba.order`."""
    return np.lexsort((words[:, 1], words[:, 0])).astype(np.int64)
