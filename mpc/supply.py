"""Where a session's correlated randomness comes from: the one place that knows every source.

    dealer           a silo without data deals it and is trusted to deal it rightly          mpc.dealer
    verified-dealer  the same, and the parties check what they were dealt                     mpc.verified.source
    ot               two parties make it between them by oblivious transfer                   mpc.ot.source

A source is loaded when it is asked for, so that a job carries no code that it does not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpc.errors import LocalProtocolError

if TYPE_CHECKING:
    from mpc.channel import Channel
    from mpc.correlations import Source

MODES = ("dealer", "verified-dealer", "ot")


def supply(mode: str, channel: Channel, parties: Sequence[str], dealer: str | None, me: int) -> Source:
    """A party's source of correlations; all parties of a session ask for the same mode at the same point.

    mode: one of MODES.  parties: the compute parties in the agreed order, `me` our index.  dealer: its name, None with
    "ot".

    Reveals: as the source declares.
    Cost: as the source states for its start.
    Security: as the source's.
    Source: mpc.dealer, mpc.verified.source, mpc.ot.source.
    Raises: LocalProtocolError if there is no such mode, or the parties or the dealer do not fit it.
    """
    if mode not in MODES:
        raise LocalProtocolError(f"correlated randomness comes from one of {', '.join(MODES)}, got '{mode}'")
    if mode == "ot":
        return _by_transfer(channel, parties, dealer, me)
    if dealer is None or dealer in parties:
        raise LocalProtocolError(
            f"randomness '{mode}' needs a dealer that is none of the parties, got {dealer or 'none'}"
        )
    from mpc.dealer import Correlations

    dealt = Correlations(channel, dealer, me, len(parties))
    if mode == "dealer":
        return dealt
    from mpc.verified.source import Verified

    return Verified(dealt, channel, parties, me, dealer)


def _by_transfer(channel: Channel, parties: Sequence[str], dealer: str | None, me: int) -> Source:
    if dealer is not None:
        raise LocalProtocolError(f"randomness 'ot' has no dealer, got '{dealer}'")
    if len(parties) != 2:
        raise LocalProtocolError(f"randomness 'ot' is for exactly two parties, got {len(parties)}")
    from mpc.ot.source import ObliviousTransfers

    return ObliviousTransfers(channel, parties[1 - me], me)
