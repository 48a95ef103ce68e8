"""The tables of a policy file: what can be written there, and in which form.  silos/policy_rules.py says what it means."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from silos.spec_parts import DatasetName, Matching, Randomness, SiloName
from silos.validation import Frozen

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? ([0-2][0-9]):([0-5][0-9])-([0-2][0-9]):([0-5][0-9])")

Output = Literal["decision", "decile", "rounded", "probability"]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PersonName = Annotated[str, Field(pattern=r"^\S(.{0,126}\S)?$")]
Fact = Annotated[str, Field(max_length=500)]


def minutes_of(window: str) -> tuple[tuple[int, ...], int, int]:
    """The days (0 is Monday), and the first and the last minute of these days that "mon-fri 06:00-20:00" is.

    Raises: ValueError if it is no such text, or is empty.
    """
    found = _WINDOW.fullmatch(window)
    if found is None or found[1] not in DAYS or (found[2] or found[1]) not in DAYS:
        raise ValueError(f"must be like 'mon-fri 06:00-20:00', got '{window}'")
    first, last = DAYS.index(found[1]), DAYS.index(found[2] or found[1])
    start, end = (60 * int(found[i]) + int(found[i + 1]) for i in (3, 5))
    if first > last or start >= end or end > 24 * 60:
        raise ValueError(f"must go from an earlier day and time to a later one, at most 24:00, got '{window}'")
    return tuple(range(first, last + 1)), start, end


def _window(window: str) -> str:
    minutes_of(window)
    return window


def _key(text: str) -> str:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ValueError("must be the base64 of a raw Ed25519 public key of 32 bytes")
    return text


def _above_zero(text: str) -> str:
    if not Decimal(text) > 0:
        raise ValueError(f"must be above 0, got '{text}'")
    return text


def _small(text: str) -> str:
    if not Decimal("1e-30") <= Decimal(text) < 1:
        raise ValueError(f"must be at least 1e-30 and below 1, got '{text}'")
    return text


Window = Annotated[str, AfterValidator(_window)]


class Table(Frozen):
    """A table of the file; the text below a setting is its description in the schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Partner(Table):
    """A silo this one knows: its name and the only key accepted for it."""

    fingerprint: Fingerprint
    """Of its identity key, 64 lower-case hex digits, compared out of band."""


class Approver(Table):
    """A person who may say yes to a job."""

    key: Annotated[str, AfterValidator(_key)]
    """The base64 of the person's raw Ed25519 public key."""


class Record(Table):
    """Who answers for the data, as records of processing name them."""

    controller: Fact = ""
    """The organisation that decides what the data is used for."""
    contact: Fact = ""
    """How its data protection officer is reached."""


class Budget(Table):
    """How much each counterparty may learn in all from figures with noise, as zero-concentrated differential privacy."""

    rho: Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,9})?$"), AfterValidator(_above_zero)]
    """The limit towards each counterparty, a decimal number as text."""
    delta: Annotated[
        str, Field(pattern=r"^([0-9](\.[0-9]{1,30})?|[0-9](\.[0-9]{1,9})?e-[0-9]{1,2})$"), AfterValidator(_small)
    ]
    """The delta at which it is also told as (epsilon, delta)."""


class Terms(Table):
    """What holds for a data set whatever the rule, and what records of processing say of it."""

    budget: Budget | None = None
    """The privacy budget; without it no figure with noise is told."""
    legal_basis: Fact = ""
    """Why the processing is lawful."""
    categories: tuple[Fact, ...] = Field(max_length=32, default=())
    """Categories of personal data."""
    subjects: tuple[Fact, ...] = Field(max_length=32, default=())
    """Categories of persons."""
    retention_days: int = Field(ge=0, le=36_500, default=0)
    """For how many days results are kept; 0 if nothing is said."""
    transfers: Fact = ""
    """Transfers to other countries."""


class Rule(Table):
    """One permission.  Every clause must hold; a list that is empty or left out permits nothing, unless it says otherwise."""

    name: str = Field(min_length=1, max_length=64)
    """Names the rule in refusals and consents."""
    dataset: DatasetName
    """The data set of ours that the rule is about."""
    partners: tuple[SiloName, ...] = ()
    """Data owners that may take part."""
    matchings: tuple[Matching, ...] | None = None
    """How rows may be matched; left out, in any way."""
    randomness: tuple[Randomness, ...] | None = None
    """Where correlated randomness may come from; left out, from anywhere."""
    dealers: tuple[SiloName, ...] = ()
    """Who may be the dealer that makes it."""
    helpers: tuple[SiloName, ...] = ()
    """Who may compare keyed tokens."""
    kinds: tuple[str, ...] = ()
    """Kinds of jobs."""
    purposes: tuple[str, ...] = ()
    """Purposes, word for word."""
    join: tuple[str, ...] = ()
    """Columns that may match rows."""
    label: tuple[str, ...] = ()
    """Columns that may be the label."""
    train: tuple[str, ...] = ()
    """Columns that may be features, offsets or weights of a model, or looked at by statistics; "*" for every column."""
    compare: tuple[str, ...] = ()
    """Columns of which everybody may learn which rows are on which side of a threshold."""
    sum: tuple[str, ...] = ()
    """Columns that may be added up over matched rows; "*" for every column."""
    groups: tuple[str, ...] = ()
    """Columns that may split figures; the names of their larger groups are told."""
    predict: tuple[str, ...] = ()
    """Columns that a kept model may predict from; "*" for every column."""
    partner_sums: int = Field(ge=0, le=64, default=0)
    """How many columns of partners may be added up over rows that match ours."""
    routing: tuple[Literal["hidden", "revealed"], ...] = ("hidden",)
    """Of trees: whether everybody may learn which rows go where."""
    outputs: tuple[Output, ...] = ()
    """What others may be told of each matched row."""
    questions: int = Field(ge=0, le=10**6, default=0)
    """How many single rows a job that stays open may be asked about."""
    release: tuple[str, ...] = ()
    """Items that may be released."""
    recipients: tuple[SiloName, ...] | None = None
    """Who besides us may be told what is released; left out, the partners."""
    noise: Literal["optional", "required"] = "optional"
    """Whether every figure that others are told must have noise."""
    floor: int = Field(ge=0, le=10**9, default=0)
    """The least number of rows behind any figure that others are told, and in which two jobs may differ."""
    schedule: tuple[Window, ...] | None = Field(max_length=32, default=None)
    """When jobs may start, in UTC, each like "mon-fri 06:00-20:00"; left out, at any time."""
    uses: int | None = Field(ge=1, le=10**9, default=None)
    """How many jobs the rule may admit in all; left out, any number.  One that ends before it starts is not counted."""
    approval: int = Field(ge=0, le=2, default=0)
    """How many different approvers must say yes to each job."""
    expires: dt.date | None = None
    """The last day the rule holds; left out, it never expires."""


class AssistantRule(Table):
    """For whom this silo makes correlated randomness, or compares keyed tokens."""

    for_: tuple[SiloName, ...] = Field(alias="for", default=())
    """Data owners."""
