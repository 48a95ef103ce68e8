"""Give a worker one connected stream per peer: direct TCP where a peer can be reached, else through the relay.

Of a pair, one end accepts and the other dials.  The dialler tries the acceptor's endpoint for a few seconds and then
the relay; the acceptor takes whichever path brings the right greeting first (silos/direct.py).  What flows afterwards
is the same bytes on either path, and TLS between the workers (silos/links.py) is what both rely on.  A relayed stream goes
on over a new connection when one breaks (silos/pump.py); a direct one ends with its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError

from mpc.errors import LocalProtocolError, PeerLost
from silos.direct import ACCEPT, GO, GREETING_TIMEOUT_S, DirectListener, Greeting, dial
from silos.pump import SILENT_S, RelayPump
from silos.resumable import NotYet, Resumable, StreamOver

__all__ = ["DirectListener", "OpenRelay", "StreamPlan", "Streams", "connect_streams"]

OpenRelay = Callable[[str, str], Awaitable[ClientWebSocketResponse]]
# A direct stream usually comes at once; the acceptor troubles the relay only after this.
HEAD_START_S = 0.5
RETRY_S = 0.5
# The coordinator's answers that trying again does not change: no part in the job, no such job, a job that has ended.
OVER = frozenset({403, 404, 409})


@dataclass(frozen=True)
class StreamPlan:
    """What a node knows about the streams of one job from its spec and the participants' consents.

    endpoints: "host:port" or "" per participant; tokens: the 16-byte link token per participant.
    """

    job: str
    session: bytes
    me: str
    participants: tuple[str, ...]
    endpoints: dict[str, str]
    tokens: dict[str, bytes] = field(repr=False)
    links: Literal["auto", "relay"] = "auto"
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be packed into greetings."""
        if self.me not in self.participants or len(set(self.participants)) != len(self.participants):
            raise LocalProtocolError(f"'{self.me}' is not one of the participants, or one is named twice")
        if len(self.session) != 16:
            raise LocalProtocolError(f"a session id has 16 bytes, got {len(self.session)}")
        for name in self.participants:
            if len(self.tokens.get(name, b"")) != 16:
                raise LocalProtocolError(f"the link token of {name} must have 16 bytes")

    @property
    def peers(self) -> tuple[str, ...]:
        """Everybody but us, in the order of the participants."""
        return tuple(name for name in self.participants if name != self.me)

    def acceptor(self, peer: str) -> str:
        """Who of `peer` and us accepts: who advertises an endpoint; the one named first if both or none do."""
        first, second = sorted((self.me, peer), key=self.participants.index)
        return second if self.endpoints.get(second) and not self.endpoints.get(first) else first

    def endpoint(self, peer: str) -> str:
        """Where the acceptor of this pair can be dialled; empty if only the relay is left."""
        return "" if self.links == "relay" else self.endpoints.get(self.acceptor(peer), "")

    def greeting(self, peer: str) -> Greeting:
        """The greeting both ends of the stream with `peer` expect."""
        acceptor = self.acceptor(peer)
        dialler = peer if acceptor == self.me else self.me
        place = self.participants.index
        return Greeting(self.session, self.tokens[acceptor], place(dialler), place(acceptor))


@dataclass(frozen=True)
class _Stream:
    socket: socket.socket
    how: Literal["direct", "relay"]
    pump: RelayPump | None = None

    async def close(self) -> None:
        self.socket.close()
        if self.pump is not None:
            await self.pump.close()


class Streams:
    """The streams of one job.  `sockets` are blocking, for a worker; `how` says which path each one takes."""

    def __init__(self, streams: dict[str, _Stream]) -> None:
        self._streams = streams
        self.sockets = {peer: stream.socket for peer, stream in streams.items()}
        self.how = {peer: stream.how for peer, stream in streams.items()}

    def handed_over(self) -> None:
        """Close this process's copies once the worker has its own, so that its end is the end of the stream."""
        for sock in self.sockets.values():
            sock.close()

    async def close(self) -> None:
        """Close everything and stop relaying."""
        await asyncio.gather(*(stream.close() for stream in self._streams.values()))


async def connect_streams(plan: StreamPlan, open_relay: OpenRelay, listener: DirectListener | None) -> Streams:
    """Connect to every peer of the plan, all at once.

    open_relay(job, peer) opens the relay's WebSocket towards `peer` (no compression, frames of up to 1 MiB).

    Raises: PeerLost(peer, "link", ...) naming the first peer, in the order of the plan, that did not come within
        `plan.timeout_s`; nothing stays open then.
    """
    tasks = {peer: asyncio.create_task(_connect(plan, peer, open_relay, listener)) for peer in plan.peers}
    async with contextlib.AsyncExitStack() as opened:
        opened.push_async_callback(_abandon, tasks.values())
        if tasks:
            done, _ = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks.values():
                if task in done:
                    task.result()  # raises what went wrong, before we ask one that is still waiting
        streams = Streams({peer: task.result() for peer, task in tasks.items()})
        opened.pop_all()
    return streams


