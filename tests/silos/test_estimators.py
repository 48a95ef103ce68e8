"""Models from Python: what their requests say, what is refused before anything is sent, and what a result looks like."""

from __future__ import annotations

import datetime as dt
import json
from types import SimpleNamespace
from typing import Any

import pytest
from sklearn.base import clone

import silos.sdk as accord
from silos.errors import ConfigError, SpecError
from silos.estimators import Joined, join_request, prediction_request
from silos.request import build_spec
from silos.spec import Glm, Score, Trees
from silos.summary import WIDTH, summary

NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
OPTIONS: dict[str, Any] = {
    "purpose": "credit risk",
    "dealer": "dealer",
    "label": "default",
    "features": {"lender": ["LIMIT_BAL"], "platform": ["BILL", "PAY_3:category", "note:text"]},
}
ESTIMATORS = [
    accord.VerticalLogisticRegression(ridge=0.5, passes=30),
    accord.VerticalLinearRegression(lasso=2),
    accord.VerticalPoissonRegression(),
    accord.VerticalGammaRegression(ridge=1e-4),
    accord.VerticalTweedieRegression(power=1.2),
    accord.VerticalMultinomialRegression(),
    accord.VerticalGradientBoosting(trees=3, max_leaf=2, routing="revealed"),
    accord.VerticalNetwork(hidden=(8, 4), task="multiclass", classes=3),
]


def built(request: dict[str, Any]) -> Any:
    """The spec that a request becomes, by way of text as a file or the SDK does it."""
    return build_spec(json.loads(json.dumps(request)), job="0" * 32, now=NOW, salt="0" * 32)


def joined(**more: Any) -> Joined:
    options = {**OPTIONS, **more}
    return Joined(None, join_request("lender", "platform:payments", "loans", ["email"], options))  # type: ignore[arg-type]


# --- requests


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_every_model_makes_a_spec(estimator: Any) -> None:
    # Trees take no text.
    texts = (
        {}
        if not isinstance(estimator, accord.VerticalGradientBoosting)
        else {"features": {"lender": ["a"], "platform": ["b"]}}
    )
    request = estimator.request(joined(**texts))
    spec = built(request)
    assert spec == build_spec(request, job="0" * 32, now=NOW, salt="0" * 32)
    assert (spec.kind, spec.active, spec.owners) == (estimator.kind, "lender", ("lender", "platform"))
    assert {"model", "metrics", "counts"} <= set(spec.release)
    given = {name: value for name, value in estimator.get_params().items() if name != "inference" and value is not None}
    for name, value in given.items():
        found = getattr(spec.train, name)
        assert (float(found) if isinstance(found, str) and not isinstance(value, str) else found) == value, name


def test_settings_end_up_in_their_places() -> None:
    more = {
        "offset": "exposure",
        "weight": "w",
        "groups": {"platform": ["region"]},
        "partner_keys": {"platform": [("mail",)]},
        "align": {"minimum_matches": 500, "duplicates": "first"},
        "encoding": {"rare_category": 20},
        "evaluate": {"holdout_percent": 20, "thresholds": ["0.2"]},
        "limits": {"timeout_s": 90},
    }
    spec = built(accord.VerticalLogisticRegression(ridge=2, inference=False).request(joined(**more)))
    assert isinstance(spec, Glm)
    lender, platform = spec.parties
    assert (lender.label, lender.offset, lender.weight, lender.dataset) == ("default", "exposure", "w", "loans")
    assert (platform.label, platform.groups, platform.dataset) == (None, ("region",), "payments")
    assert (lender.keys, platform.keys) == ((("email",),), (("mail",),))
    assert [(f.column, f.as_) for f in platform.features] == [
        ("BILL", "number"),
        ("PAY_3", "category"),
        ("note", "text"),
    ]
    assert (spec.align.minimum_matches, spec.align.duplicates, spec.align.keys[0].rule) == (500, "first", "email/v1")
    assert (spec.encoding.rare_category, spec.evaluate.holdout_percent, spec.limits.timeout_s) == (20, 20, 90)
    assert (spec.train.family, spec.train.ridge, spec.dealer, spec.purpose) == (
        "logistic",
        "2",
        "dealer",
        "credit risk",
    )
    assert spec.release == ("coefficients", "model", "metrics", "counts")


def test_what_is_released() -> None:
    assert "inference" in accord.VerticalPoissonRegression().request(joined())["release"]
    assert "inference" not in accord.VerticalPoissonRegression(lasso=1).request(joined())["release"]
    assert "inference" not in accord.VerticalMultinomialRegression().request(joined())["release"]
    assert accord.VerticalLogisticRegression().request(joined(release=["auc"]))["release"] == ["auc"]


