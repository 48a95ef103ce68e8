"""Functions of a shared value in one round: open an angle, combine the dealer's sines and cosines locally.

A value z with a public bound |z| < P/2 is an angle on a circle of circumference P.  The dealer shares cos(k w r) and
sin(k w r), w = 2 pi / P, for a random angle r of 16 bits and a list of harmonics k.  The parties open m = z + r mod P; then

    sin(k w z) = sin(k w m) cos(k w r) - cos(k w m) sin(k w r)        cos(k w z) = cos(k w m) cos(k w r) + sin(k w m) sin(k w r)

are linear in the shares with public coefficients, so every function with a short Fourier series on the period costs two
opened bytes per value.  Dropping low bits of both shares before opening is exact up to one step of the angle: it cannot
wrap, because the angle lives in the ring of the period.  A value outside (-P/2, P/2) is read modulo P: the caller bounds it.

`series` is the general form: 32-bit angles, any period, and cosines, sines, a constant and a slope from a `Fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mpc._fits import Fit
from mpc.correlations import Correlation, Count, Piece, Ticket, register
from mpc.errors import LocalProtocolError
from mpc.ring import kernels
from mpc.session import Session

Words = npt.NDArray[Any]
ANGLE_BITS = 16
BASIS_BITS = 14
"""Fractional bits of the dealer's shared sines and cosines."""
COEF_BITS = 12
"""Fractional bits of the public coefficients."""
SERIES_BITS = BASIS_BITS + COEF_BITS
"""Fractional bits of an evaluated series."""
_STEPS = np.arange(1 << ANGLE_BITS) * (2 * np.pi / (1 << ANGLE_BITS))
_SIN = np.sin(_STEPS).astype(np.float32)


def _exact_sines(entries: int) -> npt.NDArray[np.float64]:
    """sin(2 pi i / entries), the same bits on every machine: parties that round differently would get noise.

    Integers with 128 fractional bits: pi by Machin's formula, one step by its Taylor series, the others by turning.
    """
    one = 1 << 128

    def arctan_inverse(x: int) -> int:
        total, term, k = 0, one // x, 0
        while term:
            total += (-1) ** k * term // (2 * k + 1)
            term //= x * x
            k += 1
        return total

    step = 8 * (4 * arctan_inverse(5) - arctan_inverse(239)) // entries
    parts, term, k = [one, 0], one, 0
    while term:
        k += 1
        term = term * step // one // k
        parts[k % 2] += -term if k % 4 in (2, 3) else term
    cos, sin = parts
    c, s, out = one, 0, []
    for _ in range(entries):
        out.append(s / one)
        c, s = (c * cos - s * sin) // one, (c * sin + s * cos) // one
    return np.array(out)


_COARSE = _exact_sines(4096)


