"""The registry as a few plain dicts: slow, naive, written without a look at `raftreg.core`.

Tests compare it with the real state machine after every command.
"""

from __future__ import annotations

import copy
from typing import Any

from msgspec.structs import replace

from raftreg.core import commands as c
from raftreg.core.commands import CatalogVerb, KVVerb
from raftreg.model import (
    Check,
    ConfigEntry,
    KVEntry,
    Node,
    NodeCoordinate,
    PreparedQuery,
    ServiceInstance,
    Session,
    SessionBehavior,
    Status,
)


class No(Exception):
    """An operation of a transaction fails, or a command is refused."""


class PlainModel:
    """All rows by key; `run` gives True, False, an id, "refused", or (ok, failed operations)."""

    def __init__(self) -> None:
        self.index = 1
        self.now = 0
        self.kv: dict[str, KVEntry] = {}
        self.ends: dict[str, int] = {}
        self.nodes: dict[str, Node] = {}
        self.services: dict[tuple[str, str], ServiceInstance] = {}
        self.checks: dict[tuple[str, str], Check] = {}
        self.sessions: dict[str, Session] = {}
        self.delays: dict[str, int] = {}
        self.queries: dict[str, PreparedQuery] = {}
        self.places: dict[tuple[str, str], NodeCoordinate] = {}
        self.config: dict[tuple[str, str], ConfigEntry] = {}

    def content(self) -> tuple[dict[Any, Any], ...]:
        """Everything that clients can see."""
        return (
            self.kv,
            self.nodes,
            self.services,
            self.checks,
            self.sessions,
            self.config,
            self.queries,
            self.places,
        )

    def run(self, command: c.Command, now: int) -> Any:
        """Does one command."""
        self.index += 1
        self.now = now
        before = copy.copy(self.__dict__)
        self.__dict__.update({k: copy.copy(v) for k, v in before.items()})
        try:
            result = getattr(self, "_do_" + type(command).__name__.lower())(command)
            self._let_go()
            self.ends = {key: at for key, at in self.ends.items() if key in self.kv}
            return result
        except No as error:
            self.__dict__.update(before)
            return error.args[0] if error.args else "refused"

    # -- keys and sessions

    def _do_kvop(self, op: c.KVOp) -> Any:
        if op.verb.value.startswith(("get", "check")):
            raise No
        return self._kv_write(op)

    def _kv_write(self, op: c.KVOp) -> bool:
        old = self.kv.get(op.key)
        if op.ttl_ms and not 1_000 <= op.ttl_ms <= 31_622_400_000:
            raise No
        if op.verb is KVVerb.RENEW:
            return self._kv_renew(op, old)
        if op.verb in (KVVerb.LOCK, KVVerb.UNLOCK):
            return self._kv_hold(op, old)
        if op.verb in (KVVerb.DELETE, KVVerb.DELETE_CAS, KVVerb.DELETE_TREE):
            return self._kv_delete(op, old)
        if op.verb is KVVerb.CAS and op.index != (old.modify_index if old else 0):
            return False
        self._kv_put(op, old, old.session if old else None, old.lock_index if old else 0)
        return True

    def _kv_hold(self, op: c.KVOp, old: KVEntry | None) -> bool:
        holder, locks = (old.session, old.lock_index) if old else (None, 0)
        lock = op.verb is KVVerb.LOCK
        if not op.session or (lock and op.session not in self.sessions):
            raise No
        mine = holder == op.session
        if not lock and not mine:
            return False
        if lock and not mine and (holder or self.delays.get(op.key, 0) > self.now):
            return False
        self._kv_put(op, old, op.session if lock else None, locks + (lock and not mine))
        return True

    def _kv_renew(self, op: c.KVOp, old: KVEntry | None) -> bool:
        if old is None or op.index not in (0, old.modify_index):
            return False
        ttl_ms = op.ttl_ms or old.ttl_ms
        if ttl_ms == 0:
            raise No
        if ttl_ms != old.ttl_ms:
            self.kv[op.key] = replace(old, ttl_ms=ttl_ms, modify_index=self.index)
        self.ends[op.key] = self.now + ttl_ms
        return True

    def _do_kvexpire(self, command: c.KVExpire) -> bool:
        over = sorted((at, key) for key, at in self.ends.items() if at <= self.now)
        for _, key in over[: max(command.keys_max, 1)]:
            del self.kv[key]
        return bool(over)

    def _kv_delete(self, op: c.KVOp, old: KVEntry | None) -> bool:
        if op.verb is KVVerb.DELETE_CAS and old and old.modify_index != op.index:
            return False
        tree = op.verb is KVVerb.DELETE_TREE
        self.kv = {
            k: v for k, v in self.kv.items() if not (k.startswith(op.key) if tree else k == op.key)
        }
        return True

    def _kv_put(self, op: c.KVOp, old: KVEntry | None, holder: str | None, locks: int) -> None:
        self.kv[op.key] = KVEntry(
            key=op.key,
            value=op.value,
            flags=op.flags,
            session=holder,
            lock_index=locks,
            create_index=old.create_index if old else self.index,
            modify_index=self.index,
            ttl_ms=op.ttl_ms,
        )
        self.ends.pop(op.key, None)
        if op.ttl_ms:
            self.ends[op.key] = self.now + op.ttl_ms

    def _do_sessioncreate(self, command: c.SessionCreate) -> Any:
        s = command.session
        if s.id in self.sessions or s.node not in self.nodes:
            raise No
        for check_id in s.node_checks + s.service_checks:
            check = self.checks.get((s.node, check_id))
            if check is None or check.status is Status.CRITICAL:
                raise No
        self.sessions[s.id] = replace(s, create_index=self.index, modify_index=self.index)
        return s.id

    def _do_sessiondestroy(self, command: c.SessionDestroy) -> bool:
        self._end(command.id)
        return True

    def _end(self, session_id: str) -> None:
        session = self.sessions.pop(session_id, None)
        if session is None:
            return
        for key, entry in list(self.kv.items()):
            if entry.session == session_id:
                if session.behavior is SessionBehavior.DELETE:
                    del self.kv[key]
                else:
                    self.kv[key] = replace(entry, session=None, modify_index=self.index)
                if session.lock_delay_s:
                    self.delays[key] = self.now + int(session.lock_delay_s * 1000)

    def _end_groundless(self) -> None:
        for s in list(self.sessions.values()):
            statuses = [
                self.checks[s.node, i].status if (s.node, i) in self.checks else Status.CRITICAL
                for i in s.node_checks + s.service_checks
            ]
            if s.node not in self.nodes or Status.CRITICAL in statuses:
                self._end(s.id)

    # -- catalog

    def _stamp(self, row: Any, old: Any) -> Any:
        if old is not None:
            if replace(row, create_index=old.create_index, modify_index=old.modify_index) == old:
                return old
            return replace(row, create_index=old.create_index, modify_index=self.index)
        return replace(row, create_index=self.index, modify_index=self.index)

    def _put_node(self, row: Node) -> Node:
        old = self.nodes.get(row.name)
        row = replace(row, id=row.id or (old.id if old else ""))
        for other in list(self.nodes.values()):
            if row.id and other.id == row.id and other.name != row.name:
                self._drop_node(other.name)
        self.nodes[row.name] = self._stamp(row, old)
        return self.nodes[row.name]

    def _put_service(self, row: ServiceInstance) -> ServiceInstance:
        key = (row.node, row.id)
        self.services[key] = self._stamp(row, self.services.get(key))
        for check in list(self.checks.values()):
            if (check.node, check.service_id) == key:
                self._put_check(check)
        return self.services[key]

    def _put_check(self, row: Check) -> Check:
        owner = self.services.get((row.node, row.service_id))
        name, tags = (owner.name, owner.tags) if owner else ("", ())
        row = replace(row, service_name=name, service_tags=tags)
        key = (row.node, row.check_id)
        self.checks[key] = self._stamp(row, self.checks.get(key))
        return self.checks[key]

    def _drop_node(self, name: str) -> None:
        self.nodes.pop(name, None)
        self.services = {k: v for k, v in self.services.items() if k[0] != name}
        self.checks = {k: v for k, v in self.checks.items() if k[0] != name}

    def _drop_service(self, node: str, service_id: str) -> None:
        self.services.pop((node, service_id), None)
        for key, check in list(self.checks.items()):
            if check.node == node and service_id and check.service_id == service_id:
                del self.checks[key]

    def _need_service(self, check: Check) -> None:
        if check.service_id and (check.node, check.service_id) not in self.services:
            raise No

    def _do_register(self, command: c.Register) -> bool:
        name = command.node.name
        if not (command.skip_node_update and name in self.nodes):
            self._put_node(command.node)
        if command.service:
            self._put_service(replace(command.service, node=name))
        for check in command.checks:
            self._need_service(replace(check, node=name))
            self._put_check(replace(check, node=name))
        self._end_groundless()
        return True

    def _do_deregister(self, command: c.Deregister) -> bool:
        if command.service_id:
            self._drop_service(command.node, command.service_id)
        elif command.check_id:
            self.checks.pop((command.node, command.check_id), None)
        else:
            self._drop_node(command.node)
        self._end_groundless()
        return True

    def _do_nodesync(self, command: c.NodeSync) -> bool:
        name = command.node.name
        known = self.nodes.get(name)
        if known and known.id and command.node.id and known.id != command.node.id:
            for session in [s for s in self.sessions.values() if s.node == name]:
                self._end(session.id)
        self._put_node(command.node)
        self._drop_unnamed(command)
        if (name, "serfHealth") not in self.checks:
            self._put_check(self._serf(name, alive=True))
        for service in command.services:
            self._put_service(replace(service, node=name))
        for check in command.checks:
            if check.check_id != "serfHealth":
                self._need_service(replace(check, node=name))
                self._put_check(replace(check, node=name))
        self._end_groundless()
        return True

    def _drop_unnamed(self, command: c.NodeSync) -> None:
        name = command.node.name
        named_services = {row.id for row in command.services}
        named_checks = {row.check_id for row in command.checks} | {"serfHealth"}
        for node, check_id in list(self.checks):
            gone = command.full or check_id in command.remove_checks
            if node == name and gone and check_id not in named_checks:
                del self.checks[node, check_id]
        for node, service_id in list(self.services):
            gone = command.full or service_id in command.remove_services
            if node == name and gone and service_id not in named_services:
                self._drop_service(node, service_id)

    def _serf(self, node: str, *, alive: bool) -> Check:
        return Check(
            node=node,
            check_id="serfHealth",
            name="Serf Health Status",
            status=Status.PASSING if alive else Status.CRITICAL,
            output="Agent alive and reachable" if alive else "Agent not live or unreachable",
        )

    def _do_setliveness(self, command: c.SetLiveness) -> bool:
        if (command.node, "serfHealth") not in self.checks:
            return False
        self._put_check(self._serf(command.node, alive=command.alive))
        self._end_groundless()
        return True

    # -- transactions

    def _do_txn(self, command: c.Txn) -> Any:
        failed = []
        for number, op in enumerate(command.operations):
            try:
                self._operation(op)
            except No:
                failed.append(number)
        if failed:
            raise No((False, failed))
        return (True, [])

    def _operation(self, op: c.KVOp | c.NodeOp | c.ServiceOp | c.CheckOp) -> None:
        match op:
            case c.KVOp():
                self._kv_operation(op)
            case c.NodeOp():
                self._node_operation(op.verb, op.node, op.index)
            case c.ServiceOp():
                self._service_operation(op.verb, op.service, op.index)
            case c.CheckOp():
                self._check_operation(op.verb, op.check, op.index)
        self._end_groundless()

    def _node_operation(self, verb: CatalogVerb, row: Node, index: int) -> None:
        old = self.nodes.get(row.name)
        if verb is CatalogVerb.GET and row.id:
            old = next((n for n in self.nodes.values() if n.id == row.id), None)
        if self._wants_write(verb, old, index):
            self._put_node(row)
        elif verb is not CatalogVerb.GET:
            self._drop_node(row.name)

    def _service_operation(self, verb: CatalogVerb, row: ServiceInstance, index: int) -> None:
        if self._wants_write(verb, self.services.get((row.node, row.id)), index):
            if row.node not in self.nodes:
                raise No
            self._put_service(row)
        elif verb is not CatalogVerb.GET:
            self._drop_service(row.node, row.id)

    def _check_operation(self, verb: CatalogVerb, row: Check, index: int) -> None:
        if self._wants_write(verb, self.checks.get((row.node, row.check_id)), index):
            if row.node not in self.nodes:
                raise No
            self._need_service(row)
            self._put_check(row)
        elif verb is not CatalogVerb.GET:
            self.checks.pop((row.node, row.check_id), None)

    def _wants_write(self, verb: CatalogVerb, old: Any, index: int) -> bool:
        modified = old.modify_index if old else 0
        if verb is CatalogVerb.GET and not old:
            raise No
        if verb is CatalogVerb.CAS and index != modified:
            raise No
        if verb is CatalogVerb.DELETE_CAS and old and index != modified:
            raise No
        return verb in (CatalogVerb.SET, CatalogVerb.CAS)

    def _kv_operation(self, op: c.KVOp) -> None:
        old = self.kv.get(op.key)
        match op.verb:
            case KVVerb.GET:
                holds = old is not None
            case KVVerb.GET_TREE:
                holds = True
            case KVVerb.CHECK_INDEX:
                holds = old is not None and old.modify_index == op.index
            case KVVerb.CHECK_SESSION:
                holds = old is not None and (old.session or "") == op.session
            case KVVerb.CHECK_NOT_EXISTS:
                holds = old is None
            case _:
                holds = self._kv_write(op)
        if not holds:
            raise No

    # -- queries and coordinates

    def _do_queryset(self, command: c.QuerySet) -> str:
        query, old = command.query, self.queries.get(command.query.id)
        if command.update is (old is None):
            raise No
        if old and command.keep_name:
            query = replace(query, name=old.name)
        nameless = not query.name and not query.template.type
        if (nameless and not query.session) or query.name in self.queries:
            raise No
        if query.session and query.session not in self.sessions:
            raise No
        if any(self._alike(query, other) for other in self.queries.values()):
            raise No
        created = old.create_index if old else self.index
        self.queries[query.id] = replace(query, create_index=created, modify_index=self.index)
        return query.id

    def _alike(self, query: PreparedQuery, other: PreparedQuery) -> bool:
        if other.id == query.id or other.name.lower() != query.name.lower():
            return False
        return bool(query.name or (query.template.type and other.template.type))

    def _do_querydelete(self, command: c.QueryDelete) -> bool:
        if command.id not in self.queries:
            raise No
        del self.queries[command.id]
        return True

    def _do_coordinateupdate(self, command: c.CoordinateUpdate) -> bool:
        for row in command.rows:
            parts = (*row.coordinate.vec, row.coordinate.error)
            if row.node in self.nodes and all(-3600 <= part <= 3600 for part in parts):
                self.places[row.node, row.segment] = row
        return True

    def _let_go(self) -> None:
        ends = {q.id for q in self.queries.values() if q.session and q.session not in self.sessions}
        self.queries = {key: row for key, row in self.queries.items() if key not in ends}
        self.places = {key: row for key, row in self.places.items() if key[0] in self.nodes}

    # -- the rest

    def _do_configset(self, command: c.ConfigSet) -> bool:
        key = (command.entry.kind, command.entry.name)
        old = self.config.get(key)
        if command.cas is not None and command.cas != (old.modify_index if old else 0):
            return False
        created = old.create_index if old else self.index
        self.config[key] = replace(command.entry, create_index=created, modify_index=self.index)
        return True

    def _do_configdelete(self, command: c.ConfigDelete) -> bool:
        old = self.config.get((command.kind, command.name))
        if old and command.cas is not None and command.cas != old.modify_index:
            return False
        self.config.pop((command.kind, command.name), None)
        return True

    def _do_reaptombstones(self, command: c.ReapTombstones) -> bool:
        del command
        return True
