"""The coordinator's one SQLite file: roster, tokens, jobs and the log, and the one thread that touches it.

Whatever a request changes is one transaction: the log entry, the job it moves and the roster row stand or fall together.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from pydantic import TypeAdapter

from coordinator import log as tlog
from coordinator.enrol import Enrolment, TokenRecord, check_name, check_token
from coordinator.envelope import EnvelopeError, fingerprint
from coordinator.errors import Conflict, Corrupt, Forbidden, Malformed, Unknown
from coordinator.jobs import OPEN, Job, Said, apply
from coordinator.log import Entry, Log, Seen
from coordinator.note import VerifierKey, open_checkpoint
from coordinator.statements import COORDINATOR, format_time

SCHEMA_VERSION = 1
MAX_JOBS_LISTED = 500

_SCHEMA = (
    tlog.SCHEMA
    + """
CREATE TABLE silo(
    name TEXT PRIMARY KEY, identity_key BLOB NOT NULL, spki TEXT NOT NULL, enrolled_at INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
CREATE TABLE token(
    id TEXT PRIMARY KEY, silo TEXT NOT NULL, secret_hash BLOB NOT NULL, expires INTEGER NOT NULL,
    allow_replace INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
CREATE TABLE job(
    id TEXT PRIMARY KEY, state TEXT NOT NULL, valid_until TEXT NOT NULL, snapshot TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX job_state ON job(state, valid_until);
CREATE TABLE member(
    silo TEXT NOT NULL, created TEXT NOT NULL, job TEXT NOT NULL REFERENCES job(id),
    PRIMARY KEY(silo, created, job)) STRICT, WITHOUT ROWID;
"""
)
_JOB = TypeAdapter(Job)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Silo:
    """A row of the roster.  spki: hash of the TLS key its requests must come with."""

    name: str
    identity_key: bytes
    spki: str
    enrolled_at: dt.datetime
    revoked: bool


@dataclass(frozen=True)
class Accepted:
    """What became of an entry.  fresh: False if the very same envelope had been accepted before."""

    index: int
    job: Job
    fresh: bool


class Store:
    """Every read and write of the coordinator's state.  Blocking; used by one thread (see StoreThread)."""

    def __init__(self, path: Path, log_key: VerifierKey, sign: tlog.Sign, *, create: bool = False) -> None:
        """Open the file, or make it with create=True; an absent file is never made by accident.

        Raises: Corrupt if its parts contradict each other, sqlite3.Error if it cannot be opened.
        """
        self._log_key = log_key
        self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        self.log = Log(self._db, sign)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        if create:
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                self.log.create_head()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            raise Corrupt(f"{path.name} has schema version {version}, this program needs {SCHEMA_VERSION}")
        self.log.check(partial(open_checkpoint, key=log_key))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # Why an acknowledged entry survives a crash at any instant:
        #  1. BEGIN IMMEDIATE takes the write lock first, so everything read below is what the commit builds on.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            #  2. Before COMMIT returns, SQLite has written the pages to the WAL and, with synchronous=FULL, synced it.
            #     A crash before that point leaves a WAL without a valid commit record, which the next open ignores:
            #     neither the entry, nor the head, nor the job has moved.
            #  3. Only after COMMIT does a caller answer, so what was answered is on disk.  A crash between the commit
            #     and the answer leaves an entry nobody heard of: the sender repeats it and gets its old index.
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # not after COMMIT, and a full disk or an I/O error has rolled back already
                self._db.execute("ROLLBACK")

    # --- roster

    def add_token(self, token: TokenRecord) -> None:
        """Remember a join token (its secret's hash)."""
        self._db.execute(
            "INSERT INTO token(id, silo, secret_hash, expires, allow_replace) VALUES(?, ?, ?, ?, ?)",
            (token.id, token.silo, token.secret_hash, int(token.expires.timestamp()), token.allow_replace),
        )

    def token(self, token_id: str) -> TokenRecord | None:
        """The record of a token, if there is one."""
        row = self._db.execute(
            "SELECT id, silo, secret_hash, expires, allow_replace, used FROM token WHERE id = ?", (token_id,)
        ).fetchone()
        return row and TokenRecord(row[0], row[1], row[2], _time(row[3]), bool(row[4]), bool(row[5]))

    def enrol(self, request: Enrolment, token_id: str, secret: str, now: dt.datetime) -> int:
        """Use up a token, put the silo on the roster and its first entry in the log; returns the entry's index.

        Raises: NotAuthenticated, Malformed or Conflict; then the token is as good as before.
        """
        with self._transaction():
            token = check_token(self.token(token_id), secret, now)
            check_name(request, token, taken=self.silo(token.silo) is not None)
            holder = self._db.execute(
                "SELECT name FROM silo WHERE identity_key = ? AND name <> ?", (request.identity_key, token.silo)
            ).fetchone()
            if holder is not None:
                raise Conflict("the identity key is enrolled under another name")
            self._db.execute("UPDATE token SET used = 1 WHERE id = ?", (token_id,))
            self._db.execute(
                "INSERT INTO silo(name, identity_key, spki, enrolled_at) VALUES(?, ?, ?, ?)"
                " ON CONFLICT(name) DO UPDATE SET identity_key = excluded.identity_key, spki = excluded.spki,"
                " enrolled_at = excluded.enrolled_at, revoked = 0",
                (token.silo, request.identity_key, request.spki, int(now.timestamp())),
            )
            return self.log.append(Entry(request.envelope, request.sealed), int(now.timestamp()))

    def renew(self, silo: str, old_spki: str, new_spki: str) -> None:
        """From now on `silo` connects with another TLS key.

        Raises: Forbidden if `old_spki` is no longer the accepted one.
        """
        changed = self._db.execute(
            "UPDATE silo SET spki = ? WHERE name = ? AND spki = ? AND revoked = 0", (new_spki, silo, old_spki)
        )
        if changed.rowcount != 1:
            raise Forbidden(f"the TLS key of {silo} is no longer accepted")

    def revoke(self, silo: str) -> None:
        """Raises: Unknown if no such silo is enrolled."""
        if self._db.execute("UPDATE silo SET revoked = 1 WHERE name = ?", (silo,)).rowcount != 1:
            raise Unknown(f"no silo '{silo}' is enrolled")

    def silo(self, name: str) -> Silo | None:
        """The roster's row for a name, revoked or not."""
        row = self._db.execute(
            "SELECT name, identity_key, spki, enrolled_at, revoked FROM silo WHERE name = ?", (name,)
        ).fetchone()
        return row and Silo(row[0], row[1], row[2], _time(row[3]), bool(row[4]))

    def roster(self) -> list[Silo]:
        """Every silo, revoked ones too, by name."""
        rows = self._db.execute("SELECT name, identity_key, spki, enrolled_at, revoked FROM silo ORDER BY name")
        return [Silo(row[0], row[1], row[2], _time(row[3]), bool(row[4])) for row in rows]

    # --- jobs

    def submit(self, entries: Sequence[Entry], now: dt.datetime) -> list[Accepted]:
        """Start a job with its first two entries, both or neither.

        Raises: Malformed, Forbidden or Conflict.
        """
        if [entry.sealed.statement.event for entry in entries] != ["proposed", "disclosed"]:
            raise Malformed("a job starts with a 'proposed' and a 'disclosed' entry")
        with self._transaction():
            return [self._accept(entry, now) for entry in entries]

    def append(self, entry: Entry, now: dt.datetime) -> Accepted:
        """Move a job by one entry: signature, chain and transition are checked in the transaction that writes.

        Raises: Unknown, Malformed, Forbidden or Conflict.
        """
        with self._transaction():
            if self.job(entry.sealed.statement.job) is None:
                raise Unknown("there is no such job")
            return self._accept(entry, now)

    def _accept(self, entry: Entry, now: dt.datetime) -> Accepted:
        said = entry.sealed.statement
        job = self.job(said.job)
        before = self.log.said_at(said.job, said.silo, said.seq)
        if before is not None and job is not None:
            if before[1] == entry.envelope:
                return Accepted(before[0], job, fresh=False)
            raise Conflict(f"{said.silo} has said something else as its entry {said.seq} of this job")
        key = self._signing_key(said.silo)
        try:
            entry.sealed.verify(key)
        except EnvelopeError as exc:
            raise Forbidden(str(exc)) from exc
        if (said.seq, said.prev) != (expected := self.log.chain_end(said.job, said.silo)):
            raise Conflict(
                f"the next entry of {said.silo} in this job has seq {expected[0]} and names its previous one; got {said.seq}"
            )
        after = apply(job, Said(said, fingerprint(key), now))
        if job is None:
            self._check_enrolled(after)
        index = self.log.append(entry, int(now.timestamp()))
        self._save(after, new=job is None)
        return Accepted(index, after, fresh=True)

    def _signing_key(self, name: str) -> bytes:
        if name == COORDINATOR:
            return self._log_key.key
        silo = self.silo(name)
        if silo is None or silo.revoked:
            raise Forbidden(f"'{name}' is not enrolled")
        return silo.identity_key

    def _check_enrolled(self, job: Job) -> None:
        for name in job.participants:
            silo = self.silo(name)
            if silo is None or silo.revoked:
                raise Malformed(f"the job names '{name}', which is not enrolled")

    def _save(self, job: Job, *, new: bool) -> None:
        snapshot = _JOB.dump_json(job).decode()
        self._db.execute(
            "INSERT INTO job(id, state, valid_until, snapshot) VALUES(?, ?, ?, ?)"
            " ON CONFLICT(id) DO UPDATE SET state = excluded.state, snapshot = excluded.snapshot",
            (job.id, job.state, job.valid_until, snapshot),
        )
        if new:
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


class StoreThread:
    """Runs the store's blocking calls one after another in a thread of their own, so the event loop never waits on a disk."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open = open_store
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._store: Store | None = None

    async def start(self) -> None:
        """Open the file.  Raises what Store raises."""
        self._store = await asyncio.get_running_loop().run_in_executor(self._executor, self._open)

    async def call(self, method: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `method(store, ...)`.  A caller that is cancelled does not stop what has begun."""
        if self._store is None:
            raise RuntimeError("the store is not open")
        work = partial(method, self._store, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def stop(self) -> None:
        """Finish what was asked for, then close the file."""
        if self._store is not None:
            await self.call(Store.close)
            self._store = None
        self._executor.shutdown()


def _time(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
