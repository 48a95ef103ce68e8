"""Cosines and sines of shared angles for `mpc.ot.source`: each party knows a part of the angle, so their products suffice.

    cos(a + b) = cos a cos b - sin a sin b        sin(a + b) = sin a cos b + cos a sin b

One party writes cos b and sin b as fixed-point numbers, whose bits choose.  The other's messages are its cos a and sin a times
what each bit stands for, rounded at once to the scale of the result and 8 guard bits, which each party drops for itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.ot.extension import kernels
from mpc.ot.products import WORD_BITS, Transfers, Weights, rounded, weights

Words = npt.NDArray[Any]


def _angles(r: Words, harmonics: Sequence[int]) -> list[npt.NDArray[np.float64]]:
    """k r in radians, for each harmonic k; the angle's word is one turn."""
    full = 8 * r.dtype.itemsize
    return [(r * r.dtype.type(k)).astype(np.float64) * (2 * math.pi / 2.0**full) for k in harmonics]


def _number_bits(basis_bits: int) -> int:
    """Bits of the chooser's signed numbers: two more than the scale needs for 1 to fit, and up to two more if they are free."""
    fewest = basis_bits + 2
    return max(n for n in range(fewest, fewest + 3) if _per_word(n) == _per_word(fewest))


def _per_word(number_bits: int) -> int:
    return WORD_BITS // (2 * number_bits)


def _choice(r: Words, harmonics: Sequence[int], basis_bits: int) -> Words:
    """Cosine and sine of each harmonic as signed numbers, side by side in one word."""
    out, number_bits = np.zeros(len(r), dtype=np.uint64), _number_bits(basis_bits)
    for i, angle in enumerate(_angles(r, harmonics)):
        for j, value in enumerate((np.cos(angle), np.sin(angle))):
            number = np.rint(value * 2.0 ** (number_bits - 2)).astype(np.int64).view(np.uint64)
            out |= (number & np.uint64((1 << number_bits) - 1)) << np.uint64(number_bits * (2 * i + j))
    return out


def _products(r: Words, harmonics: Sequence[int], basis_bits: int) -> Words:
    """What each bit of a choice word is multiplied by: (64, 4, n), guarded, for the cosine and the sine of the sum.

    Bit b of a number stands for 2^(b + 2 - number_bits), the last one for its negative.
    """
    number_bits = _number_bits(basis_bits)
    out = np.zeros((WORD_BITS, 4, len(r)), dtype=np.uint64)
    guard = kernels.GUARD_BITS
    bit = 2.0 ** (np.arange(number_bits) + 2 - number_bits + basis_bits + guard)
    bit[-1] *= -1
    for i, angle in enumerate(_angles(r, harmonics)):
        cos, sin = (np.rint(bit[:, None] * f(angle)).astype(np.int64) for f in (np.cos, np.sin))
        rows = out[2 * number_bits * i : 2 * number_bits * (i + 1)]
        for at, pair in ((0, (cos, sin)), (number_bits, (-sin, cos))):
            for j, value in enumerate(pair):
                rows[at : at + number_bits, 2 * j] = value >> guard
                rows[at : at + number_bits, 2 * j + 1] = value & ((1 << guard) - 1)
    return out


def _weights(n_harmonics: int, basis_bits: int) -> Weights:
    each = 2 * _number_bits(basis_bits)
    to = [i for i in range(n_harmonics) for _ in range(each)]
    return replace(weights([0] * len(to), to, width=4), guarded=True)


def basis(
    transfers: Transfers, r: Words, halves: tuple[slice, slice], harmonics: Sequence[int], basis_bits: int
) -> Words:
    """Shares (2 K, n) of cos and sin of every harmonic of r plus the peer's r, with `basis_bits` fractional bits.

    r: (n,) unsigned words, of which a full turn has as many as there are.  halves: the values for which we choose, and those
    for which the peer does.  Every word is off by less than two units, and by half a unit in the root of the mean square:
    up to one unit where both parties drop their guard bits, up to 0.71 where the chooser's two numbers are rounded, and
    0.13 where the products are.
    """
    out = np.empty((2 * len(harmonics), len(r)), dtype=np.uint64)
    chosen, sent = halves
    sizes = {True: chosen.stop - chosen.start, False: sent.stop - sent.start}
    step = _per_word(_number_bits(basis_bits))
    for first in range(0, len(harmonics), step):
        group = harmonics[first : first + step]
        rows = out[2 * first : 2 * (first + len(group))]
        sums = {side: np.empty((len(group), 4, m), dtype=np.uint64) for side, m in sizes.items()}

        def add(choosing: bool, part: slice, cols: slice, share: Words, sums: dict[bool, Words] = sums) -> None:
            sums[choosing][:, cols, part] = share

        def ours(part: slice, cols: slice, group: Sequence[int] = group) -> Words:
            return _products(r[sent][part], group, basis_bits)[:, cols]

        choice = _choice(r[chosen], group, basis_bits)
        transfers.products(_weights(len(group), basis_bits), choice, len(r[sent]), ours, add)
        for side, part in ((True, chosen), (False, sent)):
            rows[:, part] = rounded(sums[side], int(side)).reshape(len(rows), sizes[side])
    return out
