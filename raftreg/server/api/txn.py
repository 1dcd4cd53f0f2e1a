"""/v1/txn: https://developer.hashicorp.com/consul/api-docs/txn."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import TypeVar

from aiohttp import web

from raftreg.core import txn
from raftreg.core.changes import Changes
from raftreg.core.commands import (
    CatalogVerb,
    CheckOp,
    KVOp,
    KVVerb,
    NodeOp,
    ServiceOp,
    Txn,
)
from raftreg.core.results import Refused, Result, TxnItem, TxnResult
from raftreg.errors import InvalidRequest, TooLarge
from raftreg.http import json
from raftreg.http.bodies import TxnBody
from raftreg.http.discovery import options_of, read_head_bytes
from raftreg.http.fields import Fields, key_ttl_ms_of
from raftreg.http.json import dumps
from raftreg.http.operation import DATACENTER, Flag, Param, operation
from raftreg.http.params import Consistency
from raftreg.http.render import Json, check_json, kv_json, node_json, node_service_json
from raftreg.http.reply import Reply, json_reply
from raftreg.http.rows import check_row, node_row, service_row
from raftreg.http.shapes import TxnJson
from raftreg.model import KV_KEY_BYTES_MAX, KV_VALUE_BYTES_MAX, TXN_OPERATIONS_MAX, Node
from raftreg.server.api.context import Context
from raftreg.server.writes import RefusedByRules, read_body, write_head

Operation = KVOp | NodeOp | ServiceOp | CheckOp
_Verb = TypeVar("_Verb", KVVerb, CatalogVerb)

_READ_VERBS = frozenset(
    {
        KVVerb.GET,
        KVVerb.GET_TREE,
        KVVerb.CHECK_INDEX,
        KVVerb.CHECK_SESSION,
        KVVerb.CHECK_NOT_EXISTS,
        CatalogVerb.GET,
    }
)
_KEYLESS_VERBS = frozenset({KVVerb.GET_TREE, KVVerb.DELETE_TREE})


class Transactions:
    """The transaction endpoint.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.put("/v1/txn", self.run)]

    @operation(
        "Runs operations that all take effect, or none",
        tag="txn",
        query=(
            DATACENTER,
            Param("stale", "for one that only reads", Flag),
            Param("pretty", "indent", Flag),
        ),
        body=TxnBody,
        answer=TxnJson,
        also={409: TxnJson},
    )
    async def run(self, request: web.Request) -> Reply:
        """Runs a transaction: 200 with results, or 409 with the reasons."""
        options = options_of(request, self._datacenter)
        body = json.loads(await read_body(request, self._context.settings.http.body_bytes_max))
        command = Txn(operations=operations_of(body, self._datacenter))
        head = b""
        if all(operation.verb in _READ_VERBS for operation in command.operations):
            await self._context.reads.ready(options)
            result = self._read(command)
            head = read_head_bytes(
                self._context.machine.state.index, self._context.reads.head(options)
            )
        elif options.consistency is Consistency.STALE:
            raise InvalidRequest("?stale fits a transaction that only reads")
        else:
            outcome = await self._context.writes.run(request, command)
            result, head = outcome.result, write_head(outcome)
        if not isinstance(result, TxnResult):
            raise TypeError(f"a transaction gave {type(result).__name__}")
        return _answer(request, result, head, pretty=options.pretty)

    def _read(self, command: Txn) -> Result:
        """Runs a transaction that only reads on this server's state, past the log."""
        result = txn.run(self._context.machine.state, command, Changes(reversible=True))
        if isinstance(result, Refused):
            raise RefusedByRules(result)
        return result


def _answer(request: web.Request, result: TxnResult, head: bytes, *, pretty: bool) -> Reply:
    errors = [{"OpIndex": index, "What": what} for index, what in result.errors]
    rows = [_item_json(item) for item in result.results]
    body = {"Results": rows or None if result.ok else None, "Errors": errors or None}
    return json_reply(request, dumps(body, pretty=pretty), head, 200 if result.ok else 409)


def _item_json(item: TxnItem) -> Json:
    if item.kv is not None:
        return {"KV": kv_json(item.kv)}
    if item.node is not None:
        return {"Node": node_json(item.node)}
    if item.service is not None:
        return {"Service": node_service_json(item.service)}
    return {"Check": None if item.check is None else check_json(item.check)}


def operations_of(body: object, datacenter: str) -> tuple[Operation, ...]:
    """Reads the operations of a transaction.

    Raises:
        InvalidRequest: One is malformed; the text names it by its number.
        TooLarge: There are more than 64, or a value is over 512 KiB.
    """
    if not isinstance(body, list):
        raise InvalidRequest("Failed to parse body: a transaction is a list of operations")
    if len(body) > TXN_OPERATIONS_MAX:
        raise TooLarge(
            f"Transaction contains too many operations ({len(body)} > {TXN_OPERATIONS_MAX})"
        )
    return tuple(_operation(item, number, datacenter) for number, item in enumerate(body))


