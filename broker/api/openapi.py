"""The OpenAPI 3.1 document, made from the route table and the types of the bodies, so that it cannot drift."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from broker.api.problems import MEDIA_TYPE, TABLE, Problem
from broker.api.route import AnyRoute, Nothing

Json = dict[str, Any]
"""A piece of the document: JSON, whose shape is OpenAPI's."""

_REFERENCE: Final = "#/components/schemas/{name}"
_PROBLEM: Final = {"schema": {"$ref": _REFERENCE.format(name="Problem")}}
_INTRODUCTION: Final = (
    "Admin API of a token broker. Names of tokens stand in paths with their slashes, plain or as %2F; `/-/` ends them. "
    "Every refusal is a problem document (RFC 9457) with a stable `code`."
)


class OpenApi:
    """The document as bytes, made when it is first asked for: a tenth of a second that few brokers ever need."""

    def __init__(self, routes: Sequence[AnyRoute], *, version: str) -> None:
        self._routes = routes
        self._version = version
        self._turn = asyncio.Lock()
        self._made: bytes | None = None

    async def read(self) -> bytes:
        """The document. The first time it is made in a thread, so that workers go on meanwhile."""
        async with self._turn:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made

    def _make(self) -> bytes:
        return msgspec.json.encode(openapi_document(self._routes, version=self._version))


def openapi_document(routes: Sequence[AnyRoute], *, version: str) -> Json:
    """The whole document for these routes."""
    kinds = [kind for route in routes for kind in (route.body_type, route.reply) if kind not in (None, Nothing)]
    _, components = msgspec.json.schema_components([Problem, *kinds], ref_template=_REFERENCE)
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tokenbroker",
            "version": version,
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer", "bearerFormat": "tba_"}},
        },
    }


def _operation(route: AnyRoute) -> Json:
    operation: Json = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.tag],
        "security": [] if route.roles is None else [{"admin": []}],
        "parameters": [
            *_parameters(route.path_type, "path"),
            *_parameters(route.query_type, "query"),
            *_headers(route),
        ],
        "responses": {str(route.status): _success(route), **_refusals(route)},
    }
    if route.roles is not None:
        operation["description"] = f"Roles: {', '.join(sorted(route.roles))}."
    if route.takes_body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(route.body_type)}},
        }
    return operation


def _schema(kind: Any) -> Json:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
    return dict(schema)


def _parameters(kind: Any, where: str) -> Iterable[Json]:
    """One parameter for each field of the struct that reads them."""
    (reference,), components = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
    shape = components[reference["$ref"].rpartition("/")[2]]
    for name, schema in shape["properties"].items():
        required = where == "path" or name in shape.get("required", ())
        yield {"name": name, "in": where, "required": required, "schema": _without_null(schema)}


def _without_null(schema: Json) -> Json:
    """A parameter is there or not; what is null in the type means "not there"."""
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
        if len(choices) == 1:
            return dict(choices[0])
    return {key: value for key, value in schema.items() if not (key == "default" and value is None)}


def _headers(route: AnyRoute) -> Iterable[Json]:
    if route.conditional:
        yield _header("If-Match", "Change only this revision, as `etag` gave it.", pattern='^"[1-9][0-9]{0,17}"$')
    if route.operation == "putToken":
        yield _header("If-None-Match", "`*`: only if there is no such token.", const="*")
    if route.creates:
        text = "Repeat the request under the same key and nothing further is made, for 24 hours."
        yield _header("Idempotency-Key", text, pattern="^[!-~]{1,128}$")


def _header(name: str, text: str, **schema: str) -> Json:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": text,
        "schema": {"type": "string", **schema},
    }


def _success(route: AnyRoute) -> Json:
    response: Json = {"description": route.summary}
    if route.media_type is not None:
        response["content"] = {route.media_type: {"schema": {}}}
    elif route.reply is not None:
        response["content"] = {"application/json": {"schema": _schema(route.reply)}}
    return response


def _refusals(route: AnyRoute) -> Mapping[str, Json]:
    statuses = {400, 429, 500, 503}
    if route.roles is not None:
        statuses |= {401, 403}
    else:
        statuses |= {401}
    if route.path_type is not Nothing or route.method == "POST":
        statuses |= {404, 409, 410}
    if route.takes_body:
        statuses |= {408, 413, 415}
    if route.conditional:
        statuses |= {412}
    if route.creates:
        statuses |= {422}
    titles = {row.status: row.title for row in reversed(list(TABLE.values()))}
    return {
        str(status): {"description": titles[status], "content": {MEDIA_TYPE: _PROBLEM}} for status in sorted(statuses)
    }
