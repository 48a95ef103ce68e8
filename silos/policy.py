"""A silo's own policy: what partners may do with its data.  Deny by default, evaluated only here.

version = 1
minimum_matches = 1000              # a job must promise to stop, before revealing more, at fewer matches

[partners.platform]
fingerprint = "..."                 # of the partner's identity key, compared out of band

[[allow]]                           # one rule; a job needs one rule that allows all of it
name = "credit-model"
dataset = "loans"
partners = ["platform"]
matchings = ["ecdh-psi"]            # how rows may be matched; left out: in any way
randomness = ["dealer", "verified-dealer", "ot"]   # where it may come from; left out: from anywhere
dealers = ["dealer"]                # who may make it, unless the owners do ("ot")
helpers = []                        # who may compare keyed tokens of the join columns ("helper-psi")
kinds = ["vertical.glm"]
purposes = ["credit risk"]
join = ["email"]
label = ["default"]
train = ["LIMIT_BAL"]               # or ["*"]
sum = []                            # columns whose sum over matched rows may be told; or ["*"]
groups = []                         # columns whose values may name the groups of figures
routing = ["hidden"]                # of trees; "revealed" tells everybody which rows go where
questions = 0                       # how many single rows a job that stays open may be asked about
predict = []                        # columns that a kept model may predict from; or ["*"]
outputs = []                        # what partners may be told of each matched row: "decision", "decile", ...
partner_sums = 0                    # how many columns of partners may be added up over rows that match this data set
release = ["coefficients", "auc", "counts"]
expires = 2027-12-31                # the last day the rule holds

[dealer]                            # only for a silo that makes correlated randomness for others
for = ["lender", "platform"]

[helper]                            # only for a silo that compares keyed tokens for others
for = ["lender", "platform"]
"""

from __future__ import annotations

import datetime as dt
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from silos.errors import ConfigError, PolicyDenied
from silos.spec import Score, Spec, Trees
from silos.spec_parts import DatasetName, Matching, Measurer, Party, Randomness, SiloName, Trainer
from silos.spec_scoring import Predictor
from silos.spec_statistics import Examined
from silos.validation import Frozen, read_document, validate, write_private

ANY = "*"

Output = Literal["decision", "decile", "rounded", "probability"]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Partner(Frozen):
    """A silo this one knows: its name and the only key accepted for it."""

    fingerprint: Fingerprint


class Rule(Frozen):
    """One permission; every clause must hold, and an empty list permits nothing.

    matchings, randomness: left out, they restrict nothing.  What a dealer or a helper is trusted with is said by `dealers`
    and `helpers`.  groups: columns whose values may name groups in figures.  routing: of trees.  predict, outputs: the columns
    that a kept model may predict from, and what partners may then be told of each row; questions: how many single rows a job
    that stays open may be asked about.  partner_sums: the sum of a column whose values its owner chose tells that owner which
    of its rows matched, so it is this rule's business how many columns of all partners together are added up.
    """

    name: str = Field(min_length=1, max_length=64)
    dataset: DatasetName
    partners: tuple[SiloName, ...] = ()
    matchings: tuple[Matching, ...] | None = None
    randomness: tuple[Randomness, ...] | None = None
    dealers: tuple[SiloName, ...] = ()
    helpers: tuple[SiloName, ...] = ()
    kinds: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    join: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    sum: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    routing: tuple[Literal["hidden", "revealed"], ...] = ("hidden",)
    predict: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    questions: int = Field(ge=0, le=10**6, default=0)
    partner_sums: int = Field(ge=0, le=64, default=0)
    release: tuple[str, ...] = ()
    expires: dt.date | None = None


class AssistantRule(Frozen):
    """For whom this silo makes correlated randomness, or compares keyed tokens."""

    for_: tuple[SiloName, ...] = Field(alias="for", default=())


@dataclass(frozen=True)
class Decision:
    """A job this silo may take part in: under which rule, and with which pinned keys of the others."""

    rule: str
    pins: dict[str, str]


