"""The relay: pairs two participants' sockets and passes binary frames on, in order, unread and unstored.

Back-pressure is end to end: a frame is read only after the one before it has been handed to the other side's socket, so
what the coordinator holds per direction is one frame and the sockets' buffers, however slow a receiver is.  For the same
reason these sockets have no WebSocket heartbeat: a pong that waits behind data must not cut the link.  TCP keep-alive finds
machines that are gone.

Every seat has its own tasks and no queue, so a pair that is stuck or slow costs no other pair anything.  Seats are gone with
the process: nodes open them anew and go on where they were (silos/resumable.py).  A silo that comes again for a seat has lost
its connection, even if this end has not noticed yet; the new socket takes the seat over.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

MAX_FRAME_BYTES = 1024 * 1024
PAIR_WAIT_S = 30.0
CLOSE_WAIT_S = 2.0
NO_PEER = 4000
PEER_LEFT = 4001
JOB_OVER = 4002
REPLACED = 4003

Forwarded = Callable[[str, str, int], None]
"""(sender, receiver, bytes): called for each frame that was passed on."""
Pace = Callable[[str, int], Awaitable[None]]
"""(sender, bytes): returns when the sender may have so many more bytes passed on."""


async def unlimited(_sender: str, _size_bytes: int) -> None:
    """Let everything pass at once."""


def new_socket() -> web.WebSocketResponse:
    """A WebSocket with the relay's limits.  max_msg_size is exclusive in aiohttp, hence + 1."""
    return web.WebSocketResponse(max_msg_size=MAX_FRAME_BYTES + 1, compress=False, timeout=CLOSE_WAIT_S)


@dataclass(eq=False)
class Seat:
    """One direction of a pair: `me` sends to `peer`.  socket: set once connected.  mate: resolved once both are."""

    job: str
    me: str
    peer: str
    mate: asyncio.Future[Seat]
    socket: web.WebSocketResponse | None = None
    transport: asyncio.Transport | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the one seat of its kind."""
        return self.job, self.me, self.peer


class Relay:
    """The open seats.  Whether a silo may take a seat is decided by the caller."""

    def __init__(self, forwarded: Forwarded, pair_wait_s: float = PAIR_WAIT_S, pace: Pace = unlimited) -> None:
        self._forwarded, self._pair_wait_s, self._pace = forwarded, pair_wait_s, pace
        self._seats: dict[tuple[str, str, str], Seat] = {}

    def take_seat(self, job: str, me: str, peer: str) -> Seat:
        """A direction, before its socket exists; for `run`, and to give back with `leave`."""
        return Seat(job, me, peer, asyncio.get_running_loop().create_future())

    def leave(self, seat: Seat) -> None:
        """Give a seat back, unless somebody has taken it over."""
        if self._seats.get(seat.key) is seat:
            del self._seats[seat.key]
        seat.mate.cancel()

    def seats(self) -> int:
        """Number of open directions."""
        return len(self._seats)

    async def run(self, seat: Seat, ws: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        """Pass on what `ws` sends until either side leaves; then both are closed.  Whoever has the seat already must leave."""
        seat.socket, seat.transport = ws, transport
        _keep_alive(transport)
        former = self._seats.get(seat.key)
        self._seats[seat.key] = seat
        if former is not None:
            await _close(former, REPLACED, b"you came again")
            if self._seats.get(seat.key) is not seat:  # and once more meanwhile
                return
        other = self._seats.get((seat.job, seat.peer, seat.me))
        if other is not None and other.socket is not None and not other.mate.done():
            seat.mate.set_result(other)
            other.mate.set_result(seat)
        pump = asyncio.create_task(self._pump(seat, ws))
        try:
            # Whatever the pump does meanwhile, the wait for the peer is bounded here.
            waited: set[asyncio.Future[Any]] = {pump, seat.mate}
            await asyncio.wait(waited, timeout=self._pair_wait_s, return_when=asyncio.FIRST_COMPLETED)
            if not seat.mate.done() and not pump.done():
                await _close(seat, NO_PEER, b"peer did not come")
                return
            await pump
        finally:
            pump.cancel()
            if seat.mate.done() and not seat.mate.cancelled():
                await _close(seat.mate.result(), PEER_LEFT, b"peer left")

    async def close_where(self, doomed: Callable[[Seat], bool], code: int, why: bytes) -> None:
        """Close the sockets of every seat that `doomed` picks."""
        await asyncio.gather(*(_close(seat, code, why) for seat in list(self._seats.values()) if doomed(seat)))

    async def _pump(self, seat: Seat, ws: web.WebSocketResponse) -> None:
        async for message in ws:
            if message.type is WSMsgType.ERROR:
                return  # aiohttp has closed it, with 1009 for a frame that is too large
            if message.type is not WSMsgType.BINARY:
                await _close(seat, WSCloseCode.UNSUPPORTED_DATA, b"binary frames only")
                return
            mate = await seat.mate
            await self._pace(seat.me, len(message.data))
            try:
                # Awaited before the next read: this line is the back-pressure.
                await _socket(mate).send_bytes(message.data)
            except ConnectionError:  # the mate has gone
                await _close(seat, PEER_LEFT, b"peer left")
                return
            self._forwarded(seat.me, seat.peer, len(message.data))


def _socket(seat: Seat) -> web.WebSocketResponse:
    if seat.socket is None:
        raise RuntimeError("a paired seat has a socket")
    return seat.socket


async def _close(seat: Seat, code: int, why: bytes) -> None:
    """Close a seat's socket, politely for a moment, then by force: it may belong to someone who does not read."""
    if seat.socket is None or seat.socket.closed:
        return
    try:
        async with asyncio.timeout(CLOSE_WAIT_S):
            await seat.socket.close(code=code, message=why)
    except TimeoutError:
        if seat.transport is not None:
            seat.transport.abort()


def _keep_alive(transport: asyncio.Transport | None) -> None:
    """A dead machine is noticed after about a minute without traffic."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return
    options = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options:
            if hasattr(socket, name):  # not on every platform
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
