"""Everything that can change the registry: a closed union of commands, and their bytes.

Ids and lengths are decided at the edge (no randomness here); time comes with the log entry. A new
field needs a default, a new command a new tag: servers of two versions share one log while a
cluster is upgraded (ADR 0004 tells how indexes count).
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from raftreg.core.connect_ca import AuthoritySet
from raftreg.core.events import Event
from raftreg.decoding import MsgpackDecoder
from raftreg.model import (
    Check,
    ConfigEntry,
    Node,
    NodeCoordinate,
    PreparedQuery,
    ServiceInstance,
    Session,
)


class KVVerb(enum.Enum):
    """Operations on one key (or, for the tree verbs, one prefix), as in Consul's txn API.

    `renew` is ours: it gives a key another TTL and keeps everything else of it.
    """

    SET = "set"
    CAS = "cas"
    LOCK = "lock"
    UNLOCK = "unlock"
    GET = "get"
    GET_TREE = "get-tree"
    CHECK_INDEX = "check-index"
    CHECK_SESSION = "check-session"
    CHECK_NOT_EXISTS = "check-not-exists"
    DELETE = "delete"
    DELETE_TREE = "delete-tree"
    DELETE_CAS = "delete-cas"
    RENEW = "renew"


class CatalogVerb(enum.Enum):
    """Operations of a transaction on nodes, services and checks."""

    SET = "set"
    CAS = "cas"
    GET = "get"
    DELETE = "delete"
    DELETE_CAS = "delete-cas"


class KVOp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="kv"):
    """One KV operation.

    Attributes:
        verb: What to do. Alone (outside `Txn`) only verbs that write are meaningful.
        key: The key, or the prefix for tree verbs.
        value: New value for `set`, `cas`, `lock`, `unlock`.
        flags: Opaque 64-bit number kept with the value.
        index: Expected ModifyIndex for `cas`, `delete-cas`, `check-index`; with `cas`, 0 creates
            only. For `renew` too, where 0 means any.
        session: Session id for `lock`, `unlock`, `check-session`.
        ttl_ms: Milliseconds of cluster time that the key lives from now on; 0: for ever. For
            `renew`, 0 takes the TTL that the key has.
    """

    verb: KVVerb
    key: str
    value: bytes = b""
    flags: int = 0
    index: int = 0
    session: str = ""
    ttl_ms: int = 0


class NodeOp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="node"):
    """Transaction operation on a node."""

    verb: CatalogVerb
    node: Node
    index: int = 0


class ServiceOp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="service"):
    """Transaction operation on an instance."""

    verb: CatalogVerb
    service: ServiceInstance
    index: int = 0


class CheckOp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="check"):
    """Transaction operation on a check."""

    verb: CatalogVerb
    check: Check
    index: int = 0


class Txn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="txn"):
    """All operations take effect, or none (at most `TXN_OPERATIONS_MAX`)."""

    operations: tuple[KVOp | NodeOp | ServiceOp | CheckOp, ...]


class Register(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="register"):
    """Catalog registration: the node, and with it an instance and checks.

    Attributes:
        skip_node_update: Leave an existing node row as it is.
    """

    node: Node
    service: ServiceInstance | None = None
    checks: tuple[Check, ...] = ()
    skip_node_update: bool = False


class Deregister(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="deregister"):
    """Removes an instance, a check, or (both empty) the node with all it has."""

    node: str
    service_id: str = ""
    check_id: str = ""


class NodeSync(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="node-sync"):
    """An agent's word about its own host, in one atomic step (anti-entropy, edges of checks).

    Attributes:
        node: The node row as the agent has it.
        services, checks: Rows to create or replace.
        remove_services, remove_checks: Ids to remove.
        full: The lists hold everything there is: rows of this node that are not named go
            (also `SERF_HEALTH` is kept, it belongs to the registry).
    """

    node: Node
    services: tuple[ServiceInstance, ...] = ()
    checks: tuple[Check, ...] = ()
    remove_services: tuple[str, ...] = ()
    remove_checks: tuple[str, ...] = ()
    full: bool = False


class SetLiveness(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="liveness"):
    """The leader's word about a host's lease: flips the node's `serfHealth` check.

    Proposed in the leader's own term only (see `Replica.propose(in_term=…)`).
    """

    node: str
    alive: bool
    output: str = ""


class SessionCreate(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="session-create"
):
    """Creates a session; refused when its node or one of its checks is missing or critical."""

    session: Session


class SessionDestroy(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="session-destroy"
):
    """Ends a session.

    Attributes:
        expired: True when its TTL ran out (the leader says so), False when a client asked for it.
            Lock delay applies to invalidations, so to expiry, and to a destroy of a held lock.
    """

    id: str
    expired: bool = False


class ConfigSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="config-set"):
    """Writes a configuration entry; `cas` None: always, 0: create only, N: at index N only."""

    entry: ConfigEntry
    cas: int | None = None


class ConfigDelete(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="config-delete"
):
    """Deletes a configuration entry, with `cas` only at that ModifyIndex."""

    kind: str
    name: str
    cas: int | None = None


class IntentionSet(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="intention-set"
):
    """Writes one intention into the service-intentions entry of its destination.

    Attributes:
        source, destination: Names of services, or "*".
        id: Names an intention that is written by id; "" for one that only its pair names.
        update: The id must be there already; else it is new, and so is the pair.
        action: "allow", "deny", or "" where permissions decide.
        permissions: As `raftreg.core.entries.access.Permission`.
        written_ms: When it was asked for, in milliseconds since the Unix epoch; for people.
    """

    source: str
    destination: str
    id: str = ""
    update: bool = False
    action: str = ""
    permissions: tuple[dict[str, Any], ...] = ()
    description: str = ""
    meta: dict[str, str] = {}
    written_ms: int = 0


class IntentionDelete(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="intention-delete"
):
    """Deletes one intention, by its id or by its pair; False when there is none."""

    id: str = ""
    source: str = ""
    destination: str = ""


class QuerySet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="query-set"):
    """Writes a prepared query; gives its id.

    Attributes:
        query: The row; its id is made at the edge.
        update: It must be there already; else it must not.
        keep_name: An update keeps the name that the query has.
    """

    query: PreparedQuery
    update: bool = False
    keep_name: bool = False


class QueryDelete(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="query-delete"
):
    """Deletes a prepared query; False when there is none."""

    id: str


class CoordinateUpdate(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="coordinate-update"
):
    """Writes the coordinates of nodes that are registered, and passes over all others."""

    rows: tuple[NodeCoordinate, ...]


class ReapTombstones(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="reap"):
    """Forgets the tombstones of deleted rows up to and including this index."""

    up_to_index: int


class KVExpire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="kv-expire"):
    """Deletes keys whose TTL is over, those that ended first; a few at a time.

    Which ones is decided where it is applied, by cluster time: one that was renewed before this
    entry stays.

    Attributes:
        keys_max: Most keys to delete, at most `kvstore.EXPIRED_TOGETHER_MAX`.
    """

    keys_max: int


class EventFire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="event-fire"):
    """Adds a user event; the ring gives it its place in time."""

    event: Event


class RestoreChunk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="restore"):
    """A part of a snapshot that an operator restores through the log.

    The parts are gathered in the state; `last` verifies the digest and replaces the tables.

    Attributes:
        restore_id: Names one restore; parts of another one drop what was gathered before.
        sequence: 0, 1, 2, … without a gap.
        sha256: Hex digest of all parts together, read with the last one.
    """

    restore_id: str
    sequence: int
    data: bytes
    last: bool = False
    sha256: str = ""


Command = (
    KVOp
    | Txn
    | Register
    | Deregister
    | NodeSync
    | SetLiveness
    | SessionCreate
    | SessionDestroy
    | ConfigSet
    | ConfigDelete
    | IntentionSet
    | IntentionDelete
    | AuthoritySet
    | QuerySet
    | QueryDelete
    | CoordinateUpdate
    | ReapTombstones
    | RestoreChunk
    | EventFire
    | KVExpire
)

_encoder = msgspec.msgpack.Encoder()
_decoder: MsgpackDecoder[Command] = MsgpackDecoder(Command)


def encode(command: Command) -> bytes:
    """Gives the bytes of a command (msgpack, tagged by its kind)."""
    return _encoder.encode(command)


def decode(data: bytes) -> Command:
    """Reads a command.

    Raises:
        msgspec.DecodeError: The bytes are no command of this version (also ValidationError).
    """
    return _decoder.decode(data)
