"""What a generalised linear model needs of its family: residuals and Fisher weights of shared linear predictors.

A family turns shares of a row's linear predictor eta into shares of the residual mu - y and of the Fisher weight, both on the
scale of its canonical or chosen link.  The labels are known to one owner, the active one, who subtracts them from its share.
A family is right for |eta| <= limit only.  Nobody sees eta, so at the end every owner looks at its own part of it, and if
one is too large all begin again with a wider family.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from mpc._fits import Fit
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError
from mpc.fourier import ANGLE_BITS, FourierTuple, fit_sigmoid, odd_series, plan_series, series
from mpc.products import multiply, plan_multiply
from mpc.ring import encode
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]

ETA_BITS = 36
"""Fractional bits of linear predictors."""
RESIDUAL_BITS = 26
FISHER_BITS = 26
BASIS_BITS, COEF_BITS = 20, 20
"""Fractional bits of both factors of a fine series, whose product is then truncated: its error for a row is about 1e-6, random
and without bias."""
FLOOR = 2e-6
"""Added to every Fisher weight of the logistic family: more than the error of its series, so that sums are not negative."""
MAX_PERIOD = 256
FACTOR_BITS = 14
"""Fractional bits of a case weight."""
MAX_WEIGHT, MAX_OFFSET = 8.0, 8.0
LEAST_MEAN, MOST_MEAN = 0.5, 2.0
"""Of case weights."""


@dataclass(frozen=True)
class Rows:
    """What the active owner alone knows of the training rows: labels, and offsets of eta and case weights if any."""

    y: Floats
    offset: Floats | None = None
    weights: Floats | None = None


class Family(ABC):
    """One family with its link; every owner has an equal one.

    outputs: linear predictors of a row.  eta, residuals: (n,) for one, (n, outputs) for more.  limit: |eta| <= limit is where
    the family is right, offsets left out.  curvature: about the largest Fisher weight; fisher_limit: sums of weights are as if
    none exceeded this times it.  fisher_bits: fractional bits of the weights.  dispersion_bits: those of the dispersion, at
    least 11; it must stay below 2^(25 - dispersion_bits).
    """

    name: ClassVar[str]
    outputs: int = 1
    curvature: float
    fisher_limit: float = 1.0
    fisher_bits: int = FISHER_BITS
    dispersion_bits: int = 20

    @property
    @abstractmethod
    def limit(self) -> float:
        """Largest |eta| that it is right for."""

    @abstractmethod
    def described(self) -> list[Any]:
        """Everything that the owners' families must have alike, as plain data."""

    @abstractmethod
    def check(self, rows: Rows) -> None:
        """Raises: LocalProtocolError if the labels are none of this family's."""

    @abstractmethod
    def start(self, rows: Rows) -> Floats:
        """The intercepts of the model without inputs, (outputs,)."""

    @abstractmethod
    def wider(self) -> Self | None:
        """The same family, right for larger |eta|; None if there is none."""

    def agreed(self, session: Session, rows: Rows | None) -> Self:
        """The family as it is used, once its owners have told each other what it takes; every owner calls this at once."""
        return self

    def information(self, rows: Rows) -> float:
        """Mean Fisher weight of the model without inputs, over the curvature: what a pass gets done of a full step."""
        return 1.0

    @property
    def largest_fisher(self) -> float:
        """No weight exceeds this times the curvature.  Where it is more than fisher_limit, every Hessian is checked."""
        return self.fisher_limit

    @property
    def too_wide(self) -> str:
        """What to say if scores exceed the largest range."""
        return (
            f"scores leave the range that family '{self.name}' can compute, {self.limit:g}: most likely "
            "a column separates the label almost perfectly; leave it out, or raise train.ridge"
        )

    @property
    def ridge_factor(self) -> float:
        """What the likelihood is multiplied with, and so a penalty must be."""
        return 1.0

    @property
    def intercept_shift(self) -> float:
        """What to add to the intercept for labels in their own units."""
        return 0.0

    @abstractmethod
    def plan_residual(self, n: int, owners: int, *, fine: bool) -> list[Correlation]:
        """What `residual` of n rows asks of the dealer."""

    @abstractmethod
    def residual(
        self, session: Session, tickets: Sequence[Ticket], eta: Words, rows: Rows | None, *, fine: bool
    ) -> Words:
        """Shares of mu - y with RESIDUAL_BITS fractional bits.

        eta: words with ETA_BITS fractional bits.  rows: at the active owner.  fine: close enough for tests of coefficients;
        otherwise cheap, for the passes that come before.
        """

    @abstractmethod
    def plan_fisher(self, n: int, owners: int) -> list[Correlation]:
        """What `fisher` of n rows asks of the dealer."""

    @abstractmethod
    def fisher(self, session: Session, tickets: Sequence[Ticket], eta: Words, rows: Rows | None) -> Words:
        """Shares of the Fisher weights, (n,), with fisher_bits fractional bits."""

    def plan_dispersion(self, n: int, owners: int) -> list[Correlation] | None:
        """What `dispersion` asks of the dealer; None if the family's dispersion is 1."""
        return None

    def dispersion(
        self, session: Session, tickets: Sequence[Ticket], eta: Words, rows: Rows | None, inputs: int
    ) -> Words:
        """Shares of the dispersion, (1,), with dispersion_bits fractional bits.  inputs: coefficients, the intercept too."""
        raise LocalProtocolError(f"the dispersion of family '{self.name}' is 1")

    @abstractmethod
    def deviance(self, y: Floats, eta: Floats) -> float:
        """In the clear, for whoever holds both."""


