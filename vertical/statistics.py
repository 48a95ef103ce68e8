"""Correlations between owners' columns, with a label, and variance inflation factors, from one secret Gram matrix.

Correlations within an owner's own columns are its own affair.  For the rest every owner turns its standardised columns X into
Z = X T with Z^T Z = n I, in the clear; the label is a column of its own.  The Gram matrix of all Z and the label is made on
shares, once, and then

    correlations with the label: the part of Z^T y of an owner, shown to that owner, which turns it back with C = T^T X^T X / n;
    correlations between owners: C_a^T (Z_a^T Z_b) C_b / n, where each C is known to its owner alone, shown to the two;
    variance inflation: diag((X^T X / n)^-1) of all columns, which is t^T M^-1 t for M = Z^T Z / n and every row t of T.

As all blocks of M on the diagonal are the identity, columns of one owner that nearly repeat each other cost no accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than, plan_less_than
from mpc.correlations import Correlation, Ticket
from mpc.engine import from_words, reveal_to
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.linear import DOUBLINGS, FORM_BITS, MATRIX_BITS, ROW_BITS, forms, inverse, plan_forms, plan_inverse, refine
from mpc.products import multiply, multiply_many, plan_matmul, plan_multiply
from mpc.ring import encode
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate_many
from mpc.wire import recv_json, send_json
from vertical.columns import joint_gram, plan_joint_gram
from vertical.whitening import whiten

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]

RELEASES = ("label_correlations", "correlations", "vif")
INPUT_BITS = 16
"""Fractional bits of a masked column, whose entries need less than 31 bits for MAX_ROWS rows, and its squares less than 62."""
MAX_ROWS = 1 << 28
SHOWN_BITS = 20
"""Fractional bits of an opened correlation."""
FEWEST_ROWS = 100
MAX_COLUMNS = 4096
UNRESOLVED = 100
"""A factor is not told if the last doubling of the inverse still added more than one part in so many to it."""


@dataclass(frozen=True)
class Settings:
    """What to compute.

    release: any of RELEASES.  minimum: the fewest rows.  rows_per_column: the fewest rows for each column of the owner that
    has most: every correlation with a column is one equation about that column's rows, and there must be far fewer of them.
    """

    release: tuple[str, ...] = RELEASES
    minimum: int = FEWEST_ROWS
    rows_per_column: int = 10

    def __post_init__(self) -> None:
        if not self.release or not set(self.release) <= set(RELEASES) or len(set(self.release)) != len(self.release):
            raise LocalProtocolError(f"statistics of columns are some of {', '.join(RELEASES)}, each once")
        if self.minimum < FEWEST_ROWS or self.rows_per_column < 2:
            raise LocalProtocolError(f"statistics take {FEWEST_ROWS} rows or more, and 2 or more for each column")


@dataclass(frozen=True)
class Found:
    """What one owner learns.

    own: (d, d) correlations of its columns, computed alone.  label: (d,) with the label, None if not asked for.  cross: by the
    other owner's place, (d, its columns).  vif: (d,); infinite where a column is a combination of others of this owner, NaN
    where the factor is too large to be told.
    """

    own: Floats = field(repr=False)
    label: Floats | None = field(repr=False)
    cross: dict[int, Floats] = field(repr=False)
    vif: Floats | None = field(repr=False)


@dataclass(frozen=True)
class _Own:
    """Our columns.  basis: T (d, r).  back: C (r, d).  words: Z and the label as integers, in units that make their squares
    add up to 2^(2 INPUT_BITS + s)."""

    correlations: Floats = field(repr=False)
    basis: Floats = field(repr=False)
    back: Floats = field(repr=False)
    dependent: npt.NDArray[np.bool_] = field(repr=False)
    words: Words = field(repr=False)
    label: Words = field(repr=False)
    label_correlations: Floats | None = field(repr=False)


@dataclass(frozen=True)
class _Group:
    """What every owner knows of the others.  ranks: columns of each Z.  columns: of each X.  active: who has the label."""

    n: int
    ranks: list[int]
    columns: list[int]
    active: int | None

    @property
    def scale(self) -> int:
        """The squares of a column of Z, over 2^(2 INPUT_BITS), add up to 2 to this."""
        return scale_bits(self.n)

    @property
    def widths(self) -> list[int]:
        """Columns that each owner brings: those of its Z, and the label."""
        return [rank + (i == self.active) for i, rank in enumerate(self.ranks)]

    @property
    def spread(self) -> int:
        """M over 2 to this has eigenvalues of at most 1, but for rounding: none of M is above the number of owners."""
        return (len(self.ranks) - 1).bit_length()

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Every two owners."""
        k = len(self.ranks)
        return ((a, b) for a in range(k) for b in range(a + 1, k))


