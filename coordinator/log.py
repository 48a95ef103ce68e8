"""The transparency log's tables: entries, complete subtrees, and the one signed head.

`append` must run inside the caller's transaction; nothing of it is visible until that commits.  Rows of `entry` and `node`
are only ever inserted; `head` is the only row that changes, and only from the size that was read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from coordinator import merkle
from coordinator.envelope import EnvelopeError, Sealed, parse
from coordinator.errors import Corrupt, Malformed, Unknown
from coordinator.note import Checkpoint, NoteError

MAX_ENTRIES_PER_READ = 256
MAX_BYTES_PER_READ = 4 * 1024 * 1024

SCHEMA = """
CREATE TABLE entry(
    idx INTEGER PRIMARY KEY, job TEXT NOT NULL, silo TEXT NOT NULL, seq INTEGER NOT NULL,
    payload_digest TEXT NOT NULL, received INTEGER NOT NULL, envelope BLOB NOT NULL) STRICT;
-- One statement per place in a silo's chain for a job.  Enrolments (job '') start a new chain with each new key.
CREATE UNIQUE INDEX chain ON entry(job, silo, seq) WHERE job <> '';
CREATE TABLE node(
    level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY(level, idx)) STRICT, WITHOUT ROWID;
CREATE TABLE head(id INTEGER PRIMARY KEY CHECK(id = 0), size INTEGER NOT NULL, note TEXT NOT NULL) STRICT;
"""

Sign = Callable[[int, bytes], str]
"""(size, root) -> a signed checkpoint."""
Open = Callable[[str], Checkpoint]
"""A signed checkpoint -> what it says, if our own key signed it; else NoteError."""


@dataclass(frozen=True)
class Entry:
    """An envelope as received, and what it says."""

    envelope: bytes
    sealed: Sealed

    @classmethod
    def parse(cls, envelope: bytes) -> Entry:
        """Raises: Malformed."""
        try:
            return cls(envelope, parse(envelope))
        except EnvelopeError as exc:
            raise Malformed(str(exc)) from exc


@dataclass(frozen=True)
class Seen:
    """An entry as a reader sees it.  leaf: its hash in the tree.  envelope: None if it is not for this reader."""

    leaf: bytes
    envelope: bytes | None


class Log:
    """The log over one connection.  sign: signs a new head."""

    def __init__(self, db: sqlite3.Connection, sign: Sign) -> None:
        self._db, self._sign = db, sign

    def create_head(self) -> None:
        """Sign the empty tree; once, when the database is made."""
        note = self._sign(0, merkle.EMPTY_ROOT)
        self._db.execute("INSERT INTO head(id, size, note) VALUES(0, 0, ?)", (note,))

    def check(self, opened: Open) -> None:
        """Raises: Corrupt if the head is not ours or does not match the entries and nodes."""
        size, note = self._head()
        count = self._db.execute("SELECT count(*), coalesce(max(idx) + 1, 0) FROM entry").fetchone()
        if count != (size, size):
            raise Corrupt(f"the log's head counts {size} entries, the table has {count[0]}")
        try:
            said = opened(note)
        except NoteError as exc:
            raise Corrupt(f"the log's head is not signed by log.key: {exc}") from exc
        if (said.size, said.root) != (size, merkle.root(size, self.stored)):
            raise Corrupt("the log's head does not match its tree")

    def append(self, entry: Entry, received: int) -> int:
        """Add an entry and sign the new head; returns the entry's index.  Needs an open transaction.

        Raises: Corrupt if another writer moved the head.
        """
        size, _ = self._head()
        said = entry.sealed.statement
        self._db.execute(
            "INSERT INTO entry(idx, job, silo, seq, payload_digest, received, envelope) VALUES(?, ?, ?, ?, ?, ?, ?)",
            (size, said.job, said.silo, said.seq, entry.sealed.payload_digest, received, entry.envelope),
        )
        self._db.executemany(
            "INSERT INTO node(level, idx, hash) VALUES(?, ?, ?)", merkle.grow(size, entry.envelope, self.stored)
        )
        # The new head is signed before the commit, but leaves this process only after it: a log must never have shown
        # a head that it could lose.  Compare-and-swap on the size: of two writers that read one head, one fails.
        note = self._sign(size + 1, merkle.root(size + 1, self.stored))
        moved = self._db.execute("UPDATE head SET size = ?, note = ? WHERE id = 0 AND size = ?", (size + 1, note, size))
        if moved.rowcount != 1:
            raise Corrupt("another writer moved the log's head")
        return size

    def said_at(self, job: str, silo: str, seq: int) -> tuple[int, bytes] | None:
        """Index and envelope at one place of a silo's chain for a job."""
        row: tuple[int, bytes] | None = self._db.execute(
            "SELECT idx, envelope FROM entry WHERE job = ? AND silo = ? AND seq = ? AND job <> ''", (job, silo, seq)
        ).fetchone()
        return row

    def chain_end(self, job: str, silo: str) -> tuple[int, str]:
        """The seq and prev of the next statement of `silo` about `job`."""
        row = self._db.execute(
            "SELECT seq + 1, payload_digest FROM entry WHERE job = ? AND silo = ? AND job <> '' ORDER BY seq DESC LIMIT 1",
            (job, silo),
        ).fetchone()
        return (row[0], row[1]) if row else (0, "")

    def of_job(self, job: str) -> list[tuple[int, bytes]]:
        """Index and envelope of every entry about `job`, in log order."""
        return self._db.execute("SELECT idx, envelope FROM entry WHERE job = ? ORDER BY idx", (job,)).fetchall()

    def size(self) -> int:
        """Number of entries."""
        return self._head()[0]

    def checkpoint(self) -> str:
        """The signed head."""
        return self._head()[1]

    def read(self, start: int, end: int, readable: Callable[[str], bool]) -> list[Seen]:
        """Entries from `start` up to `end`, or as many of them as fit one answer (at least one).

        readable: whether the reader may see the entries of a job.  Of the others it gets the hash, which gives nothing
        away: it covers a signature, so a guess at the text cannot be tried out.
        Raises: Unknown if `start` is not in the log or the range is empty.
        """
        if not 0 <= start < min(end, self.size()):
            raise Unknown(f"the log has {self.size()} entries, there is none from {start} up to {end}")
        end = min(end, start + MAX_ENTRIES_PER_READ)
        entries: list[Seen] = []
        total = 0
        for index, job in self._db.execute(
            "SELECT idx, job FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", (start, end)
        ):
            envelope = self._envelope(index) if readable(job) else None
            total += len(envelope or b"")  # withheld ones do not count: a page's length must not tell their size
            if entries and total > MAX_BYTES_PER_READ:
                break
            entries.append(Seen(self.stored(0, index), envelope))
        return entries

    def _envelope(self, index: int) -> bytes:
        return bytes(self._db.execute("SELECT envelope FROM entry WHERE idx = ?", (index,)).fetchone()[0])

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Raises: Unknown if the log never had that size or entry."""
        if not 0 <= index < size <= self.size():
            raise Unknown(f"the log has {self.size()} entries; no proof for entry {index} in a tree of {size}")
        return merkle.inclusion_proof(index, size, self.stored)

    def consistency(self, first: int, second: int) -> list[bytes]:
        """Raises: Unknown if the log never had those sizes."""
        if not 1 <= first <= second <= self.size():
            raise Unknown(f"the log has {self.size()} entries; no proof leads from {first} to {second}")
        return merkle.consistency_proof(first, second, self.stored)

    def stored(self, level: int, index: int) -> bytes:
        """Hash of a complete subtree."""
        row = self._db.execute("SELECT hash FROM node WHERE level = ? AND idx = ?", (level, index)).fetchone()
        if row is None:
            raise Corrupt(f"the log's tree lacks node {index} of level {level}")
        return bytes(row[0])

    def _head(self) -> tuple[int, str]:
        row = self._db.execute("SELECT size, note FROM head").fetchone()
        if row is None:
            raise Corrupt("the log has no head")
        return int(row[0]), str(row[1])
