"""The job kind "vertical.score", as one owner runs it: align new rows, encode them as the model says, and open predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.correlations import Usage
from mpc.engine import bind
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.session import Session
from mpc.supply import supply
from mpc.wire import recv_json, send_json
from vertical.align import Aligned, Identifiers, Terms, align, counts
from vertical.batches import Items
from vertical.online import Online
from vertical.score import Kind, Output, predict
from vertical.score_models import Kept
from vertical.scores import Scores
from vertical.stability import Reference, score_bands, stability_index, verdict

KIND = "vertical.score"
Progress = Callable[[str, int, int], None]
Columns = Mapping[str, npt.NDArray[Any]]
Serve = Callable[[Online, Aligned], None]
"""What the recipient of an online job does with its end; it returns after it has ended it."""


@dataclass(frozen=True)
class Plan:
    """Everything in the job's spec that an owner's computation depends on.

    terms: how rows are matched, and the owners.  randomness, dealer: as in mpc.supply.  model: its id, which all owners must
    mean alike.  offset: the column of ours that is added to the score, if any.  most: how many questions an online job
    answers; None for all rows at once.  cuts, expected: cut points of the score and the shares of training rows between them,
    if the stability of the scores is asked for; minimum: the fewest rows in a band.
    """

    terms: Terms
    randomness: str
    dealer: str | None
    model: str
    kept: Kept
    output: Output
    offset: str | None
    most: int | None
    release: tuple[str, ...]
    cuts: tuple[float, ...] = ()
    expected: tuple[float, ...] = ()
    minimum: int = 20
    reference: Reference | None = None


@dataclass(frozen=True)
class Data:
    """An owner's rows, as `vertical.job.Data`; columns are those that the model reads, and the offset's."""

    identifiers: Identifiers
    batches: Sequence[Items]
    columns: Columns


@dataclass(frozen=True)
class Outcome:
    """What a job comes to at one owner.

    result: what is released to it as a document.  rows, predictions: at a recipient, the numbers of its matched rows in its
    data set and what is told about each; None at the others and in online jobs.  used: correlated randomness, per kind.
    """

    result: dict[str, Any]
    rows: npt.NDArray[np.int64] | None = field(repr=False)
    predictions: npt.NDArray[Any] | None = field(repr=False)
    used: Mapping[str, Usage]


def output_of(
    kept: Kept,
    kind: Kind,
    recipients: Sequence[int],
    cuts: Sequence[float] = (),
    ends: tuple[float, float] = (0.0, 1.0),
    step: float = 0.01,
) -> Output:
    """What a job tells about each row, for the link of its model.

    cuts: the threshold of a decision, unless there are several classes, or the cut points of deciles, on the scale of the
    mean.  ends, step: of a rounded mean.  Raises: LocalProtocolError if these do not fit together.
    """
    if kind == "rounded":
        return Output.rounded(recipients, kept.link, ends, step)
    return Output(kind, tuple(recipients), kept.link, tuple(cuts))


def run(
    plan: Plan, data: Data, channel: Channel, session_id: bytes, progress: Progress, serve: Serve | None = None
) -> Outcome:
    """Run the whole job as one owner.

    serve: at the recipient of an online job.

    Reveals: as the matching, vertical.score and the supply of randomness declare.
    Raises: LocalProtocolError for data of ours that the job cannot use, Refused below the minimum of matches or as
        `vertical.score.predict`, RemoteProtocolError and PeerLost naming a peer.
    """
    owners, place = plan.terms.owners, plan.terms.me
    progress("align", 0, 1)
    found = align(plan.terms, data.batches, session_id, channel, lambda done, total: progress("align", done, total))
    aligned = {name: column[found.rows] for name, column in data.columns.items()}
    offset = None if plan.offset is None else np.asarray(aligned[plan.offset], dtype=np.float64)
    correlations = supply(plan.randomness, channel, owners, plan.dealer, place)
    session = Session(channel, owners, place, correlations)
    _same_model(session, plan)
    told: npt.NDArray[Any] | None = None
    with bind(session):
        progress("score", 0, 1)
        scores = plan.kept.scores(session, aligned, offset)
        result = _stability(session, plan, scores)
        if plan.most is None:
            told = predict(session, scores, plan.output, len(plan.kept.columns))
        else:
            result["questions"] = _answer(session, plan, scores, found, serve)
        progress("score", 1, 1)
    correlations.settle()
    correlations.close()
    if "counts" in plan.release:
        result["rows"] = counts(data.identifiers, found)
    if plan.reference is not None:
        result["inputs"] = _inputs(plan.reference, aligned)
    rows = None if told is None else np.asarray(found.rows, dtype=np.int64)
    return Outcome(result, rows, told, correlations.used)


def _same_model(session: Session, plan: Plan) -> None:
    """All owners must use parts of one model, for one output: what they do next depends on it."""
    stated = [plan.model, plan.kept.kind, plan.kept.family, repr(plan.output), plan.most, list(plan.cuts), plan.minimum]
    mine = hashlib.sha256(repr(stated).encode()).hexdigest()
    for peer in session.peers:
        send_json(session.channel, peer, "score/model", mine)
    for peer in session.peers:
        if recv_json(session.channel, peer, "score/model", 1 << 10) != mine:
            raise RemoteProtocolError(peer, "score/model", "predicts with another model, or something else")


def _answer(session: Session, plan: Plan, scores: Scores, found: Aligned, serve: Serve | None) -> int:
    online = Online(session, scores, plan.output, len(plan.kept.columns), plan.most or 0)
    if session.me not in plan.output.recipients:
        return online.answer()
    if serve is None:
        raise LocalProtocolError("the recipient of an online job has nobody to ask questions")
    serve(online, found)
    return online.asked


def _stability(session: Session, plan: Plan, scores: Scores) -> dict[str, Any]:
    """The stability of scores since training, if it is asked for; numbers as decimal text."""
    if "stability" not in plan.release:
        return {}
    if len(plan.expected) != len(plan.cuts) + 1:
        raise LocalProtocolError("the stability of scores takes the share of training rows between all cut points")
    bands = score_bands(session, scores, plan.cuts, plan.minimum)
    index = stability_index(np.array(plan.expected), bands)
    return {"stability": {"index": f"{index:.4f}", "verdict": verdict(index), "counts": bands.tolist()}}


def _inputs(reference: Reference, aligned: Columns) -> list[dict[str, Any]]:
    """How our own columns have moved since training; computed alone, and for us alone."""
    lines = reference.drift(aligned)
    return [{"column": one.column, "index": f"{one.index:.4f}", "verdict": one.verdict} for one in lines]
