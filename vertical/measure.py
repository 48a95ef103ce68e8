"""The job kind "vertical.measure", as one owner runs it: how many rows match, and sums over them, and no rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.correlations import Usage
from mpc.matching.hidden import join, join_items
from mpc.measure import (
    Column,
    check_sums,
    enough,
    noised_total,
    plan_enough,
    plan_rounded_count,
    plan_sums,
    reveal_count,
    rounded_count,
    sums,
    total,
)
from mpc.session import Session
from mpc.supply import supply
from vertical.align import Identifiers, Terms, own_counts
from vertical.batches import Items
from vertical.job import Outcome
from vertical.linkage import Collected, pool

Progress = Callable[[str, int, int], None]
Words = npt.NDArray[Any]


@dataclass(frozen=True)
class Summed:
    """One column that is added up.

    owner: whose it is.  column: its name, and between which whole numbers its values lie.  decimals: the values are numbers of
    this many digits behind the point, without the point.
    """

    owner: str
    column: Column
    decimals: int

    def text(self, total: int) -> str:
        """A sum as a decimal number."""
        if self.decimals == 0:
            return str(total)
        whole, rest = divmod(abs(total), 10**self.decimals)
        return f"{'-' if total < 0 else ''}{whole}.{rest:0{self.decimals}d}"


@dataclass(frozen=True)
class Plan:
    """Everything in the job's spec that an owner's computation depends on.

    randomness, dealer: where correlated randomness comes from, as in mpc.supply; None if the protocol takes none.  summed: the
    columns of the first owner, then those of the second.  round_to, epsilon: how the number of matches is told.
    """

    terms: Terms
    randomness: str | None
    dealer: str | None
    summed: tuple[Summed, ...]
    round_to: int | None
    epsilon: str | None
    release: tuple[str, ...]


@dataclass(frozen=True)
class Data:
    """An owner's rows.

    values: (rows, k), its columns as whole numbers.  present: (rows, k), whether there is a number; where there is none,
    nothing is added.
    """

    identifiers: Identifiers
    batches: Sequence[Items]
    values: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]


def run(plan: Plan, data: Data, channel: Channel, session_id: bytes, progress: Progress) -> Outcome:
    """Run the whole job as one owner.

    Reveals: as the matching, mpc.measure and the supply of randomness declare.
    Raises: LocalProtocolError for data of ours that the job cannot use, Refused below the minimum of matches,
        RemoteProtocolError and PeerLost naming a peer.
    """
    own = pool(data.batches, plan.terms.rules, plan.terms.duplicates)
    progress("match", 0, 1)
    if plan.randomness is None:
        result = _counted(plan, own, channel, session_id, progress)
        used: Mapping[str, Usage] = {}
    else:
        result, used = _hidden(plan, own, data, channel, session_id)
    progress("match", 1, 1)
    result["own"] = own_counts(data.identifiers, own.duplicates)
    mine = [one for one in plan.summed if one.owner == plan.terms.owners[plan.terms.me]]
    if mine:
        missing = np.count_nonzero(~data.present, axis=0).tolist()
        result["own"]["without a number"] = {one.column.name: n for one, n in zip(mine, missing, strict=True)}
    return Outcome(result, used)


def gate(
    terms: Terms, supplied: tuple[str, str | None], points: Words, session_id: bytes, channel: Channel
) -> Mapping[str, Usage]:
    """Go on only if the matches are enough for both owners, which they find out before anybody learns a row.

    supplied: where correlated randomness comes from, and the dealer if there is one.  points: (n, 2), ours, ascending.
    Returns the randomness that it took.

    Reveals: as `mpc.matching.hidden.join` and `mpc.measure.enough`.
    Raises: as they do; Refused, at both owners, if the matches are fewer than a minimum.
    """
    correlations = supply(supplied[0], channel, terms.owners, supplied[1], terms.me)
    session = Session(channel, terms.owners, terms.me, correlations)
    joined = join(session, points, np.empty((len(points), 0), dtype=np.uint64), 0, 0, session_id)
    enough(session, correlations.plan(plan_enough()), total(joined), terms.minimum)
    correlations.settle()
    correlations.close()
    return correlations.used


def _counted(plan: Plan, own: Collected, channel: Channel, session_id: bytes, progress: Progress) -> dict[str, Any]:
    from mpc import psi

    terms = plan.terms
    matches = psi.count(
        own.items,
        terms.peer,
        session_id,
        channel,
        terms.minimum,
        terms.leads,
        lambda done, total: progress("match", done, total),
    )
    return {"matches": matches}


def _shown(plan: Plan, own: Collected, data: Data) -> Words:
    """(items, k): our columns as ring words.  A missing number adds nothing, also if zero is out of the column's range."""
    me = plan.terms.owners[plan.terms.me]
    shown = [one.column for one in plan.summed if one.owner == me]
    columns = np.zeros((len(own.items), len(shown)), dtype=np.uint64)
    values, present = data.values[own.rows], data.present[own.rows]
    for place, column in enumerate(shown):
        there = present[:, place]
        columns[there, place] = column.words(values[there, place])
    return columns


def _hidden(
    plan: Plan, own: Collected, data: Data, channel: Channel, session_id: bytes
) -> tuple[dict[str, Any], Mapping[str, Usage]]:
    """Join in secret, and open what is asked for.

    With noise, the gate and the result are of one number that has it already: whether the exact number reaches the minimum
    would undo the noise.
    """
    terms, columns = plan.terms, _shown(plan, own, data)
    theirs = len(plan.summed) - columns.shape[1]
    correlations = supply(plan.randomness or "", channel, terms.owners, plan.dealer, terms.me)
    session = Session(channel, terms.owners, terms.me, correlations)
    joined = join_items(session, own.items, columns, theirs, 0, session_id)
    check_sums(joined, [one.column for one in plan.summed])
    number = total(joined) if plan.epsilon is None else noised_total(joined, plan.epsilon)
    enough(session, correlations.plan(plan_enough()), number, terms.minimum)
    result: dict[str, Any] = {}
    if "matches" in plan.release and plan.round_to is not None:
        tickets = correlations.plan(plan_rounded_count(joined, plan.round_to))
        result["matches"] = rounded_count(session, tickets, joined, plan.round_to)
    elif "matches" in plan.release:
        result["matches"] = reveal_count(session, number)
    if "sums" in plan.release:
        (ticket,) = correlations.plan([plan_sums(joined)])
        totals = sums(session, ticket, joined, [one.column for one in plan.summed])
        result["sums"] = [
            {"silo": one.owner, "column": one.column.name, "sum": one.text(added)}
            for one, added in zip(plan.summed, totals, strict=True)
        ]
    correlations.settle()
    correlations.close()
    return result, correlations.used
