"""The coordinator's log under load: durable entries a second, proofs, reopening; on SQLite and on PostgreSQL.

    python -m benchmarks.log --jobs 10000
    python -m benchmarks.log --jobs 10000 --database postgresql:///accord?host=/run/postgresql

Every entry is signed by its silo, beforehand and in other processes; what is timed is what a coordinator does with it:
parse it, check signature, chain and transition, and commit it with the others that wait.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import datetime as dt
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import CertificateSigningRequestBuilder, Name, NameAttribute
from cryptography.x509.oid import NameOID

from coordinator import home as homes
from coordinator import merkle
from coordinator.enrol import PROOF_CONTEXT, JoinToken, TokenRecord, read_enrolment
from coordinator.envelope import Statement, digest, fingerprint, seal
from coordinator.home import Home
from coordinator.log import Entry
from coordinator.note import open_checkpoint, verifier_key
from coordinator.server import init_home
from coordinator.statements import format_time
from coordinator.store import Store
from coordinator.writing import StoreThread

ORIGIN = "log.example/accord"
OWNERS, DEALER = ("lender", "platform"), "dealer"
SILOS = (*OWNERS, DEALER)
AT_ONCE = 64  # jobs under way at the same time
CHUNK = 500  # jobs signed before they are sent
ENTRIES_PER_JOB = 13
PROOFS = 2000
TARGETS = {"entries_per_s": 1000.0, "proof_ms": 5.0}


def silo_key(name: str) -> Ed25519PrivateKey:
    """The identity key of a silo of these logs."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"key of {name}".encode()).digest())


@dataclass
class _Chains:
    """The statements of one job, each silo's chain going on."""

    spec: dict[str, Any]
    now: str
    ends: dict[str, tuple[int, str]] = field(default_factory=dict)

    def say(self, silo: str, event: str, body: dict[str, Any]) -> bytes:
        """The next envelope of a silo."""
        seq, prev = self.ends.get(silo, (0, ""))
        statement = Statement(event, self.spec["job"], digest(self.spec), silo, seq, prev, self.now, body)
        self.ends[silo] = (seq + 1, hashlib.sha256(statement.payload()).hexdigest())
        return seal(statement, silo_key(silo))


def sign_job(number: int, head: dict[str, Any], start: str, end: str) -> list[bytes]:
    """The 13 envelopes of one job that ends well, in an order that a coordinator accepts.

    head: size and root of a checkpoint that the silos have verified.  start, end: when it was made and until when it is valid.
    """
    spec = {
        "v": 1, "job": hashlib.sha256(b"job %d" % number).hexdigest()[:32], "kind": "vertical.glm", "purpose": "credit risk",
        "created": start, "valid_until": end, "randomness": "dealer", "dealer": DEALER, "helper": None,
        "parties": [{"silo": "lender", "label": "default"}, {"silo": "platform", "label": None}],
        "release": ["coefficients", "auc", "counts"],
    }  # fmt: skip
    lines = [{"silo": silo, "learns": "which of its customers matched", "precision": "exact"} for silo in OWNERS]
    disclosure = {"v": 1, "spec_digest": digest(spec), "lines": lines}
    certificates = {silo: f"link certificate of {silo} for job {number}".encode() * 8 for silo in SILOS}
    chains = _Chains(spec, start)
    said = [
        chains.say("lender", "proposed", {"spec": spec}),
        chains.say("lender", "disclosed", {"disclosure": disclosure}),
    ]
    for silo in SILOS:
        owner = silo in OWNERS
        body = {
            "disclosure_digest": digest(disclosure), "dataset_commitment": "ab" * 32 if owner else "",
            "link_certificate": base64.b64encode(certificates[silo]).decode(), "endpoint": "", "link_token": "5a" * 16,
            "valid_until": end, "head": head, "rule": "credit" if owner else "", "policy_digest": "cd" * 32,
            "approvals": [], "record": _record(silo) if owner else None, "budget": [],
        }  # fmt: skip
        said.append(chains.say(silo, "consented", body))
    links = {silo: hashlib.sha256(certificate).hexdigest() for silo, certificate in certificates.items()}
    identities = {silo: fingerprint(silo_key(silo).public_key().public_bytes_raw()) for silo in SILOS}
    said += [chains.say(silo, "started", {"links": links, "identities": identities}) for silo in SILOS]
    result = {"result_digest": hashlib.sha256(b"result %d" % number).hexdigest(), "items": ["auc", "coefficients"]}
    said += [chains.say(silo, "released", {"recipient": silo, **result}) for silo in OWNERS]
    cost = {"rounds": 40, "bytes_sent": {}, "seconds": {"train": "1.5"}, "peak_mib": 300, "randomness": {}}
    return said + [chains.say(silo, "finished", {"cost": cost}) for silo in SILOS]


def _record(silo: str) -> dict[str, Any]:
    return {
        "controller": silo, "contact": f"dpo@{silo}.example", "legal_basis": "contract", "categories": ["credit history"],
        "subjects": ["borrowers"], "retention_days": 365, "transfers": "",
    }  # fmt: skip


