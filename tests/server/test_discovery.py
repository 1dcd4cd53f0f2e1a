"""Catalog and health endpoints, and what a watch wakes for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.server.conftest import Running, until

SERF = {"Name": "Serf Health Status", "CheckID": "serfHealth", "Status": "passing"}


@pytest.fixture(params=[True, False], ids=["short", "plain"])
def short_way(request: pytest.FixtureRequest) -> bool:
    """All of this holds on both roads."""
    return bool(request.param)


async def _web(api: Running, node: str, service_id: str = "web", **service: Any) -> None:
    body = {
        "Node": node,
        "Address": "10.0.0.1",
        "Service": {"ID": service_id, "Service": "web", "Port": 80, **service},
        "Checks": [
            SERF,
            {
                "Name": "alive",
                "CheckID": f"service:{service_id}",
                "ServiceID": service_id,
                "Status": "passing",
            },
        ],
    }
    assert await api.json("PUT", "/v1/catalog/register", json=body) is True


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/health/service/none", []),
        ("/v1/catalog/service/none", []),
        ("/v1/health/checks/none", []),
        ("/v1/health/node/none", []),
        ("/v1/health/state/critical", []),
        ("/v1/catalog/nodes", []),
        ("/v1/catalog/services", {}),
        ("/v1/catalog/node/none", None),
        ("/v1/session/list", []),
        ("/v1/session/info/none", []),
        ("/v1/session/node/none", []),
    ],
)
async def test_nothing_found_is_200(api: Running, path: str, body: object) -> None:
    """Unknown names are answered with empty lists (a node with null), and an index."""
    status, got, answer = await api.ask("GET", path)
    assert (status, got) == (200, body)
    assert int(answer.headers["X-Consul-Index"]) >= 1
    assert answer.headers["X-Consul-KnownLeader"] == "true"


async def test_headers_tell_the_consistency(api: Running) -> None:
    """Each mode is named; a server's answer to ?cached is no cache hit."""
    for query, effective in (("", "leader"), ("?consistent", "consistent"), ("?stale", "stale")):
        _, _, answer = await api.ask("GET", f"/v1/catalog/nodes{query}")
        assert answer.headers["X-Consul-Effective-Consistency"] == effective
        assert answer.headers["X-Consul-LastContact"] == "0"
    _, _, answer = await api.ask("GET", "/v1/catalog/nodes?cached")
    assert answer.headers["X-Cache"] == "MISS"


async def test_datacenters(api: Running) -> None:
    """The own datacenter is the only one."""
    assert await api.json("GET", "/v1/catalog/datacenters") == ["dc1"]


async def test_a_registration_shows_everywhere(api: Running) -> None:
    """What is registered through the catalog is read back at once, in each endpoint's shape."""
    await _web(api, "n1", Tags=["v1"], Meta={"env": "prod"})
    (entry,) = await api.json("GET", "/v1/health/service/web")
    assert entry["Node"]["Node"] == "n1"
    assert entry["Service"]["Tags"] == ["v1"]
    assert entry["Service"]["Weights"] == {"Passing": 1, "Warning": 1}
    assert sorted(check["CheckID"] for check in entry["Checks"]) == ["serfHealth", "service:web"]
    (row,) = await api.json("GET", "/v1/catalog/service/web")
    assert (row["Node"], row["ServiceID"], row["ServicePort"]) == ("n1", "web", 80)
    assert row["ServiceMeta"] == {"env": "prod"}
    assert await api.json("GET", "/v1/catalog/services") == {"web": ["v1"]}
    node = await api.json("GET", "/v1/catalog/node/n1")
    assert node["Services"]["web"]["Service"] == "web"
    (check,) = await api.json("GET", "/v1/health/checks/web")
    assert (check["ServiceName"], check["ServiceTags"]) == ("web", ["v1"])
    assert len(await api.json("GET", "/v1/health/node/n1")) == 2
    assert len(await api.json("GET", "/v1/health/state/any")) == 2


