"""Alias checks of this host: looked at after each local change, and remote ones every second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftreg.core.catalog import Catalog
from raftreg.http.decode import CheckDefinition, CheckKind
from raftreg.model import Check
from raftreg_agent.checks.alias import alias_result
from raftreg_agent.checks.machine import CheckResult
from raftreg_agent.state import LocalState

REMOTE_EVERY_S = 1.0


class Aliases:
    """Keeps alias checks equal to what they stand for.

    Args:
        state: This host's tables.
        catalog: What is known of other hosts.
        now: Monotonic seconds.
        edge: Is called after a status changed.
    """

    def __init__(
        self,
        state: LocalState,
        catalog: Callable[[], Catalog],
        now: Callable[[], float],
        edge: Callable[[], None],
    ) -> None:
        self._state = state
        self._catalog = catalog
        self._now = now
        self._edge = edge
        self._ids: dict[str, None] = {}
        self._changed = asyncio.Event()
        state.on_edge(lambda _: self._changed.set())

    def put(self, check: CheckDefinition) -> None:
        """Takes a definition; one that is no alias is forgotten."""
        if check.kind is CheckKind.ALIAS:
            self._ids[check.check_id] = None
            self._changed.set()
        else:
            self.remove(check.check_id)

    def remove(self, check_id: str) -> None:
        """Forgets a check."""
        self._ids.pop(check_id, None)

    async def run(self) -> None:
        """Judges until it is cancelled."""
        while True:
            self._changed.clear()
            remote = self.judge()
            try:
                async with asyncio.timeout(REMOTE_EVERY_S if remote else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def judge(self) -> bool:
        """Judges each alias check; True when one of them looks at another host."""
        remote, edge = False, False
        for check_id in self._ids:
            definition = self._state.checks[check_id].definition
            remote |= definition.alias_node not in {"", self._state.node.name}
            edge |= self._state.mirror(check_id, self._result(definition), self._now())
        if edge:
            self._edge()
        return remote

    def _result(self, check: CheckDefinition) -> CheckResult:
        node, service = check.alias_node or self._state.node.name, check.alias_service
        what = f"Service {service!r} on node {node!r}" if service else f"Node {node!r}"
        local = node == self._state.node.name
        exists, rows = self._local(service) if local else self._remote(node, service)
        return alias_result(what, exists, (row for row in rows if row.check_id != check.check_id))

    def _local(self, service: str) -> tuple[bool, list[Check]]:
        """Checks of the host, and of the instance if one is named."""
        state = self._state
        checks = [*state.node_checks(), *(state.checks_of(service) if service else ())]
        return not service or service in state.services, checks

    def _remote(self, node: str, service: str) -> tuple[bool, list[Check]]:
        """Likewise, of another host; its lease is among them."""
        catalog = self._catalog()
        exists = catalog.service(node, service) is not None if service else node in catalog.nodes
        return exists, [row for row in catalog.checks_of(node) if row.service_id in {"", service}]
