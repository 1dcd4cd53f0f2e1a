"""Many who need the same thing done, once after each of them came."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Round:
    """Shares an action: who comes while it runs waits for the next run, with all others who do.

    Args:
        action: What is done; may raise.
    """

    def __init__(self, action: Callable[[], Awaitable[None]]) -> None:
        self._action = action
        self._running: asyncio.Future[None] | None = None

    async def join(self) -> None:
        """Returns when a run that began after the call has ended.

        Raises:
            Exception: What the action raised; TimeoutError if the one who ran it was cancelled.
        """
        earlier = self._running
        if earlier is not None:
            await asyncio.wait([earlier])
        if self._running is not None and self._running is not earlier:
            await asyncio.shield(self._running)
        else:
            await self._run()

    async def _run(self) -> None:
        running = self._running = asyncio.get_running_loop().create_future()
        running.add_done_callback(_retrieve)
        try:
            await self._action()
        except Exception as error:
            running.set_exception(error)
            raise
        else:
            running.set_result(None)
        finally:
            self._running = None
            if not running.done():
                running.set_exception(TimeoutError())


def _retrieve(done: asyncio.Future[None]) -> None:
    """Perhaps nobody else waited."""
    done.exception()
