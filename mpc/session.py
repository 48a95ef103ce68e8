"""One party's side of one cryptographic run: who takes part, the channel, and the randomness it is dealt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.correlations import Source
from mpc.wire import recv_words, send_words

Words = npt.NDArray[Any]
JOIN_BYTES = 1 << 18
"""Smaller openings of one round travel in one message; larger ones are not worth the copy."""


@dataclass(frozen=True)
class Session:
    """What every protocol between the compute parties is given.

    channel: to the other parties and the dealer.  parties: the compute parties' names, in the order all agreed on.
    me: our index in it.  correlations: this party's supply of correlated randomness.
    """

    channel: Channel
    parties: tuple[str, ...]
    me: int
    correlations: Source

    @property
    def peers(self) -> tuple[str, ...]:
        """The other compute parties, in order."""
        return self.parties[: self.me] + self.parties[self.me + 1 :]

    def exchange(self, tag: str, words: Words) -> list[Words]:
        """Send `words` to every other party and return what they sent, in party order: one round."""
        for peer in self.peers:
            send_words(self.channel, peer, tag, words)
        return [recv_words(self.channel, peer, tag, words.shape, words.dtype) for peer in self.peers]

    def open_words(self, tag: str, share: Words) -> Words:
        """Open a value shared additively in the ring of the words' width: every party learns the sum; one round."""
        return self._sum(share, self.exchange(tag, share))

    def open_many(self, tag: str, shares: Sequence[Words]) -> list[Words]:
        """Open several flat vectors of the same word width in one round."""
        if len(shares) > 1 and sum(share.nbytes for share in shares) < JOIN_BYTES:
            opened = self.open_words(tag, np.concatenate(shares))
            return np.split(opened, np.cumsum([len(share) for share in shares])[:-1])
        for share in shares:
            for peer in self.peers:
                send_words(self.channel, peer, tag, share)
        return [
            self._sum(share, [recv_words(self.channel, peer, tag, share.shape, share.dtype) for peer in self.peers])
            for share in shares
        ]

    def _sum(self, share: Words, others: Sequence[Words]) -> Words:
        """The sum of all shares; the received ones are ours to overwrite."""
        if not others:
            return share.copy()
        total = np.asarray(others[0])
        for other in (share, *others[1:]):
            np.add(total, other, out=total)
        return total
