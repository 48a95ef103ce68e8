"""The job that predicts, as its owners run it in one process: kept parts of all kinds of models, on new rows."""

from dataclasses import replace

import numpy as np
import pytest

from mpc.dealer import run_dealer
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from tests.harness import run_parties
from tests.vertical.helpers import run_owners
from tests.vertical.test_job import data_of
from vertical import glm, multinomial, network
from vertical import linear as linear_model
from vertical.align import Terms
from vertical.binning import Binner
from vertical.encoding import Feature, fit
from vertical.network_parts import Settings as NetworkSettings
from vertical.score import Output
from vertical.score_job import Plan, output_of, run
from vertical.score_models import Kept, local_scores
from vertical.stability import Reference
from vertical.trees.settings import Settings as TreeSettings
from vertical.trees.train import train as grow

FEATURES = [[Feature("a", "number"), Feature("c", "category")], [Feature("b", "number"), Feature("d", "number")]]
OWNERS = ("lender", "platform")
N = 400


def rows(seed, n=N):
    """Both owners' columns about the same n people, the label, and what makes it."""
    rng = np.random.default_rng(seed)
    a, b, d = rng.normal(size=(3, n))
    c = rng.integers(0, 3, n)
    z = 1.2 * a - b + np.array([0.0, 1.0, -1.0])[c]
    email = np.array([f"p{i}@example.org" for i in range(n)], dtype=object)
    first = {"email": email, "a": a, "c": np.array(["x", "y", "z"], dtype=object)[c]}
    second = {"email": email[::-1].copy(), "b": b[::-1].copy(), "d": d[::-1].copy()}
    return (first, second), (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float)


def flipped(columns):
    """The second owner's rows in the order of the first one's."""
    return [columns[0], {name: values[::-1] for name, values in columns[1].items()}]


def trained(kind):
    """Each owner's part as it is kept, and the scores it gives in the clear if it is a sum of parts."""
    columns, y = rows(1)
    columns = flipped(columns)
    everything = np.ones(N, dtype=bool)
    y = y + (columns[0]["a"] > 1) if kind == "multinomial" else y
    if kind == "trees":
        encoders = [Binner.fit(columns[i], FEATURES[i], everything, 8) for i in range(2)]
        settings, train = TreeSettings(trees=2, depth=2), grow
    else:
        encoders = [fit(columns[i], FEATURES[i], everything, winsorise_sd=8, rare_category=5) for i in range(2)]
        settings, train = {
            "glm": (glm.Settings(passes=15), glm.train),
            "multinomial": (multinomial.Settings(passes=5), multinomial.train),
            "linear": (linear_model.Settings(), linear_model.train),
            "network": (NetworkSettings(hidden=(4,), epochs=6, batch=64, learning_rate=0.2), network.train),
        }[kind]
    inputs = [encoder.transform(columns[i]) for i, encoder in enumerate(encoders)]
    made = run_owners([lambda s, i=i: train(s, inputs[i], y if i == 0 else None, settings) for i in range(2)])
    family = {"glm": "logistic", "trees": "logistic", "network": "binary"}.get(kind, kind)
    name = "vertical.glm" if kind in ("glm", "multinomial", "linear") else f"vertical.{kind}"
    kept = []
    for i, encoder in enumerate(encoders):
        described = encoder.describe() if kind == "trees" else encoder.document()
        kept.append(Kept.read(name, family, described, made.results[OWNERS[i]].document()))
    return kept


@pytest.fixture(scope="module")
def linear():
    return trained("glm")


def nothing(step, done, total):
    """Nobody watches."""


def plan(me, kept, output):
    terms = Terms(OWNERS, me, "ecdh-psi", (("email/v1", None),), "refuse", 50)
    return Plan(terms, "dealer", "dealer", "ab" * 16, kept[me], output, None, None, ("counts",))


def scored(kept, output, seed=2, n=120, serve=None, each=({}, {}), **changed):
    columns, _ = rows(seed, n)
    plans = [replace(plan(me, kept, output), **changed, **each[me]) for me in range(2)]

    def owner(me):
        def body(channel):
            data = data_of(plans[me], columns[me], ("email",))
            return run(plans[me], data, channel, b"session-of-score", nothing, serve)

        return body

    parties = {"lender": owner(0), "platform": owner(1), "dealer": lambda channel: run_dealer(channel, OWNERS)}
    return columns, run_parties(parties)


def means(kept, columns):
    """What the parts give, in the clear, in the first owner's order."""
    ordered = flipped(columns)
    z = sum(part.fitted.part(part.encoder.transform(ordered[i])) for i, part in enumerate(kept))
    if z.ndim == 2:
        powers = np.exp(z)
        return powers / powers.sum(1, keepdims=True)
    return 1 / (1 + np.exp(-z))


def test_the_recipient_has_a_probability_for_each_of_its_matched_rows(linear):
    columns, run = scored(linear, Output("probability", (0,)))
    first, second = (run.results[name] for name in OWNERS)
    assert sorted(first.rows) == list(range(120))
    assert np.abs(first.predictions - means(linear, columns)[first.rows]).max() < 1e-6
    assert second.rows is None
    assert second.predictions is None
    assert first.result["rows"]["matched"] == second.result["rows"]["matched"] == 120


