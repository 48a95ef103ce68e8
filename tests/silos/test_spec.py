"""Specs and requests: one canonical document, and one sentence for each thing that can be wrong with it."""

from __future__ import annotations

import copy
import json
from typing import Any, get_args

import pytest

from silos.errors import SpecError
from silos.request import build_spec, load_request
from silos.spec import parse_spec, spec_digest
from silos.spec_parts import Identifier
from tests.silos.world import JOB, MATCHERS, NOW, SALT, make_spec, request
from vertical.identifiers import RULES


def test_a_request_is_completed_with_defaults() -> None:
    spec = make_spec()
    assert spec.train.model_dump() == {
        "family": "logistic",
        "power": None,
        "ridge": "1.0",
        "lasso": "0",
        "passes": 40,
        "period": 64,
        "harmonics": 12,
    }
    assert spec.evaluate.model_dump() == {"holdout_percent": 30, "salt": SALT, "thresholds": ("0.5",), "bins": 10}
    assert spec.align.minimum_matches == 100
    assert [key.model_dump() for key in spec.align.keys] == [{"rule": "email/v1", "region": None}]
    assert spec.document()["helper"] is None
    assert spec.limits.timeout_s == 60
    assert (spec.created, spec.valid_until) == ("2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z")
    assert spec.parties[0].columns == ("email", "default", "LIMIT_BAL", "SEX")
    assert spec.participants == ("lender", "platform", "dealer")
    assert spec.active == "lender"


def test_a_spec_survives_the_wire_and_has_one_digest() -> None:
    spec = make_spec()
    again = parse_spec(json.loads(json.dumps(spec.document())))
    assert again == spec
    assert spec_digest(again) == spec_digest(spec)
    assert spec_digest(make_spec(purpose="other")) != spec_digest(spec)


def test_the_digest_is_pinned() -> None:
    """If this changes, silos of two versions no longer understand each other's consents."""
    assert spec_digest(make_spec()) == "c581a130c628548ed6ee753446da6d14670cebe84259a6e737e1cc57974662ae"


def test_randomness_says_whether_there_is_a_dealer() -> None:
    assert make_spec().randomness == "dealer"
    assert make_spec(randomness="verified-dealer").participants == ("lender", "platform", "dealer")
    without = {k: v for k, v in request(randomness="ot").items() if k != "dealer"}
    spec = build_spec(without, job=JOB, now=NOW, salt=SALT)
    assert (spec.dealer, spec.participants) == (None, ("lender", "platform"))
    assert spec.document()["dealer"] is None
    assert parse_spec(json.loads(json.dumps(spec.document()))) == spec
    missing = spec.document()
    del missing["dealer"]
    with pytest.raises(SpecError, match=r"^the job spec: 'dealer' is missing$"):
        parse_spec(missing)


def _keyed(identifier: str, *keys: Any, **align: Any) -> dict[str, Any]:
    document = request(align={"identifier": identifier, **align})
    for party, key in zip(document["parties"], keys, strict=True):
        party["key"] = key
    return document


PERSON = ["first", "last", "born", "zip"]


def test_every_rule_for_identifiers_can_be_asked_for() -> None:
    assert set(get_args(Identifier)) == RULES.keys()
    for name, rule in RULES.items():
        align = {"region": "CH"} if rule.regional else {}
        columns = [f"c{i}" for i in range(len(rule.roles))]
        spec = build_spec(_keyed(name, columns, columns, **align), job=JOB, now=NOW, salt=SALT)
        assert parse_spec(json.loads(json.dumps(spec.document()))) == spec
        assert spec.document()["align"]["keys"] == [{"rule": name, "region": align.get("region")}]


