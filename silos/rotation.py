"""A new identity key for a silo that has its old one: the old key says so in the log, and speaks for nothing afterwards.

    1  the new key is on disk as identity.next             4  it is seen to be in the log
    2  the 'rotated' statement is on disk                  5  identity.next becomes identity.key
    3  it is posted

Cut off at any point, the same command goes on: before 3 nothing has happened, and a statement that is posted again gets its
old place.  Between 3 and 5 a node does not start, because the key that it would speak with is gone.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from coordinator.enrol import rotation_message
from coordinator.envelope import EnvelopeError, Statement, parse
from silos import roster as rosters
from silos import watch
from silos.board import FINAL
from silos.client import CoordinatorClient, connect
from silos.config import Home
from silos.diary import said_paths
from silos.errors import ConfigError, CoordinatorRefused, LogRewritten
from silos.identity import Identity, draft_identity, load_identity, sync_directory
from silos.roster import Member
from silos.times import to_text, utcnow
from silos.validation import write_private


@dataclass(frozen=True)
class Rotated:
    """What came of a rotation.  index: the statement's place in the log."""

    old: str
    new: str
    index: int


async def rotate(home: Home, *, force: bool = False) -> Rotated:
    """Give the silo of `home` a new identity key.

    force: although jobs that were consented to with the old key are not over; they will fail.
    Raises: ConfigError if a node serves the home, or jobs are not over; CoordinatorRefused, CoordinatorUnreachable; what
    `watch.look` raises.
    """
    from silos.node import only_node as only_node

    with only_node(home):
        async with connect(home) as client:
            if not force:
                await _check_no_jobs(client, home)
            return await _rotate(client, home)


async def _rotate(client: CoordinatorClient, home: Home) -> Rotated:
    old, new = load_identity(home.identity), draft_identity(home.next_identity)
    member = await _own(client, home)
    if member.key.fingerprint != new.fingerprint:
        await _post(client, home, _statement(home, old, new, member))
        member = await _own(client, home)
        if member.key.fingerprint != new.fingerprint:
            raise LogRewritten(client.url, "it took the rotation of our key and does not hold it")
    home.next_identity.replace(home.identity)
    sync_directory(home.root)
    _draft(home).unlink(missing_ok=True)
    return Rotated(old.fingerprint, new.fingerprint, member.key.index)


async def _own(client: CoordinatorClient, home: Home) -> Member:
    await watch.follow_roster(client, home)
    return watch.check_own_name(home, rosters.load(home), rotating=True)


def _draft(home: Home) -> Path:
    return home.root / "rotated.next"


def _statement(home: Home, old: Identity, new: Identity, member: Member) -> bytes:
    """The statement of step 2; the one that is on disk if it still says what is to be said."""
    silo = home.load_enrolment().silo
    if _draft(home).exists():
        kept = _draft(home).read_bytes()
        try:
            said = parse(kept).statement
        except EnvelopeError as exc:
            raise ConfigError(f"{_draft(home)} is damaged; remove it") from exc
        if (said.seq, said.prev, said.body.get("identity_key")) == (member.seq + 1, member.prev, new.public_b64):
            return kept
    proof = new.sign(rotation_message(silo, old.public))
    statement = Statement(
        event="rotated",
        job="",
        spec_digest="",
        silo=silo,
        seq=member.seq + 1,
        prev=member.prev,
        time=to_text(utcnow()),
        body={"identity_key": new.public_b64, "proof": base64.b64encode(proof).decode()},
    )
    envelope = old.seal(statement)
    write_private(_draft(home), envelope)
    sync_directory(home.root)
    return envelope


async def _post(client: CoordinatorClient, home: Home, envelope: bytes) -> None:
    try:
        await client.rotate(envelope)
    except CoordinatorRefused:
        _draft(home).unlink()  # it is in no log; the next attempt says it anew
        raise


async def _check_no_jobs(client: CoordinatorClient, home: Home) -> None:
    silo = home.load_enrolment().silo
    bound = [
        str(job["job"])
        for job in await client.jobs()
        if job["state"] not in FINAL and said_paths(home.job(str(job["job"])))
    ]
    if bound:
        raise ConfigError(
            f"{silo} spoke with its present key about jobs that are not over: {', '.join(bound)}; wait for them, or let"
            " them fail with --force"
        )