def test_a_partner_has_the_label_and_features_say_more() -> None:
    features = {"lender": ["a:b"], "platform": [{"column": "c", "monotone": 1}, "d:category"]}
    spec = built(accord.VerticalGradientBoosting().request(joined(features=features, label_at="platform")))
    assert isinstance(spec, Trees)
    assert spec.active == "platform"
    assert [f.column for f in spec.parties[0].features] == ["a:b"]
    assert [(f.column, f.monotone) for f in spec.parties[1].features] == [("c", 1), ("d", 0)]


def test_several_partners_by_name() -> None:
    features = {"lender": ["a"], "b-1": ["b"], "c-1": ["c"]}
    options = {**OPTIONS, "features": features, "align": {"protocol": "ecdh-psi"}}
    request = join_request("lender", {"b-1": "d", "c-1": "e"}, "loans", ["email"], options)
    assert [(party["silo"], party["dataset"]) for party in request["parties"]] == [
        ("lender", "loans"),
        ("b-1", "d"),
        ("c-1", "e"),
    ]
    assert OPTIONS["features"]["lender"] == ["LIMIT_BAL"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"features": {"lender": ["a"], "platfrom": ["b"]}}, "'features' names platfrom, .* among lender, platform"),
        ({"label_at": "dealer"}, "'label_at' names dealer"),
        ({"groups": {"other": ["a"]}}, "'groups' names other"),
        ({"partner_keys": {"other": [["a"]]}}, "'partner_keys' names other"),
        ({"label": None}, "exactly one party must have a label, got none"),
        ({"features": {"lender": ["a"]}}, "features"),
        ({"purpose": ""}, "purpose"),
        ({"learning_rate": 1}, "learning_rate"),
    ],
)
def test_what_cannot_be_meant(more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        built(accord.VerticalLogisticRegression().request(joined(**more)))


def test_features_may_not_be_forgotten() -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "features"}
    with pytest.raises(SpecError, match="features"):
        built(
            accord.VerticalNetwork().request(
                Joined(None, join_request("lender", "platform:p", "d", ["email"], options))
            )
        )  # type: ignore[arg-type]


# --- predictions


def trained() -> dict[str, Any]:
    """The spec of a job, as the coordinator shows it."""
    features = {"lender": ["a"], "platform": [{"column": "b", "monotone": 1}]}
    align = {"minimum_matches": 300}
    return built(accord.VerticalGradientBoosting().request(joined(features=features, align=align))).document()  # type: ignore[no-any-return]


def test_a_prediction_is_like_its_training() -> None:
    options = {"purpose": "credit risk", "output": "decile", "cuts": [0.25, 0.5]}
    spec = built(prediction_request("lender", "1" * 32, trained(), "platform:may", "loans-may", options))
    assert isinstance(spec, Score)
    assert (spec.model, spec.recipients, spec.dealer, spec.randomness) == ("1" * 32, ("lender",), "dealer", "dealer")
    assert [(party.silo, party.dataset) for party in spec.parties] == [("lender", "loans-may"), ("platform", "may")]
    assert [party.features[0].column for party in spec.parties] == ["a", "b"]
    assert (spec.cuts, spec.align.minimum_matches) == (("0.25", "0.5"), 300)


def test_a_prediction_may_differ() -> None:
    options = {
        "purpose": "test",
        "output": "rounded",
        "low": 0,
        "high": 1,
        "step": 0.01,
        "keys": ["rule=phone/v1,region=CH,columns=tel"],
        "offset": {"lender": "exposure"},
        "randomness": "ot",
        "recipients": ["platform"],
        "align": {"minimum_matches": 1},
    }
    spec = built(prediction_request("lender", "1" * 32, trained(), {"platform": "may"}, "loans", options))
    assert (spec.randomness, spec.dealer, spec.recipients, spec.step) == ("ot", None, ("platform",), "0.01")
    assert (spec.align.keys[0].rule, spec.parties[1].keys, spec.parties[0].offset) == (
        "phone/v1",
        (("tel",),),
        "exposure",
    )
    assert spec.align.minimum_matches == 1


def test_a_prediction_without_an_owner_of_the_model() -> None:
    with pytest.raises(SpecError, match="the model is of platform too"):
        prediction_request("lender", "1" * 32, trained(), "other:may", "loans", {"purpose": "x"})
    with pytest.raises(SpecError, match="'offset' names other"):
        prediction_request("lender", "1" * 32, trained(), "platform:may", "loans", {"offset": {"other": "x"}})


# --- what was found


