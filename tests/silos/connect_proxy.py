"""A small HTTP proxy on loopback that knows CONNECT and one password, as outbound-only networks have."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

USER, PASSWORD = "lender", "canary-pw"


@dataclass
class ConnectProxy:
    """asked: what clients wanted to be connected to.  refused: how often the password was wrong."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    refused: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def url(self, password: str = PASSWORD) -> str:
        """As a silo's configuration has it."""
        return f"http://{USER}:{password}@127.0.0.1:{self.port}"

    def reset(self) -> None:
        """Break every connection that is open."""
        for writer in self.writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        self.writers.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split("\r\n")[0].split(" ")
            login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if method != "CONNECT" or f"Basic {login}" not in head:
                self.refused += 1
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            self.asked.append(target)
            host, _, port = target.rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
            self.writers.add(back)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
            self.writers.discard(back)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            self.writers.discard(writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def connect_proxy() -> AsyncIterator[ConnectProxy]:
    """A proxy on a free port."""
    proxy = ConnectProxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.reset()
