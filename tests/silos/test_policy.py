"""The policy: deny by default; every clause denies on its own and names its rule."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from silos import policy
from silos.errors import ConfigError, PolicyDenied
from silos.policy import Policy
from tests.silos.world import RULE, make_spec, policy_text, request

PINS = {"platform": "a" * 64, "dealer": "b" * 64}
TODAY = dt.date(2026, 3, 1)


def parsed(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return policy.load(path)


def test_the_usual_job_is_allowed_with_the_pins_of_the_others(tmp_path: Path) -> None:
    decision = parsed(tmp_path, policy_text(RULE, PINS)).decide(make_spec(), "lender", TODAY)
    assert decision.rule == "credit-model"
    assert decision.pins == PINS


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({"partners": ["hospital"]}, "platform is not a partner"),
        ({"dealers": []}, "dealer may not be the dealer"),
        ({"randomness": ["ot"]}, "randomness 'dealer' is not allowed"),
        ({"randomness": []}, "randomness 'dealer' is not allowed"),
        ({"expires": "2026-02-28"}, "it expired on 2026-02-28"),
        ({"kinds": ["vertical.match"]}, "jobs of kind 'vertical.glm' are not allowed"),
        ({"purposes": ["fraud"]}, "purpose 'credit risk' is not allowed"),
        ({"join": ["phone"]}, "column 'email' may not be used to join with platform"),
        ({"label": []}, "column 'default' may not be used as the label with platform"),
        ({"train": ["LIMIT_BAL"]}, "column 'SEX' may not be used for training with platform"),
        ({"release": ["auc", "counts"]}, "'coefficients' may not be released"),
    ],
)
def test_each_clause_denies_and_names_the_rule(tmp_path: Path, change: dict[str, Any], clause: str) -> None:
    rules = parsed(tmp_path, policy_text({**RULE, **change}, PINS))
    with pytest.raises(PolicyDenied) as caught:
        rules.decide(make_spec(), "lender", TODAY)
    assert str(caught.value) == f"policy of lender, rule 'credit-model': {clause}"
    assert (caught.value.rule, caught.value.clause) == ("credit-model", clause)


@pytest.mark.parametrize("clause", [k for k, v in RULE.items() if isinstance(v, list)])
def test_a_clause_left_out_permits_nothing(tmp_path: Path, clause: str) -> None:
    rules = parsed(tmp_path, policy_text({k: v for k, v in RULE.items() if k != clause}, PINS))
    with pytest.raises(PolicyDenied):
        rules.decide(make_spec(), "lender", TODAY)


@pytest.mark.parametrize(
    ("listed", "asked", "allowed"),
    [
        (None, "dealer", True),
        (None, "verified-dealer", True),
        (None, "ot", True),
        (["dealer"], "verified-dealer", False),
        (["verified-dealer", "ot"], "dealer", False),
        (["verified-dealer", "ot"], "verified-dealer", True),
        (["verified-dealer", "ot"], "ot", True),
        (["dealer", "verified-dealer"], "ot", False),
    ],
)
def test_a_rule_may_say_where_randomness_comes_from(
    tmp_path: Path, listed: list[str] | None, asked: str, allowed: bool
) -> None:
    rule = RULE if listed is None else {**RULE, "randomness": listed}
    spec = make_spec(randomness=asked, dealer=None if asked == "ot" else "dealer")
    rules = parsed(tmp_path, policy_text(rule, PINS))
    if allowed:
        assert set(rules.decide(spec, "lender", TODAY).pins) == set(spec.participants) - {"lender"}
        return
    with pytest.raises(PolicyDenied, match=f"rule 'credit-model': randomness '{asked}' is not allowed$"):
        rules.decide(spec, "lender", TODAY)


def test_without_a_dealer_nobody_has_to_be_one(tmp_path: Path) -> None:
    spec = make_spec(randomness="ot", dealer=None)
    rule = {k: v for k, v in RULE.items() if k != "dealers"}
    pins = {"platform": PINS["platform"]}
    assert parsed(tmp_path, policy_text(rule, pins)).decide(spec, "lender", TODAY).pins == pins
    serving = parsed(tmp_path, policy_text({}, {"lender": "a" * 64, **pins}, dealer_for=["lender", "platform"]))
    with pytest.raises(PolicyDenied, match="dealer has no part in this job"):
        serving.decide(spec, "dealer", TODAY)


def test_every_column_of_the_identifier_must_be_one_to_join_with(tmp_path: Path) -> None:
    columns = ["first", "last", "born", "zip"]
    parties = request()["parties"]
    spec = make_spec(parties=[{**p, "key": columns} for p in parties], align={"identifier": "person/v1"})
    allowed = parsed(tmp_path, policy_text({**RULE, "join": [*columns, "email"]}, PINS))
    assert allowed.decide(spec, "lender", TODAY).rule == "credit-model"
    short = parsed(tmp_path, policy_text({**RULE, "join": ["first", "last", "zip"]}, PINS))
    with pytest.raises(PolicyDenied, match=r"column 'born' may not be used to join with platform$"):
        short.decide(spec, "lender", TODAY)


@pytest.mark.parametrize("unpinned", ["platform", "dealer"])
def test_a_partner_without_a_pinned_key_is_denied(tmp_path: Path, unpinned: str) -> None:
    rules = parsed(tmp_path, policy_text(RULE, {k: v for k, v in PINS.items() if k != unpinned}))
    with pytest.raises(PolicyDenied, match=f"rule 'credit-model': no fingerprint is pinned for {unpinned}$"):
        rules.decide(make_spec(), "lender", TODAY)


def test_the_floor_of_matches_binds_the_spec(tmp_path: Path) -> None:
    rules = parsed(tmp_path, policy_text(RULE, PINS, minimum=101))
    with pytest.raises(PolicyDenied, match=r"the job would go on with 100 matches, the minimum is 101$"):
        rules.decide(make_spec(), "lender", TODAY)
    rules.decide(make_spec(align={"minimum_matches": 101}), "lender", TODAY)


SUMS = [{"column": c, "lowest": "0", "highest": "9"} for c in ("VISITS", "CITY")]


@pytest.mark.parametrize(
    ("theirs", "allowed", "clause"),
    [
        (0, None, ""),
        (1, None, "1 column of platform would be added up over rows that match ours, 0 are allowed"),
        (2, 1, "2 columns of platform would be added up over rows that match ours, 1 is allowed"),
        (2, 2, ""),
        (1, 64, ""),
    ],
)
def test_partners_add_up_as_many_columns_over_rows_that_match_ours_as_they_may(
    tmp_path: Path, theirs: int, allowed: int | None, clause: str
) -> None:
    """A sum tells its column's owner, who chose the values, which of its rows matched."""
    parties = [
        {"silo": "lender", "dataset": "loans", "key": "email", "sums": [{**SUMS[0], "column": "LIMIT_BAL"}]},
        {"silo": "platform", "dataset": "usage", "key": "email", "sums": SUMS[:theirs]},
    ]
    spec = make_spec(kind="vertical.measure", parties=parties, release=["sums"])
    rule = {**RULE, "kinds": ["vertical.measure"], "sum": ["LIMIT_BAL"], "release": ["sums"]}
    rules = parsed(tmp_path, policy_text(rule if allowed is None else {**rule, "partner_sums": allowed}, PINS))
    if clause:
        with pytest.raises(PolicyDenied) as caught:
            rules.decide(spec, "lender", TODAY)
        assert caught.value.clause == clause
    else:
        assert rules.decide(spec, "lender", TODAY).rule == "credit-model"


def test_a_rule_holds_on_its_last_day_and_a_star_means_every_column(tmp_path: Path) -> None:
    rule = {**RULE, "expires": "2026-03-01", "train": ["*"]}
    assert parsed(tmp_path, policy_text(rule, PINS)).decide(make_spec(), "lender", TODAY).rule == "credit-model"


def test_a_star_is_a_word_only_where_columns_train(tmp_path: Path) -> None:
    rules = parsed(tmp_path, policy_text({**RULE, "purposes": ["*"]}, PINS))
    with pytest.raises(PolicyDenied, match="purpose 'credit risk' is not allowed"):
        rules.decide(make_spec(), "lender", TODAY)


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
    ],
)
def test_a_broken_policy_is_refused_as_a_whole(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parsed(tmp_path, text)


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
