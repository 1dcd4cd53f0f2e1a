"""What the tests of durable storage share: a simulated disk, its events, a journal on it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence

from raftreg.raft.journal import DurableJournal
from raftreg.raft.retained import Entry
from tests.sim.sim_disk import SimDisk, Tear

#: Small, so that short tests roll segments.
SEGMENT_BYTES = 1500


class Events:
    """Simulated time: callbacks in order of their due time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> None:
        """Run `fn` when so many simulated seconds have passed."""
        self._count += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self._count, fn))

    def run_one(self) -> bool:
        """Run the next event; False if there is none."""
        if not self._heap:
            return False
        self.now_s, _, fn = heapq.heappop(self._heap)
        fn()
        return True

    def run_all(self) -> None:
        """Run events until there are none."""
        while self.run_one():
            pass


class Rig:
    """A simulated disk and the journal on it.

    Attributes:
        durable: What `on_durable` reported since the journal was opened.
        failures: What `on_failure` reported since then.
    """

    def __init__(self, seed: int = 0, tears: Sequence[Tear] = tuple(Tear)) -> None:
        self.rng = random.Random(seed)
        self.events = Events()
        self.disk = SimDisk(self.rng, self.events.call_later, tears=tears)
        self.durable: list[int] = []
        self.failures: list[OSError] = []
        self.journal = self.open()

    def open(self, segment_bytes: int = SEGMENT_BYTES) -> DurableJournal:
        """Open the journal on what the disk holds now."""
        self.durable, self.failures = [], []
        self.journal = DurableJournal.open(
            self.disk,
            segment_bytes=segment_bytes,
            on_durable=self.durable.append,
            on_failure=self.failures.append,
        )
        return self.journal

    def settle(self) -> None:
        """Flush, and let everything on the disk end."""
        self.journal.flush()
        self.events.run_all()

    def crash_and_open(self) -> DurableJournal:
        """Cut the power, start again."""
        self.disk.crash()
        return self.open()

    def kill_and_open(self) -> DurableJournal:
        """Kill the process, start again."""
        self.disk.kill()
        return self.open()


def command(index: int, term: int, size_bytes: int = 40) -> bytes:
    """A command that tells its index and term, so that an invented one would be seen."""
    return (b"\x00%d/%d " % (index, term)).ljust(size_bytes, b".")


def fill(journal: DurableJournal, first: int, last: int, term: int, size_bytes: int = 40) -> None:
    """Add the entries first..last of one term."""
    for index in range(first, last + 1):
        journal.add(command(index, term, size_bytes), index, term)


def filled(first: int, last: int, term: int, size_bytes: int = 40) -> list[Entry]:
    """The entries that `fill` adds."""
    return [(command(i, term, size_bytes), i, term) for i in range(first, last + 1)]
