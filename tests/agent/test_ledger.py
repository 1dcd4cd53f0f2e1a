from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftreg.clock import ManualClock
from raftreg.core import commands
from raftreg.core.apply import apply
from raftreg.core.commands import NodeSync
from raftreg.core.digest import node_digest
from raftreg.core.state import State
from raftreg.http.decode import CheckDefinition, CheckKind, ServiceDefinition
from raftreg.model import SERF_HEALTH, Node, ServiceInstance, Status
from raftreg_agent.checks.machine import CheckResult
from raftreg_agent.ledger import SyncLedger
from raftreg_agent.state import LocalState, Source

NODE = Node(name="n1", id="6f3b0f0e-8f0c-4ad5-8a2e-0f4f5b1d8a01", address="10.0.0.1")


def ttl(check_id: str, service_id: str = "") -> CheckDefinition:
    """A TTL check."""
    return CheckDefinition(
        check_id=check_id, name=check_id, kind=CheckKind.TTL, ttl_s=10.0, service_id=service_id
    )


def service(service_id: str, *checks: CheckDefinition, port: int = 80) -> ServiceDefinition:
    """An instance with checks."""
    row = ServiceInstance(node="n1", id=service_id, name="web", port=port)
    return ServiceDefinition(row, checks)


class World:
    """An agent's tables, its ledger, and a registry that takes what is sent."""

    def __init__(self) -> None:
        self.ledger = SyncLedger()
        self.local = LocalState(NODE, self.ledger)
        self.registry = State()
        self.clock = ManualClock()
        self.sent: list[NodeSync] = []

    def take(self, command: NodeSync) -> None:
        """Applies what was sent."""
        self.sent.append(command)
        applied = apply(self.registry, commands.decode(commands.encode(command)), 0)
        assert applied.result is True, applied.result

    def sync(self, *, rows_max: int = 4096) -> list[NodeSync]:
        """Sends until nothing waits; gives what was sent."""
        before = len(self.sent)
        while (batch := self.ledger.next_batch(self.local, rows_max=rows_max)) is not None:
            self.take(batch.command)
            self.ledger.acknowledged(batch, self.clock.monotonic())
        return self.sent[before:]

    def registry_digest(self) -> str:
        """Digest of what the registry holds."""
        catalog = self.registry.catalog
        return node_digest(catalog.nodes["n1"], catalog.services_of("n1"), catalog.checks_of("n1"))

    def assert_equal(self) -> None:
        """Registry and agent hold the same."""
        catalog = self.registry.catalog
        assert {row.id for row in catalog.services_of("n1")} == set(self.local.services)
        checks = {row.check_id: row.status for row in catalog.checks_of("n1")}
        checks.pop(SERF_HEALTH, None)
        assert checks == {
            check_id: check.machine.status for check_id, check in self.local.checks.items()
        }
        assert self.ledger.digest() == self.registry_digest()


def test_the_first_sync_says_everything_and_removes_the_rest() -> None:
    """What somebody put on this host through the catalog is gone after the first full sync."""
    world = World()
    ghost = ServiceInstance(node="n1", id="ghost", name="ghost")
    world.take(NodeSync(node=NODE, services=(ghost,)))
    world.local.put_service(service("web", ttl("c", "web")), Source.API, 0.0)
    assert [command.full for command in world.sync()] == [True]
    world.assert_equal()


def test_an_identical_registration_sends_nothing() -> None:
    """Clients that register again and again cost no log entry."""
    world = World()
    for _ in range(2):
        world.local.put_service(service("web", ttl("c", "web")), Source.API, 0.0)
        world.sync()
    assert len(world.sent) == 1
    assert world.ledger.synced == world.ledger.revision


def test_only_an_edge_sends_a_check() -> None:
    """The same status again sends nothing, whatever its output; a changed status does."""
    world = World()
    world.local.put_service(service("web", ttl("c", "web")), Source.API, 0.0)
    world.sync()
    world.local.observe("c", CheckResult(Status.CRITICAL, "still down"), 1.0)
    assert world.sync() == []
    world.local.observe("c", CheckResult(Status.PASSING, "up"), 2.0)
    (command,) = world.sync()
    assert [check.output for check in command.checks] == ["up"]


def test_an_output_alone_is_sent_after_some_minutes() -> None:
    """The registry gets newest outputs late; what it has and what is believed stay equal."""
    world = World()
    world.local.put_service(service("web", ttl("c", "web")), Source.API, 0.0)
    world.sync()
    world.local.observe("c", CheckResult(Status.CRITICAL, "new words"), 1.0)
    world.clock.advance(299.0)
    assert not world.ledger.touch_stale_outputs(world.local, world.clock.monotonic())
    assert world.ledger.digest() == world.registry_digest()
    world.clock.advance(1.0)
    assert world.ledger.touch_stale_outputs(world.local, world.clock.monotonic())
    (command,) = world.sync()
    assert [check.output for check in command.checks] == ["new words"]


