"""Tickets in the order of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mpc.correlations import Correlation, Ticket
from mpc.session import Session


class Supply:
    """Correlations that were planned and are not used yet."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: deque[Ticket] = deque()

    def plan(self, requests: Sequence[Correlation]) -> None:
        """Ask for more, to be used after those that wait."""
        self._waiting.extend(self._session.correlations.plan(requests))

    def take(self, count: int = 1) -> list[Ticket]:
        """The next tickets."""
        return [self._waiting.popleft() for _ in range(count)]
