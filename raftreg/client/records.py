"""The JSON of Consul's API read into the registry's nouns.

The private structs mirror the JSON objects field by field; null stands for an empty list or map
in many answers of Go servers, so each such field takes it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

import msgspec

from raftreg.client.failures import BadAnswer
from raftreg.client.http import Response
from raftreg.model import (
    Check,
    Coordinate,
    KVEntry,
    Node,
    NodeCoordinate,
    ServiceAddress,
    ServiceInstance,
    Session,
    SessionBehavior,
    Status,
    Weights,
)


class HealthEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An instance with its node and all checks that count for it."""

    node: Node
    service: ServiceInstance
    checks: tuple[Check, ...] = ()

    @property
    def status(self) -> Status:
        """The worst status of its checks; passing without any."""
        found = {check.status for check in self.checks}
        for status in (Status.CRITICAL, Status.WARNING):
            if status in found:
                return status
        return Status.PASSING

    @property
    def address(self) -> str:
        """Where to connect: the instance's own address, else its node's."""
        return self.service.address or self.node.address


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A node with its instances."""

    node: Node
    services: tuple[ServiceInstance, ...] = ()


class QueryResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a prepared query found.

    Attributes:
        service: Name of the service that the entries belong to.
        entries: Healthy instances, nearest first or shuffled.
        dns_ttl: How long DNS answers may be kept, as a duration; "" when the query names nothing.
        datacenter: Where the instances are.
        failovers: How many other places were tried.
    """

    service: str
    entries: tuple[HealthEntry, ...] = ()
    dns_ttl: str = ""
    datacenter: str = ""
    failovers: int = 0


class TxnOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a transaction did: `errors` is empty when it took effect."""

    results: tuple[dict[str, Any], ...] = ()
    errors: tuple[tuple[int, str], ...] = ()

    @property
    def ok(self) -> bool:
        """The transaction took effect."""
        return not self.errors


class ServiceSummary(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A service as /v1/health/services sums it up.

    Attributes:
        status: The best status among its instances.
        tags: Those of all instances.
        meta: By key, all values that instances have.
        nodes: Number of hosts that it runs on.
        passing, warning, critical: Numbers of instances.
    """

    name: str
    status: Status
    tags: tuple[str, ...] = ()
    meta: dict[str, tuple[str, ...]] = {}
    nodes: int = 0
    passing: int = 0
    warning: int = 0
    critical: int = 0


