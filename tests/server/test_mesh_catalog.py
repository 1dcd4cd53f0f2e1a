"""Proxies, native services and gateways in the catalog of a real server."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.server.conftest import Running

PROXY = {"DestinationServiceName": "web", "DestinationServiceID": "web-1"}


async def proxy(api: Running, node: str, status: str = "passing", **fields: Any) -> None:
    """Registers a proxy of web with a check."""
    service = {"ID": "p", "Service": "web-proxy", "Kind": "connect-proxy", "Port": 20000}
    check = {"CheckID": "c", "Name": "c", "ServiceID": "p", "Status": status}
    body = {**service, "Proxy": PROXY, **fields}
    await api.register(node, Service=body, Checks=[check])


def ids(rows: Any) -> list[str]:
    """Nodes and ids of health entries."""
    return [f"{row['Node']['Node']}/{row['Service']['ID']}" for row in rows]


async def test_who_speaks_for_a_service(api: Running) -> None:
    """Its proxies and its native instances, and nobody else."""
    await api.register("n1", "web")
    await proxy(api, "n1", Tags=["blue"])
    await proxy(api, "n2", "warning")
    await api.register("n3", "web", Service={"ID": "native", "Connect": {"Native": True}})
    path = "/v1/health/connect/web"
    assert ids(await api.json("GET", path)) == ["n1/p", "n2/p", "n3/native"]
    assert ids(await api.json("GET", f"{path}?passing")) == ["n1/p", "n3/native"]
    assert ids(await api.json("GET", f"{path}?tag=blue")) == ["n1/p"]
    rows = await api.json("GET", "/v1/catalog/connect/web")
    assert [row["ServiceName"] for row in rows] == ["web-proxy", "web-proxy", "web"]
    assert rows[0]["ServiceProxy"] == {**PROXY, "MeshGateway": {}, "Expose": {}}
    assert rows[2]["ServiceConnect"] == {"Native": True}
    assert await api.json("GET", "/v1/health/connect/other") == []
    listed = await api.json("GET", "/v1/catalog/node-services/n1")
    assert [row["ID"] for row in listed["Services"]] == ["p", "web"]
    assert await api.json("GET", "/v1/catalog/node-services/nobody") is None


async def test_watchers_of_a_service_learn_of_its_proxies(api: Running) -> None:
    """Of one that comes, of its health, of one that changes sides, and of one that goes."""
    path = "/v1/health/connect/web"

    async def woken_by(*steps: Any) -> Any:
        index = await api.index(path)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(api.json("GET", f"{path}?index={index}&wait=60s"))
            await api.waiting(1)
            for step in steps:
                await step
        return waiting.result()

    assert ids(await woken_by(proxy(api, "n1"))) == ["n1/p"]
    found = await woken_by(proxy(api, "n1", "critical"))
    assert found[0]["Checks"][0]["Status"] == "critical"
    other = {"DestinationServiceName": "db"}
    assert await woken_by(proxy(api, "n1", Proxy=other)) == []
    assert ids(await woken_by(proxy(api, "n1"))) == ["n1/p"]
    gone = api.json("PUT", "/v1/catalog/deregister", json={"Node": "n1"})
    assert await woken_by(gone) == []


async def test_what_stands_behind_gateways(api: Running) -> None:
    """By the gateway's entry; a wildcard stands for all services of the protocol."""
    for node, service in (("n1", "web"), ("n2", "api")):
        await api.register(node, service)
    await api.register("n3", Service={"Service": "in", "Kind": "ingress-gateway", "Port": 80})
    for name in ("web", "api"):
        entry = {"Kind": "service-defaults", "Name": name, "Protocol": "http"}
        await api.json("PUT", "/v1/config", json=entry)
    listeners = [
        {"Port": 80, "Protocol": "http", "Services": [{"Name": "*"}]},
        {"Port": 81, "Protocol": "http", "Services": [{"Name": "web", "Hosts": ["w.example"]}]},
    ]
    gateway: dict[str, Any] = {"Kind": "ingress-gateway", "Name": "in", "Listeners": listeners}
    await api.json("PUT", "/v1/config", json=gateway)
    rows = await api.json("GET", "/v1/catalog/gateway-services/in")
    assert [(row["Service"]["Name"], row["Port"], row.get("FromWildcard")) for row in rows] == [
        ("api", 80, True),
        ("web", 80, True),
        ("web", 81, None),
    ]
    assert rows[2]["Hosts"] == ["w.example"]
    assert ids(await api.json("GET", "/v1/health/ingress/web")) == ["n3/in"]
    assert await api.json("GET", "/v1/health/ingress/db") == []
    services = [{"Name": "*", "CAFile": "ca"}, {"Name": "db", "SNI": "db.example"}]
    gateway = {"Kind": "terminating-gateway", "Name": "out", "Services": services}
    await api.json("PUT", "/v1/config", json=gateway)
    rows = await api.json("GET", "/v1/catalog/gateway-services/out")
    assert {row["Service"]["Name"]: (row["CAFile"], row["SNI"]) for row in rows} == {
        "api": ("ca", ""),
        "web": ("ca", ""),
        "db": ("", "db.example"),
    }


async def test_a_catalog_registration_is_held_to_the_rules_of_its_kind(api: Running) -> None:
    """As an agent's is."""
    body = {
        "Node": "n1",
        "Address": "10.0.0.1",
        "Service": {"Service": "p", "Kind": "connect-proxy", "Port": 1},
    }
    status, text, _ = await api.ask("PUT", "/v1/catalog/register", json=body)
    assert (status, "DestinationServiceName must be non-empty" in text) == (400, True)
