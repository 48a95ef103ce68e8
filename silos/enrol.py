"""Joining a coordinator with a one-time token, and renewing the certificate it gave.

The token carries the hash of the coordinator's certificate authority key, so the first contact cannot be intercepted:
nothing secret is sent before the key has been compared.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from coordinator.envelope import Statement
from silos.client import CoordinatorClient
from silos.config import URL_PATTERN, Home
from silos.errors import ConfigError, EnrolError
from silos.identity import Identity
from silos.times import to_text, utcnow
from silos.tls import (
    Request,
    check_certificate,
    client_context,
    home_context,
    make_request,
    spki_sha256,
    store_renewal,
    unverified_context,
)
from silos.validation import write_private

PROOF_LABEL = b"accord-enrol-v1"
_TOKEN = re.compile(r"^SJ1\.([0-9a-f]{64})\.([A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{8,128})$")


@dataclass(frozen=True)
class JoinToken:
    """A parsed token: the pin of the authority's key, and what is sent to the coordinator."""

    ca_pin: str
    secret: str

    def __repr__(self) -> str:
        return f"JoinToken({self.ca_pin})"


def parse_token(text: str) -> JoinToken:
    """Raises: EnrolError; the sentence does not repeat the token."""
    match = _TOKEN.match(text.strip())
    if match is None:
        raise EnrolError("this is not a join token; it has the form SJ1.<pin>.<id>.<secret>")
    return JoinToken(match[1], match[2])


def _entry(identity: Identity, silo: str) -> bytes:
    """The silo's first log entry: this key speaks for this name."""
    return identity.seal(
        Statement(
            event="enrolled",
            job="",
            spec_digest="",
            silo=silo,
            seq=0,
            prev="",
            time=to_text(utcnow()),
            body={"identity_key": identity.public_b64},
        )
    )


def enrolment_request(token: JoinToken, identity: Identity, silo: str, request: Request) -> dict[str, str]:
    """What is posted: the one-time secret, the certificate request, and proof that the identity key is ours."""
    return {
        "token": token.secret,
        "csr": request.csr_pem,
        "identity_key": identity.public_b64,
        "proof": base64.b64encode(identity.sign(PROOF_LABEL + request.csr_der)).decode(),
        "entry": base64.b64encode(_entry(identity, silo)).decode(),
    }


async def fetch_ca(url: str, token: JoinToken, proxy: str | None = None) -> tuple[str, x509.Certificate]:
    """Fetch the authority over an unverified connection and accept it only if its key is the token's.

    Raises: EnrolError, CoordinatorUnreachable.
    """
    async with CoordinatorClient(url, unverified_context(), proxy) as client:
        pem = await client.ca()
    try:
        ca = x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, x509.InvalidVersion) as exc:
        raise EnrolError(f"{url} is not an accord coordinator: it sent no certificate") from exc
    if not hmac.compare_digest(spki_sha256(ca), token.ca_pin):
        raise EnrolError(f"{url} is not the coordinator that made this token: its authority has another key")
    return pem, ca


async def join(home: Home, url: str, token_text: str) -> dict[str, str]:
    """Enrol the silo of `home`; files are written only when everything fits.

    Raises: EnrolError, ConfigError, CoordinatorRefused with the coordinator's sentence, CoordinatorUnreachable.
    """
    config, identity, token = home.load_config(), home.load_identity(), parse_token(token_text)
    if not re.match(URL_PATTERN, url):
        raise EnrolError(f"'{url}' is not a coordinator's address; it has the form https://host:port")
    ca_pem, ca = await fetch_ca(url, token, config.proxy)
    request = make_request(config.name)
    async with CoordinatorClient(url, client_context(ca_pem), config.proxy) as client:
        reply = await client.enrol(enrolment_request(token, identity, config.name, request))
    _check_reply(reply, config.name)
    check_certificate(reply["certificate"], request, ca, config.name)
    write_private(home.ca, ca_pem)
    write_private(home.tls_key, request.key_pem)
    write_private(home.tls_certificate, reply["certificate"])
    enrolment = {"url": url, "log_key": reply["log_key"], "origin": reply["origin"], "silo": reply["silo"]}
    write_private(home.coordinator, json.dumps(enrolment, indent=1) + "\n")
    return enrolment


def _check_reply(reply: Any, silo: str) -> None:
    fields = ("certificate", "log_key", "origin", "silo")
    if not isinstance(reply, dict) or not all(isinstance(reply.get(f), str) for f in fields):
        raise EnrolError("the coordinator's answer to the enrolment is not complete")
    if reply["silo"] != silo:
        raise EnrolError(f"the token was made for {reply['silo']}, this silo is {silo}")


async def renew(home: Home) -> None:
    """Get a certificate for a fresh TLS key over the current one.

    Raises: ConfigError, EnrolError, CoordinatorRefused, CoordinatorUnreachable.
    """
    enrolment = home.load_enrolment()
    request = make_request(enrolment.silo)
    async with CoordinatorClient(enrolment.url, home_context(home), home.load_config().proxy) as client:
        certificate = await client.renew(request.csr_pem)
    try:
        ca = x509.load_pem_x509_certificate(home.ca.read_bytes())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{home.ca} cannot be used") from exc
    check_certificate(certificate, request, ca, enrolment.silo)
    store_renewal(home, request.key_pem, certificate)
