"""The policy file: deny by default, how rules are chosen, what is refused as no policy, pins, the schema.

What each clause allows and refuses is in test_policy_table.py.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest

from coordinator.statements import Record as Recorded
from silos import policy
from silos.errors import ConfigError, PolicyDenied
from silos.policy import Approver, AssistantRule, Budget, Partner, Policy, Record, Rule, Terms
from tests.silos.world import RULE, make_spec, policy_text

PINS = {"platform": "a" * 64, "dealer": "b" * 64}
TODAY = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
ADA, BOB = base64.b64encode(bytes(32)).decode(), base64.b64encode(bytes([1] * 32)).decode()


def rule_with(line: str) -> str:
    return f'version = 1\n[[allow]]\nname = "a"\ndataset = "d1"\n{line}'


def parsed(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return policy.load(path)


def test_the_usual_job_is_allowed_with_the_pins_of_the_others(tmp_path: Path) -> None:
    decision = parsed(tmp_path, policy_text(RULE, PINS)).decide(make_spec(), "lender", TODAY)
    assert decision.rule == "credit-model"
    assert decision.pins == PINS
    assert decision.approval == 0
    assert [f.use.column for f in decision.findings if f.use is not None] == ["email", "LIMIT_BAL", "SEX", "default"]


@pytest.mark.parametrize("clause", [k for k, v in RULE.items() if isinstance(v, list)])
def test_a_clause_left_out_permits_nothing(tmp_path: Path, clause: str) -> None:
    rules = parsed(tmp_path, policy_text({k: v for k, v in RULE.items() if k != clause}, PINS))
    with pytest.raises(PolicyDenied):
        rules.decide(make_spec(), "lender", TODAY)


def test_without_a_dealer_nobody_has_to_be_one(tmp_path: Path) -> None:
    spec = make_spec(randomness="ot", dealer=None)
    rule = {k: v for k, v in RULE.items() if k != "dealers"}
    pins = {"platform": PINS["platform"]}
    assert parsed(tmp_path, policy_text(rule, pins)).decide(spec, "lender", TODAY).pins == pins
    serving = parsed(tmp_path, policy_text({}, {"lender": "a" * 64, **pins}, dealer_for=["lender", "platform"]))
    with pytest.raises(PolicyDenied, match="dealer has no part in this job"):
        serving.decide(spec, "dealer", TODAY)


def test_the_rule_that_comes_closest_is_named(tmp_path: Path) -> None:
    text = policy_text({**RULE, "name": "far", "partners": ["hospital"]}, PINS)
    text += policy_text({**RULE, "name": "near", "release": ["auc"]}, {}).split("\n", 2)[2]
    with pytest.raises(PolicyDenied, match="rule 'near'"):
        parsed(tmp_path, text).decide(make_spec(), "lender", TODAY)


def test_no_rule_for_the_data_set(tmp_path: Path) -> None:
    rules = parsed(tmp_path, policy_text({**RULE, "dataset": "other"}, PINS))
    with pytest.raises(PolicyDenied) as caught:
        rules.decide(make_spec(), "lender", TODAY)
    assert str(caught.value) == "policy of lender: no rule allows any use of data set 'loans'"
    assert caught.value.rule == ""


def test_the_policy_of_a_new_silo_permits_nothing(tmp_path: Path) -> None:
    rules = parsed(tmp_path, policy.initial("lender"))
    for me in ("lender", "platform", "dealer", "stranger"):
        with pytest.raises(PolicyDenied):
            rules.decide(make_spec(), me, TODAY)


def test_a_dealer_serves_only_whom_it_names_and_knows(tmp_path: Path) -> None:
    pins = {"lender": "a" * 64, "platform": "b" * 64}
    allowed = parsed(tmp_path, policy_text({}, pins, dealer_for=["lender", "platform"]))
    assert allowed.decide(make_spec(), "dealer", TODAY).pins == pins
    with pytest.raises(
        PolicyDenied, match=r"^policy of dealer, rule 'dealer': dealer may not be the dealer for platform$"
    ):
        parsed(tmp_path, policy_text({}, pins, dealer_for=["lender"])).decide(make_spec(), "dealer", TODAY)
    unpinned = parsed(tmp_path, policy_text({}, {"lender": "a" * 64}, dealer_for=["lender", "platform"]))
    with pytest.raises(PolicyDenied, match="no fingerprint is pinned for platform"):
        unpinned.decide(make_spec(), "dealer", TODAY)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("version = 2", "'version' must be 1, got 2"),
        ("", "'version' is missing"),
        ("version = 1\nallowed = []", "'allowed' is not a known setting"),
        ("version = 1\nminimum_matches = 0", "'minimum_matches' must be at least 1, got 0"),
        ('version = 1\n[partners.p2]\nfingerprint = "ab"', "'partners.p2.fingerprint' does not have the form"),
        ('version = 1\n[[allow]]\nname = "a"', r"'allow\[0\].dataset' is missing"),
        ('version = 1\n[[allow]]\nname = "a"\ndataset = "d1"\ntrain = "*"', r"'allow\[0\].train' must be a list"),
        (
            'version = 1\n[[allow]]\nname="a"\ndataset="d1"\n[[allow]]\nname="a"\ndataset="d1"',
            "two rules are called 'a'",
        ),
        (
            'version = 1\n[[allow]]\nname = "a"\ndataset = "d1"\nrandomness = ["dice"]',
            r"'allow\[0\].randomness\[0\]' must be 'dealer', 'verified-dealer' or 'ot', got 'dice'",
        ),
        ("version = ", "is not well-formed TOML"),
        (rule_with("floor = -1"), r"'allow\[0\].floor' must be at least 0, got -1"),
        (rule_with("uses = 0"), r"'allow\[0\].uses' must be at least 1, got 0"),
        (rule_with("approval = 3"), r"'allow\[0\].approval' must be at most 2, got 3"),
        (rule_with("approval = 1"), r"rule 'a' has approval = 1, and \[approvers\] names 0$"),
        (rule_with('noise = "yes"'), r"'allow\[0\].noise' must be 'optional' or 'required', got 'yes'"),
        (rule_with('expires = "soon"'), r"'allow\[0\].expires' is not acceptable"),
        (
            rule_with('schedule = ["weekdays"]'),
            r"'allow\[0\].schedule\[0\]' must be like 'mon-fri 06:00-20:00', got 'weekdays'",
        ),
        (
            rule_with('schedule = ["fri-mon 06:00-20:00"]'),
            r"'allow\[0\].schedule\[0\]' must go from an earlier day and time to a later one, at most 24:00, got 'fri-mon",
        ),
        (
            f'version = 1\n[approvers."Ada Lovelace"]\nkey = "{ADA[:-2]}"',
            "'approvers.Ada Lovelace.key' must be the base64 of a raw Ed25519 public key of 32 bytes",
        ),
        (
            f'version = 1\n[approvers.Ada]\nkey = "{ADA}"\n[approvers.Bob]\nkey = "{ADA}"',
            "two approvers have the same key$",
        ),
        (
            'version = 1\n[datasets.loans]\nbudget = { rho = "0", delta = "1e-6" }',
            "'datasets.loans.budget.rho' must be above 0, got '0'",
        ),
        (
            'version = 1\n[datasets.loans]\nbudget = { rho = "1", delta = "1" }',
            "'datasets.loans.budget.delta' must be at least 1e-30 and below 1, got '1'",
        ),
        ('version = 1\n[datasets.loans]\nbudget = { rho = 0.5, delta = "1e-6" }', "budget.rho' must be text, got 0.5"),
        ("version = 1\n[datasets.loans]\nretention_days = -1", "retention_days' must be at least 0, got -1"),
    ],
)
def test_a_broken_policy_is_refused_as_a_whole(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parsed(tmp_path, text)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (None, "cannot be read: No such file or directory$"),
        (b"version = 1\n#" + b"x" * (1 << 20), "has more than 1048576 bytes$"),
        (b'version = 1\n# "\xff"', "is not well-formed TOML: it is not UTF-8$"),
        (b"a = " + b"[" * 100_000, "is not well-formed TOML: "),
    ],
)
def test_bytes_that_are_no_policy_are_refused(tmp_path: Path, raw: bytes | None, sentence: str) -> None:
    path = tmp_path / "policy.toml"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(ConfigError, match=sentence):
        policy.load(path)


def test_the_digest_is_of_the_bytes_that_were_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(policy_text(RULE, PINS) + "# gr\u00fcn\n", encoding="utf-8")
    read, digest = policy.load_with_digest(path)
    assert read == policy.load(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_rules_are_not_added_up_and_the_one_with_uses_left_is_taken(tmp_path: Path) -> None:
    halves = policy_text({**RULE, "name": "columns", "release": []}, PINS)
    halves += policy_text({**RULE, "name": "items", "train": []}, {}).split("\n", 2)[2]
    with pytest.raises(PolicyDenied, match=r"rule 'columns': 'coefficients' may not be released$"):
        parsed(tmp_path, halves).decide(make_spec(), "lender", TODAY)
    spare = policy_text({**RULE, "name": "first", "uses": 1}, PINS)
    spare += policy_text({**RULE, "name": "second", "uses": 1}, {}).split("\n", 2)[2]
    rules = parsed(tmp_path, spare)
    for used, rule in (({}, "first"), ({"first": 1}, "second")):
        assert rules.decide(make_spec(), "lender", TODAY, used).rule == rule
    with pytest.raises(PolicyDenied, match=r"it has admitted 1 of 1 jobs already$"):
        rules.decide(make_spec(), "lender", TODAY, {"first": 1, "second": 1})


@pytest.mark.parametrize(
    ("window", "when", "inside"),
    [
        ("mon-fri 06:00-20:00", "2026-03-02T06:00", True),
        ("mon-fri 06:00-20:00", "2026-03-02T05:59", False),
        ("mon-fri 06:00-20:00", "2026-03-06T19:59", True),
        ("mon-fri 06:00-20:00", "2026-03-06T20:00", False),
        ("mon-fri 06:00-20:00", "2026-03-07T12:00", False),
        ("sun 00:00-24:00", "2026-03-08T23:59", True),
        ("sun 00:00-24:00", "2026-03-09T00:00", False),
        ("mon-fri 06:00-20:00", "2026-03-02T06:30+02:00", False),  # 04:30 UTC
    ],
)
def test_a_schedule_is_in_utc_and_its_last_minute_is_out(tmp_path: Path, window: str, when: str, inside: bool) -> None:
    rules = parsed(tmp_path, policy_text({**RULE, "schedule": [window]}, PINS))
    if inside:
        rules.decide(make_spec(), "lender", dt.datetime.fromisoformat(when))
        return
    with pytest.raises(PolicyDenied, match="jobs may not start on"):
        rules.decide(make_spec(), "lender", dt.datetime.fromisoformat(when))


def test_how_many_persons_must_say_yes_is_in_the_decision(tmp_path: Path) -> None:
    people = f'[approvers."Ada Lovelace"]\nkey = "{ADA}"\n[approvers."Bob Ng"]\nkey = "{BOB}"\n'
    rules = parsed(tmp_path, policy_text({**RULE, "approval": 2}, PINS) + people)
    assert rules.decide(make_spec(), "lender", TODAY).approval == 2
    assert {name: person.key for name, person in rules.approvers.items()} == {"Ada Lovelace": ADA, "Bob Ng": BOB}


def test_the_record_has_every_field_and_is_empty_where_nothing_is_said(tmp_path: Path) -> None:
    said = """