def statistics(session: Session, inputs: Floats, y: Floats | None, settings: Settings, first: int = 0) -> Found:
    """Joint statistics of all owners' columns; every owner calls this at once with its own aligned rows.

    inputs: (n, d) numbers, every column varying.  y: (n,) the label at one owner; None at the others, or at all if nothing is
    asked about it.  first: number of the first of one matrix for each owner.

    Reveals: to every owner, how many columns every other one has and how many of them are independent, and who has the label;
        with "label_correlations", to each owner the correlations of its own columns with the label; with "correlations", to
        every two owners the correlations between their columns; with "vif", to each owner the variance inflation factors of
        its own columns, or for each that it is too large to be told.
    Cost: up to 90 rounds; 8 n (r + 1) bytes to every other party for our r independent columns, with the label; for two owners
        of D columns in all, about 820 D^2 bytes for "vif" and 16 D^2 for "correlations".  No bytes but the first depend on the
        number of rows.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.  Each number tells an owner one equation
        about the rows of another one's column; `Settings.rows_per_column` limits how many.  Who makes a column that is not
        zero in one row only learns that row's value from its correlation.
    Source: Beaver, CRYPTO 1991 (Gram matrices of masked columns); Hotelling 1943, Schulz 1933 (the inverse); Marquardt,
        Technometrics 1970 (variance inflation factors).
    Raises: Refused, at every owner, if there are too few rows; RemoteProtocolError if another owner has other rows or was asked
        for something else; LocalProtocolError if a column does not vary or is not finite.
    """
    own = _own(inputs, y)
    group = _agreed(session, own, y is not None, settings)
    mine = own.words
    if session.me == group.active:
        mine = np.column_stack([mine, own.label])
    plan = _Plan.of(session, group, settings, first)
    G = joint_gram(session, plan.gram, mine, group.widths, first)
    if group.active is not None:  # the label last
        place = sum(group.widths[: group.active + 1]) - 1
        order = [*(i for i in range(len(G)) if i != place), place]
        G = G[np.ix_(order, order)]
    return _released(session, group, settings, own, plan, G)


def _own(inputs: Floats, y: Floats | None) -> _Own:
    """Standardise and whiten.  Raises: LocalProtocolError for what is not finite or does not vary."""
    X = standardised(inputs, "a column of ours")
    n = len(X)
    R = X.T @ X / n
    block = whiten(X, 0.0, 1.0, intercept=False)
    words = whole_numbers(X @ block.basis, n)
    label, with_label = np.zeros((n, 0), dtype=np.int32), None
    if y is not None:
        if y.shape != (n,):
            raise LocalProtocolError(f"there are {n} rows and {y.shape} labels")
        centred = standardised(y[:, None], "the label")
        label, with_label = whole_numbers(centred, n), X.T @ centred[:, 0] / n
    return _Own(R, block.basis, block.basis.T @ R, block.dependent, words, label, with_label)


