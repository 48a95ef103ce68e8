"""What a silo does whenever it looks at its coordinator: follow the log, read who is who, look after its own name, witness.

Nothing here believes the coordinator.  It is given what the log key of the enrolment signed, and proofs; the rest is
compared with what this silo verified before and with what the other silos signed.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from coordinator.envelope import parse
from coordinator.note import Checkpoint, VerifierKey
from silos import checkpoints, witness
from silos import roster as rosters
from silos.client import CoordinatorClient
from silos.config import Enrolment, Home
from silos.diary import said_paths
from silos.errors import (
    ConfigError,
    CoordinatorRefused,
    CoordinatorUnreachable,
    LogRewritten,
    OwnNameTaken,
    RosterForged,
)
from silos.identity import load_identity
from silos.roster import Member, Roster, RosterError
from silos.times import from_text, utcnow

log = logging.getLogger("accord.node")

LOOK_EVERY_S = 30.0
LOCK_RETRY_S = 0.02
ROSTER_TRIES = 10
CLOCKS_APART = dt.timedelta(minutes=10)


async def look(client: CoordinatorClient, home: Home) -> Checkpoint:
    """Look at the log and keep what was verified; returns the checkpoint.

    Raises: LogRewritten if the log does not lead on from what this silo saw; LogForked if it does not fit what another
    silo cosigned; RosterForged if an entry about the roster cannot stand; OwnNameTaken if the log gives our name to
    another key; ConfigError; CoordinatorRefused, CoordinatorUnreachable.
    """
    async with _turn(home):
        now, known = await _look(client, home)
        identity = load_identity(home.identity)
        check_own_name(home, known)
        witnessed = await witness.fetch(client, home, known)
        if witnessed is not None and witnessed.head.size > now.size:
            now, known = await _look(client, home)  # it was cosigned after our look
        if witnessed is not None:
            seen = witnessed.note, witnessed.head, " and ".join(witnessed.by)
            await checkpoints.check_cosigned(client, home, now, *seen)
        await witness.cosign(client, home, identity, witnessed, utcnow())
        return now


async def follow_roster(client: CoordinatorClient, home: Home) -> Checkpoint:
    """The first part of a look: the log has only grown, and the roster is read as far as it goes.

    Raises: LogRewritten, RosterForged, ConfigError; CoordinatorRefused, CoordinatorUnreachable.
    """
    async with _turn(home):
        return (await _look(client, home))[0]


async def keep(client: CoordinatorClient, home: Home) -> None:
    """Look again and again until something is wrong.  Raises what `look` raises, but for a coordinator that is away.

    One refusal is let pass: it comes when the certificate is renewed in the middle of a look.
    """
    refused = False
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            await look(client, home)
            refused = False
        except CoordinatorUnreachable as exc:
            log.warning("%s", exc)
        except CoordinatorRefused as exc:
            if refused:
                raise
            log.warning("%s", exc)
            refused = True


async def roster(client: CoordinatorClient, home: Home) -> list[dict[str, Any]]:
    """The coordinator's list of silos, if the log's signed entries say the same.

    Raises: RosterForged naming a silo; what `look` raises.
    """
    for _ in range(ROSTER_TRIES):
        before = rosters.load(home)
        shown = await client.roster()
        if _difference(before, shown) is None:
            return shown
        await look(client, home)  # the log may have grown since we looked
        after = rosters.load(home)
        if (found := _difference(after, shown)) is None:
            return shown
        if after.entries == before.entries:  # nothing changed around the list, so it is wrong
            raise RosterForged(client.url, *found)
    raise CoordinatorUnreachable("the coordinator's list of silos changes too fast to be compared")


async def check_said(client: CoordinatorClient, home: Home, job: str, said: Sequence[Path] | None = None) -> None:
    """Check that all we said about a job is in the coordinator's account of it and in the log; once it has taken the last.

    said: the files of the statements that it has taken; those of the diary if left out.  One that was refused is gone.

    Raises: LogRewritten naming the statement; what `look` raises.
    """
    view = await client.job(job)
    shown = {base64.b64decode(entry["envelope"]): int(entry["index"]) for entry in view["entries"]}
    own = [path.read_bytes() for path in (said_paths(home.job(job)) if said is None else said) if path.exists()]
    for envelope in own:
        if envelope not in shown:
            event = parse(envelope).statement.event
            raise LogRewritten(client.url, f"it took our '{event}' about job {job} and does not hold it")
    now = await look(client, home)
    await checkpoints.check_included(client, home, now, {shown[envelope]: envelope for envelope in own})


def _difference(known: Roster, shown: list[dict[str, Any]]) -> tuple[str, str] | None:
    try:
        return known.difference(shown)
    except (KeyError, TypeError) as exc:
        raise CoordinatorUnreachable("the coordinator's list of silos is malformed") from exc


async def _look(client: CoordinatorClient, home: Home) -> tuple[Checkpoint, Roster]:
    enrolment = home.load_enrolment()
    try:
        now = await checkpoints.follow(client, home)
    except LogRewritten:
        await witness.tell_of_rollback(client, home, load_identity(home.identity), utcnow())
        raise
    known = rosters.load(home)
    if known.size < now.size:
        known = await _read_on(client, home, enrolment, known, now)
        rosters.save(home, known)
    return now, known


async def _read_on(
    client: CoordinatorClient, home: Home, enrolment: Enrolment, known: Roster, now: Checkpoint
) -> Roster:
    """The roster of the log as far as `now`: every entry about no job, each proved to be in the log."""
    log_key = VerifierKey.parse(enrolment.log_key).key
    before = known.seen
    place = known.size
    while place < now.size:
        page = await client.roster_entries(place, now.size)
        await checkpoints.check_included(client, home, now, dict(page))
        for index, envelope in page:
            try:
                known = known.grown(index, envelope, log_key)
                _check_date(index, envelope, before)
            except RosterError as exc:
                raise RosterForged(enrolment.url, exc.silo, str(exc)) from exc
        if not page:
            break
        place = known.size
    return replace(known, size=now.size, seen=utcnow())


def _check_date(index: int, envelope: bytes, before: dt.datetime | None) -> None:
    """The coordinator's own statements bear the time at which they enter the log, and no earlier one."""
    said = parse(envelope).statement
    if said.event == "revoked" and before is not None and from_text(said.time) < before - CLOCKS_APART:
        raise RosterError(
            f"entry {index}, 'revoked', is dated {said.time}, and the log did not hold it at {before:%Y-%m-%dT%H:%M:%SZ}",
            str(said.body.get("silo", "")),
        )


