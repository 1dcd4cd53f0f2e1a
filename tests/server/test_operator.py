"""Autopilot, usage, the keyring that is empty, access control that is disabled."""

from __future__ import annotations

from typing import Any

import pytest

from raftreg.raft.api import PeerStatus, ReplicaStatus, Role, Server
from raftreg.server.api.autopilot import Rules, health_json, state_json
from tests.server.conftest import Running

CONFIGURATION = "/v1/operator/autopilot/configuration"


# -- autopilot -------------------------------------------------------------------------------------


async def test_autopilots_rules_are_kept(api: Running) -> None:
    """All of them, in the form in which they were set; their index rises."""
    first = await api.json("GET", CONFIGURATION)
    assert (first["LastContactThreshold"], first["ModifyIndex"]) == ("200ms", 0)
    body = {
        "CleanupDeadServers": True,
        "LastContactThreshold": "1.5s",
        "MaxTrailingLogs": 500,
        "MinQuorum": 3,
        "ServerStabilizationTime": 10_000_000_000,
        "RedundancyZoneTag": "zone",
    }
    assert await api.json("PUT", CONFIGURATION, json=body) is True
    kept = await api.json("GET", CONFIGURATION)
    assert kept.pop("CreateIndex") == kept.pop("ModifyIndex") > 0
    assert kept == body | {
        "ServerStabilizationTime": "10s",
        "DisableUpgradeMigration": True,
        "UpgradeVersionTag": "",
    }


async def test_autopilots_rules_are_set_at_an_index(api: Running) -> None:
    """0 is that of rules that nobody has set; another one changes nothing."""
    path = f"{CONFIGURATION}?cas="
    assert await api.json("PUT", path + "0", json={"MaxTrailingLogs": 1}) is True
    assert await api.json("PUT", path + "0", json={"MaxTrailingLogs": 2}) is False
    index = (await api.json("GET", CONFIGURATION))["ModifyIndex"]
    assert await api.json("PUT", f"{path}{index}", json={"MaxTrailingLogs": 3}) is True
    assert (await api.json("GET", CONFIGURATION))["MaxTrailingLogs"] == 3


@pytest.mark.parametrize(
    ("query", "body", "text"),
    [
        ("", [], "must be a JSON object"),
        ("", {"MaxTrailingLogs": -1}, "must be a whole number"),
        ("", {"MaxTrailingLogs": 1 << 40}, "out of range"),
        ("", {"LastContactThreshold": "-1s"}, "must not be negative"),
        ("", {"LastContactThreshold": "soon"}, "invalid duration"),
        ("?cas=x", {}, "Error parsing cas value"),
    ],
)
async def test_bad_rules(api: Running, query: str, body: Any, text: str) -> None:
    """They are refused, and nothing changes."""
    status, answer, _ = await api.ask("PUT", CONFIGURATION + query, json=body)
    assert (status, text in answer) == (400, True), answer
    assert (await api.json("GET", CONFIGURATION))["ModifyIndex"] == 0


def _status() -> ReplicaStatus:
    servers = tuple(Server(id=name, name=name, address=f"{name}:8300") for name in "abc")
    return ReplicaStatus(
        id="a",
        role=Role.LEADER,
        term=3,
        leader_id="a",
        commit_index=1000,
        applied_index=1000,
        last_log_index=1000,
        first_log_index=1,
        last_snapshot_index=0,
        servers=servers,
        leader_contact_age_s=0.0,
        peers={
            "b": PeerStatus(connected=True, match_index=1000, contact_age_s=0.5),
            "c": PeerStatus(connected=True, match_index=700, contact_age_s=0.0),
        },
    )


def test_the_rules_decide_who_is_healthy() -> None:
    """By how long the leader has not heard of it, and by how far it is behind."""
    for rules, healthy in (
        (Rules(), [True, False, False]),
        (Rules(last_contact_threshold_s=1.0), [True, True, False]),
        (Rules(max_trailing_logs=300), [True, False, True]),
    ):
        health = health_json(_status(), rules)
        assert [entry["Healthy"] for entry in health["Servers"]] == healthy


def test_the_state_tells_who_leads_and_votes() -> None:
    """The same judgement, by id."""
    state = state_json(health_json(_status()))
    assert (state["Leader"], state["Voters"], state["Healthy"]) == ("a", ["a", "b", "c"], False)
    assert {name: entry["Status"] for name, entry in state["Servers"].items()} == {
        "a": "leader",
        "b": "voter",
        "c": "voter",
    }


