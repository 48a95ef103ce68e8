"""The runs that are attacked: every kind of training, evaluating and scoring, on data of which the attacker has a part.

The passive owner's columns have nothing to do with the label.  So its own data and its own results do not help it, and
whatever it finds out of the label it has from messages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from mpc.session import Session
from tests.mpc.transcripts import fix_keys
from tests.vertical.attacks import Seen, watch
from vertical import glm, linear, metrics, multinomial, network, score, statistics, woe
from vertical.binning import Binned, Binner
from vertical.encoding import Feature
from vertical.figures import Settings as Figures
from vertical.scores import Scores
from vertical.trees.settings import Settings as Trees
from vertical.trees.train import train as train_trees

Body = Callable[[Session], Any]
ROWS = 8192
"""Three quarters of them, on which an attacker is judged, bring the deviation of an AUC below .0075."""
BINS = 8


@dataclass(frozen=True)
class Data:
    """The active owner's columns Z and label, and the passive owner's columns X."""

    Z: np.ndarray
    X: np.ndarray
    y: np.ndarray


def data(which: int, n: int = ROWS) -> Data:
    """Two data sets: one of bell-shaped columns; one of skewed columns and a label that is rare."""
    rng = np.random.default_rng(50 + which)
    Z, X = rng.normal(size=(n, 3)), rng.normal(size=(n, 3))
    if which:
        Z, X = np.abs(Z) ** 1.5 - 1, np.abs(X) ** 1.5 - 1
    z = 2 * Z @ [1.5, -1, 1] if which == 0 else Z[:, 0] - 2
    return Data(Z, X, (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float))


def binned(columns: np.ndarray) -> Binned:
    """Columns cut into bins at fixed places."""
    codes = 1 + np.clip(np.floor(columns * 1.5) + 3, 0, BINS - 2).astype(np.uint8)
    names = tuple(f"c{i}" for i in range(columns.shape[1]))
    return Binned(codes, BINS, names, (False,) * len(names))


GLM = glm.Settings(passes=3, harmonics=6, inference=False)
GLM_TESTED = glm.Settings(passes=2, harmonics=6, hessians=2)
NETWORK = network.Settings(hidden=(4, 2), epochs=1, batch=ROWS, learning_rate=0.4)
BATCHES = network.Settings(hidden=(4, 2), epochs=1, batch=512)
TREES = Trees(trees=2, depth=3)
ROUTED = Trees(trees=2, depth=3, routing="revealed")


def trained(train: Any, settings: Any) -> Callable[[Data], tuple[Body, Body]]:
    """Both owners' parts in training, on numbers."""
    return lambda d: (lambda s: train(s, d.Z, d.y, settings), lambda s: train(s, d.X, None, settings))


def grown(settings: Trees) -> Callable[[Data], tuple[Body, Body]]:
    """Both owners' parts in training trees, on bins."""

    def bodies(d: Data) -> tuple[Body, Body]:
        Z, X = binned(d.Z), binned(d.X)
        return lambda s: train_trees(s, Z, d.y, settings), lambda s: train_trees(s, X, None, settings)

    return bodies


def classes(d: Data) -> tuple[Body, Body]:
    """Training on a label of three classes."""
    y = d.y + d.y * (d.Z[:, 2] > 0)
    settings = multinomial.Settings(passes=1)
    return lambda s: multinomial.train(s, d.Z, y, settings), lambda s: multinomial.train(s, d.X, None, settings)


def weighed(d: Data) -> tuple[Body, Body]:
    """Weights of evidence."""
    sides = [{f"c{i}": column for i, column in enumerate(side.T)} for side in (d.Z, d.X)]
    features = [Feature(name, "number") for name in sides[0]]
    binners = [Binner.fit(side, features, np.ones(len(d.y), dtype=bool), bins=8) for side in sides]
    Z, X = (binner.transform(side) for binner, side in zip(binners, sides, strict=True))
    settings = woe.Settings()
    return (
        lambda s: woe.evidence(s, binners[0], Z, d.y, settings),
        lambda s: woe.evidence(s, binners[1], X, None, settings),
    )


def scored(d: Data, task: Callable[[Session, Scores, np.ndarray | None], Any]) -> tuple[Body, Body]:
    """Both owners' parts in something that takes scores."""
    parts = (d.Z @ [1.5, -1, 1], d.X[:, 0])
    return (
        lambda s: task(s, Scores.of_part(parts[0], 32, 2), d.y),
        lambda s: task(s, Scores.of_part(parts[1], 32, 2), None),
    )


def evaluated(d: Data) -> tuple[Body, Body]:
    """AUC, KS, calibration, confusion and losses."""
    figures = Figures(wanted=("auc", "ks", "calibration", "confusion", "loss"))
    return scored(d, lambda s, scores, y: metrics.evaluate(s, scores, y, 0, figures))


def decided(d: Data) -> tuple[Body, Body]:
    """A decision for the active owner and a rounded probability for the passive one."""
    outputs = score.Output("decision", (0,), cuts=(0.4,)), score.Output.rounded((1,), step=0.05)
    return scored(d, lambda s, scores, _: [score.predict(s, scores, output, 3) for output in outputs])


RUNS: dict[str, Callable[[Data], tuple[Body, Body]]] = {
    "glm": trained(glm.train, GLM),
    "glm with tests": trained(glm.train, GLM_TESTED),
    "poisson": trained(glm.train, glm.Settings(family="poisson", passes=2, inference=False)),
    "linear": trained(linear.train, linear.Settings()),
    "multinomial": classes,
    "statistics": trained(statistics.statistics, statistics.Settings()),
    "weights of evidence": weighed,
    "network": trained(network.train, NETWORK),
    "network in batches": trained(network.train, BATCHES),
    "trees": grown(TREES),
    "trees with routing revealed": grown(ROUTED),
    "evaluation": evaluated,
    "scoring": decided,
}


@cache
def seen(name: str, which: int = 0, n: int = ROWS) -> Seen:
    """What the owners see of a run; the same every time, and with other masks for other data."""
    with pytest.MonkeyPatch.context() as patch:
        fix_keys(patch, f"{name}/{which}")
        return watch(RUNS[name](data(which, n)))
