"""Scores of aligned rows that nobody sees: additive shares, on the scale of the model's link."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.ring import encode

Words = npt.NDArray[Any]
FRAC_BITS = 24
"""Fractional bits of a score: steps of 6e-8."""


@dataclass(frozen=True)
class Scores:
    """Our share of the scores of n rows.

    words: (n,) of Z_2^64, or (n, classes); all owners' words add up to the score times 2^frac_bits.  bound: a public limit,
    |score| <= bound in every row.
    """

    words: Words = field(repr=False)
    frac_bits: int
    bound: float

    @classmethod
    def of_part(cls, part: npt.NDArray[np.float64], bound: float, owners: int) -> Self:
        """From our additive part of each row's score, which is limited to bound / owners so that the sum keeps the bound.

        Raises: LocalProtocolError if a part is not a finite number.
        """
        if not np.isfinite(part).all():
            raise LocalProtocolError("our part of a score is not a finite number")
        return cls(encode(np.clip(part, -bound / owners, bound / owners), FRAC_BITS), FRAC_BITS, bound)

    def __len__(self) -> int:
        return len(self.words)
