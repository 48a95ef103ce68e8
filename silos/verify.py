"""Verify an audit bundle: signed entries of one job or many, proven to be in the log, telling stories that keep every rule.

    python verify.py BUNDLE.zip [--log-key VKEY] [--pin SILO=FINGERPRINT] [--result FILE] [--since CHECKPOINT]
                                [--witness VKEY] [--quorum N] [--every-signature] [--explain] [--json]

One file, so that an auditor can read all of it and run it anywhere: standard library and `cryptography`, no network.
The bundle is hostile input: a defect becomes a failed check that names it, never a traceback.

Proves: who signed what about these jobs, in which order the log recorded it, that the log leads on from what every
participant had seen of it, and that consents, starts and releases fit the spec and the disclosure.  Does not prove that
inputs were true; nor, without --log-key and --pin from elsewhere, whose the keys are and that no newer ones were left out.

Source: RFC 6962 §2.1; C2SP signed-note, tlog-checkpoint, tlog-cosignature; DSSE v1.0.2; in-toto Statement v1; RFC 8785
(here without fractions); RFC 8032.
"""

from __future__ import annotations

import argparse
import binascii
import datetime as dt
import gc
import hashlib
import json
import os
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

T = TypeVar("T")
MAX_BUNDLE_BYTES, MAX_JOBS, MAX_ENTRY_BYTES, MAX_RESULT_BYTES = 1 << 31, 60_000, 65_535, 1 << 28
BATCH = 250  # jobs that a process checks at a time
FEW_JOBS = 100  # up to so many: one process, and every signature is checked
FILES = {  # the members of a bundle, and how large each may be
    re.compile(r"manifest\.json"): 1 << 22,
    re.compile(r"checkpoint|log\.vkey"): MAX_ENTRY_BYTES,
    re.compile(r"hashes|roster"): 1 << 26,
    re.compile(r"jobs/[0-9a-f]{32}"): 1 << 24,
}
PLACE = re.compile(rb"0|[1-9][0-9]{0,14}")
SILO, HEX, HEX_OR_NONE = (re.compile(r) for r in ("[a-z][a-z0-9-]{1,31}", "[0-9a-f]{64}", "(?:[0-9a-f]{64})?"))
TIME = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")  # one spelling: text order is time order
JOB = re.compile("[0-9a-f]{32}")
DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,40})?")
PAYLOAD_TYPE = "application/vnd.in-toto+json"
ENVELOPE = re.compile(
    rb'{"payload":"([^"]*)","payloadType":"application/vnd\.in-toto\+json",'
    rb'"signatures":\[{"keyid":"([^"]*)","sig":"([^"]*)"}\]}'
)
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "predicateType": re.compile(r"https://accord\.dev/audit/v1/([a-z]+)"),
}
# A statement in its only spelling.  If what stands for the body is JSON by itself, the whole can be read in no other way.
PAYLOAD = re.compile(
    (
        r'{"_type":"https://in-toto\.io/Statement/v1",'
        rf'"predicate":{{"body":({{.*}}),"prev":"({HEX_OR_NONE.pattern})","seq":(0|-?[1-9][0-9]{{0,14}}),'
        rf'"silo":"({SILO.pattern})","time":"({TIME.pattern})"}},'
        r'"predicateType":"https://accord\.dev/audit/v1/([a-z]+)",'
        rf'"subject":\[{{"digest":{{"sha256":"({HEX_OR_NONE.pattern})"}},"name":"job:({JOB.pattern})?"}}(,.*)?\]}}'
    ).encode(),
    re.DOTALL,
)
RECORD: dict[str, Any] = dict.fromkeys(("controller", "contact", "legal_basis", "transfers"), str)
RECORD |= {"categories": [str], "subjects": [str], "retention_days": int}
CONSENT = {
    "disclosure_digest": HEX,
    "dataset_commitment": HEX_OR_NONE,
    "link_certificate": str,
    "endpoint": str,
    "link_token": JOB,
    "valid_until": TIME,
    "head": {"size": int, "root": HEX},
    "rule": str,
    "policy_digest": HEX,
    "approvals": [{"name": str, "key": str, "time": TIME, "signature": str}],
    "record": (RECORD, None),
    "budget": [{"counterparty": SILO, "rho": DECIMAL, "before": DECIMAL, "limit": DECIMAL, "delta": DECIMAL}],
}
COST = {"rounds": int, "bytes_sent": dict, "seconds": dict, "peak_mib": int, "randomness": dict}
EVENTS: dict[str, tuple[str, dict[str, Any]]] = {  # who may say it, and exactly what it holds
    "enrolled": ("the silo", {"identity_key": str}),
    "rotated": ("the silo", {"identity_key": str, "proof": str}),
    "revoked": ("the coordinator", {"silo": SILO, "fingerprint": HEX, "reason": str}),
    "proposed": ("the submitter", {"spec": dict}),
    "disclosed": ("the submitter", {"disclosure": dict}),
    "consented": ("a participant", CONSENT),
    "withdrawn": ("a participant", {"reason": str}),
    "refused": ("a participant", {"reason": str, "rule": str}),
    "started": ("a participant", {"links": dict, "identities": dict}),
    "released": ("a data owner", {"recipient": SILO, "result_digest": HEX, "items": [str]}),
    "finished": ("a participant", {"cost": COST}),
    "failed": ("a participant", {"step": str, "reason": str, "party": str}),
    "cancelled": ("the submitter", {"reason": str}),
    "expired": ("the coordinator", {"reason": str}),
}
ROSTER = ("enrolled", "rotated", "revoked")  # about no job
PHASES = {  # in this state a job takes: what ends it, and what all concerned must say before it is in the next state
    "disclosed": (("refused", "cancelled", "expired", "withdrawn"), ("consented",), "ready"),
    "ready": (("failed", "cancelled", "expired", "withdrawn"), ("started",), "running"),
    "running": (("failed", "cancelled", "expired", "withdrawn"), ("released", "finished"), "done"),
}
SPEC: dict[str, Any] = {
    "job": JOB,
    "kind": str,
    "purpose": str,
    "valid_until": TIME,
    "parties": [dict],
    "release": [str],
}
SPEC |= {"randomness": (re.compile("dealer|verified-dealer|ot"), None), "dealer": (SILO, None), "helper": (SILO, None)}
RESULT: dict[str, Any] = {"v": int, "job": JOB, "silo": SILO, "spec_digest": HEX, "result": dict}
RESULT |= {"salt": re.compile("([0-9a-f]{2}){16,}")}


class Defect(Exception):
    """What is wrong and where, in one sentence."""


def expect(holds: object, sentence: str) -> None:
    """Raises: Defect unless it holds."""
    if not holds:
        raise Defect(sentence)


# --- encodings: one spelling per value, every other is refused ---


def sha256(data: bytes) -> str:
    """Lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def small(digits: str) -> int:
    """Raises: ValueError on integers that not every JSON parser reads alike."""
    if len(digits) > 17 or abs(int(digits)) >= 2**53:
        raise ValueError("a large integer must be written as a string")
    return int(digits)


def never(_: str) -> Any:
    """Raises: ValueError, because fractions have many spellings."""
    raise ValueError("a number that is not a small integer must be written as a string")


DECODER = json.JSONDecoder(parse_float=never, parse_int=small, parse_constant=never)
ENCODER = json.JSONEncoder(check_circular=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def canonical(value: Any) -> bytes:
    """RFC 8785 JSON of what `DECODER` has read."""
    text = ENCODER.encode(value)
    if not text.isascii() and max(text) > "\uffff":  # only then is the order of UTF-16 units another one
        text = json.dumps(in_order(value), ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def in_order(value: Any) -> Any:
    """The same value with the keys of every object in the order of RFC 8785 §3.2.3."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value, key=lambda k: k.encode("utf-16-be"))}
    return [in_order(item) for item in value] if isinstance(value, list) else value


@lru_cache(maxsize=16)
def parse(raw: bytes) -> Any:
    """Canonical JSON: no repeated key, no space, no second spelling.  The same text, as silos often say, is read once.

    Raises: ValueError, RecursionError.
    """
    value, _ = DECODER.raw_decode(raw.decode())
    if canonical(value) != raw:
        raise ValueError("it is not canonical JSON")
    return value


