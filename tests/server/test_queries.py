"""Prepared queries over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftreg.http.query_body import BODY_BYTES_MAX, REDACTED
from tests.server.conftest import Running

SERF = {"Name": "Serf Health Status", "CheckID": "serfHealth", "Status": "passing"}


async def create(api: Running, name: str = "", service: str = "web", **fields: Any) -> str:
    """Creates a query, gives its id."""
    body = {"Name": name, "Service": {"Service": service}, **fields}
    query_id: str = (await api.json("POST", "/v1/query", json=body))["ID"]
    return query_id


async def refusal(api: Running, **body: Any) -> tuple[int, str]:
    """Status and text of a creation that must fail."""
    status, text, _ = await api.ask("POST", "/v1/query", json=body)
    assert status != 200
    return status, text


async def nodes_of(api: Running, target: str) -> list[str]:
    """Names of the nodes that an execution gives."""
    done = await api.json("GET", f"/v1/query/{target}")
    return [entry["Node"]["Node"] for entry in done["Nodes"]]


async def test_a_query_is_created_read_listed_changed_and_deleted(api: Running) -> None:
    """The whole life, with the fields that clients read."""
    body = {
        "Name": "my-query",
        "Token": "secret",
        "Service": {
            "Service": "web",
            "Failover": {"NearestN": 3, "Datacenters": ["dc1", "dc2"]},
            "OnlyPassing": True,
            "IgnoreCheckIDs": ["c1"],
            "Near": "n1",
            "Tags": ["v1", "!old"],
            "NodeMeta": {"zone": "a"},
            "ServiceMeta": {"env": "prod"},
            "Connect": False,
        },
        "DNS": {"TTL": "10s"},
    }
    query_id = (await api.json("POST", "/v1/query", json=body))["ID"]
    (row,) = await api.json("GET", f"/v1/query/{query_id}")
    index = row.pop("ModifyIndex")
    assert row.pop("CreateIndex") == index
    template = {"Type": "", "Regexp": "", "RemoveEmptyTags": False}
    assert row == {**body, "ID": query_id, "Session": "", "Token": REDACTED, "Template": template}
    assert await api.index(f"/v1/query/{query_id}") == index
    assert [row["ID"] for row in await api.json("GET", "/v1/query")] == [query_id]

    status, text, _ = await api.ask(
        "PUT", f"/v1/query/{query_id}", json={"name": "other", "service": {"service": "db"}}
    )
    assert (status, text) == (200, "")
    (row,) = await api.json("GET", f"/v1/query/{query_id}")
    assert (row["Name"], row["Service"]["Service"], row["Token"]) == ("other", "db", "")
    assert row["Service"]["Tags"] is None
    assert row["ModifyIndex"] > row["CreateIndex"] == index

    status, text, _ = await api.ask("DELETE", f"/v1/query/{query_id}")
    assert (status, text) == (200, "")
    status, text, answer = await api.ask("GET", f"/v1/query/{query_id}")
    assert (status, text) == (404, "Query not found")
    assert int(answer.headers["X-Consul-Index"]) > row["ModifyIndex"]
    assert await api.json("GET", "/v1/query") == []


async def test_a_change_without_a_name_keeps_it(api: Running) -> None:
    """What a client read and puts back without the name is not refused."""
    query_id = await create(api, "kept")
    await api.ask("PUT", f"/v1/query/{query_id}", json={"Service": {"Service": "db"}})
    (row,) = await api.json("GET", f"/v1/query/{query_id}")
    assert (row["Name"], row["Service"]["Service"]) == ("kept", "db")
    status, text, _ = await api.ask(
        "PUT", f"/v1/query/{query_id}", json={"Name": "", "Service": {"Service": "db"}}
    )
    assert (status, text) == (400, "Invalid prepared query: Must be bound to a session")


async def test_what_is_not_there_can_not_be_changed(api: Running) -> None:
    """Neither written nor deleted nor executed nor explained."""
    text = "Cannot modify non-existent prepared query: 'nope'"
    for method, options in (("PUT", {"json": {"Service": {"Service": "a"}}}), ("DELETE", {})):
        assert (await api.ask(method, "/v1/query/nope", **options))[:2] == (404, text)
    for verb in ("execute", "explain"):
        status, text, answer = await api.ask("GET", f"/v1/query/nope/{verb}")
        assert (status, text) == (404, "Query not found")
        assert answer.headers["X-Consul-KnownLeader"] == "true"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"Name": "q"}, "Must provide a Service name to query"),
        ({"Service": {"Service": "a"}}, "Must be bound to a session"),
        ({"ID": "x", "Name": "q", "Service": {"Service": "a"}}, "ID must be empty"),
        ({"Name": "q", "Token": REDACTED, "Service": {"Service": "a"}}, "redacted token"),
        ({"Name": "q", "Service": {"Service": "a", "Failover": {"NearestN": -1}}}, "NearestN '-1'"),
        ({"Name": "q", "Service": {"Service": "a"}, "DNS": {"TTL": "later"}}, "Bad DNS TTL"),
        ({"Name": "q", "Service": {"Service": "a"}, "DNS": {"TTL": "-5s"}}, "must be >=0"),
        ({"Name": "q", "Service": {"Service": "a", "SamenessGroup": "g"}}, "SamenessGroup"),
        ({"Name": "q", "Service": {"Service": "a", "NodeMeta": {"a b": "c"}}}, "Node Meta"),
        ({"Name": "q", "Service": {"Service": "a", "Tags": ["t"] * 257}}, "at most 256"),
        (
            {
                "Name": "q",
                "Service": {
                    "Service": "a",
                    "Failover": {"NearestN": 1, "Targets": [{"Service": "b"}]},
                },
            },
            "Targets cannot be used",
        ),
        ({"Name": "q", "Service": {"Service": "a"}, "Template": {"Type": "x"}}, "Template.Type"),
        ({"Name": "q", "Service": "a"}, "must be a JSON object"),
    ],
)
async def test_bad_queries_are_refused(api: Running, body: dict[str, Any], reason: str) -> None:
    """With 400, and with what is wrong."""
    status, text = await refusal(api, **body)
    assert status == 400
    assert reason in text
    assert await api.json("GET", "/v1/query") == []


async def test_a_large_query_is_refused(api: Running) -> None:
    """A body has a limit of its own."""
    body = {"Name": "q", "Service": {"Service": "a", "Tags": ["t" * BODY_BYTES_MAX]}}
    assert (await refusal(api, **body))[0] == 413


async def test_names_are_unique_without_letter_case(api: Running) -> None:
    """DNS has none; a name may not pretend to be an id either."""
    query_id = await create(api, "Geo")
    for name, what in (("geo", "query name"), (query_id, "query ID")):
        text = (await refusal(api, Name=name, Service={"Service": "a"}))[1]
        assert text == f"name '{name}' aliases an existing {what}"
    status, _, _ = await api.ask(
        "PUT", f"/v1/query/{query_id}", json={"Name": "GEO", "Service": {"Service": "a"}}
    )
    assert status == 200


async def test_a_query_ends_with_its_session(api: Running) -> None:
    """Whether the session is destroyed, or ends with its node."""
    assert (await refusal(api, Session="none", Service={"Service": "a"})) == (
        500,
        'invalid session "none"',
    )
    await api.register("n1", Check=SERF)
    for name in ("one", "two"):
        session = (await api.json("PUT", "/v1/session/create", json={"Node": "n1"}))["ID"]
        query_id = await create(api, name, Session=session)
        assert (await api.ask("GET", f"/v1/query/{name}/explain"))[0] == 200
        async with asyncio.TaskGroup() as tasks:
            index = await api.index(f"/v1/query/{query_id}")
            path = f"/v1/query/{query_id}?index={index}&wait=60s"
            watched = tasks.create_task(api.ask("GET", path))
            await api.waiting(1)
            if name == "one":
                await api.json("PUT", f"/v1/session/destroy/{session}")
            else:
                await api.json("PUT", "/v1/catalog/deregister", json={"Node": "n1"})
        assert watched.result()[0] == 404
        assert (await api.ask("GET", f"/v1/query/{name}/explain"))[0] == 404


async def test_execution_gives_the_healthy_instances(api: Running) -> None:
    """Critical ones never, those with a warning unless only passing ones are wanted."""
    for name, status in (("n1", "passing"), ("n2", "warning"), ("n3", "critical")):
        check = {"CheckID": "c1", "Name": "c1", "Status": status}
        await api.register(name, "web", Check=check)
    query_id = await create(api, "web", DNS={"TTL": "7s"})
    done = await api.json("GET", f"/v1/query/{query_id}/execute")
    assert (done["Service"], done["Datacenter"], done["Failovers"]) == ("web", "dc1", 0)
    assert done["DNS"] == {"TTL": "7s"}
    assert {entry["Node"]["Node"] for entry in done["Nodes"]} == {"n1", "n2"}
    assert {"Node", "Service", "Checks"} == done["Nodes"][0].keys()
    await create(api, "passing", Service={"Service": "web", "OnlyPassing": True})
    assert await nodes_of(api, "passing/execute") == ["n1"]
    await create(api, "all", Service={"Service": "web", "IgnoreCheckIDs": ["c1"]})
    assert sorted(await nodes_of(api, "all/execute")) == ["n1", "n2", "n3"]
    assert len(await nodes_of(api, "all/execute?limit=2")) == 2
    assert (await api.ask("GET", "/v1/query/all/execute?limit=x"))[0] == 400


async def test_execution_filters_by_tags_and_metadata(api: Running) -> None:
    """All wanted tags, none of the unwanted; pairs of node and instance."""
    rows: tuple[tuple[str, list[str], dict[str, str], dict[str, str]], ...] = (
        ("n1", ["Primary"], {"zone": "a"}, {"env": "prod"}),
        ("n2", ["primary", "old"], {"zone": "a"}, {"env": "prod"}),
        ("n3", [], {"zone": "b"}, {"env": "test"}),
    )
    for name, tags, node_meta, meta in rows:
        await api.register(name, "web", NodeMeta=node_meta, Service={"Tags": tags, "Meta": meta})
    for name, service, expected in (
        ("tags", {"Tags": ["primary", "!old"]}, ["n1"]),
        ("node", {"NodeMeta": {"zone": "a"}}, ["n1", "n2"]),
        ("service", {"ServiceMeta": {"env": "test"}}, ["n3"]),
    ):
        await create(api, name, Service={"Service": "web", **service})
        assert sorted(await nodes_of(api, f"{name}/execute")) == expected


async def test_execution_finds_what_speaks_mtls(api: Running) -> None:
    """Proxies of the service, and native instances."""
    await api.register("n1", "web")
    await api.register("n2", "web", Service={"Connect": {"Native": True}})
    proxy = {"Kind": "connect-proxy", "Proxy": {"DestinationServiceName": "web"}}
    await api.register("n3", "web-proxy", Service={"Service": "web-proxy", **proxy})
    await create(api, "plain")
    assert sorted(await nodes_of(api, "plain/execute")) == ["n1", "n2"]
    assert sorted(await nodes_of(api, "plain/execute?connect=true")) == ["n2", "n3"]
    await create(api, "mesh", Service={"Service": "web", "Connect": True})
    assert sorted(await nodes_of(api, "mesh/execute")) == ["n2", "n3"]


async def test_failover_counts_what_it_tried(api: Running) -> None:
    """Other datacenters are out of reach; targets in this one are found."""
    await api.register("n1", "spare")
    far = {"NearestN": 2, "Datacenters": ["dc2", "dc1", "dc3"]}
    await create(api, "far", Service={"Service": "web", "Failover": far})
    done = await api.json("GET", "/v1/query/far/execute")
    assert (done["Nodes"], done["Failovers"], done["Service"]) == ([], 2, "web")
    targets = [{"Datacenter": "dc9"}, {"Peer": "p"}, {"Service": "spare"}, {"Service": "more"}]
    await create(api, "near", Service={"Service": "web", "Failover": {"Targets": targets}})
    done = await api.json("GET", "/v1/query/near/execute")
    assert (done["Failovers"], done["Service"]) == (3, "spare")
    assert [entry["Node"]["Node"] for entry in done["Nodes"]] == ["n1"]


async def test_a_template_answers_for_all_names_with_its_prefix(api: Running) -> None:
    """The longest prefix wins, an exact name before it."""
    kind = {"Type": "name_prefix_match"}
    await create(api, "", service="${name.full}", Template=kind)
    regexp = {**kind, "Regexp": "^geo-db-(.*?)-([^\\-]+?)$", "RemoveEmptyTags": True}
    service = {"Service": "mysql-${match(1)}", "Tags": ["${match(2)}", "${match(9)}"]}
    template = await create(api, "geo-db", Template=regexp, Service=service)
    await create(api, "geo-db-static", service="static")

    async def explained(name: str) -> dict[str, Any]:
        body: dict[str, Any] = (await api.json("GET", f"/v1/query/{name}/explain"))["Query"]
        return body

    assert (await explained("anything"))["Service"]["Service"] == "anything"
    found = (await explained("geo-db-customer-primary"))["Service"]
    assert (found["Service"], found["Tags"]) == ("mysql-customer", ["primary"])
    assert (await explained("GEO-DB-static"))["Service"]["Service"] == "static"
    status, text, _ = await api.ask("GET", f"/v1/query/{template}/execute")
    assert (status, text) == (
        400,
        "prepared query templates can only be resolved up by name, not by ID",
    )
    status, text = await refusal(api, Template=kind, Service={"Service": "a"})
    assert text == "a query template with an empty name already exists"
    await api.register("n1", "db")
    assert await nodes_of(api, "db/execute") == ["n1"]


async def test_the_list_can_be_watched(api: Running) -> None:
    """A new query ends the wait; writes of other kinds do not."""
    await create(api, "one")
    index = await api.index("/v1/query")
    async with asyncio.TaskGroup() as tasks:
        watched = tasks.create_task(api.json("GET", f"/v1/query?index={index}&wait=60s"))
        await api.waiting(1)
        await api.json("PUT", "/v1/kv/other", data=b"1")
        await api.waiting(1)
        await create(api, "two")
    assert {row["Name"] for row in watched.result()} == {"one", "two"}


async def test_another_datacenter_is_out_of_reach(api: Running) -> None:
    """As everywhere."""
    for method, path in (("GET", "/v1/query"), ("POST", "/v1/query"), ("DELETE", "/v1/query/x")):
        status, text, _ = await api.ask(method, f"{path}?dc=dc2")
        assert (status, text) == (500, "No path to datacenter")


async def test_an_execution_is_read_only(api: Running) -> None:
    """As all that is not offered: 405, with what is."""
    await create(api, "web")
    for method in ("PUT", "DELETE", "POST"):
        for verb in ("execute", "explain"):
            status, text, answer = await api.ask(method, f"/v1/query/web/{verb}", json={})
            assert (status, text) == (405, f"method {method} not allowed")
            assert "GET" in answer.headers["Allow"]


async def test_the_name_service_gets_instances(api: Running) -> None:
    """With their health and the TTL; an unknown name, and the id of a template, are none."""
    check = {"CheckID": "c1", "Name": "c1", "Status": "warning"}
    await api.register("n1", "web", Check=check)
    await create(api, "Web", DNS={"TTL": "1m30s"})
    template = await create(api, "t-", Template={"Type": "name_prefix_match"})
    answer = await api.server.queries.answer("web", "10.0.0.9")
    assert answer is not None
    assert (answer.service, answer.ttl_s) == ("web", 90)
    (row,) = answer.rows
    assert (row.node.name, row.instance.port, row.status.value) == ("n1", 80, "warning")
    for unknown in ("webs", template, ""):
        assert await api.server.queries.answer(unknown, "") is None
    empty = await api.server.queries.answer("t-none", "")
    assert empty is not None
    assert (empty.rows, empty.ttl_s) == ((row,), None)
