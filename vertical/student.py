"""Student's t: two-sided p-values and quantiles, from the incomplete beta function."""

from __future__ import annotations

import math

TINY = 1e-300


def _continued(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > TINY else TINY)
    total = d
    for m in range(1, 10_000):
        before = total
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + factor * d
            d = 1 / (d if abs(d) > TINY else TINY)
            c = 1 + factor / (c if abs(c) > TINY else TINY)
            total *= d * c
        if abs(total - before) < 1e-15 * abs(total):
            break
    return total


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised: the distribution function of a beta variable."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _continued(a, b, x) / a
    return 1 - front * _continued(b, a, 1 - x) / b


def two_sided(t: float, freedom: float) -> float:
    """Probability that Student's t with so many degrees of freedom is at least |t| in size."""
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def interval(level: float, freedom: float) -> float:
    """The t with which a confidence interval of this level reaches to either side."""
    low, high = 0.0, 1.0
    while two_sided(high, freedom) > 1 - level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > 1 - level else (low, middle)
    return high
