"""The spec of jobs that look at columns before anything is modelled."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from silos.spec_base import Spec
from silos.spec_parts import Column, Encoding, Feature, Party
from silos.validation import Frozen

Part = Annotated[str, Field(pattern=r"^0\.\d{1,6}$")]
OF_THE_LABEL = frozenset({"label_correlations", "woe", "information_values", "selection"})
"""What can be told only if an owner has a label."""


class Examined(Party):
    """An owner's part: which of its columns are looked at, and which is the label, at one owner if any."""

    features: tuple[Feature, ...] = Field(min_length=1, max_length=1000)
    label: Column | None

    @property
    def number_columns(self) -> tuple[str, ...]:
        label = (self.label,) if self.label is not None else ()
        return (*label, *(f.column for f in self.features if f.as_ == "number"))

    @property
    def category_columns(self) -> tuple[str, ...]:
        return tuple(f.column for f in self.features if f.as_ != "number")

    @model_validator(mode="after")
    def _no_texts(self) -> Self:
        text = next((f.column for f in self.features if f.as_ == "text"), None)
        if text is not None:
            raise ValueError(f"column '{text}' of {self.silo} cannot be a text in statistics")
        return self


class Figures(Frozen):
    """What is computed, and from how many rows at least.

    minimum, rows_per_column: fewest rows, and of them for each column of the owner with most columns.  bins: of a column, the
    one of missing values included.  floor, share: fewest positives and negatives, and smallest part of the rows, in a bin
    whose weight is told.  merge: bins that weigh about the same, or against the trend, go together, by their owner.  select,
    enter, remove, most, family: how columns are chosen, by which p-values, how many at most, for which regression.
    """

    minimum: int = Field(ge=100, le=10**9)
    rows_per_column: int = Field(ge=2, le=10**6)
    bins: int = Field(ge=4, le=256)
    floor: int = Field(ge=5, le=10**6)
    share: Part
    merge: Literal["none", "similar", "monotone"]
    select: Literal["forward", "backward", "both"]
    enter: Part
    remove: Part
    most: int = Field(ge=1, le=1000)
    family: Literal["linear", "logistic"]

    @model_validator(mode="after")
    def _who_enters_stays(self) -> Self:
        if float(self.enter) > float(self.remove):
            raise ValueError(
                "'statistics.enter' is at most 'statistics.remove', or a column would enter and leave for ever"
            )
        return self


class Statistics(Spec):
    """Correlations, variance inflation, weights of evidence, information values, a selection of columns: what is asked for."""

    kind: Literal["vertical.statistics"]
    parties: tuple[Examined, ...]
    encoding: Encoding
    statistics: Figures
    release: tuple[
        Literal["label_correlations", "correlations", "vif", "woe", "information_values", "selection", "counts"], ...
    ] = Field(min_length=1)

    @property
    def active(self) -> str | None:
        """The owner of the label, if there is one."""
        return next((p.silo for p in self.parties if p.label is not None), None)

    @property
    def selects(self) -> str | None:
        """For which regression columns are chosen, if they are."""
        return self.statistics.family if "selection" in self.release else None

    @model_validator(mode="after")
    def _label_where_needed(self) -> Self:
        labelled = [p.silo for p in self.parties if p.label is not None]
        asked = [item for item in self.release if item in OF_THE_LABEL]
        if len(labelled) > 1 or (asked and not labelled):
            raise ValueError(
                f"exactly one party must have a label{f' for {asked[0]!r}' if asked else ''}, got "
                f"{', '.join(labelled) or 'none'}"
            )
        if self.selects == "logistic" and self.randomness == "verified-dealer":
            raise ValueError("a selection for a logistic regression takes a dealer whose work is not checked, or 'ot'")
        return self
