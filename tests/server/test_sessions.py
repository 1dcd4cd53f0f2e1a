"""Sessions, their leases, and the leases of hosts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftreg.clock import ManualClock
from raftreg.core.digest import node_digest
from raftreg.errors import NotProposed, UnknownOutcome
from tests.server.conftest import Running, until

SERF = {"Name": "Serf Health Status", "CheckID": "serfHealth", "Status": "passing"}


async def _session(api: Running, **fields: object) -> str:
    await api.register("n1", Check=SERF)
    return str((await api.json("PUT", "/v1/session/create", json={"Node": "n1", **fields}))["ID"])


async def _unbound_session(api: Running, **fields: object) -> str:
    """A session that hangs on nothing but its TTL: its node has no lease of its own."""
    await api.register("n1")
    body = {"Node": "n1", "Checks": [], **fields}
    return str((await api.json("PUT", "/v1/session/create", json=body))["ID"])


def _advance(api: Running, seconds: float) -> None:
    assert isinstance(api.clock, ManualClock)
    api.clock.advance(seconds)
    api.server.leases.look()


async def test_a_sessions_life(api: Running) -> None:
    """Create, info, list, node, renew and destroy, in Consul's shapes."""
    session = await _session(api, Name="mine", TTL="10.0s", Behavior="delete", LockDelay="5s")
    (row,) = await api.json("GET", f"/v1/session/info/{session}")
    assert row == {
        "ID": session,
        "Name": "mine",
        "Node": "n1",
        "LockDelay": 5_000_000_000,
        "Behavior": "delete",
        "TTL": "10.0s",
        "NodeChecks": ["serfHealth"],
        "ServiceChecks": None,
        "CreateIndex": row["CreateIndex"],
        "ModifyIndex": row["CreateIndex"],
    }
    assert await api.json("GET", "/v1/session/list") == [row]
    assert await api.json("GET", "/v1/session/node/n1") == [row]
    assert await api.json("PUT", f"/v1/session/renew/{session}") == [row]
    assert await api.json("PUT", f"/v1/session/destroy/{session}") is True
    assert await api.json("PUT", f"/v1/session/destroy/{session}") is True
    assert await api.json("GET", f"/v1/session/info/{session}") == []
    status, body, _ = await api.ask("PUT", f"/v1/session/renew/{session}")
    assert (status, session in body) == (404, True)


async def test_defaults(api: Running) -> None:
    """A session without a body is on the server's node, with lock delay 15 s and serfHealth."""
    status, body, _ = await api.ask("PUT", "/v1/session/create")
    assert (status, body) == (500, "Missing node registration")
    await api.register("s1", Check=SERF)
    session = (await api.json("PUT", "/v1/session/create"))["ID"]
    (row,) = await api.json("GET", f"/v1/session/info/{session}")
    assert (row["Node"], row["LockDelay"], row["Behavior"], row["TTL"]) == (
        "s1",
        15_000_000_000,
        "release",
        "",
    )


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"TTL": "9s"}, 500, "must be between [10s=24h0m0s]"),
        ({"TTL": "25h"}, 500, "must be between [10s=24h0m0s]"),
        ({"TTL": "soon"}, 400, "Session TTL 'soon' invalid"),
        ({"Behavior": "explode"}, 400, "Invalid Behavior"),
        ({"LockDelay": "-1s"}, 400, "Invalid LockDelay"),
        ({"Node": "nobody"}, 500, "Missing node registration"),
        ({"Checks": ["nope"]}, 500, "Missing check 'nope' registration"),
        ({"NodeChecks": "serfHealth"}, 400, "must be a list"),
    ],
)
async def test_bad_sessions(api: Running, fields: dict[str, Any], status: int, text: str) -> None:
    """What is out of range is 500 as in Consul, what can't be read 400."""
    await api.register("n1", Check=SERF)
    got, body, _ = await api.ask("PUT", "/v1/session/create", json={"Node": "n1", **fields})
    assert (got, text in body) == (status, True), body


async def test_a_small_lock_delay_is_in_seconds(api: Running) -> None:
    """Numbers below 1000 are seconds, others nanoseconds; more than 60 s is cut."""
    for given, kept_s in ((5, 5), (5_000_000_000, 5), ("2m", 60), (0, 0)):
        session = await _session(api, LockDelay=given)
        (row,) = await api.json("GET", f"/v1/session/info/{session}")
        assert row["LockDelay"] == kept_s * 1_000_000_000


async def test_wish_06_a_session_expires_when_it_says(timed: Running) -> None:
    """Alive at its TTL, gone a second later, not at twice the TTL."""
    session = await _unbound_session(timed, TTL="10s")
    await timed.json("PUT", f"/v1/kv/l?acquire={session}", data=b"1")
    _advance(timed, 10.0)
    assert await timed.json("GET", f"/v1/session/info/{session}") != []
    _advance(timed, 0.6)
    await until(lambda: not timed.machine.state.sessions)
    (entry,) = await timed.json("GET", "/v1/kv/l")
    assert "Session" not in entry
    assert timed.server.leases.expired_sessions == 1


async def test_a_renewed_session_lives(timed: Running) -> None:
    """Each renewal gives a full term."""
    session = await _unbound_session(timed, TTL="10s")
    for _ in range(3):
        _advance(timed, 9.0)
        assert len(await timed.json("PUT", f"/v1/session/renew/{session}")) == 1
    assert timed.server.leases.session_count == 1


