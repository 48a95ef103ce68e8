"""From training on real columns of two owners to a kept model's predictions, and how stable they are."""

import json

import numpy as np
import pytest

from benchmarks.datasets import load
from tests.vertical.helpers import run_owners
from vertical import glm
from vertical.encoding import fit
from vertical.score import Output, predict
from vertical.score_models import Kept
from vertical.stability import Reference, quantiles, score_bands, stability_index, verdict

N, TRAINED = 2400, 1600


@pytest.fixture(scope="module", params=["credit_default_taiwan", "adult"])
def world(request):
    """A model of the first rows, as its owners keep it, and all rows."""
    data = load(request.param)
    data = data.take(np.random.default_rng(1).permutation(len(data.y))[:N])
    train = np.arange(N) < TRAINED
    encoders = [
        fit(own, features, train, winsorise_sd=8, rare_category=20)
        for own, features in zip(data.columns, data.features)
    ]
    inputs = [encoder.transform(own)[train] for encoder, own in zip(encoders, data.columns)]
    settings = glm.Settings(ridge=1.0, passes=15, inference=False)
    run = run_owners(
        [
            lambda s, i=i: glm.train(s, inputs[i], data.y[train] if i == data.active else None, settings)
            for i in range(2)
        ]
    )
    kept = []
    for encoder, name in zip(encoders, ("lender", "platform")):
        written = json.loads(json.dumps([encoder.document(), run.results[name].document()]))
        kept.append(Kept.read("vertical.glm", "logistic", *written))
    return data, train, kept


def scored(world, rows, work):
    """What the first owner is told by work(session, scores, columns), on some rows."""
    data, _, kept = world

    def owner(i):
        own = {name: values[rows] for name, values in data.columns[i].items()}
        return lambda s: work(s, kept[i].scores(s, own), len(kept[i].columns))

    return run_owners([owner(0), owner(1)]).results["lender"]


def test_new_rows_get_the_predictions_of_the_model_in_the_clear(world):
    data, train, kept = world
    z = sum(part.fitted.part(part.encoder.transform(own)) for part, own in zip(kept, data.columns))[~train]
    p = 1 / (1 + np.exp(-z))
    outputs = {
        "decision": (Output("decision", (0,), cuts=(0.3,)), p >= 0.3),
        "decile": (Output("decile", (0,), cuts=tuple(i / 10 for i in range(1, 10))), np.floor(p * 10)),
        "rounded": (Output.rounded((0,)), np.floor(p * 100 + 0.5) / 100),
        "probability": (Output("probability", (0,)), p),
    }
    for name, (output, expected) in outputs.items():
        found = scored(world, ~train, lambda s, scores, columns, output=output: predict(s, scores, output, columns))
        assert np.abs(found - expected).max() < 1e-6, name


def test_rows_of_the_same_kind_are_stable_in_score_and_in_columns(world):
    data, train, _ = world

    def deciles(session, scores, _):
        return quantiles(session, scores, [i / 10 for i in range(1, 10)], (-16.0, 16.0))

    cuts = scored(world, train, deciles)
    before, now = (
        scored(world, rows, lambda s, scores, _: score_bands(s, scores, cuts, 20)) for rows in (train, ~train)
    )
    assert np.abs(before / TRAINED - 0.1).max() < 0.02
    assert verdict(stability_index(before / TRAINED, now)) == "stable"
    for own, features in zip(data.columns, data.features):
        drift = Reference.of(own, features, train).drift({name: values[~train] for name, values in own.items()})
        assert all(one.verdict == "stable" for one in drift)
