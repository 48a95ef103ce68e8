"""Carry one worker's stream through the coordinator's relay: bytes from a socket pair to a WebSocket and back.

There is no queue: each direction holds one chunk and takes the next when the other side has taken this one, so a slow
reader slows the sender down through kernel buffers, the relay, and the other kernel's buffers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType

CHUNK_BYTES = 1 << 18
MAX_FRAME_BYTES = 1 << 20
DRAIN_S = 5.0


class RelayPump:
    """Copies between `websocket` and a socket pair, whose other end is `worker_end` (blocking, for a worker).

    When the WebSocket ends, the worker reads what arrived and then the end of the stream; when the worker closes, the
    WebSocket is closed after everything the worker wrote.
    """

    def __init__(self, websocket: ClientWebSocketResponse) -> None:
        self._websocket = websocket
        self.worker_end, self._node_end = socket.socketpair()
        self._node_end.setblocking(False)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Let what the worker wrote before it ended reach the relay, for a bounded time, then stop."""
        self.worker_end.close()
        await asyncio.wait({self._task}, timeout=DRAIN_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        up = asyncio.create_task(self._up())
        down = asyncio.create_task(self._down())
        try:
            # A worker that closed wants nothing more; a relay that closed may still have frames for us to deliver.
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not up.result():
                await down
        finally:
            up.cancel()
            down.cancel()
            try:
                await asyncio.gather(up, down, return_exceptions=True)
            finally:  # however often we are cancelled meanwhile
                with contextlib.suppress(OSError):  # the worker may have gone first
                    self._node_end.shutdown(socket.SHUT_RDWR)
                self._node_end.close()
            with contextlib.suppress(ClientError, OSError):
                await self._websocket.close()

    async def _up(self) -> bool:
        """Copy until the worker closes (True) or the relay takes no more (False)."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                chunk = await loop.sock_recv(self._node_end, CHUNK_BYTES)
            except OSError:
                return True
            if not chunk:
                return True
            try:
                await self._websocket.send_bytes(chunk)
            except (ClientError, OSError):
                return False

    async def _down(self) -> None:
        """Copy until the relay closes, sends what is not a stream's frame, or the worker takes no more."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                message = await self._websocket.receive()
                if message.type is not WSMsgType.BINARY or len(message.data) > MAX_FRAME_BYTES:
                    return
                await loop.sock_sendall(self._node_end, message.data)
