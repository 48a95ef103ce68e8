"""Predictions one row at a time, for as long as a link stays open: the owners have aligned rows and shares of their scores.

All that takes long is done before the first question: matching, the shares of all scores, and correlated randomness for the
next questions, which is asked for AHEAD of them.  A question is the place of a row among the aligned rows, which says nothing
about the row to somebody who has not got it, but tells the other owners, who have, which of their rows is asked for.  The
answer to a question for a probability is one word from each other owner; a decision, a band or a rounded mean of one row
takes the comparison that it takes for many.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import Ticket
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.ring import decode
from mpc.session import Session
from mpc.wire import recv_words, send_words
from vertical.score import Output, agree, fresh, mean_of, open_to, plan_reached, reached_planned, refuse_solvable
from vertical.scores import Scores

Words = npt.NDArray[Any]
AHEAD = 64
"""Questions for which correlated randomness is asked at once."""
_END, _WAIT = (1 << 64) - 1, (1 << 64) - 2
"""What stands in the place of a row: no more questions, and none for now."""


class Online:
    """One owner's end of a run that answers questions about single rows; all owners make it at once.

    The recipient calls `ask` as often as it likes, `wait` before a link falls silent for too long, and `end`; the others call
    `answer`, which returns when it has ended.  Each end raises what a peer's violation or loss is worth, and is then dead.
    """

    def __init__(self, session: Session, scores: Scores, output: Output, columns: int, most: int) -> None:
        """most: how many questions may be asked.

        Raises: as `vertical.score.predict`; LocalProtocolError if there is not exactly one recipient, or with several classes.
        """
        if len(output.recipients) != 1:
            raise LocalProtocolError("questions about single rows are for one recipient")
        if scores.words.ndim != 1:
            raise LocalProtocolError("questions about single rows are for models of one score")
        self._session, self._output, self._most = session, output, most
        self._frac_bits = scores.frac_bits
        counts = agree(session, scores, columns)
        if output.tells_scores:
            refuse_solvable(counts, output.recipients, 2)
        self._cuts = output.words(scores.frac_bits)
        self._words = fresh(session, scores.words, scores.frac_bits)
        session.correlations.settle()
        self._tickets: deque[list[Ticket]] = deque()
        self._refill()
        self.asked = 0

    @property
    def _recipient(self) -> str:
        """Who asks."""
        return self._session.parties[self._output.recipients[0]]

    def ask(self, row: int) -> float:
        """What the output says about one aligned row; at the recipient only.

        Reveals: to the recipient, what the output says about the row; to every other owner, which row is asked for, and when.
        Cost: 8 bytes to every other owner; for a probability 1 round and 8 bytes back, otherwise as `predict` for one row and
            1 round more.
        Security: as `vertical.score.predict`.  What many questions tell adds up; `most` bounds how many there are.
        Source: as `vertical.score.predict`.
        Raises: LocalProtocolError if there is no such row; Refused after `most` questions; RemoteProtocolError, PeerLost.
        """
        if not 0 <= row < len(self._words):
            raise LocalProtocolError(f"there are {len(self._words)} aligned rows, and no row {row}")
        if self.asked >= self._most:
            raise Refused(f"this run answers {self._most} questions and has answered them")
        self._say(row)
        told = self._tell(row)
        if told is None:
            raise LocalProtocolError("only the recipient asks")
        return told

    def wait(self) -> None:
        """Tell the others that there is no question now, so that the link does not look dead; otherwise as `ask`."""
        self._say(_WAIT)

    def end(self) -> None:
        """Tell the others that there are no more questions; otherwise as `ask`."""
        self._say(_END)
        self._leave()

    def answer(self) -> int:
        """Answer until the recipient ends; returns how many questions there were; otherwise as `ask`.

        Raises: RemoteProtocolError if it asks for a row that there is not, or more than `most` times.
        """
        while True:
            row = int(recv_words(self._session.channel, self._recipient, "online/ask", (1,), np.uint64)[0])
            if row == _END:
                self._leave()
                return self.asked
            if row == _WAIT:
                continue
            if row >= len(self._words) or self.asked >= self._most:
                why = "asks for a row that there is not" if self.asked < self._most else "asks more often than agreed"
                raise RemoteProtocolError(self._recipient, "online/ask", why)
            self._tell(row)

    def _say(self, number: int) -> None:
        for peer in self._session.peers:
            send_words(self._session.channel, peer, "online/ask", np.array([number], dtype=np.uint64))

    def _tell(self, row: int) -> float | None:
        self.asked += 1
        share, output = self._words[row : row + 1], self._output
        if output.kind == "probability":
            opened = open_to(self._session, share, output.recipients, output.tag)
            return None if opened is None else float(mean_of(output.link, decode(opened, self._frac_bits))[0])
        if len(self._tickets) <= AHEAD // 2:
            self._refill()  # the dealer works on it meanwhile
        reached = reached_planned(self._session, self._tickets.popleft(), share, self._cuts)
        number = open_to(self._session, reached.astype(np.uint16), output.recipients, output.tag)
        if number is None:
            return None
        return output.value(int(number[0]))

    def _leave(self) -> None:
        """Take what was asked for and is not needed, so that nothing is under way when the links close."""
        while self._tickets:
            for ticket in self._tickets.popleft():
                self._session.correlations.take(ticket)

    def _refill(self) -> None:
        """Ask for the randomness of the next questions; all owners are at the same question."""
        if self._output.kind == "probability":
            return
        plan = plan_reached(1, len(self._cuts))
        tickets = self._session.correlations.plan(plan * AHEAD)
        self._tickets.extend(tickets[i : i + len(plan)] for i in range(0, len(tickets), len(plan)))
