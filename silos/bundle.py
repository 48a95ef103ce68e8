"""Export an audit bundle: one job's signed entries with proofs that the log holds them, for silos/verify.py.

The exporter reads the whole log and rebuilds its tree, so it takes no proof on trust.  It must have a part in the job: of
other jobs' entries it is given hashes only.  That nothing about this job hides among the hashes is checked against what
the silo signed itself, the coordinator's own account of the job, and each silo's numbering.  What it writes depends on
the log and the checkpoint only: the same bytes at every silo.

    manifest.json  {"v":1,"job","origin","size"}        log.vkey  the log's verifier key
    checkpoint     the signed note that all proofs lead to
    entries/<index, 8 digits>.json  envelopes exactly as logged: the job's, and enrolments of the silos that speak in it
    proofs/<index, 8 digits>.json   {"index","size","hashes"}, one per entry
    earlier, consistency.json       an older checkpoint and {"first","second","hashes"}, on request
"""

from __future__ import annotations

import asyncio
import base64
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from coordinator import merkle
from coordinator.envelope import EnvelopeError, Statement, canonical, parse
from coordinator.note import Checkpoint, NoteError, VerifierKey, open_checkpoint
from silos.client import LogEntry
from silos.errors import SiloError
from silos.validation import write_private
from silos.verify import Report, verify_bundle


class BundleError(SiloError):
    """The evidence cannot be exported, or the log does not hold what it must."""


class LogReader(Protocol):
    """What is needed of silos.client.CoordinatorClient."""

    async def checkpoint(self) -> str:
        """The log's latest signed checkpoint."""

    async def log_entries(self, start: int, end: int) -> list[LogEntry]:
        """Entries with start <= index < end; at least one, perhaps fewer than asked for."""

    async def job(self, job: str) -> dict[str, Any]:
        """The coordinator's account of one job, of which its entries are needed here."""


@dataclass(frozen=True)
class Summary:
    """An exported bundle.  entries: how many it holds.  report: what an auditor gets who has the log's key."""

    path: Path
    job: str
    log_size: int
    entries: int
    report: Report


@dataclass(frozen=True)
class _Log:
    """A whole log, checked against its checkpoint."""

    key: VerifierKey
    note: str
    head: Checkpoint
    entries: Sequence[LogEntry]
    nodes: Mapping[tuple[int, int], bytes]

    def stored(self, level: int, place: int) -> bytes:
        return self.nodes[level, place]


async def export(
    client: LogReader, job: str, path: Path, *, log_key: str, own: Sequence[bytes] = (), earlier: str | None = None
) -> Summary:
    """Write the bundle of one job to `path`, as a whole or not at all.

    log_key: the verifier key kept since enrolment.  own: envelopes that this silo signed about the job.
    earlier: a checkpoint note the log must lead on from; its proof goes into the bundle.
    A story that breaks a rule is exported all the same, because it is evidence; `report` says so.
    Raises: BundleError if the checkpoint is not the log's, the entries are not what it signed, or one of the job's is
    lost or withheld; CoordinatorRefused if this silo has no part in the job.
    """
    shown = _shown(await client.job(job))  # before the log is read, so that the log must hold all of it
    log = await _read_log(client, log_key)
    files = _files(log, job, (*own, *shown))
    if earlier is not None:
        files |= _growth(log, earlier)
    try:
        await asyncio.to_thread(write_private, path, pack(files))
    except OSError as exc:
        raise BundleError(f"{path} cannot be written: {exc.strerror}") from exc
    report = await asyncio.to_thread(verify_bundle, path, log_key)
    return Summary(path, job, log.head.size, sum(name.startswith("entries/") for name in files), report)


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip with sorted names, one fixed time and no compression, whose output would depend on the library."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()


async def _read_log(client: LogReader, log_key: str) -> _Log:
    note = await client.checkpoint()
    try:
        key = VerifierKey.parse(log_key)
        head = open_checkpoint(note, key)
    except NoteError as exc:
        raise BundleError(f"the coordinator's checkpoint is not by the log key of our enrolment: {exc}") from exc
    entries: list[LogEntry] = []
    nodes: dict[tuple[int, int], bytes] = {}
    while len(entries) < head.size:
        page = await client.log_entries(len(entries), head.size)
        if not 0 < len(page) <= head.size - len(entries):
            raise BundleError(f"the coordinator gave {len(page)} entries from {len(entries)} up to {head.size}")
        for entry in page:
            for node in merkle.grow_leaf(len(entries), entry.leaf, lambda level, place: nodes[level, place]):
                nodes[node.level, node.place] = node.hash
            entries.append(entry)
    log = _Log(key, note, head, entries, nodes)
    if merkle.root(head.size, log.stored) != head.root:
        raise BundleError(f"the coordinator's {head.size} entries are not the ones its checkpoint commits to")
    return log


