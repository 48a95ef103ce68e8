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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from mpc._bits import ALL, blocks, n_words, planes, products, shifted, unpacked
from mpc.correlations import Correlation, Count, Piece, Ticket, register
from mpc.errors import LocalProtocolError
from mpc.session import Session

Words = npt.NDArray[Any]
DIGITS, DIGIT_BITS, FAN_IN = 16, 4, 4
SETS = 1 << DIGIT_BITS
TAILS = (1, 2, 3, 3)
"""How many of P3, P2, P1 stand before G2, G1, G0 and P0."""


@register
class Digits(Correlation):
    """A uniform mask r for each of n words, and the products of the bits in each of its 16 digits, packed.

    signed: for the order, with the digits of 2 r and the top bit of r apart; otherwise with the digits of r.
    Drawn: r (n,), which adds up.  Derived: 233 or 240 planes, shared by exclusive or: the top bit if signed, then the 15
    products of digit 15, of digit 14 and so on.  Of digit 0 of 2 r only the 7 that do not contain its lowest bit, zero.
    """

    kind: Literal["digits"] = "digits"
    n: Count
    signed: bool

    @property
    def n_planes(self) -> int:
        """Planes of products and the top bit."""
        return DIGITS * (SETS - 1) - (SETS // 2 - 1 if self.signed else 0)

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of r."""
        return (Piece((self.n,)),)

    def derived(self) -> tuple[Piece, ...]:
        """The packed bits."""
        return (Piece((self.n_planes, n_words(self.n)), xor=True),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """Products of the bits of the sum of all masks."""
        r = Piece((self.n,)).combine([d[0] for d in drawn])
        bits = planes(r)
        out = np.empty((self.n_planes, bits.shape[1]), dtype=np.uint64)
        for part in blocks(bits.shape[1]):
            table = np.empty((SETS, DIGITS, part.stop - part.start), dtype=np.uint64)
            products(_digits(bits[:, part], signed=self.signed), table)
            for rows, digit, step in self._layout():
                out[rows, part] = table[step::step, digit]
        if self.signed:
            out[0] = bits[-1]
        return [out]

    def load(self, share: Words, me: int) -> Words:
        """The share of every digit's table of `products`: (16 sets, 16 digits, m) from (n_planes, m)."""
        table = np.zeros((SETS, DIGITS, share.shape[1]), dtype=np.uint64)
        table[0] = ALL if me == 0 else 0
        for rows, digit, step in self._layout():
            table[step::step, digit] = share[rows]
        return table

    def _layout(self) -> list[tuple[slice, int, int]]:
        """Per digit, its rows, and which sets they are: all but the empty one, or every second of those."""
        out, row = [], int(self.signed)
        for digit in reversed(range(DIGITS)):
            step = 2 if self.signed and digit == 0 else 1
            count = (SETS - 1) // step
            out.append((slice(row, row + count), digit, step))
            row += count
        return out


@register
class Chain(Correlation):
    """Masks for joining groups of four neighbours, and their products; m words for each of `groups` groups.

    order, equality: whether the group's G, its P or both are wanted.  Drawn: masks of P3, P2, P1, for G of G2, G1, G0 and
    for P of P0, each (groups, m).  Derived: the products of two and three of the first, then every one of the others times
    each product of the masks of those P that stand before it.  All by exclusive or.
    """

    kind: Literal["chain"] = "chain"
    groups: Count
    m: Count
    order: bool
    equality: bool

    @model_validator(mode="after")
    def _wanted(self) -> Self:
        if not (self.order or self.equality):
            raise ValueError("a chain without a result")
        return self

    @property
    def tails(self) -> tuple[int, ...]:
        """For each mask after the first three, how many of those stand before it."""
        return (TAILS[:3] if self.order else ()) + (TAILS[3:] if self.equality else ())

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of the masks."""
        return (Piece((3 + len(self.tails), self.groups, self.m), xor=True),)

    def derived(self) -> tuple[Piece, ...]:
        """The products."""
        return (Piece((4 + sum((1 << k) - 1 for k in self.tails), self.groups, self.m), xor=True),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """Products of the masks."""
        masks = self.uniform(0)[0].combine([d[0] for d in drawn])
        head = np.empty((8, self.groups, self.m), dtype=np.uint64)
        products(list(masks[:3]), head)
        out = np.empty(self.derived()[0].shape, dtype=np.uint64)
        out[:4], row = head[[3, 5, 6, 7]], 4
        for tail, k in zip(masks[3:], self.tails, strict=True):
            step, count = 8 >> k, (1 << k) - 1
            np.bitwise_and(head[step::step], tail, out=out[row : row + count])
            row += count
        return [out]


@register
class PackedBits(Correlation):
    """n random bits, packed and shared by exclusive or, and each as a ring word.  Drawn: bits (m,).  Derived: words (n,)."""

    kind: Literal["packed-bits"] = "packed-bits"
    n: Count

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of the packed bits."""
        return (Piece((n_words(self.n),), xor=True),)

    def derived(self) -> tuple[Piece, ...]:
        """The bits as ring words."""
        return (Piece((self.n,)),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The exclusive or of all draws, unpacked."""
        bits = self.uniform(0)[0].combine([d[0] for d in drawn])
        return [unpacked(bits, self.n).astype(np.uint64)]


Plan = tuple[Digits, Chain, Chain, PackedBits]
"""The correlations of one comparison, in the order of use."""


def plan_less_than_zero(n: int) -> Plan:
    """What comparing n words with zero asks of the dealer."""
    return _plan(n, signed=True)


def plan_is_zero(n: int) -> Plan:
    """What testing n words for zero asks of the dealer."""
    return _plan(n, signed=False)


def _plan(n: int, *, signed: bool) -> Plan:
    groups, m = DIGITS // FAN_IN, n_words(n)
    return (
        Digits(n=n, signed=signed),
        Chain(groups=groups, m=m, order=signed, equality=True),
        Chain(groups=1, m=m, order=signed, equality=not signed),
        PackedBits(n=n),
    )


def less_than_zero(session: Session, tickets: Sequence[Ticket], share: Words) -> Words:
    """Shares of 1 where a value, read as signed, is negative, and of 0 elsewhere; ring words of scale 1.

    tickets: for `plan_less_than_zero(n)`.  share: n uint64 words in any shape, of any x in Z_2^64.

    Reveals: nothing; every opened word is uniform.
    Cost: 4 rounds; to every other party, 8 n + 280 m bytes, m = ceil(n / 64); the dealer sends party 0 8 n + 2688 m.
    Security: semi-honest parties; the dealer does not collude.
    Source: Catrina and de Hoogh, SCN 2010 (masked comparison by a tree); Escudero et al., CRYPTO 2020 (edaBits: a mask
    shared in both worlds); Ohata and Nuida, FC 2020 (products of several masked bits in one round).
    Raises: LocalProtocolError if the tickets are not for comparing this many words, or are taken out of order.
    """
    return _compare(session, tickets, share, plan_less_than_zero(share.size))


def is_zero(session: Session, tickets: Sequence[Ticket], share: Words) -> Words:
    """Shares of 1 where a value is zero and of 0 elsewhere; ring words of scale 1.

    tickets: for `plan_is_zero(n)`.  share: n uint64 words in any shape, of any x in Z_2^64.

    Reveals: nothing; every opened word is uniform.
    Cost: 4 rounds; to every other party, 8 n + 168 m bytes, m = ceil(n / 64); the dealer sends party 0 8 n + 2360 m.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `less_than_zero`.
    Raises: LocalProtocolError if the tickets are not for testing this many words, or are taken out of order.
    """
    return _compare(session, tickets, share, plan_is_zero(share.size))


def _compare(session: Session, tickets: Sequence[Ticket], share: Words, plan: Plan) -> Words:
    if share.dtype != np.uint64 or tuple(ticket.request for ticket in tickets) != plan:
        raise LocalProtocolError(f"these correlations are not for this comparison of {share.size} words")
    digits, *chains, bits = plan
    G, P, top = _compare_digits(session, tickets[0], digits, share.reshape(-1))
    for ticket, chain in zip(tickets[1:3], chains, strict=True):
        G, P = _join(session, ticket, chain, G, P)
    return _as_words(session, tickets[3], bits, (G if digits.signed else P)[0] ^ top).reshape(share.shape)


def _compare_digits(session: Session, ticket: Ticket, request: Digits, share: Words) -> tuple[Words, Words, Words]:
    """Open x + r.  Returns G and P of every digit, lowest first, and the top bits of c - r without the borrow; one round.

    Without an order to find, G stays empty and the top is zero.
    """
    (r,), (dealt,) = session.correlations.take(ticket)
    r += share
    c = planes(session.open_words("compare/mask", r))
    m = c.shape[1]
    G, P = np.zeros((DIGITS if request.signed else 0, m), dtype=np.uint64), np.empty((DIGITS, m), dtype=np.uint64)
    for part in blocks(m):
        table = request.load(dealt[:, part], session.me)
        for bit in _digits(c[:, part], signed=request.signed):
            # Up to here c and r are equal where `equal` is 1; they stay so where (bit of r) + zero is 1; else c is less if
            # its bit is 0.
            equal, zero = table[0], ~bit
            table = shifted(table, zero)
            if request.signed:
                G[:, part] ^= zero & (equal ^ table[0])
        P[:, part] = table[0]
    top = dealt[0].copy() if request.signed else np.zeros(m, dtype=np.uint64)
    if request.signed and session.me == 0:
        top ^= c[-1]
    return G, P, top


def _digits(bits: Words, *, signed: bool) -> list[Words]:
    """The bit planes of all 16 digits, highest bit first, each (16, m); of twice the value if signed."""
    if signed:
        bits = np.concatenate([np.zeros_like(bits[:1]), bits[:-1]])
    return [bits[i::DIGIT_BITS] for i in reversed(range(DIGIT_BITS))]


def _join(session: Session, ticket: Ticket, request: Chain, G: Words, P: Words) -> tuple[Words, Words]:
    """G and P of groups of four neighbours; what the request does not want stays empty; one round."""
    (masks,), (dealt,) = session.correlations.take(ticket)
    shape = (request.groups, FAN_IN, request.m)
    equal, none = P.reshape(shape), G[:0]
    values = [equal[:, 3], equal[:, 2], equal[:, 1]]
    if request.order:
        less = G.reshape(shape)
        values += [less[:, 2], less[:, 1], less[:, 0]]
    if request.equality:
        values.append(equal[:, 0])
    opened = _open_bits(session, "compare/join", np.stack(values) ^ masks)
    tails = _tail_products(session, request, opened, masks, dealt)
    both = tails.pop() if request.equality else none
    return (less[:, 3] ^ tails[0] ^ tails[1] ^ tails[2] if request.order else none), both


def _tail_products(session: Session, request: Chain, opened: Words, masks: Words, dealt: Words) -> list[Words]:
    """Shares of every opened value after the first three, times those of the first three that stand before it."""
    head = np.zeros((8, request.groups, request.m), dtype=np.uint64)
    head[0] = ALL if session.me == 0 else 0
    head[[4, 2, 1]], head[[3, 5, 6, 7]] = masks[:3], dealt[:4]
    out, row = [], 4
    for value, mask, k in zip(opened[3:], masks[3:], request.tails, strict=True):
        count = (1 << k) - 1
        table = head[:: 8 >> k] & value
        table[0] ^= mask
        table[1:] ^= dealt[row : row + count]
        row += count
        for factor in opened[:k]:
            table = shifted(table, factor)
        out.append(table[0])
    return out


def _as_words(session: Session, ticket: Ticket, request: PackedBits, packed: Words) -> Words:
    """Packed bits shared by exclusive or as ring words; one round."""
    (mask,), (words,) = session.correlations.take(ticket)
    flip = unpacked(_open_bits(session, "compare/bit", packed ^ mask), request.n)
    np.negative(words, out=words, where=flip)  # where the opened bit is 1, the result is 1 - (the dealer's bit)
    if session.me == 0:
        words += flip
    return words


def _open_bits(session: Session, tag: str, share: Words) -> Words:
    total = share.copy()
    for other in session.exchange(tag, share):
        total ^= other
    return total
