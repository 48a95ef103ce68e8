"""Correlated randomness from a dealer that sees no data: seeds to everybody, one correction to party 0.

The dealer gives every compute party a 256-bit key.  Correlation number i of a session is expanded from AES-256-CTR
stream i under those keys, so a party needs nothing but its key, except party 0, which is sent the difference between the
value the correlation must have and what the other parties' streams say.  Requests come from party 0, in the order in which
all parties use them, as early as it likes: the dealer works ahead and the link's flow control bounds how far.

Adversary: the dealer and the parties are semi-honest and the dealer does not collude with a party.  A number is never
used twice: the index only grows, and a session has fresh keys.

Reveals: to the dealer, the sequence of requests (kinds and shapes).  Source: Beaver, CRYPTO 1991 (triples from a trusted
dealer); Boyle et al., CCS 2018 (compression of one side of a correlation to a seed).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.reveals import Reveal
from mpc.rng import KEY_BYTES, Prg, fresh_key
from mpc.wire import Kind, recv_json, recv_words, send_json, send_words

if TYPE_CHECKING:
    from mpc.channel import Channel

Words = npt.NDArray[Any]
REQUEST_TAG, CORRECTION_TAG, KEY_TAG = "dealer/request", "dealer/correction", "dealer/key"
MAX_WORDS = 1 << 31
Count = Annotated[int, Field(ge=0, le=MAX_WORDS)]
"""A number of words, rows, columns or parties in a request."""
MAX_REQUESTS = 100_000
BATCH = 500

REVEALS = (
    Reveal(
        name="shapes",
        to="dealer",
        what="how many aligned rows and encoded columns each owner has and how many passes are made, "
        "from the shapes of the randomness it is asked for; never a value, a share or a result",
        precision="size",
    ),
)


@dataclass(frozen=True)
class Piece:
    """One array of a correlation: shape, word type, and how the parties' shares combine (sum or exclusive or)."""

    shape: tuple[int, ...]
    dtype: npt.DTypeLike = np.uint64
    xor: bool = False

    def combine(self, shares: Sequence[Words]) -> Words:
        """The value that these shares stand for."""
        total = shares[0].copy()
        for share in shares[1:]:
            (np.bitwise_xor if self.xor else np.add)(total, share, out=total)
        return total

    def correction(self, value: Words, shares: Sequence[Words]) -> Words:
        """Party 0's share, given the value and everybody else's shares."""
        rest = np.array(value, dtype=self.dtype)
        for share in shares:
            (np.bitwise_xor if self.xor else np.subtract)(rest, share, out=rest)
        return rest

    @property
    def size(self) -> int:
        """Number of words."""
        return math.prod(self.shape)


class Correlation(BaseModel):
    """A request for one correlation: what each party draws at random, and what the dealer derives from the draws.

    Subclasses are the closed set of things a dealer can be asked for; they live beside the protocol that uses them and
    register themselves by their `kind`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    kind: str

    @abstractmethod
    def uniform(self, party: int) -> tuple[Piece, ...]:
        """What this party draws from its own stream."""

    @abstractmethod
    def derived(self) -> tuple[Piece, ...]:
        """What all parties get shares of."""

    @abstractmethod
    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The values of the derived pieces, from the uniform draws of every party; the dealer's only computation.

        drawn: per party, its uniform pieces.  memory: masks of matrices that later correlations of this session refer
        to, by the matrix's number.  Raises: ValueError if the request does not fit what is remembered.
        """


_KINDS: dict[str, type[Correlation]] = {}


def register(cls: type[Correlation]) -> type[Correlation]:
    """Class decorator: add a correlation to the closed set."""
    _KINDS[cls.model_fields["kind"].default] = cls
    return cls


def parse_request(raw: Any, asker: str) -> Correlation:
    """Decode one request; anything but a known kind with sane sizes is the asker's error."""
    kind = _KINDS.get(str(raw.get("kind"))) if isinstance(raw, dict) else None
    if kind is None:
        raise RemoteProtocolError(asker, REQUEST_TAG, "asked the dealer for an unknown kind of randomness")
    try:
        return kind.model_validate(raw)
    except ValidationError as exc:
        raise RemoteProtocolError(asker, REQUEST_TAG, f"malformed request for '{raw['kind']}'") from exc