[record]
controller = "Example Bank"
[datasets.loans]
budget = { rho = "0.5", delta = "1e-6" }
legal_basis = "contract"
categories = ["credit history"]
retention_days = 365
"""
    rules = parsed(tmp_path, policy_text(RULE, PINS) + said)
    assert rules.record_of("loans") == {
        "controller": "Example Bank",
        "contact": "",
        "legal_basis": "contract",
        "categories": ["credit history"],
        "subjects": [],
        "retention_days": 365,
        "transfers": "",
    }
    Recorded.model_validate(rules.record_of("loans"))
    assert set(rules.record_of("other")) == set(rules.record_of("loans"))
    assert rules.datasets["loans"].budget == Budget(rho="0.5", delta="1e-6")


def test_the_committed_schema_is_that_of_the_code() -> None:
    """`accord policy schema > docs/policy.schema.json` makes it anew."""
    committed = (Path(__file__).parents[2] / "docs" / "policy.schema.json").read_text(encoding="utf-8")
    assert committed == json.dumps(policy.schema(), indent=1, sort_keys=True) + "\n"


def test_the_schema_knows_every_key_and_describes_it() -> None:
    made = policy.schema()
    tables = {"Policy": made, **made["$defs"]}
    for model in (Policy, Rule, Partner, Approver, Record, Terms, Budget, AssistantRule):
        table = tables[model.__name__]
        assert table["additionalProperties"] is False
        assert set(table["properties"]) == {field.alias or name for name, field in model.model_fields.items()}
        assert all("description" in key or "$ref" in key for key in table["properties"].values()), model.__name__


def test_a_new_silos_policy_has_every_key_in_its_comments(tmp_path: Path) -> None:
    lines = policy.initial("lender").splitlines()
    example = lines[next(i for i, line in enumerate(lines) if line.startswith("# [[allow]]")) :]
    text = "\n".join(["version = 1", *(line.removeprefix("# ").removeprefix("#") for line in example)])
    document = tomllib.loads(text.replace('key = "..."', f'key = "{ADA}"'))
    assert set(document) == set(Policy.model_fields) - {"minimum_matches", "partners"}
    assert set(document["allow"][0]) == set(Rule.model_fields)
    assert set(document["datasets"]["loans"]) == set(Terms.model_fields)
    parsed(tmp_path, text.replace('key = "..."', f'key = "{ADA}"'))


def test_pinning_keeps_the_file_and_never_replaces_by_accident(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(policy.initial("lender"))
    policy.pin(path, "platform", "a" * 64)
    policy.pin(path, "dealer", "b" * 64)
    policy.pin(path, "platform", "a" * 64)
    assert path.read_text().startswith(policy.initial("lender").rstrip())
    assert {n: p.fingerprint for n, p in policy.load(path).partners.items()} == PINS
    with pytest.raises(ConfigError, match="another key is pinned for platform already"):
        policy.pin(path, "platform", "c" * 64)
    policy.pin(path, "platform", "c" * 64, replace=True)
    assert {n: p.fingerprint for n, p in policy.load(path).partners.items()} == {**PINS, "platform": "c" * 64}
    with pytest.raises(ConfigError, match="does not have the form"):
        policy.pin(path, "hospital", "nonsense")
    assert "hospital" not in policy.load(path).partners


def test_the_examples_in_the_page_are_policies() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
    example = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    read = policy.parse(re.sub(r'"[0-9a-f]{4}\.\.\.[^"]*"', f'"{"0" * 64}"', example[1]))
    assert (read.allow[0].approval, read.datasets["loans"].retention_days) == (1, 365)
    wishes = "version = 1\n" + "\n".join(re.findall(r"```\n(\[.*?)```", page, re.DOTALL))
    assert [rule.name for rule in policy.parse(wishes).allow] == ["overlap", "credit-model", "nightly-scores"]
