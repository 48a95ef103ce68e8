"""Early stopping on rows that are held back: of the losses only "stop" is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import plan_reveal_negative, reveal_negative
from mpc.correlations import Correlation
from mpc.errors import LocalProtocolError
from mpc.extrema import argmin, plan_argmax
from mpc.session import Session
from vertical.trees.objective import loss, plan_loss
from vertical.trees.settings import Layout, Settings
from vertical.trees.supply import Supply

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]


@dataclass
class Stopping:
    """The held back rows, a public mask, and our shares of their losses after 1, 2, ... trees."""

    patience: int
    held: npt.NDArray[np.bool_]
    losses: list[Words] = field(default_factory=list)

    @classmethod
    def of(cls, settings: Settings, n: int) -> Stopping:
        """Before the first tree.  Raises: LocalProtocolError if no row is held back, or all are."""
        held = np.zeros(n, dtype=np.bool_)
        if settings.patience:
            held[:] = settings.stream("validation").words(n) < np.uint64(int(settings.validation * 2.0**53) << 11)
            if not held.any() or held.all():
                raise LocalProtocolError(f"of {n} rows none or all would be held back to stop early")
        return cls(settings.patience, held)

    def plan(self, settings: Settings, layout: Layout, trees: int) -> list[Correlation]:
        """What `stop` after so many trees asks of the dealer."""
        if not self.patience:
            return []
        out = plan_loss(settings, layout, int(self.held.sum()), trees)
        before = trees - self.patience
        if before > 0:
            out += [*plan_argmax(1, before), *plan_argmax(1, self.patience), *plan_reveal_negative(1)]
        return out

    def stop(self, session: Session, supply: Supply, score: Words, y: Floats | None, settings: Settings) -> bool:
        """Note the loss after one more tree; True if the last `patience` trees bettered nothing.

        score: (n,) shares of all rows' scores; y: labels over 2^exponent, at their owner.

        Reveals: to every party, whether to stop.
        Cost: 6 rounds and those of two `mpc.extrema.argmin`; the bytes of `vertical.trees.objective.loss` and 400 more.
        Security: semi-honest parties; the dealer does not collude.
        Source: Prechelt, "Early stopping - but when?", 1998.
        Raises: LocalProtocolError if the tickets are not for this.
        """
        if not self.patience:
            return False
        trees = len(self.losses) + 1
        tickets = supply.take(2)
        label = None if y is None else y[self.held]
        self.losses.append(loss(session, tickets, np.ascontiguousarray(score[self.held]), label, settings, trees))
        before = trees - self.patience
        if before <= 0:
            return False
        row = np.concatenate(self.losses)[None]
        best, _ = argmin(session, supply.take(len(plan_argmax(1, before))), np.ascontiguousarray(row[:, :before]))
        last, _ = argmin(
            session, supply.take(len(plan_argmax(1, self.patience))), np.ascontiguousarray(row[:, before:])
        )
        session.correlations.settle()
        better = reveal_negative(session, supply.take(len(plan_reveal_negative(1))), last - best, "trees/stop")
        return not bool(better[0])
