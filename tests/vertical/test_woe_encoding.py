"""Inputs by weight of evidence: a model on them, and what is kept of them."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mpc.errors import LocalProtocolError
from tests.vertical.helpers import NAMES, run_owners
from tests.vertical.test_woe import FEATURES, columns, label
from vertical import glm
from vertical.encoding import Feature
from vertical.woe import Settings
from vertical.woe_encoding import WoeEncoder, fit_woe

N = 1200


def fitted(then=None):
    tables = [columns(N, seed) for seed in (1, 2)]
    y = label(tables, 3)

    def body(i):
        def owner(session):
            own = y if i == 0 else None
            encoder = fit_woe(session, tables[i], FEATURES, own, (8, 5), Settings())
            return encoder, then and then(session, encoder.transform(tables[i]), own)

        return owner

    return tables, y, run_owners([body(0), body(1)])


def test_a_model_is_trained_on_weights_in_the_same_session():
    settings = glm.Settings(passes=30)
    tables, y, done = fitted(lambda session, X, own: glm.train(session, X, own, settings))
    found = [done.results[name] for name in NAMES[:2]]
    X = np.hstack([encoder.transform(table) for (encoder, _), table in zip(found, tables)])
    plain = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(X, y)
    weights = np.concatenate([model.weights for _, model in found])
    assert np.abs(weights - plain.coef_[0]).max() < 0.02


def test_an_encoding_is_written_and_read_and_nothing_else_is():
    tables, _, done = fitted()
    encoder = done.results["platform"][0]
    document = json.loads(json.dumps(encoder.document()))
    again = WoeEncoder.from_document(document)
    assert (again.transform(tables[1]) == encoder.transform(tables[1])).all()
    assert again.schema_hash() == encoder.schema_hash()
    assert sorted([*(i.name for i in again.inputs), *again.dropped]) == ["city", "income", "noise"]
    assert len(again.describe()) == len(again.inputs) == again.transform(tables[1]).shape[1]
    assert again.describe()[0]["bins"][0]["holds"]
    other = {**document, "weights": document["weights"][:1]}
    for wrong in (None, {}, {**document, "format": "x"}, other, {**document, "bins": []}):
        with pytest.raises(LocalProtocolError):
            WoeEncoder.from_document(wrong)


def test_text_has_no_weight_of_evidence():
    with pytest.raises(LocalProtocolError, match="is text"):
        run_owners([lambda s: fit_woe(s, columns(10, 1), [Feature("city", "text")], None, (8, 5), Settings())] * 2)
