"""Poisson, Gamma and Tweedie: shares of residuals and weights against NumPy, whole models against statsmodels."""

import numpy as np
import pytest
import statsmodels.api as sm

from benchmarks.datasets import load
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.linear import MATRIX_BITS
from mpc.ring import decode, encode
from tests.vertical.helpers import NAMES, blocks, run_owners
from vertical import encoding, glm
from vertical.families import ETA_BITS, Rows
from vertical.families_log import Gamma, LogLink, Poisson, Tweedie
from vertical.newton import _check, _plan_check

LOG = sm.families.links.Log()
KINDS = {
    "poisson": sm.families.Poisson(),
    "gamma": sm.families.Gamma(LOG),
    "tweedie": sm.families.Tweedie(var_power=1.5, link=LOG),
}


def rows_of(kind, n, seed, *, weighted=False, exposed=False, spread=3.9):
    """Linear predictors, labels that vary much around their means, weights and offsets."""
    rng = np.random.default_rng(seed)
    eta = rng.uniform(-spread, spread, n)
    offset = rng.uniform(-1.5, 1.5, n) if exposed else None
    mu = np.exp(eta if offset is None else eta + offset)
    y = {"poisson": rng.poisson(mu), "gamma": mu * rng.gamma(2, 0.5, n), "tweedie": mu * rng.gamma(0.5, 2, n)}[kind]
    y = np.where(rng.random(n) < 0.4, 0.0, y) if kind == "tweedie" else y.astype(float)
    return eta, Rows(y, offset, rng.uniform(0, 3, n) if weighted else None)


@pytest.mark.parametrize("family", [Poisson, Gamma, Tweedie])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("exposed", [False, True])
def test_residuals_weights_and_dispersion_are_those_of_the_formulas(family, weighted, exposed):
    n = 300
    eta, rows = rows_of(family.name, n, 3, weighted=weighted, exposed=exposed)
    mask = np.random.default_rng(1).integers(0, 1 << 64, n, dtype=np.uint64)

    def owner(active):
        def body(session):
            known = rows if active else None
            made = family(weighted=weighted, exposed=exposed).agreed(session, known)
            share = encode(eta, ETA_BITS) - mask if active else mask
            plan = session.correlations.plan
            fine, coarse = (
                made.residual(session, plan(made.plan_residual(n, 2, fine=f)), share, known, fine=f)
                for f in (True, False)
            )
            weights = made.fisher(session, plan(made.plan_fisher(n, 2)), share, known)
            phi = made.dispersion(session, plan(made.plan_dispersion(n, 2)), share, known, 4)
            return made, (fine, coarse, weights), phi

        return body

    run = run_owners([owner(False), owner(True)])
    (made, a, phi0), (_, b, phi1) = (run.results[name] for name in NAMES[:2])
    fine, coarse, fisher = (decode(s + t, 26) for s, t in zip(a, b, strict=True))
    mu = np.exp(eta if rows.offset is None else eta + rows.offset)
    w = np.ones(n) if rows.weights is None else rows.weights
    p, y = made.power, rows.y / 2.0**made.scale
    residual = w * (mu ** (2 - p) - y * mu ** (1 - p))
    size = 1 + w * (mu ** (2 - p) + y * mu ** (1 - p))  # each power has a relative error, and a weight multiplies it
    rounded = 2.0**-14 * (mu ** (2 - p) + mu ** (1 - p))  # private factors have 14 fractional bits
    assert (np.abs(fine - residual) <= 1e-3 * size + rounded).all()
    assert (np.abs(coarse - residual) <= 0.02 * size + rounded).all()
    assert np.abs((fisher - w * mu ** (2 - p)) / (0.2 + mu)).max() < 0.02
    dispersion = 2.0**-made.scale if p == 1 else (w * (y - mu) ** 2 / mu**p).sum() / (n - 4)
    assert decode(phi0 + phi1, made.dispersion_bits)[0] == pytest.approx(dispersion, rel=1e-3)


def fit(parts, rows, active, **settings):
    chosen = glm.Settings(weighted=rows.weights is not None, exposed=rows.offset is not None, **settings)

    def owner(i):
        return lambda session: glm.train(session, parts[i], rows if i == active else None, chosen)

    return run_owners([owner(i) for i in range(len(parts))])


def compare(run, parts, rows, kind, active):
    """Deviance within 0.1 per cent, standard errors within 1 per cent of statsmodels'."""
    fitted = [run.results[name] for name in NAMES[: len(parts)]]
    X = sm.add_constant(np.hstack(parts))
    model = sm.GLM(rows.y, X, family=KINDS[kind], var_weights=rows.weights, offset=rows.offset).fit(tol=1e-10)
    eta = sum(f.part(part) for f, part in zip(fitted, parts, strict=True))
    mean = np.exp(eta if rows.offset is None else eta + rows.offset)
    weights = np.ones(len(mean)) if rows.weights is None else rows.weights
    assert KINDS[kind].deviance(rows.y, mean, var_weights=weights) == pytest.approx(model.deviance, rel=1e-3)
    errors = np.concatenate([f.inference.errors for f in fitted])
    assert np.abs(errors / model.bse[1:] - 1).max() < 0.01
    assert fitted[active].inference.intercept_error == pytest.approx(model.bse[0], rel=0.01)
    weights = np.concatenate([f.weights for f in fitted])
    assert np.abs((weights - model.params[1:]) / model.bse[1:]).max() < 0.5
    return fitted, model


