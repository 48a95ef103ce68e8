"""Products of shared bits together with what it takes to check them, and rows dealt twice of which one is opened.

A product z = x y of bits shared by exclusive or is checked with 64 secret subsets at a time: chi is a secret 64-bit word for
each product, and what has to vanish is the exclusive or of chi (x y + z).  Products with one factor y in common share one
opening of 64 bits (see `mpc.verified.ledger`).  A wrong product stays unnoticed with probability 2^-64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mpc._bits import WORD_BITS, planes, unpacked
from mpc._comparison import AnyBit, Chain, Digits, _digits, chosen_sum
from mpc.correlations import Correlation, Piece, register
from mpc.rng import Prg
from mpc.triples import BinaryTriple
from mpc.verified.kinds import BITS, Checked, claim_digits, deal_digits
from mpc.verified.ledger import Ledger
from mpc.verified.ring128 import low

Words = npt.NDArray[Any]
Relations = list[tuple[Words, list[tuple[Words, Words]]]]
"""Per common factor y: pairs of x and of what x y must be; packed bits."""


def _bits(packed: Words) -> npt.NDArray[np.bool_]:
    flat = np.ascontiguousarray(packed).reshape(-1)
    return unpacked(flat, flat.size * WORD_BITS)


def _masked(words: Words, packed: Words) -> np.uint64:
    """Exclusive or of the words at which a bit is 1."""
    return np.uint64(np.bitwise_xor.reduce(words[_bits(packed)], initial=np.uint64(0)))


def claim_products(coins: Prg, ledger: Ledger, relations: Relations, mask: Words, C: np.uint64) -> None:
    """Enter all relations.  mask: a word for each bit of every y, in order; C: exclusive or of those at which y is 1."""
    start, rest, alphas = 0, C, []
    for y, pairs in relations:
        size = y.size * WORD_BITS
        alpha = mask[start : start + size].copy()
        start += size
        for x, z in pairs:
            chi = coins.words(size)
            alpha ^= np.where(_bits(x), chi, np.uint64(0))
            rest ^= _masked(chi, z)
        alphas.append(alpha)
    factors = [_bits(y) for y, _ in relations]
    ledger.bits(np.concatenate(alphas), np.concatenate(factors), rest)


def _masks(n_words: int) -> Piece:
    return Piece((n_words * WORD_BITS,), xor=True)


def _combined(drawn: Sequence[Sequence[Words]], index: int, piece: Piece) -> Words:
    return piece.combine([d[index] for d in drawn])


@register
class CheckedAnd(Checked):
    """A `BinaryTriple` and A, C for its check."""

    kind: Literal["checked-and"] = "checked-and"
    of: Annotated[BinaryTriple, Field(strict=False)]

    @property
    def _shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.of.shape0, self.of.shape1)

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of a, b and A."""
        return (*self.of.uniform(party), _masks(self.of.derived()[0].size))

    def derived(self) -> tuple[Piece, ...]:
        """The bitwise AND and C."""
        return (*self.of.derived(), Piece((1,), xor=True))

    def _full(self, words: Words) -> Words:
        return np.broadcast_to(words, self._shape)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The AND, and C."""
        _, b, mask = (_combined(drawn, i, piece) for i, piece in enumerate(self.uniform(0)))
        return [*self.of.derive([d[:2] for d in drawn], memory), np.array([_masked(mask, self._full(b))])]

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """a and b."""
        return [drawn[0].copy(), drawn[1].copy()]

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """a b = c."""
        relations = [(self._full(drawn[1]), [(self._full(drawn[0]), dealt[0])])]
        claim_products(coins, ledger, relations, drawn[2], dealt[1][0])
        return [dealt[0]]


def field_times(t: np.uint64, words: Words) -> Words:
    """Products in GF(2^64), modulo x^64 + x^4 + x^3 + x + 1."""
    out = np.zeros_like(words)
    for bit in reversed(range(WORD_BITS)):
        top = out >> np.uint64(WORD_BITS - 1)
        out <<= np.uint64(1)
        out ^= top * np.uint64(0b11011)
        if int(t) >> bit & 1:
            out ^= words
    return out


@register
class CheckedAnyBit(Checked):
    """An `AnyBit` and A, C for its check: x are its words times a secret element of GF(2^64), y its mask."""

    kind: Literal["checked-any-bit"] = "checked-any-bit"
    of: Annotated[AnyBit, Field(strict=False)]

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of the mask, the words and A."""
        return (*self.of.uniform(party), _masks(self.of.m))

    def derived(self) -> tuple[Piece, ...]:
        """The sum of the chosen words, and C."""
        return (*self.of.derived(), Piece((1,), xor=True))

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The sums of the words and of A at the mask's bits."""
        mask, words, A = (_combined(drawn, i, piece) for i, piece in enumerate(self.uniform(0)))
        return [chosen_sum(words, mask), chosen_sum(A, mask)]

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """The mask and the words."""
        return [drawn[0].copy(), drawn[1].copy()]

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """The sum is that of the words."""
        t = coins.words(1)[0]
        alpha = field_times(t, drawn[1]) ^ drawn[2]
        ledger.bits(alpha, _bits(drawn[0]), dealt[1][0] ^ field_times(t, dealt[0])[0])
        return [dealt[0]]


