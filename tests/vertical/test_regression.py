"""Which trainer a model gets, and that its stored parts are read back by the right one."""

import numpy as np
import pytest

from mpc.errors import LocalProtocolError
from tests.vertical.helpers import NAMES, blocks, run_owners
from vertical import glm, linear, multinomial
from vertical.families import Rows
from vertical.regression import Settings, from_document, scores, train


def fit(parts, y, settings, active=0):
    def owner(i):
        return lambda session: train(session, parts[i], y if i == active else None, settings)

    return run_owners([owner(i) for i in range(len(parts))])


@pytest.mark.parametrize(
    ("settings", "made"),
    [
        (Settings(passes=5, inference=False), glm.Fitted),
        (Settings("poisson", passes=5, inference=False), glm.Fitted),
        (Settings("tweedie", power=1.3, passes=5, inference=False), glm.Fitted),
        (Settings("linear", ridge=1.0), linear.Fitted),
        (Settings("multinomial", ridge=1.0, passes=5), multinomial.Fitted),
        (Settings("linear", lasso=20.0, ridge=10.0), glm.Fitted),
    ],
)
def test_every_family_is_trained_stored_and_scored(settings, made):
    parts, y = blocks(300, [2, 2], seed=1)
    run = fit(parts, y, settings)
    fitted = [run.results[name] for name in NAMES[:2]]
    assert all(type(f) is made for f in fitted)
    again = [from_document(f.document()) for f in fitted]
    assert [f.document() for f in again] == [f.document() for f in fitted]
    scored = run_owners([lambda s, i=i: scores(s, again[i], parts[i]) for i in range(2)])
    total = sum(scored.results[name].words for name in NAMES[:2]).view(np.int64) / 2.0**24
    assert np.abs(total - sum(f.part(p) for f, p in zip(fitted, parts, strict=True))).max() < 1e-6


def test_a_lasso_on_half_the_deviance_leaves_out_what_is_worth_less():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 6))
    y = X @ [2.0, 0, 0, -1, 0, 0] + 0.1 * rng.normal(size=400)
    run = fit([X[:, :3], X[:, 3:]], y, Settings("linear", lasso=200.0))
    weights = np.concatenate([run.results[name].weights for name in NAMES[:2]])
    assert (weights != 0).tolist() == [True, False, False, True, False, False]
    assert weights[0] == pytest.approx(1.5, abs=0.1)


def test_what_a_family_does_not_have_is_refused():
    parts, y = blocks(50, [2, 2], seed=1)
    with pytest.raises(LocalProtocolError, match="no lasso"):
        fit(parts, y, Settings("multinomial", lasso=1.0))
    for family in ("linear", "multinomial"):
        with pytest.raises(LocalProtocolError, match="no case weights"):
            fit(parts, Rows(y, weights=np.ones(50)), Settings(family))
    with pytest.raises(LocalProtocolError, match="no family"):
        fit(parts, y, Settings("normal"))
    model = multinomial.Fitted(np.zeros((2, 3)), None, 3)
    with pytest.raises(LocalProtocolError, match="no offsets"):
        run_owners([lambda s: scores(s, model, parts[0], np.zeros(50))] * 2)
