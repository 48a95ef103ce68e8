"""The spec of jobs that predict with a model that its owners have kept."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from silos.spec_base import Spec
from silos.spec_parts import Column, Feature, Hex32, Party, SiloName
from silos.validation import Frozen

Cut = Annotated[str, Field(pattern=r"^-?\d{1,9}(\.\d{1,9})?$")]


class Predictor(Party):
    """An owner's part in predicting: the columns that its part of the model reads, and perhaps an offset."""

    features: tuple[Feature, ...] = Field(min_length=1, max_length=1000)
    offset: Column | None

    @property
    def number_columns(self) -> tuple[str, ...]:
        own = () if self.offset is None else (self.offset,)
        return (*own, *(f.column for f in self.features if f.as_ == "number"))

    @property
    def category_columns(self) -> tuple[str, ...]:
        return tuple(f.column for f in self.features if f.as_ != "number")


class Stability(Frozen):
    """How the scores of new rows are compared with those of training.

    cuts: of the score.  expected: the part of training rows between them, one more than cuts.  minimum: fewest rows in a band.
    """

    cuts: tuple[Cut, ...] = Field(min_length=1, max_length=99)
    expected: tuple[Annotated[str, Field(pattern=r"^[01](\.\d{1,9})?$")], ...]
    minimum: int = Field(ge=10, le=10**6)

    @model_validator(mode="after")
    def _bands(self) -> Self:
        if len(self.expected) != len(self.cuts) + 1:
            raise ValueError("'stability.expected' has one number more than 'stability.cuts'")
        if any(Decimal(a) >= Decimal(b) for a, b in pairwise(self.cuts)):
            raise ValueError("'stability.cuts' must rise")
        if abs(sum((Decimal(part) for part in self.expected), Decimal(-1))) > Decimal("0.001"):
            raise ValueError("'stability.expected' must add up to 1")
        return self


class Score(Spec):
    """Predictions for matched rows, told to recipients, as little of each as they ask for.

    model: the id of the job that made it.  output: what a recipient learns about a row, from least to most.  cuts: on the
    scale of the prediction, the threshold of a decision or the cut points of deciles.  low, high, step: of what is rounded.
    questions: if not None, the job stays open and answers so many, one row at a time.
    """

    kind: Literal["vertical.score"]
    parties: tuple[Predictor, ...]
    model: Hex32
    output: Literal["decision", "decile", "rounded", "probability"]
    recipients: tuple[SiloName, ...] = Field(min_length=1, max_length=10)
    cuts: tuple[Cut, ...] = Field(max_length=1000)
    low: Cut | None
    high: Cut | None
    step: Cut | None
    questions: int | None = Field(ge=1, le=10**6)
    stability: Stability | None
    release: tuple[Literal["predictions", "stability", "counts"], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _told_to_owners(self) -> Self:
        for name in self.recipients:
            if name not in self.owners:
                raise ValueError(f"'recipients' must be data owners of the job, and {name} is none")
        if len(set(self.recipients)) != len(self.recipients):
            raise ValueError("'recipients' names a silo twice")
        if "predictions" not in self.release:
            raise ValueError("'release' must have 'predictions'")
        if ("stability" in self.release) != (self.stability is not None):
            raise ValueError("'stability' is released if and only if the job says what to compare with")
        if self.questions is not None and len(self.recipients) != 1:
            raise ValueError("questions are answered to one recipient")
        return self

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if self.low is None or self.high is None or self.step is None:
            return self
        low, high, step = Decimal(self.low), Decimal(self.high), Decimal(self.step)
        if low >= high or step <= 0 or not 1 <= (high - low) / step <= 1000:
            raise ValueError(f"from 'low' {low} to 'high' {high} there must be 1 to 1000 steps of 'step' {step}")
        return self

    @model_validator(mode="after")
    def _what_is_told(self) -> Self:
        needed = {"decision": len(self.cuts) <= 1, "decile": len(self.cuts) >= 1}.get(self.output, not self.cuts)
        if not needed:
            raise ValueError(f"'cuts' must fit output '{self.output}': one for a decision, some for deciles, else none")
        cuts = [Decimal(cut) for cut in self.cuts]
        if any(a >= b for a, b in pairwise(cuts)):
            raise ValueError("'cuts' must rise")
        ends = (self.low, self.high, self.step)
        if (self.output == "rounded") != all(end is not None for end in ends) or (
            self.output != "rounded" and any(end is not None for end in ends)
        ):
            raise ValueError("'low', 'high' and 'step' are given with output 'rounded' and with no other")
        return self
