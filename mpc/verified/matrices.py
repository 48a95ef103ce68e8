"""Products of masked matrices and permuted masks, together with what it takes to check them.

As in `mpc.verified.kinds`, in words of Z_2^128; the factor x of a check, a secret combination of the rows of the matrix or
of the permuted rows, is known to one party, so only that one opens anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from mpc.correlations import Piece, register
from mpc.matrix import WORD, MatrixMask, MatrixProduct
from mpc.rng import Prg
from mpc.shuffle import SORT_WORDS, Permutation, permutation_of
from mpc.verified.kinds import Checked
from mpc.verified.ledger import Ledger, Side
from mpc.verified.ring128 import dot, low, matmul, subtract

Words = npt.NDArray[Any]


@register
class CheckedMask(Checked):
    """A `MatrixMask` with one more row and column: U, below it the A of checks of U r, beside it the A of those of U^T r."""

    kind: Literal["checked-mask"] = "checked-mask"
    of: Annotated[MatrixMask, Field(strict=False)]

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """At the owner, U with the row and the column; the word where they meet is not used."""
        shape = (self.of.n_rows + 1, self.of.n_cols + 1, 2)
        return (Piece(shape),) if party == self.of.owner else ()

    def derived(self) -> tuple[Piece, ...]:
        """Nothing."""
        return ()

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """Remember it.  Raises: ValueError if the number is taken."""
        return self.of.derive(drawn, memory)

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """U."""
        return [low(words[:-1, :-1]).astype(WORD[self.of.bits]) for words in drawn]

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """Nothing was derived; fix the secret combinations that products with this matrix will be checked with."""
        n, d = self.of.n_rows, self.of.n_cols
        rows, columns = coins.words((n, 2)), coins.words((d, 2))
        minus_one = np.full((1, 2), (1 << 64) - 1, dtype=np.uint64)
        forward = backward = None
        for words in drawn:
            forward = matmul(np.concatenate([rows, minus_one])[None], words)[0, :d]
            backward = matmul(words, np.concatenate([columns, minus_one])[:, None])[:n, 0]
        ledger.sides[self.of.matrix, False] = Side(self.of.owner, d, rows, forward)
        ledger.sides[self.of.matrix, True] = Side(self.of.owner, n, columns, backward)
        return []


@register
class CheckedProduct(Checked):
    """A `MatrixProduct` with a `CheckedMask`'s matrix: the further row of the mask gives C, a word for each vector."""

    kind: Literal["checked-product"] = "checked-product"
    of: Annotated[MatrixProduct, Field(strict=False)]

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """r_j (n_in, vectors) at everybody who sends."""
        return (Piece((self.of.n_in, self.of.vectors, 2)),) if self.of.sends(party) else ()

    def derived(self) -> tuple[Piece, ...]:
        """c (n_out, vectors) and C (vectors,)."""
        return (self.dealt_wide((self.of.n_out + 1) * self.of.vectors),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """U r or U^T r, and A^T r.  Raises: ValueError if the shapes do not fit the mask."""
        mask, held = memory.get(self.of.matrix), [d for d in drawn if d]
        sides = (self.of.n_in, self.of.n_out) if self.of.transpose else (self.of.n_out, self.of.n_in)
        if mask is None or mask.shape != (sides[0] + 1, sides[1] + 1, 2) or not held:
            raise ValueError(f"no mask of this shape under number {self.of.matrix}")
        r = np.concatenate([self.drawn(held, 0), np.zeros((1, self.of.vectors, 2), dtype=np.uint64)])
        if not self.of.transpose:
            return [self.filled(matmul(mask, r))]
        across = matmul(r.transpose(1, 0, 2), mask)  # rather than a transposed copy of the mask
        return [self.filled(np.ascontiguousarray(across.transpose(1, 0, 2)))]

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """r_j."""
        return [low(words).astype(WORD[self.of.bits]) for words in drawn]

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """One claim, added with secret factors for every vector to those of earlier products with this matrix."""
        side, k = ledger.sides[self.of.matrix, self.of.transpose], self.of.vectors
        both = dealt[0][: (self.of.n_out + 1) * k].reshape(-1, k, 2)
        psi = coins.words((k, 1, 2))
        combined = matmul(both, psi)[:, 0]
        y = matmul(drawn[0], psi)[:, 0] if drawn else None
        ledger.product(side, y, subtract(combined[-1], dot(side.chi, combined[:-1])))
        return [low(both[:-1]).astype(WORD[self.of.bits])]


@register
class CheckedPermutation(Checked):
    """A `Permutation` and A, C for its check: x is chi put back into the order before, y the masks times a secret vector."""

    kind: Literal["checked-permutation"] = "checked-permutation"
    of: Annotated[Permutation, Field(strict=False)]

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """The owner's sort words and A; anybody else's mask."""
        if party == self.of.owner:
            return (Piece((self.of.n, SORT_WORDS)), Piece((self.of.n, 2)))
        return (Piece((self.of.n, self.of.m, 2)),)

    def derived(self) -> tuple[Piece, ...]:
        """The permuted sum of the masks (n, m), and C (m,)."""
        return (self.dealt_wide((self.of.n + 1) * self.of.m),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """pi(a) and A^T a.  Raises: ValueError if there is no such owner."""
        if self.of.owner >= len(drawn):
            raise ValueError(f"there is no party {self.of.owner}")
        order, mask = permutation_of(drawn[self.of.owner][0]), drawn[self.of.owner][1]
        a = self.drawn([d for party, d in enumerate(drawn) if party != self.of.owner], 0)
        return [self.filled(a[order], matmul(mask[None], a))]

    def hand(self, me: int, coins: Prg, drawn: list[Words]) -> list[Words]:
        """The sort words, or the mask."""
        return [drawn[0].copy() if me == self.of.owner else low(drawn[0])]

    def check(self, me: int, coins: Prg, ledger: Ledger, drawn: list[Words], dealt: list[Words]) -> list[Words]:
        """One claim for all rows."""
        n, m = self.of.n, self.of.m
        both = dealt[0][: (n + 1) * m].reshape(-1, m, 2)
        chi, w = coins.words((n, 2)), coins.words((m, 1, 2))
        combined = matmul(both, w)[:, 0]
        alpha = y = np.zeros((n, 2), dtype=np.uint64)
        if me == self.of.owner:
            x = np.empty_like(chi)
            x[permutation_of(drawn[0])] = chi
            alpha = subtract(x, drawn[1])
        else:
            y = matmul(drawn[0], w)[:, 0]
        ledger.ring(alpha, y, subtract(combined[-1], dot(chi, combined[:-1])))
        return [low(both[:-1])]
