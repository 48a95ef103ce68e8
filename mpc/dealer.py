"""Correlated randomness from a dealer that sees no data: seeds to everybody, corrections split between them.

The dealer gives every compute party a 256-bit key.  Under it two AES-256-CTR streams run through the session: one says
what the party draws, one what its shares are.  What a correlation derives from all draws is cut into one range per party: a
party's shares outside its own range come from its stream, and in its range it is sent the difference between the value and
everybody else's streams.  So every word crosses one link once, and no link carries all of them.

Party 0 asks, in the order in which all parties use the correlations.  It lets the dealer work ahead by at most AHEAD_WORDS,
which bounds what anybody has to hold; the links' flow control does the rest.

Adversary: the dealer and the parties are semi-honest and the dealer does not collude with a party.  Nothing is used twice:
the streams only run forward, and a session has fresh keys, so a job that starts again shares nothing with its past.

Reveals: to the dealer, the sequence of requests (kinds and shapes).  Source: Beaver, CRYPTO 1991 (triples from a trusted
dealer); Boyle et al., CCS 2018 (compression of one side of a correlation to a seed).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import MAX_WORDS, REQUEST_TAG, Piece, Source, Ticket, parse_request
from mpc.errors import RemoteProtocolError
from mpc.reveals import Reveal
from mpc.rng import KEY_BYTES, Prg, fresh_key
from mpc.wire import Kind, recv_json, recv_words, send_json, send_words

if TYPE_CHECKING:
    from mpc.channel import Channel

Words = npt.NDArray[Any]
CORRECTION_TAG, KEY_TAG = "dealer/correction", "dealer/key"
MAX_REQUESTS = 1_000_000
BATCH = 500
SPLIT_WORDS = 4096
"""Pieces of fewer words are corrected by party 0 alone: another message would cost more than it saves."""
RECENT = 1024
"""Different requests that the dealer keeps in its parsed form."""
GATHERED_PIECES, GATHERED_BYTES = 32, 1 << 16
"""Small pieces travel together, up to so many or so many bytes."""
AHEAD_WORDS = 1 << 24
"""How many derived words (128 MiB) the dealer may be asked for before they are used, if they are not of one correlation."""

REVEALS = (
    Reveal(
        name="shapes",
        to="dealer",
        what="how many aligned rows and encoded columns each owner has and how many passes are made, "
        "from the shapes of the randomness it is asked for; never a value, a share or a result",
        precision="size",
        tags=("dealer/request",),
    ),
)


def corrected(piece: Piece, n_parties: int, party: int) -> slice:
    """Which words of a derived piece, as a flat array, this party is sent."""
    if piece.size < SPLIT_WORDS:
        return slice(0, piece.size if party == 0 else 0)
    return slice(piece.size * party // n_parties, piece.size * (party + 1) // n_parties)


def _expand(stream: Prg, piece: Piece, own: slice) -> Words:
    """A party's share as far as its stream says it: flat, with its own range, which is sent, left unset."""
    if own.stop == own.start:
        return stream.words(piece.size, piece.dtype)
    share = np.empty(piece.size, dtype=piece.dtype)
    for part in (share[: own.start], share[own.stop :]):
        if part.size:
            stream.fill(part.view(np.uint8).data)
    return share


def _streams(key: bytes) -> tuple[Prg, Prg]:
    """What a party draws, and its shares."""
    return Prg(key, 0), Prg(key, 1)


class _Deal:
    """One request as the dealer serves it, however often: what is drawn, derived and sent."""

    def __init__(self, raw: Any, parties: Sequence[str]) -> None:
        self.request = parse_request(raw, parties[0])
        self.drawn = [self.request.uniform(party) for party in range(len(parties))]
        self.derived = self.request.derived()
        pieces = [piece for drawn in self.drawn for piece in drawn] + list(self.derived)
        if any(min(p.shape, default=1) < 0 for p in pieces) or sum(p.size for p in pieces) > MAX_WORDS:
            raise RemoteProtocolError(
                parties[0], REQUEST_TAG, f"a '{self.request.kind}' of this size is over the dealer's limit"
            )
        self.ranges = [[corrected(piece, len(parties), i) for i in range(len(parties))] for piece in self.derived]


