"""Export an audit bundle: signed entries of one job or many with proofs that the log holds them, for silos/verify.py.

The exporter reads the whole log and rebuilds its tree, so it takes no proof on trust.  Of jobs that it has no part in it is
given hashes only.  That nothing about its own jobs hides among the hashes is checked against what the silo signed itself,
the coordinator's own account of the job, and each silo's numbering.  What it writes depends on the log, the checkpoint and
the choice of jobs only: the same bytes at every silo.

    manifest.json  {"origin","size","sizes","v":1}      log.vkey  the log's verifier key
    checkpoint     the signed note that everything leads to, with the lines of witnesses
    roster         lines "<place in the log> <envelope>": enrolled, rotated and revoked keys of the silos that speak
    jobs/<job>     lines of the same form: the job's entries exactly as logged
    hashes         of the largest subtrees that hold none of these entries, in base64, from left to right
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from coordinator import home as homes
from coordinator import merkle
from coordinator.envelope import EnvelopeError, Statement, canonical, parse
from coordinator.note import Checkpoint, NoteError, VerifierKey, open_checkpoint, verifier_key
from coordinator.store import Store
from silos.client import LogEntry
from silos.errors import SiloError
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
class Choice:
    """Which jobs: those with an entry from place `start` of the log on, said within [begin, end] (RFC 3339, "" for open)."""

    start: int = 0
    begin: str = ""
    end: str = ""

    def takes(self, index: int, said: Statement) -> bool:
        """Whether this entry makes its job one of the chosen."""
        return index >= self.start and self.begin <= said.time and (not self.end or said.time <= self.end)


@dataclass(frozen=True)
class Summary:
    """An exported bundle.  entries: how many it holds.  report: what an auditor gets who has the log's key."""

    path: Path
    jobs: tuple[str, ...]
    log_size: int
    entries: int
    report: Report


@dataclass(frozen=True)
class _Log:
    """A whole log, checked against its checkpoint.  said: what every entry states that we may read and understand."""

    key: VerifierKey
    note: str
    head: Checkpoint
    entries: Sequence[LogEntry]
    nodes: Mapping[tuple[int, int], bytes]
    said: Mapping[int, Statement]

    def stored(self, level: int, place: int) -> bytes:
        return self.nodes[level, place]


async def export(
    client: LogReader, job: str, path: Path, *, log_key: str, own: Sequence[bytes] = (), earlier: str | None = None
) -> Summary:
    """Write the bundle of one job to `path`, as a whole or not at all.

    log_key: the verifier key kept since enrolment.  own: envelopes that this silo signed about the job.
    earlier: a checkpoint note the log must lead on from; the bundle will show the log's root at its size.
    A story that breaks a rule is exported all the same, because it is evidence; `report` says so.
    Raises: BundleError if the checkpoint is not the log's, the entries are not what it signed, or one of the job's is
    lost or withheld; CoordinatorRefused if this silo has no part in the job.
    """
    shown = _shown(await client.job(job))  # before the log is read, so that the log must hold all of it
    log = await _read_log(client, log_key)
    _check_complete(log, job, (*own, *shown))
    return await asyncio.to_thread(_write, log, [job], path, _earlier_size(log, earlier), unfinished=False)


async def export_many(
    client: LogReader,
    path: Path,
    *,
    log_key: str,
    choice: Choice,
    own: Callable[[str], Sequence[bytes]] | None = None,
    earlier: str | None = None,
) -> Summary:
    """Write one bundle of all jobs that `choice` takes and that this reader may see.

    own: the envelopes that this silo signed about a job; None for the coordinator's operator, who reads the log itself and
    has nothing to compare it with.  Jobs may be unfinished.
    Raises: BundleError as `export`, and if no job is taken.
    """
    log = await _read_log(client, log_key)
    size = _earlier_size(log, earlier)
    start = choice.start if size is None else max(choice.start, size)
    taken = Choice(start, choice.begin, choice.end)
    jobs = sorted({said.job for index, said in log.said.items() if said.job and taken.takes(index, said)})
    if not jobs:
        raise BundleError("the log has no entry about a job that this silo may see and that was asked for")
    for job in jobs if own is not None else ():
        known = [entry for entry in _shown(await client.job(job)) if _among_first(log, entry)]
        _check_complete(log, job, (*(own(job) if own else ()), *known))
    return await asyncio.to_thread(_write, log, jobs, path, size, unfinished=True, all_keys=own is None)


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip with sorted names, one fixed time and no compression, whose output would depend on the library."""
    buffer = io.BytesIO()
    _pack_into(buffer, files)
    return buffer.getvalue()


def _pack_into(target: BinaryIO, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, files[name])


def _write(
    log: _Log, jobs: Sequence[str], path: Path, earlier: int | None, *, unfinished: bool, all_keys: bool = False
) -> Summary:
    files = _files(log, jobs, () if earlier is None else (earlier,), all_keys=all_keys)
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
            _pack_into(file, files)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise BundleError(f"{path} cannot be written: {exc.strerror}") from exc
    entries = sum(content.count(b"\n") for name, content in files.items() if name.startswith(("jobs/", "roster")))
    report = verify_bundle(path, log.key.text(), allow_unfinished=unfinished, stories=False)
    return Summary(path, tuple(jobs), log.head.size, entries, report)


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
    said = {i: statement for i, entry in enumerate(entries) if (statement := _statement(entry.envelope))}
    log = _Log(key, note, head, entries, nodes, said)
    if merkle.root(head.size, log.stored) != head.root:
        raise BundleError(f"the coordinator's {head.size} entries are not the ones its checkpoint commits to")
    return log


def _shown(view: Mapping[str, Any]) -> list[bytes]:
    try:
        return [base64.b64decode(entry["envelope"]) for entry in view["entries"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise BundleError("the coordinator's account of the job is malformed") from exc


def _among_first(log: _Log, envelope: bytes) -> bool:
    """Whether an entry of the coordinator's account, asked for after the log was read, can be in what was read."""
    said = _statement(envelope)
    known = [s.seq for s in log.said.values() if said and (s.job, s.silo) == (said.job, said.silo)]
    return said is None or said.seq <= max(known, default=-1)