def test_a_key_is_one_column_or_a_list_of_them() -> None:
    one, same = (build_spec(_keyed("email/v1", k, k), job=JOB, now=NOW, salt=SALT) for k in ("mail", ["mail"]))
    assert one == same
    assert one.document()["parties"][0]["keys"] == [["mail"]]
    spec = build_spec(_keyed("person/v1", PERSON, PERSON), job=JOB, now=NOW, salt=SALT)
    assert spec.parties[0].columns == (*PERSON, "default", "LIMIT_BAL", "SEX")
    document = one.document()
    document["parties"][0]["keys"] = "mail"
    with pytest.raises(SpecError, match=r"^the job spec: 'parties\[0\].keys' must be a list, got 'mail'$"):
        parse_spec(document)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (
            _keyed("person/v1", PERSON, "name"),
            "'key' of platform must name 4 columns (given name, family name, date of birth, postcode) with rule "
            "'person/v1', got 1",
        ),
        (
            _keyed("email/v1", ["mail", "mail2"], "mail"),
            "'key' of lender must name 1 column (e-mail address) with rule 'email/v1', got 2",
        ),
        (_keyed("email/v1", [], "mail"), "'parties[0].keys[0]' has too few entries"),
        (_keyed("email/v1", 3, "mail"), "'parties[0].keys[0]' must be a list, got 3"),
        (_keyed("email/v1", [""], "mail"), "'parties[0].keys[0][0]' has too few characters"),
        (_keyed("person/v1", [*PERSON[:3], "born"], PERSON), "column 'born' of lender is used twice in a key"),
        (_keyed("person/v1", [*PERSON[:3], "SEX"], PERSON), "column 'SEX' of lender is used twice"),
        (
            _keyed("phone/v1", "tel", "tel"),
            "'region' of key 'phone/v1' must be one with a numbering plan, such as 'CH', got none",
        ),
        (
            _keyed("phone/v1", "tel", "tel", region="ZZ"),
            "'region' of key 'phone/v1' must be one with a numbering plan, such as 'CH', got 'ZZ'",
        ),
        (
            _keyed("phone/v1", "tel", "tel", region="ch"),
            "'align.keys[0].region' does not have the form ^[A-Z]{2}$, got 'ch'",
        ),
        (
            _keyed("text/v1", "no", "no", region="CH"),
            "'region' of key 'text/v1' must be null (in a request: left out), got 'CH'",
        ),
    ],
)
def test_keys_and_regions_must_be_what_the_rule_takes(document: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_spec(document, job=JOB, now=NOW, salt=SALT)
    assert str(caught.value) == f"the job spec: {sentence}"


def test_there_are_no_floats_in_a_spec() -> None:
    def walk(value: Any) -> None:
        assert not isinstance(value, float)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(inner)

    walk(make_spec(train={"ridge": 0.5}).document())
    assert make_spec(train={"ridge": 0.00001}).train.ridge == "0.00001"


def test_a_field_left_out_is_refused_even_if_a_request_has_a_default_for_it() -> None:
    document = make_spec().document()
    del document["links"]
    with pytest.raises(SpecError, match=r"^the job spec: 'links' is missing$"):
        parse_spec(document)


def _changed(path: str, value: Any) -> dict[str, Any]:
    document: Any = copy.deepcopy(request())
    document.setdefault("train", {}), document.setdefault("align", {})
    document.setdefault("evaluate", {}), document.setdefault("limits", {})
    *way, last = path.split(".")
    place = document
    for part in way:
        place = place[int(part)] if part.isdigit() else place[part]
    place[last] = value
    return document  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (
            "kind",
            "vertical.forest",
            "the job request: 'kind' must be one of vertical.glm, vertical.trees, vertical.network, vertical.statistics, "
            "vertical.score, vertical.match, vertical.measure, got 'vertical.forest'",
        ),
        ("purpose", "", "the job spec: 'purpose' has too few characters"),
        ("purpos", "x", "the job spec: 'purpos' is not a known setting"),
        ("dealer", "platform", "the job spec: 'dealer' must have no data in the job, but platform is a data owner"),
        (
            "dealer",
            None,
            "the job spec: 'dealer' must be the name of a silo with randomness 'dealer', got none",
        ),
        (
            "randomness",
            "ot",
            "the job spec: 'dealer' must be null (in a request: left out) with randomness 'ot', got 'dealer'",
        ),
        (
            "randomness",
            "dice",
            "the job spec: 'randomness' must be 'dealer', 'verified-dealer' or 'ot', got 'dice'",
        ),
        ("randomness", None, "the job spec: 'randomness' must say where correlated randomness comes from, got none"),
        ("dealer", "coordinator", "the job spec: 'coordinator' is not a silo's name"),
        ("dealer", "Dealer", "the job spec: 'dealer' does not have the form ^[a-z][a-z0-9-]{1,31}$, got 'Dealer'"),
        ("parties", [], "the job spec: 'parties' must be two to 10 data owners in such a job, got 0"),
        ("parties", "lender", "the job spec: 'parties' must be a list, got 'lender'"),
        ("parties.1.silo", "lender", "the job spec: lender is named as a data owner twice"),
        ("parties.0.label", None, "the job spec: exactly one party must have a label, got none"),
        (
            "parties.1.label",
            "CITY",
            "the job spec: exactly one party must have a label, got lender, platform",
        ),
        ("parties.1.features", [], "the job spec: 'parties[1].features' has too few entries"),
        ("parties.1.features", ["V", "V"], "the job spec: column 'V' of platform is used twice"),
        ("parties.0.features", ["email"], "the job spec: column 'email' of lender is used twice"),
        (
            "parties.1.features",
            [{"column": "V", "as": "date"}],
            "the job spec: 'parties[1].features[0].as' must be 'number', 'category' or 'text', got 'date'",
        ),
        ("parties.1.features", [3], "the job spec: 'parties[1].features[0]' must be a table, got 3"),
        ("train.passes", 0, "the job spec: 'train.passes' must be at least 1, got 0"),
        ("train.passes", 1001, "the job spec: 'train.passes' must be at most 1000, got 1001"),
        ("train.passes", "40", "the job spec: 'train.passes' must be a whole number, got '40'"),
        ("train.period", 48, "the job spec: 'train.period' must be 16, 32, 64 or 128, got 48"),
        ("train.harmonics", 33, "the job spec: 'train.harmonics' must be at most 32, got 33"),
        ("train.power", "1.5", "the job spec: 'train.power' is given with family 'tweedie' and with no other"),
        (
            "train.family",
            "probit",
            "the job spec: 'train.family' must be 'logistic', 'linear', 'poisson', 'gamma', "
            "'tweedie' or 'multinomial', got 'probit'",
        ),
        (
            "parties.1.offset",
            "CITY",
            "the job spec: 'offset' of platform must be null (in a request: left out) without a label",
        ),
        ("parties.0.groups", ["A", "A"], "the job spec: 'groups' of lender names a column twice"),
        ("evaluate.thresholds", ["0.0"], "the job spec: 'evaluate.thresholds' must be above 0 and below 1, got '0.0'"),
        ("evaluate.thresholds", ["0.5", "0.491"], "the job spec: 'evaluate.thresholds' must be at least 0.01 apart"),
        ("train.ridge", "-1", r"the job spec: 'train.ridge' does not have the form ^\d{1,6}(\.\d{1,9})?$, got '-1'"),
        ("train", 3, "the job request: 'train' must be a table"),
        ("align.minimum_matches", 0, "the job spec: 'align.minimum_matches' must be at least 1, got 0"),
        (
            "align.duplicates",
            "last",
            "the job spec: 'align.duplicates' must be 'refuse', 'first' or 'expand', got 'last'",
        ),
        (
            "align.identifier",
            "email",
            "the job spec: 'align.keys[0].rule' must be 'email/v1', 'email-provider/v1', 'phone/v1', 'person/v1', "
            "'name-birth/v1', 'name-postcode/v1', 'given-birth-postcode/v1', 'family-birth-postcode/v1', "
            "'hashed-sha256/v1' or 'text/v1', got 'email'",
        ),
        ("evaluate.holdout_percent", 91, "the job spec: 'evaluate.holdout_percent' must be at most 90, got 91"),
        ("release", [], "the job spec: 'release' has too few entries"),
        ("release", ["auc", "auc"], "the job spec: 'release' names an item twice"),
        (
            "release",
            ["rows"],
            "the job spec: 'release[0]' must be 'coefficients', 'inference', 'model', 'auc', 'contribution', 'metrics' or "
            "'counts', got 'rows'",
        ),
        ("limits.timeout_s", 0, "the job spec: 'limits.timeout_s' must be at least 1, got 0"),
        ("links", "direct", "the job spec: 'links' must be 'auto' or 'relay', got 'direct'"),
        ("valid_for_s", "1h", "the job request: 'valid_for_s' must be a whole number of seconds above 0"),
        ("valid_for_s", 31 * 86_400, "the job spec: the job would be valid for more than 30 days"),
    ],
)
def test_every_mistake_has_its_sentence(path: str, value: Any, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_spec(_changed(path, value), job=JOB, now=NOW, salt=SALT)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("document", [None, [], "spec", 7, {"v": 1}])
def test_what_is_not_a_spec_is_refused(document: Any) -> None:
    with pytest.raises(SpecError):
        parse_spec(document)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("valid_until", "2026-03-01T12:00:00Z", "is not after 'created'"),
        ("valid_until", "2026-02-30T12:00:00Z", "must be times that exist"),
        ("valid_until", "2026-03-01 13:00", "does not have the form"),
        ("job", "x" * 32, "does not have the form"),
        ("v", 2, "'v' must be 1, got 2"),
    ],
)
def test_times_and_ids_are_checked(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        parse_spec({**make_spec().document(), field: value})


def test_request_files(tmp_path: Any) -> None:
    good = tmp_path / "job.json"
    good.write_text(json.dumps(request()))
    first, second = load_request(good), load_request(good)
    assert first.job != second.job
    assert first.evaluate.salt != second.evaluate.salt
    bad = tmp_path / "job.toml"
    with pytest.raises(SpecError, match=r"job.toml cannot be read: No such file or directory$"):
        load_request(bad)
    bad.write_text("kind = ")
    with pytest.raises(SpecError, match="is not well-formed TOML"):
        load_request(bad)


@pytest.mark.parametrize("name", ["v", "job", "created", "valid_until"])
def test_a_request_cannot_set_what_is_set_when_the_job_is_made(name: str) -> None:
    with pytest.raises(SpecError, match=f"'{name}' is set when the job is made"):
        build_spec({name: "x"}, job="ab" * 16, now=NOW, salt=SALT)


# --- matching and measuring


def _match(**changes: Any) -> dict[str, Any]:
    return {"kind": "vertical.match", "purpose": "x", "parties": MATCHERS, **changes}


def _measure(**changes: Any) -> dict[str, Any]:
    return {"kind": "vertical.measure", "purpose": "x", "dealer": "dealer", "parties": MATCHERS, **changes}


KEPT = "'keep_tokens' is for owners who match by 'oprf-psi', by one key and one row to one"


def _built(document: dict[str, Any]) -> Any:
    return build_spec(document, job=JOB, now=NOW, salt=SALT)


def test_a_matching_takes_no_randomness_and_two_to_ten_owners() -> None:
    spec = _built(_match())
    assert (spec.randomness, spec.dealer, spec.align.protocol, spec.matching) == (None, None, "vole-psi", "vole-psi")
    assert (spec.release, spec.participants, spec.links_rows) == (("rows", "counts"), ("lender", "platform"), False)
    many = [{**MATCHERS[0], "silo": f"silo-{i}"} for i in range(10)]
    assert _built(_match(parties=many)).matching == "vole-psi, many owners"
    assert parse_spec(json.loads(json.dumps(spec.document()))) == spec
    helped = _built(_match(helper="third", align={"protocol": "helper-psi"}))
    assert helped.participants == ("lender", "platform", "third")


def test_tokens_are_kept_if_the_job_says_so() -> None:
    align = {"protocol": "oprf-psi"}
    assert _built(_match(align=align)).document()["keep_tokens"] is False
    spec = _built(_match(align=align, keep_tokens=True))
    assert parse_spec(json.loads(json.dumps(spec.document()))).document()["keep_tokens"] is True
    with pytest.raises(SpecError, match="'keep_tokens'"):
        _built({**_measure(), "keep_tokens": True})


def test_several_keys_have_an_order() -> None:
    keys = ["email/v1", {"rule": "phone/v1", "region": "CH"}]
    parties = [{**p, "keys": ["mail", ["tel"]]} for p in ({k: v for k, v in m.items() if k != "key"} for m in MATCHERS)]
    spec = _built(_match(parties=parties, align={"keys": keys, "duplicates": "expand"}))
    assert [key.rule for key in spec.align.keys] == ["email/v1", "phone/v1"]
    assert spec.parties[0].keys == (("mail",), ("tel",))
    assert spec.links_rows


def test_a_measurement_hides_who_matched() -> None:
    parties = [{**MATCHERS[0], "sums": [{"column": "amount", "lowest": "0", "highest": "1000"}]}, MATCHERS[1]]
    spec = _built(_measure(parties=parties, release=["matches", "sums"]))
    assert (spec.align.protocol, spec.randomness, spec.computes) == ("hidden", "dealer", True)
    assert spec.parties[0].columns == ("email", "amount")
    counting = _built(_measure(dealer=None, align={"protocol": "ecdh-psi"}))
    assert (counting.randomness, counting.matching) == (None, "ecdh-psi, counting")


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (_match(parties=MATCHERS[:1]), "'parties' must be two to 10 data owners in such a job, got 1"),
        (_match(dealer="dealer"), "'dealer' must be null (in a request: left out) with no randomness, got 'dealer'"),
        (_match(randomness="ot"), "'randomness' must be null (in a request: left out) in such a job, got 'ot'"),
        (_match(helper="third"), "'helper' must be null (in a request: left out) with matching by 'vole-psi', got 'third'"),
        (
            _match(align={"protocol": "helper-psi"}),
            "'helper' must be the name of a silo with matching by 'helper-psi', got none",
        ),
        (
            _match(align={"protocol": "helper-psi"}, helper="lender"),
            "'helper' must have no data in the job, but lender is a data owner",
        ),
        (
            _match(align={"protocol": "hidden"}),
            "'align.protocol' must be one of ecdh-psi, vole-psi, vole-psi-malicious, oprf-psi, helper-psi in such a job",
        ),
        (_match(parties=[*MATCHERS, {**MATCHERS[0], "silo": "third"}], align={"protocol": "ecdh-psi"}),
         "'parties' must be exactly two data owners in such a job, got 3"),
        (_match(parties=[*MATCHERS, {**MATCHERS[0], "silo": "third"}], align={"duplicates": "expand"}),
         "more than two data owners match by one key, and one row to one"),
        (_match(align={"keys": ["email/v1", "text/v1"]}), "'keys' of lender must be 2, as in 'align', got 1"),
        (_match(parties=[{**MATCHERS[0], "output": ["a", "a"]}, MATCHERS[1]]), "'output' of lender names a column twice"),
        (_match(keep_tokens=True), KEPT),
        (_match(keep_tokens=True, align={"protocol": "oprf-psi", "duplicates": "expand"}), KEPT),
        *((_match(count_first=True, randomness="ot", align=align),
           "'count_first' is for two owners who match by 'vole-psi', by one key and one row to one")
          for align in ({"protocol": "vole-psi-malicious"}, {"duplicates": "expand"}, {"protocol": "ecdh-psi"})),
        (_match(count_first=True), "'randomness' must say where correlated randomness comes from, got none"),
        (_match(release=["matches"]), "'release[0]' must be 'rows' or 'counts', got 'matches'"),
        (_measure(epsilon="0"), "'epsilon' must be greater than 0 and at most 64, got '0'"),
        (_measure(epsilon="1.0", round_to=10),
         "noise is for the number of matches alone: with 'epsilon' there is no rounding and no sum"),
        (_measure(release=["matches", "sums"], round_to=10),
         "rounding is for the number of matches alone: with 'round_to' there is no sum"),
        (_measure(release=["matches", "sums"], epsilon="0.5"),
         "noise is for the number of matches alone: with 'epsilon' there is no rounding and no sum"),
        (_measure(epsilon="\u0661"), "'epsilon' does not have the form ^[0-9]{1,3}(\\.[0-9]{1,6})?$, got '\u0661'"),
        (_measure(release=["sums"]), "'sums' is released if and only if a party names columns in 'sums'"),
        (_measure(dealer=None, align={"protocol": "ecdh-psi"}, round_to=10),
         "'ecdh-psi' tells the exact number of matches only; sums, rounding and noise take 'hidden'"),
        (_measure(align={"duplicates": "expand"}), "a measurement matches by one key, and one row to one"),
        (
            _measure(parties=[{**MATCHERS[0], "sums": [{"column": "a", "lowest": "2", "highest": "1"}]}, MATCHERS[1]]),
            "the range of 'a' is empty: 2 to 1",
        ),
    ],
)  # fmt: skip
def test_what_a_matching_or_measurement_cannot_be(document: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        _built(document)
    assert str(caught.value) == f"the job spec: {sentence}"
