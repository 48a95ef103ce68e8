"""A compliance report: the facts of verified jobs, put in the order in which a privacy officer or an authority asks for them.

Every fact is from a bundle: a statement that a silo signed and the log recorded, or what checking it found.  The report is a
neutral document here; `compliance_html` and `compliance_pdf` show it.

Source: Regulation (EU) 2016/679 (GDPR) Art. 30(1) a to g, Art. 35(7) a to d, Art. 5(1) b, c, e.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from silos import lineage
from silos.approvals_text import plain
from silos.facts import Job, Owner, readable
from silos.verify import Check, Report

NOT_SAID = "not said by the owner"
LIMITS = (
    "The report proves what was agreed, done and recorded; not that the data was true, nor what a recipient did later.",
    "Legal bases, categories and retention are the owners' own statements, signed with their consents.",
)
MEASURES = (
    "Links between organisations are end-to-end encrypted with mutual TLS 1.3, between the certificates that the consents "
    "name; the coordinator carries ciphertext only.",
    "Every job needs a consent of every participant to one job spec and one disclosure, each signed with its own key.",
    "All statements stand in an append-only transparency log; changing, removing or reordering one is evident.",
)


@dataclass(frozen=True)
class Table:
    """head: of the columns.  rows: of text; as many cells as the head has."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, lists, tables and perhaps a picture (SVG).  level: 1 for a job or an annex, 2 within."""

    title: str
    level: int = 2
    text: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    picture: str = ""


@dataclass(frozen=True)
class Document:
    """The whole report.  verdict: what checking the bundle came to; good: whether it verified."""

    title: str
    subtitle: str
    good: bool
    verdict: str
    sections: tuple[Section, ...] = field(default=())


def document(report: Report, bundle: Path) -> Document:
    """The report of a bundle that has been checked, one job or many.  A bundle that does not verify says so at the top."""
    jobs, unread = readable(report.stories)
    title = f"Compliance report, job {jobs[0].id}" if len(jobs) == 1 else f"Compliance report, {len(jobs)} jobs"
    span = f"{jobs[0].proposed} to {max(job.ended or job.proposed for job in jobs)}" if jobs else "no jobs"
    failed = [check for check in report.checks if not check.ok]
    verdict = (
        f"Verified: all {len(report.checks)} checks of the evidence passed."
        if report.ok
        else f"NOT verified: {report.reason}."
    )
    sections = [*_overview(jobs), *(part for job in jobs for part in _job(job, len(jobs) == 1))]
    sections += [_record(jobs), _impact(jobs), _integrity(report.checks, failed, unread, bundle)]
    return Document(
        plain(title), plain(span), report.ok, plain(verdict), tuple(_readable(section) for section in sections)
    )


def _readable(section: Section) -> Section:
    """Much of the text was written by others: nothing in it can hide other text or turn its direction."""
    tables = tuple(
        Table(tuple(map(plain, table.head)), tuple(tuple(map(plain, row)) for row in table.rows))
        for table in section.tables
    )
    text, points = tuple(map(plain, section.text)), tuple(map(plain, section.points))
    return replace(section, title=plain(section.title), text=text, points=points, tables=tables)


# --- all jobs together ---


def _overview(jobs: Sequence[Job]) -> Iterator[Section]:
    if len(jobs) > 1:
        rows = tuple((j.proposed, j.id, j.kind, j.purpose, ", ".join(j.participants), j.state) for j in jobs)
        yield Section(
            "Jobs", 1, tables=(Table(("proposed", "job", "kind", "purpose", "participants", "ended as"), rows),)
        )
    budgets = _budgets(jobs)
    if budgets.rows and len(jobs) > 1:
        yield Section("Privacy budget over the period", 1, tables=(budgets,))
    if 0 < len(jobs) <= lineage.MAX_DRAWN:
        made = lineage.graph(jobs)
        yield Section("Lineage", 1, text=(f"{lineage.summary(made)}.",), picture=lineage.svg(made))
    elif jobs:
        why = f"{len(jobs)} jobs are too many for one picture, which has room for {lineage.MAX_DRAWN}; this table says it."
        yield Section("Lineage", 1, text=(why,), tables=(_lineage(jobs),))


def _lineage(jobs: Sequence[Job]) -> Table:
    rows = tuple(
        (
            f"{owner.silo} / {owner.dataset}",
            job.id,
            ", ".join(entry.body["recipient"] for entry in job.releases) or "nobody",
        )
        for job in jobs
        for owner in job.owners
    )
    return Table(("data set", "job", "recipients"), rows)


