"""The compiled kernels of set intersection where they can be had, otherwise the ones in NumPy."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from mpc.matching.parameters import TILE, WIDTH


def _load() -> ModuleType:
    try:
        import mpc.matching.kernels_numba as found
    except ImportError:
        import mpc.matching.kernels_numpy as fallback

        return fallback
    return found


kernels = _load()
"""`mpc.matching.kernels_numba` where it can be imported, otherwise `mpc.matching.kernels_numpy`."""


def warm_up() -> None:
    """Load or compile every kernel, so that nobody in a session waits for another one's compiler."""
    from mpc.matching import code

    key, words = np.zeros(8, dtype=np.uint32), np.zeros((1, 2), dtype=np.uint64)
    kernels.hash_items(key, np.frombuffer(bytes(64), dtype=np.uint8), np.zeros(2, dtype=np.int64))
    kernels.hash_rows(key, words, words[:, :0], 5)
    kernels.hash_rows(key, np.zeros((1, 4), dtype=np.uint64), words, 4)
    start, band = np.zeros(1, dtype=np.int64), np.ones((1, 5), dtype=np.uint64)
    _, solved = kernels.solve(start, band, words[:, 0].copy(), WIDTH + TILE - WIDTH % TILE)
    leaves = kernels.prepared(np.zeros((16 * code.LENGTH, 16), dtype=np.uint8))
    d, v = kernels.mask(leaves, 0, solved, code.tables())
    kernels.unmask(leaves, 0, d, np.zeros(code.LENGTH, dtype=np.int64))
    kernels.add_code(kernels.decode(v, start, band), words[:, 0].copy(), code.tables())
    kernels.merge(words, words)
    kernels.order(words)
