"""Multinomial logistic regression against scikit-learn and statsmodels, resuming, and what its messages look like."""

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LogisticRegression

from benchmarks.datasets import load
from mpc.errors import LocalProtocolError, RemoteProtocolError
from tests.vertical.helpers import NAMES, blocks, run_owners
from vertical import encoding, multinomial, softmax
from vertical.checkpoints import Checkpoints
from vertical.multinomial import Fitted, Settings, scores, train
from vertical.softmax import MAX_CLASSES


def fit_all(parts, y, settings, active=0, checkpoints=None, **options):
    def owner(i):
        kept = None if checkpoints is None else checkpoints[i]
        return lambda session: train(session, parts[i], y if i == active else None, settings, checkpoints=kept)

    return run_owners([owner(i) for i in range(len(parts))], **options)


def classes(n, dims, count, seed, strength=0.4):
    """Correlated columns and labels from a softmax of all of them."""
    parts, _ = blocks(n, dims, seed)
    rng = np.random.default_rng(seed)
    W = strength * rng.normal(size=(sum(dims), count))
    eta = np.hstack(parts) @ W + np.linspace(1, -1, count)
    p = np.exp(eta - eta.max(1, keepdims=True))
    y = (p.cumsum(1) / p.sum(1, keepdims=True) < rng.random((n, 1))).sum(1)
    return parts, y.astype(float)


def deviance(eta, y):
    shifted = eta - eta.max(1, keepdims=True)
    return float(-2 * (shifted[np.arange(len(y)), y.astype(int)] - np.log(np.exp(shifted).sum(1))).sum())


def joined(run, parts):
    fitted = [run.results[name] for name in NAMES[: len(parts)]]
    return fitted, sum(f.part(part) for f, part in zip(fitted, parts, strict=True))


@pytest.mark.parametrize(("dims", "count", "active", "ridge"), [([4, 3], 3, 0, 1.0), ([2, 3, 3], 5, 1, 10.0)])
def test_coefficients_and_deviance_are_those_of_scikit_learn(dims, count, active, ridge):
    parts, y = classes(1500, dims, count, seed=6)
    run = fit_all(parts, y, Settings(ridge=ridge, passes=40), active)
    fitted, eta = joined(run, parts)
    X = np.hstack(parts)
    reference = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000).fit(X, y)
    assert deviance(eta, y) == pytest.approx(deviance(reference.decision_function(X), y), rel=1e-3)
    assert np.abs(np.vstack([f.weights for f in fitted]) - reference.coef_.T).max() < 0.05
    assert [f.intercepts is None for f in fitted] == [i != active for i in range(len(dims))]
    assert np.abs(fitted[active].intercepts.sum()) < 0.01


def test_without_a_penalty_the_deviance_is_that_of_statsmodels():
    parts, y = classes(1500, [3, 3], 3, seed=2)
    _, eta = joined(fit_all(parts, y, Settings(ridge=0, passes=40)), parts)
    reference = sm.MNLogit(y, sm.add_constant(np.hstack(parts))).fit(disp=0)
    assert deviance(eta, y) == pytest.approx(-2 * reference.llf, rel=1e-3)


def test_the_same_columns_at_two_owners_do_not_drift_apart():
    parts, y = classes(600, [3, 2], 3, seed=2)
    parts[1] = np.column_stack([parts[1], parts[0][:, :2]])
    fitted, eta = joined(fit_all(parts, y, Settings(ridge=0, passes=100)), parts)
    X = np.hstack(parts)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(X, y)
    assert deviance(eta, y) == pytest.approx(deviance(reference.decision_function(X), y), rel=1e-3)
    assert np.abs(np.vstack([f.weights for f in fitted])).max() < 3
    assert {f.limit for f in fitted} == {64.0}


def test_all_owners_agree_on_a_limit_that_holds_every_part_of_a_score():
    parts, _ = classes(300, [2, 2], 3, seed=2)
    given = [Fitted(np.full((2, 3), size), None, 3) for size in (1.0, 40.0)]
    run = run_owners([lambda s, i=i: multinomial._limited(s, given[i], parts[i]) for i in range(2)])
    largest = np.abs(given[1].part(parts[1])).max()
    limits = {run.results[name].limit for name in NAMES[:2]}
    assert len(limits) == 1
    assert limits.pop() in [64 * 2**k for k in range(7) if 64 * 2**k >= 2 * largest > 32 * 2**k]
    given[1] = Fitted(np.full((2, 3), 1e6), None, 3)
    with pytest.raises(LocalProtocolError, match="nearly depend"):
        run_owners([lambda s, i=i: multinomial._limited(s, given[i], parts[i]) for i in range(2)])


def test_real_limits_in_four_classes():
    data = load("credit_default_taiwan")
    data = data.take(np.random.default_rng(0).permutation(len(data.y))[:2000])
    columns, features = list(data.columns), list(data.features)
    y = np.digitize(columns[0]["LIMIT_BAL"], [50_000, 140_000, 240_000]).astype(float)
    features[0] = [f for f in features[0] if f.column != "LIMIT_BAL"]
    rows = np.ones(len(y), dtype=bool)
    parts = [
        encoding.fit(c, f, rows, winsorise_sd=8, rare_category=20).transform(c)
        for c, f in zip(columns, features, strict=True)
    ]
    _, eta = joined(fit_all(parts, y, Settings(passes=40)), parts)
    X = np.hstack(parts)
    reference = LogisticRegression(tol=1e-10, max_iter=10_000).fit(X, y)
    assert deviance(eta, y) == pytest.approx(deviance(reference.decision_function(X), y), rel=1e-3)


