"""Families with a logarithmic link: Poisson, Gamma and Tweedie, which differ in the power p of the mean in their variance.

With mu = e^eta, a label y and a case weight w, a row has the Fisher weight w mu^(2-p) and

    residual = w e^((2-p) eta) - (w y) e^((1-p) eta).

Poisson (p = 1) has no second exponential and Gamma (p = 2) no first one.  Each exponential is one Fourier series in the
passes, one opened angle a row, and in the fine steps the exponential of `mpc.functions`, whose error is relative.  A label
or a weight known to one owner multiplies a shared exponential as a product of shares.

Labels are counted in units of a public power of two near their mean, so that eta is near 0 whatever they count.  The
likelihood then only changes by the factor `ridge_factor`, with which a penalty is multiplied too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError
from mpc.fourier import plan_series, series
from mpc.functions import Domain, Fit, exp, plan_exp
from mpc.products import multiply, multiply_many, plan_multiply
from mpc.ring import encode
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate, truncate_many
from vertical.exponentials import EXP, EXP_WIDE
from vertical.families import ETA_BITS, Family, Rows, check_mean
from vertical.owned import agreed_scale

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]

TERM_BITS = 26
"""Fractional bits of an exponential; those of residuals and Fisher weights too."""
FACTOR_BITS = 14
"""Fractional bits of a private factor, a weight or a weighted label."""
EXPONENT_BITS = 20
"""Fractional bits of p - 1 and 2 - p."""
PEARSON_BITS = 18
COUNTS = -12, 16
"""Smallest and largest exponent of the mean of a Poisson label, whose dispersion is a power of two that must fit."""
AMOUNTS = -40, 40
"""And of a label whose dispersion is estimated in units of the mean."""
MAX_LABEL = 1 << 10
"""Largest label, in units of the public power of two."""
MAX_WEIGHT = 8.0
MAX_OFFSET = 2.0
DOMAIN = Domain(low=-12, high=12, frac_bits=TERM_BITS, checked=False)
"""Of the exponentials in fine steps: exponents up to 8.3, which `limit` is well below."""


@dataclass(frozen=True)
class LogLink(Family):
    """A family with variance mu^power and the logarithm as its link.

    power: 1 to 2.  weighted, exposed: whether there are case weights, and offsets.  scale: labels are counted in units of
    2^scale; `agreed` finds it.  wide: whether for scores up to 6 instead of 4, offset included.

    Fisher weights are 1 on average; curvature and fisher_limit leave room for where they are larger.
    """

    name: ClassVar[str] = "log"
    power: float = 1.0
    weighted: bool = False
    exposed: bool = False
    scale: int = 0
    wide: bool = False
    curvature: float = 4.0
    fisher_limit: float = 8.0

    def __post_init__(self) -> None:
        if not 1 <= self.power <= 2:
            raise LocalProtocolError("the power of the mean in the variance is 1 to 2")

    @property
    def dispersion_bits(self) -> int:  # type: ignore[override]
        """Poisson's dispersion is the power of two 2^-scale; another's, in units of the mean, is below 2^11."""
        return min(20, 24 + self.scale) if self.power == 1 else 14

    @property
    def limit(self) -> float:
        return EXP_WIDE.hi if self.wide and not self.exposed else EXP.hi

    @property
    def largest_fisher(self) -> float:
        """Rows with the largest expected values may be all that a column says, and weigh the most."""
        largest = math.exp((2 - self.power) * self._fit.hi) * (MAX_WEIGHT if self.weighted else 1.0)
        return max(self.fisher_limit, largest / self.curvature)

    @property
    def too_wide(self) -> str:
        return (
            f"scores leave the range that family '{self.name}' can compute: expected values must lie between e^-{self.limit:g} "
            f"and e^{self.limit:g} times a unit near their mean; limit the inputs with a smaller encoding.winsorise_sd, "
            "leave out the rows or columns that stand out, or raise train.ridge"
        )

    @property
    def ridge_factor(self) -> float:
        return float(2.0 ** (-self.scale * (2 - self.power)))

    @property
    def intercept_shift(self) -> float:
        return self.scale * math.log(2)

    def described(self) -> list[Any]:
        return [self.name, repr(self.power), self.weighted, self.exposed, self.scale, self.wide]

    def check(self, rows: Rows) -> None:
        y = rows.y
        if not np.isfinite(y).all() or (y < 0).any() or (self.power == 2 and (y == 0).any()) or not y.any():
            above = "above 0" if self.power == 2 else "0 or more"
            raise LocalProtocolError(f"the labels of family '{self.name}' are finite numbers, {above}")
        if (rows.weights is not None) != self.weighted or (rows.offset is not None) != self.exposed:
            raise LocalProtocolError("the family was made for rows with or without weights and offsets, unlike these")
        if rows.weights is not None and not (np.isfinite(rows.weights) & (rows.weights >= 0)).all():
            raise LocalProtocolError("case weights are finite and not negative")
        if rows.weights is not None and (rows.weights.max() > MAX_WEIGHT or not rows.weights.any()):
            raise LocalProtocolError(f"case weights are at most {MAX_WEIGHT:g}, and one of them is not 0")
        check_mean(rows.weights)
        if rows.offset is not None and not (np.abs(rows.offset) <= MAX_OFFSET).all():
            raise LocalProtocolError(f"offsets are at most {MAX_OFFSET:g} in size: measure the exposure in other units")
        low, high = self._scales
        if not low <= _scale_of(rows) <= high:
            raise LocalProtocolError(f"the mean of the label is not between 2^{low} and 2^{high}: use other units")
        if y.max() > MAX_LABEL * 2.0 ** _scale_of(rows):
            raise LocalProtocolError(f"a label is more than {MAX_LABEL} times as large as the mean")

    def agreed(self, session: Session, rows: Rows | None) -> Self:
        """The family with the scale that the owner of the label states; every owner calls this at once.

        Reveals: to every owner, the power of two nearest to the mean of the label, by exposure and weight if there are any.
        Cost: 1 round; less than 100 bytes to every other party.
        Security: semi-honest owners.
        Source: none; nothing is computed.
        Raises: RemoteProtocolError if not exactly one owner states a possible scale; as `check`, at the active owner.
        """
        if rows is not None:
            self.check(rows)
        scale = agreed_scale(session, None if rows is None else _scale_of(rows), self._scales)
        return replace(self, scale=scale, wide=self.wide or self.exposed)

    def start(self, rows: Rows) -> Floats:
        return np.array([math.log(_rate(rows)) - self.intercept_shift])

    def information(self, rows: Rows) -> float:
        return float((_rate(rows) / 2.0**self.scale) ** (2 - self.power) / self.curvature)

    def wider(self) -> Self | None:
        return None if self.wide else replace(self, wide=True)

    def plan_residual(self, n: int, owners: int, *, fine: bool) -> list[Correlation]:
        return _plan_terms(n, self._score_terms(None), self._fit, fine=fine)

    def residual(
        self, session: Session, tickets: Sequence[Ticket], eta: Words, rows: Rows | None, *, fine: bool
    ) -> Words:
        means, labels = self._evaluated(session, tickets, eta, rows, self._score_terms(rows), fine=fine)
        return means - labels

    def plan_fisher(self, n: int, owners: int) -> list[Correlation]:
        return _plan_terms(n, self._score_terms(None)[:1], self._fit, fine=False)

    def fisher(self, session: Session, tickets: Sequence[Ticket], eta: Words, rows: Rows | None) -> Words:
        return self._evaluated(session, tickets, eta, rows, self._score_terms(rows)[:1], fine=False)[0]

    def plan_dispersion(self, n: int, owners: int) -> list[Correlation]:
        """What `dispersion` asks of the dealer: nothing for a Poisson family, whose dispersion is public."""
        if self.power == 1:
            return []
        return [
            *_plan_terms(n, self._pearson_terms(None), self._fit, fine=True),
            plan_truncation(n, TERM_BITS - PEARSON_BITS),
            *([plan_multiply((n,)), plan_truncation(n, FACTOR_BITS)] if self.weighted else []),
            plan_multiply((n,)),
            plan_truncation(1, n.bit_length()),
            plan_truncation(1, 2 * PEARSON_BITS + 16 - self.dispersion_bits),
        ]

    def dispersion(
        self, session: Session, tickets: Sequence[Ticket], eta: Words, rows: Rows | None, inputs: int
    ) -> Words:
        """Shares of the dispersion in units of 2^scale: Pearson's, the sum of w (y - mu)^2 / mu^p over n - inputs.

        For Poisson it is 1, and in these units 2^-scale.
        """
        if self.power == 1:
            known = round(2.0 ** (self.dispersion_bits - self.scale))
            return np.array([known if session.me == 0 else 0], dtype=np.uint64)
        n = len(eta)
        used = len(_plan_terms(n, self._pearson_terms(None), self._fit, fine=True))
        labels, means = self._evaluated(session, tickets[:used], eta, rows, self._pearson_terms(rows), fine=True)
        r = truncate(session, np.asarray(labels - means), tickets[used])
        weighted = r
        if self.weighted:
            shared = _known(None if rows is None else rows.weights, n, FACTOR_BITS)
            weighted = truncate(session, multiply(session, tickets[-5], r, shared), tickets[-4])
        total = multiply(session, tickets[-3], weighted, r).sum(keepdims=True, dtype=np.uint64)
        # over 2^bit_length(n) the sum is less than the dispersion; the factor, 2^16 to 2^18, makes it the dispersion
        mean = truncate(session, total, tickets[-2])
        factor = round(2.0 ** (16 + n.bit_length()) / (n - inputs))
        return truncate(session, mean * np.uint64(factor), tickets[-1])

    def deviance(self, y: Floats, eta: Floats) -> float:
        mu, p = np.exp(eta), self.power
        if p == 1:
            return float(2 * (np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / mu), 0) - (y - mu)).sum())
        if p == 2:
            return float(2 * (np.log(mu / y) + y / mu - 1).sum())
        terms = y ** (2 - p) / ((1 - p) * (2 - p)) - y * mu ** (1 - p) / (1 - p) + mu ** (2 - p) / (2 - p)
        return float(2 * terms.sum())

    def _score_terms(self, rows: Rows | None) -> list[_Term]:
        """w e^((2-p) eta) and w y e^((1-p) eta)."""
        weights = labels = None
        if rows is not None:
            weights = np.ones(len(rows.y)) if rows.weights is None else rows.weights
            labels = weights * rows.y / 2.0**self.scale
        return [_Term(2 - self.power, self.weighted, weights), _Term(1 - self.power, True, labels)]

    def _pearson_terms(self, rows: Rows | None) -> list[_Term]:
        """y e^(-p eta / 2) and e^((1 - p/2) eta), whose difference is a Pearson residual."""
        labels = None if rows is None else rows.y / 2.0**self.scale
        ones = None if rows is None else np.ones(len(rows.y))
        return [_Term(-self.power / 2, True, labels), _Term(1 - self.power / 2, False, ones)]

    @property
    def _scales(self) -> tuple[int, int]:
        return COUNTS if self.power == 1 else AMOUNTS

    @property
    def _fit(self) -> Fit:
        return EXP_WIDE if self.wide else EXP

    def _evaluated(
        self,
        session: Session,
        tickets: Sequence[Ticket],
        eta: Words,
        rows: Rows | None,
        terms: Sequence[_Term],
        *,
        fine: bool,
    ) -> list[Words]:
        """Shares of the terms, TERM_BITS: all exponentials, then all products in one round."""
        if rows is not None and rows.offset is not None:
            eta = eta + encode(rows.offset, ETA_BITS)
        n, rest = len(eta), list(tickets)
        out: dict[int, Words] = {}
        for i, term in enumerate(terms):
            if term.exponent:
                used = len(_plan_power(n, self._fit, fine=fine, exponent=term.exponent))
                out[i] = _power(session, rest[:used], eta, self._fit, term.exponent, fine=fine)
                rest = rest[used:]
            else:
                out[i] = _known(term.factor, n, TERM_BITS)
        multiplied = [i for i, term in enumerate(terms) if term.exponent and term.multiplied]
        count = len(multiplied)
        factors = [_known(terms[i].factor, n, FACTOR_BITS) for i in multiplied]
        pairs = [(t, out[i], f) for t, i, f in zip(rest[:count], multiplied, factors, strict=True)]
        for i, product in zip(
            multiplied, truncate_many(session, rest[count:], multiply_many(session, pairs)), strict=True
        ):
            out[i] = product
        return [out[i] for i in range(len(terms))]


@dataclass(frozen=True)
class _Term:
    """factor e^(exponent eta) of every row.

    multiplied: whether the factor is other than 1, so that shares must be multiplied unless the exponent is 0.  factor: at
    the owner of the label.
    """

    exponent: float
    multiplied: bool
    factor: Floats | None


def _plan_terms(n: int, terms: Sequence[_Term], fit: Fit, *, fine: bool) -> list[Correlation]:
    powers = [request for t in terms if t.exponent for request in _plan_power(n, fit, fine=fine, exponent=t.exponent)]
    times = sum(t.multiplied for t in terms if t.exponent)
    return [*powers, *[plan_multiply((n,))] * times, *[plan_truncation(n, FACTOR_BITS)] * times]


def _plan_power(n: int, fit: Fit, *, fine: bool, exponent: float) -> list[Correlation]:
    if fine:
        return [plan_truncation(n, ETA_BITS + EXPONENT_BITS - TERM_BITS), *plan_exp(n, DOMAIN)]
    return [plan_series(n, _scaled(fit, exponent)), plan_truncation(n, fit.bits - TERM_BITS)]


def _power(session: Session, tickets: Sequence[Ticket], eta: Words, fit: Fit, c: float, *, fine: bool) -> Words:
    """Shares of e^(c eta), TERM_BITS."""
    if not fine:
        return truncate(session, series(session, tickets[0], eta, ETA_BITS, _scaled(fit, c)), tickets[1])
    factor = np.uint64(round(c * 2**EXPONENT_BITS) % (1 << 64))
    return exp(session, tickets[1:], truncate(session, eta * factor, tickets[0]), DOMAIN)


def _scaled(fit: Fit, c: float) -> Fit:
    """The series of e^(c x) from that of e^x: another period, and for a negative c the sines turned round."""
    ends = sorted((fit.lo / c, fit.hi / c))
    sines = fit.sines if c > 0 else tuple(-b for b in fit.sines)
    return replace(fit, lo=ends[0], hi=ends[1], period=fit.period / abs(c), sines=sines)


def _known(values: Floats | None, n: int, frac_bits: int) -> Words:
    """Our share of numbers that the owner of the label knows."""
    return np.zeros(n, dtype=np.uint64) if values is None else encode(values, frac_bits)


def _rate(rows: Rows) -> float:
    """Mean label for each unit of exposure and weight."""
    weights = np.ones(len(rows.y)) if rows.weights is None else rows.weights
    exposure = weights if rows.offset is None else weights * np.exp(rows.offset)
    return float((weights * rows.y).sum() / exposure.sum())


def _scale_of(rows: Rows) -> int:
    """Exponent of the power of two nearest to the mean label."""
    return round(math.log2(_rate(rows)))


@dataclass(frozen=True)
class Poisson(LogLink):
    """Counts: variance equal to the mean."""

    name: ClassVar[str] = "poisson"


@dataclass(frozen=True)
class Gamma(LogLink):
    """Positive amounts: variance proportional to the square of the mean.  Fisher weights are the case weights."""

    name: ClassVar[str] = "gamma"
    power: float = 2.0


@dataclass(frozen=True)
class Tweedie(LogLink):
    """Amounts that are often exactly 0: variance proportional to mean^power, 1 < power < 2."""

    name: ClassVar[str] = "tweedie"
    power: float = 1.5
