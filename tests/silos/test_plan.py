"""The plan: nothing that a worker reads, and nothing that is handed out, is missing from it."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from pydantic import Field

from silos import plan_released
from silos.errors import SpecError
from silos.plan import Plan, holds_columns, plan
from silos.plan_released import BIN_AT_LEAST, HELD_OUT_AT_LEAST
from silos.spec import KINDS, Glm, Match, Spec
from silos.spec_parts import Column, Matcher
from silos.validation import Frozen
from tests.silos.policy_world import REQUESTS, changed, spec_of, specs
from vertical import figures

NO_COLUMNS = {"silo", "dataset", "as_", "monotone", "decimals", "lowest", "highest"}
"""Fields of an owner's part of a spec that hold no column; a new field is one of these, or is in the plan."""


def fields(model: type[Frozen]) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(model, include_extras=True)
    return ((name, hints[name]) for name in model.model_fields)


def models_in(hint: Any) -> Iterator[type[Frozen]]:
    """Every model that a type is made of."""
    if isinstance(hint, type) and get_origin(hint) is None:
        if issubclass(hint, Frozen):
            yield hint
            for _, below in fields(hint):
                yield from models_in(below)
        return
    for below in get_args(hint):
        yield from models_in(below)


def all_specs() -> list[Spec]:
    return [spec_of(job) for job in REQUESTS]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_party_is_in_the_plan_or_holds_no_column(kind: str) -> None:
    planned = {use.field for spec in all_specs() if spec.kind == kind for use in plan(spec).uses}
    optional = {"offset", "weight", "groups"} if kind in ("vertical.trees", "vertical.network") else set()
    (party,) = (m for m in models_in(dict(fields(KINDS[kind]))["parties"]) if "silo" in m.model_fields)
    assert {name for name, hint in fields(party) if holds_columns(hint)} - optional == planned
    for model in models_in(dict(fields(KINDS[kind]))["parties"]):
        for name, hint in fields(model):
            assert holds_columns(hint) != (name in NO_COLUMNS), f"{model.__name__}.{name}"


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_outside_of_the_parties_holds_a_column(kind: str) -> None:
    assert [name for name, hint in fields(KINDS[kind]) if holds_columns(hint)] == ["parties"]


@settings(max_examples=150, deadline=None)
@given(specs())
def test_every_column_that_a_worker_could_read_is_in_the_plan(spec: Spec) -> None:
    """What silos.inputs, silos.tables and silos.extracts select from are these properties of a party."""
    planned = plan(spec)
    for party in spec.parties:
        read = {*party.join_columns, *party.number_columns, *party.category_columns, *party.output_columns}
        assert {use.column for use in planned.of(party.silo)} == read
        assert {(use.silo, use.dataset) for use in planned.of(party.silo)} == {(party.silo, party.dataset)}
        assert planned.dataset(party.silo) == party.dataset
        text = json.dumps(party.model_dump(mode="json", by_alias=True))
        assert {f"c{i}" for i in range(12) if f'"c{i}"' in text} <= {use.column for use in planned.of(party.silo)}


@pytest.mark.parametrize(
    ("job", "uses"),
    [
        ("glm", "email join, LIMIT train, SEX train, default label"),
        ("poisson", "email join, LIMIT train, SEX train, claims label, exposure offset, w weight"),
        ("grouped", "email join, LIMIT train, SEX train, default label, AGE group"),
        ("trees", "email join, LIMIT train, SEX train, default label"),
        ("routed", "email join, LIMIT train, LIMIT compare, SEX train, SEX compare, default label"),
        ("network", "email join, LIMIT train, SEX train, default label"),
        ("statistics", "email join, LIMIT examine, SEX examine, default label"),
        ("score", "email join, LIMIT predict, SEX predict, prior predict"),
        ("match", "email join, LIMIT keep"),
        ("keys", "email join, first join, last join, born join"),
        ("measure", "email join, LIMIT sum"),
        ("noised", "email join"),
    ],
)
def test_what_is_done_with_each_column(job: str, uses: str) -> None:
    assert ", ".join(f"{use.column} {use.operation}" for use in plan(spec_of(job)).of("lender")) == uses
    assert all(use.with_ == ("platform",) and use.outcome for use in plan(spec_of(job)).of("lender"))


def test_a_column_of_two_keys_is_one_to_join_with() -> None:
    keys = ["email", ["first", "last", "born"]], ["mail", ["given", "mail", "birth"]]
    spec = spec_of("keys", **{"parties.0.keys": keys[0], "parties.1.keys": keys[1]})
    assert [use.column for use in plan(spec).of("platform")] == ["mail", "given", "birth"]


class Payloads(Matcher):
    """An owner's part with columns that nobody has thought of."""

    extra: tuple[Column, ...] = ()
    short: Annotated[Column, Field(max_length=8)] | None = None
    payload: dict[str, tuple[Column, ...]] = Field(default_factory=dict)


class Delivery(Match):
    """A job of such parts."""

    parties: tuple[Payloads, ...]


class Stray(Match):
    """A job with a column of its own."""

    other: Column | None = None


class Narrow(Match):
    """The same, annotated further."""

    other: Annotated[Column, Field(pattern="^[A-Z_]*$")] | None = None


class Prize(Glm):
    """A job that hands out what nobody has thought of."""

    release: tuple[Literal["coefficients", "prize"], ...]  # type: ignore[assignment]


def made_of(form: type[Spec], job: str, **changes: Any) -> Spec:
    return form.model_validate_json(json.dumps(changed(spec_of(job).document(), changes)))


