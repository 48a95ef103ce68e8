"""The ledger of a silo: what jobs take of its data sets' privacy budgets, and how many jobs each rule has admitted.

    reserved -> started -> released        what is charged stays spent from `reserve` on ...
        `-> void                           ... unless the job ended before it started here

A budget is of one data set towards one counterparty, in zCDP rho, and nothing refills it.  Whether a job has started is
decided here and not by what anybody says: `start` is called before our 'started' statement, a job that is void cannot start,
and one that has started cannot be void.  So a refund is right whatever the coordinator claims, and a node that is killed at
any instant leaves a reservation that is spent.  All numbers are decimal and exact.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from silos.errors import SiloError
from silos.times import to_text, utcnow

if TYPE_CHECKING:
    from silos.config import Home

State = Literal["reserved", "started", "released", "void"]

SCHEMA_VERSION = 1
BUSY_S = 60.0
_TOO_LITTLE = "the privacy budget of this silo does not suffice for the job"
_NO_MORE_JOBS = "the rule of this silo allows no more jobs"
_UNUSABLE = "the ledger of this silo cannot be used, so no job can begin"
LEDGER = "ledger state/ledger.db in the silo's home"
"""As errors name it: without the path, which would tell about the machine."""
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])
_SCHEMA = """
CREATE TABLE job(
    id TEXT PRIMARY KEY, time TEXT NOT NULL,
    state TEXT NOT NULL CHECK(state IN ('reserved', 'started', 'released', 'void'))) STRICT, WITHOUT ROWID;
CREATE TABLE charge(
    job TEXT NOT NULL REFERENCES job(id), dataset TEXT NOT NULL, counterparty TEXT NOT NULL, rho TEXT NOT NULL,
    before TEXT NOT NULL, most TEXT NOT NULL, delta TEXT NOT NULL, PRIMARY KEY(job, counterparty)) STRICT, WITHOUT ROWID;
