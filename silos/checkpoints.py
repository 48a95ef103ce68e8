"""The log as this silo has seen it: the largest checkpoint it verified, which the log must always lead on from.

A coordinator that takes entries back, or changes them, cannot hide it from a silo that has seen more.  Two silos that are
shown two logs from the start do not notice here; they have to compare checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from coordinator.merkle import ProofError, verify_consistency
from coordinator.note import Checkpoint, NoteError, VerifierKey, open_checkpoint
from silos.config import Enrolment, Home
from silos.errors import ConfigError, CoordinatorRefused, LogRewritten
from silos.validation import write_private

UNKNOWN = 404


class LogHead(Protocol):
    """What is needed of silos.client.CoordinatorClient."""

    async def checkpoint(self) -> str:
        """The log's latest signed checkpoint."""

    async def consistency(self, first: int, second: int) -> list[bytes]:
        """The RFC 6962 proof that the tree of `second` extends the tree of `first`."""


def check_growth(kept: Checkpoint | None, now: Checkpoint, proof: Sequence[bytes], url: str) -> None:
    """Check that a log leads on from the checkpoint that was kept of it; without one, that it holds our enrolment at least.

    proof: the consistency proof from `kept` to `now`, empty if they have one size.
    Raises: LogRewritten.
    """
    before = kept.size if kept else 1
    if now.size < before:
        raise LogRewritten(url, f"it has {now.size} entries, and it had {before}")
    if kept is None:
        return
    try:
        verify_consistency(kept.size, now.size, proof, kept.root, now.root)
    except ProofError as exc:
        raise LogRewritten(url, f"it does not lead on from the {before} entries that it had: {exc}") from exc


async def fetch(client: LogHead, enrolment: Enrolment) -> tuple[str, Checkpoint]:
    """The log's latest checkpoint, as signed and as it reads.

    Raises: LogRewritten if it is not by the log key that this silo was given when it joined.
    """
    note = await client.checkpoint()
    try:
        return note, open_checkpoint(note, VerifierKey.parse(enrolment.log_key))
    except NoteError as exc:
        raise LogRewritten(enrolment.url, f"its checkpoint is not by the log key of our enrolment: {exc}") from exc


async def save(client: LogHead, enrolment: Enrolment, path: Path) -> Checkpoint:
    """Write the log's latest checkpoint to a file, to compare with later.

    Raises: LogRewritten as `fetch`; OSError if the file cannot be written.
    """
    note, now = await fetch(client, enrolment)
    write_private(path, note)
    return now


async def follow(client: LogHead, home: Home) -> Checkpoint:
    """Check that the log leads on from the largest checkpoint this silo has verified, and keep the new one instead.

    Raises: LogRewritten; ConfigError if the kept one cannot be read; CoordinatorRefused, CoordinatorUnreachable.
    """
    enrolment = home.load_enrolment()
    kept = _kept(home.checkpoint, enrolment)
    note, now = await fetch(client, enrolment)
    proof: list[bytes] = []
    if kept is not None and kept.size < now.size:
        try:
            proof = await client.consistency(kept.size, now.size)
        except CoordinatorRefused as exc:
            if exc.status != UNKNOWN:
                raise
            raise LogRewritten(enrolment.url, f"it cannot prove that it kept its first entries: {exc}") from exc
    check_growth(kept, now, proof, enrolment.url)
    if kept is None or kept.size < now.size:
        write_private(home.checkpoint, note)
    return now


def _kept(path: Path, enrolment: Enrolment) -> Checkpoint | None:
    if not path.exists():
        return None
    try:
        return open_checkpoint(path.read_bytes().decode(), VerifierKey.parse(enrolment.log_key))
    except ValueError as exc:  # a NoteError, or no text at all
        raise ConfigError(
            f"{path} is no checkpoint of the log of {enrolment.url}; if this silo has joined another one, remove the file"
        ) from exc
