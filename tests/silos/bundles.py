"""An honest job, step by step, and the log and bundle it leaves; tests edit the steps before they are signed.

The tree and the note are written out here from RFC 6962 and C2SP signed-note, apart from both implementations under test.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.envelope import Statement, canonical, digest, fingerprint, parse, seal
from silos.verify import Report, verify_bundle
from tests.coordinator.world import RECORD

JOB, OTHER_JOB = "0f" * 16, "1e" * 16
ORIGIN = "log.example/accord"
OWNERS, DEALER = ("lender", "platform"), "dealer"
PARTICIPANTS = (*OWNERS, DEALER)
SALT = "5a" * 16
HEAD: dict[str, Any] = {
    "size": 0,
    "root": hashlib.sha256(b"").hexdigest(),
}  # replaced by the log's when the consent is recorded
RESULT = {"auc": "0.774", "counts": {"matched": 812}}


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def key_of(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha(f"key of {name}".encode()))


def public(name: str) -> bytes:
    return key_of(name).public_key().public_bytes_raw()


def pin_of(name: str) -> str:
    return fingerprint(public(name))


# RFC 6962 §2.1, as recursive definitions


def split(n: int) -> int:
    return 1 << (n - 1).bit_length() - 1


def tree(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return sha(b"\0" + leaves[0])
    k = split(len(leaves))
    return sha(b"\1" + tree(leaves[:k]) + tree(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), tree(leaves[k:])]
    return [*path(m - k, leaves[k:]), tree(leaves[:k])]


def cover(leaves: list[bytes], low: int, high: int, held: set[int], sizes: set[int]) -> list[bytes]:
    """The largest complete subtrees without a leaf that is held, or a size inside, from the top down."""
    count = high - low
    if count == 0 or (count == 1 and low in held):
        return []
    inside = any(low <= i < high for i in held) or any(low < n < high for n in sizes)
    if count & (count - 1) == 0 and not inside:
        return [tree(leaves[low:high])]
    middle = low + split(count)
    return [*cover(leaves, low, middle, held, sizes), *cover(leaves, middle, high, held, sizes)]


def growth(m: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [tree(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*growth(m, leaves[:k], whole), tree(leaves[k:])]
    return [*growth(m - k, leaves[k:], False), tree(leaves[:k])]


def vkey(name: str = "log", origin: str = ORIGIN) -> str:
    raw = b"\1" + public(name)
    return f"{origin}+{sha(origin.encode() + chr(10).encode() + raw)[:4].hex()}+{b64(raw)}"


def checkpoint(leaves: list[bytes], name: str = "log", origin: str = ORIGIN) -> str:
    text = f"{origin}\n{len(leaves)}\n{b64(tree(leaves))}\n"
    key_id = bytes.fromhex(vkey(name, origin).split("+")[1])
    return f"{text}\n— {origin} {b64(key_id + key_of(name).sign(text.encode()))}\n"


SPEC: dict[str, Any] = {
    "v": 1,
    "job": JOB,
    "kind": "vertical.glm",
    "purpose": "credit risk",
    "created": "2026-03-01T10:00:00Z",
    "valid_until": "2026-03-01T12:00:00Z",
    "parties": [{"silo": "lender", "label": "default"}, {"silo": "platform", "label": None}],
    "randomness": "dealer",
    "dealer": DEALER,
    "helper": None,
    "release": ["coefficients", "auc", "counts"],
}


def disclosure(spec: dict[str, Any]) -> dict[str, Any]:
    lines = [{"silo": "lender", "learns": "which of its customers matched", "precision": "exact"}]
    lines += [{"silo": "dealer", "learns": "the shapes of the data", "precision": "exact"}]
    return {"v": 1, "spec_digest": digest(spec), "lines": lines}


def certificate(silo: str) -> bytes:
    return f"link certificate of {silo}".encode()


@dataclass
class Step:
    """What a silo is about to say; None means: as an honest silo would."""

    silo: str
    event: str
    body: dict[str, Any]
    time: str
    key: str | None = None
    seq: int | None = None
    prev: str | None = None
    spec_digest: str | None = None
    job: str = JOB
    as_silo: str | None = None


@dataclass
class Play:
    """Steps that tests edit, then `Ledger.record`."""

    steps: list[Step] = field(default_factory=list)

    def add(self, silo: str, event: str, body: dict[str, Any], minute: int) -> None:
        self.steps.append(Step(silo, event, body, f"2026-03-01T10:{minute:02d}:00Z"))

    def get(self, silo: str, event: str) -> Step:
        return next(s for s in self.steps if (s.silo, s.event) == (silo, event))

    def drop(self, silo: str, event: str) -> None:
        self.steps.remove(self.get(silo, event))

    def cut(self, silo: str, event: str) -> None:
        """Drop everything from this step on."""
        del self.steps[self.steps.index(self.get(silo, event)) :]

    def repeat(self, silo: str, event: str) -> None:
        step = self.get(silo, event)
        self.steps.insert(self.steps.index(step) + 1, replace(step, body=dict(step.body)))

    def swap(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        a, b = self.steps.index(self.get(*one)), self.steps.index(self.get(*other))
        self.steps[a], self.steps[b] = self.steps[b], self.steps[a]


def consent(silo: str, disclosed: str) -> dict[str, Any]:
    return {
        "disclosure_digest": disclosed,
        "dataset_commitment": sha(f"rows of {silo}".encode()).hex() if silo in OWNERS else "",
        "link_certificate": b64(certificate(silo)),
        "endpoint": "",
        "link_token": "ab" * 16,
        "valid_until": "2026-03-01T11:00:00Z",
        "head": HEAD,
        "rule": "credit-model" if silo in OWNERS else "",
        "policy_digest": "cd" * 32,
        "approvals": [],
        "record": dict(RECORD) if silo in OWNERS else None,
        "budget": [],
    }


def result_digest(salt: str = SALT, result: Any = None) -> str:
    return hashlib.sha256(bytes.fromhex(salt) + canonical(RESULT if result is None else result)).hexdigest()


def honest(spec: dict[str, Any] = SPEC) -> Play:
    """A job that went well; the analyst is an enrolled silo without a part in the computation."""
    play, disclosed = Play(), disclosure(spec)
    play.add("analyst", "proposed", {"spec": spec}, 0)
    play.add("analyst", "disclosed", {"disclosure": disclosed}, 0)
    helpers = [spec.get("helper")] if isinstance(spec.get("helper"), str) else []
    participants = (*OWNERS, *([DEALER] if spec["dealer"] else []), *helpers)
    for minute, silo in enumerate(participants, 1):
        play.add(silo, "consented", consent(silo, digest(disclosed)), minute)
    links = {silo: sha(certificate(silo)).hex() for silo in participants}
    identities = {silo: pin_of(silo) for silo in participants}
    for silo in participants:
        play.add(silo, "started", {"links": dict(links), "identities": dict(identities)}, 5)
    for silo in OWNERS:
        body = {"recipient": silo, "result_digest": result_digest(), "items": ["coefficients", "auc"]}
        play.add(silo, "released", body, 7)
    for silo in participants:
        used = {"triple": {"correlations": 3, "words": 90}} if silo in OWNERS else {}
        cost = {"rounds": 40, "bytes_sent": {}, "seconds": {"train": "1.25"}, "peak_mib": 300, "randomness": used}
        play.add(silo, "finished", {"cost": cost}, 8)
    return play


@dataclass
class Ledger:
    """A log in memory, with enrolments of everybody and other people's entries in it."""

    entries: list[bytes] = field(default_factory=list)
    chains: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)

    def enrol(self, silo: str, key: str | None = None) -> None:
        body = {"identity_key": b64(public(key or silo))}
        self.append(Statement("enrolled", "", "", silo, 0, "", "2026-02-01T09:00:00Z", body), key or silo)

    def record(self, play: Play) -> Ledger:
        """Sign and log every step; about SPEC, or about the one that the first step proposes."""
        spec_digest = digest(play.steps[0].body.get("spec", SPEC))
        for number, step in enumerate(play.steps):
            silo = step.as_silo or step.silo
            if step.event == "consented" and step.body.get("head") is HEAD:
                root = tree(self.entries).hex()
                step.body = {**step.body, "head": {"size": len(self.entries), "root": root}}
            seq, prev = self.chains.get((silo, step.job), (0, ""))
            of = spec_digest if step.spec_digest is None else step.spec_digest
            place = (seq if step.seq is None else step.seq, prev if step.prev is None else step.prev)
            self.append(Statement(step.event, step.job, of, silo, *place, step.time, step.body), step.key or silo)
            if number % 4 == 1:
                self.noise()
        return self

    def noise(self) -> None:
        self.append(Statement("refused", OTHER_JOB, "", "outsider", 0, "", "2026-03-01T10:00:00Z", {}), "outsider")

    def append(self, statement: Statement, key: str) -> None:
        envelope = seal(statement, key_of(key))
        self.chains[statement.silo, statement.job] = (statement.seq + 1, parse(envelope).payload_digest)
        self.entries.append(envelope)

    def index(self, silo: str, event: str) -> int:
        """Where a silo's last such entry is."""
        said = [(s.silo, s.event) for s in (parse(e).statement for e in self.entries)]
        return len(said) - 1 - said[::-1].index((silo, event))

    def files(self, *jobs: str) -> dict[str, bytes]:
        """The members of an honest exporter's bundle of these jobs, of JOB if none is named."""
        jobs = jobs or (JOB,)
        said = [parse(e).statement for e in self.entries]
        speakers = {s.silo for s in said if s.job in jobs}
        roster = [i for i, s in enumerate(said) if not s.job and s.body.get("silo", s.silo) in speakers]
        held = {i for i, s in enumerate(said) if s.job in jobs} | set(roster)
        heads = {s.body["head"]["size"] for s in said if s.job in jobs and s.event == "consented"}
        return self.members({job: [i for i, s in enumerate(said) if s.job == job] for job in jobs}, roster, held, heads)

    def members(
        self, jobs: dict[str, list[int]], roster: list[int], held: set[int], sizes: set[int]
    ) -> dict[str, bytes]:
        """Any choice of entries as a bundle."""
        size = len(self.entries)
        manifest = {"v": 1, "origin": ORIGIN, "size": size, "sizes": sorted(n for n in sizes if n < size)}
        hashes = cover(self.entries, 0, size, held, sizes)
        return {
            "manifest.json": canonical(manifest),
            "checkpoint": checkpoint(self.entries).encode(),
            "log.vkey": f"{vkey()}\n".encode(),
            "roster": self.lines(roster),
            "hashes": b"".join(b64(h).encode() + b"\n" for h in hashes),
            **{f"jobs/{job}": self.lines(indices) for job, indices in jobs.items()},
        }

    def lines(self, indices: list[int]) -> bytes:
        return b"".join(b"%d %s\n" % (i, self.entries[i]) for i in indices)


