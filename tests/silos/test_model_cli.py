"""`accord model`: two owners' homes with their parts of one model, listed, shown, put together and deleted."""

import json
import stat

import numpy as np
import pytest
from typer.testing import CliRunner

from silos import catalogue
from silos.cli import app
from silos.config import Home, init_home
from silos.errors import ConfigError
from silos.model_parts import own_terms, read_export, whole_model
from silos.models import ModelStore, parse_part
from tests.silos.test_model_export import pmml_means
from tests.silos.test_models import MODEL, OTHER, document
from tests.vertical.test_stability import FEATURES, columns
from vertical.encoding import fit
from vertical.glm import Fitted
from vertical.multinomial import Fitted as Multinomial
from vertical.stability import Reference

N = 200


def own(place):
    made = columns(N, place)
    return made, fit(made, FEATURES, np.ones(N, dtype=bool), winsorise_sd=6, rare_category=5)


def part(place, classes=None, **changed):
    made, encoder = own(place)
    rng = np.random.default_rng(place)
    if classes is None:
        weights = rng.normal(0, 0.5, len(encoder.inputs))
        fitted = Fitted("logistic", weights, -0.4 if place == 0 else None, 16.0)
    else:
        weights = rng.normal(0, 0.5, (len(encoder.inputs), classes))
        fitted = Multinomial(weights, np.arange(classes) / 3 if place == 0 else None, classes)
    return parse_part(
        document(
            silo=("lender", "platform")[place],
            family="logistic" if classes is None else "multinomial",
            encoder=encoder.document(),
            fitted=fitted.document(),
            schema_hash=encoder.schema_hash(),
            reference=Reference.of(made, FEATURES, np.ones(N, dtype=bool)).document(),
            **changed,
        )
    )


@pytest.fixture
def homes(tmp_path):
    for place, name in enumerate(("lender", "platform")):
        init_home(tmp_path / name, name)
        ModelStore(tmp_path / name).save(part(place))
    return tmp_path


def accord(*arguments, fails=False):
    result = CliRunner().invoke(app, ["model", *map(str, arguments)], catch_exceptions=True)
    assert (result.exit_code != 0) == fails, (result.output, result.exception)
    return result


def test_models_are_listed_shown_and_carded(homes):
    (line,) = json.loads(accord("list", "--home", homes / "lender", "--json").output)
    assert (line["model"], line["rows"], line["metrics"]) == (
        MODEL,
        {"training": 700, "held_out": 300},
        {"auc": "0.7654"},
    )
    assert "fitted" not in line
    assert MODEL in accord("list", "--home", homes / "lender").output
    shown = accord("show", MODEL, "--home", homes / "lender").output
    assert "intercept" in shown
    assert "city=" in shown
    assert json.loads(accord("show", MODEL, "--home", homes / "lender", "--json").output)["silo"] == "lender"
    assert "# Model " + MODEL in accord("card", MODEL, "--home", homes / "lender").output
    made = json.loads(accord("card", MODEL, "--home", homes / "lender", "--json").output)
    assert made["columns"] == ["age", "city"]
    assert "weights" not in json.dumps(made)


def test_own_parts_exported_make_the_whole_model(homes, tmp_path):
    given = tmp_path / "from-platform.json"
    accord("export", MODEL, "--home", homes / "platform", "--to", given)
    assert stat.S_IMODE(given.stat().st_mode) == 0o600
    exported = read_export(given)
    assert exported.reference == {}
    assert exported.fitted == part(1).fitted
    out = {name: tmp_path / f"model.{name}" for name in ("onnx", "pmml")}
    for name, path in out.items():
        told = accord(
            "export", MODEL, "--home", homes / "lender", "--as", name, "--part", given, "--to", path, "--json"
        )
        assert json.loads(told.output)["bytes"] == path.stat().st_size
    rows, z = {}, -0.4
    for place, name in enumerate(("lender", "platform")):
        made, encoder = own(place)
        z = z + encoder.transform(made) @ Fitted.from_document(part(place).fitted).weights
        rows |= {f"{name}.{column}": values for column, values in made.items()}
    found = pmml_means(out["pmml"].read_text(), rows, 40)
    assert np.abs(found - (1 / (1 + np.exp(-z)))[:40]).max() < 1e-9
    refused = accord("export", MODEL, "--home", homes / "lender", "--to", given, fails=True)
    assert isinstance(refused.exception, ConfigError)
    accord("export", MODEL, "--home", homes / "lender", "--as", "onnx", "--to", tmp_path / "x", fails=True)
    accord("export", MODEL, "--home", homes / "lender", "--part", given, "--to", tmp_path / "x", fails=True)


