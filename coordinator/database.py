"""What the store needs of a database, and the two things that every one of them does alike: transactions and savepoints.

The SQL of this package is what SQLite and PostgreSQL share, with `?` for a parameter.  What they do not share is in
sqlite.py and postgres.py, and nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol


class Rows(Protocol):
    """What a statement gave.  rowcount: how many rows it changed."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""

    def fetchone(self) -> Any:
        """The next row as a tuple, or None."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """Row after row."""


class Database(ABC):
    """One connection, used by one thread.  Outside a transaction every statement commits by itself.

    All methods raise Unavailable if the database cannot do it now: no disk space, no connection, a lock that is held.
    """

    @abstractmethod
    def execute(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """Run one statement."""

    @abstractmethod
    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row of parameters."""

    @abstractmethod
    def create(self, schema: str) -> None:
        """Make the tables, all or none.  Raises: Conflict if there are some."""

    @abstractmethod
    def begin(self) -> None:
        """Open a transaction that no other writer can come between: what it reads is what its commit builds on."""

    @abstractmethod
    def begin_reading(self) -> None:
        """Open a transaction that only reads, and sees the database as it is at one moment."""

    @abstractmethod
    def commit(self) -> None:
        """Return only when the transaction is on disk.  After Unavailable it is on disk, or none of it is."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo an open transaction; nothing happens if there is none."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does, or nothing of it if it raises."""
        self.begin()
        try:
            yield
            self.commit()
        finally:
            self.rollback()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What the block reads is of one moment, whatever other processes commit meanwhile."""
        self.begin_reading()
        try:
            yield
        finally:
            self.rollback()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Inside a transaction: undo what the block did if it raises, and only that."""
        self.execute("SAVEPOINT part")
        try:
            yield
        except Exception:
            self.execute("ROLLBACK TO SAVEPOINT part")
            raise
        self.execute("RELEASE SAVEPOINT part")
