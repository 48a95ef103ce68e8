"""The job kind "vertical.statistics", as one owner runs it: align, and look at the columns before anything is modelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.engine import bind
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.session import Session
from mpc.supply import supply
from mpc.wire import recv_json, send_json
from vertical import statistics, stepwise, woe
from vertical.align import Terms, align, counts
from vertical.binning import Binner
from vertical.encoding import Encoder, Feature, fit
from vertical.job import Data, Outcome

KIND = "vertical.statistics"
SELECTION = "selection"
WEIGHTS, VALUES = "woe", "information_values"
RELEASES = (*statistics.RELEASES, WEIGHTS, VALUES, SELECTION, "counts")
CORRELATING, SELECTING, WEIGHING = (i << 20 for i in (1, 2, 3))
"""Numbers of the first masked matrix of each part; training uses those below."""
Progress = Callable[[str, int, int], None]
Columns = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """Everything in the job's spec that an owner's computation depends on.

    terms: how rows are matched, and the owners.  randomness, dealer: as in mpc.supply.  label: its column at its owner, None at
    the others.  features: ours; names: every owner's columns that are numbers or categories, in the same order.  bins: of
    each column, for its weights of evidence, which text has none of.  release: some of RELEASES.  minimum, rows_per_column:
    as in `vertical.statistics.Settings`.  logistic: whether columns are selected for a logistic regression; else a linear one.
    """

    terms: Terms
    randomness: str
    dealer: str | None
    label: str | None
    features: tuple[Feature, ...]
    names: tuple[tuple[str, ...], ...]
    winsorise_sd: int
    rare_category: int
    release: tuple[str, ...]
    minimum: int = statistics.FEWEST_ROWS
    rows_per_column: int = 10
    bins: int = 10
    weights: woe.Settings = woe.Settings()  # noqa: RUF009
    selection: stepwise.Settings = stepwise.Settings()  # noqa: RUF009
    logistic: bool = False

    def __post_init__(self) -> None:
        if not self.release or not set(self.release) <= set(RELEASES):
            raise LocalProtocolError(f"a job of this kind releases some of {', '.join(RELEASES)}")

    def wants(self, *items: str) -> bool:
        """Whether any of these is released."""
        return bool(set(items) & set(self.release))


def run(plan: Plan, data: Data, channel: Channel, session_id: bytes, progress: Progress) -> Outcome:
    """Run the whole job as one owner.

    Reveals: as the matching, vertical.statistics, vertical.woe, vertical.stepwise and the supply of randomness declare, each
        for what is released of it.
    Raises: LocalProtocolError for data of ours that the job cannot use, Refused below the minimum of matches or rows,
        RemoteProtocolError and PeerLost naming a peer.
    """
    owners, place = plan.terms.owners, plan.terms.me
    progress("align", 0, 1)
    found = align(plan.terms, data.batches, session_id, channel, lambda done, total: progress("align", done, total))
    aligned = {name: column[found.rows] for name, column in data.columns.items()}
    y = None if plan.label is None else np.asarray(aligned[plan.label], dtype=np.float64)
    everyone = np.ones(len(found.rows), dtype=bool)
    encoder = fit(
        aligned, list(plan.features), everyone, winsorise_sd=plan.winsorise_sd, rare_category=plan.rare_category
    )
    inputs = encoder.transform(aligned)
    if plan.wants(*statistics.RELEASES, SELECTION) and not inputs.shape[1]:
        raise LocalProtocolError(f"no feature column of {owners[place]} varies over the matched rows")
    correlations = supply(plan.randomness, channel, owners, plan.dealer, place)
    session = Session(channel, owners, place, correlations)
    result: dict[str, Any] = {}
    with bind(session):
        if plan.wants(*statistics.RELEASES):
            progress("statistics", 0, 1)
            result |= _statistics(session, plan, encoder, inputs, y)
            progress("statistics", 1, 1)
        if plan.wants(SELECTION):
            chosen = _chosen(session, plan, inputs, y, progress)
            result["selection"] = _selection(chosen, owners, _names(encoder))
        if plan.wants(WEIGHTS, VALUES):
            progress("woe", 0, 1)
            result |= _evidence(session, plan, aligned, y)
            progress("woe", 1, 1)
    correlations.settle()
    correlations.close()
    if plan.wants("counts"):
        result["rows"] = counts(data.identifiers, found)
    return Outcome(result, correlations.used)


def _names(encoder: Encoder) -> list[str]:
    return [item.name for item in encoder.inputs]


def _statistics(session: Session, plan: Plan, encoder: Encoder, inputs: Floats, y: Floats | None) -> dict[str, Any]:
    """Correlations and inflation factors of the encoded inputs, as decimal text."""
    release = tuple(item for item in statistics.RELEASES if item in plan.release)
    settings = statistics.Settings(release, plan.minimum, plan.rows_per_column)
    found = statistics.statistics(session, inputs, y, settings, CORRELATING)
    out: dict[str, Any] = {"inputs": _names(encoder), "own_correlations": _decimals(found.own)}
    if found.label is not None:
        out["label_correlations"] = _decimals(found.label)
    if "correlations" in release:
        others = _exchanged(session, encoder)
        out["correlations"] = [
            {"silo": plan.terms.owners[other], "inputs": others[other], "values": _decimals(block)}
            for other, block in found.cross.items()
        ]
    if found.vif is not None:
        out["vif"] = [_factor(value) for value in found.vif.tolist()]
    return out


def _decimals(values: Floats) -> Any:
    """Correlations to four decimals, as nested lists of text."""
    return np.char.mod("%.4f", values + 0.0).tolist()


def _factor(value: float) -> str | None:
    """A factor as text; "infinite" for a combination of own columns, None if it is too large to be told."""
    if np.isnan(value):
        return None
    return "infinite" if np.isinf(value) else f"{value:.4g}"


def _exchanged(session: Session, encoder: Encoder) -> dict[int, list[str]]:
    """What the inputs of every other owner are called: a number's column, or a category's and which of its levels, by number.

    Levels are an owner's data, and are not told.
    """
    seen: dict[str, int] = {}
    mine = []
    for item in encoder.inputs:
        seen[item.column] = seen.get(item.column, 0) + (item.kind == "category")
        mine.append(f"{item.column}=#{seen[item.column]}" if item.kind == "category" else item.name)
    for peer in session.peers:
        send_json(session.channel, peer, "statistics/names", mine)
    out = {}
    for i, name in enumerate(session.parties):
        if i != session.me:
            told = recv_json(session.channel, name, "statistics/names", 1 << 20)
            if not isinstance(told, list) or not all(isinstance(x, str) and len(x) <= 256 for x in told):
                raise RemoteProtocolError(name, "statistics/names", "names of inputs are short texts")
            out[i] = told
    return out


def _chosen(session: Session, plan: Plan, inputs: Floats, y: Floats | None, progress: Progress) -> stepwise.Selected:
    """Select columns; for a logistic regression, train the model of all columns first."""

    def tell(done: int, total: int) -> None:
        progress("select", done, total)

    if not plan.logistic:
        return stepwise.select(session, inputs, y, plan.selection, tell, SELECTING)
    from vertical import glm
    from vertical.stepwise_logistic import select_logistic

    fitted = glm.train(session, inputs, y, glm.Settings(), lambda done, total: progress("train", done, total))
    return select_logistic(session, fitted, inputs, plan.selection, tell, SELECTING)


def _selection(chosen: stepwise.Selected, owners: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    steps = [
        {
            "action": step.action,
            "silo": owners[step.owner],
            "number": step.number,
            "input": None if step.column is None else names[step.column],
        }
        for step in chosen.steps
    ]
    counted = dict(zip(owners, chosen.counts, strict=True))
    return {"steps": steps, "chosen": [names[i] for i in chosen.own], "counts": counted}


def _evidence(session: Session, plan: Plan, aligned: Columns, y: Floats | None) -> dict[str, Any]:
    """Weights of evidence of our columns, and the information values, as decimal text."""
    everyone = np.ones(len(next(iter(aligned.values()))), dtype=bool)
    features = [feature for feature in plan.features if feature.kind != "text"]
    binner = Binner.fit(aligned, features, everyone, plan.bins, rare_category=plan.rare_category)
    settings = replace(plan.weights, tell=plan.wants(VALUES))
    found = woe.evidence(session, binner, binner.transform(aligned), y, settings, WEIGHING)
    out: dict[str, Any] = {}
    if plan.wants(WEIGHTS):
        out["woe"] = [
            {"column": column.name, "value": f"{column.value:.4f}", "bins": _bins(binner, i, column)}
            for i, column in enumerate(found.columns)
        ]
    if plan.wants(VALUES):
        out["information_values"] = [
            {"silo": plan.terms.owners[i], "column": name, "value": f"{value:.4f}"}
            for i, values in found.told.items()
            for name, value in zip(plan.names[i], values, strict=True)
        ]
    return out


def _bins(binner: Binner, feature: int, column: woe.Column) -> list[dict[str, Any]]:
    """Each group of bins: what it holds, how many rows and positives, and its weight."""
    bins = binner.features[feature]
    return [
        {
            "holds": [bins.label(code) for code, group in enumerate(column.groups) if group == place],
            "rows": rows,
            "positives": positives,
            "weight": f"{weight:.6g}",
        }
        for place, (rows, positives, weight) in enumerate(
            zip(column.rows, column.positives, column.weights, strict=True)
        )
    ]
