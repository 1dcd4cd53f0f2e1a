"""The load and the nemesis, without a cluster: what they record when things go wrong."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from jepsen_like import history
from jepsen_like.checkers.verdict import Checker, Valid, Verdict
from jepsen_like.door import Door
from jepsen_like.folder import Folder
from jepsen_like.ground.api import Ground
from jepsen_like.history import NEMESIS, Event, Type
from jepsen_like.load import Load
from jepsen_like.nemeses import schedule
from jepsen_like.nemeses.base import Evidence, Fault
from jepsen_like.nemeses.combination import Together
from jepsen_like.nemeses.schedule import Nemesis
from jepsen_like.recorder import Recorder
from jepsen_like.workloads.base import Completion, Context, Invocation, Workload

NO_DOOR = cast(Door, None)


class Scripted(Workload):
    """Does what a function says, and ends the load after so many operations.

    Args:
        act: Ends an operation, given its number.
        count: How many operations.
    """

    name = "scripted"
    timeout_s: ClassVar[float] = 0.05

    def __init__(self, act: Callable[[int], Completion | None], count: int) -> None:
        self.over = asyncio.Event()
        self._act = act
        self._count = count
        self._numbers = itertools.count()
        self._finals = itertools.count()

    def next(self, context: Context) -> Invocation:
        """An operation with a number."""
        number = next(self._numbers)
        if number >= self._count:
            self.over.set()
        return Invocation("act", value=number)

    async def invoke(self, context: Context, invocation: Invocation) -> Completion:
        """As the script says; None is an answer that never comes."""
        if invocation.f == "last":
            return Completion(Type.OK if next(self._finals) else Type.INFO)
        completion = self._act(invocation.value)
        if completion is None:
            await asyncio.get_running_loop().create_future()
            raise AssertionError("unreachable")
        return completion

    def final(self, context: Context) -> Iterable[Invocation]:
        """One, which is OK at the second attempt."""
        return [Invocation("last")]

    def checker(self) -> Checker:
        """None is needed."""
        return lambda events: Verdict("scripted", Valid.TRUE)


def load(workload: Workload, recorder: Recorder, workers: int = 3) -> Load:
    """A load at a rate that takes no time."""
    return Load(
        workload=workload,
        door=NO_DOOR,
        servers=("n1",),
        agents=(),
        recorder=recorder,
        seed=1,
        concurrency=workers,
        rate=100_000.0,
    )


async def record(path: Path, workload: Scripted) -> list[Event]:
    """Runs it to its end; gives the history."""
    with Recorder(path, itertools.count().__next__) as recorder:
        work = load(workload, recorder)
        await work.run(workload.over)
        assert await work.finish(recorder.process_max + 1)
    return history.read(path)


async def test_a_process_whose_operation_may_still_happen_is_never_used_again(
    tmp_path: Path,
) -> None:
    """After INFO a worker goes on under its number plus the number of workers (Jepsen)."""
    kinds = (Type.OK, Type.INFO, Type.FAIL, Type.INFO)
    workload = Scripted(lambda number: Completion(kinds[number % 4]), 100)
    events = await record(tmp_path / "h", workload)
    ops = history.operations(events)  # would refuse a process with two open operations
    last: dict[int, Type] = {}
    for op in ops:
        assert last.get(op.invoke.process) is not Type.INFO
        last[op.invoke.process] = op.type
    workers: dict[int, list[int]] = defaultdict(list)
    for process in last:
        workers[process % 3].append(process)
    assert len(last) > 40
    assert all(numbers == sorted(numbers) for numbers in workers.values())


async def test_an_operation_without_end_is_cut_off_as_unknown(tmp_path: Path) -> None:
    """Every operation ends: at the workload's limit its outcome is unknown."""
    workload = Scripted(lambda number: None if number == 2 else Completion(Type.OK), 10)
    ops = history.operations(await record(tmp_path / "h", workload))
    (cut,) = [op for op in ops if op.invoke.value == 2]
    assert cut.completion is not None
    assert cut.type is Type.INFO
    assert "not done within" in str(cut.completion.error)


async def test_a_fault_of_the_workload_is_recorded(tmp_path: Path) -> None:
    """A workload that raises does not end the run, and does not go unnoticed."""

    def act(number: int) -> Completion:
        if number == 3:
            raise ZeroDivisionError("oops")
        return Completion(Type.OK)

    events = await record(tmp_path / "h", Scripted(act, 10))
    (broken,) = [event for event in events if event.f == "broken"]
    assert "oops" in broken.value["error"]
    assert [op.type for op in history.operations(events) if op.invoke.value == 3] == [Type.INFO]


