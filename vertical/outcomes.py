"""How good predicted means are, of linear models and of those with a logarithmic link.  Scores stay shared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.session import Session
from vertical.curves import calibration_table, decimal, gains_table
from vertical.figures import MINIMUM_PER_BIN, Opening, Settings, agree, places
from vertical.losses import (
    TERM_BITS,
    Label,
    check_outcomes,
    check_spread,
    constant_deviance,
    deviance,
    in_units,
    largest_mean,
    means,
    residuals,
    share_label,
)
from vertical.ranking import rank
from vertical.scores import FRAC_BITS, Scores

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]


def evaluate_means(
    session: Session, scores: Scores, y: Floats | None, active: int, settings: Settings
) -> dict[str, Any]:
    """Figures of a model of a mean: linear, or Poisson, Gamma or Tweedie with a logarithmic link.

    scores: on the scale of the link.  y: (n,) outcomes at owner `active`, None elsewhere.
    Returns a document of numbers as text, the same at every owner.

    Reveals: to every owner, the power of two that all outcomes are below; with "gains" and "calibration" the sum of the
        outcomes in every bin, with the latter of the predictions too; with "loss" the sums of outcomes, predictions,
        deviances, absolute and squared residuals, and squared distances of the outcomes from their mean; and as
        `vertical.losses.means`.
    Cost: docs/protocols/evaluation.md has the parts.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `vertical.ranking` and `vertical.losses`.
    Raises: LocalProtocolError if there are fewer than 20 rows, or at the owner of the label if outcomes are outside the family,
        too large or vary too little beside their size; OutOfRange if a mean is too large; RemoteProtocolError if another owner
        was asked for something else.
    """
    n, family = len(scores), settings.family
    if n < MINIMUM_PER_BIN:
        raise LocalProtocolError(f"there are fewer than {MINIMUM_PER_BIN} held-out rows")
    if y is not None:
        check_outcomes(y, family)
    agree(session, n, active, settings, (), None if y is None else 0)
    label = share_label(session, y, active, n, family)
    measured = in_units(session, scores, label.exponent)
    if settings.wants("loss"):
        check_spread(label, _room(measured, label, family), session.parties[active])
    predicted = means(session, measured, label, family)
    opening, (bins, _) = Opening(), places(n, settings)
    if settings.wants("gains", "calibration"):
        ranking = rank(session, scores, np.column_stack([label.words, predicted]))
        opening.add("bins", ranking.first(bins)[:, 0], "metrics/bins")
        if settings.wants("calibration"):
            opening.add("predicted", ranking.first(bins)[:, 1], "metrics/predicted")
    bits = _losses(session, opening, measured, label, predicted, settings) if settings.wants("loss") else 0
    opened = opening.open(session)
    out: dict[str, Any] = {"family": family, "rows": n}
    outcomes, predictions = (
        [math.ldexp(value, label.exponent - FRAC_BITS) for value in opened.get(name, [])]
        for name in ("bins", "predicted")
    )
    if settings.wants("gains"):
        out["gains"] = gains_table(n, bins, outcomes)
    if settings.wants("calibration"):
        out["calibration"] = calibration_table(bins, outcomes, predictions)
    if settings.wants("loss"):
        out["loss"] = _loss_table(n, opened, bits, label.exponent)
    return out


def _losses(
    session: Session, opening: Opening, scores: Scores, label: Label, predicted: Words, settings: Settings
) -> int:
    """Put in what losses are computed from; returns the bits of squares."""
    family, power = settings.family, settings.power
    absolute, squares, bits = residuals(session, label, predicted, _room(scores, label, family))
    opening.add("absolute", absolute, "metrics/loss")
    opening.add(
        "squares",
        np.concatenate([squares, label.known(lambda y: float(((y - y.mean()) ** 2).sum()), bits)]),
        "metrics/loss",
    )
    opening.add("sums", np.stack([label.words.sum(dtype=np.uint64), predicted.sum(dtype=np.uint64)]), "metrics/loss")
    if family != "linear":
        constant = label.known(lambda y: constant_deviance(y, family, power), TERM_BITS)
        opening.add(
            "deviance", np.concatenate([deviance(session, scores, label, family, power), constant]), "metrics/loss"
        )
    return bits


def _room(scores: Scores, label: Label, family: str) -> int:
    """Predicted means are below two to this power, in the label's units."""
    room = math.ceil(scores.bound).bit_length() if family == "linear" else math.ceil(scores.bound / math.log(2))
    return min(room, largest_mean(label))


def _loss_table(n: int, opened: dict[str, Any], bits: int, exponent: int) -> dict[str, str]:
    """Figures from the opened sums, which are in units of 2^exponent."""
    squares, around_mean = (math.ldexp(value, 2 * exponent - bits) for value in opened["squares"])
    outcomes, predictions = (math.ldexp(value, exponent - FRAC_BITS) for value in opened["sums"])
    out = {
        "mean_outcome": decimal(outcomes, n),
        "mean_prediction": decimal(predictions, n),
        "mean_residual": decimal(outcomes - predictions, n),
        "mean_absolute_residual": decimal(math.ldexp(opened["absolute"][0], exponent - FRAC_BITS), n),
        "root_mean_square_residual": decimal(math.sqrt(max(squares, 0.0) / n)),
        "r2": decimal(around_mean - squares, around_mean),
    }
    if "deviance" in opened:
        model, constant = (2 * value * 2.0**-TERM_BITS for value in opened["deviance"])
        out |= {
            "mean_deviance": decimal(model, n),
            "mean_deviance_of_constant": decimal(constant, n),
            "d2": decimal(constant - model, constant),
        }
    return out