def with_entry(files: dict[str, bytes], index: int, envelope: bytes | None) -> dict[str, bytes]:
    """A bundle with one entry's line replaced, or taken out."""
    changed = dict(files)
    for name in (n for n in files if n == "roster" or n.startswith("jobs/")):
        rows = files[name].splitlines(keepends=True)
        for place, row in enumerate(rows):
            if row.startswith(b"%d " % index):
                rows[place] = b"" if envelope is None else b"%d %s\n" % (index, envelope)
        changed[name] = b"".join(rows)
    return changed


def ledger(*extra: str) -> Ledger:
    """A log in which everybody is enrolled and nothing else was said."""
    log = Ledger()
    for silo in ("outsider", "lender", "platform", "analyst", "dealer", *extra):
        log.enrol(silo)
    return log


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes] | bytes) -> Path:
    target = folder / "bundle.zip"
    target.write_bytes(files if isinstance(files, bytes) else zipped(files))
    return target


def check(tmp_path: Path, play: Play, **options: Any) -> Report:
    return verify_bundle(write(tmp_path, ledger().record(play).files()), **options)


def refused(report: Report, sentence: str) -> None:
    """Refused for this reason before any other."""
    assert not report.ok
    assert re.search(sentence, report.reason), report.reason


def ending(event: str, silo: str, body: dict[str, Any], after: tuple[str, str], minute: str = "10:20") -> Play:
    play = honest()
    del play.steps[play.steps.index(play.get(*after)) + 1 :]
    play.add(silo, event, body, 0)
    play.steps[-1].time = f"2026-03-01T{minute}:00Z"
    if silo == "coordinator":
        play.steps[-1].key = "log"
    return play


LOG = ledger().record(honest())
FILES = LOG.files()
