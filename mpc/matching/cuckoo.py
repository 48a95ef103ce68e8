"""Cuckoo hashing: every point in one of three bins of its own choice, one point to a bin at most.

Each of the three choices has a third of the bins for itself, so a point's bins are always different.  A new point looks for a
free bin along the points that would have to move, breadth first: it is found if there is one at all, so placing fails exactly
if some t points have fewer than t bins between them.

The number of bins is 1.3 n + 240, rounded up to a multiple of three.  A smallest set of t points that fails has t - 1 bins,
each chosen at least twice; the expected number of such sets is below 2^-40 for every n up to 2^22, which
`tests/mpc/test_hidden.py` computes.  Fewer bins seem to be enough in experiments; this number does not rest on any.

Source: Pagh and Rodler, Journal of Algorithms 2004; Fotakis et al., Theory of Computing Systems 2005 (several choices, search
breadth first); Pinkas, Schneider, Zohner, ACM TOPS 2018 (no stash, in set intersection).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.matching.hashes import bound_key
from mpc.matching.kernels import kernels

Words = npt.NDArray[Any]

CHOICES = 3
SPARE = 240
"""Bins that a small set has beyond 1.3 for each point: sets of four points that share three bins are what fails there."""
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def _load() -> Callable[[Words, Words], bool]:
    try:
        from mpc.matching.cuckoo_numba import fill
    except ImportError:
        return fill_plain
    return fill


def n_bins(n_points: int) -> int:
    """How many bins so many points have; a multiple of three."""
    return CHOICES * -(-(13 * n_points + 10 * SPARE) // (10 * CHOICES))


def places(points: Words, key: bytes, bins: int) -> Words:
    """(3, n) uint64: the bins that each point may be in.  points: (n, 2) words.  key: 32 bytes."""
    digest = kernels.hash_rows(np.frombuffer(key, dtype=np.uint32), points, points[:, :0], CHOICES)
    third = np.uint64(bins // CHOICES)
    out = np.empty((CHOICES, len(points)), dtype=np.uint64)
    for choice in range(CHOICES):
        word = digest[:, choice]
        out[choice] = ((word >> _HALF) * third + ((word & _LOW) * third >> _HALF) >> _HALF) + np.uint64(choice) * third
    return out


def place(points: Words, session: bytes, attempt: int, bins: int) -> Words:
    """`places` under the key of an attempt of a session; both sides compute their own points'."""
    return places(points, bound_key("bins", session, bytes([attempt])), bins)


def table(chosen: Words, bins: int) -> npt.NDArray[np.int64] | None:
    """(bins,): the point that is in each bin, -1 in empty ones; None if not every point finds a place.

    chosen: of `places`, (3, n).
    """
    out = np.full(bins, -1, dtype=np.int64)
    return out if _load()(np.ascontiguousarray(chosen.T).view(np.int64), out) else None


def fill_plain(chosen: Words, held: Words) -> bool:
    """As `mpc.matching.cuckoo_numba.fill`, in plain Python."""
    choices, bins = chosen.tolist(), held.tolist()
    for point, own in enumerate(choices):
        parent, waiting = dict.fromkeys(own, -1), list(own)
        for at in waiting:
            if bins[at] < 0:
                _move(bins, parent, at, point)
                break
            for other in choices[bins[at]]:
                if other not in parent:
                    parent[other] = at
                    waiting.append(other)
        else:
            return False
    held[:] = bins
    return True


def _move(bins: list[int], parent: dict[int, int], free: int, point: int) -> None:
    """Fill a free bin from the one before it on the way there, that one in turn, and the first with the new point."""
    while parent[free] >= 0:
        bins[free] = bins[parent[free]]
        free = parent[free]
    bins[free] = point


def warm_up() -> None:
    """Load or compile the kernel."""
    table(places(np.zeros((1, 2), dtype=np.uint64), bytes(32), n_bins(1)), n_bins(1))
