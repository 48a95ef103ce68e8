"""Standard errors, z, p-values and confidence intervals of a fitted model, each coefficient's for its owner alone.

With H the Hessian at the optimum, in whitened coordinates, owner b's coefficients T_b u_b have the variances

    dispersion * diag(T_b (H^-1)_bb T_b^T).

T_b is b's secret and (H^-1)_bb is nobody's, so the products are made on shares, and b is shown their diagonal, rounded at
random.  Two bits for each coefficient say whether it may be used: whether the data determine its variance, and whether it had
stopped moving.  A column that separates the label, or that depends on columns of others, fails one of them.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than, plan_less_than
from mpc.correlations import Correlation
from mpc.engine import from_words, reveal_to
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.linear import FORM_BITS, ROW_BITS, SOLUTION_BITS, forms, plan_forms
from mpc.products import multiply, multiply_many, plan_matmul, plan_multiply, plan_square, square
from mpc.ring import encode
from mpc.truncation import plan_truncation, truncate, truncate_many
from vertical.families import Family
from vertical.newton import Curvature, block
from vertical.passes import Problem

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]

UNRESOLVED = 100
"""A variance that still grew by more than one part in so many in the inverse's last doubling is not determined."""
MOVING = 0.1
"""A coefficient that moved by more than so many of its standard errors in the last step had not settled."""
VARIANCE_BITS = 30
"""Fractional bits of a variance that the dispersion was multiplied into."""
NOT_DETERMINED = "not estimable: the column separates the label, or depends on columns of other owners"
NOT_SETTLED = "not estimable: its coefficient was still growing, as that of a column that separates the label does"
BESIDE = "not estimable: an input of the same owner is not"
DEPENDENT = "not estimable: the column is a combination of others of the same owner"


@dataclass(frozen=True)
class Inference:
    """What an owner knows of how sure its coefficients are, in standardised coordinates.

    errors: (d,) standard errors, NaN where there is a note.  notes: (d,) why a coefficient is not estimable, else "".
    intercept_error, intercept_note: at the owner of the label.  settled: whether training had converged.
    """

    errors: Floats
    notes: tuple[str, ...]
    intercept_error: float | None
    intercept_note: str
    settled: bool


@dataclass(frozen=True)
class Row:
    """One line of a table of coefficients.  error, z, p, low and high are None where the note says why."""

    name: str
    coefficient: float
    error: float | None
    z: float | None
    p: float | None
    low: float | None
    high: float | None
    note: str

    def scaled(self, factor: float) -> Row:
        """The same coefficient per another unit: times a positive factor; z and p stay."""
        times = [None if v is None else v * factor for v in (self.coefficient, self.error, self.low, self.high)]
        return Row(self.name, self.coefficient * factor, times[1], self.z, self.p, times[2], times[3], self.note)


def row(name: str, coefficient: float, error: float, note: str, level: float = 0.95) -> Row:
    """Wald test and interval of one coefficient; p is two-sided.

    level: of the confidence interval, between 0 and 1.
    """
    if note or not math.isfinite(error) or error <= 0:
        return Row(name, coefficient, None, None, None, None, None, note or "has no standard error")
    z, wide = coefficient / error, NormalDist().inv_cdf(0.5 + level / 2) * error
    return Row(
        name, coefficient, error, z, math.erfc(abs(z) / math.sqrt(2)), coefficient - wide, coefficient + wide, ""
    )


def plan_errors(problem: Problem, sizes: Sequence[int], family: Family) -> list[list[Correlation]]:
    """What `errors` asks of the dealer, in groups.  sizes: how many coefficients each owner has, with the intercept."""
    shapes, total = list(zip(sizes, problem.dims, strict=True)), sum(sizes)
    scaled: list[Correlation] = []
    if family.plan_dispersion(problem.n, len(sizes)) is not None:
        lower = plan_truncation(total, FORM_BITS + family.dispersion_bits - VARIANCE_BITS)
        scaled = [plan_multiply((total,), (1,)), lower]
    moves: list[Correlation] = [plan_matmul(shape, (shape[1],)) for shape in shapes]
    moves += [plan_truncation(rows, ROW_BITS) for rows, _ in shapes]
    return [
        plan_forms(shapes),
        plan_forms(shapes),
        moves,
        [plan_square((total,))],
        scaled,
        list(plan_less_than(2 * total, 1)),
    ]


