"""Random faults from a seed, and their end: healing, and a cluster that is whole again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from signal import SIGTERM

from raftreg.errors import RaftregError
from tests.sim.whole.process import Process, ServerProcess
from tests.sim.whole.world import WholeWorld

#: When a server that was removed comes back.
_BACK_S = (0.5, 4.0)


class Faults:
    """Breaks a world, a fault at a time.

    Args:
        world: What is broken.
        every_s: Mean time between two faults.
    """

    def __init__(self, world: WholeWorld, every_s: float) -> None:
        self.world = world
        self.rng = Random(f"{world.seed}/faults")
        self.every_s = every_s
        self.lost: set[str] = set()
        self.count = 0
        kinds: list[Callable[[], None]] = [
            self._cut_pair,
            self._cut_one_way,
            self._cut_off_leader,
            self._split,
            self._cut_off_agent,
            self._resets,
            self._slow_links,
            self._lossy_links,
            self._kill,
            self._kill_leader,
            self._kill_all,
            self._terminate,
            self._power_off,
            self._power_off_all,
            self._slow_disk,
            self._sync_error,
            self._pause,
            self._pause_leader,
            self._wall_clock_jumps,
            self._transfer,
            self._remove,
            self._join,
            self._wipe,
        ]
        # Some of them a run: not every run is a storm.
        chosen = self.rng.sample(kinds, self.rng.choice((3, 5, 8, len(kinds))))
        self.kinds = [*chosen, *[self._heal] * max(1, len(chosen) // 4)]
        self._running = False

    def begin(self) -> None:
        """Lets faults happen until `end`."""
        self._running = True
        self._next()

    def _next(self) -> None:
        self.world.timeline.call_later(self.rng.expovariate(1 / self.every_s), self._strike)

    def _strike(self) -> None:
        if not self._running:
            return
        fault = self.rng.choice(self.kinds)
        self.count += 1
        self.world.note(f"FAULT {fault.__name__.removeprefix('_')}")
        fault()
        self._next()

    # --- the end

    def end(self) -> None:
        """Ends all faults; returns once the cluster is whole.

        Raises:
            Violation: It does not become whole.
        """
        world = self.world
        self._running = False
        world.note("healed")
        self._heal()
        for server in world.servers.values():
            server.disk.heal()
            if server.incarnation:
                server.start()
        for agent in world.agents.values():
            agent.start()
        world.run_while(lambda: world.leader() is None, "election after healing")
        world.run_while(lambda: not self._whole(), "all servers are members again", 60.0)

    def _whole(self) -> bool:
        """Every running server is a voter, and nobody else is, as they all see it."""
        running = [server for server in self.world.servers.values() if server.incarnation]
        ids = {server.server_id for server in running}
        return all(
            server.running
            and server.member is not None
            and server.member.node is not None
            and server.member.node.configuration.voters() == ids
            for server in running
        )

    # --- network

    def _any(self) -> ServerProcess:
        begun = [server for server in self.world.servers.values() if server.incarnation]
        return self.rng.choice(begun)

    def _pair(self) -> tuple[str, str]:
        a, b = self.rng.sample(list(self.world.servers), 2)
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
            # Its clients may still reach it: what it tells them must be true all the same.
            near = ("clients",) if self.rng.random() < 0.7 else ()
            self.world.network.cut_off(leader.name, clients=near)

    def _split(self) -> None:
        """Two halves; clients reach both, agents one of them."""
        names = [*self.world.servers, *self.world.agents]
        left = set(self.rng.sample(names, self.rng.randint(1, len(names) - 1)))
        for a in names:
            for b in names:
                if (a in left) != (b in left):
                    self.world.network.block(a, b)

    def _cut_off_agent(self) -> None:
        if self.world.agents:
            name = self.rng.choice(list(self.world.agents))
            self.world.network.cut_off(name, clients=("clients",))

    def _resets(self) -> None:
        for _ in range(self.rng.choice((1, 3, 10))):
            self.world.network.reset(self.rng)

    def _each_path(self) -> Iterable[tuple[str, str]]:
        names = [*self.world.servers, *self.world.agents]
        return ((a, b) for a in names for b in names if a != b)

    def _slow_links(self) -> None:
        longest_s = self.rng.choice((0.05, 0.2, 0.5))
        for a, b in self._each_path():
            self.world.network.path(a, b).delay_s = (0.005, longest_s)

    def _lossy_links(self) -> None:
        share = self.rng.choice((0.02, 0.1, 0.3))
        for a, b in self._each_path():
            self.world.network.path(a, b).loss = share

    def _heal(self) -> None:
        self.world.network.heal()

    # --- processes and hosts

    def _kill(self) -> None:
        self._any().kill()

    def _kill_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            leader.kill()

    def _kill_all(self) -> None:
        for server in self.world.servers.values():
            server.kill()

    def _terminate(self) -> None:
        """SIGTERM: an orderly end."""
        server = self._any()
        ending = server.loop.signals.get(SIGTERM) if server.running else None
        if ending is not None:
            server.loop.call_soon(ending)

    def _power_off(self) -> None:
        self._any().lose_power()

    def _power_off_all(self) -> None:
        for server in self.world.servers.values():
            server.lose_power()

    def _pause(self) -> None:
        everyone: list[Process] = [*self.world.servers.values(), *self.world.agents.values()]
        self.rng.choice(everyone).pause(self.rng.choice((0.2, 1.0, 4.0)))

    def _pause_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            leader.pause(self.rng.choice((0.6, 1.5, 4.0)))

    def _wall_clock_jumps(self) -> None:
        self._any().wall_jump_s += self.rng.choice((-3600.0, -5.0, 5.0, 86_400.0))

    # --- disks

    def _slow_disk(self) -> None:
        self._any().disk.stall(self.rng.choice((0.0, 0.05, 0.3)))

    def _sync_error(self) -> None:
        server = self._any()
        if server.running:
            server.disk.fail_next_sync()

    def _wipe(self) -> None:
        """A disk is lost, where the cluster can do without it."""
        server = self._any()
        if self._can_spare(server.server_id):
            self.world.note(f"{server.name} is wiped")
            self.lost.add(server.server_id)
            server.wipe()

    def _can_spare(self, server_id: str) -> bool:
        lost = self.lost | {server_id}
        seen = [member.configuration_seen for member in self.world.witness.servers.values()]
        return bool(server_id) and all(
            len(known.voters() - lost) >= known.majority() for known in seen if known.voters()
        )

    # --- administration

    def _transfer(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            self.world.spawn(_quietly(leader.replica.transfer_leadership()), leader)

    def _remove(self) -> None:
        """A server is removed by its leader, and comes back empty later."""
        leader = self.world.leader()
        server = self._any()
        if leader is None or server is leader or not self._can_spare(server.server_id):
            return
        self.lost.add(server.server_id)
        self.world.note(f"{server.name} is removed, and will come back empty")
        self.world.spawn(_quietly(leader.replica.remove_server(server.server_id)), leader)
        self.world.timeline.call_later(self.rng.uniform(*_BACK_S), server.wipe)

    def _join(self) -> None:
        """A server joins that was not there before."""
        for server in self.world.servers.values():
            if not server.incarnation:
                server.start()
                return


async def _quietly(work: object) -> None:
    try:
        await work  # type: ignore[misc]
    except (RaftregError, TimeoutError):
        return
