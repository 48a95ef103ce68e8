"""Carry one worker's stream through the coordinator's relay, over as many WebSockets as it takes.

When a WebSocket breaks, both nodes open another one and go on at the byte where they were (silos/resumable.py); the workers
and the TLS between them notice nothing but a pause.  After `limit_s` without a connection the stream ends.

Memory is bounded by the protocol's window, in each direction, whatever a worker does or the peer sends: bytes that nobody
has confirmed wait here, and bytes that our worker has not taken yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections import deque
from collections.abc import Awaitable, Callable

from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType

from silos.resumable import MAX_DATA_BYTES, Resumable, StreamOver

CHUNK_BYTES = MAX_DATA_BYTES
DRAIN_S = 5.0
# A connection on which nothing comes for SILENT_S is taken for dead; so each end says something at least every SIGN_S.
SIGN_S, SILENT_S = 10.0, 45.0
# All streams of a coordinator that comes back do not come at once.
PAUSE_MS = 250
# With these codes the coordinator ends a stream for good: not enrolled any more; the job is over.
FINAL_CODES = frozenset({1008, 4002})

log = logging.getLogger("accord.node")

Reopen = Callable[[], Awaitable[ClientWebSocketResponse | None]]
"""Another connection, on which the stream's ends have met; None if there can be none any more."""


class RelayPump:
    """Copies between relayed connections and a socket pair, whose other end is `worker_end` (blocking, for a worker).

    stream: whose ends have met on `websocket`, its first connection.  reopen: how to get another one.
    When the peer's worker closes, ours reads everything that was sent and then the end; when ours closes, everything it
    wrote is sent first.
    """

    def __init__(self, websocket: ClientWebSocketResponse, stream: Resumable, reopen: Reopen, limit_s: float) -> None:
        self._websocket, self._stream = websocket, stream
        self._reopen, self._limit_s, self._over = reopen, limit_s, False
        self._inbox: deque[bytes] = deque()
        self._idle = self._sign = False
        self._heard_at = 0.0
        self._outwards, self._inwards, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.connections = 1
        self.worker_end, self._node_end = socket.socketpair()
        self._node_end.setblocking(False)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Let what the worker wrote before it ended reach the peer's node, for a bounded time, then stop."""
        self.worker_end.close()
        await asyncio.wait({self._task}, timeout=DRAIN_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        reading = asyncio.create_task(self._read_worker())
        writing = asyncio.create_task(self._write_worker())
        try:
            await self._connections()
            if not self._stream.ended:
                self._over = True
                self._inwards.set()
                await writing  # what has arrived is our worker's, whatever became of the connection
        finally:
            for task in (reading, writing):
                task.cancel()
            try:
                await asyncio.gather(reading, writing, return_exceptions=True)
            finally:  # however often we are cancelled meanwhile
                with contextlib.suppress(OSError):  # the worker may have gone first
                    self._node_end.shutdown(socket.SHUT_RDWR)
                self._node_end.close()

    @property
    def _done(self) -> bool:
        """Whether neither end needs a connection any more."""
        stream = self._stream
        return stream.end_heard or (stream.peer_end is not None and not stream.owes_heard)

    async def _connections(self) -> None:
        """Use one connection after the other until the stream is over."""
        try:
            while True:
                await self._use(self._websocket)
                if self._done or self._stream.peer_end is not None or self._websocket.close_code in FINAL_CODES:
                    return
                log.info("a relayed stream has lost its connection and is resumed")
                async with asyncio.timeout(self._limit_s):
                    await asyncio.sleep(secrets.randbelow(PAUSE_MS) / 1000)
                    again = await self._reopen()
                if again is None:
                    return
                self._websocket = again
                self.connections += 1
        except TimeoutError:
            log.warning("a relayed stream ended: no connection for %g s", self._limit_s)
        except StreamOver as exc:
            log.warning("a relayed stream ended: %s", exc)

    async def _use(self, websocket: ClientWebSocketResponse) -> None:
        """Send and receive on one connection until it ends or is not needed any more.  Raises: StreamOver."""
        work = self._send(websocket), self._receive(websocket), self._watch()
        tasks = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(ClientError, OSError):
                await websocket.close()
        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, ClientError | OSError):
                raise outcome

    async def _send(self, websocket: ClientWebSocketResponse) -> None:
        """Everything that is due, then wait for more; returns when nobody needs this connection any more."""
        stream, end_said = self._stream, False
        while True:
            self._outwards.clear()
            if stream.must_ack:
                await websocket.send_bytes(stream.ack())
            if stream.next < stream.sent:
                await websocket.send_bytes(stream.data())
                continue
            if stream.ended and not end_said:
                await websocket.send_bytes(stream.end())
                end_said = True
            if stream.owes_heard:
                await websocket.send_bytes(stream.heard())
            if self._done:
                return
            await self._outwards.wait()
            if self._sign:
                self._sign = False
                await websocket.send_bytes(stream.ack())

    async def _watch(self) -> None:
        """Have a sign given now and then; returns when nothing has come for too long.  One timer, not one per message."""
        clock = asyncio.get_running_loop().time
        self._heard_at = clock()
        while clock() - self._heard_at < SILENT_S:
            await asyncio.sleep(SIGN_S)
            self._sign = True
            self._outwards.set()

    async def _receive(self, websocket: ClientWebSocketResponse) -> None:
        """Hear the peer until the connection ends.  Raises: StreamOver."""
        stream, clock = self._stream, asyncio.get_running_loop().time
        while True:
            message = await websocket.receive()
            self._heard_at = clock()
            if message.type is not WSMsgType.BINARY:
                return
            chunk = stream.hear(message.data)
            if chunk and self._idle and not self._inbox:
                chunk = self._given(chunk)
            if chunk:
                self._inbox.append(chunk)
            if self._inbox or stream.peer_end is not None:
                self._inwards.set()
            if stream.room:
                self._room.set()
            if stream.owes_heard or stream.end_heard:
                self._outwards.set()

    def _given(self, chunk: bytes) -> bytes:
        """Give our worker at once what it can take, while `_write_worker` waits; returns the rest."""
        try:
            n = self._node_end.send(chunk)
        except OSError:  # no room, or it has closed its end: `_write_worker` finds out which
            return chunk
        self._stream.delivered += n
        if self._stream.must_ack:
            self._outwards.set()
        return chunk[n:]

    async def _read_worker(self) -> None:
        """Take what our worker writes, as far as there is room, until it closes."""
        loop = asyncio.get_running_loop()
        while True:
            while not (room := self._stream.room):
                self._room.clear()
                await self._room.wait()
            try:
                chunk = await loop.sock_recv(self._node_end, min(CHUNK_BYTES, room))
            except OSError:
                chunk = b""
            if not chunk:
                self._stream.ended = True
                self._outwards.set()
                return
            self._stream.take(chunk)
            self._outwards.set()

    async def _write_worker(self) -> None:
        """Give our worker what has arrived, and then the end of the stream; returns earlier when it takes no more."""
        loop, stream = asyncio.get_running_loop(), self._stream
        try:
            while True:
                while self._inbox:
                    chunk = self._inbox.popleft()
                    await loop.sock_sendall(self._node_end, chunk)
                    stream.delivered += len(chunk)
                    if stream.must_ack:
                        self._outwards.set()
                if stream.peer_end == stream.delivered or self._over:
                    break
                self._inwards.clear()
                self._idle = True
                await self._inwards.wait()
                self._idle = False
            self._node_end.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has closed its end
            stream.ended = True
            self._outwards.set()
