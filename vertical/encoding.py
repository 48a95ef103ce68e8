"""How an owner turns its own columns into model inputs: fitted on the training rows, stated in the model file.

Numbers: missing values become the training mean and add an indicator column; values are standardised with the training
mean and standard deviation and winsorised at `winsorise_sd` of them.  Categories: one indicator column per level except the
most frequent one; levels with fewer than `rare_category` training rows, and levels unseen in training, count as the pooled
level "other"; a missing value is the level "missing".  Indicator columns are standardised like numbers.  Columns that do not
vary over the training rows are left out and named.  Text becomes the numbers of a local encoder (`vertical.text`),
standardised too; a missing text is all zeros before that, and adds an indicator like a missing number.

With `winsorise_quantile` q, numbers are first limited to the training rows' quantiles q and 1 - q.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from vertical.text import TextEncoder, TextSettings

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[Any]
Origin = Literal["number", "category", "missing", "text"]
OTHER, MISSING = "other", "missing"
FORMAT = "accord-encoder-1"


@dataclass(frozen=True)
class Feature:
    """One column as the job's spec asks for it."""

    column: str
    kind: Literal["number", "category", "text"]


@dataclass(frozen=True)
class Input:
    """One model input: where it comes from and how it is scaled.

    level: the category it indicates, None for a number, MISSING for an indicator of missing values (kind "missing"), and
    for text the number of its component, from 0.
    """

    column: str
    kind: Origin
    level: str | None
    mean: float
    sd: float

    @property
    def name(self) -> str:
        """Readable and unique within the owner's block."""
        return self.column if self.kind == "number" else f"{self.column}={self.level}"


