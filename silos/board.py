"""The latest known state of each job, and a way to wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Set

FINAL = frozenset({"done", "refused", "failed", "cancelled", "expired", "withdrawn"})


class Board:
    """One writer (the node's event loop), many waiting jobs.  A final state is never replaced."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._changed = asyncio.Condition()

    def state(self, job: str) -> str:
        """The latest state, "" if none is known."""
        return self._states.get(job, "")

    async def post(self, job: str, state: str) -> None:
        """Note a state and wake who waits for it."""
        async with self._changed:
            if self._states.get(job) not in FINAL:
                self._states[job] = state
            self._changed.notify_all()

    async def wait(self, job: str, states: Set[str]) -> str:
        """Return the state once it is one of `states`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._states.get(job) in states)
            return self._states[job]

    def forget(self, job: str) -> None:
        """Drop a job that is over here."""
        self._states.pop(job, None)
