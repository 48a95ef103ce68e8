"""Training on shares against scikit-learn, what the messages look like, and what bad input gets."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from mpc.errors import LocalProtocolError, RemoteProtocolError
from tests.vertical.helpers import NAMES, blocks, run_owners
from vertical.families import Rows
from vertical.glm import Fitted, Settings, scores, train
from vertical.whitening import INPUT_BITS, whiten


def fit_all(parts, y, settings, active=0, **options):
    def owner(i):
        return lambda session: train(session, parts[i], y if i == active else None, settings)

    return run_owners([owner(i) for i in range(len(parts))], **options)


def passes(count, **more):
    return Settings(passes=count, inference=False, ridge=1.0, **more)


@pytest.mark.parametrize(("dims", "active", "ridge"), [([4, 3], 0, 1.0), ([2, 5], 1, 30.0), ([3, 2, 4], 2, 1.0)])
def test_the_coefficients_are_those_of_scikit_learn(dims, active, ridge):
    parts, y = blocks(3000, dims, seed=5)
    run = fit_all(parts, y, Settings(ridge=ridge, passes=60, inference=False), active)
    fitted = [run.results[name] for name in NAMES[: len(dims)]]
    reference = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000).fit(np.hstack(parts), y)
    assert np.abs(np.concatenate([f.weights for f in fitted]) - reference.coef_[0]).max() < 3e-3
    assert fitted[active].intercept == pytest.approx(reference.intercept_[0], abs=3e-3)
    assert [f.intercept is None for f in fitted] == [i != active for i in range(len(dims))]
    assert all(f.inference is None and f.settled for f in fitted)


def test_collinear_columns_of_one_owner_share_their_weight():
    parts, y = blocks(2000, [3, 3], seed=8)
    parts[0][:, 2] = parts[0][:, 1]
    run = fit_all(parts, y, passes(80))
    weights = np.concatenate([run.results[n].weights for n in NAMES[:2]])
    reference = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(np.hstack(parts), y)
    assert np.abs(weights - reference.coef_[0]).max() < 5e-3


def test_the_same_column_at_two_owners_gives_the_right_scores():
    """How the weight splits between the two is all but undetermined; what they add up to is not."""
    parts, y = blocks(2000, [3, 3], seed=8)
    parts[1][:, 0] = parts[0][:, 0]
    run = fit_all(parts, y, passes(80))
    weights = np.concatenate([run.results[n].weights for n in NAMES[:2]])
    reference = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(np.hstack(parts), y)
    assert np.abs(np.hstack(parts) @ (weights - reference.coef_[0])).max() < 0.02


@pytest.mark.parametrize("inference", [False, True])
def test_large_scores_widen_the_range_instead_of_going_wrong(inference):
    parts, _ = blocks(2000, [2, 2], seed=3)
    z = 2 * parts[0][:, 0] + 2 * parts[1][:, 0]
    y = (np.random.default_rng(0).random(2000) < 1 / (1 + np.exp(-z))).astype(float)
    settings = Settings(ridge=1.0, passes=80, period=16, harmonics=8, inference=inference)
    run = fit_all(parts, y, settings)
    fitted = [run.results[n] for n in NAMES[:2]]
    assert fitted[0].limit == fitted[1].limit > 4
    for part, model in zip(parts, fitted, strict=True):
        assert np.abs(model.part(part)).max() <= model.limit / 2
    reference = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(np.hstack(parts), y)
    weights = np.concatenate([f.weights for f in fitted])
    assert np.abs(weights - reference.coef_[0]).max() < 0.01


def test_offsets_and_case_weights_are_those_of_scikit_learn():
    """A row of weight 2 is two rows; an offset is an input whose coefficient is known to be 1."""
    parts, y = blocks(1500, [3, 2], seed=6)
    rng = np.random.default_rng(1)
    times, offset = rng.integers(0, 4, 1500).astype(float), rng.normal(0, 0.5, 1500)
    rows = Rows(y, offset, times)
    run = fit_all(parts, rows, Settings(passes=20, weighted=True, exposed=True))
    X = np.column_stack([*parts, np.ones(1500)])
    w = np.zeros(6)
    for _ in range(30):
        p = 1 / (1 + np.exp(-(X @ w + offset)))
        H = X.T @ (X * (times * p * (1 - p))[:, None])
        w -= np.linalg.solve(H, X.T @ (times * (p - y)))
    errors = np.sqrt(np.diag(np.linalg.inv(H)))
    fitted = [run[n] for n in NAMES[:2]]
    assert np.abs((np.concatenate([f.weights for f in fitted]) - w[:-1]) / errors[:-1]).max() < 0.02
    assert fitted[0].inference.intercept_error == pytest.approx(errors[-1], rel=0.01)
    assert np.concatenate([f.inference.errors for f in fitted]) == pytest.approx(errors[:-1], rel=0.01)


def test_scores_are_shares_of_the_linear_predictor():
    parts, _ = blocks(200, [3, 2], seed=2)
    models = [Fitted("logistic", np.ones(3), 0.5, 16.0), Fitted("logistic", np.full(2, -0.5), None, 16.0)]
    run = run_owners([lambda s, i=i: scores(s, models[i], parts[i]) for i in range(2)])
    total = (run["lender"].words + run["platform"].words).view(np.int64) / 2.0 ** run["lender"].frac_bits
    assert np.abs(total - (parts[0].sum(1) + 0.5 - 0.5 * parts[1].sum(1))).max() < 1e-6
    assert not [m for m in run.transcript if m.tag.startswith("glm")]


def test_a_model_is_the_same_after_it_was_kept():
    parts, y = blocks(400, [3, 2], seed=2)
    run = fit_all(parts, y, Settings(passes=10))
    for name in NAMES[:2]:
        document = run[name].document()
        again = Fitted.from_document(document)
        assert again.document() == document
        assert (again.weights == run[name].weights).all()
    for damage in (
        {"limit": "-1"},
        {"weights": {}},
        {"family": 3},
        {"settled": 1},
        {"inference": {"errors": document["weights"]}},
    ):
        with pytest.raises(LocalProtocolError, match="cannot be read"):
            Fitted.from_document({**document, **damage})


def test_bytes_per_pass_do_not_depend_on_the_number_of_columns():
    def sent(dims, count):
        parts, y = blocks(400, dims, seed=1)
        run = fit_all(parts, y, passes(count))
        return run.bytes_sent("lender", "platform"), run.bytes_sent("dealer")

    few = np.subtract(sent([2, 2], 4), sent([2, 2], 2)) / 2
    many = np.subtract(sent([20, 20], 4), sent([20, 20], 2)) / 2
    extra_columns = 36
    assert (many - few <= [8 * 4 * extra_columns, 8 * 9 * extra_columns]).all()  # vectors of d words, no n x d
    assert few[0] <= 10 * 400 + 8 * 5 * 5 + 400


@pytest.mark.parametrize(("rate", "count", "good"), [(0.4, 40, True), (0.4, 4, False), (0.01, 40, False)])
def test_a_fit_says_whether_it_has_converged(rate, count, good):
    """Rare labels make short steps, which must not be taken for the end."""
    rng = np.random.default_rng(6)
    parts = [rng.normal(size=(3000, 2)) for _ in range(2)]
    z = parts[0][:, 0] - parts[1][:, 0] + np.log(rate / (1 - rate))
    y = (rng.random(3000) < 1 / (1 + np.exp(-z))).astype(float)
    run = fit_all(parts, y, Settings(passes=count, inference=False))
    for name in NAMES[:2]:
        assert run[name].settled is good
        assert Fitted.from_document(run[name].document()).settled is good


def test_rounding_does_not_shift_a_column_of_two_values():
    column = np.where(np.random.default_rng(1).random(20_000) < 0.3, 1.5, -0.6)[:, None]
    block, again = (whiten(column, 0.0, 0.25, intercept=True) for _ in range(2))
    assert (block.inputs == again.inputs).all()
    assert len(np.unique(block.inputs[:, 1])) == 1
    assert block.inputs[0, 1] == block.constant * 2**INPUT_BITS
    off = block.inputs[:, 0] - column[:, 0] * block.basis[0, 0] * 2**INPUT_BITS
    assert np.abs(off).max() < 1
    for value in (1.5, -0.6):
        assert abs(off[column[:, 0] == value].mean()) < 0.03


@pytest.mark.parametrize("family", ["logistic", "poisson"])
def test_case_weights_far_from_one_are_refused(family):
    parts, y = blocks(100, [2, 2], seed=1)
    for weights in (np.full(100, 0.1), np.full(100, 5.0)):
        with pytest.raises(LocalProtocolError, match="divide all of them by their mean"):
            fit_all(parts, Rows(y, weights=weights), Settings(family=family, weighted=True))


@pytest.mark.parametrize("inference", [False, True])
def test_rounds_and_sizes_depend_on_shapes_only(inference):
    shapes = []
    for seed in (1, 2):
        parts, y = blocks(300, [3, 2], seed=seed)
        settings = Settings(passes=12, inference=inference, hessians=1)
        shapes.append(fit_all(parts, y, settings).shape())
    assert shapes[0] == shapes[1]


def test_no_message_helps_to_guess_a_label():
    """A strong classifier on everything the passive owner receives about the rows finds nothing."""
    parts, y = blocks(1500, [3, 3], seed=4)
    run = fit_all(parts, y, Settings(passes=6, hessians=1))
    kinds = {8 * 1500: np.uint64, 4 * 1500: np.uint32, 2 * 1500: np.uint16}
    received = [
        np.frombuffer(m.body, dtype=kinds[m.size]).astype(float)
        for m in run.transcript
        if m.receiver == "platform"
        and m.size in kinds
        and m.tag.startswith(("matrix/vector", "fourier", "gram", "truncation"))
    ]
    assert len(received) >= 16
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


@pytest.mark.parametrize(
    ("rows", "settings"), [(99, Settings()), (100, Settings(ridge=0.5)), (100, Settings(period=32))]
)
def test_owners_with_other_rows_or_settings_are_refused(rows, settings):
    parts, y = blocks(100, [2, 2], seed=1)
    with pytest.raises(RemoteProtocolError, match="states other rows or settings"):
        run_owners([lambda s: train(s, parts[0], y, Settings()), lambda s: train(s, parts[1][:rows], None, settings)])


@pytest.mark.parametrize(
    ("label", "settings", "why"),
    [
        (np.full(100, 0.5), Settings(), "both 0 and 1"),
        (np.ones(100), Settings(), "both 0 and 1"),
        (None, Settings(weighted=True), "with or without weights"),
        (None, Settings(family="probit"), "no family 'probit'"),
    ],
)
def test_labels_and_settings_that_fit_no_family_are_refused(label, settings, why):
    parts, y = blocks(100, [2, 2], seed=1)
    with pytest.raises(LocalProtocolError, match=why):
        fit_all(parts, y if label is None else label, settings)
