"""/v1/connect/intentions: https://developer.hashicorp.com/consul/api-docs/connect/intentions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

from aiohttp import web
from msgspec import Meta as Limits

from raftreg.core import intentions, query
from raftreg.core.commands import IntentionDelete, IntentionSet
from raftreg.core.config_table import ConfigTable
from raftreg.core.entries import SERVICE_INTENTIONS
from raftreg.core.entries.access import Permission
from raftreg.core.entries.common import Pairs
from raftreg.core.intentions import Intention
from raftreg.core.query import Found
from raftreg.core.state import State
from raftreg.errors import InvalidRequest
from raftreg.http import json
from raftreg.http.config_body import typed
from raftreg.http.config_render import IntentionJson, intention_json
from raftreg.http.discovery import query_of
from raftreg.http.fields import meta_of, name_of
from raftreg.http.filter import Predicate, compile_filter
from raftreg.http.filter_fields import Integer, Text, TextMap, struct
from raftreg.http.json import dumps
from raftreg.http.operation import DATACENTER, Param, operation
from raftreg.http.problems import check_datacenter
from raftreg.http.reply import JSON, TEXT, TRUE, Reply
from raftreg.http.shapes import IdJson
from raftreg.server.api.context import Context
from raftreg.server.api.reading import Reading
from raftreg.server.writes import read_body, write_head

NAMES_MAX = 256  #: in one `match`
PREFIX = "/v1/connect/intentions"
_TOPICS = query.topics_config(SERVICE_INTENTIONS)
_NAMESPACED = re.compile(r"(?:(?P<partition>[^/]*)/)?(?:(?P<namespace>[^/]*)/)?(?P<name>[^/]+)\Z")
_FIELDS = struct(
    ID=Text(),
    Description=Text(),
    SourceNS=Text(),
    SourceName=Text(),
    DestinationNS=Text(),
    DestinationName=Text(),
    SourceType=Text(),
    Action=Text(),
    Meta=TextMap(),
    Precedence=Integer(),
)
_SOURCE = Param("source", "the calling service, or `*`", required=True)
_DESTINATION = Param("destination", "the called service, or `*`", required=True)


class IntentionBody(TypedDict, total=False):
    """An intention, as it is written; what only we write may be there and counts for nothing."""

    ID: str
    Description: Annotated[str, Limits(max_length=512)]
    SourcePartition: str
    SourceNS: str
    SourceName: str
    DestinationPartition: str
    DestinationNS: str
    DestinationName: str
    SourceType: Literal["", "consul"]
    Action: Literal["", "allow", "deny"]
    Permissions: Annotated[list[Permission], Limits(max_length=1024)]
    Meta: Pairs
    Precedence: int
    CreatedAt: str
    UpdatedAt: str
    DefaultAddr: str
    DefaultPort: int


class CheckJson(TypedDict):
    """Whether a connection may be opened."""

    Allowed: bool


class Intentions:
    """The endpoints of intentions.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get(PREFIX, self.all),
            web.post(PREFIX, self.create),
            web.get(f"{PREFIX}/match", self.match),
            web.get(f"{PREFIX}/check", self.check),
            web.get(f"{PREFIX}/exact", self.read_exact),
            web.put(f"{PREFIX}/exact", self.write_exact),
            web.delete(f"{PREFIX}/exact", self.delete_exact),
            web.get(f"{PREFIX}/{{id}}", self.read),
            web.put(f"{PREFIX}/{{id}}", self.update),
            web.delete(f"{PREFIX}/{{id}}", self.delete),
        ]

    # -- reads ---------------------------------------------------------------------------------

    @operation("Lists the intentions", tag="connect", reads=True, answer=list[IntentionJson])
    async def all(self, request: web.Request) -> Reply:
        """All intentions, by precedence."""
        reading = Reading(self._context, request)
        holds = compile_filter(reading.options.filter, _FIELDS)
        found = await self._found(reading, intentions.all_intentions)
        return reading.reply(found.index, _rendered(found.value, holds))

    @operation(
        "Reads an intention by its id",
        tag="connect",
        reads=True,
        answer=IntentionJson,
        also={404: "there is none with this id"},
    )
    async def read(self, request: web.Request) -> Reply:
        """One intention that was written by id."""
        intention_id = _id_of(request)
        return await self._one(request, lambda table: intentions.by_id(table, intention_id))

    @operation(
        "Reads the intention of a source and a destination",
        tag="connect",
        reads=True,
        query=(_SOURCE, _DESTINATION),
        answer=IntentionJson,
        also={404: "there is none of this pair"},
    )
    async def read_exact(self, request: web.Request) -> Reply:
        """One intention, wildcards taken as they are."""
        source, destination = _pair(request)
        return await self._one(request, lambda table: intentions.exact(table, source, destination))

    @operation(
        "Lists the intentions that cover calls from or to services",
        tag="connect",
        reads=True,
        query=(
            Param("by", "which side is named", Literal["source", "destination"], required=True),
            Param("name", "a service", required=True, repeats=True),
        ),
        answer=dict[str, list[IntentionJson]],
    )
    async def match(self, request: web.Request) -> Reply:
        """Intentions by service, those that decide first at the head."""
        reading = Reading(self._context, request)
        given = query_of(request)
        matching = _MATCHING.get(given.get("by", ""))
        if matching is None:
            raise InvalidRequest("'by' parameter must be one of 'source' or 'destination'")
        names = given.all("name")
        if not names:
            raise InvalidRequest("required query parameter 'name' not set")
        if len(names) > NAMES_MAX:
            raise InvalidRequest(f"at most {NAMES_MAX} names a request")
        asked = {name: _plain(name, "name") for name in names}
        found = await self._found(
            reading,
            lambda table: {name: matching(table, plain) for name, plain in asked.items()},
        )
        rows = {name: _rendered(each) for name, each in found.value.items()}
        return reading.reply(found.index, rows)

    @operation(
        "Tells whether a service may call another",
        tag="connect",
        about="Where permissions decide request by request the answer is no. Without an intention "
        "it is yes, as long as there are no ACLs.",
        reads=True,
        query=(
            _SOURCE,
            _DESTINATION,
            Param("source-type", "the only type is `consul`", Literal["consul"]),
        ),
        answer=CheckJson,
    )
    async def check(self, request: web.Request) -> Reply:
        """Decides over one pair."""
        reading = Reading(self._context, request)
        source, destination = _pair(request)
        found = await self._found(
            reading, lambda table: intentions.deciding(table, source, destination)
        )
        allowed = CheckJson(Allowed=intentions.is_allowed(found.value))
        return reading.reply(found.index, allowed)

    # -- writes --------------------------------------------------------------------------------

    @operation(
        "Creates an intention",
        tag="connect",
        query=(DATACENTER,),
        body=IntentionBody,
        answer=IdJson,
    )
    async def create(self, request: web.Request) -> Reply:
        """Creates an intention under a new id."""
        body = await self._body(request)
        command = self._command(body, *_names_in(body), id=self._context.new_id())
        outcome = await self._context.writes.run(request, command)
        return Reply(dumps(IdJson(ID=command.id)), head=write_head(outcome))

    @operation(
        "Changes an intention by its id",
        tag="connect",
        query=(DATACENTER,),
        body=IntentionBody,
        answer=IdJson,
        also={404: "there is none with this id"},
    )
    async def update(self, request: web.Request) -> Reply:
        """Replaces an intention; its destination stays."""
        intention_id = _id_of(request)
        body = await self._body(request)
        command = self._command(body, *_names_in(body), id=intention_id, update=True)
        outcome = await self._context.writes.run(request, command)
        return Reply(dumps(IdJson(ID=intention_id)), head=write_head(outcome))

    @operation("Deletes an intention by its id", tag="connect", query=(DATACENTER,))
    async def delete(self, request: web.Request) -> Reply:
        """Deletes an intention; one that is not there is fine."""
        return await self._deleted(request, IntentionDelete(id=_id_of(request)), b"")

    @operation(
        "Writes the intention of a source and a destination",
        tag="connect",
        query=(DATACENTER, _SOURCE, _DESTINATION),
        body=IntentionBody,
        answer=bool,
    )
    async def write_exact(self, request: web.Request) -> Reply:
        """Creates or replaces the intention of a pair."""
        body = await self._body(request)
        if body.get("Meta"):
            raise InvalidRequest("Meta must not be specified: it belongs to the config entry")
        outcome = await self._context.writes.run(request, self._command(body, *_pair(request)))
        return Reply(TRUE, head=write_head(outcome))

    @operation(
        "Deletes the intention of a source and a destination",
        tag="connect",
        query=(DATACENTER, _SOURCE, _DESTINATION),
        answer=bool,
    )
    async def delete_exact(self, request: web.Request) -> Reply:
        """Deletes the intention of a pair; one that is not there is fine."""
        source, destination = _pair(request)
        command = IntentionDelete(source=source, destination=destination)
        return await self._deleted(request, command, TRUE)

    # -- inside --------------------------------------------------------------------------------

    async def _found(self, reading: Reading, ask: Callable[[ConfigTable], Any]) -> Found[Any]:
        def asked(state: State) -> Found[Any]:
            index = query.config_list(state, SERVICE_INTENTIONS).index
            return Found(index, ask(state.config))

        return await reading.find(_TOPICS, asked)

    async def _one(
        self, request: web.Request, ask: Callable[[ConfigTable], Intention | None]
    ) -> Reply:
        reading = Reading(self._context, request)
        found = await self._found(reading, ask)
        if found.value is None:
            return Reply(b"Intention not found", 404, TEXT, reading.head(found.index))
        return reading.reply(found.index, intention_json(found.value))

    async def _body(self, request: web.Request) -> dict[str, Any]:
        check_datacenter(query_of(request).get("dc", ""), self._datacenter)
        data = await read_body(request, self._context.settings.http.body_bytes_max)
        return typed(IntentionBody, json.loads(data))

    def _command(
        self,
        body: dict[str, Any],
        source: str,
        destination: str,
        *,
        id: str = "",  # noqa: A002 - the field's name
        update: bool = False,
    ) -> IntentionSet:
        for field in ("SourcePartition", "SourceNS", "DestinationPartition", "DestinationNS"):
            if body.get(field, "") not in ("", "default"):
                raise InvalidRequest(f'{field}: there is only "default"')
        return IntentionSet(
            source=source,
            destination=destination,
            id=id,
            update=update,
            action=body.get("Action", ""),
            permissions=tuple(body.get("Permissions", ())),
            description=body.get("Description", ""),
            meta=meta_of(body.get("Meta", {}), "Intention"),
            written_ms=int(self._context.clock.wall() * 1000),
        )

    async def _deleted(
        self, request: web.Request, command: IntentionDelete, answer: bytes
    ) -> Reply:
        check_datacenter(query_of(request).get("dc", ""), self._datacenter)
        outcome = await self._context.writes.run(request, command)
        return Reply(answer, kind=JSON if answer else TEXT, head=write_head(outcome))


