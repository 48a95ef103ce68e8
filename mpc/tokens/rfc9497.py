"""Oblivious pseudorandom function on ristretto255: F(key, input), where nobody sees both the key and the input.

The suite is ristretto255-SHA512 of RFC 9497, in its modes OPRF and VOPRF.  In VOPRF every answer comes with a proof,
one for a whole batch, that it was made with the key that belongs to a known public key.  The two modes are two different
functions: their hashes have different domains.

The letters are the RFC's: k the key, B its public element, C_i blinded and D_i evaluated elements, (c, s) the proof.
Nothing here talks to anybody; `mpc.tokens` does.

Source: RFC 9497; Jarecki, Kiayias, Krawczyk, ASIACRYPT 2014; proof: Chaum, Pedersen, CRYPTO 1992; its batch: Davidson,
Goldberg, Sullivan, Tankersley, Valsorda, PETS 2018; hashing: RFC 9380, RFC 9496.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from mpc.curve25519 import expand_message_xmd
from mpc.rng import Prg
from mpc.tokens import ristretto
from mpc.tokens.ristretto import ELEMENT_BYTES, SCALAR_BYTES, UNIFORM_BYTES

SUITE = b"ristretto255-SHA512"
OUTPUT_BYTES = 64
PROOF_BYTES = 2 * SCALAR_BYTES
SEED_BYTES = 32
MAX_INPUT_BYTES = MAX_BATCH = (1 << 16) - 1

_GENERATOR = ristretto.multiply_base((1).to_bytes(SCALAR_BYTES, "little"))


class Mode(IntEnum):
    """Which of the RFC's functions it is."""

    OPRF = 0
    VOPRF = 1


@dataclass(frozen=True, eq=False)
class KeyPair:
    """A secret scalar, and the generator times it."""

    secret: bytes = field(repr=False)
    public: bytes


def key_pair(secret: bytes) -> KeyPair:
    """The pair of a secret scalar.

    Raises: ValueError if it is not a scalar.
    """
    return KeyPair(ristretto.decode_scalar(secret), ristretto.multiply_base(secret))


def generate_key_pair(prg: Prg) -> KeyPair:
    """A random pair: GenerateKeyPair, section 3.2."""
    return key_pair(ristretto.random_scalar(prg))


