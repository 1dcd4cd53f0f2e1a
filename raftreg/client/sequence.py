"""Names of writes, so that one that is sent twice takes effect once.

RIFL (Lee et al., "Implementing Linearizability at Large Scale and Low Latency", SOSP 2015): each
write of a client has a sequence number; `low` tells the servers which outcomes nobody waits for
any more, so that their memory of outcomes stays small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

REQUEST_ID_HEADER = "X-Raftreg-Request-Id"


class RequestIds:
    """Numbers the writes of one client incarnation.

    Args:
        proposer: A random name of this incarnation, at most 64 characters.
    """

    def __init__(self, proposer: str) -> None:
        self._proposer = proposer
        self._last = 0
        # A dict keeps insertion order, and sequences only grow: its first key is the lowest.
        self._open: dict[int, None] = {}

    @contextmanager
    def one(self) -> Iterator[str]:
        """Gives the id of one write; its outcome is wanted until the block ends."""
        self._last += 1
        sequence = self._last
        self._open[sequence] = None
        try:
            yield f"{self._proposer}/{sequence}/{next(iter(self._open))}"
        finally:
            del self._open[sequence]
