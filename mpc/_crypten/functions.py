"""Functions of a shared tensor for CrypTen, right on a stated domain: beyond it they saturate, or raise OutOfRange.

The functions stand in for CrypTen's own of the same purpose and take its tensors as they are; this module does not import
CrypTen.  CrypTen's iterations give wrong numbers outside of small domains without a word: its reciprocal from 253 on, its
logarithm from 250, its square root from 200, its error function from 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc import compare, functions, products
from mpc._crypten.nn import Tensor, bits_of, like
from mpc._crypten.seams import current, to_tensor, to_words
from mpc._fits import Fit
from mpc.correlations import Correlation, Ticket
from mpc.errors import OutOfRange
from mpc.fourier import plan_series, series
from mpc.functions import Domain, Range
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate

Words = npt.NDArray[Any]
DEFAULT_BITS = 20
"""What shared integers become before a function of them is taken."""
LOW, HIGH, SPLIT, STEP = -18, 16, -6, 12
"""Roots, reciprocals and logarithms take 2^LOW <= x < 2^HIGH; what is below 2^SPLIT is first brought up by 2^STEP."""

_SIGMOID = Fit(
    lo=-16,
    hi=16,
    period=51.2,
    step=2,
    cosines=(0,) * 11,
    sines=(
        682936768906,
        188411035651,
        80218143055,
        36491478395,
        16808591580,
        7770711111,
        3600417743,
        1653875770,
        772286870,
        360299987,
        202069105,
    ),
    constant=549755813888,
    slope=0,
    basis_bits=18,
    coef_bits=22,
    error=9.5e-05,
)
_TANH = Fit(
    lo=-8,
    hi=8,
    period=25.6,
    step=2,
    cosines=(0,) * 12,
    sines=(
        1365862998790,
        376823491340,
        160446022067,
        72969131362,
        33623555497,
        15550264527,
        7179018492,
        3330627156,
        1535179214,
        708410993,
        336510453,
        186325521,
    ),
    constant=0,
    slope=0,
    basis_bits=19,
    coef_bits=21,
    error=9e-05,
)
_ERF = Fit(
    lo=-4,
    hi=4,
    period=14.4,
    step=2,
    cosines=(0,) * 7,
    sines=(
        1334871604075,
        304052744307,
        85186991576,
        19414332287,
        3292614386,
        402196137,
        32615514,
    ),
    constant=0,
    slope=0,
    basis_bits=19,
    coef_bits=21,
    error=7.8e-06,
)
_WAVE = 1 << Fit.GRID_BITS
_COS, _SIN = (
    Fit(0, 0, 2 * math.pi, 1, cosines=(a,), sines=(b,), constant=0, slope=0, basis_bits=22, coef_bits=22, error=1e-6)
    for a, b in ((_WAVE, 0), (0, _WAVE))
)
"""Every party must use the very same numbers, so the fits are written down; `mpc._fits.fit_function` made them."""


def _fixed(x: Tensor) -> tuple[Words, int]:
    """The words of a fixed-point tensor, and its fractional bits."""
    frac_bits = bits_of(x)
    words = to_words(x.share)
    return (words, frac_bits) if frac_bits else (words << np.uint64(DEFAULT_BITS), DEFAULT_BITS)


def _result(x: Tensor, words: Words, frac_bits: int) -> Tensor:
    return like(x, to_tensor(words.reshape(tuple(x.size()))), frac_bits)


def _even(n: int) -> int:
    return n // 2 * 2


def _plan_clamp(n: int, k: int) -> list[Correlation]:
    return [*compare.plan_less_than(n, k), products.plan_multiply((n,))]


def _clamped(session: Session, tickets: Sequence[Ticket], x: Words, lowest: int, highest: int) -> Words:
    """x, or the nearer of two words where it is outside of them; 5 rounds."""
    below, under = compare.less_than(session, tickets[:-1], x, [lowest, highest])
    out = products.multiply(session, tickets[-1], np.asarray(under - below), x)
    out += below * np.uint64(lowest % (1 << 64)) - under * np.uint64(highest % (1 << 64))
    if session.me == 0:
        out += np.uint64(highest)
    return out


def _raised(session: Session, ticket: Ticket, x: Words, below: Words, lowest: int) -> Words:
    """x, or `lowest` where the bit `below` is 1; 1 round."""
    room = np.negative(x)
    if session.me == 0:
        room += np.uint64(lowest % (1 << 64))
    return np.asarray(x + products.multiply(session, ticket, below, room))


def _saturating(self: Tensor, fit: Fit) -> Tensor:
    """A function that is flat outside of the fit's interval."""
    (words, frac_bits), session = _fixed(self), current().session
    flat = words.reshape(-1)
    use = Range(frac_bits=frac_bits, out_bits=frac_bits, checked=False)
    tickets = session.correlations.plan([*_plan_clamp(flat.size, 2), *functions.plan_univariate(flat.size, fit, use)])
    lowest, highest = (round(math.ldexp(edge, frac_bits)) for edge in (fit.lo, fit.hi))
    inside = _clamped(session, tickets[:5], flat, lowest, highest)
    return _result(self, functions.univariate(session, tickets[5:], inside, fit, use), frac_bits)