def _recent(raw: Any, parties: Sequence[str], recent: dict[str, _Deal]) -> _Deal:
    """A request as it was served before: checking its shapes takes longer than dealing something small."""
    text = json.dumps(raw, sort_keys=True)
    if text not in recent:
        deal = _Deal(raw, parties)
        if len(recent) >= RECENT:
            recent.clear()
        recent[text] = deal
    return recent[text]


class _Outbox:
    """Corrections on their way: small ones for party 0 are gathered, so that a loop of small steps is not one of messages."""

    def __init__(self, channel: Channel, parties: Sequence[str]) -> None:
        self._channel, self._parties = channel, parties
        self._gathered: list[bytes] = []
        self._bytes = 0

    def add(self, words: Words) -> None:
        """A small piece for party 0."""
        self._gathered.append(words.tobytes())
        self._bytes += words.nbytes
        if len(self._gathered) >= GATHERED_PIECES or self._bytes >= GATHERED_BYTES:
            self.flush()

    def send(self, party: int, words: Words) -> None:
        """One party's range of a large piece."""
        self.flush()
        send_words(self._channel, self._parties[party], CORRECTION_TAG, words)

    def flush(self) -> None:
        """Send what is gathered."""
        if self._bytes:
            self._channel.send(self._parties[0], CORRECTION_TAG, Kind.BYTES, b"".join(self._gathered))
        self._gathered, self._bytes = [], 0


def run_dealer(channel: Channel, parties: Sequence[str]) -> int:
    """Serve one session until party 0 says it is done; returns the number of correlations dealt.

    A batch of requests is a list; a number in it stands for the request of that number among those written out in it.

    Cost: per correlation, the derived pieces once, in equal parts to all parties, or to party 0 if they are small; 32 bytes
    per party once.
    Raises: RemoteProtocolError naming party 0 on a request outside the closed set or over the limits.
    """
    keys = [fresh_key() for _ in parties]
    for party, key in zip(parties, keys, strict=True):
        channel.send(party, KEY_TAG, Kind.BYTES, key)
    asker, dealt = parties[0], 0
    streams, outbox = [_streams(key) for key in keys], _Outbox(channel, parties)
    memory: dict[int, Words] = {}
    recent: dict[str, _Deal] = {}
    while batch := recv_json(channel, asker, REQUEST_TAG):
        if not isinstance(batch, list) or dealt + len(batch) > MAX_REQUESTS:
            raise RemoteProtocolError(asker, REQUEST_TAG, "more requests than a session may make")
        known: list[_Deal] = []
        for raw in batch:
            if type(raw) is int and 0 <= raw < len(known):
                deal = known[raw]
            else:
                deal = _recent(raw, parties, recent)
                known.append(deal)
            try:
                _deal(deal, streams, memory, outbox)
            except ValueError as exc:
                raise RemoteProtocolError(
                    asker, REQUEST_TAG, f"impossible request for '{deal.request.kind}': {exc}"
                ) from exc
        outbox.flush()
        dealt += len(batch)
    return dealt


def _deal(deal: _Deal, streams: Sequence[tuple[Prg, Prg]], memory: dict[int, Words], outbox: _Outbox) -> None:
    drawn = [
        [draws.words(p.shape, p.dtype) for p in pieces] for (draws, _), pieces in zip(streams, deal.drawn, strict=True)
    ]
    values = deal.request.derive(drawn, memory)
    for piece, value, ranges in zip(deal.derived, values, deal.ranges, strict=True):
        shares = [_expand(stream, piece, own) for (_, stream), own in zip(streams, ranges, strict=True)]
        flat = value.reshape(-1)
        if piece.size < SPLIT_WORDS:
            outbox.add(piece.correction(flat, shares[1:]))
            continue
        for i, own in enumerate(ranges):
            others = [share[own] for j, share in enumerate(shares) if j != i]
            outbox.send(i, piece.correction(flat[own], others))


