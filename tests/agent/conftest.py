"""What the agent's tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest


class Eventually:
    """Waits for a condition: `await eventually(lambda: …)`; the last failure is shown."""

    async def __call__(self, condition: Callable[[], object], timeout_s: float = 15.0) -> None:
        """Returns once the condition holds."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():  # noqa: ASYNC110 - any condition can be waited for
                    await asyncio.sleep(0.01)
        except TimeoutError:
            assert condition(), "the condition did not come true"


@pytest.fixture
def eventually() -> Eventually:
    """Waits for a condition."""
    return Eventually()
