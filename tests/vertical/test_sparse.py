"""Lasso and elastic net on shares: coefficients, zeros and objectives of scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import ElasticNet, LogisticRegression

from mpc.errors import LocalProtocolError, RemoteProtocolError
from tests.vertical.helpers import NAMES, blocks, run_owners
from tests.vertical.test_families_log import encoded
from tests.vertical.test_multinomial import Memory
from vertical.checkpoints import Checkpoints
from vertical.families import Rows
from vertical.sparse import Settings, train


def fit_all(parts, y, settings, active=0, checkpoints=None):
    def owner(i):
        kept = None if checkpoints is None else checkpoints[i]
        return lambda session: train(session, parts[i], y if i == active else None, settings, checkpoints=kept)

    return run_owners([owner(i) for i in range(len(parts))])


def weights_of(run, owners):
    return np.concatenate([run.results[name].weights for name in NAMES[:owners]])


def penalty_of(w, settings):
    return settings.penalty * (settings.l1_ratio * np.abs(w).sum() + (1 - settings.l1_ratio) / 2 * (w**2).sum())


@pytest.mark.parametrize(("dims", "l1_ratio"), [([6, 5], 1.0), ([4, 4, 3], 0.5)])
def test_linear_models_are_those_of_scikit_learn(dims, l1_ratio):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 11)) + 0.5 * rng.normal(size=(1000, 1))
    X = (X - X.mean(0)) / X.std(0)
    parts = np.split(X, np.cumsum(dims)[:-1], axis=1)
    y = 100 + 10 * (X @ (rng.normal(size=11) * (rng.random(11) < 0.5)) + rng.normal(size=1000))
    settings = Settings("linear", 1.0, l1_ratio)
    run = fit_all(parts, y, settings, active=1)
    reference = ElasticNet(alpha=1.0, l1_ratio=l1_ratio, tol=1e-12, max_iter=100_000).fit(X, y)
    weights = weights_of(run, len(dims))
    assert np.abs(weights - reference.coef_).max() < 5e-3
    assert ((weights == 0) == (reference.coef_ == 0)).all()
    assert 0 < (weights == 0).sum() < 11
    assert run.results["platform"].intercept == pytest.approx(reference.intercept_, abs=1e-2)
    assert run.results["lender"].intercept is None


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_logistic_models_on_real_columns_are_those_of_scikit_learn(l1_ratio):
    parts, y, active = encoded("heart", 300)
    settings = Settings("logistic", 0.03, l1_ratio)
    run = fit_all(parts, y, settings, active)
    X, n = np.hstack(parts), len(y)
    model = LogisticRegression(
        penalty="elasticnet", l1_ratio=l1_ratio, C=1 / (0.03 * n), solver="saga", tol=1e-10, max_iter=50_000
    )
    reference = model.fit(X, y)
    weights = weights_of(run, 2)
    eta = X @ weights + run.results[NAMES[active]].intercept

    def objective(eta, w):
        return np.logaddexp(0, eta).mean() - (y * eta).mean() + penalty_of(w, settings)

    best = objective(reference.decision_function(X), reference.coef_[0])
    assert objective(eta, weights) == pytest.approx(best, rel=1e-4)
    assert np.abs(weights - reference.coef_[0]).max() < 0.01
    assert ((weights == 0) == (reference.coef_[0] == 0)).mean() >= 0.95


def test_counts_with_offsets_and_weights_reach_the_penalised_optimum():
    parts, _ = blocks(600, [3, 4], seed=4)
    X, rng = np.hstack(parts), np.random.default_rng(1)
    offset, case = rng.uniform(-1, 1, 600), rng.uniform(0.5, 1.5, 600)
    y = rng.poisson(np.exp(2 + offset + X @ [0.3, 0, 0, -0.2, 0, 0, 0])).astype(float)
    settings = Settings("poisson", 0.8, weighted=True, exposed=True)
    run = fit_all(parts, Rows(y, offset, case), settings, active=1)
    w, start = weights_of(run, 2), run.results["platform"].intercept
    slope = X.T @ (case * (np.exp(X @ w + start + offset) - y)) / 600
    assert abs((case * (np.exp(X @ w + start + offset) - y)).mean()) < 0.02
    assert np.abs(slope[w != 0] + 0.8 * np.sign(w[w != 0])).max() < 0.02
    assert np.abs(slope[w == 0]).max() < 0.82
    assert 0 < (w == 0).sum() < 7


def test_a_large_penalty_leaves_the_intercept_only():
    parts, y = blocks(400, [3, 2], seed=1)
    run = fit_all(parts, y, Settings("logistic", 1.0, steps=4, rounds=30))
    assert not weights_of(run, 2).any()
    rate = y.mean()
    assert run.results["lender"].intercept == pytest.approx(np.log(rate / (1 - rate)), abs=2e-3)


def test_a_fit_goes_on_where_it_was_stopped():
    parts, y = blocks(300, [3, 2], seed=1)
    settings, stores = Settings("logistic", 0.02, steps=3, rounds=30), [Memory(), Memory()]

    def kept():
        return [Checkpoints(store, "fit", b"plan") for store in stores]

    whole = weights_of(fit_all(parts, y, settings, checkpoints=kept()), 2)
    for store in stores:
        store.drop(max(store.names()))
    again = fit_all(parts, y, settings, checkpoints=kept())
    assert np.abs(weights_of(again, 2) - whole).max() < 1e-3


def test_what_is_sent_depends_on_the_sizes_only():
    shapes = []
    for seed in (1, 2):
        parts, y = blocks(150, [3, 2], seed)
        shapes.append(fit_all(parts, y, Settings("logistic", 0.05, steps=2, rounds=5)).shape())
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    "wrong", [{"penalty": 0.0}, {"l1_ratio": 1.5}, {"steps": 0}, {"rounds": 0}, {"penalty": np.nan}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(LocalProtocolError):
        Settings(**wrong)


def test_inputs_that_do_not_fit_are_refused():
    parts, y = blocks(100, [2, 2], seed=1)
    with pytest.raises(LocalProtocolError, match="nothing would be left"):
        fit_all(parts, y, Settings("logistic", 500.0, 0.0))
    with pytest.raises(LocalProtocolError, match="no family"):
        fit_all(parts, y, Settings("normal"))
    for value, why in ((np.nan, "finite"), (1e9, "too large")):
        parts[0][3, 1] = value
        with pytest.raises(LocalProtocolError, match=why):
            fit_all(parts, y, Settings())


def test_two_labels_or_none_are_refused():
    parts, y = blocks(50, [2, 2], seed=1)
    for first, second in ((y, y), (None, None)):
        with pytest.raises(RemoteProtocolError, match="exactly one owner must have the label"):
            run_owners(
                [
                    lambda s, known=first: train(s, parts[0], known, Settings()),
                    lambda s, known=second: train(s, parts[1], known, Settings()),
                ]
            )