def errors(problem: Problem, family: Family, last: Curvature, sizes: Sequence[int], settled: bool) -> Inference:
    """Standard errors of each owner's coefficients, shown to that owner.

    last: the curvature at the last step.  sizes: how many coefficients each owner has, with the intercept.

    Reveals: to each owner, the variance of each of its coefficients, and for each whether it is determined and had settled.
    Cost: 21 rounds, and 2 more if the dispersion is not 1; no bytes depend on the number of rows.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Wald 1943; the Fisher information of a generalised linear model, McCullagh and Nelder 1989, section 2.5.
    Raises: RemoteProtocolError if nothing was opened to us.
    """
    session, k = problem.session, len(sizes)
    groups = plan_errors(problem, sizes, family)
    tickets = session.correlations.plan([request for group in groups for request in group])
    cut = np.cumsum([0, *map(len, groups)])
    fine, rough, moving, squaring, scaling, comparing = (tickets[a:b] for a, b in pairwise(cut))
    rows, lengths = problem.block.rows()
    blocks = [block(last.inverse, problem, b) for b in range(k)]
    before = [block(last.coarser, problem, b) for b in range(k)]
    form = np.concatenate(forms(session, fine, blocks, rows))
    grown = form - np.concatenate(forms(session, rough, before, rows))
    known = [np.zeros((size, d), dtype=np.uint64) for size, d in zip(sizes, problem.dims, strict=True)]
    known[session.me] = encode(rows, ROW_BITS)
    wide = multiply_many(session, list(zip(moving[:k], known, problem.parts(last.step), strict=True)))
    moved = square(session, squaring[0], np.concatenate(truncate_many(session, moving[k:], wide)))
    variance, bits = form, FORM_BITS
    if last.dispersion is not None:
        product = multiply(session, scaling[0], form, last.dispersion)
        variance, bits = truncate(session, product, scaling[1]), VARIANCE_BITS
    # (step)^2 has 52 fractional bits and is compared with MOVING^2 times the variance, which is in units of 2^-scale
    allowed = max(1, round(MOVING**2 * 2.0 ** (2 * SOLUTION_BITS - bits - last.scale)))
    doubts = np.concatenate([form - grown * np.uint64(UNRESOLVED), variance * np.uint64(allowed) - moved])
    flags = less_than(session, comparing, doubts, (0,))[0].reshape(2, -1)
    opened = _opened(problem, sizes, variance, flags, bits)
    found = _inference(problem, opened, lengths * 2.0 ** (-last.scale / 2), settled)
    separated = family.name != "linear" and any(note and note != DEPENDENT for note in found.notes)
    if separated and found.intercept_error is not None and not found.intercept_note:
        # the intercept is that of somebody at the means of all inputs, also of the one whose coefficient nobody knows
        return replace(found, intercept_error=math.nan, intercept_note=BESIDE)
    return found


def _opened(problem: Problem, sizes: Sequence[int], variance: Words, flags: Words, bits: int) -> Floats:
    """(3, our coefficients): variances and both flags, each owner's shown to it."""
    mine = None
    start = 0
    for owner, size in enumerate(sizes):
        part = slice(start, start + size)
        shown = reveal_to(from_words(variance[part], bits), owner, tag="inference/variances")
        doubted = reveal_to(from_words(np.ascontiguousarray(flags[:, part]), 0), owner, tag="inference/flags")
        if owner == problem.session.me and shown is not None and doubted is not None:
            mine = np.vstack([shown, doubted])
        start += size
    if mine is None:
        session = problem.session
        raise RemoteProtocolError(
            session.parties[session.me], "inference/variances", "our variances were not opened to us"
        )
    return mine


def _inference(problem: Problem, opened: Floats, factors: Floats, settled: bool) -> Inference:
    variances, unresolved, moving = opened
    values = np.sqrt(np.maximum(variances, 0)) * factors
    dependent = problem.block.dependent
    notes = [_note(bool(u), bool(m)) for u, m in zip(unresolved, moving, strict=True)]
    notes = [DEPENDENT if i < len(dependent) and dependent[i] else note for i, note in enumerate(notes)]
    values[[note != "" for note in notes]] = np.nan
    if not problem.block.constant:
        return Inference(values, tuple(notes), None, "", settled)
    return Inference(values[:-1], tuple(notes[:-1]), float(values[-1]), notes[-1], settled)


def _note(unresolved: bool, moving: bool) -> str:
    return NOT_DETERMINED if unresolved else NOT_SETTLED if moving else ""


def to_text(values: Floats) -> dict[str, Any]:
    """Numbers as plain data, exactly."""
    little = np.asarray(values, dtype="<f8")
    return {"shape": list(little.shape), "f8": base64.b64encode(little.tobytes()).decode()}


def from_text(document: Any, what: str) -> Floats:
    """What `to_text` made.  Raises: LocalProtocolError if it is anything else."""
    try:
        shape = tuple(int(n) for n in document["shape"])
        flat = np.frombuffer(base64.b64decode(document["f8"], validate=True), dtype="<f8")
        return np.array(flat.reshape(shape), dtype=np.float64)
    except (KeyError, TypeError, ValueError) as exc:
        raise LocalProtocolError(f"the kept {what} cannot be read") from exc


def describe(inference: Inference) -> dict[str, Any]:
    """As plain data."""
    return {
        "errors": to_text(inference.errors),
        "notes": list(inference.notes),
        "intercept_error": None if inference.intercept_error is None else repr(inference.intercept_error),
        "intercept_note": inference.intercept_note,
        "settled": inference.settled,
    }


def parse(document: Mapping[str, Any], d: int) -> Inference:
    """What `describe` made, of d coefficients.  Raises: LocalProtocolError if it is anything else."""
    values = from_text(document.get("errors"), "standard errors")
    notes, error = document.get("notes"), document.get("intercept_error")
    note, settled = document.get("intercept_note"), document.get("settled")
    if values.shape != (d,) or not isinstance(notes, list) or len(notes) != d or not isinstance(settled, bool):
        raise LocalProtocolError("the kept standard errors cannot be read")
    if not all(isinstance(x, str) for x in [*notes, note]) or not isinstance(error, str | None):
        raise LocalProtocolError("the kept standard errors cannot be read")
    try:
        number = None if error is None else float(error)
    except ValueError as exc:
        raise LocalProtocolError("the kept standard errors cannot be read") from exc
    return Inference(values, tuple(notes), number, str(note), settled)
