"""Verify an audit bundle: one job's signed entries, proven to be in the log, telling a story that keeps every rule.

    python verify.py BUNDLE.zip [--log-key VKEY] [--pin SILO=FINGERPRINT] [--result FILE] [--since CHECKPOINT]

One file, so that an auditor can read all of it and run it anywhere: standard library and `cryptography`, no network.
The bundle is hostile input: a defect becomes a failed check that names it, never a traceback.

Proves: who signed what about this job, in which order the log recorded it, and that consents, starts and releases fit
the spec and the disclosure.  Does not prove that inputs were true; nor, without --log-key and --pin from elsewhere,
whose the keys are and that no newer ones were left out.

Source: RFC 6962 §2.1; RFC 9162 §2.1.3.2, §2.1.4.2; C2SP signed-note, tlog-checkpoint; DSSE v1.0.2; in-toto Statement
v1; RFC 8785 (here without fractions); RFC 8032.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import io
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

T = TypeVar("T")
MAX_BUNDLE_BYTES, MAX_FILES, MAX_FILE_BYTES, MAX_RESULT_BYTES = 16 << 20, 512, 65_535, 1 << 28
FILE = re.compile(r"manifest\.json|checkpoint|log\.vkey|earlier|consistency\.json|(entries|proofs)/[0-9]{8,15}\.json")
SILO, HEX, HEX_OR_NONE = (re.compile(r) for r in ("[a-z][a-z0-9-]{1,31}", "[0-9a-f]{64}", "([0-9a-f]{64})?"))
TIME = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")  # one spelling: text order is time order
JOB = re.compile("[0-9a-f]{32}")
PAYLOAD_TYPE = "application/vnd.in-toto+json"
ENVELOPE = {"payload": str, "payloadType": PAYLOAD_TYPE, "signatures": [{"keyid": SILO, "sig": str}]}
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": re.compile("job:([0-9a-f]{32})?"), "digest": {"sha256": HEX_OR_NONE}}],
    "predicateType": re.compile(r"https://accord\.dev/audit/v1/[a-z]+"),
    "predicate": {"body": dict, "prev": HEX_OR_NONE, "seq": int, "silo": SILO, "time": TIME},
}
CONSENT = {"disclosure_digest": HEX, "dataset_commitment": HEX_OR_NONE, "link_certificate": str, "endpoint": str}
COST = {"rounds": int, "bytes_sent": dict, "seconds": dict, "peak_mib": int, "randomness": dict}
EVENTS: dict[str, tuple[str, dict[str, Any]]] = {  # who may say it, and exactly what it holds
    "enrolled": ("the silo", {"identity_key": str}),
    "proposed": ("the submitter", {"spec": dict}),
    "disclosed": ("the submitter", {"disclosure": dict}),
    "consented": ("a participant", {**CONSENT, "link_token": JOB, "valid_until": TIME}),
    "refused": ("a participant", {"reason": str, "rule": str}),
    "started": ("a participant", {"links": dict, "identities": dict}),
    "released": ("a data owner", {"recipient": SILO, "result_digest": HEX, "items": [str]}),
    "finished": ("a participant", {"cost": COST}),
    "failed": ("a participant", {"step": str, "reason": str, "party": str}),
    "cancelled": ("the submitter", {"reason": str}),
    "expired": ("the coordinator", {"reason": str}),
}
PHASES = {  # in this state a job takes: what ends it, and what all concerned must say before it is in the next state
    "disclosed": (("refused", "cancelled", "expired"), ("consented",), "ready"),
    "ready": (("failed", "cancelled", "expired"), ("started",), "running"),
    "running": (("failed", "cancelled", "expired"), ("released", "finished"), "done"),
}
SPEC = {
    "job": JOB,
    "kind": str,
    "purpose": str,
    "valid_until": TIME,
    "parties": [dict],
    "randomness": (re.compile("dealer|verified-dealer|ot"), None),
    "dealer": (SILO, None),
    "helper": (SILO, None),
    "release": [str],
}
RESULT = {
    "v": int,
    "job": JOB,
    "silo": SILO,
    "spec_digest": HEX,
    "salt": re.compile("([0-9a-f]{2}){16,}"),
    "result": dict,
}


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


def canonical(value: Any) -> bytes:
    """RFC 8785 JSON.  Raises: Defect on fractions and large integers, which travel as strings."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda k: k.encode("utf-16-be"))
        return b"{" + b",".join(canonical(k) + b":" + canonical(value[k]) for k in keys) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    exact = value is None or isinstance(value, str | bool) or (type(value) is int and abs(value) < 2**53)
    expect(exact, "a number that is not a small integer must be written as a string")
    return json.dumps(value, ensure_ascii=False).encode()


