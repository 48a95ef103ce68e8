"""Noise for differential privacy: the discrete Laplace distribution, sampled exactly with whole numbers.

P(z) is proportional to exp(-|z| epsilon) for every whole number z.  Nothing is rounded, so there are no low bits from which
the number without noise could be read, as there are in noise made of floating point.  How long a draw takes depends on what
is drawn, though, so an owner draws before it waits for anybody.

Source: Canonne, Kamath, Steinke, "The discrete Gaussian for differential privacy", NeurIPS 2020 (algorithms 1 and 2); Mironov,
CCS 2012 (what floating point gives away).
"""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np

from mpc.errors import LocalProtocolError
from mpc.rng import Prg

LARGEST_EPSILON = 64
"""More than this hides nothing."""
LARGEST_TERM = 1 << 32
"""Of numerator and denominator: less than 2^-32 is no useful epsilon, and the noise must fit the ring."""

_EPSILON = re.compile(r"[0-9]{1,10}(\.[0-9]{1,10}|/0{0,9}[1-9][0-9]{0,9})?")
"""Few digits and no exponent: the time that it takes to read a number must not be up to who wrote it."""


def parse_epsilon(text: str) -> Fraction:
    """Epsilon from a decimal number or a fraction: "0.5", "1/2".

    Raises: LocalProtocolError if it is none, not positive, above 64, or has a term of more than 32 bits.
    """
    if not _EPSILON.fullmatch(text):
        raise LocalProtocolError(f"epsilon is a decimal number or a fraction such as 1/2, got '{text[:40]}'")
    epsilon = Fraction(text)
    if not 0 < epsilon <= LARGEST_EPSILON or max(epsilon.numerator, epsilon.denominator) > LARGEST_TERM:
        raise LocalProtocolError(f"epsilon is above 0, at most {LARGEST_EPSILON} and of short terms, got '{text[:40]}'")
    return epsilon


def below(prg: Prg, n: int) -> int:
    """A uniform whole number from 0 to n - 1."""
    n_bytes = -(-n.bit_length() // 8)
    whole = (1 << 8 * n_bytes) // n * n
    while True:
        drawn = int.from_bytes(prg.words(n_bytes, np.uint8).tobytes(), "little")
        if drawn < whole:
            return drawn % n


def _chance(prg: Prg, numerator: int, denominator: int) -> bool:
    return below(prg, denominator) < numerator


def _exp_up_to_one(prg: Prg, numerator: int, denominator: int) -> bool:
    """True with probability exp(-numerator / denominator), for 0 <= numerator <= denominator."""
    k = 1
    while _chance(prg, numerator, denominator * k):
        k += 1
    return k % 2 == 1


def discrete_laplace(prg: Prg, epsilon: Fraction) -> int:
    """A whole number z with a probability proportional to exp(-epsilon |z|)."""
    s, t = epsilon.numerator, epsilon.denominator
    while True:
        rest = below(prg, t)
        if not _exp_up_to_one(prg, rest, t):
            continue
        times = 0
        while _exp_up_to_one(prg, 1, 1):
            times += 1
        size = (rest + t * times) // s
        negative = _chance(prg, 1, 2)
        if size or not negative:  # zero has one sign
            return -size if negative else size
