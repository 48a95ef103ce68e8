"""An encoding that is kept with a model: the same numbers again, a hash of its schema, limits by quantiles."""

import json

import numpy as np
import pytest

from benchmarks.datasets import load
from mpc.errors import LocalProtocolError
from vertical.encoding import Encoder, Feature, fit

ROWS = 200
RNG = np.random.default_rng(4)
COLUMNS = {
    "x": np.where(RNG.random(ROWS) < 0.1, np.nan, RNG.normal(size=ROWS) ** 3),
    "c": np.array(RNG.choice(["a", "b", "c", None], ROWS), dtype=object),
    "k": np.full(ROWS, 2.0),
}
FEATURES = [Feature("x", "number"), Feature("c", "category"), Feature("k", "number")]


def fitted(features=FEATURES, columns=COLUMNS, **options):
    train = np.arange(ROWS) < 150
    return fit(columns, features, train, **{"winsorise_sd": 8, "rare_category": 5, **options})


def test_a_kept_encoding_gives_the_very_same_numbers():
    encoder = fitted(winsorise_quantile=0.05)
    again = Encoder.from_document(json.loads(json.dumps(encoder.document())))
    assert again == encoder
    assert (again.transform(COLUMNS) == encoder.transform(COLUMNS)).all()
    assert again.schema_hash() == encoder.schema_hash()


def test_every_data_set_survives():
    for name in ("adult", "heart"):
        data = load(name)
        for columns, features in zip(data.columns, data.features):
            first = {column: values[:500] for column, values in columns.items()}
            rows = len(next(iter(first.values())))
            encoder = fit(first, features, np.ones(rows, bool), winsorise_sd=8, rare_category=10)
            again = Encoder.from_document(json.loads(json.dumps(encoder.document())))
            assert (again.transform(first) == encoder.transform(first)).all()


def test_the_schema_is_columns_kinds_and_levels_and_not_statistics():
    plain = fitted()
    moved = {**COLUMNS, "x": COLUMNS["x"] * 3 + 1}
    assert fitted(columns=moved).schema_hash() == plain.schema_hash()
    assert fitted([FEATURES[1], FEATURES[0], FEATURES[2]]).schema_hash() != plain.schema_hash()
    renamed = {**COLUMNS, "c": np.where(COLUMNS["c"] == "a", "z", COLUMNS["c"])}
    assert fitted(columns=renamed).schema_hash() != plain.schema_hash()
    assert fitted(FEATURES[:1]).schema_hash() != plain.schema_hash()
    assert len(plain.schema_hash()) == 64


def test_numbers_are_limited_to_training_quantiles():
    encoder = fitted(winsorise_quantile=0.1)
    train = COLUMNS["x"][:150]
    low, high = np.quantile(train[np.isfinite(train)], [0.1, 0.9])
    item = encoder.inputs[0]
    raw = encoder.transform(COLUMNS)[:, 0] * item.sd + item.mean
    known = np.isfinite(COLUMNS["x"])
    assert np.allclose(raw[known], np.clip(COLUMNS["x"][known], low, high))
    assert np.allclose(raw[~known], np.clip(train[np.isfinite(train)], low, high).mean())


def test_a_quantile_out_of_range_is_refused():
    with pytest.raises(LocalProtocolError, match="quantile"):
        fitted(winsorise_quantile=0.5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "accord-encoder-2"),
        ("winsorise_sd", 0),
        ("winsorise_sd", True),
        ("inputs", [["x", "number", None, "0", "0"]]),
        ("inputs", [["x", "number", None, "nan", "1"]]),
        ("inputs", [["x", "number", None, 0.0, "1"]]),
        ("inputs", [["x", "number", "a", "0", "1"]]),
        ("inputs", [["gone", "number", None, "0", "1"]]),
        ("inputs", [["c", "other", "a", "0", "1"]]),
        ("inputs", [["x"]]),
        ("inputs", None),
        ("levels", {"c": [1]}),
        ("fill", {"x": "inf"}),
        ("limits", {"x": ["1"]}),
        ("texts", {"t": {}}),
        ("texts", None),
    ],
)
def test_a_damaged_document_is_refused(key, value):
    with pytest.raises(LocalProtocolError):
        Encoder.from_document({**fitted().document(), key: value})


@pytest.mark.parametrize("document", [None, [], "x", {}])
def test_what_is_no_document_is_refused(document):
    with pytest.raises(LocalProtocolError):
        Encoder.from_document(document)
