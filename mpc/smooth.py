"""Functions of a shared value that are smooth on their whole domain: one Fourier series, one round; and checks of ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc import _fitted
from mpc._domains import Plan, Range, chunks, in_chunks, planned
from mpc._fits import Fit
from mpc.compare import less_than_within, open_any, plan_less_than_within
from mpc.correlations import Ticket
from mpc.errors import LocalProtocolError, OutOfRange
from mpc.fourier import plan_series, series_many
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate

Words = npt.NDArray[Any]
RANGE = Range()
"""The default: 20 fractional bits, checked."""
SERIES_BITS = 26
"""Fractional bits of the fits of this module: with out_bits = SERIES_BITS a function takes one round."""
SIGMOIDS = {32.0: _fitted.SIGMOID, 64.0: _fitted.SIGMOID_32}
"""Fits of the sigmoid for |x| < P / 2, by P as `period_for` finds it."""


def _words(lo: float, hi: float, frac_bits: int) -> tuple[int, int]:
    """The words lo <= x <= hi, as a range without its end."""
    return math.ceil(math.ldexp(lo, frac_bits)), math.floor(math.ldexp(hi, frac_bits)) + 1


def plan_guard(n: int) -> Plan:
    """What `guard` of n words asks of the dealer."""
    return planned(n, lambda size: plan_less_than_within(size, 0))


def guard(session: Session, tickets: Sequence[Ticket], x: Words, bounds: tuple[float, float], use: Range) -> None:
    """Make sure that lo <= x <= hi for all x, for bounds = (lo, hi), or raise at every party.

    tickets: for `plan_guard(n)`.  x: n words in any shape with use.frac_bits.

    Reveals: to every party, whether any value is outside; not which, how many or how far.
    Cost: 4 rounds for each chunk of 2^17 words and 1 at the end; to every other party, 8 n + 560 m + 8 bytes, m = ceil(n /
    64); the dealer sends 3512 m bytes in all and 8 for each chunk.
    Security: semi-honest parties; the dealer does not collude.  A value outside is missed with probability 2^-64.
    Source: as `mpc.compare.less_than_within`.
    Raises: OutOfRange naming use.what and use.operation; LocalProtocolError if the tickets are not for this.
    """
    flat, allowed = x.reshape(-1), _words(*bounds, use.frac_bits)

    def chunk(tickets: Sequence[Ticket], part: slice) -> tuple[Words, Words | None]:
        return flat[part], less_than_within(session, tickets, flat[part], (), [allowed])[1]

    in_chunks(session, tickets, plan_guard(x.size), x, chunk, _error(bounds, use), use.tag)


def _error(bounds: tuple[float, float], use: Range) -> OutOfRange:
    return OutOfRange(use.what, use.operation, f"at least {bounds[0]:g} and at most {bounds[1]:g}")


def plan_period_for(n: int, periods: Sequence[float]) -> Plan:
    """What `period_for` asks of the dealer."""
    return planned(n, lambda size: plan_less_than_within(size, 0, len(periods)))


def period_for(session: Session, tickets: Sequence[Ticket], x: Words, periods: Sequence[float], use: Range) -> float:
    """The smallest of a few public periods P, ascending, with |x| < P / 2 for all x.

    tickets: for `plan_period_for(n, periods)`.  x: n words in any shape with use.frac_bits.

    Reveals: to every party, that period.
    Cost: 4 rounds for each chunk of 2^17 words and 1 at the end; to every other party, 8 n + 560 q m + 8 q bytes for q
    periods, m = ceil(n / 64); the dealer sends (1864 + 1648 q) m bytes in all and 8 q for each chunk.
    Security: semi-honest parties; the dealer does not collude.  A value outside is missed with probability 2^-64.
    Source: as `mpc.compare.less_than_within`.
    Raises: OutOfRange if even the largest is too small; LocalProtocolError if the tickets are not for this.
    """
    if list(periods) != sorted(periods) or not periods:
        raise LocalProtocolError("periods are given in ascending order")
    if [ticket.request for ticket in tickets] != plan_period_for(x.size, periods):
        raise LocalProtocolError(f"these correlations are not for the period of {x.size} words")
    flat, q = x.reshape(-1), len(periods)
    half = [round(math.ldexp(p, use.frac_bits - 1)) for p in periods]
    total = np.zeros(q, dtype=np.uint64)
    each = 4 + q
    for i, part in enumerate(chunks(x.size)):
        own = tickets[each * i : each * (i + 1)]
        total ^= less_than_within(session, own, flat[part], (), [(1 - h, h) for h in half])[1]
    for period, outside in zip(periods, open_any(session, total, use.tag), strict=True):
        if not outside:
            return period
    raise OutOfRange(use.what, use.operation, f"between -{periods[-1] / 2:g} and {periods[-1] / 2:g}")


def plan_univariate(n: int, fit: Fit, use: Range = RANGE) -> Plan:
    """What `univariate` of n words asks of the dealer."""
    drop = fit.bits - use.out_bits
    if drop < 0:
        raise LocalProtocolError(f"the fit has {fit.bits} fractional bits, fewer than {use.out_bits}")

    return [
        *(plan_guard(n) if use.checked else ()),
        *planned(n, lambda size: [plan_series(size, fit)]),
        *([plan_truncation(n, drop)] if drop else ()),
    ]


def univariate(session: Session, tickets: Sequence[Ticket], x: Words, fit: Fit, use: Range = RANGE) -> Words:
    """Shares of f(x) with use.out_bits fractional bits, for a fit of f by `fit_function`.

    tickets: for `plan_univariate(n, fit, use)`.  x: n words in any shape, fit.lo <= x <= fit.hi, with use.frac_bits.  The
    error is at most fit.error, and 2^-out_bits if bits are dropped.

    Reveals: nothing; if checked, to every party whether any value is outside the interval.
    Cost: 1 round, 4 n bytes to every other party, and the dealer sends 16 K n in all for K harmonics; if out_bits is not
    fit.bits, 1 round, 8 n and 16 n more; if checked, as `guard` on top.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.fourier.odd_series`.
    Raises: OutOfRange if checked and a value is outside; LocalProtocolError if the tickets are not for this.
    """
    if [ticket.request for ticket in tickets] != plan_univariate(x.size, fit, use) or x.dtype != np.uint64:
        raise LocalProtocolError(f"these correlations are not for this function of {x.size} words")
    if use.checked:
        used = len(plan_guard(x.size))
        guard(session, tickets[:used], x, (fit.lo, fit.hi), use)
        tickets = tickets[used:]
    parts = chunks(x.size)
    flat = x.reshape(-1)
    values = series_many(session, tickets[: len(parts)], [flat[part] for part in parts], use.frac_bits, fit)
    out = np.concatenate([*values, flat[:0]]).reshape(x.shape)
    return truncate(session, out, tickets[-1]) if len(tickets) > len(parts) else out


def plan_sigmoid(n: int, use: Range = RANGE) -> Plan:
    """What `sigmoid` of n words asks of the dealer."""
    return plan_univariate(n, _fitted.SIGMOID, use)


def sigmoid(session: Session, tickets: Sequence[Ticket], x: Words, use: Range = RANGE) -> Words:
    """Shares of 1 / (1 + e^-x) for -16 <= x <= 16, to an absolute error of 1.6e-3, and 2^-out_bits if out_bits is not 26.

    tickets: for `plan_sigmoid(n, use)`.  K = 7.  Everything else as `univariate`.
    """
    return univariate(session, tickets, x, _fitted.SIGMOID, _named(use, "sigmoid"))


def plan_tanh(n: int, use: Range = RANGE) -> Plan:
    """What `tanh` of n words asks of the dealer."""
    return plan_univariate(n, _fitted.TANH, use)


def tanh(session: Session, tickets: Sequence[Ticket], x: Words, use: Range = RANGE) -> Words:
    """Shares of tanh(x) for -8 <= x <= 8, to an absolute error of 1.7e-3, and 2^-out_bits if out_bits is not 26.

    tickets: for `plan_tanh(n, use)`.  K = 8.  Everything else as `univariate`.
    """
    return univariate(session, tickets, x, _fitted.TANH, _named(use, "tanh"))


def plan_erf(n: int, use: Range = RANGE) -> Plan:
    """What `erf` of n words asks of the dealer."""
    return plan_univariate(n, _fitted.ERF, use)


def erf(session: Session, tickets: Sequence[Ticket], x: Words, use: Range = RANGE) -> Words:
    """Shares of erf(x) for -4 <= x <= 4, to an absolute error of 1.6e-3, and 2^-out_bits if out_bits is not 26.

    tickets: for `plan_erf(n, use)`.  K = 4.  Everything else as `univariate`.
    """
    return univariate(session, tickets, x, _fitted.ERF, _named(use, "erf"))


def plan_gelu(n: int, use: Range = RANGE) -> Plan:
    """What `gelu` of n words asks of the dealer."""
    return plan_univariate(n, _fitted.GELU, use)


def gelu(session: Session, tickets: Sequence[Ticket], x: Words, use: Range = RANGE) -> Words:
    """Shares of x (1 + erf(x / sqrt 2)) / 2 for -8 <= x <= 8, to an absolute error
    of 1.2e-3, and 2^-out_bits if out_bits is not 26.

    tickets: for `plan_gelu(n, use)`.  K = 6.  Everything else as `univariate`.
    """
    return univariate(session, tickets, x, _fitted.GELU, _named(use, "gelu"))


def _named(use: Range, operation: str) -> Range:
    return replace(use, operation=operation)
