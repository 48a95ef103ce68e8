"""Is a shared value negative, is it zero: exact for every word of Z_2^64 and any number of parties, in four rounds.

The parties open c = x + r for a uniform r whose bits the dealer shares by exclusive or.  As x = c - r mod 2^64,

    the top bit of x is the top bit of c, plus that of r, plus [c' < r'] modulo 2, where c', r' are the other 63 bits;
    x is zero exactly if c = r;

so the public c is compared with the shared r.  It is cut into 16 digits of 4 bits.  The dealer shares all products of the
bits of each digit of r, and with them "this digit of c is less" (G) and "is equal" (P) are linear in shares, since c is
public: the first step costs no message.  Then four neighbours become one, twice, with one opening each:

    P = P3 P2 P1 P0        G = G3 + P3 G2 + P3 P2 G1 + P3 P2 P1 G0        (+ is exclusive or)

from the dealer's products of the masks under which the G and P are opened.  The last opening turns the bit into a ring word.
All bits are kept 64 to a word (`mpc._bits`).

x < T for a public T is x - T < 0, and x - T = (c - T) - r: one opened c and one dealt table of r serve any number of
thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc._bits import ALL, WORD_BITS, n_words, unpacked_rows
from mpc._comparison import (
    DIGITS,
    FAN_IN,
    AnyBit,
    Chain,
    Digits,
    PackedBits,
    chosen_sum,
    compare_digits,
    flipped,
    join,
    open_bits,
)
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError
from mpc.session import Session

__all__ = [
    "AnyBit",
    "Chain",
    "Digits",
    "PackedBits",
    "Plan",
    "any_negative",
    "is_zero",
    "less_than",
    "less_than_within",
    "less_than_zero",
    "open_any",
    "plan_any_negative",
    "plan_is_zero",
    "plan_less_than",
    "plan_less_than_within",
    "plan_less_than_zero",
    "plan_reveal_less_than",
    "plan_reveal_negative",
    "reveal_less_than",
    "reveal_negative",
]

Words = npt.NDArray[Any]
Plan = tuple[Correlation, ...]
"""The correlations of one comparison, in the order of use."""


def plan_less_than_zero(n: int) -> Plan:
    """What comparing n words with zero asks of the dealer."""
    return plan_less_than(n, 1)


def plan_is_zero(n: int) -> Plan:
    """What testing n words for zero asks of the dealer."""
    return (*_plan_bits(n, 1, signed=False), PackedBits(n=n))


def plan_less_than(n: int, k: int) -> Plan:
    """What comparing n words with each of k public thresholds asks of the dealer."""
    return (*_plan_bits(n, k, signed=True), PackedBits(n=n, rows=k))


def plan_reveal_negative(n: int) -> Plan:
    """What opening the signs of n words asks of the dealer."""
    return plan_reveal_less_than(n, 1)


def plan_reveal_less_than(n: int, k: int) -> Plan:
    """What opening how n words compare with k public thresholds asks of the dealer."""
    return _plan_bits(n, k, signed=True)


def plan_less_than_within(n: int, k: int, ranges: int = 1) -> Plan:
    """What comparing n words with k public thresholds asks of the dealer, and checking that they are in public ranges."""
    bits = _plan_bits(n, k + 2 * ranges, signed=True)
    return (*bits, PackedBits(n=n, rows=k), *(AnyBit(m=2 * n_words(n)) for _ in range(ranges)))


def plan_any_negative(n: int) -> Plan:
    """What `any_negative` of n words asks of the dealer."""
    return (*_plan_bits(n, 1, signed=True), AnyBit(m=n_words(n)))


def _plan_bits(n: int, k: int, *, signed: bool) -> tuple[Digits, Chain, Chain]:
    m = k * n_words(n)
    return (
        Digits(n=n, signed=signed),
        Chain(groups=DIGITS // FAN_IN, m=m, order=signed, equality=True),
        Chain(groups=1, m=m, order=signed, equality=not signed),
    )


def less_than_zero(session: Session, tickets: Sequence[Ticket], share: Words) -> Words:
    """Shares of 1 where a value, read as signed, is negative, and of 0 elsewhere; ring words of scale 1.

    tickets: for `plan_less_than_zero(n)`.  share: n uint64 words in any shape, of any x in Z_2^64.

    Reveals: nothing; every opened word is uniform.
    Cost: 4 rounds; to every other party, 8 n + 280 m bytes, m = ceil(n / 64); the dealer sends 8 n + 2688 m in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: Catrina and de Hoogh, SCN 2010 (masked comparison by a tree); Escudero et al., CRYPTO 2020 (edaBits: a mask
    shared in both worlds); Ohata and Nuida, FC 2020 (products of several masked bits in one round).
    Raises: LocalProtocolError if the tickets are not for comparing this many words, or are taken out of order.
    """
    return np.asarray(less_than(session, tickets, share, (0,))[0])


def is_zero(session: Session, tickets: Sequence[Ticket], share: Words) -> Words:
    """Shares of 1 where a value is zero and of 0 elsewhere; ring words of scale 1.

    tickets: for `plan_is_zero(n)`.  share: n uint64 words in any shape, of any x in Z_2^64.

    Reveals: nothing; every opened word is uniform.
    Cost: 4 rounds; to every other party, 8 n + 168 m bytes, m = ceil(n / 64); the dealer sends 8 n + 2360 m in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `less_than_zero`.
    Raises: LocalProtocolError if the tickets are not for testing this many words, or are taken out of order.
    """
    plan = plan_is_zero(share.size)
    packed = _bits(session, tickets, plan, share, (0,))
    return _as_words(session, tickets, share.size, packed).reshape(share.shape)


def less_than(session: Session, tickets: Sequence[Ticket], share: Words, thresholds: Sequence[int]) -> Words:
    """Shares of 1 where a value is below a public threshold and of 0 elsewhere, (k, *shape); ring words of scale 1.

    tickets: for `plan_less_than(n, k)`.  share: n uint64 words in any shape, of x read as signed.  thresholds: k integers T
    of the same scale.  x - T must not leave [-2^63, 2^63): then the result is meaningless, and nobody can tell.

    Reveals: nothing; every opened word is uniform.
    Cost: 4 rounds; to every other party, 8 n + 280 k m bytes, m = ceil(n / 64); the dealer sends 8 k n + (1864 + 824 k) m
    in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `less_than_zero`.
    Raises: LocalProtocolError if the tickets are not for this comparison, or are taken out of order.
    """
    plan = plan_less_than(share.size, len(thresholds))
    packed = _bits(session, tickets, plan, share, thresholds)
    return _as_words(session, tickets, share.size, packed).reshape(len(thresholds), *share.shape)


def reveal_negative(
    session: Session, tickets: Sequence[Ticket], share: Words, tag: str = "compare/reveal"
) -> npt.NDArray[np.bool_]:
    """Open whether values, read as signed, are negative; everybody learns it.  Returns an array of the share's shape.

    tickets: for `plan_reveal_negative(n)`.  share: n uint64 words in any shape, of any x in Z_2^64.  tag: what the opening is
    called, for a Reveal to name.

    Reveals: to every party, the sign of every value; what else is opened is uniform.
    Cost: 4 rounds; to every other party, 8 n + 280 m bytes, m = ceil(n / 64); the dealer sends 2688 m in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `less_than_zero`.
    Raises: LocalProtocolError if the tickets are not for this comparison, or are taken out of order.
    """
    return np.asarray(reveal_less_than(session, tickets, share, (0,), tag)[0])


def reveal_less_than(
    session: Session,
    tickets: Sequence[Ticket],
    share: Words,
    thresholds: Sequence[int],
    tag: str = "compare/reveal",
) -> npt.NDArray[np.bool_]:
    """Open whether values are below public thresholds, (k, *shape); everybody learns it.

    tickets: for `plan_reveal_less_than(n, k)`.  share, thresholds: as `less_than`.  tag: as `reveal_negative`.

    Reveals: to every party, how every value compares with every threshold; what else is opened is uniform.
    Cost: 4 rounds; to every other party, 8 n + 280 k m bytes, m = ceil(n / 64); the dealer sends (1864 + 824 k) m in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `less_than_zero`.
    Raises: as `less_than`.
    """
    plan = plan_reveal_less_than(share.size, len(thresholds))
    packed = _bits(session, tickets, plan, share, thresholds)
    opened = open_bits(session, tag, packed)  # fresh shares: each holds a dealt product used nowhere else
    return unpacked_rows(opened, share.size).reshape(len(thresholds), *share.shape)


def less_than_within(
    session: Session,
    tickets: Sequence[Ticket],
    share: Words,
    thresholds: Sequence[int],
    allowed: Sequence[tuple[int, int]],
) -> tuple[Words, Words]:
    """`less_than`, and whether any value is outside public ranges (lo, hi), lo <= x < hi, in the same rounds.

    tickets: for `plan_less_than_within(n, k, ranges)`; k may be 0.  hi - lo < 2^63; whether x is inside is right for every
    word, the bits only where x - T does not leave the signed range.  Returns the shares of the k bits, and by exclusive or
    of a word for each range: 0 if all values are inside, otherwise uniform, so that 0 has probability 2^-64.  Words of
    several calls may be added up by exclusive or before `open_any` opens them.

    Reveals: nothing; every opened word is uniform.
    Cost: 4 rounds; to every other party, 8 n + (280 k + 560 q) m bytes, m = ceil(n / 64), for q ranges; the dealer sends
    8 k n + (1864 + 824 k + 1648 q) m + 8 q in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `less_than_zero`; for the word, Freivalds, IFIP 1977 (a random combination notices a difference).
    Raises: as `less_than`.
    """
    n, k = share.size, len(thresholds)
    plan = plan_less_than_within(n, k, len(allowed))
    packed = _bits(session, tickets, plan, share, (*thresholds, *(end for ends in allowed for end in ends)))
    outside = packed[k:]  # below lo, and below hi; what is not below hi is outside
    if session.me == 0:
        outside[1::2] ^= ALL
    if n % WORD_BITS:  # what fills the last word is not outside
        outside[:, -1] &= np.uint64((1 << n % WORD_BITS) - 1)
    drawn = [session.correlations.begin(ticket) for ticket in tickets[3:]]
    masks = np.concatenate([drawn[0][0], *(mask.reshape(2, -1) for mask, _ in drawn[1:])])
    opened = open_bits(session, "compare/bit", packed ^ masks)
    dealt = [session.correlations.finish(ticket)[0] for ticket in tickets[3:]]
    rows = opened[k:].reshape(len(allowed), -1)
    words = [chosen_sum(each, row) for (_, each), row in zip(drawn[1:], rows, strict=True)]
    bits = flipped(session, n, dealt[0], opened[:k])
    return bits.reshape(k, *share.shape), np.concatenate(words) ^ np.concatenate(dealt[1:])


def any_negative(session: Session, tickets: Sequence[Ticket], share: Words) -> Words:
    """Shares of a word that says whether any value is negative; `open_any` opens it.

    tickets: for `plan_any_negative(n)`.  Returns a word, (1,), as `less_than_within` does for a range.

    Reveals: nothing; every opened word is uniform.
    Cost: 4 rounds; to every other party, 8 n + 280 m bytes, m = ceil(n / 64); the dealer sends 2688 m + 8 in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `less_than_within`.
    Raises: as `less_than`.
    """
    n = share.size
    packed = _bits(session, tickets, plan_any_negative(n), share, (0,))
    if n % WORD_BITS:
        packed[:, -1] &= np.uint64((1 << n % WORD_BITS) - 1)
    mask, each = session.correlations.begin(tickets[3])
    opened = open_bits(session, "compare/bit", packed ^ mask)
    return chosen_sum(each, opened[0]) ^ session.correlations.finish(tickets[3])[0]


def open_any(session: Session, words: Words, tag: str = "compare/any") -> npt.NDArray[np.bool_]:
    """Open the words of `less_than_within`: for each range, whether any value is outside.

    tag: as `reveal_negative`.

    Reveals: to every party, for each range whether any value is outside, and nothing about which or how many.
    Cost: 1 round; 8 bytes for each range to every other party.
    Security: semi-honest parties; the dealer does not collude.  If a value is outside, False has probability 2^-64.
    Source: as `less_than_within`.
    """
    return np.asarray(open_bits(session, tag, words) != 0)


def _bits(session: Session, tickets: Sequence[Ticket], plan: Plan, share: Words, thresholds: Sequence[int]) -> Words:
    """The results as packed bits shared by exclusive or, (k, m); three rounds."""
    if share.dtype != np.uint64 or tuple(ticket.request for ticket in tickets) != plan:
        raise LocalProtocolError(f"these correlations are not for this comparison of {share.size} words")
    G, P, top = compare_digits(session, tickets[0], share.reshape(-1), thresholds)
    for ticket in tickets[1:3]:
        G, P = join(session, ticket, G, P)
    return (G if len(G) else P).reshape(top.shape) ^ top


def _as_words(session: Session, tickets: Sequence[Ticket], n: int, packed: Words) -> Words:
    """Rows of packed bits shared by exclusive or, (k, m), as ring words, (k, n); one round."""
    (mask,) = session.correlations.begin(tickets[3])
    opened = open_bits(session, "compare/bit", packed ^ mask)
    (dealt,) = session.correlations.finish(tickets[3])
    return flipped(session, n, dealt, opened)
