"""The stock Python client of Consul: configuration, intentions, certificates, chains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import consul
import pytest

from tests.server.conftest import Running

_T = TypeVar("_T")


@pytest.fixture
def client(api: Running) -> consul.Consul:
    """A client of the running server; it blocks, so calls go through a thread."""
    return consul.Consul(host="127.0.0.1", port=api.server.port)


async def _call(function: Callable[..., _T], *args: Any, **options: Any) -> _T:
    return await asyncio.to_thread(function, *args, **options)


async def test_config_entries(client: consul.Consul) -> None:
    """Set, get, list with a filter, cas, delete."""
    assert await _call(client.config.set, "service-defaults", "web", {"Protocol": "http"}) is True
    found = await _call(client.config.get, "service-defaults", "web")
    assert found["Protocol"] == "http"
    listed = await _call(client.config.list, "service-defaults", filter_expr="Protocol==http")
    assert [entry["Name"] for entry in listed] == ["web"]
    index = found["ModifyIndex"]
    assert await _call(client.config.set, "service-defaults", "web", {}, cas=index + 1) is False
    assert await _call(client.config.delete, "service-defaults", "web", cas=index) is True
    assert await _call(client.config.delete, "service-defaults", "web") is True


async def test_intentions(client: consul.Consul) -> None:
    """By source and destination."""
    intentions = client.connect.intentions
    assert await _call(intentions.upsert, "web", "db", action="deny") is True
    assert (await _call(intentions.read, "web", "db"))["Action"] == "deny"
    assert len(await _call(intentions.list)) == 1
    assert await _call(intentions.check, "web", "db") is False
    assert await _call(intentions.delete, "web", "db") is True


async def test_certificates_and_chains(client: consul.Consul) -> None:
    """Roots as JSON, settings there and back, a compiled chain."""
    roots = await _call(client.connect.ca.roots)
    assert roots["ActiveRootID"] == roots["Roots"][0]["ID"]
    settings = {"LeafCertTTL": "24h"}
    assert await _call(client.connect.ca.update_configuration, "consul", settings) is True
    found = await _call(client.connect.ca.configuration)
    assert found["Config"]["LeafCertTTL"] == "24h0m0s"
    chain = await _call(client.discovery_chain.get, "web")
    assert chain["Chain"]["ServiceName"] == "web"
