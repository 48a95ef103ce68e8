"""Cosines and sines of shared angles for `mpc.dealerless`: each party knows a part of the angle, so their products suffice.

    cos(a + b) = cos a cos b - sin a sin b        sin(a + b) = sin a cos b + cos a sin b

One party writes cos b and sin b as fixed-point numbers, whose bits choose.  The other's messages are its cos a and sin a times
what each bit stands for, rounded at once to the scale of the result: so nothing has to be truncated afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.ot_products import WORD_BITS, Transfers, Weights, weights

Words = npt.NDArray[Any]


def _angles(r: Words, harmonics: Sequence[int]) -> list[npt.NDArray[np.float64]]:
    """k r in radians, for each harmonic k; the angle's word is one turn."""
    full = 8 * r.dtype.itemsize
    return [(r * r.dtype.type(k)).astype(np.float64) * (2 * math.pi / 2.0**full) for k in harmonics]


def _choice(r: Words, harmonics: Sequence[int], basis_bits: int) -> Words:
    """Cosine and sine of each harmonic as signed numbers of basis_bits + 2 bits, side by side in one word."""
    out, number_bits = np.zeros(len(r), dtype=np.uint64), basis_bits + 2
    for i, angle in enumerate(_angles(r, harmonics)):
        for j, value in enumerate((np.cos(angle), np.sin(angle))):
            number = np.rint(value * 2.0**basis_bits).astype(np.int64).view(np.uint64)
            out |= (number & np.uint64((1 << number_bits) - 1)) << np.uint64(number_bits * (2 * i + j))
    return out


def _products(r: Words, harmonics: Sequence[int], basis_bits: int) -> Words:
    """What each bit of a choice word is multiplied by: (64, 2, n), for the cosine and the sine of the sum.

    Bit b of a number stands for 2^(b - basis_bits), the last one for its negative.
    """
    out, number_bits = np.zeros((WORD_BITS, 2, len(r)), dtype=np.uint64), basis_bits + 2
    bit = 2.0 ** np.arange(number_bits)
    bit[-1] *= -1
    for i, angle in enumerate(_angles(r, harmonics)):
        cos, sin = (np.rint(bit[:, None] * f(angle)).astype(np.int64).view(np.uint64) for f in (np.cos, np.sin))
        rows = out[2 * number_bits * i : 2 * number_bits * (i + 1)]
        rows[:number_bits, 0], rows[:number_bits, 1] = cos, sin
        rows[number_bits:, 0], rows[number_bits:, 1] = np.negative(sin), cos
    return out


def _weights(n_harmonics: int, basis_bits: int) -> Weights:
    each = 2 * (basis_bits + 2)
    to = [i for i in range(n_harmonics) for _ in range(each)]
    return weights([0] * len(to), to, width=2)


def basis(
    transfers: Transfers, r: Words, halves: tuple[slice, slice], harmonics: Sequence[int], basis_bits: int
) -> Words:
    """Shares (2 K, n) of cos and sin of every harmonic of r plus the peer's r, with `basis_bits` fractional bits.

    r: (n,) unsigned words, of which a full turn has as many as there are.  halves: the values for which we choose, and those
    for which the peer does.  Every word is off by at most basis_bits + 3 units, and by one or two in the root of the mean
    square: half a unit for each of the 2 (basis_bits + 2) products that a set bit adds, and one for the chooser's rounding.
    """
    out = np.empty((2 * len(harmonics), len(r)), dtype=np.uint64)
    chosen, sent = halves
    step = WORD_BITS // (2 * (basis_bits + 2))
    for first in range(0, len(harmonics), step):
        group = harmonics[first : first + step]
        rows = out[2 * first : 2 * (first + len(group))]

        def add(choosing: bool, part: slice, _: slice, share: Words, rows: Words = rows) -> None:
            rows[:, chosen if choosing else sent][:, part] = share.reshape(len(rows), -1)

        def ours(part: slice, _: slice, group: Sequence[int] = group) -> Words:
            return _products(r[sent][part], group, basis_bits)

        choice = _choice(r[chosen], group, basis_bits)
        transfers.products(_weights(len(group), basis_bits), choice, len(r[sent]), ours, add)
    return out
