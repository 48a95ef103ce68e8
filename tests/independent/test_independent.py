"""Programs that we did not write check what a real coordinator logged and a real export wrote.

    sigstore          the signed checkpoint (signed note) and inclusion proofs, as for the Rekor log
    securesystemslib  the signatures of the entries (DSSE envelopes), as for TUF and in-toto
    pymerkle          the tree (RFC 6962 roots), at the checkpoint and at the heads that silos had verified

docs/audit.md shows the same steps for an auditor.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pymerkle import InmemoryTree
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError as EnvelopeRefused
from securesystemslib.signer import SSlibKey
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore._internal.rekor.checkpoint import SignedCheckpoint, verify_checkpoint
from sigstore._internal.trust import Keyring, RekorKeyring
from sigstore.errors import VerificationError
from sigstore_models.common import v1 as common

from coordinator import home as homes
from coordinator.note import VerifierKey, verifier_key
from silos.bundle import Choice, export_all
from silos.proofs import Entry, entry_of
from silos.verify import Archive, verify_bundle
from tests.coordinator.world import (
    a_job,
    a_world,
    call,
    consent_body,
    finished_body,
    make_spec,
    released_body,
    started_body,
)


class Evidence(NamedTuple):
    """A bundle of two jobs that a coordinator ran, the key of its log, and the identity keys of the silos."""

    bundle: Path
    log_key: VerifierKey
    keys: dict[str, bytes]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("independent")
    keys = asyncio.run(two_jobs(folder))
    home = folder / "coordinator"
    place = homes.load(home)
    export_all(home, folder / "bundle.zip", Choice())
    return Evidence(folder / "bundle.zip", verifier_key(place.origin, place.log_key), keys)


async def two_jobs(folder: Path) -> dict[str, bytes]:
    """Over TLS, as silos do it; returns their identity keys."""
    parts = {"randomness": "dealer", "helper": None, "release": ["auc"]}
    async with a_world(folder) as world:
        job = await a_job(world, **parts)
        for _ in range(2):
            assert (await job.submit())[0] == 200
            for name, silo in job.silos.items():
                note = (await call(job.http[name], "GET", "/v1/log/checkpoint"))[1]
                _, size, root = note.split("\n")[:3]
                head = {"size": int(size), "root": base64.b64decode(root).hex()}
                await job.say(name, "consented", consent_body(silo, job.spec, head=head))
            for name in job.silos:
                await job.say(name, "started", started_body(list(job.silos.values())))
            for name in ("lender", "platform"):
                await job.say(name, "released", released_body(name))
            for name in job.silos:
                await job.say(name, "finished", finished_body())
            job.spec = make_spec(**parts)
        return {name: silo.identity.public_key().public_bytes_raw() for name, silo in job.silos.items()}


@pytest.fixture(scope="module")
def entries(evidence: Evidence) -> list[Entry]:
    with Archive(evidence.bundle) as archive:
        names = ["roster", *(f"jobs/{job}" for job in archive.jobs())]
        places = sorted(place for name in names for place, _ in archive.lines(name))
    return [entry_of(evidence.bundle, place) for place in places]


def test_the_bundle_verifies_with_our_own_program(evidence: Evidence) -> None:
    report = verify_bundle(evidence.bundle, evidence.log_key.text())
    assert report.ok, report.reason
    assert [summary.state for summary in report.summaries] == ["done", "done"]


# --- sigstore: checkpoint and inclusion


class Proof(NamedTuple):
    """A C2SP tlog-proof, read as its specification says."""

    index: int
    hashes: list[bytes]
    checkpoint: str


def read_proof(text: str) -> Proof:
    lines, _, checkpoint = text.partition("\n\n")
    first, index, *hashes = lines.split("\n")
    assert first == "c2sp.org/tlog-proof@v1"
    return Proof(int(index.removeprefix("index ")), [base64.b64decode(h) for h in hashes], checkpoint)


def keyring(key: VerifierKey) -> RekorKeyring:
    public = Ed25519PublicKey.from_public_bytes(key.key)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    details = common.PublicKeyDetails.PKIX_ED25519
    return RekorKeyring(Keyring([common.PublicKey(raw_bytes=base64.b64encode(der), key_details=details)]))


def as_rekor(entry: Entry, key: VerifierKey) -> Any:
    """What sigstore's two functions read of a log entry."""
    proof = read_proof(entry.proof)
    head = SignedCheckpoint.from_text(proof.checkpoint).checkpoint
    return SimpleNamespace(
        _inner=SimpleNamespace(
            canonicalized_body=entry.envelope,
            log_id=SimpleNamespace(key_id=key.key_id),
            inclusion_proof=SimpleNamespace(
                log_index=proof.index,
                tree_size=head.log_size,
                hashes=proof.hashes,
                root_hash=bytes.fromhex(head.log_hash),
                checkpoint=SimpleNamespace(envelope=proof.checkpoint),
            ),
        )
    )


