"""How boosted trees are trained, and what all owners know of the data they are trained on: sizes, never contents."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import exp, floor, log2
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.rng import Prg, derive_key

Objective = Literal["logistic", "squared", "poisson"]
Routing = Literal["hidden", "revealed"]

SCORE_BITS = 24
"""Fractional bits of scores and leaf weights."""
SUM_BITS = 30
"""Sums of gradients and of Hessians stay below 2^SUM_BITS, so that the products of a split's gain fit a word."""
MAX_GRADIENT_BITS, MIN_GRADIENT_BITS = 16, 3
WIDEST: dict[Objective, float] = {"logistic": 64.0, "squared": 64.0, "poisson": 6.0}
"""Largest score that an objective's functions are made for, in its own units."""
START: dict[Objective, float] = {"logistic": 6.0, "squared": 1.0, "poisson": 0.7}
"""Largest size of the score before the first tree."""
LEAF: dict[Objective, float] = {"logistic": 4.0, "squared": 2.0, "poisson": 0.7}
"""The largest weight of a leaf unless the settings say otherwise."""
ROUNDING = 1 + 2.0**-10
"""How much larger than its limit a leaf may come out of the division."""
NARROWEST = 2.0**-17.5
"""The smallest part of a node's Hessian, with its regularisation, that a child may have."""


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters, called as XGBoost calls them.

    objective: logistic (labels 0 and 1), squared (any numbers) or poisson (counts).  max_leaf: limit of a leaf's weight before
    the learning rate, XGBoost's max_delta_step; None picks one that the number of trees allows.  For squared it is in
    units of the label's range.  subsample, colsample: parts of the rows and columns that each tree looks at.  monotone:
    (column, 1 or -1) pairs: the score never falls, or never rises, with that column.  validation: part of the rows held
    back to stop early, when `patience` trees in a row did not better the loss.  seed: public; picks rows and columns.
    routing: "revealed" tells every owner which row goes into which node, and is faster.
    """

    objective: Objective = "logistic"
    trees: int = 20
    depth: int = 5
    learning_rate: float = 0.3
    reg_lambda: float = 1.0
    gamma: float = 0.0
    min_child_weight: float = 1.0
    max_leaf: float | None = None
    subsample: float = 1.0
    colsample: float = 1.0
    monotone: tuple[tuple[str, int], ...] = ()
    validation: float = 0.0
    patience: int = 0
    seed: int = 0
    routing: Routing = "hidden"

    def __post_init__(self) -> None:
        checks = {
            "objective": self.objective in WIDEST,
            "trees": 1 <= self.trees <= 2000,
            "depth": 1 <= self.depth <= 8,
            "learning_rate": 0 < self.learning_rate <= 1,
            "reg_lambda": 0.01 <= self.reg_lambda <= 1000,
            "gamma": 0 <= self.gamma <= 1e6,
            "min_child_weight": 0 <= self.min_child_weight <= 1e6,
            "max_leaf": self.max_leaf is None or 0 < self.max_leaf <= 8,
            "subsample": 0 < self.subsample <= 1,
            "colsample": 0 < self.colsample <= 1,
            "monotone": all(direction in (-1, 1) for _, direction in self.monotone),
            "validation": 0 <= self.validation < 1,
            "patience": self.patience >= 0 and (self.patience > 0) == (self.validation > 0),
            "seed": 0 <= self.seed < 1 << 64,
            "routing": self.routing in ("hidden", "revealed"),
        }
        for name, good in checks.items():
            if not good:
                raise LocalProtocolError(f"the setting '{name}' of the trees is out of range")
        if self.bound(self.trees) > WIDEST[self.objective]:
            raise LocalProtocolError(
                f"{self.trees} trees of learning rate {self.learning_rate} could leave the range of the '{self.objective}' "
                "objective: make max_leaf smaller"
            )

    @property
    def leaf(self) -> float:
        """The limit of a leaf's weight, before the learning rate."""
        if self.max_leaf is not None:
            return self.max_leaf
        room = (WIDEST[self.objective] - START[self.objective]) / ROUNDING * (1 - 1e-9)
        return min(LEAF[self.objective], room / (self.learning_rate * self.trees))

    def bound(self, trees: int) -> float:
        """No score is larger than this after so many trees, in the objective's units."""
        return START[self.objective] + self.learning_rate * self.leaf * trees * ROUNDING

    def stream(self, label: str) -> Prg:
        """Public randomness for one purpose."""
        return Prg(derive_key(self.seed.to_bytes(32, "big"), f"trees/{label}"))

    def common(self) -> dict[str, Any]:
        """What is the same for all owners, as plain data."""
        out = {}
        for field in fields(self):
            value = getattr(self, field.name)
            number = "float" in str(field.type) and value is not None
            out[field.name] = repr(float(value)) if number else value
        del out["monotone"]
        return out


