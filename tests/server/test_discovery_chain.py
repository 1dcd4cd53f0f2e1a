"""/v1/discovery-chain on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.server.conftest import Running


async def put(api: Running, **body: Any) -> None:
    """Writes an entry."""
    assert await api.json("PUT", "/v1/config", json=body) is True


async def chain(api: Running, service: str, **body: Any) -> Any:
    """The compiled chain, with overrides when there are any."""
    path = f"/v1/discovery-chain/{service}"
    answer = await (api.json("POST", path, json=body) if body else api.json("GET", path))
    return answer["Chain"]


async def test_the_chain_of_a_service_that_nothing_is_said_about(api: Running) -> None:
    """One resolver, one target, and it says that it is the default."""
    found = await chain(api, "web")
    target = "web.default.default.dc1"
    sni = found["Targets"][target].pop("SNI")
    assert sni.startswith("web.default.dc1.internal.")
    assert found == {
        "ServiceName": "web",
        "Namespace": "default",
        "Partition": "default",
        "Datacenter": "dc1",
        "Default": True,
        "Protocol": "tcp",
        "StartNode": f"resolver:{target}",
        "Nodes": {
            f"resolver:{target}": {
                "Type": "resolver",
                "Name": target,
                "Resolver": {"Default": True, "ConnectTimeout": "5s", "Target": target},
            }
        },
        "Targets": {
            target: {
                "ID": target,
                "Service": "web",
                "Namespace": "default",
                "Partition": "default",
                "Datacenter": "dc1",
                "MeshGateway": {},
                "Subset": {},
                "TransparentProxy": {},
                "ConnectTimeout": "5s",
                "Name": sni,
            }
        },
    }


async def test_router_splitter_and_resolver_become_one_graph(api: Running) -> None:
    """Routes lead to splits, splits to subsets, a failover to other targets."""
    await put(api, Kind="proxy-defaults", Name="global", Config={"protocol": "http"})
    subsets = {"v1": {"Filter": "Service.Meta.v == 1"}, "v2": {"OnlyPassing": True}}
    await put(
        api,
        Kind="service-resolver",
        Name="api",
        Subsets=subsets,
        DefaultSubset="v1",
        ConnectTimeout="3s",
        Failover={"v1": {"Targets": [{"Service": "other"}, {"Datacenter": "dc2"}]}},
    )
    splits = [{"Weight": 90}, {"Weight": 10, "ServiceSubset": "v2"}]
    await put(api, Kind="service-splitter", Name="api", Splits=splits)
    routes = [
        {"Match": {"HTTP": {"PathPrefix": "/api"}}, "Destination": {"Service": "api"}},
        {"Destination": {"Service": "api", "ServiceSubset": "v2"}},
    ]
    await put(api, Kind="service-router", Name="web", Routes=routes)
    found = await chain(api, "web")
    nodes = found["Nodes"]
    assert found["StartNode"] == "router:web.default.default"
    assert [route["NextNode"] for route in nodes[found["StartNode"]]["Routes"]] == [
        "splitter:api.default.default",
        "resolver:v2.api.default.default.dc1",
        "resolver:web.default.default.dc1",
    ]
    legs = nodes["splitter:api.default.default"]["Splits"]
    assert [(leg["Weight"], leg["NextNode"]) for leg in legs] == [
        (90, "resolver:v1.api.default.default.dc1"),
        (10, "resolver:v2.api.default.default.dc1"),
    ]
    resolver = nodes["resolver:v1.api.default.default.dc1"]["Resolver"]
    assert resolver["Failover"]["Targets"] == [
        "other.default.default.dc1",
        "v1.api.default.default.dc2",
    ]
    assert resolver["ConnectTimeout"] == "3s"
    assert found["Targets"]["v2.api.default.default.dc1"]["Subset"] == {"OnlyPassing": True}
    assert "Default" not in found


async def test_nested_splitters_are_flattened(api: Running) -> None:
    """Weights multiply, and what both do to headers is done."""
    await put(api, Kind="proxy-defaults", Name="global", Config={"protocol": "http"})
    inner = [
        {"Weight": 50, "RequestHeaders": {"Set": {"who": "inner"}}},
        {"Weight": 50, "Service": "canary"},
    ]
    await put(api, Kind="service-splitter", Name="api", Splits=inner)
    outer = [
        {"Weight": 60},
        {
            "Weight": 40,
            "Service": "api",
            "RequestHeaders": {"Set": {"who": "outer"}, "Add": {"x": "y"}},
        },
    ]
    await put(api, Kind="service-splitter", Name="web", Splits=outer)
    found = await chain(api, "web")
    assert "splitter:api.default.default" not in found["Nodes"]
    legs = found["Nodes"]["splitter:web.default.default"]["Splits"]
    assert [(leg["Weight"], leg["NextNode"].split(":")[1].split(".")[0]) for leg in legs] == [
        (60, "web"),
        (20, "api"),
        (20, "canary"),
    ]
    assert legs[1]["Definition"]["RequestHeaders"] == {"Set": {"who": "inner"}, "Add": {"x": "y"}}


async def test_overrides_are_told_by_a_hash(api: Running) -> None:
    """A proxy must not mix up what it has for one upstream and for another."""
    await put(api, Kind="service-defaults", Name="web", Protocol="http")
    await put(api, Kind="service-splitter", Name="web", Splits=[{"Weight": 100}])
    plain = await chain(api, "web")
    assert "CustomizationHash" not in plain
    found = await chain(
        api,
        "web",
        OverrideProtocol="tcp",
        OverrideConnectTimeout="7s",
        OverrideMeshGateway={"Mode": "local"},
    )
    assert (found["Protocol"], found["StartNode"]) == ("tcp", "resolver:web.default.default.dc1")
    target = found["Targets"]["web.default.default.dc1"]
    assert (target["ConnectTimeout"], target["MeshGateway"]) == ("7s", {"Mode": "local"})
    assert len(found["CustomizationHash"]) == 8
    same = await chain(api, "web", OverrideProtocol="http")
    assert same == plain


async def test_a_watcher_learns_of_any_entry_of_the_chain(api: Running) -> None:
    """Also of services further down."""
    path = "/v1/discovery-chain/web"
    await put(api, Kind="service-resolver", Name="web", Redirect={"Service": "api"})
    index = await api.index(path)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(api.json("GET", f"{path}?index={index}&wait=60s"))
        await api.waiting(1)
        await put(api, Kind="service-resolver", Name="api", ConnectTimeout="1s")
    target = waiting.result()["Chain"]["Targets"]["api.default.default.dc1"]
    assert target["ConnectTimeout"] == "1s"


async def test_mistakes(api: Running) -> None:
    """Another datacenter, an unknown protocol or field."""
    path = "/v1/discovery-chain/web"
    status, _, _ = await api.ask("GET", f"{path}?compile-dc=dc9")
    assert status == 500
    for body in ({"OverrideProtocol": "smoke"}, {"Override": 1}, {"OverrideConnectTimeout": "-1s"}):
        status, text, _ = await api.ask("POST", path, json=body)
        assert status == 400, text