def test_sigstore_accepts_the_checkpoint_and_every_inclusion_proof(evidence: Evidence, entries: list[Entry]) -> None:
    assert len(entries) == 3 + 2 * 13
    for entry in entries:
        rekor = as_rekor(entry, evidence.log_key)
        verify_merkle_inclusion(rekor)
        verify_checkpoint(keyring(evidence.log_key), rekor)


def test_sigstore_refuses_what_was_changed(evidence: Evidence, entries: list[Entry]) -> None:
    for entry in entries[::5]:
        changed = entry.envelope.replace(b"a", b"b", 1)
        with pytest.raises(VerificationError, match="invalid root hash"):
            verify_merkle_inclusion(as_rekor(Entry(entry.index, entry.proof, changed), evidence.log_key))
        moved = entry.proof.replace(f"index {entry.index}\n", f"index {entry.index ^ 1}\n")
        with pytest.raises(VerificationError):
            verify_merkle_inclusion(as_rekor(Entry(entry.index, moved, entry.envelope), evidence.log_key))
    size = read_proof(entries[0].proof).checkpoint.split("\n")[1]
    grown = entries[0].proof.replace(f"\n{size}\n", f"\n{int(size) + 1}\n")
    with pytest.raises(VerificationError, match="invalid signature"):
        verify_checkpoint(keyring(evidence.log_key), as_rekor(Entry(0, grown, entries[0].envelope), evidence.log_key))
    stranger = VerifierKey(evidence.log_key.name, evidence.keys["lender"])
    with pytest.raises(VerificationError, match="Signature not found"):
        verify_checkpoint(keyring(stranger), as_rekor(entries[0], stranger))


# --- securesystemslib: the signatures of silos


def identity(name: str, key: bytes) -> SSlibKey:
    public = {"keyval": {"public": key.hex()}, "keytype": "ed25519", "scheme": "ed25519"}
    return SSlibKey.from_dict(name, public)


def test_securesystemslib_accepts_every_signature(evidence: Evidence, entries: list[Entry]) -> None:
    keys = [identity(name, key) for name, key in evidence.keys.items()]
    for entry in entries:
        signer = json.loads(entry.envelope)["signatures"][0]["keyid"]
        assert set(Envelope.from_dict(json.loads(entry.envelope)).verify(keys, 1)) == {signer}
        changed = json.loads(entry.envelope)
        changed["payload"] = base64.b64encode(base64.b64decode(changed["payload"]) + b" ").decode()
        with pytest.raises(EnvelopeRefused):
            Envelope.from_dict(changed).verify(keys, 1)


# --- pymerkle: the tree


def test_pymerkle_builds_the_same_tree(evidence: Evidence, entries: list[Entry]) -> None:
    tree = InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry.envelope)
    head = SignedCheckpoint.from_text(read_proof(entries[0].proof).checkpoint).checkpoint
    assert (tree.get_size(), tree.get_state().hex()) == (head.log_size, head.log_hash)
    heads = []
    for entry in entries:
        said = json.loads(base64.b64decode(json.loads(entry.envelope)["payload"]))["predicate"]
        heads += [said["body"]["head"]] if "head" in said["body"] else []
    assert len(heads) == 6
    assert all(tree.get_state(head["size"]).hex() == head["root"] for head in heads)
    assert hashlib.sha256(b"\0" + entries[0].envelope).digest() == tree.get_leaf(1)
