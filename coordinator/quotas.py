"""What one silo may ask of the coordinator, so that no silo, by fault or on purpose, takes it away from the others.

Counts are of this process; nothing is stored.  A request beyond a quota is refused and changes nothing.  Relayed bytes are not
refused: whoever sends faster than it may is read more slowly, and its own back-pressure does the rest.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from coordinator.errors import TooMany
from coordinator.home import HomeError
from coordinator.statements import first_problem

LEAST_BYTES_PER_S = 1 << 16
"""Below this a stream would look dead to the nodes at its ends."""
Monotonic = Callable[[], float]
Crossed = Callable[[str, str], None]
"""(silo, quota): called when a request was refused, or relayed bytes had to wait."""


class Quotas(BaseModel):
    """The section `quotas` of coordinator.json; each for one silo, and 0 means that there is none.

    sockets: WebSockets open at once.  relay_bytes_per_s: that it sends through the relay; twice as much may come in a burst.
    jobs_per_minute: submitted.  entries_per_minute: statements about jobs.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    sockets: int = Field(ge=0, default=512)
    relay_bytes_per_s: int = Field(ge=0, default=1 << 30)
    jobs_per_minute: int = Field(ge=0, default=600)
    entries_per_minute: int = Field(ge=0, default=6000)

    @field_validator("relay_bytes_per_s")
    @classmethod
    def _not_a_trickle(cls, value: int) -> int:
        if 0 < value < LEAST_BYTES_PER_S:
            raise ValueError(f"must be 0 or at least {LEAST_BYTES_PER_S}")
        return value


def read(settings: Path) -> Quotas:
    """The quotas in a coordinator's settings file.  Raises: HomeError, naming what is wrong."""
    try:
        return Quotas.model_validate(json.loads(settings.read_text()).get("quotas", {}))
    except ValidationError as exc:
        raise HomeError(f"the quotas in {settings} cannot be used: {first_problem(exc)}") from exc


class Bucket:
    """Tokens that come back at a rate, up to a capacity.  Full at first."""

    def __init__(self, per_s: float, capacity: float, now: float) -> None:
        self._per_s, self._capacity, self._level, self._at = per_s, capacity, capacity, now

    def wait_s(self, size: float, now: float) -> float:
        """Take `size` tokens; returns after how many seconds they are there.  What is taken in advance delays the next."""
        self._fill(now)
        self._level -= size
        return max(0.0, -self._level / self._per_s)

    def take(self, now: float) -> float:
        """Take one token if it is there; returns 0, or how many seconds it takes until one is."""
        self._fill(now)
        if self._level < 1:
            return (1 - self._level) / self._per_s
        self._level -= 1
        return 0.0

    def _fill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + (now - self._at) * self._per_s)
        self._at = now


class Counters:
    """How much of its quotas each silo has used.  crossed: told of every refusal and every wait."""

    def __init__(self, quotas: Quotas, crossed: Crossed, clock: Monotonic = time.monotonic) -> None:
        self._quotas, self._crossed, self._clock = quotas, crossed, clock
        self._sockets: dict[str, int] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def count(self, silo: str, what: str) -> None:
        """One more of "jobs" or "entries" in this minute.  Raises: TooMany."""
        per_minute = {"jobs": self._quotas.jobs_per_minute, "entries": self._quotas.entries_per_minute}[what]
        if not per_minute:
            return
        wait_s = self._bucket(silo, what, per_minute / 60, per_minute).take(self._clock())
        if wait_s:
            self._crossed(silo, what)
            noun = {"jobs": "submits more than {} jobs", "entries": "makes more than {} statements"}[what]
            raise TooMany(f"{silo} {noun.format(per_minute)} a minute; try again in {wait_s:.0f} s")

    @contextmanager
    def socket(self, silo: str) -> Iterator[None]:
        """One more open WebSocket while the block runs.  Raises: TooMany."""
        n = self._sockets.get(silo, 0)
        if self._quotas.sockets and n >= self._quotas.sockets:
            self._crossed(silo, "sockets")
            raise TooMany(f"{silo} has {n} open sockets, and may have no more")
        self._sockets[silo] = n + 1
        try:
            yield
        finally:
            self._sockets[silo] -= 1
            if not self._sockets[silo]:
                del self._sockets[silo]

    async def pace(self, silo: str, size_bytes: int) -> None:
        """Return when the silo may send so many more bytes through the relay; a `coordinator.relay.Pace`."""
        per_s = self._quotas.relay_bytes_per_s
        if not per_s:
            return
        wait_s = self._bucket(silo, "bytes", per_s, 2 * per_s).wait_s(size_bytes, self._clock())
        if wait_s:
            self._crossed(silo, "bytes")
            await asyncio.sleep(wait_s)

    def _bucket(self, silo: str, what: str, per_s: float, capacity: float) -> Bucket:
        bucket = self._buckets.get((silo, what))
        if bucket is None:
            bucket = self._buckets[silo, what] = Bucket(per_s, capacity, self._clock())
        return bucket
