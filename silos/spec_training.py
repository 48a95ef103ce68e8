"""The specs of jobs that train a model over columns of several owners."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from silos.spec_base import Spec
from silos.spec_parts import Encoding, Evaluate, Trainer
from silos.validation import Frozen

Number = Annotated[str, Field(pattern=r"^\d{1,6}(\.\d{1,9})?$")]
"""A decimal number that is not negative, as text: floats have no unique text."""
BINARY = frozenset({"auc", "contribution"})
"""What can be released of a model of a yes or no only."""
MOST_CONTRIBUTORS = 4
"""Owners between whom an area is divided (vertical.shapley.MOST_OWNERS, which comes with the tensor engine)."""
NEAREST_THRESHOLDS = Decimal("0.01")


class GlmTrain(Frozen):
    """Settings of a generalised linear model.

    family: what the label is; it names the link too.  power: the variance power of "tweedie".  ridge, lasso: penalties on
    the coefficients of standardised inputs.  passes: at most so many first-order passes; period, harmonics: of the sigmoid's
    series.
    """

    family: Literal["logistic", "linear", "poisson", "gamma", "tweedie", "multinomial"]
    power: str | None = Field(pattern=r"^1\.\d{1,3}$")
    ridge: Number
    lasso: Number
    passes: int = Field(ge=1, le=1000)
    period: Literal[16, 32, 64, 128]
    harmonics: int = Field(ge=1, le=32)

    @model_validator(mode="after")
    def _power_with_tweedie(self) -> Self:
        if (self.power is not None) != (self.family == "tweedie"):
            raise ValueError("'train.power' is given with family 'tweedie' and with no other")
        return self


def _within(train: Frozen, bounds: dict[str, tuple[float, float]]) -> None:
    """That decimal settings are in their ranges.  Raises: ValueError naming the first that is not."""
    for name, (low, high) in bounds.items():
        value = getattr(train, name)
        if value is not None and not low <= float(value) <= high:
            raise ValueError(f"'train.{name}' must be from {low:g} to {high:g}, got '{value}'")


class TreesTrain(Frozen):
    """Settings of gradient-boosted trees, called as XGBoost calls them; `vertical.trees.settings` explains them.

    bins: of a number.  validation, patience: the percentage of rows held back to stop early, and after how many trees without
    a better loss on them; both 0 for never.  routing: "hidden", or "revealed", which tells the owners which rows go where.
    """

    objective: Literal["logistic", "squared", "poisson"]
    trees: int = Field(ge=1, le=1000)
    depth: int = Field(ge=1, le=8)
    bins: int = Field(ge=4, le=256)
    learning_rate: Number
    reg_lambda: Number
    gamma: Number
    min_child_weight: Number
    max_leaf: Number | None
    subsample: int = Field(ge=1, le=100)
    colsample: int = Field(ge=1, le=100)
    validation: int = Field(ge=0, le=50)
    patience: int = Field(ge=0, le=100)
    routing: Literal["hidden", "revealed"]

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        _within(self, {"learning_rate": (1e-6, 1), "reg_lambda": (0.01, 1000), "gamma": (0, 1e6)})
        _within(self, {"min_child_weight": (0, 1e6), "max_leaf": (1e-6, 8)})
        return self

    @model_validator(mode="after")
    def _early_stopping(self) -> Self:
        if (self.patience > 0) != (self.validation > 0):
            raise ValueError("'train.patience' and 'train.validation' are both 0 or both more")
        return self


class NetworkTrain(Frozen):
    """Settings of a neural network: hidden layers, activation, and stochastic gradient descent with momentum.

    classes: of "multiclass"; 2 for other tasks.  weight_limit: training stops if a weight leaves it.
    """

    task: Literal["binary", "multiclass", "regression"]
    classes: int = Field(ge=2, le=14)
    hidden: tuple[Annotated[int, Field(ge=2, le=4096)], ...] = Field(min_length=1, max_length=4)
    activation: Literal["tanh", "sigmoid", "silu"]
    epochs: int = Field(ge=1, le=1000)
    batch: int = Field(ge=1, le=65_536)
    learning_rate: Number
    momentum: Number
    weight_decay: Number
    weight_limit: Number

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        _within(self, {"learning_rate": (1e-6, 10), "momentum": (0, 0.99)})
        _within(self, {"weight_decay": (0, 1), "weight_limit": (1, 64)})
        return self

    @model_validator(mode="after")
    def _classes_of_the_task(self) -> Self:
        if (self.task == "multiclass") != (self.classes > 2):
            raise ValueError("'train.classes' is more than 2 with task 'multiclass' and with no other")
        return self


class Training(Spec):
    """What every job that trains has.

    release: "model" keeps each owner's part of the model at that owner, for scoring; "metrics" is the whole evaluation on
    held-out rows, "auc" one number of it, "contribution" how much of that is due to each owner's columns; "counts" are
    numbers of rows.
    """

    parties: tuple[Trainer, ...]
    encoding: Encoding
    evaluate: Evaluate

    @property
    def active(self) -> str:
        """The owner of the label."""
        return next(p.silo for p in self.parties if p.label is not None)

    @property
    def resumes(self) -> bool:
        return self.helper is None  # a helper is gone once rows are matched

    @property
    def family(self) -> str:
        """What the label is: a family of generalised linear models, which names a link too."""
        return "logistic"

    @model_validator(mode="after")
    def _one_label(self) -> Self:
        labelled = [p.silo for p in self.parties if p.label is not None]
        if len(labelled) != 1:
            raise ValueError(f"exactly one party must have a label, got {', '.join(labelled) or 'none'}")
        return self

    @model_validator(mode="after")
    def _what_fits_the_label(self) -> Self:
        thresholds = [p for p in self.evaluate.thresholds if not float(p) >= 1e-6]
        if thresholds:
            raise ValueError(f"'evaluate.thresholds' must be above 0 and below 1, got '{thresholds[0]}'")
        if self.groups and (self.family != "logistic" or "metrics" not in self.release):
            raise ValueError("'groups' split the 'metrics' of a model of two classes, and nothing else")
        for party in self.parties:
            if not isinstance(self, Glm) and (party.offset is not None or party.weight is not None):
                raise ValueError(f"'offset' and 'weight' of {party.silo} are for 'vertical.glm' only")
            bent = next((f.column for f in party.features if f.monotone), None)
            if bent is not None and not isinstance(self, Trees):
                raise ValueError(f"'monotone' of column '{bent}' of {party.silo} is for trees only")
            wrong = next((f.column for f in party.features if f.monotone and f.as_ != "number"), None)
            if wrong is not None:
                raise ValueError(f"'monotone' of column '{wrong}' of {party.silo} is for a number only")
            own = {party.label, *party.join_columns}
            told = next((name for name in party.groups if name in own), None)
            if told is not None:
                raise ValueError(f"column '{told}' of {party.silo} is a key or the label, and cannot be in 'groups'")
        ordered = sorted(Decimal(p) for p in self.evaluate.thresholds)
        if any(b - a < NEAREST_THRESHOLDS for a, b in pairwise(ordered)):
            raise ValueError(f"'evaluate.thresholds' must be at least {NEAREST_THRESHOLDS} apart")
        asked = [item for item in self.release if item in BINARY]
        if asked and self.family != "logistic":
            raise ValueError(f"'{asked[0]}' is released of a model of two classes only")
        if "contribution" in asked and self.dealer is None:
            raise ValueError("'contribution' is released of jobs with a dealer only")
        if "contribution" in asked and len(self.parties) > MOST_CONTRIBUTORS:
            raise ValueError(
                f"'contribution' is released of jobs of up to {MOST_CONTRIBUTORS} owners, got {len(self.parties)}"
            )
        return self

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Columns by which figures are split, each with the place of its owner."""
        return tuple((column, i) for i, party in enumerate(self.parties) for column in party.groups)


