"""The kernels of oblivious transfer compiled by numba.

A tile is 512 transfers: 8 choice words of 64 bits.  Transfer number 64 w + r of a tile belongs to bit r of word w, so a party's
ring words are their own choice bits, and everything that happens to bit r of 8 neighbouring words is one vector operation.

Needs an x86 processor with AES instructions; anywhere else importing this module raises ImportError, and `kernels_numpy`, which
has the same functions with the same results, serves instead.  One thread, no Python lock held, cached on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.ot import vectors as _compiled
from mpc.ot.aes import schedules as key_schedules
from mpc.ot.vectors import FIELD_BITS, GUARD_BITS, LEAVES, TILE, TREES

__all__ = [
    "FIELD_BITS",
    "GUARD_BITS",
    "LEAVES",
    "TILE",
    "TREES",
    "bits_receive",
    "bits_send",
    "extend_receiver",
    "extend_sender",
    "message_bytes",
    "prepared",
    "ring_receive",
    "ring_send",
]

Words = npt.NDArray[Any]


def prepared(keys: npt.NDArray[np.uint8]) -> Words:
    """AES keys (k, 16) in the form the other functions take."""
    return key_schedules(keys).reshape(-1)


def extend_receiver(keys: Words, counter: int, choice: Words) -> tuple[Words, Words]:
    """Corrections d (tiles, TREES, 8) to send, and blocks t (tiles, 2, 64, 8), for choice words (8 * tiles,).

    keys: every tree's leaves, prepared.  counter: of 128-bit blocks of the leaves' streams; 4 are used for a tile.
    """
    d, x = _room(len(choice) // TILE)
    _compiled.extend(keys, counter, choice, np.empty(0, dtype=np.int64), True, d.reshape(-1), x.reshape(-1))
    return d, x


def extend_sender(keys: Words, counter: int, d: Words, delta: Words) -> Words:
    """Blocks q = t + choice * delta (tiles, 2, 64, 8).

    keys: prepared; the leaf with number y of a tree is the receiver's leaf y + delta, and number 0 is not looked at.
    delta: (TREES,) int64, each tree's element of GF(2^FIELD_BITS).
    """
    _, x = _room(0, len(d))
    _compiled.extend(keys, counter, np.empty(0, dtype=np.uint64), delta, False, d.reshape(-1), x.reshape(-1))
    return x


def _room(tiles: int, blocks: int | None = None) -> tuple[Words, Words]:
    n = tiles if blocks is None else blocks
    return np.empty((tiles, TREES, TILE), dtype=np.uint64), np.empty((n, 2, 64, TILE), dtype=np.uint64)


SLACK = 64
"""Bytes behind a message that are written or read, but not used."""


def message_bytes(rows: Words, width: int, *, guarded: bool) -> int:
    """Bytes of the messages for one choice word."""
    sizes = rows[:, 1]
    return int(sizes.sum()) * width if not guarded else int((sizes + 1)[sizes > 0].sum()) * (width // 2)


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
    """Messages for products of the sender's words and the receiver's bits; its own shares are subtracted from `share`.

    x: blocks.  delta: (2,) words.  key: prepared, one for each tile.  a: (tiles, 1, 2 or 64, width, 8), 8 words for each
    tile, equal part of the bits and column of a vector message; bitwise: only bit r of the words goes with bit r of the
    choice.  rows: (64, 3) int64, per bit the shift of the product, the bytes of it that are sent (none: no product) and the
    row of `share` (tiles, n_out, width, 8) to add it to.  guarded: columns 2 i and 2 i + 1 are the whole units of a value
    and its GUARD_BITS further fractional bits, and shares of these are sums that did not wrap; no shifts.  tweak: number
    of the first column, halved.
    """
    size = message_bytes(rows, a.shape[2], guarded=guarded) * a.shape[0] * TILE
    message = np.empty(size + SLACK, dtype=np.uint8)
    _compiled.ring_send(x.reshape(-1), delta, key, a, rows, (bitwise, guarded, tweak), share, message)
    return message[:size]


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
    """The receiver's shares of the same products, added to `share`."""
    padded = np.empty(message.size + SLACK, dtype=np.uint8)
    padded[: message.size] = message
    _compiled.ring_receive(x.reshape(-1), key, choice, rows, guarded, tweak, padded, share)


def bits_send(x: Words, delta: Words, key: Words, table: Words) -> tuple[Words, Words]:
    """The sender's shares by exclusive or, and the messages, for `table` (tiles, up to 64 planes, 8) AND the choice bits."""
    share, message = np.empty_like(table), np.empty_like(table)
    _compiled.bits_send(x.reshape(-1), delta, key, table, share, message)
    return share, message


def bits_receive(x: Words, key: Words, choice: Words, message: Words) -> Words:
    """The receiver's shares of the same."""
    share = np.empty_like(message)
    _compiled.bits_receive(x.reshape(-1), key, choice, message, share)
    return share
