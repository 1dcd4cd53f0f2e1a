"""What an endpoint takes and gives, said once beside its handler.

A handler carries its description; `raftreg.http.openapi` gathers those of all mounted routes into
the OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1) that `/v1/openapi.json` serves. A
test refuses a route whose handler has none.

    @operation(
        "Lists the sessions",
        tag="session",
        reads=True,
        query=(Param("ttl-below", "only those with a shorter TTL", kind=Duration),),
        answer=list[SessionJson],
    )
    async def list(self, request: web.Request) -> Reply: ...

Types are those of the code: TypedDicts that `raftreg.http.render` gives (so mypy holds the code to
them), `Literal`s, msgspec structs, or plain `dict[str, X]`, `list[X]`, `str`, `int`, `bool`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

_Handler = TypeVar("_Handler", bound=Callable[..., Any])
_ATTRIBUTE = "__raftreg_operation__"

#: A Go duration (`10s`, `1m30s`, `1.5h`), see `raftreg.core.durations.parse_duration`.
Duration = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?(ns|us|ms|s|m|h)$",
        description="a duration in the form of Go: `10s`, `1m30s`, `500ms`",
        examples=["10s", "1m"],
    ),
]
#: An index or another unsigned 64-bit number.
Unsigned = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Flag(msgspec.Struct, frozen=True):
    """Marks a parameter that counts when it is present, with or without a value."""


class Raw(msgspec.Struct, frozen=True):
    """A body or an answer that is no JSON.

    Attributes:
        media: Its Content-Type.
    """

    media: str = "application/octet-stream"


#: Bytes as they are.
BYTES: Final = Raw()
#: Plain text.
PLAIN: Final = Raw("text/plain")
#: `text/event-stream`, see https://html.spec.whatwg.org/multipage/server-sent-events.html
EVENTS: Final = Raw("text/event-stream")


class AnyOf(msgspec.Struct, frozen=True):
    """JSON of one of several types (msgspec takes one TypedDict in a union).

    Attributes:
        kinds: The types.
    """

    kinds: tuple[Any, ...]


class Param(msgspec.Struct, frozen=True):
    """A parameter of a request.

    Attributes:
        name: As it is sent.
        about: What it does: a few words, no full stop.
        kind: Type of the value; `Flag` for one that counts when present.
        required: The request is refused without it.
        repeats: It may be given more than once.
        where: "query", "path" (only to say more of one than its name) or "header".
    """

    name: str
    about: str
    kind: Any = str
    required: bool = False
    repeats: bool = False
    where: str = "query"


#: The datacenter, as every endpoint takes it.
DATACENTER: Final = Param("dc", "the datacenter: this one's name, or nothing")


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """The description of one endpoint; see `operation` for the attributes."""

    summary: str
    tag: str
    about: str = ""
    reads: bool = False
    query: tuple[Param, ...] = ()
    body: Any = None
    body_required: bool = True
    answer: Any = None
    also: Mapping[int, Any] = {}


def operation(  # noqa: PLR0913 - keywords that read as one description
    summary: str,
    *,
    tag: str,
    about: str = "",
    reads: bool = False,
    query: tuple[Param, ...] = (),
    body: Any = None,
    body_required: bool = True,
    answer: Any = None,
    also: Mapping[int, Any] | None = None,
) -> Callable[[_Handler], _Handler]:
    """Describes the handler that it decorates, and changes nothing about it.

    Args:
        summary: One line, no full stop: "Lists the sessions".
        tag: The noun that it belongs to: the first part of the path (`kv`, `catalog`, `health`).
        about: More, in Markdown.
        reads: It takes the options of every read of replicated data (`index`, `wait`, `stale`,
            `consistent`, `cached`, `dc`, `filter`) and answers with the headers of one.
        query: What else it takes, in the query string or (`Param.where`) in headers and the path.
            Path parameters need no entry unless their name does not say enough.
        body: Type of the JSON body, a `Raw`, or None when it takes none.
        body_required: Whether a request without a body is refused.
        answer: Type of the JSON of a 200, a `Raw`, or None when it is empty; a tuple of these when
            the client chooses among forms.
        also: Other statuses that belong to normal use: `{404: "no such key"}`, with a plain text,
            or `{409: TxnJson}`, with what they answer. Refusals that any endpoint may give
            (400, 405, 500, 503) need no entry.
    """
    described = Operation(
        summary=summary,
        tag=tag,
        about=about,
        reads=reads,
        query=query,
        body=body,
        body_required=body_required,
        answer=answer,
        also=also or {},
    )

    return lambda handler: describe(handler, described)


def describe(handler: _Handler, described: Operation) -> _Handler:
    """Gives a handler its description; for handlers that are made in a loop."""
    setattr(handler, _ATTRIBUTE, described)
    return handler


def operation_of(handler: Callable[..., Any]) -> Operation | None:
    """Gives the description of a handler, None when it has none."""
    found = getattr(handler, _ATTRIBUTE, None)
    return found if isinstance(found, Operation) else None
