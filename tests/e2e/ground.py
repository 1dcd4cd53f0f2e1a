"""Where a test process puts its hosts: a block 127.<n>.0.0/16 that nobody else uses.

Parallel runs (pytest-xdist workers, a second checkout) must not meet. A block is claimed by a
listening socket, which the kernel takes back whatever becomes of the process.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator

_CLAIM_PORT = 8299
_BLOCKS = range(20, 120)


class Ground:
    """A claimed block, handed out a /24 at a time."""

    def __init__(self) -> None:
        self._claim, self._block = _claim()
        self._nets: Iterator[int] = itertools.count(1)

    def net(self) -> str:
        """The first three bytes of a /24 that was not handed out before, as "127.20.7"."""
        number = next(self._nets)
        if number > 254:
            raise RuntimeError(f"the block 127.{self._block}.0.0/16 is used up")
        return f"127.{self._block}.{number}"

    def close(self) -> None:
        """Gives the block back."""
        self._claim.close()


def _claim() -> tuple[socket.socket, int]:
    for block in _BLOCKS:
        claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            claim.bind((f"127.{block}.255.254", _CLAIM_PORT))
            claim.listen(1)
        except OSError:
            claim.close()
            continue
        return claim, block
    raise RuntimeError("no free block of loopback addresses: are so many test runs going on?")
