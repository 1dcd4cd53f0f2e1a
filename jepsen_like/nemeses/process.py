"""Faults of processes: killed, paused, restarted. They need nothing of the machine.

The proof of a kill is a process that was there, then none, and another one at the end; that of a
pause is the state "T" (proc_pid_stat(5)) when it began and when it ended.
"""

from __future__ import annotations

import asyncio
import signal
from abc import abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar, Final

from jepsen_like.ground.api import Ground, Host
from jepsen_like.nemeses.base import Evidence, Fault

_STATE_S_MAX: Final = 2.0
_POLL_S: Final = 0.01
_STOPPED: Final = frozenset({"T", "t"})
_ROLLING_S_MAX: Final = 45.0  #: for all servers, waits included; the runner allows a minute
_ROLLING_POLL_S: Final = 0.1
_LOOK_S: Final = 1.0


class Killing(Fault):
    """SIGKILL to some servers at once; they start again when it is healed."""

    hold_s: ClassVar[tuple[float, float]] = (1.0, 4.0)

    def __init__(self) -> None:
        self._killed: dict[str, int] = {}
        self._gone: list[str] = []

    @abstractmethod
    async def victims(self, ground: Ground, rng: Random) -> Sequence[Host]:
        """Whom to kill."""

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """All get the signal before any is waited for."""
        victims = await self.victims(ground, rng)
        self._killed = {host.name: pid for host in victims if (pid := host.pid) is not None}
        for host in victims:
            host.send(signal.SIGKILL)
        await asyncio.gather(*(host.kill() for host in victims))
        self._gone = [host.name for host in victims if host.state() == "-"]
        return {"killed": self._killed}

    async def heal(self, ground: Ground) -> Evidence:
        """Starts every server that does not run."""
        for host in ground.servers:
            await host.start()
        killed, self._killed = self._killed, {}
        gone, self._gone = self._gone, []
        again = {name: ground.host(name).pid for name in killed}
        acted = bool(killed) and all(
            name in gone and again[name] not in {None, pid} for name, pid in killed.items()
        )
        return Evidence(acted=acted, facts={"killed": killed, "gone": gone, "again": again})


class KillOne(Killing):
    """SIGKILL to any server."""

    name = "kill-one"

    async def victims(self, ground: Ground, rng: Random) -> Sequence[Host]:
        """One of those that run."""
        running = _running(ground)
        return [rng.choice(running)] if running else []


class KillLeader(Killing):
    """SIGKILL to the leader."""

    name = "kill-leader"

    async def victims(self, ground: Ground, rng: Random) -> Sequence[Host]:
        """Nobody, while nobody leads."""
        del rng
        leader = await ground.leader()
        return [] if leader is None else [leader]


class KillMajority(Killing):
    """SIGKILL to as many servers as it takes to leave no majority, the leader among them or not."""

    name = "kill-majority"

    async def victims(self, ground: Ground, rng: Random) -> Sequence[Host]:
        """A smallest majority of all."""
        return rng.sample(ground.servers, len(ground.servers) // 2 + 1)


class KillAll(Killing):
    """SIGKILL to all servers at once."""

    name = "kill-all"

    async def victims(self, ground: Ground, rng: Random) -> Sequence[Host]:
        """All."""
        del rng
        return ground.servers


class Pausing(Fault):
    """SIGSTOP to one server: it is there, holds its connections, and does nothing."""

    def __init__(self) -> None:
        self._paused: str | None = None
        self._began: str = "-"

    @abstractmethod
    async def victim(self, ground: Ground, rng: Random) -> Host | None:
        """Whom to pause."""

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """Waits until the kernel says that it has stopped."""
        host = await self.victim(ground, rng)
        self._paused = None if host is None else host.name
        if host is None:
            return {"paused": None}
        host.send(signal.SIGSTOP)
        self._began = await _stopped(host)
        return {"paused": host.name, "pid": host.pid, "state": self._began}

    async def heal(self, ground: Ground) -> Evidence:
        """Resumes all servers, and starts one that has ended meanwhile."""
        paused, self._paused = self._paused, None
        facts: dict[str, Any] = {"paused": paused}
        if paused is not None:
            others = await ground.leader(_LOOK_S)
            facts |= {
                "state_at_begin": self._began,
                "state_at_end": ground.host(paused).state(),
                "leader_meanwhile": None if others is None else others.name,
            }
        for host in ground.servers:
            host.send(signal.SIGCONT)
            await host.start()
        acted = {facts.get("state_at_begin"), facts.get("state_at_end")} <= _STOPPED
        return Evidence(acted=acted, facts=facts)


class PauseLeader(Pausing):
    """SIGSTOP to the leader."""

    name = "pause-leader"

    async def victim(self, ground: Ground, rng: Random) -> Host | None:
        """Nobody, while nobody leads."""
        del rng
        return await ground.leader()


class PauseOne(Pausing):
    """SIGSTOP to any server."""

    name = "pause-one"

    async def victim(self, ground: Ground, rng: Random) -> Host | None:
        """One of those that run."""
        running = _running(ground)
        return rng.choice(running) if running else None


class RollingRestart(Fault):
    """Each server in turn is asked to end (SIGTERM) and started again, as for an upgrade."""

    name = "rolling-restart"
    hold_s = (0.5, 1.5)

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._codes: dict[str, int] = {}

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """The next one's turn comes when the one before answers and knows a leader."""
        self._before, self._codes = {}, {}
        patience_s = _ROLLING_S_MAX / len(ground.servers)
        for host in rng.sample(ground.servers, len(ground.servers)):
            if (pid := host.pid) is not None:
                self._before[host.name] = pid
            self._codes[host.name] = await host.stop()
            await host.start()
            await _answers(ground, host, patience_s)
        return {"order": list(self._codes)}

    async def heal(self, ground: Ground) -> Evidence:
        """Starts what an interrupted round has left; proof: other pids, exit codes 0 before."""
        for host in ground.servers:
            await host.start()
        before, self._before = self._before, {}
        after = {name: ground.host(name).pid for name in before}
        moved = all(after[name] not in {None, pid} for name, pid in before.items())
        facts = {"before": before, "after": after, "exit_codes": self._codes}
        whole = len(before) == len(ground.servers)
        return Evidence(acted=moved and whole and not any(self._codes.values()), facts=facts)


FAULTS: Final[tuple[type[Fault], ...]] = (
    KillOne,
    KillLeader,
    KillMajority,
    KillAll,
    PauseLeader,
    PauseOne,
    RollingRestart,
)


def _running(ground: Ground) -> list[Host]:
    return [host for host in ground.servers if host.pid is not None]


async def _stopped(host: Host) -> str:
    """The state, "T" as soon as it is."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + _STATE_S_MAX
    while True:
        state = host.state()
        if state in _STOPPED or loop.time() > end_s:
            return state
        await asyncio.sleep(_POLL_S)


async def _answers(ground: Ground, host: Host, patience_s: float) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + patience_s
    while loop.time() < end_s:
        if await ground.ask(host, "/v1/status/leader"):
            return
        await asyncio.sleep(_ROLLING_POLL_S)
