"""Correlated randomness: the closed set of what parties can ask for, and the interface of whoever supplies it.

A correlation is a list of uniform arrays that parties draw and a list of derived arrays of which all get shares.  Its class
lives beside the protocol that uses it and registers itself.  Protocols know nothing of where correlations come from: a
`Source` hands them out, which is the dealer's (`mpc.dealer`) unless the job says otherwise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mpc.errors import LocalProtocolError, RemoteProtocolError

Words = npt.NDArray[Any]
MAX_WORDS = 1 << 31
Count = Annotated[int, Field(ge=0, le=MAX_WORDS)]
"""A number of words, rows, columns or parties in a request."""
REQUEST_TAG = "dealer/request"


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
        """The one share that is not from a stream, given the value and everybody else's shares."""
        rest = np.array(value, dtype=self.dtype)
        for share in shares:
            (np.bitwise_xor if self.xor else np.subtract)(rest, share, out=rest)
        return rest

    @cached_property
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


@dataclass(frozen=True, eq=False)
class Ticket:
    """A correlation that was asked for and not used yet; its holder draws `drawn` and gets shares of `derived`."""

    index: int
    request: Correlation
    drawn: tuple[Piece, ...]
    derived: tuple[Piece, ...]

    @property
    def derived_words(self) -> int:
        """Words in all derived pieces."""
        return sum(piece.size for piece in self.derived)


@dataclass(frozen=True)
class Usage:
    """How much randomness of one kind a party has used: correlations, and words it holds of them."""

    count: int = 0
    words: int = 0


class Source(ABC):
    """A party's supply of correlations: ask early with `plan`, use once and in order.

    used: per kind, what was used so far.
    """

    def __init__(self, me: int) -> None:
        self._me = me
        self._next = 0
        self._open: deque[Ticket] = deque()
        self._begun: deque[Ticket] = deque()
        self.used: dict[str, Usage] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(used={self._next - len(self._open)})"

    def plan(self, requests: Sequence[Correlation]) -> list[Ticket]:
        """Ask for correlations that will be taken in this order, after all that were planned before.

        CrypTen's operators plan and take at once, so they must not run while planned tickets are open.
        """
        pieces = {id(request): (request.uniform(self._me), request.derived()) for request in requests}
        tickets = [Ticket(self._next + i, request, *pieces[id(request)]) for i, request in enumerate(requests)]
        self._next += len(tickets)
        self._open.extend(tickets)
        self._planned(tickets)
        return tickets

    def begin(self, ticket: Ticket) -> list[Words]:
        """Spend a ticket: this party's uniform draws.  Its shares may still be on their way; `finish` waits for them.

        Raises: LocalProtocolError when the ticket is not the next one; reusing a mask would reveal a difference of data.
        """
        if not self._open or self._open[0] is not ticket:
            raise LocalProtocolError(f"correlation {ticket.index} was already used or is taken out of order")
        self._open.popleft()
        self._begun.append(ticket)
        drawn = self._draws(ticket)
        before = self.used.get(ticket.request.kind, Usage())
        held = before.words + sum(w.size for w in drawn) + ticket.derived_words
        self.used[ticket.request.kind] = Usage(before.count + 1, held)
        return drawn

    def finish(self, ticket: Ticket) -> list[Words]:
        """This party's shares of the derived values; tickets are finished in the order in which they were begun."""
        if not self._begun or self._begun[0] is not ticket:
            raise LocalProtocolError(f"correlation {ticket.index} was not begun, or is finished out of order")
        self._begun.popleft()
        return self._shares(ticket)

    def take(self, ticket: Ticket) -> tuple[list[Words], list[Words]]:
        """`begin` and `finish` at once: this party's uniform draws and its shares of the derived values."""
        drawn = self.begin(ticket)
        return drawn, self.finish(ticket)

    def draw(self, request: Correlation) -> tuple[list[Words], list[Words]]:
        """Ask for one correlation and use it at once."""
        return self.take(self.plan([request])[0])

    @abstractmethod
    def settle(self) -> None:
        """Called before anything is released: a supply that checks what it hands out raises here if something was wrong."""

    @abstractmethod
    def close(self) -> None:
        """This session needs nothing more."""

    @abstractmethod
    def _planned(self, tickets: Sequence[Ticket]) -> None:
        """New tickets were handed out."""

    @abstractmethod
    def _draws(self, ticket: Ticket) -> list[Words]:
        """Our uniform draws for a ticket that is being begun."""

    @abstractmethod
    def _shares(self, ticket: Ticket) -> list[Words]:
        """Our shares for a ticket that is being finished."""
