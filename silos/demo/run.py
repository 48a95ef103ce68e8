"""`accord demo`: from nothing to a verified result, with the real programs in separate processes on this machine.

The demonstration plays every part: operator, two data engineers, analyst and auditor.  Only it sees both sides' files, and
only to compute what the model would have been in the clear.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from coordinator import server
from silos import bundle, catalogue, config, diary, enrol, policy
from silos.client import CoordinatorClient, connect
from silos.commands.job import statements
from silos.commands.watch import watch_job
from silos.config import Home
from silos.disclosure import disclosure
from silos.errors import JobFailed, SiloError
from silos.request import load_request
from silos.spec import Spec, spec_digest
from silos.spec_parts import Randomness
from silos.verify import Report, verify_bundle

HERE = Path(__file__).parent
OWNERS = ("lender", "platform")
SILOS = (*OWNERS, "dealer")
DATASETS = {"lender": ("loans", "lender.parquet"), "platform": ("payments", "platform.parquet")}
START_S = 60.0

_RULE = """
[[allow]]
name = "credit-model"
dataset = "{dataset}"
partners = ["{partner}"]
dealers = {dealers}
kinds = ["vertical.glm"]
purposes = ["credit risk"]
join = ["email"]
label = {label}
train = ["*"]
release = ["coefficients", "auc", "counts"]

[record]
controller = "{controller}"
contact = "privacy@{silo}.example"

[datasets.{dataset}]
legal_basis = "{basis}"
categories = {categories}
subjects = ["credit card customers"]
retention_days = 365
transfers = "none"
"""
_RECORDS = {
    "lender": {
        "controller": "Lender Bank plc (demonstration)",
        "basis": "contract, GDPR Art. 6(1)(b)",
        "categories": ["credit limits", "age, sex, education, marital status", "repayment status"],
    },
    "platform": {
        "controller": "Payments Platform Ltd (demonstration)",
        "basis": "legitimate interests, GDPR Art. 6(1)(f)",
        "categories": ["repayment status", "bill amounts", "payments"],
    },
}
_DEALER_RULE = '\n[dealer]\nfor = ["lender", "platform"]\n'


@dataclass
class World:
    """Where everything is, and the processes that run."""

    root: Path
    console: Console
    silos: tuple[str, ...] = SILOS
    url: str = ""
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def home(self, silo: str) -> Home:
        """A silo's home directory."""
        return Home(self.root / silo)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Run an `accord` command in the background, its errors going to a log file."""
        with (self.root / f"{name}.log").open("w") as log:
            command = [sys.executable, "-m", "silos.cli", *arguments]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.processes[name] = process
        return process

    def stop(self) -> None:
        """End all processes, the coordinator last."""
        for process in reversed(self.processes.values()):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def say(self, text: str) -> None:
        """A step that is done."""
        self.console.print(f"[green]✓[/green] {text}", soft_wrap=True)


@contextlib.contextmanager
def world(root: Path, console: Console, silos: tuple[str, ...] = SILOS) -> Iterator[World]:
    """A coordinator, two data owners and, unless `silos` leaves it out, a dealer: enrolled, connected, ready for jobs."""
    made = World(root, console, silos)
    try:
        _start_coordinator(made)
        asyncio.run(_enrol(made))
        _register(made)
        for silo in silos:
            made.start(silo, "silo", "serve", "--home", str(made.home(silo).root))
        count = {2: "two", 3: "three"}.get(len(silos), len(silos))
        made.say(f"{count} silo nodes are running, each its own process; they only connect outwards to the coordinator")
        yield made
    finally:
        made.stop()


def _start_coordinator(made: World) -> None:
    place = made.root / "coordinator"
    server.init_home(place, ["localhost", "127.0.0.1"], "demo.accord/log")
    process = made.start("coordinator", "coordinator", "serve", "--home", str(place), "--port", "0")
    line = process.stdout.readline() if process.stdout is not None else ""
    if "listening on" not in line:
        raise JobFailed("start", f"the coordinator did not start; see {made.root / 'coordinator.log'}")
    made.url = f"https://127.0.0.1:{line.strip().rpartition(':')[2]}"
    made.say(f"coordinator at {made.url}, TLS 1.3 with client certificates")


async def _enrol(made: World) -> None:
    for silo in made.silos:
        home = made.home(silo)
        config.init_home(home.root, silo)
        # A port of its own lets partners connect directly; without one the same bytes go through the relay.
        home.config.write_text(f'version = 1\nname = "{silo}"\nlisten = "127.0.0.1:0"\n', encoding="utf-8")
        token = server.create_token(made.root / "coordinator", silo, 600, False)
        await enrol.join(home, made.url, token)
    for silo in made.silos:
        for partner in made.silos:
            if partner != silo:
                policy.pin(made.home(silo).policy, partner, made.home(partner).load_identity().fingerprint)
    everybody = " and ".join((", ".join(made.silos[:-1]), made.silos[-1]))
    made.say(f"{everybody} enrolled with one-time tokens and pinned each other's keys")


def _register(made: World) -> None:
    dealers = [silo for silo in made.silos if silo not in OWNERS]
    for silo, (name, file) in DATASETS.items():
        home = made.home(silo)
        data = catalogue.add(home.catalogue, name, HERE / file, "email")
        partner = next(s for s in DATASETS if s != silo)
        label = '["default"]' if silo == "lender" else "[]"
        with home.policy.open("a", encoding="utf-8") as text:
            record = {
                key: json.dumps(value) if isinstance(value, list) else value for key, value in _RECORDS[silo].items()
            }
            text.write(
                _RULE.format(
                    silo=silo, dataset=name, partner=partner, dealers=json.dumps(dealers), label=label, **record
                )
            )
        made.say(f"{silo} registered '{name}': {data.rows:,} rows, {len(data.columns)} columns; policy in policy.toml")
    for dealer in dealers:
        with made.home(dealer).policy.open("a", encoding="utf-8") as text:
            text.write(_DEALER_RULE)


async def run_job(made: World, request: Path, watcher: str = "lender") -> tuple[Spec, dict[str, Any]]:
    """Submit a request as an analyst at `watcher` and follow it to its end; returns the spec and the final view."""
    return await watch(made, load_request(request), watcher)


async def watch(made: World, spec: Spec, watcher: str = "lender") -> tuple[Spec, dict[str, Any]]:
    """Submit a job as an analyst at `watcher` and follow it to its end; returns the spec and the final view."""
    home = made.home(watcher)
    record = diary.Diary(home.job(spec.job), watcher, spec.job, spec_digest(spec), home.load_identity())
    async with connect(home) as client:
        await _wait_for_nodes(client, made)
        await diary.submit(client, record, spec.document(), disclosure(spec))
        view = await watch_job(client, spec.job, made.console)
    return spec, view


async def _wait_for_nodes(client: CoordinatorClient, made: World) -> None:
    """Nodes pick up jobs whenever they come; waiting only keeps their start out of the job's seconds."""
    deadline = time.monotonic() + START_S
    for silo in made.silos:
        while "is connected to" not in (made.root / f"{silo}.log").read_text(encoding="utf-8"):
            if made.processes[silo].poll() is not None or time.monotonic() > deadline:
                raise JobFailed("start", f"the node of {silo} did not start; see {made.root / f'{silo}.log'}")
            await asyncio.sleep(0.1)
    await client.roster()