def derive_key_pair(seed: bytes, info: bytes, mode: Mode) -> KeyPair:
    """The pair that follows from 32 secret bytes and a public purpose: DeriveKeyPair, section 3.2.1.

    Raises: ValueError if the seed has another length or the purpose more than 65,535 bytes.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, got {len(seed)}")
    for counter in range(256):
        secret = _hash_to_scalar(seed + _framed(info) + bytes([counter]), b"DeriveKeyPair" + _context(mode))
        if secret != bytes(SCALAR_BYTES):
            return key_pair(secret)
    raise ArithmeticError("256 hashes in a row are zero")


def hash_to_group(message: bytes, mode: Mode) -> bytes:
    """The element of an input: HashToGroup, section 4.1."""
    uniform = expand_message_xmd(message, b"HashToGroup-" + _context(mode), UNIFORM_BYTES)
    return ristretto.from_uniform_bytes(uniform)


def blind(message: bytes, scalar: bytes, mode: Mode) -> bytes:
    """What the asker sends: Blind, section 3.3.  `scalar` is drawn anew for each call and needed for `finalize`.

    Raises: ValueError if the input has more than 65,535 bytes, or (never in practice) has the neutral element.
    """
    _framed(message)  # it must fit into `finalize` too
    return ristretto.multiply(scalar, hash_to_group(message, mode))


def blind_evaluate(secret: bytes, blinded: Sequence[bytes]) -> list[bytes]:
    """What the holder of the key answers: BlindEvaluate, section 3.3.

    Raises: ValueError if one is not the encoding of an element, or the neutral one.
    """
    return ristretto.on_all(lambda element: ristretto.multiply(secret, element), blinded)


def finalize(message: bytes, scalar: bytes, evaluated: bytes) -> bytes:
    """The asker's output, 64 bytes: Finalize, section 3.3.  In VOPRF, `verify` comes first.

    Raises: ValueError if `evaluated` is not the encoding of an element, or the neutral one.
    """
    return _output(message, ristretto.multiply(ristretto.invert(scalar), evaluated))


def evaluate(secret: bytes, message: bytes, mode: Mode) -> bytes:
    """The same output for who has both the key and the input: Evaluate, section 3.3."""
    return _output(message, ristretto.multiply(secret, hash_to_group(message, mode)))


def prove(key: KeyPair, blinded: Sequence[bytes], evaluated: Sequence[bytes], prg: Prg) -> bytes:
    """Proof, 64 bytes, that every one of `evaluated` is the secret times its one of `blinded`: section 2.2.1.

    Raises: ValueError for no elements, more than 65,535, or different numbers of them.
    """
    # Two proofs with one nonce would give the key away, so it is drawn in here.
    return _prove_with(ristretto.random_scalar(prg), key, blinded, evaluated)


def verify(public: bytes, blinded: Sequence[bytes], evaluated: Sequence[bytes], proof: bytes) -> None:
    """Check the proof of a batch: section 2.2.2.

    Raises: ValueError if it does not hold, or anything in it is malformed.
    """
    if len(proof) != PROOF_BYTES:
        raise ValueError(f"a proof has {PROOF_BYTES} bytes, got {len(proof)}")
    c, s = (ristretto.decode_scalar(part) for part in (proof[:SCALAR_BYTES], proof[SCALAR_BYTES:]))
    weights = _weights(public, blinded, evaluated)
    M, Z = _weighted_sum(weights, blinded), _weighted_sum(weights, evaluated)
    t2 = ristretto.add(ristretto.multiply_base(s), ristretto.multiply(c, public))
    t3 = ristretto.add(ristretto.multiply(s, M), ristretto.multiply(c, Z))
    if not hmac.compare_digest(_challenge(public, M, Z, t2, t3), c):
        raise ValueError("the proof does not hold")


def _prove_with(nonce: bytes, key: KeyPair, blinded: Sequence[bytes], evaluated: Sequence[bytes]) -> bytes:
    M = _weighted_sum(_weights(key.public, blinded, evaluated), blinded)
    Z = ristretto.multiply(key.secret, M)  # ComputeCompositesFast: cheaper than the sum, and the same
    t2, t3 = ristretto.multiply(nonce, _GENERATOR), ristretto.multiply(nonce, M)
    c = _challenge(key.public, M, Z, t2, t3)
    return c + ristretto.scalar_subtract(nonce, ristretto.scalar_multiply(c, key.secret))


def _weights(public: bytes, blinded: Sequence[bytes], evaluated: Sequence[bytes]) -> list[bytes]:
    """d_i: unpredictable factors, so that wrong answers cannot cancel each other in the sums."""
    if not 1 <= len(blinded) <= MAX_BATCH or len(blinded) != len(evaluated):
        raise ValueError(
            f"a proof is about 1 to {MAX_BATCH} pairs of elements, got {len(blinded)} and {len(evaluated)}"
        )
    seed = hashlib.sha512(_framed(public) + _framed(b"Seed-" + _context(Mode.VOPRF))).digest()
    return [
        _scalar_of(_framed(seed) + i.to_bytes(2, "big") + _framed(c) + _framed(d) + b"Composite")
        for i, (c, d) in enumerate(zip(blinded, evaluated, strict=True))
    ]


def _weighted_sum(weights: Sequence[bytes], elements: Sequence[bytes]) -> bytes:
    terms = ristretto.on_all(lambda pair: ristretto.multiply(*pair), list(zip(weights, elements, strict=True)))
    total = terms[0]
    for term in terms[1:]:
        total = ristretto.add(total, term)
    return total


def _challenge(*elements: bytes) -> bytes:
    return _scalar_of(b"".join(_framed(element) for element in elements) + b"Challenge")


def _scalar_of(transcript: bytes) -> bytes:
    """A hash within a proof; only VOPRF has proofs."""
    return _hash_to_scalar(transcript, b"HashToScalar-" + _context(Mode.VOPRF))


def _hash_to_scalar(message: bytes, dst: bytes) -> bytes:
    return ristretto.reduce(expand_message_xmd(message, dst, UNIFORM_BYTES))


def _output(message: bytes, element: bytes) -> bytes:
    return hashlib.sha512(_framed(message) + _framed(element) + b"Finalize").digest()


def _context(mode: Mode) -> bytes:
    return b"OPRFV1-" + bytes([mode]) + b"-" + SUITE


def _framed(part: bytes) -> bytes:
    if len(part) > MAX_INPUT_BYTES:
        raise ValueError(f"at most {MAX_INPUT_BYTES} bytes can be hashed, got {len(part)}")
    return len(part).to_bytes(2, "big") + part


def split(body: bytes) -> list[bytes]:
    """Elements from a message that is made of nothing else; each is still to be decoded."""
    return [body[at : at + ELEMENT_BYTES] for at in range(0, len(body), ELEMENT_BYTES)]
