"""The cosignatures that witnesses left here: which checkpoint they cosigned last, and which one enough of them did."""

from __future__ import annotations

from coordinator.cosign import Cosignature, with_lines
from coordinator.database import Database
from coordinator.errors import Conflict, Unknown
from coordinator.log import Log, Sign
from coordinator.note import MAX_SIGNATURES

KEPT_PER_WITNESS = 32

SCHEMA = """
CREATE TABLE cosignature(
    silo TEXT NOT NULL, size INTEGER NOT NULL, identity_key BLOB NOT NULL, line TEXT NOT NULL,
    PRIMARY KEY(silo, size)) STRICT, WITHOUT ROWID;
CREATE INDEX cosigned ON cosignature(size);
"""
# A line counts while the silo is enrolled with the key that made it.
_COUNTED = (
    "cosignature JOIN silo ON silo.name = cosignature.silo"
    " AND silo.identity_key = cosignature.identity_key AND silo.revoked = 0"
)


class Witnesses:
    """The table of cosignatures over one connection, beside the log's.  sign: the log's own, which gives one text each time."""

    def __init__(self, db: Database, log: Log, sign: Sign) -> None:
        self._db, self._log, self._sign = db, log, sign

    def add(self, silo: str, identity_key: bytes, size: int, made: Cosignature) -> None:
        """Keep a verified line of a witness; one for the same size replaces the one before.

        Raises: Conflict if the witness cosigned a larger checkpoint before: it says which one is the largest it saw.
        """
        rows = self._db.execute(
            "SELECT size FROM cosignature WHERE silo = ? ORDER BY size DESC LIMIT ?", (silo, KEPT_PER_WITNESS)
        ).fetchall()
        if rows and rows[0][0] > size:
            raise Conflict(f"{silo} has cosigned {rows[0][0]} entries already, this checkpoint has {size}")
        self._db.execute(
            "INSERT INTO cosignature(silo, size, identity_key, line) VALUES(?, ?, ?, ?)"
            " ON CONFLICT(silo, size) DO UPDATE SET identity_key = excluded.identity_key, line = excluded.line",
            (silo, size, identity_key, made.line),
        )
        if len(rows) == KEPT_PER_WITNESS:
            self._db.execute("DELETE FROM cosignature WHERE silo = ? AND size < ?", (silo, rows[-1][0]))

    def newest(self) -> str:
        """The newest checkpoint, with the lines of those who cosigned that very size."""
        size, note = self._log.head()
        return with_lines(note, self._lines(size))

    def cosigned(self, least: int) -> str:
        """The newest checkpoint that at least `least` witnesses cosigned, with their lines.  Raises: Unknown."""
        row = self._db.execute(
            f"SELECT size FROM {_COUNTED} GROUP BY size HAVING count(*) >= ? ORDER BY size DESC LIMIT 1",  # noqa: S608
            (max(least, 1),),
        ).fetchone()
        if row is None:
            raise Unknown(f"no checkpoint is cosigned by {max(least, 1)} witnesses yet")
        size = int(row[0])
        return with_lines(self._sign(size, self._log.root(size)), self._lines(size))

    def _lines(self, size: int) -> list[str]:
        rows = self._db.execute(
            f"SELECT line FROM {_COUNTED} WHERE size = ? ORDER BY silo.name LIMIT ?",  # noqa: S608
            (size, MAX_SIGNATURES - 1),
        )
        return [row[0] for row in rows]