def read_json(raw: bytes, shape: Any, where: object) -> Any:
    """Canonical JSON of a shape, without a surplus field."""
    with suppress(ValueError, RecursionError):
        value = parse(raw)
        if fits(value, shape):
            return value
    raise Defect(f"{where}: it is not what the format has here")


def shaped(shape: Any) -> Callable[[Any], bool]:
    """The test whether a value has a shape.

    A shape is a type, a constant, a pattern, a choice (a tuple), a list of one shape, or an object of exactly these.
    """
    kind = type(shape)
    if kind is type:
        return lambda value: type(value) is shape
    if kind is re.Pattern:
        return lambda value: type(value) is str and shape.fullmatch(value) is not None
    if kind is dict:
        keys, parts = shape.keys(), [(name, shaped(part)) for name, part in shape.items()]
        return lambda value: (
            type(value) is dict and value.keys() == keys and not [k for k, ok in parts if not ok(value[k])]
        )
    if kind is list:
        each = shaped(shape[0])
        return lambda value: type(value) is list and not [item for item in value if not each(item)]
    if kind is tuple:
        choice = [shaped(one) for one in shape]
        return lambda value: any(ok(value) for ok in choice)
    return lambda value: type(value) is kind and bool(value == shape)


def fits(value: Any, shape: Any) -> bool:
    """Whether it has the shape."""
    return shaped(shape)(value)


SPEC_FITS = shaped(SPEC)
BODIES = {event: shaped(shape) for event, (_, shape) in EVENTS.items()}


