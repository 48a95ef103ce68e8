"""Products with a matrix that one party knows in the clear and vectors that all parties share.

Party `owner` holds X in the clear; v is shared.  X is masked once: the owner sends E = X - U to the others, where U is
uniform and known to the owner and the dealer.  Every later product costs one vector: each other party j sends
f_j = v_j - r_j, and with the dealer's c = U (sum of r_j), shared among all,

    owner:   X (v_owner + sum of f_j) + c_owner        others:   E r_j + c_j          sum:   X v

The same E serves X v, X^T v and the Gram matrices (`mpc.gram`), however often, because every r_j is fresh and the opening
of X is always the same E.  Words are of Z_2^64, or of Z_2^32 where the announced bounds keep every sum below 2^31.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from mpc.correlations import Correlation, Count, Piece, Ticket, register
from mpc.errors import LocalProtocolError, OutOfRange
from mpc.onehot import Matrix, OneHot, frozen, is_frozen, product
from mpc.ring import INTEGERS, matmul
from mpc.session import Session
from mpc.wire import recv_words, send_words

Words = npt.NDArray[Any]
Bits = Literal[32, 64]
WORD: dict[Bits, np.dtype[Any]] = {32: np.dtype(np.uint32), 64: np.dtype(np.uint64)}


@register
class MatrixMask(Correlation):
    """U: uniform, known to `owner` and remembered by the dealer under the number `matrix`."""

    kind: Literal["matrix-mask"] = "matrix-mask"
    matrix: Count
    owner: Count
    n_rows: Count
    n_cols: Count
    bits: Bits = 64

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Only the owner draws: U (n_rows, n_cols)."""
        return (Piece((self.n_rows, self.n_cols), WORD[self.bits]),) if party == self.owner else ()

    def derived(self) -> tuple[Piece, ...]:
        """Nothing."""
        return ()

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """Remember U.  Raises: ValueError if the number is taken: one mask, one matrix."""
        if self.matrix in memory or not 0 <= self.owner < len(drawn):
            raise ValueError(f"matrix number {self.matrix} is taken or has no such owner")
        memory[self.matrix] = drawn[self.owner][0]
        return []

    def product(self, *, transpose: bool) -> MatrixProduct:
        """What one product of the matrix under this mask with a shared vector will ask of the dealer."""
        n_in, n_out = (self.n_rows, self.n_cols) if transpose else (self.n_cols, self.n_rows)
        return MatrixProduct(
            matrix=self.matrix, owner=self.owner, transpose=transpose, n_in=n_in, n_out=n_out, bits=self.bits
        )


