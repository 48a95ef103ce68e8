"""The parts of a comparison: what it asks of the dealer, and its steps on bits that are packed 64 to a word.

`mpc.compare` says how they make a protocol, docs/protocols/compare.md why they are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from mpc._bits import ALL, WORD_BITS, blocks, n_words, planes, products, shifted, unpacked, unpacked_rows
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

    @classmethod
    def of(cls, ticket: Ticket) -> Self:
        """The ticket's request, which must be of this kind."""
        if not isinstance(ticket.request, cls):
            raise LocalProtocolError(f"correlation {ticket.index} is not for a step of a comparison")
        return ticket.request

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

    @classmethod
    def of(cls, ticket: Ticket) -> Self:
        """The ticket's request, which must be of this kind."""
        if not isinstance(ticket.request, cls):
            raise LocalProtocolError(f"correlation {ticket.index} is not for a step of a comparison")
        return ticket.request

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
    """Rows of n random bits, packed and shared by exclusive or, and each bit as a ring word.

    Drawn: bits (rows, m), m = ceil(n / 64).  Derived: words (rows, n).
    """

    kind: Literal["packed-bits"] = "packed-bits"
    n: Count
    rows: Count = 1

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of the packed bits."""
        return (Piece((self.rows, n_words(self.n)), xor=True),)

    def derived(self) -> tuple[Piece, ...]:
        """The bits as ring words."""
        return (Piece((self.rows, self.n)),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The exclusive or of all draws, unpacked."""
        bits = self.uniform(0)[0].combine([d[0] for d in drawn])
        return [unpacked_rows(bits, self.n).astype(np.uint64)]


@register
class AnyBit(Correlation):
    """What tells whether any of 64 m shared bits is 1, and nothing else.

    Drawn: a mask of the bits (m,) and a uniform word for each bit (64 m,).  Derived: the exclusive or of the words whose
    mask bit is 1 (1,).  All by exclusive or.
    """

    kind: Literal["any-bit"] = "any-bit"
    m: Count

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of the mask and of the words."""
        return (Piece((self.m,), xor=True), Piece((self.m * WORD_BITS,), xor=True))

    def derived(self) -> tuple[Piece, ...]:
        """One word."""
        return (Piece((1,), xor=True),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The words of the mask's bits, added up."""
        mask, words = (piece.combine([d[i] for d in drawn]) for i, piece in enumerate(self.uniform(0)))
        return [chosen_sum(words, mask)]


def chosen_sum(words: Words, bits: Words) -> Words:
    """The exclusive or of the words whose packed bit is 1: (1,)."""
    chosen = words[unpacked(bits, len(words))]
    return np.bitwise_xor.reduce(chosen, keepdims=True) if len(chosen) else np.zeros(1, dtype=np.uint64)


def compare_digits(
    session: Session, ticket: Ticket, share: Words, thresholds: Sequence[int]
) -> tuple[Words, Words, Words]:
    """Open c = x + r.  Returns G and P of every digit, lowest first, of c - T and r for every threshold T; one round.

    Both are (16, k, m), and the third result is the top bits of c - T - r without the borrow, (k, m).  Without an order to
    find, G stays empty and the top is zero.
    """
    request = Digits.of(ticket)
    (r,) = session.correlations.begin(ticket)
    r += share
    c = session.open_words("compare/mask", r)
    (dealt,) = session.correlations.finish(ticket)
    k, m = len(thresholds), n_words(len(c))
    G, P = np.zeros((DIGITS if request.signed else 0, k, m), dtype=np.uint64), np.empty((DIGITS, k, m), dtype=np.uint64)
    top = np.zeros((k, m), dtype=np.uint64)
    if request.signed:
        top[:] = dealt[0]
    for part in blocks(m):
        loaded = request.load(dealt[:, part], session.me)
        piece = c[part.start * WORD_BITS : part.stop * WORD_BITS]
        for j, threshold in enumerate(thresholds):
            bits, table = planes(piece - np.uint64(threshold % (1 << 64)) if threshold else piece), loaded
            for bit in _digits(bits, signed=request.signed):
                # Up to here c - T and r are equal where `equal` is 1; they stay so where (bit of r) + zero is 1; else
                # c - T is less if its bit is 0.
                equal, zero = table[0], ~bit
                table = shifted(table, zero)
                if request.signed:
                    G[:, j, part] ^= zero & (equal ^ table[0])
            P[:, j, part] = table[0]
            if request.signed and session.me == 0:
                top[j, part] ^= bits[-1]
    return G, P, top


def _digits(bits: Words, *, signed: bool) -> list[Words]:
    """The bit planes of all 16 digits, highest bit first, each (16, m); of twice the value if signed."""
    if signed:
        bits = np.concatenate([np.zeros_like(bits[:1]), bits[:-1]])
    return [bits[i::DIGIT_BITS] for i in reversed(range(DIGIT_BITS))]


def join(session: Session, ticket: Ticket, G: Words, P: Words) -> tuple[Words, Words]:
    """G and P of groups of four neighbours; what the ticket's `Chain` does not want stays empty; one round."""
    request = Chain.of(ticket)
    (masks,) = session.correlations.begin(ticket)
    shape = (request.groups, FAN_IN, request.m)
    equal, none = P.reshape(shape), G[:0]
    values = [equal[:, 3], equal[:, 2], equal[:, 1]]
    if request.order:
        less = G.reshape(shape)
        values += [less[:, 2], less[:, 1], less[:, 0]]
    if request.equality:
        values.append(equal[:, 0])
    opened = open_bits(session, "compare/join", np.stack(values) ^ masks)
    (dealt,) = session.correlations.finish(ticket)
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


def flipped(session: Session, n: int, words: Words, opened: Words) -> Words:
    """Rows of the dealer's n bits as words, changed to 1 - b where the opened bit is 1; in place."""
    flip = unpacked_rows(opened, n)
    np.negative(words, out=words, where=flip)
    if session.me == 0:
        words += flip
    return words


def open_bits(session: Session, tag: str, share: Words) -> Words:
    """Open what is shared by exclusive or; one round."""
    total = share.copy()
    for other in session.exchange(tag, share):
        total ^= other
    return total
