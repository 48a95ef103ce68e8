"""The life of a job: one frozen state, one transition table with its quorum rules, one `apply`.

Everything that decides whether a statement may change a job is in this file, and nothing here reads a clock, a socket
or a store.  A statement that the table lacks, that the wrong silo says, or whose body contradicts what was said before,
raises and changes nothing.

    absent -> proposed -> disclosed -> ready -> running -> done
                             `-> refused    `-> failed <-'
    and from every open state: cancelled (by the submitter), expired (by the coordinator)
    and from disclosed, ready and running: withdrawn (by whoever has consented and released nothing yet)
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum

from coordinator import statements as st
from coordinator.enrol import check_time
from coordinator.envelope import Statement, digest
from coordinator.errors import Conflict, Forbidden, Malformed


class State(StrEnum):
    """Where a job stands.  ABSENT is before its first entry."""

    ABSENT = "absent"
    PROPOSED = "proposed"
    DISCLOSED = "disclosed"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in FINAL


OPEN = (State.PROPOSED, State.DISCLOSED, State.READY, State.RUNNING)
FINAL = (State.DONE, State.REFUSED, State.FAILED, State.CANCELLED, State.EXPIRED, State.WITHDRAWN)


@dataclass(frozen=True)
class Consent:
    """What a participant bound itself to.  link: hex SHA-256 of its link certificate.  identity: its key's fingerprint."""

    link: str
    identity: str
    valid_until: str


@dataclass(frozen=True)
class Job:
    """All that the coordinator knows of a job's progress.  participants: the owners in spec order, then a dealer or helper."""

    id: str
    kind: str
    spec_digest: str
    submitter: str
    owners: tuple[str, ...]
    dealer: str | None
    helper: str | None
    created: str
    valid_until: str
    state: State
    disclosure_digest: str = ""
    consents: Mapping[str, Consent] = field(default_factory=dict)
    started: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()
    reason: str = ""

    @property
    def participants(self) -> tuple[str, ...]:
        """Every silo that runs a worker."""
        return (*self.owners, *(name for name in (self.dealer, self.helper) if name is not None))

    def involves(self, silo: str) -> bool:
        """Whether `silo` may see this job."""
        return silo == self.submitter or silo in self.participants


@dataclass(frozen=True)
class Said:
    """A statement whose signature holds.  identity: fingerprint of the key that signed.  at: when it arrived."""

    statement: Statement
    identity: str
    at: dt.datetime


class By(Enum):
    """Who may say something."""

    ANYONE = "any enrolled silo"
    SUBMITTER = "the submitter"
    PARTICIPANT = "a participant"
    OWNER = "a data owner"
    COORDINATOR = "the coordinator"


def _at_once(_: Job) -> bool:
    return True


def _all_consented(job: Job) -> bool:
    return set(job.consents) == set(job.participants)


def _all_started(job: Job) -> bool:
    return set(job.started) == set(job.participants)


def _all_released_and_finished(job: Job) -> bool:
    return set(job.released) == set(job.owners) and set(job.finished) == set(job.participants)


@dataclass(frozen=True)
class Rule:
    """Who may say it; the state it leads to; the quorum at which it does (until then the job stays where it is).

    bound: only the identity key that consented may say it, so a key replaced in mid-job cannot speak for the old one.
    """

    by: By
    to: State
    when: Callable[[Job], bool] = _at_once
    bound: bool = False


TABLE: Mapping[tuple[State, str], Rule] = {
    (State.ABSENT, "proposed"): Rule(By.ANYONE, State.PROPOSED),
    (State.PROPOSED, "disclosed"): Rule(By.SUBMITTER, State.DISCLOSED),
    (State.DISCLOSED, "consented"): Rule(By.PARTICIPANT, State.READY, _all_consented),
    (State.DISCLOSED, "refused"): Rule(By.PARTICIPANT, State.REFUSED),
    (State.READY, "started"): Rule(By.PARTICIPANT, State.RUNNING, _all_started, bound=True),
    (State.READY, "failed"): Rule(By.PARTICIPANT, State.FAILED),
    (State.RUNNING, "failed"): Rule(By.PARTICIPANT, State.FAILED),
    (State.RUNNING, "released"): Rule(By.OWNER, State.DONE, _all_released_and_finished, bound=True),
    (State.RUNNING, "finished"): Rule(By.PARTICIPANT, State.DONE, _all_released_and_finished, bound=True),
    **{(state, "cancelled"): Rule(By.SUBMITTER, State.CANCELLED) for state in OPEN},
    **{(state, "expired"): Rule(By.COORDINATOR, State.EXPIRED) for state in OPEN},
    **{(state, "withdrawn"): Rule(By.PARTICIPANT, State.WITHDRAWN) for state in OPEN[1:]},
}


