"""The transparency log's tables: entries, complete subtrees, and the one signed head.

`append` must run inside the caller's transaction, which ends with `seal`; nothing of it is visible until that commits.
Rows of `entry` and `node` are only ever inserted; `head` is the only row that changes, and only from the size that was
read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from coordinator import merkle
from coordinator.database import Database
from coordinator.envelope import EnvelopeError, Sealed, parse
from coordinator.errors import Corrupt, Malformed, RolledBack, Unknown
from coordinator.note import Checkpoint, NoteError
from coordinator.tiles import Tile

MAX_ENTRIES_PER_READ = 256
MAX_BYTES_PER_READ = 4 * 1024 * 1024

SCHEMA = """
CREATE TABLE entry(
    idx INTEGER PRIMARY KEY, job TEXT NOT NULL, silo TEXT NOT NULL, seq INTEGER NOT NULL,
    payload_digest TEXT NOT NULL, received INTEGER NOT NULL, envelope BLOB NOT NULL) STRICT;
-- One statement per place in a silo's chain for a job.  Enrolments (job '') start a new chain with each new key.
CREATE UNIQUE INDEX chain ON entry(job, silo, seq) WHERE job <> '';
CREATE INDEX roster_chain ON entry(silo, idx) WHERE job = '';
CREATE INDEX roster_entries ON entry(idx) WHERE job = '';
CREATE TABLE node(
    level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY(level, idx)) STRICT, WITHOUT ROWID;
