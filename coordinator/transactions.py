"""Transactions of the store: why nothing acknowledged is lost, and how many writes share one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from coordinator.database import Database
from coordinator.errors import Refusal, Unavailable
from coordinator.log import Log, Sign

T = TypeVar("T")


class Transactions:
    """A database with a log in it, and the way to change both at once."""

    def __init__(self, db: Database, sign: Sign) -> None:
        self._db = db
        self._in_batch = False
        self.log = Log(db, sign)

    @contextmanager
    def _transaction(self, *, checks_first: bool = False) -> Iterator[None]:
        """Commit what the block does and one new head of the log, or nothing of it.

        checks_first: the block raises a Refusal only before its first write, so that in a batch nothing has to be undone.
        """
        if self._in_batch:  # then what the block does is one part of the batch's transaction, and can be undone alone
            if checks_first:
                yield
                return
            mark = self.log.mark()
            try:
                with self._db.savepoint():
                    yield
            except Exception:
                self.log.back_to(mark)
                raise
            return
        # Why an acknowledged entry survives a crash at any instant:
        published = None
        try:
            #  1. The write lock is taken first, so everything read below is what the commit builds on.
            with self._db.transaction():
                yield
                #  2. All entries of the transaction get one head.  Entries, subtrees, head, jobs and roster are one
                #     commit: a crash before it is on disk leaves none of them, a crash after it all of them.
                sealed = self.log.seal()
            #  3. Only after the commit does a caller answer, so what was answered is on disk.  A crash between the
            #     commit and the answer leaves an entry nobody heard of: the sender repeats it and gets its old index.
            published = sealed
        finally:
            self.log.forget(published)

    def together(self, works: Sequence[Callable[[], T]]) -> list[T | Exception]:
        """Do all of it in one transaction, and return only when that is on disk: one sync and one signed head for all.

        Every work does what it does within a savepoint: one that is refused takes nothing of the others with it, and
        leaves nothing.  Its refusal stands in its place in the list.  If the transaction itself fails, nothing of it
        has happened; unless the database is away, each work is then done alone, so that one which cannot be done does
        not keep the others from being done.
        """
        if len(works) == 1:  # then the work's own transaction is the only one
            try:
                return [works[0]()]
            except Exception as exc:  # noqa: BLE001  whatever it is, it is told to whoever asked for it
                return [exc]
        try:
            with self._transaction():
                self._in_batch = True
                try:
                    return [_outcome(work) for work in works]
                finally:
                    self._in_batch = False
        except Unavailable as exc:
            return [exc] * len(works)
        except Exception:  # noqa: BLE001  as above, and then it is only one work's
            return [outcome for work in works for outcome in self.together([work])]


def _outcome(work: Callable[[], T]) -> T | Exception:
    try:
        return work()
    except Refusal as refusal:
        return refusal
