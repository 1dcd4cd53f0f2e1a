"""Waiting for a condition, never for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

#: How long anything may take on a busy machine; how long it should take is the benchmarks' matter.
LIMIT_S = 40.0
_POLL_S = 0.05


class NeverHeld(AssertionError):
    """A condition did not hold in time."""


async def until(
    what: str,
    condition: Callable[[], Awaitable[T | None]],
    *,
    limit_s: float = LIMIT_S,
    poll_s: float = _POLL_S,
) -> T:
    """Asks again and again until the answer is neither None nor False; gives it.

    Args:
        what: What is waited for, for the failure's text.
        condition: The question. An AssertionError or OSError in it counts as "not yet".
        limit_s: Seconds until this is a failure.
        poll_s: Seconds between two questions.

    Raises:
        NeverHeld: It never was; the text holds the last answer.
    """
    last: object = "no answer"
    try:
        async with asyncio.timeout(limit_s):
            while True:
                try:
                    answer = last = await condition()
                except (AssertionError, OSError) as failure:
                    last = failure
                else:
                    if answer is not None and answer is not False:
                        return answer
                await asyncio.sleep(poll_s)  # between two looks at the condition
    except TimeoutError:
        raise NeverHeld(f"{what}: not within {limit_s:g} s; at last {last!r}") from None
