"""The closed set of correlated randomness: importing this module registers every kind a dealer can be asked for."""

from __future__ import annotations

from mpc import compare, fourier, gram, groups, matrix, ring, shuffle, triples, truncation
from mpc.verified import bits, kinds, matrices, ring128

__all__ = [
    "bits",
    "compare",
    "fourier",
    "gram",
    "groups",
    "kinds",
    "matrices",
    "matrix",
    "shuffle",
    "triples",
    "truncation",
    "warm_up",
]


def warm_up() -> None:
    """Load or compile every kernel, so that nobody in a session waits for another one's compiler."""
    ring.warm_up()
    fourier.warm_up()
    groups.warm_up()
    ring128.warm_up()
