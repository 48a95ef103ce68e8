"""The kernel of `mpc.groups` compiled by numba; without numba, NumPy's there serves, with the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compiled import compiled as _compiled

Words = npt.NDArray[Any]


@_compiled
def turned_sums(shift: Words, e: Words, T: Words, out: Words) -> None:  # pragma: no cover - compiled
    """Add to `out` (1 + m, g) the rows T[i] (1 + m, g), plus e[i, j] T[i, 0] in row 1 + j, turned by shift[i]; signed words."""
    for i in range(T.shape[0]):
        cut = T.shape[2] - np.int64(shift[i])
        for j in range(T.shape[1]):
            factor = e[i, j - 1] if j else np.int64(0)
            low, high = T[i, j][cut:], T[i, j][:cut]
            hot_low, hot_high = T[i, 0][cut:], T[i, 0][:cut]
            sum_low, sum_high = out[j][: low.size], out[j][low.size :]
            for t in range(low.size):
                sum_low[t] += low[t] + factor * hot_low[t]
            for t in range(high.size):
                sum_high[t] += high[t] + factor * hot_high[t]
