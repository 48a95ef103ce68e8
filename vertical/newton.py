"""Newton steps with a secret Hessian: where training of a generalised linear model ends, and what its tests rest on.

At a point u the owners hold shares of H = Z^T diag(w) Z + M, never opened, and of its bounded inverse.  Two steps are made with
one Hessian (the second as a chord); then comes the next, until the Newton decrement

    lambda^2 = g^T H^-1 g / dispersion,     which bounds every coefficient's distance from the optimum in standard errors,

is small.  Whether it is, is the one thing that is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import plan_reveal_negative, reveal_negative
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError, OutOfRange
from mpc.functions import Range, guard, plan_guard
from mpc.gram import plan_weighted_gram, weighted_gram
from mpc.linear import (
    DOUBLINGS,
    MATRIX_BITS,
    RIGHT_BITS,
    SOLUTION_BITS,
    inverse,
    plan_inverse,
    plan_solve,
    refine,
    solve,
)
from mpc.products import multiply, plan_multiply, plan_square, square
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from vertical.families import ETA_BITS, Family
from vertical.passes import GRADIENT_BITS, Problem, gradient, plan_gradient
from vertical.whitening import INPUT_BITS

Words = npt.NDArray[Any]

STEPS = 2
"""Steps with one Hessian."""
SETTLED = 2.0**-7
"""Newton decrement at which the last step is made.  A direction in which a label is separated, where every step is of one
unit of the score, has by then so little information that the bounded inverse shows it."""
CHECK_BITS = 12
"""Fractional bits of the entries of a matrix that is checked, whose squares then fit."""
ROOM_BITS = 61
"""Entries of the Hessian must stay below 2 to this in words."""


@dataclass(frozen=True)
class Curvature:
    """Shares at one point: the scaled Hessian's inverse, what it was one doubling before, and the step that it says.

    scale: the Hessian is 2^scale times the matrix that was inverted.  dispersion: its shares, None if it is 1.
    """

    scale: int
    inverse: Words = field(repr=False)
    coarser: Words = field(repr=False)
    step: Words = field(repr=False)
    dispersion: Words | None = field(repr=False)


def scale_bits(n: int, owners: int, family: Family) -> int:
    """The power of two that the Hessian is divided by, so that its eigenvalues lie in [0, 1].

    Whitening leaves each owner's block, and the intercept's column, a part of at most n fisher_limit.
    """
    return int(np.ceil(np.log2(1.02 * n * (owners + 1) * family.fisher_limit)))


def _dropped(n: int, family: Family) -> int:
    """Bits that Fisher weights lose so that the Hessian's entries, at most n largest_fisher, have room."""
    return max(0, int(np.ceil(np.log2(n * family.largest_fisher))) + 2 * INPUT_BITS + family.fisher_bits - ROOM_BITS)


def _hessian_bits(n: int, family: Family) -> int:
    return 2 * INPUT_BITS + family.fisher_bits - _dropped(n, family)


def inside(problem: Problem, eta: Words, limit: float) -> bool:
    """Whether every |eta| is at most the limit; all owners learn it, and nothing else.

    eta: words with ETA_BITS.
    """
    problem.session.correlations.settle()  # scores of wrong randomness would leave the range and blame the data
    tickets = problem.session.correlations.plan(plan_guard(eta.size))
    try:
        guard(
            problem.session, tickets, eta, (-limit, limit), Range(frac_bits=ETA_BITS, what="scores", tag="glm/outside")
        )
    except OutOfRange:
        return False
    return True


def plan_curvature(problem: Problem, family: Family) -> list[list[Correlation]]:
    """What `curvature` asks of the dealer, in groups by part."""
    n, owners, D = problem.n, len(problem.inputs), sum(problem.dims)
    drop = _dropped(n, family)
    shift = _hessian_bits(n, family) - MATRIX_BITS + scale_bits(n, owners, family)
    scaled = [plan_truncation(D, GRADIENT_BITS - RIGHT_BITS + scale_bits(n, owners, family))]
    return [
        list(family.plan_fisher(n, owners)),
        [plan_truncation(n, drop)] if drop else [],
        plan_weighted_gram(problem.inputs),
        [plan_truncation(D * D, shift)],
        _plan_check(D) if family.largest_fisher > family.fisher_limit else [],
        plan_inverse(D, DOUBLINGS - 1),
        plan_inverse(D, 1),
        [*scaled, *plan_solve(D)],
        list(family.plan_dispersion(n, owners) or ()),
        [plan_multiply((D,)), *plan_reveal_negative(1)],
    ]


