"""Which columns of all owners belong in a logistic regression: selection on the curvature at the model of all columns.

The model of all columns is trained first, as any other.  With H the information at its coefficients b, the log-likelihood near
them is that of least squares with products H, H b and b^T H b; so what taking a column in or out changes is found as in
`vertical.stepwise`, for all steps from this one H, and is tested as a chi-square of one degree of freedom.  Leaving columns out
of the model of all is then Wald's test.

The intercept is swept in first and stays.  Columns are brought to the same weighted variance before they are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc.errors import LocalProtocolError
from mpc.functions import Domain, inverse_sqrt, plan_inverse_sqrt
from mpc.gram import plan_weighted_gram, weighted_gram
from mpc.matrix import mask_matrices, plan_masks
from mpc.products import multiply, plan_matmul, plan_multiply
from mpc.ring import encode
from mpc.rng import fresh_prg
from mpc.session import Session
from mpc.shuffle import permutation_of
from mpc.truncation import plan_truncation, truncate
from vertical.families import ETA_BITS, Family, Logistic
from vertical.glm import Fitted
from vertical.statistics import scale_bits, standardised
from vertical.stepwise import Choice, Floats, Progress, Selected, Settings, Words, agreed
from vertical.sweep import STATE_BITS, Sweep, inverse_of

INPUT_BITS = 10
"""Fractional bits of a masked column."""
WEIGHT_BITS = 18
"""Fractional bits of a Fisher weight, at most a quarter; sums of products of MAX_ROWS rows stay below 2^62."""
MAX_ROWS = 1 << 24
BETA_BITS = 20
INTERCEPT = Domain(low=-12, high=2, frac_bits=STATE_BITS, what="the weight of all rows", tag="stepwise/range")
VARIANCE = Domain(low=-14, high=2, frac_bits=STATE_BITS, what="the weighted variance of a column", tag="stepwise/range")
FIRST = 1 << 20
"""Number of the first masked matrix; training in the same session uses lower ones."""


def select_logistic(
    session: Session,
    fitted: Fitted,
    inputs: Floats,
    settings: Settings,
    progress: Progress = lambda _done, _total: None,
    first: int = FIRST,
) -> Selected:
    """Choose columns for a logistic regression; every owner calls this at once with its own aligned rows.

    fitted: our part of the model of all columns, trained by `vertical.glm` on these rows without case weights or offset.
    inputs: (n, d) the inputs that it was trained on.  first: number of the first of one matrix for each owner.

    Reveals: as `vertical.stepwise.select`; and to every owner whether all rows together, or a column, have next to no weight.
    Cost: 8 n bytes to every other party for each of our columns, and the intercept; about 40 rounds and 12 n bytes to every
        other party, 8 n d to the owner of more columns from that of fewer, d; the dealer sends 8 n D and 16 K n for K
        harmonics; then as `vertical.stepwise.select` for its steps.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Lawless and Singhal, Biometrics 1978 (selection on the curvature of the model of all columns); Goodnight 1979.
    Raises: as `vertical.stepwise.select`; OutOfRange, at every owner, if rows or a column have next to no weight;
        LocalProtocolError if the model is no logistic one of these inputs, or its training did not settle.
    """
    if fitted.family != Logistic.name or inputs.shape[1] != len(fitted.weights) or len(inputs) > MAX_ROWS:
        raise LocalProtocolError(f"a selection takes a logistic model of its inputs, of at most {MAX_ROWS} rows")
    if fitted.inference is not None and not fitted.inference.settled:
        raise LocalProtocolError("the model of all columns did not settle, so nothing can be selected from it")
    X = standardised(inputs, "a column of ours")
    n, d = X.shape
    columns, active = agreed(session, X.shape, fitted.intercept is not None, settings)
    order = permutation_of(fresh_prg().words((d, 2)))
    beta = fitted.weights * inputs.std(axis=0)
    constant = float(inputs.mean(axis=0) @ fitted.weights) + float(fitted.intercept or 0.0)
    weights = _fisher(session, fitted, inputs)
    S = _information(session, columns, active, X[:, order], weights, first)
    state, place = _state(session, columns, active, S, beta[order], constant)
    state = _without_intercept(session, state, place)
    return Choice(session, settings, n, columns, order, Sweep(session, _normal(session, state)), 4.0 / n).run(progress)


def _fisher(session: Session, fitted: Fitted, inputs: Floats) -> Words:
    """Shares of the Fisher weights at the model, WEIGHT_BITS."""
    owners, n = len(session.parties), len(inputs)
    family: Family | None = Logistic()
    while family is not None and family.limit < fitted.limit:
        family = family.wider()
    if family is None:
        raise LocalProtocolError("the model's scores are beyond the range of a logistic one")
    part = np.clip(fitted.part(inputs), -fitted.limit / owners, fitted.limit / owners)
    plan = family.plan_fisher(n, owners)
    tickets = session.correlations.plan([*plan, plan_truncation(n, family.fisher_bits - WEIGHT_BITS)])
    weights = family.fisher(session, tickets[: len(plan)], encode(part, ETA_BITS), None)
    return truncate(session, weights, tickets[-1])


def _information(session: Session, columns: Sequence[int], active: int, X: Floats, weights: Words, first: int) -> Words:
    """Shares of 4/n times the information of all columns, the intercept's behind those of the active owner; STATE_BITS."""
    n, me = len(X), session.me
    if me == active:
        X = np.column_stack([X, np.ones(n)])
    words = np.rint(X * np.sqrt(2.0 ** scale_bits(n) / n) * 2.0**INPUT_BITS).astype(np.int32)
    sizes = [(n, d + (i == active)) for i, d in enumerate(columns)]
    masks = session.correlations.plan(plan_masks(sizes, first))
    matrices = mask_matrices(session, sizes, words, first, tickets=masks, keep_mask=True)
    D = sum(d for _, d in sizes)
    lower = plan_truncation(D * D, 2 * INPUT_BITS + WEIGHT_BITS + scale_bits(n) - 2 - STATE_BITS)
    tickets = session.correlations.plan([*plan_weighted_gram(matrices), lower])
    G = weighted_gram(session, tickets[:-1], matrices, weights)
    return truncate(session, G.reshape(-1), tickets[-1]).reshape(D, D)