class Policy(Frozen):
    """The parsed policy file; `decide` is the whole of its meaning."""

    version: Literal[1]
    minimum_matches: int = Field(ge=1, default=100)
    partners: dict[SiloName, Partner] = Field(default_factory=dict)
    allow: tuple[Rule, ...] = ()
    dealer: AssistantRule = AssistantRule()
    helper: AssistantRule = AssistantRule()

    def decide(self, spec: Spec, me: str, today: dt.date) -> Decision:
        """May `me` take part in this job?

        Raises: PolicyDenied naming the rule that came closest (its first failing clause is the latest one) and the
        clause that failed.
        """
        mine = spec.party(me)
        if mine is None:
            return self._decide_as_assistant(spec, me)
        rules = [rule for rule in self.allow if rule.dataset == mine.dataset]
        if not rules:
            raise PolicyDenied(me, "", f"no rule allows any use of data set '{mine.dataset}'")
        closest = (-1, "", "")
        for rule in rules:
            failure = next(
                ((step, clause) for step, clause in enumerate(self._clauses(rule, spec, mine, today)) if clause), None
            )
            if failure is None:
                return Decision(rule.name, self._pins(spec, me))
            if failure[0] > closest[0]:
                closest = (failure[0], rule.name, failure[1] or "")
        raise PolicyDenied(me, closest[1], closest[2])

    def _decide_as_assistant(self, spec: Spec, me: str) -> Decision:
        if me not in (spec.dealer, spec.helper):
            raise PolicyDenied(me, "", f"{me} has no part in this job")
        role, rule = ("dealer", self.dealer) if me == spec.dealer else ("helper", self.helper)
        for owner in spec.owners:
            if owner not in rule.for_:
                raise PolicyDenied(me, role, f"{me} may not be the {role} for {owner}")
            if owner not in self.partners:
                raise PolicyDenied(me, role, f"no fingerprint is pinned for {owner}")
        return Decision(role, self._pins(spec, me))

    def _pins(self, spec: Spec, me: str) -> dict[str, str]:
        return {name: self.partners[name].fingerprint for name in spec.participants if name != me}

    def _clauses(self, rule: Rule, spec: Spec, mine: Party, today: dt.date) -> Iterator[str | None]:
        """Every clause in a fixed order: None where it holds, else what it forbids."""
        partners = [name for name in spec.owners if name != mine.silo]
        who = " and ".join(partners)
        yield _first(f"{name} is not a partner" for name in partners if name not in rule.partners)
        ways, modes = rule.matchings, rule.randomness
        yield (
            None
            if ways is None or spec.align.protocol in ways
            else f"matching by '{spec.align.protocol}' is not allowed"
        )
        free = modes is None or spec.randomness in (None, *modes)
        yield None if free else f"randomness '{spec.randomness}' is not allowed"
        if spec.dealer is not None:
            yield None if spec.dealer in rule.dealers else f"{spec.dealer} may not be the dealer"
        if spec.helper is not None:
            yield None if spec.helper in rule.helpers else f"{spec.helper} may not be the helper"
        yield _first(
            f"no fingerprint is pinned for {name}"
            for name in spec.participants
            if name != mine.silo and name not in self.partners
        )
        yield f"it expired on {rule.expires}" if rule.expires is not None and today > rule.expires else None
        yield None if spec.kind in rule.kinds else f"jobs of kind '{spec.kind}' are not allowed"
        yield None if spec.purpose in rule.purposes else f"purpose '{spec.purpose}' is not allowed"
        yield _first(
            f"column '{c}' may not be used to join with {who}" for c in mine.join_columns if c not in rule.join
        )
        yield from _uses(rule, mine, who)
        yield _partner_sums(rule, spec, mine, who)
        if isinstance(spec, Trees):
            hidden = spec.train.routing in rule.routing
            yield None if hidden else f"trees with routing '{spec.train.routing}' are not allowed"
        if isinstance(spec, Score):
            yield _predictions(rule, spec, mine, who)
            asked, allowed = spec.questions or 0, rule.questions
            yield (
                None
                if asked <= allowed
                else f"{asked:,} questions about single rows are asked, {allowed:,} are allowed"
            )
        yield _first(f"'{item}' may not be released" for item in spec.release if item not in rule.release)
        floor, asked = self.minimum_matches, spec.align.minimum_matches
        yield None if asked >= floor else f"the job would go on with {asked} matches, the minimum is {floor}"


def _uses(rule: Rule, mine: Party, who: str) -> Iterator[str | None]:
    """What a job does with our columns after joining."""
    if isinstance(mine, Trainer | Examined):
        if mine.label is not None:
            allowed = mine.label in rule.label
            yield None if allowed else f"column '{mine.label}' may not be used as the label with {who}"
        yield _first(
            f"column '{feature.column}' may not be used for training with {who}"
            for feature in mine.features
            if feature.column not in rule.train and ANY not in rule.train
        )
    if isinstance(mine, Trainer):
        extra = [name for name in (mine.offset, mine.weight) if name is not None]
        yield _first(
            f"column '{name}' may not be used for training with {who}"
            for name in extra
            if name not in rule.train and ANY not in rule.train
        )
        yield _first(
            f"column '{name}' may not split figures that {who} would see"
            for name in mine.groups
            if name not in rule.groups
        )
    if isinstance(mine, Predictor):
        yield _first(
            f"column '{name}' may not be used to predict with {who}"
            for name in (*mine.number_columns, *mine.category_columns)
            if name not in rule.predict and ANY not in rule.predict
        )
    if isinstance(mine, Measurer):
        yield _first(
            f"column '{one.column}' may not be added up with {who}"
            for one in mine.sums
            if one.column not in rule.sum and ANY not in rule.sum
        )


