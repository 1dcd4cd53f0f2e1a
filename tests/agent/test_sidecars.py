"""Sidecars and proxies at an agent, through its HTTP face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftreg.client.api import ANY_STATUS, RegistryClient
from raftreg.http import json
from tests.agent.mesh import running, servers, settings_for

REGISTER = "/v1/agent/service/register"
WEB = {
    "Name": "web",
    "ID": "web-1",
    "Port": 80,
    "Tags": ["blue"],
    "connect": {
        "sidecar_service": {
            "proxy": {"upstreams": [{"destination_name": "db", "local_bind_port": 5000}]}
        }
    },
}


async def services(client: RegistryClient) -> Any:
    """What the agent has."""
    return (await client.request("GET", "/v1/agent/services")).json()


async def test_a_sidecar_comes_and_goes_with_its_service() -> None:
    """It takes what is not said of it from the service, has two checks and a port of its own."""
    async with (
        servers() as (server,),
        running(settings_for(server)) as app,
        RegistryClient([app.http_address]) as client,
    ):
        await client.request("PUT", REGISTER, json=WEB)
        found = await services(client)
        assert "Connect" not in found["web-1"]
        sidecar = found["web-1-sidecar-proxy"]
        assert (sidecar["Kind"], sidecar["Service"], sidecar["Port"], sidecar["Tags"]) == (
            "connect-proxy",
            "web-sidecar-proxy",
            21000,
            ["blue"],
        )
        assert sidecar["Proxy"] == {
            "DestinationServiceName": "web",
            "DestinationServiceID": "web-1",
            "LocalServiceAddress": "127.0.0.1",
            "LocalServicePort": 80,
            "Upstreams": [
                {
                    "DestinationType": "service",
                    "DestinationName": "db",
                    "LocalBindPort": 5000,
                    "MeshGateway": {},
                }
            ],
            "MeshGateway": {},
            "Expose": {},
        }
        checks = (await client.request("GET", "/v1/agent/checks")).json()
        names = {row["CheckID"]: (row["Name"], row["Type"]) for row in checks.values()}
        assert names == {
            "service:web-1-sidecar-proxy:1": ("Connect Sidecar Listening", "tcp"),
            "service:web-1-sidecar-proxy:2": ("Connect Sidecar Aliasing web-1", "alias"),
        }
        catalog = server.history.catalog
        assert [row.id for row in catalog.connected("web")] == ["web-1-sidecar-proxy"]
        await client.request("PUT", "/v1/agent/service/deregister/web-1")
        assert await services(client) == {}
        assert not catalog.connected("web")


async def test_each_sidecar_has_its_port_and_keeps_it() -> None:
    """The lowest that is free here; also when its service is registered again."""
    async with (
        servers() as (server,),
        running(settings_for(server)) as app,
        RegistryClient([app.http_address]) as client,
    ):
        for name in ("a", "b"):
            body: dict[str, Any] = {"Name": name, "Port": 1, "Connect": {"SidecarService": {}}}
            await client.request("PUT", REGISTER, json=body)
        await client.request("PUT", "/v1/agent/service/deregister/a")
        for name in ("b", "c"):
            body = {"Name": name, "Port": 2, "Connect": {"SidecarService": {}}}
            await client.request("PUT", REGISTER, json=body)
        found = await services(client)
        ports = {name: found[f"{name}-sidecar-proxy"]["Port"] for name in ("b", "c")}
        assert ports == {"b": 21001, "c": 21000}


async def test_a_sidecar_survives_a_restart_and_still_goes_with_its_service(tmp_path: Path) -> None:
    """Its port too; what is remembered says whose it is."""
    async with servers() as (server,):
        settings = settings_for(server, data_dir=str(tmp_path))
        async with running(settings) as app, RegistryClient([app.http_address]) as client:
            await client.request("PUT", REGISTER, json=WEB)
        async with running(settings) as app, RegistryClient([app.http_address]) as client:
            assert (await services(client))["web-1-sidecar-proxy"]["Port"] == 21000
            await client.request("PUT", "/v1/agent/service/deregister/web-1")
            assert await services(client) == {}


async def test_a_definition_file_brings_a_sidecar_and_takes_it_away(tmp_path: Path) -> None:
    """A reload makes it what the file says."""
    file = tmp_path / "web.json"
    file.write_bytes(json.dumps({"service": WEB}))
    async with (
        servers() as (server,),
        running(settings_for(server, config_dir=str(tmp_path))) as app,
        RegistryClient([app.http_address]) as client,
    ):
        assert (await services(client)).keys() == {"web-1", "web-1-sidecar-proxy"}
        plain = {name: value for name, value in WEB.items() if name != "connect"}
        file.write_bytes(json.dumps({"service": plain}))
        await client.request("PUT", "/v1/agent/reload")
        assert (await services(client)).keys() == {"web-1"}


async def test_a_proxy_by_that_name_alone_is_nobody_s_sidecar() -> None:
    """One that was registered by itself stays when the service goes."""
    proxy = {
        "Name": "web-1-sidecar-proxy",
        "Kind": "connect-proxy",
        "Port": 9000,
        "Proxy": {"DestinationServiceName": "web", "DestinationServiceID": "web-1"},
    }
    async with (
        servers() as (server,),
        running(settings_for(server)) as app,
        RegistryClient([app.http_address]) as client,
    ):
        await client.request("PUT", REGISTER, json={"Name": "web", "ID": "web-1"})
        await client.request("PUT", REGISTER, json=proxy)
        await client.request("PUT", "/v1/agent/service/deregister/web-1")
        assert (await services(client)).keys() == {"web-1-sidecar-proxy"}


_PROXY = {"Name": "p", "Kind": "connect-proxy", "Port": 1}
_TO_WEB = {"DestinationServiceName": "web"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (_PROXY, "Proxy.DestinationServiceName must be non-empty"),
        ({**_PROXY, "Proxy": {"DestinationServiceName": "*"}}, "must not be a wildcard"),
        ({**_PROXY, "Port": 0, "Proxy": _TO_WEB}, "Port or SocketPath must be set"),
        ({**_PROXY, "Proxy": _TO_WEB, "Connect": {"Native": True}}, "also be Connect Native"),
        (
            {**_PROXY, "Proxy": {**_TO_WEB, "Upstreams": [{"LocalBindPort": 1}]}},
            "Proxy.Upstreams[0]: upstream destination name cannot be empty",
        ),
        (
            {**_PROXY, "Proxy": {**_TO_WEB, "Upstreams": [{"DestinationName": "db"}]}},
            "local bind port or local socket path must be defined",
        ),
        (
            {
                **_PROXY,
                "Proxy": {
                    **_TO_WEB,
                    "Upstreams": [
                        {"DestinationName": "a", "LocalBindPort": 1},
                        {"DestinationName": "b", "LocalBindPort": 1},
                    ],
                },
            },
            "upstreams cannot contain duplicates",
        ),
        ({**_PROXY, "Proxy": {**_TO_WEB, "Color": 1}}, 'config key "Color" in Proxy'),
        ({**_PROXY, "Proxy": {**_TO_WEB, "Mode": "odd"}}, "Proxy.Mode"),
        ({"Name": "w", "Connect": {"SidecarService": {"ID": "x"}}}, "cannot specify an ID"),
        (
            {"Name": "w", "Connect": {"SidecarService": {"Connect": {"SidecarService": {}}}}},
            "cannot have a nested SidecarService",
        ),
        ({"Name": "w", "Connect": {"SidecarService": {"Colour": 1}}}, 'unknown field "Colour"'),
    ],
)
async def test_mistakes_are_named(body: dict[str, Any], text: str) -> None:
    """A refusal says what is wrong, and nothing is registered."""
    async with (
        servers() as (server,),
        running(settings_for(server)) as app,
        RegistryClient([app.http_address]) as client,
    ):
        answer = await client.request("PUT", REGISTER, json=body, accept=ANY_STATUS)
        assert (answer.status, text in answer.body.decode()) == (400, True), answer.body
        assert await services(client) == {}
