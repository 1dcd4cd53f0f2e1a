"""The OpenAPI 3.1 document of the routes that are mounted, made from what their handlers say.

Nothing is written down twice: paths and methods come from the router, parameters and types from
`raftreg.http.operation`, schemas from the types themselves (JSON Schema 2020-12, by msgspec).
See https://spec.openapis.org/oas/v3.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from aiohttp import web

from raftreg.http.json import dumps
from raftreg.http.operation import (
    DATACENTER,
    AnyOf,
    Duration,
    Flag,
    Operation,
    Param,
    Raw,
    Unsigned,
    operation,
    operation_of,
)
from raftreg.http.reply import Reply, json_reply

PATH = "/v1/openapi.json"
_SCHEMA_REF = "#/components/schemas/{name}"
_METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "PATCH"})
_PATH_PARAMETER = re.compile(r"\{([a-z_]+)\}")
_REASONS = {
    400: "the request can't be understood; the text says what is wrong with it",
    409: "it would contradict what is there; the text says what",
    413: "the body is too large; the text tells the limit",
    429: "so many requests of this kind wait already that no more are taken",
    500: "it could not be done; the text says why",
    503: "the outcome is unknown, or no server could be asked; the text says which",
}

#: The options of every read of replicated data (`raftreg.http.params.read_options`).
READ_PARAMETERS = (
    Param("index", "wait until the answer's index is above this one", Unsigned),
    Param("wait", "how long to wait at most, 5m by default, 10m at most", Duration),
    Param("stale", "answer from this server's state, also without a leader", Flag),
    Param("consistent", "linearizable, as the default is; not together with `stale`", Flag),
    Param("cached", "the answer may come from the agent's view", Flag),
    DATACENTER,
    Param("filter", "an expression that chooses among the rows"),
    Param("pretty", "indent the JSON", Flag),
)
_READ_HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "X-Consul-Index": ("to wait for a newer answer with `index`", {"type": "integer"}),
    "X-Consul-KnownLeader": ("whether a leader was known", {"enum": ["true", "false"]}),
    "X-Consul-LastContact": ("milliseconds since the leader was heard", {"type": "integer"}),
}


class OpenApi:
    """The endpoint that serves the document of the application that it is mounted in.

    Args:
        version: Of the program.
    """

    def __init__(self, version: str) -> None:
        self._version = version
        self._body = b""

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.get(PATH, self.show)]

    @operation("Describes this API", tag="openapi", answer=dict[str, Any])
    async def show(self, request: web.Request) -> Reply:
        """The document; it is made once, as routes don't change while a process lives."""
        if not self._body:
            self._body = dumps(document(request.app.router.routes(), self._version))
        return json_reply(request, self._body)


def document(routes: Iterable[web.AbstractRoute], version: str) -> dict[str, Any]:
    """Makes the document.

    Args:
        routes: Those of an application; routes without a description (of agents and servers among
            themselves) and those that refuse a method are left out.
        version: Of the program.

    Returns:
        A JSON object.
    """
    described = list(_described(routes))
    schemas, components = _schemas(each for _, _, each in described)
    paths: dict[str, dict[str, Any]] = {}
    for path, method, each in described:
        paths.setdefault(path, {})[method.lower()] = _operation_object(path, method, each, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "raftreg",
            "version": version,
            "summary": "A service registry replicated by Raft, with Consul's HTTP API",
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "parameters": {each.name: _parameter(each, schemas) for each in READ_PARAMETERS},
            "headers": {
                name: {"description": about, "schema": schema}
                for name, (about, schema) in _READ_HEADERS.items()
            },
            "responses": {
                str(status): {"description": reason, "content": _TEXT}
                for status, reason in _REASONS.items()
            },
        },
    }


def undescribed(routes: Iterable[web.AbstractRoute]) -> list[str]:
    """Names the public routes whose handlers say nothing about themselves."""
    return sorted(
        f"{route.method} {_path_of(route)}"
        for route in routes
        if route.method in _METHODS and operation_of(route.handler) is None
    )


_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_Schemas = Mapping[int, dict[str, Any]]


def _described(routes: Iterable[web.AbstractRoute]) -> Iterator[tuple[str, str, Operation]]:
    for route in routes:
        described = operation_of(route.handler)
        if described is not None and route.method in _METHODS:
            yield _path_of(route), route.method, described


