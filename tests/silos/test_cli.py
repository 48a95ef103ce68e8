"""The command line: everything documented, one sentence per error, exit codes, JSON for programs, light imports."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from silos import catalogue, disclosure
from silos.cli import app, main
from silos.config import init_home
from silos.spec_parts import Randomness
from tests.silos.world import JOB, coordinator_world, enrolled_world, registry, request, running_nodes, write_data

EXPECTED = {
    "demo",
    *(f"coordinator {c}" for c in ("init", "serve", "token", "silos", "revoke", "tiles", "export")),
    *(f"silo {c}" for c in ("init", "join", "serve", "status", "partners", "pin", "rotate")),
    *(f"dataset {c}" for c in ("add", "list", "prove", "check")),
    *(f"job {c}" for c in ("submit", "watch", "show", "list", "result", "summary", "report", "cancel")),
    *(f"job {c}" for c in ("pending", "approve", "deny", "withdraw")),
    "approver new",
    "approvals serve",
    *(f"policy {c}" for c in ("check", "explain", "simulate", "schema")),
    *(f"budget {c}" for c in ("show", "history")),
    *(f"model {c}" for c in ("list", "show", "card", "export", "delete", "drift", "scorecard")),
    *(f"match {c}" for c in ("run", "preview", "result")),
    *(f"audit {c}" for c in ("export", "checkpoint", "verify", "script", "proof", "report")),
}


def commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


ALL = dict(commands(typer.main.get_command(app)))


def run(*arguments: object) -> int:
    """The exit code of `accord ...`, as the console script has it."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as exc:
        return int(exc.code or 0)


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCORD_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    init_home(tmp_path / "lender", "lender")
    return tmp_path / "lender"


def test_these_are_the_commands() -> None:
    assert set(ALL) == EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_command_argument_and_option_is_documented(name: str) -> None:
    command = ALL[name]
    assert command.help
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []
    shown = CliRunner().invoke(app, [*name.split(), "--help"])
    assert shown.exit_code == 0
    assert command.help.splitlines()[0][:30] in shown.output


