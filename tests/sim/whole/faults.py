"""Random faults from a seed, and their end: healing, and a cluster that is whole again."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable
from random import Random
from typing import Any

import msgspec

from raftreg.errors import RaftregError
from tests.sim.whole.process import Process, ServerProcess
from tests.sim.whole.world import WholeWorld

#: When a server that was removed comes back.
_BACK_S = (0.5, 4.0)


class Until(enum.Enum):
    """When a fault is over, if not after a given time."""

    HEALED = enum.auto()  #: all paths are opened
    RUNNING = enum.auto()  #: all its hosts run again
    END = enum.auto()  #: all faults end


class Struck(msgspec.Struct, frozen=True):
    """A fault that has struck.

    Attributes:
        hosts: Whom.
        until: When it is over; a number is so many seconds.
    """

    hosts: tuple[str, ...]
    until: Until | float = 0.0


Kind = Callable[[], Struck | None]


class Faults:
    """Breaks a world, a fault at a time.

    Args:
        world: What is broken.
        every_s: Mean time between two faults.
        told: Takes `start-<fault>` and `stop-<fault>` for the history, with facts.
        only: Names of the faults to choose from; none: the seed chooses some of all.
    """

    def __init__(
        self,
        world: WholeWorld,
        every_s: float,
        told: Callable[[str, dict[str, Any]], object],
        only: Collection[str] = (),
    ) -> None:
        self.world = world
        self._told = told
        self._open: dict[str, list[Struck]] = {}
        self.rng = Random(f"{world.seed}/faults")
        self.every_s = every_s
        self.lost: set[str] = set()
        self.count = 0
        kinds: list[Kind] = [
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
        if only:
            chosen = [kind for kind in kinds if kind.__name__.removeprefix("_") in only]
            assert len(chosen) == len(only), f"unknown among {only}"
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
        name = fault.__name__.removeprefix("_")
        struck = fault()
        if struck is not None:
            self.count += 1
            self.world.note(f"FAULT {name} {' '.join(struck.hosts)}")
            self._began(name, struck)
        self._next()

    def _began(self, name: str, struck: Struck) -> None:
        self._told(f"start-{name}", {"hosts": list(struck.hosts)})
        self._open.setdefault(name, []).append(struck)
        if isinstance(struck.until, float):
            self.world.timeline.call_later(struck.until, lambda: self._over({name}))

    def _over(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            if self._open.pop(name, None) is not None:
                self._told(f"stop-{name}", {})

    def _healed(self) -> None:
        self._over({name for name, all_ in self._open.items() if all_[0].until is Until.HEALED})

    def process_started(self, _: Process) -> None:
        """A process runs again."""

        def over(all_: list[Struck]) -> bool:
            named = (self.world.named(host) for struck in all_ for host in struck.hosts)
            return all_[0].until is Until.RUNNING and all(process.running for process in named)

        self._over({name for name, all_ in self._open.items() if over(all_)})

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
        self._over(list(self._open))
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
        return self.rng.choice(self._begun())

    def _pair(self) -> tuple[str, str]:
        a, b = self.rng.sample(list(self.world.servers), 2)
        return a, b

    def _cut_pair(self) -> Struck:
        a, b = self._pair()
        self.world.network.block(a, b)
        self.world.network.block(b, a)
        return Struck((a, b), Until.HEALED)

    def _cut_one_way(self) -> Struck:
        pair = self._pair()
        self.world.network.block(*pair)
        return Struck(pair, Until.HEALED)

    def _cut_off_leader(self) -> Struck | None:
        leader = self.world.leader()
        if leader is None:
            return None
        # Its clients may still reach it: what it tells them must be true all the same.
        near = ("clients",) if self.rng.random() < 0.7 else ()
        self.world.network.cut_off(leader.name, clients=near)
        return Struck((leader.name,), Until.HEALED)

    def _split(self) -> Struck:
        """Two halves; clients reach both, agents one of them."""
        names = [*self.world.servers, *self.world.agents]
        left = set(self.rng.sample(names, self.rng.randint(1, len(names) - 1)))
        for a in names:
            for b in names:
                if (a in left) != (b in left):
                    self.world.network.block(a, b)
        return Struck(tuple(names), Until.HEALED)

    def _cut_off_agent(self) -> Struck | None:
        if not self.world.agents:
            return None
        name = self.rng.choice(list(self.world.agents))
        self.world.network.cut_off(name, clients=("clients",))
        return Struck((name,), Until.HEALED)

    def _resets(self) -> Struck:
        for _ in range(self.rng.choice((1, 3, 10))):
            self.world.network.reset(self.rng)
        return self._everyone()

    def _everyone(self, until: Until | float = 0.0) -> Struck:
        return Struck((*self.world.servers, *self.world.agents), until)

    def _each_path(self) -> Iterable[tuple[str, str]]:
        names = [*self.world.servers, *self.world.agents]
        return ((a, b) for a in names for b in names if a != b)

    def _slow_links(self) -> Struck:
        longest_s = self.rng.choice((0.05, 0.2, 0.5))
        for a, b in self._each_path():
            self.world.network.path(a, b).delay_s = (0.005, longest_s)
        return self._everyone(Until.HEALED)

    def _lossy_links(self) -> Struck:
        share = self.rng.choice((0.02, 0.1, 0.3))
        for a, b in self._each_path():
            self.world.network.path(a, b).loss = share
        return self._everyone(Until.HEALED)

    def _heal(self) -> None:
        self.world.note("paths are open")
        self.world.network.heal()
        self._healed()

    # --- processes and hosts

    def _kill(self) -> Struck:
        server = self._any()
        server.kill()
        return Struck((server.name,), Until.RUNNING)

    def _kill_leader(self) -> Struck | None:
        leader = self.world.leader()
        if leader is None:
            return None
        leader.kill()
        return Struck((leader.name,), Until.RUNNING)

    def _begun(self) -> list[ServerProcess]:
        return [server for server in self.world.servers.values() if server.incarnation]

    def _kill_all(self) -> Struck:
        for server in self._begun():
            server.kill()
        return Struck(tuple(server.name for server in self._begun()), Until.RUNNING)

    def _terminate(self) -> Struck | None:
        """SIGTERM: an orderly end."""
        server = self._any()
        return Struck((server.name,), Until.RUNNING) if server.terminate() else None

    def _power_off(self) -> Struck:
        server = self._any()
        server.lose_power()
        return Struck((server.name,), Until.RUNNING)

    def _power_off_all(self) -> Struck:
        for server in self._begun():
            server.lose_power()
        return Struck(tuple(server.name for server in self._begun()), Until.RUNNING)

    def _pause(self) -> Struck:
        everyone: list[Process] = [*self._begun(), *self.world.agents.values()]
        return self._stop(self.rng.choice(everyone), self.rng.choice((0.2, 1.0, 4.0)))

    def _pause_leader(self) -> Struck | None:
        leader = self.world.leader()
        if leader is None:
            return None
        return self._stop(leader, self.rng.choice((0.6, 1.5, 4.0)))

    def _stop(self, process: Process, seconds: float) -> Struck:
        process.pause(seconds)
        return Struck((process.name,), seconds)

    def _wall_clock_jumps(self) -> Struck:
        server = self._any()
        server.wall_jump_s += self.rng.choice((-3600.0, -5.0, 5.0, 86_400.0))
        return Struck((server.name,))

    # --- disks

    def _slow_disk(self) -> Struck:
        server = self._any()
        server.disk.stall(self.rng.choice((0.05, 0.3, 1.0)))
        return Struck((server.name,), Until.END)

    def _sync_error(self) -> Struck | None:
        server = self._any()
        if not server.running:
            return None
        server.disk.fail_next_sync()
        return Struck((server.name,), Until.END)

    def _wipe(self) -> Struck | None:
        """A disk is lost, where the cluster can do without it."""
        server = self._any()
        if not self._can_spare(server.server_id):
            return None
        self.lost.add(server.server_id)
        server.wipe()
        return Struck((server.name,))

    def _can_spare(self, server_id: str) -> bool:
        lost = self.lost | {server_id}
        seen = [member.configuration_seen for member in self.world.witness.servers.values()]
        return bool(server_id) and all(
            len(known.voters() - lost) >= known.majority() for known in seen if known.voters()
        )

    # --- administration

    def _transfer(self) -> Struck | None:
        leader = self.world.leader()
        if leader is None:
            return None
        replica = leader.replica
        self.world.spawn(lambda: _quietly(replica.transfer_leadership()), leader)
        return Struck((leader.name,))

    def _remove(self) -> Struck | None:
        """A server is removed by its leader, and comes back empty later."""
        leader = self.world.leader()
        server = self._any()
        if leader is None or server is leader or not self._can_spare(server.server_id):
            return None
        self.lost.add(server.server_id)
        replica, server_id = leader.replica, server.server_id
        self.world.spawn(lambda: _quietly(replica.remove_server(server_id)), leader)
        back_s = self.rng.uniform(*_BACK_S)
        self.world.timeline.call_later(back_s, server.wipe)
        return Struck((server.name,), back_s)

    def _join(self) -> Struck | None:
        """A server joins that was not there before."""
        for server in self.world.servers.values():
            if not server.incarnation:
                server.start()
                return Struck((server.name,))
        return None


async def _quietly(work: object) -> None:
    try:
        await work  # type: ignore[misc]
    except (RaftregError, TimeoutError):
        return
