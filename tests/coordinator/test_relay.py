"""The relay over real TLS: order, pairing, back-pressure, limits, and what happens when one side goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from coordinator.metrics import Metrics
from coordinator.relay import JOB_OVER, MAX_FRAME_BYTES, NO_PEER, PEER_LEFT, REPLACED, Relay
from tests.coordinator.world import Job, World, a_job, a_world, call, close_code

Socket = aiohttp.ClientWebSocketResponse
OPTIONS = {"max_msg_size": 4 * MAX_FRAME_BYTES, "compress": 0}


@pytest.fixture
async def ready(job: Job) -> Job:
    await job.submit()
    await job.all_consent()
    return job


def address(job: Job, peer: str) -> str:
    return f"/v1/relay/{job.spec['job']}/{peer}"


@asynccontextmanager
async def pair(job: Job, one: str = "lender", two: str = "platform") -> AsyncIterator[tuple[Socket, Socket]]:
    async with (
        job.http[one].ws_connect(address(job, two), **OPTIONS) as a,
        job.http[two].ws_connect(address(job, one), **OPTIONS) as b,
    ):
        yield a, b


async def test_frames_arrive_in_order_both_ways_and_are_counted(ready: Job) -> None:
    frames = [bytes([i % 251]) * (i * 37 % 5000) for i in range(200)] + [bytes(MAX_FRAME_BYTES), b""]

    async def send(ws: Socket, mark: bytes) -> None:
        for frame in frames:
            await ws.send_bytes(mark + frame[1:])

    async def receive(ws: Socket, mark: bytes) -> None:
        for frame in frames:
            assert await ws.receive_bytes(timeout=20) == mark + frame[1:]

    async with pair(ready) as (a, b):
        await asyncio.gather(send(a, b"a"), send(b, b"b"), receive(a, b"b"), receive(b, b"a"))
    sent = sum(len(b"a" + frame[1:]) for frame in frames)
    read = ready.world.server.coordinator.metrics.registry.get_sample_value
    for sender, receiver in (("lender", "platform"), ("platform", "lender")):
        labels = {"sender": sender, "receiver": receiver}
        assert read("accord_relay_bytes_total", labels) == sent
        assert read("accord_relay_frames_total", labels) == len(frames)


async def test_frames_sent_before_the_peer_comes_are_delivered(ready: Job) -> None:
    async with ready.http["lender"].ws_connect(address(ready, "platform"), **OPTIONS) as a:
        await a.send_bytes(b"early")
        async with ready.http["platform"].ws_connect(address(ready, "lender"), **OPTIONS) as b:
            assert await b.receive_bytes(timeout=20) == b"early"


async def test_three_pairs_do_not_mix(ready: Job) -> None:
    names = ("lender", "platform", "dealer")
    async with pair(ready, *names[:2]) as one, pair(ready, *names[1:]) as two, pair(ready, names[0], names[2]) as three:
        for mark, (a, b) in zip((b"1", b"2", b"3"), (one, two, three), strict=True):
            await a.send_bytes(mark)
            await b.send_bytes(mark * 2)
        for mark, (a, b) in zip((b"1", b"2", b"3"), (one, two, three), strict=True):
            assert await b.receive_bytes(timeout=20) == mark
            assert await a.receive_bytes(timeout=20) == mark * 2


async def test_a_peer_that_does_not_read_stalls_the_sender(ready: Job) -> None:
    """256 MiB are offered; the sender gets stuck long before, so nothing between them can hold more than that."""
    offered = 256
    async with pair(ready) as (a, b):
        accepted = 0
        frame = bytes(MAX_FRAME_BYTES)
        try:
            while accepted < offered:
                await asyncio.wait_for(a.send_bytes(frame), 2)
                accepted += 1
        except TimeoutError:
            pass
        assert accepted < offered / 2
        for _ in range(accepted):  # and once the peer reads, everything accepted is there
            assert len(await b.receive_bytes(timeout=20)) == MAX_FRAME_BYTES


async def test_a_frame_that_is_too_large_ends_it(ready: Job) -> None:
    async with pair(ready) as (a, b):
        await a.send_bytes(bytes(MAX_FRAME_BYTES + 1))
        assert await close_code(a) == 1009
        assert await close_code(b) == PEER_LEFT


async def test_text_frames_are_refused(ready: Job) -> None:
    async with pair(ready) as (a, b):
        await a.send_str("hello")
        assert await close_code(a) == 1003
        assert await close_code(b) == PEER_LEFT


async def test_when_one_side_leaves_the_other_is_told_and_both_can_come_again(ready: Job) -> None:
    async with pair(ready) as (a, b):
        await a.close()
        assert await close_code(b) == PEER_LEFT
    while ready.world.server.coordinator.relay.seats():  # noqa: ASYNC110  the server's handlers end a moment later
        await asyncio.sleep(0.01)
    async with pair(ready) as (a, b):
        await a.send_bytes(b"again")
        assert await b.receive_bytes(timeout=20) == b"again"


async def test_a_broken_connection_is_a_peer_that_left(ready: Job) -> None:
    async with pair(ready) as (a, b):
        transport = a._response.connection.transport  # type: ignore[union-attr]
        transport.abort()  # type: ignore[union-attr]
        assert await close_code(b) == PEER_LEFT


async def test_the_wait_for_a_peer_is_bounded(tmp_path: Path) -> None:
    async with a_world(tmp_path, Relay(Metrics().forwarded, pair_wait_s=0.05)) as world:
        job = await a_job(world)
        await job.submit()
        await job.all_consent()
        for early_frame in (False, True):
            async with job.http["lender"].ws_connect(address(job, "platform"), **OPTIONS) as ws:
                if early_frame:
                    await ws.send_bytes(b"anyone?")
                assert await close_code(ws) == NO_PEER


async def test_who_comes_again_takes_its_seat_over_and_the_peer_is_told(ready: Job) -> None:
    """A silo whose connection broke does not have to wait until the coordinator notices."""
    async with pair(ready) as (a, b):
        status, _ = await call(ready.http["lender"], "GET", address(ready, "platform"))
        assert status == 400, "what is no WebSocket takes nothing over"
        await a.send_bytes(b"undisturbed")
        assert await b.receive_bytes(timeout=20) == b"undisturbed"
        async with pair(ready) as (a2, b2):
            assert await close_code(a) == REPLACED
            assert await close_code(b) in (PEER_LEFT, REPLACED)
            await a2.send_bytes(b"again")
            assert await b2.receive_bytes(timeout=20) == b"again"


async def test_a_stuck_pair_costs_the_others_nothing(ready: Job) -> None:
    """One peer reads nothing while its sender offers all it can; two other pairs carry 32 MiB each meanwhile."""
    frame = bytes(MAX_FRAME_BYTES)
    process = psutil.Process()
    async with pair(ready) as (a, b), pair(ready, "platform", "dealer") as one, pair(ready, "lender", "dealer") as two:

        async def flood() -> None:
            while True:
                await a.send_bytes(frame)

        async def carry(sender: Socket, receiver: Socket) -> None:
            async def send() -> None:
                for _ in range(32):
                    await sender.send_bytes(frame)

            sending = asyncio.create_task(send())
            for _ in range(32):
                assert len(await receiver.receive_bytes(timeout=60)) == MAX_FRAME_BYTES
            await sending

        flooding = asyncio.create_task(flood())
        await asyncio.gather(carry(*one), carry(*two))
        before = process.memory_info().rss
        await asyncio.gather(carry(*one), carry(*two))
        assert process.memory_info().rss - before < 64 << 20
        assert not flooding.done()
        flooding.cancel()
        await b.close()


async def test_the_end_of_a_job_ends_its_links(ready: Job) -> None:
    async with pair(ready) as (a, b):
        await ready.say("dealer", "failed", {"step": "align", "reason": "out of memory", "party": ""})
        assert {await close_code(a), await close_code(b)} <= {JOB_OVER, PEER_LEFT}
    status, reply = await call(ready.http["lender"], "GET", address(ready, "platform"))
    assert (status, "neither ready nor running" in reply["error"]) == (409, True)


async def test_who_may_not_relay(job: Job, world: World) -> None:
    analyst = await world.enrol("analyst")
    job.silos["analyst"], job.http["analyst"] = analyst, world.session(analyst)
    await job.submit("analyst")
    del job.silos["analyst"]
    assert (await call(job.http["lender"], "GET", address(job, "platform")))[0] == 409  # not ready yet
    await job.all_consent()
    assert (await call(job.http["analyst"], "GET", address(job, "platform")))[0] == 403
    for peer in ("analyst", "lender", "nobody"):
        assert (await call(job.http["lender"], "GET", address(job, peer)))[0] == 403, peer
    status, _ = await call(job.http["lender"], "GET", address(job, "platform"))
    assert status == 400  # allowed, but not a WebSocket; and the seat is free again:
    async with pair(job) as (a, b):
        await a.send_bytes(b"x")
        assert await b.receive_bytes(timeout=20) == b"x"
