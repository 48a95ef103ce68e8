"""Positives in each bin of a column whose bins and whose label are at different owners, with a floor under every bin shown.

With O the one-hot matrix of the bins, O^T y is one product of a masked matrix with a vector that the owner of the label holds.
The floor is kept in secret.  Neighbouring bins are paired up to a tree: a node has all rows of the bins below it.  A node may
be split if both halves have at least `floor` positives and as many negatives, or no row at all; from the root, which has all
rows, nodes are split as long as they may.  What is left are nodes that cover every bin once, and of these the owner of the
column learns the positives.  So no number that it learns, nor what is left of the public total, is of fewer than `floor` rows
of either class.

Counts are held over 2^-32: those of words of 32 bits become words of 64 bits by a shift, without a carry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than_zero, plan_less_than_zero
from mpc.correlations import Correlation
from mpc.engine import from_words, reveal_to
from mpc.errors import LocalProtocolError
from mpc.matrix import MatrixMask, MatrixProduct, mask_matrices, plan_masks
from mpc.matrix import multiply as matrix_multiply
from mpc.onehot import OneHot
from mpc.products import multiply, plan_multiply
from mpc.session import Session

Words = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

COUNT_BITS = 32
WORDS_AT_ONCE = 1 << 26
"""Entries of a masked one-hot matrix that are in memory at a time: 256 MiB."""
MAX_ROWS = 1 << 30


@dataclass(frozen=True)
class Cells:
    """The bins of one owner's columns after pooling.

    rows, positives: (d, nodes), by node of the tree, the finest level first; shown: whether the node is one of those left.
    """

    rows: Counts = field(repr=False)
    positives: Counts = field(repr=False)
    shown: npt.NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True)
class Shape:
    """An owner's columns and their bins: how many, in the tree spread evenly over a power of two."""

    columns: int
    bins: int

    @property
    def levels(self) -> int:
        """Halvings from the root to one bin."""
        return (self.bins - 1).bit_length()

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Where each bin stands at the finest level."""
        return (np.arange(self.bins) << self.levels) // self.bins

    @property
    def sizes(self) -> list[int]:
        """Nodes of each level, the finest first."""
        return [1 << level for level in range(self.levels, -1, -1)]

    @property
    def nodes(self) -> int:
        """All nodes of a column's tree."""
        return 2 * self.sizes[0] - 1

    def tree(self, counts: Words) -> Words:
        """(columns, nodes): sums over the bins below each node.  counts: (columns, bins)."""
        level = np.zeros((self.columns, self.sizes[0]), dtype=counts.dtype)
        level[:, self.places] = counts
        out = [level]
        while level.shape[1] > 1:
            level = level[:, ::2] + level[:, 1::2]
            out.append(level)
        return np.concatenate(out, axis=1)

    def by_level(self, nodes: Words) -> list[Words]:
        """Cut (columns, nodes) into levels."""
        return np.split(nodes, np.cumsum(self.sizes)[:-1], axis=1)


def own_cells(codes: npt.NDArray[np.uint8], y: npt.NDArray[np.float64], bins: int, floor: int) -> Cells:
    """The same in the clear, for columns of the owner of the label.  codes: (n, d), below `bins`.  y: (n,) zeros and ones."""
    shape = Shape(codes.shape[1], bins)
    rows, positives = shape.tree(_rows(codes, bins)), shape.tree(_rows(codes[y == 1], bins))
    enough = ((positives >= floor) & (rows - positives >= floor)) | (rows == 0)
    left = []
    reached = np.ones((shape.columns, 1), dtype=bool)
    for level in range(shape.levels + 1):
        finer = shape.by_level(enough)[-2 - level] if level < shape.levels else None
        split = reached & finer[:, ::2] & finer[:, 1::2] if finer is not None else np.zeros_like(reached)
        left.append(reached & ~split)
        reached = np.repeat(split, 2, axis=1)
    shown = np.concatenate(left[::-1], axis=1)
    return Cells(rows, np.where(shown, positives, 0), shown)


def _rows(codes: npt.NDArray[np.uint8], bins: int) -> Counts:
    """(d, bins): rows in each bin."""
    counted = [np.bincount(column, minlength=bins) for column in codes.T]
    return np.array(counted, dtype=np.int64).reshape(codes.shape[1], bins)