def check_mean(weights: Floats | None) -> None:
    """Raises: LocalProtocolError if the mean of the case weights is far from 1, so that steps would be too short or long."""
    if weights is not None and not LEAST_MEAN <= float(weights.mean()) <= MOST_MEAN:
        raise LocalProtocolError(
            f"the mean of the case weights is {weights.mean():.3g}, not between {LEAST_MEAN:g} and {MOST_MEAN:g}: "
            "divide all of them by their mean"
        )


def _with_offset(eta: Words, rows: Rows | None) -> Words:
    return eta if rows is None or rows.offset is None else eta + encode(rows.offset, ETA_BITS)


def _plan_fine(n: int, fit: Fit, bits: int) -> list[Correlation]:
    """What `_fine_series` asks of the dealer; bits: fractional bits of the result."""
    return [plan_series(n, fit), plan_truncation(n, fit.bits - bits)]


def _fine_series(session: Session, tickets: Sequence[Ticket], eta: Words, fit: Fit) -> Words:
    """Shares of the series, truncated as the first two tickets say: 2 rounds."""
    return truncate(session, series(session, tickets[0], eta, ETA_BITS, fit), tickets[1])


def _nodes(limit: float) -> Floats:
    """Midpoints of 0 to the limit, on which the waves of a family are orthogonal."""
    count = 4096
    return np.asarray((np.arange(count) + 0.5) * (limit / count), dtype=np.float64)


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-z)), dtype=np.float64)


def _grid(coefficient: float) -> int:
    """In units of the fit's grid, but rounded to 24 bits: what two machines compute differs in the 50th."""
    return round(coefficient * 2.0**24) << (Fit.GRID_BITS - 24)


