"""The aiohttp application: the route table, the caller's certificate, and refusals as JSON."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import BaseModel

from coordinator import api
from coordinator.calls import Call, Caller, authenticate, parse_body, read_body
from coordinator.errors import (
    Conflict,
    Forbidden,
    Malformed,
    NotAuthenticated,
    Refusal,
    RolledBack,
    TooLarge,
    TooMany,
    Unavailable,
    Unknown,
)
from coordinator.openapi import document
from coordinator.quotas import Counters
from coordinator.routes import JSON, KIB, OPENAPI_PATH, ROUTES, WEBSOCKET, Route
from coordinator.service import Coordinator

STATUS: dict[type[Refusal], int] = {
    Malformed: 400,
    NotAuthenticated: 401,
    Forbidden: 403,
    Unknown: 404,
    Conflict: 409,
    TooLarge: 413,
    TooMany: 429,
    RolledBack: 503,
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


COUNTED = {("POST", "/v1/jobs"): "jobs", ("POST", "/v1/jobs/{job}/entries"): "entries"}
"""The routes whose requests a quota counts, and which one."""


def build_app(coordinator: Coordinator, counters: Counters) -> web.Application:
    """The application of one coordinator.  counters: how much of its quotas each silo has used."""
    app = web.Application(middlewares=[_refusals_as_json])
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _endpoint(coordinator, counters, route))
    described = document(ROUTES, coordinator.origin)

    async def openapi(_: web.Request) -> web.Response:
        return web.json_response(described)

    async def say_goodbye(_: web.Application) -> None:
        await coordinator.shut_down()

    app.router.add_get(OPENAPI_PATH, openapi)
    app.on_shutdown.append(say_goodbye)
    return app


def _endpoint(coordinator: Coordinator, counters: Counters, route: Route) -> _Handler:
    """Authentication first, then the caller's quotas, the body within its limit, its model, and the handler."""
    quota = COUNTED.get((route.method, route.path))

    async def answer(request: web.Request) -> web.StreamResponse:
        caller = await authenticate(coordinator, request) if route.certificate else None
        if caller is None:
            return await handled(request, None)
        if quota is not None:
            counters.count(caller.silo, quota)
        with counters.socket(caller.silo) if route.reply == WEBSOCKET else contextlib.nullcontext():
            return await handled(request, caller)

    async def handled(request: web.Request, caller: Caller | None) -> web.StreamResponse:
        raw = await read_body(request, route.limit_kib * KIB)
        body = parse_body(route.body, raw) if isinstance(route.body, type) else raw
        reply = await route.handler(coordinator, Call(request, caller, body))
        if isinstance(reply, BaseModel):
            return web.Response(text=reply.model_dump_json(), content_type=JSON)
        return reply

    async def counted(request: web.Request) -> web.StreamResponse:
        started, status = time.perf_counter(), 500
        try:
            response = await answer(request)
            status = response.status
            return response
        except Refusal as refusal:
            status = STATUS[type(refusal)]
            raise
        finally:
            coordinator.metrics.requests.labels(route.method, route.path, status).inc()
            if route.reply != WEBSOCKET:
                coordinator.metrics.seconds.labels(route.path).observe(time.perf_counter() - started)

    return counted


@web.middleware
async def _refusals_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return _error(STATUS[type(refusal)], str(refusal))
    except Unavailable as exc:
        return _error(503, str(exc))
    except web.HTTPException as exc:
        if exc.status < 400:
            raise
        return _error(exc.status, exc.reason)


def _error(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, text=api.Error(error=sentence).model_dump_json(), content_type=JSON)
