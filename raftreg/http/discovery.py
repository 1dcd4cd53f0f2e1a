"""Reads of the catalog: /v1/catalog/* and /v1/health/*, written once for servers and agents.

A server answers from its replicated state, an agent from the view that it keeps: both are a
`CatalogSource`. All answers to one query at one index share their rendered bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from aiohttp import web

from raftreg.core import query
from raftreg.core.catalog import Catalog
from raftreg.errors import InvalidRequest
from raftreg.http import render
from raftreg.http.catalog_query import CatalogQuery, health_query, instances_query
from raftreg.http.delta_streams import wants_events
from raftreg.http.filter import compile_filter
from raftreg.http.filter_fields import CATALOG_SERVICE, CHECK, NODE, SERVICE
from raftreg.http.json import dumps
from raftreg.http.mesh_discovery import (
    catalog_connect_query,
    health_connect_query,
    node_services_query,
)
from raftreg.http.middleware import UNTIMED
from raftreg.http.operation import Flag, Operation, Param, describe, operation
from raftreg.http.params import NO_QUERY, Consistency, Query, ReadOptions, read_options
from raftreg.http.problems import check_datacenter
from raftreg.http.reply import GZIP_BYTES_MIN, GZIP_HEAD, Reply, gzip_bytes, header, wants_gzip
from raftreg.http.shapes import (
    CatalogNodeJson,
    CatalogServiceJson,
    CheckJson,
    HealthEntryJson,
    NodeJson,
    NodeServicesJson,
)
from raftreg.http.watch import RenderedCache, WatchHub, block
from raftreg.model import Check, Status


class ReadHead(msgspec.Struct, frozen=True):
    """What an answer says about where it comes from.

    Attributes:
        known_leader: Whether a leader was known.
        last_contact_ms: Milliseconds since the leader was last heard.
        effective: The consistency that the answer has; "" leaves the header out.
        cache_age_s: Age of the view that answered, None when it was no cache.
    """

    known_leader: bool = True
    last_contact_ms: int = 0
    effective: str = ""
    cache_age_s: float | None = None


class CatalogSource(Protocol):
    """Where catalog reads come from."""

    datacenter: str
    hub: WatchHub
    rendered: RenderedCache

    async def ready(self, options: ReadOptions) -> None:
        """Returns when `catalog` is new enough for these options.

        Raises:
            NoLeader: It can't be had.
        """
        ...

    def catalog(self) -> Catalog:
        """The present catalog (a restore may replace the object)."""
        ...

    def head(self, options: ReadOptions) -> ReadHead:
        """What to say about an answer given now."""
        ...

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def jitter(self) -> float:
        """A random share in [0, 1), to spread the ends of waits."""
        ...


def read_head_bytes(index: int, head: ReadHead) -> bytes:
    """Header lines that every read of replicated data carries."""
    return b"X-Consul-Index: %d\r\n" % max(index, 1) + _head_lines(head)


def read_head_fields(index: int, head: ReadHead) -> dict[str, str]:
    """The same as fields, for answers that the framework writes."""
    lines = read_head_bytes(index, head).decode("latin-1").split("\r\n")
    return dict(line.split(": ", 1) for line in lines if line)


def answer_head(index: int, told: ReadHead, options: ReadOptions) -> bytes:
    """Header lines of an answer from a `CatalogSource`."""
    head = read_head_bytes(index, told)
    if options.cached and told.cache_age_s is None:
        head += b"X-Cache: MISS\r\n"
    return head


@lru_cache(maxsize=256)
def _head_lines(head: ReadHead) -> bytes:
    lines = b"X-Consul-KnownLeader: %b\r\nX-Consul-LastContact: %d\r\n" % (
        b"true" if head.known_leader else b"false",
        head.last_contact_ms,
    )
    if head.effective:
        lines += header("X-Consul-Effective-Consistency", head.effective)
    if head.cache_age_s is not None:
        lines += b"X-Cache: HIT\r\nAge: %d\r\n" % int(head.cache_age_s)
    return lines


def query_of(request: web.Request) -> Query:
    """The query string's pairs; costs nothing when there is none."""
    if not request.query_string:
        return NO_QUERY
    return Query(request.query.items())


