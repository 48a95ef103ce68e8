"""Weight of evidence and information value of an owner's columns, whose label is at another owner.

A column's bins are first made large enough by its owner alone, which needs no label; then the positives in each are found
(`vertical.woe_counts`), and with them the owner may join neighbouring bins that are alike.  With p_b of P positives and q_b
of Q negatives in bin b,

    weight of evidence   w_b = ln((p_b / P) / (q_b / Q)),        information value   sum over b of (p_b / P - q_b / Q) w_b.

A column whose values are replaced by the weight of their bin is one input of a model, whose logit is linear in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.session import Session
from mpc.wire import recv_json, send_json
from vertical.binning import MAX_BINS, MISSING, Binned, Binner, Bins
from vertical.woe_counts import MAX_ROWS, Cells, Shape, own_cells, shared_cells

Floats = npt.NDArray[np.float64]
Merge = Literal["none", "similar", "monotone"]

LEAST_FLOOR = 5
MAX_COLUMNS = 4096
ALIKE = 3.841459
"""Chi-square of two neighbouring bins, of one degree of freedom, below which they are alike at 5 per cent."""
ABSENT = -1
"""The group of a bin that no training row is in; its weight is 0, that of the average."""


@dataclass(frozen=True)
class Settings:
    """How to bin.

    floor: the fewest positives, and negatives, in a bin that its owner sees.  share: the smallest part of the rows that a bin
    is to have.  merge: with the positives known, "similar" joins neighbours until all differ at 5 per cent, and "monotone"
    also until the weights of a number rise or fall throughout.  tell: whether every owner learns the information values of
    all columns.
    """

    floor: int = 10
    share: float = 0.05
    merge: Merge = "similar"
    tell: bool = False

    def __post_init__(self) -> None:
        if self.floor < LEAST_FLOOR or not 0 <= self.share <= 0.5 or self.merge not in ("none", "similar", "monotone"):
            raise LocalProtocolError(
                f"a bin has {LEAST_FLOOR} positives and negatives or more, and at most half of the rows is asked of one"
            )


@dataclass(frozen=True)
class Column:
    """One column.  groups: of each bin's code, which group it is in; rows, positives, weights: of each group."""

    name: str
    groups: tuple[int, ...]
    rows: tuple[int, ...] = field(repr=False)
    positives: tuple[int, ...] = field(repr=False)
    weights: tuple[float, ...] = field(repr=False)
    value: float
    """The information value."""

    @property
    def spread(self) -> tuple[float, float]:
        """Mean and standard deviation of the weights over the training rows."""
        rows, weights = np.array(self.rows, dtype=np.float64), np.array(self.weights)
        mean = float((rows * weights).sum() / rows.sum())
        return mean, math.sqrt(float((rows * (weights - mean) ** 2).sum() / rows.sum()))


@dataclass(frozen=True)
class Evidence:
    """What one owner learns of its columns.  told: by owner's place, information values of its columns, if all learn them."""

    columns: tuple[Column, ...]
    told: dict[int, tuple[float, ...]] = field(default_factory=dict)

    def weights(self, binned: Binned) -> Floats:
        """(n, d) weights of evidence of any rows.  Raises: LocalProtocolError if they have other columns."""
        if binned.names != tuple(column.name for column in self.columns):
            raise LocalProtocolError("these rows have other columns than those whose weights are known")
        out = [_table(c)[codes] for c, codes in zip(self.columns, binned.codes.T, strict=True)]
        return np.column_stack(out) if out else np.empty((len(binned), 0))

    @property
    def used(self) -> tuple[int, ...]:
        """Places of the columns whose weights vary; the others say nothing about the label."""
        return tuple(i for i, column in enumerate(self.columns) if column.spread[1] > 0)

    def inputs(self, binned: Binned) -> Floats:
        """(n, used) model inputs: the weights of the columns that vary, standardised over the training rows."""
        weights = self.weights(binned)
        made = [(weights[:, i] - self.columns[i].spread[0]) / self.columns[i].spread[1] for i in self.used]
        return np.column_stack(made) if made else np.empty((len(weights), 0))

    def document(self) -> list[dict[str, Any]]:
        """As plain data for the model file; numbers exactly."""
        return [
            {
                "column": c.name,
                "groups": list(c.groups),
                "rows": list(c.rows),
                "positives": list(c.positives),
                "weights": [repr(w) for w in c.weights],
                "value": repr(c.value),
            }
            for c in self.columns
        ]

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """What `document` made.  Raises: LocalProtocolError if it is anything else."""
        try:
            return cls(tuple(_read(raw) for raw in document))
        except (KeyError, TypeError, ValueError) as exc:
            raise LocalProtocolError("the kept weights of evidence cannot be read") from exc


