"""Direct TCP streams between the nodes of two silos, and the greeting that opens a stream on either path.

The dialler sends a fixed-length preamble, the acceptor answers ACCEPT, the dialler says GO, and from the next byte on
the stream belongs to the workers:

    offset  size  field
    0       4     magic "ACL1"
    4       16    session id
    20      16    link token of the acceptor, from its consent
    36      2     sender: index in the session's list of participants (the dialler)
    38      2     receiver: likewise (the acceptor)

The token keeps strangers off the port; it authenticates nobody (the coordinator knows it), the TLS inside does.
GO makes both ends agree: a dialler that gives this path up never says it, so the acceptor goes on waiting for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import socket
import struct
from dataclasses import dataclass, field

from mpc.errors import LocalProtocolError

PREAMBLE = struct.Struct("!4s16s16sHH")
MAGIC = b"ACL1"
ACCEPT = b"ACL+"
GO = b"ACL!"
GREETING_TIMEOUT_S = 3.0
RETRY_S = 0.2
# Connections that have not shown a valid preamble yet; more of them wait in the kernel's queue.
MAX_STRANGERS = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Greeting:
    """Which stream of which session this is, and the acceptor's token."""

    session: bytes
    token: bytes = field(repr=False)
    sender: int
    receiver: int

    def pack(self) -> bytes:
        """The preamble."""
        return PREAMBLE.pack(MAGIC, self.session, self.token, self.sender, self.receiver)

    def matches(self, preamble: bytes) -> bool:
        """Whether `preamble` is exactly this one, without telling by time how much of it is right."""
        return hmac.compare_digest(self.pack(), preamble)

    @property
    def key(self) -> bytes:
        """Everything but the token: what a listener looks an expected stream up by."""
        return _key(self.pack())


def _key(preamble: bytes) -> bytes:
    return preamble[:20] + preamble[36:]


class DirectListener:
    """A node's one listening TCP port, shared by all its jobs.

    Only a stream that was announced by `expect` gets further than 40 bytes; everything else is closed without a word.
    """

    def __init__(self) -> None:
        self._server: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._strangers: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MAX_STRANGERS)
        self._expected: dict[bytes, tuple[Greeting, asyncio.Future[socket.socket]]] = {}

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address that was bound (port 0 asks for a free one).

        Raises: OSError if the address cannot be bound.
        """
        infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = infos[0]
        self._server = socket.create_server(address[:2], family=family, backlog=MAX_STRANGERS)
        self._server.setblocking(False)
        self._accepting = asyncio.create_task(self._accept_all(self._server))
        bound = self._server.getsockname()
        return bound[0], bound[1]

    def expect(self, greeting: Greeting) -> asyncio.Future[socket.socket]:
        """Announce a stream; the future gets its socket (non-blocking).  Cancel the future to stop waiting.

        Raises: LocalProtocolError if this stream is expected already.
        """
        future: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        if greeting.key in self._expected:
            raise LocalProtocolError("this stream is already expected")
        self._expected[greeting.key] = (greeting, future)
        future.add_done_callback(lambda _: self._expected.pop(greeting.key))
        return future

    async def close(self) -> None:
        """Stop listening and drop every connection that was not handed over."""
        tasks = [t for t in (self._accepting, *self._strangers) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, future in list(self._expected.values()):
            future.cancel()
        if self._server is not None:
            self._server.close()

    async def _accept_all(self, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                sock, _ = await loop.sock_accept(server)
            except OSError as exc:  # out of descriptors, or the caller left before we came
                self._room.release()
                log.warning("cannot accept a direct stream: %s", exc.strerror)
                await asyncio.sleep(RETRY_S)
                continue
            task = asyncio.create_task(self._greet(sock))
            self._strangers.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._strangers.discard(task)
        self._room.release()

    async def _greet(self, sock: socket.socket) -> None:
        """Read one preamble and hand the socket over if it was expected; otherwise close it."""
        handed_over = False
        try:
            async with asyncio.timeout(GREETING_TIMEOUT_S):
                preamble = await read_exactly(sock, PREAMBLE.size)
                greeting, future = self._expected.get(_key(preamble), (None, None))
                if greeting is None or future is None or not greeting.matches(preamble):
                    log.info("dropped a direct connection without a valid preamble")
                    return
                await asyncio.get_running_loop().sock_sendall(sock, ACCEPT)
                if await read_exactly(sock, len(GO)) == GO and not future.done():
                    future.set_result(sock)
                    handed_over = True
        except (OSError, EOFError):
            log.info("a direct connection ended before its preamble was complete")
        finally:
            if not handed_over:
                sock.close()


async def dial(endpoint: str, greeting: Greeting) -> socket.socket | None:
    """Connect to a peer's advertised endpoint; None if no acceptor of this stream answers within GREETING_TIMEOUT_S.

    An acceptor that is not ready yet hangs up, so we try again until the time is over.  The socket is non-blocking.
    """
    host, _, port = endpoint.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        return None
    try:
        async with asyncio.timeout(GREETING_TIMEOUT_S):
            while True:
                sock = await _dial_once(host.strip("[]"), int(port), greeting)
                if sock is not None:
                    return sock
                await asyncio.sleep(RETRY_S)
    except TimeoutError:
        return None


async def _dial_once(host: str, port: int, greeting: Greeting) -> socket.socket | None:
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    for family, kind, proto, _, address in addresses:
        with contextlib.ExitStack() as opened:
            sock = opened.enter_context(socket.socket(family, kind, proto))
            sock.setblocking(False)
            with contextlib.suppress(OSError, EOFError):  # unreachable or not an acceptor: the next one, or the relay
                await loop.sock_connect(sock, address)
                await loop.sock_sendall(sock, greeting.pack())
                if await read_exactly(sock, len(ACCEPT)) == ACCEPT:
                    await loop.sock_sendall(sock, GO)
                    opened.pop_all()
                    return sock
    return None


async def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes and not one more, because the next one belongs to someone else.

    Raises: EOFError if the other end closes before that.
    """
    loop = asyncio.get_running_loop()
    raw = bytearray(size)
    view = memoryview(raw)
    while view:
        n = await loop.sock_recv_into(sock, view)
        if n == 0:
            raise EOFError
        view = view[n:]
    return bytes(raw)
