"""What operators do to a cluster, as docs/operations.md tells them: steps that faults share.

All of it goes through the servers' HTTP API and their processes; each step is repeated until it is
seen to have worked, or its patience ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

from jepsen_like.ground.api import Ground, Host

PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.1
_SAID_BYTES_MAX: Final = 1 << 20
_GONE: Final = "-"


async def until(check: Callable[[], Awaitable[bool]], timeout_s: float = PATIENCE_S) -> bool:
    """Asks again and again until it is so; False when the time is over."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await check():  # noqa: ASYNC110  # other processes set no event here
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        return False
    return True


async def ended(host: Host, timeout_s: float) -> bool:
    """Whether its process ends by itself within this time."""

    async def gone() -> bool:
        return host.pid is None

    return await until(gone, timeout_s)


async def answers(ground: Ground, host: Host) -> bool:
    """Whether a server serves requests and knows a leader."""
    return bool(await ground.ask(host, "/v1/status/leader"))


async def members(ground: Ground) -> dict[str, dict[str, Any]]:
    """The leader's view of each member by name (as autopilot's health); empty without one."""
    leader = await ground.leader()
    if leader is None:
        return {}
    health = await ground.ask(leader, "/v1/operator/autopilot/health?stale")
    servers = health.get("Servers", []) if isinstance(health, dict) else []
    return {str(entry["Name"]): entry for entry in servers}


async def whole(ground: Ground, hosts: Iterable[Host], timeout_s: float = PATIENCE_S) -> bool:
    """Waits until these are healthy voters."""
    names = [host.name for host in hosts]

    async def healthy() -> bool:
        known = await members(ground)
        return all(
            name in known and known[name]["Voter"] and known[name]["Healthy"] for name in names
        )

    return await until(healthy, timeout_s)


async def revive(ground: Ground) -> list[str]:
    """Starts every server that does not run; gives their names."""
    started = []
    for host in ground.servers:
        if host.pid is None:
            await host.start()
            started.append(host.name)
    return started


async def remove(ground: Ground, host: Host, timeout_s: float = PATIENCE_S) -> bool:
    """Takes a server out of the cluster; its process is the caller's to stop."""
    path = f"/v1/operator/raft/peer?id={quote(host.name)}"

    async def gone() -> bool:
        known = await members(ground)
        if known and host.name not in known:
            return True
        leader = await ground.leader()
        if leader is not None:
            await ground.ask(leader, path, "DELETE")
        return False

    return await until(gone, timeout_s)


async def empty(host: Host) -> None:
    """Kills a server and empties its disk, durably: nothing of it comes back at a power loss."""
    await host.kill()
    await host.wipe()
    if host.disk is not None:
        await host.disk.sync()


async def rejoin(ground: Ground, host: Host, timeout_s: float = PATIENCE_S) -> bool:
    """Starts a server on an empty disk and waits until it is a healthy voter again."""
    await host.start()
    return await whole(ground, [host], timeout_s)


def running(hosts: Sequence[Host]) -> list[Host]:
    """Those with a process that is not paused."""
    return [host for host in hosts if host.state() not in {_GONE, "T", "t"}]


def spared(ground: Ground) -> int:
    """How many servers may be taken away so that a majority stays; at least one is named."""
    return max(1, (len(ground.servers) - 1) // 2)


class Said:
    """What a host writes to its log from now on.

    Args:
        host: The host.
    """

    def __init__(self, host: Host) -> None:
        self._log = host.log
        self._from = self._log.stat().st_size if self._log.exists() else 0

    def lines(self) -> list[str]:
        """So far; at most the first megabyte."""
        if not self._log.exists():
            return []
        with self._log.open("rb") as file:
            file.seek(self._from)
            return file.read(_SAID_BYTES_MAX).decode("utf-8", "replace").splitlines()

    def about(self, *words: str) -> list[str]:
        """Lines that hold one of these words."""
        return [line for line in self.lines() if any(word in line for word in words)]
