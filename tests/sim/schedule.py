"""Random faults and load from a seed, then healing, then the final reckoning."""

from __future__ import annotations

from collections.abc import Callable

from raftreg.errors import RaftregError
from raftreg.raft.api import Server
from raftreg.raft.membership import Configuration
from tests.sim.world import Violation, World


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
        self.writes = 0
        self.faults: list[Callable[[], None]] = [
            self._cut_pair,
            self._cut_one_way,
            self._isolate_leader,
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
            self._transfer,
            self._change_membership,
        ]

    def run(self, seconds: float) -> None:
        """Faults and load for some simulated seconds."""
        world, rng = self.world, self.rng
        end = world.scheduler.now + seconds
        next_fault = world.scheduler.now + rng.expovariate(1 / self.fault_every_s)
        while world.scheduler.now < end:
            world.run(rng.expovariate(self.load))
            self._client()
            if world.scheduler.now >= next_fault:
                next_fault += rng.expovariate(1 / self.fault_every_s)
                fault = rng.choice(self.faults)
                world.trace.append(f"{world.scheduler.now:.4f} {fault.__name__}")
                fault()

    def heal_and_check(self) -> None:
        """Ends all faults; then everything acknowledged is everywhere, and writes go on."""
        world = self.world
        for server in world.servers.values():
            server.disk.heal()
        self._restart_all()
        self._heal()
        world.run_while(lambda: world.leader() is None)
        names = [n for n in world.servers if self._member(n)]
        self.writes += 1
        last = f"last-{self.writes}".encode()
        world.write(names[0], last, timeout_s=60)
        world.run_while(lambda: last not in world.acked)
        world.run_while(lambda: any(not self._caught_up(name) for name in names))
        for command in world.acked:
            for name in names:
                if command not in world.servers[name].machine.commands:
                    raise Violation(f"acknowledged {command!r} is lost on {name}")

    def _member(self, name: str) -> bool:
        leader = self.world.leader()
        assert leader is not None
        assert leader.node is not None
        return leader.node.configuration.get(name) is not None

    def _caught_up(self, name: str) -> bool:
        return len(self.world.servers[name].machine.commands) >= len(self.world.history)

    def _client(self) -> None:
        name = self.rng.choice(sorted(self.world.servers))
        if self.rng.random() < 0.3:
            self.world.read(name)
            return
        self.writes += 1
        size = self.rng.choice((1, 1, 10, 300))
        self.world.write(name, f"w{self.writes}-".encode() + b"x" * size)

    # --- faults

    def _pair(self) -> tuple[str, str]:
        a, b = self.rng.sample(sorted(self.world.servers), 2)
        return a, b

    def _cut_pair(self) -> None:
        a, b = self._pair()
        self.world.network.block(a, b)
        self.world.network.block(b, a)

    def _cut_one_way(self) -> None:
        self.world.network.block(*self._pair())

    def _isolate_leader(self) -> None:
        leader = self.world.leader()
        for other in sorted(self.world.servers):
            if leader is not None and other != leader.name:
                self.world.network.block(leader.name, other)
                self.world.network.block(other, leader.name)

    def _heal(self) -> None:
        self.world.network.unblock_all()

    def _kill(self) -> None:
        self.world.kill(self.rng.choice(sorted(self.world.servers)))

    def _power_off(self) -> None:
        self.world.power_off(self.rng.choice(sorted(self.world.servers)))

    def _kill_all(self) -> None:
        for name in sorted(self.world.servers):
            self.world.kill(name)

    def _power_off_all(self) -> None:
        for name in sorted(self.world.servers):
            self.world.power_off(name)

    def _restart_all(self) -> None:
        for name in sorted(self.world.servers):
            self.world.start(name)

    def _slow_disk(self) -> None:
        server = self.world.servers[self.rng.choice(sorted(self.world.servers))]
        server.disk.stall(self.rng.choice((0.0, 0.05, 0.3)))

    def _sync_error(self) -> None:
        server = self.world.servers[self.rng.choice(sorted(self.world.servers))]
        if server.node is not None:
            server.disk.fail_next_sync()

    def _transfer(self) -> None:
        leader = self.world.leader()
        if leader is not None and leader.node is not None:
            others = sorted(leader.node.configuration.voters() - {leader.name})
            if others:
                leader.node.transfer_to(self.rng.choice(others))
                leader.poke()

    def _change_membership(self) -> None:
        leader = self.world.leader()
        if leader is None or leader.node is None:
            return
        after = self._next_configuration(leader.node.configuration, leader.name)
        try:
            leader.node.change_configuration(after, lambda _: None)
        except RaftregError:
            return  # refused: the change before it is not committed yet
        leader.poke()

    def _next_configuration(self, now: Configuration, leader: str) -> Configuration:
        name = self.rng.choice(sorted(set(self.world.servers) - {leader}))
        known = now.get(name)
        if known is None:
            return now.with_server(Server(id=name, name=name, address=f"{name}:1", voter=False))
        if not known.voter:
            return now.with_server(Server(id=name, name=name, address=f"{name}:1"))
        if len(now.voters()) > 2:
            return now.without(name)
        return now


def run_seed(seed: int, seconds: float = 10.0) -> World:
    """One whole run: 3 or 5 servers, sometimes spare ones, faults, healing, reckoning.

    Raises:
        Violation: With the seed in its text.
    """
    size = 3 if seed % 3 else 5
    world = World(seed, size=size, spares=seed % 2)
    schedule = Schedule(world)
    try:
        schedule.run(seconds)
        schedule.heal_and_check()
    except Violation as violation:
        raise Violation(f"seed {seed}: {violation} (replay: make sim SEED={seed})") from violation
    return world
