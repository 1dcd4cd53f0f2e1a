"""Random faults and load from a seed, then healing, then the final reckoning."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftreg.errors import RaftregError
from raftreg.raft.membership import Configuration
from tests.sim.scheduler import Violation
from tests.sim.server import SimServer
from tests.sim.world import World, server_of

TRACE_LINES_MAX = 60


class Outcome(msgspec.Struct, frozen=True):
    """What a run amounted to.

    Attributes:
        writes, acked: Writes of clients before the healing, and how many were acknowledged.
        reads: Reads answered.
        terms: Highest term that had a leader.
        snapshots: Snapshots installed from a leader.
    """

    seed: int
    digest: str
    writes: int
    acked: int
    reads: int
    terms: int
    snapshots: int
    wiped: int


class Schedule:
    """Drives a `World` through faults.

    Args:
        world: The cluster.
        load: Client operations a simulated second.
        fault_every_s: Mean time between faults.
    """

    def __init__(self, world: World, load: float = 60.0, fault_every_s: float = 0.5) -> None:
        self.world = world
        self.rng = world.rng
        self.load = load
        self.fault_every_s = fault_every_s
        self.quiet_until = 0.0
        self.must_ack = False
        # In every third run nobody restarts what is down until a fault of that name does.
        world.restart_mean_s = None if world.seed % 3 == 1 else 1.0
        self.faults: list[Callable[[], None]] = [
            self._cut_pair,
            self._cut_one_way,
            self._cut_off_leader,
            self._reset_connections,
            self._slow_links,
            self._slow_answers,
            self._crash_after_votes,
            self._heal,
            self._heal,
            self._heal,
            self._kill,
            self._kill_all,
            self._power_off,
            self._power_off_all,
            self._restart_all,
            self._restart_all,
            self._slow_disk,
            self._sync_error,
            self._pause,
            self._pause_leader,
            self._burst,
            self._long_outage,
            self._transfer,
            self._change_membership,
            self._wipe,
        ]

    def run(self, seconds: float) -> None:
        """Faults and load for some simulated seconds."""
        world, rng = self.world, self.rng
        end = world.scheduler.now + seconds
        next_fault = world.scheduler.now + rng.expovariate(1 / self.fault_every_s)
        while world.scheduler.now < end:
            world.run(rng.expovariate(self.load))
            self._client()
            if world.scheduler.now >= max(next_fault, self.quiet_until):
                next_fault = world.scheduler.now + rng.expovariate(1 / self.fault_every_s)
                fault = rng.choice(self.faults)
                world.note(fault.__name__.removeprefix("_"))
                fault()

    def _client(self) -> None:
        name = self._any()
        if self.rng.random() < 0.3:
            self.world.read(name)
        else:
            self.world.write_next(name, self.rng.choice((1, 1, 10, 300)))

    # --- the end

    def begin(self) -> None:
        """Lets the cluster come up; a run that begins so must acknowledge writes."""
        self.world.run_while(lambda: self.world.leader() is None, "the first election")
        self.must_ack = True

    def heal_and_check(self, acked: int) -> None:
        """Ends all faults; then everything acknowledged is everywhere, and all goes on.

        Args:
            acked: Writes acknowledged so far; with none, the run shows nothing.
        """
        world = self.world
        if acked == 0 and self.must_ack and world.restart_mean_s is not None:
            raise Violation(f"none of {world.writes} writes was acknowledged")
        world.note("healed")
        world.crash_votes = 0
        for server in world.servers.values():
            server.disk.heal()
        self._restart_all()
        self._heal()
        world.run_while(lambda: world.leader() is None, "election after healing")
        self._remove_the_gone()
        last = self._write_acked()
        world.run_while(lambda: not all(map(self._caught_up, self._members())), "catching up")
        names = self._members()
        for command in world.invariants.acked:
            for name in names:
                if command not in world.servers[name].machine.commands:
                    raise Violation(f"acknowledged {command!r} is lost on {name}")
        answers = [world.read(name) for name in names]
        world.run_while(lambda: not all(answers), f"reads after {last!r}")

    def _write_acked(self) -> bytes:
        last = self.world.write_next(self._members()[0])
        acked = self.world.invariants.acked
        self.world.run_while(lambda: last not in acked, "a write after healing")
        return last

    def _members(self) -> list[str]:
        """Who belongs to the cluster, as the present leader sees it; everyone where none leads."""
        leader = self.world.leader()
        if leader is None or leader.node is None:
            return sorted(self.world.servers)
        known = (server.id for server in leader.node.configuration.servers)
        return [name for name in known if name in self.world.servers]

    def _remove_the_gone(self) -> None:
        """A cluster must be able to let its wiped servers go, one after the other."""

        def remains() -> bool:
            leader = self.world.leader()
            if leader is None or leader.node is None:
                return True
            now = leader.node.configuration
            gone = sorted(set(self.world.gone) & {server.id for server in now.servers})
            if gone:
                self._append(leader, now.without(gone[0]))
            return bool(gone)

        self.world.run_while(remains, "removing wiped servers")

    def _caught_up(self, name: str) -> bool:
        known = len(self.world.invariants.history)
        return len(self.world.servers[name].machine.commands) >= known

    def check_returning_server(self) -> None:
        """A server that was cut off and comes back leaves a healthy leader where it is."""
        world = self.world
        self._steady()
        leader = world.leader()
        assert leader is not None
        assert leader.node is not None
        term = leader.term_seen
        followers = sorted(leader.node.configuration.voters() - {leader.name})
        if len(followers) < 2:
            return
        world.note(f"{followers[0]} is cut off and comes back")
        world.network.cut_off(followers[0])
        world.run(2.5)
        world.network.unblock_all()
        world.run(1.5)
        if leader.term_seen != term or not leader.node.leads:
            raise Violation(
                f"{followers[0]} came back and deposed {leader.name}, the healthy leader of {term}"
            )

    def _steady(self) -> None:
        """Waits until one leader has led for longer than any election takes."""
        seen: list[int] = []

        def unsteady() -> bool:
            leader = self.world.leader()
            seen.append(leader.term_seen if leader is not None else -1)
            return len(set(seen[-100:])) > 1 or len(seen) < 100 or seen[-1] < 0

        self.world.run_while(unsteady, "steady leadership")

    # --- faults: the network

    def _any(self) -> str:
        return self.rng.choice(sorted(self.world.servers))

    def _pair(self) -> tuple[str, str]:
        a, b = self.rng.sample(sorted(self.world.servers), 2)
        return a, b

    def _cut_pair(self) -> None:
        a, b = self._pair()
        self.world.network.block(a, b)
        self.world.network.block(b, a)

    def _cut_one_way(self) -> None:
        self.world.network.block(*self._pair())

    def _cut_off_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            self.world.network.cut_off(leader.name)

    def _reset_connections(self) -> None:
        for _ in range(self.rng.choice((1, 3, 10))):
            self.world.network.reset(*self._pair())

    def _slow_links(self) -> None:
        """All is slow: elections collide, answers come when they are no longer waited for."""
        longest_s = self.rng.choice((0.1, 0.4))
        for source in sorted(self.world.servers):
            for target in sorted(self.world.servers):
                self.world.network.slow(source, target, (0.01, longest_s))

    def _slow_answers(self) -> None:
        """What goes to the leader takes so long that it may have been deposed meanwhile."""
        leader = self.world.leader()
        others = sorted(self.world.servers)
        for source in self.rng.sample(others, min(2, len(others))):
            if leader is not None and source != leader.name:
                self.world.network.slow(source, leader.name, (0.5, 3.0))

    def _crash_after_votes(self) -> None:
        """The leader dies, and whoever votes next loses power right after the vote has left."""
        self.world.crash_votes = self.rng.choice((1, 3))
        leader = self.world.leader()
        if leader is not None:
            self.world.kill(leader.name)

    def _heal(self) -> None:
        self.world.network.unblock_all()

    # --- faults: processes and hosts

    def _kill(self) -> None:
        self.world.kill(self._any())

    def _power_off(self) -> None:
        self.world.power_off(self._any())

    def _kill_all(self) -> None:
        for name in sorted(self.world.servers):
            self.world.kill(name)

    def _power_off_all(self) -> None:
        for name in sorted(self.world.servers):
            self.world.power_off(name)

    def _restart_all(self) -> None:
        for name in sorted(self.world.servers):
            self.world.start(name)

    def _pause(self) -> None:
        self.world.servers[self._any()].pause(self.rng.choice((0.1, 0.6, 2.0)))

    def _pause_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            leader.pause(self.rng.choice((0.5, 1.5, 3.0)))

    def _long_outage(self) -> None:
        """One server is away while the others go on, so long that it needs a snapshot."""
        self._heal()
        self._restart_all()
        name = self._any()
        self.world.power_off(name)
        self.quiet_until = self.world.scheduler.now + 2.0
        self.world.scheduler.call_later(2.0, lambda: self._return(name))

    def _return(self, name: str) -> None:
        if name in self.world.servers:
            self.world.start(name)

    # --- faults: disks

    def _slow_disk(self) -> None:
        self.world.servers[self._any()].disk.stall(self.rng.choice((0.0, 0.05, 0.3)))

    def _sync_error(self) -> None:
        server = self.world.servers[self._any()]
        if server.node is not None:
            server.disk.fail_next_sync()

    def _wipe(self) -> None:
        """A disk is lost, where the cluster can do without it."""
        name = self._any()
        lost = set(self.world.gone) | {name}
        for configuration in self.world.configurations():
            voters = configuration.voters()
            if voters and len(voters - lost) < configuration.majority():
                return
        self.world.note(f"{name} is wiped; {self.world.wipe(name)} takes its place")

    # --- load and administration

    def _burst(self) -> None:
        name = self._any()
        for _ in range(self.rng.choice((20, 100))):
            self.world.write_next(name, self.rng.choice((1, 50)))

    def _transfer(self) -> None:
        leader = self.world.leader()
        if leader is not None and leader.node is not None:
            others = sorted(leader.node.configuration.voters() - {leader.name})
            if others:
                leader.node.transfer_to(self.rng.choice(others))
                leader.poke()

    def _change_membership(self) -> None:
        leader = self.world.leader()
        if leader is not None and leader.node is not None:
            after = self._next_configuration(leader.node.configuration, leader.name)
            self._append(leader, after)

    def _append(self, leader: SimServer, after: Configuration) -> None:
        assert leader.node is not None
        try:
            leader.node.change_configuration(after, lambda _: None)
        except RaftregError:
            return  # refused: the change before it is not committed yet
        leader.poke()

    def _next_configuration(self, now: Configuration, leader: str) -> Configuration:
        gone = sorted(set(self.world.gone) & {server.id for server in now.servers})
        if gone and self.rng.random() < 0.7:
            return now.without(gone[0])
        name = self.rng.choice(sorted(set(self.world.servers) - {leader}))
        known = now.get(name)
        if known is None or not known.voter:
            return now.with_server(server_of(name, voter=known is not None))
        after = now.without(name)
        alive = after.voters() - set(self.world.gone)
        return after if len(alive) >= max(after.majority(), 2) else now


def run_seed(seed: int, seconds: float = 10.0) -> Outcome:
    """One whole run: 3 or 5 servers, sometimes spare ones, faults, healing, reckoning.

    Raises:
        Violation: With the seed, the trace and the state of all servers in its text.
    """
    world = World(seed, size=3 if seed % 3 else 5, spares=seed % 2)
    schedule = Schedule(world)
    try:
        if seed % 5:
            schedule.begin()
        schedule.run(seconds)
        writes, acked = world.writes, len(world.invariants.acked)
        schedule.heal_and_check(acked)
        if seed % 4 == 0:
            schedule.check_returning_server()
    except Exception as fault:
        raise Violation(_report(world, fault)) from fault
    running = [server.node for server in world.servers.values() if server.node is not None]
    return Outcome(
        seed=seed,
        digest=world.digest(),
        writes=writes,
        acked=acked,
        reads=world.invariants.reads_done,
        terms=max(world.invariants.leaders),
        snapshots=sum(node.metrics.snapshots_installed_total for node in running),
        wiped=len(world.gone),
    )


def _report(world: World, fault: Exception) -> str:
    what = str(fault) if isinstance(fault, Violation) else repr(fault)
    lines = [
        f"seed {world.seed} at {world.scheduler.now - world.began:.4f} s: {what}",
        f"replay: make sim SEED={world.seed}",
        "trace:",
        *world.notes[-TRACE_LINES_MAX:],
        "servers:",
        *world.state(),
    ]
    return "\n  ".join(lines)
