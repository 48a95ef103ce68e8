"""The commands `accord audit ...` and `accord coordinator export` against a real coordinator."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import pytest

from silos import verify
from silos.cli import main as accord
from silos.proofs import entry_of
from silos.spec import Spec
from silos.times import utcnow
from tests.silos import bundles
from tests.silos.bundles import FILES, JOB, LOG, write
from tests.silos.world import enrolled_world, make_spec


def run(*arguments: object) -> int:
    try:
        return accord([str(argument) for argument in arguments])
    except SystemExit as stopped:
        return int(stopped.code or 0)


def fresh() -> Spec:
    return make_spec(job=uuid.uuid4().hex, now=utcnow())


async def test_several_jobs_are_exported_by_a_silo_and_by_the_operator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, some, everything = tmp_path / "kept", tmp_path / "some.zip", tmp_path / "all.zip"
    async with enrolled_world(tmp_path) as world:
        home = world.home("lender").root

        async def audit(*arguments: object) -> int:
            return await asyncio.to_thread(run, "audit", *arguments, "--home", home)

        first = await world.submit(fresh())
        assert await audit("checkpoint", "-o", kept) == 0
        second = await world.submit(fresh())
        third = await world.submit(fresh(), submitter="platform")
        capsys.readouterr()
        assert await audit("export", "--since", kept, "-o", some, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["jobs"], told["entries"]) == (sorted([second, third]), 6)
        assert await audit("export", "--from", "2001-01-01T00:00:00Z", "--to", "2999-01-01T00:00:00Z", "-o", some) == 0
        assert capsys.readouterr().out == f"bundle of 8 entries of 3 jobs written to {some}\n"
        assert await audit("export", "--since", "7", "-o", some) == 0
        assert capsys.readouterr().out == f"bundle of 3 entries written to {some}\n"
        for wrong in (["--from", "yesterday"], [], [first, "--since", "3"], [first, "--to", "2999-01-01T00:00:00Z"]):
            assert await audit("export", *wrong, "-o", some) == 2
        options = ("-o", everything, "--home", world.coordinator)
        assert await asyncio.to_thread(run, "coordinator", "export", *options) == 0
    capsys.readouterr()
    assert run("audit", "verify", everything, "--allow-unfinished", "--since", kept) == 0
    assert capsys.readouterr().out.endswith("\n3 jobs: 3 disclosed\n\nbundle verified\n")
    assert run("audit", "verify", everything) == 1
    report = tmp_path / "report.html"
    assert run("audit", "report", everything, "-o", report) == 1
    assert "NOT verified: " in report.read_text(encoding="utf-8")
    assert run("audit", "report", everything, "-o", report, "--allow-unfinished") == 0
    page = report.read_text(encoding="utf-8")
    assert "Compliance report, 3 jobs" in page
    assert "Verified: " in page
    with zipfile.ZipFile(everything) as archive:
        assert sorted(n for n in archive.namelist() if n.startswith("jobs/")) == sorted(
            f"jobs/{job}" for job in (first, second, third)
        )
        assert archive.read("hashes") == b"", "nothing is left out, not even the key of the dealer, who said nothing"
    with zipfile.ZipFile(some) as archive:
        assert archive.read("roster").count(b"\n") == 1


def test_the_script_is_the_verifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, bundle = tmp_path / "verify.py", write(tmp_path, FILES)
    assert run("audit", "script", "-o", script) == 0
    assert script.read_bytes() == Path(verify.__file__).read_bytes()
    assert capsys.readouterr().out == f"verifier written to {script}; run it with: python {script} BUNDLE.zip\n"
    done = subprocess.run([sys.executable, "-I", script, bundle], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\nbundle verified\n")


def test_a_proof_has_the_standard_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path itself is checked by programs of others, in tests/independent."""
    bundle, proof, envelope = write(tmp_path, FILES), tmp_path / "8.tlog-proof", tmp_path / "8.json"
    assert run("audit", "proof", bundle, 8, "-o", proof, "--envelope", envelope) == 0
    path = [bundles.b64(h) for h in bundles.path(8, LOG.entries)]
    lines = ["c2sp.org/tlog-proof@v1", "index 8", *path, "", bundles.checkpoint(LOG.entries)]
    assert proof.read_text(encoding="utf-8") == "\n".join(lines)
    assert envelope.read_bytes() == LOG.entries[8]
    for index in (
        i for i, e in enumerate(LOG.entries) if b"%d %s\n" % (i, e) in FILES["roster"] + FILES[f"jobs/{JOB}"]
    ):
        path = [bundles.b64(h) for h in bundles.path(index, LOG.entries)]
        assert entry_of(bundle, index).proof.split("\n")[2:-7] == path
    capsys.readouterr()
    assert run("audit", "proof", bundle, 0, "-o", proof) == 1
    assert capsys.readouterr().err == "accord: bundle.zip does not hold entry 0\n"
    write(tmp_path, bundles.with_entry(FILES, 8, b"{}"))
    assert run("audit", "proof", bundle, 8, "-o", proof) == 1
    assert "the bundle is not of this log" in capsys.readouterr().err