def test_a_definite_failure_sends_the_same_again() -> None:
    """Nothing is forgotten, and what changed meanwhile goes along."""
    world = World()
    world.sync()
    world.local.put_service(service("a"), Source.API, 0.0)
    batch = world.ledger.next_batch(world.local)
    assert batch is not None
    world.local.put_service(service("b"), Source.API, 0.0)
    world.ledger.failed(batch, definite=True)
    (command,) = world.sync()
    assert [row.id for row in command.services] == ["a", "b"]


def test_wish_01_no_ghosts_after_an_unknown_outcome() -> None:
    """A registration that took effect unheard, and was taken back meanwhile, does not stay."""
    world = World()
    world.sync()
    world.local.put_service(service("a"), Source.API, 0.0)
    batch = world.ledger.next_batch(world.local)
    assert batch is not None
    world.take(batch.command)  # it arrived; the answer did not
    world.ledger.failed(batch, definite=False)
    world.local.remove_service("a")
    world.sync()
    world.assert_equal()


def test_a_host_too_large_for_one_sync_is_synced_in_parts() -> None:
    """Starting from ids alone, everything of ours is sent and everything else removed."""
    world = World()
    ghost = ServiceInstance(node="n1", id="ghost", name="ghost")
    world.take(NodeSync(node=NODE, services=(ghost,)))
    for number in range(10):
        world.local.put_service(
            service(f"s{number}", ttl(f"c{number}", f"s{number}")), Source.API, 0
        )
    world.ledger.assume(world.local, ["ghost"], [])
    assert len(world.sync(rows_max=3)) > 3
    world.assert_equal()


def test_a_refused_row_is_set_aside_until_it_changes() -> None:
    """The others go on; a new registration of the row is tried again."""
    world = World()
    world.sync()
    world.local.put_service(service("bad"), Source.API, 0.0)
    batch = world.ledger.next_batch(world.local)
    assert batch is not None
    world.ledger.refuse(batch, "no such thing")
    assert world.sync() == []
    assert world.ledger.synced == world.ledger.revision
    world.local.put_service(service("bad", port=81), Source.API, 0.0)
    assert world.ledger.refused == {}
    assert len(world.sync()) == 1


ids = st.sampled_from("abc")
actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), ids, st.integers(1, 3)),
        st.tuples(st.just("drop"), ids, st.just(0)),
        st.tuples(st.just("check"), ids, st.integers(0, 2)),
        st.tuples(st.just("uncheck"), ids, st.integers(0, 2)),
        st.tuples(st.just("observe"), ids, st.integers(0, 2)),
        st.tuples(st.just("deliver"), st.just(""), st.integers(1, 3)),
        st.tuples(st.just("lose"), st.just(""), st.integers(0, 1)),
        st.tuples(st.just("arrive-unheard"), st.just(""), st.just(0)),
        st.tuples(st.just("meddle"), ids, st.just(0)),
    ),
    max_size=40,
)


@given(actions)
def test_anti_entropy_always_ends_equal(steps: list[tuple[str, str, int]]) -> None:
    """Whatever is registered, lost, delivered unheard or meddled with: after the last full sync
    that a differing digest asks for, registry and agent hold the same.
    """
    world = World()
    for verb, key, number in steps:
        _act(world, verb, key, number)
    world.sync()
    if world.ledger.digest() != world.registry_digest():
        world.ledger.require_full()
        world.sync()
    world.assert_equal()


def _act(world: World, verb: str, key: str, number: int) -> None:
    match verb:
        case "put":
            world.local.put_service(service(key, port=number), Source.API, 0.0)
        case "drop":
            world.local.remove_service(key)
        case "check":
            owner = key if key in world.local.services else ""
            world.local.put_check(ttl(f"c{number}", owner), Source.API, 0.0)
        case "uncheck":
            world.local.remove_check(f"c{number}")
        case "observe":
            result = CheckResult(list(Status)[number], "seen")
            world.local.observe(f"c{number}", result, 0.0)
        case "meddle":
            row = ServiceInstance(node="n1", id=key, name="meddled", port=9)
            world.take(NodeSync(node=NODE, services=(row,)))
        case _:
            _send(world, verb, number)


def _send(world: World, verb: str, number: int) -> None:
    batch = world.ledger.next_batch(world.local, rows_max=max(1, number))
    if batch is None:
        return
    if verb == "lose":
        world.ledger.failed(batch, definite=bool(number))
        return
    world.take(batch.command)
    if verb == "deliver":
        world.ledger.acknowledged(batch, 0.0)
    else:
        world.ledger.failed(batch, definite=False)
