"""Standard errors on shares against statsmodels, and what is said instead of a wrong number."""

import math

import numpy as np
import pytest
import statsmodels.api as sm

from benchmarks.datasets import load
from mpc.errors import LocalProtocolError
from tests.vertical.helpers import NAMES, blocks
from tests.vertical.test_glm import fit_all
from vertical.encoding import fit
from vertical.glm import Settings
from vertical.inference import row


def joined(run, owners, active):
    """Coefficients and standard errors of all owners, the intercept's last."""
    fitted = [run[n] for n in NAMES[:owners]]
    coefficients = np.concatenate([*(f.weights for f in fitted), [fitted[active].intercept]])
    errors = np.concatenate([*(f.inference.errors for f in fitted), [fitted[active].inference.intercept_error]])
    return coefficients, errors


def by_statsmodels(parts, y):
    design = np.column_stack([*parts, np.ones(len(y))])
    return sm.GLM(y, design, family=sm.families.Binomial()).fit(maxiter=100, tol=1e-12)


def encoded(name, n, seed):
    data = load(name)
    data = data.take(np.sort(np.random.default_rng(seed).permutation(len(data.y))[:n]))
    parts = []
    for columns, features in zip(data.columns, data.features, strict=True):
        encoder = fit(columns, features, np.ones(n, dtype=bool), winsorise_sd=8, rare_category=100)
        parts.append(encoder.transform(columns))
    return parts, data.y, data.active


@pytest.mark.parametrize("name", ["credit_default_taiwan", "hillstrom"])
def test_real_data_gives_the_decisions_of_statsmodels(name):
    parts, y, active = encoded(name, 4000, seed=1)
    run = fit_all(parts, y, Settings(passes=15), active)
    coefficients, errors = joined(run, 2, active)
    reference = by_statsmodels(parts, y)
    assert np.isfinite(errors).all()
    assert np.abs((coefficients - reference.params) / reference.bse).max() < 0.02
    assert np.abs(errors / reference.bse - 1).max() < 0.01
    p = np.array([math.erfc(abs(z) / math.sqrt(2)) for z in coefficients / errors])
    assert ((p < 0.05) == (reference.pvalues < 0.05)).all()
    assert np.abs(p - reference.pvalues).max() < 0.01


@pytest.mark.parametrize(("dims", "active"), [([3, 4], 1), ([3, 2, 4], 2)])
def test_errors_are_right_for_any_number_of_owners_and_correlated_columns(dims, active):
    parts, y = blocks(2500, dims, seed=9)
    parts[0][:, 0] = parts[1][:, 0] + 0.1 * parts[0][:, 0]  # a variance inflation of about 100 between owners
    parts[0][:, 0] /= parts[0][:, 0].std()
    run = fit_all(parts, y, Settings(passes=10), active)
    coefficients, errors = joined(run, len(dims), active)
    reference = by_statsmodels(parts, y)
    assert np.abs((coefficients - reference.params) / reference.bse).max() < 0.02
    assert np.abs(errors / reference.bse - 1).max() < 0.01
    assert all(run[n].inference.settled for n in NAMES[: len(dims)])


def test_a_rare_label_is_no_obstacle():
    parts, _ = blocks(6000, [3, 2], seed=12)
    z = np.hstack(parts) @ np.array([0.8, -0.5, 0.0, 0.6, 0.1]) - 5
    y = (np.random.default_rng(3).random(6000) < 1 / (1 + np.exp(-z))).astype(float)
    assert y.mean() < 0.03
    coefficients, errors = joined(fit_all(parts, y, Settings(passes=20)), 2, 0)
    reference = by_statsmodels(parts, y)
    assert np.abs((coefficients - reference.params) / reference.bse).max() < 0.02
    assert np.abs(errors / reference.bse - 1).max() < 0.01


def test_a_category_that_separates_the_label_is_reported_and_the_others_are_right():
    parts, y = blocks(1500, [3, 2], seed=7)
    seldom = np.random.default_rng(2).permutation(1500)[:40]
    parts[1][:, 0] = 0
    parts[1][seldom, 0], y[seldom] = 1, 0
    parts[1][:, 0] = (parts[1][:, 0] - parts[1][:, 0].mean()) / parts[1][:, 0].std()
    run = fit_all(parts, y, Settings(passes=15))
    assert run["platform"].inference.notes[0].startswith("not estimable")
    assert math.isnan(run["platform"].inference.errors[0])
    assert run["platform"].inference.notes[1] == "" == "".join(run["lender"].inference.notes)
    others = [parts[0], parts[1][:, 1:]]
    keep = np.setdiff1d(np.arange(1500), seldom)
    reference = by_statsmodels([part[keep] for part in others], y[keep])  # what is left when those rows fit perfectly
    coefficients, errors = joined(run, 2, 0)
    assert np.abs((coefficients[[0, 1, 2, 4]] - reference.params[:4]) / reference.bse[:4]).max() < 0.05
    assert np.abs(errors[[0, 1, 2, 4]] / reference.bse[:4] - 1).max() < 0.01


