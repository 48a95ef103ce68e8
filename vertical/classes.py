"""How good a classifier of several classes is: accuracy, log-loss and the area of each class against the rest.

The probability of a class orders rows as its logarithm does, z_c - log(sum of e^z_j).  With m the largest score of a row, the
sum is e^m times the sum of e^(z_j - m), whose terms are between 0 and 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import is_zero, plan_is_zero
from mpc.errors import LocalProtocolError
from mpc.extrema import argmax, plan_argmax
from mpc.functions import Domain, exp, log, plan_exp, plan_log
from mpc.products import multiply, plan_matmul
from mpc.session import Session
from vertical.curves import class_table
from vertical.figures import MINIMUM_PER_CLASS, Opening, Settings, agree
from vertical.losses import at_least
from vertical.ranking import concordance, rank
from vertical.scores import FRAC_BITS, Scores

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
MAX_CLASSES = 100
LEAST = -20
"""A probability below 2^-20 of the largest counts as that in the sum of all."""
POWERS = Domain(LEAST, 4, FRAC_BITS, checked=False)
SUMS = Domain(-2, 8, FRAC_BITS, checked=False)
"""The sum of e^(z_j - m) is between 1 and the number of classes."""


def evaluate_classes(
    session: Session, scores: Scores, y: Floats | None, active: int, settings: Settings
) -> dict[str, Any]:
    """Figures of a classifier with several classes; the class with the highest score is the prediction.

    scores: words (n, classes) with FRAC_BITS fractional bits.  y: (n,) class numbers 0, 1, ... at owner `active`, None
    elsewhere.  The first of equal scores wins.  Accuracy is exact; probabilities are to a relative error of some 1e-4, so an
    area is to some 1e-4 too, and rows with equal scores are in any order.  Returns a document of numbers as text.

    Reveals: to every owner, how many rows each class has, and what is wanted of: how many of them are predicted right; the
        log-loss; each class's area.
    Cost: as `mpc.extrema.argmax` of n rows and `mpc.compare.is_zero` of n words; with "loss" or "auc", for c classes, as
        `mpc.functions.exp` and a comparison and a product of n c words, and as `mpc.functions.log` of n words; with "auc"
        c times as `vertical.ranking.rank` and `vertical.ranking.concordance`.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.extrema.argmax`, `mpc.functions.exp` and `vertical.ranking.rank`.
    Raises: LocalProtocolError if there are not 2 to 100 classes, or at the owner of the label if a class has fewer than 10
        rows; RemoteProtocolError if another owner was asked for something else.
    """
    if scores.words.ndim != 2 or not 2 <= scores.words.shape[1] <= MAX_CLASSES or scores.frac_bits != FRAC_BITS:
        raise LocalProtocolError(f"scores of 2 to {MAX_CLASSES} classes have a column for each, of {FRAC_BITS} bits")
    hot = _one_hot(y, *scores.words.shape)
    agree(session, len(scores), active, settings, (), None if y is None else 0)
    opening = Opening()
    opening.add("rows", hot.sum(axis=0, dtype=np.uint64), "metrics/rows")
    largest = _predicted(session, opening, scores.words, y, hot, wanted=settings.wants("accuracy"))
    if settings.wants("loss", "auc"):
        logarithms = _logarithms(session, scores, largest)
        if settings.wants("loss"):
            (ticket,) = session.correlations.plan([plan_matmul((1, hot.size), (hot.size, 1))])
            opening.add(
                "log_loss", multiply(session, ticket, logarithms.reshape(1, -1), hot.reshape(-1, 1)), "metrics/loss"
            )
        if settings.wants("auc"):
            opening.add("auc", _areas(session, scores, logarithms, hot, y is not None), "metrics/auc")
    opened = opening.open(session)
    loss = -math.ldexp(opened["log_loss"][0][0], -FRAC_BITS) if "log_loss" in opened else None
    return {"family": settings.family, "rows": len(scores)} | class_table(
        opened["rows"], opened.get("right"), loss, opened.get("auc")
    )


def _one_hot(y: Floats | None, n: int, classes: int) -> Words:
    """Our share of the label, (n, classes); the label itself at its owner."""
    hot = np.zeros((n, classes), dtype=np.uint64)
    if y is None:
        return hot
    if y.shape != (n,) or not np.isin(y, np.arange(classes)).all():
        raise LocalProtocolError(f"the label must be a class, 0 to {classes - 1}, in each of the {n} rows")
    hot[np.arange(n), y.astype(np.intp)] = 1
    if hot.sum(axis=0).min() < MINIMUM_PER_CLASS:
        raise LocalProtocolError(f"a class of the label has fewer than {MINIMUM_PER_CLASS} held-out rows")
    return hot


def _predicted(session: Session, opening: Opening, z: Words, y: Floats | None, hot: Words, *, wanted: bool) -> Words:
    """Shares of the largest score of each row; if wanted, put in how many rows of each class are predicted right."""
    n, classes = z.shape
    tournament = plan_argmax(n, classes)
    rest = [*plan_is_zero(n), plan_matmul((1, n), (n, classes))] if wanted else []
    tickets = session.correlations.plan([*tournament, *rest])
    largest, chosen = argmax(session, tickets[: len(tournament)], z)
    if wanted:
        if y is not None:
            chosen = chosen - y.astype(np.uint64)
        right = is_zero(session, tickets[len(tournament) : -1], chosen)
        opening.add("right", multiply(session, tickets[-1], right[None, :], hot)[0], "metrics/right")
    return largest


def _logarithms(session: Session, scores: Scores, largest: Words) -> Words:
    """Shares of the logarithms of the classes' probabilities, (n, classes), FRAC_BITS fractional bits."""
    below = np.asarray(scores.words - largest[:, None]).reshape(-1)
    low = math.ceil((LEAST * math.log(2) + 1e-3) * 2**FRAC_BITS)
    limited = at_least(session, below, low)
    powers = exp(session, session.correlations.plan(plan_exp(len(limited), POWERS)), limited, POWERS)
    sums = powers.reshape(scores.words.shape).sum(axis=1, dtype=np.uint64)
    of_sums = log(session, session.correlations.plan(plan_log(len(sums), SUMS)), sums, SUMS)
    return np.asarray(scores.words - (largest + of_sums)[:, None])


def _areas(session: Session, scores: Scores, logarithms: Words, hot: Words, has_label: bool) -> Words:
    """Shares of twice the concordant pairs and ties minus all pairs, for each class against the rest: (classes,)."""
    ones = np.full(len(hot), has_label, dtype=np.uint64)
    bound, areas = 2 * scores.bound + math.log(MAX_CLASSES) + 1, []
    for c in range(hot.shape[1]):
        own = Scores(np.ascontiguousarray(logarithms[:, c]), FRAC_BITS, bound)
        ranking = rank(session, own, np.column_stack([hot[:, c], ones - hot[:, c]]))
        areas.append(concordance(session, ranking, [0], [1]))
    return np.concatenate(areas)