def options_of(request: web.Request, datacenter: str) -> ReadOptions:
    """Reads and checks the options of a request.

    Raises:
        InvalidRequest: One is malformed.
        NoPathToDatacenter: Another datacenter is asked for.
    """
    options = read_options(query_of(request))
    check_datacenter(options.dc, datacenter)
    return options


class _At(msgspec.Struct, frozen=True):
    """The index that a query has now."""

    index: int


async def answer(
    source: CatalogSource, request: web.Request, options: ReadOptions, asked: CatalogQuery
) -> Reply:
    """Answers a catalog query, blocking when the client asks for it."""
    await source.ready(options)
    index = options.index
    if index:
        request[UNTIMED] = True
        index = blocking_index(index, source.catalog().index, options)
    at = await block(
        source.hub,
        lambda: _At(source.catalog().last_change(asked.topics)),
        asked.topics,
        index=index,
        wait_s=options.wait_s * (1 + source.jitter() / 16),
        now=source.now,
    )
    head = answer_head(at.index, source.head(options), options)
    return shared_reply(
        source.rendered,
        request,
        (asked.key, options.pretty),
        at.index,
        head,
        lambda: dumps(asked.json(source.catalog()), pretty=options.pretty),
    )


def blocking_index(index: int, newest: int, options: ReadOptions) -> int:
    """The index to wait for; 0 when it is not one of ours.

    An index above everything that a linearizable read can see comes from before a restore, or
    from another cluster: its bearer learns the state at once. A stale read waits instead, since
    this server may only lag behind the one that gave the index.
    """
    if index > newest and options.consistency is not Consistency.STALE and not options.cached:
        return 0
    return index


def shared_reply(
    rendered: RenderedCache,
    request: web.Request,
    key: Hashable,
    index: int,
    head: bytes,
    render_body: Callable[[], bytes],
) -> Reply:
    """An answer whose bytes (also compressed) are shared by all who ask the same at one index."""
    body = rendered.get(key, index, render_body)
    if len(body) >= GZIP_BYTES_MIN and wants_gzip(request):
        packed = rendered.get((key, "gzip"), index, lambda: gzip_bytes(body))
        return Reply(packed, head=head + GZIP_HEAD)
    return Reply(body, head=head)


def nodes_query(options: ReadOptions) -> CatalogQuery:
    """/v1/catalog/nodes."""
    meta, holds = options.node_meta, compile_filter(options.filter, NODE)
    return CatalogQuery(
        ("nodes", options.node_meta, options.filter),
        query.topics_nodes(),
        lambda catalog: [
            row for node in query.nodes(catalog, meta).value if holds(row := render.node_json(node))
        ],
    )


def services_query(options: ReadOptions) -> CatalogQuery:
    """/v1/catalog/services."""
    meta, topics = options.node_meta, query.topics_services(options.node_meta)
    if not options.filter:
        return CatalogQuery(
            ("services", meta), topics, lambda catalog: query.services(catalog, meta).value
        )
    holds = compile_filter(options.filter, CATALOG_SERVICE)

    def json(catalog: Catalog) -> dict[str, list[str]]:
        tags: dict[str, set[str]] = {}
        for name in query.services(catalog, meta).value:
            for entry in query.service_instances(catalog, name, (), meta).value:
                if holds(render.catalog_service_json(entry.node, entry.service)):
                    tags.setdefault(name, set()).update(entry.service.tags)
        return {name: sorted(found) for name, found in tags.items()}

    # The filter may ask for anything of an instance, and so for changes that the list of names
    # does not know.
    return CatalogQuery(("services", meta, options.filter), query.topics_instances(), json)


