"""The parts of a job spec: names, columns, each owner's part, and how rows are matched."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from silos.times import TIME_PATTERN
from silos.validation import Frozen
from vertical.identifiers import RULES
from vertical.phones import REGIONS

SiloName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,31}$")]
DatasetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


class IsColumn:
    """Marks a text that is the name of a column, however it is annotated further."""


Column = Annotated[str, Field(min_length=1, max_length=128), IsColumn()]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Time = Annotated[str, Field(pattern=TIME_PATTERN)]
Identifier = Literal[
    "email/v1",
    "email-provider/v1",
    "phone/v1",
    "person/v1",
    "name-birth/v1",
    "name-postcode/v1",
    "given-birth-postcode/v1",
    "family-birth-postcode/v1",
    "hashed-sha256/v1",
    "text/v1",
]
"""How identifiers are normalised: the rules of vertical.identifiers."""
Randomness = Literal["dealer", "verified-dealer", "ot"]
"""Where correlated randomness comes from: a dealer, a dealer whose work the owners check, or the owners themselves."""
Matching = Literal["ecdh-psi", "vole-psi", "vole-psi-malicious", "oprf-psi", "helper-psi", "hidden"]
"""How rows are matched; docs/matching.md compares them."""


class Feature(Frozen):
    """One column and how the model reads it.

    as: "text" becomes numbers by a local text encoder.  monotone: 1 if the score may never fall with it, -1 if it may never
    rise, 0 for anything; of trees only.
    """

    column: Column
    as_: Literal["number", "category", "text"] = Field(alias="as")
    monotone: Literal[-1, 0, 1]


class Party(Frozen):
    """One data owner's part: which data set, and which columns make up each of the job's keys."""

    silo: SiloName
    dataset: DatasetName
    keys: tuple[Annotated[tuple[Column, ...], Field(min_length=1, max_length=8)], ...] = Field(min_length=1)

    @property
    def join_columns(self) -> tuple[str, ...]:
        """Columns of all keys, each once."""
        return tuple(dict.fromkeys(column for key in self.keys for column in key))

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Columns that must hold numbers."""
        return ()

    @property
    def category_columns(self) -> tuple[str, ...]:
        """Columns that must hold something that can be counted."""
        return ()

    @property
    def output_columns(self) -> tuple[str, ...]:
        """Columns that go into the owner's own result and nowhere else; they may be join columns too."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column the job touches here, the join columns first."""
        return (*self.join_columns, *self.number_columns, *self.category_columns)

    @model_validator(mode="after")
    def _columns_once(self) -> Self:
        for key in self.keys:
            for column in key:
                if key.count(column) > 1:
                    raise ValueError(f"column '{column}' of {self.silo} is used twice in a key")
        seen: set[str] = set()
        for column in self.columns:
            if column in seen:
                raise ValueError(f"column '{column}' of {self.silo} is used twice")
            seen.add(column)
        return self


class Trainer(Party):
    """An owner's part in training: which columns are features, and which is the label, at one owner.

    offset, weight: at that owner too, what is added to a row's score and how much the row counts.  groups: columns by which
    figures of the evaluation are split.
    """

    features: tuple[Feature, ...] = Field(min_length=1, max_length=1000)
    label: Column | None
    offset: Column | None
    weight: Column | None
    groups: tuple[Column, ...] = Field(max_length=8)

    @property
    def number_columns(self) -> tuple[str, ...]:
        own = tuple(name for name in (self.label, self.offset, self.weight) if name is not None)
        return (*own, *(f.column for f in self.features if f.as_ == "number"))

    @property
    def category_columns(self) -> tuple[str, ...]:
        return tuple(f.column for f in self.features if f.as_ != "number")

    @property
    def output_columns(self) -> tuple[str, ...]:
        return self.groups

    @model_validator(mode="after")
    def _with_the_label(self) -> Self:
        for role, name in (("offset", self.offset), ("weight", self.weight)):
            if name is not None and self.label is None:
                raise ValueError(f"'{role}' of {self.silo} must be null (in a request: left out) without a label")
        if len(set(self.groups)) != len(self.groups):
            raise ValueError(f"'groups' of {self.silo} names a column twice")
        return self


class Matcher(Party):
    """An owner's part in matching.  output: further columns of its own in the table that it gets."""

    output: tuple[Column, ...] = Field(max_length=1000)

    @property
    def output_columns(self) -> tuple[str, ...]:
        return self.output

    @model_validator(mode="after")
    def _output_once(self) -> Self:
        if len(set(self.output)) != len(self.output):
            raise ValueError(f"'output' of {self.silo} names a column twice")
        return self


class Sum(Frozen):
    """One column whose sum over the matched rows is asked for.

    decimals: digits behind the point that count; the sum is exact in them.  lowest, highest: decimal numbers that all its
    values lie between; one that does not stops the job.
    """

    column: Column
    decimals: int = Field(ge=0, le=9)
    lowest: str = Field(pattern=r"^-?\d{1,15}(\.\d{1,9})?$")
    highest: str = Field(pattern=r"^-?\d{1,15}(\.\d{1,9})?$")

    @model_validator(mode="after")
    def _range(self) -> Self:
        if Decimal(self.lowest) > Decimal(self.highest):
            raise ValueError(f"the range of '{self.column}' is empty: {self.lowest} to {self.highest}")
        return self


class Measurer(Party):
    """An owner's part in measuring: which of its columns are added up over the matched rows."""

    sums: tuple[Sum, ...] = Field(max_length=64)

    @property
    def number_columns(self) -> tuple[str, ...]:
        return tuple(s.column for s in self.sums)


class Key(Frozen):
    """One way to tell who a row is about.

    rule: how its columns are normalised.  region: what both owners read values in that do not say theirs, such as telephone
    numbers without a country code; None where the rule has no use for one.
    """

    rule: Identifier
    region: str | None = Field(pattern=r"^[A-Z]{2}$")

    @model_validator(mode="after")
    def _region_as_the_rule_asks(self) -> Self:
        regional = RULES[self.rule].regional
        if regional and self.region not in REGIONS:
            got = "none" if self.region is None else f"'{self.region}'"
            raise ValueError(
                f"'region' of key '{self.rule}' must be one with a numbering plan, such as 'CH', got {got}"
            )
        if not regional and self.region is not None:
            raise ValueError(
                f"'region' of key '{self.rule}' must be null (in a request: left out), got '{self.region}'"
            )
        return self


class Align(Frozen):
    """How rows are matched.  keys: in order of priority; rows that match under one are not matched again under a later one."""

    protocol: Matching
    keys: tuple[Key, ...] = Field(min_length=1, max_length=4)
    duplicates: Literal["refuse", "first", "expand"]
    minimum_matches: int = Field(ge=1, le=10**9)


class Encoding(Frozen):
    """How an owner turns its columns into numbers."""

    winsorise_sd: int = Field(ge=1, le=100)
    rare_category: int = Field(ge=1, le=10**6)


class Evaluate(Frozen):
    """Which rows are held out: a keyed hash of the identifier under `salt` decides, the same way at every owner.

    thresholds: probabilities at which decisions are counted, 0.01 or more apart; the first one decides in figures by group.
    bins: of the tables of gains and of calibration.
    """

    holdout_percent: int = Field(ge=1, le=90)
    salt: Hex32
    thresholds: tuple[Annotated[str, Field(pattern=r"^0\.\d{1,6}$")], ...] = Field(min_length=1, max_length=20)
    bins: int = Field(ge=1, le=100)


class Limits(Frozen):
    """Bounds of one run."""

    timeout_s: int = Field(ge=1, le=3600)