@register
class FourierTuple(Correlation):
    """A random 16-bit angle r per value, shared, and shares of its cosines and sines.

    Derived piece: (2K, n), rows 2q and 2q+1 are cos and sin of harmonic q, with BASIS_BITS fractional bits.
    """

    kind: Literal["fourier"] = "fourier"
    n: Count
    harmonics: Annotated[list[Annotated[int, Field(ge=1, lt=1 << 15)]], Field(min_length=1, max_length=256)]

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """r (n,) of 16-bit words."""
        return (Piece((self.n,), np.uint16),)

    def derived(self) -> tuple[Piece, ...]:
        """The basis (2K, n)."""
        return (Piece((2 * len(self.harmonics), self.n)),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """Cosines and sines of the angle that all draws add up to."""
        r = Piece((self.n,), np.uint16).combine([d[0] for d in drawn])
        out: Words = kernels.basis(r, np.array(self.harmonics, dtype=np.int64), _SIN, 2.0**BASIS_BITS)
        return [out.view(np.uint64)]


def _open_angle(session: Session, share: Words, period_bits: int, r: Words) -> Words:
    """m = (value + r) as 16-bit angle, where the period is 2^period_bits units of the share's scale."""
    angle = (share >> np.uint64(period_bits - ANGLE_BITS)).astype(np.uint16) + r
    return session.open_words("fourier/angle", angle)


def odd_series(session: Session, ticket: Ticket, share: Words, period_bits: int, coefs: npt.ArrayLike) -> Words:
    """Shares of sum over q of coefs[q] sin(k_q w z), with SERIES_BITS fractional bits.

    share: (n,) words; 2^period_bits of its units are one period P.  The ticket's request names the harmonics k_q.

    Reveals: nothing; the opened angle is uniform.
    Cost: 1 round; 2 n bytes to every other party; the dealer sends party 0 16 K n bytes.
    Security: semi-honest parties; the dealer does not collude.
    Source: Squirrel (Lu et al., USENIX Security 2023) for Fourier series of shared values; here with a dealer's angle.
    """
    (r,), (basis,) = session.correlations.take(ticket)
    m = _open_angle(session, share, period_bits, r)
    harmonics = np.array(ticket.request.model_dump()["harmonics"], dtype=np.int64)
    scaled = np.asarray(coefs, dtype=np.float64) * 2.0**COEF_BITS
    out: Words = kernels.series(m, harmonics, scaled, _SIN, basis.view(np.int64))
    return out.view(np.uint64)


def moments(session: Session, ticket: Ticket, share: Words, period_bits: int) -> Words:
    """Shares of the sums over all values of cos(k w z) and sin(k w z): (2, K), SERIES_BITS fractional bits.

    Arguments, Reveals, Cost, Security, Source: as `odd_series`.
    """
    (r,), (basis,) = session.correlations.take(ticket)
    m = _open_angle(session, share, period_bits, r)
    harmonics = np.array(ticket.request.model_dump()["harmonics"], dtype=np.int64)
    out: Words = kernels.moments(m, harmonics, 2.0**COEF_BITS, _SIN, basis.view(np.int64))
    return out.view(np.uint64)


@register
class Waves(Correlation):
    """A random 32-bit angle r per value, shared, and shares of its cosines and sines for harmonics 1, 1 + step, 1 + 2 step ...

    Derived piece: (2K, n), rows 2q and 2q+1 are cos and sin of harmonic 1 + step q, with `basis_bits` fractional bits.
    """

    kind: Literal["waves"] = "waves"
    n: Count
    count: Annotated[int, Field(ge=1, le=256)]
    step: Annotated[int, Field(ge=1, le=2)]
    basis_bits: Annotated[int, Field(ge=1, le=30)]

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """r (n,) of 32-bit words."""
        return (Piece((self.n,), np.uint32),)

    def derived(self) -> tuple[Piece, ...]:
        """The basis (2K, n)."""
        return (Piece((2 * self.count, self.n)),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """Cosines and sines of the angle that all draws add up to."""
        r = Piece((self.n,), np.uint32).combine([d[0] for d in drawn])
        out: Words = kernels.waves(r, self.step, self.count, 2.0**self.basis_bits, _COARSE)
        return [out.view(np.uint64)]


def plan_series(n: int, fit: Fit) -> Waves:
    """What evaluating a fit at n values asks of the dealer."""
    return Waves(n=n, count=len(fit.cosines), step=fit.step, basis_bits=fit.basis_bits)


def series_many(
    session: Session, tickets: Sequence[Ticket], shares: Sequence[Words], frac_bits: int, fit: Fit
) -> list[Words]:
    """Shares of fit(x) with fit.bits fractional bits, for several vectors, all in one round.

    tickets: for `plan_series(n, fit)`, one for each vector.  shares: flat words of x with `frac_bits` fractional bits,
    fit.lo <= x <= fit.hi: outside, another value of the period is taken and nobody can tell.  All parties must use the
    very same numbers in the fit, so a fit is made once and handed out, not computed by every party.

    Reveals: nothing; the opened angle is uniform.
    Cost: 1 round; 4 n bytes to every other party for n words in all; the dealer sends 16 K n bytes in all for K harmonics.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `odd_series`.
    Raises: LocalProtocolError if a ticket is not for this, or is taken out of order.
    """
    masked = []
    for ticket, share in zip(tickets, shares, strict=True):
        if ticket.request != plan_series(share.size, fit) or share.dtype != np.uint64:
            raise LocalProtocolError(f"correlation {ticket.index} is not for this series of {share.size} words")
        (r,) = session.correlations.begin(ticket)
        # share * turns is the angle with a full turn of 2^64: any period will do, and dropping its low bits cannot wrap
        r += ((share * np.uint64(fit.turns(frac_bits))) >> np.uint64(32)).astype(np.uint32)
        masked.append(r)
    coefs, out = fit.scaled(), []
    for ticket, share, m in zip(
        tickets, shares, session.open_many("fourier/turn", masked) if masked else [], strict=True
    ):
        (basis,) = session.correlations.finish(ticket)
        total = kernels.combine(m, fit.step, coefs, _COARSE, basis.view(np.int64)).view(np.uint64)
        if fit.slope:
            total += share * np.uint64(fit.slope_word(frac_bits) % (1 << 64))
        if session.me == 0:
            total += np.uint64(fit.constant_word % (1 << 64))
        out.append(total)
    return out


def series(session: Session, ticket: Ticket, share: Words, frac_bits: int, fit: Fit) -> Words:
    """Shares of fit(x) for one flat vector; everything else as `series_many`."""
    return series_many(session, [ticket], [share], frac_bits, fit)[0]


def series_together(session: Session, ticket: Ticket, share: Words, frac_bits: int, fits: Sequence[Fit]) -> list[Words]:
    """Shares of several functions of one flat vector x, from one opened angle.

    ticket: for `plan_series(n, fits[0])`.  fits: all of one period, with the same harmonics and basis_bits, without slope.
    The words of each have the fractional bits of its fit; share, frac_bits: as `series_many`.

    Reveals: nothing; the opened angle is uniform.
    Cost: 1 round; 4 n bytes to every other party; the dealer sends 16 K n bytes in all for K harmonics.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `odd_series`.
    Raises: LocalProtocolError if the ticket is not for this or the fits do not go together.
    """
    alike = {(fit.period, fit.step, len(fit.cosines), fit.basis_bits, fit.slope) for fit in fits}
    if len(alike) != 1 or fits[0].slope or ticket.request != plan_series(share.size, fits[0]):
        raise LocalProtocolError(f"correlation {ticket.index} is not for these series of {share.size} words")
    (r,) = session.correlations.begin(ticket)
    r += ((share * np.uint64(fits[0].turns(frac_bits))) >> np.uint64(32)).astype(np.uint32)
    m = session.open_words("fourier/turn", r)
    (basis,) = session.correlations.finish(ticket)
    out = []
    for fit in fits:
        total = kernels.combine(m, fit.step, fit.scaled(), _COARSE, basis.view(np.int64)).view(np.uint64)
        if session.me == 0:
            total += np.uint64(fit.constant_word % (1 << 64))
        out.append(total)
    return out


def fit_sigmoid(period: float, n_harmonics: int) -> tuple[list[int], npt.NDArray[np.float64], float]:
    """Odd harmonics and coefficients of sigmoid(z) - 1/2 on |z| <= period/4.

    Returns (harmonics, coefficients, maximum error of the real-valued fit on that range).
    """
    harmonics = list(range(1, 2 * n_harmonics, 2))
    z = np.linspace(-period / 4, period / 4, 4001)
    A = np.sin(2 * np.pi * np.outer(z, harmonics) / period)
    target = 1 / (1 + np.exp(-z)) - 0.5
    coefs: npt.NDArray[np.float64] = np.linalg.lstsq(A, target, rcond=None)[0].astype(np.float64)
    return harmonics, coefs, float(np.abs(A @ coefs - target).max())


def warm_up() -> None:
    """Load or compile this module's kernels."""
    angles, harmonics = np.zeros(1, dtype=np.uint16), np.ones(1, dtype=np.int64)
    basis: Words = kernels.basis(angles, harmonics, _SIN, 1.0)
    kernels.series(angles, harmonics, np.ones(1), _SIN, basis)
    kernels.moments(angles, harmonics, 1.0, _SIN, basis)
    turns = np.zeros(1, dtype=np.uint32)
    kernels.combine(turns, 1, np.ones((2, 1)), _COARSE, kernels.waves(turns, 1, 1, 1.0, _COARSE))