async def test_wish_06_a_new_leader_gives_every_lease_a_full_term(timed: Running) -> None:
    """A session that was about to expire lives a whole TTL from the change of the leader on."""
    session = await _unbound_session(timed, TTL="10s")
    _advance(timed, 9.9)
    await timed.replica.start()  # it becomes the leader once more
    _advance(timed, 9.9)
    assert len(await timed.json("PUT", f"/v1/session/renew/{session}")) == 1


async def test_a_renewal_waits_for_the_fate_of_an_expiry(timed: Running) -> None:
    """While an expiry may still commit, a renewal is not answered; then it tells the truth."""
    session = await _unbound_session(timed, TTL="10s")
    gate, attempts = asyncio.Event(), []
    propose = timed.replica.propose

    async def slow(command: bytes, **options: Any) -> Any:
        if options.get("in_term") is None:
            return await propose(command, **options)
        attempts.append(command)
        if len(attempts) == 1:
            raise UnknownOutcome("it may still commit")
        await gate.wait()
        return await propose(command, **options)

    timed.replica.propose = slow  # type: ignore[method-assign]
    _advance(timed, 10.6)
    await until(lambda: len(attempts) == 2)
    async with asyncio.TaskGroup() as tasks:
        renewal = tasks.create_task(timed.ask("PUT", f"/v1/session/renew/{session}"))
        read = tasks.create_task(timed.ask("GET", "/v1/kv/none"))
        await read
        assert not renewal.done()
        gate.set()
    assert renewal.result()[0] == 404


async def test_an_expiry_that_is_not_proposed_lets_the_renewal_win(timed: Running) -> None:
    """A definite failure leaves the session alive, and a renewal gives it a full term again."""
    session = await _unbound_session(timed, TTL="10s")
    failed: list[bytes] = []
    propose = timed.replica.propose

    async def refuse(command: bytes, **options: Any) -> Any:
        if options.get("in_term") is not None:
            failed.append(command)
            raise NotProposed("this server no longer leads that term")
        return await propose(command, **options)

    timed.replica.propose = refuse  # type: ignore[method-assign]
    _advance(timed, 10.6)
    await until(lambda: failed)
    timed.replica.propose = propose  # type: ignore[method-assign]
    assert len(await timed.json("PUT", f"/v1/session/renew/{session}")) == 1
    _advance(timed, 9.0)
    assert len(await timed.json("PUT", f"/v1/session/renew/{session}")) == 1


async def test_a_lease_is_lost_and_comes_back(timed: Running) -> None:
    """Without renewals a host turns critical after its term; a renewal lifts it to passing."""
    sync = {
        "type": "node-sync",
        "node": {"name": "h1", "address": "10.0.0.1", "id": "", "datacenter": "dc1"},
        "services": [{"node": "h1", "id": "web", "name": "web", "port": 80}],
        "full": True,
    }
    assert await timed.json("PUT", "/v1/internal/node-sync", json=sync) is True
    catalog = timed.machine.state.catalog
    digest = node_digest(catalog.nodes["h1"], catalog.services_of("h1"), catalog.checks_of("h1"))

    async def renew(digest: str) -> str:
        body = {"nodes": [{"name": "h1", "digest": digest, "ttl_s": 3.0}], "sessions": []}
        answer = await timed.json("PUT", "/v1/internal/renew", json=body)
        return str(answer["nodes"]["h1"])

    assert await renew(digest) == "ok"
    assert await renew("other") == "sync"
    _advance(timed, 2.9)
    assert await renew(digest) == "ok"
    _advance(timed, 3.1)
    await until(lambda: timed.server.leases.expired_nodes == 1)
    assert await timed.json("GET", "/v1/health/service/web?passing") == []
    assert await renew(digest) == "ok"
    assert len(await timed.json("GET", "/v1/health/service/web?passing")) == 1
    assert timed.server.leases.node_count == 1


async def test_an_unknown_host_is_told_so(timed: Running) -> None:
    """A host that the registry has forgotten learns that it must say everything again."""
    body = {"nodes": [{"name": "ghost"}], "sessions": ["none"]}
    answer = await timed.json("PUT", "/v1/internal/renew", json=body)
    assert (answer["nodes"], answer["sessions"]) == ({"ghost": "unknown"}, {"none": False})


async def test_a_host_that_stays_critical_is_forgotten(timed: Running) -> None:
    """After the reap time (72 h) the node goes with all it has."""
    await timed.register("n1", Check={**SERF, "Status": "critical"})
    _advance(timed, 72 * 3600 - 60)
    assert len(await timed.json("GET", "/v1/catalog/nodes")) == 1
    # Two looks: the first finds the timer late and listens before it acts.
    _advance(timed, 61)
    await until(lambda: not timed.machine.state.catalog.nodes)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"nodes": [1]}', b'{"nodes": [{}]}'])
@pytest.mark.parametrize("path", ["/v1/internal/renew", "/v1/internal/node-sync"])
async def test_bad_internal_bodies(api: Running, path: str, body: bytes) -> None:
    """Agents' endpoints refuse what they can't read."""
    status, text, _ = await api.ask("PUT", path, data=body)
    assert (status, "Request decode failed" in text) == (400, True)
    msgpack = {"Content-Type": "application/msgpack"}
    status, text, _ = await api.ask("PUT", path, data=b"\xc1" + body, headers=msgpack)
    assert status == 400
