"""Who hears of what happens: state changes and progress of jobs, to the silos they concern, while they listen.

Nothing here is kept: a silo that connects late asks for the state.  A listener that does not read is cut off rather than
buffered for.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from coordinator.jobs import Job

QUEUE_LENGTH = 1024
MIN_PROGRESS_GAP = dt.timedelta(milliseconds=100)

Message = Mapping[str, object]


@dataclass(frozen=True)
class Progress:
    """How far a silo says it is."""

    stage: str
    done: int
    total: int
    at: dt.datetime


@dataclass(eq=False)
class Listener:
    """One silo's open ear.  job: only this job, or all if empty.  overrun: set when it fell too far behind."""

    silo: str
    job: str
    queue: asyncio.Queue[Message] = field(default_factory=lambda: asyncio.Queue(QUEUE_LENGTH))
    overrun: asyncio.Event = field(default_factory=asyncio.Event)


class Hub:
    """Fans out messages and keeps the last progress of open jobs."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._progress: dict[str, dict[str, Progress]] = {}

    @contextmanager
    def listening(self, silo: str, job: str) -> Iterator[Listener]:
        """From here on nothing is missed, until the block ends."""
        listener = Listener(silo, job)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def state_changed(self, job: Job, event: str, silo: str) -> None:
        """Tell of an accepted entry."""
        if job.state.is_final:
            self._progress.pop(job.id, None)
        message = {"job": job.id, "state": job.state.value, "event": event, "silo": silo}
        for listener in self._concerned(job):
            try:
                listener.queue.put_nowait(message)
            except asyncio.QueueFull:
                listener.overrun.set()

    def progressed(self, job: Job, silo: str, progress: Progress) -> None:
        """Keep and tell a silo's progress; updates that follow too fast are kept but not told.

        Progress only ever uses the first half of a listener's queue, so it cannot push out a state change.
        """
        of_job = self._progress.setdefault(job.id, {})
        last = of_job.get(silo)
        of_job[silo] = progress
        hasty = last is not None and last.stage == progress.stage and progress.at - last.at < MIN_PROGRESS_GAP
        if hasty and progress.done < progress.total:
            return
        told = {"silo": silo, "stage": progress.stage, "done": progress.done, "total": progress.total}
        for listener in self._concerned(job):
            if listener.queue.qsize() < QUEUE_LENGTH // 2:
                listener.queue.put_nowait({"job": job.id, "progress": told})

    def progress(self, job_id: str) -> Mapping[str, Progress]:
        """The last progress of each silo of an open job."""
        return self._progress.get(job_id, {})

    def _concerned(self, job: Job) -> list[Listener]:
        return [ear for ear in self._listeners if ear.job in ("", job.id) and job.involves(ear.silo)]