def shared_cells(
    session: Session,
    shapes: Sequence[Shape],
    active: int,
    codes: npt.NDArray[np.uint8],
    y: npt.NDArray[np.float64] | None,
    floor: int,
    first: int = 0,
) -> Cells | None:
    """Positives in the pooled bins of the columns of all owners but that of the label, each shown to the columns' owner.

    shapes: of every owner's columns, those of the owner of the label without any.  codes: ours, (n, d), below our bins; any at
    the owner of the label, who alone passes y, (n,) zeros and ones, with at least `floor` of each.  first: number of the
    first masked matrix; nobody uses a higher one before this is done.

    Reveals: to each owner without the label, which neighbouring bins of its columns had to be pooled, and the positives in
        each of the others and in each pool.
    Cost: 2 rounds for each WORDS_AT_ONCE entries, then 7 and one for each halving of the bins and each owner; to the owner of
        the label 4 n d b bytes for n rows and d columns of b bins, and 4 n bytes back; for N nodes of all trees, about
        90 N bytes more to every other party.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.  Bins of different columns that hold
        almost the same rows tell more about those rows together than each does alone.
    Source: Mohassel and Zhang, IEEE S&P 2017 (the masked matrix); comparisons as `mpc.compare`.
    Raises: LocalProtocolError if there are too many rows.
    """
    n = len(codes)
    if n >= MAX_ROWS:
        raise LocalProtocolError(f"bins are counted over fewer than {MAX_ROWS} rows, not {n}")
    positives = _products(session, shapes, active, codes, y, first)
    mine = shapes[session.me]
    rows = [np.zeros((s.columns, s.nodes), dtype=np.uint64) for s in shapes]
    empty = [np.zeros((s.columns, s.nodes), dtype=np.uint64) for s in shapes]
    counted = mine.tree(_rows(codes, mine.bins)) if session.me != active else np.zeros((0, mine.nodes), dtype=np.int64)
    rows[session.me] = counted.astype(np.uint64) << np.uint64(COUNT_BITS)
    empty[session.me] = (counted == 0).astype(np.uint64)
    trees = [s.tree(p) for s, p in zip(shapes, positives, strict=True)]
    tickets = iter(session.correlations.plan(_plan_pooling(shapes)))
    enough = _enough(session, tickets, trees, rows, empty, floor)
    left = _left(session, tickets, shapes, enough)
    flat = np.concatenate([x.reshape(-1) for x in left])
    counts = multiply(session, next(tickets), np.concatenate([t.reshape(-1) for t in trees]), flat)
    opened = _opened(shapes, active, counts, flat)
    if opened is None:
        return None
    size = mine.columns * mine.nodes
    shown = opened[:size].reshape(mine.columns, mine.nodes) == 1
    return Cells(counted, opened[size:].astype(np.int64).reshape(mine.columns, mine.nodes), shown)


