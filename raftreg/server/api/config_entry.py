"""/v1/config: https://developer.hashicorp.com/consul/api-docs/config."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from raftreg.core import query
from raftreg.core.commands import ConfigDelete, ConfigSet
from raftreg.core.entries import KINDS
from raftreg.http import json
from raftreg.http.config_body import config_entry, entry_filter, known_kind
from raftreg.http.config_render import config_entry_json
from raftreg.http.discovery import query_of
from raftreg.http.operation import DATACENTER, AnyOf, Param, Unsigned, operation
from raftreg.http.params import parse_uint
from raftreg.http.problems import check_datacenter
from raftreg.http.reply import FALSE, TEXT, TRUE, Reply
from raftreg.server.api.context import Context
from raftreg.server.api.reading import Reading
from raftreg.server.writes import read_body, write_head

_CAS = Param("cas", "only if the entry is at this ModifyIndex; 0: only if there is none", Unsigned)
_ENTRY = AnyOf(tuple(KINDS.values()))


class ConfigEntries:
    """The endpoints of central configuration.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.put("/v1/config", self.write),
            web.get("/v1/config/{kind}", self.list),
            web.get("/v1/config/{kind}/{name:(?s:.+)}", self.read),
            web.delete("/v1/config/{kind}/{name:(?s:.+)}", self.delete),
        ]

    @operation(
        "Writes a configuration entry",
        tag="config",
        about="Keys may be in CamelCase or snake_case. A change that would leave a discovery chain "
        "incomplete or contradictory is refused.",
        query=(DATACENTER, _CAS),
        body=_ENTRY,
        answer=bool,
    )
    async def write(self, request: web.Request) -> Reply:
        """Checks and writes an entry; false when `cas` does not fit."""
        data = await read_body(request, self._context.settings.http.body_bytes_max)
        entry = config_entry(json.loads(data))
        command = ConfigSet(entry=entry, cas=self._cas(request))
        outcome = await self._context.writes.run(request, command)
        return Reply(TRUE if outcome.result else FALSE, head=write_head(outcome))

    @operation(
        "Lists the configuration entries of a kind",
        tag="config",
        reads=True,
        answer=list[dict[str, Any]],
    )
    async def list(self, request: web.Request) -> Reply:
        """Entries of a kind, by name."""
        kind = known_kind(request.match_info["kind"])
        reading = Reading(self._context, request)
        holds = entry_filter(kind, reading.options.filter)
        found = await reading.find(
            query.topics_config(kind), lambda state: query.config_list(state, kind)
        )
        rows = [row for entry in found.value if holds(row := config_entry_json(entry))]
        return reading.reply(found.index, rows)

    @operation(
        "Reads a configuration entry",
        tag="config",
        reads=True,
        answer=_ENTRY,
        also={404: "there is no such entry"},
    )
    async def read(self, request: web.Request) -> Reply:
        """One entry."""
        kind, name = known_kind(request.match_info["kind"]), request.match_info["name"]
        reading = Reading(self._context, request)
        found = await reading.find(
            query.topics_config(kind), lambda state: query.config_get(state, kind, name)
        )
        if found.value is None:
            text = f'Config entry not found for "{kind}" / "{name}"'
            return Reply(text.encode(), 404, TEXT, reading.head(found.index))
        return reading.reply(found.index, config_entry_json(found.value))

    @operation(
        "Deletes a configuration entry; one that is not there is fine",
        tag="config",
        about="An entry that others need is not deleted. With `cas` the answer says whether it was "
        "deleted; without, it is an empty object.",
        query=(DATACENTER, _CAS),
        answer=bool | dict[str, Any],
    )
    async def delete(self, request: web.Request) -> Reply:
        """Deletes an entry, unless a chain needs it."""
        kind, name = known_kind(request.match_info["kind"]), request.match_info["name"]
        cas = self._cas(request)
        command = ConfigDelete(kind=kind, name=name, cas=cas)
        outcome = await self._context.writes.run(request, command)
        answer = b"{}" if cas is None else TRUE if outcome.result else FALSE
        return Reply(answer, head=write_head(outcome))

    def _cas(self, request: web.Request) -> int | None:
        given = query_of(request)
        check_datacenter(given.get("dc", ""), self._datacenter)
        text = given.get("cas", "")
        return parse_uint(text, f"Invalid cas value: {text[:64]!r}") if text else None
