"""A data owner's own look at a proposed job: everything is recomputed here, nothing is taken from the coordinator.

Order matters only for the sentence a person reads: the spec first, then what it reveals, then whether our policy allows
it, then whether our data can do it.  Nothing of the data leaves and no data value is looked at.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coordinator.envelope import Sealed, digest
from silos import admission, catalogue, policy, roster
from silos.catalogue import Dataset
from silos.config import Home
from silos.consent import Expected, check_key, own_chain
from silos.disclosure import Registry, disclosure, load_reveals
from silos.errors import ConsentError, DisclosureError, SpecError
from silos.models import ModelPart, ModelStore
from silos.policy import Decision, Policy
from silos.spec import Score, Spec, parse_spec, spec_digest
from silos.times import from_text


@dataclass(frozen=True)
class View:
    """A job as the coordinator shows it.

    indexes, entries: places in the log and envelopes, in log order.  keys: raw identity keys by silo.
    """

    job: str
    state: str
    submitter: str
    participants: tuple[str, ...]
    spec: Any
    indexes: tuple[int, ...]
    entries: tuple[bytes, ...]
    keys: Mapping[str, bytes]


@dataclass(frozen=True)
class Approved:
    """A job this silo is ready to sign for.

    rules, policy_digest: the policy that allowed it, and the hex SHA-256 of its file.  dataset: None for an assistant.
    budget: what our consent will take, as far as can be foreseen.  part: our part of the model that the job predicts with, if
    it does.
    """

    spec: Spec
    spec_digest: str
    disclosure_digest: str
    decision: Decision
    rules: Policy
    policy_digest: str
    dataset: Dataset | None
    budget: tuple[Mapping[str, str], ...] = ()
    part: ModelPart | None = None

    def expected(self, me: str, fingerprint: str) -> Expected:
        """What every participant's consent must say, our own key included."""
        pins = {**self.decision.pins, me: fingerprint}
        return Expected(self.spec, self.spec_digest, self.disclosure_digest, pins)


def read_view(job: Mapping[str, Any], roster: Sequence[Mapping[str, Any]]) -> View:
    """Parse the coordinator's answers.  Raises: SpecError if they do not have the agreed form."""
    try:
        return View(
            job=str(job["job"]),
            state=str(job["state"]),
            submitter=str(job["submitter"]),
            participants=tuple(str(p) for p in job["participants"]),
            spec=job["spec"],
            indexes=tuple(int(e["index"]) for e in job["entries"]),
            entries=tuple(base64.b64decode(e["envelope"], validate=True) for e in job["entries"]),
            keys={str(s["silo"]): base64.b64decode(s["identity_key"], validate=True) for s in roster},
        )
    except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as exc:
        raise SpecError("the coordinator's account of the job is not well-formed") from exc


def _proposal(view: View, pins: Mapping[str, str]) -> tuple[Sealed, Sealed]:
    """The submitter's two signed statements.  Raises: ConsentError, SpecError."""
    if view.submitter not in view.keys:
        raise ConsentError(f"the submitter {view.submitter} is not enrolled", view.submitter)
    key = view.keys[view.submitter]
    if view.submitter in pins:
        check_key(view.submitter, key, pins)
    chain = own_chain(view.submitter, view.entries, key)
    if [s.statement.event for s in chain[:2]] != ["proposed", "disclosed"]:
        raise SpecError(f"{view.submitter} has not proposed and disclosed this job")
    return chain[0], chain[1]


def review(
    view: View,
    home: Home,
    me: str,
    now: dt.datetime,
    registry: Registry = load_reveals,
    consented: dt.datetime | None = None,
) -> Approved:
    """Decide whether `me` may and can take part in a job.

    consented: when we did, if we go on with a job: the policy's hours and counts are of then.

    Raises: SpecError, DisclosureError, ConsentError, PolicyDenied, CatalogueError, ConfigError: the reason to refuse.
    """
    rules, policy_digest = policy.load_with_digest(home.policy)
    known = roster.load(home)
    proposed, disclosed = _proposal(view, known.followed({name: p.fingerprint for name, p in rules.partners.items()}))
    spec = parse_spec(proposed.statement.body.get("spec"))
    subject = spec_digest(spec)
    if spec.job != view.job or {proposed.statement.spec_digest, disclosed.statement.spec_digest} != {subject}:
        raise SpecError("the job's entries are about another spec than the one proposed")
    if view.spec != spec.document():
        raise SpecError("the coordinator shows another spec than the one the submitter signed")
    if from_text(spec.valid_until) <= now:
        raise SpecError(f"the job was valid until {spec.valid_until}")
    computed = disclosure(spec, registry)
    if disclosed.statement.body.get("disclosure") != computed:
        raise DisclosureError("the disclosure is not what this silo computes from the spec")
    decision = rules.decide(spec, me, consented or now, admission.used(home, spec.job))
    decision = replace(decision, pins=known.followed(decision.pins))
    party = spec.party(me)
    dataset = None
    if party is not None:
        dataset = catalogue.load(home.catalogue).dataset(party.dataset)
        dataset.check(party)
        catalogue.verify_unchanged(dataset)
    budget: tuple[Mapping[str, str], ...] = ()
    if dataset is not None and consented is None:
        budget = tuple(admission.foresee(home, spec, me, rules, decision.rule, dataset))
    part = _part(home, spec, me) if isinstance(spec, Score) and party is not None else None
    return Approved(spec, subject, digest(computed), decision, rules, policy_digest, dataset, budget, part)


def _part(home: Home, spec: Score, me: str) -> ModelPart:
    """Our part of the model that a job predicts with, which must be of these owners and read the columns that we agree to.

    Raises: ConfigError if we keep none; SpecError if it is of others, or reads other columns.
    """
    part = ModelStore(home.root).load(spec.model)
    own = next(p for p in spec.parties if p.silo == me)
    if part.owners != spec.owners:
        raise SpecError(f"model {spec.model} is of {', '.join(part.owners)}, in this order")
    if part.silo != me or part.purpose != spec.purpose:
        raise SpecError(f"model {spec.model} is for the purpose '{part.purpose}'")
    reads = {(f.column, f.as_) for f in part.features}
    if not reads <= {(f.column, f.as_) for f in own.features}:
        shown = ", ".join(f"{column} as {form}" for column, form in sorted(reads))
        raise SpecError(f"the part of {me} of model {spec.model} reads the columns {shown}")
    _check_output(spec, part)
    if part.exposed != (own.offset is not None):
        missing = "has an offset, and the job names none" if part.exposed else "has no offset"
        raise SpecError(f"the part of {me} of model {spec.model} {missing}")
    return part


def _check_output(spec: Score, part: ModelPart) -> None:
    """Whether a model of this kind can tell what is asked for.  Raises: SpecError."""
    several = part.family in ("multinomial", "multiclass")
    if several and (spec.output not in ("decision", "probability") or spec.cuts or spec.questions is not None):
        raise SpecError(
            "a model of several classes tells decisions without a cut, or probabilities, of all rows at once"
        )
    if not several and spec.output == "decision" and not spec.cuts:
        raise SpecError("a decision takes one number in 'cuts'")
