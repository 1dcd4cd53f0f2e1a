"""Wish 8: the same data on every server, and indexes that never go back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster, Member
from tests.e2e.dump import same_everywhere
from tests.e2e.load import loading


class Indexes:
    """Follows the index of some questions, and notes when it goes back.

    Attributes:
        backwards: What went back, for the failure's text.
        seen: How many answers were looked at.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.backwards: list[str] = []
        self.seen = 0

    async def follow(self, members: Sequence[Member], path: str) -> None:
        """Asks the members in turns until it is cancelled."""
        newest = 0
        while True:
            for member in members:
                try:
                    answer = await self._ask.get(member, path)
                except OSError:
                    continue
                if answer.status == 200:
                    self.seen += 1
                    if answer.index < newest:
                        self.backwards.append(f"{member.name} {path}: {answer.index} < {newest}")
                    newest = max(newest, answer.index)
            await asyncio.sleep(0.02)  # a share of the machine for the others


@asynccontextmanager
async def followed(ask: Ask, cluster: Cluster, name: str) -> AsyncIterator[Indexes]:
    """Follows indexes everywhere while the block runs."""
    indexes = Indexes(ask)
    service, tree = f"/v1/catalog/service/{name}-service", f"/v1/kv/{name}/?keys"
    async with asyncio.TaskGroup() as group:
        tasks = [
            # One series over all servers: linearizable answers know of each other.
            group.create_task(indexes.follow(cluster.servers, service)),
            group.create_task(indexes.follow(cluster.servers, tree)),
            *(
                group.create_task(indexes.follow([agent], path))
                for agent in cluster.agents
                for path in (service, f"{service}?stale", "/v1/catalog/nodes?cached")
            ),
        ]
        try:
            yield indexes
        finally:
            for task in tasks:
                task.cancel()


async def test_wish_08_servers_agree_and_indexes_never_go_back(mesh: Cluster, ask: Ask) -> None:
    """Servers are killed and restarted in turn under load; all end with equal rows and indexes.

    No index that anybody was shown is followed by a smaller one: linearizable reads at whichever
    server, and reads of an agent, from its view too.
    """
    name = "one-truth"
    async with followed(ask, mesh, name) as indexes:
        async with loading(ask, mesh.servers, name) as load:
            for server in mesh.servers:
                server.kill()
                await load.more(100)
                mesh.start()
                await ask.leader(mesh)
            mesh.kill(mesh.servers)
        await ask.settled(mesh)
        await ask.kv_put(mesh.servers[0], f"{name}/last", b"1")
        content = await same_everywhere(ask, mesh)
    assert indexes.backwards == []
    assert indexes.seen > 100
    assert len(content["kv"]) > 100
    assert await load.lost(mesh.servers[2], "&stale") == []
