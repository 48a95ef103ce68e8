"""Taking a consent back, until this silo has released its result."""

from __future__ import annotations

import asyncio

from coordinator.envelope import digest
from silos.approvals import MAX_REASON, ApprovalError, read_pending, refuse
from silos.board import FINAL
from silos.client import CoordinatorClient
from silos.config import Home
from silos.diary import Diary
from silos.errors import CoordinatorUnreachable
from silos.review import View, read_view
from silos.times import utcnow

RETRIES, RETRY_S = 20, 1.0


async def withdraw(home: Home, client: CoordinatorClient, job: str, reason: str) -> str:
    """Make sure that this silo takes no part in a job, or no further part; returns what was said for that.

    A job that waits for a person is refused by the node, one that nobody consented to yet is refused at once, and a consent is
    withdrawn: the job ends, and every node stops its worker.
    Raises: ApprovalError: too late, no reason, not a participant; CoordinatorRefused; CoordinatorUnreachable, then what we said
    is on disk and the same command sends it again.
    """
    plain = " ".join(reason.split())
    if not plain or len(plain) > MAX_REASON or not plain.isprintable():
        raise ApprovalError(f"a reason is one sentence of at most {MAX_REASON} characters")
    view = read_view(await client.job(job), await client.roster())
    me = home.load_config().name
    diary = Diary(home.job(job), me, job, digest(view.spec), home.load_identity())
    if "withdrawn" in diary.events():
        await _repeat(diary, client, view)
        return "withdrawn"
    _check_open(me, view, diary)
    if "consented" in diary.events():
        return await _say(diary, client, "withdrawn", {"reason": plain})
    if (home.job(job) / "pending.json").exists():
        pending = read_pending(home, job)
        refuse(home, pending, f"the administrator of {me}", plain, utcnow())
        return "refused"
    return await _say(diary, client, "refused", {"reason": plain, "rule": ""})


def _check_open(me: str, view: View, diary: Diary) -> None:
    """Raises: ApprovalError with what stands against it."""
    if me not in view.participants:
        raise ApprovalError(f"{me} takes no part in job {view.job}")
    if "released" in diary.events():
        raise ApprovalError(
            f"{me} has released its result of job {view.job}; a consent can be withdrawn only before that"
        )
    if view.state in FINAL:
        raise ApprovalError(f"job {view.job} has ended already: it is {view.state}")


async def _say(diary: Diary, client: CoordinatorClient, event: str, body: dict[str, str]) -> str:
    """Say it, and go on saying it while the coordinator does not answer, for a while."""
    try:
        await diary.say(client, event, body)
    except CoordinatorUnreachable:
        for left in reversed(range(RETRIES)):
            await asyncio.sleep(RETRY_S)
            try:
                await _repeat(diary, client, read_view(await client.job(diary.job), await client.roster()))
                break
            except CoordinatorUnreachable:
                if not left:
                    raise
    return event


async def _repeat(diary: Diary, client: CoordinatorClient, view: View) -> None:
    await diary.repeat(client, set(view.entries))