@pytest.mark.parametrize(
    ("form", "changes", "sentence"),
    [
        (Stray, {}, "it is not known what is done with the columns in 'other', so 'vertical.match' cannot be planned"),
        (Narrow, {}, "it is not known what is done with the columns in 'other', so 'vertical.match' cannot be planned"),
        (
            Delivery,
            {"parties.0.extra": ["CITY"]},
            "it is not known what is done with the columns in 'extra' of lender, so 'vertical.match' cannot be planned",
        ),
        (
            Delivery,
            {"parties.0.short": "CITY"},
            "it is not known what is done with the columns in 'short' of lender, so 'vertical.match' cannot be planned",
        ),
        (
            Delivery,
            {"parties.0.payload": {"a": ["CITY"]}},
            "a field of the spec holds columns in a way that cannot be planned",
        ),
    ],
)
def test_a_column_that_is_not_known_to_the_plan_stops_it(
    form: type[Spec], changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpecError) as caught:
        plan(made_of(form, "match", **changes))
    assert str(caught.value) == sentence


def test_a_released_item_that_is_not_known_to_the_plan_stops_it() -> None:
    with pytest.raises(
        SpecError, match=r"^it is not known to whom 'prize' is told, so 'vertical.glm' cannot be planned$"
    ):
        plan(made_of(Prize, "glm", release=["coefficients", "prize"]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_item_that_can_be_released_is_known(kind: str) -> None:
    literal = get_args(dict(fields(KINDS[kind]))["release"])[0]
    items = get_args(get_args(literal)[0] if get_origin(literal) is tuple else literal)
    assert items
    known = {one.item for spec in all_specs() if spec.kind == kind for one in plan_released._known(spec)}
    assert set(items) <= known


def rows(job: str, **changes: Any) -> dict[str, tuple[Any, ...]]:
    return {one.item: (one.form, one.rows, one.recipients) for one in plan(spec_of(job, **changes)).released}


BOTH = ("lender", "platform")


@pytest.mark.parametrize(
    ("job", "changes", "item", "told"),
    [
        ("glm", {}, "coefficients", ("figure", 70, BOTH)),
        ("glm", {"align.minimum_matches": 1000}, "coefficients", ("figure", 100, BOTH)),
        ("glm", {"align.minimum_matches": 1000, "encoding.rare_category": 5}, "coefficients", ("figure", 5, BOTH)),
        (
            "glm",
            {"align.minimum_matches": 1000, "parties.0.features": ["LIMIT"]},
            "coefficients",
            ("figure", 700, BOTH),
        ),
        ("glm", {}, "auc", ("figure", 30, BOTH)),
        ("glm", {"evaluate.holdout_percent": 1}, "auc", ("figure", 20, BOTH)),
        ("glm", {"release": ["contribution"]}, "contribution", ("figure", 30, BOTH)),
        ("glm", {}, "counts", ("figure", 100, BOTH)),
        ("grouped", {}, "metrics", ("figure", 0, BOTH)),
        ("poisson", {}, "metrics", ("figure", 20, BOTH)),
        ("trees", {}, "model", ("model", 0, BOTH)),
        ("statistics", {}, "woe", ("figure", 10, BOTH)),
        ("statistics", {"statistics.minimum": 500}, "correlations", ("figure", 100, BOTH)),
        ("statistics", {"encoding.rare_category": 7}, "correlations", ("figure", 7, BOTH)),
        ("score", {}, "predictions", ("row", 1, BOTH)),
        ("score", {}, "stability", ("figure", 20, BOTH)),
        ("asked", {}, "predictions", ("row", 1, ("platform",))),
        ("match", {}, "rows", ("row", 1, BOTH)),
        ("measure", {}, "sums", ("figure", 100, BOTH)),
    ],
)
def test_to_whom_each_item_is_told_and_how_many_rows_are_behind_it(
    job: str, changes: dict[str, Any], item: str, told: tuple[Any, ...]
) -> None:
    assert rows(job, **changes)[item] == told


def test_only_a_noised_number_has_noise() -> None:
    noise = {job: {one.item: one.epsilon for one in plan(spec_of(job)).released} for job in REQUESTS}
    assert noise.pop("noised") == {"matches": "1"}
    assert {epsilon for told in noise.values() for epsilon in told.values()} == {None}


def test_the_evaluation_insists_on_as_many_rows_as_the_plan_says() -> None:
    assert (HELD_OUT_AT_LEAST, BIN_AT_LEAST) == (2 * figures.MINIMUM_PER_CLASS, figures.MINIMUM_PER_BIN)


@pytest.mark.parametrize("job", REQUESTS)
def test_a_plan_has_the_facts_of_its_spec(job: str) -> None:
    spec = spec_of(job)
    made: Plan = plan(spec)
    assert made == plan(type(spec).model_validate_json(json.dumps(spec.document())))
    document = spec.document()
    told = ("kind", "purpose", "dealer", "helper", "randomness", "valid_until")
    assert {name: getattr(made, name) for name in told} == {name: document[name] for name in told}
    assert (made.protocol, made.minimum_matches) == (spec.align.protocol, spec.align.minimum_matches)
    assert (made.owners, made.participants, made.matching) == (spec.owners, spec.participants, spec.matching)
    optional = {name: document.get(name) for name in ("output", "questions", "round_to", "epsilon")}
    optional["output"] = document.get("output")
    assert {name: getattr(made, name) for name in optional} == optional
    routed = document["train"]["routing"] if spec.kind == "vertical.trees" else None
    assert made.routing == routed


def test_a_plan_cannot_be_changed() -> None:
    made = plan(spec_of("glm"))
    with pytest.raises(AttributeError):
        made.uses = ()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        made.uses[0].column = "other"  # type: ignore[misc]
