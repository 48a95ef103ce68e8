"""One HTTP request as a handler sees it: who asks, and a body that has been read within its limit and checked."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web
from cryptography import x509
from pydantic import BaseModel, ValidationError

from coordinator import ca
from coordinator.errors import Forbidden, Malformed, NotAuthenticated, TooLarge
from coordinator.service import Coordinator
from coordinator.statements import first_problem
from coordinator.store import Store

BODY_WAIT_S = 30.0
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Caller:
    """An enrolled silo, and the hash of the TLS key it came with."""

    silo: str
    spki: str


@dataclass(frozen=True)
class Call:
    """caller: None only where a route needs no certificate.  body: the checked model, or the raw bytes."""

    request: web.Request
    caller: Caller | None
    body: BaseModel | bytes

    @property
    def silo(self) -> str:
        """The caller's name, on a route that needs a certificate."""
        if self.caller is None:
            raise NotAuthenticated("a client certificate is needed")
        return self.caller.silo

    def model(self, kind: type[M]) -> M:
        """The body as the model that the route names."""
        if not isinstance(self.body, kind):
            raise TypeError(f"the route does not read a {kind.__name__}")
        return self.body

    def raw(self) -> bytes:
        """The body of a route that reads no JSON."""
        if not isinstance(self.body, bytes):
            raise TypeError("the route reads JSON")
        return self.body

    def path(self, name: str) -> str:
        """A variable part of the path."""
        return self.request.match_info[name]

    def count(self, name: str) -> int:
        """A query parameter that is a count.

        Raises: Malformed.
        """
        text = self.request.query.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) <= 15):
            raise Malformed(f"the query parameter '{name}' is a count")
        return int(text)


async def authenticate(coordinator: Coordinator, request: web.Request) -> Caller:
    """The silo behind a connection.  Asked on every request, so that a revocation or a renewal counts at once.

    TLS has checked that the certificate is our CA's, for clients, and that the caller holds its key; here the key must
    be the one on the roster.
    Raises: NotAuthenticated, Forbidden.
    """
    tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    if not der:
        raise NotAuthenticated("a client certificate is needed")
    certificate = x509.load_der_x509_certificate(der)
    if coordinator.clock() > certificate.not_valid_after_utc:  # the connection may be older than that
        raise NotAuthenticated("the client certificate has expired")
    name = ca.silo_name(certificate)
    silo = await coordinator.store.call(Store.silo, name) if name else None
    spki = ca.spki_hash(certificate.public_key())
    if silo is None:
        raise Forbidden("the client certificate names no enrolled silo")
    if silo.revoked:
        raise Forbidden(f"{silo.name} has been revoked")
    if not hmac.compare_digest(silo.spki, spki):
        raise Forbidden(f"the TLS key of {silo.name} is no longer accepted")
    return Caller(silo.name, spki)


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """The whole body, never holding more than `limit_bytes` and one chunk.

    Raises: TooLarge; Malformed if it does not arrive in time.
    """
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(f"the body has at most {limit_bytes} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit_bytes:
                    raise TooLarge(f"the body has at most {limit_bytes} bytes")
    except TimeoutError as exc:
        raise Malformed(f"the body did not arrive within {BODY_WAIT_S:.0f} s") from exc
    return bytes(body)


def parse_body(model: type[M], body: bytes) -> M:
    """Raises: Malformed, naming the first field that is wrong."""
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        raise Malformed(f"the request is not well formed: {first_problem(exc)}") from exc