CREATE INDEX charge_account ON charge(dataset, counterparty);
CREATE TABLE admitted(job TEXT PRIMARY KEY REFERENCES job(id), rule TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX admitted_rule ON admitted(rule);
CREATE TABLE question(
    job TEXT PRIMARY KEY REFERENCES job(id), dataset TEXT NOT NULL, version TEXT NOT NULL, asked TEXT NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE secret(name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE rowset(version TEXT NOT NULL, label TEXT NOT NULL, digests BLOB NOT NULL, PRIMARY KEY(version, label)) STRICT;
"""


class BudgetError(SiloError):
    """A job takes more than a data set's privacy budget or a rule's number of uses has left, or the ledger cannot be read.

    public: what partners may read of it, if that is not all: nothing of what was spent, or by whom.
    """

    def __init__(self, why: str, public: str = "") -> None:
        super().__init__(why)
        self._public = public

    @property
    def public(self) -> str:
        """The sentence for partners."""
        return self._public or super().public


@dataclass(frozen=True)
class Limit:
    """The budget of a data set towards each counterparty.  delta: at which it is shown as an epsilon."""

    rho: Decimal
    delta: Decimal


@dataclass(frozen=True)
class Charge:
    """What a job takes towards one counterparty.  before: what was spent; limit: of both together.  Decimal texts."""

    counterparty: str
    rho: str
    before: str
    limit: str
    delta: str

    def document(self) -> dict[str, str]:
        """As it stands in a consent."""
        return asdict(self)


@dataclass(frozen=True)
class Entry:
    """A charge with its job.  time: of the reservation."""

    job: str
    time: str
    state: str
    dataset: str
    charge: Charge


def decimal_text(value: Decimal) -> str:
    """A decimal number without an exponent and without zeros at its end."""
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


class Ledger:
    """The ledger of a silo's home; open it in a `with`.  Every method is one transaction that is on disk when it returns.

    Any number of processes can have it open.
    """

    def __init__(self, home: Home, trace: Callable[[str], None] | None = None, busy_s: float = BUSY_S) -> None:
        """trace: is called with every SQL statement before it runs.  busy_s: how long to wait for another one's writing.

        Raises: BudgetError if the ledger cannot be read, is gone, or is of another program.
        """
        self._home = home
        path = home.state / "ledger.db"
        try:
            home.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _alone(home.state / "ledger.lock"):
                self._must_be_there(path.exists())
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                uri = f"{path.absolute().as_uri()}?mode=rw"
                self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_s, check_same_thread=False)
                self._db.set_trace_callback(trace)
                self._prepare()
        except (sqlite3.Error, OSError) as exc:
            raise self._unreadable(exc) from exc

    def _must_be_there(self, exists: bool) -> None:
        """Nobody gets a fresh budget by removing the file: it may be absent only as long as we have agreed to nothing."""
        if not exists and any(self._home.jobs.glob("*/dataset.salt")):
            raise BudgetError(
                f"the {LEDGER} is gone, and with it what jobs have spent; put it back from a copy", _UNUSABLE
            )

    def _prepare(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with self.transaction():
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            fd = os.open(self._home.state, os.O_RDONLY)
            try:
                os.fsync(fd)  # the file's name is on disk before anything rests on it
            finally:
                os.close(fd)
        elif version != SCHEMA_VERSION:
            why = f"the {LEDGER} has schema version {version}, this program needs {SCHEMA_VERSION}"
            raise BudgetError(why, _UNUSABLE)

    @staticmethod
    def _unreadable(exc: Exception) -> BudgetError:
        return BudgetError(f"the {LEDGER} cannot be used ({type(exc).__name__}), so no job can begin", _UNUSABLE)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is done inside; inside another one it is a part of that.

        Raises: BudgetError if the file cannot be read or written.
        """
        if self._db.in_transaction:
            yield self._db
            return
        try:
            # Why no crash spends or refunds wrongly:
            #  1. BEGIN IMMEDIATE takes the write lock, so what is read below is what the commit builds on: of two who want
            #     the last of a budget the second one sees the first one's charge.
            #  2. Until COMMIT has written its record to the WAL and synced it (synchronous=FULL), the next open sees the
            #     state before: a reservation of which nobody heard, and so one that nothing was said or started on.
            #  3. A caller speaks or starts only after COMMIT.  A crash in between leaves a reservation that is spent; the
            #     same call gives the same answer again, and `void` gives it back only while the job has not started.
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except sqlite3.Error as exc:
            raise self._unreadable(exc) from exc

    # --- a job's life

    def reserve(
        self, job: str, dataset: str, charges: Mapping[str, Decimal], limit: Limit | None
    ) -> tuple[Charge, ...]:
        """Take what a job needs towards each counterparty, or nothing at all; the same call again gives the same answer.

        charges: rho by counterparty.  limit: the data set's budget, None if its owner gives none.
        Raises: BudgetError if it is not enough, or the job was charged otherwise before, or is void.
        """
        with self.transaction() as db:
            self._admit(job)
            made = self.foresee(job, dataset, charges, limit)
            for c in made:
                row = (job, dataset, c.counterparty, c.rho, c.before, c.limit, c.delta)
                db.execute("INSERT INTO charge VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
            return made

    def foresee(
        self, job: str, dataset: str, charges: Mapping[str, Decimal], limit: Limit | None
    ) -> tuple[Charge, ...]:
        """What `reserve` would take, or has taken; writes nothing.  Raises: BudgetError."""
        self._must_not_be_void(job)
        known = self.history(job)
        if known:
            if {(e.dataset, e.charge.counterparty, Decimal(e.charge.rho)) for e in known} != {
                (dataset, counterparty, rho) for counterparty, rho in charges.items()
            }:
                raise BudgetError(f"job {job} was charged otherwise before")
            return tuple(entry.charge for entry in known)
        made = []
        for counterparty, rho in sorted(charges.items()):
            if limit is None:
                raise BudgetError(
                    f"data set '{dataset}' has no privacy budget, so no figure with noise is told to {counterparty}",
                    _TOO_LITTLE,
                )
            before = self.balance(dataset, counterparty, but_not=job)
            if rho <= 0 or _EXACT.add(before, rho) > limit.rho:
                raise BudgetError(
                    f"the privacy budget of data set '{dataset}' towards {counterparty} is rho {decimal_text(limit.rho)}, "
                    f"{decimal_text(before)} of it is spent, and the job takes {decimal_text(rho)}",
                    _TOO_LITTLE,
                )
            made.append(Charge(counterparty, *map(decimal_text, (rho, before, limit.rho, limit.delta))))
        return tuple(made)

    def reserve_use(self, job: str, rule: str, most: int | None) -> None:
        """Count a job under a rule; the same job again is not counted twice, but under another rule from then on.

        most: None for any number.
        Raises: BudgetError if the rule has admitted that many already, the job is void, or it has started under another.
        """
        with self.transaction() as db:
            self._admit(job)
            self.foresee_use(job, rule, most)
            before = self.execute("SELECT rule FROM admitted WHERE job = ?", (job,))
            if before not in ([], [(rule,)]) and self.state(job) != "reserved":
                raise BudgetError(f"job {job} has started under another rule", f"job {job} has started before")
            db.execute(
                "INSERT INTO admitted VALUES(?, ?) ON CONFLICT(job) DO UPDATE SET rule = excluded.rule", (job, rule)
            )

    def foresee_use(self, job: str, rule: str, most: int | None) -> None:
        """Whether `reserve_use` would refuse; writes nothing.  Raises: BudgetError."""
        self._must_not_be_void(job)
        used = self.used(rule, but_not=job)
        if most is not None and used >= most:
            why = f"rule '{rule}' allows {most} job{'' if most == 1 else 's'}, and it has admitted {used}"
            raise BudgetError(why, _NO_MORE_JOBS)

    def start(self, job: str) -> None:
        """From here on what a job takes stays spent; called before anybody is told that it starts here.

        A job that has reserved nothing, as an assistant's, is not in the ledger and is not written there.
        Raises: BudgetError if it is void.
        """
        with self.transaction() as db:
            self._must_not_be_void(job)
            db.execute("UPDATE job SET state = 'started' WHERE id = ? AND state = 'reserved'", (job,))

    def commit(self, job: str) -> None:
        """The job has released its result here.  Raises: BudgetError if it is void."""
        with self.transaction() as db:
            self.start(job)
            db.execute("UPDATE job SET state = 'released' WHERE id = ?", (job,))

    def void(self, job: str) -> bool:
        """Give back what a job took if it has not started here; False, and nothing is changed, if it has.

        Nothing is written, nor is any lock taken, for a job that is void or took nothing: whoever lists jobs to us cannot
        make the ledger grow.
        """
        state = self.state(job)
        if state == "reserved":
            with self.transaction() as db:
                db.execute("UPDATE job SET state = 'void' WHERE id = ? AND state = 'reserved'", (job,))
                state = self.state(job)
        return state in (None, "void")

    def _admit(self, job: str) -> None:
        """Make a job known.  Raises: BudgetError if it is void."""
        self._must_not_be_void(job)
        row = (job, to_text(utcnow()))
        self.execute("INSERT INTO job VALUES(?, ?, 'reserved') ON CONFLICT(id) DO NOTHING", row)

    def _must_not_be_void(self, job: str) -> None:
        if self.state(job) == "void":
            raise BudgetError(f"job {job} was given up here before it started")

    # --- questions

    def state(self, job: str) -> str | None:
        """The state of a job, None if it is not known."""
        found = self.execute("SELECT state FROM job WHERE id = ?", (job,))
        return str(found[0][0]) if found else None

    def balance(self, dataset: str, counterparty: str, but_not: str = "") -> Decimal:
        """The rho that is spent on a data set towards a counterparty.  but_not: a job that is left out."""
        rows = self.execute(
            "SELECT rho FROM charge JOIN job ON job.id = charge.job "
            "WHERE dataset = ? AND counterparty = ? AND state != 'void' AND job.id != ?",
            (dataset, counterparty, but_not),
        )
        return _total(rho for (rho,) in rows)

    def used(self, rule: str, but_not: str = "") -> int:
        """How many jobs a rule has admitted.  but_not: a job that is left out."""
        return self.uses(but_not).get(rule, 0)

    def uses(self, but_not: str = "") -> dict[str, int]:
        """How many jobs each rule has admitted.  but_not: a job that is left out."""
        rows = self.execute(
            "SELECT rule, count(*) FROM admitted JOIN job ON job.id = admitted.job "
            "WHERE state != 'void' AND job.id != ? GROUP BY rule",
            (but_not,),
        )
        return {str(rule): int(n) for rule, n in rows}

    def history(self, job: str | None = None) -> list[Entry]:
        """Every charge, of one job or of all, in the order of time."""
        rows = self.execute(
            "SELECT job.id, time, state, dataset, counterparty, rho, before, most, delta "
            "FROM charge JOIN job ON job.id = charge.job WHERE ?1 IS NULL OR job.id = ?1 ORDER BY time, job.id, counterparty",
            (job,),
        )
        return [Entry(row[0], row[1], row[2], row[3], Charge(*row[4:])) for row in rows]

    def unstarted(self) -> list[str]:
        """The jobs that have reserved something and neither started nor been given up."""
        return [str(job) for (job,) in self.execute("SELECT id FROM job WHERE state = 'reserved' ORDER BY id", ())]

    def execute(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """One statement, for the modules that keep more in the ledger.  Raises: BudgetError if it cannot be read."""
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as exc:
            raise self._unreadable(exc) from exc


def _total(texts: Iterator[str]) -> Decimal:
    total = Decimal(0)
    for text in texts:
        total = _EXACT.add(total, Decimal(text))
    return total


@contextmanager
def _alone(path: Any) -> Iterator[None]:
    """One process at a time opens the ledger, so that one makes it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
