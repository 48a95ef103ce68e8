"""Sort shared rows by a shared key: shuffle them, then compare and open who is less.

The keys are made distinct: key 2^b + row number, b = ceil(log2 n).  After the shuffle (`mpc.shuffle`) the order of the rows
in which they lie is then a uniformly random permutation to any n - 1 parties, whatever the keys are, ties or not.  Every
comparison's outcome, which rows are compared, and how many, are functions of that permutation.  So everything that is opened
can be drawn without knowing a single key, which is to say that it reveals nothing.

Which rows are compared is decided by `partition`, a quicksort made for few rounds.  One level is one comparison call for
all segments of the table.  A segment of at most 16 rows is settled by all its pairs.  The rows of a longer one are compared
with three pivots, which splits it in four; and all pairs of some sqrt(size) of its rows are compared, so that the pivots of
the next levels are quartiles of a sample and not three rows drawn at random.  When only a part of the table is left in
segments, longer ones are settled too, up to 16 rows divided by that part: it is cheap then, and ends the last levels.

Cost model.  Three pivots tell two bits of a row's place for 3 comparisons, 1.5 a bit, where one pivot needs 1 a bit and
twice the levels, and seven 2.3 a bit and two thirds of them.  All pairs of s rows are (s - 1) / 2 comparisons a row for
log2 s bits: 7.5 for 4 bits at 16 rows.  A level is 4 rounds.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import plan_reveal_negative, reveal_negative
from mpc.errors import LocalProtocolError
from mpc.session import Session
from mpc.shuffle import plan_shuffle, shuffle

Words = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]
Bits = npt.NDArray[np.bool_]
Levels = Generator[tuple[Rows, Rows], Bits, Rows]
"""Yields the rows (i, j) to compare, is sent where i is less than j, and returns the order."""

RANGE_BITS = 62
SETTLED, PIVOTS = 16, 3
TAIL, TAIL_OF_TOP = 16, 2
"""Twice the comparisons for each row of the table that a level may spend to settle all that is left; a top k, which needs
only some two for each row in all, spends less."""
SAMPLED = 31
"""A segment with fewer rows in known order gets a new sample, so that its parts will have quartiles to choose from."""
BLIND = 512
"""From this size a segment without any known order waits for a sample, rather than being split at rows drawn at random."""
CALL = 1 << 19
"""Comparisons in one call; more are made in several, so that parties and dealer hold some 60 MB at most."""
_UNKNOWN = 1 << 32
"""More than any number of rows: sorts behind the rows whose order is known."""


@dataclass
class _Segments:
    """Runs of rows whose place among the others is known; of each, the first `known` rows are in order."""

    start: Rows
    size: Rows
    known: Rows

    def where(self, kept: Bits) -> _Segments:
        """Some of the segments."""
        return _Segments(self.start[kept], self.size[kept], self.known[kept])


class _Pairs:
    """All pairs within blocks of rows of one size: (blocks, size) places of the table."""

    def __init__(self, places: Rows, order: Rows) -> None:
        self.places, self._rows = places, order[places]
        self._low, self._high = np.triu_indices(places.shape[1], 1)
        self.i, self.j = self._rows[:, self._low].reshape(-1), self._rows[:, self._high].reshape(-1)

    def ranks(self, less: Bits) -> Rows:
        """Of each row, how many of its block are less; shaped like the places."""
        size = self.places.shape[1]
        outcome = less.reshape(len(self.places), -1)
        wins = np.zeros((len(self.places), size, size), dtype=np.bool_)
        wins[:, self._low, self._high] = outcome
        wins[:, self._high, self._low] = ~outcome
        below: Rows = wins.sum(axis=1, dtype=np.intp)
        return below

    def settle(self, less: Bits, order: Rows) -> None:
        """Put every block in order."""
        sorted_rows = np.empty_like(self._rows)
        np.put_along_axis(sorted_rows, self.ranks(less), self._rows, axis=1)
        order[self.places] = sorted_rows


class _Split:
    """The long segments of one level: their rows against their pivots, and the samples for the next level."""

    def __init__(self, segments: _Segments, order: Rows, limit: int) -> None:
        self._segments, self._order = segments, order
        self._base = np.cumsum(segments.size) - segments.size
        self._of = np.repeat(np.arange(len(segments.size)), segments.size)
        self._offset = np.arange(len(self._of)) - self._base[self._of]
        self._place = segments.start[self._of] + self._offset
        self._sorted = segments.known >= PIVOTS
        self._pivots = _choose_pivots(segments, limit)
        is_pivot = np.zeros(len(self._of), dtype=np.bool_)
        for pivot in self._pivots:
            is_pivot |= self._offset == pivot[self._of]
        self._asked: list[Bits] = []
        for pivot in self._pivots:
            at = pivot[self._of]
            self._asked.append((at >= 0) & (~is_pivot | (~self._sorted[self._of] & (self._offset != at))))
        self._samples = self._choose_samples()

    def _choose_samples(self) -> list[tuple[Rows, _Pairs]]:
        """(places among this level's rows, pairs) of the rows behind the known ones, by sizes 3, 7, 15, ..."""
        s = self._segments
        self._fresh = s.known < SAMPLED
        doubled = np.floor(np.log2(np.sqrt(s.size) + 1)).astype(np.intp)
        size = np.where(self._fresh, np.minimum((1 << doubled) - 1, s.size - s.known), 0)
        out = []
        for n in np.unique(size[size > 1]):
            chosen = np.flatnonzero(size == n)
            offsets = s.known[chosen][:, None] + np.arange(n)
            out.append((self._base[chosen][:, None] + offsets, _Pairs(s.start[chosen][:, None] + offsets, self._order)))
        return out

    def pairs(self) -> list[tuple[Rows, Rows]]:
        """What to compare: rows with each pivot, then the samples."""
        rows, out = self._order[self._place], []
        for pivot, asked in zip(self._pivots, self._asked, strict=True):
            of = self._of[asked]
            out.append((rows[asked], self._order[self._segments.start[of] + pivot[of]]))
        return out + [(sample.i, sample.j) for _, sample in self._samples]

    def apply(self, less: list[Bits]) -> _Segments:
        """Rearrange the rows and return the parts, empty ones and pivots left out."""
        part = np.zeros(len(self._of), dtype=np.intp)
        for asked, outcome in zip(self._asked, less[:PIVOTS], strict=True):
            part[asked] += ~outcome
        part *= 2
        for i, pivot in enumerate(self._pivots):  # a pivot lies between two parts, at an odd number
            here, known = self._offset == pivot[self._of], self._sorted[self._of]
            part[here & known] = 2 * i + 1
            part[here & ~known] += 1
        rank = np.where((self._offset < self._segments.known[self._of]) & ~self._fresh[self._of], 0, _UNKNOWN)
        rank += self._offset
        for (where, sample), outcome in zip(self._samples, less[PIVOTS:], strict=True):
            rank[where] = sample.ranks(outcome)
        part += self._of * (2 * PIVOTS + 2)
        moved = np.lexsort((rank, part))
        self._order[self._place] = self._order[self._place[moved]]
        return self._parts(part[moved], rank[moved] < _UNKNOWN)

    def _parts(self, part: Rows, known: Bits) -> _Segments:
        first = np.flatnonzero(np.append(True, part[1:] != part[:-1]))
        size = np.diff(np.append(first, len(part)))
        parts = _Segments(self._place[first], size, np.add.reduceat(known.astype(np.intp), first))
        return parts.where((part[first] % 2 == 0) & (size > 1))


def _choose_pivots(s: _Segments, limit: int) -> tuple[Rows, ...]:
    """Offsets of up to three pivots of each segment, -1 for none."""
    pivots = np.full((PIVOTS, len(s.size)), -1, dtype=np.intp)
    ordered = s.known >= PIVOTS
    pivots[:, ordered] = np.outer(np.arange(1, PIVOTS + 1), s.known[ordered] + 1) // (PIVOTS + 1) - 1
    # Any three rows will do, except in a large table of which nothing is known: there a sample comes first.
    pivots[:, ~ordered & ((s.known > 0) | (s.size < BLIND))] = np.arange(PIVOTS)[:, None]
    # Where only the first few rows of a segment are wanted, one pivot just above them, with room for the sample's error.
    wanted = limit - s.start
    cut = ordered & (4 * wanted < s.size)
    rank = s.known[cut] * wanted[cut] / s.size[cut]
    pivots[:, cut] = -1
    pivots[0, cut] = np.minimum(s.known[cut] - 1, np.ceil(rank + 2 * np.sqrt(rank)).astype(np.intp))
    return tuple(pivots)


def partition(n: int, limit: int) -> Levels:
    """Find the first `limit` of n rows in uniformly random order, by levels of comparisons; pure and public.

    The rows' order must be uniformly random, or the numbers of levels and comparisons are not what `sort` says.  The
    result's first `limit` entries are the least rows in order; the rest are the other rows.
    """
    order = np.arange(n)
    zero = np.zeros(1, dtype=np.intp)
    segments = _Segments(zero, zero + n, zero).where(np.array([n > 1 and limit > 0]))
    tail = TAIL if limit == n else TAIL_OF_TOP
    while len(segments.size):
        short = segments.size <= max(SETTLED, tail * n // int(segments.size.sum()))
        blocks = []
        for size in np.unique(segments.size[short]):
            starts = segments.start[short & (segments.size == size)]
            blocks.append(_Pairs(starts[:, None] + np.arange(size), order))
        split = None if short.all() else _Split(segments.where(~short), order, limit)
        pairs = [(block.i, block.j) for block in blocks] + (split.pairs() if split else [])
        less = yield np.concatenate([i for i, _ in pairs]), np.concatenate([j for _, j in pairs])
        outcomes = np.split(less, np.cumsum([len(i) for i, _ in pairs])[:-1])
        for block, outcome in zip(blocks, outcomes[: len(blocks)], strict=True):
            block.settle(outcome, order)
        if split is None:
            break
        segments = split.apply(outcomes[len(blocks) :])
        segments = segments.where(segments.start < limit)
    return order


def sort(session: Session, columns: Words, key_bits: int, *, descending: bool = False) -> tuple[Words, Words]:
    """Sort rows by their first column; equal keys stay in the order in which they were.

    columns: (n, m) uint64 words.  Column 0 is the key, read as a signed integer of `key_bits` bits, that is
    -2^(key_bits - 1) <= key < 2^(key_bits - 1), with key_bits + ceil(log2 n) <= 62; a key outside is put at a wrong place, and
    nobody can tell.  The other columns are of any scale.  Returns shares of the sorted columns (n, m) and of the numbers
    (n,) that the rows had before.  No planned ticket may be open, for what is asked of the dealer depends on the outcomes.

    Reveals: nothing; the outcomes of comparisons are opened, and are those of a uniformly random order.
    Cost: with N parties, N rounds and 8 n (m + 1) bytes to every other party for the shuffle, for which the dealer sends
    8 N n (m + 1).  Then random numbers L of levels and C of comparisons, the same for every data set: 4 L rounds (more when
    a level has over 2^19 comparisons); 12.4 C bytes to every other party and 42 C from the dealer, as `reveal_negative` says.
    On average, for n = 100, 1,000, 10,000, 100,000: L = 4, 7, 9, 11 and C / n = 11, 17, 23, 28.  L <= 6 + log2(n) and
    C <= 2 n log2(n) + 16 n with a wide margin in every one of the 1,300 drawn orders; quicksort's worst case is possible.
    Security: semi-honest parties; the dealer does not collude.
    Source: Hamada et al., ICISC 2012 (shuffle, then sort by opened comparisons); Chase, Ghosh, Poburinnaya, ASIACRYPT 2020;
    Frazer and McKellar, J. ACM 1970 (pivots from a sample).
    Raises: LocalProtocolError if the keys are too long for so many rows, or planned tickets are open.
    """
    return _first(session, columns, key_bits, len(columns), descending)


def top_k(session: Session, columns: Words, k: int, key_bits: int, *, descending: bool = True) -> tuple[Words, Words]:
    """The k rows with the largest keys, or the smallest unless `descending`, the best first; ties as they were.

    columns, key_bits: as in `sort`.  Returns shares of (k, m) and (k,); of all rows if there are no more than k.

    Reveals: nothing; the outcomes of comparisons are opened, and are those of a uniformly random order.
    Cost: the shuffle as in `sort`; then, for k below a hundredth of n, 3 to 7 levels and 1.3 n to 3.5 n comparisons for n
    from 1,000 to 100,000; a larger k costs up to what sorting does.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `sort`; Hoare, C. ACM 1961 (find).
    Raises: LocalProtocolError as `sort`, or if k is negative.
    """
    if k < 0:
        raise LocalProtocolError(f"no table has its {k} best rows")
    return _first(session, columns, key_bits, min(k, len(columns)), descending)


def _first(session: Session, columns: Words, key_bits: int, limit: int, descending: bool) -> tuple[Words, Words]:
    if columns.ndim != 2 or columns.shape[1] < 1 or columns.dtype != np.uint64:
        raise LocalProtocolError(f"rows to sort have a key and are 64-bit words, not {columns.shape} {columns.dtype}")
    n, m = columns.shape
    row_bits = max(n - 1, 0).bit_length()
    if not 1 <= key_bits <= RANGE_BITS - row_bits:
        raise LocalProtocolError(f"keys of {n} rows have 1 to {RANGE_BITS - row_bits} bits, not {key_bits}")
    numbered = np.zeros((n, m + 1), dtype=np.uint64)
    numbered[:, :m] = columns
    if session.me == 0:
        numbered[:, m] = np.arange(n)
    if n > 1 and limit > 0:
        numbered = shuffle(session, session.correlations.plan(plan_shuffle(n, m + 1, len(session.parties))), numbered)
        keys = numbered[:, 0] << np.uint64(row_bits)
        if descending:
            np.negative(keys, out=keys)
        keys += numbered[:, m]
        numbered = numbered[_opened_order(session, keys, limit)]
    return numbered[:limit, :m], numbered[:limit, m]


def _opened_order(session: Session, keys: Words, limit: int) -> Rows:
    """The order that the opened comparisons of shuffled, distinct keys say."""
    levels = partition(len(keys), limit)
    try:
        i, j = next(levels)
        while True:
            i, j = levels.send(_less(session, keys, i, j))
    except StopIteration as end:
        order: Rows = end.value
        return order


def _less(session: Session, keys: Words, i: Rows, j: Rows) -> Bits:
    """Open where key i is below key j."""
    calls = range(0, len(i), CALL)
    plans = [plan_reveal_negative(min(CALL, len(i) - first)) for first in calls]
    tickets = session.correlations.plan([request for plan in plans for request in plan])
    out, used = [], 0
    for first, plan in zip(calls, plans, strict=True):
        difference = keys[i[first : first + CALL]] - keys[j[first : first + CALL]]
        out.append(reveal_negative(session, tickets[used : used + len(plan)], difference, "sorting/order"))
        used += len(plan)
    return np.concatenate(out)
