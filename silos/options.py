"""What can be said in a call of `silos.sdk` by name; the forms that type checkers and editors read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from silos.asking import Key, Sum


class Options(TypedDict, total=False):
    """What a matching may say besides data and keys; as `accord match run` has it, and `silos.asking.Question`.

    partner_keys: by silo, the columns of each key where they have other names.  columns: for our table; left out, those of the
    keys.  minimum: fewer matches stop the job.
    """

    partner_keys: Mapping[str, Sequence[Sequence[str]]]
    columns: Sequence[str]
    partner_columns: Mapping[str, Sequence[str]]
    protocol: str
    duplicates: str
    minimum: int
    count_first: bool
    keep_tokens: bool
    helper: str
    randomness: str
    dealer: str
    first: str
    release: Sequence[str]
    timeout_s: int
    valid_for_s: int


class Numbers(Options, total=False):
    """What a measurement may say besides.  sums: of our columns, as "amount:0:1000:2" or `Sum`; partner_sums: by silo."""

    sums: Sequence[Sum | str]
    partner_sums: Mapping[str, Sequence[Sum | str]]
    round_to: int
    epsilon: str


class Columns(TypedDict, total=False):
    """What is said of rows that a model is for.

    features: by silo, columns; "column:category" and "column:text" say how they are read, a mapping says more (docs/job.md).
    label, offset, weight: columns at the silo `label_at`, ours by default.  groups: by silo, columns by which figures are
    split.  partner_keys: as in `Options`.  The rest is as in docs/job.md.
    """

    purpose: str
    features: Mapping[str, Sequence[str | Mapping[str, Any]]]
    label: str
    label_at: str
    offset: str
    weight: str
    groups: Mapping[str, Sequence[str]]
    partner_keys: Mapping[str, Sequence[Sequence[str]]]
    align: Mapping[str, Any]
    encoding: Mapping[str, Any]
    evaluate: Mapping[str, Any]
    randomness: str
    dealer: str
    helper: str
    release: Sequence[str]
    limits: Mapping[str, int]
    valid_for_s: int


class Asked(Numbers, total=False):
    """What a preview may say besides."""

    numbers_only: bool


class Prediction(TypedDict, total=False):
    """What is said of a prediction; as in docs/job.md.

    keys: as in training, by default.  recipients: us, by default.  cuts, low, high, step: numbers.  offset: by silo, a column.
    """

    purpose: str
    keys: Sequence[Key | str]
    output: str
    recipients: Sequence[str]
    cuts: Sequence[float | str]
    low: float | str
    high: float | str
    step: float | str
    offset: Mapping[str, str]
    questions: int
    align: Mapping[str, Any]
    randomness: str
    dealer: str
    release: Sequence[str]
    limits: Mapping[str, int]
    valid_for_s: int
