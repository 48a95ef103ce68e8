"""How far predictions are from what happened, as sums over rows whose scores and outcomes stay shared.

Logistic: the probability and log(1 + e^z) are one series each (`vertical.probability_fits`), for scores limited to +-16;
beyond, log(1 + e^z) is z or 0 and is added exactly.  The limited probability is 1e-7 from the true one there.

Other families: with the mean mu = e^eta (or eta), the deviance is twice the sum of

    Poisson   y log y - y  -  y eta  +  e^eta
    Gamma     -log y - 1   +  eta    +  y e^-eta
    Tweedie   y^(2-p) / ((1-p)(2-p))  -  y e^((1-p) eta) / (1-p)  +  e^((2-p) eta) / (2-p)        1 < p < 2
    linear    (y - eta)^2 / 2

of which the first term is known to the owner of the label, and enters as its share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than, less_than_zero, plan_less_than, plan_less_than_zero
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.fourier import plan_series, series_together
from mpc.functions import Domain, Range, exp, guard, plan_exp, plan_guard
from mpc.products import multiply, plan_matmul, plan_multiply
from mpc.ring import encode
from mpc.session import Session
from mpc.truncation import RANGE_BITS, plan_truncation, truncate, truncate_many
from mpc.wire import recv_json, send_json
from vertical.probability_fits import LOSS, PROBABILITY
from vertical.scores import FRAC_BITS, Scores

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
LIMIT = 16.0
"""Probabilities are those of scores limited to this."""
CALL = 1 << 17
"""Rows whose series are evaluated at a time: a tuple has 448 bytes a row."""
MEAN_BITS = 36
"""Fractional bits of a probability."""
LOSS_BITS = 30
"""Fractional bits of a logarithmic loss."""
LEAST_SPREAD = 1e-4
"""The part of the variance of outcomes that rounding may add to squared residuals."""
TERM_BITS = 16
"""Fractional bits of an outcome times a function of a score."""
SUM_BITS = 61
EDGE = 1e-3
"""Scores so near to the ends of the exponential's domain are treated as outside."""
POWERS = (1.1, 1.9)
"""The Tweedie variance powers that are offered."""
MAX_LINEAR_BITS, UNIT_BITS = 40, 10
MAX_LABEL_BITS = 20
"""Outcomes of other families are below 2^20 in size."""
FAMILIES = ("linear", "poisson", "gamma", "tweedie")


def probabilities(session: Session, scores: Scores) -> tuple[Words, Words]:
    """Shares of 1 / (1 + e^-z), z limited to +-16, MEAN_BITS fractional bits, and of log(1 + e^z), LOSS_BITS: (n,) each.

    Reveals: nothing; every opened word is uniform.
    Cost: 2 rounds for every 2^17 rows; 20 n bytes to every other party and 480 n from the dealer in all; if the bound of
        the scores is above 16, 5 rounds more, with m = ceil(n / 64) 40 n + 560 m bytes, and from the dealer 32 n + 3512 m.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.fourier.series` and `mpc.compare.less_than`.
    Raises: LocalProtocolError if the scores are not one number a row with 24 fractional bits.
    """
    if scores.words.ndim != 1 or scores.frac_bits != FRAC_BITS:
        raise LocalProtocolError(f"a probability is of one score a row with {FRAC_BITS} fractional bits")
    z, above = scores.words, np.zeros_like(scores.words)
    if scores.bound > LIMIT:
        low, above = _beyond(session, z)
        z = z - above - low
    calls = [slice(first, min(first + CALL, len(z))) for first in range(0, len(z), CALL)]
    drops = (PROBABILITY.bits - MEAN_BITS, LOSS.bits - LOSS_BITS)
    p, loss = np.empty_like(z), np.empty_like(z)
    plans = [
        [plan_series(part.stop - part.start, LOSS), *(plan_truncation(part.stop - part.start, d) for d in drops)]
        for part in calls
    ]
    tickets = session.correlations.plan([request for plan in plans for request in plan])
    for i, part in enumerate(calls):
        waves, *cut = tickets[3 * i : 3 * i + 3]
        both = series_together(session, waves, z[part], FRAC_BITS, [PROBABILITY, LOSS])
        both[1] += z[part] << np.uint64(LOSS.bits - FRAC_BITS - 1)
        p[part], loss[part] = truncate_many(session, cut, both)
    return p, loss + (above << np.uint64(LOSS_BITS - FRAC_BITS))