def _products(
    session: Session, shapes: Sequence[Shape], active: int, codes: npt.NDArray[np.uint8], y: Any, first: int
) -> list[Words]:
    """Shares of positives, (columns, bins) of each owner, over 2^-COUNT_BITS, a few columns at a time."""
    n, k = len(codes), len(shapes)
    step = [max(1, WORDS_AT_ONCE // max(1, n * s.bins)) for s in shapes]
    turns = max(-(-s.columns // each) for s, each in zip(shapes, step, strict=True))
    label = None if y is None else np.rint(y).astype(np.uint32)
    out: list[list[Words]] = [[] for _ in shapes]
    for turn in range(turns):
        widths = [min(each, max(0, s.columns - turn * each)) * s.bins for s, each in zip(shapes, step, strict=True)]
        sizes = [(n, width) for width in widths]
        number = first + turn * k
        masks = plan_masks(sizes, number, 32)
        owners = [i for i, width in enumerate(widths) if width]
        tickets = session.correlations.plan([*masks, *(_request(masks[i], active) for i in owners)])
        part = codes[:, turn * step[session.me] : (turn + 1) * step[session.me]]
        content: Any = np.zeros((n, 0), dtype=np.int32)
        if widths[session.me]:
            content = OneHot(np.ascontiguousarray(part), shapes[session.me].bins)
        matrices = mask_matrices(session, sizes, content, number, 32, tickets=tickets[:k])
        found = matrix_multiply(session, [(matrices[i], t, label) for i, t in zip(owners, tickets[k:], strict=True)])
        for i, counts in zip(owners, found, strict=True):
            wide = counts.astype(np.uint64) << np.uint64(COUNT_BITS)
            out[i].append(wide.reshape(-1, shapes[i].bins))
    nothing = [np.zeros((0, s.bins), dtype=np.uint64) for s in shapes]
    return [np.concatenate([none, *parts]) for none, parts in zip(nothing, out, strict=True)]


def _request(mask: MatrixMask, holder: int) -> MatrixProduct:
    """X^T v for the matrix under this mask and a vector of the holder's."""
    return mask.product(transpose=True).model_copy(update={"holder": holder})


def _plan_pooling(shapes: Sequence[Shape]) -> list[Correlation]:
    """What the trees of all columns ask of the dealer."""
    N = sum(s.columns * s.nodes for s in shapes)
    splits = [s.columns * (s.sizes[0] - 1) for s in shapes]
    levels = max(s.levels for s in shapes)
    reaching = [plan_multiply((_wide(shapes, level),)) for level in range(levels)]
    return [
        *plan_less_than_zero(2 * N),
        plan_multiply((N,)),
        plan_multiply((sum(splits),)),
        *reaching,
        plan_multiply((N,)),
    ]


def _wide(shapes: Sequence[Shape], level: int) -> int:
    """Nodes of all trees so many halvings below the root that have nodes below themselves."""
    return sum(s.columns << level for s in shapes if level < s.levels)


def _enough(
    session: Session, tickets: Any, trees: Sequence[Words], rows: Sequence[Words], empty: Sequence[Words], floor: int
) -> list[Words]:
    """Shares of whether each node has enough of both classes, or no row."""
    flat, total, none = (np.concatenate([x.reshape(-1) for x in each]) for each in (trees, rows, empty))
    least = np.uint64(floor << COUNT_BITS if session.me == 0 else 0)
    comparing = [next(tickets) for _ in plan_less_than_zero(2 * len(flat))]
    few = less_than_zero(session, comparing, np.stack([flat - least, total - flat - least]))
    one = np.uint64(1 if session.me == 0 else 0)
    enough = multiply(session, next(tickets), one - few[0], one - few[1]) + none
    cut = np.cumsum([t.size for t in trees])[:-1]
    return [part.reshape(t.shape) for part, t in zip(np.split(enough, cut), trees, strict=True)]


def _left(session: Session, tickets: Any, shapes: Sequence[Shape], enough: Sequence[Words]) -> list[Words]:
    """Shares of whether each node is one of those that are left: reached from the root and not split itself."""
    finer = [s.by_level(e)[-2::-1] for s, e in zip(shapes, enough, strict=True)]  # below the root, the coarsest first
    first = np.concatenate([level[:, ::2].reshape(-1) for each in finer for level in each])
    second = np.concatenate([level[:, 1::2].reshape(-1) for each in finer for level in each])
    both = multiply(session, next(tickets), first, second)
    sizes = [level.size // 2 for each in finer for level in each]
    pieces = iter(np.split(both, np.cumsum(sizes)[:-1]))
    may = [[next(pieces).reshape(len(level), level.shape[1] // 2) for level in each] for each in finer]
    reached = [np.full((s.columns, 1), 1 if session.me == 0 else 0, dtype=np.uint64) for s in shapes]
    left: list[list[Words]] = [[] for _ in shapes]
    for level in range(max(s.levels for s in shapes)):
        deep = [i for i, s in enumerate(shapes) if level < s.levels]
        here = np.concatenate([reached[i].reshape(-1) for i in deep])
        allowed = np.concatenate([may[i][level].reshape(-1) for i in deep])
        split = multiply(session, next(tickets), here, allowed)
        ends = np.cumsum([reached[i].size for i in deep])[:-1]
        for i, flat in zip(deep, np.split(split, ends), strict=True):
            part = flat.reshape(reached[i].shape)
            left[i].append(reached[i] - part)
            reached[i] = np.repeat(part, 2, axis=1)
    return [np.concatenate([last, *each[::-1]], axis=1) for last, each in zip(reached, left, strict=True)]


def _opened(shapes: Sequence[Shape], active: int, counts: Words, left: Words) -> Words | None:
    """What is left of our trees and the positives there, one after the other; None at the owner of the label."""
    ends = np.cumsum([0, *(s.columns * s.nodes for s in shapes)])
    mine = None
    for owner in range(len(shapes)):
        part = slice(ends[owner], ends[owner + 1])
        if owner == active:
            continue
        scaled = left[part] << np.uint64(COUNT_BITS)
        shown = reveal_to(from_words(np.concatenate([scaled, counts[part]]), COUNT_BITS), owner, tag="woe/bins")
        mine = mine if shown is None else np.rint(shown)
    return mine
