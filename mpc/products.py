"""Products of shared words in one round each: elementwise, matrices, convolutions, squares, selection; exact in Z_2^64.

To multiply x and y the parties open x - a and y - b for the dealt uniform a and b; with e and d for what they open,

    x y = (e + a)(d + b) = e (d + b) + a d + a b,

where a b is dealt.  Results are of the product of the scales; `mpc.truncation` brings them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import Ticket
from mpc.errors import LocalProtocolError
from mpc.ring import kernels
from mpc.session import Session
from mpc.triples import SquarePair, Triple, product

Words = npt.NDArray[Any]


def plan_multiply(shape0: Sequence[int], shape1: Sequence[int] | None = None) -> Triple:
    """What an elementwise product of these shapes asks of the dealer; NumPy's broadcasting.

    Raises: ValueError if the shapes do not fit together.
    """
    return Triple(op="mul", shape0=tuple(shape0), shape1=tuple(shape0 if shape1 is None else shape1))


def plan_matmul(shape0: Sequence[int], shape1: Sequence[int]) -> Triple:
    """What a product of matrices of these shapes asks of the dealer.  Raises: ValueError if they do not fit together."""
    return Triple(op="matmul", shape0=tuple(shape0), shape1=tuple(shape1))


def plan_square(shape: Sequence[int]) -> SquarePair:
    """What squares of an array of this shape ask of the dealer."""
    return SquarePair(shape=tuple(shape))


def multiply_many(session: Session, factors: Sequence[tuple[Ticket, Words, Words]]) -> list[Words]:
    """Shares of several products, all in one round; each ticket is for a `Triple`, which says what kind of product.

    factors: (ticket, share of x, share of y), uint64 words of the shapes the ticket says, in the order of planning.

    Reveals: nothing; every opened word is uniform.
    Cost: 1 round; to every other party, 8 bytes per element of x and of y; the dealer sends 8 bytes per result in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: Beaver, CRYPTO 1991.
    Raises: LocalProtocolError if a ticket is not for these operands, or is taken out of order.
    """
    requests = [_triple(ticket, x, y) for ticket, x, y in factors]
    masks, masked = [], []
    for ticket, x, y in factors:
        a, b = session.correlations.begin(ticket)
        masks.append((a, b))
        masked += [np.subtract(x, a).reshape(-1), np.subtract(y, b).reshape(-1)]
    opened = session.open_many("products/open", masked) if masked else []
    out = []
    for i, ((ticket, x, y), request, (a, b)) in enumerate(zip(factors, requests, masks, strict=True)):
        (c,) = session.correlations.finish(ticket)
        e, d = opened[2 * i].reshape(x.shape), opened[2 * i + 1].reshape(y.shape)
        if request.op == "mul" and x.shape == y.shape:
            kernels.add_products(
                c.reshape(-1), e.reshape(-1), d.reshape(-1), a.reshape(-1), b.reshape(-1), session.me == 0
            )
        else:
            c += product(request.op, e, np.asarray(b + d) if session.me == 0 else b, **request.conv)
            c += product(request.op, a, d, **request.conv)
        out.append(c)
    return out


def multiply(session: Session, ticket: Ticket, x: Words, y: Words) -> Words:
    """Shares of one product; everything else as `multiply_many`."""
    return multiply_many(session, [(ticket, x, y)])[0]


def square(session: Session, ticket: Ticket, x: Words) -> Words:
    """Shares of x^2, elementwise.

    x: uint64 words of the shape that the ticket, for a `SquarePair`, says.

    Reveals: nothing; the opened word is uniform.
    Cost: 1 round; 8 bytes per element to every other party; the dealer sends 8 per element in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: Beaver, CRYPTO 1991.
    Raises: as `multiply_many`.
    """
    if not isinstance(ticket.request, SquarePair) or ticket.request.shape != x.shape or x.dtype != np.uint64:
        raise LocalProtocolError(f"correlation {ticket.index} is not for squaring an array of shape {x.shape}")
    (r,) = session.correlations.begin(ticket)
    e = session.open_words("products/square", np.asarray(np.subtract(x, r)))
    (out,) = session.correlations.finish(ticket)
    r *= np.uint64(2)
    if session.me == 0:
        r += e
    r *= e
    out += r
    return out


def select(session: Session, ticket: Ticket, bit: Words, x: Words, y: Words) -> Words:
    """Shares of x where a shared bit is 1 and of y where it is 0; everything else as `multiply_many`.

    bit: ring words of scale 1.  x, y: words of one scale.  ticket: for `plan_multiply(bit.shape, x.shape)`.
    """
    return np.asarray(y + multiply(session, ticket, bit, np.asarray(x - y)))


def _triple(ticket: Ticket, x: Words, y: Words) -> Triple:
    request = ticket.request
    fits = isinstance(request, Triple) and (request.shape0, request.shape1) == (x.shape, y.shape)
    if not fits or not isinstance(request, Triple) or x.dtype != np.uint64 or y.dtype != np.uint64:
        raise LocalProtocolError(f"correlation {ticket.index} is not for a product of shapes {x.shape} and {y.shape}")
    return request
