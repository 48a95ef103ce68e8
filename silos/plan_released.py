"""What a job hands out: to whom, in which form, and how many rows are behind every number of it at least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from silos.errors import SpecError
from silos.spec import Match, Measure, Score, Spec, Statistics, Training

HELD_OUT_AT_LEAST, BIN_AT_LEAST = 20, 20
"""What the evaluation insists on: ten held-out rows of each of two classes, and twenty rows in a bin of a table
(vertical.figures.MINIMUM_PER_CLASS and MINIMUM_PER_BIN, which are not imported as they come with the tensor engine)."""

Form = Literal["row", "figure", "model"]
"""A value for each row, numbers about many rows, or a part of a model that its owner keeps."""


@dataclass(frozen=True)
class Released:
    """One item of a job's `release`.

    recipients: the silos that get it, or a part of it.  rows: of a figure, the least number of rows behind any number of it
    that the job guarantees; 1 of a value for each row, and of no meaning in a model.  why: where that number is from.
    epsilon: of the noise that each owner adds to it, None without.
    """

    item: str
    recipients: tuple[str, ...]
    form: Form
    rows: int
    why: str
    epsilon: str | None = None


def released(spec: Spec) -> tuple[Released, ...]:
    """Every item of `release`, in its order.  Raises: SpecError if it is not known what an item is."""
    known = {one.item: one for one in _known(spec)}
    unknown = next((item for item in spec.release if item not in known), None)
    if unknown is not None:
        raise SpecError(f"it is not known to whom '{unknown}' is told, so '{spec.kind}' cannot be planned")
    return tuple(known[item] for item in spec.release)


def _known(spec: Spec) -> Iterator[Released]:
    """What the kind of job can release."""
    owners, least = spec.owners, spec.align.minimum_matches
    yield Released("counts", owners, "figure", least, "align.minimum_matches")
    if isinstance(spec, Training):
        yield from _of_training(spec)
    elif isinstance(spec, Statistics):
        yield from _of_statistics(spec)
    elif isinstance(spec, Score):
        yield Released("predictions", spec.recipients, "row", 1, "a value for each row")
        if spec.stability is not None:
            yield Released("stability", owners, "figure", spec.stability.minimum, "stability.minimum")
    elif isinstance(spec, Match):
        yield Released("rows", owners, "row", 1, "a value for each row")
    elif isinstance(spec, Measure):
        yield Released("matches", owners, "figure", least, "align.minimum_matches", spec.epsilon)
        yield Released("sums", owners, "figure", least, "align.minimum_matches")


def _categories(spec: Training | Statistics, rows: int, why: str) -> tuple[int, str]:
    """The rows behind a number about each input, where an input may be one level of a category."""
    levels = any(feature.as_ == "category" for party in spec.parties for feature in party.features)
    if levels and spec.encoding.rare_category < rows:
        return spec.encoding.rare_category, "encoding.rare_category"
    return rows, why


def _of_training(spec: Training) -> Iterator[Released]:
    owners, least, percent = spec.owners, spec.align.minimum_matches, spec.evaluate.holdout_percent
    trained = _categories(
        spec, least * (100 - percent) // 100, "align.minimum_matches without evaluate.holdout_percent"
    )
    yield Released("coefficients", owners, "figure", *trained)
    yield Released("inference", owners, "figure", *trained)
    yield Released("model", owners, "model", 0, "each owner keeps its part")
    held_out = max(HELD_OUT_AT_LEAST, least * percent // 100), "evaluate.holdout_percent of align.minimum_matches"
    yield Released("auc", owners, "figure", *held_out)
    yield Released("contribution", owners, "figure", *held_out)
    if spec.family in ("logistic", "multinomial"):
        yield Released("metrics", owners, "figure", 0, "how many rows are decided right and wrong can be any number")
    else:
        yield Released("metrics", owners, "figure", min(BIN_AT_LEAST, held_out[0]), "bins of held-out rows")


def _of_statistics(spec: Statistics) -> Iterator[Released]:
    owners, asked = spec.owners, spec.statistics
    least = max(spec.align.minimum_matches, asked.minimum)
    for item in ("label_correlations", "correlations", "vif", "selection"):
        rows = _categories(spec, least, "align.minimum_matches and statistics.minimum")
        yield Released(item, owners, "figure", *rows)
    for item in ("woe", "information_values"):
        yield Released(item, owners, "figure", min(least, asked.floor), "statistics.floor")
