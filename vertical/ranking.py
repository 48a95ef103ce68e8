"""Rows by falling score, in an order that nobody knows: what ranks, areas, gaps and deciles are computed from.

The rows are sorted once by their shared score (`mpc.sorting`), together with whatever columns are to be added up.  After
that every count "among the first k rows" is a sum of shares.  Rows of equal scores must count as one place wherever a curve
is looked at, so one test for zero says which rows have the score of the row before, and stays shared.

Area.  For a positive and a negative row 1 counts if the positive one has the higher score and 1/2 if both have the same.
With SP_j, SN_j the positives and negatives strictly above row j,

    2 U = P N + sum over negatives of SP_j - sum over positives of SN_j,        AUC = U / (P N).

SP_j is the count of positives before the first row of j's score.  It is carried from there over the rows of equal scores by
a scan in pairs: 2 log2(n) products of at most n rows in all.

Gap.  N TP_i - P FP_i after the last row of each score is P N times the vertical distance of the two classes' distribution
functions; the largest absolute value is found among shuffled rows (`mpc.sorting.top_k`).  All of this is exact: whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import is_zero, plan_is_zero
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError
from mpc.products import multiply, multiply_many, plan_matmul, plan_multiply
from mpc.session import Session
from mpc.sorting import RANGE_BITS, sort, top_k
from vertical.scores import Scores

Words = npt.NDArray[Any]
MAX_ROWS = 1 << 20
"""With more rows the gap of two classes does not fit a sort key."""


@dataclass(frozen=True)
class Ranking:
    """Our shares of rows in falling order of score; equal scores in the order the rows came in.

    columns: (n, m), what travelled along.  same: (n,), 1 where a row has the score of the row before it, otherwise 0.
    """

    columns: Words = field(repr=False)
    same: Words = field(repr=False)

    def first(self, counts: Sequence[int]) -> Words:
        """Shares of the columns' sums over the first `count` rows, for each of the counts: (len(counts), m)."""
        sums = np.zeros((len(self.columns) + 1, self.columns.shape[1]), dtype=np.uint64)
        np.cumsum(self.columns, axis=0, dtype=np.uint64, out=sums[1:])
        return np.asarray(sums[list(counts)])


def key_bits(scores: Scores, rows: int) -> int:
    """Bits of a sort key that holds any score.

    Raises: LocalProtocolError if that is too long for so many rows.
    """
    bits = int(np.ceil(scores.bound * 2.0**scores.frac_bits)).bit_length() + 1
    if bits + max(rows - 1, 0).bit_length() > RANGE_BITS or rows > MAX_ROWS:
        raise LocalProtocolError(f"{rows} scores of up to {scores.bound:g} are too many or too large to be ranked")
    return bits


def rank(session: Session, scores: Scores, columns: Words) -> Ranking:
    """Sort rows by falling score.

    columns: (n, m) words of any scale that stay with their rows.

    Reveals: nothing; the outcomes of comparisons are opened, and are those of a uniformly random order.
    Cost: as `mpc.sorting.sort` for n rows of m + 1 words, then as `mpc.compare.is_zero` for n - 1 words.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.sorting.sort`.
    Raises: LocalProtocolError if the scores are not one number a row, too many or too large for a sort key.
    """
    n = len(scores)
    if scores.words.ndim != 1 or len(columns) != n or n < 2:
        raise LocalProtocolError("a ranking takes two or more rows with one score each")
    table = np.column_stack([scores.words, columns])
    rows, _ = sort(session, table, key_bits(scores, n), descending=True)
    same = np.zeros(n, dtype=np.uint64)
    tickets = session.correlations.plan(plan_is_zero(n - 1))
    same[1:] = is_zero(session, tickets, rows[:-1, 0] - rows[1:, 0])
    return Ranking(np.ascontiguousarray(rows[:, 1:]), same)


