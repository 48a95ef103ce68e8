"""How good a binary classifier is whose scores nobody sees.

Everything that needs an order comes from one sort (`vertical.ranking`), everything that does not from one product: rows of
bits "the score is below this threshold", of probabilities and of scores, times columns of labels and of groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than, plan_less_than
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.products import multiply, plan_matmul
from mpc.session import Session
from vertical.curves import binary_losses, calibration_table, confusion, curve_points, decimal, gains_table, group_table
from vertical.evaluate import quick_auc
from vertical.figures import MINIMUM_PER_CLASS, Opening, Settings, agree, places
from vertical.losses import LOSS_BITS, MEAN_BITS, SUM_BITS, probabilities, sum_of_squares
from vertical.ranking import concordance, largest_gap, rank
from vertical.scores import FRAC_BITS, Scores
from vertical.segments import Cells, Group, cells

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]


def evaluate_binary(
    session: Session,
    scores: Scores,
    y: Floats | None,
    active: int,
    settings: Settings,
    groups: Sequence[Group] = (),
) -> dict[str, Any]:
    """Figures of a binary classifier; `scores` are log-odds, or anything in the order of the probability.

    y: (n,) labels 0/1 at owner `active`, None elsewhere.  groups: columns by which to split, each at one owner.
    Returns a document of numbers as text, the same at every owner; "rows" and "positives" are always in it.

    Reveals: to every owner, the numbers of rows and positives and the wanted figures: with "gains" and "calibration" the
        positives of every bin, with the latter the sum of predictions too; with "curves" the positives before every point;
        with "confusion" the two classes' counts at every threshold; with "loss" the sums of log-loss, squared errors,
        predictions, and predictions of positives; with groups, what `vertical.segments.cells` says, and for each one that
        is shown its rows, positives, selected rows and positives, with "calibration" or "loss" the sums of predictions of
        both, and with "auc" its AUC.
    Cost: docs/protocols/evaluation.md has the parts; with all figures of 30,000 rows and no groups some 100 rounds.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `vertical.ranking`, `vertical.losses` and `vertical.segments`.
    Raises: LocalProtocolError at the owner of the label if a class has fewer than 10 rows or a label is not 0 or 1;
        RemoteProtocolError if another owner was asked for something else.
    """
    n = len(scores)
    if scores.words.ndim != 1 or scores.frac_bits != FRAC_BITS:
        raise LocalProtocolError(f"a binary classifier has one score a row, with {FRAC_BITS} fractional bits")
    if y is not None:
        if y.shape != (n,) or not np.isin(y, (0.0, 1.0)).all():
            raise LocalProtocolError(f"the label must be 0 or 1 in each of the {n} rows")
        if min(y.sum(), n - y.sum()) < MINIMUM_PER_CLASS:
            raise LocalProtocolError(f"a class of the label has fewer than {MINIMUM_PER_CLASS} held-out rows")
    P = agree(session, n, active, settings, groups, None if y is None else int(y.sum()))
    if not MINIMUM_PER_CLASS <= P <= n - MINIMUM_PER_CLASS:
        raise RemoteProtocolError(session.parties[active], "metrics/request", "states too few of a class")
    positive = np.zeros(n, dtype=np.uint64) if y is None else y.astype(np.uint64)
    ones = np.zeros(n, dtype=np.uint64) if y is None else np.ones(n, dtype=np.uint64)
    tables = [(group.name, cells(session, group, positive, active, settings.minimum)) for group in groups]
    shown = [found for _, found in tables if found is not None]
    run = _Run(session, scores, settings, (positive, ones - positive), (P, n - P), shown)
    area = decimal(quick_auc(session, scores, y, active)) if settings.quick else None
    opened = run.opened()
    return _report(run, opened, tables) | ({} if area is None else {"auc": area})


@dataclass
class _Run:
    """One evaluation.  classes: our shares of who is positive and who negative.  sizes: of both, public."""

    session: Session
    scores: Scores = field(repr=False)
    settings: Settings
    classes: tuple[Words, Words] = field(repr=False)
    sizes: tuple[int, int]
    shown: list[Cells] = field(repr=False)

    def __post_init__(self) -> None:
        self.bins, self.points = places(len(self.scores), self.settings)
        self.predicts = self.settings.wants("calibration", "loss")
        self.square_bits = 0
        self.p = self.loss = np.zeros(0, dtype=np.uint64)

    def opened(self) -> dict[str, Any]:
        """Compute all that is wanted and open it."""
        opening = Opening()
        if self.predicts:
            self.p, self.loss = probabilities(self.session, self.scores)
        if self.settings.wants("auc", "ks", "gains", "curves", "calibration"):
            self._ranked(opening)
        if self.settings.wants("confusion", "loss") or self.shown:
            self._counted(opening)
        return opening.open(self.session)

    def _ranked(self, opening: Opening) -> None:
        """Sort once, and put in what is read off the order."""
        wants, columns = self.settings.wants, list(self.classes)
        for found in self.shown if wants("auc") else ():
            for positives, rows in zip(found.positives.T, found.rows.T, strict=True):
                columns += [positives, rows - positives]
        pairs = len(columns) // 2
        if wants("calibration"):
            columns.append(self.p)
        ranking = rank(self.session, self.scores, np.column_stack(columns))
        if wants("auc"):
            own = range(0, 2 * pairs, 2)
            opening.add("auc", concordance(self.session, ranking, list(own), [i + 1 for i in own]), "metrics/auc")
        if wants("ks"):
            opening.add("ks", largest_gap(self.session, ranking, (0, 1), self.sizes), "metrics/ks")
        if wants("gains", "calibration"):
            opening.add("bins", ranking.first(self.bins)[:, 0], "metrics/bins")
        if wants("calibration"):
            opening.add("predicted", ranking.first(self.bins)[:, -1], "metrics/predicted")
        if wants("curves"):
            opening.add("points", ranking.first(self.points)[:, 0], "metrics/points")

    def _counted(self, opening: Opening) -> None:
        """Put in what needs no order: sums of bits, predictions and scores times labels and groups, in one product."""
        n, z, wants = len(self.scores), self.scores.words, self.settings.wants
        thresholds = self.settings.words()[: None if wants("confusion") else 1]
        k = len(thresholds)
        tickets = self.session.correlations.plan(plan_less_than(n, k))
        left = less_than(self.session, tickets, z, thresholds)
        totals = left.sum(axis=1, dtype=np.uint64)
        if self.predicts:
            left = np.concatenate([left, [self.p, z]])
        right = np.column_stack([self.classes[0], *(x for found in self.shown for x in (found.rows, found.positives))])
        (ticket,) = self.session.correlations.plan([plan_matmul(left.shape, right.shape)])
        sums = multiply(self.session, ticket, left, right)
        if wants("confusion"):
            opening.add("confusion", np.column_stack([totals, sums[:k, 0]]), "metrics/confusion")
        if self.shown:
            opening.add("group_rows", right[:, 1:].sum(axis=0, dtype=np.uint64), "metrics/groups")
            opening.add("group_unselected", sums[0, 1:], "metrics/groups")
        if self.shown and self.predicts:
            opening.add("group_predicted", sums[k, 1:], "metrics/groups")
        if wants("loss"):
            self._losses(opening, sums[k, :1], sums[k + 1, :1])

    def _losses(self, opening: Opening, predicted: Words, scored: Words) -> None:
        """Put in the losses.  predicted, scored: shares of the sums of predictions and scores of the positives, (1,)."""
        n = len(self.scores)
        if LOSS_BITS + int(self.scores.bound).bit_length() + n.bit_length() > SUM_BITS:
            raise LocalProtocolError(f"{n} scores of up to {self.scores.bound:g} are too large for a log-loss")
        squares, self.square_bits = sum_of_squares(self.session, self.p, MEAN_BITS, 0)
        opening.add(
            "log_loss",
            self.loss.sum(keepdims=True, dtype=np.uint64) - (scored << np.uint64(LOSS_BITS - FRAC_BITS)),
            "metrics/loss",
        )
        opening.add("brier", squares - (predicted << np.uint64(self.square_bits + 1 - MEAN_BITS)), "metrics/loss")
        opening.add("mean", np.concatenate([self.p.sum(keepdims=True, dtype=np.uint64), predicted]), "metrics/loss")


def _report(run: _Run, opened: dict[str, Any], tables: list[tuple[str, Cells | None]]) -> dict[str, Any]:
    """The document, from what was opened."""
    (P, N), n, settings = run.sizes, len(run.scores), run.settings
    out: dict[str, Any] = {"family": settings.family, "rows": n, "positives": P}
    if "auc" in opened:
        out["auc"] = decimal(opened["auc"][0] + P * N, 2 * P * N)
    if "ks" in opened:
        out["ks"] = decimal(opened["ks"][0], P * N)
    if settings.wants("gains"):
        out["gains"] = gains_table(n, run.bins, opened["bins"])
    if settings.wants("calibration"):
        predicted = [value * 2.0**-MEAN_BITS for value in opened["predicted"]]
        out["calibration"] = calibration_table(run.bins, opened["bins"], predicted)
    if settings.wants("curves"):
        out["curve"] = curve_points(n, run.points, opened["points"])
    if settings.wants("confusion"):
        rows = zip(settings.thresholds, opened["confusion"], strict=True)
        out["confusion"] = [confusion(text, n, P, below, found) for text, (below, found) in rows]
    if settings.wants("loss"):
        sums = [value * 2.0**-MEAN_BITS for value in opened["mean"]]
        log_loss = opened["log_loss"][0] * 2.0**-LOSS_BITS / n
        brier = (opened["brier"][0] * 2.0**-run.square_bits + P) / n
        out["loss"] = binary_losses(n, P, log_loss, brier, (sums[0], sums[1]))
    out["groups"] = [_group(run, opened, tables, i) for i in range(len(tables))]
    return out


def _group(run: _Run, opened: dict[str, Any], tables: list[tuple[str, Cells | None]], index: int) -> dict[str, Any]:
    name, found = tables[index]
    entry: dict[str, Any] = {"column": name, "threshold": run.settings.thresholds[0], "minimum": run.settings.minimum}
    if found is None:
        return entry | {"withheld": "no group, or not all but one, has the minimum of positives and of negatives"}
    before = sum(len(other.names) for _, other in tables[:index] if other is not None)
    g = len(found.names)
    at = slice(2 * before, 2 * before + 2 * g)
    counts, below = opened["group_rows"][at], opened["group_unselected"][at]
    predicted = [v * 2.0**-MEAN_BITS for v in opened["group_predicted"][at]] if "group_predicted" in opened else None
    area = opened["auc"][1 + before : 1 + before + g] if "auc" in opened else None
    return entry | group_table(found.names, (counts, below), predicted, area)
