"""The generator against NIST's vectors and RFC 5869, and that its streams are apart and its key hidden."""

import hashlib
import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc.rng import KEY_BYTES, Prg, derive_key, fresh_key, fresh_prg

# NIST SP 800-38A (2001), section F.5.5, CTR-AES256.Encrypt.
KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
COUNTER = int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16)
PLAIN = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
COUNTED = bytes.fromhex(
    "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
)


def keystream(key: bytes, counter: int, n_blocks: int) -> bytes:
    """AES of successive counters, block by block: what counter mode means."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the definition of counter mode
    return b"".join(encryptor.update((counter + i).to_bytes(16, "big")) for i in range(n_blocks))


def test_the_reference_is_nists():
    assert bytes(p ^ k for p, k in zip(PLAIN, keystream(KEY, COUNTER, 4), strict=True)) == COUNTED


@pytest.mark.parametrize("stream", [0, 1, 0xF0F1F2F3F4F5F6F7, (1 << 64) - 1])
def test_a_stream_is_counter_mode_with_the_stream_in_the_upper_half(stream):
    assert Prg(KEY, stream).words(64, np.uint8).tobytes() == keystream(KEY, stream << 64, 4)


def test_draws_continue_the_stream_whatever_their_sizes():
    whole = Prg(KEY, 3).words(1 << 19, np.uint8).tobytes()  # longer than the block of zeros that is encrypted at a time
    prg = Prg(KEY, 3)
    parts = [
        prg.words(shape, dtype).tobytes() for shape, dtype in [(1, np.uint8), ((3, 5), np.uint16), ((), np.uint64)]
    ]
    parts.append(prg.words(0).tobytes())
    parts.append(prg.words((1 << 19) - 39, np.uint8).tobytes())
    assert b"".join(parts) == whole
    assert whole[-32:] == keystream(KEY, (3 << 64) + (1 << 15) - 2, 2)


def test_streams_and_keys_are_apart():
    blocks = set()
    for key in (KEY, derive_key(KEY, "other")):
        for stream in (0, 1, 2, 1 << 32):
            blocks |= {block.tobytes() for block in Prg(key, stream).words((64, 16), np.uint8)}
    assert len(blocks) == 2 * 4 * 64
    assert fresh_key() != fresh_key()
    assert fresh_prg().words(4).tobytes() != fresh_prg().words(4).tobytes()


def _hkdf(key: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    prk, out, block = hmac.digest(salt or bytes(32), key, hashlib.sha256), b"", b""
    while len(out) < size:
        block = hmac.digest(prk, block + info + bytes([len(out) // 32 + 1]), hashlib.sha256)
        out += block
    return out[:size]


def test_derive_key_is_hkdf_of_rfc_5869():
    case3 = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"  # appendix A.3
    assert _hkdf(b"\x0b" * 22, b"", b"", 42).hex() == case3
    assert derive_key(KEY, "zero-sharing") == _hkdf(KEY, b"", b"accord/zero-sharing", KEY_BYTES)
    assert derive_key(KEY, "zero-sharing") != derive_key(KEY, "common")


def test_a_wrong_key_or_stream_is_refused_and_the_key_is_not_shown():
    for bad in (b"", KEY[:16], KEY + b"x"):
        with pytest.raises(ValueError, match="32 bytes"):
            Prg(bad)
    for bad in (-1, 1 << 64):
        with pytest.raises(OverflowError):
            Prg(KEY, bad)
    shown = repr(Prg(KEY)) + str(Prg(KEY)) + repr(vars(Prg(KEY)) if hasattr(Prg(KEY), "__dict__") else "")
    assert KEY.hex() not in shown
    assert repr(KEY) not in shown
