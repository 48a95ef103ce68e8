"""What the crash tests share: a database whose every step can be the last, and one of each kind of write to be cut short."""

from __future__ import annotations

import datetime as dt
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.cosign import cosign, with_lines
from coordinator.database import Database, Rows
from coordinator.enrol import Enrolment, JoinToken, TokenRecord, read_enrolment, revocation, rotation_message
from coordinator.envelope import Statement, seal
from coordinator.home import Home, open_database
from coordinator.log import Entry
from coordinator.note import open_checkpoint, verifier_key
from coordinator.sqlite import SqliteDatabase
from coordinator.statements import format_time
from coordinator.store import Accepted, Store
from tests.coordinator.world import START, TestSilo, b64, consent_body, disclosure_of, make_spec


def connect(home: Home) -> Database:
    """The database of a home, as `Home.open_store` opens it."""
    return open_database(home.database) if home.database else SqliteDatabase(home.path / "coordinator.db")


class Stepping(Database):
    """Calls `step` before everything that changes a database, and after each commit, with a name of it.

    What is after one change and before the next is one moment: nothing is written there.
    """

    def __init__(self, db: Database, step: Callable[[str], None]) -> None:
        self._db, self._step = db, step

    def _do(self, name: str, work: Callable[[], Any]) -> Any:
        self._step(f"before {name}")
        return work()

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        if sql.startswith("SELECT"):
            return self._db.execute(sql, parameters)
        return self._do(_name(sql), partial(self._db.execute, sql, parameters))

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        self._do(_name(sql), partial(self._db.executemany, sql, rows))

    def create(self, schema: str) -> None:
        self._db.create(schema)

    def begin(self) -> None:
        self._do("BEGIN", self._db.begin)

    def begin_reading(self) -> None:
        self._db.begin_reading()

    def commit(self) -> None:
        self._do("COMMIT", self._db.commit)
        self._step("after COMMIT")

    def rollback(self) -> None:
        self._db.rollback()

    def close(self) -> None:
        self._db.close()


def _name(sql: str) -> str:
    return " ".join(sql.replace("(", " ").split()[:3])


def killer(at: int) -> Callable[[str], None]:
    """A step that ends its own process as a crash does, the `at`-th time it is reached."""
    reached = 0

    def step(_: str) -> None:
        nonlocal reached
        reached += 1
        if reached == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


LENDER, PLATFORM, DEALER = (TestSilo(name) for name in ("lender", "platform", "dealer"))


def put_on_roster(store: Store) -> None:
    """The three silos that every round of writes speaks for."""
    for silo in (LENDER, PLATFORM, DEALER):
        store._db.execute(
            "INSERT INTO silo(name, identity_key, spki, enrolled_at) VALUES(?, ?, '', 0)",
            (silo.name, silo.identity.public_key().public_bytes_raw()),
        )


