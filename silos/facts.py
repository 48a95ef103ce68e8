"""The facts of jobs for a compliance report, taken from what silos signed and the log recorded, and from nothing else.

A fact that nobody signed is not there.  What the statements are worth is for `silos.verify` to say first.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.envelope import canonical
from silos.disclosure import limits
from silos.errors import SpecError
from silos.plan import Use, plan
from silos.spec import Spec, parse_spec
from silos.verify import Entry, Story


@dataclass(frozen=True)
class Owner:
    """One data owner in one job.  record: what its policy says of the data set (GDPR art. 30), None if it did not consent."""

    silo: str
    dataset: str
    uses: tuple[Use, ...]
    record: Mapping[str, Any] | None
    commitment: str


@dataclass(frozen=True)
class Job:
    """One job.  reason: why it ended, unless it is done.  identities: fingerprints of the keys that signed, by silo."""

    id: str
    kind: str
    purpose: str
    state: str
    reason: str
    submitter: str
    proposed: str
    ended: str
    valid_until: str
    spec_digest: str
    disclosure_digest: str
    participants: tuple[str, ...]
    roles: Mapping[str, str]
    identities: Mapping[str, str]
    owners: tuple[Owner, ...]
    protocol: str
    randomness: str
    minimum_matches: int
    lines: tuple[Mapping[str, Any], ...]
    assumptions: tuple[str, ...]
    limits: tuple[str, ...]
    consents: tuple[Entry, ...]
    releases: tuple[Entry, ...]
    entries: tuple[Entry, ...]

    @property
    def done(self) -> bool:
        """Whether every step up to the last release was taken."""
        return self.state == "done"

    @property
    def ran(self) -> bool:
        """Whether anybody has started to work on it."""
        return any(entry.event == "started" for entry in self.entries)

    @property
    def charges(self) -> list[tuple[str, Mapping[str, Any]]]:
        """(owner, what its consent takes of its budget), one per counterparty."""
        return [(entry.silo, charge) for entry in self.consents for charge in entry.body["budget"]]

    @property
    def approvals(self) -> list[tuple[Entry, Mapping[str, Any]]]:
        """(consent, a person's yes in it)."""
        return [(entry, approval) for entry in self.consents for approval in entry.body["approvals"]]


ENDS = {"refused", "failed", "cancelled", "expired", "withdrawn"}


def job_facts(story: Story) -> Job:
    """The facts of one verified story.

    Raises: SpecError if the spec is not one that this version can read.
    """
    spec = parse_spec(story.entries[0].body["spec"])
    made = plan(spec)
    proposed, last = story.entries[0], story.entries[-1]
    consents = {e.silo: e for e in story.entries if e.event == "consented"}
    disclosed = story.disclosure
    roles = dict.fromkeys(spec.owners, "data owner")
    for silo, role in ((spec.dealer, "dealer of randomness, without data"), (spec.helper, "helper, without data")):
        if silo is not None:
            roles[silo] = role
    if proposed.silo not in roles:
        roles[proposed.silo] = "submitter, without data"
    state, reason = _ending(spec, story.entries)
    return Job(
        id=spec.job,
        kind=spec.kind,
        purpose=spec.purpose,
        state=state,
        reason=reason,
        submitter=proposed.silo,
        proposed=proposed.time,
        ended=last.time if state != "unfinished" else "",
        valid_until=spec.valid_until,
        spec_digest=proposed.spec_digest,
        disclosure_digest=hashlib.sha256(canonical(disclosed)).hexdigest(),
        participants=spec.participants,
        roles=roles,
        identities={e.silo: e.signer for e in story.entries},
        owners=tuple(
            Owner(
                party.silo,
                party.dataset,
                made.of(party.silo),
                consents[party.silo].body["record"] if party.silo in consents else None,
                consents[party.silo].body["dataset_commitment"] if party.silo in consents else "",
            )
            for party in spec.parties
        ),
        protocol=spec.matching,
        randomness=spec.randomness or "none",
        minimum_matches=spec.align.minimum_matches,
        lines=tuple(line for line in _list(disclosed, "lines") if isinstance(line, Mapping)),
        assumptions=tuple(map(str, _list(disclosed, "assumptions"))),
        limits=_limits(disclosed),
        consents=tuple(consents[silo] for silo in spec.participants if silo in consents),
        releases=tuple(e for e in story.entries if e.event == "released"),
        entries=tuple(story.entries),
    )


def readable(stories: Sequence[Story]) -> tuple[list[Job], list[str]]:
    """The facts of every story, oldest first, and a sentence for each that this version cannot read."""
    jobs, unread = [], []
    for story in stories:
        try:
            jobs.append(job_facts(story))
        except SpecError as exc:
            unread.append(f"job {story.entries[0].job}: {exc}")
    return sorted(jobs, key=lambda job: (job.proposed, job.id)), unread


def _list(document: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = document.get(key)
    return value if isinstance(value, list) else []


def _limits(disclosed: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        return tuple(limits(disclosed["thresholds"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise SpecError("its disclosure has not the form that this version knows") from exc


def _ending(spec: Spec, entries: Sequence[Entry]) -> tuple[str, str]:
    for entry in entries:
        if entry.event in ENDS:
            return entry.event, f"{entry.silo}: {entry.body['reason']}"
    said = {(e.silo, e.event) for e in entries}
    finished = all((silo, "finished") in said for silo in spec.participants)
    if finished and all((silo, "released") in said for silo in spec.owners):
        return "done", ""
    return "unfinished", "the bundle does not show how it ended"


def link_digest(consent: Entry) -> str:
    """Hex SHA-256 of the certificate of the links that a participant consented to run over."""
    return hashlib.sha256(base64.b64decode(consent.body["link_certificate"])).hexdigest()
