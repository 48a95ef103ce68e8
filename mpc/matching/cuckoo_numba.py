"""The search of `mpc.matching.cuckoo`, compiled by numba."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compiled import compiled

Words = npt.NDArray[Any]


@compiled
def _fill(chosen: Words, held: Words, seen: Words, parent: Words, waiting: Words) -> bool:  # pragma: no cover
    n, choices = chosen.shape
    for point in range(n):
        head, tail = 0, 0
        for i in range(choices):
            at = chosen[point, i]
            seen[at], parent[at], waiting[tail] = point, -1, at
            tail += 1
        free = -1
        while head < tail:
            at = waiting[head]
            head += 1
            if held[at] < 0:
                free = at
                break
            for i in range(choices):
                other = chosen[held[at], i]
                if seen[other] != point:
                    seen[other], parent[other], waiting[tail] = point, at, other
                    tail += 1
        if free < 0:
            return False
        while parent[free] >= 0:
            held[free] = held[parent[free]]
            free = parent[free]
        held[free] = point
    return True


def fill(chosen: Words, held: Words) -> bool:
    """Put every point into one of its bins, in order, each by the shortest chain of moves; False if one has no place.

    chosen: (n, choices) int64, each point's bins, all different.  held: (bins,) int64, -1 everywhere; overwritten.
    """
    bins = len(held)
    seen, parent = np.full(bins, -1, dtype=np.int64), np.empty(bins, dtype=np.int64)
    return bool(_fill(chosen, held, seen, parent, np.empty(bins + chosen.shape[1], dtype=np.int64)))
