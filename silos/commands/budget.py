"""`accord budget`: what jobs have taken of this silo's privacy budgets, and how often its rules were used."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import typer

from silos.commands.common import HomeOption, JsonOption, open_home, print_json, print_table

if TYPE_CHECKING:
    from silos.budget import Entry
    from silos.policy import Policy

app = typer.Typer(no_args_is_help=True, help="Look at what jobs have taken of this silo's privacy budgets.")


@app.command()
def show(home: HomeOption, as_json: JsonOption = False) -> None:
    """What is spent and left of each data set's budget towards each counterparty, and how often rules were used."""
    from silos import policy
    from silos.budget import Ledger

    place = open_home(home)
    rules = policy.load(place.policy)
    with Ledger(place) as ledger:
        entries, uses = ledger.history(), ledger.uses()
    accounts = _accounts(rules, entries)
    admitted = [{"rule": r.name, "admitted": uses.get(r.name, 0), "uses": r.uses} for r in rules.allow]
    if as_json:
        print_json({"accounts": accounts, "rules": admitted})
        return
    columns = ["data set", "counterparty", "rho spent", "of", "epsilon spent", "of", "at delta"]
    fields = ("dataset", "counterparty", "spent", "limit", "epsilon_spent", "epsilon_limit", "delta")
    print_table(columns, [[one[field] for field in fields] for one in accounts])
    typer.echo("")
    print_table(["rule", "jobs", "of"], [[r["rule"], r["admitted"], r["uses"] or "any number"] for r in admitted])


def _accounts(rules: Policy, entries: list[Entry]) -> list[dict[str, Any]]:
    """Every data set with a budget towards each partner of a rule about it, and everything that was ever charged."""
    from silos.accounting import epsilon_of, epsilon_of_limit, limit_of
    from silos.budget import decimal_text

    limits = {name: limit_of(terms.budget) for name, terms in rules.datasets.items() if terms.budget}
    pairs = {(rule.dataset, partner) for rule in rules.allow if rule.dataset in limits for partner in rule.partners}
    pairs |= {(entry.dataset, entry.charge.counterparty) for entry in entries}
    accounts = []
    for dataset, counterparty in sorted(pairs):
        charged = [
            Decimal(e.charge.rho)
            for e in entries
            if (e.dataset, e.charge.counterparty) == (dataset, counterparty) and e.state != "void"
        ]
        limit = limits.get(dataset)
        last = next((e.charge.delta for e in reversed(entries) if e.dataset == dataset), "")
        delta = decimal_text(limit.delta) if limit else last
        accounts.append(
            {
                "dataset": dataset,
                "counterparty": counterparty,
                "spent": decimal_text(sum(charged, Decimal(0))),
                "limit": decimal_text(limit.rho) if limit else "none",
                "epsilon_spent": _rounded_up(epsilon_of(charged, Decimal(delta))),
                "epsilon_limit": _rounded_up(epsilon_of_limit(limit.rho, limit.delta)) if limit else "none",
                "delta": delta,
            }
        )
    return accounts


def _rounded_up(epsilon: float) -> str:
    return f"{math.ceil(epsilon * 10_000) / 10_000:g}"


@app.command()
def history(home: HomeOption, as_json: JsonOption = False) -> None:
    """Every charge of every job, oldest first."""
    from silos.budget import Ledger

    with Ledger(open_home(home)) as ledger:
        entries = ledger.history()
    if as_json:
        print_json(
            [
                {"job": e.job, "time": e.time, "state": e.state, "dataset": e.dataset, **e.charge.document()}
                for e in entries
            ]
        )
        return
    rows = [(e.time, e.job, e.dataset, e.charge.counterparty, e.charge.rho, e.charge.before, e.state) for e in entries]
    print_table(["time", "job", "data set", "counterparty", "rho", "before", "state"], rows)
