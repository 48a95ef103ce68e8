"""The roster: who is enrolled, with which identity key and which TLS key.  Every change of an identity key is in the log."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coordinator.database import Database
from coordinator.enrol import Enrolment, TokenRecord, check_name, check_token, read_rotation
from coordinator.envelope import EnvelopeError, fingerprint
from coordinator.errors import Conflict, Forbidden, Malformed, Unknown
from coordinator.log import Entry, Sign
from coordinator.note import VerifierKey
from coordinator.statements import COORDINATOR
from coordinator.transactions import T, Transactions


@dataclass(frozen=True)
class Silo:
    """A row of the roster.  spki: hash of the TLS key its requests must come with."""

    name: str
    identity_key: bytes
    spki: str
    enrolled_at: dt.datetime
    revoked: bool


SCHEMA = """
CREATE TABLE silo(
    name TEXT PRIMARY KEY, identity_key BLOB NOT NULL, spki TEXT NOT NULL, enrolled_at INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
-- Every identity key that the log has ever named, and whose it was: no other silo can take it, and a revoked one nobody.
CREATE TABLE named_key(
    identity_key BLOB PRIMARY KEY, silo TEXT NOT NULL, revoked INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
CREATE TABLE token(
    id TEXT PRIMARY KEY, silo TEXT NOT NULL, secret_hash BLOB NOT NULL, expires INTEGER NOT NULL,
    allow_replace INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
"""


class Roster(Transactions):
    """The part of the store that knows silos and their keys.  log_key: what the coordinator's statements are signed with."""

    def __init__(self, db: Database, log_key: VerifierKey, sign: Sign) -> None:
        super().__init__(db, sign)
        self._log_key = log_key
        self._keys: dict[str, bytes] = {}  # within one batch, in which no other writer can change them

    def add_token(self, token: TokenRecord) -> None:
        """Remember a join token (its secret's hash)."""
        self._db.execute(
            "INSERT INTO token(id, silo, secret_hash, expires, allow_replace) VALUES(?, ?, ?, ?, ?)",
            (token.id, token.silo, token.secret_hash, int(token.expires.timestamp()), int(token.allow_replace)),
        )

    def token(self, token_id: str) -> TokenRecord | None:
        """The record of a token, if there is one."""
        row = self._db.execute(
            "SELECT id, silo, secret_hash, expires, allow_replace, used FROM token WHERE id = ?", (token_id,)
        ).fetchone()
        return row and TokenRecord(row[0], row[1], bytes(row[2]), _time(row[3]), bool(row[4]), bool(row[5]))

    def enrol(self, request: Enrolment, token_id: str, secret: str, now: dt.datetime) -> int:
        """Use up a token, put the silo on the roster and its first entry in the log; returns the entry's index.

        Raises: NotAuthenticated, Malformed or Conflict; then the token is as good as before.
        """
        with self._transaction():
            token = check_token(self.token(token_id), secret, now)
            check_name(request, token, taken=self.silo(token.silo) is not None)
            if self._named(request.identity_key) not in (None, token.silo):
                raise Conflict("the identity key is enrolled under another name")
            if self._revoked_key(request.identity_key):
                raise Conflict("the identity key was revoked; make another one")
            if self.log.roster_said(token.silo, request.sealed.payload_digest) is not None:
                raise Conflict("this enrolment is in the log already; make another one")
            self._name_key(request.identity_key, token.silo)
            self._keys.clear()
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

    def rotate(self, entry: Entry, new_key: bytes, now: dt.datetime) -> int:
        """Log a silo's statement, signed with its present key, that it has another one from now on; returns the index.

        The holder of `new_key` must agree to follow the key of now: a statement that another rotation has overtaken does not.
        Raises: Malformed, Forbidden; Conflict, also if any silo ever had `new_key`.
        """
        silo = entry.sealed.statement.silo
        with self._transaction():
            if (before := self._said_of_roster(entry)) is not None:
                return before
            present = self._signing_key(silo)
            self._check_roster_entry(entry, present)
            if self._named(new_key) is not None:
                raise Conflict("the identity key was used before")
            if read_rotation(entry.sealed, present) != new_key:
                raise Conflict("the entry names another identity key than the request")
            self._name_key(new_key, silo)
            self._keys.clear()
            self._db.execute("UPDATE silo SET identity_key = ? WHERE name = ?", (new_key, silo))
            return self.log.append(entry, int(now.timestamp()))

    def revoke(self, entry: Entry, silo: str, now: dt.datetime) -> int:
        """Log the coordinator's statement that a silo's key is no longer accepted, and act on it; returns the index.

        Raises: Unknown if no such silo is enrolled; Forbidden, Conflict.
        """
        with self._transaction():
            if (before := self._said_of_roster(entry)) is not None:
                return before
            self._check_roster_entry(entry, self._log_key.key)
            row = self.silo(silo)
            if row is None:
                raise Unknown(f"no silo '{silo}' is enrolled")
            if row.revoked or entry.sealed.statement.body.get("fingerprint") != fingerprint(row.identity_key):
                raise Conflict(f"the key of {silo} has changed meanwhile; revoke it again")
            self._keys.clear()
            self._db.execute("UPDATE silo SET revoked = 1 WHERE name = ?", (silo,))
            self._db.execute("UPDATE named_key SET revoked = 1 WHERE identity_key = ?", (row.identity_key,))
            return self.log.append(entry, int(now.timestamp()))

    def roster_chain_end(self, silo: str) -> tuple[int, str]:
        """The seq and prev of the next statement about no job by a silo, or by the coordinator."""
        return self.log.roster_chain_end(silo)

    def _said_of_roster(self, entry: Entry) -> int | None:
        """The index of this very statement, if it was logged before."""
        before = self.log.roster_said(entry.sealed.statement.silo, entry.sealed.payload_digest)
        return before[0] if before is not None and before[1] == entry.envelope else None

    def _check_roster_entry(self, entry: Entry, key: bytes) -> None:
        said = entry.sealed.statement
        try:
            entry.sealed.verify(key)
        except EnvelopeError as exc:
            raise Forbidden(str(exc)) from exc
        if said.job or said.spec_digest:
            raise Malformed(f"'{said.event}' is about no job")
        if (said.seq, said.prev) != (expected := self.log.roster_chain_end(said.silo)):
            raise Conflict(
                f"the next entry of {said.silo} about no job has seq {expected[0]} and names its previous one; got {said.seq}"
            )

    def _named(self, identity_key: bytes) -> str | None:
        row = self._db.execute("SELECT silo FROM named_key WHERE identity_key = ?", (identity_key,)).fetchone()
        return row[0] if row else None

    def _revoked_key(self, identity_key: bytes) -> bool:
        row = self._db.execute("SELECT revoked FROM named_key WHERE identity_key = ?", (identity_key,)).fetchone()
        return bool(row and row[0])

    def _name_key(self, identity_key: bytes, silo: str) -> None:
        self._db.execute(
            "INSERT INTO named_key(identity_key, silo) VALUES(?, ?) ON CONFLICT(identity_key) DO NOTHING",
            (identity_key, silo),
        )

    def silo(self, name: str) -> Silo | None:
        """The roster's row for a name, revoked or not."""
        row = self._db.execute(
            "SELECT name, identity_key, spki, enrolled_at, revoked FROM silo WHERE name = ?", (name,)
        ).fetchone()
        return row and _silo(row)

    def roster(self) -> list[Silo]:
        """Every silo, revoked ones too, by name."""
        rows = self._db.execute("SELECT name, identity_key, spki, enrolled_at, revoked FROM silo ORDER BY name")
        return [_silo(row) for row in rows]

    def together(self, works: Sequence[Callable[[], T]]) -> list[T | Exception]:
        """As Transactions."""
        self._keys.clear()
        return super().together(works)

    def _signing_key(self, name: str) -> bytes:
        if name == COORDINATOR:
            return self._log_key.key
        if self._in_batch and name in self._keys:
            return self._keys[name]
        silo = self.silo(name)
        if silo is None or silo.revoked:
            raise Forbidden(f"'{name}' is not enrolled")
        if self._in_batch:
            self._keys[name] = silo.identity_key
        return silo.identity_key


def _silo(row: tuple[str, bytes, str, int, int]) -> Silo:
    return Silo(row[0], bytes(row[1]), row[2], _time(row[3]), bool(row[4]))


def _time(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
