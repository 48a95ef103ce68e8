"""A silo's TLS towards its coordinator: key, certificate request, contexts, and a renewal that a crash cannot break."""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from silos.config import Home
from silos.errors import ConfigError, EnrolError
from silos.validation import write_private


@dataclass(frozen=True)
class Request:
    """A fresh P-256 key with its certificate request."""

    key_pem: bytes
    csr: x509.CertificateSigningRequest

    @property
    def csr_pem(self) -> str:
        return self.csr.public_bytes(Encoding.PEM).decode()

    @property
    def csr_der(self) -> bytes:
        return self.csr.public_bytes(Encoding.DER)

    def __repr__(self) -> str:
        return "Request(...)"


def make_request(silo: str) -> Request:
    """A new key; the coordinator takes the name from what it knows, not from here."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, silo)]))
        .sign(key, hashes.SHA256())
    )
    return Request(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), csr)


def spki_sha256(certificate: x509.Certificate) -> str:
    """Hex SHA-256 of a certificate's SubjectPublicKeyInfo, which a join token pins."""
    return hashlib.sha256(
        certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


X509_ERRORS = (x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
"""What a certificate can be beside unreadable."""


def check_certificate(pem: str, request: Request, ca: x509.Certificate, silo: str) -> None:
    """Is this the certificate we asked for: our key, our name, this authority?  Raises: EnrolError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        certificate.verify_directly_issued_by(ca)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, *X509_ERRORS) as exc:
        raise EnrolError("the coordinator sent a certificate that its own authority did not make") from exc
    if certificate.public_key() != request.csr.public_key() or uris != [f"spiffe://accord/silo/{silo}"]:
        raise EnrolError(f"the coordinator sent a certificate that is not for {silo} and its new key")


def client_context(ca_pem: str, key: Path | None = None, certificate: Path | None = None) -> ssl.SSLContext:
    """TLS 1.3 only, trusting only the coordinator's authority; with our certificate once we have one."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def unverified_context() -> ssl.SSLContext:
    """For fetching the authority's certificate only, whose key is then compared with the token's pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def home_context(home: Home) -> ssl.SSLContext:
    """The context of an enrolled silo.  Raises: ConfigError if a file is missing or they do not fit together."""
    finish_renewal(home)
    try:
        return client_context(home.ca.read_text(), home.tls_key, home.tls_certificate)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"the TLS key and certificates in {home.root} cannot be used; join again") from exc


def lifetime_left(certificate_pem: bytes, now: dt.datetime) -> float:
    """The part of a certificate's life that is still ahead, at most 1, below 0 when it is over."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    whole = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return (certificate.not_valid_after_utc - now) / whole


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def store_renewal(home: Home, key_pem: bytes, certificate_pem: str) -> None:
    """Replace key and certificate.

    The coordinator accepts only the new key from now on, so losing it would lock the silo out.  Both files are on
    disk under another name before either replaces the old one; `finish_renewal` completes from any point between.
    """
    write_private(_next(home.tls_key), key_pem)
    write_private(_next(home.tls_certificate), certificate_pem)
    finish_renewal(home)


def finish_renewal(home: Home) -> None:
    """Complete a renewal that was cut off; does nothing when there is none."""
    next_key, next_certificate = _next(home.tls_key), _next(home.tls_certificate)
    if next_certificate.exists():  # so the key is complete too: it was written first
        next_certificate.replace(home.tls_certificate)
    if not next_key.exists():
        return
    certificate = x509.load_pem_x509_certificate(home.tls_certificate.read_bytes())
    key = load_pem_private_key(next_key.read_bytes(), password=None)
    if key.public_key() == certificate.public_key():
        next_key.replace(home.tls_key)
    else:
        next_key.unlink()  # cut off before the certificate came; the old pair still fits
