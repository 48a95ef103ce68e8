"""A silo's long-running process: one connection out to the coordinator, one task per job, nothing listening by default.

The coordinator's events are only hints that something may have changed; what a job is and who consented is fetched and
verified by the job's own task (silos/participation.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import logging
import os
import secrets
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

from coordinator.envelope import EnvelopeError
from silos import admission, policy, watch
from silos.board import FINAL, Board
from silos.budget import BudgetError
from silos.client import CoordinatorClient, connect
from silos.config import Home, SiloConfig
from silos.disclosure import Registry, load_reveals
from silos.enrol import renew
from silos.errors import ConfigError, CoordinatorRefused, CoordinatorUnreachable, SiloError
from silos.identity import Identity
from silos.participation import UNTRUE, Participation, put_away
from silos.streams import DirectListener
from silos.times import utcnow
from silos.tls import home_context, lifetime_left
from silos.voice import Silo, Voice

log = logging.getLogger("accord.node")

FIRST_DELAY_S, LAST_DELAY_S = 0.25, 15.0
RENEW_CHECK_S = 60.0
RENEW_BELOW, RENEW_URGENTLY_BELOW = 0.5, 0.1
FAREWELL_S = 5.0
FIRST_DEADLINE = dt.timedelta(hours=1)  # until the job's own is known


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def _listen(config: SiloConfig) -> tuple[DirectListener | None, str]:
    """Open the direct port if the configuration has one; returns it with the endpoint that consents advertise.

    Raises: ConfigError if the address cannot be bound.
    """
    if config.listen is None:
        return None, ""
    listener = DirectListener()
    try:
        _, bound = await listener.start(*_split(config.listen))
    except (OSError, OverflowError) as exc:
        raise ConfigError(f"{config.name} cannot listen on {config.listen}: {exc}") from exc
    host, port = _split(config.advertise or config.listen)
    return listener, f"{host}:{port or bound}"


@contextlib.contextmanager
def only_node(home: Home) -> Iterator[None]:
    """Two nodes of one silo would both consent to a job.  Raises: ConfigError if another one serves this home."""
    home.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(home.state / "node.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as exc:
        raise ConfigError(f"another node serves {home.root} already") from exc
    finally:
        os.close(fd)


class Node:
    """One silo at work.  registry: where protocols declare what they reveal; another one is for tests."""

    def __init__(self, home: Home, registry: Registry = load_reveals) -> None:
        self._home, self._registry = home, registry
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._parts: dict[str, Participation] = {}
        self._settled: set[str] = set()
        self._farewells: set[asyncio.Task[None]] = set()
        self._untrue = asyncio.Event()
        self._why: BaseException | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; jobs that run then are ended with a statement, their workers killed.

        Raises: ConfigError if the home is not usable; CoordinatorRefused if the silo is not enrolled (any more);
        LogRewritten if the log does not lead on from what it was when this silo last looked.
        """
        config, identity = self._home.load_config(), self._home.load_identity()
        policy.load(self._home.policy)  # a broken policy is told now, not when the first job comes
        with only_node(self._home):
            await self._run(config, identity, stop)

    async def _run(self, config: SiloConfig, identity: Identity, stop: asyncio.Event) -> None:
        async with connect(self._home) as client:
            listener, endpoint = await _listen(config)
            slots = asyncio.Semaphore(config.limits.concurrent_jobs)
            silo = Silo(self._home, config, identity, client, Board(), self._registry, slots, listener, endpoint)
            work = (self._serve(silo), self._keep_certificate(client), watch.keep(client, self._home))
            tasks = [asyncio.create_task(one) for one in work]
            stopping = asyncio.create_task(stop.wait())
            tasks.append(asyncio.create_task(self._never_untrue()))
            try:
                done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in (*tasks, stopping):
                    task.cancel()
                await asyncio.gather(*tasks, stopping, return_exceptions=True)
                await self._shut_down(config.name)
                if listener is not None:
                    await listener.close()

    async def _serve(self, silo: Silo) -> None:
        """Stay connected; whatever was missed in between is in the list of jobs."""
        delay = FIRST_DELAY_S
        while True:
            try:
                await silo.client.jobs()  # says in a sentence if we are not welcome
                await watch.look(silo.client, self._home)
                async with silo.client.events() as events:
                    log.info("%s is connected to %s", silo.name, silo.client.url)
                    for job in await silo.client.jobs():
                        await self._heard(silo, str(job["job"]), str(job["state"]))
                    await self._give_back(silo)
                    delay = FIRST_DELAY_S
                    async for event in events:
                        if isinstance(event.get("state"), str):
                            await self._heard(silo, event["job"], event["state"])
                log.warning("the connection to the coordinator ended")
            except CoordinatorUnreachable as exc:
                log.warning("%s", exc)
            # Jitter, so that all silos do not come back in the same moment.
            await asyncio.sleep(delay * (0.5 + secrets.randbelow(1000) / 1000))
            delay = min(delay * 2, LAST_DELAY_S)

    async def _heard(self, silo: Silo, job: str, state: str) -> None:
        await silo.board.post(job, state)
        if job in self._tasks:
            return
        if state in FINAL:
            self._over(silo, job)  # it may have ended while this node was away
        elif job not in self._settled:
            self._parts[job] = Participation(Voice(silo, job, utcnow() + FIRST_DEADLINE))
            self._tasks[job] = asyncio.create_task(self._parts[job].take_part(), name=f"job {job}")
            self._tasks[job].add_done_callback(lambda task: self._ended(silo, job, task))

    def _ended(self, silo: Silo, job: str, task: asyncio.Task[None]) -> None:
        """A job's task is over; an error that nobody foresaw still ends the job with a statement."""
        self._tasks.pop(job, None)
        part = self._parts.pop(job)
        if task.cancelled():
            self._parts[job] = part  # `_shut_down` says goodbye
            return
        if silo.board.state(job) in FINAL:
            self._over(silo, job)  # it may have ended before its task had a look at it, which leaves it alone then
        elif part.voice.diary is not None:  # else it has not even seen the job, and may later
            self._settled.add(job)
        error = task.exception()
        if error is None:
            return
        if isinstance(error, UNTRUE):
            self._why = error
            self._untrue.set()
        log.error("job %s: %s", job, error, exc_info=None if isinstance(error, SiloError) else error)
        self._later(_farewell(part, f"the node of {silo.name} had an internal error", "node"))

    def _over(self, silo: Silo, job: str) -> None:
        """Forget a job that has ended and has no task, and remove what was kept to go on with it."""
        silo.board.forget(job)
        self._settled.discard(job)
        self._later(_put_away(silo, job))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside everything else, but before this node is gone."""
        task = asyncio.create_task(work)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    async def _never_untrue(self) -> None:
        """Wait for a job that found the coordinator out.  Raises: what it found."""
        await self._untrue.wait()
        if self._why is not None:
            raise self._why

    async def _give_back(self, silo: Silo) -> None:
        """What jobs reserved that ended while this node was away, or that the coordinator does not know."""
        try:
            reserved = await asyncio.to_thread(admission.unstarted, self._home)
        except BudgetError as exc:  # no job can begin then, and every one says so
            log.error("%s", exc)
            return
        for job in reserved:
            if job in self._tasks:
                continue
            try:
                over = str((await silo.client.job(job))["state"]) in FINAL
            except CoordinatorRefused:
                over = True
            if over:
                self._over(silo, job)

    async def _shut_down(self, name: str) -> None:
        """Stop every job (its worker dies with its task) and say so, for as long as the coordinator answers."""
        running = list(self._tasks.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        reason = f"the node of {name} was stopped during the job"
        said = (_farewell(part, reason, "stop") for part in self._parts.values())
        await asyncio.gather(*said, *self._farewells, return_exceptions=True)

    async def _keep_certificate(self, client: CoordinatorClient) -> None:
        """Renew before it is needed, and between jobs if there is time for that."""
        while True:
            left = lifetime_left(await asyncio.to_thread(self._home.tls_certificate.read_bytes), utcnow())
            if left < RENEW_BELOW and (not self._tasks or left < RENEW_URGENTLY_BELOW):
                try:
                    await renew(self._home)
                    client.use(home_context(self._home))
                    log.info("the certificate towards the coordinator was renewed")
                except SiloError as exc:
                    log.warning("the certificate was not renewed: %s", exc)
            await asyncio.sleep(RENEW_CHECK_S)


async def _farewell(part: Participation, reason: str, step: str) -> None:
    """End a job that has been cut off; if that does not get through, the next start of the node does it."""
    part = replace(part, voice=replace(part.voice, deadline=utcnow()))
    with contextlib.suppress(TimeoutError, SiloError, EnvelopeError, OSError):
        async with asyncio.timeout(FAREWELL_S):
            await part.give_up(reason, step)


async def _put_away(silo: Silo, job: str) -> None:
    try:
        await asyncio.to_thread(put_away, silo.home, job)
    except ConfigError:
        return  # the coordinator's text is no job id
    except (SiloError, OSError) as exc:
        log.error("job %s was not put away: %s", job, exc)