class Glm(Training):
    """A generalised linear model: a weight for every input, and if asked standard errors and tests ("inference")."""

    kind: Literal["vertical.glm"]
    train: GlmTrain
    release: tuple[Literal["coefficients", "inference", "model", "auc", "contribution", "metrics", "counts"], ...] = (
        Field(min_length=1)
    )

    @property
    def family(self) -> str:
        return self.train.family

    @model_validator(mode="after")
    def _what_the_family_has(self) -> Self:
        sparse = float(self.train.lasso) > 0
        if "inference" in self.release and "coefficients" not in self.release:
            raise ValueError("'inference' tells coefficients too, so 'coefficients' must be in 'release' with it")
        extra = any(p.offset is not None or p.weight is not None for p in self.parties)
        if extra and self.family in ("linear", "multinomial"):
            raise ValueError(f"a {self.family} model has no offset and no weights of rows")
        if "inference" in self.release and (sparse or self.family == "multinomial"):
            raise ValueError("'inference' is released of models without a lasso, and not of multinomial ones")
        if sparse and self.family == "multinomial":
            raise ValueError("there is no lasso for multinomial models")
        squared = "inference" in self.release or sparse or self.family == "linear"
        if squared and self.randomness == "verified-dealer":
            raise ValueError(
                "'inference', a lasso and family 'linear' take a dealer whose work is not checked, or 'ot'"
            )
        return self


class Trees(Training):
    """Gradient-boosted trees: each owner learns the splits of its own columns, leaves stay shared."""

    kind: Literal["vertical.trees"]
    train: TreesTrain
    release: tuple[Literal["model", "auc", "contribution", "metrics", "counts"], ...] = Field(min_length=1)

    @property
    def family(self) -> str:
        return {"logistic": "logistic", "squared": "linear", "poisson": "poisson"}[self.train.objective]

    @model_validator(mode="after")
    def _no_texts(self) -> Self:
        for party in self.parties:
            text = next((f.column for f in party.features if f.as_ == "text"), None)
            if text is not None:
                raise ValueError(f"column '{text}' of {party.silo} cannot be a text for trees")
        return self


class Network(Training):
    """A neural network: all weights stay shared."""

    kind: Literal["vertical.network"]
    train: NetworkTrain
    release: tuple[Literal["model", "auc", "contribution", "metrics", "counts"], ...] = Field(min_length=1)

    @property
    def family(self) -> str:
        return {"binary": "logistic", "multiclass": "multinomial", "regression": "linear"}[self.train.task]
