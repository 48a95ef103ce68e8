"""A byte stream that outlives its connections: what both ends count, say and keep so that nothing is lost or comes twice.

Each end numbers the bytes it sends from 0 and keeps those that the other has not confirmed.  A connection begins with one
HELLO from each end, which names the stream and says how many bytes have arrived; then

    DATA  number of its first byte, bytes       ACK  bytes that arrived, bytes that the worker has taken
    END   number of bytes in all                HEARD answers END

The one who sends goes at most WINDOW_BYTES beyond what the other's worker has taken, so neither end ever holds more, and the
other can always read its connection: ACKs never wait behind data that nobody wants.  Nothing here does I/O.

A stream's name is two numbers that its ends draw.  An end that was started anew draws another one, which tells the other
that the stream it wants to resume is over.  None of this is authenticated: the relay could forge it, and the TLS inside,
which sees one gapless stream or a broken one, is what both workers rely on.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass, field

NAME_BYTES = 16
NOBODY = bytes(NAME_BYTES)
WINDOW_BYTES = 8 << 20
MAX_DATA_BYTES = 1 << 18
ACK_AFTER_BYTES = WINDOW_BYTES // 8

_HELLO = struct.Struct(f"!4s{NAME_BYTES}s{NAME_BYTES}sQ")
_MAGIC = b"ACR1"
_HEAD = struct.Struct("!BQ")
_ACK = struct.Struct("!BQQ")
DATA, ACK, END, HEARD = 1, 2, 3, 4


class StreamOver(Exception):
    """The other end does not have this stream (any more), or does not keep to the protocol; says what is wrong."""


class NotYet(Exception):
    """The other end is still at an earlier stream, and has now been told; another connection may do."""


@dataclass
class Resumable:
    """One end of a stream.

    sent, received: bytes that came from our worker, and from the other end.  next: the byte that is due on this connection.
    delivered: of those received, what our worker has taken.  confirmed, taken: what the other end says it has received, and
    its worker has taken.  ended: our worker is done.  end_heard: the other end knows it.  peer_end: how many bytes the other
    end sends in all, once it has said so.  owes_heard: that has to be answered.
    """

    name: bytes = field(default_factory=lambda: secrets.token_bytes(NAME_BYTES), repr=False)
    peer: bytes = field(default=NOBODY, repr=False)
    sent: int = 0
    next: int = 0
    confirmed: int = 0
    taken: int = 0
    received: int = 0
    delivered: int = 0
    ended: bool = False
    end_heard: bool = False
    peer_end: int | None = None
    owes_heard: bool = False
    _kept: bytearray = field(default_factory=bytearray, repr=False)
    _told: int = 0

    def hello(self) -> bytes:
        """The first message on every connection."""
        return _HELLO.pack(_MAGIC, self.name, self.peer, self.received)

    def meet(self, raw: bytes) -> None:
        """Read the other end's HELLO, the first message that a connection brings.

        Raises: NotYet, StreamOver.
        """
        if len(raw) != _HELLO.size or raw[:4] != _MAGIC:
            raise StreamOver("the peer did not say which stream this is")
        _, name, known, received = _HELLO.unpack(raw)
        if self.peer == NOBODY and known not in (NOBODY, self.name):
            raise NotYet("the peer is at an earlier stream")
        if name == NOBODY or self.peer not in (NOBODY, name) or known not in (NOBODY, self.name):
            raise StreamOver("the peer has begun another stream")
        if not self.confirmed <= received <= self.sent:
            raise StreamOver("the peer has received other bytes than we sent")
        self.peer, self.next = name, received
        self._confirm(received)
        self._told = self.delivered - ACK_AFTER_BYTES  # whatever we said last may not have arrived

    @property
    def met(self) -> bool:
        """Whether both ends have agreed on this stream."""
        return self.peer != NOBODY

    @property
    def room(self) -> int:
        """How many bytes may be taken from our worker now."""
        return max(0, WINDOW_BYTES - (self.sent - self.taken))

    def take(self, chunk: bytes) -> None:
        """Our worker has written `chunk`, which is at most `room` bytes."""
        self._kept += chunk
        self.sent += len(chunk)

    def data(self) -> bytes:
        """The next message with bytes of our worker; there are some, `next` being less than `sent`."""
        at = self.next
        self.next = min(self.sent, at + MAX_DATA_BYTES)
        return _HEAD.pack(DATA, at) + self._kept[at - self.confirmed : self.next - self.confirmed]

    @property
    def must_ack(self) -> bool:
        """Whether the other end should be told now how far our worker is."""
        return self.delivered - self._told >= ACK_AFTER_BYTES

    def ack(self) -> bytes:
        """How far we are."""
        self._told = self.delivered
        return _ACK.pack(ACK, self.received, self.delivered)

    def end(self) -> bytes:
        """That nothing follows what has been sent."""
        return _HEAD.pack(END, self.sent)

    def heard(self) -> bytes:
        """That we know how long the other end's stream is."""
        self.owes_heard = False
        return _HEAD.pack(HEARD, self.received)

    def hear(self, raw: bytes) -> bytes:
        """A message of the other end; returns the bytes in it for our worker, often none.

        Raises: StreamOver if it is none of the protocol's.
        """
        kind = raw[0] if raw else 0
        if kind == DATA and _HEAD.size < len(raw) <= _HEAD.size + MAX_DATA_BYTES:
            return self._hear_data(_HEAD.unpack_from(raw)[1], raw[_HEAD.size :])
        if kind == ACK and len(raw) == _ACK.size:
            _, received, taken = _ACK.unpack(raw)
            if not (self.confirmed <= received <= self.next and self.taken <= taken <= received):
                raise StreamOver("the peer confirms other bytes than we sent")
            self.taken = taken
            self._confirm(received)
            return b""
        if kind in (END, HEARD) and len(raw) == _HEAD.size:
            self._hear_end(kind, _HEAD.unpack(raw)[1])
            return b""
        raise StreamOver("the peer sent what is no message of a stream")

    def _hear_end(self, kind: int, total: int) -> None:
        if kind == HEARD and self.ended and total == self.sent == self.next:
            self.end_heard = True
        elif kind == END and total == self.received and self.peer_end in (None, total):
            self.peer_end, self.owes_heard = total, True
        else:
            raise StreamOver("the peer ended the stream at another byte than was sent")

    def _hear_data(self, at: int, chunk: bytes) -> bytes:
        if at != self.received or self.peer_end is not None:
            raise StreamOver(f"the peer sent byte {at}, expected {self.received}")
        if self.received + len(chunk) - self.delivered > WINDOW_BYTES:
            raise StreamOver("the peer sent more than there is room for")
        self.received += len(chunk)
        return chunk

    def _confirm(self, received: int) -> None:
        del self._kept[: received - self.confirmed]
        self.confirmed = received
