"""The questions to a catalog that can be followed as deltas (see `raftreg.http.deltas`).

The rows are those of the plain answers; /v1/catalog/services, whose answer is no list, is told in
rows of a name and its tags.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any

from aiohttp import web

from raftreg.core import query
from raftreg.core.catalog import Catalog
from raftreg.core.query import ServiceEntry
from raftreg.http import discovery, render
from raftreg.http.delta_streams import DeltaStreams
from raftreg.http.deltas import DeltaQuery
from raftreg.http.filter import compile_filter
from raftreg.http.filter_fields import CATALOG_SERVICE, HEALTH_ENTRY
from raftreg.http.params import ReadOptions

#: From the name in the path and the options to a question of the catalog that is given.
Follow = Callable[[str, ReadOptions, Callable[[], Catalog]], DeltaQuery]


def follow_health_service(
    name: str, options: ReadOptions, catalog: Callable[[], Catalog]
) -> DeltaQuery:
    """/v1/health/service/{name}: entries by node and instance."""
    topics = query.topics_health_service(name)

    def find() -> tuple[int, Mapping[Hashable, Any]]:
        found = query.health_service(
            catalog(), name, options.tags, options.passing, options.node_meta
        )
        return found.index, _by_instance(found.value)

    return DeltaQuery(
        ("health-service", name, options.tags, options.passing, options.node_meta, options.filter),
        topics,
        find,
        lambda entry: render.health_entry_json(entry.node, entry.service, entry.checks),
        compile_filter(options.filter, HEALTH_ENTRY) if options.filter else None,
    )


def follow_service(name: str, options: ReadOptions, catalog: Callable[[], Catalog]) -> DeltaQuery:
    """/v1/catalog/service/{name}: instances by node and id."""

    def find() -> tuple[int, Mapping[Hashable, Any]]:
        found = query.service_instances(catalog(), name, options.tags, options.node_meta)
        return found.index, _by_instance(found.value)

    return DeltaQuery(
        ("service", name, options.tags, options.node_meta, options.filter),
        query.topics_service(name),
        find,
        lambda entry: render.catalog_service_json(entry.node, entry.service),
        compile_filter(options.filter, CATALOG_SERVICE) if options.filter else None,
    )


def follow_services(_: str, options: ReadOptions, catalog: Callable[[], Catalog]) -> DeltaQuery:
    """/v1/catalog/services: names with their tags."""
    asked = discovery.services_query(options)

    def find() -> tuple[int, Mapping[Hashable, Any]]:
        found: Mapping[str, list[str]] = asked.json(catalog())
        return catalog().last_change(asked.topics), {row[0]: row for row in found.items()}

    return DeltaQuery(asked.key, asked.topics, find, lambda row: {"Name": row[0], "Tags": row[1]})


def _by_instance(entries: list[ServiceEntry]) -> dict[Hashable, Any]:
    return {(entry.node.name, entry.service.id): entry for entry in entries}


#: By the path of the plain answer, as far as it is the same for all names.
FOLLOWED: Mapping[str, Follow] = {
    "/v1/health/service/": follow_health_service,
    "/v1/catalog/service/": follow_service,
    "/v1/catalog/services": follow_services,
}


def can_follow(path: str) -> bool:
    """Tells whether there is a stream of events under a path pattern."""
    return _stem(path) in FOLLOWED


def _stem(path: str) -> str:
    """A path pattern up to the name in it."""
    return path.partition("{")[0]


def catalog_follower(streams: DeltaStreams, source: discovery.CatalogSource) -> discovery.Follower:
    """Answers requests for streams about a catalog (see `discovery.discovery_routes`)."""

    def follow(
        path: str, name: str, request: web.Request, options: ReadOptions
    ) -> Awaitable[web.StreamResponse] | None:
        ask = FOLLOWED.get(_stem(path))
        if ask is None:
            return None
        question = ask(name, options, source.catalog)
        return streams.stream(
            request,
            options,
            question,
            lambda index: discovery.read_head_fields(index, source.head(options)),
        )

    return follow
