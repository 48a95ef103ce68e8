"""The computation of one job at one silo: connect to everybody and let a worker do the job, again if the job resumes.

A job resumes when its worker, a link or the node of any silo is lost, and only then: what a worker says of its data or of a
peer ends the job.  Before its last message a worker has what it found on disk.  Whoever has heard that from the others too
needs nobody any more, and neither does who finds another's signed release in the log; `silos.match` and `vertical.resuming`
say why what all release is then of one attempt.  A dealer is needed until then, and comes back as an owner does.

Every wait is bounded.  So many workers may be lost, and so many times a silo may not come in the time that the spec allows;
then the job fails with what was lost last.  A worker that says nothing for too long is stopped by its own node, since the
others cannot do more than hang up.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc.errors import PeerLost
from silos import leftovers
from silos.client import CoordinatorClient
from silos.consent import Consent, session_id
from silos.errors import CoordinatorRefused, CoordinatorUnreachable, JobFailed
from silos.link_tls import LinkCredentials
from silos.review import Approved
from silos.streams import DirectListener, StreamPlan, Streams, connect_streams
from silos.workers import LEAST_SILENT_S, Outcome, run_worker

log = logging.getLogger("accord.node")

MAX_WORKERS, PAUSE_S = 16, 0.5  # how many workers a job that resumes may lose and start anew, and the pause before
MAX_WAITS = 16  # how many times a silo may be away for as long as the spec says
LOOK_S = 2.0  # how often who waits for others looks whether they are needed
NOTHING_TO_DO = Outcome(None, [], {"rounds": 0, "bytes_sent": {}, "seconds": {}, "peak_mib": 0, "randomness": {}})

Released = Callable[[], Awaitable[set[str]]]


@dataclass(frozen=True)
class Attempts:
    """What the computation of a job depends on.  folder: of the job, at this silo.  tokens: where those that jobs keep are."""

    me: str
    folder: Path
    client: CoordinatorClient
    listener: DirectListener | None
    approved: Approved
    link: LinkCredentials
    consents: Mapping[str, Consent]
    tokens: Path

    async def outcome(self, released: Released) -> Outcome:
        """What the worker comes to.  released: the silos that have released their results by now, by their own
        signatures.

        Raises: JobFailed and PeerLost; of a job that resumes they are what its last worker ended with.
        """
        lost = away = 0
        while True:
            streams = None
            try:
                streams = await self._links(released)
                if streams is None and not self._owner:
                    return NOTHING_TO_DO
                return await self._work(streams)
            except (JobFailed, PeerLost) as exc:
                # waiting for a silo that is away loses no worker
                waited = isinstance(exc, PeerLost) and streams is None
                lost, away = lost + (not waited), away + waited
                gone = isinstance(exc, PeerLost) or exc.lost
                if not (gone and self.approved.spec.resumes) or lost == MAX_WORKERS or away == MAX_WAITS:
                    raise
                log.warning("job %s goes on after %s", self.approved.spec.job, exc)
            finally:
                if streams is not None:
                    await streams.close()
            await asyncio.sleep(PAUSE_S)

    @property
    def _owner(self) -> bool:
        return self.me in self.approved.spec.owners

    async def _links(self, released: Released) -> Streams | None:
        """Links to everybody; None if all that is left to do is ours, or becomes so while we wait for the others."""
        if not self.approved.spec.resumes:
            return await self._connected()
        if await self._needs_nobody(released):
            return None
        connecting = asyncio.create_task(self._connected())
        async with contextlib.AsyncExitStack() as opened:
            opened.push_async_callback(_abandon, connecting)
            while not (await asyncio.wait({connecting}, timeout=LOOK_S))[0]:
                if await self._needs_nobody(released):
                    return None
            streams = connecting.result()
            opened.pop_all()
        return streams

    async def _needs_nobody(self, released: Released) -> bool:
        """Whether all that is left to do is ours: nothing, for a silo that only helps the owners."""
        if leftovers.all_kept(self.folder):
            return True
        if self._owner and not leftovers.own_kept(self.folder):
            return False
        return bool((await released()) - {self.me})

    async def _connected(self) -> Streams:
        spec = self.approved.spec
        plan = StreamPlan(
            job=spec.job,
            session=bytes.fromhex(session_id(self.approved.spec_digest, self.consents)),
            me=self.me,
            participants=spec.participants,
            endpoints={name: c.body.endpoint for name, c in self.consents.items()},
            tokens={name: bytes.fromhex(c.body.link_token) for name, c in self.consents.items()},
            links=spec.links,
            timeout_s=spec.limits.timeout_s,
        )
        return await connect_streams(plan, self.client.relay, self.listener)

    @property
    def _silent_s(self) -> float | None:
        """How long a worker may say nothing; a job that does not resume fails when its peers have waited for it."""
        spec = self.approved.spec
        return max(spec.limits.timeout_s, LEAST_SILENT_S) if spec.resumes else None

    def _order(self) -> dict[str, Any]:
        data = self.approved.dataset
        certificates = {n: base64.b64encode(c.certificate_der).decode() for n, c in self.consents.items()}
        return {
            "me": self.me,
            "spec": self.approved.spec.document(),
            "dataset": None
            if data is None
            else data.model_dump(include={"name", "path", "format", "sql", "sha256", "rows"}),
            "folder": str(self.folder),
            "tokens": str(self.tokens),
            "session": session_id(self.approved.spec_digest, self.consents),
            "link_key": self.link.key_pem.decode(),
            "link_certificates": certificates,
            "part": None if self.approved.part is None else self.approved.part.document(),
        }

    async def _work(self, streams: Streams | None) -> Outcome:
        """One worker, with its progress passed on."""
        latest: list[tuple[str, int, int]] = []
        news = asyncio.Event()

        def progress(stage: str, done: int, total: int) -> None:
            latest[:] = [(stage, done, total)]
            news.set()

        async def forward() -> None:
            while True:
                await news.wait()
                news.clear()
                with contextlib.suppress(CoordinatorRefused, CoordinatorUnreachable):  # only for people who watch
                    await self.client.progress(self.approved.spec.job, *latest[0])

        sockets = {} if streams is None else streams.sockets
        forwarding = asyncio.create_task(forward())
        try:
            return await run_worker(
                self._order(), sockets, self.folder / "worker.log", progress, silent_s=self._silent_s
            )
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)


async def _abandon(connecting: asyncio.Task[Streams]) -> None:
    """Give up connecting; what has come about meanwhile is closed."""
    connecting.cancel()
    for outcome in await asyncio.gather(connecting, return_exceptions=True):
        if isinstance(outcome, Streams):
            await outcome.close()
