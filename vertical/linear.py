"""Linear regression and ridge in closed form, from one secret Gram matrix of all owners' columns and the label.

The rows are used once, for G = [Z y]^T [Z y] on shares, where every owner's block Z_b is whitened in the clear.  What follows
works on matrices of as many rows as there are columns: the bounded inverse of Z^T Z + M, the weights, one step of iterative
refinement, and the residual variance, which is quadratic in the weights.  No residual and no score is computed.

The label is counted in units of a public power of two near its standard deviation, after its mean is taken off by its owner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Ticket
from mpc.engine import from_words, reveal, reveal_to
from mpc.errors import LocalProtocolError
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
from mpc.matrix import MatrixMask, mask_matrices, plan_masks
from mpc.products import multiply, plan_matmul, plan_multiply
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from vertical.families_linear import VARIANCE_BITS, Linear
from vertical.inference import Inference, Row, describe, errors, from_text, parse, to_text
from vertical.newton import Curvature
from vertical.owned import Group, agree, gram_of, gram_scale, own_block, plan_gram_of
from vertical.passes import Problem
from vertical.scores import Scores
from vertical.student import interval, two_sided
from vertical.whitening import Block, whiten

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
Progress = Callable[[int, int], None]

LABEL_BITS = 16
"""Fractional bits of the label, in units of about one standard deviation."""
INPUT_BITS = 12
"""Fractional bits of a whitened input; a column adds up to n in squares, so its words need less than 32 bits."""
SUM_BITS = SOLUTION_BITS + RIGHT_BITS
"""Fractional bits of a sum of squares over 2^scale, which is below 1."""
ROOM = 4
"""Powers of two between the largest label and the bound of a score."""
LIMITS = {"scale": (-60, 60), "bound": (-60, 120)}


@dataclass(frozen=True)
class Settings:
    """How to train: the ridge penalty, which leaves standard errors as they are defined if it is 0."""

    ridge: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.ridge < 1e9:
            raise LocalProtocolError("the ridge penalty is 0 to 10^9")


@dataclass(frozen=True)
class Fitted:
    """What one owner learns: coefficients of its standardised inputs and how sure they are; at the owner of the label also
    the intercept and R^2.

    variance: of the residuals, with `freedom` degrees of freedom.  bound: public limit of a score.
    """

    weights: Floats = field(repr=False)
    intercept: float | None = field(repr=False)
    inference: Inference = field(repr=False)
    variance: float
    freedom: int
    bound: float
    r2: float | None = None

    def part(self, inputs: Floats) -> Floats:
        """Our additive part of the scores of these rows."""
        return np.asarray(inputs @ self.weights + (self.intercept or 0.0))

    def table(self, names: Sequence[str], level: float = 0.95) -> list[Row]:
        """One line for each coefficient, the intercept's first, per standard deviation of an input; `z` is Student's t."""
        found = self.inference
        cells = list(zip(names, self.weights.tolist(), found.errors.tolist(), found.notes, strict=True))
        if self.intercept is not None and found.intercept_error is not None:
            cells.insert(0, ("intercept", self.intercept, found.intercept_error, found.intercept_note))
        wide = interval(level, self.freedom)
        return [_row(*cell, self.freedom, wide) for cell in cells]

    def document(self) -> dict[str, Any]:
        """As plain data; numbers exactly."""
        return {
            "family": "linear",
            "weights": to_text(self.weights),
            "intercept": None if self.intercept is None else repr(self.intercept),
            "inference": describe(self.inference),
            "variance": repr(self.variance),
            "freedom": self.freedom,
            "bound": repr(self.bound),
            "r2": None if self.r2 is None else repr(self.r2),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """What `document` made.  Raises: LocalProtocolError if it is anything else."""
        try:
            numbers = {key: float(document[key]) for key in ("variance", "bound")}
            maybe = {key: None if document[key] is None else float(document[key]) for key in ("intercept", "r2")}
            freedom, inference = document["freedom"], document["inference"]
        except (KeyError, TypeError, ValueError) as exc:
            raise LocalProtocolError("the kept model cannot be read") from exc
        finite = all(v is None or math.isfinite(v) for v in (*numbers.values(), *maybe.values()))
        if document.get("family") != "linear" or type(freedom) is not int or not finite or numbers["bound"] <= 0:
            raise LocalProtocolError("the kept model cannot be read")
        weights = from_text(document.get("weights"), "coefficients")
        if weights.ndim != 1 or not isinstance(inference, Mapping):
            raise LocalProtocolError("the kept model cannot be read")
        return cls(
            weights,
            maybe["intercept"],
            parse(inference, len(weights)),
            numbers["variance"],
            freedom,
            numbers["bound"],
            maybe["r2"],
        )


def _row(name: str, coefficient: float, error: float, note: str, freedom: int, wide: float) -> Row:
    if note or not error > 0:
        return Row(name, coefficient, None, None, None, None, None, note or "has no standard error")
    t = coefficient / error
    low, high = coefficient - wide * error, coefficient + wide * error
    return Row(name, coefficient, error, t, two_sided(t, freedom), low, high, "")


def scores(session: Session, fitted: Fitted, inputs: Floats) -> Scores:
    """Shares of every row's prediction.

    inputs: (n, d) standardised rows of ours.

    Reveals: nothing.
    Cost: nothing is sent.
    Security: semi-honest owners.
    Source: additive secret sharing.
    Raises: LocalProtocolError if a value is not finite.
    """
    return Scores.of_part(fitted.part(inputs), fitted.bound, len(session.parties))


def train(
    session: Session,
    inputs: Floats,
    y: Floats | None,
    settings: Settings,
    progress: Progress = lambda _done, _total: None,
) -> Fitted:
    """Fit the model; every owner calls this at once with its own aligned rows.

    inputs: (n, d) standardised inputs of our columns.  y: (n,) the label at exactly one owner, None at the others.  It takes
    so little time that there is nothing to go on from after a crash: it is simply done again.

    Reveals: to each owner, the coefficients of its own inputs (and the intercept, to the owner of the label) and, for each,
        what `vertical.inference.errors` says; to every owner, the residual variance, powers of two near the label's standard
        deviation and largest size, the number of inputs of every owner and how many of them are independent.
    Cost: about 100 rounds; 8 n (r + 1) bytes to every other party for our r independent inputs, with the label; about 900
        D^2 bytes for D inputs in all, and as many from the dealer.  No bytes but the first depend on the number of rows.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Gauss 1809; Beaver, CRYPTO 1991 (Gram matrices of masked columns); Hotelling 1943 (the inverse).
    Raises: RemoteProtocolError if the owners disagree on rows or who has the label; LocalProtocolError if the label is no
        finite number or does not vary, or there are no more rows than coefficients.
    """
    label = None if y is None else _Label.of(y)
    block = whiten(inputs, settings.ridge, 1.0, intercept=y is not None)
    size = len(block.basis) + (y is not None)
    facts = None if label is None else {"scale": label.scale, "bound": label.bound}
    group = agree(session, "linear/shape", block.inputs.shape, facts, LIMITS, size)
    n, D = len(inputs), sum(group.dims)
    if n <= D:
        raise LocalProtocolError(f"a linear model of {D} coefficients needs more than {n} rows")
    labels = [int(i == group.active) for i in range(len(group.dims))]
    masks = plan_masks([(n, d) for d in group.dims], 0)
    label_masks = plan_masks([(n, d) for d in labels], len(labels))
    tickets = session.correlations.plan([*masks, *label_masks])
    plan = _Plan.of(session, masks, label_masks[group.active], n)
    k = len(masks)
    words = _words(inputs, block)
    Z = mask_matrices(session, [(n, d) for d in group.dims], words, 0, tickets=tickets[:k], keep_mask=True)
    column = np.zeros((n, 0), dtype=np.int32) if label is None else label.words
    Y = mask_matrices(session, [(n, d) for d in labels], column, k, tickets=tickets[k:], keep_mask=True)
    problem = Problem(session, block, Z, [], None, group.active)
    progress(1, 2)
    G = gram_of(session, plan.gram, [*Z, Y[group.active]])
    found = _solved(problem, plan, G)
    fitted = _released(problem, found, group, label)
    progress(2, 2)
    return fitted


def _words(inputs: Floats, block: Block) -> Words:
    """The whitened inputs, with the intercept's column if we have the label, as integers."""
    Z = inputs @ block.basis
    if block.constant:
        Z = np.column_stack([Z, np.full(len(Z), block.constant)])
    scaled = np.rint(Z * 2.0**INPUT_BITS)
    if np.abs(scaled).max(initial=0.0) >= 2.0**31:
        raise LocalProtocolError("an input of ours is too large")
    return scaled.astype(np.int32)


