"""A silo's identifiers as points on disk: gathered once, whatever their number, and then matched bucket by bucket.

The directory also keeps what `mpc.matching.protocol.match` writes down between attempts, so a worker that is started again
for the same job goes on where the one before was, without reading the data again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.matching.hashes import hash_buffer
from silos.checkpoint_files import CheckpointFiles, private_directory
from silos.leftovers import STEPS_FOLDER
from silos.spill import MAX_BITS, Bucket, Spill
from silos.validation import write_private
from vertical.align import Identifiers
from vertical.batches import Items
from vertical.identifiers import DuplicateIdentifiersError
from vertical.linkage import Matched
from vertical.values import Reason

POINTS_IN_BUCKET = 1 << 16

Words = npt.NDArray[Any]


@dataclass(frozen=True)
class Gathered:
    """What is known of all points: how many are distinct, a hash of them, and rows of each key that repeat a point."""

    n_points: int
    digest: bytes
    duplicates: tuple[int, ...]


class Points:
    """The points of one silo in one job; a `mpc.matching.buckets.Store`."""

    def __init__(self, spill: Spill, steps: CheckpointFiles, known: Gathered) -> None:
        self._spill, self._steps, self.known = spill, steps, known

    @property
    def n_points(self) -> int:
        """How many distinct points there are in all."""
        return self.known.n_points

    @property
    def digest(self) -> bytes:
        """A hash of all points."""
        return self.known.digest

    def piece(self, bits: int, b: int) -> Bucket:
        """The points whose top `bits` bits are b, with the rows behind them."""
        own = self._spill.bits
        if bits <= own:
            return _joined([self._spill.bucket(i) for i in range(b << own - bits, b + 1 << own - bits)])
        whole, low = self._spill.bucket(b >> bits - own), b << 64 - bits
        first = np.searchsorted(whole.words[:, 0], np.uint64(low))
        high = low + (1 << 64 - bits)
        end = np.searchsorted(whole.words[:, 0], np.uint64(high)) if high < 1 << 64 else len(whole.words)
        offsets = whole.offsets[first : end + 1]
        rows = whole.rows[offsets[0] : offsets[-1]]
        return Bucket(whole.words[first:end], offsets - offsets[0], rows, whole.key[first:end])

    def bucket(self, bits: int, b: int) -> Words:
        """Those points alone, ascending."""
        return self.piece(bits, b).words

    def save(self, step: int, name: str, array: Words) -> None:
        """Keep an array; when this returns it is on disk."""
        self._steps.save(step, name, array)

    def load(self, step: int, name: str) -> Words | None:
        """What was kept, or None."""
        return self._steps.load(step, name)

    def matched(
        self,
        bits: int,
        positions: Iterable[npt.NDArray[np.int64]],
        duplicates: str,
        seen: Callable[[Words], object] = len,
    ) -> Matched:
        """The rows behind the matched points.

        positions: of each bucket.  duplicates: unless it is "expand", only the first row of a point counts.  seen: called
        with the matched points of each bucket, in the order of their rows.
        """
        keys, counts, rows = [], [], []
        for b, where in enumerate(positions):
            piece = self.piece(bits, b)
            starts, ends = piece.offsets[:-1][where], piece.offsets[1:][where]
            if duplicates != "expand":
                ends = np.minimum(ends, starts + 1)
            n = ends - starts
            before = np.repeat(np.cumsum(n) - n, n)
            rows.append(piece.rows[np.repeat(starts, n) + np.arange(n.sum()) - before])
            counts.append(n)
            keys.append(piece.key[where])
            seen(piece.words[where])
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
        return Matched(np.concatenate(keys), offsets, np.concatenate(rows), len(self.known.duplicates))

    def close(self) -> None:
        """Give the file back; what is on disk stays."""
        self._spill.close()


def _joined(buckets: Sequence[Bucket]) -> Bucket:
    if len(buckets) == 1:
        return buckets[0]
    ends = np.cumsum([0, *(len(bucket.rows) for bucket in buckets)])
    offsets = [bucket.offsets[:-1] + end for bucket, end in zip(buckets, ends, strict=False)]
    return Bucket(
        np.concatenate([bucket.words for bucket in buckets]),
        np.concatenate([*offsets, ends[-1:]]),
        np.concatenate([bucket.rows for bucket in buckets]),
        np.concatenate([bucket.key for bucket in buckets]),
    )


def gather(
    root: Path, own: Identifiers, read: Iterable[list[Items]], session: bytes, rows: int, duplicates: str
) -> Points:
    """Put all identifiers on disk as points, unless an earlier worker of the job did.

    root: a directory of the job's own.  own: is counted into.  read: batches that are counted there as they come.
    session: what points are hashed under.  rows: about how many there are.
    Raises: SpillError; DuplicateIdentifiersError if the job refuses duplicates and there are any.
    """
    private_directory(root)
    note, folder = root / "gathered.json", root / "points"
    if note.exists():
        known = _recall(note, own)
        spill = Spill.open(folder)
    else:
        shutil.rmtree(root / STEPS_FOLDER, ignore_errors=True)
        bits = (max(1, rows * len(own.keys) // POINTS_IN_BUCKET) - 1).bit_length()
        spill = Spill(folder, min(bits, MAX_BITS))
        for batch in read:
            for number, items in enumerate(batch):
                words = hash_buffer(items.data, items.offsets, session)
                spill.append(words, items.rows, np.full(len(items), number, dtype=np.uint8))
        spill.finish()
        known = _counted(spill, len(own.keys))
        _note(note, own, known)
    if duplicates == "refuse" and any(known.duplicates):
        worst = next(k for k, n in enumerate(known.duplicates) if n)
        spill.close()
        raise DuplicateIdentifiersError(known.duplicates[worst], own.keys[worst][0])
    return Points(spill, CheckpointFiles(root / STEPS_FOLDER, session.hex()), known)


def _buckets(spill: Spill) -> Iterator[Bucket]:
    return (spill.bucket(b) for b in range(1 << spill.bits))


def _counted(spill: Spill, n_keys: int) -> Gathered:
    n, digest, repeated = 0, hashlib.sha256(), np.zeros(n_keys, dtype=np.int64)
    for bucket in _buckets(spill):
        n += len(bucket.words)
        digest.update(np.ascontiguousarray(bucket.words).data)
        repeated += np.bincount(bucket.key, weights=np.diff(bucket.offsets) - 1, minlength=n_keys).astype(np.int64)
    return Gathered(n, digest.digest(), tuple(repeated.tolist()))


def _note(path: Path, own: Identifiers, known: Gathered) -> None:
    document = {
        "rows": own.n_rows,
        "reasons": [{reason.value: n for reason, n in counted.items()} for counted in own.reasons],
        "points": known.n_points,
        "digest": known.digest.hex(),
        "duplicates": list(known.duplicates),
    }
    write_private(path, json.dumps(document) + "\n")


def _recall(path: Path, own: Identifiers) -> Gathered:
    document = json.loads(path.read_text(encoding="utf-8"))
    own.n_rows = document["rows"]
    own.reasons = [Counter({Reason(name): n for name, n in counted.items()}) for counted in document["reasons"]]
    return Gathered(document["points"], bytes.fromhex(document["digest"]), tuple(document["duplicates"]))
