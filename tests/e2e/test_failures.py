"""What callers are told when something fails, and what has happened then."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from raftreg.clock import new_id
from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.waiting import until

_KV_BYTES_MAX = 512 * 1024


@asynccontextmanager
async def stopped(members: Iterable[Member]) -> AsyncIterator[None]:
    """Holds processes still (SIGSTOP) while the block runs: alive, and deaf."""
    held = list(members)
    for member in held:
        member.send(signal.SIGSTOP)
    try:
        yield
    finally:
        for member in held:
            member.send(signal.SIGCONT)


def _request_id(sequence: int = 1) -> dict[str, str]:
    return {"X-Raftreg-Request-Id": f"{new_id()}/{sequence}/{sequence}"}


async def test_without_a_majority_reads_and_writes_are_refused_and_stale_answers(
    mesh: Cluster, ask: Ask
) -> None:
    """Two of three dead: 500 and `No cluster leader`, nothing written; ?stale goes on and says so.

    At the server that is left, and at an agent, which can't wait for a server for ever: where it
    does not know what became of a write, it says that.
    """
    await ask.kv_put(mesh.servers[0], "majority/before", b"1")
    left, *dead = mesh.servers
    agent = mesh.agents[0]
    mesh.kill(dead)

    async def knows() -> bool:
        return await ask.leader_at(left) == ""

    await until("the one left knows that it is alone", knows)
    get, put = "/v1/kv/majority/before", "/v1/kv/majority/refused"
    answers = await asyncio.gather(
        *(ask.get(member, get) for member in (left, agent)),
        ask.request("PUT", left, put, data=b"x"),
        ask.request("PUT", agent, f"{put}-perhaps", data=b"x"),
        *(ask.get(member, "/v1/catalog/nodes") for member in (left, agent)),
    )
    at_agent = answers.pop(3)
    assert at_agent.status == 500 or "may still commit" in at_agent.text, at_agent
    assert at_agent.status in {500, 503}
    for answer in answers:
        assert (answer.status, answer.text) == (500, "No cluster leader"), answer
    for member in (left, agent):
        stale = await ask.get(member, f"{get}?raw&stale")
        assert (stale.status, stale.body) == (200, b"1")
        assert stale.headers["X-Consul-KnownLeader"] == "false"
        assert (await ask.get(member, "/v1/catalog/nodes?stale")).status == 200
    await ask.settled(mesh)
    assert (await ask.get(left, put)).status == 404, "what was refused never happened"


async def test_an_unknown_outcome_says_so_and_a_repetition_takes_effect_once(
    mesh: Cluster, ask: Ask
) -> None:
    """The followers fall silent as a write is sent: 503, it may still commit.

    The same request, sent again under its id to another server, takes effect once, whichever way
    the first one went.
    """
    leader = await ask.leader(mesh)
    key = "unknown/key"
    assert await ask.kv_put(leader, key, b"first")
    row = (await ask.get(leader, f"/v1/kv/{key}")).json()[0]
    path = f"/v1/kv/{key}?cas={row['ModifyIndex']}"
    name = _request_id()
    async with stopped(mesh.others(leader)):
        answer = await ask.request("PUT", leader, path, data=b"second", headers=name)
    assert answer.status == 503, answer.text
    assert "may still commit" in answer.text
    await ask.settled(mesh)
    for server in [*mesh.others(leader), leader]:
        again = await ask.request("PUT", server, path, data=b"second", headers=name)
        assert again.json() is True, "the compare-and-set holds once, and its repetitions are it"
    rows = (await ask.get(leader, f"/v1/kv/{key}")).json()
    assert await ask.kv_put(leader, key, b"third", f"?cas={rows[0]['ModifyIndex']}")
    assert (await ask.request("PUT", leader, path, data=b"second", headers=name)).json() is True
    assert (await ask.get(leader, f"/v1/kv/{key}?raw")).body == b"third"


async def test_a_named_write_is_repeated_at_another_server_after_the_leaders_death(
    mesh: Cluster, ask: Ask
) -> None:
    """The leader dies with the answer: the repetition elsewhere gives the same session, not two."""
    name = _request_id()
    body: dict[str, Any] = {"Name": "repeated", "TTL": "60s"}
    leader = await ask.leader(mesh)
    path = "/v1/session/create"
    sent = await ask.request("PUT", leader, path, body=body, headers=name)
    leader.kill()
    survivors = mesh.others(leader)
    await ask.leader(mesh, survivors)
    answers = await asyncio.gather(
        *(ask.request("PUT", server, path, body=body, headers=name) for server in survivors)
    )
    assert {answer.json()["ID"] for answer in answers} == {sent.json()["ID"]}
    sessions = (await ask.get(survivors[0], "/v1/session/list")).json()
    assert [row["Name"] for row in sessions].count("repeated") == 1


@pytest.mark.parametrize("kind", ["server", "agent"])
async def test_wrong_requests_get_the_status_and_text_that_clients_know(
    mesh: Cluster, ask: Ask, kind: str
) -> None:
    """400, 404, 405, 413 and 500, in plain text, at servers and agents alike."""
    member = mesh.servers[0] if kind == "server" else mesh.agents[0]
    large = b"x" * (_KV_BYTES_MAX + 1)
    expected = [
        ("PUT", "/v1/kv/large", large, 413, "too large"),
        ("PUT", "/v1/kv/", b"x", 400, "Missing key name"),
        ("GET", "/v1/kv/x?index=nonsense", None, 400, "Invalid index"),
        ("GET", "/v1/kv/x?wait=nonsense&index=1", None, 400, "Invalid wait time"),
        ("GET", "/v1/kv/x?stale&consistent", None, 400, "stale"),
        ("GET", "/v1/session/create", None, 405, "method GET not allowed"),
        ("GET", "/v1/nowhere", None, 404, ""),
        ("PUT", "/v1/kv/x?acquire=nobody", b"", 500, "invalid session"),
        ("PUT", "/v1/session/create", b'{"TTL": "1s"}', 500, "TTL"),
        ("PUT", "/v1/catalog/register", b"{broken", 400, "decode"),
        ("GET", "/v1/catalog/nodes?dc=elsewhere", None, 500, "No path to datacenter"),
    ]
    for method, path, data, status, text in expected:
        answer = await ask.request(method, member, path, data=data)
        assert answer.status == status, (method, path, answer)
        assert text.lower() in answer.text.lower(), (method, path, answer)
        assert answer.headers["Content-Type"].startswith("text/plain"), (path, answer.headers)
    assert (await ask.get(member, "/v1/kv/large")).status == 404
    whole = b"x" * _KV_BYTES_MAX
    assert (await ask.request("PUT", member, "/v1/kv/whole", data=whole)).json() is True
    assert (await ask.get(member, "/v1/kv/whole?raw")).body == whole


class Callers:
    """Clients of one agent that take no failure.

    Attributes:
        failures: What they were told instead of an answer.
        done: How many requests of each kind were answered.
    """

    def __init__(self, ask: Ask, agent: Member) -> None:
        self._ask = ask
        self._agent = agent
        self.failures: list[str] = []
        self.done = {"GET": 0, "PUT": 0}
        self.going_on = True

    async def call(self, method: str, path: str) -> None:
        """Sends requests one after the other."""
        while self.going_on:
            data = b"x" if method == "PUT" else None
            answer = await self._ask.request(method, self._agent, path, data=data)
            if answer.status != 200 or (method == "PUT" and answer.json() is not True):
                self.failures.append(f"{method} {path}: {answer.status} {answer.text}")
            self.done[method] += 1
            await asyncio.sleep(0.01)  # a share of the machine for the others

    async def some_more(self) -> None:
        """Waits for further answers of each kind."""
        before = dict(self.done)

        async def reached() -> bool:
            return all(self.done[kind] > before[kind] + 10 for kind in before)

        await until("further requests", reached)


async def test_callers_of_an_agent_see_no_error_while_servers_die(mesh: Cluster, ask: Ask) -> None:
    """Each server is killed and restarted in turn: all reads and writes at an agent succeed."""
    agent = mesh.agents[0]
    await ask.register(agent, "sheltered")
    await ask.kv_put(agent, "sheltered/key", b"x")
    callers = Callers(ask, agent)
    async with asyncio.TaskGroup() as group:
        group.create_task(callers.call("GET", "/v1/kv/sheltered/key"))
        group.create_task(callers.call("GET", "/v1/health/service/sheltered?passing"))
        group.create_task(callers.call("PUT", "/v1/kv/sheltered/written"))
        try:
            for server in mesh.servers:
                server.kill()
                await ask.leader(mesh, mesh.others(server))
                await callers.some_more()
                await ask.settled(mesh)
        finally:
            callers.going_on = False
    assert callers.failures == []
