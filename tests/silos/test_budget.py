"""The ledger: what is charged, killed processes, many at a time, and what a budget means."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import stat
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from coordinator.statements import Spent
from mpc.noise import discrete_laplace, parse_epsilon
from mpc.rng import Prg
from silos.accounting import charges, epsilon_of, epsilon_of_limit, epsilon_of_noise, limit_of, rho_of
from silos.budget import BudgetError, Charge, Ledger, Limit, decimal_text
from silos.cli import main
from silos.config import Home, init_home
from silos.disclosure import PROTOCOLS, load_reveals
from silos.policy_model import Budget
from silos.validation import write_private
from tests.silos.ledger_children import LIMIT, SHARE, STEPS, A, B, C
from tests.silos.world import MATCHERS, RULE, make_spec, policy_text

ROOT = Path(__file__).parent.parent.parent
MEASURE: dict[str, Any] = {
    "kind": "vertical.measure",
    "parties": MATCHERS,
    "align": {"protocol": "hidden", "minimum_matches": 100},
}


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
    assert ledger.void(C)  # was never heard of: it cannot start any more
    with pytest.raises(BudgetError, match="was given up"):
        ledger.start(C)


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
    ):
        Ledger(home)
    file.unlink()
    (home.job(A)).mkdir()
    (home.job(A) / "dataset.salt").write_text("00")
    with pytest.raises(
        BudgetError,
        match=r"^the ledger state/ledger.db in the silo's home is gone, and with it what jobs have spent; put it back from a",
    ):
        Ledger(home)
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


# --- what noise costs


def test_noise_is_charged_to_both_owners_and_to_nobody_else() -> None:
    spec = make_spec(**MEASURE, epsilon="0.5", release=["matches"])
    assert charges(spec, "lender") == {"platform": Decimal("0.125")}
    assert charges(spec, "platform") == {"lender": Decimal("0.125")}
    assert charges(spec, "dealer") == {}
    assert charges(make_spec(**MEASURE, release=["matches"]), "lender") == {}
    assert charges(make_spec(), "lender") == {}


def test_every_noise_that_a_protocol_declares_is_charged() -> None:
    """What is revealed with noise is known here by name; a new one must be charged first.

    Whether the number reaches the minimum follows from the number with its noise.
    """
    noised = {
        (kind, reveal.name)
        for kind in PROTOCOLS
        for reveals in load_reveals(kind, "hidden" if kind == "vertical.measure" else "ecdh-psi", "dealer").values()
        for reveal in reveals
        if "noise" in f"{reveal.name} {reveal.what}"
    }
    assert noised == {("vertical.measure", "measure.noised"), ("vertical.measure", "measure.enough")}


def test_the_noise_that_is_drawn_has_the_privacy_that_is_charged() -> None:
    """Of the exact distribution: its losses keep to the epsilon, and to the rho at every order."""
    for text in ("0.1", "0.5", "2"):
        epsilon, q = float(Decimal(text)), math.exp(-float(Decimal(text)))
        p = [(1 - q) / (1 + q) * q ** abs(z) for z in range(-400, 401)]
        for order in (1.001, 1.5, 2, 8, 64):
            total = math.fsum(a * (a / b) ** (order - 1) for a, b in zip(p[1:], p[:-1], strict=True) if b)
            assert math.log(total) / (order - 1) <= float(rho_of(Decimal(text))) * order + 1e-9
        assert max(abs(math.log(a / b)) for a, b in zip(p[200:600], p[199:599], strict=True)) <= epsilon + 1e-9
        assert epsilon_of_noise({Decimal(text): 1}, Decimal("1e-9")) <= epsilon + 1e-3


def test_noise_is_drawn_from_that_distribution() -> None:
    prg, n, q = Prg(bytes(range(32))), 4000, math.exp(-0.5)
    drawn = [discrete_laplace(prg, parse_epsilon("0.5")) for _ in range(n)]
    for z in range(-3, 4):
        p = (1 - q) / (1 + q) * q ** abs(z)
        assert abs(drawn.count(z) - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_a_budget_is_told_as_epsilon_and_delta() -> None:
    delta, rho = Decimal("1e-6"), Decimal("0.125")
    by_hand = 0.125 + 2 * math.sqrt(
        0.125 * math.log(1e6)
    )  # Bun, Steinke, proposition 1.3; the library's bound is below
    assert 0.5 < epsilon_of_limit(rho, delta) < by_hand
    assert epsilon_of([], delta) == 0
    assert epsilon_of([rho], delta) == pytest.approx(0.5)  # one draw: adding up is less
    assert epsilon_of([rho] * 400, delta) == epsilon_of_limit(rho * 400, delta) < 200
    assert epsilon_of_noise({Decimal("0.5"): 40}, delta) < epsilon_of([rho] * 40, delta)


def test_a_limit_is_what_the_policy_says_and_fits_into_a_consent() -> None:
    assert limit_of(None) is None
    assert limit_of(Budget(rho="0.5", delta="1e-6")) == Limit(Decimal("0.5"), Decimal("0.000001"))
    smallest = limit_of(Budget(rho="999999.999999999", delta="1.999999999e-30"))
    assert smallest is not None
    for value in (smallest.rho, smallest.delta, rho_of(Decimal("63.999999"))):
        TypeAdapter(Spent).validate_python(decimal_text(value))


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
