"""The OpenAPI 3.1 description, made from the route table and the request and reply models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from coordinator import api
from coordinator.routes import JSON, OPENAPI_PATH, WEBSOCKET, Route

_REF = "#/components/schemas/{model}"


def document(routes: Sequence[Route], origin: str) -> dict[str, Any]:
    """The description of `routes` and of itself."""
    models = {m for r in routes for m in (r.body, r.reply) if isinstance(m, type)} | {api.Error}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema([(model, "validation") for model in ordered], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.path)  # a pattern is the router's business
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    paths[OPENAPI_PATH] = {
        "get": {"summary": "This document", "security": [], "responses": {"200": _content("This document", JSON)}}
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Accord coordinator", "version": "1", "description": f"The coordinator of the log {origin}."},
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "securitySchemes": {"mutualTLS": {"type": "mutualTLS"}}},
        "security": [{"mutualTLS": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}_{route.handler.__name__}",
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": {**_success(route), "4XX": _content("Refused; the error is one sentence", api.Error)},
    }
    if not route.certificate:
        operation["security"] = []
    if route.body is not None:
        size = f"At most {route.limit_kib} KiB"
        operation["requestBody"] = {"required": True, **_content(size, route.body)}
    return operation


def _success(route: Route) -> dict[str, Any]:
    if route.reply is None:
        return {"204": {"description": "Done"}}
    if route.reply == WEBSOCKET:
        return {"101": {"description": "Goes on as a WebSocket"}}
    return {"200": _content("Done", route.reply)}


def _content(description: str, kind: type[BaseModel] | str) -> dict[str, Any]:
    if isinstance(kind, str):
        schema: dict[str, Any] = {"type": "object"} if kind == JSON else {"type": "string"}
        return {"description": description, "content": {kind: {"schema": schema}}}
    reference = {"$ref": _REF.format(model=kind.__name__)}
    return {"description": description, "content": {JSON: {"schema": reference}}}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)[}:]", route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    parameters = []
    for marked in route.query:
        name, optional = marked.removesuffix("?"), marked.endswith("?")
        schema = {"type": "string"} if optional else {"type": "integer", "minimum": 0}
        parameters.append({"name": name, "in": "query", "required": not optional, "schema": schema})
    return parameters
