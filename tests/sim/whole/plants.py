"""Bugs to plant in whole servers: each breaks one promise, and the simulator must find it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import pytest

from raftreg.core import kv, snapshot
from raftreg.core.commands import KVVerb
from raftreg.core.lease import LeaseTable
from raftreg.core.snapshot import Table
from raftreg.http.watch import WatchHub
from raftreg.server.leases import Leases
from raftreg.server.renewals import Renewal
from raftreg.server.viewfeed import ViewFeed
from raftreg_agent.view import CatalogView
from tests.sim.planted import reads_without_echo, requests_repeated

#: One in so many is harmed.
_EVERY = 5

Patch = pytest.MonkeyPatch


class Plant(msgspec.Struct, frozen=True):
    """A bug.

    Attributes:
        plant: Switches it on.
        workload: Under which it must be found.
        says: Part of what the report says.
        faults: Those under which it is looked for; none: any.
    """

    plant: Callable[[Patch], None]
    workload: str
    says: str
    faults: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.plant.__name__


def session_not_renewed(patch: Patch) -> None:
    """A session's renewal is answered, and not noted."""
    real = Leases._extend

    def extend(self: Leases, renewal: Renewal) -> None:
        real(self, msgspec.structs.replace(renewal, sessions=()))

    patch.setattr(Leases, "_extend", extend)


def no_term_after_an_election(patch: Patch) -> None:
    """A new leader takes the leases that it has not heard of for over soon."""
    real = LeaseTable.promote

    def promote(self: LeaseTable, terms: Any, now: float) -> None:
        real(self, {name: 0.05 * ttl_s for name, ttl_s in terms.items()}, now)

    patch.setattr(LeaseTable, "promote", promote)


def watchers_not_woken(patch: Patch) -> None:
    """Of five publications four wake nobody."""
    numbers, real = count(1), WatchHub.publish

    def publish(self: WatchHub, topics: Any) -> None:
        if not next(numbers) % _EVERY:
            real(self, topics)

    patch.setattr(WatchHub, "publish", publish)


def feed_drops_changes(patch: Patch) -> None:
    """The feed of the agents leaves out one change in five."""
    numbers, real = count(1), ViewFeed._changed

    def changed(self: ViewFeed, topics: Any, deltas: Any, index: int) -> None:
        if not deltas or next(numbers) % _EVERY:
            real(self, topics, deltas, index)

    patch.setattr(ViewFeed, "_changed", changed)


def view_forgotten(patch: Patch) -> None:
    """An agent whose feed ends begins with nothing."""
    real = CatalogView._follow

    async def follow(self: CatalogView) -> None:
        self.catalog, self._epoch = type(self.catalog)(), ""
        await real(self)

    patch.setattr(CatalogView, "_follow", follow)


def blind_cas(patch: Patch) -> None:
    """Check-and-set does not compare."""
    patch.setitem(kv._WRITES, KVVerb.CAS, kv._set)


def snapshot_without_sessions(patch: Patch) -> None:
    """A snapshot forgets the sessions."""
    real = snapshot._encode_tables

    def encode(tables: list[tuple[Table, list[Any]]]) -> Any:
        return real([(table, [] if table is Table.SESSIONS else rows) for table, rows in tables])

    patch.setattr(snapshot, "_encode_tables", encode)


PLANTS: tuple[Plant, ...] = (
    Plant(session_not_renewed, "lock", "the lease of"),
    Plant(no_term_after_an_election, "catalog", "the lease of"),
    Plant(watchers_not_woken, "watch", "watch: "),
    Plant(feed_drops_changes, "watch", "watch: "),
    Plant(view_forgotten, "answers", "answers: "),
    Plant(blind_cas, "unique", "unique: "),
    Plant(snapshot_without_sessions, "lock", ""),
    Plant(reads_without_echo, "register", "register: ", ("cut_off_leader", "pause_leader")),
    Plant(requests_repeated, "once", "once: ", ("kill_leader", "resets", "slow_links")),
)
