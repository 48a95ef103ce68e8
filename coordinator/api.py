"""The JSON that goes over the HTTP API, as models: requests are checked with them, the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from coordinator.statements import Count, JobId, Silo

Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Error(_Model):
    """Every answer of status 400 and above."""

    error: str


class EnrolRequest(_Model):
    """token: '<id>.<secret>' of the join token.  proof: over "accord-enrol-v1" and the CSR's DER."""

    token: str
    csr: str
    identity_key: Base64
    proof: Base64
    entry: Base64


class EnrolReply(_Model):
    """log_key: the log's C2SP verifier key."""

    certificate: str
    log_key: str
    origin: str
    silo: str


class RenewReply(_Model):
    certificate: str


class RosterSilo(_Model):
    silo: str
    identity_key: Base64
    fingerprint: str
    enrolled_at: str


class RosterReply(_Model):
    silos: list[RosterSilo]


class SubmitRequest(_Model):
    """The job's 'proposed' and 'disclosed' envelopes."""

    entries: Annotated[list[Base64], Field(min_length=2, max_length=2)]


class SubmitReply(_Model):
    job: JobId


class EntryRequest(_Model):
    entry: Base64


class EntryReply(_Model):
    """index: the entry's place in the log.  state: of the job, after it."""

    index: int
    state: str


class ProgressRequest(_Model):
    stage: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    done: Count
    total: Count


class ProgressView(_Model):
    stage: str
    done: int
    total: int
    time: str


class JobSummary(_Model):
    job: str
    kind: str
    state: str
    submitter: Silo
    participants: list[str]
    created: str
    reason: str


class JobsReply(_Model):
    jobs: list[JobSummary]


class JobEntry(_Model):
    index: int
    envelope: Base64


class JobReply(_Model):
    """participants: the owners in the spec's order, then the dealer or the helper.  dealer, helper: null if there is none."""

    job: str
    kind: str
    state: str
    submitter: str
    participants: list[str]
    owners: list[str]
    dealer: str | None
    helper: str | None
    created: str
    spec: dict[str, object]
    reason: str
    entries: list[JobEntry]
    progress: dict[str, ProgressView]


class LogEnvelope(_Model):
    """An entry that the caller may read: an enrolment, or of a job that it submitted or takes part in."""

    envelope: Base64


class LogLeaf(_Model):
    """leaf: the RFC 6962 leaf hash of an entry of somebody else's job, to rebuild the tree with."""

    leaf: Base64


class EntriesReply(_Model):
    """A prefix of the range that was asked for; ask again from where it ends."""

    entries: list[LogEnvelope | LogLeaf]


class RosterEntriesReply(_Model):
    """The entries about no job in the range that was asked for, in order, or a beginning of them."""

    entries: list[JobEntry]


class RotateRequest(_Model):
    """entry: the 'rotated' envelope, signed with the key that it replaces."""

    entry: Base64


class RotateReply(_Model):
    """index: the entry's place in the log."""

    index: int


class CosignReply(_Model):
    """size: of the checkpoint that was cosigned."""

    size: int


class ProofReply(_Model):
    hashes: list[Base64]


class HealthReply(_Model):
    status: str
