"""A small world for the coordinator's tests: silos that can sign, enrol and connect, and a clock that is set by hand."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ssl
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from coordinator.enrol import PROOF_CONTEXT, JoinToken
from coordinator.envelope import Statement, digest, fingerprint, parse, seal
from coordinator.relay import Relay
from coordinator.server import Running, create_token, init_home, running
from coordinator.statements import format_time

PEM = serialization.Encoding.PEM
START = dt.datetime.now(dt.UTC).replace(microsecond=0)  # TLS checks certificates against the real clock
LATER = format_time(START + dt.timedelta(days=1))
ORIGIN = "test.example/log"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def csr_for(key: Any, name: str = "whatever") -> x509.CertificateSigningRequest:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())


@dataclass
class Clock:
    """Real time plus what a test adds."""

    ahead: dt.timedelta = dt.timedelta(0)

    def __call__(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self.ahead


@dataclass
class TestSilo:
    """A silo's keys, and its own chain per job."""

    __test__ = False

    name: str
    identity: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    tls_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: str = ""
    chains: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def identity_b64(self) -> str:
        return b64(self.identity.public_key().public_bytes_raw())

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity.public_key().public_bytes_raw())

    @property
    def link_der(self) -> bytes:
        return b"link certificate of " + self.name.encode()

    def say(self, event: str, spec: dict[str, Any], body: dict[str, Any], **changes: Any) -> bytes:
        """The silo's next envelope about a job; `changes` overwrite fields of the statement."""
        job = changes.pop("job", spec["job"])
        seq, prev = self.chains.get(job, (0, ""))
        fields = {"event": event, "job": job, "spec_digest": digest(spec), "silo": self.name, "seq": seq, "prev": prev}
        statement = Statement(**{**fields, "time": format_time(START), "body": body, **changes})
        envelope = seal(statement, self.identity)
        self.chains[job] = (seq + 1, parse(envelope).payload_digest)
        return envelope

    def enrolled(self) -> bytes:
        body = {"identity_key": self.identity_b64}
        return seal(Statement("enrolled", "", "", self.name, 0, "", format_time(START), body), self.identity)

    def enrol_request(self, token: str) -> dict[str, Any]:
        csr = csr_for(self.tls_key)
        proof = self.identity.sign(PROOF_CONTEXT + csr.public_bytes(serialization.Encoding.DER))
        return {
            "token": JoinToken.parse(token).credential(),
            "csr": csr.public_bytes(PEM).decode(),
            "identity_key": self.identity_b64,
            "proof": b64(proof),
            "entry": b64(self.enrolled()),
        }


def make_spec(
    parties: Sequence[str] = ("lender", "platform"), dealer: str | None = "dealer", **changes: Any
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "v": 1,
        "job": uuid.uuid4().hex,
        "kind": "vertical.glm",
        "purpose": "test",
        "valid_until": LATER,
        "parties": [{"silo": name, "dataset": "d", "label": None} for name in parties],
        "dealer": dealer,
    }
    return {**spec, **changes}


def disclosure_of(spec: dict[str, Any]) -> dict[str, Any]:
    return {"v": 1, "spec_digest": digest(spec), "lines": []}


RECORD = {
    "controller": "Lender plc",
    "contact": "dpo@lender.example",
    "legal_basis": "contract",
    "categories": ["credit history"],
    "subjects": ["borrowers"],
    "retention_days": 365,
    "transfers": "",
}


