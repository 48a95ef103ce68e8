"""The ledger: what is charged, killed processes, many at a time, and what a budget means."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from silos.budget import BudgetError, Charge, Ledger, Limit
from silos.cli import main
from silos.config import Home, init_home
from silos.validation import write_private
from tests.silos.ledger_children import LIMIT, SHARE, STEPS, A, B, C
from tests.silos.world import RULE, policy_text

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def home(tmp_path: Path) -> Home:
    init_home(tmp_path / "lender", "lender")
    return Home(tmp_path / "lender")


@pytest.fixture
def ledger(home: Home) -> Any:
    with Ledger(home) as opened:
        yield opened


# --- a job's life


def test_a_charge_is_taken_once_and_a_budget_is_never_exceeded(ledger: Ledger) -> None:
    first = ledger.reserve(A, "loans", SHARE, LIMIT)
    assert first == (Charge("platform", "0.02", "0", "0.05", "0.000001"),)
    assert ledger.reserve(A, "loans", SHARE, LIMIT) == first
    assert ledger.reserve(B, "loans", SHARE, LIMIT)[0].before == "0.02"
    sentence = "towards platform is rho 0.05, 0.04 of it is spent, and the job takes 0.02"
    with pytest.raises(BudgetError, match=f"^the privacy budget of data set 'loans' {re.escape(sentence)}$"):
        ledger.reserve(C, "loans", SHARE, LIMIT)
    assert ledger.state(C) is None
    assert ledger.reserve(C, "loans", {"retailer": Decimal("0.05")}, LIMIT)[0].before == "0"
    assert ledger.reserve("d" * 32, "usage", SHARE, LIMIT)[0].before == "0"
    assert ledger.balance("loans", "platform") == Decimal("0.04")
    assert ledger.reserve(A, "loans", SHARE, Limit(Decimal("0.001"), LIMIT.delta)) == first  # it was agreed to before


def test_of_several_counterparties_all_are_charged_or_none(ledger: Ledger) -> None:
    with pytest.raises(BudgetError, match=r"towards retailer is rho 0.05, 0 of it is spent, and the job takes 0.06"):
        ledger.reserve(A, "loans", {**SHARE, "retailer": Decimal("0.06")}, LIMIT)
    assert ledger.balance("loans", "platform") == 0
    assert [c.counterparty for c in ledger.reserve(A, "loans", {**SHARE, "retailer": Decimal("0.05")}, LIMIT)] == [
        "platform",
        "retailer",
    ]


@pytest.mark.parametrize("rho", ["0", "-0.01"])
def test_a_charge_is_above_zero(ledger: Ledger, rho: str) -> None:
    with pytest.raises(BudgetError, match="and the job takes"):
        ledger.reserve(A, "loans", {"platform": Decimal(rho)}, LIMIT)


def test_without_a_budget_no_figure_with_noise_is_told(ledger: Ledger) -> None:
    with pytest.raises(
        BudgetError, match=r"^data set 'loans' has no privacy budget, so no figure with noise is told to platform$"
    ):
        ledger.reserve(A, "loans", SHARE, None)
    assert ledger.reserve(A, "loans", {}, None) == ()


def test_what_is_given_back_is_what_had_not_started(ledger: Ledger) -> None:
    for job in (A, B):
        ledger.reserve(job, "loans", SHARE, LIMIT)
        ledger.reserve_use(job, "rule", 2)
    ledger.start(A)
    assert not ledger.void(A)
    assert ledger.void(B)
    assert ledger.void(B)
    assert ledger.balance("loans", "platform") == Decimal("0.02")
    assert ledger.uses() == {"rule": 1}
    assert ledger.uses(but_not=A) == {}
    for again in (
        lambda: ledger.start(B),
        lambda: ledger.commit(B),
        lambda: ledger.reserve(B, "loans", SHARE, LIMIT),
        lambda: ledger.reserve_use(B, "rule", 2),
    ):
        with pytest.raises(BudgetError, match=f"^job {B} was given up here before it started$"):
            again()
    ledger.commit(A)
    assert not ledger.void(A)
    assert [(e.job, e.state) for e in ledger.history()] == [(A, "released"), (B, "void")]


def test_a_job_that_took_nothing_is_given_back_without_writing(home: Home) -> None:
    with Ledger(home) as ledger:
        ledger.reserve(A, "loans", SHARE, LIMIT)
        assert ledger.void(A)
    statements: list[str] = []
    with Ledger(home, trace=statements.append, busy_s=0.0) as ledger, Ledger(home) as other, other.transaction():
        opened = len(statements)
        for job in (A, *(f"{i:032x}" for i in range(5))):
            assert ledger.void(job)
        assert {text.split()[0] for text in statements[opened:]} == {"SELECT"}
    with Ledger(home) as ledger:
        assert ledger.execute("SELECT id FROM job", ()) == [(A,)]
        ledger.start(B)  # an assistant's, say
        assert ledger.state(B) is None
        for again in (
            lambda: ledger.foresee(A, "loans", SHARE, LIMIT),
            lambda: ledger.foresee_use(A, "rule", 2),
            lambda: ledger.start(A),
        ):
            with pytest.raises(BudgetError, match=f"^job {A} was given up here before it started$"):
                again()


def test_a_rule_admits_so_many_jobs(ledger: Ledger) -> None:
    for job in (A, A, B):
        ledger.reserve_use(job, "rule", 2)
    with pytest.raises(BudgetError, match=r"^rule 'rule' allows 2 jobs, and it has admitted 2$"):
        ledger.reserve_use(C, "rule", 2)
    ledger.reserve_use(C, "other", 1)
    ledger.void(A)
    ledger.reserve_use("d" * 32, "rule", 2)
    assert ledger.used("rule") == 2
    assert ledger.used("rule", but_not=B) == 1


def test_a_job_counts_under_the_rule_that_admitted_it_last(ledger: Ledger) -> None:
    ledger.reserve_use(A, "rule", 1)
    ledger.reserve_use(B, "other", 1)
    with pytest.raises(BudgetError, match=r"^rule 'other' allows 1 job, and it has admitted 1$"):
        ledger.reserve_use(A, "other", 1)
    assert ledger.uses() == {"rule": 1, "other": 1}
    ledger.reserve_use(A, "other", 2)
    assert ledger.uses() == {"other": 2}
    ledger.start(A)
    ledger.reserve_use(A, "other", 2)
    with pytest.raises(BudgetError, match=f"^job {A} has started under another rule$") as refused:
        ledger.reserve_use(A, "rule", None)
    assert refused.value.public == f"job {A} has started before"
    assert ledger.uses() == {"other": 2}


def test_partners_are_told_no_figures_and_no_names(ledger: Ledger) -> None:
    ledger.reserve(A, "loans", SHARE, LIMIT)
    ledger.reserve_use(A, "rule", 1)
    budget, rule = (
        "the privacy budget of this silo does not suffice for the job",
        "the rule of this silo allows no more jobs",
    )
    asked: dict[str, list[Callable[[], Any]]] = {
        budget: [
            lambda: ledger.reserve(B, "loans", {"platform": Decimal("0.04")}, LIMIT),
            lambda: ledger.foresee(B, "loans", SHARE, None),
        ],
        rule: [lambda: ledger.reserve_use(B, "rule", 1)],
        f"job {A} was charged otherwise before": [lambda: ledger.reserve(A, "usage", SHARE, LIMIT)],
    }
    for sentence, questions in asked.items():
        for question in questions:
            with pytest.raises(BudgetError) as refused:
                question()
            assert refused.value.public == sentence


def test_a_job_is_not_charged_in_two_ways(ledger: Ledger) -> None:
    ledger.reserve(A, "loans", SHARE, LIMIT)
    for dataset, rho in (("usage", "0.02"), ("loans", "0.01")):
        with pytest.raises(BudgetError, match=f"^job {A} was charged otherwise before$"):
            ledger.reserve(A, dataset, {"platform": Decimal(rho)}, LIMIT)


# --- fail closed


def test_a_ledger_that_is_gone_or_damaged_lets_no_job_begin(home: Home) -> None:
    with Ledger(home) as ledger:
        ledger.reserve(A, "loans", SHARE, LIMIT)
    file = home.state / "ledger.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    whole = file.read_bytes()
    file.write_bytes(b"x" * len(whole))
    with pytest.raises(
        BudgetError,
        match=r"^the ledger state/ledger.db in the silo's home cannot be used \(DatabaseError\), so no job can begin$",
    ) as unusable:
        Ledger(home)
    assert unusable.value.public == "the ledger of this silo cannot be used, so no job can begin"
    file.unlink()
    (home.job(A)).mkdir()
    (home.job(A) / "dataset.salt").write_text("00")
    with pytest.raises(
        BudgetError,
        match=r"^the ledger state/ledger.db in the silo's home is gone, and with it what jobs have spent; put it back from a",
    ) as gone:
        Ledger(home)
    assert gone.value.public == unusable.value.public
    file.write_bytes(whole)
    with Ledger(home) as ledger:
        assert ledger.balance("loans", "platform") == Decimal("0.02")
        ledger.execute("PRAGMA user_version=9", ())
    with pytest.raises(
        BudgetError, match=r"^the ledger state/ledger.db in the silo's home has schema version 9, this program needs 1$"
    ):
        Ledger(home)


def use_up(ledger: Ledger) -> None:
    for i in range(10_000):
        ledger.reserve_use(f"{i:032x}", "rule", None)


def test_a_disk_that_is_full_changes_nothing(home: Home) -> None:
    with Ledger(home) as ledger:
        ledger.reserve(A, "loans", SHARE, LIMIT)
        (pages,) = ledger.execute("PRAGMA page_count", ())[0]
        ledger.execute(f"PRAGMA max_page_count={pages}", ())
        with pytest.raises(BudgetError, match="cannot be used"):
            use_up(ledger)
        counted = ledger.used("rule")
        assert ledger.balance("loans", "platform") == Decimal("0.02")
    with Ledger(home) as ledger:
        assert ledger.used("rule") == counted


# --- killed processes


def seen(ledger: Ledger) -> tuple[dict[str, Any], ...]:
    states = {job: ledger.state(job) for job in (A, B, C)}
    return states, {"spent": ledger.balance("loans", "platform")}, ledger.uses()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-m", "tests.silos.ledger_children", "crash", str(root)], cwd=ROOT, check=True)
    return root


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What is to be seen after each number of steps."""
    home = Home(tmp_path_factory.mktemp("whole"))
    home.jobs.mkdir()
    with Ledger(home) as ledger:
        views = [seen(ledger)]
        for step in STEPS:
            step(ledger)
            views.append(seen(ledger))
    return views