async def _connect(plan: StreamPlan, peer: str, open_relay: OpenRelay, listener: DirectListener | None) -> _Stream:
    relay = _RelayPath(plan, peer, open_relay)
    try:
        async with asyncio.timeout(plan.timeout_s):
            if plan.acceptor(peer) == plan.me:
                return await _accept(plan, peer, relay, listener)
            if endpoint := plan.endpoint(peer):
                sock = await dial(endpoint, plan.greeting(peer))
                if sock is not None:
                    return _direct(sock)
            return await relay.until_open()
    except TimeoutError as exc:
        why = f" ({relay.trouble})" if relay.trouble else ""
        raise PeerLost(peer, "link", f"no connection within {plan.timeout_s:g} s{why}") from exc


async def _accept(plan: StreamPlan, peer: str, relay: _RelayPath, listener: DirectListener | None) -> _Stream:
    """Take the first path that brings the right greeting; the other one is given up."""
    if listener is None or not plan.endpoint(peer):
        return await relay.until_open()
    paths = [
        asyncio.create_task(_accept_direct(listener, plan.greeting(peer))),
        asyncio.create_task(relay.until_open(HEAD_START_S)),
    ]
    async with contextlib.AsyncExitStack() as opened:
        opened.push_async_callback(_abandon, paths)
        done, rest = await asyncio.wait(paths, return_when=asyncio.FIRST_COMPLETED)
        winner = next(path for path in paths if path in done)
        await _abandon(rest | (done - {winner}))
        stream = winner.result()
        opened.pop_all()
    return stream


async def _accept_direct(listener: DirectListener, greeting: Greeting) -> _Stream:
    future = listener.expect(greeting)
    try:
        return _direct(await future)
    except asyncio.CancelledError:
        if future.done() and not future.cancelled():
            future.result().close()
        raise


def _direct(sock: socket.socket) -> _Stream:
    sock.setblocking(True)
    return _Stream(sock, "direct")


async def _abandon(tasks: Iterable[asyncio.Task[_Stream]]) -> None:
    """Cancel what is under way and close what had already been opened."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, _Stream):
            await outcome.close()


class _RelayPath:
    """The way to one peer through the relay; `trouble` is why it last failed, for the error message."""

    def __init__(self, plan: StreamPlan, peer: str, open_relay: OpenRelay) -> None:
        self._plan, self._peer, self._open_relay = plan, peer, open_relay
        self._greeting, self._stream, self._status = plan.greeting(peer), Resumable(), 0
        self._greet = self._accept if plan.acceptor(peer) == plan.me else self._dial
        self.trouble = ""

    async def until_open(self, head_start_s: float = 0.0) -> _Stream:
        """Open the relay and greet, again and again: the relay hangs up on whoever waits long for a late peer."""
        await asyncio.sleep(head_start_s)
        while (websocket := await self._attempt()) is None:  # noqa: ASYNC110  there is nobody to be told by
            await asyncio.sleep(RETRY_S)
        pump = RelayPump(websocket, self._stream, self._again, self._plan.timeout_s)
        return _Stream(pump.worker_end, "relay", pump)

    async def _again(self) -> ClientWebSocketResponse | None:
        """Another connection for the stream; None when the coordinator says that there is no such job to connect for.

        Raises: StreamOver.
        """
        while (websocket := await self._attempt()) is None:
            if self._status in OVER:
                return None
            await asyncio.sleep(RETRY_S)
        return websocket

    async def _attempt(self) -> ClientWebSocketResponse | None:
        """One connection through the relay, on which both ends have met.  Raises: StreamOver."""
        self._status = 0
        try:
            websocket = await self._open_relay(self._plan.job, self._peer)
        except (ClientError, OSError) as exc:
            self._status = exc.status if isinstance(exc, WSServerHandshakeError) else 0
            self.trouble = f"the relay cannot be used: {_reason(exc)}"
            return None
        met = False
        try:
            async with asyncio.timeout(SILENT_S):
                met = await self._greet(websocket) and await self._meet(websocket)
        except (ClientError, OSError):
            self.trouble = "the relay closed the stream"
        except (NotYet, StreamOver) as exc:
            if self._stream.met and isinstance(exc, StreamOver):
                raise
            self.trouble = str(exc)
        finally:
            if not met:
                with contextlib.suppress(ClientError, OSError):
                    await websocket.close()
        return websocket if met else None

    async def _dial(self, websocket: ClientWebSocketResponse) -> bool:
        """Our half of the greeting when the peer accepts."""
        await websocket.send_bytes(self._greeting.pack())
        if await self._next(websocket) != ACCEPT:
            return False
        await websocket.send_bytes(GO)
        return True

    async def _accept(self, websocket: ClientWebSocketResponse) -> bool:
        """Our half of the greeting when the peer dials."""
        if not self._greeting.matches(await self._next(websocket)):
            return False
        await websocket.send_bytes(ACCEPT)
        async with asyncio.timeout(GREETING_TIMEOUT_S):
            return await self._next(websocket) == GO

    async def _meet(self, websocket: ClientWebSocketResponse) -> bool:
        """Agree with the peer on which stream this is and where it goes on.  Raises: NotYet, StreamOver."""
        await websocket.send_bytes(self._stream.hello())
        raw = await self._next(websocket)
        if raw:
            self._stream.meet(raw)
        return bool(raw)

    async def _next(self, websocket: ClientWebSocketResponse) -> bytes:
        message = await websocket.receive()
        if message.type is WSMsgType.BINARY:
            return bytes(message.data)
        self.trouble = f"the relay closed the stream with code {websocket.close_code}"
        return b""


def _reason(exc: ClientError | OSError) -> str:
    status = getattr(exc, "status", None)
    return f"status {status}" if status else type(exc).__name__
