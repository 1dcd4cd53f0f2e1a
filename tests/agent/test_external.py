"""Checks of hosts without an agent: whose turn they are, and what is written of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.clock import ManualClock
from raftreg.config import ExternalCheckSettings
from raftreg.core.apply import apply
from raftreg.core.catalog import Catalog
from raftreg.core.changes import ALL, Topic
from raftreg.core.commands import CatalogVerb, CheckOp, Command, Deregister, Register, Txn
from raftreg.core.delta import CatalogDelta
from raftreg.core.results import Refused, TxnResult
from raftreg.core.state import State
from raftreg.errors import NotProposed
from raftreg.http.decode import CheckDefinition, CheckKind
from raftreg.http.external import HOST_CHECK, external_definition, host_definition
from raftreg.model import Check, Node, ServiceInstance, Status
from raftreg_agent.checks.machine import CheckResult
from raftreg_agent.external import ExternalChecks, owner_of
from tests.server.conftest import until

Listener = Callable[[tuple[Topic, ...], tuple[CatalogDelta, ...], int], None]
PASSING = CheckResult(Status.PASSING, "well")
FAILING = CheckResult(Status.CRITICAL, "no answer")


class World:
    """One registry, and the servers that look after its hosts."""

    def __init__(self) -> None:
        self.state = State()
        self.clock = ManualClock()
        self.alive: set[str] = set()
        self.listeners: list[Listener] = []
        self.answers: dict[str, CheckResult] = {}
        self.probed: list[tuple[str, str]] = []
        self.written: list[Command] = []
        self.fails = False
        self.serving: list[ExternalChecks] = []

    def run(self, command: Command) -> Any:
        """Applies a command and tells all servers."""
        applied = apply(self.state, command, 0)
        assert not isinstance(applied.result, Refused), applied.result
        for listener in self.listeners:
            listener(applied.topics, applied.deltas, self.state.index)
        return applied.result

    def host(self, name: str, *checks: Check, **meta: str) -> None:
        """Registers a host without an agent, with a service."""
        node = Node(name=name, address="10.0.0.9", meta={"external-node": "true"} | meta)
        service = ServiceInstance(node=name, id="web", name="web", port=80)
        self.run(Register(node=node, service=service, checks=checks))

    def status(self, node: str, check_id: str = "c") -> Status | None:
        """What the registry shows."""
        row = self.state.catalog.check(node, check_id)
        return None if row is None else row.status


class Seat:
    """A server's place in the world: an `ExternalRegistry`, and its runners."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.connected = True
        world.alive.add(name)

    def me(self) -> str:
        """Its name."""
        return self.name

    def members(self) -> frozenset[str]:
        """Who lives."""
        return frozenset(self.world.alive) if self.connected else frozenset()

    def catalog(self) -> Catalog:
        """The one catalog."""
        return self.world.state.catalog

    def on_change(self, changed: Listener) -> None:
        """Adds a listener."""
        self.world.listeners.append(changed)

    async def write(self, command: Command) -> bool:
        """Writes at once."""
        if self.world.fails:
            raise NotProposed("no leader")
        self.world.written.append(command)
        result = self.world.run(command)
        return result.ok if isinstance(result, TxnResult) else bool(result)

    async def run(self, check: CheckDefinition) -> CheckResult:
        """Probes: as the world says."""
        node = check.check_id.partition("\0")[0]
        self.world.probed.append((self.name, check.check_id))
        return self.world.answers.get(node, PASSING)


@asynccontextmanager
async def serving(
    world: World, *names: str, **settings: Any
) -> AsyncIterator[dict[str, tuple[Seat, ExternalChecks]]]:
    """Servers that run while the block does."""
    made: dict[str, tuple[Seat, ExternalChecks]] = {}
    for name in names:
        seat = Seat(world, name)
        made[name] = (
            seat,
            ExternalChecks(
                seat,
                {CheckKind.HTTP: seat, CheckKind.TCP: seat, CheckKind.SCRIPT: seat},
                ExternalCheckSettings(enabled=True, **settings),
                world.clock,
                Random(1),
                forget_after_s=3600.0,
            ),
        )
    world.serving = [checks for _, checks in made.values()]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(checks.run(group)) for checks in world.serving]
        await asyncio.sleep(0)  # they begin
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()


def _check(node: str, check_id: str = "c", **definition: Any) -> Check:
    given = {"HTTP": "http://10.0.0.9/", "Interval": "10s"} | definition
    return Check(node=node, check_id=check_id, name="c", service_id="web", definition=given)


async def _ticking(world: World, condition: Callable[[], object]) -> None:
    """Moves the clock in small steps until a condition holds."""
    while not condition():
        await asyncio.sleep(0)
        world.clock.advance(0.5)
        for checks in world.serving:
            checks.look()


