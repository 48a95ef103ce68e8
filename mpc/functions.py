"""Division, roots, logarithm, exponential and smooth functions of shared fixed-point values, never silently out of range.

For a function with a wide domain, x is compared with powers of 4, all in one call.  The power of 4 that brings x into
[1, 4) is a public linear combination of the resulting bits, so one product normalises x; the function on [1, 4) is one
short Fourier series; another linear combination of the same bits scales the result back.  Functions that are smooth on
the whole of their domain are one series.

Every function checks its domain unless told not to: the bounds ride in the same comparison, and one opened word says
whether any value is outside.  Then every party raises OutOfRange and nobody gets a result.

Vectors longer than CHUNK are worked on in pieces, one after the other; the dealer prepares the next piece meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc import _fitted
from mpc._domains import Domain, Plan, Range, in_chunks, planned
from mpc._fits import Fit, fit_function
from mpc.compare import (
    any_negative,
    less_than,
    less_than_within,
    plan_any_negative,
    plan_less_than,
    plan_less_than_within,
)
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError, OutOfRange
from mpc.fourier import plan_series, series
from mpc.products import multiply, multiply_many, plan_multiply
from mpc.ring import times
from mpc.session import Session
from mpc.smooth import (
    SIGMOIDS,
    erf,
    gelu,
    guard,
    period_for,
    plan_erf,
    plan_gelu,
    plan_guard,
    plan_period_for,
    plan_sigmoid,
    plan_tanh,
    plan_univariate,
    sigmoid,
    tanh,
    univariate,
)
from mpc.truncation import plan_truncation, truncate

__all__ = [
    "DOMAIN",
    "EXP_DOMAIN",
    "SIGMOIDS",
    "Domain",
    "Fit",
    "Range",
    "divide",
    "erf",
    "exp",
    "fit_function",
    "gelu",
    "guard",
    "inverse_sqrt",
    "log",
    "period_for",
    "plan_divide",
    "plan_erf",
    "plan_exp",
    "plan_gelu",
    "plan_guard",
    "plan_inverse_sqrt",
    "plan_log",
    "plan_period_for",
    "plan_reciprocal",
    "plan_sigmoid",
    "plan_sqrt",
    "plan_tanh",
    "plan_univariate",
    "reciprocal",
    "sigmoid",
    "sqrt",
    "tanh",
    "univariate",
]

Words = npt.NDArray[Any]
QUOTIENT_BITS = 18
"""Fractional bits of 1 / x on [1, 4) when it meets the dividend; more would leave the quotient less room."""
CHECK = 4
"""Correlations of `any_negative`."""
DOMAIN = Domain()
"""The default: 2^-8 to 2^8."""
EXP_DOMAIN = Domain(low=-12, high=12)
"""Where e^x has 24 octaves: |x| < 8.3."""


def _plan_pieces(n: int, domain: Domain) -> tuple[Correlation, ...]:
    k = domain.pieces - 1
    return plan_less_than_within(n, k) if domain.checked else plan_less_than(n, k)


def _pieces(
    session: Session, tickets: Sequence[Ticket], x: Words, domain: Domain, edges: Sequence[int]
) -> tuple[Words, Words | None, Sequence[Ticket]]:
    """The bits [x < edge] for the inner edges, the word of the check if there is one, and the tickets that are left."""
    used = 5 if domain.checked else 4
    if domain.checked:
        bits, word = less_than_within(session, tickets[:used], x, edges[1:-1], [(edges[0], edges[-1])])
        return bits, word, tickets[used:]
    return less_than(session, tickets[:used], x, edges[1:-1]), None, tickets[used:]


def _chosen(session: Session, bits: Words, values: Sequence[int]) -> Words:
    """Shares of values[i] where x is in piece i: linear in the bits, without a message."""
    steps = np.array([(a - b) % (1 << 64) for a, b in pairwise(values)], dtype=np.uint64)
    out = times(bits.T, steps)
    if session.me == 0:
        out += np.uint64(values[-1] % (1 << 64))
    return out


def _powers(pieces: int, base: int, *, falling: bool) -> list[int]:
    powers = [base**j for j in range(pieces)]
    return powers[::-1] if falling else powers


def plan_reciprocal(n: int, domain: Domain = DOMAIN) -> Plan:
    """What `reciprocal` of n words asks of the dealer."""
    return _plan_scaled(
        n, domain, _fitted.RECIPROCAL, _fitted.RECIPROCAL.bits + domain.unit_bits - 2 * domain.frac_bits
    )


def plan_sqrt(n: int, domain: Domain = DOMAIN) -> Plan:
    """What `sqrt` of n words asks of the dealer."""
    return _plan_scaled(n, domain, _fitted.SQRT, _fitted.SQRT.bits - domain.low // 2 - domain.frac_bits)


def plan_inverse_sqrt(n: int, domain: Domain = DOMAIN) -> Plan:
    """What `inverse_sqrt` of n words asks of the dealer."""
    shift = _fitted.INVERSE_SQRT.bits + domain.pieces - 1 + domain.low // 2 - domain.frac_bits
    return _plan_scaled(n, domain, _fitted.INVERSE_SQRT, shift)


def _plan_scaled(n: int, domain: Domain, fit: Fit, shift: int) -> Plan:
    def chunk(size: int) -> Plan:
        product = plan_multiply((size,))
        return [*_plan_pieces(size, domain), product, plan_series(size, fit), product, plan_truncation(size, shift)]

    return planned(n, chunk)


def reciprocal(session: Session, tickets: Sequence[Ticket], x: Words, domain: Domain = DOMAIN) -> Words:
    """Shares of 1 / x, to a relative error of 2^-13 and an absolute one of 2^-frac_bits.

    tickets: for `plan_reciprocal(n, domain)`.  x: n words in any shape, in the domain, with its frac_bits; so the result.

    Reveals: nothing; if checked, to every party whether any value is outside the domain.
    Cost: 8 rounds for each chunk, and 1 for the check; to every other party, with k = pieces - 1, m = ceil(n / 64):
    52 n + 280 k m bytes, and 560 m + 8 for the check; the dealer sends (8 k + 112) n + (1864 + 824 k) m in all, and
    1648 m + 8 for each chunk's check.
    Security: semi-honest parties; the dealer does not collude.
    Source: thresholds and Fourier series as `mpc.compare` and `mpc.fourier`; normalising first is Goldschmidt's, IBM 1964.
    Raises: OutOfRange if checked and a value is outside; LocalProtocolError if the tickets are not for this.
    """
    falling = _powers(domain.pieces, 4, falling=True)
    return _scaled(session, tickets, x, domain, _Scaled(plan_reciprocal, _fitted.RECIPROCAL, falling, "a reciprocal"))


def sqrt(session: Session, tickets: Sequence[Ticket], x: Words, domain: Domain = DOMAIN) -> Words:
    """Shares of the square root of x, to a relative error of 2^-14 and an absolute one of 2^-frac_bits.

    tickets: for `plan_sqrt(n, domain)`.  Cost: as `reciprocal` with 32 bytes of the dealer per word less.  Everything else
    as `reciprocal`.
    """
    rising = _powers(domain.pieces, 2, falling=False)
    return _scaled(session, tickets, x, domain, _Scaled(plan_sqrt, _fitted.SQRT, rising, "a square root"))


def inverse_sqrt(session: Session, tickets: Sequence[Ticket], x: Words, domain: Domain = DOMAIN) -> Words:
    """Shares of 1 / sqrt(x), to a relative error of 2^-14 and an absolute one of 2^-frac_bits.

    tickets: for `plan_inverse_sqrt(n, domain)`.  Cost: as `reciprocal` with 16 bytes of the dealer per word less.
    Everything else as `reciprocal`.
    """
    falling = _powers(domain.pieces, 2, falling=True)
    function = _Scaled(plan_inverse_sqrt, _fitted.INVERSE_SQRT, falling, "an inverse square root")
    return _scaled(session, tickets, x, domain, function)


@dataclass(frozen=True)
class _Scaled:
    """A function of x in [1, 4), and what its value is multiplied by for x in each piece."""

    plan: Callable[[int, Domain], Plan]
    fit: Fit
    values: list[int]
    operation: str


def _scaled(session: Session, tickets: Sequence[Ticket], x: Words, domain: Domain, function: _Scaled) -> Words:
    flat = x.reshape(-1)

    def chunk(tickets: Sequence[Ticket], part: slice) -> tuple[Words, Words | None]:
        bits, word, (to_unit, waves, back, drop) = _pieces(session, tickets, flat[part], domain, domain.edges)
        scale = _chosen(session, bits, _powers(domain.pieces, 4, falling=True))
        unit = multiply(session, to_unit, flat[part], scale)
        value = series(session, waves, unit, domain.unit_bits, function.fit)
        scaled = multiply(session, back, value, _chosen(session, bits, function.values))
        return truncate(session, scaled, drop), word

    error = OutOfRange(domain.what, function.operation, domain.allowed)
    return in_chunks(session, tickets, function.plan(x.size, domain), x, chunk, error, domain.tag)


def plan_divide(n: int, domain: Domain = DOMAIN) -> Plan:
    """What dividing n words asks of the dealer."""
    fit = _fitted.RECIPROCAL

    def chunk(size: int) -> Plan:
        product = plan_multiply((size,))
        bound = plan_any_negative(2 * size) if domain.checked else ()
        first = [*bound, *_plan_pieces(size, domain), product, product, plan_series(size, fit)]
        shift = QUOTIENT_BITS + domain.unit_bits - domain.frac_bits
        return [*first, plan_truncation(size, fit.bits - QUOTIENT_BITS), product, plan_truncation(size, shift)]

    return planned(n, chunk)


def divide(session: Session, tickets: Sequence[Ticket], y: Words, x: Words, domain: Domain = DOMAIN) -> Words:
    """Shares of y / x, to a relative error of 2^-12 and an absolute one of 2^-frac_bits.

    tickets: for `plan_divide(n, domain)`.  x, y: n words each of one shape, with the domain's frac_bits; so the result.  x
    is in the domain, and |y / x| <= 2^(46 - high - frac_bits), 2^18 by default; both are checked, or neither.

    Reveals: nothing; if checked, to every party whether any x or any quotient is out of range.
    Cost: 9 rounds for each chunk; to every other party, with k = pieces - 1, m = ceil(n / 64): 76 n + 280 k m bytes; the
    dealer sends (8 k + 136) n + (1864 + 824 k) m in all.  For the check, 4 rounds for each chunk and 1 at the end; with
    m' = ceil(2 n / 64), 16 n + 560 m + 280 m' + 8 bytes, and from the dealer 1648 m + 2688 m' + 16 for each chunk.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `reciprocal`.
    Raises: as `reciprocal`.
    """
    if y.shape != x.shape or y.dtype != np.uint64:
        raise LocalProtocolError(f"dividend and divisor have shapes {y.shape} and {x.shape}")
    above, below = y.reshape(-1), x.reshape(-1)
    quotient = 46 - domain.high - domain.frac_bits

    def chunk(tickets: Sequence[Ticket], part: slice) -> tuple[Words, Words | None]:
        large = None
        if domain.checked:  # |y| <= 2^quotient x, as two differences that are not negative
            limit = below[part] << np.uint64(quotient)
            room = np.concatenate([limit - above[part], limit + above[part]])
            large = any_negative(session, tickets[:CHECK], room)
            tickets = tickets[CHECK:]
        bits, word, (a, b, waves, drop, product, last) = _pieces(session, tickets, below[part], domain, domain.edges)
        scale = _chosen(session, bits, _powers(domain.pieces, 4, falling=True))
        unit, dividend = multiply_many(session, [(a, below[part], scale), (b, above[part], scale)])
        inverse = truncate(session, series(session, waves, unit, domain.unit_bits, _fitted.RECIPROCAL), drop)
        result = truncate(session, multiply(session, product, dividend, inverse), last)
        return result, word if word is None or large is None else word ^ large

    allowed = f"{domain.allowed}, and the quotient at most 2^{quotient}"
    error = OutOfRange(domain.what, "a division", allowed)
    return in_chunks(session, tickets, plan_divide(x.size, domain), x, chunk, error, domain.tag)


def plan_log(n: int, domain: Domain = DOMAIN) -> Plan:
    """What `log` of n words asks of the dealer."""
    fit = _fitted.LOG

    def chunk(size: int) -> Plan:
        drop = plan_truncation(size, fit.bits - domain.frac_bits)
        return [*_plan_pieces(size, domain), plan_multiply((size,)), plan_series(size, fit), drop]

    return planned(n, chunk)


def log(session: Session, tickets: Sequence[Ticket], x: Words, domain: Domain = DOMAIN) -> Words:
    """Shares of the natural logarithm of x, to an absolute error of 2^-14 + 2^-frac_bits.

    tickets: for `plan_log(n, domain)`.  x: n words in any shape, in the domain, with its frac_bits; so the result.

    Cost: 7 rounds for each chunk, and 1 for the check; to every other party, with k = pieces - 1, m = ceil(n / 64):
    36 n + 280 k m bytes, and 560 m + 8 for the check; the dealer sends (8 k + 88) n + (1864 + 824 k) m in all, and
    1648 m + 8 for each chunk's check.
    Everything else as `reciprocal`.
    """
    flat, fit = x.reshape(-1), _fitted.LOG
    logs = [round(e * math.log(2) * 2.0**fit.bits) for e in range(domain.low, domain.high, 2)]

    def chunk(tickets: Sequence[Ticket], part: slice) -> tuple[Words, Words | None]:
        bits, word, (to_unit, waves, drop) = _pieces(session, tickets, flat[part], domain, domain.edges)
        scale = _chosen(session, bits, _powers(domain.pieces, 4, falling=True))
        unit = multiply(session, to_unit, flat[part], scale)
        value = series(session, waves, unit, domain.unit_bits, fit) + _chosen(session, bits, logs)
        return truncate(session, value, drop), word

    error = OutOfRange(domain.what, "a logarithm", domain.allowed)
    return in_chunks(session, tickets, plan_log(x.size, domain), x, chunk, error, domain.tag)


def plan_exp(n: int, domain: Domain = EXP_DOMAIN) -> Plan:
    """What `exp` of n words asks of the dealer."""
    fit = _fitted.EXP

    def chunk(size: int) -> Plan:
        drop = plan_truncation(size, fit.bits - domain.low - domain.frac_bits)
        return [*_plan_pieces(size, domain), plan_series(size, fit), plan_multiply((size,)), drop]

    return planned(n, chunk)


def exp(session: Session, tickets: Sequence[Ticket], x: Words, domain: Domain = EXP_DOMAIN) -> Words:
    """Shares of e^x, to a relative error of 2^-14 + 2^-(frac_bits + 1) and an absolute one of 2^-frac_bits.

    tickets: for `plan_exp(n, domain)`.  x: n words in any shape with the domain's frac_bits; so the result.  The domain is
    that of e^x: low ln 2 <= x < high ln 2, rounded to x's fractional bits.

    Cost: 7 rounds for each chunk, and 1 for the check; to every other party, with k = pieces - 1, m = ceil(n / 64):
    36 n + 280 k m bytes, and 560 m + 8 for the check; the dealer sends (8 k + 72) n + (1864 + 824 k) m in all, and
    1648 m + 8 for each chunk's check.
    Everything else as `reciprocal`.
    """
    flat, fit, f = x.reshape(-1), _fitted.EXP, domain.frac_bits
    edges = [round(e * math.log(2) * 2.0**f) for e in range(domain.low, domain.high + 1, 2)]

    def chunk(tickets: Sequence[Ticket], part: slice) -> tuple[Words, Words | None]:
        bits, word, (waves, product, drop) = _pieces(session, tickets, flat[part], domain, edges)
        rest = flat[part] - _chosen(session, bits, edges[:-1])
        value = series(session, waves, rest, f, fit)
        scaled = multiply(session, product, value, _chosen(session, bits, _powers(domain.pieces, 4, falling=False)))
        return truncate(session, scaled, drop), word

    allowed = f"at least {domain.low} ln 2 and below {domain.high} ln 2"
    error = OutOfRange(domain.what, "an exponential", allowed)
    return in_chunks(session, tickets, plan_exp(x.size, domain), x, chunk, error, domain.tag)
