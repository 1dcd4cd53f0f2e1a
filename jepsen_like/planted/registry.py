"""Bugs of the registry: its rules, its snapshots, and what it tells to those who follow it."""

# ruff: noqa: SLF001 - bugs live in private parts

from __future__ import annotations

from itertools import count
from typing import Any

from jepsen_like.planted.bug import replace
from jepsen_like.planted.consensus import small_snapshots
from raftreg.core import kv, snapshot
from raftreg.core.catalog import Catalog
from raftreg.core.changes import Changes, Topic
from raftreg.core.commands import KVOp, KVVerb
from raftreg.core.delta import CatalogDelta
from raftreg.core.snapshot import Table
from raftreg.core.state import State
from raftreg.errors import RaftregError
from raftreg.server.viewfeed import ViewFeed
from raftreg_agent.view import CatalogView

#: One change in so many is harmed.
_EVERY = 7


def blind_cas() -> None:
    """Check-and-set writes without comparing the index."""
    kv._WRITES[KVVerb.CAS] = kv._set


def torn_txn() -> None:
    """A transaction that fails leaves behind what it had written by then."""
    replace(Changes, "roll_back", lambda _: None)


def shared_lock() -> None:
    """A lock is given to whoever asks, also while somebody holds it."""

    def lock(state: State, op: KVOp, changes: Changes) -> kv.Outcome:
        refused = kv._check_session(state, op)
        if refused is not None:
            return refused
        old = state.kv.rows.get(op.key)
        locks = 1 if old is None else old.lock_index + 1
        return kv._store(state, op, changes, old, op.session, locks)

    kv._WRITES[KVVerb.LOCK] = lock


def standing_token() -> None:
    """The fencing token does not rise when a lock changes hands."""
    real = kv._lock

    def lock(state: State, op: KVOp, changes: Changes) -> kv.Outcome:
        old = state.kv.rows.get(op.key)
        outcome = real(state, op, changes)
        if outcome is True and old is not None:
            row = state.kv.rows[op.key]
            kv._store(state, op, changes, row, op.session, old.lock_index)
        return outcome

    kv._WRITES[KVVerb.LOCK] = lock


def no_lock_delay() -> None:
    """A lock whose holder was invalidated is free at once, whatever its lock delay."""
    replace(kv, "is_lock_delayed", lambda *_: False)


def snapshot_without_keys() -> None:
    """Snapshots leave out the table of keys."""
    small_snapshots()
    real = snapshot._encode_tables

    def encode(tables: list[tuple[Table, list[Any]]]) -> Any:
        return real([(table, [] if table is Table.KV else rows) for table, rows in tables])

    replace(snapshot, "_encode_tables", encode)


def dropped_event() -> None:
    """The stream that agents follow leaves out one change in seven."""
    numbers, real = count(1), ViewFeed._changed

    def changed(
        self: ViewFeed, topics: tuple[Topic, ...], deltas: tuple[CatalogDelta, ...], index: int
    ) -> None:
        if not deltas or next(numbers) % _EVERY:
            real(self, topics, deltas, index)

    replace(ViewFeed, "_changed", changed)


def doubled_event() -> None:
    """The stream that agents follow tells one change in seven twice."""
    numbers, real = count(1), ViewFeed._changed

    def changed(
        self: ViewFeed, topics: tuple[Topic, ...], deltas: tuple[CatalogDelta, ...], index: int
    ) -> None:
        real(self, topics, deltas, index)
        if deltas and not next(numbers) % _EVERY:
            real(self, topics, deltas, index)

    replace(ViewFeed, "_changed", changed)


def lasting_ghosts() -> None:
    """Deletions never reach the views of agents."""
    real = ViewFeed._changed

    def changed(
        self: ViewFeed, topics: tuple[Topic, ...], deltas: tuple[CatalogDelta, ...], index: int
    ) -> None:
        real(self, topics, tuple(delta for delta in deltas if delta.row is not None), index)

    replace(ViewFeed, "_changed", changed)


def forgetful_agent() -> None:
    """An agent that loses its servers empties its view."""
    real = CatalogView._follow

    async def follow(self: CatalogView) -> None:
        try:
            await real(self)
        except RaftregError:
            self.catalog, self._epoch = Catalog(), ""
            raise

    replace(CatalogView, "_follow", follow)
