"""The AES-128 key schedule for many keys at once, for kernels that call the processor's AES rounds themselves.

Source: FIPS 197, sections 5.1.1 and 5.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

KEY_BYTES = 16
_POLYNOMIAL = 0x11B


def _sbox() -> npt.NDArray[np.uint8]:
    """Inverses in GF(2^8), by walking through the powers of the generator 3 and of its inverse, and the affine map."""
    box = np.zeros(256, dtype=np.uint8)
    power, inverse = 1, 1
    for _ in range(255):
        power ^= power << 1
        power ^= _POLYNOMIAL if power >> 8 else 0
        inverse ^= inverse << 1
        inverse ^= inverse << 2
        inverse ^= inverse << 4
        inverse &= 0xFF
        inverse ^= 0x09 if inverse & 0x80 else 0
        box[power] = inverse ^ 0x63
        for turn in range(1, 5):
            box[power] ^= (inverse << turn | inverse >> 8 - turn) & 0xFF
    box[0] = 0x63
    return box


_SBOX = _sbox()


def schedules(keys: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Round keys of (k, 16) bytes of keys: (k, 22) words, two for each of the 11 rounds.

    Not constant in time where table look-ups are not: it is used on leaves and public keys in a party's own process.
    """
    k = len(keys)
    words = np.zeros((44, k, 4), dtype=np.uint8)
    words[:4] = keys.reshape(k, 4, 4).transpose(1, 0, 2)
    constant = 1
    for i in range(4, 44):
        word = words[i - 1]
        if i % 4 == 0:
            word = _SBOX[np.roll(word, -1, axis=1)]
            word[:, 0] ^= constant
            constant = constant << 1 ^ (_POLYNOMIAL if constant >> 7 else 0)
        words[i] = words[i - 4] ^ word
    return np.ascontiguousarray(words.transpose(1, 0, 2)).reshape(k, 176).view(np.uint64)
