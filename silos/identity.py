"""A silo's identity: the Ed25519 key that signs everything it says, and whose fingerprint partners pin."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from coordinator.cosign import cosign
from coordinator.envelope import Statement, fingerprint, seal
from silos.errors import ConfigError
from silos.validation import write_private


@dataclass(frozen=True)
class Identity:
    """The key pair of one silo; the private part never appears in a representation."""

    _key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> bytes:
        """The raw 32-byte public key."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def public_b64(self) -> str:
        """The public key as it travels."""
        return base64.b64encode(self.public).decode()

    @property
    def fingerprint(self) -> str:
        """What partners compare by telephone and pin in their policy."""
        return fingerprint(self.public)

    def sign(self, message: bytes) -> bytes:
        """A bare signature; statements go through `seal`."""
        return self._key.sign(message)

    def seal(self, statement: Statement) -> bytes:
        """A signed log entry.  Raises: EnvelopeError if it would be too large."""
        return seal(statement, self._key)

    def cosign(self, note: str, silo: str, time: int) -> str:
        """The line by which the silo, as a witness, cosigns a signed checkpoint.  time: seconds since 1970."""
        return cosign(note, silo, self._key, time)

    def __repr__(self) -> str:
        return f"Identity({self.fingerprint})"


def create_identity(path: Path) -> Identity:
    """Make a new key and store it for its owner's eyes only.

    Raises: ConfigError if a key is already there: an identity is never overwritten.
    """
    key = Ed25519PrivateKey.generate()
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as exc:
        raise ConfigError(f"{path} already holds an identity key") from exc
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc
    with os.fdopen(fd, "wb") as file:
        file.write(_pem(key))
        file.flush()
        os.fsync(file.fileno())
    return Identity(key)


def draft_identity(path: Path) -> Identity:
    """The key that is kept at `path`, or a new one, which is there for good before this returns.

    Raises: ConfigError if what is there is no key.
    """
    if not path.exists():
        write_private(path, _pem(Ed25519PrivateKey.generate()))
        sync_directory(path.parent)
    return load_identity(path)


def sync_directory(path: Path) -> None:
    """Force what was made or renamed in a directory to disk.  Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_identity(path: Path) -> Identity:
    """Read the key.

    Raises: ConfigError if it is missing, of another type, or readable by other users of the machine.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by other users; run 'chmod 600 {path}'")
        pem = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"the identity key {path} cannot be read: {exc.strerror}") from exc
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"{path} is not a private key in PEM form") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 key")
    return Identity(key)