INPUTS = [
    {"input": "LIMIT_BAL", "column": "LIMIT_BAL", "coefficient": "-0.25", "standard_error": "0.05", "z": "-5", "p": "5.7e-07",
     "low": "-0.348", "high": "-0.152", "note": ""},
    {"input": "a very long name of an input = level", "column": "x", "coefficient": "-12345.678", "standard_error": None,
     "z": None, "p": None, "low": None, "high": None, "note": "not estimable: the column separates the label"},
]  # fmt: skip
BINARY = {
    "family": "logistic",
    "rows": 3000,
    "positives": 660,
    "auc": "0.7712",
    "ks": "0.4321",
    "gains": [{"bin": 1, "rows": 300, "outcome": 200, "rate": "0.6667", "lift": "3.0303", "gain": "0.3"}],
    "calibration": [],
    "curve": [],
    "confusion": [],
    "loss": {"log_loss": "0.4400", "log_loss_of_base_rate": "0.5269", "r2": "0.1649", "brier_of_base_rate": "0.1716"},
    "groups": [
        {"column": "sex", "threshold": "0.5", "minimum": 10, "table": [], "demographic_parity_difference": "0.1100",
         "equal_opportunity_difference": "0.0500"},
        {"column": "city", "threshold": "0.5", "minimum": 10, "withheld": "no group has the minimum"},
    ],
}  # fmt: skip
MODEL: dict[str, Any] = {
    "family": "logistic",
    "inputs": INPUTS,
    "intercept": "-1.5",
    "winsorise_sd": 8,
    "left_out": ["flat"],
    "intercept_inference": {"standard_error": "0.1", "z": "-15", "p": "0", "low": "-1.7", "high": "-1.3", "note": ""},
}


def fitted(estimator: Any, result: dict[str, Any]) -> Any:
    document = {"job": "0123456789abcdef" * 2, "silo": "lender", "result": result}
    estimator.result_ = SimpleNamespace(values=result, document=document)
    estimator.job_ = SimpleNamespace(disclosure=["lender learns", "  the AUC"])
    return estimator


def aligned(text: str) -> list[str]:
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[1] == lines[-1] == "=" * WIDTH
    return lines


def test_a_summary_with_inference() -> None:
    result = {
        "model": MODEL,
        "metrics": BINARY,
        "rows": {"own": 12000, "matched": 10000, "training": 7000, "held_out": 3000},
    }
    model = fitted(accord.VerticalLogisticRegression(), result)
    lines = aligned(model.summary())
    text = "\n".join(lines)
    assert lines[0].strip() == "VerticalLogisticRegression"
    for words in (
        "Matched rows:                      10,000",
        "Held-out positives:                   660",
        "AUC:                               0.7712",
        "Lift of best bin:                  3.0303",
        "Log loss of base rate:             0.5269",
        "demographic parity difference 0.1100",
        "By city: withheld, no group has the minimum",
        "  not estimable: the column separates the label",
        "left out, because they do not vary: flat",
    ):
        assert words in text
    heading = next(line for line in lines if "std err" in line)
    row = next(line for line in lines if line.startswith("LIMIT_BAL"))
    assert row.split() == ["LIMIT_BAL", "-0.2500", "0.0500", "-5.0000", "0.0000", "-0.3480", "-0.1520"]
    assert len(heading) == len(row) == WIDTH
    assert "a very long name of an i…   -12345.7" in text
    assert (model.auc_, model.metrics_["ks"]) == (0.7712, "0.4321")
    assert model.coefficients_["intercept"] == -1.5
    assert list(model.coefficients_) == ["intercept", "LIMIT_BAL", "a very long name of an input = level"]


def test_a_summary_without_inference_at_a_partner() -> None:
    inputs = [{"input": "BILL", "coefficient": "0.5"}, {"input": "PAY_3 = 2", "coefficient": "123456789.5"}]
    result = {"model": {"family": "poisson", "inputs": inputs, "intercept": None, "left_out": []}, "auc": "0.6"}
    model = fitted(accord.VerticalPoissonRegression(), result)
    text = model.summary()
    aligned(text)
    assert "not converged" not in text
    assert "std err" not in text
    assert "intercept" not in text
    assert "BILL                          0.5000" in text
    assert "1.23e+08" in text
    assert model.coefficients_ == {"BILL": 0.5, "PAY_3 = 2": 123456789.5}
    assert (model.auc_, model.metrics_) == (0.6, {})


def test_a_summary_says_that_training_has_not_converged() -> None:
    document = {"job": "0" * 32, "silo": "lender", "result": {"model": {"inputs": [], "converged": False}}}
    assert "not converged: raise train.passes" in summary("t", document)


def test_a_summary_of_means() -> None:
    loss = {
        "mean_outcome": "190.3",
        "root_mean_square_residual": "120.1",
        "mean_deviance_of_constant": "151.2",
        "d2": "0.41",
    }
    metrics = {"family": "poisson", "rows": 900, "gains": [{"lift": "2.1"}], "calibration": [], "loss": loss}
    lines = aligned(fitted(accord.VerticalPoissonRegression(), {"metrics": metrics}).summary())
    assert any("Root mean square residual:          120.1" in line for line in lines)
    assert any("Mean deviance of constant:          151.2" in line for line in lines)
    assert any("D2:                                  0.41" in line for line in lines)


