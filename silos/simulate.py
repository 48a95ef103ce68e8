"""Would a job start?  The review of every owner whose policy is at hand, on made-up tables: no data set is opened.

A made-up table has the columns that the catalogue knows, or those that the request asks for, and persons that the owners
share in part.  It goes through the same code as a registered one: its columns and types, its identifiers, its numbers.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from silos import catalogue
from silos.accounting import charges, limit_of
from silos.catalogue import Dataset
from silos.disclosure import Registry, disclosure, load_reveals
from silos.errors import CatalogueError
from silos.plan import plan
from silos.policy import Policy, Terms
from silos.policy_explain import explain
from silos.spec import Spec, Statistics
from silos.spec_parts import Party
from vertical.identifiers import RULES

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1000


def simulate(
    spec: Spec,
    policies: Mapping[str, Policy],
    when: dt.datetime,
    known: Mapping[str, catalogue.Catalogue],
    rows: int = ROWS,
    used: Mapping[str, Mapping[str, int]] | None = None,
    registry: Registry = load_reveals,
) -> dict[str, Any]:
    """The whole review of a job by everybody whose policy is given, as a document of plain values.

    policies, known, used: by silo: its policy, its catalogue, and how many jobs each rule has admitted.  rows: of a made-up
    table; half of the persons of one are in every other.
    Raises: SpecError, DisclosureError.
    """
    planned, shown = plan(spec), disclosure(spec, registry)
    counts = used or {}
    said = {
        silo: explain(policies[silo], planned, silo, when, counts.get(silo)) if silo in policies else None
        for silo in spec.participants
    }
    data = [_look(spec, place, known, rows) for place in range(len(spec.parties))]
    matched = len(frozenset.intersection(*(people for _, people in data)))
    thresholds = [_threshold("align.minimum_matches", spec.align.minimum_matches, matched)]
    if isinstance(spec, Statistics):
        thresholds.append(_threshold("statistics.minimum", spec.statistics.minimum, matched))
    why_not = [f"policy of {silo}: {told['reason']}" for silo, told in said.items() if told and not told["allowed"]]
    why_not += [said for silo, policy in policies.items() for said in _budget(spec, silo, policy)]
    why_not += [facts["problem"] for facts, _ in data if facts["problem"]]
    if not any(facts["problem"] for facts, _ in data):
        why_not += [
            f"{t['mock']:,} made-up rows match, {t['what']} is {t['limit']:,}" for t in thresholds if not t["holds"]
        ]
    return {
        "kind": planned.kind,
        "purpose": planned.purpose,
        "starts": not why_not,
        "why_not": why_not,
        "silos": said,
        "data": [facts for facts, _ in data],
        "thresholds": thresholds,
        "released": [
            {
                "item": one.item,
                "recipients": list(one.recipients),
                "form": one.form,
                "rows": one.rows if one.form == "figure" else None,
                "why": one.why,
                "epsilon": one.epsilon,
            }
            for one in planned.released
        ],
        "disclosure": shown,
    }


def _budget(spec: Spec, silo: str, policy: Policy) -> Iterator[str]:
    """Whether the job alone would take more privacy budget than there is; what earlier jobs have spent is not known here."""
    party = spec.party(silo)
    if party is None:
        return
    limit = limit_of(policy.datasets.get(party.dataset, Terms()).budget)
    for counterparty, rho in charges(spec, silo).items():
        of = f"data set '{party.dataset}' of {silo}"
        if limit is None:
            yield f"{of} has no privacy budget, so no figure with noise is told to {counterparty}"
        elif rho > limit.rho:
            yield f"the privacy budget of {of} is rho {limit.rho}, and the job takes {rho.normalize():f}"


def _threshold(what: str, limit: int, mock: int) -> dict[str, Any]:
    return {"what": what, "limit": limit, "mock": mock, "holds": mock >= limit}


def _look(
    spec: Spec, place: int, known: Mapping[str, catalogue.Catalogue], rows: int
) -> tuple[dict[str, Any], frozenset[bytes]]:
    """One owner's data, made up: what is wrong with it, if anything, and whom its first key identifies."""
    party, start = spec.parties[place], rows // 2 if place else 0
    facts: dict[str, Any] = {"silo": party.silo, "dataset": party.dataset, "rows": rows, "columns": "of the request"}
    try:
        registered = None
        if party.silo in known:
            facts["columns"] = "of the catalogue"
            registered = known[party.silo].dataset(party.dataset)
            registered.check(party)
        people = _through_the_worker(spec, party, registered, range(start, start + rows))
    except CatalogueError as exc:
        return {**facts, "problem": str(exc)}, frozenset()
    return {**facts, "problem": ""}, people