def test_the_second_owner_as_recipient_gets_them_by_its_own_rows(linear):
    columns, run = scored(linear, Output("decision", (1,), cuts=(0.5,)))
    told = run.results["platform"]
    assert (told.predictions == (means(linear, columns)[::-1][told.rows] >= 0.5)).all()


@pytest.mark.parametrize("kind", ["trees", "network"])
def test_models_that_are_shared_predict_too(kind):
    kept = trained(kind)
    _, run = scored(kept, Output("probability", (0,)))
    told, y = run.results["lender"], rows(2, 120)[1]
    assert told.predictions.shape == (120,)
    assert ((told.predictions > 0) & (told.predictions < 1)).all()
    assert told.predictions[y[told.rows] == 1].mean() > told.predictions[y[told.rows] == 0].mean()
    assert set(kept[0].columns) == {"a", "c"}


def test_a_model_of_an_amount():
    kept = trained("linear")
    columns, run = scored(kept, Output("probability", (0,), link=kept[0].link))
    ordered, told = flipped(columns), run.results["lender"]
    expected = sum(part.fitted.part(part.encoder.transform(ordered[i])) for i, part in enumerate(kept))
    assert np.abs(told.predictions - expected[told.rows]).max() < 1e-6


def test_several_classes():
    """Two columns are no more than two equations, so there are no probabilities, but there is the most likely class."""
    kept = trained("multinomial")
    columns, run = scored(kept, Output("decision", (0,), link="softmax"))
    told = run.results["lender"]
    assert (told.predictions == means(kept, columns)[told.rows].argmax(axis=1)).all()
    with pytest.raises(Refused, match="2 columns in the model and a row's probabilities are 2 equations"):
        scored(kept, Output("probability", (0,), link="softmax"))


def test_rows_are_asked_for_one_by_one(linear):
    asked = {}

    def serve(online, found):
        for place in (5, 0, 119):
            asked[int(found.rows[place])] = online.ask(place)
        online.end()

    columns, run = scored(linear, Output("probability", (0,)), serve=serve, most=10)
    expected = means(linear, columns)
    assert all(abs(value - expected[row]) < 1e-6 for row, value in asked.items())
    assert run.results["lender"].predictions is None
    assert [run.results[name].result["questions"] for name in OWNERS] == [3, 3]


def test_the_stability_of_scores_and_of_own_columns(linear):
    columns, _ = rows(1)
    reference = Reference.of(columns[0], FEATURES[0], np.ones(N, dtype=bool))
    options = {"release": ("stability",), "cuts": (-0.5, 0.5), "expected": (0.35, 0.3, 0.35), "minimum": 10}
    _, run = scored(linear, Output("probability", (0,)), each=({"reference": reference}, {}), **options)
    first, second = (run.results[name].result for name in OWNERS)
    assert first["stability"] == second["stability"]
    assert sum(first["stability"]["counts"]) == 120
    assert {line["column"] for line in first["inputs"]} == {"a", "c"}
    assert "inputs" not in second
    assert "rows" not in first


def test_an_offset_is_added_to_the_score(linear):
    columns, run = scored(linear, Output("probability", (0,)), each=({"offset": "a"}, {}))
    told = run.results["lender"]
    z = np.log(means(linear, columns) / (1 - means(linear, columns))) + columns[0]["a"]
    assert np.abs(told.predictions - (1 / (1 + np.exp(-z)))[told.rows]).max() < 1e-6


def test_owners_with_parts_of_other_models_or_other_questions_stop(linear):
    for changed in ({"model": "cd" * 16}, {"output": Output("probability", (1,))}, {"cuts": (1.0,)}):
        with pytest.raises(RemoteProtocolError, match="another model, or something else"):
            scored(linear, Output("probability", (0,)), each=({}, changed))


def test_rows_without_a_column_of_the_model_and_absurd_parts_are_refused(linear):
    with pytest.raises(LocalProtocolError, match="reads column 'a'"):
        linear[0].scores(None, {"c": np.array([], dtype=object)})

    class Part:
        def part(self, inputs):
            return inputs

    for wrong in (np.array([np.nan]), np.array([1e9])):
        with pytest.raises(LocalProtocolError, match="sensible size"):
            local_scores(Part(), wrong, None, 2)


def test_outputs_have_the_link_of_the_model(linear):
    assert output_of(linear[0], "decision", [1], [0.2]) == Output("decision", (1,), "logit", (0.2,))
    assert output_of(linear[0], "rounded", [0], step=0.05) == Output.rounded([0], "logit", step=0.05)
    counts = replace(linear[0], family="poisson")
    assert output_of(counts, "decile", [0, 1], [0.5, 3.0]).link == "log"
    with pytest.raises(LocalProtocolError, match="does not go with 2 cut points"):
        output_of(linear[0], "decision", [0], [0.2, 0.3])


def test_kinds_and_families_that_there_are_not_are_refused():
    with pytest.raises(LocalProtocolError, match="no model of family"):
        Kept.read("vertical.glm", "magic", {}, {})
    with pytest.raises(LocalProtocolError, match="no model of kind"):
        Kept.read("vertical.magic", "logistic", {}, {})
    with pytest.raises(LocalProtocolError):
        Kept.read("vertical.glm", "logistic", {}, {})
