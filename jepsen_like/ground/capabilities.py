"""What this machine can offer to faults, and why not what it can't."""

from __future__ import annotations

import functools
from typing import assert_never

import msgspec

from jepsen_like.ground import clock, disk, sandbox
from jepsen_like.ground.api import Need


class Capabilities(msgspec.Struct, frozen=True):
    """What there is: None, or a sentence that says why it is missing.

    Attributes:
        network: Hosts in network namespaces with the switch between them.
        disk: A FUSE file system under the servers' data.
        clock: The library that moves the wall clock of a process.
    """

    network: str | None
    disk: str | None
    clock: str | None

    def missing(self, need: Need) -> str | None:
        """Why a need can't be met; None when it can."""
        match need:
            case Need.NETWORK:
                return self.network
            case Need.DISK:
                return self.disk
            case Need.CLOCK:
                return self.clock
        assert_never(need)

    def lacks(self) -> dict[Need, str]:
        """All that is missing, each with the reason."""
        return {need: reason for need in Need if (reason := self.missing(need)) is not None}


def loopback_only(reason: str) -> Capabilities:
    """What a run on loopback addresses offers: faults of processes, and nothing else.

    Args:
        reason: Why it is one.
    """
    return Capabilities(network=reason, disk=reason, clock=reason)


@functools.cache
def capabilities() -> Capabilities:
    """Looks once; takes some hundredths of a second."""
    network = sandbox.why_not()
    # A FUSE mount outlives its processes unless the kernel takes its whole mount namespace away.
    private = None if network is None else f"it needs a private mount namespace: {network}"
    return Capabilities(network=network, disk=private or disk.available(), clock=clock.available())