@dataclass
class Round:
    """One of each kind of write, with everything signed beforehand, so that it can be sent again after a crash."""

    number: int
    home: Home
    spec: dict[str, Any] = field(default_factory=make_spec)
    new_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        self.silo = TestSilo(f"silo-{self.number}")
        self.token_id, self.secret = f"{self.number:016x}", "s" * 43
        asked = self.silo.enrol_request(JoinToken("0" * 64, self.token_id, self.secret).text())
        self.enrolment: Enrolment = read_enrolment(asked["csr"], asked["identity_key"], asked["proof"], asked["entry"])
        said = [
            LENDER.say("proposed", self.spec, {"spec": self.spec}),
            LENDER.say("disclosed", self.spec, {"disclosure": disclosure_of(self.spec)}),
        ]
        self.first = [Entry.parse(envelope) for envelope in said]
        self.consents = [
            Entry.parse(silo.say("consented", self.spec, consent_body(silo, self.spec)))
            for silo in (LENDER, PLATFORM, DEALER)
        ]
        # In the middle of a batch, one that is refused: the number is not the next one.
        refused = PLATFORM.say("refused", self.spec, {"reason": "no", "rule": ""}, seq=7)
        self.batch = [self.consents[0], self.consents[1], Entry.parse(refused), self.consents[2]]
        old = self.silo.identity.public_key().public_bytes_raw()
        body = {
            "identity_key": b64(self.new_key.public_key().public_bytes_raw()),
            "proof": b64(self.new_key.sign(rotation_message(self.silo.name, old))),
        }
        prev = self.enrolment.sealed.payload_digest
        statement = Statement("rotated", "", "", self.silo.name, 1, prev, format_time(START), body)
        self.rotation = Entry.parse(seal(statement, self.silo.identity))

    def add_token(self, store: Store) -> None:
        token = JoinToken("0" * 64, self.token_id, self.secret)
        tomorrow = START + dt.timedelta(days=1)
        store.add_token(TokenRecord(token.id, self.silo.name, token.secret_hash(), tomorrow, False, False))

    def enrol(self, store: Store) -> list[tuple[int, bytes]]:
        return [(store.enrol(self.enrolment, self.token_id, self.secret, START), self.enrolment.envelope)]

    def submit(self, store: Store) -> list[tuple[int, bytes]]:
        return [(a.index, e.envelope) for a, e in zip(store.submit(self.first, START), self.first)]

    def consent(self, store: Store) -> list[tuple[int, bytes]]:
        outcomes = store.together([partial(store.append, entry, START) for entry in self.batch])
        assert [type(outcome).__name__ for outcome in outcomes] == ["Accepted", "Accepted", "Conflict", "Accepted"]
        return [(a.index, e.envelope) for a, e in zip(outcomes, self.batch) if isinstance(a, Accepted)]

    def consent_one(self, store: Store, number: int) -> int:
        return store.append(self.consents[number], START).index

    def cosign(self, store: Store) -> int:
        note = store.log.checkpoint()
        line = cosign(note, "lender", LENDER.identity, int(START.timestamp()))
        return store.add_cosignature("lender", with_lines(note, [line]))

    def rotate(self, store: Store) -> list[tuple[int, bytes]]:
        key = self.new_key.public_key().public_bytes_raw()
        return [(store.rotate(self.rotation, key, START), self.rotation.envelope)]

    def revoke(self, store: Store) -> list[tuple[int, bytes]]:
        key = self.new_key.public_key().public_bytes_raw()
        place = store.roster_chain_end("coordinator")
        entry = Entry.parse(
            seal(revocation(self.silo.name, key, f"round {self.number}", place, START), self.home.log_key)
        )
        return [(store.revoke(entry, self.silo.name, START), entry.envelope)]


def check_round(store: Store, this: Round) -> dict[str, bool]:
    """Which of a round's writes are there; each one whole, and the job as its entries say."""
    log = [bytes(row[0]) for row in store._db.execute("SELECT envelope FROM entry WHERE job = ''").fetchall()]
    silo, token = store.silo(this.silo.name), store.token(this.token_id)
    enrolled = this.enrolment.envelope in log
    assert (silo is not None) == enrolled == (token is not None and token.used)
    job, entries = store.job(this.spec["job"]), [envelope for _, envelope in store.job_entries(this.spec["job"])]
    expected = [entry.envelope for entry in (*this.first, *this.consents)]
    assert entries in ([], expected[:2], expected)
    assert (job is not None) == bool(entries)
    assert job is None or len(job.consents) == max(0, len(entries) - 2)
    rotated = this.rotation.envelope in log
    assert rotated == (silo is not None and silo.identity_key == this.new_key.public_key().public_bytes_raw())
    reasons = [Entry.parse(envelope).sealed.statement.body.get("reason") for envelope in log]
    revoked = f"round {this.number}" in reasons
    assert revoked == (silo is not None and silo.revoked)
    return {
        "add_token": token is not None, "enrol": enrolled, "submit": bool(entries), "consent": len(entries) == 5,
        "rotate": rotated, "revoke": revoked,
    }  # fmt: skip


def head(home: Home, store: Store) -> tuple[int, bytes]:
    """Size and root that the log shows."""
    seen = open_checkpoint(store.log.checkpoint(), verifier_key(home.origin, home.log_key))
    return seen.size, seen.root


def dump(store: Store) -> list[Any]:
    """Every row of every table."""
    tables = ("entry", "node", "head", "ahead", "job", "member", "token", "silo", "named_key", "cosignature")
    return [sorted(store._db.execute(f"SELECT * FROM {table}").fetchall()) for table in tables]  # noqa: S608
