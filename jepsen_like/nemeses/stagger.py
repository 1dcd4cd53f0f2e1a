"""Faults in sequence: one thing goes wrong, and the next before the first is over.

`late-starter` tests what must outlive a process: terms and votes. Leadership changes once, so that
the term is not the first one. Then all servers end at once, and only a majority comes back; it
elects a leader and takes writes. Then its leader ends, and the late ones start: they lack those
writes, and must not be elected, however high the term at the end of their own logs is.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar, Final

from jepsen_like.ground.api import Ground, Host, Need, Rule
from jepsen_like.nemeses import operators
from jepsen_like.nemeses.base import Evidence, Fault

_LEADER_S_MAX: Final = 12.0  #: to wait for each leader
_CHOKED_S: Final = (1.0, 2.0)  #: for how long the leader leads on narrow ways
_CHOKED_DELAY_S: Final = 0.05
_WRITES_S: Final = (1.0, 2.0)  #: for how long the majority takes writes without the others


class LateStarter(Fault):
    """All servers end; a majority starts again, loses its leader, and then the rest starts, too."""

    name = "late-starter"
    hold_s: ClassVar[tuple[float, float]] = (2.0, 3.0)
    calm_s: ClassVar[tuple[float, float]] = (1.0, 2.0)

    def __init__(self) -> None:
        self._killed: dict[str, int] = {}
        self._facts: dict[str, Any] = {}

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """See the module."""
        self._killed, self._facts = {}, {}
        first = await self._end_leader(ground)
        await _leader(ground)
        await operators.revive(ground)
        await self._end(ground.servers)
        late = rng.sample(ground.servers, (len(ground.servers) - 1) // 2)
        for host in ground.servers:
            if host not in late:
                await host.start()
        await _leader(ground)
        await asyncio.sleep(rng.uniform(*_WRITES_S))
        second = await self._end_leader(ground)
        for host in late:
            await host.start()
        self._facts = {"first": first, "late": [host.name for host in late], "second": second}
        return dict(self._facts)

    async def heal(self, ground: Ground) -> Evidence:
        """Starts every server that does not run."""
        facts, self._facts = self._facts, {}
        killed, self._killed = self._killed, {}
        await operators.revive(ground)
        again = {name: ground.host(name).pid for name in killed}
        acted = bool(facts.get("late")) and facts.get("second") is not None
        changed = all(again[name] not in {None, pid} for name, pid in killed.items())
        return Evidence(acted=acted and changed, facts={**facts, "killed": killed, "again": again})

    async def _end_leader(self, ground: Ground) -> str | None:
        leader = await _leader(ground)
        if leader is None:
            return None
        await self._end([leader])
        return leader.name

    async def _end(self, hosts: Sequence[Host]) -> None:
        self._killed |= {host.name: pid for host in hosts if (pid := host.pid) is not None}
        await _end(hosts)


class ChokedLeader(Fault):
    """The leader's ways to the others become narrow and long, and then it ends.

    What it sends piles up on the way: followers are seen in the middle of what they are told.
    """

    name = "choked-leader"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.NETWORK})
    hold_s: ClassVar[tuple[float, float]] = (1.0, 2.0)
    calm_s: ClassVar[tuple[float, float]] = (1.0, 2.0)

    def __init__(self) -> None:
        self._killed: dict[str, int] = {}
        self._throttled = 0

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """Chokes the leader, waits a little, and kills it."""
        self._killed, self._throttled = {}, 0
        leader = await _leader(ground)
        if leader is None or leader.pid is None or ground.network is None:
            return {"choked": None}
        narrow = Rule(rate_bytes_per_s=rng.randrange(24, 64) << 10, delay_s=_CHOKED_DELAY_S)
        others = [host.name for host in ground.servers if host is not leader]
        before = await _throttled(ground, leader.name)
        await ground.network.set_rules({(leader.name, other): narrow for other in others})
        await asyncio.sleep(rng.uniform(*_CHOKED_S))
        self._throttled = await _throttled(ground, leader.name) - before
        self._killed = {leader.name: leader.pid}
        await _end([leader])
        await ground.network.set_rules({})
        return {"choked": leader.name, "rate_bytes_per_s": narrow.rate_bytes_per_s}

    async def heal(self, ground: Ground) -> Evidence:
        """Takes the rules away, and starts the server again."""
        if ground.network is not None:
            await ground.network.set_rules({})
        killed, self._killed = self._killed, {}
        await operators.revive(ground)
        again = {name: ground.host(name).pid for name in killed}
        changed = all(again[name] not in {None, pid} for name, pid in killed.items())
        facts = {"killed": killed, "again": again, "throttled": self._throttled}
        return Evidence(acted=bool(killed) and changed and self._throttled > 0, facts=facts)


async def _throttled(ground: Ground, name: str) -> int:
    """Packets from a host that had to wait for bandwidth so far."""
    if ground.network is None:
        return 0
    counts = await ground.network.counts()
    return sum(count.throttled for (source, _), count in counts.items() if source == name)


async def _leader(ground: Ground) -> Host | None:
    """Who leads, with some patience."""
    found: list[Host] = []

    async def led() -> bool:
        leader = await ground.leader(1.0)
        found[:] = [] if leader is None else [leader]
        return leader is not None

    await operators.until(led, _LEADER_S_MAX)
    return found[0] if found else None


async def _end(hosts: Sequence[Host]) -> None:
    """All get the signal before any is waited for."""
    for host in hosts:
        host.send(signal.SIGKILL)
    await asyncio.gather(*(host.kill() for host in hosts))


FAULTS: tuple[type[Fault], ...] = (LateStarter, ChokedLeader)
