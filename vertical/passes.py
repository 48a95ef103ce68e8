"""Full-batch accelerated gradient on shared weights: where training of a generalised linear model begins.

One pass costs four rounds: scores, residuals, gradient, and one exact division that takes the step and the momentum back to
the weights' scale.  Bytes do not depend on the number of inputs, but for a few vectors of their length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import plan_reveal_negative, reveal_negative
from mpc.correlations import Correlation, Ticket
from mpc.linear import SOLUTION_BITS
from mpc.matrix import MatrixMask, MatrixProduct, OwnerMatrix, mask_matrices, multiply, plan_masks
from mpc.products import plan_square, square
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate, truncate_many
from vertical.families import RESIDUAL_BITS, Family, Rows
from vertical.whitening import INPUT_BITS, Block

Words = npt.NDArray[Any]

U_BITS = SOLUTION_BITS
"""Fractional bits of the weights in whitened coordinates: ETA_BITS less those of the inputs."""
GRADIENT_BITS = INPUT_BITS + RESIDUAL_BITS
RIDGE_BITS = GRADIENT_BITS - U_BITS
RESTART = 25
"""Passes after which momentum starts anew: an adaptive-restart schedule for poorly conditioned blocks."""
MOMENTUM_BITS = 8
STILL = 0.25
"""Passes have converged if the second half of them moved scores by no more than this, times the family's information: rare
labels make small steps, and small movements say less."""
MOVED_BITS = 16
"""Fractional bits of that movement: squares of movements up to 2^15 fit."""


@dataclass(frozen=True)
class Problem:
    """What stays the same from pass to pass.

    shapes: of each owner's masked inputs.  block, rows: what we know, rows at the active owner only.  ridges: the penalty of
    each owner as a masked matrix, none without a penalty.  active: who has the label; its last column is the intercept's.
    """

    session: Session
    block: Block = field(repr=False)
    inputs: list[OwnerMatrix] = field(repr=False)
    ridges: list[OwnerMatrix] = field(repr=False)
    rows: Rows | None = field(repr=False)
    active: int

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.inputs[0].content.shape[0])

    @property
    def dims(self) -> list[int]:
        """Columns of each owner, in whitened coordinates and with the intercept's."""
        return [m.content.shape[1] for m in self.inputs]

    def parts(self, stacked: Words) -> list[Words]:
        """Each owner's part of what is stacked by columns."""
        return np.split(stacked, np.cumsum(self.dims)[:-1])


def shared_start(problem: Problem, family: Family) -> Words:
    """Our share of the first weights: zero, but for the intercepts, which start where their owner says."""
    dims = problem.dims
    share = np.zeros(_shape(sum(dims), family.outputs), dtype=np.uint64)
    if problem.rows is not None:
        first = family.start(problem.rows) / problem.block.constant
        words = np.rint(first * 2.0**U_BITS).astype(np.int64).view(np.uint64)
        share[sum(dims[: problem.active + 1]) - 1] = words[0] if family.outputs == 1 else words
    return share


def _shape(first: int, outputs: int) -> tuple[int, ...]:
    return (first,) if outputs == 1 else (first, outputs)


def plan_penalty(dims: Sequence[int], first: int) -> list[MatrixMask]:
    """What `mask_penalty` asks of the dealer."""
    return plan_masks([(d, d) for d in dims], first)


def mask_penalty(
    session: Session, dims: Sequence[int], block: Block, first: int, tickets: Sequence[Ticket]
) -> list[OwnerMatrix]:
    """Mask each owner's penalty.  first: number of party 0's matrix.  tickets: for `plan_penalty(dims, first)`.

    Reveals: nothing.
    Cost: 1 round; 8 d^2 bytes to every other party for our d columns.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.matrix.mask_matrices`.
    """
    mine = np.rint(block.ridge * 2.0**RIDGE_BITS).astype(np.int64)
    return mask_matrices(session, [(d, d) for d in dims], mine, first, tickets=tickets)


def _product(matrix: OwnerMatrix | MatrixMask, outputs: int, *, transpose: bool) -> MatrixProduct:
    if isinstance(matrix, OwnerMatrix):
        return matrix.request(transpose=transpose, vectors=outputs)
    return matrix.product(transpose=transpose).model_copy(update={"vectors": outputs})


def plan_gradient(
    masks: Sequence[OwnerMatrix | MatrixMask],
    penalties: Sequence[OwnerMatrix | MatrixMask],
    family: Family,
    n: int,
    *,
    fine: bool,
) -> list[Correlation]:
    """What `gradient` asks of the dealer, before or after the matrices are masked."""
    k = family.outputs
    return [
        *(_product(m, k, transpose=False) for m in (*masks, *penalties)),
        *family.plan_residual(n, len(masks), fine=fine),
        *(_product(m, k, transpose=True) for m in masks),
    ]