async def test_the_state_is_served(api: Running) -> None:
    """Of the one server there is."""
    state = await api.json("GET", "/v1/operator/autopilot/state")
    assert (state["Healthy"], state["Leader"]) == (True, "6a3f")


async def test_usage_counts_what_is_registered(api: Running) -> None:
    """Hosts, names, instances; proxies by their kind."""
    await api.register("n1", "web", Service={"ID": "web-1"})
    await api.register("n1", "web", Service={"ID": "web-2", "Connect": {"Native": True}})
    proxy = {"Kind": "connect-proxy", "Proxy": {"DestinationServiceName": "web"}}
    await api.register("n2", "web-proxy", Service=proxy)
    body = await api.json("GET", "/v1/operator/usage")
    usage = body["Usage"]["dc1"]
    assert (usage["Nodes"], usage["Services"], usage["ServiceInstances"]) == (2, 2, 3)
    assert usage["ConnectServiceInstances"] == {
        "connect-native": 1,
        "connect-proxy": 1,
        "ingress-gateway": 0,
        "mesh-gateway": 0,
        "terminating-gateway": 0,
        "api-gateway": 0,
    }
    assert (usage["BillableServiceInstances"], body["KnownLeader"]) == (2, True)


# -- the keyring -----------------------------------------------------------------------------------


async def test_the_keyring_is_empty(api: Running) -> None:
    """As in a Consul cluster without encryption; a key that was sent is not repeated."""
    path = "/v1/operator/keyring"
    status, text, _ = await api.ask("GET", path)
    assert status == 500
    assert text == (
        "2 errors occurred:\n\t* dc1 (LAN) error: 1/1 nodes reported failure\n"
        "\t* s1: Keyring is empty (encryption not enabled)\n\n"
    )
    for method in ("POST", "PUT", "DELETE"):
        status, text, _ = await api.ask(method, path, json={"Key": "c2VjcmV0"})
        assert (status, "No keyring to modify" in text, "c2VjcmV0" in text) == (500, True, False)


@pytest.mark.parametrize(
    ("method", "query", "data"),
    [
        ("GET", "?relay-factor=x", b""),
        ("GET", "?relay-factor=6", b""),
        ("GET", "?local-only=maybe", b""),
        ("PUT", "?local-only=true", b"{}"),
        ("PUT", "", b"nonsense"),
        ("POST", "", b'{"Key": 3}'),
    ],
)
async def test_bad_requests_to_the_keyring(
    api: Running, method: str, query: str, data: bytes
) -> None:
    """What can't be understood is 400, before anything else."""
    status, _, _ = await api.ask(method, f"/v1/operator/keyring{query}", data=data)
    assert status == 400


# -- access control --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "bootstrap"),
        ("POST", "login"),
        ("GET", "replication"),
        ("GET", "token/self"),
        ("DELETE", "policy/1"),
        ("PUT", "token/1/clone"),
        ("GET", "info/anonymous"),
        ("PUT", "create"),
        ("GET", "list"),
    ],
)
async def test_access_control_is_disabled(api: Running, method: str, path: str) -> None:
    """Each endpoint says so in Consul's words, whatever is sent."""
    status, text, _ = await api.ask(method, f"/v1/acl/{path}", data=b"not json")
    assert (status, text) == (401, "ACL support disabled")


async def test_a_wrong_method_of_access_control(api: Running) -> None:
    """405, as everywhere; a path that there is not is 404."""
    assert (await api.ask("DELETE", "/v1/acl/bootstrap"))[0] == 405
    assert (await api.ask("GET", "/v1/acl/nothing/of/this"))[0] == 404


async def test_tokens_are_passed_over(api: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever they come; nothing of them is logged, not even with a fault."""
    for headers, query in (
        ({"X-Consul-Token": "s3cret"}, ""),
        ({"Authorization": "Bearer s3cret"}, ""),
        ({}, "&token=s3cret"),
    ):
        path = f"/v1/catalog/nodes?stale{query}"
        assert (await api.ask("GET", path, headers=headers))[0] == 200
    api.replica.read_index = None  # type: ignore[method-assign, assignment]
    answer = await api.ask("GET", "/v1/kv/k?token=s3cret", headers={"X-Consul-Token": "s3cret"})
    assert (answer[0], "s3cret" in answer[1]) == (500, False)
    assert "s3cret" not in caplog.text
