"""The pump between a relay socket and a worker, against a relay that ends badly."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import WSMessage, WSMsgType

from silos.pump import RelayPump


class OddSocket:
    """A WebSocket of which the test says what it receives."""

    def __init__(self, *messages: Any) -> None:
        self.messages, self.closed, self.failed_to_send = list(messages), False, asyncio.Event()

    async def receive(self) -> Any:
        await self.failed_to_send.wait()
        await asyncio.sleep(0.01)
        return self.messages.pop(0)

    async def send_bytes(self, data: bytes) -> None:
        self.failed_to_send.set()
        raise ConnectionResetError

    async def close(self) -> None:
        self.closed = True


async def test_frames_that_arrived_before_the_relay_closed_are_delivered() -> None:
    end = WSMessage(WSMsgType.CLOSED, None, None)
    for bad in (end, WSMessage(WSMsgType.TEXT, "x", None), WSMessage(WSMsgType.BINARY, bytes((1 << 20) + 1), None)):
        odd = OddSocket(WSMessage(WSMsgType.BINARY, b"one", None), WSMessage(WSMsgType.BINARY, b"two", None), bad)
        carried = RelayPump(odd)  # type: ignore[arg-type]
        carried.worker_end.sendall(b"nobody takes this")
        assert await asyncio.to_thread(carried.worker_end.recv, 3) == b"one"
        await carried._task
        assert carried.worker_end.recv(10) == b"two"
        assert odd.closed
        carried.worker_end.close()


class SlowSocket(OddSocket):
    """A relay that takes its time for each frame and never sends."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = bytearray()

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send_bytes(self, data: bytes) -> None:
        await asyncio.sleep(0.02)
        self.taken += data


async def test_what_a_worker_wrote_before_it_ended_reaches_the_relay() -> None:
    slow = SlowSocket()
    carried = RelayPump(slow)  # type: ignore[arg-type]
    sent = bytes(range(256)) * 8000
    await asyncio.to_thread(carried.worker_end.sendall, sent)
    await carried.close()
    assert bytes(slow.taken) == sent
    assert slow.closed
