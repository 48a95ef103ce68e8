"""Put shared rows in an order that nobody knows: one permutation by each party in turn, uniform to any n - 1 of them.

The dealer gives party P a uniform permutation pi, every other party j a uniform array a_j, and all parties shares d of
pi(sum of a_j).  The others send x_j - a_j to P.  Then

    P:   pi(x_P + sum of (x_j - a_j)) + d_P        others:   d_j        sum:   pi(x)

P sees masked shares only, and the others nothing at all.  The rows that come out are those of the composition of all
parties' permutations, and their shares are fresh, so nothing links them to the rows that went in.

A permutation is the order of uniform words.  Each row has two, 128 bits, which the lower row number decides only if both are
equal: so for the largest n, 2^31, the order differs from a uniform one with a probability below n^2 / 2^129 = 2^-67.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Count, Piece, Ticket, register
from mpc.errors import LocalProtocolError
from mpc.session import Session
from mpc.wire import recv_words, send_words

Words = npt.NDArray[Any]
Order = npt.NDArray[np.intp]
"""A permutation as the list of rows to take: row i of the result is row order[i] of what is permuted."""
SORT_WORDS = 2
"""Words per row that decide a permutation: with one, two of 2^31 rows would tie with a probability of an eighth."""


def permutation_of(words: Words) -> Order:
    """The order of rows of uniform words.  words: (n, 2) uint64; the second decides where the first is equal."""
    first = words[:, 0]
    order = np.argsort(first)
    ascending = first[order]
    if (ascending[1:] == ascending[:-1]).any():  # an argsort that is not stable leaves open which of them comes first
        order = np.lexsort((words[:, 1], first))
    return order


@register
class Permutation(Correlation):
    """A uniform permutation pi of n rows, known to `owner`, and shares of what it makes of the others' masks.

    Drawn: by the owner two words for each row, which `permutation_of` makes pi of; by everybody else a_j (n, m).  Derived:
    pi(sum of a_j) (n, m).
    """

    kind: Literal["permutation"] = "permutation"
    n: Count
    m: Count
    owner: Count

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """The owner's sort words, anybody else's mask."""
        return (Piece((self.n, SORT_WORDS if party == self.owner else self.m)),)

    def derived(self) -> tuple[Piece, ...]:
        """The permuted sum of the masks."""
        return (Piece((self.n, self.m)),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The sum of the masks in the owner's order.  Raises: ValueError if there is no such owner."""
        if self.owner >= len(drawn):
            raise ValueError(f"there is no party {self.owner}")
        masks = [d[0] for party, d in enumerate(drawn) if party != self.owner]
        total = self.derived()[0].combine(masks) if masks else np.zeros((self.n, self.m), dtype=np.uint64)
        return [total[permutation_of(drawn[self.owner][0])]]


def plan_shuffle(n: int, m: int, n_parties: int) -> list[Permutation]:
    """What shuffling n rows of m words asks of the dealer: a permutation for each party, in party order."""
    return [Permutation(n=n, m=m, owner=party) for party in range(n_parties)]


def shuffle(session: Session, tickets: Sequence[Ticket], columns: Words) -> Words:
    """Fresh shares of the same rows in a uniformly random order that no n - 1 parties know.

    tickets: for `plan_shuffle(n, m, n_parties)`.  columns: (n, m) uint64 words of any scale; a row stays together.

    Reveals: nothing; every word that is sent is uniform.
    Cost: a round for each party; to every other party 8 n m bytes; the dealer sends 8 n m bytes for each party, in all.
    Security: semi-honest parties; the dealer, who knows the order, sees no data and does not collude.
    Source: Chase, Ghosh, Poburinnaya, ASIACRYPT 2020 (permute and share, one permutation for each party).
    Raises: LocalProtocolError if the tickets are not for rows of this shape, or are taken out of order.
    """
    plan = plan_shuffle(columns.shape[0], columns.shape[1], len(session.parties)) if columns.ndim == 2 else None
    if columns.dtype != np.uint64 or [ticket.request for ticket in tickets] != plan:
        raise LocalProtocolError(f"these correlations are not for shuffling rows of shape {columns.shape}")
    for owner, ticket in enumerate(tickets):
        columns = _permute(session, ticket, owner, columns)
    return columns


def _permute(session: Session, ticket: Ticket, owner: int, share: Words) -> Words:
    """One party's turn; one round."""
    (drawn,) = session.correlations.begin(ticket)
    if owner != session.me:
        send_words(session.channel, session.parties[owner], "shuffle/mask", share - drawn)
        (out,) = session.correlations.finish(ticket)
        return out
    total = collect(session, "shuffle/mask", share)
    order = permutation_of(drawn)
    (out,) = session.correlations.finish(ticket)
    out += total[order]
    return out


def collect(session: Session, tag: str, share: Words) -> Words:
    """Our share plus what every other party sends us under this tag, of the same shape.

    Reveals, Cost, Security, Source, Raises: as `shuffle`, of which it is the receiving half.
    """
    total = share.copy()
    for peer in session.peers:
        total += recv_words(session.channel, peer, tag, share.shape, share.dtype)
    return total
