"""What the parties still have to check about their dealer's randomness, and the two rounds in which they check all of it.

Every claim is bilinear with one factor hidden.  In Z_2^128, for a vector x the parties can compute shares of and a vector y
they have shares of, the dealer has dealt a uniform A and C = <A, y>.  The parties open alpha = x - A, which is uniform, and

    <alpha, y> + C = <x, y>

is linear in shares.  A claim says that <x, y> plus something linear is zero; the sums of all claims are opened once.  Over
bits it is the same with 64 sums at a time: x is a vector of 64-bit words, y of bits, and sums are exclusive or.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.correlations import Correlation, Piece
from mpc.verified import ring128
from mpc.verified.ring128 import Wide
from mpc.wire import recv_words, send_words

Words = npt.NDArray[Any]
MASK_TAG, MATRIX_TAG, ROWS_TAG, CHECK_TAG = "verified/mask", "verified/matrix", "verified/rows", "verified/check"
CHECKER = 1
"""The party that recomputes opened rows."""
_DIGEST_WORDS = 4


def nothing() -> Wide:
    """Zero in Z_2^128."""
    return np.zeros(2, dtype=np.uint64)


@dataclass
class Side:
    """One direction of a masked matrix: a secret random combination of its rows, masked once and opened once.

    owner: party that knows the matrix.  chi: coefficients of the rows.  alpha: chi^T U - A, or None until it is opened.
    y: our shares of the vectors multiplied since the last check, combined; None if there were none.
    """

    owner: int
    n_in: int
    chi: Wide
    alpha: Wide | None
    opened: bool = False
    y: Wide | None = None


@dataclass(frozen=True)
class Rows:
    """Rows that were dealt to be opened: what is asked for, and our draws and shares of it."""

    request: Correlation
    drawn: list[Words]
    dealt: list[Words]


@dataclass
class Ledger:
    """Claims entered by every party in the same order, and what is left of them: shares of two sums that must be zero.

    sides: directions of masked matrices, by number and transposition.
    """

    sides: dict[tuple[int, bool], Side] = field(default_factory=dict)
    _sum: Wide = field(default_factory=nothing)
    _parity: np.uint64 = field(default_factory=lambda: np.uint64(0))
    _ring: list[tuple[Wide, Wide]] = field(default_factory=list)
    _bits: list[tuple[Words, Words]] = field(default_factory=list)
    _rows: list[Rows] = field(default_factory=list)
    _entered: bool = False

    def ring(self, alpha: Wide, y: Wide, rest: Wide) -> None:
        """Claim that <alpha + A, y> + (rest - C) is zero.  alpha, y: (n, 2) shares; rest: (2,) share with C in it."""
        self._sum = ring128.add(self._sum, rest)
        self._ring.append((alpha.reshape(-1, 2), y.reshape(-1, 2)))
        self._entered = True

    def bits(self, alpha: Words, y: Words, rest: np.uint64) -> None:
        """The same over bits.  alpha: (n,) shares of words; y: (n,) shares of bits; rest: share with C in it."""
        self._parity ^= rest
        self._bits.append((alpha, y))
        self._entered = True

    def product(self, side: Side, y: Wide | None, rest: Wide) -> None:
        """The same for a matrix's owner and y: our share, None at the owner."""
        self._sum = ring128.add(self._sum, rest)
        if side.y is None:
            side.y = np.zeros((side.n_in, 2), dtype=np.uint64)
        if y is not None:
            side.y = ring128.add(side.y, y)
        self._entered = True

    def rows(self, request: Correlation, drawn: list[Words], dealt: list[Words]) -> None:
        """Claim that these rows, which are opened for it, are what the request says."""
        self._rows.append(Rows(request, drawn, dealt))
        self._entered = True

    @property
    def waiting_bytes(self) -> int:
        """What is held until the next check, in bytes."""
        pairs = sum(a.nbytes + y.nbytes for a, y in (*self._ring, *self._bits))
        return pairs + sum(w.nbytes for rows in self._rows for w in (*rows.drawn, *rows.dealt))

    def settle(self, channel: Channel, parties: Sequence[str], me: int) -> bool:
        """Check everything that was entered, in two rounds; none if nothing was.  Returns whether it is right."""
        if not self._entered:
            return True
        peers = [name for i, name in enumerate(parties) if i != me]
        self._open(channel, parties, me)
        digest = self._recomputed(channel, parties, me)
        word = np.concatenate([self._sum, [self._parity], digest]).astype(np.uint64)
        for peer in peers:
            send_words(channel, peer, CHECK_TAG, word)
        said = [
            word if i == me else recv_words(channel, name, CHECK_TAG, word.shape, np.uint64)
            for i, name in enumerate(parties)
        ]
        sums = nothing()
        for one in said:
            sums = ring128.add(sums, one[:2])
        parity = np.bitwise_xor.reduce([one[2] for one in said])
        self._sum, self._parity, self._entered = nothing(), np.uint64(0), False
        return not (sums.any() or parity or (said[0][3:] != said[CHECKER][3:]).any())

    def _open(self, channel: Channel, parties: Sequence[str], me: int) -> None:
        """Open every masked factor and add its products to the sums; send the rows that are recomputed."""
        used = [side for side in self.sides.values() if side.y is not None]
        ring = np.concatenate([a for a, _ in self._ring] or [np.zeros((0, 2), dtype=np.uint64)])
        bits = np.concatenate([a for a, _ in self._bits] or [np.zeros(0, dtype=np.uint64)])
        mine, cut = np.concatenate([ring.reshape(-1), bits]), ring.size
        for i, peer in enumerate(parties):
            if i != me:
                self._send(channel, peer, mine, [s for s in used if s.owner == me and not s.opened])
        if me != CHECKER:
            self._send_rows(channel, parties, me)
        for i, peer in enumerate(parties):
            if i == me:
                continue
            if mine.size:
                theirs = recv_words(channel, peer, MASK_TAG, mine.shape, np.uint64)
                ring = ring128.add(ring, theirs[:cut].reshape(-1, 2))
                bits ^= theirs[cut:]
            for side in used:
                if side.owner == i and not side.opened:
                    side.alpha = recv_words(channel, peer, MATRIX_TAG, (side.n_in, 2), np.uint64)
        self._evaluate(ring, bits, used)

    @staticmethod
    def _send(channel: Channel, peer: str, mine: Words, sides: Sequence[Side]) -> None:
        if mine.size:
            send_words(channel, peer, MASK_TAG, mine)
        for side in sides:
            if side.alpha is not None:
                send_words(channel, peer, MATRIX_TAG, side.alpha)

    def _evaluate(self, ring: Wide, bits: Words, used: Sequence[Side]) -> None:
        start = 0
        for _, y in self._ring:
            self._sum = ring128.add(self._sum, ring128.dot(ring[start : start + len(y)], y))
            start += len(y)
        start = 0
        for _, bit in self._bits:
            self._parity ^= np.bitwise_xor.reduce(bits[start : start + len(bit)][bit], initial=np.uint64(0))
            start += len(bit)
        for side in used:
            side.opened = True
            if side.alpha is not None and side.y is not None:
                self._sum = ring128.add(self._sum, ring128.dot(side.alpha, side.y))
            side.y = None
        self._ring, self._bits = [], []

    def _send_rows(self, channel: Channel, parties: Sequence[str], me: int) -> None:
        for rows in self._rows:
            for words in (*rows.drawn, *(rows.dealt if me > CHECKER else [])):
                send_words(channel, parties[CHECKER], ROWS_TAG, words)

    def _recomputed(self, channel: Channel, parties: Sequence[str], me: int) -> Words:
        """At party 0 the digest of its shares of all opened rows, at the checker of what they should be, else zero."""
        digest = hashlib.sha256()
        for rows in self._rows:
            expected = rows.dealt if me == 0 else []
            if me == CHECKER:
                expected = _expected(channel, parties, rows)
            for words in expected:
                digest.update(np.ascontiguousarray(words).tobytes())
        self._rows = []
        if me > CHECKER:
            return np.zeros(_DIGEST_WORDS, dtype=np.uint64)
        return np.frombuffer(digest.digest(), dtype=np.uint64)


def _expected(channel: Channel, parties: Sequence[str], rows: Rows) -> list[Words]:
    """What party 0's shares of opened rows must be, if everybody's draws and the other shares are as they are."""
    request = rows.request
    drawn = {CHECKER: rows.drawn}
    dealt = [rows.dealt]
    for i, name in enumerate(parties):
        if i == CHECKER:
            continue
        drawn[i] = [_received(channel, name, piece) for piece in request.uniform(i)]
        if i > CHECKER:
            dealt.append([_received(channel, name, piece) for piece in request.derived()])
    values = request.derive([drawn[i] for i in range(len(parties))], {})
    return [
        piece.correction(value, [shares[k] for shares in dealt])
        for k, (piece, value) in enumerate(zip(request.derived(), values, strict=True))
    ]


def _received(channel: Channel, name: str, piece: Piece) -> Words:
    return recv_words(channel, name, ROWS_TAG, piece.shape, piece.dtype)
