"""How new an answer is: stale, default, consistent; and what it says about that.

`default` and `consistent` are both linearizable here: a read index confirmed by a majority, then
this server's own state (Raft dissertation, section 6.4). `stale` is this server's state at once.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from raftreg.clock import Clock
from raftreg.core.catalog import Catalog
from raftreg.core.state import State
from raftreg.http.discovery import ReadHead
from raftreg.http.params import Consistency, ReadOptions
from raftreg.http.watch import Indexed, RenderedCache, Topic, WatchHub, block
from raftreg.raft.api import ReplicaAPI
from raftreg.server.machine import RegistryMachine

_Found = TypeVar("_Found", bound=Indexed)

_LEADER_HEAD = ReadHead(effective="leader")
_CONSISTENT_HEAD = ReadHead(effective="consistent")
LAST_CONTACT_NEVER_MS = 2**31 - 1
STALE_HEAD_S = 0.005


class Reads:
    """Reads of this server's state; a `CatalogSource` for the shared endpoints.

    Args:
        replica: Confirms that the state is new enough.
        machine: Holds the state.
        hub: Wakes blocking reads.
        clock: Source of time.
        rng: Spreads the ends of waits.
        datacenter: Name of this datacenter.
        timeout_s: Longest wait for a read index, in seconds.
    """

    def __init__(
        self,
        replica: ReplicaAPI,
        machine: RegistryMachine,
        hub: WatchHub,
        clock: Clock,
        rng: Random,
        *,
        datacenter: str,
        timeout_s: float,
    ) -> None:
        self.datacenter = datacenter
        self.hub = hub
        self.rendered = RenderedCache()
        self.now = clock.monotonic
        self.jitter = rng.random
        self._replica = replica
        self._machine = machine
        self._timeout_s = timeout_s
        self._stale: tuple[float, ReadHead] = (float("-inf"), _LEADER_HEAD)
        machine.on_change(self._changed)

    @property
    def state(self) -> State:
        """The present state."""
        return self._machine.state

    def catalog(self) -> Catalog:
        """The present catalog."""
        return self._machine.state.catalog

    async def ready(self, options: ReadOptions) -> None:
        """Returns when the state is new enough.

        Raises:
            NoLeader: No majority confirmed it in time.
        """
        if options.consistency is not Consistency.STALE:
            await self._replica.read_index(self._timeout_s)

    def head(self, options: ReadOptions) -> ReadHead:
        """What an answer given now says about itself."""
        match options.consistency:
            case Consistency.DEFAULT:
                return _LEADER_HEAD
            case Consistency.CONSISTENT:
                return _CONSISTENT_HEAD
            case Consistency.STALE:
                return self._stale_head()

    async def find(
        self,
        options: ReadOptions,
        topics: tuple[Topic, ...],
        query: Callable[[State], _Found],
    ) -> _Found:
        """Runs a query over the state, blocking when the options ask for it.

        Raises:
            NoLeader: The state can't be confirmed as new enough.
            TooManyWatches: Too many blocking queries wait.
        """
        await self.ready(options)
        if not options.index:
            return query(self._machine.state)
        index = options.index
        if index > self.state.index and options.consistency is not Consistency.STALE:
            index = 0  # not one of ours: its bearer learns the state at once
        return await block(
            self.hub,
            lambda: query(self._machine.state),
            topics,
            index=index,
            wait_s=options.wait_s * (1 + self.jitter() / 16),
            now=self.now,
        )

    def _stale_head(self) -> ReadHead:
        """Made anew every few milliseconds: what it says has no finer grain."""
        now_s = self.now()
        made_at_s, head = self._stale
        if now_s - made_at_s < STALE_HEAD_S:
            return head
        status = self._replica.status()
        age_s = status.leader_contact_age_s
        head = ReadHead(
            known_leader=status.leader_id is not None,
            last_contact_ms=LAST_CONTACT_NEVER_MS if age_s is None else round(age_s * 1000),
            effective="stale",
        )
        self._stale = (now_s, head)
        return head

    def _changed(self, topics: tuple[Topic, ...], *_: object) -> None:
        if ("all", "") in topics:
            self.rendered.clear()
        self.hub.publish(topics)
