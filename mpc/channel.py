"""What a protocol sees of the network: send to a named participant, receive from a named participant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mpc.wire import Kind


class Channel(Protocol):
    """Ordered, authenticated, confidential messages between the participants of one session.

    Participants are named by their silo.  Both ends name the same tag for the same message, in the same order per
    pair; an implementation raises RemoteProtocolError on any disagreement and PeerLost when the peer is gone or a
    bounded wait is over.  `send` never deadlocks against a peer that is sending at the same time.
    """

    def send(self, to: str, tag: str, kind: Kind, body: bytes | bytearray | memoryview) -> None:
        """Deliver one message; `body` may be reused by the caller after the call."""
        ...

    def recv(self, frm: str, tag: str, kind: Kind, *, exact: int | None = None, limit: int | None = None) -> bytearray:
        """Return the next message's body; its size must be `exact`, or at most `limit`, checked before allocation."""
        ...
