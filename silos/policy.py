"""A silo's own policy: what partners may do with its data.  Deny by default, evaluated only here.

version = 1
minimum_matches = 1000              # a job must promise to stop, before revealing more, at fewer matches

[partners.platform]
fingerprint = "..."                 # of the partner's identity key, compared out of band

[[allow]]                           # one rule; a job needs one rule that allows all of it
name = "credit-model"
dataset = "loans"
partners = ["platform"]
dealers = ["dealer"]
kinds = ["vertical.glm"]
purposes = ["credit risk"]
join = ["email"]
label = ["default"]
train = ["LIMIT_BAL"]               # or ["*"]
release = ["coefficients", "auc", "counts"]

silos/policy_model.py has every key, silos/policy_rules.py what they mean, docs/policy.md how to use them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from silos.errors import ConfigError, PolicyDenied
from silos.plan import Plan, plan
from silos.policy_model import (
    Approver,
    AssistantRule,
    Budget,
    Partner,
    PersonName,
    Record,
    Rule,
    Table,
    Terms,
)
from silos.policy_rules import Finding, Situation, check, check_assistant
from silos.spec import Spec
from silos.spec_parts import DatasetName, SiloName
from silos.validation import MAX_DOCUMENT_BYTES, validate, write_private

__all__ = [
    "Approver",
    "AssistantRule",
    "Budget",
    "Decision",
    "Finding",
    "Judgement",
    "Partner",
    "Policy",
    "Record",
    "Rule",
    "Terms",
    "initial",
    "load",
    "load_with_digest",
    "parse",
    "pin",
    "schema",
    "with_pin",
]


@dataclass(frozen=True)
class Decision:
    """A job this silo may take part in.

    rule: that allowed it.  pins: the keys of the others.  approval: how many different approvers must say yes.  findings: what
    each clause of the rule says.
    """

    rule: str
    pins: dict[str, str]
    approval: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """What the policy says of a plan.

    rule: the one that allows it, or that came closest; "" if none is about the data set.  reason: "" if it is allowed.
    findings: of that rule.  rules: of every rule that is about the data set, by name.
    """

    me: str
    allowed: bool
    rule: str
    reason: str
    findings: tuple[Finding, ...]
    rules: Mapping[str, tuple[Finding, ...]]


class Policy(Table):
    """The parsed policy file; `judge` is the whole of its meaning."""

    version: Literal[1]
    """Of the format."""
    minimum_matches: int = Field(ge=1, default=100)
    """The least `align.minimum_matches` that a job may have."""
    record: Record = Record()
    """Who answers for the data of this silo."""
    approvers: dict[PersonName, Approver] = Field(default_factory=dict)
    """Persons who may say yes to a job, by their full names."""
    partners: dict[SiloName, Partner] = Field(default_factory=dict)
    """Silos whose keys are known."""
    datasets: dict[DatasetName, Terms] = Field(default_factory=dict)
    """What holds for a data set whatever the rule."""
    allow: tuple[Rule, ...] = ()
    """Rules; a job needs one that allows all of it."""
    dealer: AssistantRule = AssistantRule()
    """For whom this silo makes correlated randomness."""
    helper: AssistantRule = AssistantRule()
    """For whom this silo compares keyed tokens."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [rule.name for rule in self.allow]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two rules are called '{twice}'")
        keys = [approver.key for approver in self.approvers.values()]
        if len(set(keys)) != len(keys):
            raise ValueError("two approvers have the same key")
        short = next((rule for rule in self.allow if rule.approval > len(keys)), None)
        if short is not None:
            raise ValueError(f"rule '{short.name}' has approval = {short.approval}, and [approvers] names {len(keys)}")
        return self

    def decide(self, spec: Spec, me: str, when: dt.datetime, used: Mapping[str, int] | None = None) -> Decision:
        """May `me` take part in this job?

        when: the time of our consent.  used: how many other jobs each rule has admitted, by name.
        Raises: PolicyDenied naming the rule that came closest (its first failing clause is the latest one) and the clause
        that failed; SpecError if the spec cannot be planned.
        """
        judged = self.judge(plan(spec), me, when, used)
        if not judged.allowed:
            raise PolicyDenied(me, judged.rule, judged.reason)
        rule = next((rule for rule in self.allow if rule.name == judged.rule and spec.party(me) is not None), None)
        pins = {name: self.partners[name].fingerprint for name in spec.participants if name != me}
        return Decision(judged.rule, pins, 0 if rule is None else rule.approval, judged.findings)

    def judge(self, planned: Plan, me: str, when: dt.datetime, used: Mapping[str, int] | None = None) -> Judgement:
        """What every rule about our data set says of a plan; arguments as in `decide`."""
        at = Situation(me, _utc(when), used or {}, frozenset(self.partners), self.minimum_matches)
        dataset = planned.dataset(me)
        if dataset is None and me not in (planned.dealer, planned.helper):
            return Judgement(me, False, "", f"{me} has no part in this job", (), {})
        if dataset is None:
            role, assist = ("dealer", self.dealer) if me == planned.dealer else ("helper", self.helper)
            rules = {role: check_assistant(role, assist, planned, at)}
        else:
            rules = {rule.name: check(rule, planned, at) for rule in self.allow if rule.dataset == dataset}
        if not rules:
            return Judgement(me, False, "", f"no rule allows any use of data set '{dataset}'", (), {})
        failures = {name: _first_failure(findings) for name, findings in rules.items()}
        name = next((name for name, failed in failures.items() if failed is None), None)
        if name is not None:
            return Judgement(me, True, name, "", rules[name], rules)
        name = max(failures, key=lambda name: failures[name] or 0)
        return Judgement(me, False, name, rules[name][failures[name] or 0].sentence, rules[name], rules)

    def record_of(self, dataset: str) -> dict[str, Any]:
        """What this silo says of a data set for records of processing; empty where it says nothing."""
        terms = self.datasets.get(dataset, Terms()).model_dump(mode="json", exclude={"budget"})
        return {**self.record.model_dump(mode="json"), **terms}


