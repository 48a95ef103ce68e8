"""`accord match`: what is asked becomes the right job, a preview sends nothing, and results come as tables."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow.parquet as pq
import pytest
import typer
from pyarrow import csv
from rich.console import Console

from silos import catalogue, spec_parts
from silos.asking import Key, Question, Sum, by_partner, parse_key, parse_partners, parse_sum
from silos.cli import app
from silos.commands import watch
from silos.commands.match import Asked
from silos.commands.watch import Bars, Lines, duration
from silos.config import Home, init_home
from silos.errors import ConfigError, SpecError
from silos.estimate import Estimate
from silos.extracts import write_table
from silos.released import Result
from silos.results import write_result
from tests.silos.matching_world import LOANS, fake_matchers, matching_world, nodes
from tests.silos.test_cli import run
from tests.silos.world import JOB

BASIC = ["--with", "platform:usage", "--data", "loans", "--key", "email"]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCORD_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("silos.participation.GRACE_S", 0.5)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A silo that has joined nothing."""
    init_home(tmp_path / "lender", "lender")
    place = Home(tmp_path / "lender")
    (tmp_path / "loans.csv").write_text(LOANS)
    catalogue.add(place.catalogue, "loans", tmp_path / "loans.csv", "email")
    return place


def asked(home: Home, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """The spec of a job that is not submitted."""
    options = [*BASIC, "--purpose", "trial", *arguments]
    assert run("match", "run", *options, "--dry-run", "--json", "--home", home.root) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["job"] == ""
    assert report["disclosure"]["lines"]
    spec: dict[str, Any] = report["spec"]
    return spec


# --- from words to a job


def test_the_shortest_question(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    spec = asked(home, capsys)
    assert (spec["kind"], spec["purpose"]) == ("vertical.match", "trial")
    assert spec["parties"] == [
        {"silo": "lender", "dataset": "loans", "keys": [["email"]], "output": ["email"]},
        {"silo": "platform", "dataset": "usage", "keys": [["email"]], "output": ["email"]},
    ]
    assert spec["align"] == {
        "protocol": "vole-psi",
        "keys": [{"rule": "email/v1", "region": None}],
        "duplicates": "refuse",
        "minimum_matches": 100,
    }
    assert list(home.jobs.iterdir()) == []


def test_every_option_of_a_matching(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--key", "rule=phone/v1,region=CH,columns=phone", "--partner-key", "mail", "--partner-key", "platform:tel"]
    more += ["--protocol", "ecdh-psi", "--duplicates", "expand", "--minimum", 7, "--columns", "LIMIT_BAL,email"]
    more += ["--partner-columns", "VISITS", "--first", "platform", "--release", "rows", "--timeout", 9]
    spec = asked(home, capsys, *more, "--valid-for", 60)
    assert [p["silo"] for p in spec["parties"]] == ["platform", "lender"]
    assert spec["parties"][0] == {
        "silo": "platform",
        "dataset": "usage",
        "keys": [["mail"], ["tel"]],
        "output": ["VISITS"],
    }
    assert spec["parties"][1]["output"] == ["LIMIT_BAL", "email"]
    assert spec["align"] == {
        "protocol": "ecdh-psi",
        "keys": [{"rule": "email/v1", "region": None}, {"rule": "phone/v1", "region": "CH"}],
        "duplicates": "expand",
        "minimum_matches": 7,
    }
    assert (spec["release"], spec["limits"]["timeout_s"]) == (["rows"], 9)


def test_several_partners_and_a_helper(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    spec = asked(home, capsys, "--with", "shop:orders", "--partner-key", "shop:mail", "--helper", "third")
    assert [p["silo"] for p in spec["parties"]] == ["lender", "platform", "shop"]
    assert [p["keys"] for p in spec["parties"]] == [[["email"]], [["email"]], [["mail"]]]
    assert (spec["align"]["protocol"], spec["helper"]) == ("helper-psi", "third")


def test_numbers_only(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    spec = asked(home, capsys, "--count-only", "--dealer", "third", "--round-to", 10)
    assert (spec["kind"], spec["release"], spec["round_to"], spec["dealer"]) == (
        "vertical.measure",
        ["matches"],
        10,
        "third",
    )
    assert asked(home, capsys, "--count-only", "--randomness", "ot", "--epsilon", "0.5")["epsilon"] == "0.5"
    assert asked(home, capsys, "--count-first", "--randomness", "ot")["count_first"] is True
    kept = asked(home, capsys, "--keep-tokens")
    assert (kept["keep_tokens"], kept["align"]["protocol"]) == (True, "oprf-psi")
    assert asked(home, capsys, "--count-only", "--protocol", "ecdh-psi")["randomness"] is None
    sums = ["--sum", "LIMIT_BAL:0:1000:2", "--partner-sum", "platform:VISITS:-5:10", "--randomness", "ot"]
    spec = asked(home, capsys, *sums)
    assert spec["release"] == ["matches", "sums"]
    assert [p["sums"] for p in spec["parties"]] == [
        [{"column": "LIMIT_BAL", "decimals": 2, "lowest": "0", "highest": "1000"}],
        [{"column": "VISITS", "decimals": 0, "lowest": "-5", "highest": "10"}],
    ]


def test_words_have_one_meaning() -> None:
    assert parse_key("a+b") == Key(("a", "b"))
    assert parse_key("columns=a+b,rule=text/v1") == Key(("a", "b"), "text/v1")
    assert Key.of(Key(("a",))) == Key(("a",))
    assert Sum.of("a:0:1.5:1") == Sum("a", "0", "1.5", 1) == Sum.of(Sum("a", "0", "1.5", 1))
    assert parse_partners(["b:x", "a:y"]) == {"b": "x", "a": "y"}
    assert by_partner(["one", "b:two"], ["a", "b"]) == {"a": ["one"], "b": ["one", "two"]}


@pytest.mark.parametrize("text", ["a=b", "rule=,columns=a", "rule=x", "rule=x,rule=y,columns=a", "columns=a,b"])
def test_a_key_that_cannot_be_read_is_one_sentence(text: str) -> None:
    with pytest.raises(SpecError, match=r"^(a key is|the key ')"):
        parse_key(text)


@pytest.mark.parametrize("text", ["a", "a:1", "a:1:2:x", "a:1:2:3:4"])
def test_a_sum_that_cannot_be_read_is_one_sentence(text: str) -> None:
    with pytest.raises(SpecError, match="a sum is 'COLUMN:LOWEST:HIGHEST'"):
        parse_sum(text)


def question(**changes: Any) -> Question:
    given: dict[str, Any] = {"data": "loans", "partners": {"b-1": "d"}, "keys": (Key(("email",)),), "purpose": "x"}
    return Question(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"purpose": ""}, "its purpose is empty"),
        ({"partners": {}}, "at least one partner"),
        ({"keys": ()}, "at least one key"),
        ({"first": "c-1"}, "'c-1' is to be the first owner, but is none of them"),
        ({"partner_keys": {"b-1": [("a",), ("b",)]}}, "b-1 must have 1 keys, as we have, got 2"),
        ({"numbers_only": True, "columns": ("a",)}, "only numbers are told"),
    ],
)
def test_a_question_that_makes_no_sense_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        question(**changes).request("a-1")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--with", "usage"], "a partner is 'SILO:DATASET'"),
        (["--with", "platform:other"], "platform is named as a partner twice"),
        (["--columns", "AGE"], "data set 'loans' has no column 'AGE'"),
        (["--helper", "platform"], "'helper' must have no data in the job"),
        (["--count-only"], "'dealer' must be the name of a silo"),
        (["--with", "shop:orders", "--duplicates", "expand"], "more than two data owners match by one key"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    home: Home, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert run("match", "run", *BASIC, "--purpose", "x", *arguments, "--dry-run", "--home", home.root) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--output", "a.txt"], ["--output", "a.csv", "--no-wait"], ["--round-to", "1"], ["--protocol", "x"]]
)
def test_a_wrong_command_line_is_exit_code_2(home: Home, arguments: list[str]) -> None:
    assert run("match", "run", *BASIC, "--purpose", "x", *arguments, "--home", home.root) == 2


def test_the_choices_are_those_of_a_spec() -> None:
    hints = get_type_hints(Asked, include_extras=False)
    assert set(get_args(get_args(hints["protocol"])[0])) == set(get_args(spec_parts.Matching))
    assert set(get_args(get_args(hints["randomness"])[0])) == set(get_args(spec_parts.Randomness))
    duplicates = spec_parts.Align.model_fields["duplicates"].annotation
    assert set(get_args(get_args(hints["duplicates"])[0])) == set(get_args(duplicates))


def test_run_and_preview_take_the_same_question() -> None:
    group: Any = typer.main.get_command(app)
    options = {name: {p.name for p in group.commands["match"].commands[name].params} for name in ("run", "preview")}
    assert options["run"] & options["preview"] >= set(Asked.__dataclass_fields__)


# --- preview


def test_a_preview_needs_no_coordinator(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("match", "preview", *BASIC, "--partner-rows", 5000, "--home", home.root) == 0
    shown = capsys.readouterr().out
    assert "rows: lender 3, platform 5,000; 1000 Mbit/s, 1 ms there and back" in shown
    (marked,) = [line for line in shown.splitlines() if line.startswith("->")]
    assert marked.split()[1] == "vole-psi"
    assert "helper-psi: owners: which of their own identifiers" in shown
    assert list(home.jobs.iterdir()) == []


def test_a_preview_for_programs(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--with", "shop:orders", "--partner-rows", "platform:70", "--partner-rows", "shop:20"]
    assert run("match", "preview", *BASIC, *more, "--home", home.root, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == {"lender": 3, "platform": 70, "shop": 20}
    assert [one["protocol"] for one in report["estimates"]] == ["vole-psi", "helper-psi"]
    assert {(s["from"], s["to"]) for s in report["estimates"][1]["sent"]} >= {("shop", "helper"), ("helper", "lender")}
    count = ["--count-only", "--dealer", "third"]
    assert run("match", "preview", *BASIC, *count, "--home", home.root, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["randomness"] for one in report["estimates"]] == ["dealer", "verified-dealer", "ot", None]
    assert ("dealer", "lender") in {(s["from"], s["to"]) for s in report["estimates"][0]["sent"]}


def test_partners_rows_are_numbers(home: Home) -> None:
    assert run("match", "preview", *BASIC, "--partner-rows", "many", "--home", home.root) == 2


def test_compiling_is_told_once(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    def slow() -> Any:
        for _ in range(3):
            logging.getLogger("accord.compile").info("a kernel")
        raise ConfigError("stopped here")

    monkeypatch.setattr("silos.calibration.calibrate", slow)
    before = list(logging.getLogger("accord.compile").handlers)
    assert run("match", "preview", *BASIC, "--home", home.root) == 1
    assert capsys.readouterr().err.count("compiling kernels, once for this machine") == 1
    assert logging.getLogger("accord.compile").handlers == before


# --- from submission to a table


async def test_a_matching_with_real_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with matching_world(tmp_path) as world, nodes(world, "lender", "platform"):
        lender, out = world.home("lender"), tmp_path / "matched.csv"
        options = ["--key", "rule=phone/v1,region=CH,columns=phone", "--partner-key", "mail", "--partner-key", "tel"]
        options += ["--minimum", 1, "--purpose", "trial", "--columns", "LIMIT_BAL", "--output", out]
        assert await asyncio.to_thread(run, "match", "run", *BASIC, *options, "--home", lender.root) == 0
    said = capsys.readouterr()
    assert "2 of 3 rows matched" in said.out
    assert "platform: match" in said.err
    table = csv.read_csv(out)
    assert table.column_names == ["_match", "_row", "_key", "LIMIT_BAL"]
    assert sorted(zip(table["_row"].to_pylist(), table["LIMIT_BAL"].to_pylist())) == [(0, 100.0), (2, 300.5)]
    assert out.stat().st_mode & 0o777 == 0o600
    job = next(lender.jobs.iterdir()).name
    theirs = Result.read(world.home("platform"), job).table()
    assert theirs.column_names == ["_match", "_row", "_key", "mail", "tel"]
    ours = dict(zip(table["_match"].to_pylist(), table["_row"].to_pylist()))
    people = {0: "A@X.ORG", 2: "c@x.org"}
    assert [people[ours[place]] for place in theirs["_match"].to_pylist()] == theirs["mail"].to_pylist()


async def test_a_job_is_followed_or_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_matchers(monkeypatch)
    async with matching_world(tmp_path) as world:
        root = world.home("lender").root

        async def accord(*arguments: object) -> tuple[int, str, str]:
            code = await asyncio.to_thread(run, *arguments, "--home", root)
            said = capsys.readouterr()
            return code, said.out, said.err

        options = [*BASIC, "--purpose", "trial", "--minimum", 1]
        code, out, _ = await accord("match", "run", *options, "--partner-key", "mail", "--no-wait")
        assert code == 0
        job = out.splitlines()[-1].removeprefix("job ")
        async with nodes(world, "lender", "platform"):
            code, out, err = await accord("job", "watch", job)
            assert code == 0
            assert "matching" in out
            assert "randomness" not in out
            code, out, _ = await accord("job", "result", job)
            assert json.loads(out)["table"]["rows"] == 2
            assert json.loads((await accord("job", "result", job, "--json"))[1])["table_file"].endswith(
                f"{job}.parquet"
            )
            code, out, _ = await accord("match", "run", *options, "--partner-key", "mail", "--json")
            report = json.loads(out)
            assert (code, report["state"], report["result"]["counts"]["matched"]) == (0, "done", 2)
            assert report["table"].endswith(f"{report['job']}.parquet")
            code, _, err = await accord("match", "run", *options, "--partner-key", "nothing")
            assert code == 1
            assert "is refused: platform refused: " in err


async def test_a_terminal_is_asked_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with matching_world(tmp_path) as world:
        asked: list[str] = []

        def confirm(text: str, *, abort: bool) -> None:
            asked.append(text)
            raise typer.Abort

        monkeypatch.setattr("typer.confirm", confirm)
        monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})())
        root = world.home("lender").root
        options = [*BASIC, "--purpose", "trial", "--no-wait", "--home", root]
        assert await asyncio.to_thread(run, "match", "run", *options) == 1
        assert asked == ["Submit the job?"]
        assert list(world.home("lender").jobs.iterdir()) == []
        assert await asyncio.to_thread(run, "match", "run", *options, "--yes") == 0
        assert len(asked) == 1


# --- results


def released(home: Home, rows: int = 2, result: dict[str, Any] | None = None) -> str:
    """A job that released a table, without having run."""
    import numpy as np
    import pyarrow as pa

    job = uuid.uuid4().hex
    batch = pa.record_batch({"_match": np.arange(rows), "name": [f'é, "{i}"' for i in range(rows)]})
    if result is None:
        key = {"rule": "email/v1", "unusable": 1, "reasons": {}, "duplicates": 0, "matched": rows}
        result = {"counts": {"own": 3, "matched": rows, "keys": [key]}}
        n, sha256 = write_table(home.table(job), [batch], batch.schema)
        result["table"] = {"rows": n, "sha256": sha256}
    write_result(home.result(job), job=job, silo="lender", spec_digest="0" * 64, salt="00" * 16, result=result)
    return job


def test_a_table_is_shown_and_written(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = released(home, 30)
    assert run("match", "result", job, "--home", home.root) == 0
    shown = capsys.readouterr().out
    assert 'é, "9"' in shown
    assert 'é, "10"' not in shown
    assert f"table of 30 rows: {home.table(job)}" in shown
    for name in ("t.csv", "t.PARQUET"):
        assert run("match", "result", job, "--output", tmp_path / name, "--home", home.root) == 0
        assert f"table of 30 rows: {tmp_path / name}" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "t.PARQUET").equals(pq.read_table(home.table(job)))
    assert csv.read_csv(tmp_path / "t.csv").equals(pq.read_table(home.table(job)))
    assert run("match", "result", job, "--json", "--home", home.root) == 0
    assert json.loads(capsys.readouterr().out)["table"] == str(home.table(job))


def test_numbers_are_shown(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("match", "result", released(home, result={"matches": 1200}), "--home", home.root) == 0
    assert capsys.readouterr().out == "matches: 1,200\n"
    own = {"own": 3, "keys": [{"rule": "email/v1", "unusable": 1, "reasons": {}, "duplicates": 0}]}
    sums = [{"silo": "platform", "column": "VISITS", "sum": "12.50"}]
    job = released(home, result={"matches": 2, "own": own, "sums": sums})
    assert run("match", "result", job, "--home", home.root) == 0
    shown = capsys.readouterr().out
    assert "3 rows of our own" in shown
    assert [line.split() for line in shown.splitlines()[1:3]] == [
        ["silo", "column", "sum"],
        ["platform", "VISITS", "12.50"],
    ]
    result = Result.read(home, job)
    assert (result.matched, result.sums) == (2, {("platform", "VISITS"): Decimal("12.50")})


@pytest.mark.parametrize(
    ("make", "arguments", "sentence"),
    [
        (lambda _: JOB, [], f"there is no result of job {JOB} here"),
        (released, ["--output", "x.txt"], "must end in .parquet or .csv"),
        (released, ["--output", "none/x.csv"], "none/x.csv cannot be written: No such file"),
        (lambda home: released(home, result={"matches": 1}), ["--output", "x.csv"], "released no table"),
    ],
)
def test_a_result_that_is_not_there_is_one_sentence(
    home: Home, capsys: pytest.CaptureFixture[str], make: Callable[[Home], str], arguments: list[str], sentence: str
) -> None:
    assert run("match", "result", make(home), *arguments, "--home", home.root) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_a_table_that_was_removed_is_missed(home: Home) -> None:
    job = released(home)
    home.table(job).unlink()
    with pytest.raises(ConfigError, match=f"the table of job {job} is not in"):
        Result.read(home, job)


# --- progress


def test_lines_tell_the_time_that_is_left() -> None:
    text, now = io.StringIO(), [100.0]
    lines = Lines(Console(file=text, width=200), lambda: now[0])
    for at, done in ((0, 0), (1, 100), (6, 250), (7, 260), (12, 999), (13, 1000)):
        now[0] = 100.0 + at
        lines.show("platform", "match", done, 1000)
    lines.show("lender", "read", 0, 1)
    lines.show("platform", "compile, once for this machine", 3, 0)
    assert text.getvalue().splitlines() == [
        "platform: match, 0 of 1,000",
        "platform: match, 250 of 1,000, about 18 s left",
        "platform: match, 999 of 1,000, about 0.0 s left",
        "lender: read",
        "platform: compile, once for this machine",
    ]


def test_a_resumed_stage_is_timed_by_what_it_did_itself() -> None:
    text, now = io.StringIO(), [0.0]
    lines = Lines(Console(file=text, width=200), lambda: now[0])
    lines.show("platform", "match", 900, 1000)
    now[0] = 10.0
    lines.show("platform", "match", 950, 1000)
    assert text.getvalue().splitlines()[-1] == "platform: match, 950 of 1,000, about 10 s left"


def test_bars_show_stage_amount_and_time() -> None:
    text = io.StringIO()
    with Bars(Console(file=text, width=150, force_terminal=True)) as bars:
        bars.show("platform", "read", 0, 1)
        bars.show("platform", "match", 1_000, 2_000)
        bars.show("platform", "compile, once for this machine", 1, 0)
        bars.show("platform", "match", 1_500, 2_000)
        (task,) = bars._bars.tasks
        assert (task.completed, task.total, task.fields["stage"]) == (1_500, 2_000, "match")
    assert "1,500 / 2,000" in text.getvalue()
    assert "left" in text.getvalue()


def test_where_there_is_no_terminal_there_are_lines() -> None:
    assert isinstance(watch._display(Console(file=io.StringIO())), Lines)
    assert isinstance(watch._display(Console(file=io.StringIO(), force_terminal=True)), Bars)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_times_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_estimate_has_a_name() -> None:
    from silos.traffic import NOTHING

    one = Estimate("hidden", "ot", NOTHING, 1, 0, 1.0, 1.0, True)
    assert (one.name, one.protocol, one.rounds) == ("hidden, ot", "hidden", 0)