class ServicePage(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Some services in the order of their names; `after` leads to the next, "" ends them."""

    services: tuple[ServiceSummary, ...]
    after: str = ""


_R = TypeVar("_R", bound="_Wire")


class _Wire(msgspec.Struct, frozen=True, rename="pascal"):
    """A JSON object with CamelCase names; fields that we do not know are passed over."""


class _Kv(_Wire, frozen=True, kw_only=True):
    key: str
    value: str | None = None
    flags: int = 0
    session: str = ""
    lock_index: int = 0
    create_index: int = 0
    modify_index: int = 0
    ttl: str = msgspec.field(name="TTL", default="")

    def row(self) -> KVEntry:
        try:
            value = base64.b64decode(self.value or "", validate=True)
        except binascii.Error as error:
            raise BadAnswer(f"the value of key {self.key!r} is not base64: {error}") from error
        return KVEntry(
            key=self.key,
            value=value,
            flags=self.flags,
            session=self.session or None,
            lock_index=self.lock_index,
            create_index=self.create_index,
            modify_index=self.modify_index,
            ttl_ms=round(seconds(self.ttl) * 1000) if self.ttl else 0,
        )


class _Node(_Wire, frozen=True, kw_only=True):
    id: str = msgspec.field(name="ID", default="")
    node: str
    address: str = ""
    datacenter: str = ""
    tagged_addresses: dict[str, str] | None = None
    meta: dict[str, str] | None = None
    create_index: int = 0
    modify_index: int = 0

    def row(self) -> Node:
        return Node(
            name=self.node,
            id=self.id,
            address=self.address,
            datacenter=self.datacenter,
            tagged_addresses=self.tagged_addresses or {},
            meta=self.meta or {},
            create_index=self.create_index,
            modify_index=self.modify_index,
        )


class _Address(_Wire, frozen=True):
    address: str = ""
    port: int = 0


class _Weights(_Wire, frozen=True):
    passing: int = 1
    warning: int = 1


_DEFAULT_WEIGHTS = _Weights()


class _Service(_Wire, frozen=True, kw_only=True):
    id: str = msgspec.field(name="ID")
    service: str
    tags: list[str] | None = None
    address: str = ""
    port: int = 0
    meta: dict[str, str] | None = None
    tagged_addresses: dict[str, _Address] | None = None
    weights: _Weights | None = None
    enable_tag_override: bool = False
    kind: str = ""
    proxy: dict[str, Any] | None = None
    connect: dict[str, Any] | None = None
    create_index: int = 0
    modify_index: int = 0

    def row(self, node: str) -> ServiceInstance:
        weights = self.weights or _DEFAULT_WEIGHTS
        return ServiceInstance(
            node=node,
            id=self.id,
            name=self.service,
            tags=tuple(self.tags or ()),
            address=self.address,
            port=self.port,
            meta=self.meta or {},
            tagged_addresses=_addresses(self.tagged_addresses),
            weights=Weights(weights.passing, weights.warning),
            enable_tag_override=self.enable_tag_override,
            kind=self.kind,
            proxy=self.proxy or {},
            connect=self.connect or {},
            create_index=self.create_index,
            modify_index=self.modify_index,
        )


class _CatalogService(_Wire, frozen=True, kw_only=True):
    """A row of /v1/catalog/service/:name: node and instance in one object."""

    id: str = msgspec.field(name="ID", default="")
    node: str
    address: str = ""
    datacenter: str = ""
    tagged_addresses: dict[str, str] | None = None
    node_meta: dict[str, str] | None = None
    service_id: str = msgspec.field(name="ServiceID")
    service_name: str
    service_tags: list[str] | None = None
    service_address: str = ""
    service_tagged_addresses: dict[str, _Address] | None = None
    service_weights: _Weights | None = None
    service_meta: dict[str, str] | None = None
    service_port: int = 0
    service_enable_tag_override: bool = False
    service_kind: str = ""
    create_index: int = 0
    modify_index: int = 0

    def row(self) -> HealthEntry:
        weights = self.service_weights or _DEFAULT_WEIGHTS
        return HealthEntry(
            node=Node(
                name=self.node,
                id=self.id,
                address=self.address,
                datacenter=self.datacenter,
                tagged_addresses=self.tagged_addresses or {},
                meta=self.node_meta or {},
            ),
            service=ServiceInstance(
                node=self.node,
                id=self.service_id,
                name=self.service_name,
                tags=tuple(self.service_tags or ()),
                address=self.service_address,
                port=self.service_port,
                meta=self.service_meta or {},
                tagged_addresses=_addresses(self.service_tagged_addresses),
                weights=Weights(weights.passing, weights.warning),
                enable_tag_override=self.service_enable_tag_override,
                kind=self.service_kind,
                create_index=self.create_index,
                modify_index=self.modify_index,
            ),
        )


class _Check(_Wire, frozen=True, kw_only=True):
    node: str = ""
    check_id: str = msgspec.field(name="CheckID")
    name: str = ""
    status: Status = Status.CRITICAL
    notes: str = ""
    output: str = ""
    service_id: str = msgspec.field(name="ServiceID", default="")
    service_name: str = ""
    service_tags: list[str] | None = None
    type: str = ""
    definition: dict[str, Any] | None = None
    create_index: int = 0
    modify_index: int = 0

    def row(self) -> Check:
        return Check(
            node=self.node,
            check_id=self.check_id,
            name=self.name,
            status=self.status,
            notes=self.notes,
            output=self.output,
            service_id=self.service_id,
            service_name=self.service_name,
            service_tags=tuple(self.service_tags or ()),
            type=self.type,
            definition=self.definition or {},
            create_index=self.create_index,
            modify_index=self.modify_index,
        )


class _Session(_Wire, frozen=True, kw_only=True):
    id: str = msgspec.field(name="ID")
    node: str = ""
    name: str = ""
    behavior: SessionBehavior = SessionBehavior.RELEASE
    ttl: str = msgspec.field(name="TTL", default="")
    lock_delay: float = 0
    node_checks: list[str] | None = None
    service_checks: list[Any] | None = None
    create_index: int = 0
    modify_index: int = 0

    def row(self) -> Session:
        return Session(
            id=self.id,
            node=self.node,
            name=self.name,
            behavior=self.behavior,
            ttl_s=seconds(self.ttl) if self.ttl else 0.0,
            ttl=self.ttl,
            lock_delay_s=self.lock_delay / 1e9,
            node_checks=tuple(self.node_checks or ()),
            service_checks=tuple(_service_check_id(one) for one in self.service_checks or ()),
            create_index=self.create_index,
            modify_index=self.modify_index,
        )


class _HealthEntry(_Wire, frozen=True, kw_only=True):
    node: _Node
    service: _Service
    checks: list[_Check] | None = None

    def row(self) -> HealthEntry:
        return HealthEntry(
            node=self.node.row(),
            service=self.service.row(self.node.node),
            checks=tuple(check.row() for check in self.checks or ()),
        )


class _QueryDns(_Wire, frozen=True):
    ttl: str = msgspec.field(name="TTL", default="")


class _Executed(_Wire, frozen=True, kw_only=True):
    service: str
    nodes: list[_HealthEntry] | None = None
    dns: _QueryDns = msgspec.field(name="DNS", default=_QueryDns())
    datacenter: str = ""
    failovers: int = 0


class _Coord(_Wire, frozen=True, kw_only=True):
    vec: tuple[float, ...]
    error: float = 0.0
    adjustment: float = 0.0
    height: float = 0.0


class _NodeCoordinate(_Wire, frozen=True, kw_only=True):
    node: str
    segment: str = ""
    coord: _Coord

    def row(self) -> NodeCoordinate:
        return NodeCoordinate(
            node=self.node,
            segment=self.segment,
            coordinate=Coordinate(**msgspec.structs.asdict(self.coord)),
        )


class _NodeEntry(_Wire, frozen=True, kw_only=True):
    node: _Node
    services: dict[str, _Service] | None = None

    def row(self) -> NodeEntry:
        services = (self.services or {}).values()
        return NodeEntry(
            node=self.node.row(),
            services=tuple(service.row(self.node.node) for service in services),
        )


class _TxnError(_Wire, frozen=True):
    op_index: int = 0
    what: str = ""


class _TxnAnswer(_Wire, frozen=True):
    results: list[dict[str, Any]] | None = None
    errors: list[_TxnError] | None = None


_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(duration: str) -> float:
    """Reads a duration as Go writes it ("1m30s", "10.0s").

    Raises:
        BadAnswer: It is none.
    """
    total, number, unit = 0.0, "", ""
    for char in f"{duration}\0":  # the NUL ends the last unit
        if char.isdigit() or char in ".\0":
            if unit:
                total += _term(duration, number, unit)
                number = unit = ""
            number += char
        else:
            unit += char
    if number != "\0":
        raise BadAnswer(f"{duration!r} is no duration")
    return total


def _term(duration: str, number: str, unit: str) -> float:
    try:
        return float(number) * _UNIT_S[unit]
    except (KeyError, ValueError):
        raise BadAnswer(f"{duration!r} is no duration") from None


def duration_text(value_s: float) -> str:
    """Writes seconds as Go reads them (milliseconds are enough for every use of ours)."""
    return f"{round(value_s * 1000)}ms" if value_s % 1 else f"{int(value_s)}s"


def _addresses(found: dict[str, _Address] | None) -> dict[str, ServiceAddress]:
    return {name: ServiceAddress(one.address, one.port) for name, one in (found or {}).items()}


def _service_check_id(value: Any) -> str:
    return str(value.get("ID", "")) if isinstance(value, dict) else str(value)


def kv_entries(response: Response) -> list[KVEntry]:
    """Entries of /v1/kv; a 404 holds none."""
    if response.status == 404:
        return []
    return [one.row() for one in response.json(list[_Kv])]


def service_page(response: Response) -> ServicePage:
    """A page of /v1/health/services."""
    page: ServicePage = response.json(ServicePage)
    return page


def kv_entry(row: Any) -> KVEntry:
    """One entry of a stream of deltas."""
    return _converted(row, _Kv).row()


def health_entry(row: Any) -> HealthEntry:
    """One instance of a stream of deltas."""
    return _converted(row, _HealthEntry).row()


def _converted(row: Any, kind: type[_R]) -> _R:
    try:
        return msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"a row is not what was asked: {error}") from error


def nodes(response: Response) -> list[Node]:
    """Rows of /v1/catalog/nodes."""
    return [one.row() for one in response.json(list[_Node] | None) or ()]


def node_entry(response: Response) -> NodeEntry | None:
    """The answer of /v1/catalog/node/:node."""
    found = response.json(_NodeEntry | None)
    return None if found is None else found.row()


def catalog_services(response: Response) -> list[HealthEntry]:
    """Rows of /v1/catalog/service/:name; they have no checks."""
    return [one.row() for one in response.json(list[_CatalogService] | None) or ()]


def health_entries(response: Response) -> list[HealthEntry]:
    """Rows of /v1/health/service/:name."""
    return [one.row() for one in response.json(list[_HealthEntry] | None) or ()]


def query_result(response: Response) -> QueryResult:
    """The answer of /v1/query/:name/execute."""
    found: _Executed = response.json(_Executed)
    return QueryResult(
        service=found.service,
        entries=tuple(one.row() for one in found.nodes or ()),
        dns_ttl=found.dns.ttl,
        datacenter=found.datacenter,
        failovers=found.failovers,
    )


def node_coordinates(response: Response) -> list[NodeCoordinate]:
    """Rows of /v1/coordinate/nodes and /v1/coordinate/node/:name."""
    return [one.row() for one in response.json(list[_NodeCoordinate] | None) or ()]


def checks(response: Response) -> list[Check]:
    """Rows of the check lists of /v1/health."""
    return [one.row() for one in response.json(list[_Check] | None) or ()]


def agent_checks(response: Response) -> dict[str, Check]:
    """The map of /v1/agent/checks."""
    found = response.json(dict[str, _Check] | None) or {}
    return {check_id: check.row() for check_id, check in found.items()}


def agent_services(response: Response) -> dict[str, ServiceInstance]:
    """The map of /v1/agent/services; the node is the agent's own and not named there."""
    found = response.json(dict[str, _Service] | None) or {}
    return {service_id: service.row("") for service_id, service in found.items()}


def sessions(response: Response) -> list[Session]:
    """Rows of the session lists (a list also for one session)."""
    return [one.row() for one in response.json(list[_Session] | None) or ()]


def txn_outcome(response: Response) -> TxnOutcome:
    """The answer of /v1/txn, also of a rolled back one (409)."""
    found = response.json(_TxnAnswer)
    return TxnOutcome(
        results=tuple(found.results or ()),
        errors=tuple((error.op_index, error.what) for error in found.errors or ()),
    )
