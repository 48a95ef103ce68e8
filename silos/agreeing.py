"""From a proposal to what a silo signs: its own review, its people, its budget, its data, and how far it has seen the log."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from silos import admission, approvals, commitments, watch
from silos.approvers import same_key
from silos.link_tls import LinkCredentials
from silos.review import Approved, View, review
from silos.times import utcnow
from silos.voice import Silo, Voice

People = list[dict[str, str]]


async def agree(
    silo: Silo, view: View, until: dt.datetime, waits: Callable[[bool], None], over: Callable[[], bool]
) -> tuple[Approved, People] | None:
    """Review a job and, where the policy asks for it, wait for persons; None if the job ended before they answered.

    waits: told when a wait for persons begins and ends.  over: whether the job has ended elsewhere.
    Raises: what `review` raises, Denied: the reason to refuse.
    """

    async def look() -> Approved:
        return await asyncio.to_thread(review, view, silo.home, silo.name, utcnow(), silo.registry)

    approved = await look()
    if approved.decision.approval == 0:
        waits(False)
        return approved, []
    waits(True)  # and it stays so if the node is stopped meanwhile
    while True:
        people = await approvals.approved(
            silo.home,
            silo.name,
            approved,
            approved.decision.approval,
            {name: person.key for name, person in approved.rules.approvers.items()},
            until,
            submitter=view.submitter,
            registry=silo.registry,
            budget=approved.budget,
            ended=over,
        )
        if people is None:
            return None
        # Hours may have passed.  What is signed is allowed by the policy of now, over the data of now.
        before, approved = approved, await look()
        if _asks(before) == _asks(approved):
            waits(False)
            return approved, people


def _asks(approved: Approved) -> tuple[Any, ...]:
    """What persons were asked about, and who may answer."""
    decision = approved.decision
    return approved.spec_digest, approved.disclosure_digest, decision.rule, decision.approval, approved.rules.approvers


def covers(consent: Mapping[str, Any], approved: Approved) -> bool:
    """Whether what we consented to is what the policy of now allows: under this rule, with as many persons that it names."""
    people = approved.rules.approvers
    known = [
        one for one in consent["approvals"] if one["name"] in people and same_key(people[one["name"]].key, one["key"])
    ]
    same = consent["rule"] == ("" if approved.dataset is None else approved.decision.rule)
    return same and len(known) >= approved.decision.approval


async def consent_body(voice: Voice, approved: Approved, link: LinkCredentials, people: People) -> dict[str, Any]:
    """The body of our 'consented' statement; the budget that it names is reserved.

    Raises: BudgetError, DifferencingRefused, CommitmentError: the reason to refuse; LogRewritten, LogForked, RosterForged.
    """
    silo, spec, data = voice.silo, approved.spec, approved.dataset
    home = silo.home
    charges = await asyncio.to_thread(
        admission.admit, home, spec, silo.name, approved.rules, approved.decision.rule, data
    )
    commitment = "" if data is None else await asyncio.to_thread(commitments.commit, home, spec.job, data)
    head = await voice.patiently(lambda: watch.look(silo.client, home))
    return {
        "disclosure_digest": approved.disclosure_digest,
        "dataset_commitment": commitment,
        "link_certificate": base64.b64encode(link.certificate_der).decode(),
        "endpoint": silo.endpoint if spec.links == "auto" else "",
        "link_token": secrets.token_hex(16),
        "valid_until": spec.valid_until,
        "head": {"size": head.size, "root": head.root.hex()},
        "rule": "" if data is None else approved.decision.rule,
        "policy_digest": approved.policy_digest,
        "approvals": people,
        "record": None if data is None else approved.rules.record_of(data.name),
        "budget": charges,
    }
