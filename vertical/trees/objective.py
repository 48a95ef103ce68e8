"""Gradients, Hessians and losses of shared scores, for the three objectives.

Scores have SCORE_BITS fractional bits.  logistic: the log-odds.  squared: the prediction, less the mean of the labels, over
2^exponent.  poisson: the logarithm of the prediction over 2^exponent.  The active owner alone knows the labels and takes them
from its own share.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, log, log2
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError
from mpc.fourier import plan_series, series, series_together
from mpc.functions import Fit
from mpc.products import multiply, plan_matmul, plan_square, square
from mpc.ring import encode
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from vertical.exponentials import EXP, EXP_WIDE
from vertical.trees.fits import (
    MEAN_16,
    MEAN_32,
    MEAN_64,
    SOFTPLUS_16,
    SOFTPLUS_32,
    SOFTPLUS_64,
    WEIGHT_16,
    WEIGHT_32,
    WEIGHT_64,
)
from vertical.trees.settings import SCORE_BITS, START, Layout, Scale, Settings

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]

LOGISTIC = {
    16: (MEAN_16, WEIGHT_16, SOFTPLUS_16),
    32: (MEAN_32, WEIGHT_32, SOFTPLUS_32),
    64: (MEAN_64, WEIGHT_64, SOFTPLUS_64),
}
"""By the bound of |x|: the mean, the Hessian, and the softplus less half of x."""
RAISED = 2.0**-9
"""Added to a Poisson Hessian, so that the error of its series cannot make it negative."""
MAX_EXPONENT = 20
LEAST_STEPS = 2
"""A label whose standard deviation is fewer steps of a gradient than this would be lost in rounding."""


def label_scale(settings: Settings, y: Floats) -> tuple[int, int, int]:
    """The public exponents of `Layout`, at the owner of the labels.

    Raises: LocalProtocolError if the labels are none of the objective's.
    """
    if settings.objective == "logistic":
        if not np.isin(y, (0.0, 1.0)).all() or len(np.unique(y)) != 2:
            raise LocalProtocolError("the label must hold both 0 and 1 and nothing else")
        return 0, 0, 0
    if not np.isfinite(y).all() or (settings.objective == "poisson" and ((y < 0).any() or not y.any())):
        raise LocalProtocolError("the label must be numbers, and for poisson not negative and not all zero")
    mean, squared = float(y.mean()), settings.objective == "squared"
    size = float(np.abs(y - mean).max(initial=0.0)) if squared else mean
    exponent = ceil(log2(size)) if size > 0 else 0
    top = 0 if squared else max(0, ceil(log2(float(y.max()))) - exponent)
    offset = max(0, ceil(log2(abs(mean))) - exponent) if squared and mean else 0
    if offset > MAX_EXPONENT:
        raise LocalProtocolError("the label varies too little beside its size: take a constant off")
    if not -MAX_EXPONENT <= exponent <= MAX_EXPONENT or top > MAX_EXPONENT:
        raise LocalProtocolError(f"the label must lie between 2^-{MAX_EXPONENT} and 2^{MAX_EXPONENT} in size")
    return exponent, top, offset


def in_units(settings: Settings, layout: Layout, scale: Scale, y: Floats) -> Floats:
    """The labels as gradients take them, at their owner: over 2^exponent, and for squared less their mean.

    Raises: LocalProtocolError if rounding would lose what distinguishes them.
    """
    if settings.objective != "squared":
        return y * 2.0**-layout.exponent
    labels: Floats = (y - y.mean()) * 2.0**-layout.exponent
    if labels.any() and float(labels.std()) * scale.unit < LEAST_STEPS:
        raise LocalProtocolError(
            "most values of the label are too close beside its range, for so many rows and trees: cut off its outliers, or "
            "make max_leaf smaller"
        )
    return labels


def start(settings: Settings, layout: Layout, y: Floats) -> float:
    """The score before the first tree, at the owner of the labels; for squared with their mean."""
    mean = float(y.mean()) * 2.0**-layout.exponent
    if settings.objective == "squared":
        return mean
    if settings.objective == "poisson":
        return max(log(mean), -START["poisson"])
    limit = START["logistic"]
    return limit if mean >= 1 else float(np.clip(log(mean / (1 - mean)), -limit, limit))


def _logistic(settings: Settings, tree: int) -> tuple[Fit, Fit, Fit]:
    return LOGISTIC[next(bound for bound in LOGISTIC if settings.bound(tree) <= bound)]


def _exponential(settings: Settings, tree: int) -> Fit:
    return EXP if settings.bound(tree) <= EXP.hi else EXP_WIDE


def _fit(settings: Settings, tree: int) -> Fit | None:
    """The series whose angle is opened for scores after so many trees."""
    if settings.objective == "squared":
        return None
    return _logistic(settings, tree)[0] if settings.objective == "logistic" else _exponential(settings, tree)


def plan_gradients(settings: Settings, layout: Layout, scale: Scale, tree: int) -> list[Correlation]:
    """What `gradients` asks of the dealer for the tree of this number, the first being 0."""
    n, fit = layout.n_rows, _fit(settings, tree)
    if fit is None:
        return [plan_truncation(n, SCORE_BITS - scale.bits)]
    return [plan_series(n, fit), plan_truncation(2 * n, fit.bits - scale.bits)]


def gradients(
    session: Session,
    tickets: Sequence[Ticket],
    score: Words,
    y: Floats | None,
    settings: Settings,
    scale: Scale,
    tree: int,
) -> Words:
    """Shares of every row's gradient and Hessian, (2, n), with scale.bits fractional bits.

    tickets: for `plan_gradients`.  score: (n,) words.  y: labels of `in_units`, at their owner.

    Reveals: nothing.
    Cost: 2 rounds; to every other party 20 n bytes; the dealer sends 16 K n + 32 n bytes for K harmonics; squared: 1 round,
        8 n and 16 n.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.fourier.series_together`.
    Raises: LocalProtocolError if the tickets are not for this.
    """
    n, first = score.size, session.me == 0
    if settings.objective == "logistic":
        mean, weight, _ = _logistic(settings, tree)
        both = series_together(session, tickets[0], score, SCORE_BITS, [mean, weight])
        out = truncate(session, np.concatenate(both), tickets[1]).reshape(2, n)
    elif settings.objective == "squared":
        out = np.zeros((2, n), dtype=np.uint64)
        out[0] = truncate(session, score, tickets[0])
        out[1] = np.uint64(1 << scale.bits if first else 0)
    else:
        fit = _exponential(settings, tree)
        value = series(session, tickets[0], score, SCORE_BITS, fit)
        raised = value + np.uint64(round(RAISED * 2.0**fit.bits) if first else 0)
        out = truncate(session, np.concatenate([value, raised]), tickets[1]).reshape(2, n)
    if y is not None:
        out[0] -= encode(y, scale.bits)
    return out


LOSS_BITS = 12
"""Fractional bits of scores and labels when a squared loss is taken."""


def plan_loss(settings: Settings, layout: Layout, held: int, trees: int) -> list[Correlation]:
    """What `loss` of `held` rows asks of the dealer after so many trees.

    Raises: LocalProtocolError if a sum of losses might not fit a word.
    """
    fit = _fit(settings, trees)
    bound = settings.bound(trees) + 2.0**layout.top
    bits = 2 * LOSS_BITS if fit is None else fit.bits
    largest = {"logistic": bound, "squared": bound**2, "poisson": exp(settings.bound(trees)) + bound * 2.0**layout.top}
    if held * largest[settings.objective] >= 2.0 ** (62 - bits):
        raise LocalProtocolError(f"the losses of {held} rows might not fit a word: hold fewer rows back")
    if fit is None:
        return [plan_truncation(held, SCORE_BITS - LOSS_BITS), plan_square((held,))]
    return [plan_series(held, fit), plan_matmul((1, held), (held, 1))]


def loss(
    session: Session, tickets: Sequence[Ticket], score: Words, y: Floats | None, settings: Settings, trees: int
) -> Words:
    """Shares of the sum of the rows' losses, (1,), up to a constant and a scale that stay the same from tree to tree.

    tickets: for `plan_loss`.  score: (held,) words of the held back rows after so many trees; y: their labels of
    `in_units`, at their owner.

    Reveals: nothing.
    Cost: 2 rounds; to every other party 20 bytes a row, squared 16; the dealer sends 16 K bytes a row for K harmonics and 8
        in all, squared 24 a row.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.fourier.series_together`.
    Raises: LocalProtocolError if the tickets are not for this.
    """
    fit, first = _fit(settings, trees), session.me == 0
    if fit is None:
        short = truncate(session, score, tickets[0])
        short = short if y is None else short - encode(y, LOSS_BITS)
        return np.asarray(square(session, tickets[1], short).sum(keepdims=True, dtype=np.uint64))
    logistic = settings.objective == "logistic"
    curve = _logistic(settings, trees)[2] if logistic else fit
    (value,) = series_together(session, tickets[0], score, SCORE_BITS, [curve])
    # What is linear in the score: (1/2 - y) z and -y z.  The labels get the bits that the scores lack.
    slope = np.full(score.size, 0.5 if logistic and first else 0.0)
    factor = encode(slope if y is None else slope - y, curve.bits - SCORE_BITS)
    linear = multiply(session, tickets[1], factor[None], score[:, None])
    return np.asarray(value.sum(keepdims=True, dtype=np.uint64) + linear.reshape(1))
