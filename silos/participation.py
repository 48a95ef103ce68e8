"""One silo's part in one job, from the proposal to its last statement.

    review -> consented | refused -> (ready) -> verify every consent -> started -> links -> worker
           -> released (owners; acknowledged by the log before the result file exists) -> finished
    anything that goes wrong after the consent -> failed, with one sentence

Every wait is bounded by the job's own valid_until or by its time-out; a job that ends elsewhere ends here at once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import functools
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from coordinator.envelope import EnvelopeError, Statement, digest
from mpc.errors import ProtocolError
from silos import catalogue, leftovers
from silos.attempts import Attempts
from silos.board import FINAL, Board
from silos.client import CoordinatorClient
from silos.config import Home, SiloConfig
from silos.consent import Consent, Expected, check_key, own_chain, verify_consents
from silos.diary import Diary
from silos.disclosure import Registry
from silos.errors import (
    ConsentError,
    CoordinatorRefused,
    CoordinatorUnreachable,
    JobFailed,
    PolicyDenied,
    SiloError,
)
from silos.identity import Identity
from silos.link_tls import LinkCredentials, make_link_credentials
from silos.models import ModelStore, without_part
from silos.results import result_digest, write_result
from silos.review import Approved, View, read_view, review
from silos.streams import DirectListener
from silos.times import from_text, utcnow
from silos.validation import write_private
from silos.workers import Outcome

T = TypeVar("T")
log = logging.getLogger("accord.node")

GRACE_S = 2.0
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 5.0
MAX_SENTENCE = 1000


@dataclass(frozen=True)
class Silo:
    """What every job of a node shares.  listener, endpoint: None and "" where partners cannot connect directly."""

    home: Home
    config: SiloConfig
    identity: Identity
    client: CoordinatorClient
    board: Board
    registry: Registry
    listener: DirectListener | None = None
    endpoint: str = ""

    @property
    def name(self) -> str:
        return self.config.name


@dataclass
class Participation:
    """One job at one silo; `take_part` is the whole of it.  busy: the silo runs as many jobs as it may already.  resumes: it
    goes on with the job after it was stopped.
    """

    silo: Silo
    job: str
    busy: bool = False
    resumes: bool = False
    deadline: dt.datetime = field(default_factory=lambda: utcnow() + dt.timedelta(hours=1))
    diary: Diary | None = None

    async def take_part(self) -> None:
        """Run the job's life at this silo; returns when there is nothing left to do.

        Raises: SiloError if not even a refusal could be delivered.
        """
        view = await self._view()
        if self.silo.name not in view.participants or view.state in FINAL:
            return
        self.deadline = _deadline(view)
        diary = self.diary = self._diary(view)
        if diary.closed:
            return
        diary.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if "consented" in diary.events():
            if not await self._resume(view):
                await self.give_up(f"the node of {self.silo.name} restarted during the job", "restart")
            self._tidy()
            return
        if view.state == "disclosed" and self.busy:
            await self._say_last("refused", {"reason": f"{self.silo.name} runs as many jobs as it may", "rule": ""})
        elif view.state == "disclosed":
            await self._consider(view)
        diary.close()
        self._tidy()

    async def give_up(self, reason: str, step: str) -> None:
        """End a job that this silo cannot go on with; before everybody has consented that is a refusal."""
        if self.diary is None or self.diary.closed or (self.resumes and step == "stop"):
            return
        await self._catch_up()
        view = await self._view()
        if view.state == "disclosed":
            await self._say_last("refused", {"reason": reason, "rule": ""})
        elif view.state not in FINAL:
            await self._say_last("failed", {"step": step, "reason": reason, "party": ""})
        self.diary.close()
        self._tidy()

    async def _consider(self, view: View) -> None:
        try:
            approved = await asyncio.to_thread(
                review, view, self.silo.home, self.silo.name, utcnow(), self.silo.registry
            )
        except (SiloError, EnvelopeError) as exc:
            rule = exc.rule if isinstance(exc, PolicyDenied) else ""
            log.info("job %s refused: %s", self.job, exc)
            await self._say_last("refused", {"reason": str(exc)[:MAX_SENTENCE], "rule": rule})
            return
        now = utcnow()
        link = make_link_credentials(self.silo.name, self.job, from_text(approved.spec.valid_until), now)
        self.resumes = approved.spec.resumes
        if self.resumes:
            leftovers.keep_link(self._folder, link)
        try:
            await self._say("consented", self._consent_body(approved, link))
        except CoordinatorRefused as exc:  # most likely another participant has refused meanwhile
            await self._say_last("refused", {"reason": str(exc)[:MAX_SENTENCE], "rule": ""})
            return
        log.info("job %s consented under rule '%s'", self.job, approved.decision.rule)
        await self._go(approved, link)

    async def _go(self, approved: Approved, link: LinkCredentials) -> None:
        """From the consent to the end."""
        try:
            if await self._ended_before_ready():
                return
            limit_s = min(self.silo.config.limits.job_timeout_s, self._left_s())
            await self._until_ended(self._run(approved, link), limit_s)
        except (SiloError, ProtocolError, EnvelopeError) as exc:
            await self._fail(exc)

    async def _resume(self, view: View) -> bool:
        """Go on with a job that the node was in when it stopped; False if that cannot be."""
        link = leftovers.kept_link(self._folder)
        if link is None or self.diary is None or view.state not in ("disclosed", "ready", "running"):
            return False
        self.resumes = True  # before anything is waited for: a node that is stopped again leaves the job open again
        try:
            approved = await asyncio.to_thread(
                review, view, self.silo.home, self.silo.name, utcnow(), self.silo.registry
            )
        except (SiloError, EnvelopeError) as exc:
            await self.give_up(str(exc)[:MAX_SENTENCE], "restart")
            return True
        await self._catch_up()
        await self._go(approved, link)
        self.diary.close()
        return True

    def _consent_body(self, approved: Approved, link: LinkCredentials) -> dict[str, Any]:
        commitment = ""
        if approved.dataset is not None:
            salt = secrets.token_bytes(16)
            write_private(self.silo.home.job(self.job) / "dataset.salt", salt.hex() + "\n")
            commitment = catalogue.commitment(salt, approved.dataset.sha256)
        return {
            "disclosure_digest": approved.disclosure_digest,
            "dataset_commitment": commitment,
            "link_certificate": base64.b64encode(link.certificate_der).decode(),
            "endpoint": self.silo.endpoint if approved.spec.links == "auto" else "",
            "link_token": secrets.token_hex(16),
            "valid_until": approved.spec.valid_until,
        }

    async def _ended_before_ready(self) -> bool:
        try:
            async with asyncio.timeout(self._left_s()):
                return await self.silo.board.wait(self.job, {"ready", "running", *FINAL}) in FINAL
        except TimeoutError:
            return True  # past valid_until the coordinator expires it; there is nothing to add

    async def _until_ended(self, work: Awaitable[None], limit_s: float) -> None:
        """Do the work, but stop it at once when the job ends elsewhere or the limit is over."""
        working = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self.silo.board.wait(self.job, FINAL))
        try:
            await asyncio.wait({working, ended}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
            elif not ended.done():
                raise JobFailed("work", f"{self.silo.name} did not finish within {limit_s:g} s")
            else:
                log.info("job %s ended elsewhere: %s", self.job, ended.result())
        finally:
            for task in (working, ended):
                task.cancel()
            await asyncio.gather(working, ended, return_exceptions=True)

    async def _run(self, approved: Approved, link: LinkCredentials) -> None:
        consents = await self._verified_consents(approved)
        if self.diary is not None and "started" not in self.diary.events():
            await self._say(
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
        view, silos = await self._view(), set[str]()
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
        view = await self._view()
        if view.spec != approved.spec.document():
            raise JobFailed("consent", f"the spec changed after the consent of {self.silo.name}")
        expected = approved.expected(self.silo.name, self.silo.identity.fingerprint)
        return verify_consents(expected, view.entries, view.keys, utcnow())

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
            table, said = self.silo.home.table(self.job), self.diary.events() if self.diary is not None else []
            result, part = without_part(outcome.result)
            leftovers.check_table(self._folder, table, me, result)
            if spec.resumes:
                leftovers.keep_outcome(self._folder, outcome, salt)
            if "released" not in said:
                released = result_digest(salt, result)
                await self._say("released", {"recipient": me, "result_digest": released, "items": outcome.items})
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
        await self._say("finished", {"cost": outcome.cost})

    async def _fail(self, exc: Exception) -> None:
        """Say what failed; when it only looks like a lost peer, let the peer say first what happened to it."""
        step, party = "run", ""
        if isinstance(exc, JobFailed):
            step, party = exc.step, exc.party
        elif isinstance(exc, ProtocolError):
            step, party = "link", str(getattr(exc, "party", ""))
        log.warning("job %s failed at %s: %s", self.job, step, exc)
        if party and not getattr(exc, "silent", False):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self.silo.board.wait(self.job, FINAL)
        body = {"step": step[:128] or "run", "reason": str(exc)[:MAX_SENTENCE] or "no reason given", "party": party}
        if self.silo.board.state(self.job) not in FINAL:
            await self._say_last("failed", body)

    async def _view(self) -> View:
        async def fetch() -> View:
            return read_view(await self.silo.client.job(self.job), await self.silo.client.roster())

        return await self._patiently(fetch)

    async def _say(self, event: str, body: Mapping[str, Any]) -> None:
        """Make a statement and see it accepted, however often the coordinator has to be asked."""
        if self.diary is None:
            raise ValueError("the job's diary is not open")
        try:
            await self.diary.say(self.silo.client, event, body)
        except CoordinatorUnreachable:
            await self._catch_up()

    async def _say_last(self, event: str, body: Mapping[str, Any]) -> None:
        """A final statement; that the job ended in another way meanwhile is no error."""
        try:
            await self._say(event, body)
        except CoordinatorRefused as exc:
            log.info("job %s: '%s' was not accepted: %s", self.job, event, exc)

    async def _catch_up(self) -> None:
        """Post what the coordinator has not got from us yet."""

        async def repeat() -> None:
            view = read_view(await self.silo.client.job(self.job), await self.silo.client.roster())
            if self.diary is not None:
                await self.diary.repeat(self.silo.client, set(view.entries))

        await self._patiently(repeat)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask again while the coordinator does not answer, until the job's time is over."""
        delay = FIRST_RETRY_S
        while True:
            try:
                return await ask()
            except CoordinatorUnreachable:
                if utcnow() + dt.timedelta(seconds=delay) > self.deadline:
                    raise
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_S)

    @property
    def _folder(self) -> Path:
        return self.silo.home.job(self.job)

    def _tidy(self) -> None:
        if self.diary is not None and self.diary.closed:
            leftovers.tidy(self._folder)

    def _left_s(self) -> float:
        return max(0.0, (self.deadline - utcnow()).total_seconds())

    def _diary(self, view: View) -> Diary:
        home = self.silo.home
        return Diary(home.job(self.job), self.silo.name, self.job, digest(view.spec), self.silo.identity)


def statements(silo: str, expected: Expected, entries: Sequence[bytes], keys: Mapping[str, bytes]) -> list[Statement]:
    """What a silo has said about the job, checked: by the key that we pinned, complete up to the last of it, of this spec.

    Raises: ConsentError.
    """
    if silo not in keys:
        raise ConsentError(f"{silo} is not enrolled", silo)
    check_key(silo, keys[silo], expected.pins)
    said = [sealed.statement for sealed in own_chain(silo, entries, keys[silo])]
    if any((one.job, one.spec_digest) != (expected.spec.job, expected.spec_digest) for one in said):
        raise ConsentError(f"{silo} has made these statements about another job or spec", silo)
    return said


def _deadline(view: View) -> dt.datetime:
    """When the job's time is over; a spec without a readable one is refused in review, so soon is right."""
    try:
        return from_text(view.spec["valid_until"])
    except (KeyError, TypeError, ValueError):
        return utcnow() + dt.timedelta(minutes=1)
