"""Relayed streams that lose their connections: every byte arrives once, or the stream ends; and memory stays bounded."""

from __future__ import annotations

import asyncio
import hashlib
import random  # noqa: TID251  a test that cuts at the same points every time
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import psutil
import pytest

from silos import pump, streams
from silos.streams import StreamPlan, Streams, connect_streams
from tests.silos.tiny_relay import Caller, TinyRelay, tiny_relay

NAMES = ("alfa", "bravo")
TOKENS = {name: bytes([i]) * 16 for i, name in enumerate(NAMES, 1)}
PLAN = StreamPlan("ab" * 16, bytes(range(16)), "alfa", NAMES, {}, TOKENS, timeout_s=60.0)


class Pair:
    """Both ends of a relayed stream."""

    def __init__(self, relay: TinyRelay, session: aiohttp.ClientSession) -> None:
        self.relay, self.session = relay, session
        self.made: list[Streams] = []

    async def connect(self, plan: StreamPlan = PLAN, names: tuple[str, ...] = NAMES) -> list[Streams]:
        callers = [(replace(plan, me=me), Caller(self.session, self.relay, me)) for me in names]
        made = await asyncio.gather(*(connect_streams(one, caller, None) for one, caller in callers))
        self.made += made
        return made


@pytest.fixture
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr(streams, "RETRY_S", 0.02)
    monkeypatch.setattr(pump, "DRAIN_S", 1.0)
    async with tiny_relay() as (relay, session):
        made = Pair(relay, session)
        yield made
        for one in made.made:
            await one.close()


def ends(made: list[Streams]) -> tuple[socket.socket, socket.socket]:
    a, b = made
    return a.sockets["bravo"], b.sockets["alfa"]


def pump_of(made: Streams) -> Any:
    """The pump of the one stream."""
    (stream,) = made._streams.values()
    return stream.pump


def send(sock: socket.socket, data: bytes, seed: int) -> None:
    """In pieces of many sizes."""
    chance, at = random.Random(seed), 0
    while at < len(data):
        size = chance.choice((1, 100, 5_000, 70_000, 400_000))
        sock.sendall(data[at : at + size])
        at += size


def receive(sock: socket.socket, size: int) -> str:
    digest, got = hashlib.sha256(), 0
    while got < size:
        data = sock.recv(min(1 << 17, size - got))
        if not data:
            raise EOFError(f"the stream ended after {got} of {size} bytes")
        digest.update(data)
        got += len(data)
    return digest.hexdigest()


async def exchange(near: socket.socket, far: socket.socket, size: int) -> None:
    """The same many bytes in both directions at once."""
    out, back = (random.Random(seed).randbytes(size) for seed in (1, 2))
    work = [(send, near, out, 3), (send, far, back, 4), (receive, far, size), (receive, near, size)]
    done = await asyncio.wait_for(asyncio.gather(*(asyncio.to_thread(f, *args) for f, *args in work)), 240)
    assert done[2:] == [hashlib.sha256(data).hexdigest() for data in (out, back)]


async def test_connections_that_are_cut_at_many_points_lose_and_repeat_nothing(pair: Pair) -> None:
    made = await pair.connect()
    chance = random.Random(20)
    pair.relay.cut_after = sorted(chance.randrange(1, 36 << 20) for _ in range(12))
    opened = pair.relay.opened
    await exchange(*ends(made), 20 << 20)
    assert not pair.relay.cut_after
    assert pair.relay.opened >= opened + 12
    await asyncio.to_thread(exchange_once, *ends(made))


def exchange_once(near: socket.socket, far: socket.socket) -> None:
    """Nothing is left over in the stream."""
    for one, two in ((near, far), (far, near)):
        one.sendall(b"ping")
        two.settimeout(60)
        assert two.recv(100) == b"ping"


async def test_the_end_survives_a_cut_too(pair: Pair) -> None:
    made = await pair.connect()
    near, far = ends(made)
    await asyncio.to_thread(near.sendall, b"last words")
    pair.relay.cut()
    made[0].handed_over()
    far.settimeout(60)
    got = b""
    while data := await asyncio.to_thread(far.recv, 100):
        got += data
    assert got == b"last words"