def _shown(view: Mapping[str, Any]) -> list[bytes]:
    try:
        return [base64.b64decode(entry["envelope"]) for entry in view["entries"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise BundleError("the coordinator's account of the job is malformed") from exc


def _files(log: _Log, job: str, known: Sequence[bytes]) -> dict[str, bytes]:
    """known: envelopes about the job that the log must hold, and show."""
    said = {i: statement for i, entry in enumerate(log.entries) if (statement := _statement(entry.envelope))}
    chosen = {index: statement for index, statement in said.items() if statement.job == job}
    for what in (*_missing(log, known), *_gaps(log, chosen)):
        raise BundleError(f"{what} about job {job}")
    if not job or not chosen:
        raise BundleError(f"the log has no entry about job '{job}'")
    speakers = {statement.silo for statement in chosen.values()}
    enrolled = [i for i, s in said.items() if s.event == "enrolled" and s.silo in speakers and i < max(chosen)]
    files = {
        "manifest.json": canonical({"v": 1, "job": job, "origin": log.head.origin, "size": log.head.size}),
        "checkpoint": log.note.encode(),
        "log.vkey": f"{log.key.text()}\n".encode(),
    }
    for index in (*enrolled, *chosen):
        hashes = merkle.inclusion_proof(index, log.head.size, log.stored)
        files[f"entries/{index:08d}.json"] = log.entries[index].envelope or b""
        files[f"proofs/{index:08d}.json"] = _proof(hashes, index=index, size=log.head.size)
    return files


def _missing(log: _Log, known: Sequence[bytes]) -> Iterator[str]:
    """What we know to have been said and are not shown: the log lacks it, or has it and gives its hash only."""
    given = {entry.leaf: entry.envelope is not None for entry in log.entries}
    for envelope in known:
        leaf = merkle.leaf_hash(envelope)
        if not given.get(leaf):
            said = _statement(envelope)
            what = f"'{said.event}' entry number {said.seq} of {said.silo}" if said else "damaged entry"
            yield f"the coordinator withholds the {what}" if leaf in given else f"the log does not hold the {what}"


def _gaps(log: _Log, chosen: Mapping[int, Statement]) -> Iterator[str]:
    """Numbers left out by a silo where the log has hashes.  Without those the gap is the log's own, and is evidence."""
    last: dict[str, tuple[int, int]] = {}
    for index, said in chosen.items():
        before, seq = last.get(said.silo, (-1, -1))
        if said.seq > seq + 1 and any(entry.envelope is None for entry in log.entries[before + 1 : index]):
            yield f"the coordinator withholds or has lost entry number {seq + 1} of {said.silo}"
        last[said.silo] = (index, said.seq)


def _statement(envelope: bytes | None) -> Statement | None:
    try:
        return parse(envelope or b"").statement
    except EnvelopeError:
        return None  # whatever it is, it says nothing about our job


def _growth(log: _Log, earlier: str) -> dict[str, bytes]:
    try:
        first = open_checkpoint(earlier, log.key)
    except NoteError as exc:
        raise BundleError(f"the earlier checkpoint is not of this log: {exc}") from exc
    if not 0 < first.size <= log.head.size:
        raise BundleError(f"the log has {log.head.size} entries, the earlier checkpoint says {first.size}")
    if merkle.root(first.size, log.stored) != first.root:
        raise BundleError(f"the log's first {first.size} entries are not the ones it had at the earlier checkpoint")
    hashes = [] if first.size == log.head.size else merkle.consistency_proof(first.size, log.head.size, log.stored)
    proof = _proof(hashes, first=first.size, second=log.head.size)
    return {"earlier": earlier.encode(), "consistency.json": proof}


def _proof(hashes: Sequence[bytes], **about: int) -> bytes:
    return canonical({**about, "hashes": [base64.b64encode(h).decode() for h in hashes]})