_MATCHING: dict[str, Callable[[ConfigTable, str], Any]] = {
    "source": intentions.matching_source,
    "destination": intentions.matching_destination,
}


def _rendered(found: Any, holds: Predicate | None = None) -> Any:
    rows = [intention_json(each) for each in found]
    return rows if holds is None else [row for row in rows if holds(row)]


def _id_of(request: web.Request) -> str:
    text = request.match_info["id"]
    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidRequest(f"failed intention lookup: {text[:64]!r} is no UUID") from None


def _pair(request: web.Request) -> tuple[str, str]:
    """`source` and `destination` of the query string."""
    given = query_of(request)
    if given.get("source-type", "consul") != "consul":
        raise InvalidRequest("the only source-type is 'consul'")
    names = []
    for field in ("source", "destination"):
        if not given.get(field):
            raise InvalidRequest(f"required query parameter {field!r} not set")
        names.append(_plain(given[field], field))
    return names[0], names[1]


def _plain(text: str, what: str) -> str:
    """The name of `name`, `default/name` or `default/default/name`."""
    found = _NAMESPACED.match(text)
    if found is None or {found["partition"], found["namespace"]} - {None, "", "default"}:
        raise InvalidRequest(f"{what} {text[:64]!r} is invalid: there is only namespace 'default'")
    return name_of(found["name"], what)


def _names_in(body: dict[str, Any]) -> tuple[str, str]:
    names = []
    for field in ("SourceName", "DestinationName"):
        if not body.get(field):
            raise InvalidRequest(f"{field} must be set")
        names.append(name_of(body[field], field))
    return names[0], names[1]
