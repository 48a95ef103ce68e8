"""Representations learned alone: what they are, that they help a joint head with few rows, and that they can be kept."""

import json

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from benchmarks.datasets import load
from mpc.errors import LocalProtocolError
from tests.vertical.helpers import NAMES, run_owners
from vertical.encoding import fit
from vertical.network import Settings, scores, train
from vertical.transfer import Representation, TransferSettings

RNG = np.random.default_rng(8)
X = RNG.normal(size=(500, 6)) @ RNG.normal(size=(6, 6))
Y = (X[:, 0] + RNG.normal(size=500) > 0).astype(float)


def test_components_are_those_of_scikit_learn_with_unit_variance():
    found = Representation.fit(X, TransferSettings(variance=0.9))
    reference = PCA(n_components=0.9, svd_solver="full").fit(X)
    Z, expected = found.transform(X), reference.transform(X)
    assert Z.shape == expected.shape
    assert np.allclose(Z.std(axis=0), 1, atol=1e-6)
    assert np.allclose(np.abs(Z), np.abs(expected / expected.std(axis=0)), atol=1e-6)


def test_constant_columns_count_for_nothing():
    wide = np.column_stack([X, np.ones(500), X[:, 0]])
    found = Representation.fit(wide, TransferSettings(variance=1.0))
    assert found.transform(wide).shape == (500, 6)


def test_a_local_model_has_seen_no_shared_row():
    unshared = np.arange(500) >= 100
    changed = np.where(unshared, Y, 1 - Y)
    first, second = (Representation.fit(X, TransferSettings(), labels, unshared) for labels in (Y, changed))
    assert first.basis.shape == (6, 1)
    assert (first.basis == second.basis).all()
    assert roc_auc_score(Y, first.transform(X)[:, 0]) > 0.6


def test_it_survives_its_document():
    for found in (Representation.fit(X, TransferSettings()), Representation.fit(X, TransferSettings(), Y)):
        again = Representation.from_document(json.loads(json.dumps(found.document())))
        assert (again.transform(X) == found.transform(X)).all()


@pytest.mark.parametrize(
    ("key", "value"), [("format", "x"), ("mean", ["0"]), ("mean", [0.0]), ("basis", [["nan"]] * 6), ("basis", None)]
)
def test_a_damaged_document_is_refused(key, value):
    with pytest.raises(LocalProtocolError, match="not a representation"):
        Representation.from_document({**Representation.fit(X, TransferSettings()).document(), key: value})


def test_what_cannot_be_learned_from_is_refused():
    for inputs, y in [(X[:1], None), (np.ones((10, 2)), None), (np.full((10, 2), np.nan), None), (X[:80], Y[:80])]:
        with pytest.raises(LocalProtocolError):
            Representation.fit(inputs, TransferSettings(), y)
    for settings in ({"variance": 0.0}, {"dims": 0}, {"ridge": 0.0}):
        with pytest.raises(LocalProtocolError):
            TransferSettings(**settings)


def joint_auc(parts, y, train_rows, test_rows):
    """Of a small network that two owners train together, on rows that neither has learned from."""
    settings = Settings(hidden=(8,), epochs=12, batch=100, learning_rate=0.02, weight_decay=0.01)

    def owner(i):
        def body(session):
            fitted = train(session, parts[i][train_rows], y[train_rows] if i == 0 else None, settings)
            return scores(session, fitted, parts[i][test_rows]).words

        return body

    run = run_owners([owner(0), owner(1)])
    return roc_auc_score(y[test_rows], sum(run[name] for name in NAMES[:2]).view(np.int64))


def test_with_a_thousand_shared_rows_of_adult_transfer_helps():
    adult = load("adult")
    n = len(adult.y)
    order = np.random.default_rng(20_11).permutation(n)
    shared, test_rows, rest = order[:1000], order[1000:7000], order[7000:]

    def encoded(rows, rare):
        chosen = np.isin(np.arange(n), rows)
        owned = zip(adult.columns, adult.features)
        return chosen, [fit(c, f, chosen, winsorise_sd=8, rare_category=rare).transform(c) for c, f in owned]

    _, plain = encoded(shared, 10)
    own, wide = encoded(np.concatenate([shared, rest]), 30)
    unshared = np.isin(np.arange(n), rest)[own]
    settings = TransferSettings()
    learned = [
        Representation.fit(wide[0][own], settings, adult.y[own], unshared),
        Representation.fit(wide[1][own], settings),
    ]
    with_transfer = joint_auc([r.transform(w) for r, w in zip(learned, wide)], adult.y, shared, test_rows)
    without = joint_auc(plain, adult.y, shared, test_rows)
    assert with_transfer > without
    assert with_transfer > 0.88
