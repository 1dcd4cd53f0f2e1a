"""The harness's own load in a simulated process: the same workers, recorded in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from jepsen_like.history import NEMESIS, Event, Type
from jepsen_like.load import Load
from jepsen_like.recorder import Recorder
from jepsen_like.workloads.base import Workload
from tests.sim.whole.door import SimDoor
from tests.sim.whole.world import WholeWorld


class MemoryRecorder(Recorder):
    """Keeps the history in memory, in simulated time.

    Attributes:
        events: The history.
    """

    def __init__(self, world: WholeWorld) -> None:
        # Not `super().__init__`: that is all about the file.
        self.events: list[Event] = []
        self.counts: Counter[Type] = Counter()
        self._world = world

    def add(
        self,
        process: int,
        kind: Type,
        f: str,
        *,
        key: str | None = None,
        value: Any = None,
        node: str | None = None,
        raft_index: int | None = None,
        error: str | None = None,
    ) -> Event:
        """See `Recorder.add`."""
        elapsed_s = self._world.timeline.now - self._world.began
        event = Event(
            index=len(self.events),
            time_ns=int(elapsed_s * 1e9),
            process=process,
            type=kind,
            f=f,
            key=key,
            value=value,
            node=node,
            raft_index=raft_index,
            error=error,
        )
        self.events.append(event)
        if process != NEMESIS:
            self.counts[kind] += 1
        elif f == "broken":
            self._world.broken(f"the harness failed: {value}", None)
        return event

    def close(self) -> None:
        """There is nothing to close."""


class SimLoad:
    """The load of one run.

    Args:
        world: Where.
        workload: What.
        concurrency, rate: As in `Load`.
    """

    def __init__(
        self, world: WholeWorld, workload: Workload, *, concurrency: int, rate: float
    ) -> None:
        self._world = world
        self.recorder = MemoryRecorder(world)
        self._stop = asyncio.Event()
        self._concurrency = concurrency
        self._load = Load(
            workload=workload,
            door=SimDoor(
                world.addresses(),
                lambda: world.timeline.now,
                world.witness.invariants.leases.answered,
            ),
            servers=tuple(world.servers)[: world.size],
            agents=tuple(world.agents),
            recorder=self.recorder,
            seed=world.seed,
            concurrency=concurrency,
            rate=rate,
        )
        self._running: list[Any] = []

    def set_up(self) -> None:
        """Lets the workload write what it needs."""
        done = self._world.spawn(self._load.setup)
        self._world.run_while(lambda: not done, "setting up the workload", 60.0)

    def begin(self) -> None:
        """Lets the workers work."""
        self._running = self._world.spawn(lambda: self._load.run(self._stop))

    def end(self) -> None:
        """Lets the workers finish what they are at."""
        self._world.spawn(self._set_stop)
        self._world.run_while(lambda: not self._running, "the end of the load", 60.0)

    async def _set_stop(self) -> None:
        self._stop.set()

    def finish(self) -> bool:
        """Final operations; False when one of them never succeeded."""
        last = max((event.process for event in self.recorder.events), default=0)
        done = self._world.spawn(lambda: self._load.finish(last + self._concurrency))
        self._world.run_while(lambda: not done, "final operations", 150.0)
        return bool(done[0])
