"""Whether a rule of the policy allows a plan: every clause, in a fixed order, each with a sentence where it does not hold.

Nothing here knows a job spec: what is judged is the plan that it compiles to.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from silos.plan import Operation, Plan, Use
from silos.policy_model import DAYS, AssistantRule, Rule, minutes_of

ANY = "*"


@dataclass(frozen=True)
class Finding:
    """What one clause of a rule says of a job, or of one use of one column.

    clause: a key of the policy file.  said: what of the rule decided, as it would be written there.  sentence: what is
    forbidden, "" where it is allowed.  change: what would have to be written for it to be allowed.  use: None of the job as a
    whole.
    """

    clause: str
    allowed: bool
    said: str
    sentence: str = ""
    change: str = ""
    use: Use | None = None


@dataclass(frozen=True)
class Situation:
    """What a rule is held against, besides the plan.

    me: the silo whose policy it is.  when: UTC.  used: how many other jobs each rule has admitted.  pinned: silos whose key is
    known.  minimum: the policy's `minimum_matches`.
    """

    me: str
    when: dt.datetime
    used: Mapping[str, int]
    pinned: frozenset[str]
    minimum: int


@dataclass(frozen=True)
class Permission:
    """The clause that an operation needs.  star: whether "*" stands for every column.  verb: completes "column 'x' may not"."""

    clause: str
    star: bool
    verb: str


PERMISSIONS: Mapping[Operation, Permission | None] = {
    "join": Permission("join", False, "be used to join with {who}"),
    "label": Permission("label", False, "be used as the label with {who}"),
    "train": Permission("train", True, "be used for training with {who}"),
    "offset": Permission("train", True, "be used for training with {who}"),
    "weight": Permission("train", True, "be used for training with {who}"),
    "group": Permission("groups", False, "split figures that {who} would see"),
    "compare": Permission("compare", False, "be compared with thresholds row by row before {who}"),
    "examine": Permission("train", True, "be looked at by statistics with {who}"),
    "predict": Permission("predict", True, "be used to predict with {who}"),
    "sum": Permission("sum", True, "be added up with {who}"),
    "keep": None,  # it goes nowhere but into our own table
}


def check(rule: Rule, plan: Plan, at: Situation) -> tuple[Finding, ...]:
    """Every clause of a rule, held against a plan."""
    parts = (_partners, _machinery, _subject, _uses, _others_uses, _release, _figures, _limits)
    return tuple(finding for part in parts for finding in part(rule, plan, at))


def check_assistant(role: str, rule: AssistantRule, plan: Plan, at: Situation) -> tuple[Finding, ...]:
    """Whether this silo may be the dealer or the helper of a job of these owners."""
    findings = []
    for owner in plan.owners:
        findings.append(
            _finding(
                f"{role}.for", owner in rule.for_, rule.for_, f"{at.me} may not be the {role} for {owner}", _add(owner)
            )
        )
        findings.append(_pin(owner, at))
    return tuple(findings)


# --- the clauses


def _partners(rule: Rule, plan: Plan, at: Situation) -> Iterator[Finding]:
    for name in _others(plan, at):
        yield _finding("partners", name in rule.partners, rule.partners, f"{name} is not a partner", _add(name))


def _machinery(rule: Rule, plan: Plan, at: Situation) -> Iterator[Finding]:
    """How rows are matched, where randomness comes from, who assists, and whom we know."""
    yield _optional("matchings", plan.protocol, rule.matchings, f"matching by '{plan.protocol}' is not allowed")
    if plan.randomness is not None:
        refused = f"randomness '{plan.randomness}' is not allowed"
        yield _optional("randomness", plan.randomness, rule.randomness, refused)
    for clause, role, name, listed in (
        ("dealers", "dealer", plan.dealer, rule.dealers),
        ("helpers", "helper", plan.helper, rule.helpers),
    ):
        if name is not None:
            yield _finding(clause, name in listed, listed, f"{name} may not be the {role}", _add(name))
    for name in plan.participants:
        if name != at.me:
            yield _pin(name, at)


def _subject(rule: Rule, plan: Plan, at: Situation) -> Iterator[Finding]:
    """What the job is and until when the rule holds."""
    over = rule.expires is not None and at.when.date() > rule.expires
    yield _finding("expires", not over, rule.expires, f"it expired on {rule.expires}", "a later day")
    yield _finding(
        "kinds", plan.kind in rule.kinds, rule.kinds, f"jobs of kind '{plan.kind}' are not allowed", _add(plan.kind)
    )
    refused = f"purpose '{plan.purpose}' is not allowed"
    yield _finding("purposes", plan.purpose in rule.purposes, rule.purposes, refused, _add(plan.purpose))


def _uses(rule: Rule, plan: Plan, at: Situation) -> Iterator[Finding]:
    """Every use of every column of ours; one whose operation no clause permits is refused."""
    who = _who(plan, at)
    for use in plan.of(at.me):
        permission = PERMISSIONS[use.operation]
        if permission is None:
            yield Finding("", True, "our own table only", use=use)
            continue
        listed: Sequence[str] = getattr(rule, permission.clause)
        named = use.column if use.column in listed else ANY if permission.star and ANY in listed else None
        yield Finding(
            permission.clause,
            named is not None,
            "not listed" if named is None else f'"{named}"',
            "" if named is not None else f"column '{use.column}' may not {permission.verb.format(who=who)}",
            "" if named is not None else _add(use.column),
            use,
        )


def _others_uses(rule: Rule, plan: Plan, at: Situation) -> Iterator[Finding]:
    """Partners' columns that are added up: a sum tells the owner of its column, who chose the values, which rows match."""
    who = _who(plan, at)
    n, most = sum(use.operation == "sum" and use.silo != at.me for use in plan.uses), rule.partner_sums
    columns = "1 column" if n == 1 else f"{n} columns"
    allowed = "1 is" if most == 1 else f"{most} are"
    refused = f"{columns} of {who} would be added up over rows that match ours, {allowed} allowed"
    yield _finding("partner_sums", n <= most, most, refused, f"at least {n}")


