"""A clock that wakes the leader's clockworks, and notices when it was woken late."""

from __future__ import annotations

import asyncio

from raftreg.clock import Clock

DEAF_S = 0.25  #: lateness from which on this server counts as having been deaf
DEAF_GRACE_MAX_S = 2.0


class Alarm:
    """Sleeps until a moment, or until it is rung.

    Who ran late (a stall, a stopped process) could hear nobody meanwhile either, and has to listen
    for a while before it lets anything expire: `hold` keeps the moment.

    Args:
        clock: Source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()
        self._not_before_s = float("-inf")

    @property
    def held(self) -> bool:
        """Nothing may expire yet."""
        return self._clock.monotonic() < self._not_before_s

    def hold(self, for_s: float) -> None:
        """Lets nothing expire for so many seconds from now on."""
        self._not_before_s = max(self._not_before_s, self._clock.monotonic() + for_s)

    def ring(self) -> None:
        """Wakes the sleeper."""
        self._rung.set()

    async def sleep(self, for_s: float) -> None:
        """Sleeps; when that took much longer than asked, holds.

        Args:
            for_s: Seconds; not shorter than what is held, below 0 counts as 0.
        """
        now_s = self._clock.monotonic()
        due_s = max(now_s + max(for_s, 0.0), self._not_before_s)
        self._rung.clear()
        if due_s <= now_s:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(due_s - now_s):
                await self._rung.wait()
        except TimeoutError:
            pass
        late_s = self._clock.monotonic() - due_s
        if late_s > DEAF_S:
            self.hold(min(late_s, DEAF_GRACE_MAX_S))
