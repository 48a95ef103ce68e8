"""Gram matrices of masked matrices, X_i^T X_j and X_i^T diag(w) X_j for all pairs, from the masks that are there already.

Without weights nothing is sent between the parties.  Owner i knows X_i and E_j, owner j knows U_j and E_i, so

    X_i^T X_j = X_i^T E_j  (at i)  +  E_i^T U_j  (at j)  +  U_i^T U_j  (dealt in shares)

and X_i^T X_i is its owner's alone.  With shared weights w the parties open f = w - r once, for a uniform shared r, and

    X_i^T diag(w) X_j = X_i^T diag(f) X_j + X_i^T diag(r) X_j.

In the second term everything is public, dealt or linear in a share r_k: with C_i = diag(r) U_i dealt in shares,

    X_i^T diag(r) X_j = E_i^T (diag(r) E_j + C_j) + C_i^T E_j + U_i^T diag(r) U_j.

The first is local if one party owns both matrices.  Else diag(f) X_j is known to owner j alone, and its product with X_i^T is
one of `mpc.matrix.multiply`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from mpc.correlations import Correlation, Count, Piece, Ticket, register
from mpc.errors import LocalProtocolError
from mpc.matrix import WORD, Bits, OwnerMatrix, minus, multiply, remembered
from mpc.onehot import cross, product, scaled
from mpc.ring import transpose_matmul
from mpc.session import Session

Words = npt.NDArray[Any]
MAX_MATRICES = 256
Counts = Annotated[tuple[Count, ...], Field(strict=False, max_length=MAX_MATRICES)]


@register
class MatrixGram(Correlation):
    """Shares of U_left^T U_right, (n_left, n_right), for two masks of n_rows rows."""

    kind: Literal["matrix-gram"] = "matrix-gram"
    left: Count
    right: Count
    n_rows: Count
    n_left: Count
    n_right: Count
    bits: Bits = 64

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Nothing."""
        return ()

    def derived(self) -> tuple[Piece, ...]:
        """The product."""
        return (Piece((self.n_left, self.n_right), WORD[self.bits]),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """U_left^T U_right.  Raises: ValueError if the shapes do not fit the masks."""
        left = remembered(memory, self.left, (self.n_rows, self.n_left), self.bits)
        right = remembered(memory, self.right, (self.n_rows, self.n_right), self.bits)
        return [transpose_matmul(left, right)]


@register
class MatrixWeights(Correlation):
    """A uniform r for n_rows weights, and its products with the masks of several matrices.

    matrices: their numbers; n_cols: their columns.  Drawn: r (n_rows,).  Derived: diag(r) U_i for each matrix, then
    U_i^T diag(r) U_j for each pair i <= j, in order.
    """

    kind: Literal["matrix-weights"] = "matrix-weights"
    matrices: Counts
    n_cols: Counts
    n_rows: Count
    bits: Bits = 64

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.matrices) != len(self.n_cols):
            raise ValueError("every matrix has a number of columns")
        return self

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of r."""
        return (Piece((self.n_rows,), WORD[self.bits]),)

    def derived(self) -> tuple[Piece, ...]:
        """The weighted masks and their Gram blocks."""
        weighted = [(self.n_rows, d) for d in self.n_cols]
        blocks = [(self.n_cols[i], self.n_cols[j]) for i, j in _pairs(len(self.n_cols))]
        return tuple(Piece(shape, WORD[self.bits]) for shape in weighted + blocks)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The products.  Raises: ValueError if the shapes do not fit the masks."""
        r = self.uniform(0)[0].combine([d[0] for d in drawn])[:, None]
        sizes = zip(self.matrices, self.n_cols, strict=True)
        masks = [remembered(memory, number, (self.n_rows, d), self.bits) for number, d in sizes]
        weighted = [np.asarray(np.multiply(r, mask)) for mask in masks]
        return weighted + [transpose_matmul(masks[i], weighted[j]) for i, j in _pairs(len(masks))]


def _pairs(n: int) -> list[tuple[int, int]]:
    """All i <= j < n, in order."""
    return [(i, j) for i in range(n) for j in range(i, n)]


def plan_gram(matrices: Sequence[OwnerMatrix]) -> list[MatrixGram]:
    """What the Gram matrix of these matrices asks of the dealer: one piece for each two matrices of different owners.

    Raises: LocalProtocolError if they differ in rows or ring.
    """
    n, bits = _common(matrices)
    return [
        MatrixGram(
            left=left.number,
            right=right.number,
            n_rows=n,
            n_left=left.content.shape[1],
            n_right=right.content.shape[1],
            bits=bits,
        )
        for left, right in _foreign(matrices)
    ]


