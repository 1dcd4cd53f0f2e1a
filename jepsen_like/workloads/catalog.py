"""The catalog: instances come, go and change their health, and are looked for everywhere.

The vocabulary is that of `jepsen_like.checkers.catalog`. Instances on hosts without an agent are
registered through any server, and each agent registers instances of its own host. Looks ask servers
and agents, by HTTP and by DNS, where the port tells which instance a record means. There are few
instances at a time, so that an answer over UDP holds them all.

Whether the host of an agent is alive is no operation, so a look by HTTP leaves that out and counts
the checks of the instance alone. DNS does not; its looks are judged when everything has settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from jepsen_like.checkers.catalog import SETTLE_S, check_catalog
from jepsen_like.checkers.verdict import Checker
from jepsen_like.history import Type
from jepsen_like.workloads import catalog_calls as calls
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.catalog_calls import Placement
from jepsen_like.workloads.steps import Stepwise

SERVICE: Final = "jepsen-catalog"
PORT: Final = 20_000
LOCAL_PER_AGENT: Final = 3
#: Final looks begin with a pause, so that they are spread over the time to settle.
FINAL_PAUSE_S: Final = 0.2
SETTLED_MARGIN_S: Final = 1.0
_HOSTS: Final = {"jepsen-catalog-1": "192.0.2.11", "jepsen-catalog-2": "192.0.2.12"}
_TTL: Final = "24h"  # the check of an instance changes by operations alone
_SHARES: Final = {"look": 40, "register": 20, "deregister": 15, "health": 25}


class Catalog(Stepwise):
    """See the module.

    Args:
        instances: How many there are on hosts without an agent.
    """

    name = "catalog"
    agents = 2

    def __init__(self, *, instances: int = 8) -> None:
        hosts = list(_HOSTS.items())
        self._placements = {
            f"i{number}": Placement(
                *hosts[number % len(hosts)], SERVICE, f"i{number}", PORT + number
            )
            for number in range(instances)
        }
        self._locals: dict[str, tuple[str, int]] = {}  # agent and port by instance
        self._by_port = {what.port: name for name, what in self._placements.items()}

    async def setup(self, context: Context) -> None:
        """Registers the hosts without an agent."""
        for host, address in _HOSTS.items():
            await calls.add_host(context, host, address)

    # -- what to do ------------------------------------------------------------------------------

    def next(self, context: Context) -> Invocation:
        """See `Workload.next`."""
        self._place_locals(context)
        rng = context.rng
        f = rng.choices(tuple(_SHARES), tuple(_SHARES.values()))[0]
        if f == "look":
            return self._look(context)
        instance = rng.choice([*self._placements, *self._locals])
        local = instance in self._locals
        node = self._locals[instance][0] if local else None
        passing = None if f == "deregister" or (local and f == "register") else _coin(context)
        value = {"passing": passing, "local": local}
        return Invocation(f, instance, value, node)

    def _place_locals(self, context: Context) -> None:
        if self._locals:
            return
        for agent in context.agents:
            for _ in range(LOCAL_PER_AGENT):
                port = PORT + 1000 + len(self._locals)
                instance = f"local{len(self._locals)}"
                self._locals[instance] = (agent, port)
                self._by_port[port] = instance

    def _look(self, context: Context) -> Invocation:
        rng = context.rng
        node = rng.choice([*context.servers, *context.agents])
        via = rng.choice(("http", "dns"))
        level = "stale" if via == "dns" else rng.choice(("default", "stale"))
        return _look(node, via, level)

    def final(self, context: Context) -> Iterator[Invocation]:
        """Looks everywhere, until some time after everything must have settled."""
        loop = asyncio.get_running_loop()
        settled_s = loop.time() + SETTLE_S + SETTLED_MARGIN_S
        while True:
            last = loop.time() >= settled_s
            for node in (*context.servers, *context.agents):
                for via in ("http", "dns"):
                    yield _look(node, via, "stale", final=True)
            if last:
                return

    # -- how it is done --------------------------------------------------------------------------

    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """See `Stepwise.steps`."""
        if invocation.f == "look":
            return await self._looked(context, node, invocation)
        assert invocation.key is not None
        if invocation.key in self._locals:
            await self._tell_agent(context, node, invocation, invocation.key)
            return Completion(Type.OK, invocation.value, node)
        what, door = self._placements[invocation.key], context.door
        passing = invocation.value["passing"]
        match invocation.f:
            case "register":
                index = await calls.register(door, node, what, passing=passing)
            case "health":
                index = await calls.set_health(door, node, what, passing=passing)
            case _:
                index = await calls.deregister(door, node, what)
        return Completion(Type.OK, invocation.value, node, index)

    async def _tell_agent(
        self, context: Context, agent: str, invocation: Invocation, instance: str
    ) -> None:
        body = None
        match invocation.f:
            case "register":
                path = "service/register"
                _, port = self._locals[instance]
                check = {"TTL": _TTL, "Status": "passing"}
                body = {"ID": instance, "Name": SERVICE, "Port": port, "Check": check}
            case "health":
                verb = "pass" if invocation.value["passing"] else "fail"
                path = f"check/{verb}/service:{instance}"
            case _:
                path = f"service/deregister/{instance}"
        await calls.tell_agent(context.door, agent, path, body)

    async def _looked(self, context: Context, node: str, invocation: Invocation) -> Completion:
        if invocation.value["final"]:
            await asyncio.sleep(FINAL_PAUSE_S)
        if invocation.value["via"] == "dns":
            found = await calls.ports(context.door, node, SERVICE)
            shown = [[self._named(port), True] for port in found]
            return Completion(Type.OK, sorted(shown), node)
        params = {"stale": ""} if invocation.value["level"] == "stale" else {}
        entries, answer = await calls.entries(context.door, node, SERVICE, params=params)
        shown = [[entry.service.id, entry.passing(host_too=False)] for entry in entries]
        return Completion(Type.OK, sorted(shown), node, answer.index)

    def _named(self, port: int) -> str:
        return self._by_port.get(port, f"port {port}")

    def checker(self) -> Checker:
        """See `jepsen_like.checkers.catalog`."""
        return check_catalog


def _coin(context: Context) -> bool:
    return bool(context.rng.randrange(2))


def _look(node: str, via: str, level: str, *, final: bool = False) -> Invocation:
    return Invocation("look", value={"via": via, "level": level, "final": final}, node=node)
