"""/v1/event: https://developer.hashicorp.com/consul/api-docs/event."""

from __future__ import annotations

from base64 import b64encode
from typing import TypedDict
from urllib.parse import unquote

from aiohttp import web

from raftreg.core import query
from raftreg.core.commands import EventFire
from raftreg.core.events import EVENT_PAYLOAD_BYTES_MAX, Event
from raftreg.errors import InvalidRequest
from raftreg.http.discovery import options_of, query_of, read_head_bytes
from raftreg.http.event_filter import check_filters, concerns, list_index
from raftreg.http.json import dumps
from raftreg.http.middleware import UNTIMED
from raftreg.http.operation import BYTES, DATACENTER, Param, operation
from raftreg.http.params import ReadOptions
from raftreg.http.reply import AGENT_HEADER, Reply, json_reply
from raftreg.server.api.context import Context
from raftreg.server.writes import read_body, write_head

EVENT_VERSION = 1


class EventJson(TypedDict):
    """A user event; `Payload` is base64, null when there is none."""

    ID: str
    Name: str
    Payload: str | None
    NodeFilter: str
    ServiceFilter: str
    TagFilter: str
    Version: int
    LTime: int


def event_json(event: Event) -> EventJson:
    """An event as clients read it."""
    return {
        "ID": event.id,
        "Name": event.name,
        "Payload": b64encode(event.payload).decode("ascii") if event.payload else None,
        "NodeFilter": event.node_filter,
        "ServiceFilter": event.service_filter,
        "TagFilter": event.tag_filter,
        "Version": EVENT_VERSION,
        "LTime": event.ltime,
    }


class Events:
    """User events.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.put("/v1/event/fire/{name:(?s:.*)}", self.fire),
            web.get("/v1/event/list", self.recent),
        ]

    @operation(
        "Fires a user event",
        tag="event",
        about=f"The body is its payload, at most {EVENT_PAYLOAD_BYTES_MAX} bytes. It is written to "
        "the log like any other change; the newest 256 events are kept. The `LTime` of the answer "
        "is 0, as Consul's: the list tells it.",
        query=(
            DATACENTER,
            Param("node", "only for hosts whose name matches this regular expression (RE2)"),
            Param("service", "only for hosts with a service whose name or id matches this one"),
            Param("tag", "only if that service has a tag that matches this one; needs `service`"),
        ),
        body=BYTES,
        body_required=False,
        answer=EventJson,
        also={413: "the payload is too large"},
    )
    async def fire(self, request: web.Request) -> Reply:
        """Announces something to those who list or watch events."""
        options = options_of(request, self._datacenter)
        params = query_of(request)
        name = request.match_info["name"]
        if not name:
            raise InvalidRequest("Missing name")
        event = Event(
            id=self._context.new_id(),
            name=name,
            payload=await read_body(request, EVENT_PAYLOAD_BYTES_MAX, "User event payload"),
            node_filter=params.get("node", ""),
            service_filter=params.get("service", ""),
            tag_filter=params.get("tag", ""),
        )
        check_filters(event)
        outcome = await self._context.writes.run(request, EventFire(event=event))
        return Reply(dumps(event_json(event), pretty=options.pretty), head=write_head(outcome))

    @operation(
        "Lists the user events that concern this host, the oldest first",
        tag="event",
        about="`X-Consul-Index` is made of the id of the last event in the list and does not "
        "rise; with `index` the answer comes when it is another one.",
        reads=True,
        query=(Param("name", "only events of this name"),),
        answer=list[EventJson],
    )
    async def recent(self, request: web.Request) -> Reply:
        """The events of the host whose agent asks, of this one unless it says so."""
        options = options_of(request, self._datacenter)
        name = query_of(request).get("name", "")
        host = unquote(request.headers.get(AGENT_HEADER, "")) or self._context.settings.node
        reads = self._context.reads
        await reads.ready(options)
        if options.index:
            request[UNTIMED] = True
        events = await self._await_other(name, host, options)
        body = dumps([event_json(event) for event in events], pretty=options.pretty)
        return json_reply(request, body, read_head_bytes(list_index(events), reads.head(options)))

    async def _await_other(self, name: str, host: str, options: ReadOptions) -> list[Event]:
        """Blocks until the list ends with another event than the client knows."""
        reads = self._context.reads
        events = self._of_host(name, host)
        until_s = reads.now() + options.wait_s * (1 + reads.jitter() / 16)
        while options.index and list_index(events) == options.index:
            woken = await reads.hub.wait(query.topics_events(), until_s - reads.now())
            events = self._of_host(name, host)
            if not woken:
                break
        return events

    def _of_host(self, name: str, host: str) -> list[Event]:
        state = self._context.machine.state
        services = list(state.catalog.services_of(host))
        return [
            event
            for event in query.events(state)
            if (not name or event.name == name) and concerns(event, host, services)
        ]
