"""The log as this silo has seen it: the largest checkpoint it verified, which the log must always lead on from.

A coordinator that takes entries back, or changes them, cannot hide it from a silo that has seen more.  Two silos that are
shown two logs find out when they compare heads: those in the consents to a job, and those that witnesses cosigned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from coordinator.envelope import EnvelopeError, parse
from coordinator.errors import Malformed
from coordinator.merkle import ProofError, leaf_hash, verify_consistency, verify_inclusion
from coordinator.note import Checkpoint, NoteError, VerifierKey, open_checkpoint
from coordinator.statements import Consented, read
from silos.config import Enrolment, Home
from silos.errors import ConfigError, CoordinatorRefused, LogForked, LogRewritten
from silos.times import to_text, utcnow
from silos.validation import write_private

UNKNOWN = 404


class LogHead(Protocol):
    """What is needed of silos.client.CoordinatorClient."""

    async def checkpoint(self) -> str:
        """The log's latest signed checkpoint."""

    async def consistency(self, first: int, second: int) -> list[bytes]:
        """The RFC 6962 proof that the tree of `second` extends the tree of `first`."""


class LogTree(LogHead, Protocol):
    """A log that can also be asked where an entry is."""

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """The RFC 6962 proof that entry `index` is in the tree of `size`."""


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


async def check_heads(client: LogHead, home: Home, now: Checkpoint, heads: Mapping[str, tuple[int, bytes]]) -> None:
    """Check that the log we see holds what every other silo saw of it when it signed.

    now: our verified checkpoint, fetched after the statements that the heads stand in.  heads: size and root by silo.
    Raises: LogForked naming the silo; both heads are kept in the silo's `evidence` folder.
    """
    url = home.load_enrolment().url
    for silo, (size, root) in heads.items():
        why = await _unlike(client, Checkpoint(now.origin, size, root), now)
        if why:
            seen = Checkpoint(now.origin, size, root).text()
            place = keep_evidence(home, {"ours": _own_note(home), f"signed-by-{silo}": seen})
            raise LogForked(url, silo, f"{why}; both heads are kept in {place}")


async def check_cosigned(client: LogHead, home: Home, now: Checkpoint, note: str, seen: Checkpoint, silo: str) -> None:
    """Check that the log we see and the checkpoint that another silo cosigned are one log.

    note: that checkpoint as signed by the log; seen: what it says; silo: who cosigned it.
    now: our verified checkpoint, fetched after the note.
    Raises: LogForked naming the silo.  The two notes are kept; with one log's signature on both, they prove it to anybody.
    """
    why = await _unlike(client, seen, now)
    if why:
        place = keep_evidence(home, {"ours": _own_note(home), "cosigned": note})
        raise LogForked(home.load_enrolment().url, silo, f"{why}; both checkpoints are kept in {place}")


async def _unlike(client: LogHead, seen: Checkpoint, now: Checkpoint) -> str:
    """Why `seen`, which came before `now`, is of another log; "" if it is not."""
    if seen.size > now.size:
        return f"it has {now.size} entries, and {seen.size} were shown there before"
    if seen.size == 0:
        return "no entry was shown there"
    proof: list[bytes] = []
    if seen.size < now.size:
        try:
            proof = await client.consistency(seen.size, now.size)
        except CoordinatorRefused as exc:
            if exc.status != UNKNOWN:
                raise
            return f"it cannot prove that its first {seen.size} entries are the same: {exc}"
    try:
        verify_consistency(seen.size, now.size, proof, seen.root, now.root)
    except ProofError as exc:
        return f"the first {seen.size} entries are others: {exc}"
    return ""


async def check_included(client: LogTree, home: Home, now: Checkpoint, entries: Mapping[int, bytes]) -> None:
    """Check that the log holds every entry that the coordinator shows, at the place that it says.

    now: our verified checkpoint, fetched after the entries.  entries: envelopes by index.
    Raises: LogRewritten, also for a consent that stands before what its signer had seen.
    """
    url = home.load_enrolment().url
    for index, envelope in entries.items():
        if not 0 <= index < now.size:
            raise LogRewritten(url, f"it shows entry {index} and has {now.size} entries")
        try:
            proof = await client.inclusion(index, now.size)
            verify_inclusion(leaf_hash(envelope), index, now.size, proof, now.root)
        except CoordinatorRefused as exc:
            if exc.status != UNKNOWN:
                raise
            raise LogRewritten(url, f"it cannot prove that it holds entry {index}, which it shows: {exc}") from exc
        except ProofError as exc:
            raise LogRewritten(url, f"it does not hold entry {index} as it shows it: {exc}") from exc
        _check_place(index, envelope, url)


def _check_place(index: int, envelope: bytes, url: str) -> None:
    """A consent stands behind all that its signer had seen of the log.  Raises: LogRewritten."""
    try:
        said = parse(envelope).statement
        seen = read(Consented, said.body, "a consent").head.size if said.event == "consented" else 0
    except (EnvelopeError, Malformed):
        return  # whoever reads it will say so
    if seen > index:
        why = f"it holds the consent of {said.silo} as entry {index}, and {said.silo} had seen {seen} entries when it signed"
        raise LogRewritten(url, why)


def keep_evidence(home: Home, files: Mapping[str, str]) -> Path:
    """Write texts that prove a fault of the coordinator where nothing removes them; returns the folder, seen from the home.

    Raises: OSError.
    """
    folder = home.evidence / to_text(utcnow()).replace(":", "")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in files.items():
        write_private(folder / name, text)
    return folder.relative_to(home.root)


def _own_note(home: Home) -> str:
    return home.checkpoint.read_text(encoding="utf-8") if home.checkpoint.exists() else ""


def _kept(path: Path, enrolment: Enrolment) -> Checkpoint | None:
    if not path.exists():
        return None
    try:
        return open_checkpoint(path.read_bytes().decode(), VerifierKey.parse(enrolment.log_key))
    except ValueError as exc:  # a NoteError, or no text at all
        raise ConfigError(
            f"{path} is no checkpoint of the log of {enrolment.url}; if this silo has joined another one, remove the file"
        ) from exc