def standardised(values: Floats, what: str) -> Floats:
    """Columns of mean 0 and variance 1.  Raises: LocalProtocolError if one is not finite or does not vary."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not 1 <= values.shape[1] <= MAX_COLUMNS or not 2 <= len(values) <= MAX_ROWS:
        raise LocalProtocolError(
            f"{what} is of 2 to {MAX_ROWS} rows and at most {MAX_COLUMNS} columns, not {values.shape}"
        )
    if not np.isfinite(values).all():
        raise LocalProtocolError(f"{what} holds something that is not a finite number")
    centred = values - values.mean(axis=0)
    sd = np.sqrt((centred**2).mean(axis=0))
    if (sd <= 1e-12 * np.abs(values).max(axis=0)).any() or not (sd > 0).all():
        raise LocalProtocolError(f"{what} does not vary over the matched rows")
    return np.asarray(centred / sd)


def whole_numbers(columns: Floats, n: int) -> Words:
    """Columns whose squares add up to n as integers whose squares add up to 2^(2 INPUT_BITS + scale_bits(n))."""
    return np.asarray(np.rint(columns * np.sqrt(2.0 ** scale_bits(n) / n) * 2.0**INPUT_BITS).astype(np.int32))


def scale_bits(n: int) -> int:
    """The power of two that n is brought to."""
    return math.ceil(math.log2(n))


def _agreed(session: Session, own: _Own, labelled: bool, settings: Settings) -> _Group:
    """Exchange the sizes and make sure that all were asked for the same."""
    asked = [sorted(settings.release), settings.minimum, settings.rows_per_column]
    d, r = own.basis.shape
    mine: dict[str, Any] = {"asked": asked, "rows": len(own.words), "columns": d, "rank": r, "label": labelled}
    for peer in session.peers:
        send_json(session.channel, peer, "statistics/shape", mine)
    stated = []
    for i, name in enumerate(session.parties):
        value = mine if i == session.me else recv_json(session.channel, name, "statistics/shape", 1 << 10)
        if not isinstance(value, dict) or value.keys() != mine.keys() or value["asked"] != asked:
            raise RemoteProtocolError(name, "statistics/shape", "was asked for other statistics")
        sizes = [value["rank"], value["columns"]]
        good = all(type(x) is int for x in sizes) and 1 <= sizes[0] <= sizes[1] <= MAX_COLUMNS
        if not good or value["rows"] != mine["rows"] or type(value["label"]) is not bool:
            raise RemoteProtocolError(name, "statistics/shape", "states other rows than ours or no columns")
        stated.append(value)
    active = [i for i, value in enumerate(stated) if value["label"]]
    if len(active) > 1 or ("label_correlations" in settings.release and not active):
        raise RemoteProtocolError(session.peers[0], "statistics/shape", "exactly one owner must have the label")
    most = max(value["columns"] for value in stated)
    if mine["rows"] < max(settings.minimum, settings.rows_per_column * most):
        raise Refused(
            f"statistics of up to {most} columns take {max(settings.minimum, settings.rows_per_column * most)} rows"
        )
    ranks, columns = [v["rank"] for v in stated], [v["columns"] for v in stated]
    wanted = "label_correlations" in settings.release
    return _Group(len(own.words), ranks, columns, active[0] if active and wanted else None)


@dataclass(frozen=True)
class _Plan:
    """Tickets in order of use; empty for what is not released."""

    gram: list[Ticket]
    lower: list[Ticket]
    right: list[Ticket]
    right_cut: list[Ticket]
    left: list[Ticket]
    left_cut: list[Ticket]
    rough: list[Ticket]
    last: list[Ticket]
    fine: list[Ticket]
    before: list[Ticket]
    doubt: list[Ticket]

    @classmethod
    def of(cls, session: Session, group: _Group, settings: Settings, first: int) -> _Plan:
        """Ask the dealer for all of it before the masked columns cross."""
        D, d = sum(group.ranks), group.columns
        lower: list[Correlation] = []
        down = 2 * INPUT_BITS + group.scale
        groups: list[list[Correlation]] = [
            plan_joint_gram(group.n, group.widths, first),
            lower,
            *([] for _ in range(9)),
        ]
        if group.active is not None:
            lower.append(plan_truncation(D, down - SHOWN_BITS))
        if "correlations" in settings.release:
            for a, b in group.pairs():
                ra, rb = group.ranks[a], group.ranks[b]
                lower.append(plan_truncation(ra * rb, down - MATRIX_BITS))
                groups[2].append(plan_matmul((ra, rb), (rb, d[b])))
                groups[3].append(plan_truncation(ra * d[b], ROW_BITS))
                groups[4].append(plan_matmul((d[a], ra), (ra, d[b])))
                groups[5].append(plan_truncation(d[a] * d[b], ROW_BITS + MATRIX_BITS - SHOWN_BITS))
        if "vif" in settings.release:
            lower.append(plan_truncation(D * D, down + group.spread - MATRIX_BITS))
            shapes = list(zip(d, group.ranks, strict=True))
            groups[6:8] = [plan_inverse(D, DOUBLINGS - 1), plan_inverse(D, 1)]
            groups[8:] = [
                plan_forms(shapes),
                plan_forms(shapes),
                [*plan_less_than(sum(d), 1), plan_multiply((sum(d),))],
            ]
        tickets = iter(session.correlations.plan([request for each in groups for request in each]))
        return cls(*([next(tickets) for _ in each] for each in groups))


def _released(session: Session, group: _Group, settings: Settings, own: _Own, plan: _Plan, G: Words) -> Found:
    """Bring the Gram matrix down to few digits and show every owner what is its to see."""
    D, cut = sum(group.ranks), np.cumsum([0, *group.ranks])
    blocks: list[Words] = []
    if group.active is not None:
        blocks.append(np.ascontiguousarray(G[:D, D]))
    pairs = list(group.pairs()) if "correlations" in settings.release else []
    blocks += [np.ascontiguousarray(G[cut[a] : cut[a + 1], cut[b] : cut[b + 1]]) for a, b in pairs]
    if "vif" in settings.release:
        blocks.append(np.ascontiguousarray(G[:D, :D]))
    lowered = truncate_many(session, plan.lower, blocks)
    label = None if group.active is None else _label(group, own, lowered.pop(0))
    cross = _cross(session, group, own, plan, dict(zip(pairs, lowered, strict=False)))
    vif = _inflation(session, group, own, plan, lowered[-1]) if "vif" in settings.release else None
    return Found(own.correlations, label, cross, vif)


def _label(group: _Group, own: _Own, shared: Words) -> Floats | None:
    """Each owner's part of Z^T y, shown to it; what an owner learns from that is the correlations and nothing more."""
    cut = np.cumsum([0, *group.ranks])
    mine = own.label_correlations
    for owner in range(len(group.ranks)):
        if owner == group.active:
            continue
        part = reveal_to(
            from_words(np.ascontiguousarray(shared[cut[owner] : cut[owner + 1]]), SHOWN_BITS),
            owner,
            tag="statistics/label",
        )
        mine = mine if part is None else own.back.T @ part
    return mine


