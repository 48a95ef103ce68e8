"""Has a receiver masked codewords?  A linear hash of all columns that the sender chooses once they are masked.

The columns' bits are planes, and every 128 bits of a plane are a polynomial: an element of the field with 2^128 elements.
With the sender's random alpha, a plane's hash is its elements' sum times falling powers of alpha, a GF(2)-linear map R.
The receiver answers with R(v) and R(P), and w = v + Delta C(P) demands R(w) = R(v) + Delta C(R(P)).  The last 128
columns of P are random and have the factor 1, so R(P) is uniform and tells nothing about the others.

If a receiver has masked anything else than codewords it passes only with a right guess of Delta's symbols in as many places
as must be changed to make them codewords; see docs/protocols/oprf.md.

Source: Roy, "SoftSpokenOT", CRYPTO 2022 (the check of subspace VOLE); Carter, Wegman, JCSS 1981.
"""

from __future__ import annotations

import hmac
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.matching import wide_code as code
from mpc.matching.field128 import ELEMENT_BYTES, powers
from mpc.matching.kernels import wide
from mpc.matching.parameters import TILE
from mpc.matching.wide_vole import Columns, Unmasker

Words = npt.NDArray[Any]
CHALLENGE_BYTES = ELEMENT_BYTES
PLANES = code.LENGTH * code.SYMBOL_BITS
MESSAGE_PLANES = 64 * code.MESSAGE_WORDS
ANSWER_BYTES = (PLANES + MESSAGE_PLANES) * ELEMENT_BYTES


def _factors(challenge: bytes, n_columns: int) -> Words:
    return powers(np.frombuffer(challenge, dtype=np.uint64), n_columns // TILE)


def answer(challenge: bytes, held: Columns, solved: Words) -> bytes:
    """The hashes of the receiver's v and of the columns P that it masked."""
    factors = _factors(challenge, len(solved))
    none = np.empty((0, len(solved) // 64), dtype=np.uint64)
    hashes: list[Words] = [wide.hashed(held.words, held.spare, factors), wide.hashed(solved, none, factors)]
    return b"".join(part.tobytes() for part in hashes)


def passes(challenge: bytes, held: Columns, unmasker: Unmasker, reply: bytes) -> bool:
    """Whether the receiver's answer fits the sender's w."""
    own = wide.hashed(held.words, held.spare, _factors(challenge, len(held.words)))
    theirs = np.frombuffer(reply, dtype=np.uint64).reshape(-1, 2)
    values = np.zeros((TILE, code.WORDS + 1), dtype=np.uint64)
    unmasker.add_code(values, _turned(theirs[PLANES:]))
    expected = theirs[:PLANES] ^ _turned(values)[:PLANES]
    return hmac.compare_digest(own.tobytes(), expected.tobytes())


def _turned(words: Words) -> Words:
    """(n, m) words as a matrix of bits, transposed: (64 m, n / 64) words."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    return np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little").view(np.uint64)
