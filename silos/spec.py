"""The job spec: one canonical JSON document that holds everything a run depends on.

Every participant parses the same document, and its digest is what they sign; so there are no defaults here
(silos/request.py has them), no floats (their text is not unique), and no field a reader could overlook.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from coordinator.envelope import digest
from silos.errors import SpecError
from silos.times import TIME_PATTERN, from_text
from silos.validation import Frozen, validate
from vertical.identifiers import RULES
from vertical.phones import REGIONS

MAX_VALIDITY_DAYS = 30
RESERVED_NAMES = frozenset({"coordinator"})

SiloName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,31}$")]
DatasetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Column = Annotated[str, Field(min_length=1, max_length=128)]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Time = Annotated[str, Field(pattern=TIME_PATTERN)]
JobKind = Literal["vertical.logistic"]
ReleaseItem = Literal["coefficients", "auc", "counts"]
Identifier = Literal["email/v1", "email-provider/v1", "phone/v1", "person/v1", "hashed-sha256/v1", "text/v1"]
"""How identifiers are normalised: the rules of vertical.identifiers."""
Randomness = Literal["dealer", "verified-dealer", "ot"]
"""Where correlated randomness comes from: a dealer, a dealer whose work the owners check, or the owners themselves."""


class Feature(Frozen):
    """One column and how the model reads it."""

    column: Column
    as_: Literal["number", "category"] = Field(alias="as")


class Party(Frozen):
    """One data owner's part: which data set, which columns join, which columns train, who has the label."""

    silo: SiloName
    dataset: DatasetName
    key: tuple[Column, ...] = Field(min_length=1, max_length=8)
    features: tuple[Feature, ...] = Field(min_length=1, max_length=1000)
    label: Column | None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column the job touches here, the join columns first."""
        label = (self.label,) if self.label is not None else ()
        return (*self.key, *label, *(f.column for f in self.features))

    @model_validator(mode="after")
    def _columns_once(self) -> Self:
        seen: set[str] = set()
        for column in self.columns:
            if column in seen:
                raise ValueError(f"column '{column}' of {self.silo} is used twice")
            seen.add(column)
        return self


class Align(Frozen):
    """How rows are matched.

    region: what both owners read identifiers in that do not say theirs, such as telephone numbers without a country
    code; None where the rule for identifiers has no use for one.
    """

    protocol: Literal["ecdh-psi", "vole-psi"]
    identifier: Identifier
    region: str | None = Field(pattern=r"^[A-Z]{2}$")
    duplicates: Literal["refuse", "first"]
    minimum_matches: int = Field(ge=1, le=10**9)

    @model_validator(mode="after")
    def _region_as_the_rule_asks(self) -> Self:
        regional = RULES[self.identifier].regional
        if regional and self.region not in REGIONS:
            got = "none" if self.region is None else f"'{self.region}'"
            raise ValueError(f"'align.region' must be a region with a numbering plan, such as 'CH', got {got}")
        if not regional and self.region is not None:
            raise ValueError(
                f"'align.region' must be null (in a request: left out) with identifier '{self.identifier}', "
                f"got '{self.region}'"
            )
        return self


class Encoding(Frozen):
    """How an owner turns its columns into numbers."""

    winsorise_sd: int = Field(ge=1, le=100)
    rare_category: int = Field(ge=1, le=10**6)


class Train(Frozen):
    """Settings of the training protocol."""

    ridge: str = Field(pattern=r"^\d{1,6}(\.\d{1,9})?$")
    passes: int = Field(ge=1, le=1000)
    period: Literal[16, 32, 64, 128]
    harmonics: int = Field(ge=1, le=32)

    @field_validator("ridge")
    @classmethod
    def _ridge_positive(cls, ridge: str) -> str:
        if Decimal(ridge) <= 0:
            raise ValueError(f"must be greater than 0, got '{ridge}'")
        return ridge


class Evaluate(Frozen):
    """Which rows are held out: a keyed hash of the identifier under `salt` decides, the same way at every owner."""

    holdout_percent: int = Field(ge=1, le=90)
    salt: Hex32


class Limits(Frozen):
    """Bounds of one run."""

    timeout_s: int = Field(ge=1, le=3600)


class Spec(Frozen):
    """A whole job; see the module for why nothing has a default."""

    v: Literal[1]
    job: Hex32
    kind: JobKind
    purpose: str = Field(min_length=1, max_length=200)
    created: Time
    valid_until: Time
    parties: tuple[Party, ...]
    randomness: Randomness
    dealer: SiloName | None
    align: Align
    encoding: Encoding
    train: Train
    evaluate: Evaluate
    release: tuple[ReleaseItem, ...] = Field(min_length=1)
    limits: Limits
    links: Literal["auto", "relay"]

    @property
    def owners(self) -> tuple[str, ...]:
        """The data owners, in the order that makes them party 0 and 1."""
        return tuple(p.silo for p in self.parties)

    @property
    def participants(self) -> tuple[str, ...]:
        """Everybody who computes: the owners, then the dealer if there is one."""
        return self.owners if self.dealer is None else (*self.owners, self.dealer)

    @property
    def active(self) -> str:
        """The owner of the label."""
        return next(p.silo for p in self.parties if p.label is not None)

    def party(self, silo: str) -> Party | None:
        """The owner's part of the job, or None if `silo` brings no data."""
        return next((p for p in self.parties if p.silo == silo), None)

    def document(self) -> dict[str, Any]:
        """The plain JSON document; `spec_digest` hashes exactly this."""
        return self.model_dump(mode="json", by_alias=True)

    @model_validator(mode="after")
    def _roles(self) -> Self:
        if len(self.parties) != 2:
            raise ValueError(f"'parties' must be exactly two data owners in this version, got {len(self.parties)}")
        if len(set(self.owners)) != len(self.owners):
            raise ValueError(f"{self.owners[0]} is named as a data owner twice")
        if self.randomness == "ot" and self.dealer is not None:
            raise ValueError(
                f"'dealer' must be null (in a request: left out) with randomness 'ot', got '{self.dealer}'"
            )
        if self.randomness != "ot" and self.dealer is None:
            raise ValueError(f"'dealer' must be the name of a silo with randomness '{self.randomness}', got none")
        if self.dealer in self.owners:
            raise ValueError(f"'dealer' must have no data in the job, but {self.dealer} is a data owner")
        for name in self.participants:
            if name in RESERVED_NAMES:
                raise ValueError(f"'{name}' is not a silo's name")
        labelled = [p.silo for p in self.parties if p.label is not None]
        if len(labelled) != 1:
            raise ValueError(f"exactly one party must have a label, got {', '.join(labelled) or 'none'}")
        if len(set(self.release)) != len(self.release):
            raise ValueError("'release' names an item twice")
        return self

    @model_validator(mode="after")
    def _keys(self) -> Self:
        roles = RULES[self.align.identifier].roles
        for party in self.parties:
            if len(party.key) != len(roles):
                raise ValueError(
                    f"'key' of {party.silo} must name {len(roles)} column{'s' if len(roles) > 1 else ''} "
                    f"({', '.join(roles)}) with identifier '{self.align.identifier}', got {len(party.key)}"
                )
        return self

    @model_validator(mode="after")
    def _times(self) -> Self:
        try:
            lifetime = from_text(self.valid_until) - from_text(self.created)
        except ValueError as exc:
            raise ValueError("'created' and 'valid_until' must be times that exist") from exc
        if lifetime.total_seconds() <= 0:
            raise ValueError(f"'valid_until' {self.valid_until} is not after 'created' {self.created}")
        if lifetime.total_seconds() > MAX_VALIDITY_DAYS * 86_400:
            raise ValueError(f"the job would be valid for more than {MAX_VALIDITY_DAYS} days")
        return self


def parse_spec(document: Any) -> Spec:
    """Read a spec strictly.

    Raises: SpecError with one sentence; also when the document is not exactly what the model writes, because the
    digest that everybody signs must have one preimage.
    """
    spec = validate(Spec, document, "the job spec", SpecError)
    if spec.document() != document:
        raise SpecError("the job spec: it is not written in its one accepted form")
    return spec


def spec_digest(spec: Spec) -> str:
    """Hex SHA-256 of the canonical spec: what participants sign."""
    return digest(spec.document())