def encoded(name, n, seed=0):
    data = load(name)
    data = data.take(np.random.default_rng(seed).permutation(len(data.y))[:n])
    everything = np.ones(n, dtype=bool)
    parts = [
        encoding.fit(c, f, everything, winsorise_sd=8, rare_category=20).transform(c)
        for c, f in zip(data.columns, data.features, strict=True)
    ]
    return parts, data.y, data.active


@pytest.mark.parametrize("name", ["bike_sharing", "randhie"])
def test_poisson_on_real_counts(name):
    parts, y, active = encoded(name, 2000)
    compare(fit(parts, Rows(y), active, family="poisson", passes=15), parts, Rows(y), "poisson", active)


@pytest.mark.parametrize("kind", ["gamma", "tweedie"])
def test_real_amounts_with_offsets_and_weights(kind):
    parts, y, active = encoded("randhie", 1500)
    rng = np.random.default_rng(2)
    y = 100 * np.maximum(y, 0.2) if kind == "gamma" else 100 * y
    rows = Rows(y, rng.uniform(-1, 1, len(y)), rng.uniform(0.2, 2, len(y)))
    compare(fit(parts, rows, active, family=kind, passes=15), parts, rows, kind, active)


def test_three_owners_and_a_ridge_that_does_not_depend_on_the_unit_of_the_label():
    parts, _ = blocks(1200, [3, 2, 3], seed=2)
    X = np.hstack(parts)
    rng = np.random.default_rng(0)
    y = rng.poisson(np.exp(0.2 * X @ rng.normal(size=8) + 4)).astype(float)
    rows, ridge = Rows(y), 500.0
    run = fit(parts, rows, 2, family="poisson", ridge=ridge, passes=15)
    beta = np.zeros(9)
    beta[0] = np.log(y.mean())
    design, penalty = sm.add_constant(X), np.diag([0.0, *[ridge] * 8])
    for _ in range(30):
        mu = np.exp(design @ beta)
        hessian = design.T @ (design * mu[:, None]) + penalty
        beta -= np.linalg.solve(hessian, design.T @ (mu - y) + penalty @ beta)
    fitted = [run.results[name] for name in NAMES]
    assert np.abs(np.concatenate([f.weights for f in fitted]) - beta[1:]).max() < 2e-3
    assert fitted[2].intercept == pytest.approx(beta[0], abs=2e-3)


@pytest.mark.parametrize(
    ("family", "rows", "why"),
    [
        (Poisson(), Rows(np.array([1.0, -1, 2])), "0 or more"),
        (Poisson(), Rows(np.zeros(3)), "0 or more"),
        (Gamma(), Rows(np.array([1.0, 0, 2])), "above 0"),
        (Poisson(), Rows(np.array([1.0, np.nan])), "finite"),
        (Poisson(), Rows(np.full(3, 1e6)), "between 2"),
        (Poisson(), Rows(np.array([2000.0] + [0.0] * 1999)), "times as large"),
        (Poisson(), Rows(np.ones(2), weights=np.ones(2)), "unlike these"),
        (Poisson(weighted=True), Rows(np.ones(2), weights=np.array([1.0, 9])), "at most 8"),
        (Poisson(weighted=True), Rows(np.ones(2), weights=np.array([1.0, -1])), "not negative"),
        (Poisson(exposed=True), Rows(np.ones(2), offset=np.array([0.0, 3])), "other units"),
    ],
)
def test_what_does_not_fit_is_refused(family, rows, why):
    with pytest.raises(LocalProtocolError, match=why):
        family.check(rows)


def test_a_power_outside_is_refused():
    with pytest.raises(LocalProtocolError, match="1 to 2"):
        LogLink(power=2.5)


def test_two_labels_or_none_are_refused():
    rows = Rows(np.ones(5))
    for known in ([rows, rows], [None, None]):
        with pytest.raises(RemoteProtocolError, match="exactly one owner must have the label"):
            run_owners([lambda s, k=k: Poisson().agreed(s, k) for k in known])


def test_what_is_sent_depends_on_the_sizes_only():
    parts, _ = blocks(200, [2, 2], seed=1)
    shapes = []
    for seed in (1, 2):
        y = np.random.default_rng(seed).poisson(3, 200).astype(float)
        shapes.append(fit(parts, Rows(y), 0, family="poisson", passes=3, inference=False).shape())
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("largest", "good"), [(0.6, True), (3.0, False), (30.0, False)])
def test_a_hessian_that_few_rows_make_too_large_is_refused(largest, good):
    A = np.diag([largest, 0.1, 0.2])

    def owner(session):
        tickets = session.correlations.plan(_plan_check(3))
        share = encode(A, MATRIX_BITS) if session.me == 0 else np.zeros((3, 3), dtype=np.uint64)
        _check(session, tickets, share, Poisson(wide=True))

    if good:
        run_owners([owner, owner])
        return
    with pytest.raises(LocalProtocolError, match="expected values must lie between"):
        run_owners([owner, owner])
