"""One silo's part in one job, from the proposal to its last statement.

    review -> (persons say yes) -> consented | refused -> (ready) -> verify every consent -> started -> links -> worker
           -> released (owners; acknowledged by the log before the result file exists) -> finished
    anything that goes wrong after the consent -> failed, with one sentence

What it takes of the privacy budget is reserved before the consent, stays spent from 'started' on, and is given back if the job
ends before.

Every wait is bounded by the job's own valid_until or by its time-out; a job that ends elsewhere ends here at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from coordinator.envelope import EnvelopeError, Statement
from mpc.errors import ProtocolError
from silos import admission, approvals, checkpoints, commitments, leftovers, watch
from silos.agreeing import People, agree, consent_body, covers
from silos.attempts import Attempts
from silos.board import FINAL
from silos.config import Home
from silos.consent import Consent, Expected, statements, verify_consents
from silos.diary import Diary
from silos.errors import (
    ConsentError,
    CoordinatorRefused,
    CoordinatorUnreachable,
    JobFailed,
    LogRewritten,
    OwnNameTaken,
    PolicyDenied,
    RosterForged,
    SiloError,
)
from silos.link_tls import LinkCredentials, make_link_credentials
from silos.models import ModelStore, without_part
from silos.results import result_digest, write_result
from silos.review import Approved, View, review
from silos.times import from_text, utcnow
from silos.voice import Silo, Voice, deadline_of
from silos.workers import Outcome

log = logging.getLogger("accord.node")

GRACE_S = 2.0
LOOK_BACK_S = 10.0
SLOT_WAIT_S = 300.0
WITHDRAWN_LOOK_S = 1.0
MAX_SENTENCE = 1000
UNTRUE = (LogRewritten, RosterForged, OwnNameTaken)
"""What ends more than a job: nothing that this coordinator shows can be relied on."""


@dataclass
class Participation:
    """One job at one silo; `take_part` is the whole of it.  resumes: it goes on with the job after it was stopped.  waits: for
    persons to say yes; after a stop the next start asks again.
    """

    voice: Voice
    resumes: bool = False
    waits: bool = False

    async def take_part(self) -> None:
        """Run the job's life at this silo; returns when there is nothing left to do.

        Raises: SiloError if not even a refusal could be delivered.
        """
        view = await self.voice.view()
        if self.silo.name not in view.participants or view.state in FINAL:
            return
        self.voice.deadline = deadline_of(view)
        diary = self.voice.open_diary(view)
        if diary.closed:
            return
        diary.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.waits = approvals.waiting(diary.root)
        if "consented" in diary.events():
            if not await self._resume(view):
                await self.give_up(f"the node of {self.silo.name} restarted during the job", "restart")
        elif "refused" in diary.events():  # perhaps by a command, while no node was here to send it
            with contextlib.suppress(CoordinatorRefused):
                await self.voice.catch_up()
            diary.close()
        else:
            if view.state == "disclosed":
                await self._consider(view)
            diary.close()
        await self._tidy()
        await self._look_back()

    async def _look_back(self) -> None:
        """Once the job has ended for all, look whether the log holds what we said; with that we also cosign it.

        Raises: LogRewritten, LogForked, RosterForged, OwnNameTaken.
        """
        with contextlib.suppress(TimeoutError, CoordinatorUnreachable):
            async with asyncio.timeout(LOOK_BACK_S):
                await self.silo.board.wait(self.job, FINAL)
            # What was cut off on its way is sent again: after that it is in the log, or was refused and is not in the diary.
            said = self._diary.paths()
            for _ in said:
                with contextlib.suppress(CoordinatorRefused):
                    await self.voice.catch_up()
                    break
            await watch.check_said(self.silo.client, self.silo.home, self.job, said)

    async def give_up(self, reason: str, step: str) -> None:
        """End a job that this silo cannot go on with; before everybody has consented that is a refusal."""
        diary = self.voice.diary
        if diary is None or diary.closed or (step == "stop" and (self.resumes or self.waits)):
            return
        await self.voice.catch_up()
        view = await self.voice.view()
        if view.state == "disclosed":
            await self.voice.say_last("refused", {"reason": reason, "rule": ""})
        elif view.state not in FINAL:
            await self.voice.say_last("failed", {"step": step, "reason": reason, "party": ""})
        diary.close()
        await self._tidy()

    async def _consider(self, view: View) -> None:
        try:
            agreed = await agree(self.silo, view, self.voice.deadline, self._wait, self._is_over)
        except (SiloError, EnvelopeError) as exc:
            await self._refuse(exc, exc.rule if isinstance(exc, PolicyDenied | approvals.Denied) else "")
            return
        if agreed is None:
            return
        if self.silo.slots.locked() and not agreed[1]:  # what persons have approved waits for its turn instead
            await self._refuse(JobFailed("work", f"{self.silo.name} runs as many jobs as it may"), "")
            return
        await self._consent(*agreed)

    async def _consent(self, approved: Approved, people: People) -> None:
        link = make_link_credentials(self.silo.name, self.job, from_text(approved.spec.valid_until), utcnow())
        self.resumes = approved.spec.resumes
        if self.resumes:
            leftovers.keep_link(self._folder, link)
        try:
            await self.voice.say("consented", await consent_body(self.voice, approved, link, people))
        except SiloError as exc:  # of the coordinator: most likely another participant has refused meanwhile
            await self._refuse(exc, "" if isinstance(exc, CoordinatorRefused) else approved.decision.rule)
            return
        log.info("job %s consented under rule '%s'", self.job, approved.decision.rule)
        await self._go(approved, link)

    async def _refuse(self, why: Exception, rule: str) -> None:
        log.info("job %s refused: %s", self.job, why)
        reason = why.public if isinstance(why, SiloError) else str(why)
        await self.voice.say_last("refused", {"reason": reason[:MAX_SENTENCE], "rule": rule})

    def _wait(self, waits: bool) -> None:
        self.waits = waits

    def _is_over(self) -> bool:
        return self.silo.board.state(self.job) in FINAL

    async def _go(self, approved: Approved, link: LinkCredentials) -> None:
        """From the consent to the end."""
        try:
            await self._until_ended(self._in_turn(approved, link))
        except (SiloError, ProtocolError, EnvelopeError) as exc:
            await self._fail(exc)

    async def _in_turn(self, approved: Approved, link: LinkCredentials) -> None:
        """Run the job once all have consented and there is room for it."""
        try:
            async with asyncio.timeout(self._left_s()):
                if await self.silo.board.wait(self.job, {"ready", "running", *FINAL}) in FINAL:
                    return
        except TimeoutError:
            return  # past valid_until the coordinator expires it; there is nothing to add
        limit_s = self.silo.config.limits.job_timeout_s
        if self.silo.slots.locked() and not self._consented().body["approvals"]:
            raise JobFailed("work", f"{self.silo.name} runs as many jobs as it may")
        try:
            async with asyncio.timeout(SLOT_WAIT_S):
                await self.silo.slots.acquire()
        except TimeoutError as exc:
            raise JobFailed("work", f"{self.silo.name} runs as many jobs as it may") from exc
        try:
            async with asyncio.timeout(min(limit_s, self._left_s())):
                await self._run(approved, link)
        except TimeoutError as exc:
            raise JobFailed("work", f"{self.silo.name} did not finish within {limit_s:g} s") from exc
        finally:
            self.silo.slots.release()

    async def _resume(self, view: View) -> bool:
        """Go on with a job that the node was in when it stopped; False if that cannot be."""
        link = leftovers.kept_link(self._folder)
        if link is None or view.state not in ("disclosed", "ready", "running"):
            return False
        self.resumes = True  # before anything is waited for: a node that is stopped again leaves the job open again
        try:
            approved = await asyncio.to_thread(
                review,
                view,
                self.silo.home,
                self.silo.name,
                utcnow(),
                self.silo.registry,
                from_text(self._consented().time),
            )
        except (SiloError, EnvelopeError) as exc:
            await self.give_up(str(exc)[:MAX_SENTENCE], "restart")
            return True
        if not covers(self._consented().body, approved):
            await self.give_up(f"the policy of {self.silo.name} no longer allows what was consented to", "restart")
            return True
        await self.voice.catch_up()
        await self._go(approved, link)
        self._diary.close()
        return True

    def _consented(self) -> Statement:
        return next(s.statement for s in self._diary.said() if s.statement.event == "consented")

    async def _until_ended(self, work: Awaitable[None]) -> None:
        """Do the work, but stop it at once when the job ends elsewhere or we withdraw our consent."""
        working = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self.silo.board.wait(self.job, FINAL))
        withdrawn = asyncio.ensure_future(self._withdrawn())
        try:
            await asyncio.wait({working, ended, withdrawn}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
            elif withdrawn.done():
                await self.voice.catch_up()
            else:
                log.info("job %s ended elsewhere: %s", self.job, ended.result())
        finally:
            for task in (working, ended, withdrawn):
                task.cancel()
            await asyncio.gather(working, ended, withdrawn, return_exceptions=True)

    async def _withdrawn(self) -> None:
        """Wait until somebody here takes the consent back, which they write into the diary before they send it."""
        while "withdrawn" not in self._diary.events():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(WITHDRAWN_LOOK_S)

    async def _run(self, approved: Approved, link: LinkCredentials) -> None:
        consents = await self._verified_consents(approved)
        await asyncio.to_thread(admission.started, self.silo.home, self.job)
        if "started" not in self._diary.events():
            await self.voice.say(
                "started",
                {
                    "links": {name: c.link for name, c in consents.items()},
                    "identities": {name: c.identity for name, c in consents.items()},
                },
            )
        kept = leftovers.kept_outcome(self._folder)
        if kept is None:
            me = self.silo.name
            where = me, self._folder, self.silo.client, self.silo.listener
            released = functools.partial(self._released, approved.expected(me, self.silo.identity.fingerprint))
            outcome = await Attempts(*where, approved, link, consents, self.silo.home.tokens).outcome(released)
            kept = outcome, secrets.token_hex(16)
        await self._finish(approved, *kept)

    async def _released(self, expected: Expected) -> set[str]:
        """The owners that have released their results of this job, by their own signatures.

        The coordinator only carries what they said: if we believed it, we would end the job while a partner still needs us to
        get its rows.  What does not verify has not been said.
        """
        view, silos = await self.voice.view(), set[str]()
        for silo in expected.spec.owners:
            try:
                said = statements(silo, expected, view.entries, view.keys)
            except ConsentError as exc:
                log.warning("job %s: what the coordinator shows of %s is not believed: %s", self.job, silo, exc)
                continue
            if any(statement.event == "released" for statement in said):
                silos.add(silo)
        return silos

    async def _verified_consents(self, approved: Approved) -> dict[str, Consent]:
        view, me, home = await self.voice.view(), self.silo.name, self.silo.home
        if view.spec != approved.spec.document():
            raise JobFailed("consent", f"the spec changed after the consent of {self.silo.name}")
        expected = approved.expected(me, self.silo.identity.fingerprint)
        consents = verify_consents(expected, view.entries, view.keys, utcnow())
        if approved.dataset is not None:
            mine = consents[me].body.dataset_commitment
            await asyncio.to_thread(commitments.check_consented, home, self.job, approved.dataset, mine)
        client = self.silo.client
        now = await self.voice.patiently(lambda: watch.look(client, home))
        heads = {
            name: (said.body.head.size, bytes.fromhex(said.body.head.root))
            for name, said in consents.items()
            if name != me
        }
        shown = dict(zip(view.indexes, view.entries, strict=True))
        await self.voice.patiently(lambda: checkpoints.check_heads(client, home, now, heads))
        await self.voice.patiently(lambda: checkpoints.check_included(client, home, now, shown))
        return consents

    async def _finish(self, approved: Approved, outcome: Outcome, salt: str) -> None:
        """The log holds the result's digest before the result exists for anybody: a release cannot go unrecorded.

        A node that was stopped on the way does all of it again, but says nothing twice.
        """
        me, spec = self.silo.name, approved.spec
        if approved.dataset is not None:
            extra = sorted(set(outcome.items) - set(spec.release))
            if extra or outcome.result is None:
                raise JobFailed(
                    "release", f"the worker of {me} released {extra or 'nothing'}, which is not in the spec"
                )
            table, said = self.silo.home.table(self.job), self._diary.events()
            result, part = without_part(outcome.result)
            leftovers.check_table(self._folder, table, me, result)
            if spec.resumes:
                leftovers.keep_outcome(self._folder, outcome, salt)
            if "released" not in said:
                released = result_digest(salt, result)
                await asyncio.to_thread(admission.released, self.silo.home, self.job)
                await self.voice.say("released", {"recipient": me, "result_digest": released, "items": outcome.items})
            leftovers.hand_out_table(self._folder, table, result)
            if part is not None:
                ModelStore(self.silo.home.root).save(part)
            write_result(
                self.silo.home.result(self.job),
                job=self.job,
                silo=me,
                spec_digest=approved.spec_digest,
                salt=salt,
                result=result,
            )
        await self.voice.say("finished", {"cost": outcome.cost})

    async def _fail(self, exc: Exception) -> None:
        """Say what failed; when it only looks like a lost peer, let the peer say first what happened to it."""
        step, party = "run", ""
        if isinstance(exc, JobFailed):
            step, party = exc.step, exc.party
        elif isinstance(exc, ProtocolError):
            step, party = "link", str(getattr(exc, "party", ""))
        log.warning("job %s failed at %s: %s", self.job, step, exc)
        reason = exc.public if isinstance(exc, SiloError) else str(exc)
        if party and not getattr(exc, "silent", False):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self.silo.board.wait(self.job, FINAL)
        body = {"step": step[:128] or "run", "reason": reason[:MAX_SENTENCE] or "no reason given", "party": party}
        if self.silo.board.state(self.job) not in FINAL:
            await self.voice.say_last("failed", body)
        if isinstance(exc, UNTRUE):
            raise exc

    @property
    def silo(self) -> Silo:
        """The silo that takes part."""
        return self.voice.silo

    @property
    def job(self) -> str:
        """The job's id."""
        return self.voice.job

    @property
    def _diary(self) -> Diary:
        if self.voice.diary is None:
            raise ValueError("the job's diary is not open")
        return self.voice.diary

    @property
    def _folder(self) -> Path:
        return self.silo.home.job(self.job)

    async def _tidy(self) -> None:
        if self._diary.closed:
            await asyncio.to_thread(put_away, self.silo.home, self.job)

    def _left_s(self) -> float:
        return max(0.0, (self.voice.deadline - utcnow()).total_seconds())


def put_away(home: Home, job: str) -> None:
    """A job is over here: what was kept to go on with it goes, and what it reserved is given back unless it has started.

    Blocking.  Raises: SiloError, OSError.
    """
    folder = home.job(job)
    if folder.exists():
        leftovers.tidy(folder)
        approvals.over(folder)
        admission.ended(home, job)
