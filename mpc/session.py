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
        total = share.copy()
        for other in self.exchange(tag, share):
            np.add(total, other, out=total)
        return total

    def open_many(self, tag: str, shares: Sequence[Words]) -> list[Words]:
        """Open several flat vectors of the same word width in one round."""
        opened = self.open_words(tag, np.concatenate(shares))
        cuts = np.cumsum([len(s) for s in shares])[:-1]
        return np.split(opened, cuts)
