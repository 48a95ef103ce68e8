"""A plain pairing relay on loopback, with the behaviour of the coordinator's that streams depend on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web

MAX_FRAME_BYTES = 1 << 20


@dataclass
class TinyRelay:
    """Pairs (job, caller, peer) with (job, peer, caller); forwards one frame at a time."""

    url: str = ""
    refuse_with: int = 0
    opened: int = 0
    largest: int = 0
    seen: bytearray = field(default_factory=bytearray)
    hang_up_first: int = 0
    sockets: dict[tuple[str, str, str], asyncio.Future[web.WebSocketResponse]] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One side of one pair, for as long as it lasts."""
        job, caller, peer = (request.match_info[name] for name in ("job", "caller", "peer"))
        if self.refuse_with:
            return web.Response(status=self.refuse_with)
        self.opened += 1
        mine = web.WebSocketResponse(max_msg_size=MAX_FRAME_BYTES + 1, compress=False)
        await mine.prepare(request)
        if self.opened <= self.hang_up_first:
            await mine.close(code=4000)
            return mine
        slots = [
            self.sockets.setdefault(key, asyncio.get_running_loop().create_future())
            for key in ((job, caller, peer), (job, peer, caller))
        ]
        slots[0].set_result(mine)
        try:
            gone = asyncio.create_task(self.forward(mine, slots[1]))
            await gone
        finally:
            self.sockets.pop((job, caller, peer), None)
            if slots[1].done() and not slots[1].cancelled():
                await slots[1].result().close(code=4001)
        return mine

    async def forward(self, mine: web.WebSocketResponse, other: asyncio.Future[web.WebSocketResponse]) -> None:
        """Copy frames until this side ends."""
        async for message in mine:
            if message.type is not WSMsgType.BINARY:
                return
            self.largest = max(self.largest, len(message.data))
            self.seen += message.data
            theirs = await asyncio.shield(other)
            try:
                await theirs.send_bytes(message.data)
            except ConnectionError:
                return


class Caller:
    """One silo's way to open relay sockets, as a node would."""

    def __init__(self, session: ClientSession, relay: TinyRelay, me: str) -> None:
        self.session, self.relay, self.me = session, relay, me

    async def __call__(self, job: str, peer: str) -> ClientWebSocketResponse:
        """Open the socket from `me` to `peer`."""
        url = f"{self.relay.url}/relay/{job}/{self.me}/{peer}"
        return await self.session.ws_connect(url, max_msg_size=MAX_FRAME_BYTES + 1, compress=0)


@asynccontextmanager
async def tiny_relay() -> AsyncIterator[tuple[TinyRelay, ClientSession]]:
    """A relay listening on a free port, and a client session."""
    relay = TinyRelay()
    app = web.Application()
    app.router.add_get("/relay/{job}/{caller}/{peer}", relay.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    relay.url = f"http://{host}:{port}"
    async with ClientSession() as session:
        yield relay, session
    await runner.cleanup()