def sigmoid(self: Tensor) -> Tensor:
    """1 / (1 + e^-x) for every x, to 1e-4; 7 rounds."""
    return _saturating(self, _SIGMOID)


def tanh(self: Tensor) -> Tensor:
    """The hyperbolic tangent of every x, to 1e-4; 7 rounds."""
    return _saturating(self, _TANH)


def erf(tensor: Tensor) -> Tensor:
    """The error function of every x, to 1e-5; 7 rounds."""
    return _saturating(tensor, _ERF)


def fading_exp(self: Tensor) -> Tensor:
    """e^x for x <= 0, which is not checked, to 2^-14 of itself and two units; 12 rounds."""
    (words, frac_bits), session = _fixed(self), current().session
    flat = words.reshape(-1)
    domain = Domain(low=-_even(min(20, frac_bits)), high=2, frac_bits=frac_bits, checked=False)
    lowest = round(domain.low * math.log(2) * 2.0**frac_bits)
    tickets = session.correlations.plan([*_plan_clamp(flat.size, 1), *functions.plan_exp(flat.size, domain)])
    (below,) = compare.less_than(session, tickets[:4], flat, [lowest])
    inside = _raised(session, tickets[4], flat, below, lowest)
    return _result(self, functions.exp(session, tickets[5:], inside, domain), frac_bits)