@pytest.mark.parametrize("disk", ["persisted", "lost", "torn"])
def test_killed_between_any_two_writes_it_neither_spends_nor_refunds_wrongly(
    killed: Path, after: list[Any], tmp_path: Path, disk: str
) -> None:
    """persisted: all that was written is on disk.  lost: what was not acknowledged is not; torn: only half of it is.

    A process that goes on repeats the step whose answer it never had.
    """
    points = sorted(killed.iterdir(), key=lambda path: int(path.name))
    assert len(points) > 5 * len(STEPS)
    for folder in points:
        home = Home(tmp_path / folder.name)
        shutil.copytree(folder, home.root)
        notes = [line.split() for line in (home.root / "notes").read_text().splitlines()]
        done = [line for line in notes if line[0] == "done"]
        wal = home.state / "ledger.db-wal"
        if done and disk != "persisted":
            acknowledged, written = int(done[-1][2]), wal.stat().st_size
            os.truncate(wal, acknowledged if disk == "lost" else (acknowledged + written) // 2)
        k = len(done)
        begun = any(line == ["begun", str(k)] for line in notes)
        possible = [after[k]] if disk == "lost" and done else after[k : k + 1 + begun]
        with Ledger(home) as ledger:
            assert seen(ledger) in possible, f"killed at {folder.name} in step {k}"
            for step in STEPS[k:]:
                step(ledger)
            assert seen(ledger) == after[-1]


def test_of_fifty_processes_as_many_get_the_last_of_a_budget_as_fit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.silos.ledger_children", "race", str(tmp_path), "50"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"admitted": 10, "refused": 40, "other": 0}
    with Ledger(Home(tmp_path)) as ledger:
        assert ledger.balance("loans", "platform") == LIMIT.rho
        assert ledger.used("rule") == 10
        assert sorted(Decimal(e.charge.before) for e in ledger.history()) == [Decimal(i) / 200 for i in range(10)]


# --- the command line


def run(home: Home, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["budget", *arguments, "--home", str(home.root)])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_what_is_spent_is_shown(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    text = policy_text({**RULE, "uses": 7}, {"platform": "0" * 64})
    write_private(home.policy, text + '[datasets.loans]\nbudget = { rho = "0.5", delta = "1e-6" }\n')
    shown = json.loads(run(home, capsys, "show", "--json"))
    assert shown["accounts"][0] | {"epsilon_limit": ""} == {
        "dataset": "loans",
        "counterparty": "platform",
        "spent": "0",
        "limit": "0.5",
        "epsilon_spent": "0",
        "epsilon_limit": "",
        "delta": "0.000001",
    }
    with Ledger(home) as ledger:
        for job in (A, B):
            ledger.reserve(job, "loans", {"platform": Decimal("0.125")}, Limit(Decimal("0.5"), LIMIT.delta))
            ledger.reserve_use(job, "credit-model", 7)
        ledger.start(A)
        ledger.void(B)
    shown = json.loads(run(home, capsys, "show", "--json"))
    assert (shown["accounts"][0]["spent"], shown["accounts"][0]["epsilon_spent"]) == ("0.125", "0.5")
    assert shown["rules"] == [{"rule": "credit-model", "admitted": 1, "uses": 7}]
    assert "platform" in run(home, capsys, "show")
    told = json.loads(run(home, capsys, "history", "--json"))
    assert [(one["job"], one["state"], one["rho"], one["before"]) for one in told] == [
        (A, "started", "0.125", "0"),
        (B, "void", "0.125", "0.125"),
    ]
    assert A in run(home, capsys, "history")