def test_a_summary_of_several_classes() -> None:
    classes = [{"class": i, "rows": 10 + i, "recall": "0.5", "auc": "0.7"} for i in range(8)]
    metrics = {"family": "multinomial", "rows": 100, "largest_class": "0.4", "macro_auc": "0.7", "classes": classes}
    inputs = [{"input": "x", "coefficient": [f"0.{i}" for i in range(8)]}]
    model = {"family": "multinomial", "inputs": inputs, "intercept": ["1"] * 8, "left_out": []}
    fit = fitted(accord.VerticalMultinomialRegression(), {"model": model, "metrics": metrics})
    lines = aligned(fit.summary())
    assert "Class 7: 17 rows, recall 0.5, AUC 0.7" in lines
    headings = [line.split() for line in lines if "class 0" in line or "class 6" in line]
    assert headings[0][-2:] == ["class", "5"]
    assert headings[1] == ["class", "6", "class", "7"]
    assert fit.coefficients_ == {"intercept": [1.0] * 8, "x": [i / 10 for i in range(8)]}
    with pytest.raises(ConfigError, match="no AUC"):
        _ = fit.auc_


def test_summaries_of_trees_and_networks() -> None:
    inputs = [{"column": "age", "splits": 2}, {"column": "income", "splits": 11}]
    model = {"objective": "logistic", "trees": 5, "depth": 3, "inputs": inputs}
    trees = fitted(accord.VerticalGradientBoosting(), {"model": model, "metrics": BINARY})
    lines = aligned(trees.summary())
    assert [line.split() for line in lines[-3:-1]] == [["income", "11"], ["age", "2"]]
    assert trees.splits_ == {"age": 2, "income": 11}
    layers = {"task": "binary", "layers": [27, 16], "inputs": [{"input": "age", "column": "age"}]}
    network = fitted(accord.VerticalNetwork(), {"model": layers, "metrics": BINARY})
    assert any("Neurons by layer:" in line and "27-16" in line for line in aligned(network.summary()))


def test_a_summary_of_nothing() -> None:
    assert summary("t", {"job": "0" * 32, "silo": "lender", "result": {}}).count("\n") == 4


def test_a_report(tmp_path: Any) -> None:
    model = fitted(accord.VerticalLogisticRegression(), {"model": MODEL, "metrics": BINARY})
    model.report(tmp_path / "model.html")
    page = (tmp_path / "model.html").read_text(encoding="utf-8")
    assert "0.7712" in page
    assert "the AUC" in page


def test_before_fit_and_without_what_is_asked() -> None:
    for use in ("auc_", "metrics_", "coefficients_"):
        with pytest.raises(ConfigError, match="this VerticalLogisticRegression is not fitted: call fit first"):
            getattr(accord.VerticalLogisticRegression(), use)
    with pytest.raises(ConfigError, match="is not fitted: call fit first"):
        accord.VerticalNetwork().summary()
    with pytest.raises(ConfigError, match="this VerticalNetwork is not fitted"):
        accord.VerticalNetwork().report("x.html")
    with pytest.raises(ConfigError, match="released no coefficients"):
        _ = fitted(accord.VerticalLogisticRegression(), {"auc": "0.5"}).coefficients_
    with pytest.raises(ConfigError, match="released no splits"):
        _ = fitted(accord.VerticalGradientBoosting(), {}).splits_


# --- scikit-learn


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_as_scikit_learn_expects(estimator: Any) -> None:
    copy = clone(estimator)
    assert copy is not estimator
    assert copy.get_params() == estimator.get_params()
    name, value = next(iter(type(estimator)().get_params().items()))
    assert copy.set_params(**{name: value}).get_params()[name] == value
    assert type(estimator).__name__ in repr(estimator)
    fitted(estimator_copy := clone(estimator), {})
    assert not hasattr(clone(estimator_copy), "result_")


def test_fit_submits_or_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Job:
        id = "1" * 32

        def wait(self, *, progress: bool) -> Job:
            self.progress = progress
            return self

        def result(self) -> Any:
            return SimpleNamespace(values={"auc": "0.8"}, document={})

    sent: list[Any] = []

    class Silo:
        def submit(self, request: Any) -> Job:
            sent.append(request)
            return Job()

    rows = Joined(Silo(), joined().request)  # type: ignore[arg-type]
    model = accord.VerticalLogisticRegression().fit(rows, progress=True)
    assert (model.auc_, model.job_.progress, len(sent)) == (0.8, True, 1)  # type: ignore[attr-defined]
    assert built(sent[0]).kind == "vertical.glm"
    again = accord.VerticalLogisticRegression().fit(Job())  # type: ignore[arg-type]
    assert (again.auc_, len(sent)) == (0.8, 1)
