"""The coordinator's HTTP API as seen by a silo: one method per route, over mutual TLS, connecting outwards only."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import aiohttp

from coordinator.merkle import HASH_BYTES, leaf_hash
from silos.config import PROXY, Home
from silos.errors import CoordinatorRefused, CoordinatorUnreachable
from silos.tls import home_context

MAX_REPLY_BYTES = 64 << 20
MAX_EVENT_BYTES = 1 << 20
MAX_FRAME_BYTES = 1 << 20
HEARTBEAT_S = 20.0
TOO_MANY = 429  # a quota; later is another matter
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)
T = TypeVar("T")


@dataclass(frozen=True)
class LogEntry:
    """One entry of the log.  leaf: its hash in the tree.  envelope: None if it is about a job of others."""

    leaf: bytes
    envelope: bytes | None

    @classmethod
    def read(cls, item: Any) -> LogEntry:
        """Raises: KeyError, TypeError or ValueError if this is not an entry as the coordinator sends it."""
        if "envelope" in item:
            envelope = base64.b64decode(item["envelope"])
            return cls(leaf_hash(envelope), envelope)
        leaf = base64.b64decode(item["leaf"])
        if len(leaf) != HASH_BYTES:
            raise ValueError(f"a leaf has {HASH_BYTES} bytes, got {len(leaf)}")
        return cls(leaf, None)


def _roster_entry(item: Any) -> tuple[int, bytes]:
    return int(item["index"]), base64.b64decode(item["envelope"])


async def _sentence(reply: aiohttp.ClientResponse) -> str:
    """The server's own sentence, or a plain one if it sent something else."""
    try:
        error = json.loads(await reply.content.read(1 << 16))["error"]
    except (ValueError, KeyError, TypeError):
        return f"the coordinator refused with HTTP status {reply.status}"
    return str(error)[:1000]