async def test_a_relay_that_stays_away_ends_the_stream_in_bounded_time(pair: Pair) -> None:
    made = await pair.connect()
    near, far = ends(made)
    for one in made:
        pump_of(one)._limit_s = 1.0
    await asyncio.to_thread(near.sendall, b"x")
    far.settimeout(60)
    assert await asyncio.to_thread(far.recv, 1) == b"x"
    pair.relay.refuse_with = 503
    pair.relay.cut()
    for sock in (near, far):
        sock.settimeout(60)
        assert await asyncio.to_thread(sock.recv, 1) == b""


async def test_a_coordinator_that_knows_no_such_job_any_more_ends_the_stream_at_once(pair: Pair) -> None:
    near, _ = ends(await pair.connect(replace(PLAN, timeout_s=600.0)))
    pair.relay.refuse_with = 409
    pair.relay.cut()
    near.settimeout(60)
    assert await asyncio.to_thread(near.recv, 1) == b""


async def test_a_peer_that_begins_anew_ends_the_old_stream_and_gets_a_new_one(pair: Pair) -> None:
    """A node that was killed and comes back has none of the old stream; nobody waits for what cannot come."""
    made = await pair.connect(replace(PLAN, timeout_s=600.0))
    near, _ = ends(made)
    made[1].sockets["alfa"].close()
    task = pump_of(made[1])._task
    task.cancel()  # as if the process were gone: no goodbye
    await asyncio.gather(task, return_exceptions=True)
    again = asyncio.create_task(pair.connect(names=("bravo",)))
    near.settimeout(60)
    assert await asyncio.to_thread(near.recv, 1) == b""
    (alfa,) = await pair.connect(names=("alfa",))
    (bravo,) = await again
    await asyncio.to_thread(exchange_once, alfa.sockets["bravo"], bravo.sockets["alfa"])


async def test_a_peer_that_reads_nothing_costs_the_window_and_no_more(pair: Pair) -> None:
    """Two other streams finish meanwhile; the stuck one has taken a bounded number of bytes, and memory stays where it was."""
    made = await pair.connect(replace(PLAN, job="cd" * 16))
    stuck, far = ends(made)
    others = [ends(await pair.connect(replace(PLAN, job=f"{i:032x}"))) for i in range(2)]
    stuck.settimeout(0.5)
    taken, stuck_for = 0, 0
    while stuck_for < 2:  # the window is used up, and so is the room in the kernel
        try:
            taken += await asyncio.to_thread(stuck.send, bytes(1 << 16))
        except TimeoutError:
            stuck_for += pump_of(made[0])._stream.room == 0
    assert 8 << 20 <= taken < 12 << 20
    await asyncio.gather(*(exchange(*one, 1 << 20) for one in others))
    pair.relay.seen.clear()
    before = psutil.Process().memory_info().rss
    for _ in range(4):
        await asyncio.gather(*(exchange(*one, 4 << 20) for one in others))
        pair.relay.seen.clear()
    assert psutil.Process().memory_info().rss - before < 96 << 20
    assert await asyncio.to_thread(receive, far, taken) == hashlib.sha256(bytes(taken)).hexdigest()


async def test_a_peer_that_breaks_the_protocol_ends_the_stream(pair: Pair) -> None:
    made = await pair.connect()
    near, _ = ends(made)
    await pump_of(made[1])._websocket.send_bytes(b"\x01" + (1 << 40).to_bytes(8, "big") + b"from nowhere")
    near.settimeout(60)
    assert await asyncio.to_thread(near.recv, 1) == b""


async def test_a_silent_connection_is_taken_for_dead_and_replaced(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """No end of the connection is ever told, as when a cable is cut: the relay just carries nothing any more."""
    monkeypatch.setattr(pump, "SIGN_S", 0.2)
    monkeypatch.setattr(pump, "SILENT_S", 1.0)
    monkeypatch.setattr(streams, "SILENT_S", 1.0)
    made = await pair.connect()
    await asyncio.to_thread(exchange_once, *ends(made))
    opened = pair.relay.opened
    pair.relay.mute = True
    async with asyncio.timeout(60):
        while pair.relay.opened == opened:  # noqa: ASYNC110  the relay is a plain object
            await asyncio.sleep(0.02)
    pair.relay.mute = False
    await asyncio.to_thread(exchange_once, *ends(made))