def service_query(name: str, options: ReadOptions) -> CatalogQuery:
    """/v1/catalog/service/{name}."""
    topics = query.topics_service(name)
    return instances_query("service", name, options, topics, query.service_instances)


def node_query(name: str, options: ReadOptions) -> CatalogQuery:
    """/v1/catalog/node/{name or id}; a filter chooses among the services."""
    holds = compile_filter(options.filter, SERVICE)

    def json(catalog: Catalog) -> Any:
        entry = query.node(catalog, name).value
        if entry is None:
            return None
        row = render.catalog_node_json(entry.node, entry.services)
        row["Services"] = {id_: each for id_, each in row["Services"].items() if holds(each)}
        return row

    return CatalogQuery(("node", name, options.filter), query.topics_node(name), json)


def health_service_query(name: str, options: ReadOptions) -> CatalogQuery:
    """/v1/health/service/{name}."""
    topics = query.topics_health_service(name)
    return health_query("health-service", name, options, topics, query.health_service)


def health_checks_query(name: str, options: ReadOptions) -> CatalogQuery:
    """/v1/health/checks/{service}."""
    meta, checks = options.node_meta, _checks(options)
    return CatalogQuery(
        ("health-checks", name, options.node_meta, options.filter),
        query.topics_checks_of_service(name),
        lambda catalog: checks(query.checks_of_service(catalog, name, meta).value),
    )


def health_node_query(name: str, options: ReadOptions) -> CatalogQuery:
    """/v1/health/node/{name}."""
    checks = _checks(options)
    return CatalogQuery(
        ("health-node", name, options.filter),
        query.topics_checks_of_node(name),
        lambda catalog: checks(query.checks_of_node(catalog, name).value),
    )


def health_state_query(state: str, options: ReadOptions) -> CatalogQuery:
    """/v1/health/state/{any, passing, warning or critical}.

    Raises:
        InvalidRequest: There is no such state.
    """
    if state not in _STATES:
        raise InvalidRequest(f"Invalid state {state[:32]!r}: any, passing, warning or critical")
    meta, checks = options.node_meta, _checks(options)
    return CatalogQuery(
        ("health-state", state, options.node_meta, options.filter),
        query.topics_checks_in_state(state, meta),
        lambda catalog: checks(query.checks_in_state(catalog, state, meta).value),
    )


_STATES = frozenset({query.ANY_STATE, *(status.value for status in Status)})


def _checks(options: ReadOptions) -> Callable[[Iterable[Check]], list[CheckJson]]:
    """Renders the checks that the filter lets pass."""
    holds = compile_filter(options.filter, CHECK)
    return lambda checks: [row for check in checks if holds(row := render.check_json(check))]


Ask = Callable[[str, ReadOptions], CatalogQuery]
#: From path pattern, name, request and options to a stream of events; None: there is none of it.
Follower = Callable[[str, str, web.Request, ReadOptions], Awaitable[web.StreamResponse] | None]

_META = Param("node-meta", "only nodes with this `key:value`", repeats=True)
_TAG = Param("tag", "only instances with this tag; all that are given must match", repeats=True)
_NEAR = Param("near", "nearest first, by the distance from a node, `_agent` or `_ip`")
_PASSING = Param("passing", "only instances whose checks all pass", Flag)


def _described(summary: str, tag: str, answer: object, *query_params: Param) -> Operation:
    return Operation(
        summary=summary,
        tag=tag,
        reads=True,
        query=query_params,
        answer=answer,
    )


