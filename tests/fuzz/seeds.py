"""The corpus's first inputs, from the documents of the tests and of the pages; written by python -m tests.fuzz --seeds."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import CertificateSigningRequestBuilder, Name

from coordinator.ca import create_authority, issue_silo
from coordinator.envelope import Statement, canonical, parse
from coordinator.merkle import leaf_hash
from coordinator.note import Checkpoint, sign_checkpoint, verifier_key
from mpc.tokens.ristretto import multiply_base
from mpc.tokens.sets import TOKEN_BYTES, Agreement
from silos import catalogue, policy
from silos.config import init_home
from silos.errors import SiloError
from silos.model_parts import write_export
from silos.request import build_spec
from silos.resumable import Resumable
from tests.fuzz.engine import CORPUS, keep
from tests.fuzz.targets_coordinator import LOG_KEY, ORIGIN, statements_seed
from tests.fuzz.targets_silos import JOB, NOW, SALT
from tests.fuzz.targets_wire import framed, link_seed
from tests.silos import bundles
from tests.silos.test_model_cli import part
from tests.silos.world import RULE, policy_text, request
from vertical import checkpoints

PAGES = Path(__file__).parents[2] / "docs"
TOML = re.compile(r"```toml\n(.*?)```", re.DOTALL)


def write_all() -> None:
    """Write every seed, in place of those that are there."""
    for path in CORPUS.glob("*/seed-*"):
        path.unlink()
    for target, data in (*_wire(), *_coordinator(), *_silos(), *_bundles()):
        keep(target, data, "seed-")


Seeds = Iterable[tuple[str, bytes]]


def _wire() -> Seeds:
    frames = link_seed()
    yield "link_frames", frames
    yield "wire_header", frames[:40]
    a, b = Resumable(name=b"A" * 16), Resumable(name=b"B" * 16)
    a.meet(b.hello())
    b.meet(a.hello())
    b.take(b"what we sent")
    a.hear(b.data())
    a.hear(b.end())
    a.take(b"hello")
    yield "relay_messages", framed([a.hello(), a.data(), a.ack(), a.end(), a.heard()])
    yield "greeting", b"ACL1" + bytes(range(16)) + b"T" * 16 + b"\0\1\0\0"
    for asked in (
        {"kind": "square", "shape": [3, 2]},
        {"kind": "permutation", "n": 3, "m": 2, "owner": 0},
        {"kind": ""},
    ):
        yield "control", json.dumps(asked).encode()
    yield from (("epsilon", text) for text in (b"0.5", b"1/2", b"64", b"0.0000000001"))


def _json_of(entry: bytes) -> dict[str, Any]:
    return dict(json.loads(entry))


def _coordinator() -> Iterator[tuple[str, bytes]]:
    said = bundles.LOG.entries
    by_event = {parse(entry).statement.event: entry for entry in said}
    for entry in by_event.values():
        yield "envelope", entry
        yield "payload", base64.b64decode(_json_of(entry)["payload"])
    yield "payload", Statement("enrolled", "", "", "é", 0, "", "", {}).payload()
    yield "job_story", statements_seed()
    play = [json.loads(base64.b64decode(_json_of(entry)["payload"])) for entry in said]
    statements = [
        {
            "event": one["predicateType"].rsplit("/", 1)[-1],
            "job": one["subject"][0]["name"].removeprefix("job:"),
            "spec_digest": one["subject"][0]["digest"]["sha256"],
            **{name: one["predicate"][name] for name in ("silo", "time", "body")},
        }
        for one in play
    ]
    yield "job_story", json.dumps({"statements": [s for s in statements if s["job"] == bundles.JOB]}).encode()
    key = verifier_key(ORIGIN, LOG_KEY)
    head = Checkpoint(ORIGIN, 12, bytes(range(32)))
    signed = sign_checkpoint(head, LOG_KEY)
    yield "vkey", key.text().encode()
    yield "note", signed.encode()
    yield "note", (signed + signed.splitlines(keepends=True)[-1].replace(ORIGIN, "witness.example")).encode()
    yield "checkpoint", head.text().encode()
    leaves = [leaf_hash(entry) for entry in said]
    for first in (1, 3, 8):
        proof, roots = bundles.growth(first, said), (bundles.tree(said[:first]), bundles.tree(said))
        yield "proof", struct.pack(">QQ", first, len(said)) + b"".join([*proof, roots[1], roots[0]])
        path = bundles.path(first, said)
        yield "proof", struct.pack(">QQ", first, len(said)) + b"".join([*path, roots[1], leaves[first]])
    entry = base64.b64encode(by_event["refused"]).decode()
    tls = ec.derive_private_key(0x1234567, ec.SECP256R1())
    csr = CertificateSigningRequestBuilder().subject_name(Name([])).sign(tls, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM)
    yield "csr", pem
    authority = create_authority(ORIGIN, NOW)
    issued = issue_silo(authority, csr, "lender", NOW)
    for made in (authority.certificate, issued):
        yield "certificate", made.public_bytes(serialization.Encoding.PEM)
    for body in (
        {"entry": entry},
        {"entries": [entry, entry]},
        {"stage": "train", "done": 1, "total": 3},
        {
            "token": "a.bcdefghijk",
            "csr": pem.decode(),
            "identity_key": "A" * 43 + "=",
            "proof": "A" * 86 + "==",
            "entry": "",
        },
    ):
        yield "api_bodies", json.dumps(body).encode()
    yield "join_token", b"SJ1." + b"ab" * 32 + b".abcdef." + b"x" * 32
    mine = [entry for entry in said if parse(entry).statement.job == bundles.JOB][:6]
    view = {
        "job": bundles.JOB, "state": "ready", "submitter": "analyst", "participants": list(bundles.PARTICIPANTS),
        "spec": bundles.SPEC, "entries": [{"index": i, "envelope": bundles.b64(e)} for i, e in enumerate(mine)],
        "roster": [{"silo": silo, "identity_key": bundles.b64(bundles.public(silo))} for silo in ("analyst", "lender")],
    }  # fmt: skip
    yield "job_view", json.dumps(view).encode()
    yield "log_entry", json.dumps({"envelope": bundles.b64(b"{}")}).encode()
    yield "log_entry", json.dumps({"leaf": bundles.b64(bytes(32))}).encode()
    yield "time_text", b"2026-03-01T10:00:00Z"


def _requests() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", request()
    for page in ("job.md", "matching.md", "vertical.md"):
        for text in TOML.findall((PAGES / page).read_text()):
            yield text, tomllib.loads(text)


def _silos() -> Iterator[tuple[str, bytes]]:
    kinds = set[str]()
    for text, given in _requests():
        try:
            spec = build_spec(given, job=JOB, now=NOW, salt=SALT)
        except SiloError:
            continue
        if spec.kind in kinds and len(text) > 600:
            continue
        kinds.add(spec.kind)
        yield "spec", canonical(spec.document())
        yield "request_json", json.dumps(given).encode()
        if text:
            yield "request_toml", text.encode()
    yield "policy", policy.initial("lender").encode()
    yield "policy", policy_text(RULE, {"platform": "ab" * 32}, dealer_for=["lender"]).encode()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "t.csv").write_text("email,n,c\na@x.example,1,u\nb@x.example,2.5,v\n")
        catalogue.add(folder / "catalogue.toml", "loans", folder / "t.csv", "email")
        asked = f"SELECT * FROM '{folder}/t.csv' ORDER BY email"  # noqa: S608  our own folder
        catalogue.add_query(folder / "catalogue.toml", "asked", asked, "email")
        yield "catalogue", (folder / "catalogue.toml").read_text().replace(str(folder), "/d").encode()
        init_home(folder / "home", "lender")
        yield "config", (folder / "home" / "silo.toml").read_bytes()
    yield "config", b'version = 1\nname = "lender"\nlisten = "0.0.0.0:7443"\n[limits]\nconcurrent_jobs = 2\n'
    log_key = verifier_key(ORIGIN, LOG_KEY).text()
    enrolment = {"url": "https://c.example:8443", "log_key": log_key, "origin": ORIGIN, "silo": "lender"}
    yield "enrolment", json.dumps(enrolment).encode()
    for made in (part(0), part(1), part(0, 3)):
        yield "model_part", json.dumps(json.loads(write_export(made)), separators=(",", ":")).encode()
    result = {"v": 1, "job": JOB, "silo": "lender", "spec_digest": "0" * 64, "salt": SALT, "result": {"auc": "0.7"}}
    yield "result", json.dumps(result).encode()
    state = checkpoints.Kept("ab" * 32, "cd" * 32, 3, checkpoints.State({"w": np.arange(4, dtype=np.uint64)}))
    yield "sealed_state", checkpoints.encode(state)
    yield "sealed_file", b"accord-sealed-1\n" + bytes(60)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(6, dtype=np.uint64).reshape(2, 3), allow_pickle=False)
    yield "array", buffer.getvalue()
    agreement = Agreement(b"loans").encode()
    yield "kept_key", agreement + bytes([1]) + bytes(31)
    yield (
        "kept_tokens",
        agreement + multiply_base(bytes([7]) + bytes(31)) + (2).to_bytes(8, "little") + bytes(range(2 * TOKEN_BYTES)),
    )
    yield "words", b"rule=email/v1,columns=email"
    yield "words", b"a+b"
    yield "words", b"amount:0:100:2"
    yield "words", b"shop:orders\nbank:loans"


def _bundles() -> Seeds:
    yield "bundle_zip", bundles.zipped(bundles.FILES, 8)
    yield "bundle_zip", bundles.zipped({"manifest.json": b"{}", "checkpoint": b"", "log.vkey": b""})
    yield "bundle_members", b"{}"
    for name, content in bundles.FILES.items():
        yield "bundle_members", json.dumps({name: content.decode()}).encode()
        yield "bundle_members", json.dumps({name: None}).encode()
    yield "bundle_story", b"{}"
    steps = bundles.honest().steps
    yield "bundle_story", json.dumps({str(i): {"body": step.body} for i, step in enumerate(steps)}).encode()
    for i in range(0, len(steps), 4):
        step = steps[i]
        edit = {"body": step.body, "event": step.event, "time": step.time, "seq": 0, "prev": ""}
        yield "bundle_story", json.dumps({str(i): edit}).encode()
