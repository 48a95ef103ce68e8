"""Probabilities of several classes from shared scores: exponentials by one Fourier series, and one secret division a row.

The scores of a row must add up to about zero, so that their exponentials add up to at least the number of classes: then the
sum has a reciprocal of bounded size.  The series is right up to a score of 6; for larger scores the softmax of z is that of
z/2, squared and divided by its sum, as often as it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Ticket
from mpc.errors import OutOfRange
from mpc.fourier import plan_series, series
from mpc.functions import Domain, Range, guard, plan_guard, plan_reciprocal, reciprocal
from mpc.products import multiply, plan_multiply, plan_square, square
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from vertical.exponentials import EXP_WIDE

Words = npt.NDArray[Any]

SCORE_BITS = 34
PROBABILITY_BITS = 26
"""Fractional bits of probabilities, and of a row's sum of exponentials and its reciprocal."""
MAX_CLASSES = 24
MAX_SQUARINGS = 2
SQUARES = Domain(low=-6, high=2, frac_bits=PROBABILITY_BITS, checked=False)
"""Of the sum of squares of a row's probabilities: from 1 / MAX_CLASSES to 1."""


@dataclass(frozen=True)
class Softmax:
    """For n rows of so many classes.  squarings: each doubles the range of scores."""

    n: int
    classes: int
    squarings: int = 0

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest score."""
        return EXP_WIDE.lo * 2**self.squarings, EXP_WIDE.hi * 2**self.squarings

    def wider(self) -> Self | None:
        """The same for twice the range; None if there is none."""
        return None if self.squarings == MAX_SQUARINGS else replace(self, squarings=self.squarings + 1)

    @property
    def _sums(self) -> Domain:
        """Of a row's sum of exponentials: at least the number of classes, at most as many times e^6."""
        octaves = math.ceil(EXP_WIDE.hi / math.log(2) + math.log2(self.classes))
        return Domain(low=0, high=octaves + octaves % 2, frac_bits=PROBABILITY_BITS, checked=False)

    def plan(self) -> list[Correlation]:
        """What `probabilities` asks of the dealer."""
        again = [
            plan_square((self.n, self.classes)),
            plan_truncation(self.n * self.classes, PROBABILITY_BITS),
            *self._plan_quotient(SQUARES, PROBABILITY_BITS),
        ]
        return [
            plan_series(self.n * self.classes, EXP_WIDE),
            plan_truncation(self.n, EXP_WIDE.bits - PROBABILITY_BITS),
            *self._plan_quotient(self._sums, EXP_WIDE.bits),
            *again * self.squarings,
        ]

    def _plan_quotient(self, domain: Domain, bits: int) -> list[Correlation]:
        product = plan_multiply((self.n, self.classes), (self.n, 1))
        return [*plan_reciprocal(self.n, domain), product, plan_truncation(self.n * self.classes, bits)]

    def probabilities(self, session: Session, tickets: Sequence[Ticket], scores: Words) -> Words:
        """Shares of the probabilities, (n, classes), PROBABILITY_BITS, to about 3e-3 of them.

        tickets: for `plan()`.  scores: (n, classes) words, SCORE_BITS, in the range; outside, the result is meaningless and
        nobody can tell.  An exponential has 34 bits and a reciprocal 26: a probability, at most 1, has 60 until it is cut.

        Reveals: nothing.
        Cost: 12 rounds for up to 131,072 rows, and 12 more for each squaring; to every other party about (28 C + 80) n
            bytes for C classes, and (32 C + 80) n for each squaring; the dealer sends (210 C + 250) n in all, and (32 C +
            250) n for each squaring.
        Security: semi-honest parties; the dealer does not collude.
        Source: as `mpc.fourier.series` and `mpc.functions.reciprocal`.
        """
        turned = SCORE_BITS + self.squarings  # read with more fractional bits, a score is halved
        power = series(session, tickets[0], scores.reshape(-1), turned, EXP_WIDE).reshape(scores.shape)
        total = truncate(session, power.sum(axis=1, dtype=np.uint64), tickets[1])
        used = 2 + len(self._plan_quotient(self._sums, EXP_WIDE.bits))
        p = _quotient(session, tickets[2:used], power, total, self._sums)
        for _ in range(self.squarings):
            power = truncate(session, square(session, tickets[used], p), tickets[used + 1])
            after = used + 2 + len(self._plan_quotient(SQUARES, PROBABILITY_BITS))
            p = _quotient(session, tickets[used + 2 : after], power, power.sum(axis=1, dtype=np.uint64), SQUARES)
            used = after
        return p

    def plan_check(self) -> list[Correlation]:
        """What `fits` asks of the dealer."""
        return plan_guard(self.n * self.classes)

    def fits(self, session: Session, tickets: Sequence[Ticket], scores: Words) -> bool:
        """Whether all scores are in the range.

        tickets: for `plan_check()`.  scores: as for `probabilities`.

        Reveals: to every party, whether any score is outside; not which, how many or how far.
        Cost: as `mpc.functions.guard`.
        Security: as `mpc.functions.guard`.
        Source: as `mpc.functions.guard`.
        """
        use = Range(frac_bits=SCORE_BITS, what="a score", operation="a softmax", tag="glm/outside")
        try:
            guard(session, tickets, scores, self.range, use)
        except OutOfRange:
            return False
        return True


def _quotient(session: Session, tickets: Sequence[Ticket], rows: Words, total: Words, domain: Domain) -> Words:
    """Shares of every row over its total."""
    inverse = reciprocal(session, tickets[:-2], total, domain)
    return truncate(session, multiply(session, tickets[-2], rows, inverse[:, None]), tickets[-1])
