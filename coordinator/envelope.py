"""Signed statements: what every log entry is made of.

An entry is a DSSE envelope whose payload is an in-toto Statement v1 in RFC 8785 canonical JSON, signed with the Ed25519
identity key of the silo it speaks for.  The envelope's bytes, exactly as received, are the leaf of the log.

Source: DSSE protocol v1.0.2; in-toto Attestation Framework v1 (Statement); RFC 8785; RFC 8032.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_PREFIX = "https://accord.dev/audit/v1/"
MAX_ENVELOPE_BYTES = 65_535  # a C2SP tile stores an entry's length in 16 bits


class EnvelopeError(ValueError):
    """The bytes are not an envelope we accept; the message says why."""


def canonical(value: Any) -> bytes:
    """RFC 8785 canonical JSON."""
    return rfc8785.dumps(value)


def digest(value: Any) -> str:
    """Lower-case hex SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def fingerprint(public_key: bytes) -> str:
    """What people compare: SHA-256 of the raw 32-byte identity key, hex."""
    return hashlib.sha256(public_key).hexdigest()


@dataclass(frozen=True)
class Statement:
    """One thing one silo says about one job.

    event: name of the life-cycle step.  job: job id, or "" for statements about the silo itself (enrolment).
    spec_digest: hex SHA-256 of the job's canonical spec ("" for enrolment).  seq, prev: position in the silo's own chain
    for this job, and the hex SHA-256 of its previous payload in it ("" for the first), so nobody can drop or reorder
    what a silo said.  time: UTC, RFC 3339, seconds.  body: the event's own content.
    """

    event: str
    job: str
    spec_digest: str
    silo: str
    seq: int
    prev: str
    time: str
    body: dict[str, Any]

    def payload(self) -> bytes:
        """Canonical bytes of the in-toto statement."""
        return canonical(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": f"job:{self.job}", "digest": {"sha256": self.spec_digest}}],
                "predicateType": PREDICATE_PREFIX + self.event,
                "predicate": {
                    "body": self.body,
                    "prev": self.prev,
                    "seq": self.seq,
                    "silo": self.silo,
                    "time": self.time,
                },
            }
        )


def _pae(payload: bytes) -> bytes:
    """DSSE pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def seal(statement: Statement, key: Ed25519PrivateKey) -> bytes:
    """Sign a statement; returns the envelope's bytes.

    Raises: EnvelopeError if the envelope would be larger than an entry may be.
    """
    payload = statement.payload()
    envelope = canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": statement.silo, "sig": base64.b64encode(key.sign(_pae(payload))).decode()},
            ],
        }
    )
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise EnvelopeError(
            f"the '{statement.event}' entry would have {len(envelope)} bytes, the limit is {MAX_ENVELOPE_BYTES}"
        )
    return envelope


@dataclass(frozen=True)
class Sealed:
    """A parsed envelope whose signature has not been checked yet."""

    statement: Statement
    payload: bytes
    signature: bytes

    @property
    def payload_digest(self) -> str:
        """What the silo's next statement names as `prev`."""
        return hashlib.sha256(self.payload).hexdigest()

    def verify(self, public_key: bytes) -> None:
        """Raises: EnvelopeError if the signature is not the key's."""
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.signature, _pae(self.payload))
        except (InvalidSignature, ValueError) as exc:
            raise EnvelopeError(
                f"the signature on '{self.statement.event}' is not that of {self.statement.silo}"
            ) from exc


def _from_base64(text: str) -> bytes:
    """Decode, but only the one text that encoding gives: Python's decoder ignores what the last character has to spare.

    Raises: EnvelopeError, ValueError.
    """
    value = base64.b64decode(text, validate=True)
    if base64.b64encode(value).decode() != text:
        raise EnvelopeError("base64 is not in canonical form")
    return value


def parse(envelope: bytes) -> Sealed:
    """Parse an envelope strictly: one signature, canonical payload, nothing extra.

    Raises: EnvelopeError.
    """
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise EnvelopeError(f"an entry has at most {MAX_ENVELOPE_BYTES} bytes, got {len(envelope)}")
    try:
        outer = json.loads(envelope)
        (signature,) = outer["signatures"]
        if outer.keys() != {"payload", "payloadType", "signatures"} or signature.keys() != {"keyid", "sig"}:
            raise EnvelopeError("the envelope has other fields than payload, payloadType and one signature")
        if canonical(outer) != envelope:
            raise EnvelopeError("the envelope is not in canonical form")
        payload = _from_base64(outer["payload"])
        sig = _from_base64(signature["sig"])
        inner = json.loads(payload)
        predicate = inner["predicate"]
        (subject,) = inner["subject"]
        name, kind = subject["name"], inner["predicateType"]
        if not name.startswith("job:") or not kind.startswith(PREDICATE_PREFIX):
            raise EnvelopeError("not an accord statement")
        statement = Statement(
            event=kind.removeprefix(PREDICATE_PREFIX),
            job=name.removeprefix("job:"),
            spec_digest=subject["digest"]["sha256"],
            silo=predicate["silo"],
            seq=predicate["seq"],
            prev=predicate["prev"],
            time=predicate["time"],
            body=predicate["body"],
        )
        text = (statement.event, statement.job, statement.spec_digest, statement.silo, statement.prev, statement.time)
        if not all(isinstance(v, str) for v in text) or not isinstance(statement.body, dict):
            raise EnvelopeError("a field of the statement has the wrong type")
        if type(statement.seq) is not int or statement.seq < 0:
            raise EnvelopeError("seq is not a count")
        if signature["keyid"] != statement.silo or outer["payloadType"] != PAYLOAD_TYPE:
            raise EnvelopeError("the envelope names another signer or type than its payload")
        if statement.payload() != payload:
            raise EnvelopeError("the payload is not in canonical form")
    except EnvelopeError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as exc:
        raise EnvelopeError(f"not a signed statement ({type(exc).__name__})") from exc
    return Sealed(statement, payload, sig)
