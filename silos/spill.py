"""Identifier points in buckets on disk, so that sets of any size are matched a bucket at a time.

A point is a 128-bit hash in two 64-bit words, so its top bits choose a bucket evenly.  Points are gathered in memory up to
a bound; then they are ordered by bucket and appended to one file as a segment: all their words, all their rows, all their
keys.  One file of a few large segments costs a write and a sync where a file for every bucket would cost thousands, and
needs one file descriptor.  A bucket is read as its piece of each segment.

Complete or not.  The index, with the counts and a digest for each bucket, is written last, as a whole, after the points
are on disk.  Without an index there is nothing to reopen: a process that was killed on the way starts anew.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from silos.checkpoint_files import (
    SpillError,
    disk_errors,
    load_array,
    private_directory,
    save_array,
    sync_directory,
    unfinished,
)

MAX_BITS = 10
SEGMENT_POINTS = 1 << 20
_POINT_BYTES = 16 + 8 + 1
_LABEL = "the index of spilled points, version 1"

Words = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Bucket:
    """The distinct points of one bucket.

    words: (m, 2), ascending.  offsets: (m + 1,); the rows of point i are rows[offsets[i]:offsets[i + 1]], ascending, each
    once.  key: (m,), the smallest key under which the point occurs.
    """

    words: Words
    offsets: npt.NDArray[np.int64]
    rows: Rows
    key: Keys

    def __repr__(self) -> str:
        return f"Bucket(points={len(self.words)}, rows={len(self.rows)})"


def merged(words: Words, rows: Rows, key: Keys) -> Bucket:
    """Sort points and put equal ones together."""
    order = np.argsort(words[:, 0])
    first = words[order, 0]
    same = first[1:] == first[:-1]
    if same.any():  # only points that share their first word need the slow comparison by all
        tied = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        places = order[tied]
        order[tied] = places[np.lexsort((key[places], rows[places], words[places, 1], words[places, 0]))]
    words, rows, key = words[order], rows[order], key[order]
    new_point = np.ones(len(words), np.bool_)
    new_point[1:] = (words[1:] != words[:-1]).any(axis=1)
    starts = np.flatnonzero(new_point)
    least = np.minimum.reduceat(key, starts) if len(starts) else key
    kept = new_point.copy()
    kept[1:] |= rows[1:] != rows[:-1]
    offsets = np.append(np.cumsum(kept)[starts] - 1, kept.sum()).astype(np.int64)
    return Bucket(words[starts], offsets, rows[kept], least)


class Spill:
    """Write points with `append`, then `finish`; then, or in another process after `Spill.open`, read each `bucket`.

    bits: 2**bits buckets, by the top bits of the first word.  Memory while writing: about 80 bytes for each of
    segment_points points, whatever is appended; while reading: a bucket.
    """

    def __init__(self, root: Path, bits: int, segment_points: int = SEGMENT_POINTS) -> None:
        """Start anew: whatever an earlier run left under root goes.  Raises: SpillError; ValueError."""
        if not 0 <= bits <= MAX_BITS or segment_points < 1:
            raise ValueError(f"there are 1 to {1 << MAX_BITS} buckets and segments hold points, got {bits} bits")
        with disk_errors(f"{root} cannot be written"):
            private_directory(root)
            _index(root).unlink(missing_ok=True)  # first: an old index must never stand beside new points
            sync_directory(root)
            fd = os.open(_points(root), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            os.fchmod(fd, 0o600)
            self._adopt(root, bits, os.fdopen(fd, "r+b", buffering=0))
        self._segment_points = segment_points
        self._hashes = [hashlib.sha256() for _ in range(1 << bits)]

    def _adopt(self, root: Path, bits: int, file: BinaryIO) -> None:
        self._root, self.bits, self._file = root, bits, file
        self._complete = False
        self._waiting: list[tuple[Words, Rows, Keys]] = []
        self._waiting_points = 0
        self._segments: list[npt.NDArray[np.int64]] = []  # of each, where the buckets' points begin and the last ends
        self._digests: list[bytes] = []

    @classmethod
    def open(cls, root: Path) -> Spill:
        """What an earlier process finished.  Raises: SpillError if it did not, or the files are not as it left them."""
        index = load_array(_index(root), _LABEL)
        if index is None:
            raise SpillError(f"the points under {root} are not complete; they have to be gathered anew")
        buckets = index.shape[1]
        spill = cls.__new__(cls)
        with disk_errors(f"{_points(root)} cannot be read"):
            spill._adopt(root, buckets.bit_length() - 1, _points(root).open("rb", buffering=0))
            size = os.fstat(spill._file.fileno()).st_size
        spill._segments = [_bounds(counts) for counts in index[:-4]]
        spill._digests = [index[-4:, b].tobytes() for b in range(buckets)]
        spill._complete = True
        if size != spill.total * _POINT_BYTES:
            spill.close()
            raise SpillError(f"{_points(root)} is damaged: it has another size than its index says")
        return spill

    @property
    def total(self) -> int:
        """How many points were appended, equal ones counted each time."""
        return sum(int(bounds[-1]) for bounds in self._segments) + self._waiting_points

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(2**bits,) how many points each bucket has on disk, equal ones counted each time."""
        none = np.zeros(1 << self.bits, np.int64)
        return sum((np.diff(bounds) for bounds in self._segments), none)

    def append(self, words: Words, rows: Rows, key: Keys) -> None:
        """Add points: (n, 2) words, and of each its row number and which key of the row it is.

        Raises: SpillError if the disk fails; ValueError for other shapes or types, or after `finish`.
        """
        n = len(rows)
        if self._complete:
            raise ValueError("points cannot be added to what is finished")
        if words.shape != (n, 2) or rows.shape != (n,) or key.shape != (n,):
            raise ValueError(f"{n} rows need ({n}, 2) words and ({n},) keys, got {words.shape} and {key.shape}")
        if words.dtype != np.uint64 or rows.dtype != np.int64 or key.dtype != np.uint8:
            raise ValueError(f"types are uint64, int64 and uint8, got {words.dtype}, {rows.dtype} and {key.dtype}")
        for start in range(0, n, self._segment_points):
            part = slice(start, start + self._segment_points)
            self._waiting.append((words[part].copy(), rows[part].copy(), key[part].copy()))
            self._waiting_points += len(self._waiting[-1][1])
            if self._waiting_points >= self._segment_points:
                self._write_segment()

    def _write_segment(self) -> None:
        words, rows, key = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_points = [], 0
        bucket = (words[:, 0] >> np.uint64(64 - self.bits)).astype(np.uint16) if self.bits else None
        if bucket is not None:
            order = np.argsort(bucket, kind="stable")  # a radix sort for 16 bits
            words, rows, key = words[order], rows[order], key[order]
        bounds = _bounds(
            np.bincount(bucket if bucket is not None else np.zeros(len(rows), int), minlength=1 << self.bits)
        )
        for b, digest in enumerate(self._hashes):
            piece = slice(bounds[b], bounds[b + 1])
            for array in (words, rows, key):
                digest.update(array[piece].data)
        with disk_errors(f"{_points(self._root)} cannot be written"):
            for array in (words, rows, key):
                _write_all(self._file, array)
        self._segments.append(bounds)

    def finish(self) -> None:
        """Force everything to disk and say that it is complete.  Raises: SpillError; ValueError if that was done."""
        if self._complete:
            raise ValueError("the points are finished already")
        if self._waiting_points:
            self._write_segment()
        self._digests = [digest.digest() for digest in self._hashes]
        counts = np.array([np.diff(bounds) for bounds in self._segments], np.int64).reshape(-1, 1 << self.bits)
        digests = np.frombuffer(b"".join(self._digests), np.int64).reshape(-1, 4).T
        with disk_errors(f"{_points(self._root)} cannot be written"):
            os.fsync(self._file.fileno())  # before the index, which says that they are there
        save_array(_index(self._root), np.concatenate([counts, digests]), _LABEL)
        self._complete = True

    def bucket(self, b: int) -> Bucket:
        """The distinct points of a bucket.  Raises: SpillError if they are damaged; ValueError before `finish`."""
        if not self._complete or not 0 <= b < 1 << self.bits:
            raise ValueError(f"there is a bucket {b} only of finished points and below {1 << self.bits}")
        digest, pieces, start = hashlib.sha256(), [], 0
        with disk_errors(f"{_points(self._root)} cannot be read"):
            for bounds in self._segments:
                pieces.append(self._piece(start, int(bounds[-1]), int(bounds[b]), int(bounds[b + 1])))
                for raw in pieces[-1]:
                    digest.update(raw)
                start += int(bounds[-1]) * _POINT_BYTES
        if not hmac.compare_digest(digest.digest(), self._digests[b]):
            raise SpillError(f"{_points(self._root)} is damaged in bucket {b}; the points have to be gathered anew")
        words, rows, key = (b"".join(part) for part in zip(*pieces, strict=True)) if pieces else (b"", b"", b"")
        return merged(
            np.frombuffer(words, np.uint64).reshape(-1, 2), np.frombuffer(rows, np.int64), np.frombuffer(key, np.uint8)
        )

    def _piece(self, start: int, n: int, low: int, high: int) -> tuple[bytes, bytes, bytes]:
        """Points low to high of a segment of n points: their words, rows and keys as they are in the file."""
        fd = self._file.fileno()
        return (
            os.pread(fd, (high - low) * 16, start + low * 16),
            os.pread(fd, (high - low) * 8, start + n * 16 + low * 8),
            os.pread(fd, high - low, start + n * 24 + low),
        )

    def close(self) -> None:
        """Give the file back; what is on disk stays."""
        self._file.close()

    def remove(self) -> None:
        """Close, and remove the files and the directory; others' files stay, and then so does the directory.

        Raises: SpillError.
        """
        self.close()
        with disk_errors(f"{self._root} cannot be removed"):
            for file in (_index(self._root), unfinished(_index(self._root)), _points(self._root)):
                file.unlink(missing_ok=True)
            self._root.rmdir()


def _points(root: Path) -> Path:
    return root / "points"


def _index(root: Path) -> Path:
    return root / "index"


def _bounds(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _write_all(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """A write to a file that is not buffered may take only a part."""
    left = np.ascontiguousarray(array).data.cast("B")
    while left:
        left = left[file.write(left) :]
