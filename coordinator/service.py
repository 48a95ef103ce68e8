"""What the coordinator does, apart from HTTP: the parts of one running coordinator and the steps that join them."""

from __future__ import annotations

import asyncio
import datetime as dt
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator import ca, relay
from coordinator.enrol import Enrolment, read_rotation
from coordinator.envelope import Statement, seal
from coordinator.errors import Conflict, Unknown
from coordinator.events import Hub
from coordinator.jobs import Job
from coordinator.log import Entry
from coordinator.metrics import Metrics
from coordinator.note import verifier_key
from coordinator.relay import Relay
from coordinator.statements import COORDINATOR, format_time
from coordinator.store import Accepted, Store
from coordinator.writing import StoreThread

Clock = Callable[[], dt.datetime]


@dataclass(frozen=True)
class Coordinator:
    """One running coordinator; built by server.py, used by the handlers."""

    origin: str
    authority: ca.Authority
    log_key: Ed25519PrivateKey
    store: StoreThread
    clock: Clock
    metrics: Metrics
    hub: Hub
    relay: Relay
    sockets: dict[str, weakref.WeakSet[web.WebSocketResponse]] = field(default_factory=dict)

    @property
    def log_verifier(self) -> str:
        """The log's public key as text."""
        return verifier_key(self.origin, self.log_key).text()

    async def enrol(self, request: Enrolment, token_id: str, secret: str) -> x509.Certificate:
        """Put a silo on the roster and the log; returns its certificate.  Raises: Refusal."""
        now = self.clock()
        index = await self.store.write(Store.enrol, request, token_id, secret, now)
        self.metrics.entries.labels("enrolled").inc()
        self.metrics.log_size.set(index + 1)
        await self.hang_up(request.silo)  # a replaced silo's old connections
        return ca.issue_silo(self.authority, request.csr, request.silo, now)

    async def rotate(self, entry: Entry) -> int:
        """Give a silo the identity key that its present one hands over to; returns the entry's index.  Raises: Refusal."""
        said = entry.sealed.statement
        silo = await self.store.call(Store.silo, said.silo)
        if silo is None:
            raise Unknown(f"no silo '{said.silo}' is enrolled")
        key = read_rotation(entry.sealed, silo.identity_key)
        index = await self.store.write(Store.rotate, entry, key, self.clock())
        if key != silo.identity_key:
            self.metrics.entries.labels("rotated").inc()
            self.metrics.log_size.set(index + 1)
        return index

    async def submit(self, entries: Sequence[Entry]) -> Job:
        """Start a job.  Raises: Refusal."""
        accepted = await self.store.write(Store.submit, entries, self.clock())
        job = accepted[-1].job
        for entry, done in zip(entries, accepted, strict=True):
            self._count(entry, done)
        if accepted[-1].fresh:
            self.hub.state_changed(job, "disclosed", job.submitter)
        return job

    async def append(self, entry: Entry) -> Accepted:
        """Move a job by an entry, and tell whom it concerns.  Raises: Refusal."""
        accepted = await self.store.write(Store.append, entry, self.clock())
        self._count(entry, accepted)
        if accepted.fresh:
            said, job = entry.sealed.statement, accepted.job
            self.hub.state_changed(job, said.event, said.silo)
            if job.state.is_final:
                self.metrics.jobs_ended.labels(job.state.value).inc()
                await self.relay.close_where(lambda seat: seat.job == job.id, relay.JOB_OVER, b"the job is over")
        return accepted

    def _count(self, entry: Entry, accepted: Accepted) -> None:
        if accepted.fresh:
            self.metrics.entries.labels(entry.sealed.statement.event).inc()
            self.metrics.log_size.set(accepted.index + 1)

    async def expire_overdue(self) -> None:
        """End every open job whose valid_until has passed, with an entry signed by the log's key."""
        now = self.clock()
        for job in await self.store.call(Store.overdue, now):
            reason = f"not done by {job.valid_until}; it was {job.state}"
            statement = Statement(
                "expired", job.id, job.spec_digest, COORDINATOR, 0, "", format_time(now), {"reason": reason}
            )
            try:
                await self.append(Entry.parse(seal(statement, self.log_key)))
            except Conflict:
                continue  # it ended by itself between the query and now

    async def hang_up_on_revoked(self) -> None:
        """Close the sockets of silos that were revoked, perhaps by another process, since they connected."""
        for name in list(self.sockets):
            silo = await self.store.call(Store.silo, name)
            if silo is None or silo.revoked:
                await self.hang_up(name)

    async def hang_up(self, silo: str) -> None:
        """Close every WebSocket of a silo."""
        await self.relay.close_where(
            lambda seat: seat.me == silo, WSCloseCode.POLICY_VIOLATION, b"not enrolled any more"
        )
        await _close_all(list(self.sockets.get(silo, ())), WSCloseCode.POLICY_VIOLATION)

    async def shut_down(self) -> None:
        """Tell every listener that the coordinator goes away."""
        await self.relay.close_where(lambda _: True, WSCloseCode.GOING_AWAY, b"the coordinator stops")
        await _close_all([ws for group in self.sockets.values() for ws in group], WSCloseCode.GOING_AWAY)

    @contextmanager
    def connected(self, silo: str, route: str, ws: web.WebSocketResponse) -> Iterator[None]:
        """Count a WebSocket and make it reachable for `hang_up` while the block runs."""
        group = self.sockets.setdefault(silo, weakref.WeakSet())
        group.add(ws)
        self.metrics.sockets.labels(route).inc()
        try:
            yield
        finally:
            self.metrics.sockets.labels(route).dec()
            group.discard(ws)
            if not group and self.sockets.get(silo) is group:
                del self.sockets[silo]

    async def job_for(self, job_id: str, silo: str) -> Job:
        """A job, if it concerns the silo.  Raises: Unknown; whoever has no part in a job does not learn that it exists."""
        job = await self.store.call(Store.job, job_id)
        if job is None or not job.involves(silo):
            raise Unknown("there is no such job")
        return job


async def _close_all(sockets: Sequence[web.WebSocketResponse], code: int) -> None:
    async def close(ws: web.WebSocketResponse) -> None:
        try:
            async with asyncio.timeout(relay.CLOSE_WAIT_S):
                await ws.close(code=code)
        except TimeoutError:
            return  # aiohttp has closed the transport on cancellation

    await asyncio.gather(*(close(ws) for ws in sockets))
