"""Sessions: created on a healthy node, ended by request, by expiry, or by their node or checks."""

from __future__ import annotations

from functools import partial

import msgspec

from raftreg.core.changes import Changes
from raftreg.core.commands import SessionCreate, SessionDestroy
from raftreg.core.delta import CatalogDelta
from raftreg.core.results import Refused, quoted
from raftreg.core.state import State
from raftreg.model import Session, SessionBehavior, Status

LOCK_DELAY_S_MAX = 60.0
TTL_S_MAX = 86_400.0
#: Number of lock delays above which those that have passed are swept at the next new one.
_LOCK_DELAYS_SWEPT_ABOVE = 1_024


def create(state: State, command: SessionCreate, changes: Changes) -> str | Refused:
    """Creates a session; gives its id."""
    session = command.session
    refused = _shape_refusal(state, session) or _health_refusal(state, session)
    if refused is not None:
        return refused
    index = state.index
    session = msgspec.structs.replace(session, create_index=index, modify_index=index)
    _set_session(state, session.id, session, index, state.sessions_ended)
    _publish(session, changes)
    return session.id


def destroy(state: State, command: SessionDestroy, changes: Changes) -> bool:
    """Ends a session if it is there."""
    session = state.sessions.get(command.id)
    if session is not None:
        end(state, session, changes)
    return True


def end(state: State, session: Session, changes: Changes) -> None:
    """Invalidates a session: its locks are released or their keys deleted, by its behavior."""
    undo = changes.undo
    if undo is not None:
        before = (state.sessions_changed, state.sessions_ended)
        undo.append(partial(_set_session, state, session.id, session, *before))
    _set_session(state, session.id, None, state.index, state.index)
    _publish(session, changes)
    # Sorted: the order in which tombstones are made is part of the replicated state.
    for key in sorted(state.kv.held.get(session.id, ())):
        _give_up(state, session, key, changes)


def end_of_node(state: State, node: str, changes: Changes) -> None:
    """Ends all sessions of a node."""
    for session_id in sorted(state.sessions_of.get(node, ())):
        end(state, state.sessions[session_id], changes)


def end_broken(state: State, changes: Changes, since: int = 0) -> None:
    """Ends the sessions that the catalog changes gathered since a mark leave without ground."""
    for delta in changes.deltas[since:]:
        ids = state.sessions_of.get(delta.node)
        if not ids or not _is_ground_lost(state, delta):
            continue
        for session_id in sorted(ids):
            session = state.sessions[session_id]
            if delta.kind == "node" or _is_bound_to(session, delta.id):
                end(state, session, changes)


def _is_ground_lost(state: State, delta: CatalogDelta) -> bool:
    """Tells whether a node is gone, or a check gone or critical, as things stand now."""
    if delta.kind == "node":
        return delta.node not in state.catalog.nodes
    check = state.catalog.check(delta.node, delta.id)
    return delta.kind == "check" and (check is None or check.status is Status.CRITICAL)


def _is_bound_to(session: Session, check_id: str) -> bool:
    return check_id in session.node_checks or check_id in session.service_checks


def _shape_refusal(state: State, session: Session) -> Refused | None:
    if not session.id:
        return Refused("invalid_request", "Missing session ID", 400)
    if session.id in state.sessions:
        return Refused("session_exists", f"session {quoted(session.id)} already exists")
    # Written so that NaN fails too.
    if not 0 <= session.ttl_s <= TTL_S_MAX or not session.lock_delay_s >= 0:
        return Refused("invalid_request", "Invalid Session TTL or LockDelay", 400)
    return None


def _health_refusal(state: State, session: Session) -> Refused | None:
    if session.node not in state.catalog.nodes:
        return Refused("missing_node", "Missing node registration")
    for check_id in (*session.node_checks, *session.service_checks):
        check = state.catalog.check(session.node, check_id)
        if check is None:
            return Refused("missing_check", f"Missing check '{check_id[:256]}' registration")
        if check.status is Status.CRITICAL:
            return Refused("check_critical", f"Check '{check_id[:256]}' is in critical state")
    return None


def _set_session(
    state: State, session_id: str, session: Session | None, changed: int, ended: int
) -> None:
    old = state.sessions.pop(session_id, None)
    if old is not None:
        ids = state.sessions_of[old.node]
        ids.discard(session_id)
        if not ids:
            del state.sessions_of[old.node]
    if session is not None:
        state.sessions[session_id] = session
        state.sessions_of.setdefault(session.node, set()).add(session_id)
    state.sessions_changed = changed
    state.sessions_ended = ended


def _publish(session: Session, changes: Changes) -> None:
    topics = changes.topics
    topics["session", session.id] = None
    topics["session-node", session.node] = None
    topics["sessions", ""] = None


def _give_up(state: State, session: Session, key: str, changes: Changes) -> None:
    """Frees or deletes one key that an ended session held, and starts its lock delay."""
    entry = state.kv.rows[key]
    if session.behavior is SessionBehavior.DELETE:
        state.kv.delete(entry, state.index, changes.undo)
    else:
        freed = msgspec.structs.replace(entry, session=None, modify_index=state.index)
        state.kv.put(freed, changes.undo)
    changes.topics["kv", key] = None
    delay_ms = int(min(session.lock_delay_s, LOCK_DELAY_S_MAX) * 1000)
    if delay_ms:
        _start_lock_delay(state, key, state.time_ms + delay_ms, changes)


def _start_lock_delay(state: State, key: str, until_ms: int, changes: Changes) -> None:
    delays = state.lock_delays
    if len(delays) >= _LOCK_DELAYS_SWEPT_ABOVE:
        # What has passed has no effect any more, so when it is swept does not matter.
        for passed in [k for k, until in delays.items() if until <= state.time_ms]:
            del delays[passed]
    if changes.undo is not None:
        changes.undo.append(partial(_set_lock_delay, delays, key, delays.get(key)))
    delays[key] = until_ms


def _set_lock_delay(delays: dict[str, int], key: str, until_ms: int | None) -> None:
    if until_ms is None:
        del delays[key]
    else:
        delays[key] = until_ms