async def test_empty_metadata_and_tags(api: Running) -> None:
    """In health answers Meta is null and Tags is a list, as clients know it."""
    await _web(api, "n1")
    (entry,) = await api.json("GET", "/v1/health/service/web")
    assert (entry["Service"]["Meta"], entry["Service"]["Tags"]) == (None, [])


async def test_filters(api: Running) -> None:
    """?tag repeats and all must match; ?node-meta and ?passing filter too."""
    await _web(api, "n1", Tags=["a", "b"])
    await _web(api, "n2", Tags=["a"])
    await api.register("n2", NodeMeta={"rack": "r2"})
    failing = {"Name": "alive", "CheckID": "service:web", "ServiceID": "web", "Status": "critical"}
    await api.register("n1", Check=failing)

    async def nodes(query: str) -> list[str]:
        found = await api.json("GET", f"/v1/health/service/web?{query}")
        return [entry["Node"]["Node"] for entry in found]

    assert await nodes("tag=a") == ["n1", "n2"]
    assert await nodes("tag=a&tag=b") == ["n1"]
    assert await nodes("passing") == ["n2"]
    assert await nodes("passing=1") == ["n2"]
    assert await nodes("passing=false") == ["n1", "n2"]
    assert await nodes("node-meta=rack:r2") == ["n2"]
    assert await nodes("near=_agent") == ["n1", "n2"]


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/health/service/web?filter=x", 400, "boolean expression"),
        ("/v1/health/state/green", 400, "Invalid state"),
        ("/v1/health/service/", 400, "Missing service name"),
        ("/v1/catalog/node/", 400, "Missing node name"),
        ("/v1/health/service/web?passing=perhaps", 400, "Invalid value for ?passing"),
        ("/v1/health/service/web?dc=mars", 500, "No path to datacenter"),
        ("/v1/health/service/web?stale&consistent", 400, "conflicting semantics"),
        ("/v1/nothing/here", 404, "404 page not found"),
    ],
)
async def test_bad_reads(api: Running, path: str, status: int, text: str) -> None:
    """Wrong input gets its status and a text."""
    got, body, answer = await api.ask("GET", path)
    assert (got, answer.content_type) == (status, "text/plain")
    assert text in body


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "Request decode failed"),
        (b"", "Request decode failed"),
        (b"[]", "must be a JSON object"),
        (b'{"Address": "1.1.1.1"}', "Must provide node"),
        (b'{"Node": "n"}', "Must provide address"),
        (b'{"Node": "n", "Address": "a", "ID": "x"}', "Bad node ID"),
        (b'{"Node": "n", "Address": "a", "Service": {"ID": "x"}}', "Must provide service name"),
        (b'{"Node": "n", "Address": "a", "Service": {"Service": "x", "Port": 99999}}', "Port"),
        (b'{"Node": "n", "Address": "a", "Service": {"Service": "x", "Tags": [1]}}', "Tags"),
        (b'{"Node": "n", "Address": "a", "Check": {"Name": "c", "Status": "so-so"}}', "status"),
        (b'{"Node": "n", "Address": "a", "NodeMeta": {"a b": "c"}}', "Meta"),
        (b"[" * 100_000, "Request decode failed"),
    ],
)
async def test_bad_registrations(api: Running, body: bytes, text: str) -> None:
    """A body that can't be used is 400 with what is wrong, and changes nothing."""
    status, answer, _ = await api.ask("PUT", "/v1/catalog/register", data=body)
    assert (status, text in answer) == (400, True), answer
    assert await api.json("GET", "/v1/catalog/nodes") == []


