"""Consents: whatever a coordinator or a partner changes, the check names the silo and what is wrong."""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.envelope import Statement, digest, parse
from silos.consent import Expected, session_id, verify_consents
from silos.disclosure import disclosure
from silos.errors import ConsentError
from silos.identity import Identity
from silos.link_tls import make_link_credentials
from silos.spec import Spec, spec_digest
from silos.times import to_text
from tests.coordinator.world import RECORD
from tests.silos.world import JOB, NOW, make_spec, registry

LATER = NOW + dt.timedelta(hours=1)
CERTIFICATES = {
    name: base64.b64encode(make_link_credentials(name, JOB, LATER, NOW).certificate_der).decode()
    for name in ("lender", "platform", "dealer")
}


@dataclass
class Case:
    """A job that all have consented to; tests change one thing."""

    spec: Spec = field(default_factory=make_spec)
    identities: dict[str, Identity] = field(
        default_factory=lambda: {n: Identity(Ed25519PrivateKey.generate()) for n in CERTIFICATES}
    )
    entries: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        shown = disclosure(self.spec, registry)
        self.say("lender", "proposed", {"spec": self.spec.document()})
        self.say("lender", "disclosed", {"disclosure": shown})
        for name in CERTIFICATES:
            self.say(name, "consented", self.body(name))

    def body(self, name: str, **changes: Any) -> dict[str, Any]:
        return {
            "disclosure_digest": digest(disclosure(self.spec, registry)),
            "dataset_commitment": "" if name == "dealer" else "c" * 64,
            "link_certificate": CERTIFICATES[name],
            "endpoint": "",
            "link_token": "d" * 32,
            "valid_until": to_text(LATER),
            "head": {"size": 1, "root": "e" * 64},
            "rule": "" if name == "dealer" else "credit-model",
            "policy_digest": "a" * 64,
            "approvals": [],
            "record": None if name == "dealer" else dict(RECORD),
            "budget": [],
            **changes,
        }

    def say(self, silo: str, event: str, body: dict[str, Any], **changes: Any) -> None:
        before = [s for s in map(parse, self.entries) if s.statement.silo == silo]
        prev = before[-1].payload_digest if before else ""
        said = Statement(event, JOB, spec_digest(self.spec), silo, len(before), prev, to_text(NOW), body)
        self.entries.append(self.identities[silo].seal(replace(said, **changes)))

    def replace_consent(self, silo: str, changes: dict[str, Any] | None = None, **statement: Any) -> None:
        kept = self.entries
        self.entries = [e for e in kept if (parse(e).statement.silo, parse(e).statement.event) != (silo, "consented")]
        self.say(silo, "consented", self.body(silo, **(changes or {})), **statement)

    def verify(self, now: dt.datetime = NOW, pins: dict[str, str] | None = None) -> Any:
        known = {n: i.fingerprint for n, i in self.identities.items()}
        expected = Expected(
            self.spec, spec_digest(self.spec), digest(disclosure(self.spec, registry)), known if pins is None else pins
        )
        return verify_consents(expected, self.entries, {n: i.public for n, i in self.identities.items()}, now)


def refused(case: Case, sentence: str, silo: str = "platform", **options: Any) -> None:
    with pytest.raises(ConsentError) as caught:
        case.verify(**options)
    assert str(caught.value) == sentence
    assert caught.value.silo == silo


def test_all_consents_together_give_the_links_and_one_session() -> None:
    case = Case()
    consents = case.verify()
    assert {n: base64.b64encode(c.certificate_der).decode() for n, c in consents.items()} == CERTIFICATES
    assert {n: c.identity for n, c in consents.items()} == {n: i.fingerprint for n, i in case.identities.items()}
    session = session_id(spec_digest(case.spec), consents)
    assert len(session) == 32
    assert session == session_id(spec_digest(case.spec), dict(reversed(consents.items())))
    assert session != session_id("0" * 64, consents)


def test_a_key_that_is_not_pinned_is_refused_even_if_its_signature_is_good() -> None:
    case = Case()
    pins = {n: i.fingerprint for n, i in case.identities.items()}
    refused(
        case, "the key presented for platform is not the one pinned in the policy", pins={**pins, "platform": "0" * 64}
    )
    del pins["dealer"]
    refused(case, "no fingerprint is pinned for dealer", "dealer", pins=pins)


def test_a_signature_of_another_key_is_refused() -> None:
    case = Case()
    real = case.identities["platform"]
    case.identities["platform"] = Identity(Ed25519PrivateKey.generate())
    case.replace_consent("platform")
    case.identities["platform"] = real
    refused(case, "the signature on 'consented' is not that of platform")


def test_a_spec_that_changed_after_consent_is_noticed() -> None:
    case = Case()
    case.replace_consent("platform", spec_digest=spec_digest(make_spec(purpose="something else")))
    refused(case, "platform consented to another spec: the spec changed after consent")


def test_consent_to_another_job_is_noticed() -> None:
    case = Case()
    case.replace_consent("platform", job="f" * 32)
    refused(case, "platform consented to another spec: the spec changed after consent")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"disclosure_digest": "0" * 64}, "platform consented to another disclosure than this one"),
        (
            {"dataset_commitment": ""},
            "the consent of platform does not fit its role: owners commit to data, dealers do not",
        ),
        ({"valid_until": to_text(NOW)}, "the consent of platform expired at 2026-03-01T12:00:00Z"),
        ({"link_certificate": "AAAA"}, "the link certificate of platform is not a certificate"),
        ({"link_certificate": CERTIFICATES["lender"]}, "platform presents the link certificate of lender"),
        ({"extra": 1}, "the consent of platform: 'extra' is not a known setting"),
    ],
)
def test_each_part_of_the_body_is_checked(changes: dict[str, Any], sentence: str) -> None:
    case = Case()
    case.replace_consent("platform", changes)
    refused(case, sentence)


def test_a_consent_ends() -> None:
    Case().verify(now=LATER - dt.timedelta(seconds=1))
    refused(Case(), "the consent of lender expired at 2026-03-01T13:00:00Z", "lender", now=LATER)


def test_a_missing_or_repeated_consent_is_noticed() -> None:
    case = Case()
    case.entries = [e for e in case.entries if parse(e).statement.silo != "dealer"]
    refused(case, "dealer has consented 0 times, expected once", "dealer")
    case = Case()
    case.say("platform", "consented", case.body("platform"))
    refused(case, "platform has consented 2 times, expected once")


def test_a_gap_or_another_order_in_what_a_silo_said_is_noticed() -> None:
    case = Case()
    del case.entries[1]
    refused(case, "the statements of lender about this job are not complete or not in order", "lender")
    case = Case()
    case.entries[0], case.entries[1] = case.entries[1], case.entries[0]
    refused(case, "the statements of lender about this job are not complete or not in order", "lender")


def test_garbage_between_the_entries_is_refused() -> None:
    case = Case()
    case.entries.insert(0, b"{}")
    with pytest.raises(ConsentError, match="not a signed statement"):
        case.verify()
