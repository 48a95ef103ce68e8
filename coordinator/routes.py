"""The one table of routes.  The application and the OpenAPI document are both built from it, so neither can drift."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from pydantic import BaseModel

from coordinator import api, handlers
from coordinator.calls import Call
from coordinator.service import Coordinator

Handler = Callable[[Coordinator, Call], Awaitable[BaseModel | web.StreamResponse]]

KIB = 1024
JSON = "application/json"
TEXT = "text/plain"
BYTES = "application/octet-stream"
PEM = "application/x-pem-file"
WEBSOCKET = "websocket"


@dataclass(frozen=True)
class Route:
    """One operation.

    body: the model or media type that is read, None for nothing.  reply: the model or media type of the answer, None for
    204.  certificate: whether a client certificate of an enrolled silo is needed.  query: its parameters; "?" marks an
    optional one.  limit_kib: the largest body.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    reply: type[BaseModel] | str | None
    body: type[BaseModel] | str | None = None
    certificate: bool = True
    query: tuple[str, ...] = ()
    limit_kib: int = 0


# An entry of 65,535 bytes is 87,380 base64 characters.
ROUTES: tuple[Route, ...] = (
    Route("GET", "/healthz", handlers.health, "Whether it runs", api.HealthReply, certificate=False),
    Route("GET", "/metrics", handlers.metrics, "Numbers for Prometheus", TEXT, certificate=False),
    Route("GET", "/v1/ca", handlers.get_ca, "The CA's certificate, to compare with a token", PEM, certificate=False),
    Route(
        "POST", "/v1/enrol", handlers.enrol, "Join with a one-time token", api.EnrolReply,
        body=api.EnrolRequest, certificate=False, limit_kib=128,
    ),
    Route(
        "POST", "/v1/renew", handlers.renew, "A new certificate for a new TLS key; the old key stops being accepted",
        api.RenewReply, body=PEM, limit_kib=16,
    ),
    Route("GET", "/v1/roster", handlers.roster, "The enrolled silos and their identity keys", api.RosterReply),
    Route(
        "POST", "/v1/jobs", handlers.submit, "Propose a job and disclose what it reveals", api.SubmitReply,
        body=api.SubmitRequest, limit_kib=192,
    ),
    Route("GET", "/v1/jobs", handlers.list_jobs, "The caller's jobs, newest first", api.JobsReply),
    Route("GET", "/v1/jobs/{job}", handlers.get_job, "A job with all its entries", api.JobReply),
    Route(
        "POST", "/v1/jobs/{job}/entries", handlers.add_entry, "Say the caller's next statement about a job",
        api.EntryReply, body=api.EntryRequest, limit_kib=96,
    ),
    Route(
        "POST", "/v1/jobs/{job}/progress", handlers.add_progress, "Tell how far the caller is; not logged", None,
        body=api.ProgressRequest, limit_kib=1,
    ),
    Route("GET", "/v1/events", handlers.listen, "State changes and progress as they happen", WEBSOCKET, query=("job?",)),
    Route("GET", "/v1/relay/{job}/{peer}", handlers.join_relay, "Opaque frames to and from a peer", WEBSOCKET),
    Route("GET", "/v1/log/checkpoint", handlers.checkpoint, "The log's signed head", TEXT),
    Route("GET", "/v1/log/cosigned", handlers.cosigned, "The newest checkpoint that enough witnesses cosigned", TEXT,
          query=("least?",)),
    Route("GET", "/v1/log/tile/{level}/{place:.+}", handlers.tile, "A C2SP tile of hashes", BYTES),
    Route("GET", "/v1/log/entries", handlers.log_entries, "Entries from start up to end; others' as hashes", api.EntriesReply,
          query=("start", "end")),
    Route("GET", "/v1/log/inclusion", handlers.inclusion, "Proof that an entry is in the tree of a size",
          api.ProofReply, query=("index", "size")),
    Route("GET", "/v1/log/consistency", handlers.consistency, "Proof that one tree is a prefix of another",
          api.ProofReply, query=("first", "second")),
    Route("GET", "/v1/log/roster", handlers.roster_entries, "The log's entries about no job: keys that came and went",
          api.RosterEntriesReply, query=("start", "end")),
    Route(
        "POST", "/v1/log/cosignatures", handlers.cosign, "A checkpoint that the caller has verified, with its line",
        api.CosignReply, body=TEXT, limit_kib=64,
    ),
    Route(
        "POST", "/v1/rotate", handlers.rotate, "Replace the caller's identity key, by a statement of the present one",
        api.RotateReply, body=api.RotateRequest, limit_kib=96,
    ),
)  # fmt: skip

OPENAPI_PATH = "/openapi.json"
