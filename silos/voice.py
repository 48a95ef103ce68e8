"""What one silo hears and says about one job, through a coordinator that may not answer for a while.

Whatever is said is in the diary first; whatever is heard is checked by whoever acts on it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from coordinator.envelope import digest
from silos import watch
from silos.board import Board
from silos.client import CoordinatorClient
from silos.config import Home, SiloConfig
from silos.diary import Diary
from silos.disclosure import Registry
from silos.errors import CoordinatorRefused, CoordinatorUnreachable
from silos.identity import Identity
from silos.review import View, read_view
from silos.streams import DirectListener
from silos.times import from_text, utcnow

T = TypeVar("T")
log = logging.getLogger("accord.node")

FIRST_RETRY_S, LAST_RETRY_S = 0.2, 5.0


@dataclass(frozen=True)
class Silo:
    """What every job of a node shares.

    slots: one for each job that may run at the same time.  listener, endpoint: None and "" where partners cannot connect
    directly.
    """

    home: Home
    config: SiloConfig
    identity: Identity
    client: CoordinatorClient
    board: Board
    registry: Registry
    slots: asyncio.Semaphore
    listener: DirectListener | None = None
    endpoint: str = ""

    @property
    def name(self) -> str:
        return self.config.name


@dataclass
class Voice:
    """One silo's voice in one job.  deadline: until when the coordinator is asked again.  diary: open once the job is known."""

    silo: Silo
    job: str
    deadline: dt.datetime
    diary: Diary | None = None

    def open_diary(self, view: View) -> Diary:
        """The diary of this job, kept in the silo's home."""
        home = self.silo.home
        self.diary = Diary(home.job(self.job), self.silo.name, self.job, digest(view.spec), self.silo.identity)
        return self.diary

    async def view(self) -> View:
        """The job as the coordinator shows it, with a roster that the log's entries bear out.

        Raises: CoordinatorRefused, CoordinatorUnreachable; RosterForged.
        """
        return await self.patiently(self._view)

    async def _view(self) -> View:
        client = self.silo.client
        return read_view(await client.job(self.job), await watch.roster(client, self.silo.home))

    async def say(self, event: str, body: Mapping[str, Any]) -> None:
        """Make a statement and see it accepted, however often the coordinator has to be asked."""
        if self.diary is None:
            raise ValueError("the job's diary is not open")
        try:
            await self.diary.say(self.silo.client, event, body)
        except CoordinatorUnreachable:
            await self.catch_up()

    async def say_last(self, event: str, body: Mapping[str, Any]) -> None:
        """A final statement; that the job ended in another way meanwhile is no error."""
        try:
            await self.say(event, body)
        except CoordinatorRefused as exc:
            log.info("job %s: '%s' was not accepted: %s", self.job, event, exc)

    async def catch_up(self) -> None:
        """Post what the coordinator has not got from us yet."""

        async def repeat() -> None:
            view = await self._view()
            if self.diary is not None:
                await self.diary.repeat(self.silo.client, set(view.entries))

        await self.patiently(repeat)

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask again while the coordinator does not answer, until the job's time is over."""
        delay = FIRST_RETRY_S
        while True:
            try:
                return await ask()
            except CoordinatorUnreachable:
                if utcnow() + dt.timedelta(seconds=delay) > self.deadline:
                    raise
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_S)


def deadline_of(view: View) -> dt.datetime:
    """When the job's time is over; a spec without a readable one is refused in review, so soon is right."""
    try:
        return from_text(view.spec["valid_until"])
    except (KeyError, TypeError, ValueError):
        return utcnow() + dt.timedelta(minutes=1)
