"""The job kind "vertical.logistic", as one owner runs it: align, encode, train, evaluate, release."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.correlations import Usage
from mpc.engine import bind
from mpc.errors import LocalProtocolError
from mpc.psi import Alignment
from mpc.session import Session
from mpc.supply import supply
from vertical.encoding import Encoder, Feature, fit
from vertical.evaluate import auc
from vertical.identifiers import prepare
from vertical.logistic import Fitted, Settings, train
from vertical.split import holdout

KIND = "vertical.logistic"
Progress = Callable[[str, int, int], None]
Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Plan:
    """Everything in the job's spec that an owner's computation depends on.

    parties: the data owners' names, in the spec's order.  randomness: where correlated randomness comes from, as in
    mpc.supply.  dealer: its name, None if there is none.  me, active: indices into parties; `active`
    owns the label.  key, label: column names at this owner (label None unless active).  matching: "ecdh-psi" or
    "vole-psi".  identifier, region: the rule
    for identifiers, which takes the columns of `key`, and the region it reads them in, None if it needs none.
    """

    parties: tuple[str, ...]
    randomness: str
    dealer: str | None
    me: int
    active: int
    key: tuple[str, ...]
    label: str | None
    features: tuple[Feature, ...]
    matching: str
    identifier: str
    region: str | None
    duplicates: str
    minimum_matches: int
    winsorise_sd: int
    rare_category: int
    settings: Settings
    holdout_percent: int
    salt: bytes
    release: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """All columns the job reads at this owner, each once."""
        return [*self.key, *([self.label] if self.label else []), *(f.column for f in self.features)]


@dataclass(frozen=True)
class Outcome:
    """What a job comes to at one owner.

    result: what is released to it, with numbers as decimal strings.  used: correlated randomness it took, per kind.
    """

    result: dict[str, Any]
    used: Mapping[str, Usage]


def run(plan: Plan, columns: Columns, channel: Channel, session_id: bytes, progress: Progress) -> Outcome:
    """Run the whole job as one owner.

    columns: the key as text, the label and numbers as float64 with NaN for missing, categories as text with None.

    Reveals: as mpc.psi or mpc.matching, vertical.logistic, vertical.evaluate and the supply of randomness declare.
    Raises: LocalProtocolError for data of ours that the job cannot use, Refused below the minimum of matches,
        RemoteProtocolError and PeerLost naming a peer.
    """
    me = plan.parties[plan.me]
    labels = _labels(columns, plan, me)
    progress("align", 0, 1)
    prepared = prepare([list(columns[name]) for name in plan.key], plan.identifier, plan.duplicates, plan.region)
    alignment = _match(plan, prepared.items, session_id, channel, progress)
    rows = np.asarray(prepared.rows, dtype=np.int64)[alignment.rows]
    held = holdout([prepared.items[i] for i in alignment.rows], plan.salt, plan.holdout_percent)
    aligned = {name: column[rows] for name, column in columns.items()}
    y = None if labels is None else labels[rows]
    encoder = fit(aligned, list(plan.features), ~held, winsorise_sd=plan.winsorise_sd, rare_category=plan.rare_category)
    X = encoder.transform(aligned)
    if X.shape[1] == 0:
        raise LocalProtocolError(f"no feature column of {me} varies over the matched training rows")
    correlations = supply(plan.randomness, channel, plan.parties, plan.dealer, plan.me)
    session = Session(channel, plan.parties, plan.me, correlations)
    with bind(session):
        fitted = train(
            session, X[~held], None if y is None else y[~held], plan.settings, lambda d, n: progress("train", d, n)
        )
        result: dict[str, Any] = {"model": _model(encoder, fitted)} if "coefficients" in plan.release else {}
        if "auc" in plan.release:
            progress("evaluate", 0, 1)
            result["auc"] = f"{_auc(session, plan, fitted, X[held], None if y is None else y[held]):.4f}"
            progress("evaluate", 1, 1)
    correlations.settle()
    correlations.close()
    if "counts" in plan.release:
        result["rows"] = {
            "own": prepared.n_rows, "unusable": prepared.rejected, "duplicates": prepared.duplicates,
            "reasons": {reason.value: count for reason, count in prepared.reasons.items()},
            "matched": len(rows), "training": int((~held).sum()), "held_out": int(held.sum()),
        }  # fmt: skip
    return Outcome(result, correlations.used)


def _match(plan: Plan, items: Sequence[bytes], session_id: bytes, channel: Channel, progress: Progress) -> Alignment:
    """The rows of ours that the other owner also has, by the protocol that the job names."""
    if plan.matching == "vole-psi":
        from mpc.matching.protocol import intersect  # loads its kernels
    else:
        from mpc.psi import intersect
    peer, first = plan.parties[1 - plan.me], plan.me == 0
    return intersect(
        items,
        peer,
        session_id,
        channel,
        plan.minimum_matches,
        first,
        lambda done, total: progress("align", done, total),
    )


def _labels(columns: Columns, plan: Plan, me: str) -> npt.NDArray[np.float64] | None:
    if plan.label is None:
        return None
    y = np.asarray(columns[plan.label], dtype=np.float64)
    if not np.isin(y, (0.0, 1.0)).all() or len(np.unique(y)) != 2:
        raise LocalProtocolError(f"the label column '{plan.label}' of {me} must hold both 0 and 1 and nothing else")
    return y


def _auc(session: Session, plan: Plan, fitted: Fitted, X: npt.NDArray[np.float64], y: Any) -> float:
    """AUC on held-out rows; a held-out row's part of the score is limited to the range seen in training."""
    part = X @ fitted.weights + (fitted.intercept or 0.0)
    bound = fitted.period / (4 * len(plan.parties))
    return auc(session, np.clip(part, -bound, bound), y, plan.active, fitted.period)


def _model(encoder: Encoder, fitted: Fitted) -> dict[str, Any]:
    """This owner's part of the model: coefficients of standardised inputs, and how the inputs are made."""
    inputs = []
    for item, weight in zip(encoder.describe(), fitted.weights, strict=True):
        scaled = {key: f"{value:.12g}" if isinstance(value, float) else value for key, value in item.items()}
        inputs.append({**scaled, "coefficient": f"{weight:.8g}"})
    return {
        "inputs": inputs,
        "intercept": None if fitted.intercept is None else f"{fitted.intercept:.8g}",
        "winsorise_sd": encoder.winsorise_sd,
        "left_out": list(encoder.dropped),
    }
