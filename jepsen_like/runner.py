"""One run: setup, load under faults, healing, final operations; every step into the folder.

The runner gets a ground that stands and leaves it whole; who builds it and takes it down is
`jepsen_like.cli`. Deciding comes after, from the folder (`jepsen_like.decide`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

import msgspec

from jepsen_like.door import Door, NoAnswer, NotSent
from jepsen_like.folder import Folder
from jepsen_like.generator import child
from jepsen_like.ground.api import Ground
from jepsen_like.interrupt import Interrupt
from jepsen_like.load import Load
from jepsen_like.nemeses.combination import Menu
from jepsen_like.nemeses.schedule import Nemesis
from jepsen_like.progress import Progress
from jepsen_like.recorder import Recorder
from jepsen_like.workloads.base import Workload

READY_S_MAX: Final = 60.0  #: how long the healed cluster may take until all servers answer
_READY_POLL_S: Final = 0.2
_READY_PATH: Final = "/v1/kv/jepsen/ready"
_LEADER_POLL_S: Final = 2.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run.

    Attributes:
        workload: Makes and does the operations.
        menu: What the nemesis may inject.
        seed: Of everything random.
        time_limit_s: Length of the load.
        rate: Operations a second of all workers together.
        concurrency: Number of workers.
    """

    workload: Workload
    menu: Menu
    seed: int
    time_limit_s: float
    rate: float
    concurrency: int


class Runner:
    """Runs a plan on a ground and records it.

    Args:
        plan: What.
        ground: Where; all its servers run.
        door: How clients reach it.
        folder: Where the record goes.
        progress: What a person sees.
        interrupt: Tells when somebody wants it to end.
    """

    def __init__(
        self,
        plan: Plan,
        ground: Ground,
        door: Door,
        folder: Folder,
        progress: Progress,
        interrupt: Interrupt,
    ) -> None:
        self._plan = plan
        self._ground = ground
        self._door = door
        self._progress = progress
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        self._recorder = Recorder(folder.history, lambda: int((loop.time() - start_s) * 1e9))
        self._load = Load(
            workload=plan.workload,
            door=door,
            servers=tuple(host.name for host in ground.servers),
            agents=tuple(host.name for host in ground.agents),
            recorder=self._recorder,
            seed=plan.seed,
            concurrency=plan.concurrency,
            rate=plan.rate,
        )
        self._nemesis = Nemesis(
            plan.menu, ground, self._recorder, folder.nemesis, child(plan.seed, "nemesis")
        )
        self._interrupt = interrupt
        interrupt.noticed = self._interrupted
        progress.counts = lambda: dict(self._recorder.counts)
        progress.faults = lambda: self._nemesis.current

    async def run(self) -> None:
        """Goes through all phases; after a signal, through those that leave things in order."""
        with self._recorder:
            async with self._beside(self._recorder.flush_often(), self._progress.show()):
                if await self._setup():
                    await self._under_faults()
                    await self._finish()
                self._phase("stop")
            self._interrupt.noticed = lambda _: None

    async def _setup(self) -> bool:
        self._phase("setup")
        return await self._unless_interrupted(self._load.setup())

    async def _under_faults(self) -> None:
        """Load and nemesis side by side; what is in force at the end is healed."""
        loop = asyncio.get_running_loop()
        start_s, over = loop.time(), asyncio.Event()
        self._progress.since = lambda: loop.time() - start_s
        self._phase("load")
        async with self._beside(self._nemesis.watch(), self._follow_leader()):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._load.run(over), name="load")
                tasks.create_task(self._nemesis.run(self._plan.time_limit_s, over), name="nemesis")
                await self._until_over()
                over.set()
            self._phase("heal")
            await self._nemesis.heal()

    async def _until_over(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._plan.time_limit_s):
                await self._interrupt.event.wait()

    async def _finish(self) -> None:
        """Waits for the healed cluster, and does the final operations."""
        if not await self._ready() or self._interrupt.event.is_set():
            return
        self._phase("final")
        await self._unless_interrupted(self._load.finish(self._recorder.process_max + 1))

    async def _ready(self) -> bool:
        """Notes when every server answers a linearizable read, or which ones don't."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        missing = {host.name for host in self._ground.servers}
        while missing and not self._interrupt.event.is_set():
            answered = await asyncio.gather(*(self._answers(name) for name in sorted(missing)))
            missing -= {name for name in answered if name is not None}
            waited_s = round(loop.time() - start_s, 3)
            if missing and waited_s > READY_S_MAX:
                value = {"waited_s": waited_s, "missing": sorted(missing)}
                self._recorder.note("not-ready", value)
                return False
            if missing:
                await asyncio.sleep(_READY_POLL_S)
        if missing:
            return False
        self._recorder.note("ready", {"after_s": round(loop.time() - start_s, 3)})
        return True

    async def _answers(self, name: str) -> str | None:
        try:
            answer = await self._door.request(
                name, "GET", _READY_PATH, params={"consistent": ""}, timeout_s=2.0
            )
        except (NotSent, NoAnswer):
            return None
        return name if answer.status in {200, 404} else None

    def _phase(self, name: str) -> None:
        self._progress.phase = name
        self._recorder.note("phase", name)

    def _interrupted(self, name: str) -> None:
        self._recorder.note("interrupted", {"signal": name})
        self._progress.say(f"{name}: ending in order (again: at once)", style="yellow")

    async def _follow_leader(self) -> None:
        while True:
            leader = await self._ground.leader(timeout_s=1.0)
            self._progress.leader = leader.name if leader is not None else "nobody"
            await asyncio.sleep(_LEADER_POLL_S)

    async def _unless_interrupted(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Gives what `work` gives; False, with `work` cancelled, when a signal comes first."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(work)
            guard = tasks.create_task(self._cancel_when_interrupted(task))
            await asyncio.wait({task})
            guard.cancel()
        return not task.cancelled() and task.result()

    async def _cancel_when_interrupted(self, task: asyncio.Task[bool]) -> None:
        await self._interrupt.event.wait()
        task.cancel()

    @contextlib.asynccontextmanager
    async def _beside(self, *work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Runs coroutines beside the body, and cancels them after it."""
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(one) for one in work]
            try:
                yield
            finally:
                for task in started:
                    task.cancel()
