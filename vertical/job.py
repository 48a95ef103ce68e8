"""A job that trains a model, as one owner runs it: align, split, encode, train, evaluate, release."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.correlations import Usage
from mpc.engine import bind
from mpc.errors import LocalProtocolError
from mpc.session import Session
from mpc.supply import supply
from vertical import metrics
from vertical.align import Aligned, Identifiers, Terms, align, counts
from vertical.batches import Items
from vertical.checkpoints import Owners
from vertical.encoding import Feature
from vertical.evaluate import auc
from vertical.families import Rows
from vertical.figures import MINIMUM_PER_CLASS
from vertical.learners import Encoding, Learner, Part
from vertical.resuming import Finished, Keep, spare_steps
from vertical.scores import Scores
from vertical.shapley import shapley, turned
from vertical.split import holdout
from vertical.stability import Reference

Progress = Callable[[str, int, int], None]
Columns = Mapping[str, npt.NDArray[Any]]
Mask = npt.NDArray[np.bool_]
_EVALUATED = frozenset({"auc", "metrics", "contribution"})
"""What is released about the held-out rows."""


@dataclass(frozen=True)
class Label:
    """The columns that the active owner alone has: the label, and what is added to scores or counts rows, if anything."""

    column: str
    offset: str | None = None
    weight: str | None = None


@dataclass(frozen=True)
class Plan:
    """Everything in the job's spec that an owner's computation depends on.

    terms: how rows are matched, and the owners.  randomness: where correlated randomness comes from, as in mpc.supply.
    dealer: its name, None if there is none.  active: the place among the owners of the one that has the label.  label: at
    that owner, None at the others.  groups: columns by which figures are split, with the place of their owner.  thresholds,
    bins: of the evaluation.
    """

    terms: Terms
    randomness: str
    dealer: str | None
    active: int
    label: Label | None
    features: tuple[Feature, ...]
    encoding: Encoding
    learner: Learner
    holdout_percent: int
    salt: bytes
    release: tuple[str, ...]
    groups: tuple[tuple[str, int], ...] = ()
    thresholds: tuple[str, ...] = ("0.5",)
    bins: int = 10


@dataclass(frozen=True)
class Data:
    """An owner's rows.

    identifiers, batches: what its keys come to.  columns: the label and numbers as float64 with NaN for missing, categories
    as text with None.
    """

    identifiers: Identifiers
    batches: Sequence[Items]
    columns: Columns


@dataclass(frozen=True)
class Outcome:
    """What a job comes to at one owner.

    result: what is released to it, with numbers as decimal strings.  used: correlated randomness it took, per kind.
    """

    result: dict[str, Any]
    used: Mapping[str, Usage]


@dataclass(frozen=True)
class Trained(Outcome):
    """What a training comes to at one owner.

    part: its part of the model, to keep if that is released.  reference: what later rows are compared with.  training: how
    many rows.
    """

    part: Part
    reference: Reference
    training: int


Document = Callable[[Trained], dict[str, Any]]


def run(
    plan: Plan,
    data: Data,
    channel: Channel,
    session_id: bytes,
    progress: Progress,
    keep: Keep | None = None,
    document: Document = attrgetter("result"),
) -> Trained:
    """Run the whole job as one owner.

    keep: where it goes on after a crash; None to begin anew.  document: makes what is released of what it came to.

    Reveals: as the matching, the learner's kind, vertical.metrics and the supply of randomness declare.
    Raises: LocalProtocolError for data of ours that the job cannot use, Refused below the minimum of matches,
        RemoteProtocolError and PeerLost naming a peer.
    """
    owners, place = plan.terms.owners, plan.terms.me
    _check(data.columns, plan, owners[place])
    group = Owners(channel, owners, place)
    progress("align", 0, 1)

    def find() -> Aligned:
        return align(plan.terms, data.batches, session_id, channel, lambda done, total: progress("align", done, total))

    found = find() if keep is None else keep.aligned(group, find)
    held = holdout(found.items or [], plan.salt, plan.holdout_percent)
    aligned = {name: column[found.rows] for name, column in data.columns.items()}
    _enough(plan, owners[place], aligned, held)
    learner = plan.learner
    encoder = learner.encode(aligned, plan.features, ~held, plan.encoding)
    inputs = encoder.transform(aligned)
    if isinstance(inputs, np.ndarray) and inputs.shape[1] == 0:
        raise LocalProtocolError(f"no feature column of {owners[place]} varies over the matched training rows")
    correlations = supply(plan.randomness, channel, owners, plan.dealer, place)
    session = Session(channel, owners, place, correlations)
    with bind(session):
        label = None if plan.label is None else _label(plan.label, aligned, ~held)
        fitted = learner.train(
            session,
            learner.take(inputs, ~held),
            label,
            lambda done, total: progress("train", done, total),
            None if keep is None else keep.checkpoints(spare_steps(learner.kind, len(held))),
        )
        part = Part(encoder, fitted)
        progress("evaluate", 0, 1)
        figures = _evaluate(session, plan, part, aligned, learner.take(inputs, held), held)
        progress("evaluate", 1, 1)
    correlations.settle()
    compared = [feature for feature in plan.features if feature.kind != "text"]
    reference = Reference.of(aligned, compared, ~held)
    result = _released(plan, part, figures, data, found, held)
    trained = Trained(result, correlations.used, part, reference, int((~held).sum()))
    trained = replace(trained, result=document(trained))
    if keep is not None:
        keep.finish(group, Finished(trained.result, trained.used))
    correlations.close()
    return trained


def _check(columns: Columns, plan: Plan, me: str) -> None:
    """The label must be there in every row; a binary one must be 0 and 1, both."""
    if plan.label is None:
        return
    y = np.asarray(columns[plan.label.column], dtype=np.float64)
    if plan.learner.family == "logistic" and (not np.isin(y, (0.0, 1.0)).all() or len(np.unique(y)) != 2):
        raise LocalProtocolError(
            f"the label column '{plan.label.column}' of {me} must hold both 0 and 1 and nothing else"
        )
    for name in (plan.label.column, plan.label.offset, plan.label.weight):
        if name is not None and not np.isfinite(np.asarray(columns[name], dtype=np.float64)).all():
            raise LocalProtocolError(f"column '{name}' of {me} must hold a number in every row")


def _enough(plan: Plan, me: str, columns: Columns, held: Mask) -> None:
    """That there is something to train on and to evaluate with, before anything is revealed of a model."""
    if held.all() or not held.any():
        raise LocalProtocolError("all matched rows are held out, or none is: change 'evaluate.holdout_percent'")
    if plan.label is None or plan.learner.family != "logistic" or not _EVALUATED & set(plan.release):
        return
    positive = int(columns[plan.label.column][held].sum())
    if min(positive, int(held.sum()) - positive) < MINIMUM_PER_CLASS:
        raise LocalProtocolError(f"a class of the label of {me} has fewer than {MINIMUM_PER_CLASS} held-out rows")


def _label(label: Label, columns: Columns, rows: Mask) -> Rows:
    """What the active owner knows of these rows."""
    offset, weights = (None if name is None else columns[name][rows] for name in (label.offset, label.weight))
    return Rows(columns[label.column][rows], offset, weights)


def _evaluate(session: Session, plan: Plan, part: Part, columns: Columns, inputs: Any, held: Mask) -> dict[str, Any]:
    """What is asked for about the held-out rows."""
    figures: dict[str, Any] = {}
    if not _EVALUATED & set(plan.release):
        return figures
    own = None if plan.label is None else _label(plan.label, columns, held)
    y, offset = (None, None) if own is None else (own.y, own.offset)
    if {"auc", "metrics"} & set(plan.release):
        scores = plan.learner.scores(session, part.fitted, inputs, offset)
        if "auc" in plan.release:
            figures["auc"] = f"{auc(session, scores, y, plan.active, dealer=plan.dealer is not None):.4f}"
        if "metrics" in plan.release:
            figures["metrics"] = _metrics(session, plan, scores, y, columns, held)
    if "contribution" in plan.release:

        def score(rows: npt.NDArray[np.int64]) -> Scores:
            moved = None if offset is None else offset[rows]
            return plan.learner.scores(session, part.fitted, plan.learner.take(inputs, rows), moved)

        values = shapley(session, score, turned(int(held.sum())), y, plan.active)
        figures["contribution"] = dict(zip(session.parties, values, strict=True))
    return figures


def _metrics(session: Session, plan: Plan, scores: Scores, y: Any, columns: Columns, held: Mask) -> dict[str, Any]:
    settings = metrics.Settings(
        family=plan.learner.family,
        power=plan.learner.power,
        bins=plan.bins,
        thresholds=plan.thresholds,
        dealer=plan.dealer is not None,
    )
    groups = [
        metrics.Group(name, owner, columns[name][held] if owner == session.me else None) for name, owner in plan.groups
    ]
    return metrics.evaluate(session, scores, y, plan.active, settings, groups)


def _released(
    plan: Plan, part: Part, figures: dict[str, Any], data: Data, found: Aligned, held: Mask
) -> dict[str, Any]:
    """The result document of this owner."""
    model = plan.learner.told(part, plan.release)
    result = {**({"model": model} if model else {}), **figures}
    if "counts" in plan.release:
        split = {"training": int((~held).sum()), "held_out": int(held.sum())}
        result["rows"] = {**counts(data.identifiers, found), **split}
    return result
