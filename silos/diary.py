"""What this silo has said about one job, on disk before it is sent: its own chain of signed statements.

A statement is written first and posted second, so after a crash the same bytes are posted again, never a second version
of the same position.  The node and the command line may both speak for the silo; a file lock keeps them in turn.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.envelope import Sealed, Statement, parse
from silos.client import CoordinatorClient
from silos.errors import ConfigError, CoordinatorRefused
from silos.identity import Identity, sync_directory
from silos.times import to_text, utcnow
from silos.validation import write_private

_LOCK_RETRY_S = 0.02


def said_paths(job_directory: Path) -> list[Path]:
    """The files of what this silo said about the job of a directory, oldest first."""
    return sorted((job_directory / "entries").glob("[0-9]*.json"))


@dataclass(frozen=True)
class Diary:
    """The chain of one silo for one job.  root: the job's directory in the silo's home."""

    root: Path
    silo: str
    job: str
    spec_digest: str
    identity: Identity

    @property
    def _closed(self) -> Path:
        return self.root / "closed"

    def paths(self) -> list[Path]:
        """The files of the statements, oldest first."""
        return said_paths(self.root)

    def said(self) -> list[Sealed]:
        """Every statement of ours so far.  Raises: EnvelopeError if a file is damaged."""
        return [parse(path.read_bytes()) for path in self.paths()]

    def events(self) -> list[str]:
        """The names of what we said, oldest first."""
        return [path.stem.split("-", 1)[1] for path in self.paths()]

    @property
    def closed(self) -> bool:
        """Whether we have nothing more to do or say about this job."""
        return self._closed.exists()

    def close(self) -> None:
        """Remember that the job is over here."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._closed, to_text(utcnow()) + "\n")

    def write(self, event: str, body: Mapping[str, Any]) -> Path:
        """Sign the next statement of the chain and keep it; the caller holds `turn`.

        Raises: EnvelopeError if it would be too large.
        """
        before = self.said()
        statement = Statement(
            event=event,
            job=self.job,
            spec_digest=self.spec_digest,
            silo=self.silo,
            seq=len(before),
            prev=before[-1].payload_digest if before else "",
            time=to_text(utcnow()),
            body=dict(body),
        )
        directory = self.root / "entries"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / f"{statement.seq:04d}-{event}.json"
        write_private(path, self.identity.seal(statement))
        sync_directory(directory)  # what is posted next is known here after a crash, too
        return path

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Nobody else speaks for this silo about this job meanwhile, in this process or another."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_LOCK_RETRY_S)
            yield
        finally:
            os.close(fd)

    async def say(self, client: CoordinatorClient, event: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write the next statement and post it; returns the coordinator's {index, state}.

        A refusal takes the statement back, because it is in no log and nothing may chain to it.  When there is no
        answer it stays, and `repeat` posts it again.
        Raises: CoordinatorRefused, CoordinatorUnreachable, EnvelopeError.
        """
        async with self.turn():
            return await self._post(client, self.write(event, body))

    async def repeat(self, client: CoordinatorClient, known: set[bytes]) -> None:
        """Post what the coordinator does not have yet; `known` are the envelopes it showed us."""
        async with self.turn():
            for path in self.paths():
                if path.read_bytes() not in known:
                    await self._post(client, path)

    async def _post(self, client: CoordinatorClient, path: Path) -> dict[str, Any]:
        try:
            return await client.post_entry(self.job, path.read_bytes())
        except CoordinatorRefused:
            path.rename(path.with_name(f"refused-{path.name}"))
            raise


async def submit(
    client: CoordinatorClient, diary: Diary, spec: Mapping[str, Any], disclosure: Mapping[str, Any]
) -> str:
    """Propose a job with its disclosure as the first two statements of our chain; returns the job id.

    Raises: CoordinatorRefused, CoordinatorUnreachable, EnvelopeError; ConfigError if we spoke about this job before.
    """
    async with diary.turn():
        if diary.paths():
            raise ConfigError(f"job {diary.job} was submitted from here already")
        paths = [diary.write("proposed", {"spec": spec}), diary.write("disclosed", {"disclosure": disclosure})]
        try:
            return await client.submit([path.read_bytes() for path in paths])
        except CoordinatorRefused:
            for path in reversed(paths):
                path.rename(path.with_name(f"refused-{path.name}"))
            raise
