"""The guard against differencing: two answers over nearly the same rows tell about the few rows in which they differ.

Every job that is admitted is recorded with what it asks of our data: its partners, the version of the data set, and the sets of
rows behind its figures, as keyed 64-bit digests.  A job that would tell figures to a partner is refused if one of its sets
differs from that of an earlier job with this partner by at least one row and fewer than the floor.

    who RULE            rows by the columns that they are joined by, for each key of the job; the same label in every data set
    RULE, COLUMN        these rows with their value in one column that is computed with

So a row that came, went, or holds another value counts.  The number of rows that differ is the larger one of those that are in
one set only: of a changed row both are one.  The same rows again are allowed: the figures of a repeated job are those that
the partner has, and jobs over one version that ask something else are the business of policy and floors.
A job that tells values row by row, such as which rows match, is recorded with its rows and not refused: what it tells is about
single rows by intent.  A job that has not started here counts until it is over, and if it never started, not any more.
Figures with noise are charged to the budget instead.

What is not seen: the partner's rows, which it can change as it likes between two jobs; differences that only the
normalisation of identifiers makes or removes, since rows are compared as they are written; and a data set whose join columns
are used under another rule.
"""

from __future__ import annotations

import hmac
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from silos import queries, row_bytes
from silos.budget import BudgetError, Ledger
from silos.errors import SiloError
from silos.plan import Plan, plan
from silos.tables import stream_columns
from silos.times import to_text, utcnow

if TYPE_CHECKING:
    import pyarrow as pa

    from silos.catalogue import Dataset
    from silos.config import Home
    from silos.spec import Spec

Digests = npt.NDArray[np.uint64]
MAX_COLUMNS = 32
"""A job that computes with more columns is compared by all of them together."""
_KEY_BYTES, _BLOCK, _HEAD = 32, 16, 5
Columns = tuple[tuple[str, ...], tuple[str, ...]]
"""The columns that rows are joined by, and those that are computed with."""
Compared = frozenset[tuple[str, str]]
"""Kept sets, by version and name, from which those of a job do not differ by too few rows."""
_UNTOLD = "this silo cannot compare the job with earlier ones"
_ROWS_ALONE = frozenset({"rows", "predictions", "counts"})


class DifferencingRefused(SiloError):
    """A job asks about nearly the rows of an earlier one, or it cannot be told whether it does.

    public: what partners may read of it: nothing of earlier jobs, which may be another partner's, nor the floor.
    """

    def __init__(self, why: str, public: str = "the job asks about nearly the rows of an earlier one") -> None:
        super().__init__(why)
        self._public = public

    @property
    def public(self) -> str:
        """The sentence for partners."""
        return self._public


# --- what a job asks


def tells_figures(asked: Plan, me: str) -> bool:
    """Whether others learn exact figures about our rows.  Values row by row are no figures, nor how many there are of them."""
    exact = [item for item in asked.released if item.epsilon is None and set(item.recipients) - {me}]
    by_row = any(item.form == "row" for item in exact)
    return any(item.form != "row" and not (by_row and item.item in _ROWS_ALONE) for item in exact)


def labels_of(spec: Spec, me: str) -> dict[str, Columns]:
    """The sets of our rows that a job's figures are about: by label, the join columns and the columns computed with."""
    party = spec.party(me)
    if party is None:
        return {}
    rules, sets = [key.rule for key in spec.align.keys], dict[str, Columns]()
    for at, (rule, columns) in enumerate(zip(rules, party.keys, strict=True)):
        again = rules[:at].count(rule)
        sets[f"who {rule}" + (f" again {again}" if again else "")] = (columns, ())
    used = dict.fromkeys(use.column for use in plan(spec).of(me) if use.operation not in ("join", "keep"))
    if len(used) > MAX_COLUMNS:
        name = sha256("\n".join(sorted(used)).encode()).hexdigest()[:16]
        return sets | {f"{rules[0]}, {len(used)} columns {name}": (party.keys[0], tuple(sorted(used)))}
    return sets | {f"{rules[0]}, {column}": (party.keys[0], (column,)) for column in used}


def _sets_of(spec: Spec, me: str) -> dict[str, Columns]:
    """The sets that are kept for a job: none if all is told with noise, and only who the rows are if no figure is told."""
    asked = plan(spec)
    if not any(item.epsilon is None and set(item.recipients) - {me} for item in asked.released):
        return {}
    figures = tells_figures(asked, me)
    return {label: columns for label, columns in labels_of(spec, me).items() if figures or not columns[1]}


# --- sets of rows


