"""Lasso and elastic net: models whose small coefficients are exactly zero, for every family of `vertical.families`.

Minimises  deviance / (2 n) + penalty (l1_ratio |w|_1 + (1 - l1_ratio) / 2 |w|^2),  intercept not penalised: the objective of
scikit-learn's ElasticNet, and of its LogisticRegression with penalty = 1 / (C n).

A proximal Newton method: around the weights of now the deviance is a quadratic form, of a secret Hessian A and a secret c,

    1/2 w^T A w - c^T w,

whose penalised minimum is found without touching a row again, by alternating directions (ADMM): one product with the secret
inverse of A + rho I, then a soft threshold, which is two comparisons with public numbers.  For linear regression the first
quadratic form is exact.  Whitening would mix the coefficients, so inputs enter as they are, standardised.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than, plan_less_than
from mpc.correlations import Correlation, Ticket
from mpc.engine import from_words, reveal_to
from mpc.errors import LocalProtocolError, OutOfRange
from mpc.functions import Range, guard, plan_guard
from mpc.gram import plan_weighted_gram, weighted_gram
from mpc.linear import INVERSE_BITS, MATRIX_BITS, inverse, plan_inverse
from mpc.matrix import mask_matrices, plan_masks
from mpc.products import multiply, plan_matmul, plan_multiply
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from vertical.checkpoints import Checkpoints, expect
from vertical.families import ETA_BITS, Family, Rows
from vertical.families_linear import Linear
from vertical.glm import Fitted
from vertical.glm import Settings as GlmSettings
from vertical.glm import family_of as glm_family
from vertical.owned import agree
from vertical.passes import (
    GRADIENT_BITS,
    U_BITS,
    Problem,
    gradient,
    linear_predictors,
    plan_gradient,
    shared_start,
)
from vertical.whitening import INPUT_BITS, Block

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
Progress = Callable[[int, int], None]

RHO_BITS = 3
"""ADMM's rho is about 2^-RHO_BITS of the family's curvature: small against a mean eigenvalue, large against the smallest."""
MAX_INPUTS = 256


@dataclass(frozen=True)
class Settings:
    """How to train.

    family: "logistic", "linear", "poisson", "gamma" or "tweedie" (with `power`).  weighted, exposed: whether the owner of the
    label has case weights, and offsets.  penalty, l1_ratio: as above.  steps: Newton steps, each with `rounds` of ADMM.
    """

    family: str = "logistic"
    penalty: float = 0.01
    l1_ratio: float = 1.0
    steps: int = 6
    rounds: int = 100
    power: float = 1.5
    weighted: bool = False
    exposed: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.penalty < 1e6 or not 0 <= self.l1_ratio <= 1:
            raise LocalProtocolError("the penalty is above 0 and at most 10^6, the l1 ratio 0 to 1")
        if not 1 <= self.steps <= 50 or not 1 <= self.rounds <= 1000:
            raise LocalProtocolError("there are 1 to 50 steps of 1 to 1000 rounds")


def family_of(settings: Settings) -> Family:
    """The family that the settings name.  Raises: LocalProtocolError if there is none of this name."""
    if settings.family == "linear":
        return Linear()
    chosen = GlmSettings(
        family=settings.family, power=settings.power, weighted=settings.weighted, exposed=settings.exposed
    )
    return glm_family(chosen)


def train(
    session: Session,
    inputs: Floats,
    y: Floats | Rows | None,
    settings: Settings,
    progress: Progress = lambda _done, _total: None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Fit the model; every owner calls this at once with its own aligned rows.

    inputs: (n, d) standardised inputs of our columns, at most 256 of all owners.  y: (n,) labels at exactly one owner, None
    at the others.  `vertical.glm.scores` gives the scores of the result.

    Reveals: to each owner, the coefficients of its own inputs (and the intercept, to the owner of the label); to every owner,
        the number of inputs of every owner, a power of two near the mean or the standard deviation of the label for families
        other than logistic; at every step one bit, whether a score left the range of the family's approximation, after which
        the run goes on with a wider one, and one bit more for each that was too narrow; and whether there is no wider one or
        the Hessian left its range, which ends the run.
    Cost: a step: 70 rounds, 7 for each round of ADMM, and the family's; 12 n bytes to every other owner, 8 n d to the owner
        of more inputs from that of fewer, d, and for D inputs in all 800 D^2 and 8 D^2 for each round of ADMM.  Once: 8 n d
        bytes to every other party for our d inputs.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Tibshirani 1996, Zou and Hastie 2005 (the models); Lee, Sun and Saunders 2014 (proximal Newton); Boyd et al. 2011,
        section 6.4 (ADMM for the lasso).
    Raises: RemoteProtocolError if the owners disagree on rows or who has the label; LocalProtocolError if labels are none of
        the family's or scores left the range of its approximation; OutOfRange if the Hessian did.
    """
    rows = Rows(y) if isinstance(y, np.ndarray) else y
    family = family_of(settings)
    if rows is not None:
        family.check(rows)
    family = family.agreed(session, rows)
    block = _block(inputs, intercept=rows is not None)
    group = agree(session, "sparse/shape", block.inputs.shape, None if rows is None else {}, {})
    if sum(group.dims) > MAX_INPUTS:
        raise LocalProtocolError(f"a sparse model has at most {MAX_INPUTS} inputs, with the intercept")
    shapes = [(len(inputs), d) for d in group.dims]
    tickets = session.correlations.plan(plan_masks(shapes, 0))
    matrices = mask_matrices(session, shapes, block.inputs, 0, tickets=tickets, keep_mask=True)
    run = _Run(Problem(session, block, matrices, [], rows, group.active), family, settings)
    u = shared_start(run.problem, family)
    dual = np.zeros_like(u)
    resumed = None if checkpoints is None else checkpoints.restore(session)
    if resumed is not None:
        u, dual = (expect(resumed[1], name, u.shape) for name in ("u", "dual"))
    total = 1 if isinstance(family, Linear) else settings.steps
    for step in range(0 if resumed is None else resumed[0], total):
        run, u, dual = run.step(u, dual)
        if checkpoints is not None:
            checkpoints.save(step + 1, {"u": u, "dual": dual})
        progress(step + 1, total)
    return _released(run.fitting(u), u)


