"""Taking a consent back, until this silo has released its result."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal

from coordinator.envelope import digest
from silos.approvals import MAX_REASON, ApprovalError, over, read_pending, refuse, waiting
from silos.board import FINAL
from silos.client import CoordinatorClient
from silos.config import Home
from silos.diary import Diary
from silos.errors import ConfigError, CoordinatorRefused, CoordinatorUnreachable
from silos.node import only_node
from silos.review import View, read_view
from silos.times import utcnow

RETRIES, RETRY_S = 20, 1.0

Said = Literal["withdrawn", "refused", "asked"]


async def withdraw(home: Home, client: CoordinatorClient, job: str, reason: str) -> Said:
    """Make sure that this silo takes no part in a job, or no further part; returns what was said for that.

    A consent is withdrawn: the job ends, and every node stops its worker.  A job that nobody here consented to is refused;
    "asked": the node will do it, as the job waits for a person there.
    Raises: ApprovalError: too late, no reason, not a participant; CoordinatorRefused; CoordinatorUnreachable, and then what
    we said of a consent, or instead of a person, is on disk, and the node or the same command sends it.
    """
    plain = " ".join(reason.split())
    if not plain or len(plain) > MAX_REASON or not plain.isprintable():
        raise ApprovalError(f"a reason is one sentence of at most {MAX_REASON} characters")
    diary = _open(home, job)
    if not _bound(diary) and waiting(diary.root):
        try:
            return await _instead_of_a_person(home, client, diary, plain)
        except ApprovalError:
            if waiting(diary.root):
                raise
            diary = _open(home, job)  # all have answered meanwhile
    if not _bound(diary):
        view = await _view(client, job)
        _check_open(diary, view)
        diary = replace(diary, spec_digest=digest(view.spec))
    event = await _write(diary, plain, "")
    await _send(diary, client)
    return event


def _open(home: Home, job: str) -> Diary:
    """What we said of a job so far, to be gone on with; without the digest of the spec if that is nothing."""
    me = home.load_config().name
    diary = Diary(home.job(job), me, job, "", home.load_identity())
    said = diary.said()
    return replace(diary, spec_digest=said[-1].statement.spec_digest) if said else diary


def _bound(diary: Diary) -> bool:
    """Whether a consent of ours stands, as far as we know."""
    events = diary.events()
    return "withdrawn" in events or ("consented" in events and not diary.closed)


async def _instead_of_a_person(home: Home, client: CoordinatorClient, diary: Diary, reason: str) -> Said:
    """Say no to what waits for a person; where no node runs that could say it to the others, do so.

    Raises: ApprovalError: the job waits no more, or somebody said no before.
    """
    pending = read_pending(home, diary.job)
    name = f"the administrator of {diary.silo}"
    refuse(home, pending, name, reason, utcnow())
    with ExitStack() as stack:
        try:
            stack.enter_context(only_node(home))
        except ConfigError:
            return "asked"
        sentence = f"{name} said no: {reason}"
        diary = replace(diary, spec_digest=pending.spec_digest)
        event = await _write(diary, sentence, pending.rule)
        over(diary.root, "refused", sentence)
    await _send(diary, client)
    return event


async def _write(diary: Diary, reason: str, rule: str) -> Said:
    """Put it on disk, once: from then on the node takes no further step.

    Raises: ApprovalError if the result is out.
    """
    async with diary.turn():
        events = diary.events()
        if "released" in events:
            raise ApprovalError(
                f"{diary.silo} has released its result of job {diary.job}; a consent can be withdrawn only before that"
            )
        if "consented" in events or "withdrawn" in events:
            if "withdrawn" not in events:
                diary.write("withdrawn", {"reason": reason})
            return "withdrawn"
        if "refused" not in events:
            diary.write("refused", {"reason": reason, "rule": rule})
        return "refused"


def _check_open(diary: Diary, view: View) -> None:
    """Raises: ApprovalError with what stands against it."""
    if diary.silo not in view.participants:
        raise ApprovalError(f"{diary.silo} takes no part in job {view.job}")
    if "released" not in diary.events() and view.state in FINAL:
        raise ApprovalError(f"job {view.job} has ended already: it is {view.state}")


async def _send(diary: Diary, client: CoordinatorClient) -> None:
    """Post what the coordinator does not have of us, and go on while it does not answer, for a while.

    Raises: ApprovalError if the job has ended meanwhile; CoordinatorRefused; CoordinatorUnreachable.
    """
    left = RETRIES
    while True:
        try:
            await _repeat(diary, client)
            break
        except CoordinatorUnreachable as exc:
            left -= 1
            if not left:
                kept = f"what {diary.silo} said is kept, and the node or the same command sends it"
                raise CoordinatorUnreachable(f"{exc}; {kept}") from exc
        await asyncio.sleep(RETRY_S)


async def _repeat(diary: Diary, client: CoordinatorClient) -> None:
    view = await _view(client, diary.job)
    try:
        await diary.repeat(client, set(view.entries))
    except CoordinatorRefused:
        _check_open(diary, await _view(client, diary.job))
        raise


async def _view(client: CoordinatorClient, job: str) -> View:
    return read_view(await client.job(job), await client.roster())
