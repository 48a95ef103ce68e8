"""What a policy says of a job, in full: which clause allows or refuses each use of each column, and what is missing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from silos.catalogue import Catalogue
from silos.plan import Plan, Use
from silos.policy import Finding, Policy, Terms
from silos.spec import KINDS


def explain(
    policy: Policy, planned: Plan, me: str, when: dt.datetime, used: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Everything that decides, as a document of plain values; arguments as in `Policy.judge`.

    uses: every use of every column of ours.  clauses: about the job as a whole.  changes: what the closest rule would need.
    rules: what the other ones forbid, by name.
    """
    judged = policy.judge(planned, me, when, used)
    about = [finding for finding in judged.findings if finding.use is None]
    uses = [_use(finding.use, finding, judged.rule) for finding in judged.findings if finding.use is not None]
    if not judged.rules:
        nothing = Finding("allow", False, "nothing", judged.reason)
        uses = [_use(use, nothing, "") for use in planned.of(me)]
    rule = next((rule for rule in policy.allow if rule.name == judged.rule and planned.dataset(me) is not None), None)
    return {
        "silo": me,
        "kind": planned.kind,
        "purpose": planned.purpose,
        "dataset": planned.dataset(me),
        "owners": list(planned.owners),
        "allowed": judged.allowed,
        "rule": judged.rule,
        "reason": judged.reason,
        "approval": 0 if rule is None else rule.approval,
        "uses": uses,
        "clauses": [_clause(finding) for finding in about],
        "changes": [
            {"clause": clause, "change": change}
            for clause, change in dict.fromkeys((f.clause, f.change) for f in judged.findings if not f.allowed)
        ],
        "rules": {
            name: [finding.sentence for finding in findings if not finding.allowed]
            for name, findings in judged.rules.items()
            if name != judged.rule
        },
    }


def _use(use: Use, finding: Finding, rule: str) -> dict[str, Any]:
    return {
        "column": use.column,
        "operation": use.operation,
        "with": list(use.with_),
        "outcome": use.outcome,
        "rule": rule,
        **_clause(finding),
    }


def _clause(finding: Finding) -> dict[str, Any]:
    return {
        "clause": finding.clause,
        "said": finding.said,
        "allowed": finding.allowed,
        "sentence": finding.sentence,
    }


def doubts(policy: Policy, today: dt.date, catalogue: Catalogue | None = None) -> list[str]:
    """What is well-formed and yet can hardly be meant: a sentence each.  catalogue: of the silo, if it is known."""
    said = []
    for rule in policy.allow:
        at = f"rule '{rule.name}'"
        said += [f"{at}: there is no job kind '{kind}'" for kind in rule.kinds if kind not in KINDS]
        silos = dict.fromkeys((*rule.partners, *(rule.recipients or ()), *rule.dealers, *rule.helpers))
        said += [f"{at}: no fingerprint is pinned for {name}" for name in silos if name not in policy.partners]
        if rule.expires is not None and rule.expires < today:
            said.append(f"{at}: it expired on {rule.expires}")
        empty = [clause for clause in ("partners", "kinds", "purposes", "join", "release") if not getattr(rule, clause)]
        said += [f"{at}: '{clause}' is empty, so it allows no job" for clause in empty]
        if rule.noise == "required" and policy.datasets.get(rule.dataset, Terms()).budget is None:
            said.append(f"{at}: it asks for noise, and data set '{rule.dataset}' has no budget")
        said += _columns(rule.dataset, at, catalogue, [(c, getattr(rule, c)) for c in _OF_COLUMNS])
    known = {rule.dataset for rule in policy.allow}
    said += [
        f"[datasets.{name}] is about a data set that no rule is about" for name in policy.datasets if name not in known
    ]
    return said


_OF_COLUMNS = ("join", "label", "train", "compare", "sum", "groups", "predict")


def _columns(dataset: str, at: str, catalogue: Catalogue | None, named: list[tuple[str, tuple[str, ...]]]) -> list[str]:
    if catalogue is None:
        return []
    found = next((one for one in catalogue.datasets if one.name == dataset), None)
    if found is None:
        return [f"{at}: the catalogue has no data set '{dataset}'"]
    present = {column.name for column in found.columns} | {"*"}
    return [
        f"{at}: data set '{dataset}' has no column '{column}' to {clause}"
        for clause, columns in named
        for column in columns
        if column not in present
    ]