def plan_weighted_gram(matrices: Sequence[OwnerMatrix]) -> list[Correlation]:
    """What the weighted Gram matrix of these matrices asks of the dealer.  Raises: as `plan_gram`."""
    n, bits = _common(matrices)
    numbers, columns = tuple(m.number for m in matrices), tuple(m.content.shape[1] for m in matrices)
    weights = MatrixWeights(matrices=numbers, n_cols=columns, n_rows=n, bits=bits)
    products = [
        wide.request(transpose=True, vectors=narrow.content.shape[1], holder=narrow.owner)
        for wide, narrow in map(_by_width, _foreign(matrices))
    ]
    return [weights, *products]


def gram(session: Session, tickets: Sequence[Ticket], matrices: Sequence[OwnerMatrix]) -> Words:
    """Shares of X^T X, where X is all matrices side by side; (D, D) words.

    tickets: for `plan_gram(matrices)`.  matrices: of any owners, masked with `keep_mask`, all with the same rows in the same
    order.  Its scale is the product of the matrices' scales.

    Reveals: nothing.
    Cost: 0 rounds; nothing between the parties; the dealer sends bits/8 d_i d_j bytes in all for each two matrices of
        different owners.
    Security: semi-honest parties; the dealer does not collude.  All that was ever opened of X_i is the same E_i.
    Source: Mohassel and Zhang, "SecureML", IEEE S&P 2017, section IV-C; Beaver, CRYPTO 1991, with both masks used again.
    Raises: LocalProtocolError if the tickets are not for these matrices or out of order, or our mask was not kept.
    """
    _checked(session.me, tickets, plan_gram(matrices), matrices)
    _, bits = _common(matrices)
    waiting = list(tickets)
    blocks = {}
    for i, j in _pairs(len(matrices)):
        left, right = matrices[i], matrices[j]
        if left.owner == right.owner:
            blocks[i, j] = _own(session.me, left, right, None, bits)
            continue
        ticket = waiting.pop(0)
        session.correlations.begin(ticket)
        part = None
        if left.owner == session.me:
            part = product(left.content, _masked(right), transpose=True)
        elif right.owner == session.me and right.mask is not None:
            part = transpose_matmul(_masked(left), right.mask)
        (block,) = session.correlations.finish(ticket)
        blocks[i, j] = block if part is None else block + part
    return _assembled(matrices, blocks, bits)


def weighted_gram(
    session: Session, tickets: Sequence[Ticket], matrices: Sequence[OwnerMatrix], weights: Words
) -> Words:
    """Shares of X^T diag(w) X, where X is all matrices side by side; (D, D) words.

    tickets: for `plan_weighted_gram(matrices)`.  matrices: as for `gram`.  weights: (n,) words, our share of w, of any scale;
    the result has the product of the matrices' scales and that of w.

    Reveals: nothing.
    Cost: 2 rounds; to every other party, bits/8 n bytes; for each two matrices of different owners, from the owner of the
        narrower, of d columns, to the other owner, bits/8 n d bytes; the dealer sends in all bits/8 n D bytes, and
        bits/8 d_i d_j for each pair i <= j, twice if the owners differ.
    Security: semi-honest parties; the dealer does not collude.  Everything opened has a fresh mask, but the E_i.
    Source: as `gram`.
    Raises: as `gram`; LocalProtocolError if the weights are of another shape or ring.
    """
    plan = plan_weighted_gram(matrices)
    _checked(session.me, tickets, plan, matrices)
    n, bits = _common(matrices)
    if weights.shape != (n,) or weights.dtype != WORD[bits]:
        raise LocalProtocolError(f"the weights must be ({n},) {WORD[bits]}, not {weights.shape} {weights.dtype}")
    (r,) = session.correlations.begin(tickets[0])
    f = session.open_words("gram/weights", weights - r)
    dealt = session.correlations.finish(tickets[0])
    blocks = _random_part(session.me, matrices, r, dealt)
    factors = []
    for (wide, narrow), ticket in zip(map(_by_width, _foreign(matrices)), tickets[1:], strict=True):
        v = scaled(narrow.content, f) if narrow.owner == session.me else None
        factors.append((wide, ticket, v if v is None or v.shape[1] != 1 else v[:, 0]))
    across = multiply(session, factors)
    for (i, j), block in blocks.items():
        left, right = matrices[i], matrices[j]
        if left.owner == right.owner:
            block += _own(session.me, left, right, f, bits)
            continue
        wide, narrow = _by_width((left, right))
        part = across.pop(0).reshape(wide.content.shape[1], narrow.content.shape[1])
        block += part if wide is left else part.T
    return _assembled(matrices, blocks, bits)