async def test_final_operations_are_repeated_until_they_are_ok(tmp_path: Path) -> None:
    """By a process that nobody used before; one that is unknown is not used again."""
    workload = Scripted(lambda _: Completion(Type.OK), 5)
    ops = history.operations(await record(tmp_path / "h", workload))
    finals = [op for op in ops if op.invoke.f == "last"]
    assert [op.type for op in finals] == [Type.INFO, Type.OK]
    earlier = {op.invoke.process for op in ops if op.invoke.f == "act"}
    assert min(op.invoke.process for op in finals) > max(earlier)
    assert finals[0].invoke.process != finals[1].invoke.process


class Told(Fault):
    """A fault that notes its calls, and fails where it is told to.

    Args:
        fails: "inject", "heal" or nothing.
    """

    name = "told"
    hold_s = (0.0, 0.0)
    calm_s = (0.0, 0.0)

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self.injected = asyncio.Event()
        self._fails = fails

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """Notes it."""
        self.calls.append("inject")
        self.injected.set()
        if self._fails == "inject":
            raise OSError("no such device")
        return {"whom": "n1"}

    async def heal(self, ground: Ground) -> Evidence:
        """Notes it."""
        self.calls.append("heal")
        if self._fails == "heal":
            raise OSError("no such device")
        return Evidence(acted=True, facts={"dropped": 5})


def ground(hosts: Sequence[Any] = ()) -> Ground:
    """A ground with these servers."""
    return cast(Ground, SimpleNamespace(servers=list(hosts), agents=[]))


async def once(path: Path, fault: Told) -> tuple[list[Event], Folder]:
    """A nemesis that is stopped after its first injection, and heals."""
    folder = Folder(path / "run")
    folder.make()
    stop = asyncio.Event()
    with Recorder(folder.history, itertools.count().__next__) as recorder:
        nemesis = Nemesis(Together([fault]), ground(), recorder, folder.nemesis, Random(1))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(nemesis.run(1000.0, stop))
            await fault.injected.wait()
            stop.set()
        await nemesis.heal()
        assert nemesis.current == []
    return history.read(folder.history), folder


async def test_each_injection_is_recorded_with_its_proof(tmp_path: Path) -> None:
    """In the history with what was done and the proof, and as a line of nemesis.jsonl."""
    events, folder = await once(tmp_path, Told())
    names = [event.f for event in events]
    assert names[:2] == ["start-told", "start-told"]
    assert [events[0].value, events[1].value] == [None, {"whom": "n1"}]
    stop = next(event for event in events if event.f == "stop-told")
    assert stop.value == {"acted": True, "dropped": 5}
    assert all(event.process == NEMESIS and event.type is Type.INFO for event in events)
    first = folder.injections()[0]
    assert (first.fault, first.acted, first.facts) == ("told", True, {"dropped": 5})
    assert first.start_ns <= first.held_ns <= first.heal_ns <= first.end_ns


@pytest.mark.parametrize("fails", ["inject", "heal"])
async def test_a_fault_that_fails_is_healed_all_the_same(tmp_path: Path, fails: str) -> None:
    """Its error is kept, it proves nothing unless it did, and healing is tried again at the end."""
    fault = Told(fails)
    _, folder = await once(tmp_path, fault)
    first = folder.injections()[0]
    assert "no such device" in str(first.error)
    assert first.acted is (fails == "inject")
    assert fault.calls.count("heal") > fault.calls.count("inject")


async def test_a_server_that_ends_by_itself_is_noticed_and_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no fault that ends processes is in force, a process that is gone is an event."""
    monkeypatch.setattr(schedule, "_LOOK_S", 0.0)
    started = asyncio.Event()

    class Host:
        name = "n2"
        pid: int | None = None

        async def start(self) -> None:
            self.pid = 5
            started.set()

    with Recorder(tmp_path / "h", itertools.count().__next__) as recorder:
        nemesis = Nemesis(Together([]), ground([Host()]), recorder, tmp_path / "nemesis", Random(1))
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(nemesis.watch())
            await started.wait()
            watch.cancel()
    (died,) = history.read(tmp_path / "h")
    assert (died.f, died.value["host"]) == ("died", "n2")
