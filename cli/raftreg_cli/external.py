"""A server's share of the checks of hosts without an agent, wired to the server."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from raftreg.core.catalog import Catalog
from raftreg.core.changes import Topic
from raftreg.core.commands import Command
from raftreg.core.delta import CatalogDelta
from raftreg.core.results import TxnResult
from raftreg.http.decode import CheckKind
from raftreg.model import SERF_HEALTH, Status
from raftreg.raft.api import ReplicaAPI
from raftreg.server.app import RegistryServer
from raftreg.server.machine import RegistryMachine
from raftreg_agent.external import ExternalChecks
from raftreg_agent.local import default_runners
from raftreg_agent.metrics import ExternalCollector

if TYPE_CHECKING:
    from raftreg_cli.host import Host

#: A server that has heard of no leader for so long leaves its checks to the others, which see its
#: lease end after about as long.
CUT_OFF_S = 3.0


class ServerRegistry:
    """An `ExternalRegistry` over a server of this process.

    Args:
        name: Name of this server.
        replica: Tells who is a member, and who leads.
        machine: Holds the catalog.
        server: Takes writes.
    """

    def __init__(
        self, name: str, replica: ReplicaAPI, machine: RegistryMachine, server: RegistryServer
    ) -> None:
        self._name = name
        self._replica = replica
        self._machine = machine
        self._server = server

    def me(self) -> str:
        """Name of this server."""
        return self._name

    def members(self) -> frozenset[str]:
        """Names of the servers whose hosts hold their lease; none while this one is cut off."""
        status = self._replica.status()
        age_s = status.leader_contact_age_s
        if status.leader_id is None or age_s is None or age_s > CUT_OFF_S:
            return frozenset()
        return frozenset(one.name for one in status.servers if self._lives(one.name))

    def _lives(self, name: str) -> bool:
        lease = self.catalog().check(name, SERF_HEALTH)
        return lease is not None and lease.status is Status.PASSING

    def catalog(self) -> Catalog:
        """The catalog as this server has it."""
        return self._machine.state.catalog

    def on_change(
        self,
        changed: Callable[[tuple[Topic, ...], tuple[CatalogDelta, ...], int], None],
    ) -> None:
        """Adds a listener for changes of the state."""
        self._machine.on_change(changed)

    async def write(self, command: Command) -> bool:
        """Writes; False when a condition did not hold."""
        result = (await self._server.write(command)).result
        return result.ok if isinstance(result, TxnResult) else bool(result)


def external_checks(parts: Host, server: RegistryServer) -> ExternalChecks:
    """Makes this server's share, counted on the server's page of metrics."""
    runners = default_runners()
    if importlib.util.find_spec("grpc") is None:
        del runners[CheckKind.GRPC]
    settings = parts.settings
    checks = ExternalChecks(
        ServerRegistry(settings.node, parts.replica, parts.machine, server),
        runners,
        settings.external_checks,
        parts.clock,
        parts.rng,
        forget_after_s=settings.reap_after_s,
    )
    server.metrics.register(ExternalCollector(checks))
    return checks