CREATE TABLE head(id INTEGER PRIMARY KEY CHECK(id = 0), size INTEGER NOT NULL, note TEXT NOT NULL) STRICT;
-- Checkpoints by our own key that these tables do not hold: the database is older than what it has shown.
CREATE TABLE ahead(size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL, PRIMARY KEY(size, root)) STRICT;
"""
MAX_AHEAD = 16

T = TypeVar("T")

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


@dataclass
class _Growth:
    """What the open transaction has added.  first: the size it found.  nodes: the subtrees to be written, in order."""

    first: int
    size: int
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """A point within a transaction that `Log.back_to` returns to."""

    size: int
    nodes: int


class Log:
    """The log over one connection.  sign: signs a new head."""

    def __init__(self, db: Database, sign: Sign) -> None:
        self._db, self._sign = db, sign
        self._growth: _Growth | None = None
        self._behind = False
        self._published = 0  # the largest size this process has committed or found

    def create_head(self) -> None:
        """Sign the empty tree; once, when the database is made."""
        note = self._sign(0, merkle.EMPTY_ROOT)
        self._db.execute("INSERT INTO head(id, size, note) VALUES(0, 0, ?)", (note,))

    def check(self, opened: Open) -> None:
        """Raises: Corrupt if the head is not ours or does not match the entries and nodes."""
        size, note = self.head()
        count = self._db.execute("SELECT count(*), coalesce(max(idx) + 1, 0) FROM entry").fetchone()
        if tuple(count) != (size, size):
            raise Corrupt(f"the log's head counts {size} entries, the table has {count[0]}")
        try:
            said = opened(note)
        except NoteError as exc:
            raise Corrupt(f"the log's head is not signed by log.key: {exc}") from exc
        if (said.size, said.root) != (size, self.root(size)):
            raise Corrupt("the log's head does not match its tree")
        self._published = size

    # --- within a transaction

    def append(self, entry: Entry, received: int) -> int:
        """Add an entry; returns its index.  The transaction must end with `seal`, or with `forget` if it is rolled back.

        Raises: RolledBack if the log must not grow.
        """
        if self._behind:
            raise RolledBack("this log was seen with entries that its database does not have")
        growth = self._growing()
        index, said = growth.size, entry.sealed.statement
        self._db.execute(
            "INSERT INTO entry(idx, job, silo, seq, payload_digest, received, envelope) VALUES(?, ?, ?, ?, ?, ?, ?)",
            (index, said.job, said.silo, said.seq, entry.sealed.payload_digest, received, entry.envelope),
        )
        for node in merkle.grow(index, entry.envelope, self.stored):
            growth.nodes[node.level, node.place] = node.hash
        growth.size += 1
        return index

    def mark(self) -> Mark | None:
        """Where the transaction stands, to come back to with `back_to`."""
        return None if self._growth is None else Mark(self._growth.size, len(self._growth.nodes))

    def back_to(self, mark: Mark | None) -> None:
        """Forget what was added since; the caller has undone its rows (a savepoint)."""
        if mark is None or self._growth is None:
            self._growth = None
            return
        self._growth.size = mark.size
        while len(self._growth.nodes) > mark.nodes:
            self._growth.nodes.popitem()  # the last added first

    def seal(self) -> int:
        """Write the new subtrees and one signed head for all that was added; returns the size.

        Raises: Corrupt if another writer moved the head.
        """
        growth = self._growth
        if growth is None or growth.size == growth.first:
            return self._published
        self._db.executemany(
            "INSERT INTO node(level, idx, hash) VALUES(?, ?, ?)",
            [(level, place, value) for (level, place), value in growth.nodes.items()],
        )
        # The new head is signed before the commit, but leaves this process only after it: a log must never have shown
        # a head that it could lose.  Compare-and-swap on the size: of two writers that read one head, one fails.
        note = self._sign(growth.size, self.root(growth.size))
        moved = self._db.execute(
            "UPDATE head SET size = ?, note = ? WHERE id = 0 AND size = ?", (growth.size, note, growth.first)
        )
        if moved.rowcount != 1:
            raise Corrupt("another writer moved the log's head")
        return growth.size

    def forget(self, published: int | None = None) -> None:
        """The transaction is over; published: the size it committed, None if it was rolled back."""
        self._growth, self._behind = None, False
        self._published = max(self._published, published or 0)

    def _growing(self) -> _Growth:
        """What the transaction has added so far.  Raises: RolledBack."""
        if self._growth is None:
            size, _ = self.head()
            if size < self._published:
                raise RolledBack(f"the database has {size} entries, and this coordinator has shown {self._published}")
            for ahead, root in self._db.execute("SELECT size, root FROM ahead").fetchall():
                if ahead > size or self.root(ahead) != bytes(root):
                    raise RolledBack(
                        f"this log was seen with {ahead} entries that its database does not have;"
                        " it takes no entry until its newer database is restored"
                    )
            self._growth = _Growth(size, size)
        return self._growth

    def holds(self, seen: Checkpoint) -> bool:
        """Whether the tree of that size is ours."""
        size = self._growth.size if self._growth else self.size()
        return seen.size <= size and self.root(seen.size) == seen.root

    def keep_ahead(self, seen: Checkpoint, note: str) -> None:
        """Remember a checkpoint by our own key that we do not hold; from now on `append` raises RolledBack.

        Entries of the open transaction, if there are any, are committed: they were checked before it was known.
        """
        self._behind = True
        (count,) = self._db.execute("SELECT count(*) FROM ahead").fetchone()
        if count < MAX_AHEAD:
            self._db.execute(
                "INSERT INTO ahead(size, root, note) VALUES(?, ?, ?) ON CONFLICT(size, root) DO NOTHING",
                (seen.size, seen.root, note),
            )

    # --- reading

    def root(self, size: int) -> bytes:
        """Root of the first `size` entries."""
        return merkle.root(size, self.stored)

    def tile(self, tile: Tile) -> bytes:
        """The hashes of a C2SP tile, 32 bytes each.  Raises: Unknown if the log is not that large."""
        if tile.end > self.size():
            raise Unknown(f"the log has {self.size()} entries and not yet this tile")
        first = tile.index * tile.FULL
        rows = self._db.execute(
            "SELECT hash FROM node WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx",
            (8 * tile.level, first, first + tile.width),
        ).fetchall()
        if len(rows) != tile.width:
            raise Corrupt(f"the log's tree lacks nodes of level {8 * tile.level}")
        return b"".join(bytes(row[0]) for row in rows)

    def envelopes(self, start: int, end: int) -> list[bytes]:
        """The entries from `start` up to `end` as logged, for the operator; who may see them is the caller's business."""
        rows = self._db.execute("SELECT envelope FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", (start, end))
        return [bytes(row[0]) for row in rows]

    def place(self, job: str, silo: str, seq: int) -> tuple[tuple[int, bytes] | None, str | None]:
        """What a silo has said at a place of its chain for a job, and what a statement put there must name as `prev`.

        Returns index and envelope, or None if the place is free; and the payload digest of the statement before it, ""
        for the first, None if that is not there either, or if there is something at the place.
        """
        rows = self._db.execute(
            "SELECT idx, seq, payload_digest, CASE WHEN seq = ? THEN envelope END FROM entry"
            " WHERE job = ? AND silo = ? AND job <> '' AND seq >= ? ORDER BY seq LIMIT 2",
            (seq, job, silo, seq - 1),
        ).fetchall()
        found = next(((row[0], bytes(row[3])) for row in rows if row[1] == seq), None)
        if found is not None or not rows:
            return found, "" if found is None and seq == 0 else None
        return None, rows[0][2]

    def next_seq(self, job: str, silo: str) -> int:
        """The number of the next statement of `silo` about `job`."""
        (last,) = self._db.execute(
            "SELECT max(seq) FROM entry WHERE job = ? AND silo = ? AND job <> ''", (job, silo)
        ).fetchone()
        return 0 if last is None else int(last) + 1

    def roster_chain_end(self, silo: str) -> tuple[int, str]:
        """The seq and prev of the next statement of `silo` about no job, if it goes on with its last key."""
        row = self._db.execute(
            "SELECT seq + 1, payload_digest FROM entry WHERE job = '' AND silo = ? ORDER BY idx DESC LIMIT 1", (silo,)
        ).fetchone()
        return (row[0], row[1]) if row else (0, "")

    def roster_said(self, silo: str, payload_digest: str) -> tuple[int, bytes] | None:
        """Index and envelope of the last statement of `silo` about no job with this payload."""
        row = self._db.execute(
            "SELECT idx, envelope FROM entry WHERE job = '' AND silo = ? AND payload_digest = ? ORDER BY idx DESC LIMIT 1",
            (silo, payload_digest),
        ).fetchone()
        return (row[0], bytes(row[1])) if row else None

    def roster_entries(self, start: int, end: int) -> list[tuple[int, bytes]]:
        """Index and envelope of the entries about no job from `start` up to `end`, or as many as fit one answer."""
        rows = self._db.execute(
            "SELECT idx, envelope FROM entry WHERE job = '' AND idx >= ? AND idx < ? ORDER BY idx LIMIT ?",
            (start, end, MAX_ENTRIES_PER_READ),
        ).fetchall()
        entries: list[tuple[int, bytes]] = []
        total = 0
        for row in rows:
            total += len(row[1])
            if entries and total > MAX_BYTES_PER_READ:
                break
            entries.append((row[0], bytes(row[1])))
        return entries

    def of_job(self, job: str) -> list[tuple[int, bytes]]:
        """Index and envelope of every entry about `job`, in log order."""
        rows = self._db.execute("SELECT idx, envelope FROM entry WHERE job = ? ORDER BY idx", (job,)).fetchall()
        return [(row[0], bytes(row[1])) for row in rows]

    def size(self) -> int:
        """Number of entries."""
        return self.head()[0]

    def checkpoint(self) -> str:
        """The signed head."""
        return self.head()[1]

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
        ).fetchall():
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
        return self._at_once(lambda stored: merkle.inclusion_proof(index, size, stored))

    def consistency(self, first: int, second: int) -> list[bytes]:
        """Raises: Unknown if the log never had those sizes."""
        if not 1 <= first <= second <= self.size():
            raise Unknown(f"the log has {self.size()} entries; no proof leads from {first} to {second}")
        return self._at_once(lambda stored: merkle.consistency_proof(first, second, stored))

    def _at_once(self, compute: Callable[[merkle.Stored], T]) -> T:
        """What `compute` makes of subtrees, with one query for all of them: it is first run to see which it asks for."""
        wanted: list[int] = []

        def noted(level: int, index: int) -> bytes:
            wanted.extend((level, index))
            return bytes(merkle.HASH_BYTES)

        compute(noted)
        if not wanted:
            return compute(self.stored)
        one = "SELECT level, idx, hash FROM node WHERE level = ? AND idx = ?"
        rows = self._db.execute(" UNION ALL ".join([one] * (len(wanted) // 2)), wanted)
        found = {(row[0], row[1]): bytes(row[2]) for row in rows}
        return compute(lambda level, index: found.get((level, index)) or self.stored(level, index))

    def stored(self, level: int, index: int) -> bytes:
        """Hash of a complete subtree."""
        if self._growth is not None and (level, index) in self._growth.nodes:
            return self._growth.nodes[level, index]
        row = self._db.execute("SELECT hash FROM node WHERE level = ? AND idx = ?", (level, index)).fetchone()
        if row is None:
            raise Corrupt(f"the log's tree lacks node {index} of level {level}")
        return bytes(row[0])

    def head(self) -> tuple[int, str]:
        """Number of entries, and the signed checkpoint that says so."""
        row = self._db.execute("SELECT size, note FROM head").fetchone()
        if row is None:
            raise Corrupt("the log has no head")
        return int(row[0]), str(row[1])
