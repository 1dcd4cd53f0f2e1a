"""Addresses for hosts that share this machine's loopback: where there are no namespaces.

Runs at the same time must not meet. A block 127.N.0.0/16 is claimed by a listening socket, which
the kernel takes back whatever becomes of this process.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

from jepsen_like.ground.network import NetworkLost

_CLAIM_PORT: Final = 8299
_BLOCKS: Final = range(120, 220)


class NoBlock(NetworkLost):
    """All blocks are taken, or this machine has only 127.0.0.1; the text says so."""


@contextlib.contextmanager
def claimed() -> Iterator[str]:
    """The first three bytes of a network that nobody else has, as "127.120.0".

    Raises:
        NoBlock: There is none.
    """
    reason = "all are taken"
    for block in _BLOCKS:
        with contextlib.closing(socket.socket()) as claim:
            try:
                claim.bind((f"127.{block}.255.254", _CLAIM_PORT))
                claim.listen(1)
            except OSError as error:
                reason = str(error)
                continue
            yield f"127.{block}.0"
            return
    raise NoBlock(f"no block of loopback addresses is free: {reason}")
