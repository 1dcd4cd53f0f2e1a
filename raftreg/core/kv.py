"""The write verbs of the KV store, as Consul defines them.

Every function answers True (done), False (the condition does not hold, nothing changed) or
`Refused`. They are used alone (`apply`) and inside transactions (`txn`).
"""

from __future__ import annotations

from collections.abc import Callable

from raftreg.core.changes import Changes
from raftreg.core.commands import KVOp, KVVerb
from raftreg.core.results import Refused, quoted
from raftreg.core.state import State
from raftreg.model import KVEntry

Outcome = bool | Refused


def write(state: State, op: KVOp, changes: Changes) -> Outcome:
    """Runs one verb that writes; the others mean something inside a transaction only."""
    verb = _WRITES.get(op.verb)
    if verb is None:
        message = f"KV verb {quoted(op.verb.value)} works inside a transaction only"
        return Refused("invalid_request", message, 400)
    if not op.key and op.verb is not KVVerb.DELETE_TREE:
        return Refused("invalid_request", "Missing key name", 400)
    return verb(state, op, changes)


def is_lock_delayed(state: State, key: str) -> bool:
    """Tells whether the key can't be locked yet after its last holder was invalidated."""
    return state.lock_delays.get(key, 0) > state.time_ms


def _store(
    state: State, op: KVOp, changes: Changes, old: KVEntry | None, session: str | None, locks: int
) -> bool:
    index = state.index
    entry = KVEntry(
        key=op.key,
        value=op.value,
        flags=op.flags,
        session=session,
        lock_index=locks,
        create_index=index if old is None else old.create_index,
        modify_index=index,
    )
    state.kv.put(entry, changes.undo)
    changes.topics["kv", op.key] = None
    return True


def _set(state: State, op: KVOp, changes: Changes) -> Outcome:
    """Writes; a lock on the key stays as it is."""
    old = state.kv.rows.get(op.key)
    if old is None:
        return _store(state, op, changes, None, None, 0)
    return _store(state, op, changes, old, old.session, old.lock_index)


def _cas(state: State, op: KVOp, changes: Changes) -> Outcome:
    """Writes at this ModifyIndex only; 0 creates only."""
    old = state.kv.rows.get(op.key)
    if (0 if old is None else old.modify_index) != op.index:
        return False
    return _set(state, op, changes)


def _lock(state: State, op: KVOp, changes: Changes) -> Outcome:
    """Takes the lock; the holder itself may write again, which counts as no new acquisition."""
    refused = _check_session(state, op)
    if refused is not None:
        return refused
    old = state.kv.rows.get(op.key)
    if old is not None and old.session == op.session:
        return _store(state, op, changes, old, op.session, old.lock_index)
    if (old is not None and old.session is not None) or is_lock_delayed(state, op.key):
        return False
    locks = 1 if old is None else old.lock_index + 1
    return _store(state, op, changes, old, op.session, locks)


def _unlock(state: State, op: KVOp, changes: Changes) -> Outcome:
    """Gives the lock back, with a last write by its holder."""
    if not op.session:
        return Refused("missing_session", "missing session")
    old = state.kv.rows.get(op.key)
    if old is None or old.session != op.session:
        return False
    return _store(state, op, changes, old, None, old.lock_index)


def _check_session(state: State, op: KVOp) -> Refused | None:
    if not op.session:
        return Refused("missing_session", "missing session")
    if op.session not in state.sessions:
        return Refused("invalid_session", f"invalid session {quoted(op.session)}")
    return None


def _delete(state: State, op: KVOp, changes: Changes) -> Outcome:
    """Deletes, also a locked key; a missing one is fine."""
    old = state.kv.rows.get(op.key)
    if old is not None:
        state.kv.delete(old, state.index, changes.undo)
        changes.topics["kv", op.key] = None
    return True


def _delete_cas(state: State, op: KVOp, changes: Changes) -> Outcome:
    """Deletes at this ModifyIndex only; a missing key is fine at any."""
    old = state.kv.rows.get(op.key)
    if old is not None and old.modify_index != op.index:
        return False
    return _delete(state, op, changes)


def _delete_tree(state: State, op: KVOp, changes: Changes) -> Outcome:
    if state.kv.delete_tree(op.key, state.index, changes.undo):
        changes.topics["kv-tree", op.key] = None
    return True


_WRITES: dict[KVVerb, Callable[[State, KVOp, Changes], Outcome]] = {
    KVVerb.SET: _set,
    KVVerb.CAS: _cas,
    KVVerb.LOCK: _lock,
    KVVerb.UNLOCK: _unlock,
    KVVerb.DELETE: _delete,
    KVVerb.DELETE_CAS: _delete_cas,
    KVVerb.DELETE_TREE: _delete_tree,
}
