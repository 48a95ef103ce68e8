"""What silos send to the coordinator, and what the coordinator's log sends to silos: envelopes, notes, proofs, bodies."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator import api, ca, jobs
from coordinator.ca import create_authority
from coordinator.calls import parse_body
from coordinator.enrol import JoinToken, read_enrolment, split_credential, unbase64
from coordinator.envelope import PAYLOAD_TYPE, EnvelopeError, Statement, canonical, digest, parse
from coordinator.errors import Malformed, Refusal
from coordinator.log import Entry
from coordinator.merkle import ProofError, verify_consistency, verify_inclusion
from coordinator.note import Checkpoint, NoteError, VerifierKey, open_checkpoint, sign_note, verifier_key
from silos import verify
from silos.client import LogEntry
from silos.consent import own_chain
from silos.enrol import parse_token
from silos.errors import ConsentError, EnrolError, SpecError
from silos.review import read_view
from silos.times import from_text
from silos.tls import Request, check_certificate, make_request
from tests.fuzz.target import NotJson, Target, json_of, object_of, text

LOG_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "log.example/accord"
NOW = dt.datetime(2026, 3, 1, 10, 0, tzinfo=dt.UTC)


def b64(raw: bytes) -> str:
    """Text of bytes."""
    return base64.b64encode(raw).decode()


def envelope(data: bytes, _: Path) -> None:
    """An envelope, and that it has one encoding only."""
    sealed = Entry.parse(data).sealed
    assert sealed.statement.payload() == sealed.payload


def payload(data: bytes, _: Path) -> None:
    """The payload inside an envelope that is otherwise in order."""
    try:
        silo = json_of(data)["predicate"]["silo"]
    except (NotJson, KeyError, TypeError):
        silo = "lender"
    if not isinstance(silo, str):
        silo = "lender"
    signature = [{"keyid": silo.encode(errors="replace").decode(), "sig": b64(bytes(64))}]
    outer = {"payload": b64(data), "payloadType": PAYLOAD_TYPE, "signatures": signature}
    sealed = parse(canonical(outer))
    assert sealed.payload == data
    sealed.verify(bytes(32))


def story(data: bytes, _: Path) -> None:
    """A job's life: a list of statements, whoever says them."""
    job: jobs.Job | None = None
    said = object_of(data).get("statements")
    for one in said[:40] if isinstance(said, list) else ():
        if not isinstance(one, dict) or not all(isinstance(one.get(name), str) for name in ("event", "silo", "time")):
            continue
        body = one["body"] if isinstance(one.get("body"), dict) else {}
        place = str(one.get("job", "")), str(one.get("spec_digest", ""))
        statement = Statement(one["event"], *place, one["silo"], 0, "", one["time"], body)
        try:
            statement.payload()
        except ValueError:
            continue  # no envelope can hold it
        try:
            job = jobs.apply(job, jobs.Said(statement, f"{one['silo']:0>64.64}", NOW))
        except Refusal:
            continue


def vkey(data: bytes, _: Path) -> None:
    """A verifier key: our two readers agree on what is one."""
    given = text(data)
    try:
        ours: tuple[str, bytes] | None = (key := VerifierKey.parse(given)).name, key.key
    except NoteError:
        ours = None
    try:
        theirs: tuple[str, bytes] | None = (other := verify.parse_vkey(given)).name, other.public
    except verify.Defect:
        theirs = None
    assert ours is None or theirs is None or ours == theirs


def note(data: bytes, _: Path) -> None:
    """A signed checkpoint as it arrives."""
    open_checkpoint(text(data), verifier_key(ORIGIN, LOG_KEY))


def checkpoint(data: bytes, _: Path) -> None:
    """The text of a checkpoint, with a signature that holds: our two readers agree."""
    signed = sign_note(text(data), ORIGIN, LOG_KEY)
    key = verifier_key(ORIGIN, LOG_KEY)
    try:
        ours: tuple[int, bytes] | None = (found := open_checkpoint(signed, key)).size, found.root
    except NoteError:
        ours = None
    try:
        head = verify.open_checkpoint(signed.encode(), verify.parse_vkey(key.text()), "checkpoint")
        theirs: tuple[int, bytes] | None = head.size, head.root
    except verify.Defect:
        theirs = None
    assert ours is None or theirs is None or ours == theirs
    assert ours is None or Checkpoint.parse(open_checkpoint(signed, key).text()).root == ours[1]


def proof(data: bytes, _: Path) -> None:
    """A proof from anywhere: our verifier and RFC 9162, written out once more here, give the same verdict."""
    first, second = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")
    hashes = [data[i : i + 32] for i in range(16, len(data), 32)][:80]
    one, other = (hashes.pop() if hashes else b""), (hashes.pop() if hashes else b"")
    whole = all(len(value) == 32 for value in (one, other, *hashes))
    holds = whole and first < second and _climbed(first, second - 1, one, hashes) == (other, other)
    _same(lambda: verify_inclusion(one, first, second, hashes, other), holds)
    _same(
        lambda: verify_consistency(first, second, hashes, one, other),
        whole and _grown(first, second, hashes, one, other),
    )


