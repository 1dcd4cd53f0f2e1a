"""/v1/internal/ui: the summaries that Consul's page reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.server.conftest import Running

UI = "/v1/internal/ui"


_TO_API = {"DestinationName": "api", "LocalBindPort": 9}


async def _register(api: Running, node: str, service: dict[str, Any], status: str) -> None:
    name = service["Service"]
    check = {"CheckID": f"c-{name}", "Name": f"of {name}", "ServiceID": name, "Status": status}
    await api.register(node, Service=service, Checks=[check])


async def _mesh(api: Running) -> None:
    """Web calls api through its proxy; api has a proxy too."""
    await _register(api, "n1", {"Service": "web", "Tags": ["b", "a"]}, "passing")
    meta = {"external-source": "nomad"}
    await _register(api, "n2", {"Service": "api", "Meta": meta}, "critical")
    proxy = {"DestinationServiceName": "web", "Upstreams": [_TO_API]}
    sidecar = {"Service": "web-proxy", "Kind": "connect-proxy", "Port": 1, "Proxy": proxy}
    await _register(api, "n1", sidecar, "warning")
    proxy = {"DestinationServiceName": "api", "Mode": "transparent"}
    sidecar = {"Service": "api-proxy", "Kind": "connect-proxy", "Port": 1, "Proxy": proxy}
    await _register(api, "n2", sidecar, "passing")


async def test_services_are_summarised(api: Running) -> None:
    """Instances and checks are counted; those of a proxy count for its service too."""
    await _mesh(api)
    rows = {row["Name"]: row for row in await api.json("GET", f"{UI}/services")}
    assert list(rows) == ["api", "api-proxy", "web", "web-proxy"]
    assert rows["web"] == {
        "Name": "web",
        "Datacenter": "dc1",
        "Tags": ["a", "b"],
        "Nodes": ["n1"],
        "ExternalSources": None,
        "InstanceCount": 1,
        "ChecksPassing": 1,
        "ChecksWarning": 1,
        "ChecksCritical": 0,
        "GatewayConfig": {},
        "TransparentProxy": False,
        "ConnectNative": False,
        "ConnectedWithProxy": True,
        "ConnectedWithGateway": False,
    }
    assert (rows["api"]["TransparentProxy"], rows["api"]["ExternalSources"]) == (True, ["nomad"])
    assert rows["web-proxy"]["Kind"] == "connect-proxy"
    filtered = await api.json("GET", f"{UI}/services?filter=Service.Service==api")
    assert [row["Name"] for row in filtered] == ["api"]


async def test_nodes_come_with_all_that_they_have(api: Running) -> None:
    """One by its name or in the list of all; one that is not there is 404."""
    await _mesh(api)
    rows = await api.json("GET", f"{UI}/nodes")
    assert [row["Node"] for row in rows] == ["n1", "n2"]
    assert [row["ID"] for row in rows[0]["Services"]] == ["web", "web-proxy"]
    assert await api.json("GET", f"{UI}/node/n1") == rows[0]
    assert [check["CheckID"] for check in rows[1]["Checks"]] == ["c-api", "c-api-proxy"]
    status, _, answer = await api.ask("GET", f"{UI}/node/nobody")
    assert (status, int(answer.headers["X-Consul-Index"]) > 0) == (404, True)
    await api.register("bare")
    bare = await api.json("GET", f"{UI}/node/bare")
    assert (bare["Services"], bare["Checks"]) == ([], [])


async def test_the_overview_counts_by_health(api: Running) -> None:
    """Hosts together, instances by service, checks by name."""
    await _mesh(api)
    body = await api.json("GET", f"{UI}/catalog-overview")
    assert body["Nodes"] == [{"Total": 2, "Passing": 2, "Warning": 0, "Critical": 0}]
    assert body["Services"][0] == {
        "Name": "api",
        "Total": 1,
        "Passing": 0,
        "Warning": 0,
        "Critical": 1,
    }
    assert [row["Name"] for row in body["Checks"]] == [
        "of api",
        "of api-proxy",
        "of web",
        "of web-proxy",
    ]


async def test_the_topology_follows_registrations_and_intentions(api: Running) -> None:
    """Who calls whom, and whether it may."""
    await _mesh(api)
    body = await api.json("GET", f"{UI}/service-topology/web?kind=")
    assert [row["Name"] for row in body["Upstreams"]] == ["api"]
    assert body["Upstreams"][0]["Intention"]["Allowed"] is True
    entry = {
        "Kind": "service-intentions",
        "Name": "api",
        "Sources": [{"Name": "web", "Action": "deny"}],
    }
    assert await api.json("PUT", "/v1/config", json=entry) is True
    body = await api.json("GET", f"{UI}/service-topology/api?kind=")
    (caller,) = body["Downstreams"]
    assert (caller["Name"], caller["Source"]) == ("web", "proxy-registration")
    assert caller["Intention"] == {
        "DefaultAllow": True,
        "Allowed": False,
        "HasPermissions": False,
        "ExternalSource": "",
        "HasExact": True,
    }
    assert body["TransparentProxy"] is True


async def test_summaries_can_be_watched(api: Running) -> None:
    """A change of a check alone wakes them."""
    await _mesh(api)
    index = await api.index(f"{UI}/services")
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(api.json("GET", f"{UI}/services?index={index}&wait=1m"))
        await api.waiting(1)
        await _register(api, "n2", {"Service": "api"}, "passing")
    assert watch.result()[0]["ChecksCritical"] == 0


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("node/", 400, "Missing node name"),
        ("service-topology/?kind=", 400, "Missing service name"),
        ("service-topology/web", 400, "Missing service kind"),
        ("service-topology/web?kind=robot", 400, 'Unsupported service kind "robot"'),
        ("metrics-proxy/api/v1/query", 404, "Metrics proxy is not enabled"),
        ("services?filter=x==", 400, "Failed to create boolean expression"),
    ],
)
async def test_what_can_not_be_answered(api: Running, path: str, status: int, text: str) -> None:
    """With Consul's words."""
    got, body, _ = await api.ask("GET", f"{UI}/{path}")
    assert (got, text in body) == (status, True), body


async def test_what_is_behind_a_gateway(api: Running) -> None:
    """Services of its entry, with or without an instance, and the intentions that cover them."""
    await api.register("n1", "gate", Service={"Kind": "ingress-gateway"})
    await _register(api, "n1", {"Service": "web"}, "passing")
    entry: dict[str, Any] = {
        "Kind": "ingress-gateway",
        "Name": "gate",
        "Listeners": [{"Port": 8080, "Protocol": "tcp", "Services": [{"Name": "web"}]}],
    }
    assert await api.json("PUT", "/v1/config", json=entry) is True
    (row,) = await api.json("GET", f"{UI}/gateway-services-nodes/gate")
    assert (row["Name"], row["InstanceCount"]) == ("web", 1)
    assert row["GatewayConfig"] == {"Addresses": ["web.ingress.dc1.consul:8080"]}
    entry = {
        "Kind": "service-intentions",
        "Name": "web",
        "Sources": [{"Name": "gate", "Action": "allow"}],
    }
    assert await api.json("PUT", "/v1/config", json=entry) is True
    (intention,) = await api.json("GET", f"{UI}/gateway-intentions/gate")
    assert (intention["SourceName"], intention["DestinationName"]) == ("gate", "web")
    assert await api.json("GET", f"{UI}/gateway-services-nodes/nobody") == []


async def test_nothing_is_exported(api: Running) -> None:
    """There are no peers."""
    assert await api.json("GET", f"{UI}/exported-services?peer=x") == []
