"""Relayed streams of two silos while the coordinator is killed and a proxy is reset: the same bytes come out."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from silos import streams
from silos.client import CoordinatorClient
from silos.streams import StreamPlan, connect_streams
from tests.coordinator.world import a_job, a_world
from tests.silos.connect_proxy import connect_proxy
from tests.silos.test_pump import exchange, exchange_once

SERVE = """
import asyncio, sys
from pathlib import Path
from coordinator.server import serve
asyncio.run(serve(Path(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), lambda port: print(port, flush=True)))
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def serving(home: Path, port: int) -> asyncio.subprocess.Process:
    """A coordinator's process that accepts connections."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, home, str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == f"{port}\n".encode()
    return process


@asynccontextmanager
async def ended(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


@pytest.mark.e2e
async def test_a_coordinator_that_is_killed_and_a_proxy_that_is_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 MiB each way between two silos, one of them behind a proxy; a SIGKILL and three resets on the way."""
    monkeypatch.setattr(streams, "RETRY_S", 0.1)
    async with a_world(tmp_path) as world:
        job = await a_job(world)
        await job.submit()
        await job.all_consent()
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    first = await serving(world.home, port)
    async with ended(first), connect_proxy() as proxy:
        names = ("lender", "platform")
        async with (
            CoordinatorClient(url, world.tls(job.silos["lender"]), proxy.url()) as near,
            CoordinatorClient(url, world.tls(job.silos["platform"])) as far,
        ):
            tokens = dict.fromkeys(names, bytes(16))
            made = await asyncio.gather(
                *(
                    connect_streams(
                        StreamPlan(job.spec["job"], bytes(16), me, names, {}, tokens, "relay", 120.0),
                        client.relay,
                        None,
                    )
                    for me, client in zip(names, (near, far), strict=True)
                )
            )
            a, b = made[0].sockets["platform"], made[1].sockets["lender"]
            moving = asyncio.create_task(exchange(a, b, 20 << 20))
            for _ in range(3):
                await carried(made[0], 2 << 20)
                proxy.reset()
            await carried(made[0], 2 << 20)
            first.send_signal(signal.SIGKILL)
            await first.wait()
            second = await serving(world.home, port)
            async with ended(second):
                await moving
                await asyncio.to_thread(exchange_once, a, b)
                for (stream,) in (one._streams.values() for one in made):
                    assert stream.pump is not None
                    assert stream.pump.connections >= 2
                await asyncio.gather(*(one.close() for one in made))


async def carried(made: streams.Streams, size: int) -> None:
    """Wait until a stream has moved so many more bytes, or all that it will."""
    (stream,) = made._streams.values()
    assert stream.pump is not None
    state = stream.pump._stream
    until = min(state.sent + state.received + size, 39 << 20)
    async with asyncio.timeout(120):
        while state.sent + state.received < until:  # noqa: ASYNC110  the counts tell nobody
            await asyncio.sleep(0.001)