def apply(job: Job | None, said: Said) -> Job:
    """The job after a statement; `job` is None before the first.

    Raises: Conflict if the table has no such step or it was taken already; Forbidden if this silo may not take it;
    Malformed if the body is not what the step needs.
    """
    statement = said.statement
    state = State.ABSENT if job is None else job.state
    rule = TABLE.get((state, statement.event))
    if rule is None:
        raise Conflict(f"a job that is {state} takes no '{statement.event}' entry")
    check_time(statement.time)
    if job is None:
        after = _proposed(said)
    else:
        _check_signer(job, rule, said)
        if (statement.job, statement.spec_digest) != (job.id, job.spec_digest):
            raise Malformed("the entry is about another job or spec")
        after = _RECORD[statement.event](job, said)
    return replace(after, state=rule.to) if rule.when(after) else after


def _check_signer(job: Job, rule: Rule, said: Said) -> None:
    silo, event = said.statement.silo, said.statement.event
    allowed = {
        By.SUBMITTER: (job.submitter,),
        By.PARTICIPANT: job.participants,
        By.OWNER: job.owners,
        By.COORDINATOR: (st.COORDINATOR,),
    }[rule.by]
    if silo not in allowed:
        raise Forbidden(f"'{event}' is for {rule.by.value} of the job to say, not for {silo}")
    if rule.bound and silo not in job.consents:
        raise Conflict(f"{silo} has not consented to this job")
    if rule.bound and job.consents[silo].identity != said.identity:
        raise Forbidden(f"{silo} consented with another identity key than it signs '{event}' with")


def _proposed(said: Said) -> Job:
    statement = said.statement
    spec = st.read(st.Proposed, statement.body, "the body of 'proposed'").spec
    header = st.read(st.SpecHeader, spec, "the job spec")
    if header.job != statement.job:
        raise Malformed("the spec names another job than the entry")
    if digest(spec) != statement.spec_digest:
        raise Malformed("the entry's digest is not the digest of its spec")
    owners = tuple(party.silo for party in header.parties)
    everybody = [*owners, *(name for name in (header.dealer, header.helper) if name is not None)]
    if len(set(everybody)) != len(everybody):
        raise Malformed("the parties, the dealer and the helper are different silos")
    if said.at >= st.parse_time(header.valid_until):
        raise Malformed("the spec's valid_until has passed")
    return Job(
        id=header.job,
        kind=header.kind,
        spec_digest=statement.spec_digest,
        submitter=statement.silo,
        owners=owners,
        dealer=header.dealer,
        helper=header.helper,
        created=st.format_time(said.at),
        valid_until=header.valid_until,
        state=State.ABSENT,
    )


def _disclosed(job: Job, said: Said) -> Job:
    disclosure = st.read(st.Disclosed, said.statement.body, "the body of 'disclosed'").disclosure
    if disclosure.get("spec_digest") != job.spec_digest:
        raise Malformed("the disclosure is of another spec")
    return replace(job, disclosure_digest=digest(disclosure))


def _consented(job: Job, said: Said) -> Job:
    silo = said.statement.silo
    body = st.read(st.Consented, said.statement.body, "the body of 'consented'")
    _check_first(silo, "consented", job.consents)
    if body.disclosure_digest != job.disclosure_digest:
        raise Conflict(f"{silo} consents to another disclosure than the one of this job")
    if bool(body.dataset_commitment) != (silo in job.owners):
        raise Malformed("a data owner commits to a data set, and nobody else")
    _check_not_late(job, said)
    if said.at >= st.parse_time(body.valid_until):
        raise Conflict(f"the consent of {silo} has run out")
    link = hashlib.sha256(base64.b64decode(body.link_certificate)).hexdigest()
    return replace(job, consents={**job.consents, silo: Consent(link, said.identity, body.valid_until)})