def _block(inputs: Floats, *, intercept: bool) -> Block:
    """The inputs as they are, and a last column of ones for the intercept."""
    if inputs.ndim != 2 or not np.isfinite(inputs).all():
        raise LocalProtocolError("an input of ours is not a finite number")
    d = inputs.shape[1]
    Z = np.column_stack([inputs, np.ones(len(inputs))]) if intercept else inputs
    scaled = np.rint(Z * 2.0**INPUT_BITS)
    largest = float(np.abs(scaled).max(initial=0.0))
    if largest >= 2**31:
        raise LocalProtocolError("an input of ours is too large")
    nothing = np.zeros((Z.shape[1], Z.shape[1]))
    words = scaled.astype(np.int16 if largest < 2**15 else np.int32)
    return Block(np.eye(d), words, nothing, float(intercept), np.zeros(d, dtype=np.bool_))


@dataclass(frozen=True)
class _Run:
    """What stays the same from step to step."""

    problem: Problem
    family: Family
    settings: Settings

    @property
    def scale(self) -> int:
        """The Hessian over 2^scale has a trace of about 1/4, which is checked to be below 1/2."""
        n, D = self.problem.n, sum(self.problem.dims)
        return math.ceil(math.log2(4 * n * D * self.family.curvature))

    @property
    def rho(self) -> int:
        """ADMM's rho, over 2^scale too, is 2^-rho."""
        return self.scale + RHO_BITS - round(math.log2(self.problem.n * self.family.curvature))

    @property
    def weights(self) -> tuple[float, float]:
        """Penalties of |w|_1 and |w|^2 / 2 against the quadratic form, in the family's units."""
        n, chosen = self.problem.n, self.settings
        unit = 2.0**-self.family.scale if isinstance(self.family, Linear) else self.family.ridge_factor
        square = 1.0 if isinstance(self.family, Linear) else self.family.ridge_factor
        each = n * chosen.penalty / 2.0**self.scale
        return each * chosen.l1_ratio * unit, each * (1 - chosen.l1_ratio) * square

    @property
    def intercept(self) -> int:
        """Which column is the intercept's."""
        return sum(self.problem.dims[: self.problem.active + 1]) - 1

    def step(self, u: Words, dual: Words) -> tuple[_Run, Words, Words]:
        """One Newton step: the penalised minimum of the quadratic form at u, and ADMM's dual variable there.

        If the scores of u have left the family's range, it and all later steps are of a wider one.
        """
        run, problem = self.fitting(u), self.problem
        plan = plan_gradient(problem.inputs, [], run.family, problem.n, fine=True)
        g, eta = gradient(problem, run.family, problem.session.correlations.plan(plan), u, fine=True)
        A, c = run._quadratic(u, g, eta)
        return run, *run._admm(A, c, u, dual)

    def _quadratic(self, u: Words, g: Words, eta: Words) -> tuple[Words, Words]:
        """A and c = A u - g, MATRIX_BITS, over 2^scale."""
        problem, session, D = self.problem, self.problem.session, len(u)
        n, family = problem.n, self.family
        drop = (
            math.ceil(math.log2(n * family.curvature * family.fisher_limit)) + 2 * INPUT_BITS + family.fisher_bits - 60
        )
        bits = 2 * INPUT_BITS + family.fisher_bits - max(0, drop)
        groups: list[list[Correlation]] = [
            list(family.plan_fisher(n, len(problem.inputs))),
            [plan_truncation(n, drop)] if drop > 0 else [],
            list(plan_weighted_gram(problem.inputs)),
            [plan_truncation(D * D, bits + self.scale - MATRIX_BITS), *plan_guard(1)],
            [plan_matmul((D, D), (D,)), plan_truncation(D, U_BITS)],
            [plan_truncation(D, GRADIENT_BITS + self.scale - MATRIX_BITS)],
        ]
        tickets = session.correlations.plan([request for part in groups for request in part])
        cut = np.cumsum([0, *map(len, groups)])
        fisher, lower, gram, (down, *trace), (times, image), (steep,) = (tickets[a:b] for a, b in pairwise(cut))
        w = family.fisher(session, fisher, eta, problem.rows)
        if lower:
            w = truncate(session, w, lower[0])
        H = weighted_gram(session, gram, problem.inputs, w)
        A = truncate(session, H.reshape(-1), down).reshape(D, D)
        use = Range(frac_bits=MATRIX_BITS, what="the Hessian", operation="a sparse model", tag="glm/hessian")
        guard(session, trace, np.trace(A).reshape(1), (0.0, 0.5), use)
        moved = truncate(session, multiply(session, times, A, u), image)
        return A, moved - truncate(session, g, steep)

    def _admm(self, A: Words, c: Words, u: Words, dual: Words) -> tuple[Words, Words]:
        """Minimise 1/2 w^T A w - c^T w and the penalties: w = (A + rho)^-1 (c + rho (z - dual)), z = threshold(w + dual)."""
        session, D, rho = self.problem.session, len(u), self.rho
        one_penalty, square_penalty = self.weights
        ridge = np.full(D, 2.0**-rho + square_penalty)
        ridge[self.intercept] = 2.0**-rho
        if ridge.max() > 0.5:
            raise LocalProtocolError("the penalty is so large that nothing would be left of the model")
        level = round(one_penalty * 2.0 ** (rho + U_BITS))
        each: list[Correlation] = [
            plan_matmul((D, D), (D,)),
            plan_truncation(D, INVERSE_BITS + rho),
            *plan_less_than(D, 2),
            plan_multiply((2, D)),
        ]
        first = len(plan_inverse(D))
        tickets = session.correlations.plan([*plan_inverse(D), *each * self.settings.rounds])
        shifted = A.copy()
        if session.me == 0:
            shifted[np.diag_indices(D)] += np.rint(ridge * 2.0**MATRIX_BITS).astype(np.uint64)
        # K is the inverse with INVERSE_BITS; rho K, whose entries are at most 1, is the same words with rho more bits
        K = inverse(session, tickets[:first], shifted)
        target = c << np.uint64(rho + U_BITS - MATRIX_BITS)
        z = u
        for start in range(first, len(tickets), len(each)):
            times, down, *comparing, choosing = tickets[start : start + len(each)]
            w = truncate(session, multiply(session, times, K, target + z - dual), down)
            x = w + dual
            below = less_than(session, comparing, x, (-level, level))
            z = self._threshold(choosing, x, below, level)
            dual = x - z
        return z, dual

    def _threshold(self, ticket: Ticket, x: Words, below: Words, level: int) -> Words:
        """x + level where x < -level, x - level where x >= level, and 0 between; the intercept stays as it is."""
        session = self.problem.session
        one, t = (np.uint64(v if session.me == 0 else 0) for v in (1, level))
        bits, moved = np.stack([below[0], one - below[1]]), np.stack([x + t, x - t])
        z: Words = multiply(session, ticket, bits, moved).sum(axis=0, dtype=np.uint64)
        z[self.intercept] = x[self.intercept]
        return z

    def fitting(self, u: Words) -> _Run:
        """This run, with a family that is right where the scores of u are."""
        session = self.problem.session
        plan = [m.request(transpose=False) for m in self.problem.inputs]
        eta = linear_predictors(self.problem, session.correlations.plan(plan), u)
        family: Family | None = self.family
        while family is not None:
            limit = family.limit
            use = Range(frac_bits=ETA_BITS, what="a score", operation="a sparse model", tag="glm/outside")
            try:
                guard(session, session.correlations.plan(plan_guard(len(eta))), eta, (-limit, limit), use)
            except OutOfRange:
                family = family.wider()
            else:
                return replace(self, family=family)
        raise LocalProtocolError(f"scores do not fit {limit:g}: a larger penalty is needed")


def _released(run: _Run, u: Words) -> Fitted:
    """Open each owner's weights to it and to nobody else."""
    problem, family = run.problem, run.family
    mine: Floats = np.zeros(0)
    for owner, part in enumerate(problem.parts(u)):
        opened = reveal_to(from_words(np.ascontiguousarray(part), U_BITS), owner, tag="sparse/weights")
        mine = mine if opened is None else opened
    weights, constant = problem.block.coefficients(mine)
    unit = 2.0**family.scale if isinstance(family, Linear) else 1.0
    limit = family.limit * unit * len(problem.dims)
    fitted = Fitted(family.name, weights * unit, None, limit)
    if constant is None or problem.rows is None:
        return fitted
    mean = float(problem.rows.y.mean()) if isinstance(family, Linear) else 0.0
    return replace(fitted, intercept=float(constant[0]) * unit + family.intercept_shift + mean)
