"""Jobs that wait for a person: the node asks, persons answer through files in the job's folder, the node counts.

    pending.json            what is asked, with the spec and the disclosure whose digests a person signs
    approvals/KEY.json      one person's yes
    denied.json             one person's no; one is enough
    decided.json            what came of it, for people

An answer is worth something only while `pending.json` is there: whoever answers and whoever counts hold one lock, so that a
no that was taken is never followed by a consent.  A yes is counted if the policy of now names the person's key, and only once
for each person.  Nothing is kept in memory: a node that starts anew goes on waiting, or finds that all have answered.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import fcntl
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, Field

from coordinator.envelope import canonical, digest
from coordinator.statements import Approval, PersonName
from silos import policy
from silos.approvers import Subject, holds, public_text, same_key, sign
from silos.config import Home
from silos.disclosure import Registry, disclosure, load_reveals
from silos.errors import ConfigError, SiloError
from silos.spec_parts import Hex32, SiloName, Time
from silos.times import from_text, to_text, utcnow
from silos.validation import Frozen, read_document, validate, write_private

if TYPE_CHECKING:
    from silos.review import Approved

Model = TypeVar("Model", bound=BaseModel)
log = logging.getLogger("accord.node")

POLL_S = 0.5
MAX_APPROVALS, MAX_REASON = 8, 600
_PENDING, _DENIED, _DECIDED, _ANSWERS = "pending.json", "denied.json", "decided.json", "approvals"

Outcome = Literal["approved", "refused", "expired", "ended"]


class ApprovalError(SiloError):
    """A person's answer cannot be taken."""


class Denied(SiloError):
    """A person said no to a job, or too few answered in time; then `name` is empty.  rule: that asked for them."""

    def __init__(self, sentence: str, name: str, reason: str, rule: str) -> None:
        super().__init__(sentence)
        self.name, self.reason, self.rule = name, reason, rule


class Pending(Frozen):
    """A job that a person is asked about.  needed: how many must say yes.  budget: what it takes, as the consent will say."""

    job: Hex32
    silo: SiloName
    submitter: SiloName
    spec_digest: str
    disclosure_digest: str
    rule: str
    needed: int = Field(ge=1, le=MAX_APPROVALS)
    asked_at: Time
    valid_until: Time
    spec: dict[str, Any]
    disclosure: dict[str, Any]
    budget: tuple[dict[str, Any], ...]

    @property
    def subject(self) -> Subject:
        """What a yes is signed over."""
        return Subject(self.job, self.spec_digest, self.disclosure_digest, self.silo)


class Denial(Frozen):
    """A person's no."""

    name: PersonName
    time: Time
    reason: str = Field(min_length=1, max_length=MAX_REASON)


class Decided(Frozen):
    """What came of a question.  sentence: for people, without a full stop."""

    asked: Pending
    outcome: Outcome
    sentence: str
    decided_at: Time
    approvals: tuple[Approval, ...]


# --- the node's side


async def approved(
    home: Home,
    me: str,
    approved: Approved,
    needed: int,
    approvers: Mapping[str, str],
    until: dt.datetime,
    *,
    submitter: str,
    registry: Registry = load_reveals,
    budget: Sequence[Mapping[str, Any]] = (),
    ended: Callable[[], bool] = lambda: False,
) -> list[dict[str, str]] | None:
    """Wait until enough persons have said yes; returns the `approvals` of the consent, at once if they have already.

    needed: how many different persons.  approvers: name -> key, as the policy named them when the job was reviewed; one that is
    named in the file since then counts too.  budget: what the consent will charge.  ended: whether the job is over, so that
    nobody has to answer any more; then None is returned.
    Raises: Denied if a person said no, or too few had answered at `until`.
    """
    if needed == 0:
        return []
    pending = Pending(
        job=approved.spec.job,
        silo=me,
        submitter=submitter,
        spec_digest=approved.spec_digest,
        disclosure_digest=approved.disclosure_digest,
        rule=approved.decision.rule,
        needed=needed,
        asked_at=to_text(utcnow()),
        valid_until=to_text(until),
        spec=approved.spec.document(),
        disclosure=disclosure(approved.spec, registry),
        budget=tuple(dict(charge) for charge in budget),
    )
    while True:
        with suppress(ConfigError):  # somebody is in the middle of editing it
            approvers = approver_keys(home)
        answer = _count(home, pending, approvers, ended())
        if isinstance(answer, Denied):
            raise answer
        if answer is not None:
            return None if answer == "ended" else [one.model_dump() for one in answer]
        await asyncio.sleep(POLL_S)