def row_sets(
    dataset: Dataset,
    wanted: Mapping[str, Columns],
    key: bytes,
    scratch: Path | None = None,
) -> dict[str, Digests]:
    """Ascending distinct digests of each set.  A row without a value in a join column is in none.  Raises: CatalogueError."""
    columns = list(dict.fromkeys(name for join, used in wanted.values() for name in (*join, *used)))
    found: dict[str, list[Digests]] = {label: [] for label in wanted}
    with stream_columns(dataset, columns, as_text=columns, scratch=scratch) as stream:
        for batch in stream:
            cells = {
                field.name: _cells(column, row_bytes.kind_of(field), key)
                for field, column in zip(batch.schema, batch.columns, strict=True)
            }
            for label, (join, used) in wanted.items():
                there = np.logical_and.reduce([cells[name][1] for name in join])
                places = [("join", cells[name][0]) for name in join] + [(name, cells[name][0]) for name in used]
                found[label].append(_mixed(places, key)[there])
    return {
        label: np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64) for label, parts in found.items()
    }


def _cells(column: pa.Array, kind: str, key: bytes) -> tuple[Digests, npt.NDArray[np.bool_]]:
    """(n,): a keyed digest of each value of a column, and where there is one.

    The digest is half of the CBC-MAC with AES-256 of one byte, 1 for a value and 0 for none, its length in 32 bits, and its
    bytes; with the length in front that is a pseudorandom function (Bellare, Kilian, Rogaway 2000).
    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    valid, values, data = queries.parts_of(row_bytes.as_json(column) if kind == row_bytes.NESTED else column)
    n = len(column)
    if kind in row_bytes.VARIABLE:
        lengths, flat = values.astype(np.int64), np.frombuffer(data, dtype=np.uint8)
    else:
        flat = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        lengths = np.full(n, len(flat) // max(n, 1), dtype=np.int64)
    starts, flat = np.cumsum(lengths) - lengths, np.append(flat, np.uint8(0))
    state = np.zeros((n, _BLOCK), dtype=np.uint8)
    state[:, 0], state[:, 1:_HEAD] = valid, lengths.astype("<u4").view(np.uint8).reshape(n, _HEAD - 1)
    encrypt = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the block cipher itself; the chain is here
    rows, done = np.arange(n), 0
    while len(rows):
        room = _BLOCK if done else _BLOCK - _HEAD
        places = done + np.arange(room)
        inside = places < lengths[rows, None]
        state[rows, _BLOCK - room :] ^= flat[np.where(inside, starts[rows, None] + places, -1)]
        mixed = encrypt.update(state[rows].tobytes())
        state[rows] = np.frombuffer(mixed, dtype=np.uint8).reshape(len(rows), _BLOCK)
        done += room
        rows = rows[lengths[rows] > done]
    return state.view("<u8")[:, 0].copy(), valid.astype(bool)


def _mixed(places: Sequence[tuple[str, Digests]], key: bytes) -> Digests:
    """A digest of several cells: the sum of their products with secret odd numbers, one for each place."""
    total = np.zeros(len(places[0][1]), dtype=np.uint64)
    for at, (name, cells) in enumerate(places):
        factor = int.from_bytes(hmac.digest(key, f"{at} {name}".encode(), "sha256")[:8], "little") | 1
        total += cells * np.uint64(factor)
    return total


def differing(a: Digests, b: Digests) -> int:
    """How many rows differ: the larger one of the numbers of digests that are in one set only."""
    return max(len(np.setdiff1d(a, b, assume_unique=True)), len(np.setdiff1d(b, a, assume_unique=True)))


# --- the guard


def guard(home: Home, spec: Spec, me: str, dataset: Dataset, floor: int, scratch: Path | None = None) -> Compared:
    """Refuse a job that asks about nearly the rows of an earlier one with the same partner; returns what it was compared with.

    floor: the fewest rows in which two jobs may differ, unless in none.  Keeps the sets of this version, the rows being read
    the first time only, and records nothing of the job.  Nobody waits for the comparison: others can write meanwhile.
    Raises: DifferencingRefused, also if what is kept cannot be read; CatalogueError.
    """
    sets = _sets_of(spec, me)
    if not sets:
        return frozenset()
    with opened(home) as ledger:
        _keep_sets(ledger, dataset, sets, scratch)
        return _compare(ledger, spec, me, dataset, floor, frozenset())


@contextmanager
def opened(home: Home) -> Iterator[Ledger]:
    """The ledger, which has what earlier jobs asked.  Raises: DifferencingRefused if it cannot be read."""
    try:
        with Ledger(home) as ledger:
            yield ledger
    except (BudgetError, sqlite3.Error) as exc:
        raise DifferencingRefused(f"it cannot be told what earlier jobs asked: {exc}", _UNTOLD) from exc


def record(ledger: Ledger, spec: Spec, me: str, dataset: Dataset, floor: int, compared: Compared) -> None:
    """Write down what a job asks, as a part of the ledger's transaction; of another version than before, that one.

    compared: what `guard` returned, for the same floor; only what was recorded since is compared here.
    Raises: DifferencingRefused, also if the job has started with other rows.
    """
    asked = plan(spec)
    question = {
        "kind": spec.kind,
        "partners": _partners(spec, me),
        "release": list(spec.release),
        "columns": [f"{use.operation} {use.column}" for use in asked.of(me)],
        "sets": {label: _stored(label, columns) for label, columns in _sets_of(spec, me).items()},
    }
    with ledger.transaction() as db:
        _compare(ledger, spec, me, dataset, floor, compared)
        row = (dataset.name, dataset.sha256, json.dumps(question))
        before = ledger.execute("SELECT dataset, version, asked FROM question WHERE job = ?", (spec.job,))
        if before not in ([], [row]) and ledger.state(spec.job) != "reserved":
            why = f"job {spec.job} has started with other rows of data set '{dataset.name}'"
            raise DifferencingRefused(why, f"job {spec.job} has started before")
        db.execute(
            "INSERT INTO question VALUES(?, ?, ?, ?) ON CONFLICT(job) DO UPDATE "
            "SET dataset = excluded.dataset, version = excluded.version, asked = excluded.asked",
            (spec.job, *row),
        )


def _partners(spec: Spec, me: str) -> list[str]:
    return [owner for owner in spec.owners if owner != me]


def _stored(label: str, columns: Columns) -> str:
    """A set's name within a version: another job may use a rule on other columns of it."""
    return f"{label} of {json.dumps(columns[0])}"


