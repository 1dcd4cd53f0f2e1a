"""The write verbs of the KV store, as Consul defines them, and the TTL that a key may have.

Every function answers True (done), False (the condition does not hold, nothing changed) or
`Refused`. They are used alone (`apply`) and inside transactions (`txn`).

Each verb that writes a value sets the key's TTL anew: the one it brings, or none. `renew` moves the
deadline and keeps the value, the flags, the lock and the ModifyIndex; only a TTL of another length
is a change that watchers see. A key whose deadline has passed is there until an entry of the log
deletes it (`expire`), like any other delete: a lock does not keep it, and starts no lock delay.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftreg.core.changes import Changes
from raftreg.core.commands import KVExpire, KVOp, KVVerb
from raftreg.core.kvstore import EXPIRED_TOGETHER_MAX
from raftreg.core.results import Refused, quoted
from raftreg.core.state import State
from raftreg.model import KV_TTL_MS_MAX, KV_TTL_MS_MIN, KVEntry

Outcome = bool | Refused


def write(state: State, op: KVOp, changes: Changes) -> Outcome:
    """Runs one verb that writes; the others mean something inside a transaction only."""
    verb = _WRITES.get(op.verb)
    if verb is None:
        message = f"KV verb {quoted(op.verb.value)} works inside a transaction only"
        return Refused("invalid_request", message, 400)
    if not op.key and op.verb is not KVVerb.DELETE_TREE:
        return Refused("invalid_request", "Missing key name", 400)
    if op.ttl_ms and not KV_TTL_MS_MIN <= op.ttl_ms <= KV_TTL_MS_MAX:
        message = f"a TTL must be between {KV_TTL_MS_MIN} and {KV_TTL_MS_MAX} ms"
        return Refused("invalid_request", message, 400)
    return verb(state, op, changes)


def expire(state: State, command: KVExpire, changes: Changes) -> bool:
    """Deletes keys whose TTL is over; False when there was none."""
    count_max = min(max(command.keys_max, 1), EXPIRED_TOGETHER_MAX)
    keys = state.kv.ended(state.time_ms, count_max)
    for key in keys:
        state.kv.delete(state.kv.rows[key], state.index, changes.undo)
        changes.topics["kv", key] = None
    return bool(keys)


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
        ttl_ms=op.ttl_ms,
    )
    state.kv.put(entry, changes.undo, state.time_ms + op.ttl_ms if op.ttl_ms else None)
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


def _renew(state: State, op: KVOp, changes: Changes) -> Outcome:
    """Gives a key another term; False when it is not there, or not at this ModifyIndex."""
    old = state.kv.rows.get(op.key)
    if old is None or (op.index and old.modify_index != op.index):
        return False
    ttl_ms = op.ttl_ms or old.ttl_ms
    if not ttl_ms:
        message = f"key {quoted(op.key)} has no TTL to renew: give it one with ttl"
        return Refused("invalid_request", message, 400)
    ends_ms = state.time_ms + ttl_ms
    if ttl_ms == old.ttl_ms:
        state.kv.renew(op.key, ends_ms, changes.undo)
        return True
    entry = msgspec.structs.replace(old, ttl_ms=ttl_ms, modify_index=state.index)
    state.kv.put(entry, changes.undo, ends_ms)
    changes.topics["kv", op.key] = None
    return True


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
    KVVerb.RENEW: _renew,
}