def _climbed(fn: int, sn: int, start: bytes, path: list[bytes], old: bytes = b"") -> tuple[bytes, bytes] | None:
    """RFC 9162 §2.1.3.2 (4) and §2.1.4.2 (6); the roots of the old and the new tree, twice the new one without an old one."""
    fr, sr = old or start, start
    for p in path:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            fr, sr = (sha256(b"\1" + p + r).digest() for r in (fr, sr))
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = sha256(b"\1" + sr + p).digest()
        fn, sn = fn >> 1, sn >> 1
    return None if sn else (fr if old else sr, sr)


def _grown(first: int, second: int, path: list[bytes], one: bytes, other: bytes) -> bool:
    """RFC 9162 §2.1.4.2."""
    if first == second:
        return first > 0 and not path and one == other
    if not 0 < first < second or not path:
        return False
    path = [one, *path] if first & (first - 1) == 0 else path
    shift = (first & -first).bit_length() - 1
    return _climbed((first - 1) >> shift, (second - 1) >> shift, path[0], path[1:], path[0]) == (one, other)


def _same(check: Callable[[], None], holds: bool) -> None:
    try:
        check()
        ours = True
    except ProofError:
        ours = False
    assert ours == holds, "two readings of one proof differ"


def bodies(data: bytes, _: Path) -> None:
    """A request's body, for every route that has one, and what its handler takes apart."""
    for model in (api.SubmitRequest, api.EntryRequest, api.ProgressRequest, api.EnrolRequest):
        try:
            asked = parse_body(model, data)
        except Malformed:
            continue
        if isinstance(asked, api.EnrolRequest):
            split_credential(asked.token)
            read_enrolment(asked.csr, asked.identity_key, asked.proof, asked.entry)
        elif isinstance(asked, api.EntryRequest):
            Entry.parse(unbase64(asked.entry, "the entry"))
        elif isinstance(asked, api.SubmitRequest):
            for entry in asked.entries:
                Entry.parse(unbase64(entry, "the entry"))


def csr(data: bytes, _: Path) -> None:
    """A certificate request, PEM."""
    ca.parse_request(data)


def certificate(data: bytes, _: Path) -> None:
    """The certificate that a coordinator answers a request with."""
    asked, authority = _asked()
    check_certificate(text(data), asked, authority, "lender")


@cache
def _asked() -> tuple[Request, x509.Certificate]:
    return make_request("lender"), create_authority(ORIGIN, NOW).certificate


def token(data: bytes, _: Path) -> None:
    """A join token, as the coordinator and as a silo reads it."""
    try:
        JoinToken.parse(text(data))
    except Malformed:
        parse_token(text(data))


def view(data: bytes, _: Path) -> None:
    """The coordinator's account of a job and its roster, up to the chain of each silo."""
    document = object_of(data)
    seen = read_view(document, document.get("roster", []))
    for silo, key in seen.keys.items():
        own_chain(silo, seen.entries, key)


def log_entry(data: bytes, _: Path) -> None:
    """An entry as the log's reader gets it."""
    LogEntry.read(json_of(data))


def time_text(data: bytes, _: Path) -> None:
    """A time as statements write it."""
    from_text(text(data))


def statements_seed() -> bytes:
    """A short story."""
    spec = {"job": "0f" * 16, "kind": "k", "valid_until": "2026-03-01T12:00:00Z", "dealer": None,
            "parties": [{"silo": "lender"}, {"silo": "platform"}]}  # fmt: skip
    common = {"job": spec["job"], "spec_digest": digest(spec), "time": "2026-03-01T10:00:00Z"}
    disclosed = {"disclosure": {"v": 1, "spec_digest": digest(spec), "lines": []}}
    said = [("proposed", {"spec": spec}), ("disclosed", disclosed), ("cancelled", {"reason": "enough"})]
    return json.dumps(
        {"statements": [{"event": event, "silo": "lender", "body": body, **common} for event, body in said]}
    ).encode()


TARGETS = (
    Target("envelope", envelope, (Malformed,), "canonical"),
    Target("payload", payload, (EnvelopeError,), "canonical"),
    Target("job_story", story, (NotJson,), "json"),
    Target("vkey", vkey, (), "text", 512),
    Target("note", note, (NoteError,), "text", 4096),
    Target("checkpoint", checkpoint, (NoteError,), "text", 1024),
    Target("proof", proof, (), "bytes", 2048),
    Target("api_bodies", bodies, (Malformed,), "json"),
    Target("csr", csr, (Malformed,), "text", 4096),
    Target("certificate", certificate, (EnrolError,), "text", 4096),
    Target("join_token", token, (EnrolError,), "text", 512),
    Target("job_view", view, (NotJson, SpecError, ConsentError), "json"),
    Target("log_entry", log_entry, (NotJson, KeyError, TypeError, ValueError), "json", 2048),
    Target("time_text", time_text, (ValueError,), "text", 64),
)