def _release(rule: Rule, plan: Plan, at: Situation) -> Iterator[Finding]:
    """What is handed out, in which form, and to whom."""
    if plan.routing is not None:
        refused = f"trees with routing '{plan.routing}' are not allowed"
        yield _finding("routing", plan.routing in rule.routing, rule.routing, refused, _add(plan.routing))
    if plan.output is not None:
        told = next(one.recipients for one in plan.released if one.item == "predictions")
        free = told == (at.me,) or plan.output in rule.outputs
        refused = f"a '{plan.output}' of each row may not be told to {_who(plan, at)}"
        yield _finding("outputs", free, rule.outputs, refused, _add(plan.output))
        asked = plan.questions or 0
        refused = f"{asked:,} questions about single rows are asked, {rule.questions:,} are allowed"
        yield _finding("questions", asked <= rule.questions, rule.questions, refused, f"at least {asked}")
    for one in plan.released:
        allowed = one.item in rule.release
        yield _finding("release", allowed, rule.release, f"'{one.item}' may not be released", _add(one.item))
    listed, clause = (rule.partners, "partners") if rule.recipients is None else (rule.recipients, "recipients")
    for one in plan.released:
        for name in one.recipients:
            if name != at.me:
                refused = f"'{one.item}' may not be told to {name}"
                yield _finding(clause, name in listed, listed, refused, _add(name))


def _figures(rule: Rule, plan: Plan, at: Situation) -> Iterator[Finding]:
    """Noise of figures that others are told, and the rows behind them."""
    told = [one for one in plan.released if one.form == "figure" and one.recipients != (at.me,)]
    for one in told:
        noised = one.epsilon is not None or rule.noise == "optional"
        yield _finding("noise", noised, rule.noise, f"'{one.item}' would be told without noise", '"optional"')
        refused = (
            f"behind a number of '{one.item}' there can be as few as {one.rows} rows ({one.why}), "
            f"the floor is {rule.floor}"
        )
        yield _finding("floor", one.rows >= rule.floor, rule.floor, refused, f"at most {min(o.rows for o in told)}")


def _limits(rule: Rule, plan: Plan, at: Situation) -> Iterator[Finding]:
    """How few matches, when, and how often."""
    least, asked = at.minimum, plan.minimum_matches
    refused = f"the job would go on with {asked} matches, the minimum is {least}"
    yield _finding("minimum_matches", asked >= least, least, refused, f"at most {asked}")
    if rule.schedule is not None:
        now = f"{DAYS[at.when.weekday()]} {at.when:%H:%M}"
        inside = any(_inside(window, at.when) for window in rule.schedule)
        yield _finding("schedule", inside, rule.schedule, f"jobs may not start on {now} UTC", f"a time with {now}")
    if rule.uses is not None:
        spent = at.used.get(rule.name, 0)
        refused = f"it has admitted {spent} of {rule.uses} jobs already"
        yield _finding("uses", spent < rule.uses, rule.uses, refused, f"at least {spent + 1}")


# --- words


def _others(plan: Plan, at: Situation) -> list[str]:
    return [name for name in plan.owners if name != at.me]


def _who(plan: Plan, at: Situation) -> str:
    return " and ".join(_others(plan, at))


def _inside(window: str, when: dt.datetime) -> bool:
    days, start, end = minutes_of(window)
    return when.weekday() in days and start <= 60 * when.hour + when.minute < end


def _pin(name: str, at: Situation) -> Finding:
    said = "pinned" if name in at.pinned else "not pinned"
    refused = f"no fingerprint is pinned for {name}"
    return _finding(f"partners.{name}", name in at.pinned, said, refused, "its fingerprint")


def _add(value: str) -> str:
    return f'add "{value}"'


def _optional(clause: str, value: str, listed: Sequence[str] | None, refused: str) -> Finding:
    """A clause that permits everything where it is left out."""
    return _finding(clause, listed is None or value in listed, listed, refused, _add(value))


def _finding(clause: str, allowed: bool, said: object, sentence: str, change: str) -> Finding:
    if said is None:
        shown = "left out"
    elif isinstance(said, tuple):
        shown = ", ".join(f'"{one}"' for one in said) or "nothing"
    else:
        shown = str(said)
    return Finding(clause, allowed, shown, "" if allowed else sentence, "" if allowed else change)
