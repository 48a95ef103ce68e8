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
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from coordinator import server
from silos import bundle, catalogue, config, diary, enrol, policy, results
from silos.client import CoordinatorClient, connect
from silos.commands.job import statements
from silos.commands.watch import watch_job
from silos.config import Home
from silos.disclosure import disclosure, render
from silos.errors import JobFailed, SiloError
from silos.request import load_request
from silos.spec import Glm, Spec, spec_digest
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
"""
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
            text.write(_RULE.format(dataset=name, partner=partner, dealers=json.dumps(dealers), label=label))
        made.say(f"{silo} registered '{name}': {data.rows:,} rows, {len(data.columns)} columns; policy in policy.toml")
    for dealer in dealers:
        with made.home(dealer).policy.open("a", encoding="utf-8") as text:
            text.write(_DEALER_RULE)


async def run_job(made: World, request: Path, watcher: str = "lender") -> tuple[Spec, dict[str, Any]]:
    """Submit a request as an analyst at `watcher` and follow it to its end; returns the spec and the final view."""
    home, spec = made.home(watcher), load_request(request)
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


def tamper(source: Path, target: Path) -> str:
    """Copy a bundle with one bit of one signed entry changed; returns that member's name."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        entries = [name for name in old.namelist() if name.startswith("entries/")]
        changed = entries[len(entries) // 2]
        for name in old.namelist():
            content = bytearray(old.read(name))
            if name == changed:
                content[len(content) // 2] ^= 1
            new.writestr(name, bytes(content))
    return changed


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
            return _story(made, write_request(root, randomness))
    finally:
        warming.kill()
        warming.wait()
        if keep is None:
            shutil.rmtree(root)
        else:
            console.print(f"everything is in {root}", soft_wrap=True)


def _story(made: World, request: Path) -> int:
    from silos.demo.reference import reference

    console = made.console
    console.print(
        "\nThe analyst submits one job: align by e-mail → train on both silos' columns → evaluate on held-out rows → release",
        soft_wrap=True,
    )
    start = time.monotonic()
    spec, view = asyncio.run(run_job(made, request))
    seconds = time.monotonic() - start
    if view["state"] != "done":
        console.print(f"[red]the job is {view['state']}: {view['reason']}[/red]")
        return 1
    if not isinstance(spec, Glm):
        raise TypeError(f"the demonstration trains a model; {request} does not")
    paths = {silo: {"path": str(HERE / file), "format": "parquet"} for silo, (_, file) in DATASETS.items()}
    clear = reference(spec, paths)
    released = {silo: results.read_result(made.home(silo).result(spec.job))["result"] for silo in DATASETS}
    _table(console, spec, view, released, clear, seconds)
    console.print("\n[bold]Who learned what[/bold]")
    console.print("\n".join(render(disclosure(spec))), markup=False, soft_wrap=True)
    console.print("\n[bold]Evidence[/bold]")
    path, copy = made.root / "bundle.zip", made.root / "tampered.zip"
    honest = export(made, spec, path)
    for check in honest.checks:
        console.print(f"  {'✓' if check.ok else '✗'} {check.name}: {check.detail}", markup=False, soft_wrap=True)
    console.print("bundle verified" if honest.ok else f"bundle REFUSED: {honest.reason}", markup=False)
    changed = tamper(path, copy)
    forged = verify(made, spec, copy)
    console.print(f"\nA copy with one bit of {changed} changed:", markup=False)
    console.print("bundle verified" if forged.ok else f"bundle REFUSED: {forged.reason}", markup=False, soft_wrap=True)
    return 0 if honest.ok and not forged.ok else 1


def _table(
    console: Console, spec: Glm, view: dict[str, Any], released: dict[str, Any], clear: Any, seconds: float
) -> None:
    costs = job_costs(view)
    title = "One logistic regression over both organisations' columns"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    rows = released[spec.active]["rows"]
    table.add_row("rows matched", f"{rows['matched']:,}")
    table.add_row("of these trained on / held out", f"{rows['training']:,} / {rows['held_out']:,}")
    for silo in spec.owners:
        inputs = len(released[silo]["model"]["inputs"])
        table.add_row(f"AUC, {silo} alone ({inputs} inputs and the label)", f"{clear.alone[silo]:.4f}")
    table.add_row("[bold]AUC, together under MPC[/bold]", f"[bold]{released[spec.active]['auc']}[/bold]")
    table.add_row("AUC, same model in the clear (scikit-learn)", f"{clear.joint:.4f}")
    table.add_row("seconds, from submission to the last release", f"{seconds:.1f}")
    for stage in ("align", "train", "evaluate"):
        table.add_row(f"  of these {stage}", costs[spec.active]["seconds"].get(stage, "-"))
    table.add_row("communication rounds", str(costs[spec.active]["rounds"]))
    names = spec.participants
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            total = costs[one]["bytes_sent"].get(other, 0) + costs[other]["bytes_sent"].get(one, 0)
            table.add_row(f"MB between {one} and {other}", f"{total / 1e6:.2f}")
    table.add_row("correlated randomness from", spec.randomness)
    for kind, used in sorted(costs[spec.active]["randomness"].items()):
        amount = f"{used['correlations']:,} / {used['words']:,}"
        table.add_row(f"  {kind}: correlations / words at {spec.active}", amount)
    table.add_row("peak memory of a worker, MiB", str(max(costs[n]["peak_mib"] for n in names)))
    console.print()
    console.print(table)


def job_costs(view: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each participant's `finished` statement says the job cost."""
    return {s["silo"]: s["body"]["cost"] for s in statements(view) if s["event"] == "finished"}