def _utc(when: dt.datetime) -> dt.datetime:
    """A time as UTC, where one without a zone is taken to be."""
    return when.replace(tzinfo=dt.UTC) if when.tzinfo is None else when.astimezone(dt.UTC)


def _first_failure(findings: tuple[Finding, ...]) -> int | None:
    return next((place for place, finding in enumerate(findings) if not finding.allowed), None)


# --- the file


def parse(text: str, what: str = "the policy") -> Policy:
    """Check the text of a policy file.  what: how the sentence of an error begins.  Raises: ConfigError."""
    try:
        document = _dates_as_text(tomllib.loads(text))
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{what} is not well-formed TOML: {exc}") from exc
    return validate(Policy, document, what, ConfigError)


def load(path: Path) -> Policy:
    """Read and check a policy file.  Raises: ConfigError."""
    return load_with_digest(path)[0]


def load_with_digest(path: Path) -> tuple[Policy, str]:
    """The policy, and the hex SHA-256 of the very bytes that it was read from.  Raises: ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"the policy {path} cannot be read: {exc.strerror}") from exc
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise ConfigError(f"the policy {path} has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"the policy {path} is not well-formed TOML: it is not UTF-8") from exc
    return parse(text, f"the policy {path}"), hashlib.sha256(raw).hexdigest()


def _dates_as_text(value: Any) -> Any:
    """TOML has dates, JSON has not: models take them as ISO text."""
    if isinstance(value, dict):
        return {k: _dates_as_text(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_dates_as_text(v) for v in value]
    return value.isoformat() if isinstance(value, dt.date) else value


def schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors and other programs; what it cannot say, `parse` checks besides."""
    made = Policy.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "The policy file of a silo"}


