"""An owner's part of a job that looks at columns: from the spec and its rows to what is released to it."""

from __future__ import annotations

from mpc.errors import LocalProtocolError
from silos.inputs import read_columns
from silos.spec import Statistics
from silos.tasks import Done, Task
from vertical import stepwise, woe
from vertical.encoding import Feature
from vertical.job import Data
from vertical.statistics_job import Plan, run


def examine(task: Task) -> Done:
    """Read, match, compute.  Raises: as `silos.tasks.perform`."""
    spec = task.spec
    if not isinstance(spec, Statistics):
        raise LocalProtocolError("not a job that looks at columns")
    own = next(p for p in spec.parties if p.silo == task.me)
    figures = spec.statistics
    plan = Plan(
        terms=task.terms,
        randomness=spec.randomness or "",
        dealer=spec.dealer,
        label=own.label,
        features=tuple(Feature(f.column, f.as_) for f in own.features),
        names=tuple(tuple(f.column for f in party.features) for party in spec.parties),
        winsorise_sd=spec.encoding.winsorise_sd,
        rare_category=spec.encoding.rare_category,
        release=spec.release,
        minimum=figures.minimum,
        rows_per_column=figures.rows_per_column,
        bins=figures.bins,
        weights=woe.Settings(
            floor=figures.floor,
            share=float(figures.share),
            merge=figures.merge,
            tell="information_values" in spec.release,
        ),
        selection=stepwise.Settings(
            direction=figures.select,
            enter=float(figures.enter),
            remove=float(figures.remove),
            most=figures.most,
            minimum=figures.minimum,
        ),
        logistic=spec.selects == "logistic",
    )
    task.progress("read", 0, 1)
    identifiers, batches = task.identifiers()
    columns = read_columns(task.data, own.number_columns, own.category_columns, task.me)
    task.check_unchanged()
    channel = task.connect()
    done = run(plan, Data(identifiers, batches, columns), channel, task.session, task.progress)
    return Done(channel, done.result, spec.release, done.used)
