"""What a job spec compiles to for a policy: every use of every column, and everything that is handed out, to whom.

A plan is made of the same typed fields that the worker reads its columns from.  It finds columns by the type of a field, not
by its name: a field that holds columns and has no operation here makes every job that has it impossible to plan, and so
impossible to run.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from silos.errors import SpecError
from silos.plan_released import Released, released
from silos.spec import Measure, Score, Spec, Statistics, Training, Trees
from silos.spec_parts import IsColumn, Party
from silos.validation import Frozen

Operation = Literal[
    "join", "label", "train", "offset", "weight", "group", "compare", "examine", "predict", "sum", "keep"
]
"""What can be done with a column; docs/policy.md says what each is."""

_BY_FIELD: Mapping[str, Operation] = {
    "keys": "join",
    "label": "label",
    "offset": "offset",
    "weight": "weight",
    "groups": "group",
    "output": "keep",
    "sums": "sum",
}
_FEATURES: Mapping[type[Spec], Operation] = {Training: "train", Statistics: "examine", Score: "predict"}


@dataclass(frozen=True)
class Use:
    """One column and one thing that is done with it.

    field: of the party's part of the spec, which names the column.  with_: the other data owners.  outcome: completes "it
    leads to ...".
    """

    silo: str
    dataset: str
    column: str
    operation: Operation
    field: str
    with_: tuple[str, ...]
    outcome: str


@dataclass(frozen=True)
class Plan:
    """A job as a policy sees it.

    protocol: how rows are matched as the spec says it.  matching: as the disclosure does.  output: what recipients of a
    prediction learn of each row; questions: about how many single rows; routing: of trees; round_to, epsilon: of the number
    of matches; all None in other jobs.
    """

    kind: str
    purpose: str
    owners: tuple[str, ...]
    participants: tuple[str, ...]
    protocol: str
    matching: str
    randomness: str | None
    dealer: str | None
    helper: str | None
    minimum_matches: int
    output: str | None
    questions: int | None
    routing: str | None
    round_to: int | None
    epsilon: str | None
    valid_until: str
    uses: tuple[Use, ...]
    released: tuple[Released, ...]

    def of(self, silo: str) -> tuple[Use, ...]:
        """What is done with a silo's columns, in the order of its part of the spec."""
        return tuple(use for use in self.uses if use.silo == silo)

    def dataset(self, silo: str) -> str | None:
        """The data set that a silo brings, None if it brings none."""
        return next((use.dataset for use in self.uses if use.silo == silo), None)


def plan(spec: Spec) -> Plan:
    """Compile a spec; the same spec gives the same plan everywhere.

    Raises: SpecError if a field holds columns and it is not known what is done with them, or something is released and it
    is not known what it is.
    """
    stray = next((name for name, hint in _hints(type(spec)).items() if name != "parties" and holds_columns(hint)), None)
    if stray is not None:
        raise SpecError(
            f"it is not known what is done with the columns in '{stray}', so '{spec.kind}' cannot be planned"
        )
    return Plan(
        kind=spec.kind,
        purpose=spec.purpose,
        owners=spec.owners,
        participants=spec.participants,
        protocol=spec.align.protocol,
        matching=spec.matching,
        randomness=spec.randomness,
        dealer=spec.dealer,
        helper=spec.helper,
        minimum_matches=spec.align.minimum_matches,
        output=spec.output if isinstance(spec, Score) else None,
        questions=spec.questions if isinstance(spec, Score) else None,
        routing=spec.train.routing if isinstance(spec, Trees) else None,
        round_to=spec.round_to if isinstance(spec, Measure) else None,
        epsilon=spec.epsilon if isinstance(spec, Measure) else None,
        valid_until=spec.valid_until,
        uses=tuple(use for party in spec.parties for use in _uses(spec, party)),
        released=released(spec),
    )


def _uses(spec: Spec, party: Party) -> Iterator[Use]:
    others = tuple(name for name in spec.owners if name != party.silo)
    seen = set()
    for field, column in columns_of(party):
        for operation in _operations(spec, party, field):
            if (column, operation) not in seen:  # a column of two keys is one to join with
                seen.add((column, operation))
                outcome = _outcome(spec, operation)
                yield Use(party.silo, party.dataset, column, operation, field, others, outcome)


def _operations(spec: Spec, party: Party, field: str) -> tuple[Operation, ...]:
    """What is done with the columns of a field of a party.  Raises: SpecError."""
    if isinstance(spec, Score) and field == "offset":
        operation: Operation | None = "predict"
    elif field == "features":
        operation = next((done for form, done in _FEATURES.items() if isinstance(spec, form)), None)
    else:
        operation = _BY_FIELD.get(field)
    if operation is None:
        raise SpecError(
            f"it is not known what is done with the columns in '{field}' of {party.silo}, "
            f"so '{spec.kind}' cannot be planned"
        )
    compared = field == "features" and isinstance(spec, Trees) and spec.train.routing == "revealed"
    return (operation, "compare") if compared else (operation,)


def _outcome(spec: Spec, operation: Operation) -> str:
    items = ", ".join(spec.release)
    if operation == "join":
        if isinstance(spec, Measure):
            return "a number of matches; who matched stays hidden"
        return "every owner learning which of its own rows match"
    if operation == "keep":
        return "a column of the owner's own table, for nobody else"
    if operation == "compare":
        return "every owner learning which rows lie on which side of a threshold"
    if operation == "group":
        return "figures for each of its larger values, whose names are told to every owner"
    if operation == "sum":
        return "its sum over the matched rows"
    what = "a model" if isinstance(spec, Training) else "statistics" if isinstance(spec, Statistics) else "predictions"
    return f"{what}; of it are released: {items}"


# --- columns, found by type


@functools.cache
def _hints(model: type[Frozen]) -> Mapping[str, Any]:
    """Its fields and their types, class variables left out."""
    hints = typing.get_type_hints(model, include_extras=True)
    return {name: hints[name] for name in model.model_fields}


def holds_columns(hint: Any) -> bool:
    """Whether values of a type hold names of columns, however deep."""
    if _is_column(hint):
        return True
    if isinstance(hint, type) and get_origin(hint) is None:
        return issubclass(hint, Frozen) and any(holds_columns(below) for below in _hints(hint).values())
    return any(holds_columns(below) for below in _parts(hint))


def columns_of(party: Frozen) -> Iterator[tuple[str, str]]:
    """Each field that holds columns with each column in it, in order; a column that is named twice comes twice."""
    for field, hint in _hints(type(party)).items():
        for column in _columns(getattr(party, field), hint):
            yield field, column


def _columns(value: Any, hint: Any) -> Iterator[str]:
    if _is_column(hint):
        if not isinstance(value, str):
            raise SpecError("a field of the spec holds columns in a way that cannot be planned")
        yield value
    elif isinstance(value, Frozen):
        for _, column in columns_of(value):
            yield column
    elif value is not None:
        for one in value if isinstance(value, tuple) else (value,):
            for below in _parts(hint):
                yield from _columns(one, below)


def _is_column(hint: Any) -> bool:
    """Whether a type is marked as a column; further annotations of it flatten into one list, which keeps the mark."""
    return any(isinstance(one, IsColumn) for one in getattr(hint, "__metadata__", ()))


def _parts(hint: Any) -> tuple[Any, ...]:
    """What a type is made of: the members of a union, the elements of a container, the type that is annotated."""
    if get_origin(hint) is typing.Annotated:
        return (get_args(hint)[0],)
    return () if get_origin(hint) is Literal else tuple(below for below in get_args(hint) if below is not Ellipsis)