async def test_keys_in_any_case(api: Running) -> None:
    """Bodies are read in CamelCase, snake case and any letter case."""
    body = {
        "node": "n1",
        "ADDRESS": "1.2.3.4",
        "node_meta": {"a": "b"},
        "service": {"service": "s"},
    }
    assert await api.json("PUT", "/v1/catalog/register", json=body) is True
    (row,) = await api.json("GET", "/v1/catalog/service/s")
    assert row["NodeMeta"] == {"a": "b"}


async def test_deregistration(api: Running) -> None:
    """An instance goes with its checks, a node with all it has; the unknown is fine."""
    await _web(api, "n1")
    body = {"Node": "n1", "ServiceID": "web"}
    assert await api.json("PUT", "/v1/catalog/deregister", json=body) is True
    assert await api.json("GET", "/v1/health/checks/web") == []
    assert await api.json("PUT", "/v1/catalog/deregister", json={"Node": "n1"}) is True
    assert await api.json("GET", "/v1/catalog/nodes") == []
    assert await api.json("PUT", "/v1/catalog/deregister", json={"Node": "n1"}) is True


async def test_get_on_a_write_is_405(api: Running) -> None:
    """The text names the method, as clients expect it."""
    status, body, answer = await api.ask("GET", "/v1/session/create")
    assert (status, body) == (405, "method GET not allowed")
    assert answer.headers["Allow"] == "PUT"


async def test_wish_02_a_watch_wakes_only_for_what_it_covers(api: Running) -> None:
    """A watch of one service, key or prefix sleeps through changes of all others."""
    await _web(api, "n1")
    await api.json("PUT", "/v1/kv/mine/a", data=b"1")
    await api.json("PUT", "/v1/kv/single", data=b"1")
    paths = ["/v1/health/service/web", "/v1/kv/mine/?recurse", "/v1/kv/single"]
    at = {path: await api.index(path) for path in paths}
    async with asyncio.TaskGroup() as tasks:
        watches = {
            path: tasks.create_task(
                api.ask("GET", f"{path}{'&' if '?' in path else '?'}index={at[path]}&wait=1m")
            )
            for path in paths
        }
        await api.waiting(3)
        await api.register("n2", "other")
        await api.json("PUT", "/v1/kv/yours/a", data=b"1")
        await api.json("PUT", "/v1/kv/single2", data=b"1")
        # The same content again changes nothing, so it wakes nobody (wish 5).
        await _web(api, "n1")
        # A fourth watch and its answer prove that wakes had their time.
        fourth = tasks.create_task(api.ask("GET", f"/v1/kv/x?index={await api.index('/v1/kv/x')}"))
        await api.waiting(4)
        await api.json("PUT", "/v1/kv/x", data=b"1")
        await fourth
        assert not any(watch.done() for watch in watches.values())
        assert api.server.hub.count == 3
        await _web(api, "n1", Port=81)
        await watches["/v1/health/service/web"]
        await api.json("PUT", "/v1/kv/mine/b", data=b"1")
        await watches["/v1/kv/mine/?recurse"]
        assert not watches["/v1/kv/single"].done()
        await api.json("PUT", "/v1/kv/single", data=b"2")
    for path, watch in watches.items():
        assert int(watch.result()[2].headers["X-Consul-Index"]) > at[path]


async def test_a_watch_of_a_service_learns_of_its_end_and_return(api: Running) -> None:
    """The index of a name without instances neither goes back nor misses the next one."""
    seen = [await api.index("/v1/health/service/web")]

    async def change(act: Any) -> None:
        async with asyncio.TaskGroup() as tasks:
            path = f"/v1/health/service/web?index={seen[-1]}&wait=1m"
            blocked = tasks.create_task(api.ask("GET", path))
            await api.waiting(1)
            await act
        seen.append(int(blocked.result()[2].headers["X-Consul-Index"]))

    await change(_web(api, "n1"))
    await change(api.json("PUT", "/v1/catalog/deregister", json={"Node": "n1"}))
    await change(_web(api, "n1"))
    assert seen == sorted(set(seen))


