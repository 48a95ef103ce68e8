"""The kinds of models, each in the same few steps: inputs made of columns, training, scores that stay shared."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.session import Session
from vertical import network, regression
from vertical.binning import Binned, Binner
from vertical.checkpoints import Checkpoints
from vertical.encoding import Encoder, Feature, fit
from vertical.families import Rows
from vertical.glm import Fitted as FittedGlm
from vertical.inference import Row
from vertical.scores import Scores
from vertical.trees import predict as trees_predict
from vertical.trees.model import Fitted as FittedTrees
from vertical.trees.settings import Settings as TreesSettings
from vertical.trees.train import train as train_trees

Columns = Mapping[str, npt.NDArray[Any]]
Mask = npt.NDArray[Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Encoding:
    """How columns become inputs, as far as the job says it.  bins: of a number, for trees."""

    winsorise_sd: int
    rare_category: int
    bins: int = 32


@dataclass(frozen=True)
class Part:
    """One owner's part of a model: how its columns become inputs, and what it has learnt."""

    encoder: Any
    fitted: Any = field(repr=False)

    def documents(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both as plain data, as `vertical.score_models.Kept.read` takes them."""
        made = self.encoder.describe() if isinstance(self.encoder, Binner) else self.encoder.document()
        return made, self.fitted.document()

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        made = self.encoder.features if isinstance(self.encoder, Binner) else self.encoder.inputs
        return frozenset(item.column for item in made)

    def schema_hash(self) -> str:
        """SHA-256, in hex, of which columns and levels the inputs are made of; of no statistic."""
        if isinstance(self.encoder, Encoder):
            return self.encoder.schema_hash()
        schema = [[f.column, f.kind, list(f.levels)] for f in self.encoder.features]
        return hashlib.sha256(json.dumps(schema).encode()).hexdigest()


class Learner(ABC):
    """One kind of model with its settings.

    kind: of the job.  family: what the label is: a family of `vertical.metrics`.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def family(self) -> str:
        """A key of `vertical.figures.FIGURES`."""

    @property
    def power(self) -> float:
        """The variance power of family "tweedie"."""
        return 1.5

    @abstractmethod
    def encode(self, columns: Columns, features: Sequence[Feature], training: Mask, how: Encoding) -> Any:
        """An encoder with `transform(columns)`, fitted on the training rows.  Raises: LocalProtocolError."""

    @abstractmethod
    def train(
        self, session: Session, inputs: Any, label: Rows | None, progress: Progress, checkpoints: Checkpoints | None
    ) -> Any:
        """What we keep of the model.  Reveals, Raises: as the kind's `train`."""

    @abstractmethod
    def scores(self, session: Session, fitted: Any, inputs: Any, offset: Mask | None) -> Scores:
        """Shares of the scores of aligned rows, in the label's own units.  Reveals, Raises: as the kind's `scores`."""

    @abstractmethod
    def told(self, part: Part, release: Sequence[str]) -> dict[str, Any]:
        """What its owner is told of its part, numbers as text."""

    def take(self, inputs: Any, rows: Mask) -> Any:
        """Some of the rows."""
        return inputs.take(rows) if isinstance(inputs, Binned) else inputs[rows]


@dataclass(frozen=True)
class GlmLearner(Learner):
    """Generalised linear models."""

    settings: regression.Settings
    kind: ClassVar[str] = "vertical.glm"

    @property
    def family(self) -> str:
        return self.settings.family

    @property
    def power(self) -> float:
        return self.settings.power

    def encode(self, columns: Columns, features: Sequence[Feature], training: Mask, how: Encoding) -> Encoder:
        return _standardised(columns, features, training, how)

    def train(
        self, session: Session, inputs: Any, label: Rows | None, progress: Progress, checkpoints: Checkpoints | None
    ) -> Any:
        return regression.train(session, inputs, label, self.settings, progress, checkpoints)

    def scores(self, session: Session, fitted: Any, inputs: Any, offset: Mask | None) -> Scores:
        return regression.scores(session, fitted, inputs, offset)

    def told(self, part: Part, release: Sequence[str]) -> dict[str, Any]:
        if "coefficients" not in release and "inference" not in release:
            return {}
        encoder, fitted = part.encoder, part.fitted
        inputs = _inputs(encoder)
        intercept = fitted.intercepts if self.family == "multinomial" else fitted.intercept
        if "coefficients" in release:
            for item, weight in zip(inputs, fitted.weights, strict=True):
                item["coefficient"] = _text(weight)
        document: dict[str, Any] = {
            "family": self.family,
            "inputs": inputs,
            "intercept": None if intercept is None else _text(intercept),
            "winsorise_sd": encoder.winsorise_sd,
            "left_out": list(encoder.dropped),
        }
        if isinstance(fitted, FittedGlm) and fitted.settled is not None:
            document["converged"] = fitted.settled
        if "inference" in release:
            table = fitted.table([item["input"] for item in inputs])
            first = table.pop(0) if intercept is not None else None
            for item, line in zip(inputs, table, strict=True):
                item |= _line(line)
            document["intercept_inference"] = None if first is None else _line(first)
        return document


@dataclass(frozen=True)
class TreesLearner(Learner):
    """Gradient-boosted trees."""

    settings: TreesSettings
    kind: ClassVar[str] = "vertical.trees"

    @property
    def family(self) -> str:
        return {"logistic": "logistic", "squared": "linear", "poisson": "poisson"}[self.settings.objective]

    def encode(self, columns: Columns, features: Sequence[Feature], training: Mask, how: Encoding) -> Binner:
        return Binner.fit(columns, features, training, how.bins, rare_category=how.rare_category)

    def train(
        self, session: Session, inputs: Any, label: Rows | None, progress: Progress, checkpoints: Checkpoints | None
    ) -> Any:
        y = _plain(label, self.kind)
        return train_trees(session, inputs, y, self.settings, progress, checkpoints)

    def scores(self, session: Session, fitted: Any, inputs: Any, offset: Mask | None) -> Scores:
        if offset is not None:
            raise LocalProtocolError("trees have no offset")
        return trees_predict.scores(session, fitted, inputs)

    def told(self, part: Part, release: Sequence[str]) -> dict[str, Any]:
        fitted: FittedTrees = part.fitted
        own = [{"column": name, "splits": count} for name, count in fitted.importance().items()]
        return {"objective": fitted.objective, "trees": fitted.trees, "depth": fitted.depth, "inputs": own}


@dataclass(frozen=True)
class NetworkLearner(Learner):
    """Neural networks."""

    settings: network.Settings
    kind: ClassVar[str] = "vertical.network"

    @property
    def family(self) -> str:
        return {"binary": "logistic", "multiclass": "multinomial", "regression": "linear"}[self.settings.task]

    def encode(self, columns: Columns, features: Sequence[Feature], training: Mask, how: Encoding) -> Encoder:
        return _standardised(columns, features, training, how)

    def train(
        self, session: Session, inputs: Any, label: Rows | None, progress: Progress, checkpoints: Checkpoints | None
    ) -> Any:
        return network.train(session, inputs, _plain(label, self.kind), self.settings, progress, checkpoints)

    def scores(self, session: Session, fitted: Any, inputs: Any, offset: Mask | None) -> Scores:
        if offset is not None:
            raise LocalProtocolError("a network has no offset")
        return network.scores(session, fitted, inputs)

    def told(self, part: Part, release: Sequence[str]) -> dict[str, Any]:
        sizes = [sum(part.fitted.inputs), *self.settings.hidden]
        return {"task": self.settings.task, "layers": sizes, "inputs": _inputs(part.encoder)}


def _standardised(columns: Columns, features: Sequence[Feature], training: Mask, how: Encoding) -> Encoder:
    return fit(columns, list(features), training, winsorise_sd=how.winsorise_sd, rare_category=how.rare_category)


def _plain(label: Rows | None, kind: str) -> npt.NDArray[np.float64] | None:
    if label is None:
        return None
    if label.offset is not None or label.weights is not None:
        raise LocalProtocolError(f"'{kind}' takes neither offsets nor weights")
    return label.y


def _inputs(encoder: Encoder) -> list[dict[str, Any]]:
    return [
        {key: f"{value:.12g}" if isinstance(value, float) else value for key, value in item.items()}
        for item in encoder.describe()
    ]


def _text(value: Any) -> Any:
    """A number with eight significant digits; of several classes a list of them."""
    return f"{value:.8g}" if np.ndim(value) == 0 else [f"{one:.8g}" for one in value]


def _line(line: Row) -> dict[str, Any]:
    """Standard error, test and interval of one coefficient; None where the note says why."""
    shown = {"standard_error": line.error, "z": line.z, "p": line.p, "low": line.low, "high": line.high}
    return {name: None if value is None else f"{value:.6g}" for name, value in shown.items()} | {"note": line.note}
