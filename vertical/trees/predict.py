"""Scores of new aligned rows from trees whose splits lie at their owners: shared, nothing revealed."""

from __future__ import annotations

import hashlib
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.ring import encode
from mpc.session import Session
from mpc.wire import recv_json, send_json
from vertical.binning import Binned
from vertical.scores import Scores
from vertical.trees.model import Fitted
from vertical.trees.paths import as_shares, goes_left, plan_upwards, upwards
from vertical.trees.supply import Supply

Words = npt.NDArray[Any]
CHUNK_WORDS = 1 << 21
"""Words of a level's products at once: 16 MiB for each of their factors."""


def scores(session: Session, fitted: Fitted, inputs: Binned) -> Scores:
    """Shares of the scores of aligned rows; every owner calls this at once with its part of one model.

    logistic: log-odds.  squared: predictions.  poisson: logarithms of predictions.  inputs: our columns, by the binning that
    the model was trained with.

    Reveals: nothing.
    Cost: depth rounds for each chunk of trees and rows; to every other party 12 2^depth bytes a row and tree; the dealer
        sends 8 (2^depth - 1) in all.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.products.multiply_many`.
    Raises: LocalProtocolError if the rows have other columns or bins than the model; RemoteProtocolError if the owners
        disagree on the rows or the model.
    """
    if inputs.names != fitted.names or inputs.n_bins != fitted.n_bins:
        raise LocalProtocolError("the rows have other columns or bins than the trees were trained with")
    n = len(inputs)
    _agree(session, fitted, n)
    widest = 1 << fitted.depth - 1
    rows = max(1, min(n, CHUNK_WORDS // widest))
    trees = max(1, CHUNK_WORDS // (widest * rows))
    parts = [
        (slice(t, min(t + trees, fitted.trees)), slice(r, min(r + rows, n)))
        for r in range(0, n, rows)
        for t in range(0, fitted.trees, trees)
    ]
    supply = Supply(session)
    for part_trees, part_rows in parts:
        supply.plan(plan_upwards(part_trees.stop - part_trees.start, fitted.depth, part_rows.stop - part_rows.start))
    total = np.repeat(fitted.base, n)
    for part_trees, part_rows in parts:
        bits = _bits(session, fitted, inputs.codes[part_rows], part_trees)
        values = upwards(session, supply, bits, fitted.leaves[part_trees].reshape(-1))
        total[part_rows] += values.sum(axis=0, dtype=np.uint64)
    return _on_the_link(session, fitted, total)


def _agree(session: Session, fitted: Fitted, n: int) -> None:
    """That all owners score the same rows with the same trees."""
    mine = {
        "rows": n,
        "objective": fitted.objective,
        "exponent": fitted.exponent,
        "owners": hashlib.sha256(
            repr(fitted.owners.shape).encode() + fitted.owners.astype("<i8").tobytes()
        ).hexdigest(),
        "place": fitted.me,
    }
    for peer in session.peers:
        send_json(session.channel, peer, "trees/score", mine)
    for i, name in enumerate(session.parties):
        if i != session.me and recv_json(session.channel, name, "trees/score") != mine | {"place": i}:
            raise RemoteProtocolError(name, "trees/score", "scores other rows than ours or with other trees")
    if fitted.me != session.me or fitted.parties != len(session.parties):
        raise LocalProtocolError("our part of the model is not for our place among the owners")


def _bits(session: Session, fitted: Fitted, codes: npt.NDArray[np.uint8], trees: slice) -> list[Words]:
    """By level, shares (trees nodes, rows) of "left"."""
    out = []
    for level in range(fitted.depth):
        nodes = slice((1 << level) - 1, (2 << level) - 1)
        owners = fitted.owners[trees, nodes].reshape(-1)
        feature, bins = fitted.feature[trees, nodes].reshape(-1), fitted.bins[trees, nodes].reshape(-1)
        left = fitted.left[trees, nodes].reshape(-1)
        mine = np.zeros((len(owners), len(codes)), dtype=np.bool_)
        for i in np.flatnonzero(owners == session.me):
            mine[i] = goes_left(codes, int(feature[i]), int(bins[i]), bool(left[i]))
        out.append(as_shares(session.me, owners, mine))
    return out


def _on_the_link(session: Session, fitted: Fitted, total: Words) -> Scores:
    """From the objective's units to those of the link."""
    if fitted.objective == "squared":
        return Scores(total, fitted.frac_bits - fitted.exponent, fitted.bound * 2.0**fitted.exponent)
    if fitted.objective == "logistic":
        return Scores(total, fitted.frac_bits, fitted.bound)
    shift = fitted.exponent * log(2)
    if session.me == 0:
        total = total + encode(shift, fitted.frac_bits)
    return Scores(total, fitted.frac_bits, fitted.bound + abs(shift))
