"""The kernels of oblivious transfer in NumPy, with AES from `cryptography`: slower than `kernels_numba`, equal results."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc._bits import planes

Words = npt.NDArray[Any]
FIELD_BITS = 4
LEAVES, TREES = 1 << FIELD_BITS, 128 // FIELD_BITS
TILE = 8
GUARD_BITS = 8
_ALL = np.uint64((1 << 64) - 1)


def prepared(keys: npt.NDArray[np.uint8]) -> Words:
    """AES keys (k, 16) in the form the other functions take."""
    return keys.copy()


def _encrypted(key: Words, blocks: Words) -> Words:
    """AES-128 of words that are pairwise blocks, in any shape."""
    # One call per buffer; the mode only says that every block is on its own.
    encryptor = Cipher(algorithms.AES(key.tobytes()), modes.ECB()).encryptor()  # noqa: S305
    out = encryptor.update(np.ascontiguousarray(blocks).tobytes())
    return np.frombuffer(out, dtype=np.uint64).reshape(blocks.shape)


class _Ciphers:
    """AES-128 under a key for every tile."""

    def __init__(self, keys: Words) -> None:
        self._each = [Cipher(algorithms.AES(key.tobytes()), modes.ECB()).encryptor() for key in keys]  # noqa: S305

    def encrypted(self, blocks: Words) -> Words:
        """Words that are pairwise blocks, (tiles, ...)."""
        out = [cipher.update(tile.tobytes()) for cipher, tile in zip(self._each, blocks, strict=True)]
        return np.frombuffer(b"".join(out), dtype=np.uint64).reshape(blocks.shape)


def _fold(keys: Words, counter: int, tiles: int) -> tuple[Words, Words]:
    """Sums of every tree's streams: of all leaves, (TREES, 8 tiles), and of those with a bit set, (TREES, bits, 8 tiles)."""
    blocks = np.zeros((4 * tiles, 2), dtype=np.uint64)
    blocks[:, 0] = np.arange(counter, counter + 4 * tiles, dtype=np.uint64)
    total = np.zeros((TREES, 8 * tiles), dtype=np.uint64)
    rows = np.zeros((TREES, FIELD_BITS, 8 * tiles), dtype=np.uint64)
    for i, key in enumerate(keys):
        stream = _encrypted(key, blocks).reshape(-1)
        tree, leaf = divmod(i, LEAVES)
        total[tree] ^= stream
        for bit in range(FIELD_BITS):
            if leaf >> bit & 1:
                rows[tree, bit] ^= stream
    return total, rows


def _blocks(rows: Words, tiles: int) -> Words:
    """Transpose 128 rows to the blocks of every transfer: (tiles, 2, 64, 8)."""
    halves = rows.reshape(2, 64, 8 * tiles)
    squares = [planes(half.T.reshape(-1)).reshape(64, tiles, TILE).transpose(1, 0, 2) for half in halves]
    return np.ascontiguousarray(np.stack(squares, axis=1))


def extend_receiver(keys: Words, counter: int, choice: Words) -> tuple[Words, Words]:
    """As `mpc.ot.kernels_numba.extend_receiver`."""
    tiles = len(choice) // TILE
    total, rows = _fold(keys, counter, tiles)
    d = (total ^ choice).reshape(TREES, tiles, TILE).transpose(1, 0, 2)
    return np.ascontiguousarray(d), _blocks(rows, tiles)


def extend_sender(keys: Words, counter: int, d: Words, delta: Words) -> Words:
    """As `mpc.ot.kernels_numba.extend_sender`."""
    _, rows = _fold(keys, counter, len(d))
    flat = d.transpose(1, 0, 2).reshape(TREES, -1)
    for bit in range(FIELD_BITS):
        rows[:, bit] ^= np.where((delta >> bit & 1)[:, None] == 1, flat, np.uint64(0))
    return _blocks(rows, len(d))


def _hashed(x: Words, key: _Ciphers, row: slice | int, tweak: int, delta: Words | None = None) -> Words:
    """AES(x) + x for the blocks of some bits, as their low and high words: (tiles, ..., 8, 2)."""
    blocks = np.stack([x[:, 0, row], x[:, 1, row]], axis=-1)
    blocks[..., 0] ^= np.uint64(tweak)
    if delta is not None:
        blocks ^= delta
    return np.asarray(key.encrypted(blocks) ^ blocks)


