"""When to act on a burst of changes: after a quiet moment, but never late (pure)."""

from __future__ import annotations

from raftreg_cli.template.spec import Wait


class Gather:
    """Gathers changes: due `min_s` after the last one, and at most `max_s` after the first.

    Args:
        wait: The two times.
    """

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self._latest = 0.0
        self.due_at: float | None = None

    def changed(self, now: float) -> None:
        """Takes note of a change."""
        if self.due_at is None:
            self._latest = now + self._wait.max_s
        self.due_at = min(now + self._wait.min_s, self._latest)

    def hurry(self, now: float) -> None:
        """Makes it due at once."""
        self.due_at = now

    def take(self, now: float) -> bool:
        """Tells whether it is due; then it starts anew."""
        if self.due_at is None or now < self.due_at:
            return False
        self.due_at = None
        return True
