"""`accord policy`: check, explain, simulate, and that a node refuses what they say it refuses."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from silos import catalogue, policy
from silos.cli import main
from silos.client import connect
from silos.config import Home, init_home
from silos.plan import plan
from silos.policy_explain import doubts, explain
from silos.policy_rules import PERMISSIONS
from silos.simulate import simulate
from silos.times import utcnow
from silos.validation import write_private
from tests.silos.policy_world import MONDAY_NOON, PERMITTED, PINS, REQUESTS, policy_of, spec_of
from tests.silos.world import RULE, enrolled_world, make_spec, policy_text, request, running_nodes

THEIRS = {
    **PERMITTED,
    "dataset": "usage",
    "partners": ["lender"],
    "join": ["mail", "given", "family", "birth"],
    "train": ["*"],
    "sum": ["*"],
    "compare": ["VISITS"],
    "predict": ["*"],
}
PLATFORM = {"partners": {name: {"fingerprint": pin} for name, pin in PINS.items() if name != "platform"}}
OTHERS = {name: PINS[name] for name in ("platform", "dealer")}


def run(*arguments: object) -> int:
    """The exit code of `accord ...`, as the console script has it."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as exc:
        return int(exc.code or 0)


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCORD_HOME", raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A lender that registered a data set, and whose file is gone since."""
    init_home(tmp_path / "lender", "lender")
    made = Home(tmp_path / "lender")
    write_private(made.policy, policy_text({**RULE, "train": ["LIMIT_BAL"], "floor": 50}, OTHERS))
    data = tmp_path / "loans.csv"
    data.write_text("email,default,LIMIT_BAL,SEX,NAME\na@x.org,0,100,f,Ann\nb@x.org,1,,m,Bob\n")
    catalogue.add(made.catalogue, "loans", data, "email")
    data.unlink()
    return made


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(request()))
    return path


# --- explain


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("me", ["lender", "platform"])
def test_every_use_is_explained_by_the_rule_and_clause_that_decide_it(name: str, me: str) -> None:
    made = plan(spec_of(name))
    mine = policy_of(PERMITTED) if me == "lender" else policy_of(THEIRS, **PLATFORM)
    told = explain(mine, made, me, MONDAY_NOON)
    assert (told["allowed"], told["rule"], told["reason"], told["changes"]) == (True, "all-of-it", "", [])
    assert [(u["column"], u["operation"]) for u in told["uses"]] == [(u.column, u.operation) for u in made.of(me)]
    for use in told["uses"]:
        permission = PERMISSIONS[use["operation"]]
        assert use["clause"] == ("" if permission is None else permission.clause)
        assert use["said"] in ('"*"', f'"{use["column"]}"', "our own table only")
        assert (use["allowed"], use["rule"]) == (True, "all-of-it")
    json.dumps(told)


def test_what_would_have_to_change_is_enough() -> None:
    """A rule that is changed as it says allows the job."""
    rule: dict[str, Any] = {"name": "little", "dataset": "loans", "floor": 50}
    told = explain(policy_of(rule), plan(spec_of("glm")), "lender", MONDAY_NOON)
    assert not told["allowed"]
    for change in told["changes"]:
        what = change["change"]
        if what.startswith("add "):
            rule.setdefault(change["clause"], []).append(json.loads(what.removeprefix("add ")))
        else:
            assert (change["clause"], what) == ("floor", "at most 30")
            rule["floor"] = 30
    assert explain(policy_of(rule), plan(spec_of("glm")), "lender", MONDAY_NOON)["allowed"]


def test_without_a_rule_for_the_data_set_every_use_is_refused() -> None:
    told = explain(policy_of(), plan(spec_of("glm")), "lender", MONDAY_NOON)
    assert told["reason"] == "no rule allows any use of data set 'loans'"
    assert [use["allowed"] for use in told["uses"]] == [False] * 4
    assert {use["rule"] for use in told["uses"]} == {""}


def test_an_assistant_has_clauses_and_no_columns() -> None:
    made = plan(spec_of("glm"))
    serving = policy_of(dealer={"for": ["lender"]}, partners={"lender": {"fingerprint": "a" * 64}})
    told = explain(serving, made, "dealer", MONDAY_NOON)
    assert (told["uses"], told["dataset"], told["rule"]) == ([], None, "dealer")
    assert told["reason"] == "dealer may not be the dealer for platform"
    assert told["changes"] == [
        {"clause": "dealer.for", "change": 'add "platform"'},
        {"clause": "partners.platform", "change": "its fingerprint"},
    ]
    assert explain(serving, made, "stranger", MONDAY_NOON)["reason"] == "stranger has no part in this job"


