"""Export and verify the evidence of a whole log: time, CPU seconds and bytes.

    python -m benchmarks.audit [--jobs 10000] [--every-signature] [--keep DIRECTORY] [--json]

Every job is the demonstration's, between two data owners and a dealer: 13 statements, each really signed.  The log is in
memory, its checkpoint signed; the coordinator's own speed is the matter of benchmarks/log.py.  Exporting rebuilds the tree
and verifies nothing afterwards; verifying is the program that an auditor runs, with its start-up.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import datetime as dt
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator import merkle
from coordinator.envelope import Statement, digest, fingerprint, parse, seal
from coordinator.note import Checkpoint, sign_checkpoint, verifier_key
from silos import bundle, request, verify
from silos.client import LogEntry
from silos.disclosure import disclosure

ORIGIN = "log.example/accord"
OWNERS, DEALER = ("lender", "platform"), "dealer"
SPEAKERS = ("analyst", *OWNERS, DEALER)
START = dt.datetime(2026, 3, 1, 10, tzinfo=dt.UTC)
CHUNK = 100
CERTIFICATE = base64.b64encode(bytes(range(256)) * 2).decode()
RECORD = {
    "controller": "Example Bank", "contact": "privacy@bank.example", "legal_basis": "art. 6 (1) (f)",
    "categories": ["payment behaviour"], "subjects": ["customers"], "retention_days": 365, "transfers": "none",
}  # fmt: skip


def key_of(name: str) -> Ed25519PrivateKey:
    """The same for the same name."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"benchmark key of {name}".encode()).digest())


def public(name: str) -> bytes:
    """Raw."""
    return key_of(name).public_key().public_bytes_raw()


def enrolments() -> list[bytes]:
    """The roster's entries."""
    bodies = {silo: {"identity_key": base64.b64encode(public(silo)).decode()} for silo in SPEAKERS}
    said = [Statement("enrolled", "", "", s, 0, "", "2026-02-01T09:00:00Z", body) for s, body in bodies.items()]
    return [seal(statement, key_of(statement.silo)) for statement in said]


def document() -> tuple[dict[str, Any], dict[str, Any]]:
    """The demonstration's spec and its disclosure."""
    text = (Path(request.__file__).parent / "demo" / "job.toml").read_text(encoding="utf-8")
    spec = request.build_spec(tomllib.loads(text), job="0" * 32, now=START, salt="0" * 32)
    return spec.document(), disclosure(spec)


def job_entries(spec: dict[str, Any], shown: dict[str, Any], head: dict[str, Any], number: int) -> list[bytes]:
    """All that is said about one job."""
    job = hashlib.sha256(b"%d" % number).hexdigest()[:32]
    spec = {**spec, "job": job}
    of = digest(spec)
    shown = {**shown, "spec_digest": of}
    links = {silo: hashlib.sha256(base64.b64decode(CERTIFICATE)).hexdigest() for silo in (*OWNERS, DEALER)}
    keys = {silo: fingerprint(public(silo)) for silo in (*OWNERS, DEALER)}
    cost = {"rounds": 40, "bytes_sent": {"platform": 10**6}, "seconds": {"train": "1.25"}, "peak_mib": 300}
    said: list[tuple[str, str, dict[str, Any]]] = [("analyst", "proposed", {"spec": spec})]
    said += [("analyst", "disclosed", {"disclosure": shown})]
    for silo in (*OWNERS, DEALER):
        consent: dict[str, Any] = {
            "disclosure_digest": digest(shown), "link_certificate": CERTIFICATE, "endpoint": "", "link_token": job,
            "dataset_commitment": of if silo in OWNERS else "", "valid_until": "2026-03-01T12:00:00Z", "head": head,
            "rule": "credit", "policy_digest": "cd" * 32, "approvals": [], "budget": [],
            "record": RECORD if silo in OWNERS else None,
        }  # fmt: skip
        said.append((silo, "consented", consent))
    said += [(silo, "started", {"links": links, "identities": keys}) for silo in (*OWNERS, DEALER)]
    items = ["coefficients", "auc"]
    said += [(silo, "released", {"recipient": silo, "result_digest": of, "items": items}) for silo in OWNERS]
    for silo in (*OWNERS, DEALER):
        used = {"triple": {"correlations": 3, "words": 90}} if silo in OWNERS else {}
        said.append((silo, "finished", {"cost": {**cost, "randomness": used}}))
    chains, entries, moment = dict.fromkeys(SPEAKERS, (0, "")), [], START.strftime("%Y-%m-%dT%H:%M:%SZ")
    for silo, event, body in said:
        entries.append(seal(Statement(event, job, of, silo, *chains[silo], moment, body), key_of(silo)))
        chains[silo] = chains[silo][0] + 1, parse(entries[-1]).payload_digest
    return entries


