"""Sums and counts of rows by group, for a key that is shared, or that one party knows; nothing is opened but masked words.

Shared key and values, one round.  The dealer gives shares of a uniform r modulo g and b for each row, and of the one-hot row
h(r), which has its 1 at place r, and of b h(r).  The parties open c = key - r modulo g and e = v - b.  Turned by c places,
h(r) is h(key); so

    h(key) = turn_c h(r)        v h(key) = turn_c (e h(r) + b h(r))

are linear in the shares, with public coefficients, and so are their sums over all rows: a truth table, turned by its input.

A key that one party knows, two rounds.  That party appends a row of zeros for every group, so that no group is empty, and puts
the rows in order of their groups by a permutation it knows; the running sums of the sorted shares are local; then a second
permutation brings the last row of each group to the front, and their differences are the groups' sums.  The permutations
are the dealer's uniform ones, followed by a public one that corrects them to what the party wants, and that is uniform too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from mpc.correlations import Correlation, Count, Piece, Ticket, register
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.session import Session
from mpc.shuffle import Order, Permutation, collect, permutation_of
from mpc.wire import recv_words, send_words

Words = npt.NDArray[Any]
MAX_GROUPS = 4096
NUMPY_TABLES = 64
"""Tables turned at a time without numba."""
CHUNK_WORDS = 1 << 19
"""Words of one correlation's table: 4 MiB, so that it is still in the cache that the generator filled."""


def turned_sums_numpy(shift: Words, e: Words, T: Words, out: Words) -> None:
    """Add to `out` (1 + m, g) the rows T[i] (1 + m, g), plus e[i, j] T[i, 0] in row 1 + j, turned by shift[i]; signed words."""
    place = np.arange(T.shape[2])
    for first in range(0, len(T), NUMPY_TABLES):
        part = slice(first, first + NUMPY_TABLES)
        columns = (place - shift[part, None, None].astype(np.intp)) % T.shape[2]
        turned = np.take_along_axis(T[part], columns, axis=2)
        turned[:, 1:] += e[part, :, None] * turned[:, :1]
        out += turned.sum(axis=0)


def _kernel() -> Callable[[Words, Words, Words, Words], None]:
    try:
        from mpc.groups_numba import turned_sums
    except ImportError:
        return turned_sums_numpy
    compiled: Callable[[Words, Words, Words, Words], None] = turned_sums
    return compiled


turned_sums = _kernel()
"""`turned_sums_numpy`, compiled if numba can be imported."""


