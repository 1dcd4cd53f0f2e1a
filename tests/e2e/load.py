"""Load that keeps count: what was acknowledged, and so must never be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.e2e.ask import Ask
from tests.e2e.cluster import Member
from tests.e2e.waiting import until

_WRITERS = 12
_NODES_EVERY = 5


class Load:
    """Concurrent writers of keys and registrations, each name written once.

    Args:
        ask: Sends.
        targets: Who is written to, in turns.
        name: Begins all keys and node names.

    Attributes:
        keys: Acknowledged keys with their values.
        nodes: Acknowledged nodes.
        failed: Requests without an acknowledgement: nothing is known about these.
    """

    def __init__(self, ask: Ask, targets: Sequence[Member], name: str) -> None:
        self._ask = ask
        self._targets = targets
        self._name = name
        self.keys: dict[str, bytes] = {}
        self.nodes: set[str] = set()
        self.failed = 0

    @property
    def acknowledged(self) -> int:
        """How many writes were acknowledged."""
        return len(self.keys) + len(self.nodes)

    async def write(self, writer: int) -> None:
        """Writes until it is cancelled."""
        number = 0
        while True:
            number += 1
            target = self._targets[(writer + number) % len(self._targets)]
            try:
                if number % _NODES_EVERY:
                    await self._write_key(target, f"{writer}/{number}")
                else:
                    await self._write_node(target, f"{writer}-{number}")
            except (OSError, AssertionError):
                self.failed += 1
                await asyncio.sleep(0.01)  # a dead server refuses at once: not in a tight loop

    async def _write_key(self, target: Member, name: str) -> None:
        key, value = f"{self._name}/{name}", f"{name} at {target.name}".encode()
        if await self._ask.kv_put(target, key, value):
            self.keys[key] = value

    async def _write_node(self, target: Member, name: str) -> None:
        node = f"{self._name}-{name}"
        service = {"ID": "one", "Service": f"{self._name}-service", "Port": 1}
        body = {"Node": node, "Address": "10.0.0.1", "Service": service}
        if (await self._ask.put(target, "/v1/catalog/register", body)).json():
            self.nodes.add(node)

    async def more(self, count: int) -> None:
        """Waits for this many further acknowledgements."""
        wanted = self.acknowledged + count

        async def reached() -> bool:
            return self.acknowledged >= wanted

        await until(f"{count} more acknowledged writes", reached, poll_s=0.01)

    async def lost(self, member: Member, query: str = "") -> list[str]:
        """Acknowledged writes that a member does not show."""
        tree = await self._ask.kv_tree(member, f"{self._name}/", query)
        rows = (
            await self._ask.get(member, f"/v1/catalog/service/{self._name}-service?{query[1:]}")
        ).json()
        found = {row["Node"] for row in rows}
        keys = [key for key, value in self.keys.items() if tree.get(key) != value]
        return [*keys, *sorted(self.nodes - found)]


@asynccontextmanager
async def loading(ask: Ask, targets: Sequence[Member], name: str) -> AsyncIterator[Load]:
    """Writes while the block runs."""
    load = Load(ask, targets, name)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(load.write(writer)) for writer in range(_WRITERS)]
        try:
            yield load
        finally:
            for task in tasks:
                task.cancel()
