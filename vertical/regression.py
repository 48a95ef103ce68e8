"""Generalised linear models of every family behind one call: which trainer a family and its penalties need.

`vertical.glm` trains families by passes and Newton steps, `vertical.linear` least squares in closed form,
`vertical.multinomial` several classes, and `vertical.sparse` whatever has a lasso penalty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.session import Session
from vertical import glm, linear, multinomial, sparse
from vertical.checkpoints import Checkpoints
from vertical.families import Rows
from vertical.scores import Scores

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
Fitted = glm.Fitted | linear.Fitted | multinomial.Fitted


@dataclass(frozen=True)
class Settings:
    """How to train.

    family: "logistic", "linear", "poisson", "gamma", "tweedie" (with `power`) or "multinomial".  ridge, lasso: the penalty
    ridge/2 |w|^2 + lasso |w|_1 on coefficients of standardised inputs, against half the deviance.  passes: None for as many as
    usual.  inference: standard errors and tests; there are none with a lasso, and none of multinomial models.  weighted,
    exposed: whether the owner of the label has case weights, and offsets.  period, harmonics: of the sigmoid's series.
    """

    family: str = "logistic"
    ridge: float = 0.0
    lasso: float = 0.0
    passes: int | None = None
    inference: bool = True
    power: float = 1.5
    weighted: bool = False
    exposed: bool = False
    period: int = 64
    harmonics: int = 12


def train(
    session: Session,
    inputs: Floats,
    y: Floats | Rows | None,
    settings: Settings,
    progress: Progress = lambda _done, _total: None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Fit the model; every owner calls this at once with its own aligned rows.

    inputs: (n, d) standardised inputs of our columns.  y: labels at exactly one owner, None at the others.

    Reveals: as `train` of `vertical.glm`, `vertical.linear`, `vertical.multinomial` or `vertical.sparse`.
    Cost: as there.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: as there.
    Raises: as there; LocalProtocolError if the family cannot be fitted with these settings.
    """
    if settings.family == "multinomial":
        if settings.lasso:
            raise LocalProtocolError("there is no lasso for multinomial models")
        chosen = multinomial.Settings(settings.ridge, settings.passes or multinomial.Settings.passes)
        return multinomial.train(session, inputs, _plain(y, "multinomial"), chosen, progress, checkpoints)
    if settings.lasso:
        total, n = settings.lasso + settings.ridge, len(inputs)
        penalised = sparse.Settings(
            settings.family,
            total / max(n, 1),
            settings.lasso / total,
            power=settings.power,
            weighted=settings.weighted,
            exposed=settings.exposed,
        )
        return sparse.train(session, inputs, y, penalised, progress, checkpoints)
    if settings.family == "linear":
        return linear.train(session, inputs, _plain(y, "linear"), linear.Settings(settings.ridge), progress)
    return glm.train(session, inputs, y, _engine(settings), progress, checkpoints)


def _plain(y: Floats | Rows | None, family: str) -> Floats | None:
    if not isinstance(y, Rows):
        return y
    if y.weights is not None or y.offset is not None:
        raise LocalProtocolError(f"a {family} model has no case weights and no offsets")
    return y.y


def _engine(settings: Settings) -> glm.Settings:
    return glm.Settings(
        family=settings.family,
        ridge=settings.ridge,
        passes=settings.passes or glm.Settings.passes,
        inference=settings.inference,
        period=settings.period,
        harmonics=settings.harmonics,
        power=settings.power,
        weighted=settings.weighted,
        exposed=settings.exposed,
    )


def scores(session: Session, fitted: Fitted, inputs: Floats, offset: Floats | None = None) -> Scores:
    """Shares of the scores of aligned rows: linear predictors, (n,), or (n, classes).

    inputs: (n, d) standardised inputs of our columns.  offset: (n,), if we know one; not for linear and multinomial models.

    Reveals: nothing.
    Cost: nothing is sent.
    Security: semi-honest owners.
    Source: additive secret sharing.
    Raises: LocalProtocolError if a value is not finite, or the model has no offsets.
    """
    if isinstance(fitted, glm.Fitted):
        return glm.scores(session, fitted, inputs, offset)
    if offset is not None:
        raise LocalProtocolError("this model has no offsets")
    if isinstance(fitted, linear.Fitted):
        return linear.scores(session, fitted, inputs)
    return multinomial.scores(session, fitted, inputs)


def from_document(document: Mapping[str, Any]) -> Fitted:
    """The part of a model that `document()` of any of them made.  Raises: LocalProtocolError if it is anything else."""
    if document.get("family") == "multinomial":
        return multinomial.Fitted.from_document(document)
    if "freedom" in document:
        return linear.Fitted.from_document(document)
    return glm.Fitted.from_document(document)
