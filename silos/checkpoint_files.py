"""Arrays on disk that outlive a crash: what a step has finished, one file per bucket and name.

A file is written under another name, forced to disk, and renamed; then the directory is forced to disk.  So a name is
either absent or whole, and a file that is not, because the disk or somebody else changed it, does not match its digest.
The digest also covers the bucket and the name, so one file cannot stand for another.  It is not a signature: whoever can
write into the silo's directory can make a file that matches.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from silos.errors import SiloError

_MAGIC = b"accord-array-1\n\0"
_HEAD = len(_MAGIC) + 32
_NAME = re.compile(r"^[a-z][a-z0-9_-]{0,63}$")
_CHUNK = 1 << 20


class SpillError(SiloError):
    """What a job keeps on disk while it runs is incomplete, damaged, or cannot be written; the step starts anew."""


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn a failing disk into one sentence.  Raises: SpillError."""
    try:
        yield
    except OSError as exc:
        raise SpillError(f"{what}: {exc.strerror or type(exc).__name__}") from exc


def private_directory(path: Path) -> None:
    """Make a directory that only its owner can enter, or close one that is there.  Raises: OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def sync_directory(path: Path) -> None:
    """Force what was created, renamed or removed in a directory to disk.  Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unfinished(path: Path) -> Path:
    """What a file is called while it is written; a process that was killed leaves it behind."""
    return path.with_name(f".{path.name}.new")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file as a whole: it gets its name, for its owner only, when the block ends without an error.

    Raises: OSError.
    """
    temporary = unfinished(path)
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def save_array(path: Path, array: npt.NDArray[Any], label: str) -> None:
    """Write one array.  label: what it is; the same is needed to load it.  Raises: SpillError; ValueError for objects."""
    if array.dtype.hasobject:
        raise ValueError("an array of Python objects cannot be kept")
    with disk_errors(f"{path} cannot be written"), replacing(path) as file:
        file.write(_MAGIC + bytes(32))
        np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
        file.flush()
        digest = _digest(file, label)
        file.seek(len(_MAGIC))
        file.write(digest)


def load_array(path: Path, label: str) -> npt.NDArray[Any] | None:
    """The array that was saved, or None if there is none.  Raises: SpillError if the file is not as it was written."""
    damaged = f"{path} is damaged"
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SpillError(f"{path} cannot be read: {exc.strerror}") from exc
    with file, disk_errors(f"{path} cannot be read"):
        head = file.read(_HEAD)
        if head[: len(_MAGIC)] != _MAGIC or not hmac.compare_digest(head[len(_MAGIC) :], _digest(file, label)):
            raise SpillError(damaged)
        file.seek(_HEAD)
        try:
            array = _array(file)
        except (ValueError, TypeError, SyntaxError, TokenError, OverflowError):
            raise SpillError(damaged) from None
    return array


def _array(file: BinaryIO) -> npt.NDArray[Any]:
    """The array that the rest of the file is, as `save_array` writes it; its size is checked before it has any memory.

    Raises: ValueError, or what numpy's reader of headers raises, for anything else.
    """
    start = file.tell()
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("of another version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != os.fstat(file.fileno()).st_size - file.tell():
        raise ValueError("not an array of this size")
    file.seek(start)
    array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _digest(file: BinaryIO, label: str) -> bytes:
    """SHA-256 of the label and of what follows the head."""
    digest = hashlib.sha256(len(label.encode()).to_bytes(8, "little") + label.encode())
    file.seek(_HEAD)
    while piece := file.read(_CHUNK):
        digest.update(piece)
    return digest.digest()


class CheckpointFiles:
    """Arrays by bucket and name under one directory.

    session: what the arrays belong to, such as the job; those of another one are damaged here.
    """

    def __init__(self, root: Path, session: str = "") -> None:
        self._root, self._session = root, session
        with disk_errors(f"{root} cannot be made"):
            private_directory(root)

    def _place(self, bucket: int, name: str) -> tuple[Path, str]:
        if bucket < 0 or not _NAME.match(name):
            raise ValueError(f"a bucket is not negative and a name is short and plain, got {bucket} and {name!r}")
        return self._root / f"{bucket:08d}.{name}", f"{self._session}\n{bucket}\n{name}"

    def save(self, bucket: int, name: str, array: npt.NDArray[Any]) -> None:
        """Keep an array, in place of an earlier one; when this returns it is on disk.

        Raises: SpillError; ValueError for an array of objects or a name that is not acceptable.
        """
        path, label = self._place(bucket, name)
        save_array(path, array, label)

    def load(self, bucket: int, name: str) -> npt.NDArray[Any] | None:
        """What was kept, or None.  Raises: SpillError if the file is damaged."""
        path, label = self._place(bucket, name)
        return load_array(path, label)

    def buckets(self, name: str) -> list[int]:
        """The buckets that have an array of this name, ascending."""
        return sorted(int(p.name[:8]) for p in self._root.glob(f"[0-9]*.{name}") if p.name[8:] == f".{name}")

    def drop(self, bucket: int, name: str) -> None:
        """Forget an array, if there is one.  Raises: SpillError."""
        path, _ = self._place(bucket, name)
        with disk_errors(f"{path} cannot be removed"):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget everything, the directory too; files that are not ours stay, and then the directory does.

        Raises: SpillError.
        """
        with disk_errors(f"{self._root} cannot be removed"):
            for path in [*self._root.glob("[0-9]*.*"), *self._root.glob(".[0-9]*.new")]:
                path.unlink()
            self._root.rmdir()
