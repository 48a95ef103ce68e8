"""Correlated randomness from a dealer that sees no data: seeds to everybody, corrections split between them.

The dealer gives every compute party a 256-bit key.  Correlation number i of a session is expanded from AES-256-CTR
stream i under those keys.  What a correlation derives is cut into one range per party: a party's shares outside its own
range come from its stream, and in its range it is sent the difference between the value and everybody else's streams.  So
every word crosses one link once, and no link carries all of them.

Party 0 asks, in the order in which all parties use the correlations.  It lets the dealer work ahead by at most AHEAD_WORDS,
which bounds what anybody has to hold; the links' flow control does the rest.

Adversary: the dealer and the parties are semi-honest and the dealer does not collude with a party.  A number is never
used twice: the index only grows, and a session has fresh keys, so a job that starts again shares nothing with its past.

Reveals: to the dealer, the sequence of requests (kinds and shapes).  Source: Beaver, CRYPTO 1991 (triples from a trusted
dealer); Boyle et al., CCS 2018 (compression of one side of a correlation to a seed).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import MAX_WORDS, REQUEST_TAG, Correlation, Piece, Source, Ticket, parse_request
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
AHEAD_WORDS = 1 << 24
"""How many derived words (128 MiB) the dealer may be asked for before they are used, if they are not of one correlation."""

REVEALS = (
    Reveal(
        name="shapes",
        to="dealer",
        what="how many aligned rows and encoded columns each owner has and how many passes are made, "
        "from the shapes of the randomness it is asked for; never a value, a share or a result",
        precision="size",
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


def _check_budget(request: Correlation, n_parties: int, asker: str) -> None:
    pieces = [p for party in range(n_parties) for p in request.uniform(party)] + list(request.derived())
    if any(min(p.shape, default=1) < 0 for p in pieces) or sum(p.size for p in pieces) > MAX_WORDS:
        raise RemoteProtocolError(asker, REQUEST_TAG, f"a '{request.kind}' of this size is over the dealer's limit")


def run_dealer(channel: Channel, parties: Sequence[str]) -> int:
    """Serve one session until party 0 says it is done; returns the number of correlations dealt.

    Cost: per correlation, the derived pieces once, in equal parts to all parties, or to party 0 if they are small; 32 bytes
    per party once.
    Raises: RemoteProtocolError naming party 0 on a request outside the closed set or over the limits.
    """
    keys = [fresh_key() for _ in parties]
    for party, key in zip(parties, keys, strict=True):
        channel.send(party, KEY_TAG, Kind.BYTES, key)
    asker, index = parties[0], 0
    memory: dict[int, Words] = {}
    while requests := recv_json(channel, asker, REQUEST_TAG):
        if not isinstance(requests, list) or index + len(requests) > MAX_REQUESTS:
            raise RemoteProtocolError(asker, REQUEST_TAG, "more requests than a session may make")
        for raw in requests:
            request = parse_request(raw, asker)
            _check_budget(request, len(parties), asker)
            try:
                _deal(channel, parties, request, [Prg(key, index) for key in keys], memory)
            except ValueError as exc:
                raise RemoteProtocolError(
                    asker, REQUEST_TAG, f"impossible request for '{request.kind}': {exc}"
                ) from exc
            index += 1
    return index


def _deal(
    channel: Channel,
    parties: Sequence[str],
    request: Correlation,
    streams: Sequence[Prg],
    memory: dict[int, Words],
) -> None:
    drawn = [[stream.words(p.shape, p.dtype) for p in request.uniform(party)] for party, stream in enumerate(streams)]
    for piece, value in zip(request.derived(), request.derive(drawn, memory), strict=True):
        ranges = [corrected(piece, len(parties), party) for party in range(len(parties))]
        rest = value.reshape(-1)
        shares = [_expand(stream, piece, own) for stream, own in zip(streams, ranges, strict=True)]
        for i, own in enumerate(ranges):
            if own.stop > own.start:
                others = [share[own] for j, share in enumerate(shares) if j != i]
                send_words(channel, parties[i], CORRECTION_TAG, piece.correction(rest[own], others))


class Correlations(Source):
    """A party's handle on the dealer."""

    def __init__(self, channel: Channel, dealer: str, me: int, n_parties: int) -> None:
        super().__init__(me)
        self._channel, self._dealer, self._n_parties = channel, dealer, n_parties
        self._key = bytes(channel.recv(dealer, KEY_TAG, Kind.BYTES, exact=KEY_BYTES))
        self._unasked: deque[Ticket] = deque()
        self._ahead = 0
        self._streams: deque[Prg] = deque()

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
        batch: list[Any] = []
        while self._unasked:
            words = _derived_words(self._unasked[0])
            if self._ahead and self._ahead + words > AHEAD_WORDS:
                break
            self._ahead += words
            batch.append(self._unasked.popleft().request.model_dump())
            if len(batch) == BATCH:
                send_json(self._channel, self._dealer, REQUEST_TAG, batch)
                batch = []
        if batch:
            send_json(self._channel, self._dealer, REQUEST_TAG, batch)

    def _draws(self, ticket: Ticket) -> list[Words]:
        stream = Prg(self._key, ticket.index)
        self._streams.append(stream)
        return [stream.words(p.shape, p.dtype) for p in ticket.request.uniform(self._me)]

    def _shares(self, ticket: Ticket) -> list[Words]:
        stream = self._streams.popleft()
        out = []
        for piece in ticket.request.derived():
            own = corrected(piece, self._n_parties, self._me)
            share = _expand(stream, piece, own)
            if own.stop > own.start:
                size = (own.stop - own.start,)
                share[own] = recv_words(self._channel, self._dealer, CORRECTION_TAG, size, piece.dtype)
            out.append(share.reshape(piece.shape))
        if self._me == 0:
            self._ahead -= _derived_words(ticket)
            self._ask()
        return out


def _derived_words(ticket: Ticket) -> int:
    return sum(piece.size for piece in ticket.request.derived())
