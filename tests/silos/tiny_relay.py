"""A plain pairing relay on loopback, with the behaviour of the coordinator's that streams depend on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web

MAX_FRAME_BYTES = 1 << 20
Key = tuple[str, str, str]


@dataclass(eq=False)
class Side:
    """One caller of one pair.  mate: resolved once the other side is there."""

    socket: web.WebSocketResponse
    transport: asyncio.Transport | None
    mate: asyncio.Future[Side]


@dataclass
class TinyRelay:
    """Pairs (job, caller, peer) with (job, peer, caller); forwards one frame at a time.

    cut_after: break all connections, without a word, when it has carried so many bytes; the numbers are used up.  mute: take
    frames and pass nothing on.
    """

    url: str = ""
    refuse_with: int = 0
    opened: int = 0
    largest: int = 0
    seen: bytearray = field(default_factory=bytearray)
    hang_up_first: int = 0
    cut_after: list[int] = field(default_factory=list)
    carried: int = 0
    mute: bool = False
    sides: dict[Key, Side] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One side of one pair, for as long as it lasts; who comes again takes its place."""
        job, caller, peer = (request.match_info[name] for name in ("job", "caller", "peer"))
        if self.refuse_with:
            return web.Response(status=self.refuse_with)
        self.opened += 1
        socket = web.WebSocketResponse(max_msg_size=MAX_FRAME_BYTES + 1, compress=False, timeout=1)
        await socket.prepare(request)
        if self.opened <= self.hang_up_first:
            await socket.close(code=4000)
            return socket
        former = self.sides.get((job, caller, peer))
        mine = Side(socket, request.transport, asyncio.get_running_loop().create_future())
        self.sides[job, caller, peer] = mine
        if former is not None:
            await former.socket.close(code=4003)
        theirs = self.sides.get((job, peer, caller))
        if theirs is not None and not theirs.mate.done():
            theirs.mate.set_result(mine)
            mine.mate.set_result(theirs)
        try:
            await self.forward(mine)
        finally:
            if self.sides.get((job, caller, peer)) is mine:
                del self.sides[job, caller, peer]
            if mine.mate.done():
                await mine.mate.result().socket.close(code=4001)
            mine.mate.cancel()
        return socket

    async def forward(self, mine: Side) -> None:
        """Copy frames until this side ends."""
        async for message in mine.socket:
            if message.type is not WSMsgType.BINARY:
                return
            self.largest = max(self.largest, len(message.data))
            self.seen += message.data
            theirs = await asyncio.shield(mine.mate)
            self.carried += len(message.data)
            if self.cut_after and self.carried >= self.cut_after[0]:
                del self.cut_after[0]
                self.cut()
                return
            if self.mute:
                continue
            try:
                await theirs.socket.send_bytes(message.data)
            except ConnectionError:
                return

    def cut(self) -> None:
        """Break every connection, as a proxy that is reset does."""
        for side in self.sides.values():
            if side.transport is not None:
                side.transport.abort()


class Caller:
    """One silo's way to open relay sockets, as a node would."""

    def __init__(self, session: ClientSession, relay: TinyRelay, me: str) -> None:
        self.session, self.relay, self.me = session, relay, me

    async def __call__(self, job: str, peer: str) -> ClientWebSocketResponse:
        """Open the socket from `me` to `peer`."""
        url = f"{self.relay.url}/relay/{job}/{self.me}/{peer}"
        return await self.session.ws_connect(url, max_msg_size=MAX_FRAME_BYTES + 1, compress=0)


@asynccontextmanager
async def tiny_relay(port: int = 0) -> AsyncIterator[tuple[TinyRelay, ClientSession]]:
    """A relay listening on a free port, and a client session."""
    relay = TinyRelay()
    app = web.Application()
    app.router.add_get("/relay/{job}/{caller}/{peer}", relay.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, port = runner.addresses[0][:2]
    relay.url = f"http://{host}:{port}"
    async with ClientSession() as session:
        yield relay, session
    await runner.cleanup()
