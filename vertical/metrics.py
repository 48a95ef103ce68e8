"""How good scores are that nobody sees: every figure that is wanted, from sums of shares, opened together at the end.

A request is the same at all owners; they tell each other what they were asked for, and stop if it differs.  What is opened
is whole numbers and sums over rows, and every figure is computed from them by plain arithmetic (`vertical.curves`), so all
owners have the same report.  No threshold between bins, no score and no row is opened.

    logistic                        auc, ks: exact, over all distinct scores; gains, curves: counts of positives by falling
                                    score; calibration: mean prediction and outcome in the same bins; confusion: counts at
                                    given probabilities; loss: log-loss, Brier score and what follows; and by group
    linear, poisson, gamma, tweedie gains, calibration; loss: deviance, R2 and residuals
    multinomial                     accuracy; auc: each class against the rest, and the mean; loss: log-loss

The figures of `ORDERED` take a sort, whose shuffle needs a dealer; `Settings.dealer` says what there is without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.session import Session
from vertical.binary import evaluate_binary
from vertical.classes import evaluate_classes
from vertical.figures import FIGURES, ORDERED, Settings
from vertical.outcomes import evaluate_means
from vertical.scores import Scores
from vertical.segments import Group

__all__ = ["FIGURES", "ORDERED", "Group", "Settings", "evaluate"]

Floats = npt.NDArray[np.float64]


def evaluate(
    session: Session,
    scores: Scores,
    y: Floats | None,
    active: int,
    settings: Settings,
    groups: Sequence[Group] = (),
) -> dict[str, Any]:
    """The figures that settings.wanted names, for rows with shared scores and a label at one owner.

    y: (n,) labels at owner `active`, None elsewhere.  groups: columns by which a binary classifier's figures are split.
    Returns a document of JSON types with numbers as text, the same at every owner.

    Reveals: to every owner, what the wanted figures are computed from: see `evaluate_binary`, `evaluate_means` and
        `evaluate_classes`.
    Cost: as these three; docs/protocols/evaluation.md has the parts.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: as these three.
    Raises: as these three; LocalProtocolError also if there are groups and the family is not logistic.
    """
    if settings.family == "logistic":
        return evaluate_binary(session, scores, y, active, settings, groups)
    if groups:
        raise LocalProtocolError("figures by group are of binary classifiers")
    if settings.family == "multinomial":
        return evaluate_classes(session, scores, y, active, settings)
    return evaluate_means(session, scores, y, active, settings)