def check_own_name(home: Home, known: Roster, *, rotating: bool = False) -> Member:
    """Our own entry of a roster.  rotating: the key that a rotation has begun with may be on it already.

    Raises: OwnNameTaken; LogRewritten if we are not in the log at all; ConfigError if a rotation has to be finished.
    """
    enrolment = home.load_enrolment()
    silo, url = enrolment.silo, enrolment.url
    member = known.silos.get(silo)
    if member is None:
        raise LogRewritten(url, f"it does not hold the enrolment of {silo}")
    at = f"entry {member.key.index}"
    ours = load_identity(home.identity).fingerprint
    drafted = load_identity(home.next_identity).fingerprint if home.next_identity.exists() else ""
    if member.key.fingerprint == drafted != ours and not rotating:
        raise ConfigError(f"the rotation of the key of {silo} is not finished; run 'accord silo rotate' again")
    if member.key.fingerprint not in (ours, drafted):
        why = f"{at} gives the name to the key {member.key.fingerprint}, which is not ours"
        raise OwnNameTaken(url, silo, f"{why}; if you agreed to this, join again, else tell your partners")
    if member.revoked:
        raise OwnNameTaken(url, silo, f"the coordinator revoked the key of {at}")
    return member


@asynccontextmanager
async def _turn(home: Home) -> AsyncIterator[None]:
    """Nobody else looks for this silo meanwhile, in this process or another: two would write over what the other kept."""
    home.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(home.state / "watch.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_RETRY_S)
        yield
    finally:
        os.close(fd)
