"""Figures by group: who is in which group is known to one owner, and small groups are never opened.

A group is shown only if it has the minimum of positives and of negatives.  All that are not are put together, because the
totals minus the groups shown would give them away anyhow; and if even together they are too few, the smallest group shown
joins them, until they are enough.  Every such decision is made on shares, and only the decision is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import plan_reveal_negative, reveal_negative
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.products import multiply, plan_multiply
from mpc.session import Session
from mpc.wire import recv_json, send_json
from vertical.curves import TOGETHER

Words = npt.NDArray[Any]
MAX_GROUPS = 20
MAX_NAME = 80
MISSING, REST = "(missing)", "(rest)"


@dataclass(frozen=True)
class Group:
    """A column that says which group a row is in.  owner: who has it.  values: text or None by row; None at the others."""

    name: str
    owner: int
    values: npt.NDArray[Any] | None = field(repr=False)


@dataclass(frozen=True)
class Cells:
    """Groups that may be shown.  rows, positives: (n, groups) shares of who is in a group, and is positive in it.

    names: in order; TOGETHER is the last, if there is such a group.
    """

    names: tuple[str, ...]
    rows: Words = field(repr=False)
    positives: Words = field(repr=False)


def share_groups(session: Session, group: Group, n: int, least: int) -> tuple[tuple[str, ...], Words]:
    """Names of the groups, largest first, and our shares of who is in which: (n, groups), words of scale 1.

    Groups beyond the nineteen largest, and all with fewer than `least` rows, are one group from the start, so no name of a
    group that could be a few persons leaves its owner.

    Reveals: to every owner, the names of the groups with so many rows, in the order of their sizes.
    Cost: 1 round; the names.
    Security: semi-honest owners.
    Source: additive secret sharing.
    Raises: LocalProtocolError if our column has another number of rows; RemoteProtocolError if the names are malformed.
    """
    if group.values is None:
        owner = session.parties[group.owner]
        names = recv_json(session.channel, owner, "segments/names")
        fits = isinstance(names, list) and 0 < len(names) <= MAX_GROUPS and len(set(map(str, names))) == len(names)
        if not fits or not all(isinstance(name, str) and len(name) <= MAX_NAME for name in names):
            raise RemoteProtocolError(owner, "segments/names", f"the groups are not 1 to {MAX_GROUPS} different names")
        return tuple(names), np.zeros((n, len(names)), dtype=np.uint64)
    if group.values.shape != (n,):
        raise LocalProtocolError(f"the column '{group.name}' has {len(group.values)} rows and not {n}")
    texts = np.array([MISSING if value is None else str(value)[:MAX_NAME] for value in group.values], dtype=object)
    found, counts = np.unique(texts.astype(str), return_counts=True)
    order = [str(found[i]) for i in sorted(range(len(found)), key=lambda i: (-counts[i], found[i]))]
    often = dict(zip(found.tolist(), counts.tolist(), strict=True))
    named = [name for name in order if often[name] >= least][: MAX_GROUPS - 1]
    own = order if len(order) == len(named) else [*named, REST]
    for peer in session.peers:
        send_json(session.channel, peer, "segments/names", own)
    rows = np.zeros((n, len(own)), dtype=np.uint64)
    for i, name in enumerate(own):
        rows[:, i] = texts == name
    if len(named) < len(order):
        rows[:, -1] = ~np.isin(texts.astype(str), named)
    return tuple(own), rows


def cells(session: Session, group: Group, positive: Words, active: int, minimum: int) -> Cells | None:
    """The groups of a column that are large enough to be shown; None if none is or the others cannot be hidden.

    positive: our share of the label, (n,), of scale 1.  minimum: of positives, and of negatives, in whatever is shown.

    Reveals: to every owner, the names of the groups with twice the minimum of rows, in the order of their sizes, and which of
        them, and of the unions that are tried, have fewer positives, and which fewer negatives, than the minimum.
    Cost: 6 rounds, 4 more for each union that is tried; with g groups, to every other party 8 n (1 + g) bytes unless the
        owner of the label has the groups, and 16 g + 280 for each test; the dealer sends 8 n g in all, and 2688 for each.
    Security: semi-honest owners; the dealer does not collude.
    Source: Hundepool et al., Statistical Disclosure Control, 2012 (complementary suppression).
    Raises: LocalProtocolError, RemoteProtocolError as `share_groups`.
    """
    n = len(positive)
    names, rows = share_groups(session, group, n, 2 * minimum)
    if group.owner == active:
        positives = rows * positive[:, None]  # both are this owner's own; the others' shares are zero
    else:
        (ticket,) = session.correlations.plan([plan_multiply((n, 1), rows.shape)])
        positives = multiply(session, ticket, positive[:, None], rows)
    small = _small(session, rows, positives, minimum)
    hidden = [i for i in range(len(names)) if small[i]]
    shown = [i for i in range(len(names)) if not small[i]]
    while hidden and shown:
        both = [x[:, hidden].sum(axis=1, keepdims=True, dtype=np.uint64) for x in (rows, positives)]
        if not _small(session, both[0], both[1], minimum)[0]:
            break
        hidden.append(shown.pop())
    if not shown:
        return None
    if not hidden:
        return Cells(names, rows, positives)
    joined = [np.column_stack([x[:, shown], x[:, hidden].sum(axis=1, dtype=np.uint64)]) for x in (rows, positives)]
    return Cells((*(names[i] for i in shown), TOGETHER), joined[0], joined[1])


def _small(session: Session, rows: Words, positives: Words, minimum: int) -> list[bool]:
    """Open for each column whether it has fewer positives, or fewer negatives, than the minimum."""
    counts = np.stack([positives.sum(axis=0, dtype=np.uint64), (rows - positives).sum(axis=0, dtype=np.uint64)])
    if session.me == 0:
        counts -= np.uint64(minimum)
    tickets = session.correlations.plan(plan_reveal_negative(counts.size))
    few = reveal_negative(session, tickets, counts, "segments/few")
    return [bool(few[0, i] or few[1, i]) for i in range(few.shape[1])]
