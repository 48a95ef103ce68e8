"""A dealer that is checked: randomness that is wrong is noticed before anything computed with it is released.

`Verified` stands between a job and the supply of its dealer.  For every correlation of the job it asks for a larger one, hands
out the part the job asked for, and enters into a ledger what has to hold (`ledger`).  `settle` checks all of it in two
rounds.  The coefficients of the checks come from a key that party 0 draws and the dealer is never told, so the dealer's
errors cannot depend on them.

What is noticed if the dealer deals it wrongly, by kind:

    triple, square, matrix-product, permutation, packed-bits, bit, and, chain, digits, any-bit:
        one wrong word or more, except with probability below 2^-59 for each `settle`
    truncation: the same, for powers of two and up to EXACT_WORDS words a request
    fourier, waves, other truncations: m wrong rows, except with probability 2^-m; so a single one goes through half the time
    matrix-mask: nothing is derived, so nothing can be wrong

A kind that is not listed is refused.  Derivations: docs/protocols/verified-dealer.md.

Adversary: the dealer alone, which deviates as it likes and sees nothing that the parties send each other; the parties are
semi-honest.  Masks are expanded from keys the dealer sends, as always: that it gives a party's key to another one is not
noticed.

Reveals: nothing; every opened word is uniform, or zero unless the dealer deviated.  Source: Cramer, Damgard, Escudero, Scholl,
Xing, CRYPTO 2018; Keller, Orsini, Scholl, CCS 2016.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from mpc._comparison import AnyBit, Chain, Digits, PackedBits
from mpc.channel import Channel
from mpc.correlations import Correlation, Source, Ticket
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.fourier import FourierTuple, Waves
from mpc.matrix import MatrixMask, MatrixProduct
from mpc.rng import KEY_BYTES, Prg, derive_key, fresh_key
from mpc.shuffle import Permutation
from mpc.triples import BinaryTriple, BitPair, SquarePair, Triple
from mpc.truncation import Truncation
from mpc.verified.bits import CheckedAnd, CheckedAnyBit, CheckedChain, CheckedDigits, Twice
from mpc.verified.kinds import (
    CheckedBits,
    CheckedSquare,
    CheckedTriple,
    CheckedTruncation,
)
from mpc.verified.ledger import CHECK_TAG, Ledger
from mpc.verified.matrices import CheckedMask, CheckedPermutation, CheckedProduct
from mpc.wire import Kind

Words = npt.NDArray[Any]
COIN_TAG = "verified/coin"
EXACT_WORDS = 1 << 16
"""Truncations of more words at once are dealt twice instead of bit by bit, which takes 2 KiB a word of every party."""


class Check(Protocol):
    """How one correlation is checked: what to ask for instead, what of it to hand out, and what to enter."""

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """Our draws of the original."""
        ...

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """Our shares of the original."""
        ...


@dataclass(frozen=True)
class _Pair:
    """What is asked for in place of one request, and its check."""

    request: Correlation
    check: Check


def _same(check: Any) -> _Pair:
    return _Pair(check, check)


def _twice(request: Truncation | FourierTuple | Waves) -> _Pair:
    doubled = request.model_copy(update={"n": 2 * request.n})
    return _Pair(doubled, Twice(doubled, request, request.n))


def _truncation(request: Truncation, parties: int) -> _Pair:
    shift = request.divisor.bit_length() - 1
    if request.divisor != 1 << shift or request.n > EXACT_WORDS:
        return _twice(request)
    return _same(CheckedTruncation(n=request.n, shift=shift, parties=parties))


_CHECKS: dict[type[Correlation], Callable[[Any, int], _Pair]] = {
    Triple: lambda r, n: _same(CheckedTriple(of=r, parties=n)),
    SquarePair: lambda r, n: _same(CheckedSquare(of=r, parties=n)),
    MatrixMask: lambda r, n: _same(CheckedMask(of=r, parties=n)),
    MatrixProduct: lambda r, n: _same(CheckedProduct(of=r, parties=n)),
    BinaryTriple: lambda r, n: _same(CheckedAnd(of=r, parties=n)),
    AnyBit: lambda r, n: _same(CheckedAnyBit(of=r, parties=n)),
    Chain: lambda r, n: _same(CheckedChain(of=r, parties=n)),
    Digits: lambda r, n: _same(CheckedDigits(of=r, parties=n)),
    Permutation: lambda r, n: _same(CheckedPermutation(of=r, parties=n)),
    PackedBits: lambda r, n: _same(CheckedBits(n=r.n, rows=r.rows, bytewise=False, parties=n)),
    BitPair: lambda r, n: _same(CheckedBits(n=math.prod(r.shape), rows=1, bytewise=True, parties=n)),
    FourierTuple: lambda r, _: _twice(r),
    Waves: lambda r, _: _twice(r),
    Truncation: _truncation,
}


@dataclass(frozen=True)
class _Planned:
    """One ticket of the job: the ticket of what is asked for instead, its check, and our draws once it is begun."""

    ticket: Ticket
    check: Check
    drawn: list[Words]


class Verified(Source):
    """A supply that checks its dealer.  Whoever uses it calls `settle` before anything is released.

    inner: the dealer's supply; nobody else may use it.  dealer: whose fault wrong randomness is.
    """

    def __init__(self, inner: Source, channel: Channel, parties: Sequence[str], me: int, dealer: str) -> None:
        super().__init__(me)
        if len(parties) < 2:
            raise LocalProtocolError("the dealer of one party alone cannot be checked")
        self._inner, self._channel, self._parties, self._dealer = inner, channel, tuple(parties), dealer
        self._coins = derive_key(self._agreed_key(), "verified")
        self._ledger = Ledger()
        self._waiting: deque[_Planned] = deque()
        self._started: deque[_Planned] = deque()
        self._wrong = False

    def _agreed_key(self) -> bytes:
        if self._me:
            return bytes(self._channel.recv(self._parties[0], COIN_TAG, Kind.BYTES, exact=KEY_BYTES))
        key = fresh_key()
        for peer in self._parties[1:]:
            self._channel.send(peer, COIN_TAG, Kind.BYTES, key)
        return key

    @property
    def waiting_bytes(self) -> int:
        """What this party holds until the next `settle`, in bytes."""
        return self._ledger.waiting_bytes

    def plan(self, requests: Sequence[Correlation]) -> list[Ticket]:
        """As every supply's.  Raises: LocalProtocolError for a kind that has no check."""
        for request in requests:
            if type(request) not in _CHECKS:
                raise LocalProtocolError(f"randomness of kind '{request.kind}' cannot be verified")
        return super().plan(requests)

    def settle(self) -> None:
        """Check everything that was finished so far.

        Reveals: nothing.
        Cost: nothing if nothing was finished since the last time; else 2 rounds and, to every other party, 56 bytes and
            what docs/protocols/verified-dealer.md says for each kind.
        Security: malicious dealer that colludes with no party; semi-honest parties.
        Source: as the module.
        Raises: RemoteProtocolError naming the dealer, at every party, if anything is wrong; from then on, always.
        """
        if not self._wrong:
            self._wrong = not self._ledger.settle(self._channel, self._parties, self._me)
        if self._wrong:
            why = "the dealer's randomness is wrong: nothing that was computed with it may be released"
            raise RemoteProtocolError(self._dealer, CHECK_TAG, why)

    def close(self) -> None:
        """Check what is left, and tell the dealer that this session needs nothing more."""
        try:
            self.settle()
        finally:
            self._inner.close()

    def _planned(self, tickets: Sequence[Ticket]) -> None:
        # A request that is planned many times stays one object, which the dealer's supply writes out once.
        made: dict[int, _Pair] = {}
        for ticket in tickets:
            if id(ticket.request) not in made:
                made[id(ticket.request)] = _CHECKS[type(ticket.request)](ticket.request, len(self._parties))
        pairs = [made[id(ticket.request)] for ticket in tickets]
        inner = self._inner.plan([pair.request for pair in pairs])
        self._waiting.extend(_Planned(t, pair.check, []) for t, pair in zip(inner, pairs, strict=True))

    def _stream(self, planned: _Planned) -> Prg:
        return Prg(self._coins, planned.ticket.index)

    def _draws(self, ticket: Ticket) -> list[Words]:
        planned = self._waiting.popleft()
        planned = _Planned(planned.ticket, planned.check, self._inner.begin(planned.ticket))
        self._started.append(planned)
        handed = planned.check.hand(self._me, self._stream(planned), planned.drawn)
        pieces = ticket.request.uniform(self._me)
        return [words.reshape(piece.shape) for words, piece in zip(handed, pieces, strict=True)]

    def _shares(self, ticket: Ticket) -> list[Words]:
        planned = self._started.popleft()
        dealt = self._inner.finish(planned.ticket)
        shares = planned.check.check(self._me, self._stream(planned), self._ledger, planned.drawn, dealt)
        return [words.reshape(piece.shape) for words, piece in zip(shares, ticket.request.derived(), strict=True)]
