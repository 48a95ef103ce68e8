"""The only source of randomness: AES-256 in counter mode under keys from the operating system or HKDF.

Source: NIST SP 800-38A (CTR), SP 800-90A's observation that AES-CTR under a fresh key is a pseudorandom generator.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_ZEROS = bytes(1 << 18)


def fresh_key() -> bytes:
    """32 bytes from the operating system's generator."""
    return secrets.token_bytes(KEY_BYTES)


def derive_key(key: bytes, label: str) -> bytes:
    """A 32-byte subkey for one purpose: HKDF-SHA256 with `label` as info."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=b"accord/" + label.encode()).derive(key)


class Prg:
    """One AES-256-CTR stream; draws are consumed in order and never repeat.

    key: 32 secret bytes.  stream: 0 <= stream < 2^64; streams of one key are disjoint because the stream number is
    the upper half of the counter block and no stream may exceed 2^64 blocks.
    """

    __slots__ = ("_encryptor",)

    def __init__(self, key: bytes, stream: int = 0) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a generator key has {KEY_BYTES} bytes, got {len(key)}")
        nonce = stream.to_bytes(8, "big") + bytes(8)
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()

    def __repr__(self) -> str:
        return "Prg(<secret>)"

    def fill(self, out: memoryview) -> None:
        """Overwrite a writable buffer of bytes with the next pseudorandom bytes."""
        done = 0
        while done < len(out):
            step = min(len(out) - done, len(_ZEROS))
            self._encryptor.update_into(memoryview(_ZEROS)[:step], out[done : done + step])
            done += step

    def words(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.uint64) -> npt.NDArray[Any]:
        """Uniform unsigned words of any width, of the given shape."""
        out = np.empty(shape, dtype=dtype)
        if out.size:
            self.fill(out.reshape(-1).view(np.uint8).data)
        return out


def fresh_prg() -> Prg:
    """A generator under a key nobody else knows."""
    return Prg(fresh_key())