@given(st.integers(2, 6), st.integers(0, 5))
def test_a_death_moves_the_checks_of_the_dead_alone(count: int, dies: int) -> None:
    """Every check has one owner, shares are about equal, and the others keep what they have."""
    members = [f"s{number}" for number in range(count)]
    dead = members[dies % count]
    keys = [f"n{number}\0c" for number in range(600)]
    before = {key: owner_of(key, members) for key in keys}
    after = {key: owner_of(key, set(members) - {dead}) for key in keys}
    assert {key for key in keys if before[key] != after[key]} == {
        key for key in keys if before[key] == dead
    }
    shares = [list(before.values()).count(member) for member in members]
    assert min(shares) > 600 / count / 2


async def test_every_check_is_probed_by_one_server_and_taken_over_when_it_dies() -> None:
    """Also when the dead one comes back; nothing is probed by two that see the same members."""
    world = World()
    for number in range(30):
        world.host(f"n{number}", _check(f"n{number}"))
    async with serving(world, "s1", "s2", "s3") as servers:

        def counts() -> list[int]:
            return [checks.count for _, checks in servers.values()]

        await until(lambda: sum(counts()) == 30)
        shares = counts()
        assert all(shares)
        world.alive.discard("s1")
        await until(lambda: servers["s1"][1].count == 0 and sum(counts()) == 30)
        assert counts()[1] >= shares[1]
        assert counts()[2] >= shares[2]
        world.alive.add("s1")
        await until(lambda: counts() == shares)


async def test_only_edges_are_written_on_the_row_that_was_judged() -> None:
    """The first success makes the check passing; further ones write nothing; a failure does."""
    world = World()
    world.host("n1", _check("n1"))
    async with serving(world, "s1"):
        await _ticking(world, lambda: world.status("n1") is Status.PASSING)
        written = len(world.written)
        probes = len(world.probed)
        await _ticking(world, lambda: len(world.probed) >= probes + 3)
        assert len(world.written) == written
        world.answers["n1"] = FAILING
        await _ticking(world, lambda: world.status("n1") is Status.CRITICAL)
    (row,) = [check for check in world.state.catalog.all_checks() if check.check_id == "c"]
    assert row.output == "no answer"
    assert row.service_name == "web"
    for command in world.written:
        assert isinstance(command, Txn)
        (op,) = command.operations
        assert isinstance(op, CheckOp)
        assert (op.verb, op.index > 0) == (CatalogVerb.CAS, True)


async def test_who_takes_over_begins_with_what_the_registry_shows() -> None:
    """A healthy instance does not become critical because its server died (wish 5)."""
    world = World()
    world.host("n1", _check("n1", SuccessBeforePassing=2, FailuresBeforeCritical=3))
    async with serving(world, "s1"):
        await _ticking(world, lambda: world.status("n1") is Status.PASSING)
    world.written.clear()
    async with serving(world, "s1"):
        await _ticking(world, lambda: len(world.probed) >= 6)
    assert world.written == []


async def test_thresholds_are_those_of_the_definition() -> None:
    """Two failures of three are no news, the third is."""
    world = World()
    world.host("n1", _check("n1", FailuresBeforeCritical=3))
    async with serving(world, "s1"):
        await _ticking(world, lambda: world.status("n1") is Status.PASSING)
        world.answers["n1"] = FAILING
        probes = len(world.probed)
        await _ticking(world, lambda: world.status("n1") is Status.CRITICAL)
        assert len(world.probed) >= probes + 3


async def test_what_could_not_be_written_is_told_after_the_next_probe() -> None:
    """No edge is lost while there is no leader, and nothing piles up."""
    world = World()
    world.host("n1", _check("n1"))
    world.fails = True
    async with serving(world, "s1"):
        await _ticking(world, lambda: len(world.probed) >= 3)
        assert world.status("n1") is Status.CRITICAL
        world.fails = False
        await _ticking(world, lambda: world.status("n1") is Status.PASSING)


async def test_a_server_that_is_cut_off_probes_no_more() -> None:
    """Nothing runs without a leader; with one again it goes on."""
    world = World()
    world.host("n1", _check("n1"))
    async with serving(world, "s1") as servers:
        seat, checks = servers["s1"]
        await until(lambda: checks.count == 1)
        seat.connected = False
        await until(lambda: checks.count == 0)
        seat.connected = True
        await until(lambda: checks.count == 1)


async def test_hosts_and_checks_come_and_go() -> None:
    """Deregistered, turned into a host with an agent, restored: what runs follows."""
    world = World()
    async with serving(world, "s1") as servers:
        _, checks = servers["s1"]
        world.host("n1", _check("n1"))
        await until(lambda: checks.count == 1)
        world.host("n1", _check("n1", "d"))
        await until(lambda: checks.count == 2)
        world.run(Deregister(node="n1", check_id="c"))
        await until(lambda: checks.count == 1)
        world.run(Register(node=Node(name="n1", address="10.0.0.9")))
        await until(lambda: checks.count == 0)
        world.host("n1")
        world.host("n2", _check("n2"))
        await until(lambda: checks.count == 2)
        world.state = State()
        for listener in world.listeners:
            listener((ALL,), (), 1)
        await until(lambda: checks.count == 0)


