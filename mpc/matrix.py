"""Products with a matrix that one party knows in the clear and a vector that all parties share.

Party `owner` holds X in the clear; v is shared.  X is masked once: the owner sends E = X - U to the others, where U is
uniform and known to the owner and the dealer.  Every later product costs one vector: each other party j sends
f_j = v_j - r_j, and with the dealer's c = U (sum of r_j), shared among all,

    owner:   X (v_owner + sum of f_j) + c_owner        others:   E r_j + c_j          sum:   X v

The same E serves X v and X^T v, however often, because every r_j is fresh and the opening of X is always the same E.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Count, Piece, Ticket, register
from mpc.errors import LocalProtocolError
from mpc.ring import times, transpose_times
from mpc.session import Session
from mpc.wire import recv_words, send_words

Words = npt.NDArray[Any]


@register
class MatrixMask(Correlation):
    """U: uniform, known to `owner` and remembered by the dealer under the number `matrix`."""

    kind: Literal["matrix-mask"] = "matrix-mask"
    matrix: Count
    owner: Count
    n_rows: Count
    n_cols: Count

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Only the owner draws: U (n_rows, n_cols)."""
        return (Piece((self.n_rows, self.n_cols)),) if party == self.owner else ()

    def derived(self) -> tuple[Piece, ...]:
        """Nothing."""
        return ()

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """Remember U.  Raises: ValueError if the number is taken: one mask, one matrix."""
        if self.matrix in memory or not 0 <= self.owner < len(drawn):
            raise ValueError(f"matrix number {self.matrix} is taken or has no such owner")
        memory[self.matrix] = drawn[self.owner][0]
        return []


@register
class MatrixProduct(Correlation):
    """r_j at every party but the owner, and shares of U (sum r_j), or of its transpose's product."""

    kind: Literal["matrix-product"] = "matrix-product"
    matrix: Count
    owner: Count
    transpose: bool
    n_in: Count
    n_out: Count

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """r_j (n_in,) at everybody but the owner."""
        return () if party == self.owner else (Piece((self.n_in,)),)

    def derived(self) -> tuple[Piece, ...]:
        """c (n_out,)."""
        return (Piece((self.n_out,)),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """C = U r or U^T r.  Raises: ValueError if the shapes do not fit the mask."""
        mask = memory.get(self.matrix)
        if mask is None or (mask.T if self.transpose else mask).shape != (self.n_out, self.n_in):
            raise ValueError(f"no mask of this shape under number {self.matrix}")
        r = Piece((self.n_in,)).combine([d[0] for d in drawn if d])
        return [transpose_times(mask, r) if self.transpose else times(mask, r)]


@dataclass(frozen=True)
class OwnerMatrix:
    """One party's side of a masked matrix.

    number: its number in this session.  owner: index of the party that knows it.  content: (n, d), the owner's read-only
    integers X, or the masked matrix E at everybody else.
    """

    number: int
    owner: int
    content: Words

    def request(self, *, transpose: bool) -> MatrixProduct:
        """What one product with a vector asks of the dealer."""
        n, d = self.content.shape
        n_in, n_out = (n, d) if transpose else (d, n)
        return MatrixProduct(matrix=self.number, owner=self.owner, transpose=transpose, n_in=n_in, n_out=n_out)


def mask_matrices(session: Session, shapes: Sequence[tuple[int, int]], mine: Words, first: int) -> list[OwnerMatrix]:
    """Mask one matrix per party, all in one round.

    shapes: (n, d) of each party's matrix, in party order.  mine: our own, int16 or int64, of the shape stated for us; it is
    copied and frozen, so that a mask can never meet two matrices.  first: number of party 0's matrix.

    Reveals: nothing.
    Cost: 1 round; to every other party, 8 n d bytes.
    Security: semi-honest parties; the dealer does not collude.  E is uniform because U is.
    Source: Mohassel and Zhang, "SecureML", IEEE S&P 2017, section IV-C (one mask per reused matrix).
    Raises: LocalProtocolError if our matrix is not of the stated shape or type.
    """
    if mine.shape != tuple(shapes[session.me]) or mine.dtype not in (np.dtype(np.int16), np.dtype(np.int64)):
        raise LocalProtocolError(f"our matrix is {mine.shape} {mine.dtype}, announced was {shapes[session.me]}")
    requests = [MatrixMask(matrix=first + i, owner=i, n_rows=n, n_cols=d) for i, (n, d) in enumerate(shapes)]
    tickets = session.correlations.plan(requests)
    masks = [session.correlations.take(ticket)[0] for ticket in tickets]
    frozen = mine.copy()
    frozen.flags.writeable = False
    masked = frozen.astype(np.int64).view(np.uint64)
    masked -= masks[session.me][0]
    for peer in session.peers:
        send_words(session.channel, peer, "matrix/mask", masked)
    out = []
    for i, name in enumerate(session.parties):
        content = frozen if i == session.me else recv_words(session.channel, name, "matrix/mask", shapes[i], np.uint64)
        out.append(OwnerMatrix(first + i, i, content))
    return out


def multiply(session: Session, factors: Sequence[tuple[OwnerMatrix, Ticket, Words]]) -> list[Words]:
    """Shares of X v for several (matrix, ticket, share of v), all in one round.

    Each ticket is for `matrix.request(transpose=...)`; v: (n_in,) uint64 words of any scale; the result has the product
    of the scales.

    Reveals: nothing.
    Cost: 1 round; to the owner of each matrix, 8 n_in bytes from every other party; the dealer sends party 0 8 n_out.
    Security: semi-honest parties; the dealer does not collude.  f_j is uniform because r_j is fresh.
    Source: as `mask_matrices`.
    """
    prepared = []
    for matrix, ticket, v in factors:
        drawn, (c,) = session.correlations.take(ticket)
        if matrix.owner != session.me:
            send_words(session.channel, session.parties[matrix.owner], "matrix/vector", v - drawn[0])
        prepared.append((matrix, ticket.request, v, drawn, c))
    out = []
    for matrix, request, v, drawn, c in prepared:
        vector = v.copy() if matrix.owner == session.me else drawn[0]
        if matrix.owner == session.me:
            for peer in session.peers:
                vector += recv_words(session.channel, peer, "matrix/vector", v.shape, np.uint64)
        transpose = isinstance(request, MatrixProduct) and request.transpose
        product = transpose_times(matrix.content, vector) if transpose else times(matrix.content, vector)
        out.append(product + c)
    return out