def _check_complete(log: _Log, job: str, known: Sequence[bytes]) -> None:
    """known: envelopes about the job that the log must hold, and show.  Raises: BundleError."""
    chosen = {index: said for index, said in log.said.items() if said.job == job}
    for what in (*_missing(log, known), *_gaps(log, chosen)):
        raise BundleError(f"{what} about job {job}")
    if not job or not chosen:
        raise BundleError(f"the log has no entry about job '{job}'")


def _files(log: _Log, jobs: Sequence[str], earlier: Iterable[int], *, all_keys: bool) -> dict[str, bytes]:
    """The members of the bundle, by name.  all_keys: the roster of those who do not speak in these jobs, too."""
    places: dict[str, list[int]] = {job: [] for job in jobs}
    for index, said in log.said.items():
        if said.job in places:
            places[said.job].append(index)
    chosen = [index for indices in places.values() for index in indices]
    speakers = {log.said[index].silo for index in chosen}
    roster = [i for i, said in log.said.items() if not said.job and (all_keys or _names(said) in speakers)]
    held = sorted((*roster, *chosen))
    sizes = sorted({*earlier, *_heads(log.said[index] for index in chosen)} - {log.head.size})
    sizes = [size for size in sizes if 0 <= size < log.head.size]
    hashes = [log.stored(level, place) for level, place in cover(log.head.size, held, sizes)]
    files = {
        "manifest.json": canonical({"v": 1, "origin": log.head.origin, "size": log.head.size, "sizes": sizes}),
        "checkpoint": log.note.encode(),
        "log.vkey": f"{log.key.text()}\n".encode(),
        "roster": _lines(log, roster),
        "hashes": b"".join(base64.b64encode(value) + b"\n" for value in hashes),
    }
    return files | {f"jobs/{job}": _lines(log, indices) for job, indices in places.items()}


def _lines(log: _Log, indices: Sequence[int]) -> bytes:
    return b"".join(b"%d %s\n" % (index, log.entries[index].envelope) for index in indices)


def _names(said: Statement) -> str:
    """The silo whose key an entry about no job is about."""
    return str(said.body.get("silo")) if said.event == "revoked" else said.silo


def _heads(statements: Iterable[Statement]) -> Iterator[int]:
    """How far silos had verified the log when they consented."""
    for said in statements:
        head = said.body.get("head") if said.event == "consented" else None
        if isinstance(head, dict) and type(head.get("size")) is int:
            yield head["size"]


def cover(size: int, held: Sequence[int], sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(level, place) of the largest complete subtrees, left to right, that hold no leaf of `held` and end at no size between.

    held, sizes: ascending.
    """
    at, ends = 0, iter([*sizes, size])
    stop = next(ends)
    for leaf in [*held, size]:
        while at < leaf:
            while at >= stop:
                stop = next(ends)
            level = (min(leaf, stop) - at).bit_length() - 1
            if at:
                level = min(level, (at & -at).bit_length() - 1)
            yield level, at >> level
            at += 1 << level
        at = leaf + 1


def _missing(log: _Log, known: Sequence[bytes]) -> Iterator[str]:
    """What we know to have been said and are not shown: the log lacks it, or has it and gives its hash only."""
    if not known:
        return
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


def _earlier_size(log: _Log, earlier: str | None) -> int | None:
    """The size of a checkpoint that the log leads on from.  Raises: BundleError if it does not."""
    if earlier is None:
        return None
    try:
        first = open_checkpoint(earlier, log.key)
    except NoteError as exc:
        raise BundleError(f"the earlier checkpoint is not of this log: {exc}") from exc
    if not 0 < first.size <= log.head.size:
        raise BundleError(f"the log has {log.head.size} entries, the earlier checkpoint says {first.size}")
    if merkle.root(first.size, log.stored) != first.root:
        raise BundleError(f"the log's first {first.size} entries are not the ones it had at the earlier checkpoint")
    return first.size


class StoreReader:
    """A coordinator's own store as its operator reads it, all of it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def checkpoint(self) -> str:
        """With the lines of witnesses."""
        return self._store.checkpoint_note()

    async def log_entries(self, start: int, end: int) -> list[LogEntry]:
        """A page."""
        return [LogEntry(seen.leaf, seen.envelope) for seen in self._store.log.read(start, end, lambda _: True)]

    async def job(self, job: str) -> dict[str, Any]:
        """There is nothing to compare the log with."""
        return {"entries": [{"envelope": base64.b64encode(e).decode()} for _, e in self._store.job_entries(job)]}


def export_all(home: Path, path: Path, choice: Choice, earlier: str | None = None) -> Summary:
    """The bundle of a coordinator's operator: of all jobs that `choice` takes.

    home: the coordinator's.  Raises: HomeError; BundleError as `export_many`.
    """
    place = homes.load(home)
    log_key = verifier_key(place.origin, place.log_key).text()
    with contextlib.closing(place.open_store()) as store:
        return asyncio.run(export_many(StoreReader(store), path, log_key=log_key, choice=choice, earlier=earlier))