def _check_budget(request: Correlation, n_parties: int, asker: str) -> None:
    pieces = [p for party in range(n_parties) for p in request.uniform(party)] + list(request.derived())
    if any(min(p.shape, default=1) < 0 for p in pieces) or sum(p.size for p in pieces) > MAX_WORDS:
        raise RemoteProtocolError(asker, REQUEST_TAG, f"a '{request.kind}' of this size is over the dealer's limit")


def run_dealer(channel: Channel, parties: Sequence[str]) -> int:
    """Serve one session until party 0 says it is done; returns the number of correlations dealt.

    Cost: per correlation, the derived pieces to party 0; 32 bytes per party once.
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
                corrections = _deal(request, [Prg(key, index) for key in keys], memory)
            except ValueError as exc:
                raise RemoteProtocolError(
                    asker, REQUEST_TAG, f"impossible request for '{request.kind}': {exc}"
                ) from exc
            for words in corrections:
                send_words(channel, asker, CORRECTION_TAG, words)
            index += 1
    return index


def _deal(request: Correlation, streams: Sequence[Prg], memory: dict[int, Words]) -> list[Words]:
    drawn = [[stream.words(p.shape, p.dtype) for p in request.uniform(party)] for party, stream in enumerate(streams)]
    values = request.derive(drawn, memory)
    corrections = []
    for piece, value in zip(request.derived(), values, strict=True):
        others = [stream.words(piece.shape, piece.dtype) for stream in streams[1:]]
        corrections.append(piece.correction(value, others))
    return corrections


@dataclass(frozen=True)
class Ticket:
    """A correlation that was asked for and not used yet."""

    index: int
    request: Correlation


class Correlations:
    """A party's handle on the dealer: ask early with `plan`, use once and in order with `take`."""

    def __init__(self, channel: Channel, dealer: str, me: int) -> None:
        self._channel, self._dealer, self._me = channel, dealer, me
        key = channel.recv(dealer, KEY_TAG, Kind.BYTES, exact=KEY_BYTES)
        self._key = bytes(key)
        self._next = 0
        self._open: deque[Ticket] = deque()

    def __repr__(self) -> str:
        return f"Correlations(dealer={self._dealer!r}, used={self._next - len(self._open)})"

    def plan(self, requests: Sequence[Correlation]) -> list[Ticket]:
        """Ask for correlations that will be taken in this order, after all that were planned before.

        CrypTen's operators plan and take at once, so they must not run while planned tickets are open.
        """
        tickets = [Ticket(self._next + i, request) for i, request in enumerate(requests)]
        self._next += len(tickets)
        self._open.extend(tickets)
        if self._me == 0:
            dumped = [t.request.model_dump() for t in tickets]
            for start in range(0, len(dumped), BATCH):
                send_json(self._channel, self._dealer, REQUEST_TAG, dumped[start : start + BATCH])
        return tickets

    def take(self, ticket: Ticket) -> tuple[list[Words], list[Words]]:
        """This party's uniform draws and its shares of the derived values; a ticket is good once, in order.

        Raises: LocalProtocolError when the ticket is not the next one; reusing a mask would reveal a difference of data.
        """
        if not self._open or self._open[0] is not ticket:
            raise LocalProtocolError(f"correlation {ticket.index} was already used or is taken out of order")
        self._open.popleft()
        stream = Prg(self._key, ticket.index)
        drawn = [stream.words(p.shape, p.dtype) for p in ticket.request.uniform(self._me)]
        if self._me == 0:
            shares = [
                recv_words(self._channel, self._dealer, CORRECTION_TAG, p.shape, p.dtype)
                for p in ticket.request.derived()
            ]
        else:
            shares = [stream.words(p.shape, p.dtype) for p in ticket.request.derived()]
        return drawn, shares

    def draw(self, request: Correlation) -> tuple[list[Words], list[Words]]:
        """Ask for one correlation and use it at once."""
        return self.take(self.plan([request])[0])

    def close(self) -> None:
        """Tell the dealer that this session needs nothing more."""
        if self._me == 0:
            send_json(self._channel, self._dealer, REQUEST_TAG, [])
