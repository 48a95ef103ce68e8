"""What the specs of all kinds of jobs have in common.

There are no defaults here (silos/request.py has them), no floats (their text is not unique), and no field a reader could
overlook.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from silos.spec_parts import Align, Hex32, Limits, Matching, Party, Randomness, SiloName, Time
from silos.times import from_text
from silos.validation import Frozen
from vertical.identifiers import RULES

MAX_VALIDITY_DAYS = 30
RESERVED_NAMES = frozenset({"coordinator"})
OPEN_MATCHINGS: tuple[Matching, ...] = ("ecdh-psi", "vole-psi", "vole-psi-malicious", "oprf-psi", "helper-psi")
"""Matchings that tell every owner which of its rows matched."""
MANY_OWNERS = frozenset({"vole-psi", "helper-psi"})
"""Matchings that more than two owners can use."""
MAX_OWNERS = 10


class Spec(Frozen):
    """What every job has; see the module for why nothing has a default.

    randomness, dealer: where correlated randomness comes from and who makes it; None where there is none.  helper: the silo
    that compares keyed tokens, with "helper-psi" only.  matchings: the ones that such a job can use.
    """

    matchings: ClassVar[tuple[Matching, ...]] = OPEN_MATCHINGS

    v: Literal[1]
    job: Hex32
    kind: str
    purpose: str = Field(min_length=1, max_length=200)
    created: Time
    valid_until: Time
    parties: tuple[Party, ...]
    randomness: Randomness | None
    dealer: SiloName | None
    helper: SiloName | None
    align: Align
    release: tuple[str, ...] = Field(min_length=1)
    limits: Limits
    links: Literal["auto", "relay"]

    @property
    def owners(self) -> tuple[str, ...]:
        """The data owners, in the order that makes them party 0, 1 and so on."""
        return tuple(p.silo for p in self.parties)

    @property
    def assistant(self) -> str | None:
        """The participant without data, if there is one: the dealer or the helper."""
        return self.helper if self.dealer is None else self.dealer

    @property
    def participants(self) -> tuple[str, ...]:
        """Everybody who computes: the owners, then the dealer or the helper if there is one."""
        return self.owners if self.assistant is None else (*self.owners, self.assistant)

    @property
    def most_owners(self) -> int:
        """How many owners such a job can have, if its matching takes more than two."""
        return MAX_OWNERS

    @property
    def computes(self) -> bool:
        """Whether the owners compute on shares, which takes correlated randomness."""
        return True

    @property
    def matching(self) -> str:
        """Which protocols match the rows: a key of silos.disclosure.MATCHINGS."""
        if len(self.parties) > 2 and self.align.protocol == "vole-psi":
            return "vole-psi, many owners"
        if self.kind == "vertical.measure" and self.align.protocol == "ecdh-psi":
            return "ecdh-psi, counting"
        return self.align.protocol

    @property
    def resumes(self) -> bool:
        """Whether a silo that lost its worker, or a link, goes on where it was instead of failing."""
        return False

    @property
    def sizes_are_mutual(self) -> bool:
        """Whether the bytes that owners send tell them, and who reads the log, no more than both owners' set sizes."""
        return len(self.parties) == 2 and not self.links_rows and self.align.protocol != "helper-psi"

    @property
    def links_rows(self) -> bool:
        """Whether matched identifiers have to be put together to pairs of rows."""
        return len(self.align.keys) > 1 or self.align.duplicates == "expand"

    def party(self, silo: str) -> Party | None:
        """The owner's part of the job, or None if `silo` brings no data."""
        return next((p for p in self.parties if p.silo == silo), None)

    def document(self) -> dict[str, Any]:
        """The plain JSON document; `spec_digest` hashes exactly this."""
        return self.model_dump(mode="json", by_alias=True)

    @model_validator(mode="after")
    def _roles(self) -> Self:
        most = self.most_owners if self.align.protocol in MANY_OWNERS and self.randomness != "ot" else 2
        if not 2 <= len(self.parties) <= most:
            allowed = "exactly two" if most == 2 else f"two to {most}"
            raise ValueError(f"'parties' must be {allowed} data owners in such a job, got {len(self.parties)}")
        if len(set(self.owners)) != len(self.owners):
            twice = next(name for name in self.owners if self.owners.count(name) > 1)
            raise ValueError(f"{twice} is named as a data owner twice")
        if self.computes and self.randomness is None:
            raise ValueError("'randomness' must say where correlated randomness comes from, got none")
        if not self.computes and self.randomness is not None:
            raise ValueError(
                f"'randomness' must be null (in a request: left out) in such a job, got '{self.randomness}'"
            )
        source = "no randomness" if self.randomness is None else f"randomness '{self.randomness}'"
        self._check_assistant("dealer", self.dealer, source, self.randomness not in (None, "ot"))
        matching = self.align.protocol
        self._check_assistant("helper", self.helper, f"matching by '{matching}'", matching == "helper-psi")
        if self.dealer is not None and self.helper is not None:
            raise ValueError("a job has a dealer or a helper, and not both")
        for name in self.participants:
            if name in RESERVED_NAMES:
                raise ValueError(f"'{name}' is not a silo's name")
        if len(set(self.release)) != len(self.release):
            raise ValueError("'release' names an item twice")
        return self

    def _check_assistant(self, role: str, name: str | None, why: str, needed: bool) -> None:
        if name is None and needed:
            raise ValueError(f"'{role}' must be the name of a silo with {why}, got none")
        if name is not None and not needed:
            raise ValueError(f"'{role}' must be null (in a request: left out) with {why}, got '{name}'")
        if name in self.owners:
            raise ValueError(f"'{role}' must have no data in the job, but {name} is a data owner")

    @model_validator(mode="after")
    def _keys(self) -> Self:
        if self.align.protocol not in self.matchings:
            raise ValueError(f"'align.protocol' must be one of {', '.join(self.matchings)} in such a job")
        for party in self.parties:
            if len(party.keys) != len(self.align.keys):
                raise ValueError(
                    f"'keys' of {party.silo} must be {len(self.align.keys)}, as in 'align', got {len(party.keys)}"
                )
            for columns, key in zip(party.keys, self.align.keys, strict=True):
                roles = RULES[key.rule].roles
                if len(columns) != len(roles):
                    raise ValueError(
                        f"'key' of {party.silo} must name {len(roles)} column{'s' if len(roles) > 1 else ''} "
                        f"({', '.join(roles)}) with rule '{key.rule}', got {len(columns)}"
                    )
        return self

    @model_validator(mode="after")
    def _one_row_to_one(self) -> Self:
        if self.links_rows and len(self.parties) > 2:
            raise ValueError("more than two data owners match by one key, and one row to one")
        if self.links_rows and self.kind == "vertical.measure":
            raise ValueError("a measurement matches by one key, and one row to one")
        if self.align.duplicates == "expand" and self.kind != "vertical.match":
            raise ValueError("'align.duplicates' can be 'expand' in a matching only")
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
