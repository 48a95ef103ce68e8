"""Find the rows of several owners that are about the same people: identifiers, a matching protocol, pairs of rows.

This is the first step of every job over columns.  Which protocol compares the identifiers is a matter of the job; what comes
before (normal forms of several keys) and after it (pairs of rows) is the same for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.errors import LocalProtocolError
from mpc.psi import Progress
from vertical.batches import Column, Items, normalise
from vertical.linkage import Collected, Linked, key_tag, link, pool
from vertical.values import Reason

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Terms:
    """What all owners agreed on about matching.

    owners: their names, in the job's order.  me: our place among them.  protocol: as in the job's specification.  keys: rule
    and region (None if the rule needs none) of each, the best first.  duplicates: "refuse", "first" or "expand".
    minimum: the fewest matches to go on with.  helper: the silo that compares tokens, if one does.
    """

    owners: tuple[str, ...]
    me: int
    protocol: str
    keys: tuple[tuple[str, str | None], ...]
    duplicates: str
    minimum: int
    helper: str | None = None

    @property
    def peer(self) -> str:
        """The other one of two owners."""
        return self.owners[1 - self.me]

    @property
    def leads(self) -> bool:
        """Whether we take the first part where two owners have different ones."""
        return self.me == 0

    @property
    def rules(self) -> tuple[str, ...]:
        """The keys' rules."""
        return tuple(rule for rule, _ in self.keys)


Intersect = Callable[[Terms, list[bytes], bytes, Channel, Progress | None], Rows]
"""(terms, our items, session id, channel, progress) -> places of our items that all the others have too, in an order that
all have alike."""


@dataclass
class Identifiers:
    """The identifiers of one owner, key by key, from as many batches of rows as there are.

    n_rows: seen so far.  reasons: for each key, the rows without a valid identifier.
    """

    keys: tuple[tuple[str, str | None], ...]
    n_rows: int = 0
    reasons: list[Counter[Reason]] = field(default_factory=list)

    def add(self, columns: Sequence[Sequence[Column]]) -> list[Items]:
        """The next rows' identifiers for each key, with rows counted through all batches.

        columns: for each key one for each role of its rule; all of equal length.
        """
        if not self.reasons:
            self.reasons = [Counter() for _ in self.keys]
        found = []
        for number, ((rule, region), own) in enumerate(zip(self.keys, columns, strict=True)):
            items = normalise(own, rule, region, key_tag(number))
            self.reasons[number] += items.reasons
            found.append(Items(items.data, items.offsets, items.rows + self.n_rows, items.reasons))
        self.n_rows += len(columns[0][0])
        return found


@dataclass(frozen=True)
class Aligned:
    """Matched rows: entry i is about the same person at every owner, in an order that depends on no input order.

    rows: (k,) of ours.  key: (k,), the number of the key that each matched by.  items: what they matched by, which all owners
    have alike; None if there are too many to keep.  duplicates: for each key, our rows left out because an earlier one has
    their identifier.
    """

    rows: Rows
    key: npt.NDArray[np.uint8]
    items: list[bytes] | None
    duplicates: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Aligned(<{len(self.rows)} rows>)"


def own_counts(own: Identifiers, duplicates: Sequence[int]) -> dict[str, Any]:
    """What an owner is told about its own rows before they are matched: in all, and for each key."""
    return {
        "own": own.n_rows,
        "keys": [
            {
                "rule": rule,
                "unusable": reasons.total(),
                "reasons": {reason.value: n for reason, n in sorted(reasons.items(), key=lambda item: item[0].value)},
                "duplicates": repeated,
            }
            for (rule, _), reasons, repeated in zip(own.keys, own.reasons, duplicates, strict=True)
        ],
    }


def counts(own: Identifiers, aligned: Aligned) -> dict[str, Any]:
    """`own_counts`, and how many rows matched by each key."""
    told = own_counts(own, aligned.duplicates)
    for key, matched in zip(told["keys"], np.bincount(aligned.key, minlength=len(own.keys)).tolist(), strict=True):
        key["matched"] = matched
    return {**told, "matched": len(aligned.rows)}


def align(
    terms: Terms,
    batches: Sequence[Items],
    session_id: bytes,
    channel: Channel,
    progress: Progress | None = None,
    intersect: Intersect | None = None,
) -> Aligned:
    """Match our rows with those of the other owners.

    batches: from `Identifiers.add`.  progress: called with (done, total) in steps of the protocol.  intersect: what takes the
    place of the protocol, with the same result; otherwise everything that it needs is made anew.
    Reveals: as the protocol and, with several keys or "expand", `vertical.linkage` declare.
    Raises: DuplicateIdentifiersError if the job refuses duplicates; LocalProtocolError, RemoteProtocolError, Refused.
    """
    own = pool(batches, terms.rules, terms.duplicates)
    found = (intersect or _intersect)(terms, own.items, session_id, channel, progress)
    if len(terms.owners) > 2:
        linked = _one_to_one(own, found)
    else:
        linked = link(own.matched(found), terms.duplicates, terms.peer, channel, terms.minimum, terms.leads)
    items = [own.items[i] for i in found[linked.item].tolist()]
    return Aligned(linked.rows, linked.key, items, own.duplicates)


def _one_to_one(own: Collected, found: Rows) -> Linked:
    """With one key and one row to each identifier, what matched are the rows."""
    matched = own.matched(found)
    return Linked(matched.rows, matched.key, np.arange(len(found)), len(found))


def _intersect(
    terms: Terms, items: list[bytes], session_id: bytes, channel: Channel, progress: Progress | None
) -> Rows:
    """Places of our items that all the others have too, in an order that all have alike."""
    common: tuple[Any, ...] = (items, terms.peer, session_id, channel, terms.minimum, terms.leads, progress)
    if terms.protocol == "helper-psi":
        from mpc.delegated import protocol as delegated

        if terms.helper is None:
            raise LocalProtocolError("matching by tokens needs a helper")
        agreed = delegated.Terms(terms.owners, terms.helper)
        return delegated.intersect(items, agreed, terms.me, session_id, channel, terms.minimum, progress).rows
    if terms.protocol == "oprf-psi":
        from mpc.tokens import protocol as tokens

        return tokens.intersect(*common).rows
    if terms.protocol == "ecdh-psi":
        from mpc import psi

        return psi.intersect(*common).rows
    if len(terms.owners) > 2:
        from mpc.matching import star

        return star.intersect(items, terms.owners, terms.me, session_id, channel, terms.minimum, progress).rows
    from mpc.matching import protocol

    security = "malicious" if terms.protocol == "vole-psi-malicious" else "semi-honest"
    return protocol.intersect(*common, security=security).rows
