"""What the policy allows and refuses, row by row: a job, what is changed in it, what is changed in the rule, and what decides.

The job and the rule are those of policy_world.py.  A row without a sentence is allowed.  `clause` is the key of the policy
file that refuses; of a row that is allowed, the one that is looked at.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silos.errors import PolicyDenied
from silos.plan import plan
from silos.policy import Policy
from silos.policy_model import Rule
from silos.policy_rules import ANY, PERMISSIONS
from silos.spec import Spec
from tests.silos.policy_world import MONDAY_NOON, PERMITTED, changed, permitting, policy_of, spec_of, specs


class Row(NamedTuple):
    """One line of the table.  spec, rule: changes, by dotted place; None removes a key.  top: of the policy file."""

    job: str
    clause: str
    says: str = ""
    spec: Mapping[str, Any] = {}
    rule: Mapping[str, Any] = {}
    top: Mapping[str, Any] = {}
    when: dt.datetime = MONDAY_NOON
    used: Mapping[str, int] = {}


OT = {"randomness": "ot", "dealer": None}
ONLY_US = {"recipients": ["lender"], "release": ["predictions"], "stability": None}
AGE = {"parties.0.features": ["LIMIT", "AGE"]}
SATURDAY = dt.datetime(2026, 3, 7, 9, 30, tzinfo=dt.UTC)
LATE = dt.datetime(2026, 3, 2, 20, 0, tzinfo=dt.UTC)
OFFICE = ["mon-fri 06:00-20:00"]
TWO = [{"column": c, "lowest": "0", "highest": "9"} for c in ("VISITS", "STAY")]
COMPARED = "be compared with thresholds row by row before platform"
JOINED = "be used to join with platform"
LABEL = "be used as the label with platform"
TRAINED = "be used for training with platform"
EXAMINED = "be looked at by statistics with platform"
PREDICTS = "be used to predict with platform"
SUMMED = "be added up with platform"
SPLITS = "split figures that platform would see"


def no(column: str, verb: str) -> str:
    return f"column '{column}' may not {verb}"


def told(output: str) -> str:
    return f"a '{output}' of each row may not be told to platform"


def sums(columns: str, allowed: str) -> str:
    return f"{columns} of platform would be added up over rows that match ours, {allowed} allowed"


def few(asked: int, least: int) -> str:
    return f"the job would go on with {asked} matches, the minimum is {least}"


def untold(item: str, rows: int, why: str, floor: int) -> str:
    return f"behind a number of '{item}' there can be as few as {rows} rows ({why}), the floor is {floor}"


RARE = "encoding.rare_category"
SPLIT, HELD = (
    "align.minimum_matches without evaluate.holdout_percent",
    "evaluate.holdout_percent of align.minimum_matches",
)
LEAST, ANY_NUMBER = "align.minimum_matches", "how many rows are decided right and wrong can be any number"

ROWS = [
    # the job as it is
    *(Row(job, "kinds") for job in ("glm", "poisson", "grouped", "trees", "routed", "network", "statistics")),
    *(Row(job, "kinds") for job in ("score", "asked", "match", "helped", "keys", "measure", "noised")),
    # who
    Row("glm", "partners", "platform is not a partner", rule={"partners": []}),
    Row("glm", "partners", "platform is not a partner", rule={"partners": None}),
    Row("glm", "partners", "platform is not a partner", rule={"partners": ["hospital"]}),
    Row("glm", "partners", rule={"partners": ["hospital", "platform"]}),
    Row("match", "partners", "platform is not a partner", rule={"partners": ["helper"]}),
    Row("glm", "partners.platform", "no fingerprint is pinned for platform", top={"partners.platform": None}),
    Row("glm", "partners.dealer", "no fingerprint is pinned for dealer", top={"partners.dealer": None}),
    Row("helped", "partners.helper", "no fingerprint is pinned for helper", top={"partners.helper": None}),
    Row("glm", "partners.dealer", spec=OT, top={"partners.dealer": None}),
    Row("glm", "dealers", "dealer may not be the dealer", rule={"dealers": None}),
    Row("glm", "dealers", "dealer may not be the dealer", rule={"dealers": ["helper"]}),
    Row("glm", "dealers", spec=OT, rule={"dealers": None}),
    Row("helped", "helpers", "helper may not be the helper", rule={"helpers": None}),
    Row("helped", "helpers", "helper may not be the helper", rule={"helpers": ["dealer"]}),
    # how
    Row("glm", "matchings", rule={"matchings": ["vole-psi"]}),
    Row("glm", "matchings", "matching by 'vole-psi' is not allowed", rule={"matchings": []}),
    Row("glm", "matchings", "matching by 'vole-psi' is not allowed", rule={"matchings": ["ecdh-psi"]}),
    Row("measure", "matchings", "matching by 'hidden' is not allowed", rule={"matchings": ["vole-psi"]}),
    Row("glm", "randomness", rule={"randomness": ["dealer"]}),
    Row("glm", "randomness", "randomness 'dealer' is not allowed", rule={"randomness": []}),
    Row("glm", "randomness", "randomness 'dealer' is not allowed", rule={"randomness": ["verified-dealer", "ot"]}),
    Row("glm", "randomness", "randomness 'ot' is not allowed", spec=OT, rule={"randomness": ["dealer"]}),
    Row("glm", "randomness", spec=OT, rule={"randomness": ["ot"]}),
    Row("glm", "randomness", spec={"randomness": "verified-dealer"}, rule={"randomness": ["verified-dealer"]}),
    Row("match", "randomness", rule={"randomness": []}),
    # what for, and until when
    Row("glm", "kinds", "jobs of kind 'vertical.glm' are not allowed", rule={"kinds": None}),
    Row("trees", "kinds", "jobs of kind 'vertical.trees' are not allowed", rule={"kinds": ["vertical.glm"]}),
    Row("match", "kinds", "jobs of kind 'vertical.match' are not allowed", rule={"kinds": ["vertical.measure"]}),
    Row("measure", "kinds", "jobs of kind 'vertical.measure' are not allowed", rule={"kinds": ["*"]}),
    Row("glm", "purposes", "purpose 'credit risk' is not allowed", rule={"purposes": None}),
    Row("glm", "purposes", "purpose 'credit risk' is not allowed", rule={"purposes": ["Credit risk"]}),
    Row("glm", "purposes", "purpose 'credit risk' is not allowed", rule={"purposes": ["*"]}),
    Row("glm", "purposes", "purpose 'ads' is not allowed", spec={"purpose": "ads"}),
    Row("glm", "expires", rule={"expires": "2026-03-02"}),
    Row("glm", "expires", "it expired on 2026-03-01", rule={"expires": "2026-03-01"}),
    Row("glm", "expires", rule={"expires": "2027-12-31"}),
    # columns: join
    Row("glm", "join", no("email", JOINED), rule={"join": None}),
    Row("glm", "join", no("email", JOINED), rule={"join": ["phone"]}),
    Row("glm", "join", no("email", JOINED), rule={"join": ["*"]}),
    Row("glm", "join", no("LIMIT", JOINED), spec={"parties.0.key": "LIMIT", "parties.0.features": ["SEX"]}),
    Row("keys", "join", no("born", JOINED), rule={"join": ["email", "first", "last"]}),
    Row("keys", "join", no("first", JOINED), rule={"join": ["email", "last", "born"]}),
    Row("match", "join", no("email", JOINED), rule={"join": ["LIMIT"]}),
    Row("noised", "join", no("email", JOINED), rule={"join": []}),
    # columns: models and statistics
    Row("glm", "label", no("default", LABEL), rule={"label": None}),
    Row("glm", "label", no("default", LABEL), rule={"label": ["*"]}),
    Row("glm", "label", no("default", LABEL), rule={"label": ["claims"]}),
    Row("trees", "label", no("default", LABEL), rule={"label": ["LIMIT"]}),
    Row("statistics", "label", no("default", LABEL), rule={"label": []}),
    Row("glm", "train", no("LIMIT", TRAINED), rule={"train": None}),
    Row("glm", "train", no("SEX", TRAINED), rule={"train": ["LIMIT"]}),
    Row("glm", "train", no("SEX", TRAINED), rule={"train": ["LIMIT", "sex"]}),
    Row("glm", "train", no("AGE", TRAINED), spec=AGE),
    Row("glm", "train", spec=AGE, rule={"train": ["*"]}),
    Row("trees", "train", no("AGE", TRAINED), spec=AGE),
    Row("network", "train", no("AGE", TRAINED), spec=AGE),
    Row("poisson", "train", no("exposure", TRAINED), rule={"train": ["LIMIT", "SEX", "w"]}),
    Row("poisson", "train", no("w", TRAINED), rule={"train": ["LIMIT", "SEX", "exposure"]}),
    Row("poisson", "train", rule={"train": ["*"]}),
    Row("statistics", "train", no("AGE", EXAMINED), spec=AGE),
    Row("statistics", "train", no("LIMIT", EXAMINED), rule={"train": ["SEX"]}),
    Row("statistics", "train", spec=AGE, rule={"train": ["*"]}),
    Row("glm", "train", no("LIMIT", TRAINED), rule={"train": [], "predict": ["*"]}),
    Row("grouped", "groups", no("AGE", SPLITS), rule={"groups": None}),
    Row("grouped", "groups", no("AGE", SPLITS), rule={"groups": ["*"]}),
    Row("grouped", "groups", no("AGE", SPLITS), rule={"groups": ["SEX"]}),
    # columns and routes of trees
    Row("routed", "compare", no("LIMIT", COMPARED), rule={"compare": None}),
    Row("routed", "compare", no("SEX", COMPARED), rule={"compare": ["LIMIT"]}),
    Row("routed", "compare", no("LIMIT", COMPARED), rule={"compare": ["*"]}),
    Row("trees", "compare", rule={"compare": None}),
    Row("routed", "routing", "trees with routing 'revealed' are not allowed", rule={"routing": None}),
    Row("trees", "routing", "trees with routing 'hidden' are not allowed", rule={"routing": ["revealed"]}),
    Row("trees", "routing", rule={"routing": None}),
    Row("glm", "routing", rule={"routing": []}),
    # predictions
    Row("score", "predict", no("LIMIT", PREDICTS), rule={"predict": None}),
    Row("score", "predict", no("prior", PREDICTS), rule={"predict": ["LIMIT", "SEX"]}),
    Row("score", "predict", no("AGE", PREDICTS), spec=AGE),
    Row("score", "predict", spec=AGE, rule={"predict": ["*"]}),
    Row("score", "predict", no("SEX", PREDICTS), rule={"predict": ["LIMIT"], "train": ["*"]}),
    Row("score", "outputs", told("decile"), rule={"outputs": None}),
    Row("score", "outputs", told("decile"), rule={"outputs": ["decision"]}),
    Row("score", "outputs", told("probability"), spec={"output": "probability", "cuts": []}),
    Row("score", "outputs", rule={"outputs": None}, spec={"recipients": ["lender"]}),
    Row("asked", "questions", rule={"questions": 50}),
    Row("asked", "questions", "50 questions about single rows are asked, 49 are allowed", rule={"questions": 49}),
    Row("asked", "questions", "50 questions about single rows are asked, 0 are allowed", rule={"questions": None}),
    Row("score", "questions", rule={"questions": None}),
    # sums
    Row("measure", "sum", no("LIMIT", SUMMED), rule={"sum": None}),
    Row("measure", "sum", no("LIMIT", SUMMED), rule={"sum": ["AGE"], "train": ["*"]}),
    Row("measure", "sum", rule={"sum": ["*"]}),
    Row("measure", "partner_sums", sums("1 column", "0 are"), rule={"partner_sums": None}),
    Row("measure", "partner_sums", sums("2 columns", "1 is"), spec={"parties.1.sums": TWO}),
    Row("measure", "partner_sums", spec={"parties.1.sums": TWO}, rule={"partner_sums": 2}),
    Row("measure", "partner_sums", spec={"parties.1.sums": []}, rule={"partner_sums": 0}),
    # columns that go nowhere
    Row("match", "", spec={"parties.0.output": ["AGE", "email"]}),
    # what is handed out
    Row("glm", "release", "'coefficients' may not be released", rule={"release": None}),
    Row("glm", "release", "'auc' may not be released", rule={"release": ["coefficients", "counts"]}),
    Row("glm", "release", "'counts' may not be released", rule={"release": ["coefficients", "auc"]}),
    Row("glm", "release", "'inference' may not be released", spec={"release": ["coefficients", "inference"]}),
    Row("glm", "release", "'contribution' may not be released", spec={"release": ["contribution"]}),
    Row("trees", "release", spec={"release": ["contribution"]}, rule={"release": ["contribution"]}),
    Row("glm", "release", spec={"release": ["auc"]}, rule={"release": ["auc"]}),
    Row("trees", "release", "'model' may not be released", rule={"release": ["auc", "counts"]}),
    Row("statistics", "release", "'woe' may not be released", rule={"release": ["correlations", "counts"]}),
    Row("statistics", "release", "'vif' may not be released", spec={"release": ["vif"]}),
    Row("match", "release", "'rows' may not be released", rule={"release": ["counts"]}),
    Row("measure", "release", "'sums' may not be released", rule={"release": ["matches"]}),
    Row("score", "release", "'stability' may not be released", rule={"release": ["predictions", "counts"]}),
    # to whom
    Row("glm", "recipients", "'coefficients' may not be told to platform", rule={"recipients": []}),
    Row("glm", "recipients", "'coefficients' may not be told to platform", rule={"recipients": ["hospital"]}),
    Row("glm", "recipients", rule={"recipients": ["platform"]}),
    Row("match", "recipients", "'rows' may not be told to platform", rule={"recipients": []}),
    Row("score", "recipients", "'predictions' may not be told to platform", rule={"recipients": ["lender"]}),
    Row("asked", "recipients", "'predictions' may not be told to platform", rule={"recipients": []}),
    Row("score", "recipients", spec=ONLY_US, rule={"recipients": []}),
    # noise
    Row("measure", "noise", "'matches' would be told without noise", rule={"noise": "required"}),
    Row("noised", "noise", rule={"noise": "required"}),
    Row("glm", "noise", "'coefficients' would be told without noise", rule={"noise": "required"}),
    Row("match", "noise", rule={"noise": "required"}, spec={"release": ["rows"]}),
    Row("match", "noise", "'counts' would be told without noise", rule={"noise": "required"}),
    Row("statistics", "noise", "'correlations' would be told without noise", rule={"noise": "required"}),
    # rows behind a figure
    Row("glm", "floor", rule={"floor": 30}),
    Row("glm", "floor", untold("auc", 30, HELD, 31), rule={"floor": 31}),
    Row(
        *("glm", "floor", untold("contribution", 30, HELD, 31)),
        spec={"release": ["contribution"]},
        rule={"release": ["contribution"], "floor": 31},
    ),
    Row("glm", "floor", untold("coefficients", 70, SPLIT, 71), rule={"floor": 71}),
    Row("glm", "floor", untold("coefficients", 100, RARE, 101), spec={"align.minimum_matches": 1000}, rule={"floor": 101}),
    Row("glm", "floor", spec={"align.minimum_matches": 1000}, rule={"floor": 100}),
    Row("grouped", "floor", untold("metrics", 0, ANY_NUMBER, 1), rule={"floor": 1}),
    Row("poisson", "floor", rule={"floor": 20}),
    Row("poisson", "floor", untold("metrics", 20, "bins of held-out rows", 21), rule={"floor": 21}),
    Row("statistics", "floor", untold("woe", 10, "statistics.floor", 11), rule={"floor": 11}),
    Row("statistics", "floor", spec={"statistics": {"floor": 11}}, rule={"floor": 11}),
    Row("score", "floor", untold("stability", 20, "stability.minimum", 21), rule={"floor": 21}),
    Row("measure", "floor", rule={"floor": 100}),
    Row("measure", "floor", untold("matches", 100, LEAST, 101), rule={"floor": 101}),
    Row("match", "floor", spec={"release": ["rows"]}, rule={"floor": 10**6}),
    Row("trees", "floor", spec={"release": ["model"]}, rule={"floor": 10**6}),
    Row("glm", "minimum_matches", top={"minimum_matches": 100}),
    Row("glm", "minimum_matches", few(100, 101), top={"minimum_matches": 101}),
    Row("glm", "minimum_matches", spec={"align.minimum_matches": 101}, top={"minimum_matches": 101}),
    Row("match", "minimum_matches", few(99, 100), spec={"align.minimum_matches": 99}),
    # when and how often
    Row("glm", "schedule", rule={"schedule": OFFICE}),
    Row("glm", "schedule", "jobs may not start on sat 09:30 UTC", rule={"schedule": OFFICE}, when=SATURDAY),
    Row("glm", "schedule", "jobs may not start on mon 20:00 UTC", rule={"schedule": OFFICE}, when=LATE),
    Row("glm", "schedule", rule={"schedule": [*OFFICE, "sat 09:00-10:00"]}, when=SATURDAY),
    Row("glm", "schedule", "jobs may not start on mon 12:00 UTC", rule={"schedule": []}),
    Row("glm", "uses", rule={"uses": 3}, used={"all-of-it": 2}),
    Row("glm", "uses", "it has admitted 3 of 3 jobs already", rule={"uses": 3}, used={"all-of-it": 3}),
    Row("glm", "uses", rule={"uses": 1}, used={"another": 7}),
    Row("glm", "uses", used={"all-of-it": 10**6}),
    # persons decide later, so asking for them refuses nothing here
    Row("glm", "approval", rule={"approval": 1}, top={"approvers": {"Ada": {"key": "A" * 43 + "="}}}),
]  # fmt: skip


def situation(row: Row) -> tuple[Spec, Policy]:
    spec = spec_of(row.job, **row.spec)
    top = {key: value for key, value in row.top.items() if value is not None}
    made = policy_of(changed(PERMITTED, row.rule), **top)
    gone = {key.removeprefix("partners.") for key, value in row.top.items() if value is None}
    return spec, made.model_copy(update={"partners": {n: p for n, p in made.partners.items() if n not in gone}})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.job}: {row.says or row.clause}")
def test_the_table(row: Row) -> None:
    spec, policy = situation(row)
    judged = policy.judge(plan(spec), "lender", row.when, row.used)
    assert judged.rule == "all-of-it"
    if not row.says:
        assert judged.reason == ""
        decision = policy.decide(spec, "lender", row.when, row.used)
        assert decision.rule == "all-of-it"
        assert set(decision.pins) == set(spec.participants) - {"lender"}
        assert all(finding.allowed and not finding.sentence for finding in decision.findings)
        return
    with pytest.raises(PolicyDenied) as caught:
        policy.decide(spec, "lender", row.when, row.used)
    assert str(caught.value) == f"policy of lender, rule 'all-of-it': {row.says}"
    refusing = next(finding for finding in judged.findings if not finding.allowed)
    assert (refusing.clause, refusing.sentence) == (row.clause, row.says)
    assert refusing.change


def test_the_table_is_long_and_has_every_clause_both_ways() -> None:
    assert len(ROWS) >= 100
    assert min(sum(bool(row.says) for row in ROWS), sum(not row.says for row in ROWS)) >= 40
    settled = {"name", "dataset", "approval"}  # which rule is meant, and what persons decide later
    clauses = set(Rule.model_fields) - settled
    assert clauses <= {row.clause for row in ROWS if row.says}
    operations = {use.operation for row in ROWS if not row.says for use in plan(spec_of(row.job)).uses}
    assert operations == PERMISSIONS.keys()


# --- any job, any policy


@settings(max_examples=100, deadline=None)
@given(specs(), st.data())
def test_a_column_that_is_not_listed_for_what_is_done_with_it_is_refused(spec: Spec, data: st.DataObject) -> None:
    """The narrowest rule that permits a job permits it, and without any one column of it does not."""
    made = plan(spec)
    me = data.draw(st.sampled_from(spec.owners))
    narrow = permitting(made, me)
    pins = {name: {"fingerprint": "a" * 64} for name in spec.participants if name != me}
    assert policy_of(narrow, partners=pins).decide(spec, me, MONDAY_NOON).rule == "narrow"
    use = data.draw(st.sampled_from([use for use in made.of(me) if PERMISSIONS[use.operation] is not None]))
    permission = PERMISSIONS[use.operation]
    assert permission is not None
    without = [column for column in narrow[permission.clause] if column != use.column]
    with pytest.raises(PolicyDenied) as caught:
        policy_of({**narrow, permission.clause: without}, partners=pins).decide(spec, me, MONDAY_NOON)
    assert caught.value.rule == "narrow"
    assert f"column '{use.column}' may not" in caught.value.clause


@st.composite
def rules(draw: st.DrawFn, name: str, narrow: dict[str, Any]) -> dict[str, Any]:
    """A rule of which most is as a job needs it, and the rest is less, or anything."""
    columns = st.lists(st.sampled_from([*(f"c{i}" for i in range(12)), "email", "mail", ANY]), unique=True)
    for clause in ("join", "label", "train", "compare", "sum", "groups", "predict"):
        if draw(st.integers(0, 5)) == 0:
            narrow = {**narrow, clause: draw(columns)}
    gone = draw(st.sets(st.sampled_from(sorted(narrow)), max_size=1)) - {"name", "dataset"}
    dataset = draw(st.sampled_from([narrow["dataset"], narrow["dataset"], "other"]))
    return {key: value for key, value in narrow.items() if key not in gone} | {"name": name, "dataset": dataset}


@settings(max_examples=200, deadline=None)
@given(specs(), st.sampled_from(["lender", "platform"]), st.data())
def test_nothing_starts_that_no_rule_lists_and_every_refusal_names_a_rule(
    spec: Spec, me: str, data: st.DataObject
) -> None:
    """What is allowed is checked against the spec's own document, without the plan."""
    narrow = permitting(plan(spec), me)
    one, two = data.draw(rules("one", narrow)), data.draw(rules("two", narrow))
    about = [rule for rule in (one, two) if rule["dataset"] == narrow["dataset"]]
    pins = {name: {"fingerprint": "a" * 64} for name in spec.participants if name != me}
    policy = policy_of(one, two, partners=pins)
    judged = policy.judge(plan(spec), me, MONDAY_NOON)
    if not judged.allowed:
        with pytest.raises(PolicyDenied) as caught:
            policy.decide(spec, me, MONDAY_NOON)
        assert caught.value.rule in ({rule["name"] for rule in about} or {""})
        assert caught.value.clause
        return
    (rule,) = (rule for rule in about if rule["name"] == policy.decide(spec, me, MONDAY_NOON).rule)
    (party,) = (party for party in spec.document()["parties"] if party["silo"] == me)
    listed = {clause: set(rule.get(clause, ())) for clause in ("join", "label", "train", "sum", "groups", "predict")}
    assert {column for key in party["keys"] for column in key} <= listed["join"]
    predicts = spec.kind == "vertical.score"
    for clause, names in (
        ("label", [party.get("label")]),
        ("predict" if predicts else "train", [f["column"] for f in party.get("features", ())]),
        ("predict" if predicts else "train", [party.get("offset"), party.get("weight")]),
        ("sum", [one["column"] for one in party.get("sums", ())]),
        ("groups", party.get("groups", ())),
    ):
        named = {name for name in names if name is not None}
        assert named <= listed[clause] or (clause in ("train", "predict", "sum") and ANY in listed[clause])
    assert set(spec.release) <= set(rule["release"])
    assert spec.kind in rule["kinds"]
    assert spec.purpose in rule["purposes"]
