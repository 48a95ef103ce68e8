"""Training on shares against scikit-learn, what the messages look like, and what bad input gets."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from mpc.errors import RemoteProtocolError
from tests.vertical.helpers import NAMES, blocks, run_owners
from vertical.logistic import Settings, train


def fit_all(parts, y, settings, active=0, **options):
    def owner(i):
        return lambda session: train(session, parts[i], y if i == active else None, settings)

    return run_owners([owner(i) for i in range(len(parts))], **options)


@pytest.mark.parametrize(("dims", "active", "ridge"), [([4, 3], 0, 1.0), ([2, 5], 1, 30.0), ([3, 2, 4], 2, 1.0)])
def test_the_coefficients_are_those_of_scikit_learn(dims, active, ridge):
    parts, y = blocks(3000, dims, seed=5)
    run = fit_all(parts, y, Settings(ridge=ridge, passes=60), active)
    fitted = [run.results[name] for name in NAMES[: len(dims)]]
    reference = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000).fit(np.hstack(parts), y)
    assert np.abs(np.concatenate([f.weights for f in fitted]) - reference.coef_[0]).max() < 5e-3
    assert fitted[active].intercept == pytest.approx(reference.intercept_[0], abs=5e-3)
    assert [f.intercept is None for f in fitted] == [i != active for i in range(len(dims))]


def test_collinear_columns_of_one_owner_share_their_weight():
    parts, y = blocks(2000, [3, 3], seed=8)
    parts[0][:, 2] = parts[0][:, 1]
    run = fit_all(parts, y, Settings(passes=80))
    weights = np.concatenate([run.results[n].weights for n in NAMES[:2]])
    reference = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(np.hstack(parts), y)
    assert np.abs(weights - reference.coef_[0]).max() < 5e-3


def test_the_same_column_at_two_owners_gives_the_right_scores():
    """How the weight splits between the two is all but undetermined; what they add up to is not."""
    parts, y = blocks(2000, [3, 3], seed=8)
    parts[1][:, 0] = parts[0][:, 0]
    run = fit_all(parts, y, Settings(passes=80))
    weights = np.concatenate([run.results[n].weights for n in NAMES[:2]])
    reference = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(np.hstack(parts), y)
    assert np.abs(np.hstack(parts) @ (weights - reference.coef_[0])).max() < 0.02


def test_large_scores_double_the_period_instead_of_going_wrong():
    parts, _ = blocks(2000, [2, 2], seed=3)
    z = 2 * parts[0][:, 0] + 2 * parts[1][:, 0]
    y = (np.random.default_rng(0).random(2000) < 1 / (1 + np.exp(-z))).astype(float)
    run = fit_all(parts, y, Settings(passes=80, period=16, harmonics=8))
    fitted = [run.results[n] for n in NAMES[:2]]
    assert fitted[0].period == fitted[1].period > 16
    for part, model in zip(parts, fitted):
        assert np.abs(part @ model.weights + (model.intercept or 0)).max() <= model.period / 8
    reference = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(np.hstack(parts), y)
    weights = np.concatenate([f.weights for f in fitted])
    assert np.abs(weights - reference.coef_[0]).max() < 0.01


def test_bytes_per_pass_do_not_depend_on_the_number_of_columns():
    def sent(dims, passes):
        parts, y = blocks(400, dims, seed=1)
        run = fit_all(parts, y, Settings(passes=passes))
        return run.bytes_sent("lender", "platform"), run.bytes_sent("dealer")

    few = np.subtract(sent([2, 2], 4), sent([2, 2], 2)) / 2
    many = np.subtract(sent([20, 20], 4), sent([20, 20], 2)) / 2
    extra_columns = 36
    assert (many - few <= [8 * 4 * extra_columns, 8 * 9 * extra_columns]).all()  # vectors of d words, no n x d
    assert few[0] <= 10 * 400 + 8 * 5 * 5 + 400


def test_rounds_and_sizes_depend_on_shapes_only():
    shapes = []
    for seed in (1, 2):
        parts, y = blocks(300, [3, 2], seed=seed)
        shapes.append(fit_all(parts, y, Settings(passes=3)).shape())
    assert shapes[0] == shapes[1]


def test_no_message_helps_to_guess_a_label():
    """A strong classifier on everything the passive owner receives about the rows finds nothing."""
    parts, y = blocks(1500, [3, 3], seed=4)
    run = fit_all(parts, y, Settings(passes=8))
    received = [
        np.frombuffer(m.body, dtype=np.uint64 if m.size == 8 * 1500 else np.uint16).astype(float)
        for m in run.transcript
        if m.receiver == "platform"
        and m.size in (8 * 1500, 2 * 1500)
        and m.tag.startswith(("matrix/vector", "fourier"))
    ]
    assert len(received) == 16
    guess = cross_val_predict(
        HistGradientBoostingClassifier(max_iter=60, random_state=0),
        np.column_stack(received),
        y,
        cv=4,
        method="predict_proba",
    )[:, 1]
    deviation = 1 / np.sqrt(12 * min(y.sum(), (1 - y).sum()))  # of the AUC of a random score
    assert abs(roc_auc_score(y, guess) - 0.5) < 5 * deviation


def test_two_labels_or_none_are_refused():
    parts, y = blocks(100, [2, 2], seed=1)
    with pytest.raises(RemoteProtocolError, match="exactly one owner must have the label"):
        run_owners([lambda s: train(s, parts[0], y, Settings()), lambda s: train(s, parts[1], y, Settings())])


def test_owners_with_other_rows_are_refused():
    parts, y = blocks(100, [2, 2], seed=1)
    with pytest.raises(RemoteProtocolError, match="states other rows"):
        run_owners([lambda s: train(s, parts[0], y, Settings()), lambda s: train(s, parts[1][:99], None, Settings())])
