"""Shared actions."""

from __future__ import annotations

import asyncio

import pytest

from raftreg.dns.round import Round


class Action:
    """Runs until it is told to end; counts."""

    def __init__(self) -> None:
        self.runs = 0
        self.ends: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def __call__(self) -> None:
        """Runs."""
        self.runs += 1
        error = await self.ends.get()
        if error is not None:
            raise error


async def settle() -> None:
    """Lets every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_comes_later_waits_for_the_next_run() -> None:
    """A run counts for those who came before it began; all others share the next one."""
    action = Action()
    shared = Round(action)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(shared.join())
        await settle()
        later = [group.create_task(shared.join()) for _ in range(5)]
        await settle()
        assert action.runs == 1
        action.ends.put_nowait(None)
        await first
        await settle()
        assert action.runs == 2
        assert not any(task.done() for task in later)
        action.ends.put_nowait(None)
    assert action.runs == 2


async def test_all_who_share_a_run_learn_that_it_failed() -> None:
    """An error is everybody's, and the next run is a new one."""
    action = Action()
    shared = Round(action)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(shared.join())
        await settle()
        later = [group.create_task(_outcome(shared)) for _ in range(3)]
        await settle()
        action.ends.put_nowait(None)
        await first
        await settle()
        action.ends.put_nowait(OSError("planted"))
    assert [task.result() for task in later] == [OSError] * 3
    action.ends.put_nowait(None)
    await shared.join()
    assert action.runs == 3


async def test_a_cancelled_run_keeps_nobody_waiting() -> None:
    """When the one who runs it is cancelled, those who share it are told."""
    action = Action()
    shared = Round(action)
    async with asyncio.TaskGroup() as group:
        zeroth = group.create_task(shared.join())
        await settle()
        runner = group.create_task(shared.join())
        sharer = group.create_task(_outcome(shared))
        await settle()
        action.ends.put_nowait(None)
        await zeroth
        await settle()
        runner.cancel()
    assert sharer.result() is TimeoutError
    with pytest.raises(asyncio.CancelledError):
        runner.result()


async def _outcome(shared: Round) -> type[Exception] | None:
    try:
        await shared.join()
    except Exception as error:  # noqa: BLE001 (it is what is looked for)
        return type(error)
    return None