def _keep_sets(ledger: Ledger, dataset: Dataset, sets: Mapping[str, Columns], scratch: Path | None) -> None:
    with ledger.transaction() as db:
        kept = {str(name) for (name,) in db.execute("SELECT label FROM rowset WHERE version = ?", (dataset.sha256,))}
        row = (os.urandom(_KEY_BYTES),)
        db.execute(
            "INSERT INTO secret SELECT 'rows', ? WHERE NOT EXISTS(SELECT 1 FROM secret WHERE name = 'rows')", row
        )
        ((key,),) = db.execute("SELECT value FROM secret WHERE name = 'rows'").fetchall()
    missing = {label: columns for label, columns in sets.items() if _stored(label, columns) not in kept}
    if missing:
        made = row_sets(dataset, missing, key, scratch)
        with ledger.transaction() as db:
            for label, digests in made.items():
                name, data = _stored(label, missing[label]), digests.astype("<u8").tobytes()
                db.execute("INSERT INTO rowset VALUES(?, ?, ?) ON CONFLICT DO NOTHING", (dataset.sha256, name, data))


def _load(ledger: Ledger, version: str, name: str) -> Digests:
    found = ledger.execute("SELECT digests FROM rowset WHERE version = ? AND label = ?", (version, name))
    if not found:
        raise DifferencingRefused(
            "the rows that an earlier job was about are not in the ledger, so it cannot be compared with", _UNTOLD
        )
    return np.frombuffer(found[0][0], dtype="<u8")


def _compare(ledger: Ledger, spec: Spec, me: str, dataset: Dataset, floor: int, compared: Compared) -> Compared:
    """What is compared already, and what was here; nothing if the job tells no figures.  Raises: DifferencingRefused."""
    if not tells_figures(plan(spec), me):
        return frozenset()
    sets = {label: _stored(label, columns) for label, columns in _sets_of(spec, me).items()}
    seen = set(compared)
    earlier = ledger.execute(
        "SELECT job.id, time, version, asked FROM question JOIN job ON job.id = question.job "
        "WHERE state != 'void' AND job.id != ? ORDER BY time, job.id",
        (spec.job,),
    )
    for job, time, version, text in earlier:
        asked = json.loads(text)
        partners = sorted(set(asked["partners"]) & set(_partners(spec, me)))
        for label in sorted(set(asked["sets"]) & set(sets)) if partners else ():
            theirs = (version, asked["sets"][label])
            if theirs == (dataset.sha256, sets[label]) or theirs in seen:
                continue
            seen.add(theirs)
            n = differing(_load(ledger, dataset.sha256, sets[label]), _load(ledger, *theirs))
            if 1 <= n < floor:
                raise DifferencingRefused(
                    f"job {job} of {time[:10]} asked about rows of {me} from which those of job {spec.job} of "
                    f"{to_text(utcnow())[:10]} differ by fewer than {floor}, so both answers together would tell "
                    f"{' and '.join(partners)} about these few"
                )
    return frozenset(seen)
