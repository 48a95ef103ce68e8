"""What a peer sends: frames of a link, control messages, greetings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpc.correlations import parse_request
from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError
from mpc.noise import parse_epsilon
from mpc.wire import HEADER, Kind, pack_header, parse_header, recv_json
from silos.direct import Greeting
from silos.link_tls import CLOSED, End
from silos.links import LinkChannel
from silos.resumable import WINDOW_BYTES, NotYet, Resumable, StreamOver
from tests.fuzz.target import Target, text

SESSION = bytes(range(16))


class FedLink:
    """A `TlsLink` that delivers given bytes and then ends, as a peer that hangs up does."""

    peer, wants_data = "bravo", False

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self.end: End | None = None

    def fileno(self) -> int:
        return 0

    def take(self, view: memoryview) -> int:
        n = min(len(view), len(self._data) - self._at)
        view[:n] = self._data[self._at : self._at + n]
        self._at += n
        if not n:
            self.end = CLOSED
        return n

    def fill(self) -> None:
        """Everything is there already."""

    def close(self) -> None:
        """Nothing is open."""


class OneBody:
    """A channel whose next message is given."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def recv(self, frm: str, tag: str, kind: Kind, *, exact: int | None = None, limit: int | None = None) -> bytearray:
        return bytearray(self._body)

    def send(self, to: str, tag: str, kind: Kind, body: bytes | bytearray | memoryview) -> None:
        raise AssertionError("nothing is sent")


def link_frames(data: bytes, _: Path) -> None:
    """A peer's bytes, read as a protocol would: a size agreed, a limit, a control message, and an array."""
    link: Any = FedLink(data)
    channel = LinkChannel("alfa", ("alfa", "bravo"), SESSION, {"bravo": link}, 1.0)
    channel.recv("bravo", "m", Kind.BYTES, limit=1 << 20)
    recv_json(channel, "bravo", "j")
    body = channel.recv("bravo", "w", Kind.WORDS64, exact=16)
    assert len(body) == 16
    assert link.end is None


def control(data: bytes, _: Path) -> None:
    """A control message, and a request for randomness in it."""
    channel: Any = OneBody(data)
    parse_request(recv_json(channel, "bravo", "j"), "bravo")


def relay_messages(data: bytes, _: Path) -> None:
    """What a peer's node sends through the relay: a HELLO and then messages, each after its length in two bytes."""
    stream = Resumable(name=b"B" * 16)
    stream.take(b"what we sent")
    stream.ended = True
    kept = 0
    for number, message in enumerate(_split(data)):
        if number == 0:
            stream.meet(message)
        else:
            kept += len(stream.hear(message))
        if stream.next < stream.sent:
            stream.data()
        assert stream.confirmed <= stream.next <= stream.sent == 12
        assert kept == stream.received - stream.delivered <= WINDOW_BYTES


def framed(messages: list[bytes]) -> bytes:
    """Messages as `relay_messages` takes them apart."""
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


def _split(data: bytes) -> Iterator[bytes]:
    while data:
        size = int.from_bytes(data[:2], "big")
        yield data[2 : 2 + size]
        data = data[2 + size :]


def greeting(data: bytes, _: Path) -> None:
    """Only the one greeting matches."""
    good = Greeting(SESSION, b"T" * 16, 1, 0)
    assert good.matches(data) == (data == good.pack())


def link_seed() -> bytes:
    """Three frames that an honest peer would send."""
    frames = [(Kind.BYTES, "m", b"hello"), (Kind.JSON, "j", b'{"n":[1,2]}'), (Kind.WORDS64, "w", bytes(16))]
    return b"".join(
        pack_header(kind, 1, SESSION, seq, tag, len(body)) + body for seq, (kind, tag, body) in enumerate(frames)
    )


def header(data: bytes, _: Path) -> None:
    """One header."""
    parse_header(data[: HEADER.size].ljust(HEADER.size, b"\0"), "bravo")


def epsilon(data: bytes, _: Path) -> None:
    """The text of an epsilon."""
    parse_epsilon(text(data))


TARGETS = (
    Target("wire_header", header, (RemoteProtocolError,), limit_bytes=64),
    Target("link_frames", link_frames, (RemoteProtocolError, PeerLost), limit_bytes=4096),
    Target("control", control, (RemoteProtocolError,), "json"),
    Target("relay_messages", relay_messages, (StreamOver, NotYet), limit_bytes=4096),
    Target("greeting", greeting, limit_bytes=64),
    Target("epsilon", epsilon, (LocalProtocolError,), "text", 256),
)
