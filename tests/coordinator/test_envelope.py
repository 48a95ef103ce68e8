"""Signed statements: one encoding per statement, and everything else refused."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coordinator.envelope import MAX_ENVELOPE_BYTES, EnvelopeError, Statement, canonical, parse, seal

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SAID = Statement("proposed", "ab" * 16, "cd" * 32, "lender", 0, "", "2026-01-01T00:00:00Z", {"spec": {"v": 1}})


def changed(**fields):
    outer = json.loads(seal(SAID, KEY))
    inner = json.loads(base64.b64decode(outer["payload"]))
    inner["predicate"].update(fields)
    outer["payload"] = base64.b64encode(canonical(inner)).decode()
    return canonical(outer)


def test_round_trip_and_signature():
    sealed = parse(seal(SAID, KEY))
    assert sealed.statement == SAID
    sealed.verify(KEY.public_key().public_bytes_raw())
    with pytest.raises(EnvelopeError, match="not that of lender"):
        sealed.verify(Ed25519PrivateKey.generate().public_key().public_bytes_raw())


def test_the_encoding_is_frozen():
    """Another version must read what this one signed: Ed25519 is deterministic, so the bytes are a vector."""
    sealed = parse(seal(SAID, KEY))
    assert sealed.payload_digest == "9356d14bee3d82339cc6e9bbeced0ecf7f5a7b492b926830d1f1c12f61a9a201"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "not a signed statement"),
        (b"[]", "not a signed statement"),
        (b"{}", "not a signed statement"),
        (seal(SAID, KEY) + b" ", "canonical form"),
        (b" " + seal(SAID, KEY), "canonical form"),
        (seal(SAID, KEY)[:-1], "not a signed statement"),
        (changed(seq=-1), "seq is not a count"),
        (changed(seq=True), "seq is not a count"),
        (changed(silo=7), "wrong type"),
        (changed(silo="platform"), "another signer"),
        (changed(extra=1), "canonical form"),
        (changed(body=[]), "wrong type"),
        (b"x" * (MAX_ENVELOPE_BYTES + 1), "at most 65535 bytes"),
        (canonical({**json.loads(seal(SAID, KEY)), "more": 1}), "other fields"),
        (b"[" * 60_000, "not a signed statement"),
    ],
)
def test_anything_else_is_refused(bad, why):
    with pytest.raises(EnvelopeError, match=why):
        parse(bad)


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_random_bytes_are_refused_and_nothing_else_happens(raw):
    with pytest.raises(EnvelopeError):
        parse(raw)


def test_every_flipped_bit_is_noticed():
    good = seal(SAID, KEY)
    for at in range(len(good)):
        for bit in range(8):
            raw = bytearray(good)
            raw[at] ^= 1 << bit
            with pytest.raises(EnvelopeError):
                parse(bytes(raw)).verify(KEY.public_key().public_bytes_raw())


def test_a_statement_that_does_not_fit_is_not_signed():
    with pytest.raises(EnvelopeError, match="the limit is 65535"):
        seal(Statement("proposed", "j", "d", "lender", 0, "", "t", {"x": "y" * 60_000}), KEY)