def _beyond(session: Session, z: Words) -> tuple[Words, Words]:
    """Shares of by how much a score is below -16 (as a negative number) and above 16, otherwise 0."""
    edge = round(LIMIT * 2.0**FRAC_BITS)
    tickets = session.correlations.plan([*plan_less_than(len(z), 2), plan_multiply((2, len(z)))])
    bits = less_than(session, tickets[:-1], z, (-edge, edge))
    bits[1] = np.negative(bits[1])
    excess = np.stack([z, z])
    if session.me == 0:
        bits[1] += np.uint64(1)
        excess += np.array([[edge], [-edge]], dtype=np.int64).view(np.uint64)
    low, high = multiply(session, tickets[-1], bits, excess)
    return low, high


def square_bits(n: int, whole_bits: int) -> int:
    """The fractional bits that n values below 2^whole_bits may have for the sum of their squares to stay in range."""
    return min(FRAC_BITS, (SUM_BITS - n.bit_length()) // 2 - whole_bits)


def sum_of_squares(session: Session, x: Words, frac_bits: int, whole_bits: int) -> tuple[Words, int]:
    """A share of the sum of squares of n values below 2^whole_bits in size, (1,), and its fractional bits.

    Reveals: nothing; every opened word is uniform.
    Cost: 2 rounds; 24 n bytes to every other party; the dealer sends 16 n + 8 in all.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.products.multiply_many` and `mpc.truncation.truncate_many`.
    Raises: LocalProtocolError if the values are too large.
    """
    n = len(x)
    bits = square_bits(n, whole_bits)
    if bits < 1:
        raise LocalProtocolError(f"{n} values of up to 2^{whole_bits} are too large for a sum of squares")
    drop = frac_bits - bits
    plan = [plan_truncation(n, drop)] if drop > 0 else []
    tickets = session.correlations.plan([*plan, plan_matmul((1, n), (n, 1))])
    short = truncate(session, x, tickets[0]) if drop > 0 else x << np.uint64(-drop)
    return multiply(session, tickets[-1], short[None, :], short[:, None]).reshape(1), 2 * bits


@dataclass(frozen=True)
class Label:
    """Our share of the outcomes: (n,) words with FRAC_BITS fractional bits, of numbers below 2^whole_bits in size.

    values: the outcomes themselves, at their owner.  exponent: all of this is in units of 2^exponent.
    """

    words: Words = field(repr=False)
    whole_bits: int
    values: Floats | None = field(repr=False)
    exponent: int = 0

    def known(self, total: Callable[[Floats], float], bits: int) -> Words:
        """Our share, (1,), of a number that the owner of the label computes from the outcomes."""
        if self.values is None:
            return np.zeros(1, dtype=np.uint64)
        return encode(np.array([total(self.values)]), bits)


def share_label(session: Session, y: Floats | None, active: int, n: int, family: str) -> Label:
    """Our share of outcomes that one owner has.  Those of a linear model that are large are measured in larger units.

    Reveals: to every owner, the power of two that all outcomes are below in size.
    Cost: 1 round of a few bytes.
    Security: semi-honest owners.
    Source: additive secret sharing.
    Raises: LocalProtocolError at the owner of the label if outcomes are not numbers or too large: 2^20 at most, or 2^40 for a
        linear model; RemoteProtocolError at the others if it states a larger range.
    """
    most = MAX_LINEAR_BITS if family == "linear" else min(MAX_LABEL_BITS, SUM_BITS - FRAC_BITS - 3 - n.bit_length())
    if y is None:
        name = session.parties[active]
        whole = recv_json(session.channel, name, "losses/label")
        if type(whole) is not int or not 0 <= whole <= most:
            raise RemoteProtocolError(name, "losses/label", f"states outcomes of {whole!r} bits")
    else:
        if y.shape != (n,) or not np.isfinite(y).all() or np.abs(y).max(initial=0) >= 2.0**most:
            raise LocalProtocolError(f"outcomes of {n} rows must be numbers below 2^{most} in size")
        whole = math.ceil(float(np.abs(y).max(initial=0))).bit_length()
        for peer in session.peers:
            send_json(session.channel, peer, "losses/label", whole)
    exponent = max(0, whole - UNIT_BITS) if family == "linear" else 0
    if y is None:
        return Label(np.zeros(n, dtype=np.uint64), whole - exponent, None, exponent)
    values = np.ldexp(y, -exponent)
    return Label(encode(values, FRAC_BITS), whole - exponent, values, exponent)


def in_units(session: Session, scores: Scores, exponent: int) -> Scores:
    """Scores in units of 2^exponent, with FRAC_BITS fractional bits.

    Reveals: nothing; every opened word is uniform.
    Cost: nothing if bits are only added; otherwise as `mpc.truncation.truncate_many` of n words.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.truncation.truncate_many`.
    Raises: LocalProtocolError if the scores are not one number a row or their bound is too large.
    """
    bound, drop = math.ldexp(scores.bound, -exponent), scores.frac_bits + exponent - FRAC_BITS
    if scores.words.ndim != 1 or not 0 < bound < 2.0 ** (RANGE_BITS - 2 - FRAC_BITS):
        raise LocalProtocolError(f"scores of up to {scores.bound:g} are too large, or not one a row")
    if drop <= 0:
        return Scores(scores.words << np.uint64(-drop), FRAC_BITS, bound)
    (ticket,) = session.correlations.plan([plan_truncation(len(scores), drop)])
    return Scores(truncate(session, scores.words, ticket), FRAC_BITS, bound + 2.0**-FRAC_BITS)


def means(session: Session, scores: Scores, label: Label, family: str) -> Words:
    """Shares of the predicted means, (n,) with FRAC_BITS fractional bits.

    With outcomes below 2^w a mean must be below 2^(w + 2); if it is exponential, one below 2^(w - 21) may count as that.

    Reveals: nothing; if the bound of the scores allows larger means, to every owner whether there are any.
    Cost: for "linear" nothing, or as `mpc.functions.guard` if the bound allows larger means; otherwise as
        `mpc.functions.exp`, and if the bound allows too small means, as `mpc.compare.less_than_zero` and a product.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.functions.exp` and `mpc.functions.guard`.
    Raises: OutOfRange if a mean is too large.
    """
    if family != "linear":
        return _exp(session, scores, label, 1.0)
    most = 2.0 ** largest_mean(label)
    if scores.bound > most:
        use = Range(frac_bits=FRAC_BITS, what="a predicted mean", operation="a sum of residuals", tag="metrics/range")
        guard(session, session.correlations.plan(plan_guard(len(scores))), scores.words, (-most, most), use)
    return scores.words


def largest_mean(label: Label) -> int:
    """An even number; predicted means must be below two to its power."""
    return label.whole_bits + 2 + label.whole_bits % 2


def _octaves(label: Label, factor: float) -> tuple[int, int]:
    """Where e^(factor eta) lies, as even powers of two, for means in the 24 octaves below the largest."""
    end = largest_mean(label)
    small, large = (2 * math.ceil(abs(factor) * octaves / 2) for octaves in (24 - end, end))
    return (-small, large) if factor > 0 else (-large, small)


def _exp(session: Session, scores: Scores, label: Label, factor: float) -> Words:
    """Shares of e^(factor eta), FRAC_BITS fractional bits."""
    z, n, (low, high) = scores.words, len(scores), _octaves(label, factor)
    bits, reach = min(FRAC_BITS, 40 - high), scores.bound * abs(factor)
    multiple, drop = round(factor * 2**20), 20 + FRAC_BITS - bits
    if multiple != 1 << drop:
        (ticket,) = session.correlations.plan([plan_truncation(n, drop)])
        z = truncate(session, z * np.uint64(multiple % (1 << 64)), ticket)
    if reach > -low * math.log(2) - EDGE:
        z = at_least(session, z, math.ceil((low * math.log(2) + EDGE) * 2**bits))
    checked = reach > high * math.log(2) - EDGE
    domain = Domain(low, high, bits, checked=checked, what="a predicted mean", tag="metrics/range")
    return exp(session, session.correlations.plan(plan_exp(n, domain)), z, domain) << np.uint64(FRAC_BITS - bits)


def at_least(session: Session, z: Words, low: int) -> Words:
    """Shares of the larger of z and a public word.

    Reveals: nothing; every opened word is uniform.
    Cost: 5 rounds; for n words 24 n + 280 ceil(n / 64) bytes to every other party; the dealer sends 16 n + 2688 ceil(n / 64).
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.compare.less_than_zero`.
    """
    tickets = session.correlations.plan([*plan_less_than_zero(len(z)), plan_multiply((len(z),))])
    over = z.copy()
    if session.me == 0:
        over -= np.uint64(low % (1 << 64))
    return np.asarray(z - multiply(session, tickets[-1], less_than_zero(session, tickets[:-1], over), over))


def _sum_of_products(session: Session, label: Label, values: Words, whole_bits: int, scale: float = 1.0) -> Words:
    """A share of the sum of scale y times values with FRAC_BITS fractional bits, below 2^whole_bits: (1,), TERM_BITS."""
    n, whole = len(values), label.whole_bits + math.ceil(math.log2(scale))
    bits = min(FRAC_BITS, SUM_BITS - FRAC_BITS - whole_bits - whole)
    if bits < 0 or n.bit_length() + whole_bits + whole + TERM_BITS > SUM_BITS:
        raise LocalProtocolError("the outcomes are too large for a deviance of these scores")
    y = label.words if label.values is None else encode(scale * label.values, bits)
    drop = bits + FRAC_BITS - TERM_BITS
    tickets = session.correlations.plan([plan_multiply((n,)), plan_truncation(n, drop)])
    product = multiply(session, tickets[0], y, values)
    return np.asarray(truncate_many(session, tickets[1:], [product])[0].sum(keepdims=True, dtype=np.uint64))


def deviance(session: Session, scores: Scores, label: Label, family: str, power: float) -> Words:
    """A share of half the deviance over all rows, (1,) with TERM_BITS fractional bits.

    family: poisson, gamma or tweedie, with a logarithmic link.  power: of the variance, for tweedie, between 1 and 2.

    Reveals: as `means`.
    Cost: one `mpc.functions.exp` of n words, two for tweedie; a product and a truncation of n words.
    Security: semi-honest owners; the dealer does not collude.
    Source: McCullagh and Nelder 1989 (unit deviances); Jorgensen, J. R. Stat. Soc. B 1987 (Tweedie).
    Raises: LocalProtocolError if the outcomes are too large for such scores; OutOfRange as `means`.
    """
    if family == "tweedie" and not POWERS[0] <= power <= POWERS[1]:
        raise LocalProtocolError(f"a Tweedie variance power is from {POWERS[0]} to {POWERS[1]}")
    room = math.ceil(scores.bound).bit_length()
    known = label.known(lambda y: saturated(y, family, power), TERM_BITS)
    if family == "poisson":
        above = _lowered(session, _exp(session, scores, label, 1.0))
        return np.asarray(known + above - _sum_of_products(session, label, scores.words, room))
    if family == "gamma":
        ratio, top = _exp(session, scores, label, -1.0), _octaves(label, -1.0)[1]
        return np.asarray(known + _sum_of_products(session, label, ratio, top) + _lowered(session, scores.words))
    top = _octaves(label, 1 - power)[1]
    first = _sum_of_products(session, label, _exp(session, scores, label, 1 - power), top, 1 / (power - 1))
    grown = _exp(session, scores, label, 2 - power)
    multiple = round(2**12 / (2 - power))  # at most 2^16, and the power of a mean is below 2^46: in range
    (ticket,) = session.correlations.plan([plan_truncation(len(scores), 12 + FRAC_BITS - TERM_BITS)])
    second = truncate(session, grown * np.uint64(multiple), ticket)
    return np.asarray(known + first + second.sum(keepdims=True, dtype=np.uint64))


def _lowered(session: Session, words: Words) -> Words:
    """The sum of words of FRAC_BITS fractional bits, with TERM_BITS."""
    (ticket,) = session.correlations.plan([plan_truncation(1, FRAC_BITS - TERM_BITS)])
    return truncate(session, words.sum(keepdims=True, dtype=np.uint64), ticket)


def check_outcomes(y: Floats, family: str) -> None:
    """That outcomes are of the family.  Raises: LocalProtocolError if they are not."""
    least = {"linear": -math.inf, "gamma": 1e-6}.get(family, 0.0)
    if not (np.isfinite(y).all() and (y >= least).all()):
        raise LocalProtocolError(f"an outcome is no number or outside the {family} family")


def check_spread(label: Label, whole_bits: int, owner: str) -> None:
    """That squared residuals of these outcomes are not lost in rounding, where the outcomes are known.

    whole_bits: as for `residuals`.  Raises: LocalProtocolError if they vary too little beside their size.
    """
    if label.values is None:
        return
    bits = square_bits(len(label.values), max(whole_bits, label.whole_bits) + 1)
    variance = float(label.values.var())
    if 0 < LEAST_SPREAD * variance < 4.0**-bits / 4:
        raise LocalProtocolError(
            f"the label of {owner} varies too little beside its size: take a constant off, or count it in other units"
        )


def saturated(y: Floats, family: str, power: float) -> float:
    """The part of half the deviance that depends on the outcomes alone."""
    if family == "poisson":
        return float((y * np.log(np.where(y > 0, y, 1.0)) - y).sum())
    if family == "gamma":
        return float((-np.log(y) - 1).sum())
    return float((y ** (2 - power)).sum() / ((1 - power) * (2 - power)))


def constant_deviance(y: Floats, family: str, power: float) -> float:
    """Half the deviance of the best constant, which is the mean."""
    mean, n = float(y.mean()), len(y)
    if family == "linear":
        return float(((y - mean) ** 2).sum() / 2)
    if mean <= 0:
        return 0.0
    if family == "poisson":
        return saturated(y, family, power) - float((y * math.log(mean)).sum()) + n * mean
    if family == "gamma":
        return saturated(y, family, power) + n * math.log(mean) + n
    return float(saturated(y, family, power) + n * mean ** (2 - power) * (1 / (power - 1) + 1 / (2 - power)))


def residuals(session: Session, label: Label, predicted: Words, whole_bits: int) -> tuple[Words, Words, int]:
    """Shares of the sum of |y - mu|, FRAC_BITS fractional bits, and of the sum of (y - mu)^2, and the latter's bits.

    predicted: (n,) with FRAC_BITS fractional bits, below 2^whole_bits in size.

    Reveals: nothing; every opened word is uniform.
    Cost: 7 rounds; 48 n + 280 ceil(n / 64) bytes to every other party; the dealer sends 32 n + 2688 ceil(n / 64) in all.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.compare.less_than_zero` and `mpc.products.multiply_many`.
    Raises: LocalProtocolError if outcomes or predictions are too large.
    """
    n, whole = len(predicted), max(whole_bits, label.whole_bits) + 1
    r = np.asarray(label.words - predicted)
    tickets = session.correlations.plan([*plan_less_than_zero(n), plan_multiply((n,))])
    negative = multiply(session, tickets[-1], less_than_zero(session, tickets[:-1], r), r)
    absolute = r - (negative << np.uint64(1))
    squares, bits = sum_of_squares(session, r, FRAC_BITS, whole)
    return absolute.sum(keepdims=True, dtype=np.uint64), squares, bits
