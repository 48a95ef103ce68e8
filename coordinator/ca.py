"""The coordinator's certificate authority: who may open a TLS connection, under which name.

P-256 throughout.  It vouches only for the hop to the coordinator: silos pin each other's identity keys themselves, so
whoever holds this CA's key can refuse service and impersonate a silo to the coordinator, but not one silo to another.
Pure but for key generation and serial numbers; the clock is passed in.

Source: RFC 5280 profile as OpenSSL's X509_STRICT checks it; SPIFFE X.509-SVID (URI name); RFC 7469 (SPKI hash).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coordinator.errors import Malformed

CA_LIFE = dt.timedelta(days=3650)
SERVER_LIFE = dt.timedelta(days=90)
SILO_LIFE = dt.timedelta(days=7)
BACKDATE = dt.timedelta(minutes=5)  # for clocks that run late
URI_PREFIX = "spiffe://accord/silo/"


@dataclass(frozen=True)
class Authority:
    """The CA's certificate and private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pin(self) -> str:
        """What join tokens carry: hex SHA-256 of the CA's SPKI."""
        return spki_hash(self.certificate.public_key())


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def spki_hash(key: CertificatePublicKeyTypes) -> str:
    """Hex SHA-256 of a public key's SubjectPublicKeyInfo."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def create_authority(origin: str, now: dt.datetime) -> Authority:
    """A self-signed CA that may sign leaves only (path length 0)."""
    key = new_key()
    name = _name(f"{origin} CA"[:64])
    certificate = (
        _builder(name, name, key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue_server(
    authority: Authority, key: ec.EllipticCurvePublicKey, hosts: Sequence[str], now: dt.datetime
) -> x509.Certificate:
    """A certificate for the coordinator itself, valid for these host names and IP addresses."""
    return _issue(
        authority,
        key,
        "coordinator",
        [_general_name(h) for h in hosts],
        (ExtendedKeyUsageOID.SERVER_AUTH, SERVER_LIFE),
        now,
    )


def issue_silo(
    authority: Authority, request: x509.CertificateSigningRequest, silo: str, now: dt.datetime
) -> x509.Certificate:
    """A client certificate for `silo`.  Only the key is taken from the request; the name never is."""
    return _issue(
        authority,
        _p256(request),
        silo,
        [x509.UniformResourceIdentifier(URI_PREFIX + silo)],
        (ExtendedKeyUsageOID.CLIENT_AUTH, SILO_LIFE),
        now,
    )


def parse_request(pem: bytes) -> x509.CertificateSigningRequest:
    """Raises: Malformed unless it is a CSR for a P-256 key, signed with that key."""
    try:
        request = x509.load_pem_x509_csr(pem)
        _p256(request)
        if not request.is_signature_valid:
            raise Malformed("the certificate request is not signed with its own key")
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion) as exc:
        raise Malformed("the certificate request is not a PEM PKCS #10 request") from exc
    return request


def silo_name(certificate: x509.Certificate) -> str | None:
    """The silo that a client certificate names, or None if it names none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or not uris[0].startswith(URI_PREFIX):
        return None
    return uris[0].removeprefix(URI_PREFIX)


def half_spent(certificate: x509.Certificate, now: dt.datetime) -> bool:
    """Whether less than half of a certificate's life is left."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < life / 2


def _issue(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    common_name: str,
    names: Sequence[x509.GeneralName],
    profile: tuple[x509.ObjectIdentifier, dt.timedelta],
    now: dt.datetime,
) -> x509.Certificate:
    purpose, life = profile
    return (
        _builder(_name(common_name), authority.certificate.subject, key, now, life)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime, life: dt.timedelta
) -> x509.CertificateBuilder:
    start = now - BACKDATE
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _p256(request: x509.CertificateSigningRequest) -> ec.EllipticCurvePublicKey:
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Malformed("the certificate request's key is not a P-256 key")
    return key
