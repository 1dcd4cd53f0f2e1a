"""A process that writes a journal on a real disk and says what is durable, until it is killed.

Usage: kill9_child.py DIRECTORY append|compact
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable

from raftreg.raft.disk import RealDisk
from raftreg.raft.journal import DurableJournal

SEGMENT_BYTES = 60_000


def main(directory: str, mode: str) -> None:
    """Append batches for ever; in mode `compact`, compact after each."""
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    disk = RealDisk.open(directory, calls.put)
    journal = DurableJournal.open(disk, segment_bytes=SEGMENT_BYTES)
    term = journal.getCurrentTerm() + 1
    journal.setCurrentTerm(term, f"n{term}")
    while True:
        for index in range(journal.last_index + 1, journal.last_index + 200):
            journal.add(b"\x00%d" % index * 20, index, term)
        if mode == "compact" and journal.durable_index > 1000:
            journal.compact_to(journal.durable_index - 800)
        journal.flush()
        calls.get()()
        sys.stdout.write(f"{term} {journal.durable_index}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
