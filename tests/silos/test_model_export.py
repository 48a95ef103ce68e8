"""Exported models say what the owners' parts say: ONNX by its reference evaluator, PMML by reading it as its standard says."""

import math
from xml.etree import ElementTree as Xml

import numpy as np
import pytest

from silos.errors import ConfigError
from silos.model_export import Block, Whole, blocks_agree, to_onnx, to_pmml
from tests.vertical.test_stability import FEATURES, columns
from vertical.contributions import Category, terms
from vertical.encoding import fit
from vertical.score import mean_of

N = 300
NS = {"p": "http://www.dmg.org/PMML-4_4"}


def model(link="logit", scores=1):
    rng = np.random.default_rng(3)
    blocks, rows, total = [], {}, np.zeros((N, scores))
    for place, owner in enumerate(("lender", "platform")):
        made = columns(N, place, cities=("basel", "bern & <thun>", None, *(f"v{i}" for i in range(9))))
        made["age"][5] = 1e8
        encoder = fit(made, FEATURES, np.ones(N, dtype=bool), winsorise_sd=4, rare_category=25)
        weights = rng.normal(0, 0.7, (len(encoder.inputs), scores))
        intercepts = tuple(rng.normal(0, 0.5, scores).tolist()) if place == 0 else None
        made["city"][7], made["age"][9] = "never seen", np.inf
        total += encoder.transform(made) @ weights + (0 if intercepts is None else np.array(intercepts))
        blocks.append(Block(owner, tuple(tuple(terms(encoder, weights[:, k])) for k in range(scores)), intercepts))
        rows |= {f"{owner}.{name}": values for name, values in made.items()}
    expected = mean_of(link, total if link == "softmax" else total[:, 0])
    return Whole("model 1", link, tuple(blocks)), rows, expected


CASES = [("logit", 1), ("log", 1), ("identity", 1), ("softmax", 3)]


@pytest.mark.parametrize(("link", "scores"), CASES)
def test_onnx_predicts_what_the_parts_do(link, scores):
    from onnx.reference import ReferenceEvaluator

    whole, rows, expected = model(link, scores)
    feed = {
        name: np.array(["missing" if v is None else v for v in values], dtype=str).reshape(-1, 1)
        if values.dtype == object
        else values.reshape(-1, 1)
        for name, values in rows.items()
    }
    (found,) = ReferenceEvaluator(to_onnx(whole)).run(None, feed)
    assert found.dtype == np.float64
    assert np.abs(found.reshape(expected.shape) / expected - 1).max() < 1e-5


def evaluated(element, row, derived=None):
    """An expression of PMML 4.4 on one row, in which None is missing."""
    tag = element.tag.rpartition("}")[2]
    if tag == "Constant":
        return float(element.text)
    if tag == "FieldRef":
        return row[element.get("field")]
    if tag == "MapValues":
        value = row[element.find("p:FieldColumnPair", NS).get("field")]
        if value is None:
            return float(element.get("mapMissingTo"))
        lines = {
            line.find("p:level", NS).text: line.find("p:adds", NS).text for line in element.iterfind(".//p:row", NS)
        }
        return float(lines.get(value, element.get("defaultValue")))
    name, arguments = element.get("function"), list(element)
    if name == "isMissing":
        return evaluated(arguments[0], row) is None
    if name == "if":
        return evaluated(arguments[1 if evaluated(arguments[0], row) else 2], row)
    values = [evaluated(argument, row) for argument in arguments]
    functions = {"+": sum, "*": math.prod, "max": max, "min": min}
    if name in functions:
        return functions[name](values)
    return values[0] / values[1] if name == "/" else values[0] - values[1]


def pmml_means(text, rows, n):
    root = Xml.fromstring(text)  # noqa: S314
    declared = {f.get("name"): f.get("dataType") for f in root.iterfind("p:DataDictionary/p:DataField", NS)}
    assert int(root.find("p:DataDictionary", NS).get("numberOfFields")) == len(declared)
    assert {f.get("name") for f in root.iterfind(".//p:MiningField", NS)} == set(declared)
    regression = root.find("p:RegressionModel", NS)
    method, out = regression.get("normalizationMethod"), []
    for i in range(n):
        row = {}
        for name, values in rows.items():
            value = values[i]
            missing = value is None or (declared[name] == "double" and not math.isfinite(value))
            row[name] = None if missing else value
        for field in regression.iterfind("p:LocalTransformations/p:DerivedField", NS):
            row[field.get("name")] = evaluated(field[0], row)
        scores = [
            float(table.get("intercept"))
            + sum(float(p.get("coefficient")) * row[p.get("name")] for p in table.iterfind("p:NumericPredictor", NS))
            for table in regression.iterfind("p:RegressionTable", NS)
        ]
        plain = {"logit": lambda z: 1 / (1 + math.exp(-z)), "exp": math.exp, "none": lambda z: z}
        powers = [math.exp(z - max(scores)) for z in scores]
        out.append([x / sum(powers) for x in powers] if method == "softmax" else plain[method](scores[0]))
    return np.array(out)


@pytest.mark.parametrize(("link", "scores"), CASES)
def test_pmml_predicts_what_the_parts_do(link, scores):
    whole, rows, expected = model(link, scores)
    found = pmml_means(to_pmml(whole), rows, 60)
    assert np.abs(found / expected[:60] - 1).max() < 1e-9


def test_pmml_says_what_kind_of_model_it_is():
    root = Xml.fromstring(to_pmml(model()[0]))  # noqa: S314
    regression = root.find("p:RegressionModel", NS)
    assert (regression.get("functionName"), regression.get("normalizationMethod")) == ("classification", "logit")
    tables = {t.get("targetCategory"): t for t in regression.iterfind("p:RegressionTable", NS)}
    assert set(tables) == {"0", "1"}
    assert len(tables["0"]) == 0
    assert "v0" not in root.find("p:Header", NS).attrib["description"]


def test_parts_that_make_no_model_are_refused():
    whole, _, _ = model()
    first, second = whole.blocks
    for blocks in ((first, first), (second,), (first, second, Block("shop", second.terms, (0.0,)))):
        with pytest.raises(ConfigError, match="not all parts of one model"):
            Whole("m", "logit", blocks)
    with pytest.raises(ConfigError, match="does not have the link"):
        Whole("m", "softmax", whole.blocks)
    with pytest.raises(ConfigError, match=r"here are those of lender$"):
        blocks_agree([first], ["lender", "platform"])
    blocks_agree(whole.blocks, ["platform", "lender"])


def test_a_level_that_xml_does_not_allow_is_refused():
    whole, _, _ = model()
    strange = Category("c", {"missing": 0.0, "a\x01b": 1.0}, 0.5)
    block = Block("lender", ((strange,),), (0.0,))
    with pytest.raises(ConfigError, match="XML does not allow"):
        to_pmml(Whole("m", "logit", (block, whole.blocks[1])))
