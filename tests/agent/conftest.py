"""What the agent's tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest


class Eventually:
    """Waits for a condition: `await eventually(lambda: …)`; the last failure is shown."""

    async def __call__(self, condition: Callable[[], object], timeout_s: float = 15.0) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await asyncio.sleep(0.01)  # between looks at the condition
        except TimeoutError:
            assert condition(), "the condition did not come true"


@pytest.fixture
def eventually() -> Eventually:
    """Waits for a condition."""
    return Eventually()


@asynccontextmanager
async def background(*coroutines: asyncio.Task[None]) -> AsyncIterator[None]:
    """Ends tasks at the end of a block."""
    try:
        yield
    finally:
        for task in coroutines:
            task.cancel()
        await asyncio.gather(*coroutines, return_exceptions=True)