def _table(column: Column) -> Floats:
    """The weight of each code; 0 for a bin without a training row, and for codes that the column does not use."""
    table = np.zeros(MAX_BINS)
    for code, group in enumerate(column.groups):
        table[code] = 0.0 if group == ABSENT else column.weights[group]
    return table


def _read(raw: Mapping[str, Any]) -> Column:
    groups, rows, positives = (tuple(raw[key]) for key in ("groups", "rows", "positives"))
    weights, value = tuple(float(w) for w in raw["weights"]), float(raw["value"])
    whole = all(type(x) is int for x in (*groups, *rows, *positives)) and isinstance(raw["column"], str)
    fits = len(rows) == len(positives) == len(weights) > 0 and len(groups) <= MAX_BINS and min(rows) > 0
    if not (whole and fits and all(map(math.isfinite, (*weights, value)))):
        raise ValueError("not the weights of a column")
    if not set(range(len(rows))) == set(groups) - {ABSENT}:
        raise ValueError("a group is of no bin")
    return Column(raw["column"], groups, rows, positives, weights, value)


def evidence(
    session: Session, binner: Binner, binned: Binned, y: npt.NDArray[Any] | None, settings: Settings, first: int = 0
) -> Evidence:
    """Weights of evidence of our columns; every owner calls this at once with its own aligned rows.

    binner: how ours were binned.  y: (n,) zeros and ones at one owner, None at the others.  The owner of the label computes
    its own columns alone, with the same floor, so that all weights are made alike.  first: as in `shared_cells`.

    Reveals: to every owner, how many columns every other one has and into how many groups the bins of the widest were put,
        who has the label and how many rows are positive; to each owner without the label, the positives in each bin of its
        columns, and which bins were pooled because they had too few positives or negatives; if `tell`, to every owner the
        information values of all columns, to four decimals.
    Cost: 1 round, 1 more if `tell`, and as `vertical.woe_counts.shared_cells`.
    Security: as `vertical.woe_counts.shared_cells`.
    Source: Good, 1950 (weight of evidence); Kullback and Leibler 1951; Siddiqi, "Credit Risk Scorecards", 2006; Kerber, AAAI
        1992 (joining by chi-square).
    Raises: Refused, at every owner, if there are fewer positives or negatives than the floor; RemoteProtocolError if another
        owner has other rows or was asked for something else; LocalProtocolError for a label that is not 0 or 1.
    """
    if y is not None and (y.shape != (len(binned),) or not np.isin(y, (0, 1)).all()):
        raise LocalProtocolError("a weight of evidence is about a label that is 0 or 1 in every row")
    starts = [_groups(bins, codes, settings.share) for bins, codes in zip(binner.features, binned.codes.T, strict=True)]
    width = max(2, 1 + max((int(start.max()) for start in starts), default=0))
    starts = [_spread(start, codes, width) for start, codes in zip(starts, binned.codes.T, strict=True)]
    codes = np.empty_like(binned.codes)
    for i, start in enumerate(starts):
        codes[:, i] = np.maximum(start, 0).astype(np.uint8)[binned.codes[:, i]]
    shapes, active, positives = _agreed(session, binned, width, y, settings)
    shared = [Shape(0 if i == active else s.columns, s.bins) for i, s in enumerate(shapes)]
    cells = shared_cells(
        session, shared, active, codes, None if y is None else y.astype(np.float64), settings.floor, first
    )
    if y is not None:
        cells = own_cells(codes, y.astype(np.float64), width, settings.floor)
    if cells is None:
        raise RemoteProtocolError(session.peers[0], "woe/bins", "our positives were not opened to us")
    tree = Shape(len(starts), width)
    columns = tuple(
        _column(bins, start, _leaves(cells, tree, i), (len(binned), positives), settings.merge)
        for i, (bins, start) in enumerate(zip(binner.features, starts, strict=True))
    )
    told = _told(session, columns, shapes) if settings.tell else {}
    return Evidence(columns, told)


