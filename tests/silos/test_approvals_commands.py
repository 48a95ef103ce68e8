"""Persons at the command line: they are shown the job, and their answer is taken or refused in one sentence."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from silos.approvals import all_pending, approver_keys, read_pending, said
from silos.approvers import load_key, public_text
from silos.commands import approve, job
from silos.errors import SiloError
from tests.silos.approvals_world import ANA, BO, PASSPHRASE, Desk, desk, keep_keys, key_files, public
from tests.silos.world import BOUND_S, JOB


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCORD_HOME", raising=False)
    monkeypatch.delenv("ACCORD_PASSPHRASE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    """A job that waits for two persons whose keys are in the home; no node runs any more."""

    async def ask(at: Desk) -> None:
        waiting = asyncio.create_task(at.wait(2))
        await at.asked()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    with desk(tmp_path, purpose="credit\x1b[2Jrisk") as made:
        keep_keys(made.home)
        asyncio.run(ask(made))
        yield made


def run(app: typer.Typer, *arguments: object, text: str = "") -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], input=text)


def refused(result: Result, sentence: str) -> None:
    assert isinstance(result.exception, SiloError), result.output
    assert str(result.exception) == sentence


def test_a_new_approver_gets_a_key_and_the_policy_its_lines(at: Desk, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE + "\n")
    made = run(approve.approver_app, "Carla Núñez", "--home", at.home.root, "--passphrase-file", secret)
    assert made.exit_code == 0, made.output
    path = next((at.home.root / "approvers").glob("carla-nunez-*.key"))
    key = public_text(load_key(path, PASSPHRASE))
    assert made.stdout == f'[approvers."Carla Núñez"]\nkey = "{key}"\n'
    assert made.stderr == f"the key of Carla Núñez is {path}; the policy needs these lines:\n"
    elsewhere = tmp_path / "carla.key"
    typed = f"{PASSPHRASE}\n{PASSPHRASE}\n"
    made = run(approve.approver_app, "Carla Núñez", "-o", elsewhere, "--json", text=typed)
    assert made.exit_code == 0, made.output
    document = json.loads(made.stdout[made.stdout.index("{") :])
    assert document == {
        "name": "Carla Núñez",
        "file": str(elsewhere),
        "key": public_text(load_key(elsewhere, PASSPHRASE)),
    }
    assert PASSPHRASE not in made.output
    refused(run(approve.approver_app, "Carla"), "it is not said where the key goes; use --home or --output")


def test_waiting_jobs_are_listed(at: Desk) -> None:
    shown = run(job.app, "pending", "--home", at.home.root)
    assert shown.exit_code == 0
    for cell in (JOB, "platform", "vertical.glm", "credit\\u001b[2Jrisk", "0 of 2"):
        assert cell in shown.stdout
    (row,) = json.loads(run(job.app, "pending", "--home", at.home.root, "--json").stdout)
    assert (row["job"], row["needed"], row["approved_by"]) == (JOB, 2, [])
    assert row["spec_digest"] == at.job.spec_digest


def test_a_person_is_shown_the_job_and_asked(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_PASSPHRASE", PASSPHRASE)
    arguments = ("approve", JOB, "--home", at.home.root, "--as", ANA)
    doubt = run(job.app, *arguments, text="n\n")
    assert doubt.exit_code == 1
    assert "What the columns of lender are used for" in doubt.stdout
    assert "Ana Ruiz, do you approve this job? [y/N]" in doubt.stdout
    assert "\x1b" not in doubt.stdout
    assert said(at.home, read_pending(at.home, JOB), public()) == []
    done = run(job.app, *arguments, text="y\n")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith(f"Ana Ruiz has approved job {JOB}; 1 more must\n")
    refused(run(job.app, *arguments, "--yes"), f"Ana Ruiz has approved job {JOB} already")
    line = f"waiting for approval by 1 person at lender; run 'accord job approve {JOB}'"
    assert approve.waiting_line(at.home, JOB) == line
    again = run(job.app, "approve", JOB, "--home", at.home.root, "--as", BO, text="n\n")
    assert "\nAna Ruiz approved it on 20" in again.stdout
    key = next(key_files().glob("bo-*"))
    typed = run(job.app, "approve", JOB, "--home", at.home.root, "--as", BO, "--key", key, "-y", text="")
    assert typed.exit_code == 0, typed.output
    assert typed.stdout.endswith(f"{BO} has approved job {JOB}\n")
    assert [one.name for one in said(at.home, read_pending(at.home, JOB), approver_keys(at.home))] == [ANA, BO]
    assert approve.waiting_line(at.home, JOB) == ""
    assert approve.waiting_line(at.home, "f" * 32) == ""


def test_a_wrong_passphrase_says_nothing_more(at: Desk) -> None:
    answer = run(job.app, "approve", JOB, "--home", at.home.root, "--as", ANA, "--yes", text="something else\n")
    path = next((at.home.root / "approvers").glob("ana-*"))
    refused(answer, f"the passphrase does not open {path}")
    assert "something else" not in answer.output
    nobody = run(job.app, "approve", "f" * 32, "--home", at.home.root, "--as", ANA)
    refused(nobody, f"job {'f' * 32} does not wait for an approval here")


def test_the_page_is_served_until_it_is_told_to_stop(at: Desk) -> None:
    command = [sys.executable, "-m", "silos.cli", "approvals", "serve", "--home", str(at.home.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        said, address = process.stdout.readline().split()
        assert said == "open"
        with urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(address, timeout=BOUND_S) as reply:
            assert "Jobs that wait for approval at lender" in reply.read().decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_S) == 0


def test_a_person_says_no(at: Desk) -> None:
    arguments = ("deny", JOB, "--home", at.home.root, "--reason", "the campaign has ended")
    refused(
        run(job.app, *arguments, "--as", "Eve"),
        "the policy of lender does not name 'Eve' as an approver; it names Ana Ruiz, Bo \"B\" Łukasz",
    )
    done = run(job.app, *arguments, "--as", ANA)
    assert (done.exit_code, done.stdout) == (0, f"Ana Ruiz has said no to job {JOB}; the node refuses it\n")
    assert len(all_pending(at.home)) == 1, "it waits for the node, which has the last word"
    refused(
        run(job.app, *arguments, "--as", BO),
        f"job {JOB} has been refused: Ana Ruiz said no: the campaign has ended",
    )


def test_answers_are_told_to_programs(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_PASSPHRASE", PASSPHRASE)
    arguments = ("approve", JOB, "--home", at.home.root, "--as", ANA, "--json", "--yes")
    done = run(job.app, *arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"job": JOB, "approved_by": ANA, "missing": 1}
    assert "What the columns of lender are used for" in done.stderr, "a person is shown the job all the same"
    no = run(job.app, "deny", JOB, "--home", at.home.root, "--as", BO, "--reason", "not agreed", "--json")
    assert json.loads(no.stdout) == {"job": JOB, "denied_by": BO}