@dataclass(frozen=True)
class Logistic(Family):
    """Labels 0 and 1, logit link.

    period: of the series, a power of two; |eta| may be a quarter of it.  harmonics: of the series in the first passes.
    """

    name: ClassVar[str] = "logistic"
    period: int = 64
    harmonics: int = 12
    weighted: bool = False
    exposed: bool = False
    fisher_bits: int = 30

    @property
    def curvature(self) -> float:  # type: ignore[override]
        """A quarter; of case weights, most are at most 4 times their mean."""
        return 1.0 if self.weighted else 0.25

    @property
    def fisher_limit(self) -> float:  # type: ignore[override]
        """Case weights are up to MAX_WEIGHT."""
        return MAX_WEIGHT / 4 if self.weighted else 1.0

    @property
    def limit(self) -> float:
        return self.period / 4 - (MAX_OFFSET if self.exposed else 0.0)

    def described(self) -> list[Any]:
        scaled = np.rint(self._coarse[1] * 2.0**24).astype(int).tolist()
        return [
            self.name,
            self.period,
            self.harmonics,
            self.weighted,
            self.exposed,
            scaled,
            list(self._mean.sines),
            list(self._weight.cosines),
            self._weight.constant,
        ]

    def check(self, rows: Rows) -> None:
        if not np.isin(rows.y, (0.0, 1.0)).all() or len(np.unique(rows.y)) != 2:
            raise LocalProtocolError("the label must hold both 0 and 1 and nothing else")
        if (rows.weights is not None) != self.weighted or (rows.offset is not None) != self.exposed:
            raise LocalProtocolError("the family was made for rows with or without weights and offsets, unlike these")
        if rows.weights is not None and not ((rows.weights >= 0) & (rows.weights <= MAX_WEIGHT)).all():
            raise LocalProtocolError(f"case weights are from 0 to {MAX_WEIGHT:g}")
        check_mean(rows.weights)
        if rows.offset is not None and not (np.abs(rows.offset) <= MAX_OFFSET).all():
            raise LocalProtocolError(f"offsets are at most {MAX_OFFSET:g} in size")

    def start(self, rows: Rows) -> Floats:
        rate = float(np.clip(np.average(rows.y, weights=rows.weights), 1e-6, 1 - 1e-6))
        shift = 0.0 if rows.offset is None else float(rows.offset.mean())
        return np.array([np.log(rate / (1 - rate)) - shift], dtype=np.float64)

    def information(self, rows: Rows) -> float:
        rate = float(np.clip(np.average(rows.y, weights=rows.weights), 1e-6, 1 - 1e-6))
        return rate * (1 - rate) / self.curvature

    def wider(self) -> Logistic | None:
        if self.period >= MAX_PERIOD:
            return None
        return replace(self, period=2 * self.period, harmonics=2 * self.harmonics)

    def plan_residual(self, n: int, owners: int, *, fine: bool) -> list[Correlation]:
        mean = _plan_fine(n, self._mean, RESIDUAL_BITS) if fine else [FourierTuple(n=n, harmonics=self._coarse[0])]
        return [*mean, *self._plan_weighted(n)]

    def residual(
        self, session: Session, tickets: Sequence[Ticket], eta: Words, rows: Rows | None, *, fine: bool
    ) -> Words:
        eta = _with_offset(eta, rows)
        if fine:
            out = _fine_series(session, tickets, eta, self._mean)
        else:
            bits = ETA_BITS + self.period.bit_length() - 1
            # each share loses half a step of the angle on average when its low bits go
            half = np.uint64(len(session.parties) << (bits - ANGLE_BITS - 1) if session.me == 0 else 0)
            out = odd_series(session, tickets[0], eta + half, bits, self._coarse[1])
        if rows is not None:
            out = out + encode(0.5 - rows.y, RESIDUAL_BITS)
        return self._weigh(session, tickets[2 if fine else 1 :], out, rows)

    def plan_fisher(self, n: int, owners: int) -> list[Correlation]:
        return [*_plan_fine(n, self._weight, self.fisher_bits), *self._plan_weighted(n)]

    def fisher(self, session: Session, tickets: Sequence[Ticket], eta: Words, rows: Rows | None) -> Words:
        out = _fine_series(session, tickets, _with_offset(eta, rows), self._weight)
        return self._weigh(session, tickets[2:], out, rows)

    def _plan_weighted(self, n: int) -> list[Correlation]:
        return [plan_multiply((n,)), plan_truncation(n, FACTOR_BITS)] if self.weighted else []

    def _weigh(self, session: Session, tickets: Sequence[Ticket], values: Words, rows: Rows | None) -> Words:
        """Times the case weights that the active owner knows, if there are any."""
        if not tickets:
            return values
        weights = np.zeros(len(values), dtype=np.uint64)
        if rows is not None and rows.weights is not None:
            weights = encode(rows.weights, FACTOR_BITS)
        return truncate(session, multiply(session, tickets[0], values, weights), tickets[1])

    def deviance(self, y: Floats, eta: Floats) -> float:
        return float(2 * (np.logaddexp(0, eta) - y * eta).sum())

    @cached_property
    def _coarse(self) -> tuple[list[int], Floats]:
        harmonics, coefs, _ = fit_sigmoid(self.period, self.harmonics)
        return harmonics, coefs

    @property
    def _fine(self) -> int:
        """Harmonics of a fine series: what is left out of it is below 1e-6, so that even tiny weights come out positive."""
        return max(16, 3 * self.period // 8)

    @cached_property
    def _mean(self) -> Fit:
        """sigmoid - 1/2 by odd sines."""
        z = _nodes(self.period / 4)
        waves = np.sin(np.outer(2 * np.arange(self._fine) + 1, 2 * np.pi * z / self.period))
        sines = tuple(_grid(float(c)) for c in 2 * waves @ (_sigmoid(z) - 0.5) / len(z))
        return self._fit(float(self.period), 2, (0,) * len(sines), sines, 0)

    @cached_property
    def _weight(self) -> Fit:
        """p (1 - p) by cosines of half the period."""
        z = _nodes(self.period / 4)
        weights = _sigmoid(z) * _sigmoid(-z)
        waves = np.cos(np.outer(np.arange(self._fine) + 1, 4 * np.pi * z / self.period))
        cosines = tuple(_grid(float(c)) for c in 2 * waves @ weights / len(z))
        zeros = (0,) * len(cosines)
        return self._fit(self.period / 2, 1, cosines, zeros, _grid(float(weights.mean()) + FLOOR))

    def _fit(self, period: float, step: int, cosines: tuple[int, ...], sines: tuple[int, ...], constant: int) -> Fit:
        return Fit(
            lo=-self.period / 4,
            hi=self.period / 4,
            period=period,
            step=step,
            cosines=cosines,
            sines=sines,
            constant=constant,
            slope=0,
            basis_bits=BASIS_BITS,
            coef_bits=COEF_BITS,
            error=1e-3,
        )