def curvature(problem: Problem, family: Family, g: Words, eta: Words) -> tuple[Curvature, bool]:
    """The Hessian where the gradient is g and the linear predictors are eta, its inverse, its step, and whether that is
    the last one: the one bit that is opened."""
    session, D, n = problem.session, sum(problem.dims), problem.n
    groups = plan_curvature(problem, family)
    tickets = session.correlations.plan([request for group in groups for request in group])
    cut = np.cumsum([0, *map(len, groups)])
    fisher, drop, gram, lower, checking, rough, last, solving, dispersing, deciding = (
        tickets[a:b] for a, b in pairwise(cut)
    )
    w = family.fisher(session, fisher, eta, problem.rows)
    if drop:
        w = truncate(session, w, drop[0])
    H = weighted_gram(session, gram, problem.inputs, w)
    H += _own_penalty(problem, _hessian_bits(n, family))
    A = truncate(session, H.reshape(-1), lower[0]).reshape(D, D)
    if checking:
        _check(session, checking, A, family)
    coarser = inverse(session, rough, A)
    X = refine(session, last, A, coarser)
    right = truncate(session, g, solving[0])
    step = solve(session, solving[1:], X, right)
    phi = None
    if family.plan_dispersion(n, len(problem.inputs)) is not None:
        phi = family.dispersion(session, dispersing, eta, problem.rows, D)
    scale = scale_bits(n, len(problem.inputs), family)
    distance = np.array([multiply(session, deciding[0], step, right).sum()], dtype=np.uint64)
    # the products have 54 fractional bits and are 2^-scale of the decrement's square
    allowed = 2.0 ** (SOLUTION_BITS + RIGHT_BITS - scale) * SETTLED**2
    if phi is not None:
        distance -= phi * np.uint64(max(1, round(allowed * 2.0**-family.dispersion_bits)))
    elif session.me == 0:
        distance -= np.uint64(max(1, round(allowed)))
    settled = bool(reveal_negative(session, deciding[1:], distance, "glm/settled")[0])
    return Curvature(scale, X, coarser, step, phi), settled


def _plan_check(D: int) -> list[Correlation]:
    return [plan_truncation(D * D, MATRIX_BITS - CHECK_BITS), plan_square((D * D,)), *plan_guard(1)]


def _check(session: Session, tickets: Sequence[Ticket], A: Words, family: Family) -> None:
    """Refuse a matrix whose squared entries add up to more than 1: an eigenvalue may be above 1, and the inverse wrong."""
    entries = truncate(session, A.reshape(-1), tickets[0])
    total = np.array([square(session, tickets[1], entries).sum()], dtype=np.uint64)
    try:
        guard(session, tickets[2:], total, (0, 1), Range(frac_bits=2 * CHECK_BITS, what="a Hessian", tag="glm/hessian"))
    except OutOfRange as exc:
        raise LocalProtocolError(family.too_wide) from exc


def _own_penalty(problem: Problem, bits: int) -> Words:
    """Our share of the penalties' part of the Hessian: our own block, in the clear."""
    dims, me = problem.dims, problem.session.me
    out = np.zeros((sum(dims), sum(dims)), dtype=np.uint64)
    if problem.ridges:
        start = sum(dims[:me])
        mine = np.rint(problem.block.ridge * 2.0**bits).astype(np.int64).view(np.uint64)
        out[start : start + dims[me], start : start + dims[me]] = mine
    return out


@dataclass(frozen=True)
class Point:
    """Where Newton's method ended.

    u: shares of the weights.  last: the curvature there.  If scores left the range, last is None, and u is the last point
    whose scores were inside, if there is one.
    """

    u: Words | None = field(repr=False)
    last: Curvature | None = field(repr=False)
    settled: bool


@dataclass(frozen=True)
class Newton:
    """Newton steps from where the passes ended.  hessians: at most so many; after: told the steps made and the weights."""

    problem: Problem
    family: Family
    hessians: int
    after: Callable[[int, Words], None]

    def run(self, u: Words, done: int) -> Point:
        """From u, or until scores leave the range.  done: steps made before, if this goes on from a checkpoint."""
        good: Words | None = None
        while True:
            g, eta = self._gradient(u)
            if not inside(self.problem, eta, self.family.limit):
                return Point(good, None, False)
            good = u
            last, settled = curvature(self.problem, self.family, g, eta)
            u = u - last.step
            done += 1
            if settled or done > STEPS * (self.hessians - 1):
                return Point(u, last, settled)
            self.after(done, u)
            for _ in range(STEPS - 1):
                g, _eta = self._gradient(u)
                u = u - self._chord(last, g)
                done += 1
                self.after(done, u)

    def _gradient(self, u: Words) -> tuple[Words, Words]:
        problem = self.problem
        plan = plan_gradient(problem.inputs, problem.ridges, self.family, problem.n, fine=True)
        return gradient(problem, self.family, problem.session.correlations.plan(plan), u, fine=True)

    def _chord(self, last: Curvature, g: Words) -> Words:
        session, D = self.problem.session, len(g)
        plan = [plan_truncation(D, GRADIENT_BITS - RIGHT_BITS + last.scale), *plan_solve(D)]
        tickets: Sequence[Ticket] = session.correlations.plan(plan)
        return solve(session, tickets[1:], last.inverse, truncate(session, g, tickets[0]))


def block(matrix: Words, problem: Problem, owner: int) -> Words:
    """An owner's diagonal block of a (D, D) matrix."""
    cut = np.cumsum([0, *problem.dims])
    return np.ascontiguousarray(matrix[cut[owner] : cut[owner + 1], cut[owner] : cut[owner + 1]])
