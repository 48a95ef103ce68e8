"""Follow a job on a terminal: a bar per silo, a line per change of state."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from silos.board import FINAL
from silos.client import CoordinatorClient
from silos.errors import CoordinatorUnreachable

PATIENCE_S = 60.0
RETRY_S = 0.5


class Bars:
    """One progress bar per silo."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def show(self, silo: str, stage: str, done: int, total: int) -> None:
        """Move a silo's bar; a stage without a size yet pulses."""
        if silo not in self._tasks:
            self._tasks[silo] = self._bars.add_task("", silo=silo, stage=stage, total=None)
        self._bars.update(self._tasks[silo], completed=done, total=total or None, stage=stage)


async def watch_job(client: CoordinatorClient, job: str, console: Console) -> dict[str, Any]:
    """Follow a job until it is over and return it as the coordinator shows it then.

    Raises: CoordinatorRefused if there is no such job; CoordinatorUnreachable if there is no answer for a minute.
    """
    columns = (TextColumn("{task.fields[silo]}"), BarColumn(), TextColumn("{task.fields[stage]}"), TimeElapsedColumn())
    seen = ""
    with Progress(*columns, console=console, transient=True) as progress:
        bars = Bars(progress)
        silent_s = 0.0
        while True:
            try:
                view = await client.job(job)
                silent_s = 0.0
                if view["state"] not in FINAL:
                    seen = await _follow(client, job, bars, console, seen)
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


async def _follow(client: CoordinatorClient, job: str, bars: Bars, console: Console, seen: str) -> str:
    """Show events until the job is over or the connection ends; returns the state shown last."""
    async with client.events(job) as events:
        async for event in events:
            state, report = event.get("state"), event.get("progress")
            if isinstance(report, dict):
                bars.show(str(report["silo"]), str(report["stage"]), int(report["done"]), int(report["total"]))
            elif isinstance(state, str):
                if event.get("event") and event.get("silo"):
                    change = f", job {job} is {state}" if state != seen else ""
                    console.print(f"{event['silo']} has {event['event']}{change}")
                seen = state
                if state in FINAL:
                    break
    return seen
