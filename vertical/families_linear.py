"""The family of ordinary linear regression: identity link, constant variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError
from mpc.ring import encode
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from vertical.families import ETA_BITS, RESIDUAL_BITS, Family, Rows
from vertical.owned import agreed_scale

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]

VARIANCE_BITS = 23
"""Fractional bits of the residual variance in units of the label, which is below 4."""
LIMIT = 64.0
"""Largest score, in these units."""


@dataclass(frozen=True)
class Linear(Family):
    """Any number as label, identity link, in units of 2^scale, after its mean is taken off by its owner.

    What `vertical.linear` does in closed form; as a family it serves `vertical.inference`, and methods that work by steps.
    """

    name: ClassVar[str] = "linear"
    scale: int = 0
    curvature: float = 1.0
    dispersion_bits: int = VARIANCE_BITS

    @property
    def limit(self) -> float:
        return LIMIT

    def described(self) -> list[Any]:
        return [self.name, self.scale]

    def check(self, rows: Rows) -> None:
        if not np.isfinite(rows.y).all() or rows.weights is not None or rows.offset is not None:
            raise LocalProtocolError("the label of a linear model is a finite number in every row, without weights")
        spread = float(rows.y.std())
        if not 2.0**-58 < spread < 2.0**58:
            raise LocalProtocolError("the label does not vary, or is too large")
        if np.abs(rows.y - rows.y.mean()).max() > LIMIT * spread:
            raise LocalProtocolError(f"a label is more than {LIMIT:g} standard deviations away from the mean")

    def agreed(self, session: Session, rows: Rows | None) -> Self:
        """The family with the scale that the owner of the label states; every owner calls this at once.

        Reveals: to every owner, the power of two nearest to the label's standard deviation.
        Cost: 1 round; less than 100 bytes to every other party.
        Security: semi-honest owners.
        Source: none; nothing is computed.
        Raises: RemoteProtocolError if not exactly one owner states a possible scale; as `check`, at the active owner.
        """
        if rows is not None:
            self.check(rows)
        mine = None if rows is None else round(math.log2(float(rows.y.std())))
        return replace(self, scale=agreed_scale(session, mine, (-58, 58)))

    def start(self, rows: Rows) -> Floats:
        return np.zeros(1)

    def wider(self) -> Self | None:
        return None

    def plan_residual(self, n: int, owners: int, *, fine: bool) -> list[Correlation]:
        return [plan_truncation(n, ETA_BITS - RESIDUAL_BITS)]

    def residual(
        self, session: Session, tickets: Sequence[Ticket], eta: Words, rows: Rows | None, *, fine: bool
    ) -> Words:
        mean = truncate(session, eta, tickets[0])
        return mean if rows is None else mean - encode((rows.y - rows.y.mean()) / 2.0**self.scale, RESIDUAL_BITS)

    def plan_fisher(self, n: int, owners: int) -> list[Correlation]:
        return []

    def fisher(self, session: Session, tickets: Sequence[Ticket], eta: Words, rows: Rows | None) -> Words:
        return np.full(len(eta), 1 << self.fisher_bits if session.me == 0 else 0, dtype=np.uint64)

    def plan_dispersion(self, n: int, owners: int) -> list[Correlation] | None:
        """Nothing more: the residual variance comes with the Gram matrix."""
        return []

    def deviance(self, y: Floats, eta: Floats) -> float:
        return float(((y - eta) ** 2).sum())