def _groups(bins: Bins, codes: npt.NDArray[np.uint8], share: float) -> npt.NDArray[np.int64]:
    """The group of each code, from 0 on without a gap, each with enough rows if all together have; neighbours stay neighbours.

    Missing values come first.  A bin without rows is ABSENT.
    """
    rows = np.bincount(codes, minlength=bins.used)
    least = max(1, math.ceil(share * len(codes)))
    group = np.full(bins.used, ABSENT, dtype=np.int64)
    place, filled = 0, 0
    for code in np.flatnonzero(rows):
        if filled >= least:
            place, filled = place + 1, 0
        group[code] = place
        filled += int(rows[code])
    if place and filled < least:
        group[group == place] = place - 1
    return group


def _spread(group: npt.NDArray[np.int64], codes: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.int64]:
    """The same groups in the same order, spread over so many that halves have about as many rows each.

    A small group then shares a half with others, and is pooled with them rather than keeping all from being split.
    """
    rows = np.bincount(group[codes], minlength=1 + int(group.max()))
    wanted = (width * (np.cumsum(rows) - rows / 2) / rows.sum()).astype(np.int64)
    place = np.arange(len(rows))
    least = np.maximum.accumulate(wanted - place) + place  # one further on at least for each group
    most = width - len(rows) + place
    return np.where(group == ABSENT, ABSENT, np.minimum(least, most)[np.maximum(group, 0)])


def _agreed(
    session: Session, binned: Binned, width: int, y: npt.NDArray[Any] | None, settings: Settings
) -> tuple[list[Shape], int, int]:
    """Every owner's columns and bins, who has the label, and how many positives there are."""
    asked = [settings.floor, repr(settings.share), settings.merge, settings.tell]
    sizes = [len(binned), binned.codes.shape[1], width]
    mine: dict[str, Any] = {"asked": asked, "sizes": sizes, "positives": None if y is None else int(y.sum())}
    for peer in session.peers:
        send_json(session.channel, peer, "woe/shape", mine)
    stated = []
    for i, name in enumerate(session.parties):
        value = mine if i == session.me else recv_json(session.channel, name, "woe/shape", 1 << 10)
        if not isinstance(value, dict) or value.keys() != mine.keys() or value["asked"] != asked:
            raise RemoteProtocolError(name, "woe/shape", "was asked for other weights of evidence")
        sizes = value["sizes"]
        good = isinstance(sizes, list) and len(sizes) == 3 and all(type(x) is int for x in sizes)
        least = 0 if value["positives"] is not None else 1
        if not good or not (least <= sizes[1] <= MAX_COLUMNS and 2 <= sizes[2] <= MAX_BINS):
            raise RemoteProtocolError(name, "woe/shape", "states no columns, or too many")
        if sizes[0] != len(binned) or sizes[0] >= MAX_ROWS:
            raise RemoteProtocolError(name, "woe/shape", "states other rows than ours")
        stated.append(value)
    labelled = [(i, value["positives"]) for i, value in enumerate(stated) if value["positives"] is not None]
    if len(labelled) != 1 or type(labelled[0][1]) is not int or not 0 <= labelled[0][1] <= len(binned):
        raise RemoteProtocolError(session.peers[0], "woe/shape", "exactly one owner must have the label")
    active, positives = labelled[0]
    if min(positives, len(binned) - positives) < settings.floor:
        raise Refused(f"weights of evidence take {settings.floor} positives and as many negatives")
    return [Shape(value["sizes"][1], value["sizes"][2]) for value in stated], active, positives


Leaf = tuple[list[int], int, int]
"""Groups in one pool, its rows and its positives."""