def exp(self: Tensor) -> Tensor:
    """e^x for x below 16 ln 2 = 11.09, to 2^-12 of itself and two units; it is the square of e^(x/2); 15 rounds.

    That is for up to 20 fractional bits; every two more take 2 ln 2 from the bound, so that the square fits the ring.

    Raises: OutOfRange at every party if an x is larger.
    """
    (words, frac_bits), session = _fixed(self), current().session
    flat, half_bits = words.reshape(-1), frac_bits + 1  # the same words are x / 2 with one more fractional bit
    high = min(8, _even((59 - 2 * frac_bits) // 2))  # the square has 2 half_bits, and may be a little over its bound
    domain = Domain(low=-_even(frac_bits // 2), high=high, frac_bits=half_bits, checked=False)
    lowest, highest = (round(e * math.log(2) * 2.0**half_bits) for e in (domain.low, domain.high))
    n = flat.size
    check = [*compare.plan_less_than_within(n, 1), products.plan_multiply((n,))]
    end = [products.plan_square((n,)), plan_truncation(n, half_bits + 1)]
    tickets = session.correlations.plan([*check, *functions.plan_exp(n, domain), *end])
    (below,), outside = compare.less_than_within(session, tickets[:5], flat, [lowest], [(-(1 << 62), highest)])
    inside = _raised(session, tickets[5], flat, below, lowest)
    root = functions.exp(session, tickets[6:-2], inside, domain)
    out = truncate(session, products.square(session, tickets[-2], root), tickets[-1])
    if compare.open_any(session, outside).any():  # at the end, so that the parties are in step if this is caught
        raise OutOfRange("tensor", "an exponential", f"below {domain.high * 2} ln 2")
    return _result(self, out, frac_bits)


def _on_domain(x: Tensor, plan: Callable[..., Any], run: Callable[..., Words], operation: str) -> Tensor:
    """A function of `mpc.functions` on [2^LOW, 2^HIGH), which is wider than theirs: of x, or of 2^STEP x where x is small.

    Raises: OutOfRange at every party if an x is outside.
    """
    (words, frac_bits), session = _fixed(x), current().session
    domain = Domain(low=SPLIT, high=HIGH, frac_bits=frac_bits, checked=False)
    flat, low = words.reshape(-1), max(LOW, -frac_bits)
    n, allowed = flat.size, (1 << low + frac_bits, 1 << HIGH + frac_bits)
    product = products.plan_multiply((n,))
    check = [*compare.plan_less_than_within(n, 1), product]
    undo = {"a square root": [product, plan_truncation(n, STEP // 2)], "a logarithm": []}.get(operation, [product])
    tickets = session.correlations.plan([*check, *plan(n, domain), *undo])
    (small,), outside = compare.less_than_within(session, tickets[:5], flat, [1 << SPLIT + frac_bits], [allowed])
    raised = flat + products.multiply(session, tickets[5], small, flat) * np.uint64((1 << STEP) - 1)
    last = len(tickets) - len(undo)
    out = run(session, tickets[6:last], raised, domain)
    out = _undone(session, tickets[last:], out, small, (operation, frac_bits))
    if compare.open_any(session, outside).any():  # at the end, so that the parties are in step if this is caught
        raise OutOfRange("tensor", operation, f"at least 2^{low} and below 2^{HIGH}")
    return _result(x, out, frac_bits)


def _undone(session: Session, tickets: Sequence[Ticket], y: Words, small: Words, of: tuple[str, int]) -> Words:
    """f(x) from y = f(2^STEP x), where `small` is 1."""
    operation, frac_bits = of
    if operation == "a logarithm":
        return np.asarray(y - small * np.uint64(round(STEP * math.log(2) * 2.0**frac_bits)))
    part = products.multiply(session, tickets[0], small, y)
    if operation == "a square root":
        half = STEP // 2
        return np.asarray(y - truncate(session, part * np.uint64((1 << half) - 1), tickets[1]))
    power = STEP if operation == "a reciprocal" else STEP // 2
    return np.asarray(y + part * np.uint64((1 << power) - 1))


def reciprocal(self: Tensor, input_in_01: bool = False) -> Tensor:
    """1 / x for 2^-18 <= |x| < 2^16, to 2^-13 of itself and a unit; 21 rounds, 15 if x is said to be positive.

    Raises: OutOfRange at every party if an x is outside.
    """
    if input_in_01:
        return positive_reciprocal(self)
    sign = 1 - 2 * self._ltz()
    return positive_reciprocal(self * sign) * sign


def positive_reciprocal(x: Tensor) -> Tensor:
    """1 / x for 2^-18 <= x < 2^16.  Raises: as `reciprocal`."""
    return _on_domain(x, functions.plan_reciprocal, functions.reciprocal, "a reciprocal")


def reciprocal_of_sum(x: Tensor, n: int) -> Tensor:
    """1 / x for sums x of n exponentials of which the largest is 1: nothing to check; 8 rounds."""
    return _of_sum(x, n, functions.plan_reciprocal, functions.reciprocal)


def log_of_sum(x: Tensor, n: int) -> Tensor:
    """The logarithm of such sums; 7 rounds."""
    return _of_sum(x, n, functions.plan_log, functions.log)


def _of_sum(x: Tensor, n: int, plan: Callable[..., Any], run: Callable[..., Words]) -> Tensor:
    (words, frac_bits), session = _fixed(x), current().session
    domain = Domain(low=-2, high=_even(n.bit_length() + 1), frac_bits=frac_bits, checked=False)  # 1 may be rounded down
    return _result(x, run(session, session.correlations.plan(plan(words.size, domain)), words, domain), frac_bits)


def log(self: Tensor, input_in_01: bool = False) -> Tensor:  # noqa: ARG001 - there is one domain
    """The natural logarithm for 2^-18 <= x < 2^16, to 2^-14 and two units; 13 rounds.  Raises: as `reciprocal`."""
    return _on_domain(self, functions.plan_log, functions.log, "a logarithm")


def sqrt(self: Tensor) -> Tensor:
    """The square root for 2^-18 <= x < 2^16, to 2^-14 of itself and two units; 16 rounds.  Raises: as `reciprocal`."""
    return _on_domain(self, functions.plan_sqrt, functions.sqrt, "a square root")


def inv_sqrt(self: Tensor) -> Tensor:
    """1 / sqrt(x) for 2^-18 <= x < 2^16, to 2^-13 of itself and a unit; 15 rounds.  Raises: as `reciprocal`."""
    return _on_domain(self, functions.plan_inverse_sqrt, functions.inverse_sqrt, "an inverse square root")


def cossin(self: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every x, to 2^-20 for |x| < 2^16; 4 rounds."""
    (words, frac_bits), session = _fixed(self), current().session
    flat, n, out = words.reshape(-1), words.size, []
    drop = plan_truncation(n, _COS.bits - frac_bits)
    tickets = session.correlations.plan([request for fit in (_COS, _SIN) for request in (plan_series(n, fit), drop)])
    for fit, waves, last in zip((_COS, _SIN), tickets[::2], tickets[1::2], strict=True):
        wave = series(session, waves, flat, frac_bits, fit)
        out.append(_result(self, truncate(session, wave, last), frac_bits))
    return out[0], out[1]


def cos(self: Tensor) -> Tensor:
    """The cosine; see `cossin`."""
    return cossin(self)[0]


def sin(self: Tensor) -> Tensor:
    """The sine; see `cossin`."""
    return cossin(self)[1]


def sqrt_forward(ctx: Any, x: Tensor) -> Tensor:
    """The square root, remembered for the gradient."""
    y = x.sqrt()
    ctx.save_for_backward(y)
    return y


def sqrt_backward(ctx: Any, grad: Tensor) -> Tensor:
    """The gradient of a square root: grad / (2 y)."""
    (y,) = ctx.saved_tensors
    return positive_reciprocal(y).mul(grad).div(2)
