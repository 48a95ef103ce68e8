"""Generalised linear models over columns that several owners hold about the same people.

Minimises  deviance / 2 + ridge/2 |w|^2  over the rows (the intercept is not penalised).  Each owner whitens its own block
(`vertical.whitening`) and enters it only through the masked-matrix product.  First come accelerated full-batch passes
(`vertical.passes`), then, if inference is asked for, Newton steps with a secret Hessian (`vertical.newton`), and from the last
one the standard errors (`vertical.inference`).  Weights, scores, residuals, gradients and the Hessian stay shared throughout;
at the end each owner is given the coefficients of its own columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.correlations import Ticket
from mpc.engine import from_words, reveal_to
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.matrix import MatrixMask, OwnerMatrix, mask_matrices, plan_masks
from mpc.session import Session
from mpc.wire import recv_json, send_json
from vertical.checkpoints import Checkpoints, expect
from vertical.families import Family, Logistic, Rows
from vertical.families_log import Gamma, Poisson, Tweedie
from vertical.inference import Inference, Row, describe, errors, from_text, parse, row, to_text
from vertical.newton import Newton, inside
from vertical.passes import (
    U_BITS,
    Problem,
    have_converged,
    linear_predictors,
    mask_penalty,
    plan_pass,
    plan_penalty,
    run_passes,
    shared_start,
)
from vertical.scores import Scores
from vertical.whitening import Block, whiten

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
Progress = Callable[[int, int], None]

ATTEMPT = 100_000
"""Numbers of steps that one attempt may use."""
SHAPE_TAG, RANGE_TAG = "glm/shape", "glm/range"


@dataclass(frozen=True)
class Settings:
    """How to train.

    family: "logistic", "poisson", "gamma" or "tweedie", whose variance is the mean to the `power`.  ridge: penalty; 0 leaves
    standard errors as they are defined.  passes: accelerated passes over the rows.  inference: whether to go on with Newton
    steps and give standard errors; at most `hessians` Hessians are made.  period, harmonics: of the sigmoid's series in the
    first attempt.  weighted, exposed: whether the owner of the label has case weights and offsets.
    """

    family: str = "logistic"
    ridge: float = 0.0
    passes: int = 40
    inference: bool = True
    hessians: int = 8
    period: int = 64
    harmonics: int = 12
    power: float = 1.5
    weighted: bool = False
    exposed: bool = False


def family_of(settings: Settings) -> Family:
    """The family that the settings name.  Raises: LocalProtocolError if there is none of this name."""
    more = {"weighted": settings.weighted, "exposed": settings.exposed}
    match settings.family:
        case "logistic":
            return Logistic(period=settings.period, harmonics=settings.harmonics, **more)
        case "poisson":
            return Poisson(**more)
        case "gamma":
            return Gamma(**more)
        case "tweedie":
            return Tweedie(power=settings.power, **more)
    raise LocalProtocolError(f"there is no family '{settings.family}'")


@dataclass(frozen=True)
class Fitted:
    """What one owner keeps: coefficients of its standardised inputs, (d,) or (d, outputs), and who has the label the intercept.

    Its part of a linear predictor is inputs times weights plus the intercept.  limit: in training no |part| was above limit
    over the number of owners.  inference: standard errors, if asked for.  settled: whether training had converged.
    """

    family: str
    weights: Floats
    intercept: float | Floats | None
    limit: float
    inference: Inference | None = None
    settled: bool | None = None

    @property
    def period(self) -> float:
        """Every part of a training score is at most period/(4 owners)."""
        return 4 * self.limit

    def part(self, inputs: Floats) -> Floats:
        """This owner's part of the linear predictors of some rows."""
        return np.asarray(inputs @ self.weights + (0.0 if self.intercept is None else self.intercept))

    def table(self, names: Sequence[str], level: float = 0.95) -> list[Row]:
        """One line for each coefficient, the intercept's first; in standardised coordinates: per standard deviation of an
        input, and the intercept is that of somebody whose inputs are all at their training means.

        `Row.scaled(1 / sd)` is a coefficient per unit of its input.  An intercept for inputs in their own units would take
        all owners' means and coefficients, so there is none.
        Raises: LocalProtocolError without inference.
        """
        if self.inference is None:
            raise LocalProtocolError("the model was trained without inference")
        found = self.inference
        lines = [
            row(name, float(w), float(e), note, level)
            for name, w, e, note in zip(names, self.weights, found.errors, found.notes, strict=True)
        ]
        if self.intercept is None or found.intercept_error is None:
            return lines
        first = row("intercept", float(self.intercept), found.intercept_error, found.intercept_note, level)
        return [first, *lines]

    def document(self) -> dict[str, Any]:
        """As plain data; numbers exactly."""
        return {
            "family": self.family,
            "weights": to_text(self.weights),
            "intercept": None if self.intercept is None else to_text(np.asarray(self.intercept)),
            "limit": repr(self.limit),
            "inference": None if self.inference is None else describe(self.inference),
            "settled": self.settled,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """What `document` made.  Raises: LocalProtocolError if it is anything else."""
        family, limit, inference, settled = (document.get(key) for key in ("family", "limit", "inference", "settled"))
        weights = from_text(document.get("weights"), "coefficients")
        start = document.get("intercept")
        intercept: float | Floats | None = None if start is None else from_text(start, "intercept")
        if intercept is not None and np.ndim(intercept) == 0:
            intercept = float(intercept)
        try:
            bound = float(limit)  # type: ignore[arg-type]  # whatever it is: what is no number is refused below
        except (TypeError, ValueError):
            bound = float("nan")
        good = isinstance(family, str) and bound > 0 and isinstance(settled, bool | None)
        if not isinstance(family, str) or not good or not isinstance(inference, Mapping | None):
            raise LocalProtocolError("the kept model cannot be read")
        found = None if inference is None else parse(inference, len(weights))
        return cls(family, weights, intercept, bound, found, settled)


@dataclass(frozen=True)
class _Shapes:
    """What the owners have told each other: whitened columns and coefficients, with the intercept's, and who is active."""

    dims: list[int]
    sizes: list[int]
    active: int


def train(
    session: Session,
    inputs: Floats,
    y: Floats | Rows | None,
    settings: Settings,
    progress: Progress = lambda _done, _total: None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Fit the model; every owner calls this at once with its own aligned rows.

    inputs: (n, d) standardised inputs of our columns.  y: (n,) labels at exactly one owner, None at the others.

    Reveals: to each owner, the coefficients of its own inputs (and the intercept, to the owner of the label); the number of
        inputs of every owner and how many of them are independent; whether a score left the range, once per attempt and
        Hessian; within a factor of two, the largest part of a score at any owner if it is above `limit` over the owners;
        whether training had converged, or a Hessian was out of range.  With inference also, to each owner, what
        `vertical.inference.errors` says, and to all how many Hessians it took.  Nothing else is opened.
    Cost: per pass 4 rounds; with D inputs in all, d_j of them at owner j and K harmonics, 10 n + 16 d_j + 24 D bytes to
        each other owner j; the dealer sends 16 (K + 1) n + 64 D bytes in all for two owners.  Once: 8 (n d + d^2) bytes
        to every other party for our d inputs.  A check of the range: 5 rounds and 17 n bytes to every other owner; the dealer
        sends 55 n.  A Hessian: about 80 rounds; 40 n bytes to every other owner, 8 n d more from the owner of fewer columns,
        d, to that of more, and about 800 D^2; the dealer sends (32 K + 8 D + 32) n + 800 D^2 with K = 24 for a period of 64.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Mohassel and Zhang, IEEE S&P 2017 (masked matrix); Lu et al., USENIX Security 2023 (Fourier sigmoid);
        Nesterov 1983, O'Donoghue and Candes 2015 (accelerated gradient with restarts); Hotelling 1943 (the inverse).
    Raises: RemoteProtocolError if the owners disagree on rows, settings or who has the label; LocalProtocolError if scores
        exceed the largest range or the labels are none of the family's.
    """
    rows = Rows(y) if isinstance(y, np.ndarray) else y
    family = family_of(settings)
    if rows is not None:
        family.check(rows)
    family = family.agreed(session, rows)
    block = whiten(inputs, settings.ridge * family.ridge_factor, family.curvature, intercept=rows is not None)
    shapes = _agree(session, block, len(inputs), family, settings)
    return _Training(session, block, inputs, rows, settings, shapes, progress, checkpoints).run(family)


def scores(session: Session, fitted: Fitted, inputs: Floats, offset: Floats | None = None) -> Scores:
    """Shares of the linear predictors of aligned rows.

    inputs: (n, d) standardised inputs of our columns.  offset: (n,) known to us, if any.  Our part is limited to the range of
    training, `limit` over the number of owners.

    Reveals: nothing.
    Cost: nothing is sent.
    Security: semi-honest owners.
    Source: additive secret sharing.
    Raises: LocalProtocolError if a value is not finite.
    """
    part = fitted.part(inputs)
    return Scores.of_part(part if offset is None else part + offset, fitted.limit, len(session.parties))


def _agree(session: Session, block: Block, n: int, family: Family, settings: Settings) -> _Shapes:
    """Exchange row counts, column counts, who has the label, and a digest of what must be the same."""
    alike = [family.described(), settings.ridge, settings.passes, settings.inference, settings.hessians, n]
    digest = hashlib.sha256(json.dumps(alike, sort_keys=True).encode()).hexdigest()
    label = block.constant > 0
    mine = {"inputs": block.inputs.shape[1], "size": len(block.basis) + label, "label": label, "alike": digest}
    for peer in session.peers:
        send_json(session.channel, peer, SHAPE_TAG, mine)
    stated = []
    for name in session.parties:
        value = mine if name == session.parties[session.me] else recv_json(session.channel, name, SHAPE_TAG)
        good = isinstance(value, dict) and set(value) == set(mine) and type(value["label"]) is bool
        good = good and all(type(value[key]) is int and 0 < value[key] < 100_000 for key in ("inputs", "size"))
        if not good or value["alike"] != digest:
            raise RemoteProtocolError(name, SHAPE_TAG, "states other rows or settings than ours, or no inputs")
        stated.append(value)
    labelled = [i for i, value in enumerate(stated) if value["label"]]
    if len(labelled) != 1:
        raise RemoteProtocolError(session.peers[0], SHAPE_TAG, "exactly one owner must have the label")
    return _Shapes([v["inputs"] for v in stated], [v["size"] for v in stated], labelled[0])


@dataclass(frozen=True)
class _Training:
    """One run of `train`, with what it was given."""

    session: Session
    block: Block = field(repr=False)
    X: Floats = field(repr=False)
    rows: Rows | None = field(repr=False)
    settings: Settings
    shapes: _Shapes
    progress: Progress
    checkpoints: Checkpoints | None

    def run(self, family: Family) -> Fitted:
        """All attempts: one for each range of scores that turns out too narrow, and the one that ends well."""
        found = None if self.checkpoints is None else self.checkpoints.restore(self.session)
        step, state = found if found is not None else (0, {})
        for _ in range(step // ATTEMPT):
            family = self._wider(family)
        problem, plan = self._prepared(family, step % ATTEMPT, 0)
        number = 1
        while True:
            u, fitted = self._attempt(problem, family, plan, step, state)
            if fitted is not None:
                return fitted
            old, family, step = family, self._wider(family), (step // ATTEMPT + 1) * ATTEMPT
            state = {}
            if family.curvature != old.curvature:
                problem, plan = self._prepared(family, 0, number)
                number += 1
                continue
            if u is not None:  # Newton steps go on from where scores were right
                state, step = {"u": u, "v": u}, step + self.settings.passes
            plan = self._plan(problem.inputs, problem.ridges, family, step % ATTEMPT)

    def _wider(self, family: Family) -> Family:
        wider = family.wider()
        if wider is None:
            raise LocalProtocolError(family.too_wide)
        return wider

    def _prepared(self, family: Family, done: int, number: int) -> tuple[Problem, list[list[Ticket]]]:
        """Whiten and mask our inputs, and our penalty if there is one; what the passes take is planned before they cross.

        number: of whitenings before, so that every matrix has a number of its own.
        """
        session, k, settings = self.session, len(self.shapes.dims), self.settings
        block = self.block
        if number:
            block = whiten(
                self.X, settings.ridge * family.ridge_factor, family.curvature, intercept=self.rows is not None
            )
        shapes, first = [(len(self.X), d) for d in self.shapes.dims], 2 * k * number
        masks = plan_masks(shapes, first)
        penalties = plan_penalty(self.shapes.dims, first + k) if settings.ridge else []
        tickets = session.correlations.plan([*masks, *penalties])
        plan = self._plan(masks, penalties, family, done)  # before the masked inputs cross: the dealer works meanwhile
        keep = settings.inference
        inputs = mask_matrices(session, shapes, block.inputs, first, tickets=tickets[:k], keep_mask=keep)
        ridges = mask_penalty(session, self.shapes.dims, block, first + k, tickets[k:]) if penalties else []
        return Problem(session, block, inputs, ridges, self.rows, self.shapes.active), plan

    def _plan(
        self,
        masks: Sequence[MatrixMask | OwnerMatrix],
        penalties: Sequence[MatrixMask | OwnerMatrix],
        family: Family,
        done: int,
    ) -> list[list[Ticket]]:
        """Ask the dealer for everything that the remaining passes take, in order of use."""
        one = plan_pass(masks, penalties, family)
        tickets = self.session.correlations.plan(one * max(0, self.settings.passes - done))
        return [tickets[i : i + len(one)] for i in range(0, len(tickets), len(one))]

    def _attempt(
        self, problem: Problem, family: Family, plan: list[list[Ticket]], step: int, state: dict[str, Any]
    ) -> tuple[Words | None, Fitted | None]:
        """The model, unless scores left the range; then shares of the last good weights after all passes, if there are."""
        first, passes = step // ATTEMPT * ATTEMPT, self.settings.passes
        shape = (sum(problem.dims),) if family.outputs == 1 else (sum(problem.dims), family.outputs)
        total = passes + (2 if self.settings.inference else 0)

        if state:
            u, v = expect(state, "u", shape), expect(state, "v", shape)
        else:
            u = v = shared_start(problem, family)
        plain, half, middle = not self.settings.inference, passes // 2, u
        if plain and state and step - first >= half:
            middle = expect(state, "middle", shape)

        def after(done: int, u: Words, v: Words) -> None:
            nonlocal middle
            if done == half:
                middle = u
            if self.checkpoints is not None:
                more = {"middle": middle} if plain and done >= half else {}
                self.checkpoints.save(first + done, {"u": u, "v": v, **more})
            self.progress(min(done, total), total)

        u = run_passes(problem, family, plan, (u, v), step - first, after)
        if plain:
            forward = plan_pass(problem.inputs, problem.ridges, family)[: len(problem.inputs)]
            eta = linear_predictors(problem, self.session.correlations.plan(forward), u)
            if not inside(problem, eta, family.limit):
                return None, None
            settled = have_converged(problem, family, middle, u)
            return None, replace(self._release(problem, u, family), settled=settled)
        newton = Newton(problem, family, self.settings.hessians, lambda done, w: after(passes + done, w, w))
        point = newton.run(u, max(0, step - first - passes))
        if point.last is None or point.u is None:
            return point.u, None
        inference = errors(problem, family, point.last, self.shapes.sizes, point.settled)
        self.progress(total, total)
        return point.u, replace(self._release(problem, point.u, family), inference=inference, settled=point.settled)

    def _release(self, problem: Problem, u: Words, family: Family) -> Fitted:
        """Open each block of weights to its owner and to nobody else, and agree how large the parts of scores are."""
        session = self.session
        mine: Floats | None = None
        start = 0
        for owner, d in enumerate(problem.dims):
            opened = reveal_to(from_words(np.ascontiguousarray(u[start : start + d]), U_BITS), owner, tag="glm/weights")
            mine = opened if owner == session.me else mine
            start += d
        if mine is None:
            raise RemoteProtocolError(session.parties[session.me], "glm/weights", "our weights were not opened to us")
        weights, found = problem.block.coefficients(mine)
        intercept: float | Floats | None = None
        if found is not None:
            found = found + family.intercept_shift
            intercept = float(found[0]) if family.outputs == 1 else found
        fitted, limit = Fitted(family.name, weights, intercept, family.limit), family.limit
        largest = float(np.abs(fitted.part(self.X)).max(initial=0.0))
        while not _all_agree(session, largest <= limit / len(problem.dims)):
            limit *= 2
        return replace(fitted, limit=limit)


def _all_agree(session: Session, ok: bool) -> bool:
    """One bit from every owner; true when all say yes."""
    flags = session.exchange(RANGE_TAG, np.array([ok], dtype=np.uint8))
    return ok and all(int(flag[0]) == 1 for flag in flags)