def _random_part(
    me: int, matrices: Sequence[OwnerMatrix], r: Words, dealt: Sequence[Words]
) -> dict[tuple[int, int], Words]:
    """Our share of X_i^T diag(r) X_j for every pair i <= j, from our share of r and of what was dealt with it."""
    E = [minus(m.content, m.mask) if m.owner == me and m.mask is not None else _masked(m) for m in matrices]
    C, UrU = dealt[: len(matrices)], dealt[len(matrices) :]
    blocks = dict(zip(_pairs(len(matrices)), UrU, strict=True))
    for j, (right, part) in enumerate(zip(E, C, strict=True)):
        shared = r[:, None] * right
        shared += part
        for i in range(j + 1):
            blocks[i, j] += transpose_matmul(E[i], shared)
            blocks[i, j] += transpose_matmul(C[i], right)
    return blocks


def _common(matrices: Sequence[OwnerMatrix]) -> tuple[int, Bits]:
    """Rows and ring of all matrices."""
    if len({(m.content.shape[0], m.bits) for m in matrices}) != 1 or len({m.number for m in matrices}) != len(matrices):
        raise LocalProtocolError("the matrices of one product must be different and have the same rows and ring")
    return matrices[0].content.shape[0], matrices[0].bits


def _foreign(matrices: Sequence[OwnerMatrix]) -> list[tuple[OwnerMatrix, OwnerMatrix]]:
    """Every two matrices of different owners."""
    pairs = [(matrices[i], matrices[j]) for i, j in _pairs(len(matrices))]
    return [(left, right) for left, right in pairs if left.owner != right.owner]


def _by_width(pair: tuple[OwnerMatrix, OwnerMatrix]) -> tuple[OwnerMatrix, OwnerMatrix]:
    """The wider of two first, so that what crosses the wire is as narrow as can be."""
    left, right = pair
    return (left, right) if left.content.shape[1] >= right.content.shape[1] else (right, left)


def _checked(me: int, tickets: Sequence[Ticket], plan: Sequence[Correlation], matrices: Sequence[OwnerMatrix]) -> None:
    if [ticket.request for ticket in tickets] != list(plan):
        raise LocalProtocolError("these correlations are not for the Gram matrix of these matrices")
    for matrix in matrices:
        matrix.check_frozen(me)
        if matrix.owner == me and matrix.mask is None:
            raise LocalProtocolError(f"the mask of matrix {matrix.number} was not kept")


def _masked(matrix: OwnerMatrix) -> Words:
    """The masked matrix, at a party that does not own it."""
    if not isinstance(matrix.content, np.ndarray):
        raise LocalProtocolError(f"matrix {matrix.number} is not masked here")
    return matrix.content


def _own(me: int, left: OwnerMatrix, right: OwnerMatrix, weights: Words | None, bits: Bits) -> Words:
    """X_left^T diag(weights) X_right, by default with weights 1, at the owner of both; zero at everybody else."""
    if left.owner != me:
        return np.zeros((left.content.shape[1], right.content.shape[1]), dtype=WORD[bits])
    ones = np.ones(left.content.shape[0], dtype=WORD[bits]) if weights is None else weights
    return cross(left.content, right.content, ones)


def _assembled(matrices: Sequence[OwnerMatrix], blocks: dict[tuple[int, int], Words], bits: Bits) -> Words:
    """The blocks i <= j and their mirror images in one matrix."""
    cuts = np.cumsum([0, *(m.content.shape[1] for m in matrices)])
    out = np.empty((int(cuts[-1]), int(cuts[-1])), dtype=WORD[bits])
    for (i, j), block in blocks.items():
        out[cuts[i] : cuts[i + 1], cuts[j] : cuts[j + 1]] = block
        if i != j:
            out[cuts[j] : cuts[j + 1], cuts[i] : cuts[i + 1]] = block.T
    return out
