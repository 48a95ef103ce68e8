"""Joining: one-time tokens that pin the CA, and the checks on an enrolment request; changing and revoking keys.

Pure but for drawing tokens.

The operator hands a token to a silo's administrator by any confidential way.  It names the CA by the hash of its key, so
the silo knows the true coordinator before it sends the secret; the coordinator keeps only the secret's hash.  The silo's
name belongs to the token: nothing in the request can choose it.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coordinator import ca
from coordinator.envelope import EnvelopeError, Sealed, Statement, fingerprint, parse
from coordinator.errors import Conflict, Malformed, NotAuthenticated
from coordinator.statements import COORDINATOR, Enrolled, Revoked, Rotated, format_time, parse_time, read

PROOF_CONTEXT = b"accord-enrol-v1"
ROTATE_CONTEXT = b"accord-rotate-v1\n"
_TOKEN = re.compile(r"SJ1\.(?P<pin>[0-9a-f]{64})\.(?P<id>[0-9a-f]{16})\.(?P<secret>[A-Za-z0-9_-]{43})")
_CREDENTIAL = re.compile(r"(?P<id>[0-9a-f]{16})\.(?P<secret>[A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class JoinToken:
    """What an operator gives to a silo.  pin: hex SHA-256 of the CA's SPKI.  secret: 256 random bits, base64url."""

    pin: str
    id: str
    secret: str

    def text(self) -> str:
        """The token as people copy it."""
        return f"SJ1.{self.pin}.{self.id}.{self.secret}"

    def credential(self) -> str:
        """The part that is sent, and only after the CA has been checked against the pin."""
        return f"{self.id}.{self.secret}"

    def secret_hash(self) -> bytes:
        """What the coordinator stores."""
        return _hash(self.secret)

    @classmethod
    def draw(cls, pin: str) -> JoinToken:
        """A fresh token."""
        return cls(pin, secrets.token_hex(8), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises: Malformed."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise Malformed("a join token is 'SJ1.<CA hash>.<id>.<secret>'")
        return cls(match["pin"], match["id"], match["secret"])


@dataclass(frozen=True)
class TokenRecord:
    """What the coordinator knows of a token."""

    id: str
    silo: str
    secret_hash: bytes
    expires: dt.datetime
    allow_replace: bool
    used: bool


def split_credential(text: str) -> tuple[str, str]:
    """The id and the secret of a sent token.

    Raises: Malformed.
    """
    match = _CREDENTIAL.fullmatch(text)
    if match is None:
        raise Malformed("the token is '<id>.<secret>'")
    return match["id"], match["secret"]


def check_token(record: TokenRecord | None, secret: str, now: dt.datetime) -> TokenRecord:
    """The record, if its secret is the given one and it can still be used.

    The secret comes first: whoever does not know it learns nothing about the token's age or use.
    Raises: NotAuthenticated, saying whether the token is wrong, used or expired.
    """
    known = record.secret_hash if record else bytes(32)
    if not hmac.compare_digest(known, _hash(secret)) or record is None:
        raise NotAuthenticated("the join token is wrong")
    if record.used:
        raise NotAuthenticated("the join token has been used already")
    if now >= record.expires:
        raise NotAuthenticated("the join token has expired")
    return record


@dataclass(frozen=True)
class Enrolment:
    """A request whose signatures hold; `silo` is what it claims to be, the token decides."""

    silo: str
    identity_key: bytes
    csr: x509.CertificateSigningRequest
    envelope: bytes
    sealed: Sealed

    @property
    def spki(self) -> str:
        """Hash of the TLS key it asks a certificate for."""
        return ca.spki_hash(self.csr.public_key())


def read_enrolment(csr_pem: str, identity_key: str, proof: str, entry: str) -> Enrolment:
    """Check everything about a request that needs no state.

    The proof ties the identity key to this TLS key, so nobody can enrol a key it does not hold.
    Raises: Malformed.
    """
    csr = ca.parse_request(csr_pem.encode())
    key = unbase64(identity_key, "identity_key", 32)
    try:
        public = Ed25519PublicKey.from_public_bytes(key)
        public.verify(unbase64(proof, "proof", 64), PROOF_CONTEXT + csr.public_bytes(serialization.Encoding.DER))
    except (InvalidSignature, ValueError) as exc:
        raise Malformed("the proof is not the identity key's signature over this certificate request") from exc
    envelope = unbase64(entry, "entry")
    try:
        sealed = parse(envelope)
        sealed.verify(key)
    except EnvelopeError as exc:
        raise Malformed(str(exc)) from exc
    said = sealed.statement
    if (said.event, said.job, said.spec_digest, said.seq, said.prev) != ("enrolled", "", "", 0, ""):
        raise Malformed("the entry of an enrolment is a first 'enrolled' statement about no job")
    if read(Enrolled, said.body, "the body of 'enrolled'").identity_key != identity_key:
        raise Malformed("the entry names another identity key than the request")
    check_time(said.time)
    return Enrolment(said.silo, key, csr, envelope, sealed)


def check_name(enrolment: Enrolment, token: TokenRecord, taken: bool) -> None:
    """The name comes from the token, and an existing name only changes hands if the operator said so.

    Raises: Malformed, Conflict.
    """
    if enrolment.silo != token.silo:
        raise Malformed(f"the token is for '{token.silo}', the entry speaks for '{enrolment.silo}'")
    if taken and not token.allow_replace:
        raise Conflict(f"'{token.silo}' is enrolled already and the token does not allow to replace it")


def rotation_message(silo: str, old_key: bytes) -> bytes:
    """What a new identity key signs to take over from `old_key`: nobody can rotate to a key that it does not hold."""
    return ROTATE_CONTEXT + silo.encode() + b"\n" + fingerprint(old_key).encode()


def read_rotation(sealed: Sealed, present: bytes) -> bytes:
    """The new identity key of a 'rotated' statement, with its proof checked; who signed the statement is checked elsewhere.

    present: the silo's key on the roster.  If that is the new one already, the statement may be a repeated one, whose proof
    names a key that is gone.
    Raises: Malformed.
    """
    said = sealed.statement
    if (said.event, said.job, said.spec_digest) != ("rotated", "", ""):
        raise Malformed("the entry of a rotation is a 'rotated' statement about no job")
    check_time(said.time)
    body = read(Rotated, said.body, "the body of 'rotated'")
    key, proof = unbase64(body.identity_key, "identity_key", 32), unbase64(body.proof, "proof", 64)
    if key == present:
        return key
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(proof, rotation_message(said.silo, present))
    except (InvalidSignature, ValueError) as exc:
        raise Malformed("the proof is not the new key's signature over the silo's name and its present key") from exc
    return key


def revocation(silo: str, identity_key: bytes, reason: str, place: tuple[int, str], now: dt.datetime) -> Statement:
    """The coordinator's statement that a silo's key speaks no longer.  place: seq and prev of its next one about no job.

    Raises: Malformed if the reason is empty or too long.
    """
    body = {"silo": silo, "fingerprint": fingerprint(identity_key), "reason": reason}
    read(Revoked, body, "the body of 'revoked'")
    seq, prev = place
    return Statement("revoked", "", "", COORDINATOR, seq, prev, format_time(now), body)


def check_time(text: str) -> None:
    """Raises: Malformed unless `text` is a time as statements write it."""
    try:
        parse_time(text)
    except ValueError as exc:
        raise Malformed("a statement's time is written YYYY-MM-DDTHH:MM:SSZ") from exc


def unbase64(text: str, what: str, size: int | None = None) -> bytes:
    """Raises: Malformed unless `text` is the canonical base64 of `size` bytes (of any number if None)."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as exc:
        raise Malformed(f"{what} is not base64") from exc
    if base64.b64encode(raw).decode() != text:
        raise Malformed(f"{what} is not canonical base64")
    if size is not None and len(raw) != size:
        raise Malformed(f"{what} has {size} bytes, got {len(raw)}")
    return raw


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