class Correlations(Source):
    """A party's handle on the dealer."""

    def __init__(self, channel: Channel, dealer: str, me: int, n_parties: int) -> None:
        super().__init__(me)
        self._channel, self._dealer, self._n_parties = channel, dealer, n_parties
        self._draw_stream, self._share_stream = _streams(
            bytes(channel.recv(dealer, KEY_TAG, Kind.BYTES, exact=KEY_BYTES))
        )
        self._unasked: deque[Ticket] = deque()
        self._ahead = 0
        self._gathered = memoryview(b"")

    def close(self) -> None:
        """Tell the dealer that this session needs nothing more."""
        if self._me == 0:
            send_json(self._channel, self._dealer, REQUEST_TAG, [])

    def settle(self) -> None:
        """Nothing: the dealer is trusted to deal what was asked for."""

    def _planned(self, tickets: Sequence[Ticket]) -> None:
        if self._me == 0:
            self._unasked.extend(tickets)
            self._ask()

    def _ask(self) -> None:
        """Send as many of the waiting requests as the dealer may work ahead on."""
        while self._unasked and self._may_ask(self._unasked[0]):
            batch: list[Any] = []
            numbers: dict[int, int] = {}
            while self._unasked and len(batch) < BATCH and self._may_ask(self._unasked[0]):
                ticket = self._unasked.popleft()
                self._ahead += ticket.derived_words
                number = numbers.get(id(ticket.request))
                batch.append(ticket.request.model_dump() if number is None else number)
                numbers.setdefault(id(ticket.request), len(numbers))
            send_json(self._channel, self._dealer, REQUEST_TAG, batch)

    def _may_ask(self, ticket: Ticket) -> bool:
        return not self._ahead or self._ahead + ticket.derived_words <= AHEAD_WORDS

    def _draws(self, ticket: Ticket) -> list[Words]:
        return [self._draw_stream.words(p.shape, p.dtype) for p in ticket.drawn]

    def _shares(self, ticket: Ticket) -> list[Words]:
        out = []
        for piece in ticket.derived:
            small = piece.size < SPLIT_WORDS and self._me == 0
            out.append((self._gathered_piece(piece) if small else self._split_piece(piece)).reshape(piece.shape))
        if self._me == 0:
            self._ahead -= ticket.derived_words
            self._ask()
        return out

    def _split_piece(self, piece: Piece) -> Words:
        """A share from our stream, but for the range that we are sent."""
        own = corrected(piece, self._n_parties, self._me)
        share = _expand(self._share_stream, piece, own)
        if own.stop > own.start:
            size = (own.stop - own.start,)
            share[own] = recv_words(self._channel, self._dealer, CORRECTION_TAG, size, piece.dtype)
        return share

    def _gathered_piece(self, piece: Piece) -> Words:
        """The next small piece; several come in one message.

        Raises: RemoteProtocolError naming the dealer if its messages do not add up to pieces.
        """
        size = piece.size * np.dtype(piece.dtype).itemsize
        if size and not self._gathered:
            limit = GATHERED_BYTES + SPLIT_WORDS * 8
            self._gathered = memoryview(self._channel.recv(self._dealer, CORRECTION_TAG, Kind.BYTES, limit=limit))
        if len(self._gathered) < size:
            raise RemoteProtocolError(self._dealer, CORRECTION_TAG, "a correction is cut short")
        words = np.frombuffer(self._gathered[:size], dtype=piece.dtype).copy()
        self._gathered = self._gathered[size:]
        return words