def export(made: World, spec: Spec, path: Path) -> Report:
    """Export the bundle and verify it as an auditor would who knows the log's key and every silo's fingerprint."""

    home = made.home("lender")

    async def fetch() -> None:
        async with connect(home) as client:
            own = [path.read_bytes() for path in sorted((home.job(spec.job) / "entries").glob("[0-9]*.json"))]
            await bundle.export(client, spec.job, path, log_key=home.load_enrolment().log_key, own=own)

    asyncio.run(fetch())
    return verify(made, spec, path)


def verify(made: World, spec: Spec, path: Path) -> Report:
    """Check a bundle offline, with pins and the results that the silos hold."""
    pins = {silo: made.home(silo).load_identity().fingerprint for silo in spec.participants}
    log_key = made.home("lender").load_enrolment().log_key
    return verify_bundle(path, log_key, pins, [made.home(silo).result(spec.job) for silo in DATASETS])


def write_request(root: Path, randomness: Randomness) -> Path:
    """The demonstration's request with its randomness from elsewhere, as a file in `root`."""
    by_dealer = 'dealer = "dealer"\n'
    text = (HERE / "job.toml").read_text(encoding="utf-8")
    if randomness != "dealer":
        text = text.replace(by_dealer, f'randomness = "{randomness}"\n{"" if randomness == "ot" else by_dealer}')
    path = root / "job.toml"
    path.write_text(text, encoding="utf-8")
    return path


def main(keep: Path | None = None, randomness: Randomness = "dealer") -> int:
    """Run the demonstration; returns the exit code.

    keep: leave all homes, logs and the bundle in this directory.  randomness: as in the job spec; with "ot" there is no
    dealer at all.
    """
    from silos.demo import story

    console = Console(highlight=False)
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise SiloError(f"the directory {keep} is not empty")
    root = Path(tempfile.mkdtemp(prefix="accord-demo-")) if keep is None else keep.absolute()
    root.mkdir(parents=True, exist_ok=True)
    warming = subprocess.Popen([sys.executable, "-c", "from mpc.kinds import warm_up; warm_up()"])
    try:
        with world(root, console, OWNERS if randomness == "ot" else SILOS) as made:
            if warming.poll() is None:
                console.print("  loading the numeric kernels (compiled once per installation) …")
                warming.wait()
            return story.tell(made, write_request(root, randomness))
    finally:
        warming.kill()
        warming.wait()
        if keep is None:
            shutil.rmtree(root)
        else:
            console.print(f"everything is in {root}", soft_wrap=True)


def job_costs(view: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each participant's `finished` statement says the job cost."""
    return {s["silo"]: s["body"]["cost"] for s in statements(view) if s["event"] == "finished"}
