"""The specs of jobs that match rows: which they are, or how many and what sums over them."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from silos.spec_base import Spec
from silos.spec_parts import Matcher, Matching, Measurer


class Match(Spec):
    """Which rows of each owner are about the same people: every owner gets a table of its own matched rows.

    count_first: before anybody's process learns a row, the owners find out in secret whether the matches are enough.
    keep_tokens: both keep the second owner's tokens for later jobs, which then only ask about the first one's identifiers.
    """

    kind: Literal["vertical.match"]
    parties: tuple[Matcher, ...]
    count_first: bool
    keep_tokens: bool
    release: tuple[Literal["rows", "counts"], ...] = Field(min_length=1)

    @property
    def computes(self) -> bool:
        return self.count_first

    @property
    def in_buckets(self) -> bool:
        """Whether rows are matched bucket by bucket, so that more of them need no more memory."""
        return self.align.protocol in ("vole-psi", "vole-psi-malicious") and len(self.parties) == 2

    @property
    def resumes(self) -> bool:
        return self.in_buckets and not self.count_first

    @model_validator(mode="after")
    def _gate(self) -> Self:
        alone = self.align.protocol == "vole-psi" and len(self.parties) == 2 and not self.links_rows
        if self.count_first and not alone:
            raise ValueError("'count_first' is for two owners who match by 'vole-psi', by one key and one row to one")
        return self

    @model_validator(mode="after")
    def _kept(self) -> Self:
        if self.keep_tokens and (self.align.protocol != "oprf-psi" or self.links_rows):
            raise ValueError("'keep_tokens' is for owners who match by 'oprf-psi', by one key and one row to one")
        return self


class Measure(Spec):
    """How many rows match, and sums over them, and no rows.

    round_to: the number of matches is told to the nearest multiple of this; None for exactly.  epsilon: if not None, each
    owner adds noise that makes the number differentially private towards the other one.  Neither goes with sums: the sum of
    a column of ones is the exact number.
    """

    matchings: ClassVar[tuple[Matching, ...]] = ("hidden", "ecdh-psi")

    kind: Literal["vertical.measure"]
    parties: tuple[Measurer, ...]
    round_to: int | None = Field(ge=2, le=10**9)
    epsilon: str | None = Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,6})?$")
    release: tuple[Literal["matches", "sums"], ...] = Field(min_length=1)

    @property
    def most_owners(self) -> int:
        return 2

    @property
    def computes(self) -> bool:
        return self.align.protocol == "hidden"

    @model_validator(mode="after")
    def _what_is_told(self) -> Self:
        if self.epsilon is not None and not 0 < Decimal(self.epsilon) <= 64:
            raise ValueError(f"'epsilon' must be greater than 0 and at most 64, got '{self.epsilon}'")
        if self.epsilon is not None and (self.round_to is not None or "sums" in self.release):
            raise ValueError("noise is for the number of matches alone: with 'epsilon' there is no rounding and no sum")
        if self.round_to is not None and "sums" in self.release:
            raise ValueError("rounding is for the number of matches alone: with 'round_to' there is no sum")
        if not self.computes and (self.epsilon, self.round_to, self.release) != (None, None, ("matches",)):
            raise ValueError(
                f"'{self.align.protocol}' tells the exact number of matches only; sums, rounding and noise take 'hidden'"
            )
        if ("sums" in self.release) != any(p.sums for p in self.parties):
            raise ValueError("'sums' is released if and only if a party names columns in 'sums'")
        return self