def _path_of(route: web.AbstractRoute) -> str:
    return route.resource.canonical if route.resource is not None else ""


def _schemas(described: Iterable[Operation]) -> tuple[_Schemas, dict[str, Any]]:
    """Schemas of all types that are named, by the id of the type, and the shared components."""
    types: dict[int, Any] = {}
    for each in described:
        kinds = [*_forms(each.body), *_forms(each.answer)]
        kinds += [form for said in each.also.values() for form in _forms(said)]
        kinds += [param.kind for param in each.query]
        types |= {id(kind): kind for kind in kinds if _has_schema(kind)}
    types |= {id(param.kind): param.kind for param in READ_PARAMETERS if _has_schema(param.kind)}
    made, components = msgspec.json.schema_components(
        list(types.values()), ref_template=_SCHEMA_REF
    )
    return dict(zip(types, made, strict=True)), dict(sorted(components.items()))


def _forms(kind: Any) -> tuple[Any, ...]:
    if isinstance(kind, AnyOf):
        return kind.kinds
    return kind if isinstance(kind, tuple) else (kind,)


def _has_schema(kind: Any) -> bool:
    return kind is not None and kind is not Flag and not isinstance(kind, Raw | str)


def _operation_object(path: str, method: str, each: Operation, schemas: _Schemas) -> dict[str, Any]:
    said = {param.name: param for param in each.query}
    in_path = _PATH_PARAMETER.findall(path)
    parameters = [
        _parameter(said.get(name, Param(name, "", where="path")), schemas, where="path")
        for name in in_path
    ]
    parameters += [_parameter(param, schemas) for param in each.query if param.name not in in_path]
    if each.reads:
        own = {param.name for param in each.query}
        parameters += [
            {"$ref": f"#/components/parameters/{param.name}"}
            for param in READ_PARAMETERS
            if param.name not in own
        ]
    out: dict[str, Any] = {
        "summary": each.summary,
        "tags": [each.tag],
        "operationId": _operation_id(path, method),
        "responses": _responses(each, schemas),
    }
    if each.about:
        out["description"] = each.about
    if parameters:
        out["parameters"] = parameters
    if each.body is not None:
        out["requestBody"] = {
            "required": each.body_required,
            "content": _content(each.body, schemas),
        }
    return out


def _operation_id(path: str, method: str) -> str:
    """`get_v1_kv_key`: unique, since paths and methods are."""
    words = re.findall(r"[A-Za-z0-9]+", path.removeprefix("/v1"))
    return "_".join([method.lower(), *words])


def _parameter(param: Param, schemas: _Schemas, *, where: str = "") -> dict[str, Any]:
    place = where or param.where
    out: dict[str, Any] = {"name": param.name, "in": place}
    if param.about:
        out["description"] = param.about
    if place == "path" or param.required:
        out["required"] = True
    if param.kind is Flag:
        return out | {"schema": {"type": "string", "maxLength": 8}, "allowEmptyValue": True}
    schema = schemas[id(param.kind)]
    if param.repeats:
        schema = {"type": "array", "items": schema}
    return out | {"schema": schema}


def _content(kind: Any, schemas: _Schemas) -> dict[str, Any]:
    if isinstance(kind, tuple):
        return {media: found for each in kind for media, found in _content(each, schemas).items()}
    if isinstance(kind, AnyOf):
        choices = [schemas[id(each)] for each in kind.kinds]
        return {"application/json": {"schema": {"anyOf": choices}}}
    if isinstance(kind, Raw):
        text = {"schema": {"type": "string"}} if kind.media.startswith("text/") else {}
        return {kind.media: text}
    return {"application/json": {"schema": schemas[id(kind)]}}


def _responses(each: Operation, schemas: _Schemas) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "done"}
    if each.answer is not None:
        done["content"] = _content(each.answer, schemas)
    if each.reads:
        done["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in _READ_HEADERS}
    out: dict[str, Any] = {"200": done}
    refused = {400, 429, 500, 503} if each.reads else {400, 500, 503}
    if each.body is not None:
        refused |= {413}
    for status in refused:
        out[str(status)] = {"$ref": f"#/components/responses/{status}"}
    for status, said in each.also.items():
        out[str(status)] = (
            {"description": said, "content": _TEXT}
            if isinstance(said, str)
            else {"description": "refused", "content": _content(said, schemas)}
        )
    return dict(sorted(out.items()))