def _state(
    session: Session, columns: Sequence[int], active: int, S: Words, beta: Floats, constant: float
) -> tuple[Words, int]:
    """S with S b as its last row and column and b^T S b in the corner, and the place of the intercept.

    beta: our coefficients; constant: our part of the intercept.  No entry exceeds 2, as p (1 - p) times a score squared does
    not exceed 0.44.
    """
    D, me = len(S), session.me
    place = sum(columns[: active + 1])
    start = sum(columns[:me]) + (me > active)
    own = np.zeros(D)
    own[start : start + len(beta)] = beta
    own[place] += constant
    b = encode(own, BETA_BITS)
    plan = [
        plan_matmul((D, D), (D,)),
        plan_truncation(D, BETA_BITS),
        plan_multiply((D,)),
        plan_truncation(1, BETA_BITS),
    ]
    tickets = session.correlations.plan(plan)
    row = truncate(session, multiply(session, tickets[0], S, b), tickets[1])
    corner = multiply(session, tickets[2], row, b).sum(keepdims=True, dtype=np.uint64)
    state = np.empty((D + 1, D + 1), dtype=np.uint64)
    state[:D, :D], state[:D, D], state[D, :D] = S, row, row
    state[D, D] = truncate(session, corner, tickets[3])[0]
    return state, place


def _without_intercept(session: Session, state: Words, place: int) -> Words:
    """What is left of the state when the intercept is in the regression, without its row and column."""
    inverse = inverse_of(session, state[place, place : place + 1], INTERCEPT)
    swept = Sweep(session, state).turned(place, inverse).state
    return np.delete(np.delete(swept, place, axis=0), place, axis=1)


def _normal(session: Session, state: Words) -> Words:
    """The state with all columns, but not the last, brought to variance 1."""
    D = len(state) - 1
    diagonal = np.ascontiguousarray(state[np.arange(D), np.arange(D)])
    factor = inverse_sqrt(session, session.correlations.plan(plan_inverse_sqrt(D, VARIANCE)), diagonal, VARIANCE)
    plan = [
        plan_multiply((D, D + 1), (D, 1)),
        plan_truncation(D * (D + 1), STATE_BITS),
        plan_multiply((D, D), (D,)),
        plan_truncation(D * D, STATE_BITS),
    ]
    tickets = session.correlations.plan(plan)
    rows = multiply(session, tickets[0], np.ascontiguousarray(state[:D]), factor[:, None])
    rows = truncate(session, rows, tickets[1])
    both = truncate(session, multiply(session, tickets[2], np.ascontiguousarray(rows[:, :D]), factor), tickets[3])
    out = state.copy()
    out[:D, :D], out[:D, D], out[D, :D] = both, rows[:, D], rows[:, D]
    return out
