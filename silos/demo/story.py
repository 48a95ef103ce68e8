"""The demonstration's story: a request that is refused, one that a person approves, its result, and the evidence."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from coordinator.cosign import cosignatures
from silos import approvals, results
from silos.approvals_text import text as question
from silos.client import connect
from silos.compliance import document
from silos.compliance_html import html
from silos.compliance_pdf import pdf
from silos.demo.reference import reference
from silos.demo.run import DATASETS, HERE, World, export, job_costs, verify, watch
from silos.request import load_request
from silos.spec import Glm, Spec

PERSON = "Ana Ruiz"
LOOK_S = 0.2
WITNESS_S = 20.0


def tell(made: World, request: Path) -> int:
    """Play it; returns the exit code."""
    console = made.console
    spec = load_request(request)
    if not isinstance(spec, Glm):
        raise TypeError(f"the demonstration trains a model; {request} does not")
    refused = asyncio.run(ask_for_too_much(made, request))
    passphrase = secrets.token_urlsafe(16)
    ask_a_person(made, passphrase)
    console.print(
        "\nThe analyst submits one job: align by e-mail → train on both silos' columns → evaluate on held-out rows → release",
        soft_wrap=True,
    )
    start = time.monotonic()
    view = asyncio.run(with_approval(made, spec, passphrase))
    seconds = time.monotonic() - start
    if view["state"] != "done":
        console.print(f"[red]the job is {view['state']}: {view['reason']}[/red]")
        return 1
    paths = {silo: {"path": str(HERE / file), "format": "parquet"} for silo, (_, file) in DATASETS.items()}
    clear = reference(spec, paths)
    released = {silo: results.read_result(made.home(silo).result(spec.job))["result"] for silo in DATASETS}
    _table(console, spec, view, released, clear, seconds)
    return 0 if _evidence(made, spec) and refused["state"] == "refused" else 1


async def ask_for_too_much(made: World, request: Path) -> dict[str, Any]:
    """The same request for a purpose that no policy allows."""
    made.console.print("\n[bold]A request that goes too far[/bold]")
    wrong = made.root / "marketing.toml"
    text = request.read_text(encoding="utf-8").replace('purpose = "credit risk"', 'purpose = "marketing"')
    wrong.write_text(text, encoding="utf-8")
    _, view = await watch(made, load_request(wrong))
    made.console.print(f"  {view['reason']}", markup=False, soft_wrap=True)
    return view


def ask_a_person(made: World, passphrase: str) -> None:
    """From now on the lender's policy wants a person's yes."""
    home = made.home("lender")
    lines = _accord(passphrase, "approver", "new", PERSON, "--home", str(home.root))
    policy = home.policy.read_text(encoding="utf-8").replace(
        '\nname = "credit-model"\n', '\nname = "credit-model"\napproval = 1\n'
    )
    home.policy.write_text(f"{policy}\n{lines}", encoding="utf-8")
    made.console.print("\n[bold]A person decides[/bold]")
    made.say(f"lender's policy now wants a yes of {PERSON}, who has a key of her own")


async def with_approval(made: World, spec: Spec, passphrase: str) -> dict[str, Any]:
    """The job, and beside it the person who is asked about it."""
    home = made.home("lender")

    async def answer() -> None:
        while not any(one.job == spec.job for one in approvals.all_pending(home)):  # noqa: ASYNC110 - another process asks
            await asyncio.sleep(LOOK_S)
        asked = question(approvals.read_pending(home, spec.job))
        made.console.print("\n".join(f"  | {line}" for line in asked.splitlines()), markup=False, soft_wrap=True)
        command = ("job", "approve", spec.job, "--home", str(home.root), "--as", PERSON, "--yes")
        said = await asyncio.to_thread(_accord, passphrase, *command)
        made.say(said.strip().splitlines()[-1])

    watching, answering = asyncio.create_task(watch(made, spec)), asyncio.create_task(answer())
    try:
        await asyncio.wait({watching, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not watching.done():
            await answering
        return (await watching)[1]
    finally:
        for task in (watching, answering):
            task.cancel()
        await asyncio.gather(watching, answering, return_exceptions=True)


def _accord(passphrase: str, *arguments: str) -> str:
    """Run an `accord` command as a person would; returns what it prints."""
    return subprocess.run(
        [sys.executable, "-m", "silos.cli", *arguments],
        env={**os.environ, "ACCORD_PASSPHRASE": passphrase},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout


# --- the result


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


# --- the evidence


def _evidence(made: World, spec: Spec) -> bool:
    """Export, verify and report; then three forgeries.  Whether the honest bundle holds and no forged one does."""
    console = made.console
    console.print("\n[bold]Evidence[/bold]")
    path = made.root / "bundle.zip"
    asyncio.run(_cosigned(made))
    honest = export(made, spec, path)
    for check in (check for check in honest.checks if not (check.ok and check.name.startswith("entry "))):
        console.print(f"  {'✓' if check.ok else '✗'} {check.name}: {check.detail}", markup=False, soft_wrap=True)
    console.print("bundle verified" if honest.ok else f"bundle REFUSED: {honest.reason}", markup=False)
    report = document(honest, path)
    page, paper = made.root / "report.html", made.root / "report.pdf"
    page.write_text(html(report), encoding="utf-8")
    paper.write_bytes(pdf(report))
    sizes = f"{page.stat().st_size / 1000:.0f} kB and {paper.stat().st_size / 1000:.0f} kB"
    console.print(f"\nCompliance report: {page.name} and {paper.name}, {sizes} (kept with --keep)", markup=False)
    refused = True
    for name, forge in FORGERIES.items():
        copy = made.root / "tampered.zip"
        tamper(path, copy, spec.job, forge)
        forged = verify(made, spec, copy)
        refused = refused and not forged.ok
        console.print(f"\nA copy with {name}:", markup=False)
        console.print(
            "bundle verified" if forged.ok else f"bundle REFUSED: {forged.reason}", markup=False, soft_wrap=True
        )
    return honest.ok and refused


async def _cosigned(made: World) -> None:
    """Wait until every silo has cosigned the log as it stands, which they do by themselves when a job is over."""
    async with connect(made.home("lender")) as client:
        for _ in range(round(WITNESS_S / LOOK_S)):
            if len(cosignatures(await client.checkpoint())) == len(made.silos):
                return
            await asyncio.sleep(LOOK_S)


def tamper(source: Path, target: Path, job: str, forge: Callable[[list[bytes]], list[bytes]]) -> None:
    """Copy a bundle with the lines of a job's entries changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == f"jobs/{job}":
                content = b"".join(forge(content.splitlines(keepends=True)))
            new.writestr(name, content)


def one_bit(lines: list[bytes]) -> list[bytes]:
    """One bit of one entry is another."""
    line = bytearray(lines[len(lines) // 2])
    line[len(line) // 2] ^= 1
    return [*lines[: len(lines) // 2], bytes(line), *lines[len(lines) // 2 + 1 :]]


def one_missing(lines: list[bytes]) -> list[bytes]:
    """A consent is left out."""
    return [*lines[:2], *lines[3:]]


def two_swapped(lines: list[bytes]) -> list[bytes]:
    """Two entries have each other's place."""
    (one, first), (other, second) = (line.split(b" ", 1) for line in lines[2:4])
    return [*lines[:2], one + b" " + second, other + b" " + first, *lines[4:]]


FORGERIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "one bit of one entry changed": one_bit,
    "a consent left out": one_missing,
    "two entries in each other's place": two_swapped,
}