def test_parts_that_do_not_belong_together_make_no_model():
    whole = whole_model([part(1), part(0)])
    assert (whole.link, whole.scores, len(whole.intercepts)) == ("logit", 1, 1)
    assert whole_model([part(0, classes=3), part(1, classes=3)]).link == "softmax"
    with pytest.raises(ConfigError, match="different models"):
        whole_model([part(0), part(1, model=OTHER)])
    with pytest.raises(ConfigError, match=r"here are those of lender$"):
        whole_model([part(0)])
    with pytest.raises(ConfigError, match="only its parts can be exported"):
        whole_model([part(0, kind="vertical.trees"), part(1, kind="vertical.trees")])
    with pytest.raises(ConfigError, match="the intercept is not in the part"):
        whole_model([part(0, active="platform"), part(1, active="platform")])
    with pytest.raises(ConfigError, match="cannot be used"):
        own_terms(parse_part(document()))


def test_files_that_are_no_exports_are_refused(tmp_path):
    for content, why in (("{", "not well-formed"), ("{}", "the part of a model"), (None, "cannot be read")):
        path = tmp_path / "part.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match=why):
            read_export(path)


def test_own_columns_are_compared_with_those_of_training(homes, tmp_path):
    home, made = homes / "lender", columns(300, 4, shift=15)
    lines = [
        f"p{i}@example.org,{'' if np.isnan(age) else age},{city or ''}"
        for i, (age, city) in enumerate(zip(made["age"], made["city"]))
    ]
    (tmp_path / "new.csv").write_text("\n".join(["email,age,city", *lines]) + "\n")
    catalogue.add(Home(home).catalogue, "new", tmp_path / "new.csv", "email")
    found = {
        one["column"]: one
        for one in json.loads(accord("drift", MODEL, "--home", home, "--data", "new", "--json").output)
    }
    assert (found["age"]["verdict"], found["city"]["verdict"]) == ("different", "stable")
    assert "different" in accord("drift", MODEL, "--home", home, "--data", "new").output
    ModelStore(home).save(part(0).model_copy(update={"reference": {}}))
    assert "nothing to compare" in str(accord("drift", MODEL, "--home", home, "--data", "new", fails=True).exception)


def test_points_are_of_logistic_models_and_own_columns(homes):
    home = homes / "lender"
    lines = json.loads(accord("scorecard", MODEL, "--home", home, "--pdo", 40, "--json").output)
    assert lines[0]["attribute"] == "base"
    assert {line["column"] for line in lines} == {"", "age", "city"}
    other = json.loads(accord("scorecard", MODEL, "--home", homes / "platform", "--json").output)
    assert "base" not in {line["attribute"] for line in other}
    assert "missing" in accord("scorecard", MODEL, "--home", home).output
    accord("scorecard", MODEL, "--home", home, "--pdo", 0, fails=True)
    ModelStore(home).save(part(0, classes=3))
    assert "of another kind" in str(accord("scorecard", MODEL, "--home", home, fails=True).exception)


def test_deleting_asks_first(homes):
    home = homes / "lender"
    refused = CliRunner().invoke(app, ["model", "delete", MODEL, "--home", str(home)], input="n\n")
    assert refused.exit_code != 0
    assert ModelStore(home).models() == [MODEL]
    assert json.loads(accord("delete", MODEL, "--home", home, "--yes", "--json").output)["deleted"] is True
    assert ModelStore(home).models() == []
    assert isinstance(accord("delete", MODEL, "--home", home, "--yes", fails=True).exception, ConfigError)