@dataclass(frozen=True)
class Encoder:
    """A fitted encoding of one owner's columns.

    levels: of each category, those with an indicator or the reference.  fill: what a missing number becomes.  limits: of
    each number, the training quantiles it is limited to; empty if it is not.  texts: of each text column, its encoder.
    """

    inputs: tuple[Input, ...]
    levels: dict[str, tuple[str, ...]]
    fill: dict[str, float]
    winsorise_sd: int
    dropped: tuple[str, ...]
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    texts: dict[str, TextEncoder] = field(default_factory=dict)

    def transform(self, columns: Mapping[str, Column]) -> Floats:
        """(n, d) standardised inputs of any rows that have the fitted columns."""
        parts = {name: text.transform(columns[name]) for name, text in self.texts.items()}
        blocks = []
        for item in self.inputs:
            raw = _raw(columns[item.column], item, self, parts)
            blocks.append(np.clip((raw - item.mean) / item.sd, -self.winsorise_sd, self.winsorise_sd))
        return np.column_stack(blocks) if blocks else np.empty((_n_rows(columns), 0))

    def describe(self) -> list[dict[str, Any]]:
        """The encoding as plain data for the model file."""
        return [
            {"input": i.name, "column": i.column, "kind": i.kind, "level": i.level, "mean": i.mean, "sd": i.sd}
            for i in self.inputs
        ]

    def document(self) -> dict[str, Any]:
        """All of it as plain data, for the owner's own part of a model."""
        return {
            "format": FORMAT,
            "inputs": [[i.column, i.kind, i.level, repr(i.mean), repr(i.sd)] for i in self.inputs],
            "levels": {name: list(levels) for name, levels in self.levels.items()},
            "fill": {name: repr(value) for name, value in self.fill.items()},
            "limits": {name: [repr(end) for end in ends] for name, ends in self.limits.items()},
            "winsorise_sd": self.winsorise_sd,
            "dropped": list(self.dropped),
            "texts": {name: text.document() for name, text in self.texts.items()},
        }

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """What `document` returned.  Raises: LocalProtocolError for anything else."""
        try:
            return cls._read(document)
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise LocalProtocolError("this is not an encoding of columns, or it is damaged") from exc

    @classmethod
    def _read(cls, document: Any) -> Self:
        if document["format"] != FORMAT or type(document["winsorise_sd"]) is not int or document["winsorise_sd"] < 1:
            raise ValueError("not an encoding")
        inputs = []
        for column, kind, level, mean, sd in document["inputs"]:
            if kind not in get_args(Origin) or (level is None) != (kind == "number"):
                raise ValueError("not an input")
            inputs.append(Input(_name(column), kind, None if level is None else _name(level), _real(mean), _real(sd)))
        levels = {_name(column): tuple(map(_name, kept)) for column, kept in document["levels"].items()}
        fill = {_name(column): _real(value) for column, value in document["fill"].items()}
        limits = {_name(column): (_real(low), _real(high)) for column, (low, high) in document["limits"].items()}
        texts = {_name(column): TextEncoder.from_document(text) for column, text in document["texts"].items()}
        known: dict[str, Mapping[str, Any]] = {"number": fill, "category": levels, "text": texts}
        for item in inputs:
            if item.sd <= 0 or item.column not in known.get(item.kind, {**fill, **texts}):
                raise ValueError("an input of nothing")
            if item.kind == "text" and not 0 <= int(item.level or "") < texts[item.column].dims:
                raise ValueError("no such component")
        dropped = tuple(map(_name, document["dropped"]))
        return cls(tuple(inputs), levels, fill, document["winsorise_sd"], dropped, limits, texts)

    def schema_hash(self) -> str:
        """SHA-256, in hex, of what the inputs are: columns, kinds and levels in order; not of means or any other statistic."""
        schema = {
            "inputs": [[i.column, i.kind, i.level] for i in self.inputs],
            "levels": [[name, list(levels)] for name, levels in sorted(self.levels.items())],
        }
        text = json.dumps(schema, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(b"accord-schema-1\n" + text.encode()).hexdigest()


def _name(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("not a name")
    return value


def _real(value: Any) -> float:
    number = float(_name(value))
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def fit(
    columns: Mapping[str, Column],
    features: list[Feature],
    train: npt.NDArray[np.bool_],
    *,
    winsorise_sd: int,
    rare_category: int,
    winsorise_quantile: float = 0.0,
    text: TextSettings | None = None,
) -> Encoder:
    """Fit the encoding on the rows where `train` is true.

    columns: name -> (n,) float64 with NaN for missing (numbers) or str with None for missing (categories and text).
    winsorise_quantile: 0 for no such limit, below 0.5.  text: how text columns are encoded.
    Raises: LocalProtocolError if there is no training row, or the quantile is out of range.
    """
    if not train.any():
        raise LocalProtocolError("there is no training row to fit the encoding on")
    if not 0 <= winsorise_quantile < 0.5:
        raise LocalProtocolError(f"numbers are limited to a quantile from 0 to below 0.5, not {winsorise_quantile:g}")
    unscaled = Encoder((), {}, {}, winsorise_sd, ())
    wanted: list[tuple[str, Origin, str | None]] = []
    for feature in features:
        name, known = feature.column, columns[feature.column][train]
        if feature.kind == "category":
            unscaled.levels[name] = _levels(known, rare_category)
            wanted += [(name, "category", level) for level in unscaled.levels[name][1:]]
            continue
        missing = _missing(known)
        if feature.kind == "number":
            _fit_number(unscaled, name, known[~missing], winsorise_quantile)
            wanted.append((name, "number", None))
        else:
            unscaled.texts[name] = TextEncoder.fit(known, text)
            wanted += [(name, "text", str(i)) for i in range(unscaled.texts[name].dims)]
        if missing.any():
            wanted.append((name, "missing", MISSING))
    parts = {name: fitted.transform(columns[name][train]) for name, fitted in unscaled.texts.items()}
    inputs: list[Input] = []
    dropped: list[Input] = []
    for name, kind, level in wanted:
        raw = _raw(columns[name][train], Input(name, kind, level, 0.0, 1.0), unscaled, parts)
        item = Input(name, kind, level, float(raw.mean()), float(raw.std()))
        (inputs if item.sd > 0 else dropped).append(item)
    left_out = tuple(i.name for i in dropped)
    return Encoder(
        tuple(inputs), unscaled.levels, unscaled.fill, winsorise_sd, left_out, unscaled.limits, unscaled.texts
    )


def _fit_number(encoder: Encoder, name: str, known: Floats, quantile: float) -> None:
    """Note the limits of a number, if it has any, and what is filled in."""
    if quantile and known.size:
        low, high = np.quantile(known, [quantile, 1 - quantile])
        encoder.limits[name] = (float(low), float(high))
        known = np.clip(known, low, high)
    encoder.fill[name] = float(known.mean()) if known.size else 0.0


def _missing(column: Column) -> npt.NDArray[np.bool_]:
    """Which numbers are no finite ones, and which texts are missing."""
    if column.dtype.kind == "f":
        return np.asarray(~np.isfinite(column))
    return np.array([value is None for value in column], dtype=np.bool_)


def _levels(column: Column, rare: int) -> tuple[str, ...]:
    """Levels with an indicator, most frequent first (ties by name); the first one is the reference."""
    names, counts = np.unique(_text(column), return_counts=True)
    frequent = {str(n): int(c) for n, c in zip(names, counts, strict=True) if c >= rare and n != OTHER}
    pooled = int(counts.sum()) - sum(frequent.values())
    if pooled or not frequent:
        frequent[OTHER] = pooled
    return tuple(sorted(frequent, key=lambda level: (-frequent[level], level)))


def _raw(column: Column, item: Input, encoder: Encoder, parts: Mapping[str, Floats]) -> Floats:
    """The input before it is standardised.  parts: what the text columns came to."""
    if item.kind == "text":
        return np.asarray(parts[item.column][:, int(item.level or "")])
    if item.kind == "missing":
        return _missing(column).astype(np.float64)
    if item.kind == "number":
        low, high = encoder.limits.get(item.column, (-math.inf, math.inf))
        filled = np.where(np.isfinite(column), column, encoder.fill[item.column])
        return np.clip(filled, low, high).astype(np.float64)
    text = _text(column)
    if item.level == OTHER:
        return np.asarray(~np.isin(text, [x for x in encoder.levels[item.column] if x != OTHER]), dtype=np.float64)
    return np.asarray(text == item.level, dtype=np.float64)


def _text(column: Column) -> npt.NDArray[np.str_]:
    return np.array([MISSING if value is None else str(value) for value in column], dtype=np.str_)


def _n_rows(columns: Mapping[str, Column]) -> int:
    return len(next(iter(columns.values()))) if columns else 0
