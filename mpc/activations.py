"""Activations of neural networks on shares: a function and its derivative from one opened angle.

An activation here *is* a short Fourier series: close to tanh, the logistic sigmoid or SiLU on a wide interval, and periodic
beyond it.  The derivative is that of the series, exactly, so training follows the gradient of the network that is used.
There is no value outside of its range: the series is defined, bounded and smooth for every argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc._fits import Fit
from mpc.correlations import Ticket
from mpc.errors import LocalProtocolError
from mpc.fourier import _COARSE, Waves, plan_series
from mpc.ring import kernels
from mpc.session import Session

Words = npt.NDArray[Any]
VALUE_BITS, SLOPE_BITS = 19, 18
"""Fractional bits of a value and of a derivative.  So few leave room for products, and round off at random by about 0.002
times the size of the series, with mean zero because the opened angle is uniform."""


@dataclass(frozen=True)
class Activation:
    """A series and its derivative, evaluated from the same angle.

    largest, steepest: bounds of the series' and of the derivative's magnitude, everywhere; tabulated, so that what parties
    derive from them is the same at all of them.
    """

    value: Fit
    slope: Fit
    largest: float
    steepest: float


def _activation(fit: Fit, basis_bits: int, largest: float, steepest: float) -> Activation:
    """Divide the bits between basis and coefficients, and differentiate: d/dx (a cos kwx + b sin kwx) = kw (b cos - a sin)."""
    value = replace(fit, basis_bits=basis_bits, coef_bits=VALUE_BITS - basis_bits)
    factors = [(1 + fit.step * q) * (2 * math.pi / fit.period) for q in range(len(fit.cosines))]
    slope = replace(
        value,
        cosines=tuple(round(b * factor) for b, factor in zip(fit.sines, factors, strict=True)),
        sines=tuple(round(-a * factor) for a, factor in zip(fit.cosines, factors, strict=True)),
        constant=0,
        coef_bits=SLOPE_BITS - basis_bits,
    )
    return Activation(value, slope, largest, steepest)


SIGMOID = _activation(
    Fit(
        lo=-16,
        hi=16,
        period=43.2,
        step=2,
        cosines=(0, 0, 0, 0, 0),
        sines=(676260011481, 173570616681, 65803020795, 26210819026, 12418905367),
        constant=549755813888,
        slope=0,
        basis_bits=12,
        coef_bits=14,
        error=0.0049,
    ),
    10,
    1.1,
    0.3,
)
"""1 / (1 + e^-x) to 0.005 for |x| <= 16, its derivative to 0.011."""
TANH = _activation(
    Fit(
        lo=-8,
        hi=8,
        period=21.6,
        step=2,
        cosines=(0, 0, 0, 0, 0, 0),
        sines=(1352924651907, 347182260097, 131133719660, 52833321739, 20957314304, 9612905877),
        constant=0,
        slope=0,
        basis_bits=12,
        coef_bits=14,
        error=0.0044,
    ),
    10,
    1.1,
    1.1,
)
"""tanh(x) to 0.0044 for |x| <= 8, its derivative to 0.018."""
SILU = _activation(
    Fit(
        lo=-12,
        hi=12,
        period=36.0,
        step=1,
        cosines=(-1297284727858, -2395896732195, 1211389134916, -1074099255470, 393481618218, -220573814340),
        sines=(5834909388546, -2305851936926, 1018297418767, -407865843255, 128881391649, -24303881086),
        constant=3407939806061,
        slope=0,
        basis_bits=13,
        coef_bits=13,
        error=0.0242,
    ),
    11,
    12.6,
    4.0,
)
"""x / (1 + e^-x) to 0.025 for |x| <= 12, its derivative to 0.18."""
ACTIVATIONS = {"sigmoid": SIGMOID, "tanh": TANH, "silu": SILU}


def plan_activation(n: int, activation: Activation) -> Waves:
    """What an activation of n words asks of the dealer."""
    return plan_series(n, activation.value)


def value_and_slope(
    session: Session, ticket: Ticket, share: Words, frac_bits: int, activation: Activation
) -> tuple[Words, Words]:
    """Shares of an activation, with VALUE_BITS fractional bits, and of its derivative, with SLOPE_BITS.

    ticket: for `plan_activation(n, activation)`.  share: n words in any shape, of any x with `frac_bits`.

    Reveals: nothing; the opened angle is uniform.
    Cost: 1 round; 4 n bytes to every other party; the dealer sends 16 K n bytes in all for K harmonics.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.fourier.odd_series`; the derivative needs no angle of its own because it has the same harmonics.
    Raises: LocalProtocolError if the ticket is not for this, or is taken out of order.
    """
    m, basis = _opened(session, ticket, share, frac_bits, activation.value)
    out = []
    for fit in (activation.value, activation.slope):
        out.append(_evaluated(session, fit, m, basis).reshape(share.shape))
    return out[0], out[1]


def _opened(session: Session, ticket: Ticket, share: Words, frac_bits: int, fit: Fit) -> tuple[Words, Words]:
    """The opened angle of every value, and our share of the dealer's waves."""
    if ticket.request != plan_series(share.size, fit) or share.dtype != np.uint64:
        raise LocalProtocolError(f"correlation {ticket.index} is not for this activation of {share.size} words")
    (r,) = session.correlations.begin(ticket)
    # As in mpc.fourier.series_many: a full turn is 2^64, so dropping low bits of the product cannot wrap.
    r += ((share.reshape(-1) * np.uint64(fit.turns(frac_bits))) >> np.uint64(32)).astype(np.uint32)
    m = session.open_words("fourier/turn", r)
    (basis,) = session.correlations.finish(ticket)
    return m, basis


def _evaluated(session: Session, fit: Fit, m: Words, basis: Words) -> Words:
    out: Words = kernels.combine(m, fit.step, fit.scaled(), _COARSE, basis.view(np.int64)).view(np.uint64)
    if session.me == 0:
        out += np.uint64(fit.constant_word % (1 << 64))
    return out


def split_bits(fit: Fit, bits: int) -> Fit:
    """The same series with another number of fractional bits of the result, 12 to 26, divided nearly evenly."""
    if not 12 <= bits <= 26:
        raise LocalProtocolError(f"a series has 12 to 26 fractional bits here, not {bits}")
    basis_bits = (bits - 2) // 2
    return replace(fit, basis_bits=basis_bits, coef_bits=bits - basis_bits)