def _columns(x: Words, key: _Ciphers, row: int, width: int, tweak: int, delta: Words | None = None) -> Words:
    """One word for each column of a vector message: (tiles, width, 8)."""
    pairs = [_hashed(x, key, row, tweak + j, delta) for j in range(-(-width // 2))]
    return np.stack([pairs[i // 2][..., i % 2] for i in range(width)], axis=1)


def message_bytes(rows: Words, width: int, *, guarded: bool) -> int:
    """As `mpc.ot.kernels_numba.message_bytes`."""
    sizes = rows[:, 1]
    return int(sizes.sum()) * width if not guarded else int((sizes + 1)[sizes > 0].sum()) * (width // 2)


def _order(width: int, size: int, *, guarded: bool) -> list[tuple[int, int, np.uint64]]:
    """Columns in the order in which they are sent, with their bytes, and what of a pad and a message is theirs."""
    if not guarded:
        return [(i, size, _ALL) for i in range(width)]
    return [
        (i ^ 1, 1 if i % 2 == 0 else size, np.uint64((1 << GUARD_BITS) - 1) if i % 2 == 0 else _ALL)
        for i in range(width)
    ]


def ring_send(
    x: Words,
    delta: Words,
    key: Words,
    a: Words,
    rows: Words,
    share: Words,
    *,
    bitwise: bool = False,
    guarded: bool = False,
    tweak: int = 0,
) -> Words:
    """As `mpc.ot.kernels_numba.ring_send`."""
    tiles, choices, width, _ = a.shape
    ciphers = _Ciphers(key)
    sent = [np.empty((tiles, 0), dtype=np.uint8)]
    for r, (shift, size, to) in enumerate(rows.tolist()):
        if size == 0:
            continue
        h0, h1 = (_columns(x, ciphers, r, width, tweak, d) for d in (None, delta))
        value = a[:, r * choices // 64]
        if bitwise:
            value = value >> np.uint64(r) & np.uint64(1)
        carry = np.zeros((tiles, TILE), dtype=np.uint64)
        for i, n_bytes, pad in _order(width, size, guarded=guarded):
            share[:, to, i] -= (h0[:, i] & pad) << np.uint64(shift)
            total = (h0[:, i] & pad) - (h1[:, i] & pad) + value[:, i] + carry
            carry = (total.view(np.int64) >> GUARD_BITS).view(np.uint64) if pad != _ALL else np.zeros_like(carry)
            low = total.view(np.uint8).reshape(tiles, TILE, 8)[..., :n_bytes]
            sent.append(low.transpose(0, 2, 1).reshape(tiles, n_bytes * TILE))
    return np.concatenate(sent, axis=1).reshape(-1)


def ring_receive(
    x: Words,
    key: Words,
    choice: Words,
    rows: Words,
    message: Words,
    share: Words,
    *,
    guarded: bool = False,
    tweak: int = 0,
) -> None:
    """As `mpc.ot.kernels_numba.ring_receive`."""
    tiles, _, width, _ = share.shape
    ciphers = _Ciphers(key)
    sent, at = message.reshape(tiles, message.size // max(tiles, 1)), 0
    for r, (shift, size, to) in enumerate(rows.tolist()):
        if size == 0:
            continue
        pads = _columns(x, ciphers, r, width, tweak)
        chosen = (choice >> np.uint64(r) & np.uint64(1)).reshape(tiles, TILE)
        for i, n_bytes, pad in _order(width, size, guarded=guarded):
            low = np.zeros((tiles, TILE, 8), dtype=np.uint8)
            step = n_bytes * TILE
            low[..., :n_bytes] = sent[:, at : at + step].reshape(tiles, n_bytes, TILE).transpose(0, 2, 1)
            at += step
            got = (pads[:, i] & pad) + low.view(np.uint64)[..., 0] * chosen
            share[:, to, i] += got << np.uint64(shift)


def _planes_of(hashes: Words, n_planes: int) -> Words:
    """(tiles, 64, 8) words to planes of their lowest bits (tiles, n_planes, 8)."""
    tiles = len(hashes)
    return planes(hashes.transpose(0, 2, 1).reshape(-1)).reshape(64, tiles, TILE)[:n_planes].transpose(1, 0, 2)


def bits_send(x: Words, delta: Words, key: Words, table: Words) -> tuple[Words, Words]:
    """As `mpc.ot.kernels_numba.bits_send`."""
    ciphers = _Ciphers(key)
    h0, h1 = (_hashed(x, ciphers, slice(None), 0, d)[..., 0] for d in (None, delta))
    message = _planes_of(h0 ^ h1, table.shape[1]) ^ table
    return np.ascontiguousarray(_planes_of(h0, table.shape[1])), np.ascontiguousarray(message)


def bits_receive(x: Words, key: Words, choice: Words, message: Words) -> Words:
    """As `mpc.ot.kernels_numba.bits_receive`."""
    h = _hashed(x, _Ciphers(key), slice(None), 0)[..., 0]
    share: Words = _planes_of(h, message.shape[1]) ^ (message & choice.reshape(-1, 1, TILE))
    return share