@pytest.mark.parametrize(
    "name",
    sorted(
        n
        for n in EXPECTED
        if n.split()[-1]
        in (
            "list",
            "show",
            "result",
            "status",
            "partners",
            "silos",
            "token",
            "submit",
            "watch",
            "add",
            "verify",
            "run",
            "preview",
        )
    ),
)
def test_every_command_that_prints_data_can_print_json(name: str) -> None:
    assert any("--json" in p.opts for p in ALL[name].params)


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["silo", "status"], ["job", "show", "--home", "x"], ["silo", "init", "x", "--home", "y", "--bad"]],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    assert run(*arguments) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["silo", "init", "Lender", "--home", "{tmp}/new"], "the configuration: 'name' does not have the form"),
        (["silo", "init", "lender", "--home", "{home}"], "a silo lives in {home} already"),
        (["silo", "status", "--home", "{tmp}/none"], "{tmp}/none is not a silo's home"),
        (["silo", "partners", "--home", "{home}"], "the silo in {home} has not joined a coordinator"),
        (["silo", "serve", "--home", "{home}"], "the silo in {home} has not joined a coordinator"),
        (["silo", "join", "x", "--url", "https://h:1", "--home", "{home}"], "this is not a join token"),
        (["silo", "pin", "platform", "ab", "--home", "{home}"], "'partners.platform.fingerprint' does not have the"),
        (["dataset", "add", "d1", "{tmp}/none.csv", "--key", "email", "--home", "{home}"], "does not exist"),
        (["dataset", "add", "d1", "{tmp}/loans.csv", "--key", "mail", "--home", "{home}"], "did you mean 'email'?"),
        (["job", "submit", "{tmp}/none.toml", "--home", "{home}"], "none.toml cannot be read: No such file"),
        (["job", "submit", "{tmp}/bad.json", "--home", "{home}"], "the job spec: 'purpose' must be text, got 3"),
        (["job", "result", JOB, "--home", "{home}"], f"there is no result of job {JOB} here"),
        (["job", "result", "../../x", "--home", "{home}"], "'../../x' is not a job id"),
        (["coordinator", "token", "lender", "--home", "{tmp}/none"], "{tmp}/none"),
    ],
)
def test_an_error_is_one_sentence_and_exit_code_1(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    write_data(tmp_path)
    (tmp_path / "bad.json").write_text(json.dumps(request(purpose=3)))
    assert run(*(a.format(tmp=tmp_path, home=home) for a in arguments)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("accord: ")
    assert sentence.format(tmp=tmp_path, home=home) in said.err
    assert said.err.count("\n") == 1


def test_a_silo_is_set_up_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, pin = tmp_path / "s", "a" * 64
    path = write_data(tmp_path)["lender"]
    assert run("silo", "init", "lender", "--home", root, "--json") == 0
    fingerprint = json.loads(capsys.readouterr().out)["fingerprint"]
    assert run("dataset", "add", "loans", path, "--key", "email", "--home", root) == 0
    assert "data set loans: 3 rows, 4 columns" in capsys.readouterr().out
    assert run("dataset", "list", "--home", root, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["key"] == "email"
    assert run("silo", "pin", "platform", pin, "--home", root) == 0
    capsys.readouterr()
    assert run("silo", "status", "--home", root, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "silo": "lender",
        "fingerprint": fingerprint,
        "coordinator": "",
        "datasets": ["loans"],
        "partners": ["platform"],
        "rules": [],
        "dealer_for": [],
        "helper_for": [],
    }
    assert run("silo", "status", "--home", root) == 0
    assert fingerprint in capsys.readouterr().out


def test_the_home_can_come_from_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCORD_HOME", str(home))
    assert run("dataset", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


async def test_enrolment_from_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with coordinator_world(tmp_path) as world:
        root = tmp_path / "lender"
        assert run("silo", "init", "lender", "--home", root) == 0
        capsys.readouterr()
        assert run("coordinator", "token", "lender", "--home", world.coordinator, "--json") == 0
        token = json.loads(capsys.readouterr().out)["token"]
        assert await asyncio.to_thread(run, "silo", "join", token, "--url", world.url, "--home", root) == 0
        assert capsys.readouterr().out == f"lender has joined {world.url}\n"
        assert await asyncio.to_thread(run, "silo", "join", token, "--url", world.url, "--home", root) == 1
        assert capsys.readouterr().err == "accord: the join token has been used already\n"
        assert await asyncio.to_thread(run, "silo", "partners", "--home", root, "--json") == 0
        (partner,) = json.loads(capsys.readouterr().out)
        assert (partner["silo"], partner["pinned"]) == ("lender", "no")
        assert run("coordinator", "silos", "--home", world.coordinator, "--json") == 0
        (silo,) = json.loads(capsys.readouterr().out)
        assert (silo["fingerprint"], silo["revoked"]) == (partner["fingerprint"], False)
        assert run("coordinator", "revoke", "lender", "--home", world.coordinator) == 0
        assert run("coordinator", "revoke", "nobody", "--home", world.coordinator) == 1


async def test_a_job_from_submission_to_its_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disclosure, "disclosure", partial(disclosure.disclosure, registry=registry))
    async with enrolled_world(tmp_path) as world:

        async def accord(*arguments: object) -> tuple[int, str, str]:
            code = await asyncio.to_thread(run, *arguments, "--home", world.home("lender").root)
            said = capsys.readouterr()
            return code, said.out, said.err

        file = tmp_path / "job.json"
        file.write_text(json.dumps(request(dealer="stranger")))
        code, _, err = await accord("job", "submit", file)
        assert (code, err) == (1, "accord: the job names 'stranger', which is not enrolled\n")
        file.write_text(json.dumps(request(purpose="marketing")))
        code, out, _ = await accord("job", "submit", file, "--dry-run")
        assert code == 0
        assert out.startswith("lender learns\n")
        assert json.loads((await accord("job", "list", "--json"))[1]) == []
        code, out, _ = await accord("job", "submit", file, "--json")
        job = json.loads(out)["job"]
        async with running_nodes(world, "platform"):
            code, out, err = await accord("job", "watch", job, "--json")
        assert code == 1
        assert json.loads(out)["state"] == "refused"
        sentence = "policy of platform, rule 'credit-model': purpose 'marketing' is not allowed"
        assert f"accord: job {job} is refused: platform refused: {sentence}" in err
        code, out, _ = await accord("job", "show", job)
        assert code == 0
        assert "refused" in out
        assert "platform learns" in out
        code, _, err = await accord("job", "cancel", job)
        assert code == 1
        assert err == "accord: a job that is refused takes no 'cancelled' entry\n"
        code, _, err = await accord("job", "show", "f" * 32)
        assert (code, err) == (1, "accord: there is no such job\n")


def test_the_demonstration_offers_every_source_of_randomness(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "--help") == 0
    assert f"--randomness <{'|'.join(get_args(Randomness))}>" in capsys.readouterr().out


def test_a_changed_data_set_is_registered_anew_on_request(tmp_path: Path, home: Path) -> None:
    path = write_data(tmp_path)["lender"]
    add = ["dataset", "add", "loans", path, "--key", "email", "--home", home]
    assert [run(*add), run(*add), run(*add, "--replace")] == [0, 1, 0]
    assert len(catalogue.load(home / "catalogue.toml").datasets) == 1


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'torch', 'numpy', 'mpc', 'crypten', 'duckdb', 'pyarrow', 'sklearn'}:
            raise ImportError(f'{name} must not be imported here')
sys.meta_path.insert(0, Block())
from silos.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["coordinator", "serve", "--help"], ["coordinator", "token", "lender", "--home", "{home}"]],
)
def test_the_operators_commands_load_no_numerical_or_protocol_code(tmp_path: Path, arguments: list[str]) -> None:
    place = tmp_path / "coordinator"
    assert run("coordinator", "init", "--host", "127.0.0.1", "--home", place) == 0
    command = [sys.executable, "-c", BLOCKED, *(a.format(home=place) for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