def test_scores_out_of_the_first_range_are_fitted_in_a_wider_one():
    parts, y = classes(800, [4, 4], 4, seed=0, strength=1.5)
    _, eta = joined(fit_all(parts, y, Settings(passes=40)), parts)
    assert np.abs(eta - eta.mean(1, keepdims=True)).max() > 6
    X = np.hstack(parts)
    reference = LogisticRegression(tol=1e-10, max_iter=10_000).fit(X, y)
    assert deviance(eta, y) == pytest.approx(deviance(reference.decision_function(X), y), rel=5e-3)


def test_scores_out_of_every_range_are_refused(monkeypatch):
    monkeypatch.setattr(softmax, "MAX_SQUARINGS", 0)
    parts, y = classes(400, [2, 2], 4, seed=0, strength=3)
    with pytest.raises(LocalProtocolError, match="separates the classes"):
        fit_all(parts, y, Settings(passes=10))


class Memory:
    """A store in memory."""

    def __init__(self):
        self.kept = {}

    def put(self, name, body):
        self.kept[name] = body

    def get(self, name):
        return self.kept.get(name)

    def names(self):
        return list(self.kept)

    def drop(self, name):
        self.kept.pop(name, None)


@pytest.mark.parametrize("strength", [0.4, 1.5])
def test_a_fit_goes_on_where_it_was_stopped(strength):
    parts, y = classes(300, [3, 2], 3, seed=1, strength=strength)
    stores, settings = [Memory(), Memory()], Settings(passes=20)

    def kept(every=1):
        return [Checkpoints(store, "fit", b"plan", every=every) for store in stores]

    _, eta = joined(fit_all(parts, y, settings, checkpoints=kept()), parts)
    for store in stores:  # forget the last state: the one before is gone on from
        store.drop(max(store.names()))
    run = fit_all(parts, y, settings, checkpoints=kept())
    _, eta_again = joined(run, parts)
    assert np.abs(eta - eta_again).max() < 0.02
    assert len(run.transcript) < 0.5 * len(fit_all(parts, y, settings).transcript)


def test_a_stored_part_is_read_back_and_nothing_else_is():
    part = Fitted(np.arange(6.0).reshape(2, 3) / 7, np.array([1.0, -2, 1]), 3)
    again = Fitted.from_document(part.document())
    assert np.array_equal(again.weights, part.weights)
    assert np.array_equal(again.intercepts, part.intercepts)
    passive = Fitted.from_document(Fitted(part.weights, None, 3).document())
    assert passive.intercepts is None
    for wrong in (
        {},
        part.document() | {"classes": 4},
        part.document() | {"limit": "63.0"},
        part.document() | {"weights": {"shape": [1], "data": ""}},
    ):
        with pytest.raises(LocalProtocolError):
            Fitted.from_document(wrong)


def test_scores_are_shares_of_the_linear_predictors():
    parts, y = classes(300, [3, 2], 3, seed=1)
    fitted, eta = joined(fit_all(parts, y, Settings(passes=10)), parts)
    run = run_owners([lambda s, i=i: scores(s, fitted[i], parts[i]) for i in range(2)])
    total = sum(run.results[name].words for name in NAMES[:2]).view(np.int64) / 2.0**24
    assert np.abs(total - eta).max() < 1e-6
    assert not [m for m in run.transcript if m.size > 64]


def test_rounds_and_sizes_depend_on_shapes_only():
    shapes = []
    for seed in (1, 2):
        parts, _ = blocks(120, [3, 2], seed)
        y = np.random.default_rng(seed).permutation(np.arange(120) % 3).astype(float)
        shapes.append(fit_all(parts, y, Settings(passes=2)).shape())
    assert shapes[0] == shapes[1]


def test_bytes_per_pass_are_as_stated():
    parts, y = classes(640, [3, 2], 4, seed=1, strength=0.1)

    def sent(passes):
        run = fit_all(parts, y, Settings(passes=passes))
        return np.array([run.bytes_sent("lender", "platform"), run.bytes_sent("dealer")])

    to_peer, dealt = (sent(3) - sent(2)) / 640
    assert 0.9 < to_peer / (32 * 4 + 85) < 1.05
    assert 0.9 < dealt / (225 * 4 + 250) < 1.05


NO_CLASSES = ([0.0, 1, 1.5, 2], [0.0, 2, 2, 0], [1.0, 1, 1, 1], [0.0, 1, np.nan, 1], [0.0, MAX_CLASSES, 1, 1])


@pytest.mark.parametrize("label", NO_CLASSES)
def test_labels_that_are_no_classes_are_refused(label):
    parts, _ = blocks(4, [1, 1], 0)
    with pytest.raises(LocalProtocolError, match="multinomial"):
        fit_all(parts, np.array(label), Settings())


def test_two_labels_or_none_are_refused():
    parts, y = classes(60, [2, 2], 3, seed=1)
    for first, second in ((y, y), (None, None)):
        with pytest.raises(RemoteProtocolError, match="exactly one owner must have the label"):
            run_owners(
                [
                    lambda s, label=first: train(s, parts[0], label, Settings()),
                    lambda s, label=second: train(s, parts[1], label, Settings()),
                ]
            )


def test_other_rows_are_refused():
    parts, y = classes(60, [2, 2], 3, seed=1)
    with pytest.raises(RemoteProtocolError, match="states other rows"):
        run_owners([lambda s: train(s, parts[0], y, Settings()), lambda s: train(s, parts[1][:59], None, Settings())])
