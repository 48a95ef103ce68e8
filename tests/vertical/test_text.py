"""Text as numbers: meaning survives, restoring gives the very same numbers, and nothing breaks on odd text."""

import json

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.datasets import load
from mpc.errors import LocalProtocolError
from vertical.encoding import Encoder, Feature, fit
from vertical.text import TextEncoder, TextSettings

TEXTS = np.array(
    [
        "the soft, soft dress fits well",
        "poor seams, sent back",
        None,
        "soft fabric and fits well",
        "sent back, poor fabric",
        "",
    ]
    * 5,
    dtype=object,
)
FEW = TextSettings(dims=4, max_terms=100, min_rows=2)


def test_reviews_say_whether_a_dress_is_recommended():
    reviews = load("reviews")
    rows = np.random.default_rng(3).permutation(len(reviews.y))[:3000]
    texts, y = reviews.columns[1]["Review Text"][rows], reviews.y[rows]
    encoder = TextEncoder.fit(texts[:2000], TextSettings(dims=32, max_terms=2000))
    X = encoder.transform(texts)
    model = LogisticRegression(C=10, max_iter=500).fit(X[:2000], y[:2000])
    assert roc_auc_score(y[2000:], model.decision_function(X[2000:])) > 0.8


def test_fitting_is_deterministic_and_restoring_exact():
    first, second = TextEncoder.fit(TEXTS, FEW), TextEncoder.fit(TEXTS, FEW)
    assert first.terms == second.terms
    assert (first.components == second.components).all()
    again = TextEncoder.from_document(json.loads(json.dumps(first.document())))
    assert again.terms == first.terms
    assert (again.transform(TEXTS) == first.transform(TEXTS)).all()


def test_components_are_those_of_scikit_learn():
    encoder = TextEncoder.fit(TEXTS, FEW)
    rows = ["" if text is None else text for text in TEXTS]
    weights = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=100, min_df=2).fit_transform(rows)
    reference = TruncatedSVD(4, algorithm="arpack", random_state=1).fit_transform(weights)
    assert np.allclose(np.abs(encoder.transform(TEXTS)), np.abs(reference), atol=1e-5)


def test_missing_empty_and_unknown_text_is_zero():
    encoder = TextEncoder.fit(TEXTS, FEW)
    X = encoder.transform(np.array([None, "", "zzz qqq", "soft dress"], dtype=object))
    assert (X[:3] == 0).all()
    assert (X[3] != 0).any()
    assert encoder.transform(np.array([], dtype=object)).shape == (0, encoder.dims)


@pytest.mark.parametrize("texts", [[None] * 6, ["a"] * 6, ["alone"] * 6, ["one two"], [f"only{i}" for i in range(6)]])
def test_texts_with_nothing_in_common_have_few_numbers_or_none(texts):
    encoder = TextEncoder.fit(np.array(texts, dtype=object), TextSettings(dims=4, min_rows=2))
    X = encoder.transform(np.array(texts, dtype=object))
    assert X.shape == (len(texts), encoder.dims)
    assert np.isfinite(X).all()
    assert encoder.dims <= 1
    again = TextEncoder.from_document(encoder.document())
    assert again.dims == encoder.dims


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "x"),
        ("terms", ["a", "a"]),
        ("terms", [1]),
        ("idf", "AAAA"),
        ("components", "!"),
        ("dims", 3),
        ("dims", True),
    ],
)
def test_a_damaged_document_is_refused(key, value):
    document = TextEncoder.fit(TEXTS, FEW).document()
    with pytest.raises(LocalProtocolError, match="not a text encoder"):
        TextEncoder.from_document({**document, key: value})


def test_a_text_column_becomes_standardised_inputs_and_an_indicator():
    columns = {"review": TEXTS, "x": np.arange(30.0)}
    train = np.arange(30) < 24
    encoder = fit(
        columns,
        [Feature("review", "text"), Feature("x", "number")],
        train,
        winsorise_sd=8,
        rare_category=2,
        text=FEW,
    )
    names = [i.name for i in encoder.inputs]
    assert names[:4] == ["review=0", "review=1", "review=2", "review=3"]
    assert names[4:] == ["review=missing", "x"]
    X = encoder.transform(columns)
    assert X.shape == (30, 6)
    assert np.allclose(X[train].mean(axis=0), 0)
    assert np.allclose(X[train].std(axis=0), 1)
    assert (X[2, 4] > 0) & (X[0, 4] < 0)
    again = Encoder.from_document(json.loads(json.dumps(encoder.document())))
    assert (again.transform(columns) == X).all()


def test_a_text_column_without_words_is_left_out():
    columns = {"t": np.array([None] * 8, dtype=object), "x": np.arange(8.0)}
    features = [Feature("t", "text"), Feature("x", "number")]
    encoder = fit(columns, features, np.ones(8, bool), winsorise_sd=8, rare_category=2)
    assert [i.name for i in encoder.inputs] == ["x"]
    assert encoder.dropped == ("t=missing",)
    assert encoder.transform(columns).shape == (8, 1)