def make_home(path: Path, database: str = "") -> Home:
    """A coordinator's home with the three silos enrolled; database: as in `init_home`."""
    init_home(path, ["localhost"], ORIGIN, database)
    home, now = homes.load(path), dt.datetime.now(dt.UTC)
    with closing(home.open_store()) as store:
        for name in SILOS:
            key, token = silo_key(name), JoinToken.draw(home.authority.pin)
            tls = ec.generate_private_key(ec.SECP256R1())
            subject = Name([NameAttribute(NameOID.COMMON_NAME, name)])
            csr = CertificateSigningRequestBuilder().subject_name(subject).sign(tls, hashes.SHA256())
            raw = base64.b64encode(key.public_key().public_bytes_raw()).decode()
            proof = key.sign(PROOF_CONTEXT + csr.public_bytes(serialization.Encoding.DER))
            entry = seal(Statement("enrolled", "", "", name, 0, "", format_time(now), {"identity_key": raw}), key)
            request = read_enrolment(
                csr.public_bytes(serialization.Encoding.PEM).decode(), raw,
                base64.b64encode(proof).decode(), base64.b64encode(entry).decode(),
            )  # fmt: skip
            expires = now + dt.timedelta(hours=1)
            store.add_token(TokenRecord(token.id, name, token.secret_hash(), expires, False, False))
            store.enrol(request, token.id, token.secret, now)
    return home


def signed_jobs(home: Home, jobs: int, workers: int) -> Iterator[list[list[bytes]]]:
    """The envelopes of `jobs` jobs, signed in `workers` processes, CHUNK jobs at a time."""
    with closing(home.open_store()) as store:
        seen = open_checkpoint(store.log.checkpoint(), verifier_key(home.origin, home.log_key))
    now = dt.datetime.now(dt.UTC)
    head = {"size": seen.size, "root": seen.root.hex()}
    sign = partial(sign_job, head=head, start=format_time(now), end=format_time(now + dt.timedelta(days=1)))
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for first in range(0, jobs, CHUNK):
            yield list(pool.map(sign, range(first, min(jobs, first + CHUNK)), chunksize=25))


async def append_jobs(store: StoreThread, jobs: Sequence[list[bytes]], at_once: int) -> list[float]:
    """Give jobs to a coordinator's store, as its handlers do, `at_once` of them side by side; returns each write's seconds."""
    now, waiting, latencies = dt.datetime.now(dt.UTC), iter(jobs), list[float]()

    async def one_by_one() -> None:
        for envelopes in waiting:
            begun = time.perf_counter()
            await store.write(Store.submit, [Entry.parse(envelope) for envelope in envelopes[:2]], now)
            latencies.append(time.perf_counter() - begun)
            for envelope in envelopes[2:]:
                begun = time.perf_counter()
                await store.write(Store.append, Entry.parse(envelope), now)
                latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*(one_by_one() for _ in range(at_once)))
    return latencies


async def _fill(home: Home, jobs: int, workers: int, at_once: int) -> dict[str, float]:
    thread, spent, cpu, latencies = StoreThread(home.open_store), 0.0, 0.0, list[float]()
    await thread.start()
    try:
        for chunk in signed_jobs(home, jobs, workers):
            begun, cpu_begun = time.perf_counter(), time.process_time()
            latencies += await append_jobs(thread, chunk, at_once)
            spent, cpu = spent + time.perf_counter() - begun, cpu + time.process_time() - cpu_begun
    finally:
        await thread.stop()
    quantiles = statistics.quantiles(latencies, n=100)
    return {
        "entries_per_s": jobs * ENTRIES_PER_JOB / spent, "cpu_ms_per_entry": 1e3 * cpu / (jobs * ENTRIES_PER_JOB),
        "append_ms_p50": 1e3 * quantiles[49],
        "append_ms_p99": 1e3 * quantiles[98],
    }  # fmt: skip


def made_log(path: Path, jobs: int, workers: int = 2) -> Path:
    """A coordinator's home at `path` whose log has `jobs` whole jobs of three silos, all really signed; returns it.

    It has 3 + 13 * jobs entries.  The silos' keys are `silo_key(name)`.
    """
    asyncio.run(_fill(make_home(path), jobs, workers, AT_ONCE))
    return path


def _proof_times(home: Home) -> dict[str, float]:
    """Reopening, and inclusion proofs of entries spread over the log, each checked."""
    begun = time.perf_counter()
    with closing(home.open_store()) as store:
        reopened = time.perf_counter() - begun
        size, spent = store.log.size(), list[float]()
        root = store.log.root(size)
        for number in range(PROOFS):
            index = number * size // PROOFS
            begun = time.perf_counter()
            proof = store.log.inclusion(index, size)
            spent.append(time.perf_counter() - begun)
            merkle.verify_inclusion(store.log.stored(0, index), index, size, proof, root)
    return {
        "entries": float(size), "reopen_ms": 1e3 * reopened, "proof_ms": 1e3 * statistics.median(spent),
        "proof_ms_p99": 1e3 * statistics.quantiles(spent, n=100)[98],
    }  # fmt: skip


def measure(jobs: int, database: str = "", workers: int = 2, at_once: int = AT_ONCE) -> dict[str, float]:
    """Figures of a log of `jobs` jobs in a new home, or in an empty PostgreSQL database."""
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder) / "coordinator", database)
        return {**asyncio.run(_fill(home, jobs, workers, at_once)), **_proof_times(home)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one line of JSON: figures, and whether they reach the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--database", default="", help="an empty PostgreSQL database; without it, SQLite")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="jobs under way at the same time")
    parser.add_argument("--workers", type=int, default=2, help="processes that sign")
    asked = parser.parse_args(arguments)
    figures = measure(asked.jobs, asked.database, asked.workers, asked.at_once)
    reached = figures["entries_per_s"] >= TARGETS["entries_per_s"] and figures["proof_ms_p99"] <= TARGETS["proof_ms"]
    shown = {name: round(value, 3) for name, value in figures.items()}
    sys.stdout.write(
        json.dumps({"jobs": asked.jobs, "at_once": asked.at_once, **shown, "targets_reached": reached}) + "\n"
    )


if __name__ == "__main__":
    main()