def _cross(
    session: Session, group: _Group, own: _Own, plan: _Plan, blocks: dict[tuple[int, int], Words]
) -> dict[int, Floats]:
    """C_a^T M_ab C_b for every two owners, shown to both."""
    if not blocks:
        return {}
    back = [np.zeros((r, d), dtype=np.uint64) for r, d in zip(group.ranks, group.columns, strict=True)]
    back[session.me] = encode(own.back, ROW_BITS)
    factors = [(t, block, back[b]) for t, ((_, b), block) in zip(plan.right, blocks.items(), strict=True)]
    halves = truncate_many(session, plan.right_cut, multiply_many(session, factors))
    left = [
        (t, np.ascontiguousarray(back[a].T), half) for t, (a, _), half in zip(plan.left, blocks, halves, strict=True)
    ]
    found = {}
    for (a, b), words in zip(blocks, truncate_many(session, plan.left_cut, multiply_many(session, left)), strict=True):
        for owner, other in ((a, b), (b, a)):
            shown = reveal_to(from_words(words, SHOWN_BITS), owner, tag="statistics/cross")
            if shown is not None:
                found[other] = np.clip(shown if owner == a else shown.T, -1.0, 1.0)
    return found


def _inflation(session: Session, group: _Group, own: _Own, plan: _Plan, A: Words) -> Floats:
    """Variance inflation factors of our columns; everybody's are computed, and each owner's shown to it."""
    cut, ends = np.cumsum([0, *group.ranks]), np.cumsum([0, *group.columns])
    coarser = inverse(session, plan.rough, A)
    X = refine(session, plan.last, A, coarser)
    lengths = np.linalg.norm(own.basis, axis=1)
    rows = own.basis / np.where(lengths > 0, lengths, 1)[:, None]
    blocks, before = ([np.ascontiguousarray(W[a:b, a:b]) for a, b in pairwise(cut)] for W in (X, coarser))
    form = np.concatenate(forms(session, plan.fine, blocks, rows))
    grown = form - np.concatenate(forms(session, plan.before, before, rows))
    doubtful = less_than(session, plan.doubt[:-1], form - grown * np.uint64(UNRESOLVED), (0,))[0]
    form = form - multiply(session, plan.doubt[-1], form, doubtful)  # which leaves 0 of a doubtful one
    mine = np.empty(0)
    for owner in range(len(group.ranks)):
        part = slice(ends[owner], ends[owner + 1])
        shown = reveal_to(from_words(np.ascontiguousarray(form[part]), FORM_BITS), owner, tag="statistics/vif")
        mine = mine if shown is None else shown
    factors: Floats = np.maximum(mine * lengths**2 * 2.0**-group.spread, 1.0)
    factors[mine == 0] = np.nan
    factors[own.dependent] = np.inf
    return factors