def _partner_sums(rule: Rule, spec: Spec, mine: Party, who: str) -> str | None:
    """Whether partners would add up more columns of their own over rows that match ours than they may."""
    n = sum(len(party.sums) for party in spec.parties if isinstance(party, Measurer) and party.silo != mine.silo)
    if n <= rule.partner_sums:
        return None
    columns, allowed = (
        "1 column" if n == 1 else f"{n} columns",
        "1 is" if rule.partner_sums == 1 else f"{rule.partner_sums} are",
    )
    return f"{columns} of {who} would be added up over rows that match ours, {allowed} allowed"


def _predictions(rule: Rule, spec: Score, mine: Party, who: str) -> str | None:
    """Whether partners would be told more of each row than they may; what only we are told is not this rule's business."""
    if spec.recipients == (mine.silo,) or spec.output in rule.outputs:
        return None
    return f"a '{spec.output}' of each row may not be told to {who}"


def _first(failures: Iterator[str]) -> str | None:
    return next(failures, None)


def _dates_as_text(value: Any) -> Any:
    """TOML has dates, JSON has not: models take them as ISO text."""
    if isinstance(value, dict):
        return {k: _dates_as_text(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_dates_as_text(v) for v in value]
    return value.isoformat() if isinstance(value, dt.date) else value


def _check(document: dict[str, Any], what: str) -> Policy:
    policy = validate(Policy, _dates_as_text(document), what, ConfigError)
    names = [rule.name for rule in policy.allow]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{what}: two rules are called '{twice}'")
    return policy


def load(path: Path) -> Policy:
    """Read and check a policy file.  Raises: ConfigError."""
    return _check(read_document(path, "the policy", ConfigError), f"the policy {path}")


def with_pin(text: str, name: str, fingerprint: str, *, replace: bool = False) -> str:
    """The policy text with a partner's key pinned; comments and order stay as they are.

    Raises: ConfigError if another key is pinned already and `replace` is not given, or the result is not a policy.
    """
    policy = _check(tomllib.loads(text), "the policy")
    known = policy.partners.get(name)
    if known is not None and known.fingerprint == fingerprint:
        return text
    if known is None:
        text = f'{text.rstrip()}\n\n[partners.{name}]\nfingerprint = "{fingerprint}"\n'
    elif replace:
        pattern = rf'(\[partners\.{re.escape(name)}\]\s*\n(?:[^\[\n]*\n)*?\s*fingerprint\s*=\s*)"{known.fingerprint}"'
        text = re.sub(pattern, rf'\g<1>"{fingerprint}"', text)
    else:
        raise ConfigError(f"another key is pinned for {name} already; use --replace if {name} confirmed the new one")
    changed = _check(tomllib.loads(text), "the policy").partners.get(name)
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
# kinds = ["vertical.glm"]            # also "vertical.match" and "vertical.measure"
# purposes = ["credit risk"]
# join = ["email"]                         # columns that may match rows
# label = ["default"]                      # columns that may be the label
# train = ["LIMIT_BAL"]                    # columns that may be features; ["*"] for every column
# sum = []                                 # columns whose sum over matched rows may be told; ["*"] for every column
# groups = []                              # columns whose values may name the groups of figures
# routing = ["hidden"]                     # of trees; "revealed" tells everybody which rows go where
# questions = 0                            # how many single rows a job that stays open may be asked about
# predict = []                             # columns that a kept model may predict from; ["*"] for every column
# outputs = []                             # what partners may be told of each row: "decision", "decile", "rounded" ...
# partner_sums = 0                         # how many columns of partners may be added up over rows that match ours
# release = ["coefficients", "auc", "counts"]
# expires = 2027-12-31                     # the last day the rule holds
#
# [dealer]                                 # to make correlated randomness for jobs of others
# for = ["lender", "platform"]
#
# [helper]                                 # to compare keyed tokens for jobs of others
# for = ["lender", "platform"]
"""