def _budgets(jobs: Sequence[Job]) -> Table:
    rows = [
        (
            job.proposed,
            job.id[:16],
            owner,
            charge["counterparty"],
            charge["before"],
            charge["rho"],
            format(Decimal(charge["before"]) + Decimal(charge["rho"]), "f"),
            charge["limit"],
            charge["delta"],
        )
        for job in jobs
        for owner, charge in job.charges
    ]
    head = ("when", "job", "owner", "towards", "rho before", "rho taken", "rho after", "limit", "delta")
    return Table(head, tuple(rows))


# --- one job ---


def _job(job: Job, alone: bool) -> Iterator[Section]:
    facts = [
        ("Job", job.id),
        ("Kind", job.kind),
        ("Purpose", job.purpose),
        ("Submitted by", job.submitter),
        ("Proposed", job.proposed),
        ("Ended", f"{job.state}, {job.ended}" if job.ended else job.state),
        *([("Reason", job.reason)] if job.reason else []),
        ("Valid until", job.valid_until),
        ("Job spec", f"sha256 {job.spec_digest}"),
        ("Disclosure", f"sha256 {job.disclosure_digest}"),
    ]
    yield Section("The job" if alone else f"Job {job.id}", 1, tables=(Table(("", ""), tuple(facts)),))
    yield Section("Who took part", tables=(_parties(job),))
    yield Section("Data, legal basis and retention", tables=tuple(_data(owner) for owner in job.owners))
    uses = tuple((u.silo, u.column, u.operation, ", ".join(u.with_), u.outcome) for o in job.owners for u in o.uses)
    yield Section(
        "What each column was used for",
        text=(f"Rows were matched by {job.protocol}; correlated randomness: {job.randomness}.",),
        tables=(Table(("owner", "column", "use", "with", "leads to"), uses),),
    )
    learned = tuple((str(x.get("silo")), str(x.get("learns")), str(x.get("precision"))) for x in job.lines)
    yield Section(
        "Who learns what, as everybody agreed to before",
        tables=(Table(("party", "learns", "precision"), learned),),
        points=(
            *(f"Limit: {limit}" for limit in job.limits),
            *(f"Assumed: {text}" for text in job.assumptions),
        ),
    )
    yield _consents(job)
    budgets = _budgets([job])
    if budgets.rows:
        yield Section("Privacy budget before and after (zCDP)", tables=(budgets,))
    yield _results(job)
    rows = tuple((str(e.index), e.time, e.silo, e.event, _remark(e.body)) for e in job.entries)
    yield Section("Course of the job", tables=(Table(("entry", "time", "silo", "statement", ""), rows),))


def _parties(job: Job) -> Table:
    records = {owner.silo: owner.record or {} for owner in job.owners}
    rows = tuple(
        (
            silo,
            role,
            str(records.get(silo, {}).get("controller", "") or ("" if silo not in records else NOT_SAID)),
            str(records.get(silo, {}).get("contact", "")),
            job.identities.get(silo, "signed nothing"),
        )
        for silo, role in job.roles.items()
    )
    return Table(("silo", "role", "controller", "contact", "identity key (sha256)"), rows)


def _data(owner: Owner) -> Table:
    said = owner.record or {}
    days = said.get("retention_days", 0)
    rows = (
        ("Data set", f"{owner.dataset} of {owner.silo}"),
        ("Legal basis", str(said.get("legal_basis") or NOT_SAID)),
        ("Categories of data", ", ".join(said.get("categories", [])) or NOT_SAID),
        ("Data subjects", ", ".join(said.get("subjects", [])) or NOT_SAID),
        ("Retention", f"{days} days" if days else NOT_SAID),
        ("Transfers", str(said.get("transfers") or NOT_SAID)),
        ("Commitment to the rows", owner.commitment or "none: it gave no consent"),
    )
    return Table(("", ""), rows)


def _consents(job: Job) -> Section:
    persons = {
        entry.silo: ", ".join(f"{a['name']} at {a['time']}" for a in entry.body["approvals"]) for entry in job.consents
    }
    rows = tuple(
        (
            entry.silo,
            entry.time,
            persons[entry.silo] or ("its policy alone" if entry.body["rule"] else "its policy, as an assistant"),
            entry.body["rule"],
            entry.body["policy_digest"][:16],
            entry.body["valid_until"],
        )
        for entry in job.consents
    )
    missing = [silo for silo in job.participants if silo not in persons]
    text = (f"No consent of {', '.join(missing)}: nothing ran.",) if missing else ()
    return Section(
        "Consents", text=text, tables=(Table(("silo", "signed", "by", "rule", "policy (sha256)", "valid until"), rows),)
    )