def consent_body(silo: TestSilo, spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    body = {
        "disclosure_digest": digest(disclosure_of(spec)),
        "dataset_commitment": "" if silo.name == spec["dealer"] else "ab" * 32,
        "link_certificate": b64(silo.link_der),
        "endpoint": "",
        "link_token": "0" * 32,
        "valid_until": LATER,
        "head": {"size": 1, "root": "ef" * 32},
        "rule": "" if silo.name == spec["dealer"] else "credit-model",
        "policy_digest": "cd" * 32,
        "approvals": [],
        "record": None if silo.name == spec["dealer"] else dict(RECORD),
        "budget": [],
    }
    return {**body, **changes}


def started_body(silos: Sequence[TestSilo]) -> dict[str, Any]:
    return {
        "links": {s.name: hashlib.sha256(s.link_der).hexdigest() for s in silos},
        "identities": {s.name: s.fingerprint for s in silos},
    }


def released_body(recipient: str) -> dict[str, Any]:
    return {"recipient": recipient, "result_digest": "cd" * 32, "items": ["auc"]}


def finished_body() -> dict[str, Any]:
    return {"cost": {"rounds": 3, "bytes_sent": {}, "seconds": {"train": "1.5"}, "peak_mib": 10, "randomness": {}}}


@dataclass
class World:
    """One running coordinator and the silos that talk to it."""

    home: Path
    clock: Clock
    server: Running
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.port}"

    def token(self, silo: str, **options: Any) -> str:
        return create_token(self.home, silo, **options)

    def tls(self, silo: TestSilo | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self.home / "ca.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if silo is not None:
            self.load_client(context, silo.certificate.encode(), key_pem(silo.tls_key))
        return context

    def load_client(self, context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
        files = [self.home.parent / f"{uuid.uuid4().hex}.{kind}" for kind in ("pem", "key")]
        for path, content in zip(files, (certificate, key), strict=True):
            path.write_bytes(content)
        context.load_cert_chain(*files)

    def session(self, silo: TestSilo | None = None, context: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=context or self.tls(silo))
        session = aiohttp.ClientSession(self.url, connector=connector, timeout=aiohttp.ClientTimeout(total=20))
        self.sessions.append(session)
        return session

    async def enrol(self, name: str, silo: TestSilo | None = None, **options: Any) -> TestSilo:
        silo = silo or TestSilo(name)
        status, reply = await call(self.session(), "POST", "/v1/enrol", silo.enrol_request(self.token(name, **options)))
        assert status == 200, reply
        silo.certificate = reply["certificate"]
        return silo


async def call(session: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON (or text) of one request."""
    options: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    async with session.request(method, path, **options) as response:
        json_reply = response.content_type == "application/json"
        return response.status, await (response.json() if json_reply else response.text())


async def close_code(ws: aiohttp.ClientWebSocketResponse) -> int:
    """The code in the server's close frame (aiohttp's own attribute is 1006 when our reply finds the socket closed)."""
    message = await ws.receive(timeout=20)
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return int(message.data)


@asynccontextmanager
async def a_world(folder: Path, relay: Relay | None = None) -> AsyncIterator[World]:
    home, clock = folder / "coordinator", Clock()
    if not home.exists():
        init_home(home, ["127.0.0.1", "localhost"], ORIGIN)
    async with running(home, "127.0.0.1", 0, clock=clock, relay=relay) as server:
        world = World(home, clock, server)
        try:
            yield world
        finally:
            for session in world.sessions:
                await session.close()


@dataclass
class Job:
    """A job under way, with the sessions of its three silos."""

    world: World
    spec: dict[str, Any]
    silos: dict[str, TestSilo]
    http: dict[str, aiohttp.ClientSession]

    @property
    def path(self) -> str:
        return f"/v1/jobs/{self.spec['job']}"

    async def submit(self, submitter: str = "lender") -> tuple[int, Any]:
        silo = self.silos[submitter]
        entries = [
            silo.say("proposed", self.spec, {"spec": self.spec}),
            silo.say("disclosed", self.spec, {"disclosure": disclosure_of(self.spec)}),
        ]
        return await call(self.http[submitter], "POST", "/v1/jobs", {"entries": [b64(e) for e in entries]})

    async def send(self, name: str, envelope: bytes) -> tuple[int, Any]:
        return await call(self.http[name], "POST", f"{self.path}/entries", {"entry": b64(envelope)})

    async def say(self, name: str, event: str, body: dict[str, Any]) -> Any:
        status, reply = await self.send(name, self.silos[name].say(event, self.spec, body))
        assert status == 200, reply
        return reply

    async def all_consent(self) -> None:
        for name, silo in self.silos.items():
            await self.say(name, "consented", consent_body(silo, self.spec))

    async def all_start(self) -> None:
        for name in self.silos:
            await self.say(name, "started", started_body(list(self.silos.values())))


async def a_job(world: World, **changes: Any) -> Job:
    """Three enrolled silos and a spec that nobody has submitted yet."""
    silos = {name: await world.enrol(name) for name in ("lender", "platform", "dealer")}
    return Job(world, make_spec(**changes), silos, {name: world.session(silo) for name, silo in silos.items()})
