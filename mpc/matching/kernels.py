"""The compiled kernels of set intersection where they can be had, otherwise the ones in NumPy."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.matching.parameters import SQUARE, TILE, WIDTH

Words = npt.NDArray[Any]


def _load() -> ModuleType:
    try:
        import mpc.matching.kernels_numba as found
    except ImportError:
        import mpc.matching.kernels_numpy as fallback

        return fallback
    return found


kernels = _load()
"""`mpc.matching.kernels_numba` where it can be imported, otherwise `mpc.matching.kernels_numpy`."""


def _load_wide() -> ModuleType:
    try:
        import mpc.matching.wide_numba as found
    except ImportError:
        import mpc.matching.wide_numpy as fallback

        return fallback
    return found


wide = _load_wide()
"""Of the malicious variant: `mpc.matching.wide_numba` where it can be imported, otherwise `mpc.matching.wide_numpy`."""


def warm_up() -> None:
    """Load or compile every kernel, so that nobody in a session waits for another one's compiler."""
    from mpc.matching import code

    key, words = np.zeros(8, dtype=np.uint32), np.zeros((1, 2), dtype=np.uint64)
    kernels.hash_items(key, np.frombuffer(bytes(64), dtype=np.uint8), np.zeros(2, dtype=np.int64))
    kernels.hash_rows(key, words, words[:, :0], 5)
    kernels.hash_rows(key, np.zeros((1, 4), dtype=np.uint64), words, 4)
    start, band = np.zeros(1, dtype=np.int64), np.ones((1, 5), dtype=np.uint64)
    solved = np.zeros((WIDTH + TILE - WIDTH % TILE, 1), dtype=np.uint64)
    kernels.solve(start, band, words[:, :1].copy(), solved)
    leaves = kernels.prepared(np.zeros((16 * code.LENGTH, 16), dtype=np.uint8))
    d, v = kernels.mask(leaves, 0, solved[:, 0].copy(), code.tables())
    kernels.unmask(leaves, 0, d, np.zeros(code.LENGTH, dtype=np.int64))
    kernels.add_code(kernels.decode(v, start, band), words[:, 0].copy(), code.tables())
    kernels.merge(words, words)
    kernels.order(words)
    _warm_up_wide(start, band)


def _warm_up_wide(start: Words, band: Words) -> None:
    from mpc.matching import wide_code

    solved, (table, spares) = np.zeros((SQUARE, 2), dtype=np.uint64), wide_code.tables()
    leaves = wide.prepared(np.zeros((64 * wide_code.LENGTH, 16), dtype=np.uint8))
    d, v, spare = wide.mask(leaves, 0, solved, table)
    wide.unmask(leaves, 0, d, np.zeros(wide_code.LENGTH, dtype=np.int64))
    values = np.zeros((1, wide_code.WORDS + 1), dtype=np.uint64)
    wide.parities(spare, start, band, values)
    wide.add_code(values, solved[:1], table, spares)
    wide.hashed(v, spare, solved[: SQUARE // TILE])
