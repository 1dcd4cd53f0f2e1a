"""What the demo looks at: each question goes to the address it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype
import msgspec

from raftreg.client.api import RegistryClient
from raftreg.client.options import Consistency, Read
from raftreg.client.records import HealthEntry
from raftreg.clock import Clock
from raftreg.errors import RaftregError
from raftreg.model import Check
from raftreg_cli.demo.plan import Host, Plan
from raftreg_cli.demo.stage import DemoFailure

T = TypeVar("T")
STALE = Read(consistency=Consistency.STALE)
_POLL_S = 0.05
_QUESTION_TIMEOUT_S = 1.0


class View(msgspec.Struct, frozen=True):
    """The mesh at one moment, as one of its processes sees it.

    Attributes:
        leader: Raft address of the leader, "" while there is none.
        servers: Name to its row of autopilot's health.
        nodes: Node to status of its lease.
        services: Service to its instances.
    """

    leader: str
    servers: dict[str, dict[str, Any]]
    nodes: dict[str, str]
    services: dict[str, list[HealthEntry]]


class Probe:
    """Clients of every host of the demo; an async context manager.

    Args:
        layout: The hosts.
        clock: Source of time.
        rng: Source of jitter.
    """

    def __init__(self, layout: Plan, clock: Clock, rng: Random) -> None:
        self.plan = layout
        self.clock = clock
        self._stack = AsyncExitStack()
        self._clients = {
            host.name: RegistryClient([host.http], timeout_s=_QUESTION_TIMEOUT_S, rng=rng)
            for host in layout.hosts
        }

    async def __aenter__(self) -> Self:
        for client in self._clients.values():
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def at(self, host: Host) -> RegistryClient:
        """The client that asks this host and no other."""
        return self._clients[host.name]

    async def leader(self, hosts: tuple[Host, ...]) -> str:
        """The leader's Raft address by the first of these hosts that answers; "" when none."""
        for host in hosts:
            try:
                if found := await self.at(host).status.leader():
                    return found
            except RaftregError:
                continue
        return ""

    async def view(self, hosts: tuple[Host, ...]) -> View:
        """Everything at once, by the first of these hosts that answers.

        Raises:
            RaftregError: None did.
        """
        failure: RaftregError = DemoFailure("no host was asked")
        for host in hosts:
            try:
                return await self._view_of(self.at(host))
            except RaftregError as error:
                failure = error
        raise failure

    async def _view_of(self, client: RegistryClient) -> View:
        leader = await client.status.leader()
        checks = await client.health.state(None, read=STALE)
        names = await client.catalog.services(read=STALE)
        services = {
            name: await client.health.service(name, read=STALE)
            for name in sorted(names)
            if name != "consul"
        }
        return View(leader, await _autopilot(client), _leases(checks), services)

    async def dns_srv(self, host: Host, service: str) -> set[tuple[str, int]]:
        """(address, port) of a service by SRV over UDP from this host's DNS.

        Raises:
            DemoFailure: No answer, or none that can be read.
        """
        query = dns.message.make_query(f"{service}.service.consul.", "SRV", use_edns=True)
        try:
            answer = await dns.asyncquery.udp(
                query, host.address, port=host.dns_port, timeout=_QUESTION_TIMEOUT_S
            )
        except (dns.exception.DNSException, OSError) as error:
            raise DemoFailure(f"DNS at {host.address}:{host.dns_port}: {error!r}") from error
        addresses = {
            rrset.name: record.address
            for rrset in answer.additional
            if rrset.rdtype == dns.rdatatype.A
            for record in rrset
        }
        return {
            (addresses.get(record.target, str(record.target)), record.port)
            for rrset in answer.answer
            if rrset.rdtype == dns.rdatatype.SRV
            for record in rrset
        }

    async def until(
        self,
        what: str,
        condition: Callable[[], Awaitable[T | None]],
        limit_s: float,
        *,
        watch: Callable[[], None] = lambda: None,
        poll_s: float = _POLL_S,
    ) -> T:
        """Asks again until the condition gives something.

        Args:
            what: For the error's text.
            condition: Gives None (or fails with one of our errors) while it does not hold.
            limit_s: Seconds after which it is given up.
            watch: Is called each time; may raise.
            poll_s: Seconds between two looks.

        Raises:
            DemoFailure: It did not come to hold; the text says why when that is known.
        """
        deadline = self.clock.monotonic() + limit_s
        reason = ""
        while True:
            watch()
            try:
                found = await condition()
                if found:
                    return found
            except RaftregError as error:
                reason = f": {error.message}"
            if self.clock.monotonic() > deadline:
                raise DemoFailure(f"gave up after {limit_s:g} s waiting for {what}{reason}")
            await asyncio.sleep(poll_s)


async def _autopilot(client: RegistryClient) -> dict[str, dict[str, Any]]:
    try:
        found = await client.operator.autopilot_health()
    except RaftregError:  # without a leader nobody knows
        return {}
    return {str(row.get("Name")): row for row in found.get("Servers") or ()}


def _leases(checks: list[Check]) -> dict[str, str]:
    return {check.node: check.status.value for check in checks if check.check_id == "serfHealth"}