def with_pin(text: str, name: str, fingerprint: str, *, replace: bool = False) -> str:
    """The policy text with a partner's key pinned; comments and order stay as they are.

    Raises: ConfigError if another key is pinned already and `replace` is not given, or the result is not a policy.
    """
    known = parse(text).partners.get(name)
    if known is not None and known.fingerprint == fingerprint:
        return text
    if known is None:
        text = f'{text.rstrip()}\n\n[partners.{name}]\nfingerprint = "{fingerprint}"\n'
    elif replace:
        pattern = rf'(\[partners\.{re.escape(name)}\]\s*\n(?:[^\[\n]*\n)*?\s*fingerprint\s*=\s*)"{known.fingerprint}"'
        text = re.sub(pattern, rf'\g<1>"{fingerprint}"', text)
    else:
        raise ConfigError(f"another key is pinned for {name} already; use --replace if {name} confirmed the new one")
    changed = parse(text).partners.get(name)
    if changed is None or changed.fingerprint != fingerprint:
        raise ConfigError(f"the pin of {name} could not be changed; edit [partners.{name}] in the policy file")
    return text


def pin(path: Path, name: str, fingerprint: str, *, replace: bool = False) -> None:
    """Pin a partner's key in the policy file.  Raises: ConfigError."""
    load(path)
    write_private(path, with_pin(path.read_text(encoding="utf-8"), name, fingerprint, replace=replace))


def initial(name: str) -> str:
    """The policy a new silo starts with: a commented example that permits nothing."""
    return _INITIAL.replace("@NAME@", json.dumps(name))


_INITIAL = """\
# What partners may do with the data of @NAME@.  Nothing is allowed that is not written here.
version = 1

# A job must promise to stop at fewer matches than this.
minimum_matches = 100

# Partners are known by the fingerprint of their identity key.  Compare it out of band, then run
#   accord silo pin PARTNER FINGERPRINT
#
# [[allow]]                                # one rule; a job needs one rule that allows all of it
# name = "credit-model"
# dataset = "loans"
# partners = ["platform"]                  # data owners this may be computed with
# matchings = ["ecdh-psi", "vole-psi"]     # how rows may be matched; without this line, in any way
# randomness = ["verified-dealer", "ot"]   # where correlated randomness may come from; without this line, from anywhere
# dealers = ["dealer"]                     # who may be the dealer that makes it; with "ot" there is none
# helpers = []                             # who may compare keyed tokens of the join columns, with "helper-psi"
# kinds = ["vertical.glm"]                 # also "vertical.match", "vertical.measure" and others
# purposes = ["credit risk"]
# join = ["email"]                         # columns that may match rows
# label = ["default"]                      # columns that may be the label
# train = ["LIMIT_BAL"]                    # columns that models and statistics may use; ["*"] for every column
# compare = []                             # columns of trees of which everybody may learn who is above a threshold
# sum = []                                 # columns whose sum over matched rows may be told; ["*"] for every column
# groups = []                              # columns whose values may name the groups of figures
# predict = []                             # columns that a kept model may predict from; ["*"] for every column
# partner_sums = 0                         # how many columns of partners may be added up over rows that match ours
# routing = ["hidden"]                     # of trees; "revealed" tells everybody which rows go where
# outputs = []                             # what partners may be told of each row: "decision", "decile", "rounded" ...
# questions = 0                            # how many single rows a job that stays open may be asked about
# release = ["coefficients", "auc", "counts"]
# recipients = ["platform"]                # who may be told what is released; without this line, the partners
# noise = "optional"                       # "required": no figure without noise
# floor = 0                                # the least number of rows behind any figure
# schedule = ["mon-fri 06:00-20:00"]       # when jobs may start, UTC; without this line, at any time
# uses = 12                                # how many jobs in all; without this line, any number
# approval = 0                             # how many of the approvers must say yes to each job: 0, 1 or 2
# expires = 2027-12-31                     # the last day the rule holds
#
# [approvers."Ada Lovelace"]               # who may say yes
# key = "..."                              # base64 of her Ed25519 public key
#
# [record]                                 # for records of processing
# controller = "Example Bank"
# contact = "privacy@example.org"
#
# [datasets.loans]
# budget = { rho = "0.5", delta = "1e-6" } # what each partner may learn in all from figures with noise
# legal_basis = "contract"
# categories = ["credit history"]
# subjects = ["customers"]
# retention_days = 365
# transfers = "none"
#
# [dealer]                                 # to make correlated randomness for jobs of others
# for = ["lender", "platform"]
#
# [helper]                                 # to compare keyed tokens for jobs of others
# for = ["lender", "platform"]
"""