@register
class TurnedOneHot(Correlation):
    """For each of n rows a uniform r modulo g, a power of two, and m uniform masks b, and their tables.

    Drawn: r (n,) of 16-bit words, of which the low bits count; b (n, m).  Derived: (n, 1 + m, g), the one-hot row of r and
    each b times it.
    """

    kind: Literal["turned-one-hot"] = "turned-one-hot"
    n: Count
    m: Count
    groups: Annotated[int, Field(ge=1, le=MAX_GROUPS)]

    @model_validator(mode="after")
    def _turns(self) -> Self:
        if self.groups & (self.groups - 1):
            raise ValueError("the number of groups is not a power of two")
        return self

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of r and of b."""
        return (Piece((self.n,), np.uint16), Piece((self.n, self.m)))

    def derived(self) -> tuple[Piece, ...]:
        """The tables."""
        return (Piece((self.n, 1 + self.m, self.groups)),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """1 and b at place r, zero elsewhere."""
        r, b = (piece.combine([d[i] for d in drawn]) for i, piece in enumerate(self.uniform(0)))
        out = np.zeros((self.n, 1 + self.m, self.groups), dtype=np.uint64)
        rows, place = np.arange(self.n), r & np.uint16(self.groups - 1)
        out[rows, 0, place] = 1
        out[rows, 1:, place] = b
        return [out]


def _power_of_two(n_groups: int) -> int:
    if not 1 <= n_groups <= MAX_GROUPS:
        raise LocalProtocolError(f"there are 1 to {MAX_GROUPS} groups, not {n_groups}")
    return 1 << (n_groups - 1).bit_length()


def plan_group_sum(n: int, m: int, n_groups: int) -> list[TurnedOneHot]:
    """What sums of m columns of n rows by a shared key ask of the dealer; several tables if one would be large.

    Raises: LocalProtocolError unless there are 1 to 4096 groups.
    """
    g = _power_of_two(n_groups)
    rows = max(1, CHUNK_WORDS // ((1 + m) * g))
    return [TurnedOneHot(n=min(rows, n - first), m=m, groups=g) for first in range(0, n, rows)]


def plan_one_hot(n: int, n_groups: int) -> list[TurnedOneHot]:
    """What the one-hot rows of n shared keys ask of the dealer."""
    return plan_group_sum(n, 0, n_groups)


def group_sum(
    session: Session, tickets: Sequence[Ticket], key: Words, values: Words, n_groups: int
) -> tuple[Words, Words]:
    """Sums of the values and numbers of rows for each value 0, 1, ... of a shared key.

    tickets: for `plan_group_sum(n, m, n_groups)`.  key: (n,) words of scale 1.  values: (n, m) words of any scale; m = 0 will
    do if only counts are wanted.  Returns shares of the sums (n_groups, m), of that scale, and of the counts (n_groups,).
    Keys are read modulo the next power of two, G; a key in [n_groups, G) is in no group, and nobody can tell.

    Reveals: nothing; every opened word is uniform.
    Cost: 1 round; to every other party, 2 n + 8 n m bytes; the dealer sends 8 n (1 + m) G in all.  A party and the dealer
    hold 4 MiB of tables at a time, or a row if that is more, and the dealer may be asked for more ahead.
    Security: semi-honest parties; the dealer does not collude.
    Source: Ishai et al., TCC 2013 (one-time truth tables); here of a product with the value, and summed over the rows.
    Raises: LocalProtocolError if the tickets are not for rows of this shape, or are taken out of order.
    """
    if values.ndim != 2 or key.shape != values.shape[:1] or key.dtype != np.uint64 or values.dtype != np.uint64:
        raise LocalProtocolError(f"a key of shape {key.shape} does not group rows of shape {values.shape}")
    (n, m), g = values.shape, _power_of_two(n_groups)
    plan = plan_group_sum(n, m, n_groups)
    c, e = _open_masked(session, tickets, plan, key, values)
    out = np.zeros((1 + m, g), dtype=np.int64)
    done = 0
    for ticket, request in zip(tickets, plan, strict=True):
        (table,) = session.correlations.finish(ticket)
        rows = slice(done, done + request.n)
        turned_sums(c[rows], e[rows].view(np.int64), table.view(np.int64), out)
        done += request.n
    words = out.view(np.uint64)
    return np.ascontiguousarray(words[1:, :n_groups].T), words[0, :n_groups]


def one_hot(session: Session, tickets: Sequence[Ticket], key: Words, n_groups: int) -> Words:
    """Shares of a 1 at the place of the key and zeros elsewhere: (n, n_groups), ring words of scale 1.

    tickets: for `plan_one_hot(n, n_groups)`.  key: (n,) words of scale 1, read as in `group_sum`.

    Reveals: nothing; every opened word is uniform.
    Cost: 1 round; to every other party, 2 n bytes; the dealer sends 8 n G in all, G the next power of two.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `group_sum`.
    Raises: LocalProtocolError if the tickets are not for so many keys, or are taken out of order.
    """
    if key.ndim != 1 or key.dtype != np.uint64:
        raise LocalProtocolError(f"keys are a vector of words, not {key.shape} {key.dtype}")
    g = _power_of_two(n_groups)
    plan = plan_one_hot(len(key), n_groups)
    c, _ = _open_masked(session, tickets, plan, key, np.zeros((len(key), 0), dtype=np.uint64))
    out = np.empty((len(key), n_groups), dtype=np.uint64)
    done = 0
    for ticket, request in zip(tickets, plan, strict=True):
        (table,) = session.correlations.finish(ticket)
        rows = slice(done, done + request.n)
        turned = (np.arange(n_groups) - c[rows, None].astype(np.intp)) % g
        out[rows] = np.take_along_axis(table[:, 0], turned, axis=1)
        done += request.n
    return out


def _open_masked(
    session: Session, tickets: Sequence[Ticket], plan: Sequence[TurnedOneHot], key: Words, values: Words
) -> tuple[Words, Words]:
    """Open key - r modulo g and values - b of all tables in one round."""
    if [ticket.request for ticket in tickets] != plan:
        raise LocalProtocolError(
            f"these correlations are not for {values.shape[1]} columns of {len(key)} rows by group"
        )
    if not tickets:
        return key.astype(np.uint16), values
    drawn = [session.correlations.begin(ticket) for ticket in tickets]
    last = np.uint16(plan[0].groups - 1)
    c = (key.astype(np.uint16) - np.concatenate([r for r, _ in drawn])) & last
    e = values - np.concatenate([b for _, b in drawn])
    for peer in session.peers:  # both messages are on their way before the first is waited for
        send_words(session.channel, peer, "groups/key", c)
        if e.size:
            send_words(session.channel, peer, "groups/values", e)
    for peer in session.peers:
        c = c + recv_words(session.channel, peer, "groups/key", c.shape, c.dtype)
        if e.size:
            e = e + recv_words(session.channel, peer, "groups/values", e.shape, e.dtype)
    return c & last, e


def plan_group_sum_by_owner(n: int, m: int, n_groups: int, owner: int) -> list[Permutation]:
    """What sums of m columns of n rows by party `owner`'s key ask of the dealer."""
    return [Permutation(n=n + n_groups, m=m, owner=owner) for _ in range(2)]