def _results(job: Job) -> Section:
    rows = tuple(
        (e.silo, e.body["recipient"], ", ".join(e.body["items"]), e.time, e.body["result_digest"]) for e in job.releases
    )
    text = () if rows else ("Nothing was released.",)
    head = ("released by", "recipient", "items", "time", "digest of the result (salted sha256)")
    return Section("Results and their recipients", text=text, tables=(Table(head, rows),) if rows else ())


def _remark(body: object) -> str:
    said = body if isinstance(body, dict) else {}
    return str(said.get("reason", "") or "")


# --- annexes ---


def _record(jobs: Sequence[Job]) -> Section:
    """One line for each controller and purpose, of the jobs that ran."""
    held: dict[tuple[str, str], list[tuple[Job, Owner]]] = {}
    ran = [job for job in jobs if job.ran]
    for job in ran:
        for owner in job.owners:
            held.setdefault((owner.silo, job.purpose), []).append((job, owner))
    rows = []
    for (silo, purpose), parts in sorted(held.items()):
        said = [owner.record or {} for _, owner in parts]
        to = sorted({e.body["recipient"] for job, _ in parts for e in job.releases})
        rows.append(
            (
                _all(r.get("controller") for r in said) or f"{NOT_SAID} ({silo})",
                _all(r.get("contact") for r in said) or NOT_SAID,
                purpose,
                _all(x for r in said for x in r.get("subjects", [])) or NOT_SAID,
                _all(x for r in said for x in r.get("categories", [])) or NOT_SAID,
                ", ".join(to) or "nobody",
                _all(r.get("transfers") for r in said) or NOT_SAID,
                _all(f"{r['retention_days']} days" for r in said if r.get("retention_days")) or NOT_SAID,
            )
        )
    head = (
        "controller",
        "contact",
        "purpose",
        "data subjects",
        "categories",
        "recipients",
        "transfers",
        "erasure after",
    )
    return Section(
        "Annex A: record of processing (GDPR Art. 30(1))",
        1,
        text=() if rows else ("No job ran.",),
        tables=(Table(head, tuple(rows)),) if rows else (),
        points=tuple(f"Security (g): {text}" for text in _measures(ran)) if rows else (),
    )


def _measures(jobs: Sequence[Job]) -> tuple[str, ...]:
    """How the jobs protect what they read: by what their specs say of it, and what holds for every job."""
    protocols = ", ".join(sorted({f"'{job.protocol}'" for job in jobs}))
    sources = ", ".join(sorted({f"'{job.randomness}'" for job in jobs if job.randomness != "none"}))
    own = []
    if protocols:
        own.append(f"Rows are matched by {protocols}; what each party learns of them by that is in the disclosures.")
    if sources:
        own.append(f"Columns are computed on under secret sharing, with correlated randomness from {sources}.")
    return (*own, *MEASURES)


def _impact(jobs: Sequence[Job]) -> Section:
    columns = sorted({(u.silo, u.column, u.operation) for job in jobs for o in job.owners for u in o.uses})
    exact = sorted({(str(x.get("silo")), str(x.get("learns"))) for job in jobs for x in job.lines})
    kinds = sorted({(job.kind, job.purpose) for job in jobs})
    return Section(
        "Annex B: for a data protection impact assessment (GDPR Art. 35(7))",
        1,
        text=(
            "a) The processing: " + ("; ".join(f"{kind} for '{purpose}'" for kind, purpose in kinds) or "none") + ".",
            f"b) Necessity and proportion: {len(columns)} uses of columns, all listed above with their purpose; a job "
            "cannot start unless each owner's policy names or permits by '*' every column for its use.",
            f"c) Risks: what can be known after the jobs are the {len(exact)} things that the disclosures list, under the "
            "assumptions that stand beside them.",
        ),
        points=tuple(f"d) Measure: {text}" for text in _measures(jobs)),
    )


def _integrity(checks: Sequence[Check], failed: Sequence[Check], unread: Sequence[str], bundle: Path) -> Section:
    shown = failed or [check for check in checks if not check.name.startswith("entry ")]
    rows = tuple(("passed" if check.ok else "FAILED", check.name, check.detail) for check in shown)
    return Section(
        "Integrity of the evidence",
        1,
        text=(
            f"Made from {bundle.name}; check it again with: accord audit verify {bundle.name}",
            *(f"Not in this report, as this version cannot read it: {text}" for text in unread),
        ),
        tables=(Table(("", "check", "found"), rows),),
        points=LIMITS,
    )


def _all(values: object) -> str:
    return ", ".join(dict.fromkeys(str(v) for v in values if v)) if isinstance(values, Iterator | list) else ""
