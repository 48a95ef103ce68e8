"""A small world for tests of the control plane: documents, homes on disk, and a real coordinator on loopback."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator import server
from coordinator.envelope import parse
from mpc.reveals import Reveal, To
from silos import catalogue, diary, policy
from silos.client import CoordinatorClient, connect
from silos.config import Home, init_home
from silos.disclosure import disclosure
from silos.enrol import join
from silos.node import Node
from silos.request import build_spec
from silos.spec import Spec, spec_digest
from silos.validation import write_private

NOW = dt.datetime(2026, 3, 1, 12, 0, 0, tzinfo=dt.UTC)
JOB, SALT = "0123456789abcdef0123456789abcdef", "00112233445566778899aabbccddeeff"
SILOS = ("lender", "platform", "dealer")
BOUND_S = 60.0  # how long what should come may take


def registry(_kind: str, _matching: str, randomness: str | None) -> Mapping[str, Sequence[Reveal]]:
    """Declarations of two made-up protocols; the second one supplies the randomness."""
    to: To = "owners" if randomness == "ot" else "dealer"
    return {
        "mpc.psi": (Reveal("matches", "owners", "which of its own rows the other owner also has", "exact"),),
        "mpc.dealer": (Reveal("shapes", to, "the shapes of the randomness it makes", "size"),),
    }


MATCHERS = [
    {"silo": "lender", "dataset": "loans", "key": "email"},
    {"silo": "platform", "dataset": "usage", "key": "email"},
]
"""The owners of a job that matches rows."""


def request(**changes: Any) -> dict[str, Any]:
    """A short request that is acceptable, with top-level changes."""
    return {
        "purpose": "credit risk",
        "dealer": "dealer",
        "parties": [
            {
                "silo": "lender",
                "dataset": "loans",
                "key": "email",
                "label": "default",
                "features": ["LIMIT_BAL", {"column": "SEX", "as": "category"}],
            },
            {"silo": "platform", "dataset": "usage", "key": "email", "features": ["VISITS"]},
        ],
        **changes,
    }


def make_spec(*, job: str = JOB, now: dt.datetime = NOW, **changes: Any) -> Spec:
    """The request's spec at a fixed time, with fixed id and salt."""
    return build_spec(request(**changes), job=job, now=now, salt=SALT)


RULE = {
    "name": "credit-model",
    "dataset": "loans",
    "partners": ["platform"],
    "dealers": ["dealer"],
    "kinds": ["vertical.glm"],
    "purposes": ["credit risk"],
    "join": ["email"],
    "label": ["default"],
    "train": ["LIMIT_BAL", "SEX"],
    "release": ["coefficients", "auc", "counts"],
}


def policy_text(rule: Mapping[str, Any], pins: Mapping[str, str], minimum: int = 100, dealer_for: Any = ()) -> str:
    """A policy file with one rule."""
    lines = ["version = 1", f"minimum_matches = {minimum}"]
    for name, pin in pins.items():
        lines += [f"[partners.{name}]", f'fingerprint = "{pin}"']
    if rule:
        lines += ["[[allow]]", *(f"{k} = {v if k == 'expires' else repr(v)}" for k, v in rule.items())]
    if dealer_for:
        lines += ["[dealer]", f"for = {list(dealer_for)!r}"]
    return "\n".join(lines) + "\n"


def write_data(directory: Path) -> dict[str, Path]:
    """The two owners' files."""
    loans, usage = directory / "loans.csv", directory / "usage.csv"
    loans.write_text("email,default,LIMIT_BAL,SEX\na@x.org,0,100,f\nb@x.org,1,,m\nc@x.org,1,300.5,f\n")
    usage.write_text("email,VISITS,CITY\na@x.org,3,Graz\nc@x.org,9,Linz\n")
    return {"lender": loans, "platform": usage}


@dataclass
class World:
    """A running coordinator and silos that have joined it."""

    root: Path
    url: str
    coordinator: Path

    def home(self, name: str) -> Home:
        return Home(self.root / name)

    def token(self, name: str, **options: Any) -> str:
        return server.create_token(self.coordinator, name, **options)

    async def enrol(self, name: str) -> str:
        """Make a home and join; returns the fingerprint."""
        identity = init_home(self.root / name, name)
        await join(self.home(name), self.url, self.token(name))
        return identity.fingerprint

    def set_policy(self, name: str, pins: Mapping[str, str], **rule: Any) -> None:
        """Permit the usual job at one silo, with changes to the rule."""
        others = {k: v for k, v in pins.items() if k != name}
        if name == "dealer":
            text = policy_text({}, others, dealer_for=["lender", "platform"])
        elif name == "platform":
            usage = {**RULE, "dataset": "usage", "partners": ["lender"], "label": [], "train": ["*"], **rule}
            text = policy_text(usage, others)
        else:
            text = policy_text({**RULE, **rule}, others)
        write_private(self.home(name).policy, text)
        policy.load(self.home(name).policy)

    async def submit(self, spec: Spec, submitter: str = "lender", shown: dict[str, Any] | None = None) -> str:
        home = self.home(submitter)
        record = diary.Diary(home.job(spec.job), submitter, spec.job, spec_digest(spec), home.load_identity())
        async with connect(home) as client:
            return await diary.submit(client, record, spec.document(), shown or disclosure(spec, registry))

    async def heard(self, client: CoordinatorClient, job: str, silo: str, said: str) -> None:
        """Wait until a silo has made a statement about a job."""
        async with asyncio.timeout(BOUND_S), client.events(job) as events:
            entries = (await client.job(job))["entries"]
            statements = [parse(base64.b64decode(entry["envelope"])).statement for entry in entries]
            if (silo, said) not in [(s.silo, s.event) for s in statements]:
                async for event in events:
                    if (event.get("silo"), event.get("event")) == (silo, said):
                        break

    async def until(self, client: CoordinatorClient, job: str, states: set[str]) -> dict[str, Any]:
        """Wait for a job to come into one of some states."""
        async with asyncio.timeout(BOUND_S), client.events(job) as events:
            if (await client.job(job))["state"] not in states:
                async for event in events:
                    if event.get("state") in states:
                        break
        return await client.job(job)


@asynccontextmanager
async def coordinator_world(root: Path) -> AsyncIterator[World]:
    """A coordinator without silos."""
    home = root / "coordinator"
    server.init_home(home, ["127.0.0.1"], "test/log")
    async with server.running(home, "127.0.0.1", 0) as running:
        yield World(root, f"https://127.0.0.1:{running.port}", home)


@asynccontextmanager
async def enrolled_world(root: Path) -> AsyncIterator[World]:
    """A coordinator, two owners with data and a dealer, all with policies that permit the usual job."""
    async with coordinator_world(root) as world:
        pins = {name: await world.enrol(name) for name in SILOS}
        for name in SILOS:
            world.set_policy(name, pins)
        files = write_data(root)
        catalogue.add(world.home("lender").catalogue, "loans", files["lender"], "email")
        catalogue.add(world.home("platform").catalogue, "usage", files["platform"], "email")
        yield world


@asynccontextmanager
async def running_nodes(world: World, *names: str) -> AsyncIterator[None]:
    """The nodes of some silos, stopped in order at the end."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(Node(world.home(name), registry).run(stop)) for name in names]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)
