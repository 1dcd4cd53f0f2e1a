"""A cluster for a figure: built, written to all the time, asked whether it is whole again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from jepsen_like.door import NoAnswer, NotSent
from jepsen_like.figures.writers import Writers
from jepsen_like.ground.api import Host
from jepsen_like.ground.build import LocalGround, Settings, build
from jepsen_like.http import Endpoint, HttpDoor

SERVERS: Final = 3
WHOLE_S_MAX: Final = 90.0


class Trouble(Exception):
    """The measurement could not go on; the text says what did not happen."""


async def until(
    condition: Callable[[], Awaitable[bool]], otherwise: str, timeout_s: float, poll_s: float = 0.02
) -> None:
    """Asks again and again until the condition holds.

    Raises:
        Trouble: It does not in time; the text is `otherwise` and the time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                if await condition():
                    return
                await asyncio.sleep(poll_s)
    except TimeoutError:
        raise Trouble(f"{otherwise} within {timeout_s:g} s") from None


class Lab(msgspec.Struct, frozen=True):
    """What a figure is given.

    Attributes:
        logs: Folder for what processes write.
        scratch: Folder for data; it is removed afterwards.
        quick: Fewer and smaller.
        seed: Of everything random.
        say: Tells the person who waits what was just done.
    """

    logs: Path
    scratch: Path
    quick: bool
    seed: int
    say: Callable[[str], None]


def settings_file(lab: Lab, name: str, text: str) -> tuple[str, str]:
    """Writes a TOML file for servers; gives the flags that name it."""
    path = lab.scratch / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return ("--config", str(path))


class Cluster:
    """Servers, the way to them, and clients that write.

    Args:
        ground: The servers.
        door: The way.
        writers: The clients; they write while the cluster is open.
        rng: For the figure's own choices.
    """

    def __init__(self, ground: LocalGround, door: HttpDoor, writers: Writers, rng: Random) -> None:
        self.ground = ground
        self.door = door
        self.writers = writers
        self.rng = rng

    def now_s(self) -> float:
        """Monotonic time, that of `Ack`."""
        return asyncio.get_running_loop().time()

    async def leader(self) -> Host:
        """Who leads.

        Raises:
            Trouble: Nobody does.
        """
        leader = await self.ground.leader(timeout_s=30.0)
        if leader is None:
            raise Trouble("no server leads after 30 s")
        return leader

    async def whole(self) -> None:
        """Waits until the leader calls all servers healthy: heard lately, and not behind.

        Raises:
            Trouble: It does not.
        """
        await until(self._is_whole, "the leader does not call all servers healthy", WHOLE_S_MAX)

    async def _is_whole(self) -> bool:
        leader = await self.ground.leader(timeout_s=1.0)
        if leader is None:
            return False
        health: Any = await self.ground.ask(leader, "/v1/operator/autopilot/health")
        if not isinstance(health, dict) or not health.get("Healthy"):
            return False
        return len(health.get("Servers", ())) == len(self.ground.servers)

    async def metrics(self, host: Host) -> dict[str, float]:
        """The gauges and counters of a server that have no labels; {} without an answer."""
        try:
            answer = await self.door.request(
                host.name, "GET", "/v1/agent/metrics", params={"format": "prometheus"}
            )
        except (NotSent, NoAnswer):
            return {}
        text = answer.body.decode("utf-8", "replace")
        pairs = (line.split() for line in text.splitlines() if not line.startswith("#"))
        return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2}

    async def check_round(self, name: str) -> tuple[str, ...]:
        """What of a round's acknowledged writes is missing, as any server tells linearizably."""
        return tuple(await self.writers.missing(name))


@contextlib.asynccontextmanager
async def cluster(
    lab: Lab,
    name: str,
    *,
    workers: int = 8,
    pause_s: float = 0.03,
    body_bytes: int = 20,
    **more: Any,
) -> AsyncIterator[Cluster]:
    """Builds a cluster that is written to until the end of the block.

    Args:
        lab: What the figure was given.
        name: Of the folder for its logs.
        workers: How many clients write at once.
        pause_s: Mean of a client's pause between two writes.
        body_bytes: Size of a value.
        more: More settings of the ground.

    Raises:
        Trouble: The cluster did not come up.
    """
    rng = Random(lab.seed)
    settings = Settings(logs=lab.logs / name, servers=SERVERS, seed=lab.seed, **more)
    async with build(settings) as ground:
        endpoints = {n: Endpoint(address) for n, address in ground.addresses.items()}
        async with HttpDoor(endpoints) as door, asyncio.TaskGroup() as tasks:
            names = [host.name for host in ground.servers]
            writers = Writers(
                door, names, rng, workers=workers, pause_s=pause_s, body_bytes=body_bytes
            )
            tasks.create_task(writers.run())
            try:
                yield Cluster(ground, door, writers, rng)
            finally:
                writers.stop()
