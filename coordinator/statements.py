"""What the body of each statement must look like, and the part of a job spec that the coordinator reads.

The models are strict and closed: an unknown field is refused, so nothing can hide in an entry that all sides sign off.
Whether a statement is allowed at a moment is not decided here (see jobs.py).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from coordinator.errors import Malformed

COORDINATOR = "coordinator"  # the signer name of the log's own key; no silo may have it
JOB_ID = r"[0-9a-f]{32}"
SILO_NAME = r"[a-z][a-z0-9-]{1,31}"
MAX_PARTIES = 16
MAX_CERTIFICATE_BYTES = 4096
_TIME = "%Y-%m-%dT%H:%M:%SZ"

Model = TypeVar("Model", bound=BaseModel)


def parse_time(text: str) -> dt.datetime:
    """RFC 3339 in the one spelling we use: UTC, seconds, 'Z'.

    Raises: ValueError.
    """
    moment = dt.datetime.fromisoformat(text)  # several times faster than strptime; the next line is what decides
    if format_time(moment) != text:
        raise ValueError("a time is written YYYY-MM-DDTHH:MM:SSZ")
    return moment


def format_time(moment: dt.datetime) -> str:
    """The spelling that `parse_time` reads."""
    return moment.astimezone(dt.UTC).strftime(_TIME)


def is_silo_name(text: str) -> bool:
    """Whether `text` can name a silo; the coordinator's own signer name cannot."""
    return re.fullmatch(SILO_NAME, text) is not None and text != COORDINATOR


def _timestamp(text: str) -> str:
    parse_time(text)
    return text


def _certificate(text: str) -> str:
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64") from exc
    if not 0 < len(der) <= MAX_CERTIFICATE_BYTES or base64.b64encode(der).decode() != text:
        raise ValueError(f"not the canonical base64 of 1 to {MAX_CERTIFICATE_BYTES} bytes")
    return text


Silo = Annotated[str, StringConstraints(pattern=rf"\A{SILO_NAME}\z")]
SiloOrNone = Annotated[str, StringConstraints(pattern=rf"\A({SILO_NAME})?\z")]
Digest = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]
DigestOrNone = Annotated[str, StringConstraints(pattern=r"\A([0-9a-f]{64})?\z")]
JobId = Annotated[str, StringConstraints(pattern=rf"\A{JOB_ID}\z")]
Time = Annotated[str, AfterValidator(_timestamp)]
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Certificate = Annotated[str, AfterValidator(_certificate)]
Endpoint = Annotated[str, StringConstraints(pattern=r"\A([^\s/@]{1,255}:[0-9]{1,5})?\z")]
Decimal = Annotated[str, StringConstraints(pattern=r"\A[0-9]{1,12}(\.[0-9]{1,9})?\z")]
Spent = Annotated[str, StringConstraints(pattern=r"\A[0-9]{1,12}(\.[0-9]{1,40})?\z")]
PersonName = Annotated[str, StringConstraints(pattern=r"\A\S(.{0,126}\S)?\z")]
Fact = Annotated[str, StringConstraints(max_length=500)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Enrolled(_Body):
    identity_key: Annotated[str, StringConstraints(max_length=64)]


class Rotated(_Body):
    """Said by a silo with its old key.  proof: the new key's signature, see enrol.rotation_proof."""

    identity_key: Annotated[str, StringConstraints(max_length=64)]
    proof: Annotated[str, StringConstraints(max_length=128)]


class Revoked(_Body):
    """Said by the coordinator.  fingerprint: of the identity key that speaks for the silo no longer."""

    silo: Silo
    fingerprint: Digest
    reason: Sentence


class Proposed(_Body):
    spec: dict[str, Any]


class Disclosed(_Body):
    disclosure: dict[str, Any]


class Head(_Body):
    """How far a silo had verified the log when it signed."""

    size: Count
    root: Digest


class Approval(_Body):
    """A person's yes.  key: base64 of an Ed25519 public key.  signature: see silos/approvals.py."""

    name: PersonName
    key: Annotated[str, StringConstraints(max_length=64)]
    time: Time
    signature: Annotated[str, StringConstraints(max_length=128)]


class Record(_Body):
    """What a data owner says of its data set for a record of processing (GDPR art. 30); "" and 0 where it says nothing."""

    controller: Fact
    contact: Fact
    legal_basis: Fact
    categories: Annotated[list[Fact], Field(max_length=32)]
    subjects: Annotated[list[Fact], Field(max_length=32)]
    retention_days: Count
    transfers: Fact


class Charge(_Body):
    """What a job takes of a data owner's privacy budget towards one counterparty, in zCDP rho."""

    counterparty: Silo
    rho: Spent
    before: Spent
    limit: Spent
    delta: Spent


class Consented(_Body):
    disclosure_digest: Digest
    dataset_commitment: DigestOrNone
    link_certificate: Certificate
    endpoint: Endpoint
    link_token: Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{32}\z")]
    valid_until: Time
    head: Head
    rule: Annotated[str, StringConstraints(max_length=128)]
    policy_digest: Digest
    approvals: Annotated[list[Approval], Field(max_length=8)]
    record: Record | None
    budget: Annotated[list[Charge], Field(max_length=MAX_PARTIES)]


class Refused(_Body):
    reason: Sentence
    rule: Annotated[str, StringConstraints(max_length=128)]


class Started(_Body):
    links: dict[Silo, Digest]
    identities: dict[Silo, Digest]


class Released(_Body):
    recipient: Silo
    result_digest: Digest
    items: Annotated[list[Word], Field(max_length=64)]


class Used(_Body):
    """Of one kind of correlated randomness."""

    correlations: Count
    words: Count


class Cost(_Body):
    rounds: Count
    bytes_sent: dict[Silo, Count]
    seconds: dict[Word, Decimal]
    peak_mib: Count
    randomness: dict[Word, Used]


class Finished(_Body):
    cost: Cost


class Failed(_Body):
    step: Word
    reason: Sentence
    party: SiloOrNone


class Ended(_Body):
    """Of `cancelled`, `withdrawn` and `expired`."""

    reason: Sentence


class Party(BaseModel):
    """One data owner, as far as the coordinator looks."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    silo: Silo


class SpecHeader(BaseModel):
    """The fields of a job spec that the coordinator acts on; the rest is the silos' business."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    v: Literal[1]
    job: JobId
    kind: Word
    parties: Annotated[list[Party], Field(min_length=2, max_length=MAX_PARTIES)]
    dealer: Silo | None
    helper: Silo | None = None
    valid_until: Time


def read(model: type[Model], value: object, what: str) -> Model:
    """Raises: Malformed, naming the first field that is wrong and never its value."""
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise Malformed(f"{what} is not well formed: {first_problem(exc)}") from exc


def first_problem(error: ValidationError) -> str:
    """One short clause about the first thing pydantic found; no input is quoted."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "the document"
    return f"{where}: {problem['msg'][:200]}"
