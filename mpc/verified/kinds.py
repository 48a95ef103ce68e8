"""Correlations modulo 2^64 together with what it takes to check them: what `mpc.verified.source` asks the dealer for instead.

Each is the original, in words of Z_2^128 of which the protocols use the lower limb, and one masked inner product (see
`ledger`).  The wider ring is what makes a check catch every error: times a secret 128-bit number an error that is not
zero modulo 2^64 is zero modulo 2^128 with probability at most 2^-65, whereas modulo 2^64 half of all numbers cancel 2^63.

Source: Cramer, Damgard, Escudero, Scholl, Xing, "SPDZ2k", CRYPTO 2018 (check in the ring 2^(k+s)); Keller, Orsini, Scholl,
"MASCOT", CCS 2016 (sacrifice); Freivalds, 1977 (check of a matrix product by random vectors).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mpc._bits import n_words, unpacked_rows
from mpc.correlations import Correlation, Count, Piece, register
from mpc.rng import Prg
from mpc.triples import SquarePair, Triple
from mpc.truncation import RANGE_BITS
from mpc.verified.ledger import Ledger, nothing
from mpc.verified.ring128 import Wide, add, dot, low, matmul, multiply, subtract, total, wide
from mpc.verified.wide import as_matrices, from_matrices, operands, sizes

Words = npt.NDArray[Any]
BITS = 64


@dataclass(frozen=True)
class WidePiece(Piece):
    """Words of Z_2^128, an array (n, 2); shares add up with the carry from limb to limb."""

    def combine(self, shares: Sequence[Words]) -> Words:
        """The value that these shares stand for."""
        value = shares[0].copy()
        for share in shares[1:]:
            value = add(value, share)
        return value

    def correction(self, value: Words, shares: Sequence[Words]) -> Words:
        """The missing share, of any even range of the flat array."""
        rest = value.reshape(-1, 2)
        for share in shares:
            rest = subtract(rest, share.reshape(-1, 2))
        return rest.reshape(-1)


class Checked(Correlation):
    """A correlation that can be checked.  parties: how many there are."""

    parties: Annotated[int, Field(ge=2, le=1 << 10)]

    def dealt_wide(self, n: int) -> WidePiece:
        """n wide words, and as many unused ones as it takes to split them evenly without cutting one in two."""
        return WidePiece((-(-n // self.parties) * self.parties, 2))

    def filled(self, *values: Wide) -> Words:
        """What the dealer puts into it."""
        flat = np.concatenate([v.reshape(-1, 2) for v in values])
        out = np.zeros(self.dealt_wide(len(flat)).shape, dtype=np.uint64)
        out[: len(flat)] = flat
        return out

    def drawn(self, drawn: Sequence[Sequence[Words]], index: int) -> Wide:
        """The value that all draws of one uniform piece stand for."""
        value: Wide = drawn[0][index].copy()
        for one in drawn[1:]:
            value = add(value, one[index])
        return value

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """Our draws of the original correlation, from those of this one."""
        return []

    @abstractmethod
    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """Enter into the ledger what has to hold; returns our shares of the original correlation.

        coins: randomness that the parties share and the dealer does not know.
        """


@register
class CheckedTriple(Checked):
    """A `Triple` and A, C for the check of c = op(a, b).

    Elementwise, with a secret chi for each element: x = chi a, summed to the shape of b, and y = b.  Otherwise, for each
    product C of the batch and secret vectors u and w: x = u^T A and y = B w.
    """

    kind: Literal["checked-triple"] = "checked-triple"
    of: Annotated[Triple, Field(strict=False)]

    def _mask(self) -> tuple[int, ...]:
        if self.of.op == "mul":
            return self.of.shape1
        batch, _, d, _ = sizes(self.of)
        return (batch, d)

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of a, b and A."""
        return tuple(Piece((*shape, 2)) for shape in (self.of.shape0, self.of.shape1, self._mask()))

    def _n_products(self) -> int:
        if self.of.op == "mul":
            return 1
        batch, _, _, k = sizes(self.of)
        return batch * k

    def derived(self) -> tuple[Piece, ...]:
        """c and C."""
        return (self.dealt_wide(math.prod(self.of.shape) + self._n_products()),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """c = op(a, b) and C = <A, y>, for other products of every column of B."""
        a, b, mask = (self.drawn(drawn, i) for i in range(3))
        if self.of.op == "mul":
            return [self.filled(multiply(a, b), dot(mask, b))]
        A, B = operands(self.of, a, b)
        return [self.filled(from_matrices(self.of, matmul(A, B)), matmul(mask[:, None], B))]

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """a and b."""
        return [low(drawn[0]), low(drawn[1])]

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """One claim for all of c."""
        shape, n = self.of.shape, math.prod(self.of.shape)
        c, C = dealt[0][:n].reshape(*shape, 2), dealt[0][n : n + self._n_products()]
        a, b, mask = drawn
        if self.of.op == "mul":
            chi = coins.words((*shape, 2))
            x = _summed(multiply(chi, a), self.of.shape1)
            ledger.ring(subtract(x, mask), b, subtract(C[0], dot(chi, c)))
            return [low(c)]
        A, B = operands(self.of, a, b)
        batch, rows, _, columns = sizes(self.of)
        u, w = coins.words((batch, 1, rows, 2)), coins.words((batch, columns, 1, 2))
        x, y = matmul(u, A)[:, 0], matmul(B, w)[:, :, 0]
        combined = matmul(u, matmul(as_matrices(self.of, c), w))
        ledger.ring(subtract(x, mask), y, subtract(dot(C, w), total(combined.reshape(-1, 2))))
        return [low(c)]


def _summed(x: Wide, shape: tuple[int, ...]) -> Wide:
    """Sum over the axes along which an array of this shape was broadcast to that of x."""
    lead = x.ndim - 1 - len(shape)
    axes = (*range(lead), *(lead + i for i, size in enumerate(shape) if size == 1 and x.shape[lead + i] != 1))
    return total(x, axis=axes).reshape(*shape, 2) if axes else x


@register
class CheckedSquare(Checked):
    """A `SquarePair` and A, C for the check of r^2, with x = chi r and y = r."""

    kind: Literal["checked-square"] = "checked-square"
    of: Annotated[SquarePair, Field(strict=False)]

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of r and A."""
        return (Piece((*self.of.shape, 2)), Piece((*self.of.shape, 2)))

    def derived(self) -> tuple[Piece, ...]:
        """r^2 and C."""
        return (self.dealt_wide(math.prod(self.of.shape) + 1),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """r^2 and <A, r>."""
        r, mask = self.drawn(drawn, 0), self.drawn(drawn, 1)
        return [self.filled(multiply(r, r), dot(mask, r))]

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """r."""
        return [low(drawn[0])]

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """One claim for all squares."""
        n = math.prod(self.of.shape)
        r, mask = drawn
        c, C = dealt[0][:n].reshape(r.shape), dealt[0][n]
        chi = coins.words(r.shape)
        ledger.ring(subtract(multiply(chi, r), mask), r, subtract(C, dot(chi, c)))
        return [low(c)]


def claim_bits(coins: Prg, ledger: Ledger, b: Wide, mask: Wide, C: Wide, rest: Wide) -> None:
    """Enter that every b is 0 or 1 modulo 2^64: b (b - 1) = 0.  b, mask: (n, 2); C = <mask, b>; rest: must be zero too."""
    chi = coins.words(b.shape)
    ledger.ring(subtract(multiply(chi, b), mask), b, add(subtract(C, dot(chi, b)), rest))


@register
class CheckedBits(Checked):
    """Rows of n random bits, packed and shared by exclusive or, and each as a wide word: for `PackedBits` and `BitPair`.

    bytewise: whether the draws are a byte for each bit, or packed words.
    """

    kind: Literal["checked-bits"] = "checked-bits"
    n: Count
    rows: Count
    bytewise: bool

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of the bits and of A."""
        packed = Piece((self.rows, n_words(self.n)), xor=True)
        bits = Piece((self.rows, self.n), np.uint8, xor=True) if self.bytewise else packed
        return (bits, Piece((self.rows * self.n, 2)))

    def derived(self) -> tuple[Piece, ...]:
        """The bits, C, and a word that is zero, to hide shares of a sum that must be zero."""
        return (self.dealt_wide(self.rows * self.n + 1), Piece((1,), xor=True))

    def _bits(self, words: Words) -> Words:
        bits = words & np.uint8(1) if self.bytewise else unpacked_rows(words, self.n)
        return np.asarray(bits, dtype=np.uint64).reshape(-1)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The exclusive or of all draws, and <A, b>."""
        b = wide(self._bits(self.uniform(0)[0].combine([d[0] for d in drawn])))
        return [self.filled(b, dot(self.drawn(drawn, 1), b)), np.zeros(1, dtype=np.uint64)]

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """The packed bits, or the bytes."""
        return [drawn[0].copy()]

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """Each is a bit, and its parity is that of the draws: the lowest bits of its shares add up to it."""
        n = self.rows * self.n
        b, C = dealt[0][:n], dealt[0][n]
        claim_bits(coins, ledger, b, drawn[1], C, nothing())
        odd = ((b[:, 0] ^ self._bits(drawn[0])) & np.uint64(1)).astype(np.bool_)
        parity = np.uint64(np.bitwise_xor.reduce(coins.words(n)[odd], initial=dealt[1][0]))
        ledger.bits(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.bool_), parity)
        return [low(b)]


def recomposed(b: Wide) -> Wide:
    """Numbers from 64 bits each, lowest first: (n, 2) from (n, 64, 2)."""
    powers = wide(np.uint64(1) << np.arange(BITS, dtype=np.uint64))
    return total(multiply(b, powers), axis=1)


def decomposed(words: Words) -> Wide:
    """The 64 bits of each of n words, lowest first: (n, 64, 2)."""
    return wide(words[:, None] >> np.arange(BITS, dtype=np.uint64) & np.uint64(1))


def deal_digits(R: Wide, mask: Wide) -> list[Wide]:
    """What `claim_digits` needs of the dealer: the bits of R modulo 2^64, what is above them, and <mask, bits>."""
    b = decomposed(R[:, 0])
    return [b, wide(R[:, 1]), dot(mask, b)]


def claim_digits(coins: Prg, ledger: Ledger, R: Wide, mask: Wide, dealt: Wide) -> Wide:
    """Enter that bits are those of R modulo 2^64; returns our shares of them, (n, 64, 2).

    R: (n, 2) shares of uniform wide words.  mask: (64 n, 2).  dealt: our shares of `deal_digits`, one after the other.
    """
    n = len(R)
    b, above, C = dealt[: BITS * n], dealt[BITS * n : (BITS + 1) * n], dealt[(BITS + 1) * n]
    bits = b.reshape(n, BITS, 2)
    lifted = above[:, ::-1].copy()  # times 2^64: the lower limb moves up
    lifted[:, 0] = 0
    wrong = subtract(subtract(R, lifted), recomposed(bits))
    claim_bits(coins, ledger, b, mask, C, dot(coins.words(R.shape), wrong))
    return bits


@register
class CheckedTruncation(Checked):
    """A `Truncation` by a power of two, and the bits of R, of which the quotient and the top bit are made."""

    kind: Literal["checked-truncation"] = "checked-truncation"
    n: Count
    shift: Annotated[int, Field(ge=1, le=RANGE_BITS)]

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of R and of A."""
        return (Piece((self.n, 2)), Piece((BITS * self.n, 2)))

    def derived(self) -> tuple[Piece, ...]:
        """The bits, what is above them, and C."""
        return (self.dealt_wide((BITS + 1) * self.n + 1),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The bits of the sum of all masks."""
        return [self.filled(*deal_digits(self.drawn(drawn, 0), self.drawn(drawn, 1)))]

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """R."""
        return [low(drawn[0])]

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """The bits are bits and make R."""
        bits = low(claim_digits(coins, ledger, drawn[0], drawn[1], dealt[0]))
        powers = np.uint64(1) << np.arange(BITS - self.shift, dtype=np.uint64)
        quotient = (bits[:, self.shift :] * powers).sum(axis=1, dtype=np.uint64)
        return [quotient, bits[:, -1].copy()]
