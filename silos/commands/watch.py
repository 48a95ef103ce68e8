"""Follow a job: on a terminal a bar per silo with the time that is left, elsewhere a line every few seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from silos.board import FINAL
from silos.client import CoordinatorClient
from silos.errors import CoordinatorUnreachable

PATIENCE_S = 60.0
RETRY_S = 0.5
PLAIN_EVERY_S = 5.0


class Display(AbstractContextManager["Display"], Protocol):
    """Shows how far every silo is."""

    def show(self, silo: str, stage: str, done: int, total: int) -> None:
        """A silo's news; total is 0 if it is not known."""


class _Amount(ProgressColumn):
    """How much of how much, with separators; nothing where there is nothing to count."""

    def render(self, task: Task) -> Text:
        if task.total is None or task.total <= 1:
            return Text("")
        return Text(f"{int(task.completed):,} / {int(task.total):,}", justify="right")


class Bars(Display):
    """One progress bar per silo."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.fields[silo]}"),
            BarColumn(),
            TextColumn("{task.fields[stage]}"),
            _Amount(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=console, transient=True)
        self._tasks: dict[str, tuple[TaskID, str]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, silo: str, stage: str, done: int, total: int) -> None:
        """Move a silo's bar; a stage without a size yet pulses, and a new stage begins at its own time."""
        number, before = self._tasks.get(silo, (None, ""))
        if number is None:
            number = self._bars.add_task("", silo=silo, stage=stage, total=None)
        elif stage != before:
            self._bars.reset(number, silo=silo, stage=stage)
        self._tasks[silo] = number, stage
        for task in self._bars.tasks:
            if task.id == number:
                task.total = total or None  # `update` would keep an earlier one
        self._bars.update(number, completed=done)


class Lines(Display):
    """A line per silo when its stage changes, and every few seconds meanwhile."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._stages: dict[str, tuple[str, float, int, float]] = {}

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""

    def show(self, silo: str, stage: str, done: int, total: int) -> None:
        """Print it, unless a line about the same stage is recent."""
        now = self._clock()
        before, since, first, said = self._stages.get(silo, ("", now, done, now))
        if stage != before:
            since, first = now, done
        elif now - said < PLAIN_EVERY_S:
            return
        self._stages[silo] = stage, since, first, now
        self._console.print(f"{silo}: {stage}{_amount(done, total)}{_left(done - first, total - done, now - since)}")


def _amount(done: int, total: int) -> str:
    return f", {done:,} of {total:,}" if total > 1 else ""


def _left(done: int, rest: int, seconds: float) -> str:
    """How long the rest takes if it is as fast as what was done; nothing as long as there is no telling."""
    if done <= 0 or rest <= 0 or seconds <= 0:
        return ""
    return f", about {duration(rest * seconds / done)} left"


def duration(seconds: float) -> str:
    """A time for people: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


async def watch_job(client: CoordinatorClient, job: str, console: Console) -> dict[str, Any]:
    """Follow a job until it is over and return it as the coordinator shows it then.

    Raises: CoordinatorRefused if there is no such job; CoordinatorUnreachable if there is no answer for a minute.
    """
    seen = ""
    with _display(console) as display:
        silent_s = 0.0
        while True:
            try:
                view = await client.job(job)
                silent_s = 0.0
                if view["state"] not in FINAL:
                    seen = await _follow(client, job, display, console, seen)
                    view = await client.job(job)
            except CoordinatorUnreachable:
                if silent_s >= PATIENCE_S:
                    raise
            else:
                if view["state"] in FINAL:
                    if view["state"] != seen:
                        console.print(f"job {job} is {view['state']}")
                    return view
            await asyncio.sleep(RETRY_S)
            silent_s += RETRY_S


def _display(console: Console) -> Display:
    return Bars(console) if console.is_terminal or console.is_jupyter else Lines(console)


async def _follow(client: CoordinatorClient, job: str, display: Display, console: Console, seen: str) -> str:
    """Show events until the job is over or the connection ends; returns the state shown last."""
    async with client.events(job) as events:
        async for event in events:
            state, report = event.get("state"), event.get("progress")
            if isinstance(report, dict):
                display.show(str(report["silo"]), str(report["stage"]), int(report["done"]), int(report["total"]))
            elif isinstance(state, str):
                if event.get("event") and event.get("silo"):
                    change = f", job {job} is {state}" if state != seen else ""
                    console.print(f"{event['silo']} has {event['event']}{change}")
                seen = state
                if state in FINAL:
                    break
    return seen
