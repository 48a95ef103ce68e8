"""Correlated randomness for two parties without a dealer: they make it themselves by oblivious transfer.

Every correlation is made of products in which each factor is known to one party.  A party's own bits choose, the other's
words are the messages (`mpc.ot.products`).  What a correlation calls drawn is drawn by each party for itself when a ticket is
begun, and the shares are made when it is finished, by both parties together.  Where it is easier to draw something else, the
bits of a mask, the parties draw that and compute their shares of the mask from it; then they work when the ticket is begun.

So both parties begin and finish the same tickets at the same points of their protocol, with no message between them under
way: one that was sent is received before the next ticket is finished, or such a mask begun.

Cost: per kind, in the table of docs/protocols/oblivious-transfer.md; a product of words is 1088 bytes of both parties together,
a comparison with zero 1234.

Adversary: one of the two parties, semi-honest.  There is nobody else who must not collude.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc._bits import n_words, planes, unpacked_rows
from mpc._comparison import DIGIT_BITS, DIGITS, SETS, AnyBit, Chain, Digits, PackedBits
from mpc.channel import Channel
from mpc.correlations import Correlation, Source, Ticket
from mpc.errors import LocalProtocolError
from mpc.fourier import BASIS_BITS, FourierTuple, Waves
from mpc.gram import MatrixGram, MatrixWeights
from mpc.matrix import MatrixMask, MatrixProduct
from mpc.ot.angles import basis
from mpc.ot.matrices import Masks, cross
from mpc.ot.products import WHOLE, WORD_BITS, Transfers, Weights, weights
from mpc.reveals import Reveal
from mpc.rng import fresh_prg
from mpc.triples import BinaryTriple, BitPair, SquarePair, Triple, product
from mpc.truncation import Truncation

Words = npt.NDArray[Any]
Shares = tuple[list[Words], list[Words]]
"""What a party has drawn, and its shares of what is derived."""
REVEALS: tuple[Reveal, ...] = ()
"""Nothing: both parties see uniform words only, and there is no dealer who sees the requests."""

DOUBLED = weights([*range(1, WORD_BITS), None])
"""Twice the product of two words."""
CARRIES = weights([*range(1, WORD_BITS), None], bitwise=True)
"""Twice the sum of 2^r times the product of the two bits r: what two words' exclusive or lacks to their sum."""
SINGLE_BITS = weights([1] * WORD_BITS, range(WORD_BITS), bitwise=True)
"""Twice the product of every two bits, each for itself."""