@dataclass(frozen=True)
class Block:
    """One owner's features as all know them.

    missing: which have missing values in training.  monotone: 0, or 1 or -1 for constrained features.
    """

    features: int
    n_bins: int
    missing: tuple[bool, ...]
    monotone: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """What all owners know.

    active: index of the owner of the label.  exponent: labels, for squared less their mean, are divided by 2^exponent (0 for
    logistic).  top: no divided label exceeds 2^top.  offset: for squared, their mean is at most 2^(exponent + offset) in size.
    """

    n_rows: int
    blocks: tuple[Block, ...]
    active: int
    exponent: int = 0
    top: int = 0
    offset: int = 0

    @property
    def constrained(self) -> bool:
        """Whether any owner's column has a monotone constraint."""
        return any(any(block.monotone) for block in self.blocks)


@dataclass(frozen=True)
class Candidates:
    """The splits that a tree chooses from, all owners' one after the other, in an order that all know.

    columns: per owner, the features looked at.  owner, feature, bins, left: of every candidate its owner, feature, the last
    bin that goes left, and whether missing values go left.  monotone: the direction its score must have, or 0.
    """

    columns: tuple[npt.NDArray[np.int64], ...]
    owner: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    bins: npt.NDArray[np.int64]
    left: npt.NDArray[np.bool_]
    monotone: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def starts(self) -> list[int]:
        """Where each owner's candidates begin."""
        return [int(np.searchsorted(self.owner, i)) for i in range(len(self.columns))]


def candidates(layout: Layout, settings: Settings, tree: int) -> Candidates:
    """The candidates of one tree: of each feature every bin as the last that goes left, with missing values to the left,
    and, where it has missing values, to the right too."""
    columns, parts = [], []
    for owner, block in enumerate(layout.blocks):
        wanted = max(1, round(settings.colsample * block.features)) if block.features else 0
        order = np.argsort(settings.stream(f"columns/{tree}/{owner}").words(block.features), kind="stable")
        chosen = np.sort(order[:wanted]).astype(np.int64)
        columns.append(chosen)
        sides = [(True, chosen, range(1, block.n_bins - 1))]
        sides.append((False, chosen[np.array(block.missing, dtype=bool)[chosen]], range(1, block.n_bins)))
        for left, features, bins in sides:
            grid = np.array([(owner, f, b, left) for f in features for b in bins], dtype=np.int64).reshape(-1, 4)
            parts.append(grid)
    table = np.concatenate(parts)
    directions = [block.monotone[f] for block, f in ((layout.blocks[o], f) for o, f in table[:, :2])]
    return Candidates(
        tuple(columns),
        table[:, 0],
        table[:, 1],
        table[:, 2],
        table[:, 3].astype(bool),
        np.array(directions, dtype=np.int64),
    )


@dataclass(frozen=True)
class Scale:
    """Fixed point of gradients and Hessians, and the settings that go with their unit.

    bits: their fractional bits.  total: bounds the Hessian of all rows, and that of any node with twice the regularisation.
    reg_lambda, gamma: as in the settings, for labels over 2^exponent.  least: the smallest Hessian of a child.
    """

    bits: int
    total: float
    reg_lambda: float
    gamma: float
    least: float

    @property
    def unit(self) -> float:
        """2^bits."""
        return 2.0**self.bits


def scale_for(settings: Settings, layout: Layout) -> Scale:
    """As many fractional bits as sums over all rows have room for.

    Raises: LocalProtocolError if too few are left.
    """
    gradient, hessian = magnitudes(settings, layout)
    # Dividing labels divides a squared loss by the square, its Hessian not at all; a loss of counts is divided as a whole.
    whole = 2.0**-layout.exponent
    part = whole if settings.objective == "poisson" else 1.0
    reg_lambda, gamma = settings.reg_lambda * part, settings.gamma * (part if part != 1 else whole**2)
    total = layout.n_rows * hessian + 2 * reg_lambda
    largest = max(layout.n_rows * gradient, total)
    bits = min(MAX_GRADIENT_BITS, floor(SUM_BITS - log2(largest)))
    if bits < MIN_GRADIENT_BITS:
        raise LocalProtocolError(
            f"gradients of {layout.n_rows} rows up to {gradient:.3g} do not fit: make max_leaf smaller"
        )
    least = max(settings.min_child_weight * part, total * NARROWEST - reg_lambda, 2.0**-bits)
    return Scale(bits, total, reg_lambda, gamma, least)


def magnitudes(settings: Settings, layout: Layout) -> tuple[float, float]:
    """The largest gradient and Hessian of a row."""
    bound = settings.bound(settings.trees)
    if settings.objective == "logistic":
        return 1.01, 0.26
    if settings.objective == "squared":
        return bound + 2.0**layout.top + 0.01, 1.0
    mean = exp(bound - START["poisson"])  # it starts at or below 1
    return max(mean, 2.0**layout.top) * 1.01 + 0.01, mean * 1.01 + 0.01