def read_json(raw: bytes, shape: Any, where: str) -> Any:
    """Parse canonical JSON of a shape: no repeated key, no space, no second spelling, no surplus field."""
    with suppress(ValueError, RecursionError, Defect):
        value = json.loads(raw)
        if fits(value, shape) and canonical(value) == raw:
            return value
    raise Defect(f"{where}: it is not what the format has here")


def fits(value: Any, shape: Any) -> bool:
    """A shape is a type, a constant, a pattern, a choice (a tuple), a list of one shape, or an object of exactly these."""
    if isinstance(shape, tuple):
        return any(fits(value, one) for one in shape)
    if isinstance(shape, dict):
        return isinstance(value, dict) and value.keys() == shape.keys() and all(fits(value[k], shape[k]) for k in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if isinstance(shape, re.Pattern):
        return isinstance(value, str) and shape.fullmatch(value) is not None
    return type(value) is shape or (type(value) is type(shape) and value == shape)


def unbase64(text: str, where: object) -> bytes:
    """Padded standard base64."""
    with suppress(ValueError):
        raw = base64.b64decode(text, validate=True)
        if base64.b64encode(raw).decode() == text:
            return raw
    raise Defect(f"{where}: it holds damaged base64")


# --- Merkle tree: RFC 6962 hashing, RFC 9162 verification ---


def leaf_hash(data: bytes) -> bytes:
    """The prefix keeps a leaf from being taken for a node."""
    return hashlib.sha256(b"\0" + data).digest()


def climb(fn: int, sn: int, start: bytes, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The loop that §2.1.3.2 (4) and §2.1.4.2 (6) share; None unless the path ends exactly at the root."""
    fr = sr = start
    for p in path:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            fr, sr = (hashlib.sha256(b"\1" + p + r).digest() for r in (fr, sr))
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = hashlib.sha256(b"\1" + sr + p).digest()
        fn, sn = fn >> 1, sn >> 1
    return (fr, sr) if sn == 0 else None


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Does the tree of `size` leaves under `root` hold this leaf hash at `index`?"""
    top = climb(index, size - 1, leaf, proof) if 0 <= index < size and len(leaf) == 32 else None
    return top is not None and top[1] == root


def verify_consistency(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Is the tree of `first` leaves a prefix of the tree of `second`?"""
    if first == second:
        return first > 0 and not proof and first_root == second_root
    if not 0 < first < second or not proof:
        return False
    path = [first_root, *proof] if first & (first - 1) == 0 else proof
    shift = (first & -first).bit_length() - 1  # the trailing ones of first - 1
    return climb((first - 1) >> shift, (second - 1) >> shift, path[0], path[1:]) == (first_root, second_root)


# --- the log's key and signed notes (C2SP) ---


class LogKey(NamedTuple):
    """A verifier key, `name+hash+base64(0x01 || Ed25519 key)`."""

    name: str
    key_id: bytes
    public: bytes


class Head(NamedTuple):
    """What a checkpoint commits the log to."""

    size: int
    root: bytes


def parse_vkey(text: str) -> LogKey:
    """Raises: Defect."""
    name, key_hash, key = [*text.split("+", 2), "", ""][:3]
    raw = unbase64(key, "log.vkey")
    key_id = hashlib.sha256(name.encode(errors="replace") + b"\n" + raw).digest()[:4]
    well_formed = re.fullmatch(r"\S+", name) and len(raw) == 33 and raw[0] == 1 and key_id.hex() == key_hash
    expect(well_formed, "log.vkey: it is not an Ed25519 verifier key")
    return LogKey(name, key_id, raw[1:])


def signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    """RFC 8032."""
    with suppress(InvalidSignature, ValueError):
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        return True
    return False


def open_note(note: bytes, key: LogKey, where: str) -> str:
    """The text of a signed note, once the key's signature on it verified; other signers' lines are ignored."""
    text = note.decode(errors="replace")  # a replaced byte can only make a signature wrong
    body, gap, lines = text.rpartition("\n\n")
    expect(
        gap and lines.endswith("\n") and not re.search(r"[\0-\x09\x0b-\x1f]", text), f"{where}: it is not a signed note"
    )
    signed = False
    for line in lines[:-1].split("\n"):
        dash, name, blob = [*line.split(" "), "", ""][:3]
        raw = unbase64(blob, where)
        expect(dash == "—" and line.count(" ") == 2 and len(raw) > 4, f"{where}: it has a line that is no signature")
        if (name, raw[:4]) == (key.name, key.key_id):
            signed = signed_by(key.public, raw[4:], f"{body}\n".encode())
            expect(signed, f"{where}: it is not what the log {key.name} signed")
    expect(signed, f"{where}: the log {key.name} did not sign it with this key")
    return f"{body}\n"


def open_checkpoint(note: bytes, key: LogKey, where: str) -> Head:
    """Raises: Defect."""
    origin, size, root = [*open_note(note, key, where).split("\n"), "", ""][:3]
    well_formed = origin == key.name and re.fullmatch("0|[1-9][0-9]{0,14}", size) and len(unbase64(root, where)) == 32
    expect(well_formed, f"{where}: it is not a checkpoint of the log {key.name}")
    return Head(int(size), unbase64(root, where))


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


def read_bundle(path: Path) -> dict[str, bytes]:
    """Every file of the zip: known names only, each once, each within bounds whatever the directory claims."""
    data, files = read_file(path, MAX_BUNDLE_BYTES), dict[str, bytes]()
    # Before anything walks the directory: the plain end record stands last, and the directory it announces is small.
    plain = data[-22:-18] == b"PK\5\6" and data[-2:] == b"\0\0" and data[-42:-38] != b"PK\6\7"
    expect(plain and int.from_bytes(data[-10:-6], "little") < MAX_FILES * 256, f"{path.name} is not a whole bundle")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                name = info.orig_filename
                expect(FILE.fullmatch(name), f"the bundle has a file {name!r} that the format does not know")
                expect(name not in files, f"{name}: the bundle has it twice")
                known = not info.flag_bits & 1 and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                expect(known and len(files) < MAX_FILES, f"{name}: it is encrypted, oddly packed or one too many")
                with archive.open(info) as file:
                    files[name] = file.read(MAX_FILE_BYTES + 1)
                expect(len(files[name]) <= MAX_FILE_BYTES, f"{name}: it has more than {MAX_FILE_BYTES} bytes")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as exc:
        raise Defect(f"{path.name} is not a whole zip file: {exc}") from None
    numbers = [int(name[8:-5]) for name in files if name.startswith("entries/")]
    wanted = {
        "manifest.json",
        "checkpoint",
        "log.vkey",
        *(("earlier", "consistency.json") if "earlier" in files else ()),
    }
    wanted |= {f"{folder}/{n:08d}.json" for n in numbers for folder in ("entries", "proofs")}
    for name in sorted(wanted ^ files.keys()):
        raise Defect(f"{name} is missing" if name in wanted else f"{name} belongs to nothing else in the bundle")
    return files


def read_key(files: Mapping[str, bytes], given: str | None) -> LogKey:
    """The bundle's log key, which must be the given one if one is given."""
    text = files["log.vkey"].decode(errors="replace")
    key = parse_vkey(text.removesuffix("\n"))
    expect(text.endswith("\n"), "log.vkey: it does not end where a key ends")
    expect(
        given is None or parse_vkey(given.strip()) == key, f"log.vkey: this key of {key.name} is not the one you gave"
    )
    return key


def read_proof(files: Mapping[str, bytes], name: str, **about: int) -> list[bytes]:
    """The hashes of a proof file, which must be about exactly this."""
    return [unbase64(h, name) for h in read_json(files[name], {**about, "hashes": [str]}, name)["hashes"]]


def check_growth(files: Mapping[str, bytes], key: LogKey, head: Head, since: Path | None) -> str:
    """An earlier checkpoint in the bundle is a prefix of the log; the auditor's own is one that the bundle shows."""
    shown = {head.size: head.root}
    if "earlier" in files:
        first = open_checkpoint(files["earlier"], key, "earlier")
        proof = read_proof(files, "consistency.json", first=first.size, second=head.size)
        kept = verify_consistency(*first, *head, proof)
        expect(kept, f"consistency.json: it does not show that the log kept its first {first.size} entries")
        shown[first.size] = first.root
    if since is not None:
        size, root = open_checkpoint(read_file(since, MAX_FILE_BYTES), key, since.name)
        expect(size in shown, f"the bundle does not connect to {since.name}, your checkpoint of {size} entries")
        expect(shown[size] == root, f"the bundle is of another history than {since.name}, your checkpoint")
    return (
        ", ".join(f"the first {n} entries unchanged" for n in shown if n != head.size) or "nothing earlier to compare"
    )


# --- entries: DSSE envelopes around in-toto statements, in the log ---


@dataclass(frozen=True)
class Entry:
    """One statement of one silo.  signer: fingerprint of the key it is signed with, once that is checked."""

    index: int
    event: str
    job: str
    spec_digest: str
    payload: bytes
    signature: bytes
    silo: str
    seq: int
    prev: str
    time: str
    body: dict[str, Any]
    signer: str = ""

    def __str__(self) -> str:
        return f"entry {self.index}, '{self.event}' by {self.silo}"


def open_entry(index: int, raw: bytes) -> Entry:
    """Parse an envelope strictly: one signer, the one its payload names, and nothing extra anywhere."""
    where = f"entry {index}"
    envelope = read_json(raw, ENVELOPE, where)
    payload = unbase64(envelope["payload"], where)
    statement = read_json(payload, STATEMENT, where)
    expect(
        len(envelope["signatures"]) == len(statement["subject"]) == 1, f"{where}: it has more than one signer or job"
    )
    signer, subject, said = envelope["signatures"][0], statement["subject"][0], statement["predicate"]
    event = statement["predicateType"].rpartition("/")[2]
    known = event in EVENTS and fits(said["body"], EVENTS[event][1]) and said["silo"] == signer["keyid"]
    expect(known, f"{where}: it is no statement that this format knows, or names another signer than its envelope")
    names = (subject["name"].removeprefix("job:"), subject["digest"]["sha256"])
    return Entry(index, event, *names, payload, unbase64(signer["sig"], where), **said)


def signer_key(entry: Entry, enrolled: Sequence[Entry], log_key: LogKey) -> bytes:
    """The key that must have signed: the one its silo last enrolled with up to this entry, or the log's own."""
    if entry.silo == "coordinator":
        return log_key.public
    known = [e.body["identity_key"] for e in enrolled if e.silo == entry.silo and e.index <= entry.index]
    expect(known, f"{entry}: the bundle has no earlier 'enrolled' entry of {entry.silo}")
    return unbase64(known[-1], entry)


def check_entry(files: Mapping[str, bytes], index: int, head: Head, key_of: Callable[[Entry], bytes]) -> Entry:
    """One entry: in the log at its index, and rightly signed."""
    name, where, problem, entry = f"{index:08d}.json", f"entry {index}", "", None
    raw = files[f"entries/{name}"]
    try:
        entry = open_entry(index, raw)
        where, key = str(entry), key_of(entry)
        pae = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(entry.payload), entry.payload)
        expect(
            signed_by(key, entry.signature, pae), f"{where}: it is not signed with the key that {entry.silo} enrolled"
        )
        entry = dataclasses.replace(entry, signer=sha256(key))
    except Defect as defect:
        problem = str(defect)
    proof = read_proof(files, f"proofs/{name}", index=index, size=head.size)
    why = "its bytes are not what the log recorded" if problem else f"proofs/{name} does not show it in the log"
    expect(verify_inclusion(leaf_hash(raw), index, head.size, proof, head.root), f"{where}: {why}")
    if entry is None or problem:
        raise Defect(problem)
    return entry


# --- the story: what must hold of entries that are rightly signed and logged ---


@dataclass(frozen=True)
class Story:
    """One job as its entries tell it.  participants: the data owners in spec order, then the dealer or the helper, if any."""

    entries: Sequence[Entry]
    spec: dict[str, Any]
    disclosure: dict[str, Any]
    owners: list[str]
    participants: list[str]

    def said(self, event: str) -> dict[str, Entry]:
        """Who said it."""
        return {e.silo: e for e in self.entries if e.event == event}


def tell(job: str, logged: Sequence[Entry]) -> Story:
    """One proposal and one disclosure by one submitter open the story; everything after is about their spec."""
    entries = [e for e in logged if e.event != "enrolled"]
    for place, event in enumerate(("proposed", "disclosed")):
        places = [i for i, e in enumerate(entries) if e.event == event]
        where = entries[places[-1]] if places else f"the bundle has no '{event}' entry"
        expect(places == [place], f"{where}: a job opens with one 'proposed' and then one 'disclosed' entry")
    proposed, disclosed = entries[:2]
    expect(disclosed.silo == proposed.silo, f"{disclosed}: the job was proposed by {proposed.silo}")
    spec, disclosure = {"helper": None, **proposed.body["spec"]}, disclosed.body["disclosure"]  # older specs lack it
    expect(
        fits({k: spec[k] for k in SPEC.keys() & spec.keys()}, SPEC),
        f"{proposed}: its spec lacks something that every spec has",
    )
    owners, digest = [party.get("silo") for party in spec["parties"]], sha256(canonical(proposed.body["spec"]))
    participants = [*owners, *(spec[role] for role in ("dealer", "helper") if spec[role] is not None)]
    dealt = (spec["randomness"] in ("ot", None)) == (spec["dealer"] is None)
    expect(dealt, f"{proposed}: its spec names a dealer where there is none, or none where there is one")
    expect(spec["dealer"] is None or spec["helper"] is None, f"{proposed}: its spec names a dealer and a helper")
    distinct = owners and fits(owners, [SILO]) and len(set(participants)) == len(participants)
    expect(distinct and "coordinator" not in participants, f"{proposed}: its spec names no distinct participants")
    expect(spec["job"] == job, f"{proposed}: its spec is of job {spec['job']}, the manifest of {job}")
    for entry in logged:
        of = ("", "") if entry.event == "enrolled" else (job, digest)
        expect(entry.job == of[0], f"{entry}: it is about another job")
        expect(entry.spec_digest == of[1], f"{entry}: it is about another spec than the one proposed")
        part = entry.silo in (*participants, proposed.silo) or entry.event == "expired"
        expect(part, f"{entry}: {entry.silo} has no part in this job")
    expect(disclosure.get("spec_digest") == digest, f"{disclosed}: its disclosure is of another spec")
    return Story(entries, spec, disclosure, owners, participants)


def check_speakers(story: Story) -> str:
    """Nobody says what is another's to say."""
    roles = {"the submitter": [story.entries[0].silo], "a participant": story.participants}
    roles |= {"a data owner": story.owners, "the coordinator": ["coordinator"]}
    for entry in story.entries:
        role = EVENTS[entry.event][0]
        expect(entry.silo in roles[role], f"{entry}: this is for {role} of the job to say")
    return f"all of {', '.join(story.said('proposed') | dict.fromkeys(story.participants))}"


def check_chains(story: Story) -> str:
    """Each silo's own numbering and hashing: nothing it said before something else is missing, added or moved."""
    heads: dict[str, tuple[int, str]] = {}
    for entry in story.entries:
        seq, prev = heads.get(entry.silo, (0, ""))
        expect(entry.seq == seq, f"{entry}: it is number {entry.seq} of what {entry.silo} said, expected number {seq}")
        expect(entry.prev == prev, f"{entry}: it follows another statement of {entry.silo} than the one in the bundle")
        heads[entry.silo] = (seq + 1, sha256(entry.payload))
    return f"{len(heads)} without gaps"


def final_state(story: Story) -> str:
    """Walk the job's life in log order: every step waits for all of the step before it, and nothing follows the end."""
    state, said = "disclosed", set[tuple[str, str]]()
    for entry in story.entries[2:]:
        expect(state in PHASES, f"{entry}: it comes after the end of the job, which was '{state}'")
        ends, steps, after = PHASES[state]
        wanted = {(p, step) for step in steps for p in (story.owners if step == "released" else story.participants)}
        expect((entry.silo, entry.event) not in said, f"{entry}: {entry.silo} had said it before")
        lacking = " and ".join(f"{p} had not '{step}'" for p, step in sorted(wanted - said))
        expect(entry.event in ends + steps, f"{entry}: it is out of order, as {lacking} yet")
        said.add((entry.silo, entry.event))
        if entry.event == "expired":
            until = story.spec["valid_until"]
            expect(entry.time >= until, f"{entry}: it was said at {entry.time}, the job was valid until {until}")
        state = entry.event if entry.event in ends else after if wanted <= said else state
    return state


def check_end(state: str, allow_unfinished: bool) -> str:
    """A job without its end is half a story: the failure may be what was left out."""
    known = state not in PHASES or allow_unfinished
    expect(known, f"the bundle does not show how the job ended: it stops when the job was '{state}'")
    return state


def check_consents(story: Story) -> str:
    """Every consent is to this disclosure, holds when it is used, and binds a data set (an owner's) or none."""
    disclosed, consents = sha256(canonical(story.disclosure)), story.said("consented")
    for silo, entry in consents.items():
        same = entry.body["disclosure_digest"] == disclosed
        expect(same, f"{entry}: it is a consent to another disclosure than this job's")
        bound = bool(entry.body["dataset_commitment"]) == (silo in story.owners)
        expect(bound, f"{entry}: a data owner commits to its data set, and nobody else to one")
        limit = min(story.spec["valid_until"], entry.body["valid_until"])
        for use in (entry, *story.said("started").values()):
            expect(use.time < limit, f"{use}: at {use.time} the consent of {silo}, valid until {limit}, had expired")
    return ", ".join(consents) or "none was given"


def check_starts(story: Story) -> str:
    """Everybody ran with the link certificates and identity keys of the consents: nobody was shown others."""
    consents, starts = story.said("consented"), story.said("started")
    links = {s: sha256(unbase64(e.body["link_certificate"], e)) for s, e in consents.items()}
    keys = {s: e.signer for s, e in consents.items()}
    for entry in starts.values():
        for part, agreed, what in (("links", links, "link certificate"), ("identities", keys, "identity key")):
            for silo in sorted(entry.body[part].keys() | agreed.keys()):
                same = entry.body[part].get(silo) == agreed.get(silo)
                expect(same, f"{entry}: its {what} of {silo} is not the one of {silo}'s consent")
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


def check_pins(story: Story, pins: Mapping[str, str]) -> str:
    """Whoever is pinned signed with the pinned key, everywhere."""
    for silo in pins:
        expect(
            any(e.silo == silo for e in story.entries), f"the bundle has nothing signed by {silo}, whose key you pinned"
        )
    for entry in story.entries:
        pinned = entry.signer == pins.get(entry.silo, entry.signer)
        expect(pinned, f"{entry}: it is signed with the key {entry.signer}, not with the one you pinned")
    keys = {e.silo: e.signer for e in story.entries}
    return "; ".join(f"{s} {k} ({'as pinned' if s in pins else 'not pinned'})" for s, k in sorted(keys.items()))


def check_result(story: Story, path: Path) -> str:
    """A result file is the one whose salted digest an owner logged for that recipient."""
    digest, file = "", {}
    with suppress(ValueError, RecursionError):
        file = json.loads(read_file(path, MAX_RESULT_BYTES))
        digest = sha256(bytes.fromhex(file["salt"]) + canonical(file["result"])) if fits(file, RESULT) else ""
    expect(digest, f"{path.name}: it is not a result file")
    same = (file["job"], file["spec_digest"]) == (story.spec["job"], story.entries[0].spec_digest)
    expect(same, f"{path.name}: it is the result of another job")
    for entry in story.said("released").values():
        if (entry.body["recipient"], entry.body["result_digest"]) == (file["silo"], digest):
            return f"{path.name} is what {entry.silo} released to {file['silo']} in entry {entry.index}"
    raise Defect(f"{path.name}: no release of this job to {file['silo']} has its digest")


# --- the report ---


@dataclass(frozen=True)
class Check:
    """One thing that was checked.  detail: what was found, or the sentence that says what is wrong and where."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Summary:
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
    """All checks in order.  summary: None if the entries tell no story."""

    checks: list[Check] = field(default_factory=list)
    summary: Summary | None = None

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks) and all(c.ok for c in self.checks)

    @property
    def reason(self) -> str:
        """The first sentence that says why not."""
        return next((c.detail for c in self.checks if not c.ok), "")

    def run(self, name: str, check: Callable[[], T], detail: Callable[[T], str] = str) -> T:
        """Note what a check finds.  Raises: Defect if it fails, so that nothing which needs it is tried."""
        try:
            value = check()
        except Defect as defect:
            self.checks.append(Check(name, False, str(defect)))
            raise
        self.checks.append(Check(name, True, detail(value)))
        return value


def check_entries(report: Report, files: Mapping[str, bytes], head: Head, key: LogKey) -> list[Entry]:
    """Every entry, in log order.  Raises: Defect once all are checked, if one is not what its silo signed and logged."""
    entries: list[Entry] = []
    enrolled: list[Entry] = []
    indices = sorted(int(name[8:-5]) for name in files if name.startswith("entries/"))
    for index in indices:
        with suppress(Defect):  # an entry that cannot be opened is reported below
            entry = open_entry(index, files[f"entries/{index:08d}.json"])
            enrolled += [entry] if entry.event == "enrolled" else []
    key_of = partial(signer_key, enrolled=enrolled, log_key=key)
    for index in indices:
        with suppress(Defect):
            check = partial(check_entry, files, index, head, key_of)
            entries.append(report.run(f"entry {index}", check, lambda e: f"'{e.event}' by {e.silo} at {e.time}"))
    expect(len(entries) == len(indices), report.reason)
    return entries


def rules_of(
    story: Story, pins: Mapping[str, str], results: Sequence[str | Path], end: Callable[[], str]
) -> list[tuple[str, Callable[[], str]]]:
    """The checks that do not build on each other, by name."""
    return [
        ("speakers", lambda: check_speakers(story)),
        ("chains", lambda: check_chains(story)),
        ("consents", lambda: check_consents(story)),
        ("starts", lambda: check_starts(story)),
        ("releases", lambda: check_releases(story)),
        ("costs", lambda: check_costs(story)),
        ("identity keys", lambda: check_pins(story, pins)),
        *((f"result {n}", partial(check_result, story, Path(file))) for n, file in enumerate(results, 1)),
        ("end", end),
    ]


def summarise(story: Story, state: str) -> Summary:
    """The story in a few lines."""
    shape, spec, lines = {"silo": str, "learns": str}, story.spec, story.disclosure.get("lines")
    told = (
        [{k: line.get(k) for k in shape} for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
    )
    learned = [f"{line['silo']} learns {line['learns']}" for line in told if fits(line, shape)]
    timeline = [f"{e.time}  {e.silo}: {e.event}" for e in story.entries]
    who = (story.entries[0].silo, story.participants)
    return Summary(
        spec["job"], spec["kind"], spec["purpose"], spec["randomness"] or "none", *who, state, timeline, learned
    )


def verify_bundle(
    path: str | Path,
    log_key: str | None = None,
    pins: Mapping[str, str] | None = None,
    results: Sequence[str | Path] = (),
    since: str | Path | None = None,
    allow_unfinished: bool = False,
) -> Report:
    """Check everything about a bundle.  Never raises because of what is in a file: a defect is a failed check.

    log_key: the log's verifier key, from elsewhere.  pins: silo -> identity fingerprint, from elsewhere.
    results: result files to compare with the releases.  since: file with a checkpoint that the log must lead on from.
    allow_unfinished: accept a job that is still under way, or whose end the bundle leaves out.
    """
    report = Report()
    whose = "the key you gave" if log_key else "taken from the bundle itself: compare it, or give --log-key"
    with suppress(Defect):  # it stands in the report, and nothing below it could be checked
        files = report.run("zip file", lambda: read_bundle(Path(path)), lambda f: f"{len(f)} files")
        key = report.run("log key", lambda: read_key(files, log_key), lambda k: f"{k.name}, {whose}")
        open_head = partial(open_checkpoint, files["checkpoint"], key, "checkpoint")
        head = report.run("checkpoint", open_head, lambda h: f"{h.size} entries, signed by the log key")
        shape = {"v": 1, "job": JOB, "origin": key.name, "size": head.size}
        job = report.run("manifest", lambda: str(read_json(files["manifest.json"], shape, "manifest.json")["job"]))
        with suppress(Defect):
            report.run("history", lambda: check_growth(files, key, head, Path(since) if since else None))
        logged = check_entries(report, files, head, key)
        story = report.run("spec", lambda: tell(job, logged), lambda s: f"sha256 {s.entries[0].spec_digest}")
        state = "unclear"
        with suppress(Defect):
            state = report.run(
                "course", lambda: final_state(story), lambda after: f"every step in order, up to '{after}'"
            )
        report.summary = summarise(story, state)
        for name, rule in rules_of(story, pins or {}, results, partial(check_end, state, allow_unfinished)):
            with suppress(Defect):
                report.run(name, rule)
    return report


# --- the command line ---


def show(report: Report) -> None:
    """One line per check, then the story if it holds, then the verdict."""
    lines = [f"{'ok  ' if c.ok else 'FAIL'}  {c.name}: {c.detail}" for c in report.checks]
    if report.ok and (told := report.summary):
        lines += ["", f"job {told.job} ({told.kind}), {told.state}; purpose: {told.purpose}"]
        who = f"submitted by {told.submitter}, computed by {', '.join(told.participants)}"
        lines += [f"{who}; correlated randomness: {told.randomness}"]
        lines += [*told.timeline, "who learns what, as disclosed and consented to:", *told.learned, ""]
    lines += ["bundle verified" if report.ok else f"bundle REFUSED: {report.reason}"]
    for line in lines:  # nothing from a bundle reaches the terminal as a control sequence
        print("".join(c if c.isprintable() else "?" for c in line))


def pin(text: str) -> tuple[str, str]:
    """SILO=FINGERPRINT."""
    silo, _, fingerprint = text.partition("=")
    if not SILO.fullmatch(silo) or not HEX.fullmatch(fingerprint.lower()):
        raise argparse.ArgumentTypeError("expected SILO=FINGERPRINT, the fingerprint being 64 hex digits")
    return silo, fingerprint.lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 if the bundle verified, 1 if it was refused, 2 if the command line is wrong."""
    parser = argparse.ArgumentParser(prog="verify", description="Verify an audit bundle offline.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--log-key", metavar="VKEY", help="the log's verifier key, from a source you trust")
    parser.add_argument("--pin", type=pin, action="append", default=[], metavar="SILO=FINGERPRINT", help="a silo's key")
    parser.add_argument("--result", type=Path, action="append", default=[], metavar="FILE", help="a released result")
    parser.add_argument("--since", type=Path, metavar="CHECKPOINT", help="a checkpoint of this log that you kept")
    parser.add_argument("--allow-unfinished", action="store_true", help="accept a job that has not ended")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    given = parser.parse_args(arguments)
    trust = (given.log_key, dict(given.pin), given.result, given.since)
    report = verify_bundle(given.bundle, *trust, allow_unfinished=given.allow_unfinished)
    if given.json:
        print(json.dumps({"ok": report.ok, "reason": report.reason, **dataclasses.asdict(report)}, indent=1))
    else:
        show(report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