def _count(
    home: Home, pending: Pending, approvers: Mapping[str, str], ended: bool
) -> list[Approval] | Denied | Literal["ended"] | None:
    """What the answers come to; None as long as one is missing."""
    folder = home.job(pending.job)
    with _turn(folder):
        yes, no = said(home, pending, approvers), denial(home, pending.job)
        if ended:
            _settle(folder, pending, "ended", "the job ended before", yes)
            return "ended"
        if no is not None:
            refusal = Denied(f"{no.name} said no: {no.reason}", no.name, no.reason, pending.rule)
            _settle(folder, pending, "refused", str(refusal), yes)
            return refusal
        if utcnow() >= from_text(pending.valid_until):
            late = f"{len(yes)} of {pending.needed} persons had approved it by {pending.valid_until}"
            _settle(folder, pending, "expired", late, yes)
            return Denied(late, "", late, pending.rule)
        if len(yes) >= pending.needed:
            _settle(folder, pending, "approved", f"approved by {' and '.join(a.name for a in yes)}", yes)
            return yes
        _ask(folder, pending)
    return None


def _ask(folder: Path, pending: Pending) -> None:
    """Write the question unless it stands there; a node that starts anew asks as of when it asked first."""
    path = folder / _PENDING
    before = _kept(path, Pending)
    if before is None:
        log.info("job %s waits for %d approval(s) at %s", pending.job, pending.needed, pending.silo)
    elif before.model_copy(update={"asked_at": pending.asked_at}).model_dump(mode="json") == pending.model_dump(
        mode="json"
    ):
        return
    _write(path, pending)


def _settle(folder: Path, pending: Pending, outcome: Outcome, sentence: str, yes: Sequence[Approval]) -> None:
    """Take no answer any more, and remember what came of it: first the record, so that a crash between loses none."""
    path, record = folder / _PENDING, folder / _DECIDED
    asked = _kept(path, Pending)
    if asked is None:  # counted again, by a node that starts anew or after another look at the job
        before = _kept(record, Decided)
        asked = pending if before is None else before.asked
    _write(
        record,
        Decided(asked=asked, outcome=outcome, sentence=sentence, decided_at=to_text(utcnow()), approvals=tuple(yes)),
    )
    path.unlink(missing_ok=True)


def waiting(folder: Path) -> bool:
    """Whether the job of this folder waits for persons."""
    return (folder / _PENDING).exists()


def over(folder: Path, outcome: Outcome = "ended", sentence: str = "the job ended before") -> None:
    """The job of a folder needs no answer any more: it has ended elsewhere, perhaps while no node was there."""
    if not (folder / _PENDING).exists():
        return
    with _turn(folder):
        asked = _kept(folder / _PENDING, Pending)
        if asked is not None:
            _settle(folder, asked, outcome, sentence, ())
        (folder / _PENDING).unlink(missing_ok=True)


# --- the persons' side


def approver_keys(home: Home) -> dict[str, str]:
    """Name -> key of everybody who may answer here, by the policy of now.  Raises: ConfigError."""
    return {name: person.key for name, person in policy.load(home.policy).approvers.items()}


def read_pending(home: Home, job: str) -> Pending:
    """The question about a job, checked to be what a yes would sign.

    Raises: ApprovalError if the job does not wait for anybody; ConfigError if the file has been changed.
    """
    path = home.job(job) / _PENDING
    if not path.exists():
        raise ApprovalError(f"job {job} does not wait for an approval here{_what_came(home, job)}")
    pending = _read(path, Pending, "the question")
    shown = digest(pending.spec), digest(pending.disclosure), pending.disclosure.get("spec_digest")
    if shown != (pending.spec_digest, pending.disclosure_digest, pending.spec_digest) or pending.job != job:
        raise ConfigError(f"{path} has been changed: it shows another job than it asks about")
    return pending


def _what_came(home: Home, job: str) -> str:
    decided = read_decided(home, job)
    return "" if decided is None else f": {decided.sentence}"


def read_decided(home: Home, job: str) -> Decided | None:
    """What came of the question about a job, None if nothing has yet.  Raises: ConfigError."""
    path = home.job(job) / _DECIDED
    return _read(path, Decided, "the decision") if path.exists() else None


def denial(home: Home, job: str) -> Denial | None:
    """A person's no to a job, if one has said it; a file that cannot be read is one too."""
    path = home.job(job) / _DENIED
    if not path.exists():
        return None
    return _kept(path, Denial) or Denial(name="Somebody", time=to_text(utcnow()), reason="the file does not tell why")


def all_pending(home: Home) -> list[Pending]:
    """Every job that waits for a person, the oldest first; one whose file is damaged is logged and left out."""
    found = []
    for path in home.jobs.glob(f"*/{_PENDING}"):
        try:
            found.append(read_pending(home, path.parent.name))
        except ConfigError as exc:
            log.warning("%s", exc)
        except ApprovalError:
            continue  # it has been answered since
    return sorted(found, key=lambda one: (one.asked_at, one.job))


