"""Functions of a shared value in one round: open an angle, combine the dealer's sines and cosines locally.

A value z with a public bound |z| < P/2 is an angle on a circle of circumference P.  The dealer shares cos(k w r) and
sin(k w r), w = 2 pi / P, for a random angle r of 16 bits and a list of harmonics k.  The parties open m = z + r mod P; then

    sin(k w z) = sin(k w m) cos(k w r) - cos(k w m) sin(k w r)        cos(k w z) = cos(k w m) cos(k w r) + sin(k w m) sin(k w r)

are linear in the shares with public coefficients, so every function with a short Fourier series on the period costs two
opened bytes per value.  Dropping low bits of both shares before opening is exact up to one step of the angle: it cannot
wrap, because the angle lives in the ring of the period.  A value outside (-P/2, P/2) is read modulo P: the caller bounds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mpc.correlations import Correlation, Count, Piece, Ticket, register
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
