"""The composition root: puts one coordinator together, serves it, and offers the operator's commands."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from coordinator import home as homes
from coordinator import quotas, tiles
from coordinator.app import build_app
from coordinator.enrol import JoinToken, TokenRecord, revocation
from coordinator.envelope import seal
from coordinator.errors import Malformed, Refusal, Unavailable, Unknown
from coordinator.events import Hub
from coordinator.home import Home
from coordinator.log import Entry
from coordinator.metrics import Metrics
from coordinator.note import open_checkpoint, verifier_key
from coordinator.quotas import Counters
from coordinator.relay import Relay
from coordinator.roster import Silo
from coordinator.service import Clock, Coordinator
from coordinator.statements import COORDINATOR, is_silo_name
from coordinator.writing import StoreThread

TICK_S = 1.0
DRAIN_S = 5.0

_log = logging.getLogger("accord.coordinator")


@dataclass(frozen=True)
class Running:
    """A coordinator that accepts connections.  upkeep: ends only with an error that must stop it."""

    port: int
    coordinator: Coordinator
    upkeep: asyncio.Task[None]


async def serve(home: Path, host: str, port: int, ready: Callable[[int], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then close connections in order and return.

    ready: called with the bound port once connections are accepted (port 0 takes any free one).
    Raises: HomeError, Corrupt or OSError if it cannot start or must not go on.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with running(home, host, port) as server:
            if ready is not None:
                ready(server.port)
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({stopped, server.upkeep}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if server.upkeep.done():
                await server.upkeep  # raises what ended it
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def utc_now() -> dt.datetime:
    """The only clock of the process."""
    return dt.datetime.now(dt.UTC)


@asynccontextmanager
async def running(
    home: Path, host: str, port: int, *, clock: Clock = utc_now, relay: Relay | None = None
) -> AsyncIterator[Running]:
    """A coordinator that serves while the block runs."""
    place = homes.load(home)
    place.refresh_server_certificate(clock())
    metrics = Metrics()
    counters = Counters(quotas.read(place.path / homes.SETTINGS), metrics.crossed)
    coordinator = Coordinator(
        origin=place.origin,
        authority=place.authority,
        log_key=place.log_key,
        store=StoreThread(place.open_store),
        clock=clock,
        metrics=metrics,
        hub=Hub(),
        relay=relay or Relay(metrics.forwarded, pace=counters.pace),
    )
    runner = web.AppRunner(build_app(coordinator, counters), access_log=None, shutdown_timeout=DRAIN_S)
    async with contextlib.AsyncExitStack() as stack:
        await coordinator.store.start()
        stack.push_async_callback(coordinator.store.stop)
        metrics.log_size.set(await coordinator.store.call(lambda store: store.log.size()))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        tls = _tls_context(place)
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        upkeep = asyncio.create_task(_upkeep(coordinator, place, tls))
        stack.push_async_callback(_cancelled, upkeep)
        yield Running(runner.addresses[0][1], coordinator, upkeep)


async def _upkeep(coordinator: Coordinator, place: Home, tls: ssl.SSLContext) -> None:
    """What time brings: jobs expire, revocations reach open sockets, the server's certificate is renewed."""
    while True:
        try:
            await coordinator.hang_up_on_revoked()
            if place.refresh_server_certificate(coordinator.clock()):
                tls.load_cert_chain(place.path / "server.pem", place.path / "server.key")
            await coordinator.expire_overdue()
        except (
            Unavailable,
            Refusal,
            OSError,
        ) as exc:  # a full disk may have room again, a log that is behind may be restored
            _log.warning("upkeep failed and is tried again: %s", exc)
        await asyncio.sleep(TICK_S)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _tls_context(place: Home) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(place.path / "server.pem", place.path / "server.key")
    context.load_verify_locations(place.path / "ca.pem")
    context.verify_mode = ssl.CERT_OPTIONAL  # enrolment has no certificate yet; every other route asks for one
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.num_tickets = 0  # no resumption: each connection shows its certificate
    context.set_alpn_protocols(["http/1.1"])
    return context


# --- the operator's commands; they work beside a running server, on its database


def init_home(home: Path, hosts: Sequence[str], origin: str, database: str = "") -> None:
    """Make a new coordinator's keys, certificates and database in `home`.

    hosts: names and addresses the server is reached by.  origin: the log's name, like "example.org/accord".  database: ""
    for an SQLite file in `home`, or the address of an empty PostgreSQL database.
    Raises: HomeError, ValueError.
    """
    homes.create(home, hosts, origin, utc_now(), database)


def create_token(home: Path, silo: str, ttl_s: int = 600, allow_replace: bool = False) -> str:
    """A one-time join token for the name `silo`; allow_replace lets it take over an enrolled name.

    Raises: HomeError, Malformed.
    """
    if not is_silo_name(silo):
        raise Malformed(f"'{silo}' is not a silo's name: a-z, 0-9 and '-', 2 to 32 characters, a letter first")
    place = homes.load(home)
    token = JoinToken.draw(place.authority.pin)
    expires = utc_now() + dt.timedelta(seconds=ttl_s)
    with contextlib.closing(place.open_store()) as store:
        store.add_token(TokenRecord(token.id, silo, token.secret_hash(), expires, allow_replace, used=False))
    return token.text()


def export_tiles(home: Path, folder: Path, *, entries: bool) -> tuple[int, int]:
    """Write the log as static C2SP tiles; returns how many files are new and the size of the log.

    entries: also the entries themselves, of all jobs.
    Raises: HomeError, Corrupt, Unavailable; OSError if the files cannot be written.
    """
    place = homes.load(home)
    with contextlib.closing(place.open_store()) as store:
        note = store.checkpoint_note()
        size = open_checkpoint(note, verifier_key(place.origin, place.log_key)).size
        return tiles.export(store.log, size, note, folder, entries=entries), size


def list_silos(home: Path) -> list[Silo]:
    """Every silo that was enrolled, revoked ones too.  Raises: HomeError."""
    with contextlib.closing(homes.load(home).open_store()) as store:
        return store.roster()


def revoke(home: Path, silo: str, reason: str = "revoked by the operator") -> None:
    """Stop accepting a silo's key, and say so in the log; a running server closes its connections within seconds.

    Nothing happens if it is revoked already.  What the key has signed before stays signed.
    Raises: HomeError, Unknown; Malformed if the reason is empty or too long.
    """
    place = homes.load(home)
    with contextlib.closing(place.open_store()) as store:
        row = store.silo(silo)
        if row is None:
            raise Unknown(f"no silo '{silo}' is enrolled")
        if not row.revoked:
            now = utc_now()
            said = revocation(silo, row.identity_key, reason, store.roster_chain_end(COORDINATOR), now)
            store.revoke(Entry.parse(seal(said, place.log_key)), silo, now)