def all_decided(home: Home, most: int) -> list[Decided]:
    """What came of earlier questions, the latest first, so many at most; one whose file is damaged is logged and left out."""
    paths = sorted(home.jobs.glob(f"*/{_DECIDED}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    kept = (_kept(path, Decided) for path in paths if not (path.parent / _PENDING).exists())
    found = itertools.islice((one for one in kept if one is not None), most)
    return sorted(found, key=lambda one: (one.decided_at, one.asked.job), reverse=True)


def said(home: Home, pending: Pending, approvers: Mapping[str, str]) -> list[Approval]:
    """The approvals that count: signed for this job by keys that the policy names, each person once, the earliest first."""
    counted: dict[str, Approval] = {}
    for path in sorted((home.job(pending.job) / _ANSWERS).glob("*.json")):
        try:
            approval = _read(path, Approval, "the approval")
        except ConfigError:
            continue  # not written by `approve`
        key = approvers.get(approval.name)
        if key is not None and same_key(key, approval.key) and holds(approval, pending.subject):
            counted.setdefault(approval.name, approval)
    return sorted(counted.values(), key=lambda one: (one.time, one.name))[:MAX_APPROVALS]


def approve(
    home: Home, pending: Pending, name: str, key: Ed25519PrivateKey, approvers: Mapping[str, str], now: dt.datetime
) -> int:
    """Say yes to exactly what `pending` shows; returns how many persons are still missing.

    Raises: ApprovalError: not an approver, another key, a second time, too late, or the job waits no more.
    """
    _check_name(pending, name, approvers)
    if not same_key(public_text(key), approvers[name]):
        raise ApprovalError(f"the policy of {pending.silo} names another key for {name}")
    if now >= from_text(pending.valid_until):
        raise ApprovalError(f"job {pending.job} was valid until {pending.valid_until}")
    folder = home.job(pending.job)
    with _turn(folder):
        _check_open(home, pending)
        before = [one.name for one in said(home, pending, approvers)]
        if name in before:
            raise ApprovalError(f"{name} has approved job {pending.job} already")
        approval = sign(key, pending.subject, name, to_text(now))
        (folder / _ANSWERS).mkdir(mode=0o700, exist_ok=True)
        _write(folder / _ANSWERS / f"{digest(approval.key)[:16]}.json", approval)
    return max(0, pending.needed - len(before) - 1)


def deny(home: Home, pending: Pending, name: str, reason: str, approvers: Mapping[str, str], now: dt.datetime) -> None:
    """Say no; the node refuses the job with this name and reason, which everybody in the job can read.

    Raises: ApprovalError: not an approver, no reason, or the job waits no more.
    """
    _check_name(pending, name, approvers)
    refuse(home, pending, name, reason, now)


def refuse(home: Home, pending: Pending, name: str, reason: str, now: dt.datetime) -> None:
    """The same, by whoever runs this silo.  Raises: ApprovalError."""
    plain = " ".join(reason.split())
    if not plain or len(plain) > MAX_REASON or not plain.isprintable():
        raise ApprovalError(f"a reason is one sentence of at most {MAX_REASON} characters")
    with _turn(home.job(pending.job)):
        _check_open(home, pending)
        _write(home.job(pending.job) / _DENIED, Denial(name=name, time=to_text(now), reason=plain))


def _check_name(pending: Pending, name: str, approvers: Mapping[str, str]) -> None:
    if name not in approvers:
        known = ", ".join(sorted(approvers)) or "nobody"
        raise ApprovalError(f"the policy of {pending.silo} does not name '{name}' as an approver; it names {known}")


def _check_open(home: Home, pending: Pending) -> None:
    """Raises: ApprovalError unless the question is still there, the same, and nobody has said no; the caller has the turn."""
    now = read_pending(home, pending.job)
    if now.subject != pending.subject:
        raise ApprovalError(f"job {pending.job} is another one than was shown")
    no = denial(home, pending.job)
    if no is not None:
        raise ApprovalError(f"job {pending.job} has been refused: {no.name} said no: {no.reason}")


# --- files


def _read(path: Path, model: type[Model], what: str) -> Model:
    return validate(model, read_document(path, what, ConfigError), f"{what} {path}", ConfigError)


def _kept(path: Path, model: type[Model]) -> Model | None:
    """What the node wrote, None if it did not or the file has been damaged since."""
    try:
        return _read(path, model, "the file") if path.exists() else None
    except ConfigError as exc:
        log.warning("%s", exc)
        return None


def _write(path: Path, model: BaseModel) -> None:
    write_private(path, canonical(model.model_dump(mode="json")))


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Nobody else asks, answers or counts about this job meanwhile; held for moments only."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder / "approvals.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
