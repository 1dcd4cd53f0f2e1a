"""Transactions: operations see the writes before them; all take effect, or none.

Like Consul, a failing transaction names every operation that failed, not the first alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import msgspec

from raftreg.core import kv, registration, sessions
from raftreg.core.changes import Changes
from raftreg.core.commands import CatalogVerb, CheckOp, KVOp, KVVerb, NodeOp, ServiceOp, Txn
from raftreg.core.results import Refused, TxnItem, TxnResult, quoted
from raftreg.core.state import State
from raftreg.model import TXN_OPERATIONS_MAX, Check, KVEntry, Node, ServiceInstance

#: Rows that a transaction answers with hold at most this much together.
ANSWER_BYTES_MAX = 8 * 1024 * 1024
_ROW_BYTES = 128

Operation = KVOp | NodeOp | ServiceOp | CheckOp
#: Rows to answer with, or what was wrong.
Answer = tuple[TxnItem, ...] | str


def run(state: State, command: Txn, changes: Changes) -> TxnResult | Refused:
    """Runs a transaction; `changes` must be reversible."""
    count = len(command.operations)
    if count > TXN_OPERATIONS_MAX:
        message = f"Transaction contains too many operations ({count} > {TXN_OPERATIONS_MAX})"
        return Refused("too_large", message, 413)
    items: list[TxnItem] = []
    errors: list[tuple[int, str]] = []
    room_bytes = ANSWER_BYTES_MAX
    for number, operation in enumerate(command.operations):
        answer = _run(state, operation, changes)
        if not isinstance(answer, str):
            room_bytes -= sum(map(_size_bytes, answer))
            if room_bytes < 0:
                answer = f"the rows read hold more than {ANSWER_BYTES_MAX} bytes"
        if isinstance(answer, str):
            errors.append((number, answer))
        elif not errors:
            items.extend(answer)
    if errors:
        changes.roll_back()
        return TxnResult(ok=False, errors=tuple(errors))
    return TxnResult(ok=True, results=tuple(items))


def _size_bytes(item: TxnItem) -> int:
    if item.kv is None:
        return _ROW_BYTES
    return _ROW_BYTES + len(item.kv.key) + len(item.kv.value)


def _run(state: State, operation: Operation, changes: Changes) -> Answer:
    match operation:
        case KVOp():
            read = _KV_READS.get(operation.verb)
            if read is not None:
                return read(state, operation)
            return _kv_write(state, operation, changes)
        case NodeOp():
            return _node(state, operation, changes)
        case ServiceOp():
            return _service(state, operation, changes)
        case CheckOp():
            return _check(state, operation, changes)
        case _:
            assert_never(operation)


# -- keys ------------------------------------------------------------------------------------------

_KV_FAILURES = {
    KVVerb.CAS: "failed to set key {}, index is stale",
    KVVerb.LOCK: "failed to lock key {}, lock is already held",
    KVVerb.UNLOCK: "failed to unlock key {}, lock isn't held, or is held by another session",
    KVVerb.DELETE_CAS: "failed to delete key {}, index is stale",
    KVVerb.RENEW: "failed to renew key {}, it doesn't exist or its index is stale",
}
_KV_DELETES = {KVVerb.DELETE, KVVerb.DELETE_CAS, KVVerb.DELETE_TREE}


def _kv_write(state: State, op: KVOp, changes: Changes) -> Answer:
    outcome = kv.write(state, op, changes)
    if isinstance(outcome, Refused):
        return outcome.message
    if not outcome:
        if op.verb is KVVerb.LOCK and kv.is_lock_delayed(state, op.key):
            return f"failed to lock key {quoted(op.key)} due to lock delay"
        return _KV_FAILURES[op.verb].format(quoted(op.key))
    if op.verb in _KV_DELETES:
        return ()
    return (_without_value(state.kv.rows[op.key]),)


def _without_value(entry: KVEntry) -> TxnItem:
    return TxnItem(kv=msgspec.structs.replace(entry, value=b""))


def _kv_get(state: State, op: KVOp) -> Answer:
    entry = state.kv.get(op.key)
    return f"key {quoted(op.key)} doesn't exist" if entry is None else (TxnItem(kv=entry),)


def _kv_get_tree(state: State, op: KVOp) -> Answer:
    return tuple(TxnItem(kv=entry) for entry in state.kv.under(op.key))


def _kv_check_session(state: State, op: KVOp) -> Answer:
    entry = state.kv.get(op.key)
    if entry is None:
        return f"failed to check session, key {quoted(op.key)} doesn't exist"
    if (entry.session or "") != op.session:
        current, wanted = quoted(entry.session or ""), quoted(op.session)
        key = quoted(op.key)
        return f"failed session check for key {key}, current session {current} != {wanted}"
    return (_without_value(entry),)


def _kv_check_index(state: State, op: KVOp) -> Answer:
    entry = state.kv.get(op.key)
    if entry is None:
        return f"failed to check index, key {quoted(op.key)} doesn't exist"
    if entry.modify_index != op.index:
        key = quoted(op.key)
        return (
            f"failed index check for key {key}, current modify index "
            f"{entry.modify_index} != {op.index}"
        )
    return (_without_value(entry),)


def _kv_check_not_exists(state: State, op: KVOp) -> Answer:
    return () if state.kv.get(op.key) is None else f"key {quoted(op.key)} exists"


_KV_READS: dict[KVVerb, Callable[[State, KVOp], Answer]] = {
    KVVerb.GET: _kv_get,
    KVVerb.GET_TREE: _kv_get_tree,
    KVVerb.CHECK_SESSION: _kv_check_session,
    KVVerb.CHECK_INDEX: _kv_check_index,
    KVVerb.CHECK_NOT_EXISTS: _kv_check_not_exists,
}

# -- catalog rows ----------------------------------------------------------------------------------


def _node(state: State, op: NodeOp, changes: Changes) -> Answer:
    catalog, index = state.catalog, state.index
    name = op.node.name
    old = catalog.nodes.get(name)
    stale = _stale(op.verb, op.index, old)
    what = f"node {quoted(name)}"
    match op.verb:
        case _ if stale is not None:
            return f"failed to {stale} {what}, index is stale"
        case CatalogVerb.GET:
            found = catalog.node_by_id(op.node.id) if op.node.id else old
            return f"{what} doesn't exist" if found is None else (TxnItem(node=found),)
        case CatalogVerb.DELETE | CatalogVerb.DELETE_CAS:
            mark = len(changes.deltas)
            catalog.delete_node(name, index, changes)
            sessions.end_broken(state, changes, mark)
            return ()
        case CatalogVerb.SET | CatalogVerb.CAS:
            refused = registration.node_refusal(op.node)
            if refused is not None:
                return refused.message
            mark = len(changes.deltas)
            row = catalog.put_node(op.node, index, changes)
            sessions.end_broken(state, changes, mark)
            return (TxnItem(node=row),)
        case _:
            assert_never(op.verb)


def _service(state: State, op: ServiceOp, changes: Changes) -> Answer:
    catalog, index = state.catalog, state.index
    row = registration.own_service(op.service.node, op.service)
    old = catalog.service(row.node, row.id)
    stale = _stale(op.verb, op.index, old)
    what = f"service {quoted(row.id)} on node {quoted(row.node)}"
    match op.verb:
        case _ if stale is not None:
            return f"failed to {stale} {what}, index is stale"
        case CatalogVerb.GET:
            return f"{what} doesn't exist" if old is None else (TxnItem(service=old),)
        case CatalogVerb.DELETE | CatalogVerb.DELETE_CAS:
            mark = len(changes.deltas)
            catalog.delete_service(row.node, row.id, index, changes)
            sessions.end_broken(state, changes, mark)
            return ()
        case CatalogVerb.SET | CatalogVerb.CAS:
            refused = registration.service_refusal(row)
            if row.node not in catalog.nodes:
                refused = registration.MISSING_NODE
            if refused is not None:
                return refused.message
            return (TxnItem(service=catalog.put_service(row, index, changes)),)
        case _:
            assert_never(op.verb)


def _check(state: State, op: CheckOp, changes: Changes) -> Answer:
    catalog, index = state.catalog, state.index
    row = registration.own_check(op.check.node, op.check)
    old = catalog.check(row.node, row.check_id)
    stale = _stale(op.verb, op.index, old)
    what = f"check {quoted(row.check_id)} on node {quoted(row.node)}"
    match op.verb:
        case _ if stale is not None:
            return f"failed to {stale} {what}, index is stale"
        case CatalogVerb.GET:
            return f"{what} doesn't exist" if old is None else (TxnItem(check=old),)
        case CatalogVerb.DELETE | CatalogVerb.DELETE_CAS:
            mark = len(changes.deltas)
            catalog.delete_check(row.node, row.check_id, index, changes)
            sessions.end_broken(state, changes, mark)
            return ()
        case CatalogVerb.SET | CatalogVerb.CAS:
            refused = registration.check_refusal(row)
            if row.node not in catalog.nodes:
                refused = registration.MISSING_NODE
            elif row.service_id and catalog.service(row.node, row.service_id) is None:
                refused = registration.MISSING_SERVICE
            if refused is not None:
                return refused.message
            mark = len(changes.deltas)
            written = catalog.put_check(row, index, changes)
            sessions.end_broken(state, changes, mark)
            return (TxnItem(check=written),)
        case _:
            assert_never(op.verb)


def _stale(
    verb: CatalogVerb, wanted: int, old: Node | ServiceInstance | Check | None
) -> str | None:
    """Names what a conditional verb can't do at this ModifyIndex; None when it may go on."""
    current = None if old is None else old.modify_index
    if verb is CatalogVerb.CAS:
        return "set" if (current or 0) != wanted else None
    if verb is CatalogVerb.DELETE_CAS:
        return "delete" if current is not None and current != wanted else None
    return None