def gradient(
    problem: Problem, family: Family, tickets: Sequence[Ticket], v: Words, *, fine: bool
) -> tuple[Words, Words]:
    """Shares of Z^T (mu - y) + M v with GRADIENT_BITS, and of the linear predictors; 3 rounds or what residuals take more.

    v: (D,) or (D, outputs) words with U_BITS.
    """
    session, k = problem.session, len(problem.inputs)
    ahead = k + len(problem.ridges)
    parts = problem.parts(v)
    matrices = [*problem.inputs, *problem.ridges]
    vectors = parts * 2 if problem.ridges else parts
    forward = multiply(session, list(zip(matrices, tickets[:ahead], vectors, strict=True)))
    eta = np.add.reduce(forward[:k])
    residual = family.residual(session, tickets[ahead:-k], eta, problem.rows, fine=fine)
    back = multiply(session, [(m, t, residual) for m, t in zip(problem.inputs, tickets[-k:], strict=True)])
    total = np.concatenate(back)
    if problem.ridges:
        total += np.concatenate(forward[k:])
    return total, eta


def linear_predictors(problem: Problem, tickets: Sequence[Ticket], v: Words) -> Words:
    """Shares of Z v with ETA_BITS, one round; tickets for the products of all inputs."""
    parts = multiply(problem.session, list(zip(problem.inputs, tickets, problem.parts(v), strict=True)))
    return np.asarray(np.add.reduce(parts))


def step_size(n: int, owners: int) -> tuple[int, int]:
    """The step 1/(owners n) between gradient and weight scale, rounded down to multiplier / 2^shift, multiplier 8..15."""
    exact = 2.0 ** (U_BITS - GRADIENT_BITS) / (owners * n)
    shift = int(np.ceil(-np.log2(exact))) + 3
    return int(exact * 2.0**shift), shift


def plan_pass(
    masks: Sequence[OwnerMatrix | MatrixMask], penalties: Sequence[OwnerMatrix | MatrixMask], family: Family
) -> list[Correlation]:
    """What one pass asks of the dealer."""
    sizes = [(m.content.shape if isinstance(m, OwnerMatrix) else (m.n_rows, m.n_cols)) for m in masks]
    n, D = sizes[0][0], sum(d for _, d in sizes) * family.outputs
    return [
        *plan_gradient(masks, penalties, family, n, fine=False),
        plan_truncation(2 * D, step_size(n, len(masks))[1]),
        plan_truncation(D, MOMENTUM_BITS),
    ]


def run_passes(
    problem: Problem,
    family: Family,
    passes: Sequence[Sequence[Ticket]],
    state: tuple[Words, Words],
    done: int,
    after: Callable[[int, Words, Words], None],
) -> Words:
    """The remaining passes from (u, v), of which `done` were made before; returns our share of the weights.

    passes: tickets for `plan_pass`, for each one.  after: told the number of passes made, u and v.
    """
    u, v = state
    for t, tickets in enumerate(passes, start=done):
        age = (t + 1) % RESTART
        beta = round(2**MOMENTUM_BITS * age / (age + 3))
        u, v = _one_pass(problem, family, tickets, u, v, beta)
        after(t + 1, u, v)
    return u


def have_converged(problem: Problem, family: Family, middle: Words, u: Words) -> bool:
    """Whether the second half of the passes hardly moved the weights: from `middle` to u.

    The owner of the label adds the bound, which takes the mean of the label, to its share.

    Reveals: the answer, to all owners.
    Cost: 6 rounds; no bytes depend on the number of rows.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: none; a squared length is compared with a bound.
    """
    session, D = problem.session, u.size
    plan = [plan_truncation(D, U_BITS - MOVED_BITS), plan_square((D,)), *plan_reveal_negative(1)]
    tickets = session.correlations.plan(plan)
    moved = truncate(session, (u - middle).reshape(-1), tickets[0])
    excess = np.array([square(session, tickets[1], moved).sum()], dtype=np.uint64)
    if problem.rows is not None:
        # squared weights are the curvature times squared scores
        allowed = family.curvature * (STILL * family.information(problem.rows)) ** 2
        excess -= np.uint64(max(1, round(allowed * 2.0 ** (2 * MOVED_BITS))))
    return bool(reveal_negative(session, tickets[2:], excess, "glm/settled")[0])


def _one_pass(
    problem: Problem, family: Family, tickets: Sequence[Ticket], u: Words, v: Words, beta: int
) -> tuple[Words, Words]:
    """One accelerated step: u' = v - a g(v), v' = u' + beta (u' - u), with beta in 1/2^MOMENTUM_BITS."""
    g, _ = gradient(problem, family, tickets[:-2], v, fine=False)
    step, _ = step_size(problem.n, len(problem.inputs))
    stretched = step + (step * beta >> MOMENTUM_BITS)
    moves = [
        np.concatenate([g * np.uint64(step), g * np.uint64(stretched)]),
        (v - u) * np.uint64(beta),
    ]
    both, momentum = truncate_many(problem.session, tickets[-2:], moves)
    plain, long = np.split(both, 2)
    return v - plain, v - long + momentum
