"""The group ristretto255: elements and scalars as 32 bytes each, computed by libsodium.

The group has prime order and one encoding for each element, so there is no cofactor to clear and no second form of a
point to look for.  The neutral element is refused wherever something arrives from outside: its multiples are known to
everybody.  Scalars and elements are handled in constant time by the library.

Source: RFC 9496; Hamburg, "Decaf", CRYPTO 2015.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import rbcl

from mpc.rng import Prg

ORDER = 2**252 + 27742317777372353535851937790883648493
ELEMENT_BYTES = SCALAR_BYTES = 32
UNIFORM_BYTES = 64

THREADS = 4
"""Enough to keep a few cores busy; the library does not hold the interpreter's lock while it computes."""
_ALONE = 32  # below so many items a pool costs more than it saves

_ZERO = bytes(32)
_T = TypeVar("_T")
_S = TypeVar("_S")


def decode(raw: bytes) -> bytes:
    """Return `raw` if it is the encoding of an element other than the neutral one.

    Raises: ValueError for any other bytes.
    """
    if len(raw) != ELEMENT_BYTES:
        raise ValueError(f"an element has {ELEMENT_BYTES} bytes, got {len(raw)}")
    if raw == _ZERO:
        raise ValueError("the neutral element")
    if not rbcl.crypto_core_ristretto255_is_valid_point(raw):
        raise ValueError("not the encoding of an element")
    return raw


def decode_scalar(raw: bytes) -> bytes:
    """Return `raw` if it is the encoding of a scalar, below the group's order and not zero.

    Raises: ValueError for any other bytes.
    """
    if len(raw) != SCALAR_BYTES:
        raise ValueError(f"a scalar has {SCALAR_BYTES} bytes, got {len(raw)}")
    # Compared with its own remainder, and not as a number, so that the time does not depend on a secret.
    if not hmac.compare_digest(reduce(raw + _ZERO), raw):
        raise ValueError("a scalar that is not below the group's order")
    if hmac.compare_digest(raw, _ZERO):
        raise ValueError("a scalar of zero")
    return raw


def from_uniform_bytes(raw: bytes) -> bytes:
    """Map 64 uniform bytes to an element whose discrete logarithm nobody knows."""
    if len(raw) != UNIFORM_BYTES:
        raise ValueError(f"an element is made of {UNIFORM_BYTES} uniform bytes, got {len(raw)}")
    result: bytes = rbcl.crypto_core_ristretto255_from_hash(raw)
    return result


def multiply(scalar: bytes, element: bytes) -> bytes:
    """The element times the scalar; the element is checked on the way.

    Raises: ValueError if the element does not decode, or if it, the scalar or the product is neutral.
    """
    try:
        result: bytes = rbcl.crypto_scalarmult_ristretto255(scalar, element)
    except RuntimeError as exc:  # all that the library says; its text speaks of another interface
        raise ValueError("not the encoding of an element other than the neutral one") from exc
    return result


def multiply_base(scalar: bytes) -> bytes:
    """The generator times a scalar.

    Raises: ValueError for a scalar of zero.
    """
    try:
        result: bytes = rbcl.crypto_scalarmult_ristretto255_base(scalar)
    except RuntimeError as exc:
        raise ValueError("a scalar of zero") from exc
    return result


def add(a: bytes, b: bytes) -> bytes:
    """Sum of two elements that were decoded, or are results of this module: they are not checked again."""
    result: bytes = rbcl.crypto_core_ristretto255_add(a, b)
    return result


def reduce(wide: bytes) -> bytes:
    """64 bytes, read as a little-endian number, modulo the group's order."""
    result: bytes = rbcl.crypto_core_ristretto255_scalar_reduce(wide)
    return result


def random_scalar(prg: Prg) -> bytes:
    """A scalar from 1 to the order less 1, within 2^-259 of uniform."""
    while True:
        scalar = reduce(prg.words(UNIFORM_BYTES, np.uint8).tobytes())
        if scalar != _ZERO:
            return scalar


def invert(scalar: bytes) -> bytes:
    """Inverse of a scalar that is not zero, modulo the group's order."""
    result: bytes = rbcl.crypto_core_ristretto255_scalar_invert(scalar)
    return result


def scalar_multiply(a: bytes, b: bytes) -> bytes:
    """Product of two scalars."""
    result: bytes = rbcl.crypto_core_ristretto255_scalar_mul(a, b)
    return result


def scalar_subtract(a: bytes, b: bytes) -> bytes:
    """Difference of two scalars."""
    result: bytes = rbcl.crypto_core_ristretto255_scalar_sub(a, b)
    return result


def on_all(function: Callable[[_S], _T], items: Sequence[_S]) -> list[_T]:
    """[function(item) for item in items], on a few threads if there are many items."""
    if len(items) < _ALONE:
        return [function(item) for item in items]
    step = -(-len(items) // (2 * THREADS))

    def part(start: int) -> list[_T]:
        return [function(item) for item in items[start : start + step]]

    with ThreadPoolExecutor(THREADS) as pool:
        parts: Iterable[list[_T]] = pool.map(part, range(0, len(items), step))
        return [result for one in parts for result in one]
