"""Catalog reads about the mesh, for servers and agents: who speaks for a service."""

from __future__ import annotations

from typing import Any

from raftreg.core import mesh_query, query
from raftreg.core.catalog import Catalog
from raftreg.http import render
from raftreg.http.catalog_query import CatalogQuery, health_query, instances_query
from raftreg.http.filter import compile_filter
from raftreg.http.filter_fields import SERVICE
from raftreg.http.params import ReadOptions
from raftreg.http.shapes import NodeServicesJson


def catalog_connect_query(name: str, options: ReadOptions) -> CatalogQuery:
    """/v1/catalog/connect/{name}."""
    topics = mesh_query.topics_connected(name)
    return instances_query("connect", name, options, topics, mesh_query.connected)


def health_connect_query(name: str, options: ReadOptions) -> CatalogQuery:
    """/v1/health/connect/{name}."""
    topics = mesh_query.topics_health_connected(name)
    return health_query("health-connect", name, options, topics, mesh_query.health_connected)


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
