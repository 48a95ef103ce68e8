"""Linear algebra on shared d x d matrices: a bounded inverse, its residual, solving, and quadratic forms of private rows.

The inverse is Newton's iteration X' = X (2I - A X) from X = I, for a symmetric A whose eigenvalues lie in [0, 1].  After m
steps an eigenvalue l has become

    x(l) = (1 - (1 - l)^(2^m)) / l,     at most 2^m,

which is 1/l to e^-(l 2^m) of itself.  So nothing can overflow, whatever the condition number: a direction without
information gets a large finite value, and I - A X, whose eigenvalue there is (1 - l)^(2^m), says that it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than_within, open_any, plan_less_than_within
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError, OutOfRange
from mpc.products import multiply, multiply_many, plan_matmul, plan_multiply
from mpc.ring import encode
from mpc.session import Session
from mpc.triples import Triple
from mpc.truncation import plan_truncation, truncate, truncate_many

Words = npt.NDArray[Any]

MATRIX_BITS = 28
"""Fractional bits of the matrix to be inverted."""
INVERSE_BITS = 20
RESIDUAL_BITS = 24
"""Fractional bits of A X and of I - A X."""
DOUBLINGS = 16
"""Steps of the iteration: eigenvalues of 1e-4 and more are inverted to 0.2 per cent or better."""
RIGHT_BITS = 28
"""Fractional bits of the right-hand side of an equation."""
SOLUTION_BITS = 26
ROW_BITS = 22
"""Fractional bits of a private row."""
FORM_BITS = 20


def plan_inverse(d: int, doublings: int = DOUBLINGS) -> list[Correlation]:
    """What `inverse` of a (d, d) matrix asks of the dealer."""
    product = plan_matmul((d, d), (d, d))
    step = (product, plan_truncation(d * d, MATRIX_BITS + INVERSE_BITS - RESIDUAL_BITS))
    return [*step, product, plan_truncation(d * d, RESIDUAL_BITS)] * doublings


def inverse(session: Session, tickets: Sequence[Ticket], A: Words) -> Words:
    """Shares of the bounded inverse of A, (d, d), with INVERSE_BITS fractional bits.

    tickets: for `plan_inverse(d)`.  A: (d, d) words of a symmetric matrix with MATRIX_BITS fractional bits and eigenvalues
    from 0 to 1.  Every product stays below 2^60: A X has eigenvalues in [0, 1] and 48 bits, X (2I - A X) at most 2^16
    and 44.

    Reveals: nothing.
    Cost: 4 rounds a step; per step 48 d^2 bytes to every other party, and the dealer sends 48 d^2 bytes in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: Hotelling 1943, Schulz 1933 (the iteration); Soderstrom and Stewart, SIAM J. Numer. Anal. 1974 (its error).
    Raises: LocalProtocolError if the tickets are not for this or out of order.
    """
    d = _side(A)
    if not 0 < len(tickets) <= 4 * DOUBLINGS:
        raise LocalProtocolError(f"an inverse takes 1 to {DOUBLINGS} steps")
    return refine(session, tickets, A, _identity(session, d, INVERSE_BITS))


def refine(session: Session, tickets: Sequence[Ticket], A: Words, X: Words) -> Words:
    """More steps of the iteration of `inverse`, from its result X; everything else as `inverse`.

    tickets: for `plan_inverse(d, doublings)`.  All steps together must not be more than DOUBLINGS.
    """
    d = _side(A)
    if [t.request for t in tickets] != plan_inverse(d, len(tickets) // 4) or X.shape != A.shape:
        raise LocalProtocolError(f"these correlations are not for the inverse of {d} x {d} words")
    two = _identity(session, d, RESIDUAL_BITS + 1)
    for i in range(0, len(tickets), 4):
        Y = truncate(session, multiply(session, tickets[i], A, X), tickets[i + 1])
        X = truncate(session, multiply(session, tickets[i + 2], X, two - Y), tickets[i + 3])
    return X


def plan_residual(d: int) -> list[Correlation]:
    """What `residual` of (d, d) matrices asks of the dealer."""
    return [plan_matmul((d, d), (d, d)), plan_truncation(d * d, MATRIX_BITS + INVERSE_BITS - RESIDUAL_BITS)]


def residual(session: Session, tickets: Sequence[Ticket], A: Words, X: Words) -> Words:
    """Shares of I - A X, (d, d), with RESIDUAL_BITS fractional bits.

    tickets: for `plan_residual(d)`.  A, X: as `inverse` takes and returns them.

    Reveals: nothing.
    Cost: 2 rounds; 24 d^2 bytes to every other party; the dealer sends 24 d^2 bytes in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: Beaver, CRYPTO 1991.
    Raises: as `inverse`.
    """
    d = _side(A)
    if [t.request for t in tickets] != plan_residual(d) or X.shape != A.shape:
        raise LocalProtocolError(f"these correlations are not for the residual of {d} x {d} words")
    Y = truncate(session, multiply(session, tickets[0], A, X), tickets[1])
    return np.asarray(_identity(session, d, RESIDUAL_BITS) - Y)


def plan_check_inverse(d: int) -> list[Correlation]:
    """What `check_inverse` of (d, d) matrices asks of the dealer."""
    return [*plan_residual(d), *plan_less_than_within(d * d, 0)]


def check_inverse(session: Session, tickets: Sequence[Ticket], A: Words, X: Words, allowed: float) -> None:
    """Make sure that X is the inverse of A, or raise at every party.

    tickets: for `plan_check_inverse(d)`.  allowed: the largest entry that I - A X may have in size; then X is right to
    d allowed / (1 - d allowed) of its norm.

    Reveals: to every party, whether an entry is larger.
    Cost: 7 rounds; to every other party 32 d^2 + 560 m + 8 bytes, m = ceil(d^2 / 64); the dealer sends 24 d^2 + 3512 m + 8
        bytes in all.
    Security: semi-honest parties; the dealer does not collude.  A wrong inverse is missed with probability 2^-64.
    Source: as `mpc.compare.less_than_within`.
    Raises: OutOfRange if one is larger; as `inverse`.
    """
    used = len(plan_residual(_side(A)))
    E = residual(session, tickets[:used], A, X)
    limit = round(allowed * 2**RESIDUAL_BITS)
    outside = less_than_within(session, tickets[used:], E.reshape(-1), (), [(-limit, limit + 1)])[1]
    if open_any(session, outside)[0]:
        raise OutOfRange("matrix", "the inverse", "better conditioned: it is singular or nearly so")


def plan_solve(d: int) -> list[Correlation]:
    """What `solve` with a (d, d) inverse asks of the dealer."""
    return [plan_matmul((d, d), (d,)), plan_truncation(d, INVERSE_BITS + RIGHT_BITS - SOLUTION_BITS)]


def solve(session: Session, tickets: Sequence[Ticket], X: Words, g: Words) -> Words:
    """Shares of X g, (d,), with SOLUTION_BITS fractional bits.

    tickets: for `plan_solve(d)`.  X: of `inverse`.  g: (d,) words with RIGHT_BITS fractional bits, |X g| < 2^13.

    Reveals: nothing.
    Cost: 2 rounds; 8 d^2 + 16 d bytes to every other party; the dealer sends 24 d bytes in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: Beaver, CRYPTO 1991.
    Raises: as `inverse`.
    """
    if [t.request for t in tickets] != plan_solve(_side(X)):
        raise LocalProtocolError(f"these correlations are not for an equation of {len(X)} unknowns")
    return truncate(session, multiply(session, tickets[0], X, g), tickets[1])


def plan_forms(shapes: Sequence[tuple[int, int]]) -> list[Correlation]:
    """What `forms` asks of the dealer: for each party, how many private rows and how many columns they have."""
    out: list[Correlation] = [plan_matmul((rows, r), (r, r)) for rows, r in shapes]
    out += [plan_truncation(rows * r, ROW_BITS) for rows, r in shapes]
    out += [plan_multiply((rows, r)) for rows, r in shapes]
    return [*out, *(plan_truncation(rows, ROW_BITS) for rows, _ in shapes)]


def forms(session: Session, tickets: Sequence[Ticket], blocks: Sequence[Words], mine: npt.NDArray[Any]) -> list[Words]:
    """Shares of t^T X_b t for every row t that party b knows, for each party's block X_b; FORM_BITS fractional bits.

    tickets: for `plan_forms(shapes)`.  blocks: for each party, (r, r) words with INVERSE_BITS fractional bits and norm at
    most 2^16.  mine: (rows, r) our own rows, each of length at most 1, so that every sum stays below 2^58.

    Reveals: nothing; the forms are rounded at random, so that opening one shows no more than its first bits.
    Cost: 4 rounds; for each party's rows x r block, 24 rows r + 8 r^2 + 8 rows bytes to every other party; the dealer sends
        32 rows r + 16 rows bytes in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: Beaver, CRYPTO 1991.
    Raises: LocalProtocolError if the tickets are not for this, or a row of ours is longer than 1.
    """
    k = len(blocks)
    asked = [t.request for t in tickets]
    triples = [r for r in asked[:k] if isinstance(r, Triple)]
    shapes = [(r.shape0[0], r.shape0[1]) for r in triples]
    fits = all(b.shape == (r, r) for b, (_, r) in zip(blocks, shapes, strict=False))
    if asked != plan_forms(shapes) or not fits or mine.shape != shapes[session.me]:
        raise LocalProtocolError("these correlations are not for the forms of these blocks")
    if np.linalg.norm(mine, axis=1).max(initial=0.0) > 1 + 1e-9:
        raise LocalProtocolError("a private row is longer than 1")
    known = [np.zeros(shape, dtype=np.uint64) for shape in shapes]
    known[session.me] = encode(mine, ROW_BITS)
    wide = multiply_many(session, list(zip(tickets[:k], known, blocks, strict=True)))
    halves = truncate_many(session, tickets[k : 2 * k], wide)
    products = multiply_many(session, list(zip(tickets[2 * k : 3 * k], halves, known, strict=True)))
    return truncate_many(session, tickets[3 * k :], [np.asarray(p.sum(axis=1)) for p in products])


def _side(A: Words) -> int:
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.dtype != np.uint64:
        raise LocalProtocolError(f"a square matrix of words is needed, not {A.shape} {A.dtype}")
    return len(A)


def _identity(session: Session, d: int, frac_bits: int) -> Words:
    """Our share of the public identity."""
    return np.eye(d, dtype=np.uint64) << np.uint64(frac_bits) if session.me == 0 else np.zeros((d, d), dtype=np.uint64)