class Log:
    """A log in memory, which tells everything to whoever asks."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.nodes: dict[tuple[int, int], bytes] = {}

    def stored(self, level: int, place: int) -> bytes:
        """Of a complete subtree."""
        return self.nodes[level, place]

    def add(self, envelope: bytes) -> None:
        """At the end."""
        for node in merkle.grow(len(self.entries), envelope, self.stored):
            self.nodes[node.level, node.place] = node.hash
        self.entries.append(envelope)

    def root(self) -> bytes:
        """Of all entries."""
        return merkle.root(len(self.entries), self.stored)

    async def checkpoint(self) -> str:
        """Signed."""
        return sign_checkpoint(Checkpoint(ORIGIN, len(self.entries), self.root()), key_of("log"))

    async def log_entries(self, start: int, end: int) -> list[LogEntry]:
        """A page."""
        page = self.entries[start : min(end, start + 256)]
        return [LogEntry(merkle.leaf_hash(envelope), envelope) for envelope in page]

    async def job(self, job: str) -> dict[str, Any]:
        """A job's entries; an export of everything asks for none."""
        about = [envelope for envelope in self.entries if parse(envelope).statement.job == job]
        return {"entries": [{"envelope": base64.b64encode(envelope).decode()} for envelope in about]}


def made(jobs: int) -> Log:
    """A log of so many jobs; those of one chunk run at once, so that their entries lie mixed."""
    log, (spec, shown) = Log(), document()
    for envelope in enrolments():
        log.add(envelope)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, jobs, CHUNK):
            head = {"size": len(log.entries), "root": log.root().hex()}
            work = partial(job_entries, spec, shown, head)
            chunk = list(pool.map(work, range(start, min(start + CHUNK, jobs)), chunksize=CHUNK // 4))
            for step in zip(*chunk, strict=True):
                for envelope in step:
                    log.add(envelope)
    return log


def cpu() -> float:
    """Seconds of this process and of the children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measure(jobs: int, folder: Path, options: list[str]) -> dict[str, Any]:
    """All figures."""
    log, path = made(jobs), folder / "bundle.zip"
    log_key = verifier_key(ORIGIN, key_of("log")).text()
    start, used = time.perf_counter(), cpu()
    with patch.object(bundle, "verify_bundle"):
        asyncio.run(bundle.export_many(log, path, log_key=log_key, choice=bundle.Choice()))
    exported, used = time.perf_counter() - start, cpu() - used
    command = [sys.executable, "-I", verify.__file__, str(path), "--log-key", log_key, *options, "--json"]
    start, before = time.perf_counter(), cpu()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, checked = time.perf_counter() - start, cpu() - before
    report = json.loads(done.stdout)
    return {
        "jobs": jobs,
        "entries": len(log.entries),
        "verified": report["ok"],
        "reason": report["reason"],
        "bundle_mib": round(path.stat().st_size / 2**20, 1),
        "export_s": round(exported, 2),
        "export_cpu_s": round(used, 2),
        "verify_s": round(wall, 2),
        "verify_cpu_s": round(checked, 2),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--every-signature", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        figures = measure(given.jobs, folder, ["--every-signature"] if given.every_signature else [])
    print(json.dumps(figures) if given.json else "\n".join(f"{name:14} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