async def test_a_service_that_stays_critical_goes_and_a_host_too() -> None:
    """After the time that the definition says, if it still is critical then."""
    world = World()
    check = _check("n1", DeregisterCriticalServiceAfter="2m")
    world.host("n1", check, **{"external-probe": "true", "external-probe-port": "22"})
    world.answers["n1"] = FAILING
    async with serving(world, "s1"):
        await _ticking(world, lambda: world.status("n1", HOST_CHECK) is Status.CRITICAL)
        began_s = world.clock.monotonic()
        await _ticking(world, lambda: world.state.catalog.service("n1", "web") is None)
        assert 60 < world.clock.monotonic() - began_s < 240
        await _ticking(world, lambda: "n1" not in world.state.catalog.nodes)
        assert world.clock.monotonic() - began_s > 3_500


async def test_a_host_is_probed_when_it_asks_for_it() -> None:
    """Its own check appears with the first probe, under the monitor's name."""
    world = World()
    world.host("n1", **{"external-probe": "true", "external-probe-port": "22"})
    async with serving(world, "s1"):
        await _ticking(world, lambda: world.status("n1", HOST_CHECK) is Status.PASSING)
    row = world.state.catalog.check("n1", HOST_CHECK)
    assert row is not None
    assert (row.name, row.service_id) == ("External Node Status", "")


async def test_the_number_of_checks_is_bounded() -> None:
    """What is too much is not run, and said once; room that comes is used."""
    world = World()
    for number in range(5):
        world.host(f"n{number}", _check(f"n{number}"))
    async with serving(world, "s1", checks_max=3) as servers:
        _, checks = servers["s1"]
        await until(lambda: checks.count == 3)
        world.run(Deregister(node="n0"))
        world.host("n9", _check("n9"))
        await until(lambda: checks.count == 3)
        assert "n0" not in {key.partition("\0")[0] for _, key in world.probed[-3:]}


@pytest.mark.parametrize(
    ("definition", "kind"),
    [
        ({"HTTP": "http://x/", "Interval": "5s"}, CheckKind.HTTP),
        ({"http": "http://x/", "IntervalDuration": "5s", "TimeoutDuration": "1s"}, CheckKind.HTTP),
        ({"TCP": "x:1", "Interval": "0s", "HTTP": "", "GRPC": ""}, CheckKind.TCP),
        ({"TCP": "x:1", "Interval": 5_000_000_000}, CheckKind.TCP),
        ({"UDP": "x:1"}, CheckKind.UDP),
        ({"GRPC": "x:1/s", "Interval": "5s"}, CheckKind.GRPC),
        ({"TTL": "30s"}, CheckKind.TTL),
        ({}, None),
        ({"Interval": "5s"}, None),
        ({"ScriptArgs": ["true"], "Interval": "5s"}, None),
        ({"AliasService": "web"}, None),
        ({"HTTP": 5}, None),
        ({"HTTP": "http://x/", "Interval": "soon"}, None),
        ({"HTTP": "http://x/", "TCP": "x:1"}, None),
    ],
)
def test_what_a_definition_makes_run(definition: dict[str, Any], kind: CheckKind | None) -> None:
    """Both spellings of the monitor; what can't be understood, or must not run, runs nothing."""
    found = external_definition(Check(node="n", check_id="c", name="c", definition=definition))
    assert (None if found is None else found.kind) == kind
    if found is not None and kind is not CheckKind.TTL:
        assert found.interval_s in (5.0, 30.0)


@pytest.mark.parametrize(
    ("meta", "checks", "address"),
    [
        ({}, [], None),
        ({"external-probe": "true"}, [], None),
        ({"external-probe": "true"}, [{"TCP": "other:8080", "Interval": "5s"}], "10.0.0.9:8080"),
        ({"external-probe": "true"}, [{"HTTP": "https://x/", "Interval": "5s"}], "10.0.0.9:443"),
        ({"external-probe": "true", "external-probe-port": "22"}, [], "10.0.0.9:22"),
        ({"external-probe": "true", "external-probe-port": "x"}, [{"TCP": "o:80"}], None),
        ({"external-probe": "true", "external-probe-port": "70000"}, [], None),
    ],
)
def test_where_a_host_is_probed(
    meta: dict[str, str], checks: list[dict[str, str]], address: str | None
) -> None:
    """The port of its metadata, else that of its first check; nothing where there is none."""
    world = World()
    rows = [
        Check(node="n1", check_id=f"c{number}", name="c", definition=definition)
        for number, definition in enumerate(checks)
    ]
    world.host("n1", *rows, **meta)
    found = host_definition(world.state.catalog.nodes["n1"], world.state.catalog)
    assert (None if found is None else found.tcp) == address