def test_the_intercept_has_no_error_beside_an_input_that_has_none():
    """It is that of somebody at the mean of that input; statsmodels gives it an error that says nothing."""
    parts, y = blocks(1500, [3, 2], seed=7)
    seldom = np.random.default_rng(2).permutation(1500)[:40]
    parts[0][:, 0] = 0
    parts[0][seldom, 0], y[seldom] = 1, 0
    parts[0][:, 0] = (parts[0][:, 0] - parts[0][:, 0].mean()) / parts[0][:, 0].std()
    found = fit_all(parts, y, Settings(passes=15))["lender"].inference
    assert found.notes[0].startswith("not estimable")
    assert found.intercept_note.startswith("not estimable")
    assert math.isnan(found.intercept_error)


def test_a_label_that_is_separated_altogether_is_an_error():
    parts, _ = blocks(300, [2, 2], seed=7)
    y = (parts[0][:, 0] > 0).astype(float)
    with pytest.raises(LocalProtocolError, match="a column separates the label"):
        fit_all(parts, y, Settings(passes=10, period=16))


def test_columns_that_depend_on_one_another_are_reported():
    parts, y = blocks(1500, [3, 3], seed=8)
    parts[0][:, 2] = 0.6 * parts[0][:, 0] + 0.8 * parts[0][:, 1]  # within one owner
    run = fit_all(parts, y, Settings(passes=15))
    assert [note[-29:] for note in run["lender"].inference.notes] == ["n of others of the same owner"] * 3
    assert run["platform"].inference.notes == ("",) * 3
    reference = by_statsmodels([parts[0][:, :2], parts[1]], y)
    errors = run["platform"].inference.errors
    assert np.abs(errors / reference.bse[2:5] - 1).max() < 0.01
    parts[0][:, 2] = parts[1][:, 2]  # across owners
    run = fit_all(parts, y, Settings(passes=15))
    assert run["lender"].inference.notes[2].startswith("not estimable")
    assert run["platform"].inference.notes[2].startswith("not estimable")
    assert not run["platform"].inference.notes[0]


def test_a_table_has_the_walds_tests_and_other_units():
    parts, y = blocks(1500, [2, 2], seed=11)
    run = fit_all(parts, y, Settings(passes=15))
    lines = run["lender"].table(["income", "age"])
    reference = by_statsmodels(parts, y)
    assert [line.name for line in lines] == ["intercept", "income", "age"]
    assert [line.p for line in lines[1:]] == pytest.approx(reference.pvalues[:2], abs=0.003)
    low, high = reference.conf_int()[0]
    assert (lines[1].low, lines[1].high) == pytest.approx((low, high), abs=0.003)
    per_unit = lines[1].scaled(1 / 250.0)
    assert per_unit.coefficient == pytest.approx(lines[1].coefficient / 250)
    assert (per_unit.z, per_unit.p) == (lines[1].z, lines[1].p)
    assert len(run["platform"].table(["a", "b"])) == 2
    silent = row("x", 3.0, float("nan"), "not estimable: why")
    assert (silent.p, silent.low, silent.note) == (None, None, "not estimable: why")


def test_a_hessian_costs_what_it_says_for_each_row():
    ends = (("lender", "platform"), ("platform", "lender"), ("dealer", None))

    def sent(n):
        parts, y = blocks(n, [3, 3], seed=1)
        runs = [fit_all(parts, y, Settings(passes=4, hessians=1, inference=inference)) for inference in (True, False)]
        return np.subtract(*[[run.bytes_sent(*end) for end in ends] for run in runs])

    rows, columns = 640, 7
    assert ((sent(2 * rows) - sent(rows)) / rows).tolist() == [40, 40 + 8 * 3, 32 * 24 + 32 + 8 * columns]


def test_only_the_owner_is_shown_its_variances():
    """What is opened to one owner goes to that owner; everybody else gets nothing of its size and tag."""
    parts, y = blocks(300, [3, 2], seed=1)
    run = fit_all(parts, y, Settings(passes=5, hessians=1))
    opened = [
        (m.sender, m.receiver, m.size)
        for m in run.transcript
        if m.tag.startswith("inference/") or m.tag == "glm/weights"
    ]
    lender, platform = 4, 2  # coefficients: variances, two flags each, and the whitened weights
    expected = [("platform", "lender", 8 * lender), ("platform", "lender", 16 * lender)]
    expected += [("lender", "platform", 8 * platform), ("lender", "platform", 16 * platform)]
    expected += [("platform", "lender", 8 * lender), ("lender", "platform", 8 * platform)]
    assert sorted(opened) == sorted(expected)


def test_a_category_at_both_owners_that_is_the_label_gives_the_right_scores_and_no_errors():
    y = (np.arange(240) % 3 == 0).astype(float)
    both = ((y - y.mean()) / y.std())[:, None]
    parts = [np.column_stack([both, blocks(240, [1, 1], seed=1)[0][0]]), both.copy()]
    run = fit_all(parts, y, Settings(passes=3))
    total = run["lender"].part(parts[0]) + run["platform"].part(parts[1])
    assert total[y == 1].min() > 5 > -5 > total[y == 0].max()
    assert all(run[name].inference.notes[0].startswith("not estimable") for name in NAMES[:2])