async def test_wish_08_indexes_never_go_back(api: Running) -> None:
    """Through writes, deletions and a restore, no endpoint's index falls."""
    paths = [
        "/v1/kv/k",
        "/v1/kv/?recurse",
        "/v1/kv/?keys",
        "/v1/catalog/nodes",
        "/v1/catalog/services",
        "/v1/catalog/service/web",
        "/v1/catalog/node/n1",
        "/v1/health/service/web",
        "/v1/health/node/n1",
        "/v1/health/checks/web",
        "/v1/health/state/any",
        "/v1/session/list",
    ]
    seen = dict.fromkeys(paths, 0)

    async def look() -> None:
        for path in paths:
            index = await api.index(path)
            assert index >= seen[path] >= 0, path
            assert index >= 1
            seen[path] = index

    await look()
    await api.json("PUT", "/v1/kv/k", data=b"1")
    await _web(api, "n1")
    await look()
    async with api.http.get(api.url + "/v1/snapshot") as answer:
        archive = await answer.read()
    await api.json("DELETE", "/v1/kv/k")
    await api.json("PUT", "/v1/catalog/deregister", json={"Node": "n1"})
    await look()
    status, body, _ = await api.ask("PUT", "/v1/snapshot", data=archive)
    assert status == 200, body
    await look()
    assert len(await api.json("GET", "/v1/health/service/web")) == 1


async def test_waiters_of_one_result_share_its_bytes(api: Running) -> None:
    """Many watches of one service render its answer once."""
    await _web(api, "n1")
    index = await api.index("/v1/health/service/web")
    rendered: list[object] = []
    get = api.server.reads.rendered.get

    def counting(query: Any, index: int, render: Any) -> bytes:
        def counted() -> bytes:
            rendered.append(query)
            return bytes(render())

        return get(query, index, counted)

    api.server.reads.rendered.get = counting  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as tasks:
        path = f"/v1/health/service/web?index={index}&wait=1m"
        watches = [tasks.create_task(api.ask("GET", path)) for _ in range(50)]
        await api.waiting(50)
        await _web(api, "n1", Port=81)
    assert len({str(watch.result()[1]) for watch in watches}) == 1
    assert len(rendered) == 1


async def test_too_many_watches_are_refused(api: Running) -> None:
    """The number of waiting queries is bounded; the text says what to do."""
    api.server.hub._watchers_max = 0
    status, body, _ = await api.ask("GET", f"/v1/kv/k?index={await api.index('/v1/kv/k')}")
    assert (status, "retry later" in body) == (429, True)


async def test_metrics(api: Running) -> None:
    """Prometheus finds Raft's numbers, requests by route and code, watches, leases and checks."""
    await _web(api, "n1")
    await api.ask("GET", "/v1/kv/none")
    async with api.http.get(api.url + "/v1/agent/metrics?format=prometheus") as answer:
        text = await answer.text()
    for line in (
        "raftreg_raft_term 1.0",
        'raftreg_raft_role{role="leader"} 1.0',
        "raftreg_raft_commit_index",
        "raftreg_raft_applied_index",
        'raftreg_http_requests_total{code="404",method="GET",route="/v1/kv/{key}"} 1.0',
        "raftreg_watches 0.0",
        'raftreg_leases{kind="node"} 1.0',
        'raftreg_checks{status="passing"} 2.0',
    ):
        assert line in text, text
    assert (await api.json("GET", "/v1/agent/metrics"))["Gauges"]


async def test_stopping_ends_blocked_queries(api: Running) -> None:
    """A server that stops tells its watchers to ask another one."""
    index = await api.index("/v1/kv/k")
    async with asyncio.TaskGroup() as tasks:
        blocked = tasks.create_task(api.ask("GET", f"/v1/kv/k?index={index}&wait=10m"))
        await api.waiting(1)
        tasks.create_task(api.server.stop())
    assert blocked.result()[0] == 503
    await until(lambda: not api.server.hub.count)
