"""Numbers that both forms of the kernels share: the shape of the key-value store, and BLAKE3's constants."""

from __future__ import annotations

WIDTH = 224
"""Bits of a band of the key-value store."""
TILE = 128
"""Columns come in multiples of this: 53 streams of 64 bytes."""
SQUARE = 512
"""Columns that the malicious variant works on at once."""

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A)
"""BLAKE3: the first four words, which are all that a compression needs besides the key."""
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
"""BLAKE3: where each message word of the next round comes from."""
_STRAIGHT = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONAL = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
QUARTERS = (*_STRAIGHT, *_DIAGONAL)
"""BLAKE3: the words that each quarter of a round mixes."""
ROUNDS = 7
CHUNK_START, CHUNK_END, ROOT, KEYED = 1, 2, 8, 16
"""BLAKE3: flags of a block."""
BLOCK_BYTES, CHUNK_BYTES = 64, 1024
