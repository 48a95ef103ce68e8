"""Selection for a logistic regression in secret against the same selection in the clear and statsmodels' tests."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import chi2

from mpc.errors import LocalProtocolError
from tests.vertical.helpers import NAMES, run_owners
from tests.vertical.test_stepwise import traced
from vertical.glm import Fitted
from vertical.stepwise import Settings
from vertical.stepwise_logistic import select_logistic


def table(n, dims, seed):
    """Columns of different weights, of which every second one matters, and the model of all of them."""
    rng = np.random.default_rng(seed)
    d = sum(dims)
    X = rng.normal(size=(n, d)) @ (np.eye(d) + 0.2 * rng.normal(size=(d, d)))
    X[:, 0] = X[:, 0] > 1.5
    X = (X - X.mean(0)) / X.std(0)
    z = X @ np.where(np.arange(d) % 2, rng.normal(0, 0.7, d), 0.0) - 1.5
    y = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float)
    return np.split(X, np.cumsum(dims)[:-1], axis=1), y, sm.Logit(y, sm.add_constant(X)).fit(disp=0)


def plain(X, model, settings):
    """Selection on the information at the model of all columns."""
    n, d = X.shape
    Z = np.column_stack([X, np.ones(n)])
    beta = np.r_[model.params[1:], model.params[0]]
    p = 1 / (1 + np.exp(-Z @ beta))
    H = (Z * (p * (1 - p))[:, None]).T @ Z

    def fit(chosen):
        kept = [*sorted(chosen), d]
        g = (H @ beta)[kept]
        return float(g @ np.linalg.solve(H[np.ix_(kept, kept)], g))

    chosen = list(range(d)) if settings.direction == "backward" else []
    trace = []
    while True:
        base = fit(chosen)
        if settings.direction != "forward" and chosen:
            losses = [base - fit(set(chosen) - {c}) for c in chosen]
            if min(losses) < chi2.isf(settings.remove, 1):
                trace.append(("leave", chosen.pop(int(np.argmin(losses)))))
                continue
        left = [c for c in range(d) if c not in chosen]
        if settings.direction == "backward" or not left:
            return trace
        gains = [fit([*chosen, c]) - base for c in left]
        if max(gains) < chi2.isf(settings.enter, 1):
            return trace
        chosen.append(left[int(np.argmax(gains))])
        trace.append(("enter", chosen[-1]))


def run(parts, model, settings, active=0):
    weights = np.split(model.params[1:], np.cumsum([p.shape[1] for p in parts])[:-1])
    fitted = [
        Fitted("logistic", w, float(model.params[0]) if i == active else None, 16.0) for i, w in enumerate(weights)
    ]
    return run_owners([lambda s, i=i: select_logistic(s, fitted[i], parts[i], settings) for i in range(len(parts))])


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
@pytest.mark.parametrize("dims", [[4, 3], [2, 3, 2]])
def test_the_same_columns_are_chosen_as_in_the_clear(direction, dims):
    parts, _, model = table(1200, dims, 3)
    settings = Settings(direction)
    done = run(parts, model, settings, active=1)
    trace = plain(np.hstack(parts), model, settings)
    assert traced(done, dims) == trace
    if direction == "backward":
        assert trace[0] == ("leave", int(np.argmax(model.pvalues[1:])))


def test_rare_labels_and_other_units_change_nothing():
    parts, _, model = table(3000, [3, 3], 5)
    settings = Settings("forward")
    X = np.hstack(parts)
    z = X @ model.params[1:] - 4
    y = (np.random.default_rng(1).random(3000) < 1 / (1 + np.exp(-z))).astype(float)
    assert y.mean() < 0.05
    rare = sm.Logit(y, sm.add_constant(X * 3 + 1)).fit(disp=0)
    moved = [p * 3 + 1 for p in parts]
    done = run(moved, rare, settings)
    assert traced(done, [3, 3]) == plain(X * 3 + 1, rare, settings)


def test_only_a_logistic_model_of_the_inputs_is_taken():
    parts, _, model = table(300, [2, 2], 6)
    wrong = Fitted("poisson", model.params[1:3], 0.0, 16.0)
    with pytest.raises(LocalProtocolError, match="logistic model of its inputs"):
        run_owners([lambda s: select_logistic(s, wrong, parts[0], Settings())] * 2)
    assert (
        run(parts, model, Settings()).results[NAMES[0]].counts == run(parts, model, Settings()).results[NAMES[1]].counts
    )