def group_sum_by_owner(
    session: Session, tickets: Sequence[Ticket], values: Words, n_groups: int, key: Words | None = None
) -> Words:
    """Sums of shared values for each value 0, 1, ... of a key that one party knows; it alone can count the rows.

    tickets: for `plan_group_sum_by_owner(n, m, n_groups, owner)`.  values: (n, m) words of any scale.  key: at the owner, (n,)
    integers, 0 <= key < n_groups; None elsewhere.  Returns shares of the sums (n_groups, m).

    Reveals: nothing; every word that is sent is uniform, and the permutations are.
    Cost: 2 rounds, N = n + n_groups: every other party sends the owner 16 N m bytes, the owner sends every other party 8 N;
    the dealer sends 16 N m in all.
    Security: semi-honest parties; the dealer does not collude.
    Source: Chase, Ghosh, Poburinnaya, ASIACRYPT 2020 (permute and share); Beaver, CRYPTO 1995 (correcting a random instance
    to a chosen one).
    Raises: LocalProtocolError if the tickets are not for this, or our key is missing, uncalled for or out of range;
    RemoteProtocolError naming the owner if what it sends is no permutation.
    """
    owner = _owner(tickets, values, n_groups)
    if (key is None) != (owner != session.me):
        raise LocalProtocolError("the owner, and nobody else, groups by a key")
    begun = [session.correlations.begin(ticket)[0] for ticket in tickets]
    if key is None:
        corrections = [_receive_order(session, owner, len(masks)) for masks in begun]
    else:
        wanted = _sorted_and_ends(key, len(values), n_groups)
        corrections = [_send_order(session, permutation_of(d), w) for d, w in zip(begun, wanted, strict=True)]
    padded = np.zeros((len(values) + n_groups, values.shape[1]), dtype=np.uint64)
    padded[: len(values)] = values
    for ticket, drawn, correction in zip(tickets, begun, corrections, strict=True):
        if owner == session.me:
            total = collect(session, "groups/mask", padded)[permutation_of(drawn)]
        else:
            send_words(session.channel, session.parties[owner], "groups/mask", padded - drawn)
            total = np.zeros_like(padded)
        (dealt,) = session.correlations.finish(ticket)
        padded = (total + dealt)[correction]
        if ticket is tickets[0]:
            np.cumsum(padded, axis=0, out=padded)
    sums = padded[:n_groups]
    sums[1:] = np.diff(sums, axis=0)
    return sums


def _owner(tickets: Sequence[Ticket], values: Words, n_groups: int) -> int:
    request = tickets[0].request if tickets else None
    if isinstance(request, Permutation) and values.ndim == 2 and values.dtype == np.uint64 and n_groups >= 1:
        plan = plan_group_sum_by_owner(values.shape[0], values.shape[1], n_groups, request.owner)
        if [ticket.request for ticket in tickets] == plan:
            return request.owner
    raise LocalProtocolError(f"these correlations are not for {n_groups} groups of rows of shape {values.shape}")


def _sorted_and_ends(key: Words, n: int, n_groups: int) -> tuple[Order, Order]:
    """The rows, those appended too, in order of their groups; and the last rows of all groups before all others."""
    if key.shape != (n,) or not np.issubdtype(key.dtype, np.integer) or ((key < 0) | (key >= n_groups)).any():
        raise LocalProtocolError(f"a key is {n} integers from 0 to {n_groups - 1}")
    groups = np.concatenate([key.astype(np.intp), np.arange(n_groups)])
    ends = np.cumsum(np.bincount(groups, minlength=n_groups)) - 1
    other = np.ones(len(groups), dtype=np.bool_)
    other[ends] = False
    return np.argsort(groups, kind="stable"), np.concatenate([ends, np.flatnonzero(other)])


def _send_order(session: Session, dealt: Order, wanted: Order) -> Order:
    """Tell the others what makes the dealt order the wanted one: a uniform order, as the dealt one is."""
    place = np.empty_like(dealt)
    place[dealt] = np.arange(len(dealt))
    correction = place[wanted]
    for peer in session.peers:
        send_words(session.channel, peer, "groups/order", correction.astype(np.uint32))
    return correction


def _receive_order(session: Session, owner: int, n: int) -> Order:
    name = session.parties[owner]
    order = recv_words(session.channel, name, "groups/order", (n,), np.uint32).astype(np.intp)
    if not np.array_equal(np.sort(order), np.arange(n)):
        raise RemoteProtocolError(name, "groups/order", "the order is not one of all rows")
    return order


def warm_up() -> None:
    """Load or compile this module's kernel."""
    turned_sums(
        np.zeros(1, dtype=np.uint16), *(np.zeros(shape, dtype=np.int64) for shape in ((1, 1), (1, 2, 2), (2, 2)))
    )
