"""A coordinator's directory: its keys, certificates, settings and database.

    coordinator.json  origin, host names and    log.key                   Ed25519, signs the log
                      address of the database   server.key, server.pem    what the server shows
    ca.key, ca.pem    the authority             coordinator.db            everything else, if it is SQLite
All but the certificates are readable by their owner only.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator import ca
from coordinator.database import Database
from coordinator.errors import Conflict, Unavailable
from coordinator.note import Checkpoint, sign_checkpoint, verifier_key
from coordinator.sqlite import SqliteDatabase
from coordinator.store import Store

DATABASE = "coordinator.db"
SETTINGS = "coordinator.json"
POSTGRES = "postgresql://"


class HomeError(Exception):
    """The directory is not usable as it is; the message says why."""


@dataclass(frozen=True)
class Home:
    """A loaded directory.  database: "" for the SQLite file in it, or the address of a PostgreSQL database."""

    path: Path
    origin: str
    hosts: tuple[str, ...]
    authority: ca.Authority
    log_key: Ed25519PrivateKey
    database: str = field(default="", repr=False)  # it may hold a password

    def sign_head(self, size: int, root: bytes) -> str:
        """A signed checkpoint of this coordinator's log."""
        return sign_checkpoint(Checkpoint(self.origin, size, root), self.log_key)

    def open_store(self, *, create: bool = False) -> Store:
        """Raises: Corrupt, Unavailable; Conflict if tables shall be made where there are some."""
        db = open_database(self.database) if self.database else SqliteDatabase(self.path / DATABASE)
        with ExitStack() as unless_opened:
            unless_opened.callback(db.close)
            store = Store(db, verifier_key(self.origin, self.log_key), self.sign_head, create=create)
            unless_opened.pop_all()
        return store

    def refresh_server_certificate(self, now: dt.datetime) -> bool:
        """Issue the server's certificate anew if less than half its life is left; True if it did.

        The key stays, so one file changes and a crash leaves a pair that fits.
        """
        current = x509.load_pem_x509_certificate((self.path / "server.pem").read_bytes())
        if not ca.half_spent(current, now):
            return False
        key = _load_p256(self.path / "server.key")
        renewed = ca.issue_server(self.authority, key.public_key(), self.hosts, now)
        _replace(self.path / "server.pem", renewed.public_bytes(serialization.Encoding.PEM), 0o644)
        return True


def open_database(url: str) -> Database:
    """Connect to a PostgreSQL database.  Raises: HomeError, Corrupt, Unavailable."""
    if not url.startswith(POSTGRES):
        raise HomeError("a coordinator's database is at an address that begins with postgresql://")
    try:
        from coordinator.postgres import PostgresDatabase
    except ImportError as exc:
        raise HomeError("a PostgreSQL database needs the extra accord[postgres]") from exc
    return PostgresDatabase(url)


def create(path: Path, hosts: Sequence[str], origin: str, now: dt.datetime, database: str = "") -> None:
    """Make a coordinator's directory: complete, or not at all.  database: as in Home.

    Tables in a PostgreSQL database are made last but one; if this dies before the directory has its name, they are left
    there, and a later attempt says so.
    Raises: HomeError if there is something already, or the origin or a host cannot be a name.
    """
    if not hosts:
        raise HomeError("a coordinator needs at least one host name or address")
    if path.exists() and any(path.iterdir()):
        raise HomeError(f"{path} is not empty")
    unusual = [host for host in hosts if not host.isascii() or not host or any(c.isspace() for c in host)]
    if unusual:
        raise HomeError(f"'{unusual[0]}' is not a host name or address; write international names in their xn-- form")
    log_key = Ed25519PrivateKey.generate()
    try:
        verifier_key(origin, log_key)
    except ValueError as exc:
        raise HomeError(f"'{origin}' cannot name a log: {exc}") from exc
    authority = ca.create_authority(origin, now)
    server_key = ca.new_key()
    server = ca.issue_server(authority, server_key.public_key(), hosts, now)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))  # mode 0700
    try:
        _write(draft / "ca.key", _pem(authority.key), 0o600)
        _write(draft / "ca.pem", authority.certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        _write(draft / "server.key", _pem(server_key), 0o600)
        _write(draft / "server.pem", server.public_bytes(serialization.Encoding.PEM), 0o644)
        _write(draft / "log.key", _pem(log_key), 0o600)
        if not database:
            _write(draft / DATABASE, b"", 0o600)
        settings = {"v": 1, "origin": origin, "hosts": list(hosts), "database": database}
        _write(draft / SETTINGS, json.dumps(settings).encode(), 0o600)
        try:
            load(draft).open_store(create=True).close()
        except (Conflict, Unavailable) as exc:
            raise HomeError(f"no log can be made there: {exc}") from exc
        _sync_directory(draft)
        draft.rename(path)  # replaces an empty directory, never a full one
        _sync_directory(path.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # there is none any more once it has its name


def load(path: Path) -> Home:
    """Raises: HomeError if the directory is not a coordinator's."""
    try:
        settings = json.loads((path / SETTINGS).read_text())
        certificate = x509.load_pem_x509_certificate((path / "ca.pem").read_bytes())
        authority = ca.Authority(certificate, _load_p256(path / "ca.key"))
        log_key = _load_ed25519(path / "log.key")
        return Home(path, settings["origin"], tuple(settings["hosts"]), authority, log_key, settings["database"])
    except FileNotFoundError as exc:
        raise HomeError(f"{path} is not a coordinator's directory: {Path(exc.filename).name} is missing") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise HomeError(f"{path} is not a coordinator's directory: {type(exc).__name__} while reading it") from exc


def _load_p256(path: Path) -> EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise HomeError(f"{path.name} does not hold a P-256 key")
    return key


def _load_ed25519(path: Path) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise HomeError(f"{path.name} does not hold an Ed25519 key")
    return key


def _pem(key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """A new file on disk; O_EXCL because a key is never overwritten, the mode because it is never readable for a moment."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, data: bytes, mode: int) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    _write(draft, data, mode)
    draft.rename(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
