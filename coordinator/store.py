"""The coordinator's database: roster, tokens, jobs, the log and its witnesses' cosignatures.

Whatever a request changes is one transaction: the log entry, the job it moves and the roster row stand or fall together.
Many requests may share one (see `together`), and then each still stands or falls by itself.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

from pydantic import TypeAdapter

from coordinator import log as tlog
from coordinator import roster, witnesses
from coordinator.cosign import WitnessKey, verify_cosignature
from coordinator.database import Database
from coordinator.envelope import EnvelopeError, fingerprint
from coordinator.errors import Conflict, Corrupt, Forbidden, Malformed, RolledBack, Unknown
from coordinator.jobs import OPEN, Job, Said, apply
from coordinator.log import Entry, Seen
from coordinator.note import NoteError, VerifierKey, open_checkpoint
from coordinator.roster import Roster
from coordinator.statements import format_time
from coordinator.tiles import Tile

SCHEMA_VERSION = 1
MAX_JOBS_LISTED = 500

_SCHEMA = (
    tlog.SCHEMA
    + witnesses.SCHEMA
    + roster.SCHEMA
    + """
CREATE TABLE schema_version(version INTEGER NOT NULL) STRICT;
CREATE TABLE job(
    id TEXT PRIMARY KEY, state TEXT NOT NULL, valid_until TEXT NOT NULL, snapshot TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX job_state ON job(state, valid_until);
CREATE TABLE member(
    silo TEXT NOT NULL, created TEXT NOT NULL, job TEXT NOT NULL REFERENCES job(id),
    PRIMARY KEY(silo, created, job)) STRICT, WITHOUT ROWID;
"""
)
_JOB = TypeAdapter(Job)

T = TypeVar("T")


@dataclass(frozen=True)
class Accepted:
    """What became of an entry.  fresh: False if the very same envelope had been accepted before."""

    index: int
    job: Job
    fresh: bool


class Store(Roster):
    """Every read and write of the coordinator's state.  Blocking; used by one thread (see coordinator.writing)."""

    def __init__(self, db: Database, log_key: VerifierKey, sign: tlog.Sign, *, create: bool = False) -> None:
        """Use a database, or make its tables first with create=True.

        Raises: Corrupt if its parts contradict each other; Conflict if tables that shall be made are there; Unavailable.
        """
        super().__init__(db, log_key, sign)
        self.witnesses = witnesses.Witnesses(db, self.log, sign)
        if create:
            db.create(_SCHEMA)
            with db.transaction():
                db.execute("INSERT INTO schema_version(version) VALUES(?)", (SCHEMA_VERSION,))
                self.log.create_head()
        version = db.execute("SELECT version FROM schema_version").fetchone()
        if version is None or version[0] != SCHEMA_VERSION:
            has = version[0] if version else "none"
            raise Corrupt(f"the database has schema version {has}, this program needs {SCHEMA_VERSION}")
        with db.snapshot():  # another process may be writing
            self.log.check(partial(open_checkpoint, key=log_key))

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    # --- jobs

    def submit(self, entries: Sequence[Entry], now: dt.datetime) -> list[Accepted]:
        """Start a job with its first two entries, both or neither.

        Raises: Malformed, Forbidden or Conflict.
        """
        if [entry.sealed.statement.event for entry in entries] != ["proposed", "disclosed"]:
            raise Malformed("a job starts with a 'proposed' and a 'disclosed' entry")
        with self._transaction():
            return [self._accept(entry, self.job(entry.sealed.statement.job), now) for entry in entries]

    def append(self, entry: Entry, now: dt.datetime) -> Accepted:
        """Move a job by one entry: signature, chain and transition are checked in the transaction that writes.

        Raises: Unknown, Malformed, Forbidden or Conflict.
        """
        with self._transaction(checks_first=True):
            job = self.job(entry.sealed.statement.job)
            if job is None:
                raise Unknown("there is no such job")
            return self._accept(entry, job, now)

    def _accept(self, entry: Entry, job: Job | None, now: dt.datetime) -> Accepted:
        """All checks, then all writes: what `append` promises to the transaction.  job: as it stands, None if it is new."""
        said = entry.sealed.statement
        before, follows = self.log.place(said.job, said.silo, said.seq)
        if before is not None and job is not None:
            if before[1] == entry.envelope:
                return Accepted(before[0], job, fresh=False)
            raise Conflict(f"{said.silo} has said something else as its entry {said.seq} of this job")
        key = self._signing_key(said.silo)
        try:
            entry.sealed.verify(key)
        except EnvelopeError as exc:
            raise Forbidden(str(exc)) from exc
        if said.prev != follows:
            expected = self.log.next_seq(said.job, said.silo)
            raise Conflict(
                f"the next entry of {said.silo} in this job has seq {expected} and names its previous one; got {said.seq}"
            )
        after = apply(job, Said(said, fingerprint(key), now))
        if job is None:
            self._check_enrolled(after)
        index = self.log.append(entry, int(now.timestamp()))
        self._save(after, new=job is None)
        return Accepted(index, after, fresh=True)

    def _check_enrolled(self, job: Job) -> None:
        for name in job.participants:
            silo = self.silo(name)
            if silo is None or silo.revoked:
                raise Malformed(f"the job names '{name}', which is not enrolled")

    def _save(self, job: Job, *, new: bool) -> None:
        snapshot = _JOB.dump_json(job).decode()
        if not new:
            self._db.execute("UPDATE job SET state = ?, snapshot = ? WHERE id = ?", (job.state.value, snapshot, job.id))
        else:
            self._db.execute(
                "INSERT INTO job(id, state, valid_until, snapshot) VALUES(?, ?, ?, ?)",
                (job.id, job.state.value, job.valid_until, snapshot),
            )
            members = {job.submitter, *job.participants}
            self._db.executemany(
                "INSERT INTO member(silo, created, job) VALUES(?, ?, ?)", [(m, job.created, job.id) for m in members]
            )

    def job(self, job_id: str) -> Job | None:
        """Where a job stands."""
        row = self._db.execute("SELECT snapshot FROM job WHERE id = ?", (job_id,)).fetchone()
        return _JOB.validate_json(row[0]) if row else None

    def jobs_of(self, silo: str) -> list[Job]:
        """The jobs that `silo` submitted or takes part in, newest first, at most MAX_JOBS_LISTED."""
        rows = self._db.execute(
            "SELECT snapshot FROM member JOIN job ON job.id = member.job WHERE silo = ? ORDER BY created DESC, job LIMIT ?",
            (silo, MAX_JOBS_LISTED),
        )
        return [_JOB.validate_json(row[0]) for row in rows]

    def overdue(self, now: dt.datetime) -> list[Job]:
        """Open jobs whose valid_until has passed."""
        marks = ", ".join("?" * len(OPEN))
        rows = self._db.execute(
            f"SELECT snapshot FROM job WHERE state IN ({marks}) AND valid_until <= ?",  # noqa: S608  only marks
            (*OPEN, format_time(now)),
        )
        return [_JOB.validate_json(row[0]) for row in rows]

    def job_entries(self, job_id: str) -> list[tuple[int, bytes]]:
        """Index and envelope of a job's entries."""
        return self.log.of_job(job_id)

    def read_log(self, silo: str, start: int, end: int) -> list[Seen]:
        """A page of the log as `silo` may see it: enrolments and its own jobs' entries in full, of all others the hash.

        Raises: Unknown if there is no such page.
        """

        @cache
        def readable(job_id: str) -> bool:
            job = self.job(job_id)
            return not job_id or (job is not None and job.involves(silo))

        return self.log.read(start, end, readable)

    def roster_entries(self, start: int, end: int) -> list[tuple[int, bytes]]:
        """Index and envelope of the entries about no job from `start` up to `end`, or as many as fit one answer."""
        return self.log.roster_entries(start, end)

    # --- witnesses

    def add_cosignature(self, silo: str, note: str) -> int:
        """Keep the line by which a silo cosigned a checkpoint of this log; returns the checkpoint's size.

        note: the checkpoint with the log's own signature and the silo's line.
        Raises: Malformed if it is not that; Conflict if the silo cosigned a larger one before; RolledBack if the log
        signed this checkpoint and the database does not hold it: then the log takes no entries until it does.
        """
        with self._transaction():
            row = self.silo(silo)
            if row is None or row.revoked:
                raise Forbidden(f"'{silo}' is not enrolled")
            try:
                seen = open_checkpoint(note, self._log_key)
                made = verify_cosignature(note, WitnessKey(silo, row.identity_key))
            except NoteError as exc:
                raise Malformed(str(exc)) from exc
            held = self.log.holds(seen)
            if held:
                self.witnesses.add(silo, row.identity_key, seen.size, made)
            else:
                self.log.keep_ahead(seen, note)
        if not held:  # after the transaction, which must not be undone
            raise RolledBack(f"{silo} has seen this log with {seen.size} entries that its database does not have")
        return seen.size

    def checkpoint_note(self) -> str:
        """The newest checkpoint, with the lines of the witnesses that cosigned that very size."""
        return self.witnesses.newest()

    def cosigned_note(self, least: int | None = None) -> str:
        """The newest checkpoint that at least `least` witnesses cosigned; None: more than half of the enrolled silos.

        Raises: Unknown.
        """
        if least is None:
            (silos,) = self._db.execute("SELECT count(*) FROM silo WHERE revoked = 0").fetchone()
            least = silos // 2 + 1
        return self.witnesses.cosigned(least)

    def tile(self, tile: Tile) -> bytes:
        """The hashes of a tile.  Raises: Unknown."""
        return self.log.tile(tile)
