"""An owner's part of a job that predicts: from the spec, its kept part of a model and its rows to what is released to it."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np

from mpc.errors import LocalProtocolError
from silos import questions
from silos.extracts import take_rows
from silos.inputs import read_columns
from silos.leftovers import TABLE
from silos.model_parts import kept
from silos.models import ModelPart, parse_part
from silos.spec import Score
from silos.tasks import Done, Task
from silos.times import from_text, utcnow
from vertical.align import Aligned
from vertical.online import Online
from vertical.score_job import Data, Outcome, Plan, output_of, run
from vertical.score_models import Kept
from vertical.stability import Reference

PREDICTION = "_prediction"


def score(task: Task) -> Done:
    """Read, match, predict.  Raises: as `silos.tasks.perform`."""
    spec = task.spec
    if not isinstance(spec, Score) or task.part is None:
        raise LocalProtocolError("not a job that predicts, or there is no part of its model")
    part = parse_part(task.part)
    own = next(p for p in spec.parties if p.silo == task.me)
    plan = _plan(task, spec, part, own.offset)
    task.progress("read", 0, 1)
    identifiers, batches = task.identifiers()
    columns = read_columns(task.data, own.number_columns, own.category_columns, task.me)
    task.check_unchanged()
    channel = task.connect()
    serve = functools.partial(_serve, task, spec) if spec.questions is not None else None
    done = run(plan, Data(identifiers, batches, columns), channel, task.session, task.progress, serve)
    return Done(channel, _released(task, done), spec.release, done.used)


def _plan(task: Task, spec: Score, part: ModelPart, offset: str | None) -> Plan:
    read = kept(part)
    reference = Reference.from_document(part.reference)
    limits = spec.stability
    return Plan(
        terms=task.terms,
        randomness=spec.randomness or "",
        dealer=spec.dealer,
        model=spec.model,
        kept=read,
        output=_output(spec, read),
        offset=offset,
        most=spec.questions,
        release=spec.release,
        cuts=() if limits is None else tuple(map(float, limits.cuts)),
        expected=() if limits is None else tuple(map(float, limits.expected)),
        minimum=20 if limits is None else limits.minimum,
        reference=Reference(tuple(band for band in reference.bands if band.column in read.columns)),
    )


def _output(spec: Score, read: Kept) -> Any:
    recipients = [spec.owners.index(name) for name in spec.recipients]
    if spec.output == "rounded" and spec.low is not None and spec.high is not None and spec.step is not None:
        return output_of(read, spec.output, recipients, (), (float(spec.low), float(spec.high)), float(spec.step))
    return output_of(read, spec.output, recipients, [float(cut) for cut in spec.cuts])


def _serve(task: Task, spec: Score, online: Online, found: Aligned) -> None:
    """Answer questions at our socket until the job's time is nearly over: ending takes some of it."""
    left_s = (from_text(spec.valid_until) - utcnow()).total_seconds()
    until = time.monotonic() + max(0.0, left_s - min(left_s / 2, max(10.0, 2.0 * spec.limits.timeout_s)))
    place = questions.places(task.terms.keys, found.items or [])
    task.progress("answer", 0, 1)
    questions.serve(task.folder, online, place, silent_s=spec.limits.timeout_s / 3, until=until)


def _released(task: Task, done: Outcome) -> dict[str, Any]:
    """At a recipient, a table with the key's columns of our rows, and what is told about each."""
    if done.rows is None or done.predictions is None:
        return done.result
    told = np.asarray(done.predictions)
    names = [PREDICTION] if told.ndim == 1 else [f"{PREDICTION}_{i}" for i in range(told.shape[1])]
    extra: dict[str, Any] = {"_row": done.rows, **dict(zip(names, told.reshape(len(told), -1).T, strict=True))}
    output = task.party.join_columns
    rows, sha256 = take_rows(task.data, done.rows, output, task.folder / TABLE, extra, task.folder)
    return {**done.result, "table": {"rows": rows, "sha256": sha256}}