def _through_the_worker(spec: Spec, party: Party, registered: Dataset | None, persons: range) -> frozenset[bytes]:
    """Write the table, register it, and read of it what a worker would.  Raises: CatalogueError."""
    import pyarrow.parquet as pq

    from silos.inputs import read_columns
    from silos.tables import load_table

    with tempfile.TemporaryDirectory(prefix="accord-mock-") as scratch:
        path = Path(scratch) / "mock.parquet"
        pq.write_table(made_up(spec, party, registered, persons), path)
        dataset = catalogue.describe(party.dataset, path, party.join_columns[0])
        dataset.check(party)
        read_columns(dataset, party.number_columns, party.category_columns, party.silo)
        key = spec.align.keys[0]
        columns = load_table(dataset, party.keys[0]).to_pydict()
        items = (
            RULES[key.rule].item(values, key.region)
            for values in zip(*(columns[c] for c in party.keys[0]), strict=True)
        )
        return frozenset(item for item in items if isinstance(item, bytes))


def made_up(spec: Spec, party: Party, registered: Dataset | None, persons: range) -> pa.Table:
    """A table of a row for each person: identifiers that every owner writes in the same way, and values of no meaning."""
    import pyarrow as pa

    roles: dict[str, str] = {}
    for key, columns in zip(spec.align.keys, party.keys, strict=True):
        for column, role in zip(columns, RULES[key.rule].roles, strict=True):
            roles.setdefault(column, role)
    kinds = {} if registered is None else {column.name: str(column.type) for column in registered.columns}
    for column in dict.fromkeys((*party.columns, *party.output_columns)):
        kinds.setdefault(column, "number" if column in party.number_columns else "text")
    return pa.table({name: _values(kind, roles.get(name), persons) for name, kind in kinds.items()})


def _values(kind: str, role: str | None, persons: range) -> Sequence[Any]:
    make = _IDENTIFIERS.get(role or "") or _VALUES[kind]
    return [make(i) for i in persons]


def _letters(i: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(i))


_IDENTIFIERS: Mapping[str, Callable[[int], Any]] = {
    "e-mail address": lambda i: f"person{i}@example.org",
    "telephone number": lambda i: f"+4179{2_000_000 + i:07d}",
    "given name": lambda i: f"Given{_letters(i)}",
    "family name": lambda i: f"Family{_letters(i)}",
    "date of birth": lambda i: str(dt.date(1950, 1, 1) + dt.timedelta(days=i % 15_000)),
    "postcode": lambda i: f"{1000 + i % 9000}",
    "SHA-256 in hex": lambda i: hashlib.sha256(str(i).encode()).hexdigest(),
    "customer number": lambda i: f"customer-{i}",
}
"""A person's identifiers by what a column of a key holds (vertical.identifiers.Rule.roles)."""
_VALUES: Mapping[str, Callable[[int], Any]] = {
    "number": lambda i: i % 2,
    "boolean": lambda i: i % 2 == 0,
    "text": lambda i: "abcde"[i % 5],
    "time": lambda i: dt.date(2026, 1, 1) + dt.timedelta(days=i % 365),
    "other": lambda i: [i % 2],
}
"""Values by the type that the catalogue knows (silos.catalogue.ColumnType)."""
