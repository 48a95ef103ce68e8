"""Short Fourier series that come close to a function on an interval, and how close: least squares, then levelled errors.

A series is periodic and the function is not, so the period is longer than the interval and the series does what it likes
outside (Fourier extension).  A longer period needs fewer harmonics and larger coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.float64]
Function = Callable[[Real], Real]
Form = Literal["full", "odd", "even"]
"""full: cosines and sines of all harmonics.  odd, even: only sines, or only cosines, of odd harmonics; for functions that
are odd, or even up to a constant, and flat or straight at the ends of the interval."""


@dataclass(frozen=True)
class Fit:
    """constant + slope x + sum over q of a_q cos(k w x) + b_q sin(k w x), k = 1 + step q, w = 2 pi / period, on [lo, hi].

    cosines, sines, constant, slope: integers, in units of 2^-GRID_BITS, so that they are the same at every party.
    basis_bits, coef_bits: fractional bits of the dealt sines and of the public coefficients.  error: bounds the fit's
    error and all rounding, for up to MAX_PARTIES parties; divided by the weight that the fit was made with.
    """

    GRID_BITS: ClassVar[int] = 40
    MAX_PARTIES: ClassVar[int] = 16
    lo: float
    hi: float
    period: float
    step: int
    cosines: tuple[int, ...]
    sines: tuple[int, ...]
    constant: int
    slope: int
    basis_bits: int
    coef_bits: int
    error: float

    @property
    def bits(self) -> int:
        """Fractional bits of the result."""
        return self.basis_bits + self.coef_bits

    @property
    def constant_word(self) -> int:
        """The constant with `bits` fractional bits."""
        return round(math.ldexp(self.constant, self.bits - self.GRID_BITS))

    def scaled(self) -> Real:
        """Cosines and sines, (2, K), in units of the public coefficients; the kernels round their products."""
        return np.array([self.cosines, self.sines], dtype=np.float64) * 2.0 ** (self.coef_bits - self.GRID_BITS)

    def slope_word(self, frac_bits: int) -> int:
        """The factor that takes x with `frac_bits` to slope x with `bits` fractional bits.

        Raises: ValueError if it is not a whole number.
        """
        word = math.ldexp(self.slope, self.bits - frac_bits - self.GRID_BITS)
        if not word.is_integer():
            raise ValueError(f"a slope of {self.slope} / 2^{self.GRID_BITS} needs more than {self.bits} bits")
        return int(word)

    def turns(self, frac_bits: int) -> int:
        """The part of 2^64 that one unit of x, 2^-frac_bits, is of the period.

        It is rounded, as if x were off by up to 1 / (2 turns) of itself; the fit's error leaves that out.

        Raises: ValueError if that were more than 2^-21.
        """
        turns = round(2.0 ** (64 - frac_bits) / self.period)
        if turns < 1 << 20:
            raise ValueError(f"{frac_bits} fractional bits are too many for a period of {self.period:g}")
        return turns

    def __call__(self, x: npt.ArrayLike) -> Real:
        """The series in floating point."""
        z = np.asarray(x, dtype=np.float64)
        w, out = 2 * np.pi / self.period, self.constant + self.slope * z
        for q, (a, b) in enumerate(zip(self.cosines, self.sines, strict=True)):
            angle = (1 + self.step * q) * w * z
            out = out + a * np.cos(angle) + b * np.sin(angle)
        return np.asarray(out * 2.0**-self.GRID_BITS)


NODES, TURNS = 600, 15
RATIOS = {
    "full": (1.1, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0),
    "odd": (2.4, 2.6, 2.7, 2.8, 2.9, 3.0, 3.2, 3.6, 4.0),
}
"""Periods that are tried, in lengths of the interval; odd harmonics need twice as many."""
MAX_HARMONICS = 32
RIDGE = 1e-10
LARGEST = 1 << 10
"""Larger coefficients would cost more bits than they save harmonics."""


def _columns(z: Real, period: float, count: int, form: Form) -> Real:
    step = 1 if form == "full" else 2
    angle = np.outer(z, 2 * np.pi / period * (1 + step * np.arange(count)))
    if form == "odd":
        return np.sin(angle)
    wave = np.cos(angle) if form == "even" else np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([wave, np.ones((len(z), 1))], axis=1)


def _solve(A: Real, y: Real, weight: Real, turns: int) -> tuple[float, Real]:
    """Least squares with weights that grow where the error is large (Lawson): (largest weighted error, coefficients)."""
    pad, more = RIDGE * np.sqrt(len(y)) * np.eye(A.shape[1]), np.ones_like(y)
    best, coefs = np.inf, np.zeros(A.shape[1])
    for _ in range(turns):
        root = weight * np.sqrt(more)
        target = np.concatenate([y * root, np.zeros(A.shape[1])])
        found = np.linalg.lstsq(np.concatenate([A * root[:, None], pad]), target, rcond=None)[0]
        errors = np.abs(A @ found - y) * weight
        if errors.max() < best:
            best, coefs = float(errors.max()), found
        more *= errors / errors.mean() + 1e-3
        more /= more.mean()
    return best, coefs


def fit_function(
    f: Function,
    interval: tuple[float, float],
    max_error: float,
    *,
    form: Form = "full",
    bits: int = 26,
    slope: float = 0.0,
    weight: Function | None = None,
) -> Fit:
    """The series with the fewest harmonics whose error on `interval` is at most `max_error`, all rounding included.

    f: takes and returns arrays.  bits: fractional bits of the result, up to 48; fewer than about 4 + log2(1 / max_error)
    cannot reach the bound.  slope: of a straight line that is taken from f first and added locally.  weight: the error is
    that of f times it; 1 / f for a relative error.

    Raises: ValueError if no series of MAX_HARMONICS harmonics reaches the bound.
    """
    lo, hi = interval
    z = (lo + hi) / 2 - (hi - lo) / 2 * np.cos(np.pi * np.linspace(0, 1, NODES))
    y = np.asarray(f(z), dtype=np.float64) - slope * z
    w = np.ones_like(z) if weight is None else np.asarray(weight(z), dtype=np.float64)
    for count in range(1, MAX_HARMONICS + 1):
        found = None
        for ratio in RATIOS["full" if form == "full" else "odd"]:
            period = ratio * (hi - lo) / (1 if form == "full" else 2)
            A = _columns(z, period, count, form)
            rough, coefs = _solve(A, y, w, 1)
            if rough > 3 * max_error or np.abs(coefs).max() > LARGEST:
                continue
            error, coefs = _solve(A, y, w, TURNS)
            fit = _made(interval, period, form, coefs, slope, bits, error, float(w.max()))
            if fit.error <= max_error and (found is None or fit.error < found.error):
                found = fit
        if found is not None:
            return found
    raise ValueError(f"no series of {MAX_HARMONICS} harmonics is within {max_error} of the function on {interval}")


def _made(
    interval: tuple[float, float],
    period: float,
    form: Form,
    coefs: Real,
    slope: float,
    bits: int,
    error: float,
    w: float,
) -> Fit:
    """Round the coefficients, divide the bits between them and the basis, and add up the errors."""
    grid = [round(c * 2.0**Fit.GRID_BITS) for c in coefs.tolist()]
    count = len(grid) if form == "odd" else (len(grid) - 1) // (2 if form == "full" else 1)
    zeros = (0,) * count
    cosines, sines = (zeros, tuple(grid)) if form == "odd" else (tuple(grid[:count]), zeros)
    if form == "full":
        sines = tuple(grid[count : 2 * count])
    step = 1 if form == "full" else 2
    size = np.hypot(np.array(cosines, dtype=np.float64), np.array(sines, dtype=np.float64)) * 2.0**-Fit.GRID_BITS
    # Either factor is a pair of rounded numbers, off by at most half a unit each, times a vector of length 1 or `size`.
    half = math.sqrt(0.5)
    losses = {b: half * (size.sum() * 2.0**-b + count * 2.0 ** (b - bits)) for b in range(4, min(30, bits - 4))}
    basis_bits = min(losses, key=lambda b: losses[b])
    # Dropping low bits of n shares moves the angle by less than n steps, and harmonic k of `size` by k times as much.
    steps = Fit.MAX_PARTIES * 2 * math.pi / 2**32 * float(((1 + step * np.arange(count)) * size).sum())
    total = error * (1 + 1e-3) + w * (losses[basis_bits] * 1.01 + steps + 2.0**-bits)
    return Fit(
        lo=interval[0],
        hi=interval[1],
        period=period,
        step=step,
        cosines=cosines,
        sines=sines,
        constant=0 if form == "odd" else grid[-1],
        slope=round(slope * 2.0**Fit.GRID_BITS),
        basis_bits=basis_bits,
        coef_bits=bits - basis_bits,
        error=float(total),
    )
