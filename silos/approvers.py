"""Persons who say yes to a job: their keys, what an approval signs, and how anybody checks one.

An approver is a name and an Ed25519 key in the policy of the silo that the person works for.  The private key is a file that
only its passphrase opens.  An approval is of one job with one spec and one disclosure, so it is worth nothing elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from coordinator.envelope import canonical
from coordinator.statements import Approval
from silos.errors import ConfigError, ConsentError

APPROVAL_DOMAIN = b"accord-approval-v1\n"
LEAST_PASSPHRASE = 10
_NAME = re.compile(r"\S(.{0,126}\S)?")
_SCRYPT_COST = 2**16  # 64 MiB and about 0.2 s for every guess of a passphrase
_SALT = re.compile(rb"^accord-approver-salt: ([0-9a-f]{32})$", re.MULTILINE)
_MAX_KEY_FILE_BYTES = 4096


@dataclass(frozen=True)
class Subject:
    """What a person says yes to.  silo: the data owner or helper that the person speaks for."""

    job: str
    spec_digest: str
    disclosure_digest: str
    silo: str

    def message(self, name: str, time: str) -> bytes:
        """The bytes that an approval signs."""
        document = {
            "job": self.job,
            "spec_digest": self.spec_digest,
            "disclosure_digest": self.disclosure_digest,
            "silo": self.silo,
            "name": name,
            "time": time,
        }
        return APPROVAL_DOMAIN + canonical(document)


def key_file(folder: Path, name: str) -> Path:
    """Where a silo's home keeps the key of a person; other names have other files, however they are written."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:64]
    return folder / f"{readable or 'approver'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.key"


def public_text(key: Ed25519PrivateKey) -> str:
    """The public key as a policy and an approval name it: base64 of its 32 bytes."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def policy_lines(name: str, key: str) -> str:
    """What makes this person an approver, in the silo's policy."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'[approvers."{quoted}"]\nkey = "{key}"'


def create_key(path: Path, name: str, passphrase: str) -> str:
    """Make a person's key and store it encrypted; returns the public key as text.

    Raises: ConfigError: not a name, a short passphrase, or a file that is there already.
    """
    if _NAME.fullmatch(name) is None or not name.isprintable():
        raise ConfigError("an approver's name has 1 to 128 printable characters and no space at its ends")
    if len(passphrase) < LEAST_PASSPHRASE:
        raise ConfigError(f"a passphrase has at least {LEAST_PASSPHRASE} characters")
    key, salt = Ed25519PrivateKey.generate(), secrets.token_bytes(16)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(_stretched(passphrase, salt)))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise ConfigError(f"{path} holds a key already") from exc
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc
    with os.fdopen(fd, "wb") as file:
        file.write(b"accord-approver-salt: " + salt.hex().encode() + b"\n" + pem)
        file.flush()
        os.fsync(file.fileno())
    return public_text(key)


def load_key(path: Path, passphrase: str) -> Ed25519PrivateKey:
    """Open a person's key.

    Raises: ConfigError: no such file, readable by others, not such a key, or another passphrase.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by other users; run 'chmod 600 {path}'")
        with path.open("rb") as file:
            raw = file.read(_MAX_KEY_FILE_BYTES)
    except OSError as exc:
        raise ConfigError(f"the approver's key {path} cannot be read: {exc.strerror}") from exc
    salt = _SALT.search(raw)
    if salt is None:
        raise ConfigError(f"{path} is not the key of an approver")
    try:
        key = load_pem_private_key(raw[salt.end() + 1 :], _stretched(passphrase, bytes.fromhex(salt[1].decode())))
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"the passphrase does not open {path}") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 key")
    return key


def _stretched(passphrase: str, salt: bytes) -> bytes:
    """What the file is encrypted with: PKCS#8 by itself stretches a passphrase too little."""
    raw = unicodedata.normalize("NFC", passphrase).encode()
    return Scrypt(salt=salt, length=32, n=_SCRYPT_COST, r=8, p=1).derive(raw).hex().encode()


def sign(key: Ed25519PrivateKey, subject: Subject, name: str, time: str) -> Approval:
    """A person's yes.  time: RFC 3339, of the moment of signing."""
    signature = base64.b64encode(key.sign(subject.message(name, time))).decode()
    return Approval(name=name, key=public_text(key), time=time, signature=signature)


def holds(approval: Approval, subject: Subject) -> bool:
    """Whether the signature of an approval is its key's over this subject; whose key it is, this does not say."""
    key, signature = _decoded(approval.key, 32), _decoded(approval.signature, 64)
    if key is None or signature is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, subject.message(approval.name, approval.time))
    except (InvalidSignature, ValueError):
        return False
    return True


def same_key(one: str, other: str) -> bool:
    """Whether two public keys in text are one, in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def check_approvals(approvals: Sequence[Approval], subject: Subject) -> None:
    """Check what a silo's consent says of the persons who approved it.

    That these persons are approvers there, only that silo's policy says; its consent signs that they are.
    Raises: ConsentError, naming the silo: a signature that does not hold, or one person or key twice.
    """
    silo = subject.silo
    for approval in approvals:
        if not holds(approval, subject):
            raise ConsentError(
                f"the approval of {silo} by {approval.name} is not signed by the key that it names", silo
            )
    for what, values in (("person", [a.name for a in approvals]), ("key", [a.key for a in approvals])):
        if len(set(values)) != len(values):
            raise ConsentError(f"the consent of {silo} counts one {what} twice among its approvals", silo)


def _decoded(text: str, size: int) -> bytes | None:
    """Canonical base64 of so many bytes, None if it is not."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == size and base64.b64encode(raw).decode() == text else None
