"""What a person reads before saying yes: who asks, what our columns are used for, and what everybody learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from silos.approvals import Pending
from silos.disclosure import render
from silos.plan import Operation, Plan, plan
from silos.plan_released import Released
from silos.spec import parse_spec
from silos.times import from_text

KINDS: Mapping[str, str] = {
    "vertical.glm": "train a regression model on joined rows",
    "vertical.trees": "train a model of decision trees on joined rows",
    "vertical.network": "train a neural network on joined rows",
    "vertical.statistics": "compute statistics of joined rows",
    "vertical.score": "predict with a model that was trained before",
    "vertical.match": "find the rows that the data owners share",
    "vertical.measure": "count the rows that the data owners share",
}
"""What each kind of job is for, to complete "The job is to ..."."""

OPERATIONS: Mapping[Operation, str] = {
    "join": "to find matching rows",
    "label": "as what the model is to predict",
    "train": "as input of the model",
    "offset": "as a fixed part of each row's score",
    "weight": "as how much each row counts",
    "group": "to split figures by its values",
    "compare": "to send rows left or right in a tree",
    "examine": "for statistics",
    "predict": "as input of a prediction",
    "sum": "to be summed up",
    "keep": "to be shown in our own result",
}
"""What can be done with a column, to complete "column X is used ..."."""


@dataclass(frozen=True)
class Section:
    """A heading and its lines."""

    heading: str
    lines: tuple[str, ...]


def sections(pending: Pending) -> list[Section]:
    """All that a person should know, in the order in which it is read.

    Raises: SpecError if the question holds no job that this version knows.
    """
    spec = parse_spec(pending.spec)
    shape = plan(spec)
    parts = [
        Section("Who asks, and for what", tuple(_request(pending, shape))),
        Section(f"What the columns of {pending.silo} are used for", tuple(_columns(shape, pending.silo))),
        Section("What is handed out as results", tuple(_result(one) for one in shape.released)),
        *_disclosed(pending),
    ]
    if pending.budget:
        parts.append(Section("What it takes of the privacy budget", tuple(_charges(pending))))
    return [Section(plain(part.heading), tuple(map(plain, part.lines))) for part in parts if part.lines]


def plain(line: str) -> str:
    """A line in which nothing can move the cursor, hide text or turn its direction: much of it was written by others."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in line)


def _request(pending: Pending, shape: Plan) -> Iterator[str]:
    yield f"{pending.submitter} asks {pending.silo} to take part in job {pending.job}"
    yield f"purpose: {shape.purpose}"
    yield f"the job is to {kind_in_words(shape.kind)} ({shape.kind})"
    partners = [f"{name} (data owner)" for name in shape.owners if name != pending.silo]
    if shape.dealer is not None:
        partners.append(f"{shape.dealer} (deals randomness, brings no data)")
    if shape.helper is not None:
        partners.append(f"{shape.helper} (compares keyed tokens, brings no data)")
    yield f"together with {', '.join(partners)}"
    people = "one person here approves" if pending.needed == 1 else f"{pending.needed} different persons here approve"
    yield f"rule '{pending.rule}' of the policy allows it if {people} it"
    yield f"asked on {when(pending.asked_at)}; can be approved until {when(pending.valid_until)}"


def _columns(shape: Plan, silo: str) -> Iterator[str]:
    """One line for each operation, with all columns that it is done with."""
    dataset = shape.dataset(silo)
    if dataset is not None:
        yield f"data set '{dataset}'"
    uses: dict[tuple[Operation, str], list[str]] = {}
    for use in shape.of(silo):
        uses.setdefault((use.operation, use.outcome), []).append(use.column)
    for (operation, outcome), columns in uses.items():
        yield f"{', '.join(columns)}: {OPERATIONS[operation]}; leads to {outcome}"


def _result(one: Released) -> str:
    form = {
        "row": "a value for each row",
        "figure": f"numbers, with at least {one.rows:,} rows behind each",
        "model": "parts of a model that their owners keep",
    }[one.form]
    noise = f", with noise of epsilon {one.epsilon}" if one.epsilon is not None else ""
    return f"{one.item} to {', '.join(one.recipients)}: {form}{noise}"


def _disclosed(pending: Pending) -> Iterator[Section]:
    """The disclosure: a line that is not indented is a heading."""
    heading, lines, found = "", list[str](), list[Section]()
    for line in [*render(pending.disclosure), ""]:
        if line.startswith(" "):
            lines.append(line.strip().removeprefix("- "))
            continue
        if heading:
            found.append(Section(heading, tuple(lines)))
        heading, lines = line, []
    yield from found


def _charges(pending: Pending) -> Iterator[str]:
    for charge in pending.budget:
        yield (
            f"rho {charge['rho']} towards {charge['counterparty']}; before it {charge['before']} "
            f"of {charge['limit']} were taken"
        )


def when(time: str) -> str:
    """A time on the wire, for people."""
    return from_text(time).strftime("%Y-%m-%d %H:%M UTC")


def kind_in_words(kind: str) -> str:
    """What a kind of job is for, to complete "The job is to ..."."""
    return KINDS.get(kind, "run")


def text(pending: Pending) -> str:
    """The same for a terminal."""
    return "\n".join("\n".join([part.heading, *(f"  - {line}" for line in part.lines)]) for part in sections(pending))
