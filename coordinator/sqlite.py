"""The database as one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from coordinator.database import Database, Rows
from coordinator.errors import Conflict, Unavailable


class SqliteDatabase(Database):
    """A file in WAL mode, synced at every commit."""

    def __init__(self, path: Path) -> None:
        """Open a file that exists; an absent one is never made by accident.  Raises: Unavailable."""
        with _unavailable():
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._db.execute(f"PRAGMA {pragma}")

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """See Database."""
        with _unavailable():
            return self._db.execute(sql, parameters)

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """See Database."""
        with _unavailable():
            self._db.executemany(sql, rows)

    def create(self, schema: str) -> None:
        """See Database."""
        if self.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone():
            raise Conflict("the database holds tables already")
        with self.transaction():
            for statement in schema.split(";"):
                self.execute(statement)

    def begin(self) -> None:
        """IMMEDIATE takes the write lock first."""
        self.execute("BEGIN IMMEDIATE")

    def begin_reading(self) -> None:
        """In WAL mode readers have a snapshot from their first query on."""
        self.execute("BEGIN")

    def commit(self) -> None:
        """Before COMMIT returns, SQLite has written the pages to the WAL and, with synchronous=FULL, synced it.

        A crash before that point leaves a WAL without a valid commit record, which the next open ignores.
        """
        self.execute("COMMIT")

    def rollback(self) -> None:
        """A full disk or an I/O error has rolled back already."""
        if self._db.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        """See Database."""
        self._db.close()


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as exc:
        raise Unavailable(f"the database cannot be used now: {exc}") from exc