#: (path, text when its last part is empty, the query, its description)
_READS: tuple[tuple[str, str, Ask, Operation], ...] = (
    (
        "/v1/catalog/nodes",
        "",
        lambda _, options: nodes_query(options),
        _described("Lists the nodes", "catalog", list[NodeJson], _META, _NEAR),
    ),
    (
        "/v1/catalog/services",
        "",
        lambda _, options: services_query(options),
        _described(
            "Names the services, each with the tags of its instances",
            "catalog",
            dict[str, list[str]],
            _META,
        ),
    ),
    (
        "/v1/catalog/service/{name:(?s:.*)}",
        "Missing service name",
        service_query,
        _described(
            "Lists the instances of a service, healthy or not",
            "catalog",
            list[CatalogServiceJson],
            _TAG,
            _META,
            _NEAR,
        ),
    ),
    (
        "/v1/catalog/node/{name:(?s:.*)}",
        "Missing node name",
        node_query,
        _described("Shows a node with its instances", "catalog", CatalogNodeJson | None),
    ),
    (
        "/v1/health/service/{name:(?s:.*)}",
        "Missing service name",
        health_service_query,
        _described(
            "Lists the instances of a service with their checks",
            "health",
            list[HealthEntryJson],
            _PASSING,
            _TAG,
            _META,
            _NEAR,
        ),
    ),
    (
        "/v1/health/checks/{name:(?s:.*)}",
        "Missing service name",
        health_checks_query,
        _described("Lists the checks of a service", "health", list[CheckJson], _META, _NEAR),
    ),
    (
        "/v1/health/node/{name:(?s:.*)}",
        "Missing node name",
        health_node_query,
        _described("Lists the checks of a node", "health", list[CheckJson]),
    ),
    (
        "/v1/health/state/{name:(?s:.*)}",
        "Missing check state",
        health_state_query,
        _described(
            "Lists the checks with a status, or `any`", "health", list[CheckJson], _META, _NEAR
        ),
    ),
    (
        "/v1/catalog/connect/{name:(?s:.*)}",
        "Missing service name",
        catalog_connect_query,
        _described(
            "Lists the instances that speak the mesh's TLS for a service",
            "catalog",
            list[CatalogServiceJson],
            _TAG,
            _META,
            _NEAR,
        ),
    ),
    (
        "/v1/health/connect/{name:(?s:.*)}",
        "Missing service name",
        health_connect_query,
        _described(
            "Lists the instances that speak the mesh's TLS for a service, with their checks",
            "health",
            list[HealthEntryJson],
            _PASSING,
            _TAG,
            _META,
            _NEAR,
        ),
    ),
    (
        "/v1/catalog/node-services/{name:(?s:.*)}",
        "Missing node name",
        node_services_query,
        _described("Shows a node with its instances as a list", "catalog", NodeServicesJson | None),
    ),
)


#: Makes a query's answer sorted as `?near` of a request asks for.
NearSort = Callable[[web.Request, ReadOptions, CatalogQuery], CatalogQuery]


def discovery_routes(
    source: CatalogSource, follow: Follower | None = None, near: NearSort | None = None
) -> list[web.RouteDef]:
    """The read endpoints of catalog and health over a source.

    Args:
        source: Where answers come from.
        follow: Answers those who ask for a stream of events.
        near: Sorts by distance; None: `?near` changes nothing.
    """

    def handler(
        path: str, missing: str, ask: Ask, described: Operation
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            name = request.match_info.get("name", "")
            if missing and not name:
                raise InvalidRequest(missing)
            options = options_of(request, source.datacenter)
            if follow is not None and wants_events(request):
                stream = follow(path, name, request, options)
                if stream is not None:
                    return await stream
            asked = ask(name, options)
            if options.near and near is not None:
                asked = near(request, options, asked)
            return await answer(source, request, options, asked)

        return describe(handle, described)

    @operation("Names the datacenters", tag="catalog", answer=list[str])
    async def datacenters(request: web.Request) -> Reply:
        del request
        return Reply(dumps([source.datacenter]))

    routes = [
        web.get(path, handler(path, missing, ask, described))
        for path, missing, ask, described in _READS
    ]
    return [*routes, web.get("/v1/catalog/datacenters", datacenters)]
