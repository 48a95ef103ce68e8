"""Linear regression from one secret Gram matrix against statsmodels, and Student's t against SciPy."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from mpc.dealer import Correlations, run_dealer
from mpc.engine import bind
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.session import Session
from mpc.verified.source import Verified
from tests.harness import run_parties
from tests.vertical.helpers import NAMES, blocks, run_owners
from tests.vertical.test_families_log import encoded
from vertical.linear import Fitted, Settings, scores, train
from vertical.student import interval, two_sided


def fit_all(parts, y, active=0, ridge=0.0, **options):
    def owner(i):
        return lambda session: train(session, parts[i], y if i == active else None, Settings(ridge))

    return run_owners([owner(i) for i in range(len(parts))], **options)


def label(parts, seed, noise=1.0):
    X = np.hstack(parts)
    rng = np.random.default_rng(seed)
    return 1234 + 50 * (X @ rng.normal(size=X.shape[1]) + noise * rng.normal(size=len(X)))


def compare(run, parts, y, active):
    fitted = [run.results[name] for name in NAMES[: len(parts)]]
    model = sm.OLS(y, sm.add_constant(np.hstack(parts))).fit()
    eta = sum(f.part(part) for f, part in zip(fitted, parts, strict=True))
    assert ((y - eta) ** 2).sum() == pytest.approx(model.ssr, rel=1e-5)
    weights = np.concatenate([f.weights for f in fitted])
    assert np.abs((weights - model.params[1:]) / model.bse[1:]).max() < 0.02
    assert np.abs(np.concatenate([f.inference.errors for f in fitted]) / model.bse[1:] - 1).max() < 1e-3
    assert all(f.variance == pytest.approx(model.mse_resid, rel=1e-3) for f in fitted)
    assert fitted[active].intercept == pytest.approx(model.params[0], abs=0.02 * model.bse[0])
    assert fitted[active].r2 == pytest.approx(model.rsquared, abs=1e-4)
    return fitted, model


@pytest.mark.parametrize(
    ("n", "dims", "active", "noise"), [(2000, [4, 3], 1, 1.0), (60, [2, 2, 2], 0, 0.2), (900, [9, 1], 0, 9.0)]
)
def test_everything_is_as_in_statsmodels(n, dims, active, noise):
    parts, _ = blocks(n, dims, seed=3)
    y = label(parts, 1, noise)
    fitted, model = compare(fit_all(parts, y, active), parts, y, active)
    start = 1 + sum(dims[:active])
    for i, row in enumerate(fitted[active].table([f"x{i}" for i in range(dims[active])])):
        at = 0 if i == 0 else start + i - 1
        assert row.p == pytest.approx(model.pvalues[at], abs=1e-3)
        assert (row.low, row.high) == pytest.approx(tuple(model.conf_int()[at]), abs=0.03 * model.bse[at])


def test_real_demand():
    parts, y, active = encoded("bike_sharing", 3000)
    compare(fit_all(parts, y, active), parts, y, active)


def test_a_ridge_is_that_of_the_closed_form():
    parts, _ = blocks(500, [3, 4], seed=2)
    y, X = label(parts, 0), np.hstack(parts)
    run = fit_all(parts, y, ridge=100.0)
    beta = np.linalg.solve(X.T @ X + 100 * np.eye(7), X.T @ (y - y.mean()))
    weights = np.concatenate([run.results[name].weights for name in NAMES[:2]])
    assert np.abs(weights - beta).max() < 0.01


def test_columns_that_depend_on_one_another_are_named():
    parts, _ = blocks(500, [3, 3], seed=2)
    y = label(parts, 0)
    parts[0][:, 2] = parts[0][:, 0]
    run = fit_all(parts, y)
    fitted = [run.results[name] for name in NAMES[:2]]
    assert [bool(note) for note in fitted[0].inference.notes] == [True, False, True]
    assert not any(fitted[1].inference.notes)
    parts[0][:, 2] = parts[1][:, 1]
    run = fit_all(parts, y)
    fitted = [run.results[name] for name in NAMES[:2]]
    assert [bool(note) for f in fitted for note in f.inference.notes] == [False, False, True, False, True, False]
    table = fitted[0].table(["a", "b", "c"])
    assert [row.p is None for row in table] == [False, False, False, True]


def test_what_is_sent_depends_on_the_sizes_only_and_grows_with_the_rows_once():
    def run(n, seed):
        parts, _ = blocks(n, [3, 2], seed)
        return fit_all(parts, label(parts, seed))

    assert run(200, 1).shape() == run(200, 2).shape()
    more = run(300, 1).bytes_sent("lender") - run(200, 1).bytes_sent("lender")
    assert more == 8 * 100 * (3 + 1 + 1)


def test_a_stored_part_is_read_back_and_nothing_else_is():
    parts, _ = blocks(200, [2, 2], seed=1)
    run = fit_all(parts, label(parts, 1))
    for name in NAMES[:2]:
        document = run.results[name].document()
        assert Fitted.from_document(document).document() == document
        for key in document:
            with pytest.raises(LocalProtocolError):
                Fitted.from_document({k: v for k, v in document.items() if k != key})


def test_scores_are_shares_of_the_predictions():
    parts, _ = blocks(200, [2, 2], seed=1)
    y = label(parts, 1)
    run = fit_all(parts, y)
    fitted = [run.results[name] for name in NAMES[:2]]
    scored = run_owners([lambda s, i=i: scores(s, fitted[i], parts[i]) for i in range(2)])
    total = sum(scored.results[name].words for name in NAMES[:2]).view(np.int64) / 2.0**24
    assert np.abs(total - sum(f.part(p) for f, p in zip(fitted, parts, strict=True))).max() < 1e-6
    assert np.abs(total - y).max() < scored.results["lender"].bound


@pytest.mark.parametrize("wrong", [np.full(50, 3.0), np.append(np.ones(49), np.inf), np.append(np.zeros(49), np.nan)])
def test_labels_that_tell_nothing_are_refused(wrong):
    parts, _ = blocks(50, [2, 2], seed=1)
    with pytest.raises(LocalProtocolError, match="label"):
        fit_all(parts, wrong)


def test_more_coefficients_than_rows_are_refused():
    parts, _ = blocks(8, [4, 4], seed=1)
    with pytest.raises(LocalProtocolError, match="needs more"):
        fit_all(parts, np.arange(8.0))


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


@pytest.mark.parametrize("freedom", [1, 3, 17, 400, 1e6])
def test_student_is_that_of_scipy(freedom):
    for t in (0.0, 0.3, 1.0, 2.5, -4.0, 30.0):
        assert two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-8)
    for level in (0.5, 0.9, 0.95, 0.99):
        assert interval(level, freedom) == pytest.approx(stats.t.ppf(0.5 + level / 2, freedom), rel=1e-8)


def test_without_a_dealer_that_makes_gram_matrices_the_fit_is_the_same():
    parts, _ = blocks(60, [2, 2], seed=3)
    y = label(parts, 1)

    def party(me):
        def body(channel):
            source = Verified(Correlations(channel, "dealer", me, 2), channel, NAMES[:2], me, "dealer")
            session = Session(channel, NAMES[:2], me, source)
            with bind(session):
                fitted = train(session, parts[me], y if me == 0 else None, Settings())
            source.close()
            return fitted

        return body

    parties = {name: party(i) for i, name in enumerate(NAMES[:2])}
    run = run_parties({**parties, "dealer": lambda channel: run_dealer(channel, NAMES[:2])})
    compare(run, parts, y, 0)
