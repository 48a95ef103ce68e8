"""Consents: what a participant signs before a job, and how the others check all of them before anything runs.

A consent binds one silo's identity key to the digest of the spec, the digest of the disclosure, its data set, and the
certificate of the links it will run over.  Keys are checked against this silo's own pins, never against the roster
alone: whoever runs the coordinator cannot put a key of its own between two silos.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509

from coordinator.envelope import EnvelopeError, Sealed, Statement, fingerprint, parse
from coordinator.statements import Consented
from silos.approvers import Subject, check_approvals
from silos.errors import ConsentError
from silos.spec import Spec
from silos.times import from_text
from silos.validation import validate


@dataclass(frozen=True)
class Consent:
    """One participant's verified consent."""

    silo: str
    body: Consented
    certificate_der: bytes
    identity: str

    @property
    def link(self) -> str:
        """Hex SHA-256 of the link certificate, as 'started' statements name it."""
        return hashlib.sha256(self.certificate_der).hexdigest()


@dataclass(frozen=True)
class Expected:
    """What every consent to a job must say.  pins: the identity fingerprint of each participant, ours included."""

    spec: Spec
    spec_digest: str
    disclosure_digest: str
    pins: Mapping[str, str]


def check_key(silo: str, key: bytes, pins: Mapping[str, str]) -> None:
    """Raises: ConsentError unless the key is the one pinned for the silo."""
    if silo not in pins:
        raise ConsentError(f"no fingerprint is pinned for {silo}", silo)
    if fingerprint(key) != pins[silo]:
        raise ConsentError(f"the key presented for {silo} is not the one pinned in the policy", silo)


def own_chain(silo: str, entries: Sequence[bytes], key: bytes) -> list[Sealed]:
    """The statements of one silo about the job, checked: its signature, no gap, no reordering.

    entries: envelopes in log order, as the coordinator shows them.
    Raises: ConsentError.
    """
    chain: list[Sealed] = []
    for raw in entries:
        try:
            sealed = parse(raw)
            if sealed.statement.silo != silo:
                continue
            sealed.verify(key)
        except EnvelopeError as exc:
            raise ConsentError(str(exc), silo) from exc
        prev = chain[-1].payload_digest if chain else ""
        if (sealed.statement.seq, sealed.statement.prev) != (len(chain), prev):
            raise ConsentError(f"the statements of {silo} about this job are not complete or not in order", silo)
        chain.append(sealed)
    return chain


def statements(silo: str, expected: Expected, entries: Sequence[bytes], keys: Mapping[str, bytes]) -> list[Statement]:
    """What a silo has said about the job, checked: by the key that we pinned, complete up to the last of it, of this spec.

    Raises: ConsentError.
    """
    if silo not in keys:
        raise ConsentError(f"{silo} is not enrolled", silo)
    check_key(silo, keys[silo], expected.pins)
    said = [sealed.statement for sealed in own_chain(silo, entries, keys[silo])]
    if any((one.job, one.spec_digest) != (expected.spec.job, expected.spec_digest) for one in said):
        raise ConsentError(f"{silo} has made these statements about another job or spec", silo)
    return said


def verify_consents(
    expected: Expected, entries: Sequence[bytes], keys: Mapping[str, bytes], now: dt.datetime
) -> dict[str, Consent]:
    """Check the consent of every participant of a job.

    entries: the job's envelopes in log order.  keys: raw identity keys as the roster has them; each must match its pin.
    Raises: ConsentError naming the silo: a key that is not pinned, a missing or repeated consent, another spec or
    disclosure than ours, an expired one, a link certificate that is not one or is used twice.
    """
    consents: dict[str, Consent] = {}
    for silo in expected.spec.participants:
        if silo not in keys:
            raise ConsentError(f"{silo} is not enrolled", silo)
        check_key(silo, keys[silo], expected.pins)
        said = [s for s in own_chain(silo, entries, keys[silo]) if s.statement.event == "consented"]
        if len(said) != 1:
            raise ConsentError(f"{silo} has consented {len(said)} times, expected once", silo)
        consents[silo] = _read(expected, said[0], now)
    certificates: dict[str, str] = {}
    for silo, consent in consents.items():
        other = certificates.setdefault(consent.link, silo)
        if other != silo:
            raise ConsentError(f"{silo} presents the link certificate of {other}", silo)
    return consents


def _read(expected: Expected, sealed: Sealed, now: dt.datetime) -> Consent:
    statement, silo = sealed.statement, sealed.statement.silo
    if (statement.job, statement.spec_digest) != (expected.spec.job, expected.spec_digest):
        raise ConsentError(f"{silo} consented to another spec: the spec changed after consent", silo)
    try:
        body = validate(Consented, statement.body, f"the consent of {silo}", ConsentError)
    except ConsentError as exc:
        raise ConsentError(str(exc), silo) from exc
    if body.disclosure_digest != expected.disclosure_digest:
        raise ConsentError(f"{silo} consented to another disclosure than this one", silo)
    check_approvals(body.approvals, Subject(statement.job, statement.spec_digest, body.disclosure_digest, silo))
    if bool(body.dataset_commitment) != (expected.spec.party(silo) is not None):
        raise ConsentError(f"the consent of {silo} does not fit its role: owners commit to data, dealers do not", silo)
    if from_text(body.valid_until) <= now:
        raise ConsentError(f"the consent of {silo} expired at {body.valid_until}", silo)
    try:
        der = base64.b64decode(body.link_certificate, validate=True)
        x509.load_der_x509_certificate(der)
    except (ValueError, binascii.Error, x509.InvalidVersion) as exc:
        raise ConsentError(f"the link certificate of {silo} is not a certificate", silo) from exc
    return Consent(silo, body, der, expected.pins[silo])


def session_id(spec_digest: str, consents: Mapping[str, Consent]) -> str:
    """The session of a run, hex: 16 bytes bound to the spec and to the links of exactly these consents."""
    links = "".join(sorted(consent.link for consent in consents.values()))
    return hashlib.sha256(b"accord-session" + spec_digest.encode() + links.encode()).hexdigest()[:32]