@register
class MatrixProduct(Correlation):
    """r_j at every party but the owner, and shares of U (sum r_j), or of its transpose's product, for `vectors` columns.

    holder: the one party that knows the vectors, if it is one; then only it draws.
    """

    kind: Literal["matrix-product"] = "matrix-product"
    matrix: Count
    owner: Count
    transpose: bool
    n_in: Count
    n_out: Count
    vectors: Count = 1
    bits: Bits = 64
    holder: Count | None = None

    @model_validator(mode="after")
    def _held_by_another(self) -> Self:
        if self.holder == self.owner:
            raise ValueError("who knows both the matrix and the vectors needs no help")
        return self

    def sends(self, party: int) -> bool:
        """Whether this party holds a part of the vectors that the owner has to be told under a mask."""
        return party != self.owner and self.holder in (None, party)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of v: (n_in,) for one vector, otherwise (n_in, vectors)."""
        return (self.n_in,) if self.vectors == 1 else (self.n_in, self.vectors)

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """r_j (n_in, vectors) at everybody who sends."""
        return (Piece((self.n_in, self.vectors), WORD[self.bits]),) if self.sends(party) else ()

    def derived(self) -> tuple[Piece, ...]:
        """c (n_out, vectors)."""
        return (Piece((self.n_out, self.vectors), WORD[self.bits]),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """C = U r or U^T r.  Raises: ValueError if the shapes do not fit the mask."""
        shape = (self.n_in, self.n_out) if self.transpose else (self.n_out, self.n_in)
        mask = remembered(memory, self.matrix, shape, self.bits)
        masks = [d[0] for d in drawn if d]
        if not masks:
            raise ValueError("nobody holds the vectors")
        r = self.derived()[0].combine(masks)
        return [matmul(mask.T if self.transpose else mask, r)]


def remembered(memory: dict[int, Words], number: int, shape: tuple[int, int], bits: Bits) -> Words:
    """For the dealer: the mask under this number.  Raises: ValueError if it is of another shape or ring, or missing."""
    mask = memory.get(number)
    if mask is None or mask.shape != shape or mask.dtype != WORD[bits]:
        raise ValueError(f"no mask of this shape under number {number}")
    return mask


@dataclass(frozen=True)
class OwnerMatrix:
    """One party's side of a masked matrix.

    number: its number in this session.  owner: index of the party that knows it.  content: (n, d), the owner's X, which
    cannot be written, or the masked matrix E at everybody else.  bits: of the ring.  mask: U, where the owner keeps it.
    """

    number: int
    owner: int
    content: Matrix = field(repr=False)
    bits: Bits = 64
    mask: Words | None = field(default=None, repr=False)

    def check_frozen(self, me: int) -> None:
        """That what we masked is still what we hold.  Raises: LocalProtocolError if it could have been written."""
        if self.owner == me and not is_frozen(self.content):
            raise LocalProtocolError(f"the content of matrix {self.number} could have changed after it was masked")

    def request(
        self, *, transpose: bool, vectors: int = 1, holder: int | None = None, bounds: tuple[int, int] | None = None
    ) -> MatrixProduct:
        """What one product with `vectors` vectors asks of the dealer.

        holder: the one party that knows the vectors, if it is one; else they are shared by all.  bounds: announced largest
        magnitudes of the matrix's and the vectors' entries, as integers.

        Raises: OutOfRange if by the bounds a result may not fit the ring.
        """
        n, d = self.content.shape
        n_in, n_out = (n, d) if transpose else (d, n)
        if bounds is not None:
            check_range(self.bits, n_in, *bounds)
        return MatrixProduct(
            matrix=self.number,
            owner=self.owner,
            transpose=transpose,
            n_in=n_in,
            n_out=n_out,
            vectors=vectors,
            bits=self.bits,
            holder=holder,
        )


def check_range(bits: Bits, terms: int, *bounds: int) -> None:
    """That a sum of `terms` products of factors of these magnitudes stays below 2^(bits - 1), so that it can be read.

    Raises: OutOfRange if it may not.
    """
    largest = terms
    for bound in bounds:
        largest *= abs(bound)
    if largest >> (bits - 1):
        why = f"below 2^{bits - 1}, and {terms} terms of factors up to {', '.join(map(str, bounds))} may not be"
        raise OutOfRange("sum", f"a product with {bits}-bit words", why)


def plan_masks(shapes: Sequence[tuple[int, int]], first: int, bits: Bits = 64) -> list[MatrixMask]:
    """What masking one matrix per party asks of the dealer; arguments as `mask_matrices`."""
    return [MatrixMask(matrix=first + i, owner=i, n_rows=n, n_cols=d, bits=bits) for i, (n, d) in enumerate(shapes)]


def mask_matrices(
    session: Session,
    shapes: Sequence[tuple[int, int]],
    mine: Matrix,
    first: int,
    bits: Bits = 64,
    *,
    keep_mask: bool = False,
    tickets: Sequence[Ticket] | None = None,
) -> list[OwnerMatrix]:
    """Mask one matrix per party, all in one round.

    shapes: (n, d) of each party's matrix, in party order; who has none says (n, 0).  mine: our own, of the shape stated for
    us: int16, int32, int64, the ring's own words or `OneHot`; it is copied and frozen, so that a mask can never meet two
    matrices.  first: number of party 0's matrix; every matrix, and every version of one, has a number of its own.
    keep_mask: keep U too, which `mpc.gram` needs.  tickets: for `plan_masks` of the same arguments, if they were planned
    with what comes after, so that the dealer works while the matrices cross.

    Reveals: nothing.
    Cost: 1 round; to every other party, bits/8 n d bytes; the dealer sends nothing.
    Security: semi-honest parties; the dealer does not collude.  E is uniform because U is.
    Source: Mohassel and Zhang, "SecureML", IEEE S&P 2017, section IV-C (one mask per reused matrix).
    Raises: LocalProtocolError if our matrix is not of the stated shape or of a type that the ring takes.
    """
    word = WORD[bits]
    kind = "one-hot" if isinstance(mine, OneHot) else str(mine.dtype)
    fits = isinstance(mine, OneHot) or mine.dtype in (*INTEGERS, word)
    if mine.shape != tuple(shapes[session.me]) or not fits:
        raise LocalProtocolError(f"our matrix is {mine.shape} {kind}, announced was {shapes[session.me]}")
    requests = plan_masks(shapes, first, bits)
    tickets = session.correlations.plan(requests) if tickets is None else tickets
    if [ticket.request for ticket in tickets] != requests:
        raise LocalProtocolError(f"these correlations are not for masking matrices {first} and after")
    masks = [session.correlations.take(ticket)[0] for ticket in tickets]
    content = mine.frozen() if isinstance(mine, OneHot) else frozen(mine)
    U = masks[session.me][0]
    masked = minus(content, U)
    for peer in session.peers:
        send_words(session.channel, peer, "matrix/mask", masked)
    U.flags.writeable = False
    out = []
    for i, name in enumerate(session.parties):
        if i == session.me:
            out.append(OwnerMatrix(first + i, i, content, bits, U if keep_mask else None))
        else:
            out.append(
                OwnerMatrix(first + i, i, recv_words(session.channel, name, "matrix/mask", shapes[i], word), bits)
            )
    return out


def minus(X: Matrix, U: Words) -> Words:
    """X - U, in the ring of U."""
    if isinstance(X, OneHot):
        out = np.negative(U)
        X.add_to(out)
        return out
    out = X.astype(U.dtype)
    out -= U
    return out


def multiply(session: Session, factors: Sequence[tuple[OwnerMatrix, Ticket, Words | None]]) -> list[Words]:
    """Shares of X v or X^T v for several (matrix, ticket, share of v), all in one round.

    Each ticket is for `matrix.request(...)`; v: (n_in,), or (n_in, k) for k vectors, words of any scale; None where another
    party alone holds it.  The result, (n_out,) or (n_out, k), has the product of the scales.

    Reveals: nothing.
    Cost: 1 round; to the owner of each matrix, bits/8 n_in k bytes from every other party, or from the holder alone; the
        dealer sends bits/8 n_out k bytes in all.
    Security: semi-honest parties; the dealer does not collude.  f_j is uniform because r_j is fresh.
    Source: as `mask_matrices`.
    Raises: LocalProtocolError if a ticket is not for this product or taken out of order, or v is of another shape or ring.
    """
    requests = [_checked(session.me, *factor) for factor in factors]
    drawn = []
    for matrix, ticket, v in factors:
        r = session.correlations.begin(ticket)
        if r and v is not None:
            f = v.reshape(r[0].shape) - r[0]
            send_words(session.channel, session.parties[matrix.owner], "matrix/vector", f)
        drawn.append(r)
    # What needs nobody comes first, then what waits for the others' openings, and last what waits for the dealer.
    parts: dict[int, Words] = {}
    for mine in (False, True):
        for i, ((matrix, _, v), request) in enumerate(zip(factors, requests, strict=True)):
            if (matrix.owner == session.me) is mine:
                vectors = _received(session, request, v) if mine else next(iter(drawn[i]), None)
                if vectors is not None:
                    parts[i] = product(matrix.content, vectors, transpose=request.transpose)
    out = []
    for i, ((_, ticket, _), request) in enumerate(zip(factors, requests, strict=True)):
        (c,) = session.correlations.finish(ticket)
        if i in parts:
            c += parts[i]
        out.append(c[:, 0] if request.vectors == 1 else c)
    return out


def _checked(me: int, matrix: OwnerMatrix, ticket: Ticket, v: Words | None) -> MatrixProduct:
    """The request behind a ticket, if it is for this matrix and this v."""
    request = ticket.request
    matrix.check_frozen(me)
    if not isinstance(request, MatrixProduct) or request != matrix.request(
        transpose=request.transpose, vectors=request.vectors, holder=request.holder
    ):
        raise LocalProtocolError(f"correlation {ticket.index} is not for a product with matrix {matrix.number}")
    if request.holder not in (None, me):
        return request
    if v is None or v.shape != request.shape or v.dtype != WORD[request.bits]:
        raise LocalProtocolError(f"the vectors for matrix {matrix.number} must be {request.shape} {WORD[request.bits]}")
    return request


def _received(session: Session, request: MatrixProduct, v: Words | None) -> Words:
    """At the owner: its own share of v, if it has one, plus what the others opened to it."""
    shape = (request.n_in, request.vectors)
    total = np.zeros(shape, dtype=WORD[request.bits])
    if v is not None and request.holder is None:
        total += v.reshape(shape)
    for i, name in enumerate(session.parties):
        if request.sends(i):
            total += recv_words(session.channel, name, "matrix/vector", shape, WORD[request.bits])
    return total
