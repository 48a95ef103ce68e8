"""Training boosted trees on shared gradients: nobody learns a gradient, a sum, a gain, a leaf or which rows are in a node.

A tree: gradients and Hessians of the shared scores; then level by level the sums of all bins of all owners (`histogram`), the
best split of every node (`splits`), and the gradients of the left children (`rows`), since the owner of a split alone knows
which rows go left; then the leaves' weights (`leaves`) and what they add to the scores (`paths`).  `grower` does this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.session import Session
from mpc.wire import recv_json, send_json
from vertical.binning import Binned
from vertical.checkpoints import Checkpoints
from vertical.trees import objective
from vertical.trees.grower import Grower
from vertical.trees.model import Fitted
from vertical.trees.settings import Block, Layout, Settings

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


def train(
    session: Session,
    inputs: Binned,
    y: Floats | None,
    settings: Settings,
    progress: Progress = lambda _done, _total: None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Fit the trees; every owner calls this at once with its own aligned rows.

    inputs: our columns as bins.  y: (n,) labels at exactly one owner, None at the others.  checkpoints: where the state after
    each tree is kept, if anywhere.

    Reveals: to every owner, how many features and bins the others have and which features have missing values or are
        constrained; which owner's feature splits each node, or that none does; to that owner alone, the feature and the
        bin; after how many trees training stopped.  squared, poisson: the power of two that the labels were divided by;
        squared: one above the size of their mean; poisson: one above the largest count.
        routing "revealed": to every owner, which rows go into which node.
    Cost: for n rows, depth d and K harmonics: about 70 rounds a level; per tree to the other of two owners 4 n 2^d bytes for
        histograms, 16 n (2^(d - 1) - 1) for children, 12 n 2^d for scores, 20 n for gradients and about 400 for every node
        and candidate; the dealer sends 16 K n + 12 n 2^d and about 950 for every node and candidate.  Once, to every
        other owner, 4 n b for each of our features with b bins.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Chen and Guestrin, KDD 2016 (the trees); Lu et al., "Squirrel", USENIX Security 2023 (hidden membership).
    Raises: RemoteProtocolError if the owners disagree on rows, settings or who has the label; LocalProtocolError if the
        labels or the number of rows do not fit the objective.
    """
    layout = _agree(session, inputs, y, settings)
    restored = None if checkpoints is None else checkpoints.restore(session)
    grower = Grower.start(session, inputs, y, layout, settings, restored)
    while grower.grown < settings.trees and not grower.stopped:
        grower.grow()
        if checkpoints is not None:
            checkpoints.save(grower.grown, grower.state())
        progress(grower.grown, settings.trees)
    return grower.fitted()


def _agree(session: Session, inputs: Binned, y: Floats | None, settings: Settings) -> Layout:
    """Exchange sizes, settings and the label's scale."""
    directions = dict(settings.monotone)
    if not directions.keys() <= set(inputs.names):
        raise LocalProtocolError("a column with a monotone constraint is none of ours")
    if y is not None and y.shape != (len(inputs),):
        raise LocalProtocolError(f"there are {len(inputs)} rows, and labels of shape {y.shape}")
    mine: dict[str, Any] = {
        "rows": len(inputs),
        "features": len(inputs.names),
        "bins": inputs.n_bins,
        "missing": [bool(m) for m in inputs.missing],
        "monotone": [directions.get(name, 0) for name in inputs.names],
        "label": None if y is None else list(objective.label_scale(settings, y)),
        "settings": settings.common(),
    }
    for peer in session.peers:
        send_json(session.channel, peer, "trees/shape", mine)
    stated = [
        mine
        if name == session.parties[session.me]
        else _stated(name, recv_json(session.channel, name, "trees/shape"), mine)
        for name in session.parties
    ]
    labelled = [i for i, value in enumerate(stated) if value["label"] is not None]
    if len(labelled) != 1 or not any(value["features"] for value in stated):
        raise RemoteProtocolError(
            session.peers[0], "trees/shape", "exactly one owner must have the label, and one a feature"
        )
    blocks = [Block(v["features"], v["bins"], tuple(v["missing"]), tuple(v["monotone"])) for v in stated]
    return Layout(len(inputs), tuple(blocks), labelled[0], *stated[labelled[0]]["label"])


def _stated(peer: str, value: Any, mine: dict[str, Any]) -> dict[str, Any]:
    """What a peer says of its columns, checked."""
    tag = "trees/shape"
    if not isinstance(value, dict) or value.keys() != mine.keys() or value["settings"] != mine["settings"]:
        raise RemoteProtocolError(peer, tag, "trains with other settings than ours")
    if value["rows"] != mine["rows"]:
        raise RemoteProtocolError(peer, tag, "states other rows than ours")
    features, bins, label = value["features"], value["bins"], value["label"]
    sizes = type(features) is int and type(bins) is int and 0 <= features <= 10_000 and 4 <= bins <= 256
    lists = all(isinstance(value[key], list) and len(value[key]) == features for key in ("missing", "monotone"))
    good = label is None or (
        isinstance(label, list)
        and len(label) == 3
        and all(type(x) is int and abs(x) <= objective.MAX_EXPONENT for x in label)
    )
    if not (sizes and lists and good) or not all(type(m) is bool for m in value["missing"]):
        raise RemoteProtocolError(peer, tag, "states no possible columns")
    if not all(direction in (-1, 0, 1) for direction in value["monotone"]):
        raise RemoteProtocolError(peer, tag, "states no possible columns")
    return value