def _leaves(cells: Cells, tree: Shape, column: int) -> list[Leaf]:
    """The nodes that are left of one column's tree and have rows, in the order of the bins."""
    levels = [tree.by_level(x[column][None]) for x in (cells.rows, cells.positives, cells.shown)]
    out: list[Leaf] = []
    for height, (rows, positives, shown) in enumerate(zip(*levels, strict=True)):
        for node in np.flatnonzero(shown[0] & (rows[0] > 0)):
            members = np.flatnonzero(tree.places >> height == node).tolist()
            out.append((members, int(rows[0, node]), int(positives[0, node])))
    return sorted(out, key=lambda leaf: leaf[0][0])


def _column(
    bins: Bins, start: npt.NDArray[np.int64], leaves: list[Leaf], totals: tuple[int, int], merge: Merge
) -> Column:
    """Join what is alike, and compute weights and information value."""
    n, positives = totals
    alone: list[Leaf] = []
    if bins.kind == "number" and len(leaves) > 1 and np.flatnonzero(np.isin(start, leaves[0][0])).tolist() == [MISSING]:
        alone, leaves = leaves[:1], leaves[1:]  # missing values have no neighbours
    if bins.kind == "category":
        leaves = sorted(leaves, key=_rate)
    if merge != "none":
        leaves = joined(leaves, monotone=merge == "monotone")
    leaves = alone + leaves
    group = np.full(len(start), ABSENT, dtype=np.int64)
    for place, (members, _, _) in enumerate(leaves):
        group[np.isin(start, members)] = place
    found = [(p / positives, (r - p) / (n - positives)) for _, r, p in leaves]
    weights = [math.log(p / q) for p, q in found]
    value = sum((p - q) * w for (p, q), w in zip(found, weights, strict=True))
    rows, counts = tuple(r for _, r, _ in leaves), tuple(p for _, _, p in leaves)
    return Column(bins.column, tuple(group.tolist()), rows, counts, tuple(weights), value)


def _rate(leaf: Leaf) -> float:
    return leaf[2] / leaf[1]


def joined(leaves: Sequence[Leaf], *, monotone: bool) -> list[Leaf]:
    """Join neighbours, those most alike first, until every two differ at 5 per cent; if monotone, also until the rates of
    positives rise or fall throughout, in the direction in which they do on the whole."""
    left = list(leaves)
    if monotone and len(left) > 1:
        rows, rates = np.array([r for _, r, _ in left], dtype=float), np.array([_rate(leaf) for leaf in left])
        place = np.cumsum(rows) - rows / 2
        up = float((rows * (place - np.average(place, weights=rows)) * rates).sum()) >= 0
        while (wrong := [i for i in range(len(left) - 1) if (_rate(left[i + 1]) > _rate(left[i])) != up]) and wrong:
            left = _with(left, wrong[0])
    while len(left) > 1:
        apart = [_chi_square(a, b) for a, b in pairwise(left)]
        least = int(np.argmin(apart))
        if apart[least] >= ALIKE:
            break
        left = _with(left, least)
    return left


def _with(leaves: list[Leaf], i: int) -> list[Leaf]:
    """Leaf i and the next one as one."""
    (a, rows, positives), (b, more, others) = leaves[i], leaves[i + 1]
    return [*leaves[:i], ([*a, *b], rows + more, positives + others), *leaves[i + 2 :]]


def _chi_square(a: Leaf, b: Leaf) -> float:
    rows, positives = a[1] + b[1], a[2] + b[2]
    rest = rows - positives
    if not positives or not rest:
        return 0.0
    return float((a[2] * (b[1] - b[2]) - b[2] * (a[1] - a[2])) ** 2 * rows / (a[1] * b[1] * positives * rest))


def _told(session: Session, columns: Sequence[Column], shapes: Sequence[Shape]) -> dict[int, tuple[float, ...]]:
    """Exchange the information values, in ten-thousandths."""
    mine = [round(column.value * 10_000) for column in columns]
    for peer in session.peers:
        send_json(session.channel, peer, "woe/values", mine)
    out = {session.me: tuple(v / 10_000 for v in mine)}
    for i, name in enumerate(session.parties):
        if i == session.me:
            continue
        value = recv_json(session.channel, name, "woe/values", 1 << 20)
        if not isinstance(value, list) or len(value) != shapes[i].columns or not all(type(v) is int for v in value):
            raise RemoteProtocolError(name, "woe/values", "states other information values than it has columns")
        out[i] = tuple(v / 10_000 for v in value)
    return dict(sorted(out.items()))
