"""/v1/config on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftreg.core import config_entries
from raftreg.core.entries import KINDS
from tests.server.conftest import Running

HTTP = {"Kind": "service-defaults", "Protocol": "http"}


async def put(api: Running, query: str = "", /, **body: Any) -> Any:
    """Writes an entry that must be taken."""
    return await api.json("PUT", f"/v1/config{query}", json=body)


async def refused(api: Running, **body: Any) -> str:
    """Writes an entry that must not be taken; gives the text."""
    status, text, _ = await api.ask("PUT", "/v1/config", json=body)
    assert status == 400, text
    return str(text)


async def http_services(api: Running, *names: str) -> None:
    """Makes services that can be routed."""
    for name in names:
        assert await put(api, **HTTP, Name=name) is True


async def test_an_entry_is_kept_as_its_kind_has_it(api: Running) -> None:
    """Snake case becomes CamelCase, keys of maps stay, durations are as Go writes them."""
    written = {
        "kind": "service-resolver",
        "name": "web",
        "connect_timeout": "15000ms",
        "default_subset": "v1",
        "subsets": {"v1": {"filter": "Service.Meta.version == v1", "only_passing": True}},
        "load_balancer": {
            "policy": "ring_hash",
            "ring_hash_config": {"minimum_ring_size": 5},
            "hash_policies": [{"field": "cookie", "field_value": "c", "cookie_config": {"ttl": 0}}],
        },
        "meta": {"snake_case": "stays"},
    }
    assert await put(api, **written) is True
    found = await api.json("GET", "/v1/config/service-resolver/web")
    index = found.pop("ModifyIndex")
    assert found.pop("CreateIndex") == index > 1
    assert found == {
        "Kind": "service-resolver",
        "Name": "web",
        "ConnectTimeout": "15s",
        "DefaultSubset": "v1",
        "Subsets": {"v1": {"Filter": "Service.Meta.version == v1", "OnlyPassing": True}},
        "LoadBalancer": {
            "Policy": "ring_hash",
            "RingHashConfig": {"MinimumRingSize": 5},
            "HashPolicies": [{"Field": "cookie", "FieldValue": "c", "CookieConfig": {"TTL": "0s"}}],
        },
        "Meta": {"snake_case": "stays"},
    }


async def test_what_was_read_can_be_written_back(api: Running) -> None:
    """Tools read, change a field, and write: indexes in the body do not matter, `cas` does."""
    await put(api, Kind="proxy-defaults", Name="global", Config={"local_idle_timeout_ms": 0})
    found = await api.json("GET", "/v1/config/proxy-defaults/global")
    assert found["Config"] == {"local_idle_timeout_ms": 0}
    assert await put(api, f"?cas={found['ModifyIndex']}", **found) is True
    assert await put(api, f"?cas={found['ModifyIndex']}", **found) is False
    assert await put(api, "?cas=0", **found) is False


async def test_lists_are_by_kind_and_filtered(api: Running) -> None:
    """An unknown kind is a mistake, a kind without entries is none."""
    await put(api, **HTTP, Name="b", Meta={"team": "x"})
    await put(api, Kind="service-defaults", Name="a", Protocol="tcp")
    rows = await api.json("GET", "/v1/config/service-defaults")
    assert [row["Name"] for row in rows] == ["a", "b"]
    for expression in ("Protocol==http", "Meta.team==x", 'Name matches "^b"'):
        rows = await api.json("GET", "/v1/config/service-defaults", params={"filter": expression})
        assert [row["Name"] for row in rows] == ["b"], expression
    assert await api.json("GET", "/v1/config/mesh") == []
    for path in ("/v1/config/nonsense", "/v1/config/nonsense/x"):
        status, text, _ = await api.ask("GET", path)
        assert (status, "invalid config entry kind" in text) == (400, True)


async def test_a_missing_entry_is_404_with_the_headers_of_a_read(api: Running) -> None:
    """Clients wait for its birth by the index."""
    status, text, answer = await api.ask("GET", "/v1/config/service-router/web")
    assert status == 404
    assert text == 'Config entry not found for "service-router" / "web"'
    assert int(answer.headers["X-Consul-Index"]) >= 1


async def test_a_watcher_learns_of_a_write(api: Running) -> None:
    """As with every read."""
    index = await api.index("/v1/config/service-defaults/web")
    path = f"/v1/config/service-defaults/web?index={index}&wait=60s"
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(api.json("GET", path))
        await api.waiting(1)
        await http_services(api, "web")
    assert waiting.result()["Protocol"] == "http"


async def test_deletes(api: Running) -> None:
    """Without cas an empty object, as Consul; with it whether something was deleted."""
    await http_services(api, "web")
    at = (await api.json("GET", "/v1/config/service-defaults/web"))["ModifyIndex"]
    path = "/v1/config/service-defaults/web"
    assert await api.json("DELETE", f"{path}?cas={at + 1}") is False
    assert await api.json("DELETE", f"{path}?cas={at}") is True
    assert await api.json("DELETE", path) == {}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"Name": "x"}, "does not contain a Kind"),
        ({"Kind": "nonsense", "Name": "x"}, "invalid config entry kind: 'nonsense'"),
        ({"Kind": "service-defaults"}, "Name is required"),
        ({"Kind": "service-defaults", "Name": "x", "Protokoll": "h"}, 'config key "Protokoll"'),
        (
            {"Kind": "service-router", "Name": "x", "Routes": [{"Match": {"Grpc": {}}}]},
            'config key "Grpc" in Routes[0].Match',
        ),
        (
            {"Kind": "service-splitter", "Name": "x", "Splits": [{"Weight": []}]},
            "Splits[0].Weight",
        ),
        ({"Kind": "proxy-defaults", "Name": "other"}, 'only "global" is supported'),
        ({"Kind": "service-defaults", "Name": "x", "Namespace": "team"}, 'only "default"'),
        (
            {"Kind": "service-resolver", "Name": "x", "ConnectTimeout": "soon"},
            "ConnectTimeout: time: invalid duration",
        ),
        (
            {"Kind": "service-resolver", "Name": "x", "Subsets": {"v1": {"Filter": "a =="}}},
            "Filter for subset 'v1' is not a valid expression",
        ),
        ({"Kind": "service-resolver", "Name": "x", "Redirect": {}}, "Redirect is empty"),
        (
            {"Kind": "service-resolver", "Name": "x", "Failover": {"v2": {"Service": "y"}}},
            'Bad Failover["v2"]: not a valid subset',
        ),
        (
            {
                "Kind": "service-router",
                "Name": "x",
                "Routes": [{"Match": {"HTTP": {"PathRegex": "("}}}],
            },
            "Routes[0].Match.HTTP.PathRegex: Failed to compile",
        ),
        (
            {
                "Kind": "service-router",
                "Name": "x",
                "Routes": [{"Match": {"HTTP": {"PathExact": "x"}}}],
            },
            "Route[0] PathExact doesn't start with '/'",
        ),
        ({"Kind": "service-splitter", "Name": "x", "Splits": []}, "no splits configured"),
        (
            {"Kind": "service-splitter", "Name": "x", "Splits": [{"Weight": 99.5}]},
            "the sum of all split weights must be 100, not 99.5",
        ),
        (
            {
                "Kind": "ingress-gateway",
                "Name": "x",
                "Listeners": [{"Port": 80, "Protocol": "tcp", "Services": []}],
            },
            "No service declared for listener with port 80",
        ),
        (
            {"Kind": "service-intentions", "Name": "x", "Sources": [{"Name": "a"}]},
            "Sources[0].Action must be set",
        ),
    ],
)
async def test_mistakes_are_named_by_field(api: Running, body: dict[str, Any], text: str) -> None:
    """A refusal says which field is wrong, and how."""
    assert text in await refused(api, **body)


async def test_chains_that_would_not_compile_are_refused(api: Running) -> None:
    """Routers and splitters need an http protocol, subsets must exist, nothing runs in circles."""
    split = {"Splits": [{"Weight": 100}]}
    text = await refused(api, Kind="service-splitter", Name="web", **split)
    assert "does not permit advanced routing or splitting" in text
    await http_services(api, "web", "api")
    subset = {"Splits": [{"Weight": 100, "ServiceSubset": "v1"}]}
    text = await refused(api, Kind="service-splitter", Name="web", **subset)
    assert text == 'service "web" does not have a subset named "v1"'
    to_api = {"Kind": "service-resolver", "Name": "web", "Redirect": {"Service": "api"}}
    to_web = {"Kind": "service-resolver", "Name": "api", "Redirect": {"Service": "web"}}
    await put(api, **to_api)
    assert "detected circular resolver redirect" in await refused(api, **to_web)
    await api.json("DELETE", "/v1/config/service-resolver/web")
    for name, other in (("web", "api"), ("api", "web")):
        body = {"Kind": "service-splitter", "Name": name}
        splits = [{"Weight": 50}, {"Weight": 50, "Service": other}]
        if name == "web":
            await put(api, **body, Splits=splits)
        else:
            assert "circular reference" in await refused(api, **body, Splits=splits)


async def test_what_others_need_can_t_be_taken_away(api: Running) -> None:
    """Neither by a delete nor by a change, also of the defaults of all proxies."""
    await put(api, Kind="proxy-defaults", Name="global", Config={"protocol": "http"})
    await put(api, Kind="service-resolver", Name="api", Subsets={"v1": {}, "v2": {}})
    routes = [{"Destination": {"Service": "api", "ServiceSubset": "v1"}}]
    await put(api, Kind="service-router", Name="web", Routes=routes)
    for method, path, body in (
        ("DELETE", "/v1/config/service-resolver/api", None),
        ("DELETE", "/v1/config/proxy-defaults/global", None),
        (
            "PUT",
            "/v1/config",
            {"Kind": "service-resolver", "Name": "api", "Subsets": {"v2": {}}},
        ),
        ("PUT", "/v1/config", {"Kind": "service-defaults", "Name": "api", "Protocol": "tcp"}),
    ):
        status, text, _ = await api.ask(method, path, json=body)
        assert status == 400, (method, path, text)
    assert (await api.json("GET", "/v1/config/service-resolver/api"))["Subsets"].keys() == {
        "v1",
        "v2",
    }
    assert await api.json("DELETE", "/v1/config/service-router/web") == {}
    assert await api.json("DELETE", "/v1/config/service-resolver/api") == {}


async def test_listeners_and_permissions_need_the_protocol_they_speak(api: Running) -> None:
    """An ingress listener for http, intentions by path: both want a service that speaks http."""
    listener = {"Port": 80, "Protocol": "http", "Services": [{"Name": "web"}]}
    gateway = {"Kind": "ingress-gateway", "Name": "in", "Listeners": [listener]}
    assert "incompatible with listener protocol" in await refused(api, **gateway)
    permission = {"Action": "allow", "HTTP": {"PathPrefix": "/"}}
    sources = [{"Name": "api", "Permissions": [permission]}]
    intentions = {"Kind": "service-intentions", "Name": "web", "Sources": sources}
    assert "incompatible with L7 intentions" in await refused(api, **intentions)
    await http_services(api, "web")
    await put(api, **gateway)
    await put(api, **intentions)
    status, text, _ = await api.ask("DELETE", "/v1/config/service-defaults/web")
    assert (status, "incompatible" in text) == (400, True)


async def test_the_key_of_a_certificate_is_not_shown(api: Running) -> None:
    """Reading entries must not be enough to stand for a service."""
    key = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----"
    await put(api, Kind="inline-certificate", Name="c", Certificate="x", PrivateKey=key)
    for path in ("/v1/config/inline-certificate/c", "/v1/config/inline-certificate"):
        _, body, _ = await api.ask("GET", path)
        assert "secret" not in str(body)


async def test_every_kind_can_be_written(api: Running) -> None:
    """The smallest entry of each kind is taken and comes back."""
    smallest: dict[str, dict[str, Any]] = {
        "service-splitter": {"Splits": [{"Weight": 100}]},
        "service-intentions": {"Sources": [{"Name": "a", "Action": "deny"}]},
        "jwt-provider": {"JSONWebKeySet": {"Local": {"JWKS": "x"}}},
        "inline-certificate": {"PrivateKey": "-----BEGIN PRIVATE KEY-----"},
    }
    await put(api, Kind="proxy-defaults", Config={"protocol": "http"})
    for kind in KINDS:
        name = {"mesh": "mesh", "proxy-defaults": "global", "exported-services": "default"}.get(
            kind, "x"
        )
        if kind != "proxy-defaults":
            await put(api, Kind=kind, Name=name, **smallest.get(kind, {}))
        assert (await api.json("GET", f"/v1/config/{kind}/{name}"))["Kind"] == kind


async def test_entries_are_bounded_in_size_and_number(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large a body, too deep a one, and one more than there may be."""
    large = {"Kind": "proxy-defaults", "Config": {"x": "y" * 300_000}}
    status, text, _ = await api.ask("PUT", "/v1/config", json=large)
    assert (status, "more than 262144" in text) == (413, True)
    deep: dict[str, Any] = {}
    for _ in range(63):
        deep = {"x": deep}
    assert "deep" in await refused(api, Kind="proxy-defaults", Config=deep)
    monkeypatch.setattr(config_entries, "ENTRIES_MAX", len(api.machine.state.config) + 1)
    await http_services(api, "a")
    status, text, _ = await api.ask("PUT", "/v1/config", json={**HTTP, "Name": "b"})
    assert (status, "configuration entries already" in text) == (413, True)
    await http_services(api, "a")