class ObliviousTransfers(Source):
    """Two parties' supply of correlations from transfers between them; `me` is 0 or 1."""

    def __init__(self, channel: Channel, peer: str, me: int) -> None:
        super().__init__(me)
        if me not in (0, 1):
            raise LocalProtocolError(f"randomness without a dealer is for parties 0 and 1, not for party {me}")
        self.transfers = Transfers(channel, peer, me)
        self._prg = fresh_prg()
        masks = Masks(self.transfers, me)
        self._made: deque[Callable[[], list[Words]]] = deque()
        self._makers: dict[type[Correlation], Callable[[Any, list[Words]], list[Words]]] = {
            Triple: self._triple,
            SquarePair: self._square,
            BinaryTriple: self._binary_triple,
            BitPair: self._bit_pair,
            MatrixMask: masks.mask,
            MatrixProduct: masks.product,
            MatrixGram: masks.gram,
            MatrixWeights: masks.weights,
            Chain: self._chain,
            PackedBits: self._packed_bits,
            AnyBit: self._any_bit,
            FourierTuple: self._fourier,
            Waves: self._waves,
        }
        self._with_bits: dict[type[Correlation], Callable[[Any], Shares]] = {
            Truncation: self._truncation,
            Digits: self._digits,
        }

    def settle(self) -> None:
        """Nothing is left to check: who supplies the randomness is who uses it."""

    def close(self) -> None:
        """Nothing is left to say."""

    def _planned(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            _check_offered(ticket.request, self._makers.keys() | self._with_bits.keys())

    def _draws(self, ticket: Ticket) -> list[Words]:
        request = ticket.request
        if type(request) in self._with_bits:
            drawn, derived = self._with_bits[type(request)](request)
            self._made.append(lambda: derived)
            return drawn
        drawn = [self._random(piece.shape, piece.dtype) for piece in request.uniform(self._me)]
        self._made.append(partial(self._makers[type(request)], request, drawn))
        if isinstance(request, MatrixMask):  # is large, and kept: nobody may write it
            for mask in drawn:
                mask.flags.writeable = False
            return drawn
        return [words.copy() for words in drawn]  # the protocol may use the arrays up before the shares are made

    def _shares(self, ticket: Ticket) -> list[Words]:
        return self._made.popleft()()

    def _random(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.uint64) -> Words:
        return self._prg.words(shape, dtype)

    def _halves(self, n: int) -> tuple[slice, slice]:
        """The elements whose products we choose for, and those that the peer does: half of the work each."""
        halves = slice(0, n // 2), slice(n // 2, n)
        return halves[self._me], halves[1 - self._me]

    def _one_way(self, kind: Weights, words: Words) -> Words:
        """Shares (n_out, n) of products of our words and the peer's at the same place."""
        chosen, sent = self._halves(len(words))
        out = np.empty((kind.n_out, len(words)), dtype=np.uint64)
        out[:, chosen], out[:, sent] = self.transfers.elementwise(kind, words[chosen], words[sent])
        return out

    # --- products ---

    def _triple(self, request: Triple, drawn: list[Words]) -> list[Words]:
        a, b = drawn
        if request.op == "matmul":
            c = product("matmul", a, b) if max(a.ndim, b.ndim) <= 2 else np.asarray(np.matmul(a, b))
            return [np.asarray(c + self._matrix_triple(a, b, request.shape))]
        x, y = (np.broadcast_to(w, request.shape).reshape(-1) for w in (a, b))
        chosen, sent = self.transfers.elementwise(WHOLE, y, x)
        return [(x * y + chosen[0] + sent[0]).reshape(request.shape)]

    def _matrix_triple(self, a: Words, b: Words, shape: tuple[int, ...]) -> Words:
        """Shares of our a times the peer's b and the other way round, for stacks of matrices."""
        left = a.reshape(1, -1) if a.ndim == 1 else a
        right = b.reshape(-1, 1) if b.ndim == 1 else b
        stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        n = math.prod(stack)
        lefts = np.broadcast_to(left, stack + left.shape[-2:]).reshape(n, *left.shape[-2:])
        rights = np.broadcast_to(right, stack + right.shape[-2:]).reshape(n, *right.shape[-2:])
        out = np.empty((len(lefts), left.shape[-2], right.shape[-1]), dtype=np.uint64)
        for i, (x, y) in enumerate(zip(lefts, rights, strict=True)):
            out[i] = cross(self.transfers, x, y)
        return out.reshape(shape)

    def _square(self, request: SquarePair, drawn: list[Words]) -> list[Words]:
        flat = drawn[0].reshape(-1)
        return [(flat * flat + self._one_way(DOUBLED, flat)[0]).reshape(request.shape)]

    # --- bits ---

    def _binary_triple(self, request: BinaryTriple, drawn: list[Words]) -> list[Words]:
        shape = np.broadcast_shapes(request.shape0, request.shape1)
        x, y = (np.broadcast_to(w, shape).reshape(-1) for w in drawn)
        return [self.transfers.and_planes(x, y[None]).reshape(shape)]

    def _bit_words(self, packed: Words, n: int) -> Words:
        """Ring words (rows, n) of bits (rows, m) that are packed and shared by exclusive or: b0 + b1 - 2 b0 b1."""
        twice = self._one_way(SINGLE_BITS, packed.reshape(-1))
        both = np.ascontiguousarray(twice.T).reshape(len(packed), WORD_BITS * packed.shape[1])[:, :n]
        return np.asarray(unpacked_rows(packed, n) - both)

    def _packed_bits(self, request: PackedBits, drawn: list[Words]) -> list[Words]:
        return [self._bit_words(drawn[0], request.n)]

    def _bit_pair(self, request: BitPair, drawn: list[Words]) -> list[Words]:
        n = drawn[0].size
        packed = np.zeros(8 * n_words(n), dtype=np.uint8)
        packed[: -(-n // 8)] = np.packbits(drawn[0].reshape(-1) & np.uint8(1), bitorder="little")
        return [self._bit_words(packed.view(np.uint64)[None], n).reshape(request.shape)]

    def _any_bit(self, request: AnyBit, drawn: list[Words]) -> list[Words]:
        mask, words = drawn
        chosen = np.bitwise_xor.reduce(self.transfers.and_planes(mask, planes(words)), axis=1)
        odd = np.bitwise_count(chosen) & np.uint8(1)
        return [np.packbits(odd, bitorder="little").view(np.uint64)]

    def _truncation(self, request: Truncation) -> Shares:
        """The mask's bits are drawn, so its quotient, its remainder and its top bit are sums of them."""
        f = request.divisor.bit_length() - 1
        bits = self._random(request.n)
        top = WORD_BITS - 1
        sums = weights([*range(1, f + 1), *range(1, top - f + 1), 1], [0] * f + [1] * (top - f) + [2], bitwise=True)
        low, middle, high = self._one_way(sums, bits)
        high = (bits >> np.uint64(top)) - high
        quotient = (bits << np.uint64(1) >> np.uint64(f + 1)) - middle + (high << np.uint64(top - f))
        mask = (bits & np.uint64(request.divisor - 1)) - low + (quotient << np.uint64(f))
        return [mask], [quotient, high]

    def _grow(self, factors: Sequence[Words], table: Words) -> None:
        """As `mpc._bits.products`, of shared factors and without the empty product: table[1:], (2^k, m)."""
        for i, factor in enumerate(reversed(factors)):
            table[1 << i] = factor
            if i:
                table[(1 << i) + 1 : 2 << i] = self.transfers.and_planes(factor, table[1 : 1 << i])

    def _digits(self, request: Digits) -> Shares:
        """The bits of r are drawn; r itself is their sum."""
        words = self._random(request.n)
        r = words - self._one_way(CARRIES, words)[0]
        bits = planes(words)
        cut = np.concatenate([np.zeros_like(bits[:1]), bits[:-1]]) if request.signed else bits
        m = bits.shape[1]
        table = np.empty((SETS, DIGITS * m), dtype=np.uint64)
        self._grow([cut[i::DIGIT_BITS].reshape(-1) for i in reversed(range(DIGIT_BITS))], table)
        sets = table.reshape(SETS, DIGITS, m)
        steps = [2 if request.signed and digit == 0 else 1 for digit in range(DIGITS)]
        rows = [sets[step::step, digit] for digit, step in reversed(list(enumerate(steps)))]
        return [r], [np.concatenate([bits[-1:], *rows] if request.signed else rows)]

    def _chain(self, request: Chain, drawn: list[Words]) -> list[Words]:
        flat = drawn[0].reshape(len(drawn[0]), request.groups * request.m)
        head = np.empty((SETS // 2, flat.shape[1]), dtype=np.uint64)
        self._grow(list(flat[:3]), head)
        tails = [
            self.transfers.and_planes(t, head[8 >> k :: 8 >> k]) for t, k in zip(flat[3:], request.tails, strict=True)
        ]
        out = np.concatenate([head[[3, 5, 6, 7]], *tails])
        return [out.reshape(len(out), request.groups, request.m)]

    # --- functions ---

    def _fourier(self, request: FourierTuple, drawn: list[Words]) -> list[Words]:
        return [basis(self.transfers, drawn[0], self._halves(request.n), request.harmonics, BASIS_BITS)]

    def _waves(self, request: Waves, drawn: list[Words]) -> list[Words]:
        harmonics = range(1, 1 + request.step * request.count, request.step)
        return [basis(self.transfers, drawn[0], self._halves(request.n), harmonics, request.basis_bits)]


def _check_offered(request: Correlation, kinds: set[type[Correlation]]) -> None:
    """Raises: LocalProtocolError if this needs a dealer."""
    what = f"'{request.kind}'"
    if isinstance(request, Triple) and request.op not in ("mul", "matmul"):
        what = f"'{request.kind}' for '{request.op}'"
    elif isinstance(request, Truncation) and request.divisor & (request.divisor - 1):
        what = f"'{request.kind}' by {request.divisor}, which is not a power of two,"
    elif type(request) in kinds:
        return
    raise LocalProtocolError(f"{what} is not offered without a dealer")
