"""Catalog reads about the mesh, for servers and agents: who speaks for a service."""

from __future__ import annotations

from typing import Any

from raftreg.core import mesh_query, query
from raftreg.core.catalog import Catalog
from raftreg.http import render
from raftreg.http.catalog_query import CatalogQuery
from raftreg.http.filter import compile_filter
from raftreg.http.filter_fields import CATALOG_SERVICE, HEALTH_ENTRY, SERVICE
from raftreg.http.params import ReadOptions
from raftreg.http.shapes import NodeServicesJson


def catalog_connect_query(name: str, options: ReadOptions) -> CatalogQuery:
    """/v1/catalog/connect/{name}."""
    meta, holds = options.node_meta, compile_filter(options.filter, CATALOG_SERVICE)
    return CatalogQuery(
        ("connect", name, options.tags, options.node_meta, options.filter),
        mesh_query.topics_connected(name),
        lambda catalog: [
            row
            for entry in mesh_query.connected(catalog, name, options.tags, meta).value
            if holds(row := render.catalog_service_json(entry.node, entry.service))
        ],
    )


def health_connect_query(name: str, options: ReadOptions) -> CatalogQuery:
    """/v1/health/connect/{name}."""
    meta, holds = options.node_meta, compile_filter(options.filter, HEALTH_ENTRY)
    key = (name, options.tags, options.passing, options.node_meta, options.filter)
    return CatalogQuery(
        ("health-connect", *key),
        mesh_query.topics_health_connected(name),
        lambda catalog: [
            row
            for entry in mesh_query.health_connected(
                catalog, name, options.tags, options.passing, meta
            ).value
            if holds(row := render.health_entry_json(entry.node, entry.service, entry.checks))
        ],
    )


def node_services_query(name: str, options: ReadOptions) -> CatalogQuery:
    """/v1/catalog/node-services/{name or id}: as /v1/catalog/node, its services as a list."""
    holds = compile_filter(options.filter, SERVICE)

    def json(catalog: Catalog) -> Any:
        entry = query.node(catalog, name).value
        if entry is None:
            return None
        rows = [render.node_service_json(service) for service in entry.services]
        return NodeServicesJson(
            Node=render.node_json(entry.node), Services=[row for row in rows if holds(row)]
        )

    return CatalogQuery(("node-services", name, options.filter), query.topics_node(name), json)