@dataclass(frozen=True)
class _Label:
    """At its owner: words (n, 1), the mean that was taken off, and the public powers of two."""

    words: Words = field(repr=False)
    mean: float
    square: float
    scale: int
    bound: int

    @classmethod
    def of(cls, y: Floats) -> _Label:
        if not np.isfinite(y).all() or y.ndim != 1 or len(y) < 2:
            raise LocalProtocolError("the label of a linear model is a finite number in every row")
        mean = float(y.mean())
        spread, largest = float(y.std()), float(np.abs(y).max())
        if spread <= 2.0**-58 or largest >= 2.0**58:
            raise LocalProtocolError("the label does not vary, or is too large")
        scale = round(math.log2(spread))
        scaled = (y - mean) / 2.0**scale
        if np.abs(scaled).max() >= 2.0 ** (30 - LABEL_BITS):
            raise LocalProtocolError("a label is more than 10,000 standard deviations away from the mean")
        words = np.rint(scaled * 2.0**LABEL_BITS).astype(np.int32)
        return cls(words[:, None], mean, float((scaled**2).sum()), scale, math.ceil(math.log2(largest)) + ROOM)


@dataclass(frozen=True)
class _Plan:
    """Tickets of everything but `errors`, in order of use.  shift: from the Gram matrix's bits to those of the inverse."""

    n: int
    scale: int
    shift: int
    gram: list[Ticket]
    lower: list[Ticket]
    rough: list[Ticket]
    last: list[Ticket]
    solving: list[Ticket]
    again: list[Ticket]
    squares: list[Ticket]

    @classmethod
    def of(cls, session: Session, masks: Sequence[MatrixMask], label: MatrixMask, n: int) -> _Plan:
        """Ask the dealer for all of it before the masked columns cross."""
        D, scale = sum(m.n_cols for m in masks), gram_scale(n, len(masks))
        shift = 2 * INPUT_BITS + scale - MATRIX_BITS
        times = [plan_matmul((D, D), (D,)), plan_truncation(D, MATRIX_BITS + SOLUTION_BITS - RIGHT_BITS)]
        groups: list[list[Correlation]] = [
            list(plan_gram_of(session, [*masks, label])),
            [
                *([plan_truncation(D * D, shift)] if shift > 0 else []),
                plan_truncation(D, INPUT_BITS + LABEL_BITS + scale - RIGHT_BITS),
                plan_truncation(1, 2 * LABEL_BITS + scale - RIGHT_BITS),
            ],
            plan_inverse(D, DOUBLINGS - 1),
            plan_inverse(D, 1),
            plan_solve(D),
            [*times, *plan_solve(D)],
            [*times, plan_multiply((2, D)), plan_truncation(1, SUM_BITS - 36), plan_truncation(1, 56 - VARIANCE_BITS)],
        ]
        tickets = session.correlations.plan([request for group in groups for request in group])
        cut = np.cumsum([0, *map(len, groups)])
        return cls(n, scale, shift, *(tickets[a:b] for a, b in pairwise(cut)))


