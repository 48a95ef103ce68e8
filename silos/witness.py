"""A silo as a witness: it cosigns checkpoints that it has verified, and looks at those that its partners cosigned.

A checkpoint with the lines of several witnesses cannot be one that only a single victim is shown.  The witness's name is
the silo's, its key the silo's identity key.

Source: C2SP tlog-cosignature v1.0.0.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.cosign import CosignError, WitnessKey, cosignatures, verify_cosignature, with_lines
from coordinator.note import Checkpoint, NoteError, VerifierKey, open_checkpoint
from silos.client import CoordinatorClient
from silos.config import Home
from silos.errors import ConfigError, CoordinatorRefused, CoordinatorUnreachable
from silos.identity import Identity
from silos.roster import Roster
from silos.validation import write_private

log = logging.getLogger("accord.node")

LEAST_BETWEEN = dt.timedelta(seconds=5)


@dataclass(frozen=True)
class Witnessed:
    """A checkpoint that other silos cosigned.  note: as fetched.  by: those whose lines verify, and when they made them."""

    note: str
    head: Checkpoint
    by: Mapping[str, dt.datetime]


async def fetch(client: CoordinatorClient, home: Home, known: Roster) -> Witnessed | None:
    """The newest checkpoint that another silo cosigned, or None if the coordinator shows none.

    Lines are checked with the keys that the log gives the silos.  A line that does not verify does not count.
    """
    enrolment = home.load_enrolment()
    try:
        note = await client.cosigned(1)
    except CoordinatorRefused:
        return None
    try:
        head = open_checkpoint(note, VerifierKey.parse(enrolment.log_key))
        lines = cosignatures(note)
    except NoteError as exc:
        log.warning("the cosigned checkpoint that %s shows is none: %s", enrolment.url, exc)
        return None
    by: dict[str, dt.datetime] = {}
    for name in sorted({line.name for line in lines} & set(known.silos) - {enrolment.silo}):
        try:
            made = verify_cosignature(note, WitnessKey(name, known.silos[name].key.raw))
            by[name] = dt.datetime.fromtimestamp(made.time, dt.UTC)
        except (CosignError, ValueError, OverflowError, OSError) as exc:
            log.warning("a line on the cosigned checkpoint of %s does not count: %s", enrolment.url, exc)
    return Witnessed(note, head, by) if by else None


async def cosign(
    client: CoordinatorClient, home: Home, identity: Identity, witnessed: Witnessed | None, now: dt.datetime
) -> None:
    """Cosign the checkpoint that this silo has just verified and kept, and the last one that others cosigned.

    Never a smaller one than before, and not more often than every LEAST_BETWEEN.  A coordinator that does not take a
    cosignature harms nobody but itself, so that is no error.
    Raises: ConfigError if what was cosigned last cannot be read.
    """
    enrolment = home.load_enrolment()
    key = VerifierKey.parse(enrolment.log_key)
    last = Checkpoint(enrolment.origin, 0, b"")
    if home.cosigned.exists():
        if now < dt.datetime.fromtimestamp(home.cosigned.stat().st_mtime, dt.UTC) + LEAST_BETWEEN:
            return
        try:
            last = open_checkpoint(home.cosigned.read_text(encoding="utf-8"), key)
        except ValueError as exc:  # a NoteError, or no text at all
            raise ConfigError(f"{home.cosigned} is no checkpoint of the log of {enrolment.url}; remove it") from exc
    notes = [witnessed.note] if witnessed is not None else []
    for note in (*notes, home.checkpoint.read_text(encoding="utf-8")):
        head = open_checkpoint(note, key)
        if head.size <= last.size:
            continue
        line = identity.cosign(note, enrolment.silo, int(now.timestamp()))
        write_private(home.cosigned, with_lines(note, [line]))  # first, so that it is never less than what was sent
        last = head
        try:
            await client.cosign(with_lines(note, [line]))
        except (CoordinatorRefused, CoordinatorUnreachable) as exc:
            log.warning("the cosignature of %d entries was not taken: %s", head.size, exc)
            return


async def tell_of_rollback(client: CoordinatorClient, home: Home, identity: Identity, now: dt.datetime) -> None:
    """Show the coordinator the checkpoint that it signed and has lost, so that it grows no second log from there."""
    if not home.checkpoint.exists():
        return
    note = home.checkpoint.read_text(encoding="utf-8")
    try:
        line = identity.cosign(note, home.load_enrolment().silo, int(now.timestamp()))
        await client.cosign(with_lines(note, [line]))
    except (NoteError, CoordinatorRefused, CoordinatorUnreachable) as exc:
        log.warning("the coordinator was shown the checkpoint that it has lost: %s", exc)
