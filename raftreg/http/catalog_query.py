"""A question to a catalog, as the shared endpoints ask it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec

from raftreg.core.catalog import Catalog
from raftreg.core.changes import Topic
from raftreg.core.query import Found, MetaFilter, ServiceEntry
from raftreg.http import render
from raftreg.http.filter import compile_filter
from raftreg.http.filter_fields import CATALOG_SERVICE, HEALTH_ENTRY
from raftreg.http.params import ReadOptions

FindInstances = Callable[[Catalog, str, Sequence[str], MetaFilter], Found[list[ServiceEntry]]]
FindHealth = Callable[[Catalog, str, Sequence[str], bool, MetaFilter], Found[list[ServiceEntry]]]


class CatalogQuery(msgspec.Struct, frozen=True):
    """One question to a catalog.

    Attributes:
        key: Names the question; equal questions share rendered answers.
        topics: What its answer depends on; their last change is its index.
        json: Asks, and gives the answer as JSON.
    """

    key: Hashable
    topics: tuple[Topic, ...]
    json: Callable[[Catalog], Any]


def instances_query(
    kind: str,
    name: str,
    options: ReadOptions,
    topics: tuple[Topic, ...],
    find: FindInstances,
) -> CatalogQuery:
    """Instances of a service without their checks, in the form of /v1/catalog/service.

    Args:
        kind: Tells this way to find them from others.
        name: Name of the service.
        options: Tags, metadata and filter choose among them.
        topics: What `find` depends on.
        find: Finds them.
    """
    meta, holds = options.node_meta, compile_filter(options.filter, CATALOG_SERVICE)
    return CatalogQuery(
        (kind, name, options.tags, meta, options.filter),
        topics,
        lambda catalog: [
            row
            for entry in find(catalog, name, options.tags, meta).value
            if holds(row := render.catalog_service_json(entry.node, entry.service))
        ],
    )


def health_query(
    kind: str,
    name: str,
    options: ReadOptions,
    topics: tuple[Topic, ...],
    find: FindHealth,
) -> CatalogQuery:
    """Likewise with their checks, in the form of /v1/health/service."""
    meta, holds = options.node_meta, compile_filter(options.filter, HEALTH_ENTRY)
    return CatalogQuery(
        (kind, name, options.tags, options.passing, meta, options.filter),
        topics,
        lambda catalog: [
            row
            for entry in find(catalog, name, options.tags, options.passing, meta).value
            if holds(row := render.health_entry_json(entry.node, entry.service, entry.checks))
        ],
    )