def _started(job: Job, said: Said) -> Job:
    """A participant says which keys it runs with: exactly those in the consents, or it has been shown others."""
    silo = said.statement.silo
    body = st.read(st.Started, said.statement.body, "the body of 'started'")
    _check_first(silo, "started", job.started)
    if body.links != {name: consent.link for name, consent in job.consents.items()}:
        raise Conflict(f"{silo} starts with other link certificates than the consents name")
    if body.identities != {name: consent.identity for name, consent in job.consents.items()}:
        raise Conflict(f"{silo} starts with other identity keys than the consents were signed with")
    _check_not_late(job, said)
    for name, consent in job.consents.items():
        if said.at >= st.parse_time(consent.valid_until):
            raise Conflict(f"the consent of {name} has run out")
    return replace(job, started=(*job.started, silo))


def _released(job: Job, said: Said) -> Job:
    silo = said.statement.silo
    body = st.read(st.Released, said.statement.body, "the body of 'released'")
    _check_first(silo, "released", job.released)
    if body.recipient not in job.owners:
        raise Malformed(f"a result is released to a data owner, not to {body.recipient}")
    return replace(job, released=(*job.released, silo))


def _finished(job: Job, said: Said) -> Job:
    silo = said.statement.silo
    body = st.read(st.Finished, said.statement.body, "the body of 'finished'")
    _check_first(silo, "finished", job.finished)
    if not set(body.cost.bytes_sent) <= set(job.participants):
        raise Malformed("bytes_sent names a silo that takes no part in the job")
    if body.cost.randomness and silo not in job.owners:
        raise Malformed("correlated randomness is used by data owners, and by nobody else")
    return replace(job, finished=(*job.finished, silo))


def _refused(job: Job, said: Said) -> Job:
    body = st.read(st.Refused, said.statement.body, "the body of 'refused'")
    rule = f" (rule {body.rule})" if body.rule else ""
    return replace(job, reason=f"{said.statement.silo} refused: {body.reason}{rule}")


def _failed(job: Job, said: Said) -> Job:
    body = st.read(st.Failed, said.statement.body, "the body of 'failed'")
    if body.party and body.party not in job.participants:
        raise Malformed("the party that is blamed takes no part in the job")
    return replace(job, reason=f"{said.statement.silo} failed at {body.step}: {body.reason}")


def _cancelled(job: Job, said: Said) -> Job:
    body = st.read(st.Ended, said.statement.body, "the body of 'cancelled'")
    return replace(job, reason=f"{said.statement.silo} cancelled: {body.reason}")


def _withdrawn(job: Job, said: Said) -> Job:
    """The key of now takes a consent back, whichever key gave it: after a rotation it must still be possible."""
    silo = said.statement.silo
    body = st.read(st.Ended, said.statement.body, "the body of 'withdrawn'")
    if silo not in job.consents:
        raise Conflict(f"{silo} has not consented to this job")
    if silo in job.released:
        raise Conflict(f"{silo} has released its result already")
    return replace(job, reason=f"{silo} withdrew its consent: {body.reason}")


def _expired(job: Job, said: Said) -> Job:
    body = st.read(st.Ended, said.statement.body, "the body of 'expired'")
    if said.at < st.parse_time(job.valid_until):
        raise Conflict("the job's valid_until has not passed")
    return replace(job, reason=body.reason)


def _check_first(silo: str, event: str, before: Mapping[str, object] | tuple[str, ...]) -> None:
    if silo in before:
        raise Conflict(f"{silo} has said '{event}' already")


def _check_not_late(job: Job, said: Said) -> None:
    if said.at >= st.parse_time(job.valid_until):
        raise Conflict("the job's valid_until has passed")


_RECORD: Mapping[str, Callable[[Job, Said], Job]] = {
    "disclosed": _disclosed,
    "consented": _consented,
    "started": _started,
    "released": _released,
    "finished": _finished,
    "refused": _refused,
    "failed": _failed,
    "cancelled": _cancelled,
    "withdrawn": _withdrawn,
    "expired": _expired,
}