def unbase64(text: str | bytes, where: object) -> bytes:
    """Padded standard base64."""
    with suppress(ValueError):
        raw = binascii.a2b_base64(text, strict_mode=True)
        last = binascii.b2a_base64(raw[(len(raw) - 1) // 3 * 3 :], newline=False)  # only here bits could be left over
        if len(text) == (len(raw) + 2) // 3 * 4 and last == (text.encode() if isinstance(text, str) else text)[-4:]:
            return raw
    raise Defect(f"{where}: it holds damaged base64")


# --- Merkle tree: RFC 6962 hashing ---


def leaf_hash(data: bytes) -> bytes:
    """The prefix keeps a leaf from being taken for a node."""
    return hashlib.sha256(b"\0" + data).digest()


def roots(
    size: int, leaves: Sequence[tuple[int, bytes]], hashes: Sequence[bytes], sizes: Iterable[int]
) -> dict[int, bytes]:
    """The root of the tree of `size` leaves, and of the trees that it had at `sizes`.

    leaves: place and hash of the leaves that are known, ascending.  hashes: for all the others, from left to right, of the
    largest complete subtrees that hold no known leaf and end at no size between.
    Raises: Defect unless leaves and hashes make up exactly this tree.
    """
    found, peaks, at, known, used = dict[int, bytes](), list[tuple[int, bytes]](), 0, 0, 0
    for stop in sorted({*sizes, size}):
        while at < stop:
            following = leaves[known][0] if known < len(leaves) else size
            if following == at:
                level, node, known = 0, leaves[known][1], known + 1
            else:
                expect(used < len(hashes), "hashes: there are too few of them")
                level = (min(following, stop) - at).bit_length() - 1
                level = min(level, (at & -at).bit_length() - 1) if at else level
                node, used = hashes[used], used + 1
            at += 1 << level
            while peaks and peaks[-1][0] == level:  # the left sibling is complete: go up to their parent
                node, level = hashlib.sha256(b"\1" + peaks.pop()[1] + node).digest(), level + 1
            peaks.append((level, node))
        root = peaks[-1][1] if peaks else hashlib.sha256(b"").digest()
        for _, left in reversed(peaks[:-1]):
            root = hashlib.sha256(b"\1" + left + root).digest()
        found[stop] = root
    expect(used == len(hashes), "hashes: there are too many of them")
    return found


# --- keys and signed notes (C2SP) ---


class NoteKey(NamedTuple):
    """A verifier key of the log or of a witness, `name+hash+base64(type || Ed25519 key)`."""

    name: str
    key_id: bytes
    public: bytes


class Head(NamedTuple):
    """What a checkpoint commits the log to."""

    size: int
    root: bytes


LOG, WITNESS = 1, 4  # types of keys


def note_key(name: str, kind: int, public: bytes) -> NoteKey:
    """The id says, with the name, which key signed."""
    return NoteKey(name, hashlib.sha256(name.encode(errors="replace") + b"\n%c" % kind + public).digest()[:4], public)


def parse_vkey(text: str, kind: int = LOG, where: str = "log.vkey") -> NoteKey:
    """Raises: Defect."""
    name, key_hash, key = [*text.split("+", 2), "", ""][:3]
    raw = unbase64(key, where)
    made = note_key(name, kind, raw[1:])
    well_formed = re.fullmatch(r"\S+", name) and len(raw) == 33 and raw[0] == kind and made.key_id.hex() == key_hash
    expect(well_formed, f"{where}: it is not an Ed25519 verifier key")
    return made


@lru_cache(maxsize=4096)
def public_key(raw: bytes) -> Ed25519PublicKey:
    """Raises: ValueError."""
    return Ed25519PublicKey.from_public_bytes(raw)


def signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    """RFC 8032."""
    with suppress(InvalidSignature, ValueError):
        public_key(public).verify(signature, message)
        return True
    return False


def split_note(note: bytes, where: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The text of a note, and the name and bytes of each signature line, unchecked."""
    text = note.decode(errors="replace")  # a replaced byte can only make a signature wrong
    body, gap, lines = text.rpartition("\n\n")
    expect(
        gap and lines.endswith("\n") and not re.search(r"[\0-\x09\x0b-\x1f]", text), f"{where}: it is not a signed note"
    )
    found = []
    for line in lines[:-1].split("\n"):
        dash, name, blob = [*line.split(" "), "", ""][:3]
        raw = unbase64(blob.encode(errors="replace"), where)
        expect(dash == "—" and line.count(" ") == 2 and len(raw) > 4, f"{where}: it has a line that is no signature")
        found.append((name, raw))
    return f"{body}\n", found


def open_note(note: bytes, key: NoteKey, where: str) -> str:
    """The text of a signed note, once the key's signature on it verified; other signers' lines are ignored."""
    text, lines = split_note(note, where)
    ours = [raw[4:] for name, raw in lines if (name, raw[:4]) == (key.name, key.key_id)]
    expect(ours, f"{where}: the log {key.name} did not sign it with this key")
    for signature in ours:
        expect(signed_by(key.public, signature, text.encode()), f"{where}: it is not what the log {key.name} signed")
    return text


def open_checkpoint(note: bytes, key: NoteKey, where: str) -> Head:
    """Raises: Defect."""
    origin, size, root = [*open_note(note, key, where).split("\n"), "", ""][:3]
    well_formed = origin == key.name and re.fullmatch("0|[1-9][0-9]{0,14}", size) and len(unbase64(root, where)) == 32
    expect(well_formed, f"{where}: it is not a checkpoint of the log {key.name}")
    return Head(int(size), unbase64(root, where))


def check_witnesses(note: bytes, known: Sequence[NoteKey], quorum: int) -> str:
    """Whoever cosigned saw a log that had only grown; a line of a known witness that is wrong is forged."""
    text, lines = split_note(note, "checkpoint")
    found = dict[str, int]()
    for name, raw in lines:
        time, message = int.from_bytes(raw[4:12], "big"), text.encode()
        for witness in known:
            if (name, raw[:4]) == (witness.name, witness.key_id):
                told = b"cosignature/v1\ntime %d\n" % time + message
                good = time < 2**63 and signed_by(witness.public, raw[12:], told)
                expect(good, f"checkpoint: the cosignature of {name} is not what {name} signed")
                found[name] = time
    expect(
        len(found) >= quorum,
        f"checkpoint: {len(found)} known witnesses cosigned it ({', '.join(found) or 'none'}), {quorum} were asked for",
    )
    return "; ".join(f"{name} at {when(time)}" for name, time in found.items()) or "no known witness cosigned it"


def when(seconds: int) -> str:
    """UTC."""
    return dt.datetime.fromtimestamp(min(seconds, 253402300799), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- the files of a bundle ---


def read_file(path: Path, limit: int) -> bytes:
    """Raises: Defect."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as exc:
        raise Defect(f"{path.name} cannot be read: {exc.strerror}") from None
    expect(len(data) <= limit, f"{path.name} has more than {limit} bytes")
    return data


class Archive:
    """The files of a bundle.  Opening checks the directory, reading checks a file: both are bounded whatever they claim."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(max(length - 42, 0))
                tail = file.read(42)
            expect(length <= MAX_BUNDLE_BYTES, f"{path.name} has more than {MAX_BUNDLE_BYTES} bytes")
            # Before anything walks the directory: the plain end record stands last, and the directory it announces is small.
            plain = tail[-22:-18] == b"PK\5\6" and tail[-2:] == b"\0\0" and tail[-42:-38] != b"PK\6\7"
            counted = int.from_bytes(tail[-10:-6], "little") < MAX_JOBS * 128
            expect(plain and counted, f"{path.name} is not a whole bundle")
            self._zip = zipfile.ZipFile(path)
        except OSError as exc:
            raise Defect(f"{path.name} cannot be read: {exc.strerror}") from None
        except (zipfile.BadZipFile, ValueError, RuntimeError) as exc:
            raise Defect(f"{path.name} is not a whole zip file: {exc}") from None
        try:
            self.members = self._directory()
        except Defect:
            self._zip.close()
            raise

    def _directory(self) -> dict[str, tuple[zipfile.ZipInfo, int]]:
        """Known names only, each once, none packed in a way that a reader could read differently."""
        members, total = dict[str, tuple[zipfile.ZipInfo, int]](), 0
        for info in self._zip.infolist():
            name = info.orig_filename
            limit = next((limit for pattern, limit in FILES.items() if pattern.fullmatch(name)), None)
            expect(limit is not None, f"the bundle has a file {name!r} that the format does not know")
            expect(name not in members, f"{name}: the bundle has it twice")
            known = not info.flag_bits & 1 and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            total += info.file_size
            expect(known, f"{name}: it is encrypted or oddly packed")
            expect(total <= MAX_BUNDLE_BYTES, f"{name}: with it the bundle has more than {MAX_BUNDLE_BYTES} bytes")
            members[name] = info, limit or 0
        for name in ("manifest.json", "checkpoint", "log.vkey", "roster", "hashes"):
            expect(name in members, f"{name} is missing")
        expect(len(members) > 5, "the bundle has no job")
        expect(len(members) - 5 <= MAX_JOBS, f"the bundle has more than {MAX_JOBS} jobs")
        return members

    def jobs(self) -> list[str]:
        """Their ids, in order."""
        return sorted(name[5:] for name in self.members if name.startswith("jobs/"))

    def read(self, name: str) -> bytes:
        """Raises: Defect."""
        info, limit = self.members[name]
        expect(info.file_size <= limit, f"{name}: it has more than {limit} bytes")
        try:
            with self._zip.open(info) as file:
                return file.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as exc:
            raise Defect(f"{self.path.name} is not a whole zip file: {exc}") from None

    def lines(self, name: str) -> list[tuple[int, bytes]]:
        """Places in the log and entries, ascending."""
        found: list[tuple[int, bytes]] = []
        rows = self.read(name).split(b"\n")
        expect(rows.pop() == b"", f"{name}: it does not end where a line ends")
        for row in rows:
            place, _, raw = row.partition(b" ")
            index = int(place) if PLACE.fullmatch(place) else -1
            if not (found[-1][0] if found else -1) < index or not 0 < len(raw) <= MAX_ENTRY_BYTES:
                raise Defect(f"{name}: line {len(found) + 1} is no entry of the log, or out of order")
            found.append((index, raw))
        return found

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()


def read_key(archive: Archive, given: str | None) -> NoteKey:
    """The bundle's log key, which must be the given one if one is given."""
    text = archive.read("log.vkey").decode(errors="replace")
    key = parse_vkey(text.removesuffix("\n"))
    expect(text.endswith("\n"), "log.vkey: it does not end where a key ends")
    expect(
        given is None or parse_vkey(given.strip()) == key, f"log.vkey: this key of {key.name} is not the one you gave"
    )
    return key


def read_sizes(archive: Archive, key: NoteKey, head: Head) -> list[int]:
    """The manifest: which log this is, and of which of its sizes the bundle shows the root."""
    shape = {"v": 1, "origin": key.name, "size": head.size, "sizes": [int]}
    sizes: list[int] = read_json(archive.read("manifest.json"), shape, "manifest.json")["sizes"]
    good = all(a < b for a, b in zip([-1, *sizes], [*sizes, head.size], strict=True))
    expect(good, "manifest.json: its sizes do not ascend up to the checkpoint's")
    return sizes


def read_hashes(archive: Archive) -> list[bytes]:
    """Of the subtrees that hold none of the bundle's entries."""
    rows = archive.read("hashes").split(b"\n")
    expect(rows.pop() == b"", "hashes: it does not end where a line ends")
    found = [unbase64(row, "hashes") for row in rows]
    expect(all(len(value) == 32 for value in found), "hashes: it holds what is no hash")
    return found


# --- entries: DSSE envelopes around in-toto statements, in the log ---


@dataclass(slots=True)
class Entry:
    """One statement of one silo.  digest: hex SHA-256 of its payload.  signer: fingerprint of the key it is signed with."""

    index: int
    event: str
    job: str
    spec_digest: str
    payload: bytes
    digest: str
    signature: bytes
    silo: str
    seq: int
    prev: str
    time: str
    body: dict[str, Any]
    name: str
    signer: str = ""

    def __str__(self) -> str:
        return self.name


def open_entry(index: int, raw: bytes) -> Entry:
    """Parse an envelope strictly: one signer, the one its payload names, and nothing extra anywhere."""
    where, envelope = f"entry {index}", ENVELOPE.fullmatch(raw)
    payload, signer, signature = envelope.groups() if envelope else (b"", b"", b"")
    text = unbase64(payload, where)
    said = PAYLOAD.fullmatch(text)
    if said is None:
        raise Defect(f"{where}: it is not what the format has here")
    expect(not said[9], f"{where}: it is about more than one job")
    prev, seq, silo, time, event, spec_digest, job = (part.decode() for part in said.groups(b"")[1:8])
    body = read_json(said[1], dict, where)
    known = event in EVENTS and said[4] == signer and BODIES[event](body)
    expect(known, f"{where}: it is no statement that this format knows, or names another signer than its envelope")
    sealed, name = unbase64(signature, where), f"{where}, '{event}' by {silo}"
    return Entry(index, event, job, spec_digest, text, sha256(text), sealed, silo, int(seq), prev, time, body, name)


def member_digest(entry: Entry) -> str:
    """Of the only member of an entry's body, as it is written."""
    body = PAYLOAD.sub(rb"\1", entry.payload)
    return sha256(body[body.index(b":") + 1 : -1])


def is_signed(entry: Entry, public: bytes) -> bool:
    """DSSE: the signature covers the type too."""
    pae = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(entry.payload), entry.payload)
    return signed_by(public, entry.signature, pae)


# --- the roster: which key spoke for which name, from where to where in the log ---


@dataclass
class Tenure:
    """The time of one key.  end: the entry that ended it.  origin: the enrolment from which rotations lead to this key.

    fingerprint: what people compare.
    """

    public: bytes
    start: int
    origin: int
    end: int | None = None
    why: str = ""

    fingerprint: str = ""

    def __post_init__(self) -> None:
        self.fingerprint = sha256(self.public)


class Roster:
    """The keys of every silo, worked out from the signed entries about no job."""

    def __init__(self, log_key: NoteKey) -> None:
        self.tenures: dict[str, list[Tenure]] = {"coordinator": [Tenure(log_key.public, 0, 0)]}
        self._chains: dict[str, tuple[int, str]] = {}
        self._seen: set[str] = set()

    def add(self, index: int, raw: bytes) -> Entry:
        """Raises: Defect if the entry cannot stand where it stands."""
        entry = open_entry(index, raw)
        about_none = entry.event in ROSTER and (entry.job, entry.spec_digest) == ("", "")
        expect(about_none, f"{entry}: it is not about the roster")
        expect(entry.digest not in self._seen, f"{entry}: it repeats what {entry.silo} said before")
        expect((entry.event == "revoked") == (entry.silo == "coordinator"), f"{entry}: this is not for it to say")
        if entry.event == "enrolled":
            expect((entry.seq, entry.prev) == (0, ""), f"{entry}: it does not start a chain")
            self._begin(entry, index)
            self.sign(entry)
        else:
            self.sign(entry)
            if entry.silo in self._chains:  # of the coordinator's chain a bundle has only what its silos concerns
                follows = (entry.seq, entry.prev) == self._chains[entry.silo]
                expect(follows, f"{entry}: it does not follow what {entry.silo} said before about no job")
            self._rotate(entry) if entry.event == "rotated" else self._revoke(entry)
        if entry.silo != "coordinator":
            self._chains[entry.silo] = entry.seq + 1, entry.digest
        self._seen.add(entry.digest)
        return entry

    def _begin(self, entry: Entry, origin: int) -> None:
        public, known = unbase64(entry.body["identity_key"], entry), self.tenures.setdefault(entry.silo, [])
        gone = [t for t in known if t.public == public and t.why == "revoked"]
        expect(not gone, f"{entry}: it brings back a key that was revoked")
        if known and known[-1].end is None:
            known[-1].end, known[-1].why = entry.index, "replaced"
        known.append(Tenure(public, entry.index, origin))

    def _rotate(self, entry: Entry) -> None:
        old = self.tenures[entry.silo][-1]
        public, proof = (unbase64(entry.body[name], entry) for name in ("identity_key", "proof"))
        message = f"accord-rotate-v1\n{entry.silo}\n{old.fingerprint}".encode()
        expect(signed_by(public, proof, message), f"{entry}: the new key of {entry.silo} did not sign the proof")
        used = any(t.public == public for tenures in self.tenures.values() for t in tenures)
        expect(not used, f"{entry}: the new key of {entry.silo} was used before")
        self._begin(entry, old.origin)

    def _revoke(self, entry: Entry) -> None:
        silo, fingerprint = entry.body["silo"], entry.body["fingerprint"]
        present = [t for t in self.tenures.get(silo, [])[-1:] if t.end is None and t.fingerprint == fingerprint]
        expect(present, f"{entry}: it revokes a key that did not speak for {silo}")
        present[0].end, present[0].why = entry.index, "revoked"

    def of(self, entry: Entry) -> Tenure:
        """The key that must have signed.  Raises: Defect if its silo had none there."""
        said_before = entry.index - (entry.event == "rotated")  # that is said with the key which it ends
        for tenure in reversed(self.tenures.get(entry.silo, ())):
            if tenure.start <= said_before:
                if tenure.why == "revoked" and tenure.end is not None and tenure.end <= entry.index:
                    raise Defect(f"{entry}: the key of {entry.silo} had been revoked in entry {tenure.end}")
                return tenure
        raise Defect(f"{entry}: the bundle has no earlier 'enrolled' entry of {entry.silo}")

    def sign(self, entry: Entry) -> None:
        """Check an entry's signature and note whose it is.  Raises: Defect."""
        tenure = self.of(entry)
        if not is_signed(entry, tenure.public):
            other = [t for t in self.tenures[entry.silo] if t.public != tenure.public and is_signed(entry, t.public)]
            why = f"it is not signed with the key that {entry.silo} enrolled"
            if other and other[0].end is not None and other[0].end <= entry.index:
                why = f"it is signed with the key of {entry.silo} that was {other[0].why} in entry {other[0].end}"
            raise Defect(f"{entry}: {why}")
        entry.signer = tenure.fingerprint

    def kin(self, silo: str, fingerprint: str) -> set[str]:
        """The keys that rotations, each signed by the key before and the key after, lead to and from this one."""
        known = self.tenures.get(silo, [])
        origins = {t.origin for t in known if t.fingerprint == fingerprint}
        return {t.fingerprint for t in known if t.origin in origins} | {fingerprint}

    def witnesses(self, kin: Mapping[str, set[str]] | None) -> list[NoteKey]:
        """Every silo may cosign, under its name and with the key that speaks for it now; kin: only these count, if given,
        because a log can enrol others by itself.
        """
        present = [(silo, tenures[-1]) for silo, tenures in self.tenures.items() if silo != "coordinator"]
        counted = [(silo, t) for silo, t in present if kin is None or t.fingerprint in kin.get(silo, ())]
        return [note_key(silo, WITNESS, t.public) for silo, t in counted if t.end is None]


def read_roster(archive: Archive, key: NoteKey) -> tuple[Roster, list[tuple[int, bytes]]]:
    """The roster, and the place and leaf hash of each of its entries."""
    roster, leaves = Roster(key), []
    for index, raw in archive.lines("roster"):
        roster.add(index, raw)
        leaves.append((index, leaf_hash(raw)))
    return roster, leaves


def signed_entry(index: int, raw: bytes, roster: Roster) -> Entry:
    """Raises: Defect."""
    entry = open_entry(index, raw)
    roster.sign(entry)
    return entry


def check_signatures(entries: Sequence[Entry], roster: Roster) -> str:
    """Every statement is signed: itself, or by the next one of its silo, which names its hash and has the same key."""
    later: dict[str, tuple[Entry, Tenure]] = {}
    checked = 0
    for entry in reversed(entries):
        tenure = roster.of(entry)
        after = later.get(entry.silo)
        if after is None or after[1] is not tenure or after[0].prev != entry.digest:
            roster.sign(entry)
            checked += 1
        entry.signer = tenure.fingerprint
        later[entry.silo] = entry, tenure
    return f"{checked} checked, {len(entries) - checked} covered by a later one of the same key"


# --- the story: what must hold of entries that are rightly signed and logged ---


@dataclass
class Story:
    """One job as its entries tell it.  participants: the data owners in spec order, then the dealer or the helper, if any.

    state: where the job stands after them.
    """

    job: str
    entries: Sequence[Entry]
    spec: dict[str, Any]
    disclosure: dict[str, Any]
    owners: list[str]
    participants: list[str]
    state: str = "unclear"

    @cached_property
    def _said(self) -> dict[str, dict[str, Entry]]:
        found: dict[str, dict[str, Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.event, {})[entry.silo] = entry
        return found

    def said(self, event: str) -> dict[str, Entry]:
        """Who said it."""
        return self._said.get(event, {})


def tell(job: str, entries: Sequence[Entry]) -> Story:
    """One proposal and one disclosure by one submitter open the story; everything after is about their spec."""
    for place, event in enumerate(("proposed", "disclosed")):
        places = [i for i, e in enumerate(entries) if e.event == event]
        where = entries[places[-1]] if places else f"the bundle has no '{event}' entry"
        expect(places == [place], f"{where}: a job opens with one 'proposed' and then one 'disclosed' entry")
    proposed, disclosed = entries[:2]
    expect(disclosed.silo == proposed.silo, f"{disclosed}: the job was proposed by {proposed.silo}")
    spec, disclosure = {"helper": None, **proposed.body["spec"]}, disclosed.body["disclosure"]  # older specs lack it
    expect(
        SPEC_FITS({k: spec[k] for k in SPEC.keys() & spec.keys()}),
        f"{proposed}: its spec lacks something that every spec has",
    )
    owners, digest = [party.get("silo") for party in spec["parties"]], member_digest(proposed)
    participants = [*owners, *(spec[role] for role in ("dealer", "helper") if spec[role] is not None)]
    dealt = (spec["randomness"] in ("ot", None)) == (spec["dealer"] is None)
    expect(dealt, f"{proposed}: its spec names a dealer where there is none, or none where there is one")
    expect(spec["dealer"] is None or spec["helper"] is None, f"{proposed}: its spec names a dealer and a helper")
    distinct = owners and fits(owners, [SILO]) and len(set(participants)) == len(participants)
    expect(distinct and "coordinator" not in participants, f"{proposed}: its spec names no distinct participants")
    expect(spec["job"] == job, f"{proposed}: its spec is of job {spec['job']}, the file of {job}")
    concerned = {*participants, proposed.silo}
    for entry in entries:
        if entry.job != job:
            raise Defect(f"{entry}: it is about another job")
        if entry.spec_digest != digest:
            raise Defect(f"{entry}: it is about another spec than the one proposed")
        if entry.silo not in concerned and entry.event != "expired":
            raise Defect(f"{entry}: {entry.silo} has no part in this job")
    expect(disclosure.get("spec_digest") == digest, f"{disclosed}: its disclosure is of another spec")
    return Story(job, entries, spec, disclosure, owners, participants)


def check_speakers(story: Story) -> str:
    """Nobody says what is another's to say."""
    roles = {"the submitter": [story.entries[0].silo], "a participant": story.participants}
    roles |= {"a data owner": story.owners, "the coordinator": ["coordinator"]}
    for entry in story.entries:
        role = EVENTS[entry.event][0]
        if entry.silo not in roles.get(role, ()):
            raise Defect(f"{entry}: this is for {role} of the job to say")
    return f"all of {', '.join(story.said('proposed') | dict.fromkeys(story.participants))}"


def check_chains(story: Story) -> str:
    """Each silo's own numbering and hashing: nothing it said before something else is missing, added or moved."""
    heads: dict[str, tuple[int, str]] = {}
    for entry in story.entries:
        seq, prev = heads.get(entry.silo, (0, ""))
        if entry.seq != seq:
            raise Defect(f"{entry}: it is number {entry.seq} of what {entry.silo} said, expected number {seq}")
        if entry.prev != prev:
            raise Defect(f"{entry}: it follows another statement of {entry.silo} than the one in the bundle")
        heads[entry.silo] = (seq + 1, entry.digest)
    return f"{len(heads)} without gaps"


def final_state(story: Story) -> str:
    """Walk the job's life in log order: every step waits for all of the step before it, and nothing follows the end."""
    state, said, wanted = "disclosed", set[tuple[str, str]](), set[tuple[str, str]]()
    for entry in story.entries[2:]:
        expect(state in PHASES, f"{entry}: it comes after the end of the job, which was '{state}'")
        ends, steps, after = PHASES[state]
        if not wanted:
            concerned = {"released": story.owners}
            wanted = {(p, step) for step in steps for p in concerned.get(step, story.participants)}
        if (entry.silo, entry.event) in said:
            raise Defect(f"{entry}: {entry.silo} had said it before")
        if entry.event not in ends + steps:
            lacking = " and ".join(f"{p} had not '{step}'" for p, step in sorted(wanted - said))
            raise Defect(f"{entry}: it is out of order, as {lacking} yet")
        said.add((entry.silo, entry.event))
        if entry.event == "withdrawn":
            bound = (entry.silo, "consented") in said and (entry.silo, "released") not in said
            expect(bound, f"{entry}: {entry.silo} had no consent to withdraw, or had released its result")
        if entry.event == "expired":
            until = story.spec["valid_until"]
            expect(entry.time >= until, f"{entry}: it was said at {entry.time}, the job was valid until {until}")
        if entry.event in ends or wanted <= said:
            state, wanted = entry.event if entry.event in ends else after, set()
    return state


def check_end(state: str, allow_unfinished: bool) -> str:
    """A job without its end is half a story: the failure may be what was left out."""
    known = state not in PHASES or allow_unfinished
    expect(known, f"the bundle does not show how the job ended: it stops when the job was '{state}'")
    return state


def check_consents(story: Story) -> str:
    """Every consent is to this disclosure, holds when it is used, and binds a data set (an owner's) or none."""
    disclosed, consents = member_digest(story.entries[1]), story.said("consented")
    starts = story.said("started").values()
    for silo, entry in consents.items():
        same = entry.body["disclosure_digest"] == disclosed
        expect(same, f"{entry}: it is a consent to another disclosure than this job's")
        bound = bool(entry.body["dataset_commitment"]) == (silo in story.owners)
        expect(bound, f"{entry}: a data owner commits to its data set, and nobody else to one")
        described = (entry.body["record"] is not None) == (silo in story.owners)
        expect(described, f"{entry}: a data owner says what its data are, and nobody else has any to describe")
        limit = min(story.spec["valid_until"], entry.body["valid_until"])
        for use in (entry, *starts):
            if use.time >= limit:
                raise Defect(f"{use}: at {use.time} the consent of {silo}, valid until {limit}, had expired")
    return ", ".join(consents) or "none was given"


def check_starts(story: Story) -> str:
    """Everybody ran with the link certificates and identity keys of the consents: nobody was shown others."""
    consents, starts = story.said("consented"), story.said("started")
    links = {s: sha256(unbase64(e.body["link_certificate"], e)) for s, e in consents.items()}
    keys = {s: e.signer for s, e in consents.items()}
    for entry in starts.values():
        for part, agreed, what in (("links", links, "link certificate"), ("identities", keys, "identity key")):
            given = entry.body[part]
            for silo in sorted(s for s in given.keys() | agreed.keys() if given.get(s) != agreed.get(s)):
                raise Defect(f"{entry}: its {what} of {silo} is not the one of {silo}'s consent")
    for entry in (e for event in ("started", "released", "finished") for e in story.said(event).values()):
        expect(keys.get(entry.silo) == entry.signer, f"{entry}: {entry.silo} consented with another identity key")
    return ", ".join(starts) or "nobody started"


def check_releases(story: Story) -> str:
    """A result goes from an owner to an owner, and holds nothing that the spec does not list."""
    releases = story.said("released").values()
    for entry in releases:
        recipient, items = entry.body["recipient"], entry.body["items"]
        expect(recipient in story.owners, f"{entry}: it went to {recipient}, who is not a data owner of this job")
        for item in items:
            expect(item in story.spec["release"], f"{entry}: it released {item!r}, which the spec does not list")
    return "; ".join(f"{e.silo} to {e.body['recipient']}: {', '.join(e.body['items'])}" for e in releases) or "none"


def check_costs(story: Story) -> str:
    """Costs are of this job: bytes to its participants, correlated randomness at the owners, who use it together."""
    used, finished, owners = dict[str, list[str]](), story.said("finished"), story.owners
    users = owners if story.spec["randomness"] is not None else []
    for silo, entry in finished.items():
        cost = entry.body["cost"]
        expect(cost["bytes_sent"].keys() <= set(story.participants), f"{entry}: it sent bytes to a silo without a part")
        for kind, count in cost["randomness"].items():
            good = fits(count, {"correlations": int, "words": int}) and silo in users
            expect(good, f"{entry}: its account of the randomness '{kind}' is not what the format has here")
        used[silo] = [f"{count['correlations']} {kind}" for kind, count in sorted(cost["randomness"].items())]
    told = [(finished[silo], used[silo]) for silo in owners if silo in used]
    for entry, kinds in told:
        expect(
            kinds == told[0][1],
            f"{entry}: it used other randomness than {told[0][0].silo}, though owners use it together",
        )
    return ", ".join(told[0][1]) or "no randomness" if told else "nobody finished"


def check_approvals(story: Story) -> str:
    """The persons in a consent signed for this spec and disclosure, before the consent; no two of them are one."""
    told = []
    for silo, entry in story.said("consented").items():
        approvals = entry.body["approvals"]
        for part in ("name", "key"):
            distinct = len({a[part] for a in approvals}) == len(approvals)
            expect(distinct, f"{entry}: two of its approvals are of one person")
        for one in approvals:
            about = {"job": entry.job, "spec_digest": entry.spec_digest, "silo": silo, "name": one["name"]}
            about |= {"disclosure_digest": entry.body["disclosure_digest"], "time": one["time"]}
            key, signature = unbase64(one["key"], entry), unbase64(one["signature"], entry)
            good = signed_by(key, signature, b"accord-approval-v1\n" + canonical(about))
            expect(good, f"{entry}: the approval of {one['name']} is not signed with the key that it names")
            late = f"{entry}: the approval of {one['name']} is of {one['time']}, after the consent of {entry.time}"
            expect(one["time"] <= entry.time, late)
            told.append(f"{one['name']} for {silo}")
    return ", ".join(told) or "by policy alone"


def check_budgets(story: Story) -> str:
    """What a consent takes of an owner's privacy budget fits under the limit, once per counterparty."""
    told = []
    for silo, entry in story.said("consented").items():
        charges = entry.body["budget"]
        expect(not charges or silo in story.owners, f"{entry}: only a data owner has a privacy budget")
        names = [charge["counterparty"] for charge in charges]
        others = {*story.participants, story.entries[0].silo} - {silo}
        apart = len(set(names)) == len(names) and set(names) <= others
        expect(apart, f"{entry}: it charges a counterparty twice, or one without a part in the job")
        for charge in charges:
            rho, before, limit = (Fraction(charge[name]) for name in ("rho", "before", "limit"))
            over = (
                f"it takes {charge['rho']} of the budget towards {charge['counterparty']}, of which {charge['before']}"
            )
            expect(before + rho <= limit, f"{entry}: {over} of {charge['limit']} were spent")
            told.append(f"{silo} towards {charge['counterparty']} {charge['rho']}")
    return "; ".join(told) or "nothing is noised"


def check_pins(story: Story, pins: Mapping[str, set[str]]) -> str:
    """Whoever is pinned signed with the pinned key, or one that signed rotations connect with it, everywhere."""
    for entry in story.entries:
        if entry.silo in pins and entry.signer not in pins[entry.silo]:
            raise Defect(f"{entry}: it is signed with the key {entry.signer}, not with the one you pinned")
    keys = {e.silo: e.signer for e in story.entries}
    return "; ".join(f"{s} {k} ({'as pinned' if s in pins else 'not pinned'})" for s, k in sorted(keys.items()))


# --- the report ---


class Check(NamedTuple):
    """One thing that was checked.  detail: what was found, or the sentence that says what is wrong and where."""

    name: str
    ok: bool
    detail: str


class Summary(NamedTuple):
    """What the entries say; worth as much as the checks.  learned: from the disclosure that everybody signed."""

    job: str
    kind: str
    purpose: str
    randomness: str
    submitter: str
    participants: list[str]
    state: str
    timeline: list[str]
    learned: list[str]


@dataclass
class Report:
    """All checks in order.  summaries, stories: of every job whose entries tell one."""

    checks: list[Check] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    stories: list[Story] = field(default_factory=list)

    @property
    def summary(self) -> Summary | None:
        """Of the only job."""
        return self.summaries[0] if len(self.summaries) == 1 else None

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks) and all(c.ok for c in self.checks)

    @property
    def reason(self) -> str:
        """The first sentence that says why not."""
        return next((c.detail for c in self.checks if not c.ok), "")

    @contextmanager
    def until_defect(self) -> Iterator[None]:
        """What is inside ends with the first defect, and no defect goes unreported."""
        try:
            yield
        except Defect as defect:
            if self.ok or not self.checks:
                self.checks.append(Check("bundle", False, str(defect)))

    def run(self, name: str, check: Callable[[], T], detail: Callable[[T], str] = str) -> T:
        """Note what a check finds.  Raises: Defect if it fails, so that nothing which needs it is tried."""
        try:
            value = check()
        except Defect as defect:
            self.checks.append(Check(name, False, str(defect)))
            raise
        self.checks.append(Check(name, True, detail(value)))
        return value


# --- one job ---


class Trust(NamedTuple):
    """What the entries of a job are checked against."""

    roster: Roster
    pins: Mapping[str, set[str]]
    every: bool
    allow_unfinished: bool
    stories: bool


@dataclass
class Found:
    """One job's own checks, and what is checked over all jobs.

    places, leaves: of its entries in the log, and their leaf hashes, concatenated.  heads: (consent, silo, place, size, root).
    charges: (consent, place, owner, data set and counterparty, before, rho, place of its release).
    releases: (owner, recipient, result digest, spec digest, place).
    """

    job: str
    report: Report = field(default_factory=Report)
    places: list[int] = field(default_factory=list)
    leaves: bytes = b""
    speakers: set[str] = field(default_factory=set)
    heads: list[tuple[str, str, int, int, str]] = field(default_factory=list)
    charges: list[tuple[str, int, tuple[str, str, str], str, str, int | None]] = field(default_factory=list)
    releases: list[tuple[str, str, str, str, int]] = field(default_factory=list)


def check_entries(report: Report, lines: Sequence[tuple[int, bytes]], trust: Trust) -> list[Entry]:
    """Every entry, in log order, each a check of its own if every signature is checked.

    Raises: Defect once all are checked, if one is not what its silo signed.
    """
    if not trust.every:
        entries = report.run("entries", lambda: [open_entry(*line) for line in lines], lambda found: str(len(found)))
        report.run("signatures", lambda: check_signatures(entries, trust.roster))
        return entries
    entries = []
    for index, raw in lines:
        with suppress(Defect):
            check = partial(signed_entry, index, raw, trust.roster)
            entries.append(report.run(f"entry {index}", check, lambda e: f"'{e.event}' by {e.silo} at {e.time}"))
    expect(len(entries) == len(lines), report.reason)
    return entries


def rules_of(story: Story, trust: Trust) -> list[tuple[str, Callable[[], str]]]:
    """The checks that do not build on each other, by name."""
    return [
        ("speakers", lambda: check_speakers(story)),
        ("chains", lambda: check_chains(story)),
        ("consents", lambda: check_consents(story)),
        ("approvals", lambda: check_approvals(story)),
        ("budgets", lambda: check_budgets(story)),
        ("starts", lambda: check_starts(story)),
        ("releases", lambda: check_releases(story)),
        ("costs", lambda: check_costs(story)),
        ("identity keys", lambda: check_pins(story, trust.pins)),
        ("end", lambda: check_end(story.state, trust.allow_unfinished)),
    ]


def summarise(story: Story) -> Summary:
    """The story in a few lines."""
    spec, lines = story.spec, story.disclosure.get("lines")
    told = [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
    told = [line for line in told if type(line.get("silo")) is str and type(line.get("learns")) is str]
    # one copy of what many jobs say: less to keep, and to send from process to process
    learned = [sys.intern(f"{line['silo']} learns {line['learns']}") for line in told]
    timeline = [sys.intern(f"{e.time}  {e.silo}: {e.event}") for e in story.entries]
    who = (story.entries[0].silo, story.participants)
    return Summary(
        spec["job"], spec["kind"], spec["purpose"], spec["randomness"] or "none", *who, story.state, timeline, learned
    )


def gather(found: Found, story: Story) -> None:
    """Note what has to be compared with other jobs and with the log."""
    datasets = {party["silo"]: str(party.get("dataset", "")) for party in story.spec["parties"]}
    released = story.said("released")
    found.speakers = {e.silo for e in story.entries}
    for silo, entry in story.said("consented").items():
        found.heads.append((str(entry), silo, entry.index, entry.body["head"]["size"], entry.body["head"]["root"]))
        gone = released[silo].index if silo in released else None
        for charge in entry.body["budget"]:
            account = (silo, datasets.get(silo, ""), charge["counterparty"])
            found.charges.append((str(entry), entry.index, account, charge["before"], charge["rho"], gone))
    for silo, entry in released.items():
        body = entry.body
        found.releases.append((silo, body["recipient"], body["result_digest"], entry.spec_digest, entry.index))


def check_job(archive: Archive, job: str, trust: Trust) -> Found:
    """Check everything about one job that its own entries and the roster can show."""
    found = Found(job)
    report = found.report
    with report.until_defect():
        lines = report.run("job file", lambda: archive.lines(f"jobs/{job}"), lambda rows: f"{len(rows)} entries")
        found.places = [index for index, _ in lines]
        found.leaves = b"".join(leaf_hash(raw) for _, raw in lines)
        entries = check_entries(report, lines, trust)
        story = report.run("spec", lambda: tell(job, entries), lambda s: f"sha256 {s.entries[0].spec_digest}")
        with suppress(Defect):
            step = "every step in order, up to '{}'".format
            story.state = report.run("course", lambda: final_state(story), step)
        report.summaries.append(summarise(story))
        gather(found, story)
        if trust.stories:
            report.stories.append(story)
        for name, rule in rules_of(story, trust):
            with suppress(Defect):
                report.run(name, rule)
    return found


@lru_cache(maxsize=1)
def opened(path: Path) -> Archive:
    """A process that checks batches keeps the archive open."""
    gc.disable()  # entries hold no cycles, and searching millions of them for some takes a tenth of the time
    return Archive(path)


def check_batch(path: Path, trust: Trust, jobs: Sequence[str]) -> list[Found]:
    """Several jobs, in a process of their own."""
    found = [check_job(opened(path), job, trust) for job in jobs]
    for one in found:
        one.report = condensed(one)
    return found


def condensed(found: Found) -> Report:
    """One line for a job that is right, and for one that is not only what is wrong."""
    report, name = found.report, f"job {found.job}"
    checks = [Check(f"{name}: {c.name}", False, c.detail) for c in report.checks if not c.ok]
    told = "; ".join(f"{s.kind}, {s.state}, {len(s.timeline)} entries" for s in report.summaries)
    return Report(checks or [Check(name, True, told)], report.summaries, report.stories)


def check_jobs(archive: Archive, trust: Trust) -> Iterator[Found]:
    """All jobs; many of them by as many processes as there are processors."""
    jobs, workers = archive.jobs(), os.cpu_count() or 1
    if len(jobs) <= FEW_JOBS:
        for job in jobs:
            found = check_job(archive, job, trust)
            found.report = found.report if len(jobs) == 1 else condensed(found)
            yield found
        return
    batches = [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for batch in pool.map(partial(check_batch, archive.path, trust), batches):
            yield from batch


# --- the log and all jobs together ---


class Tree(NamedTuple):
    """The log's tree as far as the bundle shows it.  roots: by size."""

    leaves: list[tuple[int, bytes]]
    hashes: list[bytes]
    roots: dict[int, bytes]

    def root_at(self, size: int) -> bytes | None:
        """None if the bundle does not show it; one that leaves nothing out shows every size."""
        if size not in self.roots and not self.hashes and 0 <= size <= len(self.leaves):
            self.roots.update(roots(size, self.leaves[:size], (), ()))
        return self.roots.get(size)


def check_tree(
    archive: Archive, head: Head, sizes: Sequence[int], leaves: list[tuple[int, bytes]], also: Iterable[int] = ()
) -> Tree:
    """The entries and hashes lead to the checkpoint's root.  also: more sizes to show, if nothing is left out."""
    leaves.sort()
    for (one, _), (other, _) in pairwise(leaves):
        expect(one != other, f"entry {one}: the bundle has it twice")
    expect(not leaves or leaves[-1][0] < head.size, f"the log has {head.size} entries, the bundle has one beyond them")
    hashes = read_hashes(archive)
    also = () if hashes else [size for size in set(also) if 0 <= size <= head.size]
    shown = roots(head.size, leaves, hashes, [*sizes, *also])
    lead = "its entries and hashes do not lead to the checkpoint's root: one was changed, moved, added or left out"
    expect(shown[head.size] == head.root, f"the bundle is not of this log: {lead}")
    return Tree(leaves, hashes, shown)


def check_history(tree: Tree, key: NoteKey, since: Path | None) -> str:
    """The log leads on from the auditor's own checkpoint."""
    if since is None:
        return "no checkpoint of yours to compare with"
    size, root = open_checkpoint(read_file(since, MAX_ENTRY_BYTES), key, since.name)
    known = tree.root_at(size)
    expect(known is not None, f"the bundle does not connect to {since.name}, your checkpoint of {size} entries")
    expect(known == root, f"the bundle is of another history than {since.name}, your checkpoint")
    return f"the first {size} entries are those of {since.name}"


def check_heads(tree: Tree, heads: Iterable[tuple[str, str, int, int, str]]) -> str:
    """The log leads on from what every participant had verified of it when it consented: all saw one history."""
    latest = dict[str, int]()
    for consent, silo, place, size, root in heads:
        expect(size <= place, f"{consent}: it says that {size} entries of the log were verified, and is number {place}")
        known = tree.root_at(size)
        expect(known is not None, f"{consent}: the bundle does not connect to the {size} entries that it had verified")
        expect(known and known.hex() == root, f"{consent}: it had verified {size} entries of another log than this one")
        latest[silo] = max(size, latest.get(silo, 0))
    return "; ".join(f"{silo} had verified {size}" for silo, size in sorted(latest.items())) or "nobody consented"


def check_spending(charges: Sequence[tuple[str, int, tuple[str, str, str], str, str, int | None]]) -> str:
    """No consent forgets what earlier jobs of the bundle took of the same budget before it was given."""
    taken = dict[tuple[str, str, str], list[tuple[int, Fraction]]]()
    for _, _, account, _, rho, released in charges:
        if released is not None:
            taken.setdefault(account, []).append((released, Fraction(rho)))
    for consent, place, account, before, _, _ in sorted(charges, key=lambda charge: charge[1]):
        spent = sum(rho for released, rho in taken.get(account, ()) if released < place)
        _, dataset, counterparty = account
        known = f"of its budget for {dataset!r} towards {counterparty}, jobs of this bundle had taken {float(spent):g}"
        expect(Fraction(before) >= spent, f"{consent}: it says that {before} was spent {known}")
    return f"{len(charges)} charges, none forgets an earlier one" if charges else "nothing is noised"


def check_result(path: Path, jobs: Mapping[str, Found]) -> str:
    """A result file is the one whose salted digest an owner logged for that recipient."""
    digest, file = "", {}
    with suppress(ValueError, RecursionError):
        file = DECODER.decode(read_file(path, MAX_RESULT_BYTES).decode())
        digest = sha256(bytes.fromhex(file["salt"]) + canonical(file["result"])) if fits(file, RESULT) else ""
    expect(digest, f"{path.name}: it is not a result file")
    releases = [r for r in jobs[file["job"]].releases if r[3] == file["spec_digest"]] if file["job"] in jobs else []
    expect(releases, f"{path.name}: it is the result of another job, or of one that released none")
    for owner, recipient, released, _, place in releases:
        if (recipient, released) == (file["silo"], digest):
            return f"{path.name} is what {owner} released to {file['silo']} in entry {place}"
    raise Defect(f"{path.name}: no release of this job to {file['silo']} has its digest")


def check_pinned(pins: Mapping[str, str], speakers: set[str]) -> str:
    """Every pin is of somebody who speaks in the bundle: a pin that nothing is compared with would look like a check."""
    for silo in pins:
        expect(silo in speakers, f"the bundle has nothing signed by {silo}, whose key you pinned")
    return ", ".join(sorted(pins)) or "no key was pinned: compare the fingerprints, or give --pin"


EXPLAIN = {
    "zip file": "The file is whole, and holds only what the format knows, within its limits.",
    "log key": "Everything about order hangs on this key. It proves something only if you have it from elsewhere.",
    "checkpoint": "The log bound itself, by its signature, to this number of entries and to each byte of them.",
    "manifest": "The bundle is about this log at this size.",
    "roster": "Which key spoke for which silo, from where to where in the log: each change is signed by the silo, a "
    "rotation by the old and the new key, a revocation by the log. Where hashes stand for other entries, a later change may "
    "be among them; an operator's bundle leaves none out.",
    "job": "Every check of one job passed, which a bundle of that job alone would list.",
    "job file": "The job's entries are there, in the order of the log.",
    "entries": "Each statement is exactly in its format.",
    "entry N": "The statement is exactly in its format and signed with the key that spoke for its silo there.",
    "signatures": "Each statement is signed, or its hash is named by a later signed statement of the same silo and key.",
    "spec": "One job was proposed and its disclosure shown; every entry is about these, and by somebody with a part.",
    "course": "Nothing ran before all had agreed, nothing was released before all had started, nothing came after the end.",
    "speakers": "Nobody said what is another's to say.",
    "chains": "Each silo numbered its statements and named the one before by its hash: none is missing, added or moved.",
    "consents": "Everybody agreed to this very spec and disclosure, for a time that had not run out when it was used, and "
    "each owner bound itself to one version of its data.",
    "approvals": "The named persons signed for this job. Who holds a person's key, the silo must say.",
    "budgets": "What the job takes of each owner's privacy budget was within the limit that the owner states.",
    "starts": "All computed with the keys of the consents: nobody was put between them.",
    "releases": "Results went to owners only, and hold nothing that the spec does not list.",
    "costs": "The accounts of bytes and randomness fit each other. They are what the silos say.",
    "identity keys": "Everything is signed with the pinned keys, or with keys that signed rotations connect with them.",
    "end": "The job's end is shown, so that no failure or withdrawal was cut off.",
    "tree": "The log holds exactly these bytes at these places (RFC 6962). Where hashes stand for other entries, the "
    "bundle cannot show that none of them is about these jobs; each silo's numbering shows gaps.",
    "history": "The log has only grown since the checkpoint that you kept.",
    "heads": "Every participant had seen a beginning of this very log when it consented: it was not shown another history.",
    "cosignatures": "These witnesses saw this size of the log as one that had only grown.",
    "spending": "No owner's account of its privacy budget forgets what an earlier job of this bundle took.",
    "pins": "Each pinned silo speaks in the bundle.",
    "result N": "The file is, byte for byte, what was released to this silo.",
}


def verify_bundle(
    path: str | Path,
    log_key: str | None = None,
    pins: Mapping[str, str] | None = None,
    results: Sequence[str | Path] = (),
    since: str | Path | None = None,
    allow_unfinished: bool = False,
    witnesses: Sequence[str] = (),
    quorum: int = 0,
    every_signature: bool = False,
    stories: bool = True,
) -> Report:
    """Check everything about a bundle.  Never raises because of what is in a file: a defect is a failed check.

    log_key: the log's verifier key, from elsewhere.  pins: silo -> identity fingerprint, from elsewhere.
    results: result files to compare with the releases.  since: file with a checkpoint that the log must lead on from.
    allow_unfinished: accept jobs that are still under way, or whose end the bundle leaves out.
    witnesses: verifier keys of witnesses, beside the silos' own.  quorum: how many must have cosigned the checkpoint.
    every_signature: with more than FEW_JOBS jobs, check also signatures that a later one covers.
    stories: keep every entry in the report.
    """
    report, pinned = Report(), dict(pins or {})
    unpack = partial(report.run, "zip file", lambda: Archive(Path(path)), lambda a: f"{len(a.members)} files")
    with report.until_defect(), unpack() as archive:
        whose = "the key you gave" if log_key else "taken from the bundle itself: compare it, or give --log-key"
        key = report.run("log key", lambda: read_key(archive, log_key), lambda k: f"{k.name}, {whose}")
        signed = partial(open_checkpoint, note := archive.read("checkpoint"), key, "checkpoint")
        head = report.run("checkpoint", signed, lambda h: f"{h.size} entries, signed by the log key")
        sizes = report.run("manifest", lambda: read_sizes(archive, key, head), lambda s: f"{len(s)} earlier sizes")
        roster, leaves = report.run("roster", lambda: read_roster(archive, key), lambda r: f"{len(r[1])} entries")
        kin = {silo: roster.kin(silo, fingerprint) for silo, fingerprint in pinned.items()}
        every = every_signature or len(archive.jobs()) <= FEW_JOBS
        jobs = {f.job: f for f in check_jobs(archive, Trust(roster, kin, every, allow_unfinished, stories))}
        for found in jobs.values():
            report.checks += found.report.checks
            report.summaries += found.report.summaries
            report.stories += found.report.stories
            leaves += [(place, found.leaves[32 * n : 32 * n + 32]) for n, place in enumerate(found.places)]
        named = [parse_vkey(text, WITNESS, "--witness") for text in witnesses]
        known = [*named, *roster.witnesses(kin if named or pinned else None)]
        with suppress(Defect):
            heads = [one for found in jobs.values() for one in found.heads]
            build = partial(check_tree, archive, head, sizes, leaves, [seen for _, _, _, seen, _ in heads])
            told = f"{len(leaves)} of {head.size} entries are here"
            tree = report.run("tree", build, lambda t: f"{told}, {len(t.hashes)} hashes stand for the others")
            with suppress(Defect):
                report.run("history", lambda: check_history(tree, key, Path(since) if since else None))
            with suppress(Defect):
                report.run("heads", lambda: check_heads(tree, heads))
        speakers = {silo for found in jobs.values() for silo in found.speakers}
        with suppress(Defect):
            report.run("cosignatures", lambda: check_witnesses(note, known, quorum))
        with suppress(Defect):
            report.run("spending", lambda: check_spending([c for found in jobs.values() for c in found.charges]))
        with suppress(Defect):
            report.run("pins", lambda: check_pinned(pinned, speakers))
        for n, file in enumerate(results, 1):
            with suppress(Defect):
                report.run(f"result {n}", partial(check_result, Path(file), jobs))
    return report


# --- the command line ---


def show(report: Report, explain: bool = False) -> None:
    """One line per check, then the story if it holds, then the verdict.  explain: after each check, what it proves."""
    lines = []
    for check in report.checks:
        lines.append(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
        lines += [f"      {EXPLAIN[name]}" for name in [explained(check.name)] if explain and name in EXPLAIN]
    if report.ok and (told := report.summary):
        lines += ["", f"job {told.job} ({told.kind}), {told.state}; purpose: {told.purpose}"]
        who = f"submitted by {told.submitter}, computed by {', '.join(told.participants)}"
        lines += [f"{who}; correlated randomness: {told.randomness}"]
        lines += [*told.timeline, "who learns what, as disclosed and consented to:", *told.learned, ""]
    elif report.ok:
        states = Counter(summary.state for summary in report.summaries)
        lines += ["", f"{len(report.summaries)} jobs: {', '.join(f'{n} {state}' for state, n in states.items())}", ""]
    lines += ["bundle verified" if report.ok else f"bundle REFUSED: {report.reason}"]
    for line in lines:  # nothing from a bundle reaches the terminal as a control sequence
        print("".join(c if c.isprintable() else "?" for c in line))


def explained(name: str) -> str:
    """The name under which EXPLAIN has a check."""
    return re.sub("^(entry|result) [0-9]+$", r"\1 N", re.sub("^job [0-9a-f]{32}(: |$)", "", name) or "job")


def pin(text: str) -> tuple[str, str]:
    """SILO=FINGERPRINT."""
    silo, _, fingerprint = text.partition("=")
    if not SILO.fullmatch(silo) or not HEX.fullmatch(fingerprint.lower()):
        raise argparse.ArgumentTypeError("expected SILO=FINGERPRINT, the fingerprint being 64 hex digits")
    return silo, fingerprint.lower()


def witness(text: str) -> str:
    """A verifier key."""
    try:
        parse_vkey(text, WITNESS, "--witness")
    except Defect as defect:
        raise argparse.ArgumentTypeError(str(defect)) from None
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 if the bundle verified, 1 if it was refused, 2 if the command line is wrong."""
    parser = argparse.ArgumentParser(prog="verify", description="Verify an audit bundle offline.")
    add = parser.add_argument
    add("path", type=Path, metavar="BUNDLE")
    add("--log-key", metavar="VKEY", help="the log's verifier key, from a source you trust")
    add("--pin", type=pin, action="append", default=[], dest="pins", metavar="SILO=FINGERPRINT", help="a silo's key")
    add("--result", type=Path, action="append", default=[], dest="results", metavar="FILE", help="a released result")
    add("--since", type=Path, metavar="CHECKPOINT", help="a checkpoint of this log that you kept")
    add("--witness", type=witness, action="append", default=[], dest="witnesses", metavar="VKEY", help="a witness")
    add("--quorum", type=int, default=0, metavar="N", help="how many witnesses must have cosigned")
    add("--allow-unfinished", action="store_true", help="accept a job that has not ended")
    add("--every-signature", action="store_true", help="check also those that a later one covers")
    add("--explain", action="store_true", help="say of each check what it proves")
    add("--json", action="store_true", help="print the whole report as JSON")
    given = vars(parser.parse_args(arguments))
    as_json, explain = given.pop("json"), given.pop("explain")
    report = verify_bundle(**given | {"pins": dict(given["pins"])}, stories=False)
    if as_json:
        parts = {name: [one._asdict() for one in getattr(report, name)] for name in ("checks", "summaries")}
        for check in parts["checks"] if explain else ():
            check["proves"] = EXPLAIN.get(explained(check["name"]), "")
        spread = 1 if len(report.summaries) < 2 else None  # for people to read; for many jobs it would take seconds
        print(json.dumps({"ok": report.ok, "reason": report.reason, **parts}, indent=spread))
    else:
        show(report, explain)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
