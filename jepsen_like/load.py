"""The load: workers that invoke operations one after the other and record what came of each.

Time and waits come from the running asyncio loop alone, so that the simulator runs the same workers
on its own loop.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from jepsen_like.door import Door
from jepsen_like.generator import Beats, child
from jepsen_like.history import Type
from jepsen_like.recorder import Recorder
from jepsen_like.workloads.base import Completion, Context, Invocation, Workload

SETUP_S_MAX: Final = 60.0
FINAL_OP_S_MAX: Final = 30.0  #: patience with one final operation, its repetitions included
FINAL_S_MAX: Final = 120.0  #: patience with all of them
_FINAL_PAUSE_S: Final = 0.2  #: between two attempts of a final operation
_ERROR_CHARS_MAX: Final = 300


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much, of what, by whom, against whom.

    Attributes:
        workload: Makes and does the operations.
        door: The way to the cluster.
        servers, agents: Names of hosts.
        recorder: Writes the history.
        seed: Of all workers.
        concurrency: Number of workers.
        rate: Operations a second of all workers together.
    """

    workload: Workload
    door: Door
    servers: tuple[str, ...]
    agents: tuple[str, ...]
    recorder: Recorder
    seed: int
    concurrency: int
    rate: float

    async def setup(self) -> bool:
        """Lets the workload write what it needs; False when it could not."""
        try:
            async with asyncio.timeout(SETUP_S_MAX):
                await self.workload.setup(self._context(self.concurrency))
        except Exception as error:  # noqa: BLE001  # recorded, and the run is UNKNOWN for it
            self._broken("setup", error)
            return False
        return True

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set and every operation that is under way has ended."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.concurrency):
                tasks.create_task(self._work(number, stop), name=f"worker-{number}")

    async def finish(self, process: int) -> bool:
        """Does the final operations, one after the other.

        Args:
            process: A process number that no worker has used, nor a larger one.

        Returns:
            All of them were OK.
        """
        context = self._context(self.concurrency)
        context.process = process
        good = True
        loop = asyncio.get_running_loop()
        end_s = loop.time() + FINAL_S_MAX
        try:
            for invocation in self.workload.final(context):
                patience_s = min(FINAL_OP_S_MAX, max(1.0, end_s - loop.time()))
                good &= await self._insist(context, invocation, loop.time() + patience_s)
        except Exception as error:  # noqa: BLE001  # recorded, and the run is UNKNOWN for it
            self._broken("final", error)
            return False
        return good

    async def _insist(self, context: Context, invocation: Invocation, end_s: float) -> bool:
        loop = asyncio.get_running_loop()
        while True:
            completion = await self._operate(context, invocation, stride=1)
            if completion.type is Type.OK:
                return True
            if loop.time() + _FINAL_PAUSE_S >= end_s:
                return False
            await asyncio.sleep(_FINAL_PAUSE_S)

    async def _work(self, number: int, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        context = self._context(number)
        rng = child(self.seed, f"beats/{number}")
        beats = Beats(rng, self.rate / self.concurrency, loop.time())
        while not await _set_before(stop, beats.after(loop.time())):
            try:
                invocation = self.workload.next(context)
            except Exception as error:  # noqa: BLE001  # ends this worker, not the record of the run
                self._broken("next", error)
                return
            await self._operate(context, invocation, stride=self.concurrency)

    async def _operate(self, context: Context, invocation: Invocation, stride: int) -> Completion:
        """Invokes once; a process whose operation may still take effect is never used again."""
        add, process = self.recorder.add, context.process
        f, key = invocation.f, invocation.key
        add(process, Type.INVOKE, f, key=key, value=invocation.value, node=invocation.node)
        completion = await self._invoke(context, invocation)
        add(
            process,
            completion.type,
            f,
            key=key,
            value=completion.value,
            node=completion.node,
            raft_index=completion.raft_index,
            error=completion.error,
        )
        if completion.type is Type.INFO:
            context.process += stride
        return completion

    async def _invoke(self, context: Context, invocation: Invocation) -> Completion:
        limit_s = self.workload.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self.workload.invoke(context, invocation)
        except TimeoutError:
            error = f"not done within {limit_s:g} s"
        except Exception as fault:  # noqa: BLE001  # recorded, and the run is UNKNOWN for it
            self._broken(f"invoke {invocation.f}", fault)
            error = f"the harness failed: {type(fault).__name__}: {fault}"[:_ERROR_CHARS_MAX]
        return Completion(Type.INFO, value=invocation.value, error=error)

    def _broken(self, what: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"[:_ERROR_CHARS_MAX]
        self.recorder.note("broken", {"what": f"workload: {what}", "error": text})

    def _context(self, number: int) -> Context:
        return Context(
            door=self.door,
            servers=self.servers,
            agents=self.agents,
            rng=child(self.seed, f"worker/{number}"),
            worker=number,
            process=number,
        )


async def _set_before(event: asyncio.Event, at_s: float) -> bool:
    """Waits until the loop's clock shows `at_s`; True when the event is set before that."""
    try:
        async with asyncio.timeout_at(at_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