@register
class CheckedChain(Checked):
    """A `Chain` and A, C for its check: the products of the first masks, and every other mask times each of those."""

    kind: Literal["checked-chain"] = "checked-chain"
    of: Annotated[Chain, Field(strict=False)]

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of the masks and A."""
        return (*self.of.uniform(party), _masks((2 + len(self.of.tails)) * self.of.groups * self.of.m))

    def derived(self) -> tuple[Piece, ...]:
        """The products and C."""
        return (*self.of.derived(), Piece((1,), xor=True))

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The products, and C."""
        masks, A = (_combined(drawn, i, piece) for i, piece in enumerate(self.uniform(0)))
        products = self.of.derive([d[:1] for d in drawn], memory)
        factors = [y for y, _ in self._relations(masks, products[0])]
        return [*products, np.array([_masked(A, np.stack(factors))])]

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """The masks."""
        return [drawn[0].copy()]

    def _relations(self, masks: Words, dealt: Words) -> Relations:
        p3, p2, p1 = masks[:3]
        p21, p31, p32, p321 = dealt[:4]
        # In the order of the dealt products: every set of the P that stand before a tail.
        before = [p1, p2, p21, p3, p31, p32, p321]
        out: Relations = [(p1, [(p2, p21), (p3, p31), (p32, p321)]), (p2, [(p3, p32)])]
        row = 4
        for tail, k in zip(masks[3:], self.of.tails, strict=True):
            step, count = 8 >> k, (1 << k) - 1
            out.append((tail, list(zip(before[step - 1 :: step], dealt[row : row + count], strict=True))))
            row += count
        return out

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """Every product."""
        claim_products(coins, ledger, self._relations(drawn[0], dealt[0]), drawn[1], dealt[1][0])
        return [dealt[0]]


@register
class CheckedDigits(Checked):
    """A `Digits`, the bits of r as wide words, and A, C for both.

    The bits by exclusive or are the lowest bits of their shares, so that nothing has to tie the one to the other.
    """

    kind: Literal["checked-digits"] = "checked-digits"
    of: Annotated[Digits, Field(strict=False)]

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of r, of A for its bits, and of A for their products."""
        columns = self.of.derived()[0].shape[1]
        n = self.of.n
        return (Piece((n, 2)), Piece((BITS * n, 2)), _masks(3 * 16 * columns))

    def derived(self) -> tuple[Piece, ...]:
        """Bits of r, the products, and C for the products."""
        return (self.dealt_wide((BITS + 1) * self.of.n + 1), *self.of.derived(), Piece((1,), xor=True))

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The bits of the sum of all masks, and their products."""
        r, wide_mask = self.drawn(drawn, 0), self.drawn(drawn, 1)
        mask = _combined(drawn, 2, self.uniform(0)[2])
        (products,) = self.of.derive([[low(r)]], memory)
        factors = [y for y, _ in self._relations(products, 1)]
        return [self.filled(*deal_digits(r, wide_mask)), products, np.array([_masked(mask, np.stack(factors))])]

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """r."""
        return [low(drawn[0])]

    def _relations(self, share: Words, me: int) -> Relations:
        """Of every digit: each product by its last bit is the product without it, times that bit."""
        table = self.of.load(share, me)
        out: Relations = []
        for last in (1, 2, 4):
            sets = [chosen for chosen in range(16) if chosen & -chosen == last and chosen != last]
            out.append((table[last], [(table[chosen ^ last], table[chosen]) for chosen in sets]))
        return out

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """The bits are bits and make r; the products are theirs."""
        bits = low(claim_digits(coins, ledger, drawn[0], drawn[1], dealt[0])) & np.uint64(1)
        powers = np.uint64(1) << np.arange(BITS, dtype=np.uint64)
        odd = planes((bits * powers).sum(axis=1, dtype=np.uint64))
        share = dealt[1].copy()
        if self.of.signed:
            share[0] = odd[-1]
        single = _digits(odd, signed=self.of.signed)
        for rows, digit, step in self.of._layout():
            for i in range(4):
                if (8 >> i) % step == 0:
                    share[rows.start + (8 >> i) // step - 1] = single[i][digit]
        claim_products(coins, ledger, self._relations(share, me), drawn[2], dealt[2][0])
        return [share]


@dataclass(frozen=True)
class Twice:
    """Rows of which two are dealt for one: a secret coin says which is opened and recomputed, and which is used.

    request: for twice as many rows; row i and row n + i are a pair.  of: the original request.  m wrong rows stay unnoticed
    with probability 2^-m if each is in a pair of its own, and never if two are in one.
    """

    request: Correlation
    of: Correlation
    n: int

    def _chosen(self, coins: Prg) -> tuple[Words, Words]:
        second = (coins.words(self.n, np.uint8) & np.uint8(1)).astype(np.intp)
        first = np.arange(self.n)
        return first + self.n * second, first + self.n * (1 - second)

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """The draws of the rows that are used."""
        kept, _ = self._chosen(coins)
        return [words[..., kept] for words in drawn]

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """Enter the rows that are opened; returns the others."""
        kept, opened = self._chosen(coins)
        ledger.rows(self.of, [w[..., opened] for w in drawn], [np.ascontiguousarray(w[..., opened]) for w in dealt])
        return [np.ascontiguousarray(w[..., kept]) for w in dealt]