@dataclass(frozen=True)
class _Solved:
    """Shares: the weights, SOLUTION_BITS; the residual variance, VARIANCE_BITS; and the curvature."""

    weights: Words = field(repr=False)
    variance: Words = field(repr=False)
    curvature: Curvature = field(repr=False)


def _solved(problem: Problem, plan: _Plan, G: Words) -> _Solved:
    """Weights and residual variance from the Gram matrix, which has the label's row and column last."""
    session, D = problem.session, len(G) - 1
    lower = list(plan.lower)
    square = np.ascontiguousarray(G[:-1, :-1]).reshape(-1)
    bare = truncate(session, square, lower.pop(0)) if plan.shift > 0 else square << np.uint64(-plan.shift)
    bare = bare.reshape(D, D)
    right = truncate(session, np.ascontiguousarray(G[:-1, -1]), lower.pop(0))
    total = truncate(session, np.ascontiguousarray(G[-1, -1:]), lower.pop(0))
    A = bare + own_block(session.me, problem.dims, problem.block.ridge, MATRIX_BITS - plan.scale)
    coarser = inverse(session, plan.rough, A)
    X = refine(session, plan.last, A, coarser)
    u = solve(session, plan.solving, X, right)
    left = right - truncate(session, multiply(session, plan.again[0], A, u), plan.again[1])
    u = u + solve(session, plan.again[2:], X, left)
    # |y - Z u|^2 = y^T y - 2 u^T Z^T y + u^T Z^T Z u, all over 2^scale, with SUM_BITS
    image = truncate(session, multiply(session, plan.squares[0], bare, u), plan.squares[1])
    both = multiply(session, plan.squares[2], np.stack([u, u]), np.stack([right, image])).sum(axis=1, dtype=np.uint64)
    rest = (total << np.uint64(SOLUTION_BITS)) - both[:1] * np.uint64(2) + both[1:]
    freedom = plan.n - D
    factor = np.uint64(round(2.0 ** (20 + plan.scale) / freedom))
    variance = truncate(session, truncate(session, rest, plan.squares[3]) * factor, plan.squares[4])
    zero = np.zeros(D, dtype=np.uint64)
    return _Solved(u, variance, Curvature(plan.scale, X, coarser, zero, variance))


def _released(problem: Problem, found: _Solved, group: Group, label: _Label | None) -> Fitted:
    """Open the residual variance to all, and each block of weights with its errors to its owner and to nobody else."""
    unit = 2.0 ** group.facts["scale"]
    inference = errors(problem, Linear(), found.curvature, group.sizes, True)
    variance = float(reveal(from_words(found.variance, VARIANCE_BITS), tag="linear/variance")[0])
    mine = np.zeros(0)
    for owner, part in enumerate(problem.parts(found.weights)):
        opened = reveal_to(from_words(np.ascontiguousarray(part), SOLUTION_BITS), owner, tag="glm/weights")
        mine = mine if opened is None else opened
    weights, constant = problem.block.coefficients(mine)
    freedom = problem.n - sum(group.dims)
    error = inference.intercept_error
    inference = replace(
        inference, errors=inference.errors * unit, intercept_error=None if error is None else error * unit
    )
    bound = 2.0 ** group.facts["bound"]
    if label is None or constant is None:
        return Fitted(weights * unit, None, inference, variance * unit**2, freedom, bound)
    intercept = float(constant[0]) * unit + label.mean
    r2 = 1 - variance * freedom / label.square
    return Fitted(weights * unit, intercept, inference, variance * unit**2, freedom, bound, r2)
