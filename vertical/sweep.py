"""Least squares on a secret matrix of products, one column in or out at a time: the sweep operator on shares.

The state is the symmetric matrix of correlations of all columns and the label.  Sweeping column p with a = 1 / A_pp,

    A_pp' = -a,      A_ip' = A_ip a,      A_ij' = A_ij - A_ip A_jp a,

takes it into the regression; the same with the sign of A_ip turned takes it out.  At any time A_yy is the residual sum of
squares; for a column outside, A_jj is its tolerance and A_jy^2 / A_jj what it would take off that sum; for one inside, -A_kk
is its variance inflation factor and A_ky^2 / -A_kk what leaving it out would add.

A column is only taken in if its tolerance is at least TOLERANCE, and no inflation factor in the regression may exceed 1 /
TOLERANCE; so nothing is above (1 + 1 / TOLERANCE) / TOLERANCE, which is below 2^14, and products stay below 2^62.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import (
    any_negative,
    less_than,
    open_any,
    plan_any_negative,
    plan_less_than,
    plan_reveal_negative,
    reveal_negative,
)
from mpc.correlations import Ticket
from mpc.extrema import argmax, plan_argmax
from mpc.functions import Domain, plan_reciprocal, reciprocal
from mpc.products import multiply, plan_multiply
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate

Words = npt.NDArray[Any]

STATE_BITS = 24
"""Fractional bits of the state."""
GAIN_BITS = 2 * STATE_BITS
THRESHOLD_BITS = 32
TOLERANCE = 0.01
OUTSIDE = Domain(low=-8, high=2, frac_bits=STATE_BITS, checked=False, what="a tolerance")
INSIDE = Domain(low=-2, high=8, frac_bits=STATE_BITS, checked=False, what="an inflation factor")
"""Where reciprocals are taken; a tolerance is replaced by 1 before if it is too small, and a factor is never out of it."""


@dataclass(frozen=True)
class Sweep:
    """Our share of the state, (D + 1, D + 1) words, the label last, and the columns that are in, in order of entry."""

    session: Session
    state: Words = field(repr=False)
    inside: tuple[int, ...] = ()

    @property
    def residual(self) -> Words:
        """The residual sum of squares, (1,), STATE_BITS."""
        return self.state[-1, -1:]

    def gains(self, columns: Sequence[int]) -> tuple[Words, Words]:
        """What columns outside would take off the residual sum of squares, GAIN_BITS, 0 for one that depends too much on
        those inside; and the reciprocals of their tolerances, STATE_BITS, 1 for such a one.

        Reveals: nothing.
        Cost: 20 rounds; bytes as its comparisons, reciprocals and products of as many words.
        Security: semi-honest parties; the dealer does not collude.
        Source: Goodnight, The American Statistician 1979 (the sweep operator).
        Raises: LocalProtocolError if randomness is taken out of order.
        """
        session, k, own = self.session, len(columns), list(columns)
        tickets = iter(session.correlations.plan([*plan_less_than(k, 1), plan_multiply((2, k), (k,))]))
        tolerance = self.state[own, own]
        few = less_than(session, [next(tickets) for _ in plan_less_than(k, 1)], tolerance, (_word(TOLERANCE),))[0]
        one = _public(session, k, STATE_BITS)
        both = np.stack([tolerance - one, self.state[own, -1]])
        less, with_label = multiply(session, next(tickets), both, _public(session, k, 0) - few)
        inverse = inverse_of(session, one + less, OUTSIDE)
        return self._squares(with_label, inverse), inverse

    def losses(self) -> tuple[Words, Words]:
        """What leaving out each column inside would add to the residual sum of squares, GAIN_BITS, and the reciprocals of
        their inflation factors, STATE_BITS; otherwise as `gains`, with 15 rounds."""
        own = list(self.inside)
        inverse = inverse_of(self.session, np.negative(self.state[own, own]), INSIDE)
        return self._squares(np.ascontiguousarray(self.state[own, -1]), inverse), inverse

    def _squares(self, x: Words, inverse: Words) -> Words:
        """x^2 times the reciprocal, GAIN_BITS."""
        session, k = self.session, len(x)
        tickets = session.correlations.plan([plan_multiply((k,)), plan_truncation(k, STATE_BITS), plan_multiply((k,))])
        half = truncate(session, multiply(session, tickets[0], x, inverse), tickets[1])
        return multiply(session, tickets[2], x, half)

    def best(self, gains: Words, *, smallest: bool = False) -> tuple[Words, Words]:
        """The largest gain, (1,), and its place, (1,), both shared; or the smallest.

        Reveals: nothing.
        Cost: as `mpc.extrema.argmax` of one row.
        Security: semi-honest parties; the dealer does not collude.
        Source: as `mpc.extrema`.
        Raises: as `mpc.extrema.argmax`.
        """
        tickets = self.session.correlations.plan(plan_argmax(1, len(gains)))
        value, place = argmax(self.session, tickets, (np.negative(gains) if smallest else gains)[None])
        return np.negative(value) if smallest else value, place

    def below(self, gain: Words, share: float, amount: float) -> bool:
        """Whether a gain is below `share` of the residual sum of squares plus `amount`; everybody learns it.

        Reveals: to every party, that bit.
        Cost: 4 rounds; as `mpc.compare.reveal_negative` of one word.
        Security: semi-honest parties; the dealer does not collude.
        Source: as `mpc.compare`.
        Raises: as `mpc.compare.reveal_negative`.
        """
        session = self.session
        bits = STATE_BITS + THRESHOLD_BITS
        least = self.residual * np.uint64(round(share * 2.0**THRESHOLD_BITS))
        if session.me == 0:
            least = least + np.uint64(round(amount * 2.0**bits))
        tickets = session.correlations.plan(plan_reveal_negative(1))
        session.correlations.settle()
        return bool(
            reveal_negative(session, tickets, (gain << np.uint64(bits - GAIN_BITS)) - least, "stepwise/gain")[0]
        )

    def turned(self, column: int, inverse: Words) -> Sweep:
        """The state after a column outside was taken in, or one inside left out.

        inverse: (1,) reciprocal of its tolerance or of its inflation factor, STATE_BITS.

        Reveals: nothing.
        Cost: 4 rounds; 16 D^2 bytes and less to every other party; the dealer sends 24 D^2 in all.
        Security: semi-honest parties; the dealer does not collude.
        Source: as `gains`.
        Raises: as `gains`.
        """
        session, state, D = self.session, self.state, len(self.state)
        leaves = column in self.inside
        plan = [plan_multiply((D,), (1,)), plan_truncation(D, STATE_BITS)]
        plan2 = [plan_multiply((D, 1), (1, D)), plan_truncation(D * D, STATE_BITS)]
        tickets: list[Ticket] = session.correlations.plan([*plan, *plan2])
        row = np.ascontiguousarray(state[column])
        scaled = truncate(session, multiply(session, tickets[0], row, inverse), tickets[1])
        product = multiply(session, tickets[2], row[:, None], scaled[None])
        change = truncate(session, product.reshape(-1), tickets[3]).reshape(D, D)
        # Of a column inside, A_kk is minus its factor.
        after = state + change if leaves else state - change
        after[column] = after[:, column] = scaled
        after[column, column] = inverse[0] if leaves else np.negative(inverse[0])
        inside = tuple(c for c in self.inside if c != column) if leaves else (*self.inside, column)
        return replace(self, state=after, inside=inside)

    def inflated(self) -> bool:
        """Whether a variance inflation factor inside is above 1 / TOLERANCE; everybody learns it.

        Reveals: to every party, that bit.
        Cost: 5 rounds; as `mpc.compare.any_negative`.
        Security: semi-honest parties; the dealer does not collude.
        Source: as `mpc.compare`.
        Raises: as `mpc.compare.any_negative`.
        """
        session, own = self.session, list(self.inside)
        tickets = session.correlations.plan(plan_any_negative(len(own)))
        room = self.state[own, own].copy()
        if session.me == 0:
            room += np.uint64(_word(1 / TOLERANCE))
        above = any_negative(session, tickets, room)
        session.correlations.settle()
        return bool(open_any(session, above, "stepwise/inflated")[0])


def inverse_of(session: Session, x: Words, domain: Domain) -> Words:
    """Reciprocals of words with STATE_BITS, with one of Newton's steps after the fitted function; at most 2^12.

    Reveals: nothing; if the domain says so, to every party whether any word is outside.
    Cost: 12 rounds; as `mpc.functions.reciprocal`, two products and two truncations.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.functions.reciprocal`.
    Raises: as `mpc.functions.reciprocal`.
    """
    k = len(x)
    first = session.correlations.plan(plan_reciprocal(k, domain))
    rough = reciprocal(session, first, x, domain)
    step = [plan_multiply((k,)), plan_truncation(k, STATE_BITS)]
    tickets = session.correlations.plan([*step, *step])
    product = truncate(session, multiply(session, tickets[0], x, rough), tickets[1])
    return truncate(
        session, multiply(session, tickets[2], rough, _public(session, k, STATE_BITS + 1) - product), tickets[3]
    )


def _word(value: float) -> int:
    return int(value * 2**STATE_BITS + 0.5)


def _public(session: Session, k: int, bits: int) -> Words:
    """Our share of k ones with so many fractional bits."""
    return np.full(k, 1 << bits if session.me == 0 else 0, dtype=np.uint64)
