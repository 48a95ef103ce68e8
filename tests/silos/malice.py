"""What the operator of a coordinator can do with its keys and its database, for tests of what the silos then notice."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from coordinator import home as homes
from coordinator import merkle, server
from coordinator.envelope import Statement, seal
from coordinator.errors import Refusal
from coordinator.home import DATABASE
from coordinator.log import Entry
from coordinator.server import Running
from silos.config import Home
from silos.validation import write_private


class Row(NamedTuple):
    """A row of the log's table, without its index."""

    job: str
    silo: str
    seq: int
    payload_digest: str
    received: int
    envelope: bytes


@dataclass(frozen=True)
class Operator:
    """Whoever runs the coordinator of a directory.  It works beside the running server."""

    home: Path

    def rows(self) -> list[Row]:
        """The log as it is."""
        columns = "job, silo, seq, payload_digest, received, envelope"
        with closing(sqlite3.connect(self.home / DATABASE)) as db:
            return [Row(*row) for row in db.execute(f"SELECT {columns} FROM entry ORDER BY idx")]  # noqa: S608

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Another history in the place of the one that was, with a right tree and a head signed by the log's key."""
        stored: dict[tuple[int, int], bytes] = {}
        for index, row in enumerate(rows):
            for level, place, value in merkle.grow(index, row.envelope, lambda *at: stored[at]):
                stored[level, place] = value
        note = homes.load(self.home).sign_head(len(rows), merkle.root(len(rows), lambda *at: stored[at]))
        with closing(sqlite3.connect(self.home / DATABASE)) as db, db:
            db.execute("DELETE FROM entry")
            db.execute("DELETE FROM node")
            db.executemany("INSERT INTO entry VALUES(?, ?, ?, ?, ?, ?, ?)", [(i, *row) for i, row in enumerate(rows)])
            db.executemany("INSERT INTO node VALUES(?, ?, ?)", [(*at, value) for at, value in stored.items()])
            db.execute("UPDATE head SET size = ?, note = ?", (len(rows), note))

    def append(self, envelope: bytes) -> None:
        """Log an entry that nobody has checked."""
        said = Entry.parse(envelope).sealed
        statement = said.statement
        row = Row(statement.job, statement.silo, statement.seq, said.payload_digest, 0, envelope)
        self.rewrite([*self.rows(), row])

    def say(self, statement: Statement) -> None:
        """Log a statement under the log's own key."""
        self.append(seal(statement, homes.load(self.home).log_key))

    def set_key(self, silo: str, key: bytes) -> None:
        """List another identity key for a silo than the log says."""
        with closing(sqlite3.connect(self.home / DATABASE)) as db, db:
            db.execute("UPDATE silo SET identity_key = ? WHERE name = ?", (key, silo))

    def set_tls_key(self, silo: str, spki: str) -> None:
        """Let another TLS key connect in a silo's name."""
        with closing(sqlite3.connect(self.home / DATABASE)) as db, db:
            db.execute("UPDATE silo SET spki = ? WHERE name = ?", (spki, silo))

    def copy(self, to: Path) -> Operator:
        """A second coordinator with the same keys and, so far, the same log."""
        shutil.copytree(self.home, to, ignore=shutil.ignore_patterns(f"{DATABASE}*"))
        with closing(sqlite3.connect(self.home / DATABASE)) as ours, closing(sqlite3.connect(to / DATABASE)) as theirs:
            ours.backup(theirs)
        return Operator(to)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[str, Running]]:
        """Its address, and the running coordinator."""
        async with server.running(self.home, "127.0.0.1", 0) as running:
            yield f"https://127.0.0.1:{running.port}", running


def point(home: Home, url: str) -> None:
    """Let a silo's connections go to another server, as whoever holds the coordinator's name and TLS key can."""
    write_private(home.coordinator, home.load_enrolment().model_copy(update={"url": url}).model_dump_json())


async def carry(one: Running, other: Running, job: str) -> None:
    """Show each of two logs what was said about a job in the other; whatever cannot follow there is left out."""
    for a, b in ((one.coordinator, other.coordinator), (other.coordinator, one.coordinator)):
        theirs = {raw for _, raw in await b.store.call(lambda store: store.job_entries(job))}
        ours = [Entry.parse(raw) for _, raw in await a.store.call(lambda store: store.job_entries(job))]
        if not theirs and ours:
            await b.submit(ours[:2])
        for entry in ours[2:]:
            if entry.envelope not in theirs:
                with contextlib.suppress(Refusal):
                    await b.append(entry)
