"""How new a server's state is, for its name service."""

from __future__ import annotations

from raftreg.raft.api import ReplicaAPI


class StateFreshness:
    """A `raftreg.dns.query.Freshness` of a replica.

    Args:
        replica: Holds the state.
        timeout_s: Longest wait for a read index, in seconds.
    """

    def __init__(self, replica: ReplicaAPI, timeout_s: float) -> None:
        self._replica = replica
        self._timeout_s = timeout_s

    def age_s(self) -> float | None:
        """Seconds since the leader was heard of; None: there was none yet."""
        return self._replica.status().leader_contact_age_s

    async def confirm(self) -> None:
        """Returns when the state holds all that was committed before the call.

        Raises:
            NoLeader: No majority confirmed it in time.
        """
        await self._replica.read_index(self._timeout_s)
