"""Wish 11: DNS that keeps answering, from the last view when the servers are away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.rcode

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.waiting import until


class Resolver:
    """Asks for a service again and again.

    Attributes:
        wrong: Every answer that was not as it should be.
        right: How many were.
        going_on: Set to False, it ends after the present question.
    """

    def __init__(self, ask: Ask, agent: Member, service: str) -> None:
        self._ask = ask
        self._agent = agent
        self._service = service
        self.wrong: list[str] = []
        self.right = 0
        self.going_on = True

    async def run(self, expected: set[str]) -> None:
        """Asks until it is cancelled, by UDP and TCP in turns."""
        name, tcp = f"{self._service}.service.consul", False
        while self.going_on:
            tcp = not tcp
            try:
                answer = await self._ask.dns(self._agent, name, tcp=tcp)
            except OSError as error:
                self.wrong.append(repr(error))
                continue
            found = {record.address for rrset in answer.answer for record in rrset}
            if answer.rcode() == dns.rcode.NOERROR and found == expected:
                self.right += 1
            else:
                self.wrong.append(answer.to_text())
            await asyncio.sleep(0.01)  # a share of the machine for the others

    async def some_more(self, count: int = 50) -> None:
        """Waits for further answers."""
        wanted = self.right + len(self.wrong) + count

        async def reached() -> bool:
            return self.right + len(self.wrong) >= wanted

        await until("more answers", reached)


@asynccontextmanager
async def resolving(
    ask: Ask, agent: Member, service: str, expected: set[str]
) -> AsyncIterator[Resolver]:
    """Asks an agent while the block runs."""
    resolver = Resolver(ask, agent, service)
    async with asyncio.TaskGroup() as group:
        group.create_task(resolver.run(expected))
        try:
            yield resolver
        finally:
            # Not by cancelling: asyncio.wait_for of Python 3.11, inside dnspython, may lose that.
            resolver.going_on = False


async def test_wish_11_dns_goes_on_while_all_servers_are_dead(mesh: Cluster, ask: Ask) -> None:
    """No answer is missing or wrong from before the death of all servers to after their return.

    While they are gone, ?stale and ?cached answer by HTTP too and say how old they are; after
    their return the agent follows again.
    """
    agent, other = mesh.agents
    for each in mesh.agents:
        await ask.register(each, "steady-dns")
    everyone = {each.address for each in mesh.agents}

    async def complete() -> bool:
        return await ask.addresses(agent, "steady-dns") == everyone

    await until("both in DNS", complete)
    async with resolving(ask, agent, "steady-dns", everyone) as resolver:
        await resolver.some_more()
        mesh.kill(mesh.servers)
        await resolver.some_more(200)
        await _answers_with_age(ask, agent, everyone)
        await ask.settled(mesh)
        await resolver.some_more()
    assert resolver.wrong == []
    await ask.put(other, f"/v1/agent/service/deregister/steady-dns-at-{other.name}")

    async def follows() -> bool:
        return await ask.addresses(agent, "steady-dns") == {agent.address}

    await until("the view follows again", follows)


async def _answers_with_age(ask: Ask, agent: Member, everyone: set[str]) -> None:
    path = "/v1/health/service/steady-dns?passing"

    async def leader_lost() -> bool:
        answer = await ask.get(agent, f"{path}&stale")
        return answer.headers["X-Consul-KnownLeader"] == "false"

    await until("the agent knows that it is alone", leader_lost)
    stale, cached = [await ask.get(agent, f"{path}&{flag}") for flag in ("stale", "cached")]
    for answer in (stale, cached):
        assert {row["Node"]["Address"] for row in answer.json()} == everyone
    assert int(stale.headers["X-Consul-LastContact"]) > 0
    assert cached.headers["X-Cache"] == "HIT"
    assert int(cached.headers["Age"]) >= 0


async def test_wish_11_dns_goes_on_over_the_death_of_each_server(mesh: Cluster, ask: Ask) -> None:
    """One server after the other is killed and restarted: every answer is complete."""
    agent = mesh.agents[1]
    await ask.register(agent, "unshaken")

    async def complete() -> bool:
        return await ask.addresses(agent, "unshaken") == {agent.address}

    await until("it is in DNS", complete)
    async with resolving(ask, agent, "unshaken", {agent.address}) as resolver:
        for server in mesh.servers:
            server.kill()
            await ask.leader(mesh, mesh.others(server))
            await resolver.some_more()
            await ask.settled(mesh)
    assert resolver.wrong == []
