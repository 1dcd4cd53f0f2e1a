"""The nouns of the registry: immutable values that every room shares.

Names are Consul's, in snake case; the JSON form that clients see is made in `raftreg.http.render`.
Indexes are the registry's own (ADR 0004): each applied command adds exactly one.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

KV_VALUE_BYTES_MAX = 512 * 1024
KV_KEY_BYTES_MAX = 8 * 1024
KV_TTL_MS_MIN = 1_000
KV_TTL_MS_MAX = 366 * 86_400 * 1_000
TXN_OPERATIONS_MAX = 64
SERF_HEALTH = "serfHealth"
NODE_MAINTENANCE = "_node_maintenance"
SERVICE_MAINTENANCE_PREFIX = "_service_maintenance:"


class Status(enum.Enum):
    """Health of a check; the worst check decides for an instance."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


class SessionBehavior(enum.Enum):
    """What happens to the keys that a session holds when it is invalidated."""

    RELEASE = "release"
    DELETE = "delete"


class KVEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One key with its value. `session` is None while the key is not locked.

    Attributes:
        ttl_ms: Milliseconds that the key lives after its last write or renewal; 0: for ever. Its
            deadline is kept beside the rows (`KVStore.deadlines`), so that a renewal changes no
            row and wakes nobody.
    """

    key: str
    value: bytes
    flags: int = 0
    session: str | None = None
    lock_index: int = 0
    create_index: int = 0
    modify_index: int = 0
    ttl_ms: int = 0


class Weights(msgspec.Struct, frozen=True):
    """Shares of an instance in SRV answers and load balancing, by its health."""

    passing: int = 1
    warning: int = 1


class ServiceAddress(msgspec.Struct, frozen=True):
    """An address with its port, as in TaggedAddresses of a service."""

    address: str
    port: int


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A host. `id` is a UUID text or empty for nodes that were registered without one."""

    name: str
    id: str = ""
    address: str
    datacenter: str = ""
    tagged_addresses: dict[str, str] = {}
    meta: dict[str, str] = {}
    create_index: int = 0
    modify_index: int = 0


class ServiceInstance(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a service on a node; (`node`, `id`) is its key.

    `proxy` and `connect` are kept as the JSON objects that were given: the mesh reads them.
    """

    node: str
    id: str
    name: str
    tags: tuple[str, ...] = ()
    address: str = ""
    port: int = 0
    meta: dict[str, str] = {}
    tagged_addresses: dict[str, ServiceAddress] = {}
    weights: Weights = Weights()
    enable_tag_override: bool = False
    kind: str = ""
    proxy: dict[str, Any] = {}
    connect: dict[str, Any] = {}
    create_index: int = 0
    modify_index: int = 0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a node (`service_id` empty) or of an instance; (`node`, `check_id`) is its key.

    `definition` holds the JSON object of the check's definition for readers; the registry itself
    runs no check from it.
    """

    node: str
    check_id: str
    name: str = ""
    status: Status = Status.CRITICAL
    notes: str = ""
    output: str = ""
    service_id: str = ""
    service_name: str = ""
    service_tags: tuple[str, ...] = ()
    type: str = ""
    definition: dict[str, Any] = {}
    create_index: int = 0
    modify_index: int = 0


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A lock holder. It lives as long as its node, its checks and, with a TTL, its renewals.

    Attributes:
        ttl_s: Seconds without renewal after which it expires; 0 means no TTL.
        ttl: The TTL as the client wrote it (answers repeat it).
        lock_delay_s: Seconds for which a lock can't be taken again after an invalidation.
        node_checks: Ids of node checks that end the session when they become critical.
        service_checks: Ids of service checks, likewise.
    """

    id: str
    node: str
    name: str = ""
    behavior: SessionBehavior = SessionBehavior.RELEASE
    ttl_s: float = 0.0
    ttl: str = ""
    lock_delay_s: float = 15.0
    node_checks: tuple[str, ...] = (SERF_HEALTH,)
    service_checks: tuple[str, ...] = ()
    create_index: int = 0
    modify_index: int = 0


class ConfigEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One central configuration entry; (`kind`, `name`) is its key; `body` is its JSON object."""

    kind: str
    name: str
    body: dict[str, Any]
    create_index: int = 0
    modify_index: int = 0


class QueryTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a prepared query looks next; what is empty stays as in the query itself."""

    service: str = ""
    datacenter: str = ""
    peer: str = ""


class QueryFailover(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a prepared query tries when its service has no healthy instance here.

    Attributes:
        nearest_n: So many of the nearest other datacenters come first.
        datacenters: Then these, in order.
        targets: In the place of both: these, in order.
    """

    nearest_n: int = 0
    datacenters: tuple[str, ...] = ()
    targets: tuple[QueryTarget, ...] = ()


class QueryService(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a prepared query looks for.

    Attributes:
        service: Name of the service.
        only_passing: Leave out instances with a warning too.
        ignore_check_ids: Checks that do not count.
        near: Node to sort by distance from, or `_agent`, `_ip`; "" for random order.
        tags: All must be there, except those that start with `!`, which must not.
        node_meta, service_meta: Pairs that the node or instance must have.
        connect: Look for proxies of the service, and instances that speak mTLS themselves.
    """

    service: str
    failover: QueryFailover = QueryFailover()
    only_passing: bool = False
    ignore_check_ids: tuple[str, ...] = ()
    near: str = ""
    tags: tuple[str, ...] = ()
    node_meta: dict[str, str] = {}
    service_meta: dict[str, str] = {}
    connect: bool = False


class QueryTemplate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Makes a prepared query answer for all names that begin with its own.

    Attributes:
        type: "" (no template) or `name_prefix_match`.
        regexp: RE2 expression over the whole name asked for; its groups fill `${match(N)}`.
        remove_empty_tags: Drop tags that came out empty.
    """

    type: str = ""
    regexp: str = ""
    remove_empty_tags: bool = False


class PreparedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A look-up that is kept under an id and, maybe, a name.

    Attributes:
        name: Unique without letter case; "" only with a session, or for the template that
            matches everything.
        session: It goes when this session ends; "" keeps it.
        token: A secret; answers show that there is one, no more.
        dns_ttl: Duration (as it was given) for which DNS answers may be kept, "" for the default.
    """

    id: str
    service: QueryService
    name: str = ""
    session: str = ""
    token: str = ""
    template: QueryTemplate = QueryTemplate()
    dns_ttl: str = ""
    create_index: int = 0
    modify_index: int = 0


class Coordinate(msgspec.Struct, frozen=True, kw_only=True):
    """Where a host is in the space of network distances; all in seconds, but for `error`.

    Attributes:
        vec: The point of the Euclidean part.
        error: Confidence: 0 is certain, 1.5 knows nothing.
        adjustment: Offset that was learned from the latest measurements.
        height: Length of the host's own link to that space.
    """

    vec: tuple[float, ...]
    error: float
    adjustment: float
    height: float


class NodeCoordinate(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinate of a node in a network segment ("" is the one that all are in)."""

    node: str
    coordinate: Coordinate
    segment: str = ""