def test_the_command_explains_a_request(home: Home, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("policy", "explain", "--request", job, "--home", home.root) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["LIMIT_BAL", "train", "yes", "credit-model", "train:", '"LIMIT_BAL"'] in lines
    assert ["SEX", "train", "NO", "credit-model", "train:", "not", "listed"] in lines
    assert ["-", "train:", "add", '"SEX"'] in lines
    assert ["-", "floor:", "at", "most", "30"] in lines
    assert run("policy", "explain", "--request", job, "--home", home.root, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reason"] == "column 'SEX' may not be used for training with platform"


def test_a_spec_is_explained_as_its_request(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(make_spec().document()))
    assert run("policy", "explain", "--spec", path, "--home", home.root, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rule"] == "credit-model"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name one job: by its id, or with --spec or --request"),
        (["0" * 32, "--request", "job.json"], "name one job: by its id, or with --spec or --request"),
        (["--request", "none.json"], "the job request none.json cannot be read: No such file or directory"),
        (["--spec", "none.json"], "the job spec none.json cannot be read: No such file or directory"),
    ],
)
def test_one_job_is_named(home: Home, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("policy", "explain", *arguments, "--home", home.root) == 1
    assert capsys.readouterr().err == f"accord: {sentence}\n"


# --- check


def test_what_can_hardly_be_meant_is_said() -> None:
    rule = {
        **{key: value for key, value in PERMITTED.items() if key != "join"},
        "kinds": ["vertical.gml"],
        "partners": ["platform", "hospital"],
        "expires": "2026-03-01",
        "noise": "required",
    }
    said = doubts(policy_of(rule, datasets={"lones": {}}), MONDAY_NOON.date(), catalogue.Catalogue(version=1))
    assert said == [
        "rule 'all-of-it': there is no job kind 'vertical.gml'",
        "rule 'all-of-it': no fingerprint is pinned for hospital",
        "rule 'all-of-it': it expired on 2026-03-01",
        "rule 'all-of-it': 'join' is empty, so it allows no job",
        "rule 'all-of-it': it asks for noise, and data set 'loans' has no budget",
        "rule 'all-of-it': the catalogue has no data set 'loans'",
        "[datasets.lones] is about a data set that no rule is about",
    ]
    assert doubts(policy_of(PERMITTED), MONDAY_NOON.date()) == []


def test_the_command_checks_the_silos_own_policy(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("policy", "check", "--home", home.root) == 0
    assert capsys.readouterr().out == f"{home.policy} is well-formed: 1 rule, 2 pinned silos\n"
    write_private(home.policy, policy_text({**RULE, "train": ["LIMITS"]}, OTHERS))
    assert run("policy", "check", "--home", home.root, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["doubts"] == ["rule 'credit-model': data set 'loans' has no column 'LIMITS' to train"]
    assert told["sha256"] == policy.load_with_digest(home.policy)[1]


def test_the_command_checks_a_file_without_a_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "draft.toml"
    path.write_text("version = 1\nallowed = []\n")
    assert run("policy", "check", path) == 1
    assert capsys.readouterr().err == f"accord: the policy {path}: 'allowed' is not a known setting\n"
    assert run("policy", "check") == 1
    assert "there is no policy to check: name a file" in capsys.readouterr().err


def test_the_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("policy", "schema") == 0
    assert json.loads(capsys.readouterr().out) == policy.schema()


# --- simulate


def tried(name: str, spec: Mapping[str, Any] | None = None, rho: str = "", **rule: Any) -> dict[str, Any]:
    """The simulation of a job that both owners permit.  spec, rule: changes of it.  rho: a budget of the lender."""
    budget = {"loans": {"budget": {"rho": rho, "delta": "1e-6"}}} if rho else {}
    lender = policy_of({**PERMITTED, **rule}, datasets=budget)
    policies = {"lender": lender, "platform": policy_of(THEIRS, **PLATFORM)}
    return simulate(spec_of(name, **(spec or {})), policies, MONDAY_NOON, {}, 400)


@pytest.mark.parametrize("name", sorted(REQUESTS.keys() - {"noised"}))
def test_a_job_of_every_kind_would_start(name: str) -> None:
    told = tried(name)
    assert (told["starts"], told["why_not"]) == (True, [])
    assert all(told["silos"][silo]["allowed"] for silo in ("lender", "platform"))
    assert told["thresholds"][0] == {"what": "align.minimum_matches", "limit": 100, "mock": 200, "holds": True}
    assert {line["silo"] for line in told["disclosure"]["lines"]} >= {"lender", "platform", "coordinator"}
    assert [one["problem"] for one in told["data"]] == ["", ""]
    json.dumps(told)


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("glm", {"train": ["LIMIT"]}, ["policy of lender: column 'SEX' may not be used for training with platform"]),
        ("glm", {"spec": {"align.minimum_matches": 201}}, ["200 made-up rows match, align.minimum_matches is 201"]),
        (
            "statistics",
            {"spec": {"statistics": {"minimum": 300}}},
            ["200 made-up rows match, statistics.minimum is 300"],
        ),
        (
            "noised",
            {},
            [
                "data set 'loans' of lender has no privacy budget, so no figure with noise is told to platform",
                "data set 'usage' of platform has no privacy budget, so no figure with noise is told to lender",
            ],
        ),
        (
            "noised",
            {"rho": "0.4"},
            [
                "the privacy budget of data set 'loans' of lender is rho 0.4, and the job takes 0.5",
                "data set 'usage' of platform has no privacy budget, so no figure with noise is told to lender",
            ],
        ),
    ],
)
def test_why_a_job_would_not_start(name: str, changes: dict[str, Any], why: list[str]) -> None:
    told = tried(name, **changes)
    assert (told["starts"], told["why_not"]) == (False, why)


def test_the_columns_of_the_catalogue_are_used_where_it_is_known(home: Home) -> None:
    known = catalogue.load(home.catalogue)
    parties = request()["parties"]
    text = make_spec(parties=[{**parties[0], "features": ["NAME"]}, parties[1]])
    for spec, problem in (
        (make_spec(), ""),
        (text, "column 'NAME' of data set 'loans' is text, it cannot be used as a number"),
        (make_spec(parties=[{**parties[0], "features": ["AGE"]}, parties[1]]), "data set 'loans' has no column 'AGE'"),
    ):
        told = simulate(spec, {}, MONDAY_NOON, {"lender": known}, 400)
        assert told["data"][0]["columns"] == "of the catalogue"
        assert told["data"][0]["problem"].startswith(problem)
        assert told["starts"] == (problem == "")


def test_the_command_tries_files_before_they_are_in_force(
    home: Home, job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft, platform = tmp_path / "draft.toml", tmp_path / "platform.toml"
    draft.write_text(policy_text(RULE, OTHERS))
    usage = {**RULE, "dataset": "usage", "partners": ["lender"], "label": [], "train": ["*"]}
    platform.write_text(policy_text(usage, {"lender": "c" * 64, "dealer": "b" * 64}))
    arguments = ["policy", "simulate", "--request", job, "--home", home.root, "--policy", f"platform={platform}"]
    assert run(*arguments) == 1
    said = capsys.readouterr().out
    assert said.endswith(
        "the job would not start:\n  - policy of lender: column 'SEX' may not be used for training with platform\n"
    )
    assert run(*arguments, "--policy", draft) == 0
    said = capsys.readouterr().out
    assert "== dealer: its policy is not given, so it is not judged" in said
    assert "fewer than 100 matching rows stop the job before more is revealed" in said
    assert said.endswith("the job would start\n")
    assert run(*arguments, "--policy", draft, "--rows", "50", "--json") == 1
    assert json.loads(capsys.readouterr().out)["why_not"] == ["25 made-up rows match, align.minimum_matches is 100"]


def test_the_command_must_know_whose_policy_it_is(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("policy", "simulate", "--request", job) == 1
    assert "there is no policy to try: name one with --policy SILO=FILE" in capsys.readouterr().err
    assert run("policy", "simulate", "--request", job, "--policy", "a.toml") == 1
    assert "it is not said whose policy a.toml is: write SILO=a.toml" in capsys.readouterr().err


# --- a node


async def test_a_node_refuses_what_the_explanation_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        enrolled_world(tmp_path) as world,
        running_nodes(world, "lender"),
        connect(world.home("platform")) as client,
    ):
        pins = {s["silo"]: s["fingerprint"] for s in await client.roster()}
        for change, why in (
            ({"train": ["LIMIT_BAL"]}, "column 'SEX' may not be used for training with platform"),
            ({"recipients": []}, "'coefficients' may not be told to platform"),
        ):
            world.set_policy("lender", pins, **change)
            spec = make_spec(job=uuid.uuid4().hex, now=utcnow())
            await world.submit(spec, "platform")
            view = await world.until(client, spec.job, {"refused"})
            assert view["reason"] == f"lender refused: policy of lender, rule 'credit-model': {why} (rule credit-model)"
            arguments = ["policy", "explain", spec.job, "--home", str(world.home("lender").root), "--json"]
            assert await asyncio.to_thread(run, *arguments) == 0
            assert json.loads(capsys.readouterr().out)["reason"] == why
