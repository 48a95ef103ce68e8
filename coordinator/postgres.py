"""The database as a schema of a PostgreSQL server, for coordinators with more work than one file should carry.

Needs the extra `accord[postgres]`.  The address is a libpq one; tables are made in the first schema of its search path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import LiteralString

import psycopg
from psycopg.errors import DuplicateTable, ReadOnlySqlTransaction, UndefinedTable
from psycopg.pq import TransactionStatus

from coordinator.database import Database, Rows
from coordinator.errors import Conflict, Corrupt, Malformed, Unavailable

CONNECT_WAIT_S = 10
LOCK_WAIT = "30s"
_SAFE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


class PostgresDatabase(Database):
    """One connection, made again when it was lost."""

    def __init__(self, url: str) -> None:
        """Connect.  Raises: Unavailable; Corrupt if the server is set up to lose what it has committed."""
        self._url = url
        self._in_transaction = False
        self._db = self._connect()

    def _connect(self) -> psycopg.Connection:
        with _unavailable():
            try:
                db = psycopg.connect(
                    self._url, autocommit=True, connect_timeout=CONNECT_WAIT_S, application_name="accord coordinator"
                )
            except psycopg.ProgrammingError:  # its text may quote the address with a password in it
                raise Corrupt("the database's address is not one that PostgreSQL's libpq accepts") from None
            # A server may be told to answer a COMMIT early; what we acknowledge must be on its disk.
            db.execute("SET synchronous_commit = on")
            db.execute(f"SET lock_timeout = '{LOCK_WAIT}'")
            for name, needed in _SAFE.items():
                row = db.execute(f"SHOW {name}").fetchone()
                if row is None or row[0] != needed:
                    db.close()
                    raise Corrupt(f"the PostgreSQL server runs with {name} off and would lose entries in a crash")
        return db

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """See Database."""
        with _unavailable():
            if self._db.closed and not self._in_transaction:  # else the rest of a lost transaction would run alone
                self._db = self._connect()
            try:
                return self._db.execute(_dialect(sql), parameters or None)
            except psycopg.DataError as exc:  # such as the character NUL in a text
                raise Malformed("the database cannot hold a value of the request") from exc

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """See Database."""
        with _unavailable(), self._db.cursor() as cursor:
            cursor.executemany(_dialect(sql), rows)

    def create(self, schema: str) -> None:
        """See Database."""
        schema = schema.replace(" STRICT, WITHOUT ROWID", "").replace(" STRICT", "")
        schema = schema.replace("INTEGER", "BIGINT").replace("BLOB", "BYTEA").replace("TEXT", 'TEXT COLLATE "C"')
        try:
            self.execute(f"BEGIN; {schema}; COMMIT")
        except DuplicateTable as exc:
            raise Conflict("the database holds tables already") from exc
        finally:
            self.rollback()

    def begin(self) -> None:
        """The lock on `head` is what BEGIN IMMEDIATE is to SQLite: writers queue, readers do not wait.

        Each statement after it sees what was committed before it (READ COMMITTED), and no other writer commits until
        we do.  A connection that was lost since the last transaction is made again here, where nothing can be lost.
        """
        start = "BEGIN; LOCK TABLE head IN EXCLUSIVE MODE"
        try:
            self.execute(start)
        except Unavailable:
            if not self._db.closed:
                self.rollback()
                raise
            self.execute(start)
        self._in_transaction = True

    def begin_reading(self) -> None:
        """See Database."""
        self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        self._in_transaction = True

    def commit(self) -> None:
        """With synchronous_commit=on and fsync=on the answer to COMMIT comes after the WAL is on the server's disk.

        If the connection breaks before the answer, nobody here knows whether it was: the caller tells the sender so, and
        the sender repeats its entry, which then is new or gets its old index.
        """
        with _unavailable():
            done = self._db.execute("COMMIT").statusmessage
        if done != "COMMIT":  # after an error that somebody swallowed the server answers ROLLBACK, and no error
            raise Unavailable("the database rolled the transaction back")

    def rollback(self) -> None:
        """A lost connection has rolled back already."""
        self._in_transaction = False
        if not self._db.closed and self._db.info.transaction_status != TransactionStatus.IDLE:
            with suppress(Unavailable):
                self.execute("ROLLBACK")

    def close(self) -> None:
        """See Database."""
        self._db.close()


def _dialect(sql: str) -> LiteralString:
    return sql.replace("?", "%s")


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, ReadOnlySqlTransaction, UndefinedTable) as exc:
        # Only the first line: libpq adds the address, and its own hints, below it.
        reason = (str(exc) or type(exc).__name__).splitlines()[0]
        raise Unavailable(f"the database cannot be used now: {reason}") from exc
