"""Pieces of bytes under one directory, encrypted: what a job keeps of its shares so that it can go on after a crash.

The key is made for the job and lies in the directory, readable by the silo's user only.  So whoever can read the whole
directory can read the pieces; a piece that is copied or restored without the key, or is left on a disk when the key is gone,
says nothing.  Every piece is written under a fresh nonce, and is bound to the job, the silo and its own name: one that was
changed, or put in the place of another one, is refused.

Source: AES-256 in Galois/counter mode, NIST SP 800-38D, with random nonces; a job writes far fewer than 2^32 pieces.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from silos.checkpoint_files import SpillError, disk_errors, private_directory, replacing

KEY_FILE = "key"
MAX_BYTES = 1 << 30
_MAGIC = b"accord-sealed-1\n"
_NONCE_BYTES, _KEY_BYTES, _TAG_BYTES = 12, 32, 16
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}(\.[0-9]{8})?", re.ASCII)
_SUFFIX = ".sealed"


class SealedFiles:
    """A `vertical.checkpoints.Store` on disk.

    root: a directory of the job's own; it is made.  owner: the job and the silo that the pieces belong to.
    """

    def __init__(self, root: Path, owner: str) -> None:
        self._root, self._owner = root, owner
        with disk_errors(f"{root} cannot be made"):
            private_directory(root)
            for path in root.glob(".*.new"):  # a worker that was killed could not
                path.unlink()
            self._cipher = AESGCM(_key(root / KEY_FILE))

    def __repr__(self) -> str:
        return f"SealedFiles({self._root})"

    def put(self, name: str, body: bytes) -> None:
        """Keep a piece, in place of an earlier one; when this returns it is on disk.

        Raises: SpillError; ValueError for a name that is not acceptable.
        """
        path = self._path(name)
        if len(body) > MAX_BYTES:
            raise SpillError(f"{path} would have {len(body)} bytes, and at most {MAX_BYTES} are kept")
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, body, self._bound_to(name))
        with disk_errors(f"{path} cannot be written"), replacing(path) as file:
            file.write(_MAGIC + nonce + sealed)

    def get(self, name: str) -> bytes | None:
        """What was kept, or None.  Raises: SpillError if it is not what was kept under this name."""
        path = self._path(name)
        with disk_errors(f"{path} cannot be read"):
            if not path.exists():
                return None
            if path.stat().st_size > len(_MAGIC) + _NONCE_BYTES + MAX_BYTES + _TAG_BYTES:
                raise SpillError(f"{path} is damaged")
            raw = path.read_bytes()
        start = len(_MAGIC) + _NONCE_BYTES
        if raw[: len(_MAGIC)] != _MAGIC or len(raw) < start:
            raise SpillError(f"{path} is damaged")
        try:
            return self._cipher.decrypt(raw[len(_MAGIC) : start], raw[start:], self._bound_to(name))
        except InvalidTag as exc:
            raise SpillError(f"{path} is damaged, or of another job") from exc

    def names(self) -> list[str]:
        """The pieces that are there."""
        found = (path.name.removesuffix(_SUFFIX) for path in self._root.glob(f"*{_SUFFIX}"))
        return sorted(name for name in found if _NAME.fullmatch(name))

    def drop(self, name: str) -> None:
        """Forget a piece, if there is one.  Raises: SpillError."""
        path = self._path(name)
        with disk_errors(f"{path} cannot be removed"):
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return sealed_path(self._root, name)

    def _bound_to(self, name: str) -> bytes:
        return f"accord-sealed-1\n{self._owner}\n{name}".encode()


def sealed_path(root: Path, name: str) -> Path:
    """Where a piece lies.  Raises: ValueError for a name that is not acceptable."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"a piece has a short and plain name, got {name!r}")
    return root / f"{name}{_SUFFIX}"


def _key(path: Path) -> bytes:
    """The job's key, made when it is first needed.  Raises: SpillError if it is damaged; OSError."""
    if not path.exists():
        with replacing(path) as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise SpillError(f"{path} is damaged")
    return key
