"""The state machine: `apply(state, command, time_ms)` does one command and tells what changed.

Total and deterministic: every command value gives a result (a refusal is one), and the same
commands give the same state on every server. A refused command changes nothing but the index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from raftreg.core import (
    config_entries,
    connect_ca,
    coordinates,
    events,
    intention_writes,
    kv,
    queries,
    registration,
    restore,
    sessions,
    txn,
)
from raftreg.core.changes import ALL, Changes, Topic
from raftreg.core.commands import (
    Command,
    ConfigDelete,
    ConfigSet,
    CoordinateUpdate,
    Deregister,
    EventFire,
    IntentionDelete,
    IntentionSet,
    KVExpire,
    KVOp,
    NodeSync,
    QueryDelete,
    QuerySet,
    ReapTombstones,
    Register,
    RestoreChunk,
    SessionCreate,
    SessionDestroy,
    SetLiveness,
    Txn,
)
from raftreg.core.connect_ca import AuthoritySet
from raftreg.core.delta import CatalogDelta
from raftreg.core.results import Refused, Result
from raftreg.core.state import State

__all__ = ["ALL", "Applied", "apply"]


class Applied(msgspec.Struct, frozen=True):
    """What a command did.

    Attributes:
        result: The answer for the proposer.
        topics: What to publish to watchers.
        deltas: Catalog rows to stream to views. After a restore (topics hold `ALL`) they are
            empty: views start anew from the whole content.
    """

    result: Result
    topics: tuple[Topic, ...] = ()
    deltas: tuple[CatalogDelta, ...] = ()


def apply(state: State, command: Command, time_ms: int) -> Applied:
    """Applies one command.

    Args:
        state: Is changed in place.
        command: What to do.
        time_ms: Cluster time of the log entry, in milliseconds; one in the past counts as now.
    """
    index = state.index = state.index + 1
    state.time_ms = max(state.time_ms, time_ms)
    kind = type(command)
    changes = Changes(reversible=kind is Txn)
    result = _HANDLERS[kind](state, command, changes)
    if changes.deltas:
        state.catalog.commit(changes, index)
    elif state.catalog.index < index:
        state.catalog.index = index
    _let_go(state, changes)
    return Applied(result, tuple(changes.topics), tuple(changes.deltas))


def _let_go(state: State, changes: Changes) -> None:
    """Deletes what can't be without the nodes and sessions that went with this command.

    It comes last, when nothing is undone any more; what was changed tells which went.
    """
    if state.coordinates.rows:
        for delta in changes.deltas:
            if delta.kind == "node" and delta.node not in state.catalog.nodes:
                coordinates.forget(state, delta.node, changes)
    if state.queries.rows:
        for kind, name in list(changes.topics):
            if kind == "session" and name not in state.sessions:
                queries.delete_of_session(state, name, changes)


def _reap(state: State, command: ReapTombstones, changes: Changes) -> bool:
    """Forgets tombstones, and a restore that nobody goes on with; wakes nobody."""
    del changes
    state.kv.forget_tombstones(command.up_to_index, None)
    if state.staging is not None and state.staging.is_abandoned(state.time_ms):
        state.staging = None
    return True


def _event_fire(state: State, command: EventFire, changes: Changes) -> bool | Refused:
    return events.fire(state.events, command.event, changes)


def _authority_set(state: State, command: AuthoritySet, changes: Changes) -> bool | Refused:
    state.connect, result = connect_ca.change(
        state.connect, command, changes, index=state.index, time_ms=state.time_ms
    )
    return result


_HANDLERS: dict[type[Any], Callable[[State, Any, Changes], Result]] = {
    KVOp: kv.write,
    Txn: txn.run,
    Register: registration.register,
    Deregister: registration.deregister,
    NodeSync: registration.node_sync,
    SetLiveness: registration.set_liveness,
    SessionCreate: sessions.create,
    SessionDestroy: sessions.destroy,
    ConfigSet: config_entries.write,
    ConfigDelete: config_entries.delete,
    IntentionSet: intention_writes.write,
    IntentionDelete: intention_writes.delete,
    AuthoritySet: _authority_set,
    ReapTombstones: _reap,
    RestoreChunk: restore.stage,
    EventFire: _event_fire,
    CoordinateUpdate: coordinates.update,
    QuerySet: queries.write,
    QueryDelete: queries.delete,
    KVExpire: kv.expire,
}
