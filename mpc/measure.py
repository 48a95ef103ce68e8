"""What two owners open of a join with hidden membership: only what they asked for.

    joined = join(session, ...)                                  # mpc.matching.hidden: nothing is known of any row
    number = total(joined)                                       # a share of how many rows matched; nothing is sent
    number = noised_total(joined, "1/2")                         # or of that and noise of both owners
    enough(session, plan(plan_enough()), number, minimum)        # first, if there is a minimum: one bit
    reveal_count(session, number)                                # the number, exactly or with its noise
    rounded_count(session, plan(plan_rounded_count(joined, 100)), joined, 100)
    sums(session, plan([plan_sums(joined)])[0], joined, columns) # each column's sum over the rows that matched
    moments(session, plan(plan_moments(joined)), joined)         # shares: what a linear model is fitted from

Everything is computed on shares, and only the last line of each result is opened.  A supply of randomness that checks its
dealer has done so by then.  Each result says something about the rows, and a sum of a column whose values its owner chose for
that purpose says which of its rows matched; the owners' policies decide which are computed, and nothing here keeps an account
of how much several of them say together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import Plan, less_than, plan_less_than
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.matching.hidden import Hidden, kept, plan_kept
from mpc.noise import discrete_laplace, parse_epsilon
from mpc.products import multiply, plan_matmul
from mpc.rng import fresh_prg
from mpc.session import Session
from mpc.triples import Triple

Words = npt.NDArray[Any]

DIGIT = 64
"""A quotient is found digit by digit of this base, each by comparisons with all its multiples at once."""
ENCODED_BITS = 62
_MINIMUM = "measure/minimum"


@dataclass(frozen=True)
class Column:
    """A column that is added up: its values are from low to high, in steps of 2^-frac_bits, and both owners agreed on that.

    Raises: LocalProtocolError if the range is empty or does not fit.
    """

    name: str
    low: int
    high: int
    frac_bits: int = 0

    def __post_init__(self) -> None:
        if self.low > self.high or not 0 <= self.frac_bits <= ENCODED_BITS or self.largest >> ENCODED_BITS:
            raise LocalProtocolError(
                f"column '{self.name}' cannot have values from {self.low} to {self.high} with {self.frac_bits} bits behind "
                "the point"
            )

    @property
    def largest(self) -> int:
        """The largest size of a value, in steps."""
        return max(abs(self.low), abs(self.high)) << self.frac_bits

    def words(self, values: npt.ArrayLike) -> Words:
        """Our values as ring words: integers, or real numbers rounded to the nearest step.

        Raises: LocalProtocolError if values are not numbers or out of the range; it says neither which nor how many, because
            errors go into logs.
        """
        given = np.asarray(values)
        if given.dtype.kind not in "iuf":
            raise LocalProtocolError(f"column '{self.name}' has values that are not numbers")
        inside = (given >= self.low) & (given <= self.high)  # false for what is not a number
        if not inside.all():
            raise LocalProtocolError(f"column '{self.name}' has values that are not from {self.low} to {self.high}")
        if given.dtype.kind == "f":
            return np.rint(np.ldexp(given.astype(np.float64), self.frac_bits)).astype(np.int64).view(np.uint64)
        return (given.astype(np.int64) << np.int64(self.frac_bits)).view(np.uint64)

    def check_sum(self, rows: int) -> None:
        """Raises: LocalProtocolError if the sum of so many values may not fit the ring."""
        if rows * self.largest >= 1 << 63:
            raise LocalProtocolError(f"the sum of column '{self.name}' over {rows} rows may be too large for the ring")


def _open(session: Session, tag: str, share: Words) -> list[int]:
    """Release a result: everybody learns it, once the randomness behind it has been found right."""
    session.correlations.settle()
    return [int(word) for word in session.open_words(tag, share).view(np.int64)]


# --- how many rows matched, as a share


def total(joined: Hidden) -> Words:
    """(1,): our share of how many rows matched.  Nothing is sent."""
    return np.asarray(joined.matched.sum(dtype=np.uint64)).reshape(1)


def noised_total(joined: Hidden, epsilon: str) -> Words:
    """(1,): our share of how many rows matched plus noise of both owners; that may be negative or larger than the sets.

    epsilon: ours, a decimal number or a fraction, for the protection of our rows; the other owner has its own.  Replacing one
    row of a set changes the count by one at most, and each owner adds all the noise that this takes, so that the other one,
    which knows its own noise, and whoever else is told the result, learn it under differential privacy only.  Noise is drawn
    once: whatever is computed from this one share, as `enough` and `reveal_count` do, spends epsilon once, and another call
    spends it again.

    Reveals: nothing; nothing is sent.
    Cost: none.
    Security: semi-honest owners.
    Source: Canonne, Kamath, Steinke, NeurIPS 2020; Ghosh, Roughgarden, Sundararajan, STOC 2009 (the geometric mechanism).
    Raises: LocalProtocolError for an unusable epsilon.
    """
    noise = discrete_laplace(fresh_prg(), parse_epsilon(epsilon))
    return total(joined) + np.uint64(noise % (1 << 64))


# --- the gate


def plan_enough() -> Plan:
    """What `enough` asks of the dealer."""
    return plan_less_than(1, 1)


def enough(session: Session, tickets: Sequence[Ticket], share: Words, minimum: int) -> None:
    """Go on only if a number is at least the minimum that both owners agreed on; called before anything else is opened.

    tickets: for `plan_enough()`.  share: (1,), ours of the number, of `total` or `noised_total`.  If a number with noise is
    to be revealed, the gate must be about that one: whether the exact number reaches the minimum would undo the noise.
    minimum: the fewest matches to go on with, the same at both owners; they tell each other, and stop if it is not.

    Reveals: to both owners, whether the number is below the minimum.
    Cost: 6 rounds; 300 bytes to the other owner; the dealer sends 2696 in all.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.compare.less_than`.
    Raises: Refused, at both owners, if it is below; LocalProtocolError if the minimum is negative or not a number of rows;
        RemoteProtocolError, before anything is computed, if the other owner has another minimum.
    """
    if not 0 <= minimum < 1 << 32:
        raise LocalProtocolError(f"the minimum number of matches is from 0 to {(1 << 32) - 1}, got {minimum}")
    (theirs,) = session.exchange(_MINIMUM, np.array([minimum], dtype=np.uint32))
    if int(theirs[0]) != minimum:
        raise RemoteProtocolError(session.peers[0], _MINIMUM, f"expected a minimum of {minimum}, got {int(theirs[0])}")
    (fewer,) = _open(session, "measure/few", less_than(session, tickets, share, (minimum,)).reshape(1))
    if fewer:
        raise Refused(f"fewer matches with {session.peers[0]} than the agreed minimum of {minimum}")


# --- how many rows matched, opened


def reveal_count(session: Session, share: Words) -> int:
    """How many rows matched, exactly or with the noise that its share has.

    share: (1,), ours of the number, of `total` or `noised_total`.

    Reveals: to both owners, the number.
    Cost: 1 round; 8 bytes to the other owner.
    Security: semi-honest owners.
    Source: additive secret sharing.
    """
    return _open(session, "measure/count", share)[0]


def plan_rounded_count(joined: Hidden, step: int) -> list[Correlation]:
    """What `rounded_count` asks of the dealer.

    Raises: LocalProtocolError if the step is not from 1 to 2^32.
    """
    return [request for _, digits in _digits(joined, step) for request in plan_less_than(1, digits)]


def rounded_count(session: Session, tickets: Sequence[Ticket], joined: Hidden, step: int) -> int:
    """How many rows matched, to the nearest multiple of a step; from the middle upwards.

    tickets: for `plan_rounded_count(joined, step)`.  Rounded numbers of several joins that differ in one row can still tell
    whether that row matched; `noised_total` bounds what they say.

    Reveals: to both owners, the multiple; it is computed before anything is opened.
    Cost: 4 rounds for each digit and 1; 8 + 280 d bytes to the other owner for each digit and 8; the dealer sends
    1864 + 832 d for each in all.  Digits are those of the largest quotient, of base 64; d is 63, or for the first one
    its value.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.compare.less_than`.
    Raises: as `plan_rounded_count`, and LocalProtocolError if the tickets are not for this.
    """
    rest, quotient = total(joined), np.zeros(1, dtype=np.uint64)
    if session.me == 0:
        rest += np.uint64(step // 2)
    for i, (worth, digits) in enumerate(_digits(joined, step)):
        multiples = [worth * step * (digit + 1) for digit in range(digits)]
        below = less_than(session, tickets[4 * i : 4 * i + 4], rest, multiples)
        digit = np.negative(below.sum(axis=0, dtype=np.uint64))
        if session.me == 0:
            digit += np.uint64(digits)
        quotient += digit * np.uint64(worth)
        rest -= digit * np.uint64(worth * step)
    return step * _open(session, "measure/rounded", quotient)[0]


def _digits(joined: Hidden, step: int) -> list[tuple[int, int]]:
    """What each digit of the quotient is worth, the first one first, and how large it can be."""
    if not 1 <= step <= 1 << 32:
        raise LocalProtocolError(f"a count is rounded to a multiple of 1 to 2^32, got {step}")
    largest, out, worth = (joined.most + step // 2) // step, [], 1
    while largest >= worth:
        out.append((worth, min(DIGIT - 1, largest // worth)))
        worth *= DIGIT
    return out[::-1]


# --- sums over the rows that matched


def plan_sums(joined: Hidden) -> Triple:
    """What `sums` asks of the dealer."""
    return plan_matmul((1, joined.n_bins), (joined.n_bins, _width(joined)))


def check_sums(joined: Hidden, columns: Sequence[Column]) -> None:
    """Whether these columns of a join can be added up; asked before anything of it is opened.

    Raises: LocalProtocolError if there are other columns, or their sums may not fit.
    """
    if len(columns) != _width(joined):
        raise LocalProtocolError(f"the join has {_width(joined)} columns, and {len(columns)} are described")
    for column in columns:
        column.check_sum(joined.most)


def sums(session: Session, ticket: Ticket, joined: Hidden, columns: Sequence[Column]) -> list[int]:
    """The sum of every column over the rows that matched, in steps of the column; divided by `count` it is the mean.

    ticket: for `plan_sums(joined)`.  columns: what is agreed about the receiver's columns, then the sender's.

    Reveals: to both owners, the sums.  A sum over few rows, or two that differ in one row, tell what single rows hold.  To the
    owner of a column, who chose its values, its sum can tell for up to about 60 of its rows whether they matched: with
    powers of two as values each bit of the sum is one row's.
    Cost: 2 rounds; 8 (k + 1) bytes for each bin and 8 k to the other owner, for k columns; the dealer sends 8 k in all.
    Security: semi-honest owners; the dealer does not collude.  What an owner shares outside the range makes sums wrong.
    Source: Beaver, CRYPTO 1991; Ion et al., EuroS&P 2020 (the task).
    Raises: as `check_sums`, and LocalProtocolError if the ticket is not for them.
    """
    check_sums(joined, columns)
    return _open(session, "measure/sums", multiply(session, ticket, joined.matched[None, :], joined.columns)[0])


def plan_moments(joined: Hidden) -> list[Correlation]:
    """What `moments` asks of the dealer."""
    k = _width(joined)
    return [plan_kept(joined), plan_matmul((k + 1, joined.n_bins), (joined.n_bins, k))]


def moments(session: Session, tickets: Sequence[Ticket], joined: Hidden) -> Words:
    """(k + 1, k + 1): shares of sums over the rows that matched, of products of any two of 1 and the k columns.

    tickets: for `plan_moments(joined)`.  With columns of f bits behind the point, the first entry, which is the count, has
    none, the rest of the first row and column f, and all others 2 f.  The caller sees to it that they fit.

    Reveals: nothing; every opened word is uniform.
    Cost: 2 rounds; 8 (3 k + 2) bytes for each bin to the other owner; the dealer sends 8 k for each bin and 8 k (k + 1) in
    all.
    Security: semi-honest owners; the dealer does not collude.
    Source: Beaver, CRYPTO 1991.
    Raises: LocalProtocolError if the tickets are not for this, or are taken out of order.
    """
    left = np.column_stack([joined.matched, kept(session, tickets[0], joined)])
    products = multiply(session, tickets[1], np.ascontiguousarray(left.T), joined.columns)
    return np.column_stack([left.sum(axis=0, dtype=np.uint64), products])


def _width(joined: Hidden) -> int:
    return int(joined.receiver_columns.shape[1] + joined.sender_columns.shape[1])