def _operation(item: object, number: int, datacenter: str) -> Operation:
    fields = Fields(item, f"operation {number}")
    kinds = [kind for kind in ("KV", "Node", "Service", "Check") if kind in fields]
    if len(kinds) != 1:
        raise InvalidRequest(
            f"Failed to parse body: operation {number} must hold exactly one of KV, Node, "
            "Service, Check"
        )
    inner = Fields(fields.get(kinds[0]), f"operation {number}.{kinds[0]}")
    match kinds[0]:
        case "KV":
            return _kv_operation(inner, number)
        case "Node":
            return _node_operation(inner, number, datacenter)
        case "Service":
            return _service_operation(inner, number)
        case _:
            return _check_operation(inner, number)


def _kv_operation(fields: Fields, number: int) -> KVOp:
    verb = _verb(KVVerb, fields, number)
    key = fields.text("Key")
    if not key and verb not in _KEYLESS_VERBS:
        raise InvalidRequest(f"operation {number}: Missing key name")
    if len(key.encode()) > KV_KEY_BYTES_MAX:
        raise TooLarge(f"operation {number}: Key name too long, max size: {KV_KEY_BYTES_MAX} bytes")
    return KVOp(
        verb=verb,
        key=key,
        value=_value(fields, key, number),
        flags=fields.integer("Flags", low=0),
        index=fields.integer("Index", low=0),
        session=fields.text("Session"),
        ttl_ms=_ttl_ms(fields, number),
    )


def _ttl_ms(fields: Fields, number: int) -> int:
    if "TTL" not in fields:
        return 0
    seconds = fields.duration_s("TTL")
    try:
        return key_ttl_ms_of(seconds, str(fields.get("TTL")))
    except InvalidRequest as error:
        raise InvalidRequest(f"operation {number}: {error.message}") from None


def _value(fields: Fields, key: str, number: int) -> bytes:
    try:
        value = b64decode(fields.text("Value"), validate=True)
    except (Base64Error, ValueError):
        raise InvalidRequest(f"operation {number}: Value must be base64") from None
    if len(value) > KV_VALUE_BYTES_MAX:
        raise TooLarge(
            f'Value for key "{key[:64]}" is too large ({len(value)} > {KV_VALUE_BYTES_MAX} bytes)'
        )
    return value


def _node_operation(fields: Fields, number: int, datacenter: str) -> NodeOp:
    row = fields.fields("Node")
    if row is None:
        raise InvalidRequest(f"operation {number}: Missing Node")
    verb = _verb(CatalogVerb, fields, number)
    index = row.integer("ModifyIndex", low=0)
    if "ID" in row and "Node" not in row:
        return NodeOp(verb=verb, node=Node(name="", id=row.text("ID"), address=""), index=index)
    return NodeOp(
        verb=verb, node=node_row(row, datacenter=datacenter, meta_field="Meta"), index=index
    )


def _service_operation(fields: Fields, number: int) -> ServiceOp:
    row = fields.fields("Service")
    if row is None:
        raise InvalidRequest(f"operation {number}: Missing Service")
    node = fields.text("Node")
    if not node:
        raise InvalidRequest(f"operation {number}: Must provide node")
    verb = _verb(CatalogVerb, fields, number)
    named = row
    if verb in {CatalogVerb.GET, CatalogVerb.DELETE, CatalogVerb.DELETE_CAS}:
        # These need no more than the id.
        service_id = row.text("ID", "Service")
        named = Fields({"ID": service_id, "Service": row.text("Service") or service_id})
    index = row.integer("ModifyIndex", low=0)
    return ServiceOp(verb=verb, service=service_row(named, node), index=index)


def _check_operation(fields: Fields, number: int) -> CheckOp:
    row = fields.fields("Check")
    if row is None:
        raise InvalidRequest(f"operation {number}: Missing Check")
    check = check_row(row, fields.text("Node"))
    if not check.node:
        raise InvalidRequest(f"operation {number}: Must provide node")
    verb = _verb(CatalogVerb, fields, number)
    return CheckOp(verb=verb, check=check, index=row.integer("ModifyIndex", low=0))


def _verb(kind: type[_Verb], fields: Fields, number: int) -> _Verb:
    text = fields.text("Verb")
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(verb.value for verb in kind)
        raise InvalidRequest(
            f"operation {number}: unknown Verb {text[:32]!r}: it must be one of {known}"
        ) from None