async def _read(reply: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in reply.content.iter_chunked(1 << 16):
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise CoordinatorUnreachable(f"the coordinator's answer has more than {MAX_REPLY_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


class CoordinatorClient:
    """One silo's connection to its coordinator; use as an async context manager.

    Every method raises CoordinatorRefused with the server's sentence, or CoordinatorUnreachable if there is no answer.
    """

    def __init__(self, url: str, context: ssl.SSLContext, proxy: str | None = None) -> None:
        """proxy: an HTTP proxy to go through, as the configuration has it."""
        self.url = url.rstrip("/")
        self._context, self._proxy = context, proxy
        self._session: aiohttp.ClientSession | None = None
        self._retired: list[aiohttp.ClientSession] = []

    def _new_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
        return aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, trust_env=False, proxy=self._proxy)

    async def __aenter__(self) -> Self:
        self._session = self._new_session()
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (*self._retired, *((self._session,) if self._session is not None else ())):
            await session.close()

    def use(self, context: ssl.SSLContext) -> None:
        """Connect with a renewed certificate from now on; sockets that are open stay open."""
        self._context = context
        if self._session is not None:
            self._retired.append(self._session)
            self._session = self._new_session()

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise ValueError("the client is used outside its 'async with' block")
        return self._session

    async def _call(
        self, method: str, path: str, *, body: Any = None, text: str | None = None, params: dict[str, str] | None = None
    ) -> bytes:
        try:
            async with self._open.request(method, self.url + path, json=body, data=text, params=params) as reply:
                if reply.status >= 500:
                    raise CoordinatorUnreachable(f"the coordinator is in trouble: {await _sentence(reply)}")
                if reply.status == TOO_MANY:
                    raise CoordinatorUnreachable(await _sentence(reply))
                if reply.status >= 400:
                    raise CoordinatorRefused(reply.status, await _sentence(reply))
                return await _read(reply)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._unreachable(exc) from exc

    def _unreachable(self, exc: Exception) -> CoordinatorUnreachable:
        if isinstance(exc, aiohttp.ClientConnectorCertificateError):
            return CoordinatorUnreachable(f"the server at {self.url} is not our coordinator: its certificate is wrong")
        if isinstance(exc, aiohttp.ClientHttpProxyError):
            return CoordinatorUnreachable(f"{self._proxy_place} refuses to connect to {self.url} (status {exc.status})")
        if isinstance(exc, aiohttp.ClientProxyConnectionError):
            return CoordinatorUnreachable(f"{self._proxy_place} does not answer")
        return CoordinatorUnreachable(f"the coordinator at {self.url} does not answer ({type(exc).__name__})")

    @property
    def _proxy_place(self) -> str:
        """The proxy without its user and password."""
        found = PROXY.fullmatch(self._proxy or "")
        return f"the proxy {found['place']}" if found else "the proxy"

    async def _json(self, method: str, path: str, *, body: Any = None, params: dict[str, str] | None = None) -> Any:
        raw = await self._call(method, path, body=body, params=params)
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as exc:
            raise CoordinatorUnreachable(f"the coordinator's answer to {path} is not JSON") from exc

    async def ca(self) -> str:
        """The authority's certificate as PEM text; needs no certificate of ours."""
        return (await self._call("GET", "/v1/ca")).decode(errors="replace")

    async def enrol(self, request: dict[str, str]) -> dict[str, str]:
        """Join; see silos/enrol.py for the request's fields.  Needs no certificate of ours."""
        reply: dict[str, str] = await self._json("POST", "/v1/enrol", body=request)
        return reply

    async def renew(self, csr_pem: str) -> str:
        """A certificate for a new key, as PEM text; the old key is not accepted any more."""
        reply = json.loads(await self._call("POST", "/v1/renew", text=csr_pem))
        return str(reply["certificate"])

    async def roster(self) -> list[dict[str, Any]]:
        """Every enrolled silo: silo, identity_key (b64), fingerprint, enrolled_at."""
        silos: list[dict[str, Any]] = (await self._json("GET", "/v1/roster"))["silos"]
        return silos

    async def submit(self, entries: list[bytes]) -> str:
        """Submit a job with its 'proposed' and 'disclosed' entries; returns the job id."""
        body = {"entries": [base64.b64encode(e).decode() for e in entries]}
        return str((await self._json("POST", "/v1/jobs", body=body))["job"])

    async def jobs(self) -> list[dict[str, Any]]:
        """The jobs we submitted or take part in, without their specs."""
        jobs: list[dict[str, Any]] = (await self._json("GET", "/v1/jobs"))["jobs"]
        return jobs

    async def job(self, job: str) -> dict[str, Any]:
        """One job with its spec, state, entries and progress."""
        view: dict[str, Any] = await self._json("GET", f"/v1/jobs/{job}")
        return view

    async def post_entry(self, job: str, entry: bytes) -> dict[str, Any]:
        """Append a statement of ours to a job: {index, state}."""
        body = {"entry": base64.b64encode(entry).decode()}
        reply: dict[str, Any] = await self._json("POST", f"/v1/jobs/{job}/entries", body=body)
        return reply

    async def progress(self, job: str, stage: str, done: int, total: int) -> None:
        """Tell watchers how far our worker is; kept nowhere."""
        await self._call("POST", f"/v1/jobs/{job}/progress", body={"stage": stage, "done": done, "total": total})

    async def checkpoint(self) -> str:
        """The log's latest signed checkpoint."""
        return (await self._call("GET", "/v1/log/checkpoint")).decode(errors="replace")

    async def log_entries(self, start: int, end: int) -> list[LogEntry]:
        """The log's entries with start <= index < end; the server may send fewer."""
        return await self._list("/v1/log/entries", "entries", LogEntry.read, start=start, end=end)

    async def roster_entries(self, start: int, end: int) -> list[tuple[int, bytes]]:
        """Index and envelope of the log's entries about no job with start <= index < end; the server may send fewer."""
        return await self._list("/v1/log/roster", "entries", _roster_entry, start=start, end=end)

    async def rotate(self, entry: bytes) -> int:
        """Post our 'rotated' statement; returns its index in the log."""
        reply = await self._json("POST", "/v1/rotate", body={"entry": base64.b64encode(entry).decode()})
        return int(reply["index"])

    async def cosigned(self, least: int) -> str:
        """The newest checkpoint that at least so many silos cosigned, with their lines.  Refused with 404 if there is none."""
        return (await self._call("GET", "/v1/log/cosigned", params={"least": str(least)})).decode(errors="replace")

    async def cosign(self, note: str) -> None:
        """Post a signed checkpoint with our line."""
        await self._call("POST", "/v1/log/cosignatures", text=note)

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """The RFC 6962 proof that entry `index` is in the tree of `size`."""
        return await self._list("/v1/log/inclusion", "hashes", base64.b64decode, index=index, size=size)

    async def consistency(self, first: int, second: int) -> list[bytes]:
        """The RFC 6962 proof that the tree of `second` extends the tree of `first`."""
        return await self._list("/v1/log/consistency", "hashes", base64.b64decode, first=first, second=second)

    async def _list(self, path: str, name: str, read: Callable[[Any], T], **query: int) -> list[T]:
        """The items of a reply that is one list."""
        reply = await self._json("GET", path, params={key: str(value) for key, value in query.items()})
        try:
            return [read(item) for item in reply[name]]
        except (KeyError, TypeError, ValueError) as exc:
            raise CoordinatorUnreachable(f"the coordinator's answer to {path} is malformed") from exc

    @asynccontextmanager
    async def events(self, job: str | None = None) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What happens to our jobs, or to one of them; the inner iterator ends when the connection does."""
        path = "/v1/events" + (f"?job={job}" if job else "")
        try:
            socket = await self._websocket(path, MAX_EVENT_BYTES, HEARTBEAT_S)
        except aiohttp.WSServerHandshakeError as exc:
            if exc.status == TOO_MANY:
                raise CoordinatorUnreachable(f"{self.url} has too many open sockets of this silo") from exc
            if exc.status < 500:
                raise CoordinatorRefused(
                    exc.status, f"the coordinator refused {path} with status {exc.status}"
                ) from exc
            raise self._unreachable(exc) from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._unreachable(exc) from exc
        try:
            yield self._messages(socket)
        finally:
            await socket.close()

    async def relay(self, job: str, peer: str) -> aiohttp.ClientWebSocketResponse:
        """A byte pipe to `peer` for one job: binary messages of at most 1 MiB, in order; the caller closes it.

        No heartbeat: a pong that waits behind a slow peer's data must not cut the link.
        Raises: aiohttp.ClientError or OSError, which the streams of a job know how to retry.
        """
        return await self._websocket(f"/v1/relay/{job}/{peer}", MAX_FRAME_BYTES, None)

    async def _websocket(self, path: str, limit: int, heartbeat: float | None) -> aiohttp.ClientWebSocketResponse:
        """aiohttp's message limit is exclusive, hence + 1."""
        return await self._open.ws_connect(self.url + path, heartbeat=heartbeat, max_msg_size=limit + 1, compress=0)

    @staticmethod
    async def _messages(socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[dict[str, Any]]:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                return
            try:
                event = json.loads(message.data)
            except (ValueError, RecursionError):
                return
            if isinstance(event, dict) and isinstance(event.get("job"), str):
                yield event


@asynccontextmanager
async def connect(home: Home) -> AsyncIterator[CoordinatorClient]:
    """A client for an enrolled silo's home.  Raises: ConfigError if it has not joined."""
    enrolment = home.load_enrolment()
    context = await asyncio.to_thread(home_context, home)
    async with CoordinatorClient(enrolment.url, context, home.load_config().proxy) as client:
        yield client