def concordance(session: Session, ranking: Ranking, positives: Sequence[int], negatives: Sequence[int]) -> Words:
    """Shares of 2 U - P N for pairs of columns that say which rows are positive and which negative: (pairs,).

    positives, negatives: places of columns of zeros and ones, one of each for a pair; a row may be neither.

    Reveals: nothing; every opened word is uniform.
    Cost: 2 floor(log2 n) + 2 rounds; with g pairs, at most 8 n (10 g + 4) bytes to every other party: 2 g + 1 words a row
        for the start, 4 g + 3 for the scan and 4 g for the sums; the dealer sends at most 8 n (6 g + 1) in all.
    Security: semi-honest owners; the dealer does not collude.
    Source: Mann and Whitney, Ann. Math. Stat. 1947; Brent and Kung, IEEE Trans. Computers 1982 (the scan).
    Raises: as `mpc.products.multiply_many`.
    """
    n, pairs = len(ranking.columns), len(positives)
    chosen = ranking.columns[:, [*positives, *negatives]]
    before = np.zeros_like(chosen)
    np.cumsum(chosen[:-1], axis=0, dtype=np.uint64, out=before[1:])
    dot = plan_matmul((1, 2 * n), (2 * n, 1))
    scan = _plan_carry(n, 2 * pairs)
    tickets = session.correlations.plan([plan_multiply((n, 1), before.shape), *scan, *[dot] * pairs])
    starts = np.negative(ranking.same)
    if session.me == 0:
        starts += np.uint64(1)
    fresh = multiply(session, tickets[0], starts[:, None], before)
    above = _carry(session, tickets[1 : 1 + len(scan)], ranking.same[:, None], fresh)
    factors = []
    for i, ticket in enumerate(tickets[1 + len(scan) :]):
        signed = np.concatenate([chosen[:, pairs + i], np.negative(chosen[:, i])])
        factors.append((ticket, signed[None, :], np.concatenate([above[:, i], above[:, pairs + i]])[:, None]))
    return np.concatenate([out.reshape(1) for out in multiply_many(session, factors)])


def _plan_carry(n: int, m: int) -> list[Correlation]:
    """What carrying m columns of n rows asks of the dealer, in the order of use."""
    if n == 1:
        return []
    half, later = n // 2, (n + 1) // 2 - 1
    return [
        plan_multiply((half, 1), (half, 1 + m)),
        *_plan_carry(half, m),
        plan_multiply((later, 1), (later, m)),
    ]


def _carry(session: Session, tickets: Sequence[Ticket], keep: Words, values: Words) -> Words:
    """x_i = values_i + keep_i x_(i-1), for shared bits `keep` (n, 1) with keep_0 = 0, and values (n, m).

    Reveals, Security, Source, Raises: as `concordance`, of which it is a part.
    Cost: 2 floor(log2 n) rounds; each pair of rows is one affine map, found with one product, and used with one.
    """
    n = len(values)
    if n == 1:
        return values
    half = n // 2
    left, right = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    inner = multiply(session, tickets[0], keep[right], np.concatenate([keep[left], values[left]], axis=1))
    ends = _carry(session, tickets[1:-1], inner[:, :1], values[right] + inner[:, 1:])
    out = values.copy()
    out[right] = ends
    out[2::2] += multiply(session, tickets[-1], keep[2::2], ends[: (n + 1) // 2 - 1])
    return out


def largest_gap(session: Session, ranking: Ranking, columns: tuple[int, int], sizes: tuple[int, int]) -> Words:
    """A share of the largest |N TP_i - P FP_i| over all scores, (1,): P N times the Kolmogorov-Smirnov distance.

    columns: the places of the positives' and the negatives' column.  sizes: P and N, public.

    Reveals: nothing; the outcomes of comparisons are opened, and are those of a uniformly random order.
    Cost: a product of n words, then as `mpc.sorting.top_k` for the first of 2 n rows of a word.
    Security: semi-honest owners; the dealer does not collude.
    Source: Smirnov 1939; for the maximum as `mpc.sorting.top_k`.
    Raises: LocalProtocolError if there are more than 2^20 rows.
    """
    n = len(ranking.columns)
    if n > MAX_ROWS:
        raise LocalProtocolError(f"the gap of {n} rows does not fit a sort key")
    steps = ranking.columns[:, columns[0]] * np.uint64(sizes[1]) - ranking.columns[:, columns[1]] * np.uint64(sizes[0])
    gaps = np.cumsum(steps, dtype=np.uint64)
    ends = np.zeros(n, dtype=np.uint64)
    ends[:-1] -= ranking.same[1:]
    if session.me == 0:
        ends += np.uint64(1)
    (ticket,) = session.correlations.plan([plan_multiply((n,))])
    kept = multiply(session, ticket, ends, gaps)
    bits = (sizes[0] * sizes[1]).bit_length() + 1
    best, _ = top_k(session, np.concatenate([kept, np.negative(kept)])[:, None], 1, bits)
    return np.asarray(best[0])
