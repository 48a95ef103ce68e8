"""Division of shared integers by public ones, exact to one unit for any number of parties.

Fixed-point products have twice the fractional bits they should; dividing by 2^f brings them back.  Dividing each share on
its own is wrong by 2^(64-f) once in a while, and one such element ruins a model, so a dealer's mask is used instead:

    open c = x + o + R mod 2^64, where R is uniform, and o, a multiple of the divisor d just below 2^62, makes x + o positive;
    x + o + R wrapped past 2^64 exactly if the top bit of R is 1 and the top bit of c is 0, because x + o < 2^63;
    so floor((x + o + R) / d) - floor(R / d) - o / d, which is floor(x / d) or one more, is linear in shares of the
    dealer's floor(R / d) and top bit, with public coefficients.

The rounding is random and unbiased: it goes up with probability (x mod d) / d.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mpc.correlations import MAX_WORDS, Correlation, Piece, Ticket, register
from mpc.errors import LocalProtocolError
from mpc.session import Session

Words = npt.NDArray[Any]
RANGE_BITS = 62
"""Values x with |x| <= 2^62 - d are divided right; outside, the result is meaningless, and nobody can tell."""
_RING = 1 << 64


@register
class Truncation(Correlation):
    """A uniform mask R for each of n words, and shares of floor(R / divisor) and of R's top bit.

    Drawn: R (n,).  Derived: quotient (n,), top (n,).
    """

    kind: Literal["truncation"] = "truncation"
    n: Annotated[int, Field(ge=0, le=MAX_WORDS)]
    divisor: Annotated[int, Field(ge=2, le=1 << RANGE_BITS)]

    @property
    def offset(self) -> int:
        """The multiple of the divisor that makes every legal value positive."""
        return (1 << RANGE_BITS) // self.divisor * self.divisor

    def quotient(self, words: Words) -> Words:
        """Floor of the words, read as unsigned, by the divisor."""
        if self.divisor & (self.divisor - 1) == 0:
            return words >> np.uint64(self.divisor.bit_length() - 1)
        return words // np.uint64(self.divisor)

    def lift(self, opened: Words) -> Words:
        """How much larger the quotient is if `opened` had wrapped; 0 where it cannot have."""
        whole, rest = divmod(_RING, self.divisor)
        lifted = np.full(opened.shape, whole, dtype=np.uint64)
        if rest:
            lifted += opened % np.uint64(self.divisor) + np.uint64(rest) >= np.uint64(self.divisor)
        lifted[opened >> np.uint64(63) == 1] = 0
        return lifted

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of R."""
        return (Piece((self.n,)),)

    def derived(self) -> tuple[Piece, ...]:
        """The quotient and the top bit of R."""
        return (Piece((self.n,)), Piece((self.n,)))

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """Quotient and top bit of the sum of all masks."""
        R = Piece((self.n,)).combine([d[0] for d in drawn])
        return [self.quotient(R), R >> np.uint64(63)]


def plan_truncation(n: int, shift: int) -> Truncation:
    """What dividing n words by 2^shift asks of the dealer; 1 <= shift <= 62."""
    if not 1 <= shift <= RANGE_BITS:
        raise LocalProtocolError(f"a truncation drops 1 to {RANGE_BITS} bits, not {shift}")
    return Truncation(n=n, divisor=1 << shift)


def truncate_many(session: Session, tickets: Sequence[Ticket], shares: Sequence[Words]) -> list[Words]:
    """Divide several shared vectors by public integers, all in one round.

    tickets: one `Truncation` each, in the order they were planned.  shares: uint64 words of any shape, as many as the
    ticket says, of signed integers x with |x| <= 2^62 - divisor.  Returns shares of floor(x / divisor) or one more.

    Reveals: nothing; every opened word is uniform.
    Cost: 1 round; 8 n bytes to every other party for n words in all; the dealer sends 16 n bytes in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: Dalskov, Escudero, Keller, PoPETs 2020 (probabilistic truncation in a ring, with the mask's top bit).
    Raises: LocalProtocolError if a ticket is not for a truncation of this many words, or is taken out of order.
    """
    if not shares:
        return []
    requests = [_request(ticket, share) for ticket, share in zip(tickets, shares, strict=True)]
    masked = []
    for ticket, request, share in zip(tickets, requests, shares, strict=True):
        (R,) = session.correlations.begin(ticket)
        R += share.reshape(-1)
        if session.me == 0:
            R += np.uint64(request.offset)
        masked.append(R)
    out = []
    opened = session.open_many("truncation/open", masked)
    for ticket, c, request, share in zip(tickets, opened, requests, shares, strict=True):
        quotient, top = session.correlations.finish(ticket)
        result = top * request.lift(c) - quotient
        if session.me == 0:
            result += request.quotient(c) - np.uint64(request.offset // request.divisor)
        out.append(result.reshape(share.shape))
    return out


def truncate(session: Session, share: Words, ticket: Ticket) -> Words:
    """Divide one shared vector by a public integer; everything else as `truncate_many`."""
    return truncate_many(session, [ticket], [share])[0]


def _request(ticket: Ticket, share: Words) -> Truncation:
    request = ticket.request
    if not isinstance(request, Truncation) or request.n != share.size or share.dtype != np.uint64:
        raise LocalProtocolError(f"correlation {ticket.index} is not for truncating {share.size} words")
    return request
