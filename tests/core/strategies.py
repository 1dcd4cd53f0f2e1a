"""Commands for property tests: of a small world, where names collide, and of any shape at all."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from raftreg.core.commands import (
    CatalogVerb,
    CheckOp,
    Command,
    ConfigDelete,
    ConfigSet,
    CoordinateUpdate,
    Deregister,
    IntentionDelete,
    IntentionSet,
    KVExpire,
    KVOp,
    KVVerb,
    NodeOp,
    NodeSync,
    QueryDelete,
    QuerySet,
    ReapTombstones,
    Register,
    RestoreChunk,
    ServiceOp,
    SessionCreate,
    SessionDestroy,
    SetLiveness,
    Txn,
)
from raftreg.core.connect_ca import AuthoritySet, Root, SecretText
from raftreg.core.entries import KINDS
from raftreg.model import (
    Check,
    ConfigEntry,
    Coordinate,
    Node,
    NodeCoordinate,
    PreparedQuery,
    QueryService,
    QueryTemplate,
    ServiceInstance,
    Session,
    SessionBehavior,
    Status,
)

KEYS = ("a", "a/", "a/b", "a/b/c", "a\U0010ffff", "b", "é")
PREFIXES = ("", "a", "a/", "a/b", "a\U0010ffff", "zz")
QUERIES = ("q1", "q2", "q3")
SESSIONS = ("s1", "s2", "s3")
NODES = ("n1", "n2")
NODE_IDS = ("u1", "u2")
SERVICE_IDS = ("w1", "w2")
SERVICES = ("api", "web")
CHECKS = ("c1", "c2", "serfHealth")
TAGS = ("blue", "green")

# Two keys come often, so that a sequence does several things to one key.
_WRITES_OFTEN = (KVVerb.SET, KVVerb.SET, KVVerb.DELETE, KVVerb.LOCK, KVVerb.LOCK)

keys = st.sampled_from((*KEYS, "a/b", "a/b", "a/b", "b", "b"))
node_names = st.sampled_from(NODES)
indexes = st.integers(0, 12)
statuses = st.sampled_from(list(Status))

kv_ops = st.builds(
    KVOp,
    verb=st.sampled_from([*KVVerb, *_WRITES_OFTEN]),
    key=keys,
    value=st.sampled_from([b"", b"x", b"y"]),
    flags=st.integers(0, 2),
    index=indexes,
    session=st.sampled_from(["", *SESSIONS]),
    ttl_ms=st.sampled_from([0, 0, 0, 1_000, 15_000, 1, -1]),
)
expiries = st.builds(KVExpire, keys_max=st.sampled_from([0, 1, 2, 100]))
nodes = st.builds(
    Node,
    name=node_names,
    id=st.sampled_from(["", *NODE_IDS]),
    address=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    meta=st.sampled_from([{}, {"env": "prod"}]),
)
services = st.builds(
    ServiceInstance,
    node=node_names,
    id=st.sampled_from(SERVICE_IDS),
    name=st.sampled_from(SERVICES),
    tags=st.lists(st.sampled_from(TAGS), max_size=2).map(tuple),
    port=st.sampled_from([0, 80]),
)
checks = st.builds(
    Check,
    node=node_names,
    check_id=st.sampled_from(CHECKS),
    status=statuses,
    output=st.sampled_from(["", "ok"]),
    service_id=st.sampled_from(["", "", *SERVICE_IDS]),
)
registers = st.builds(
    Register,
    node=nodes,
    service=st.none() | services,
    checks=st.lists(checks, max_size=2).map(tuple),
    skip_node_update=st.booleans(),
)
deregisters = st.builds(
    Deregister,
    node=node_names,
    service_id=st.sampled_from(["", *SERVICE_IDS]),
    check_id=st.sampled_from(["", *CHECKS]),
)
syncs = st.builds(
    NodeSync,
    node=nodes,
    services=st.lists(services, max_size=2).map(tuple),
    checks=st.lists(checks, max_size=2).map(tuple),
    remove_services=st.lists(st.sampled_from(SERVICE_IDS), max_size=1).map(tuple),
    remove_checks=st.lists(st.sampled_from(CHECKS), max_size=1).map(tuple),
    full=st.booleans(),
)
liveness = st.builds(SetLiveness, node=node_names, alive=st.booleans())
session_rows = st.builds(
    Session,
    id=st.sampled_from(SESSIONS),
    node=node_names,
    behavior=st.sampled_from(list(SessionBehavior)),
    lock_delay_s=st.sampled_from([0.0, 15.0]),
    node_checks=st.sampled_from([(), ("serfHealth",)]),
    service_checks=st.sampled_from([(), (), ("c1",)]),
)
catalog_verbs = st.sampled_from(list(CatalogVerb))
operations = st.one_of(
    kv_ops,
    kv_ops,
    st.builds(NodeOp, verb=catalog_verbs, node=nodes, index=indexes),
    st.builds(ServiceOp, verb=catalog_verbs, service=services, index=indexes),
    st.builds(CheckOp, verb=catalog_verbs, check=checks, index=indexes),
)
txns = st.builds(Txn, operations=st.lists(operations, min_size=1, max_size=5).map(tuple))
config_sets = st.builds(
    ConfigSet,
    entry=st.builds(
        ConfigEntry,
        kind=st.sampled_from(["service-defaults", "service-resolver"]),
        name=st.sampled_from(["web", "global"]),
        body=st.sampled_from([{}, {"Protocol": "http"}]),
    ),
    cas=st.none() | indexes,
)
config_deletes = st.builds(
    ConfigDelete,
    kind=st.sampled_from(["service-defaults", "service-resolver"]),
    name=st.sampled_from(["web", "global"]),
    cas=st.none() | indexes,
)
prepared_queries = st.builds(
    PreparedQuery,
    id=st.sampled_from(["", *QUERIES]),
    name=st.sampled_from(["", "a", "A", "ab", "q1"]),
    session=st.sampled_from(["", "", *SESSIONS]),
    template=st.sampled_from([QueryTemplate(), QueryTemplate(type="name_prefix_match")]),
    service=st.builds(QueryService, service=st.sampled_from(SERVICES)),
)
query_sets = st.builds(
    QuerySet,
    query=prepared_queries.filter(lambda query: query.id),
    update=st.booleans(),
    keep_name=st.booleans(),
)
query_deletes = st.builds(QueryDelete, id=st.sampled_from([*QUERIES, "none"]))
points = st.sampled_from([0.0, 0.5, -1.0, 1e9, float("nan")]).map(
    lambda part: Coordinate(vec=(part,) * 8, error=1.5, adjustment=0.0, height=1e-5)
)
coordinate_updates = st.builds(
    CoordinateUpdate,
    rows=st.lists(
        st.builds(
            NodeCoordinate,
            node=st.sampled_from([*NODES, "none"]),
            segment=st.sampled_from(["", "", "alpha"]),
            coordinate=points,
        ),
        max_size=2,
    ).map(tuple),
)
reaps = st.builds(ReapTombstones, up_to_index=st.integers(0, 40))

txns_often_sound = st.builds(Txn, operations=st.lists(kv_ops, min_size=1, max_size=3).map(tuple))
session_commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(SessionCreate, session=session_rows),
    st.builds(SessionCreate, session=session_rows),
    st.builds(SessionDestroy, id=st.sampled_from(SESSIONS), expired=st.booleans()),
)
#: Themes: commands that meddle with each other, so that sequences of one get somewhere.
kv_theme: st.SearchStrategy[Command] = st.one_of(kv_ops, kv_ops, txns_often_sound, reaps, expiries)
catalog_theme: st.SearchStrategy[Command] = st.one_of(registers, deregisters, syncs, liveness, txns)
lock_theme: st.SearchStrategy[Command] = st.one_of(
    kv_ops, kv_ops, session_commands, syncs, liveness, deregisters, txns, expiries
)
#: What ends with sessions and nodes.
query_theme: st.SearchStrategy[Command] = st.one_of(
    query_sets, query_sets, query_deletes, session_commands, syncs, deregisters, coordinate_updates
)
#: Commands of the small world, restores left out.
commands: st.SearchStrategy[Command] = st.one_of(
    kv_theme,
    catalog_theme,
    session_commands,
    config_sets,
    config_deletes,
    query_sets,
    query_deletes,
    coordinate_updates,
)


def _timed(
    theme: st.SearchStrategy[Command], min_size: int, max_size: int
) -> st.SearchStrategy[list[tuple[int, Command]]]:
    passing = st.sampled_from([0, 0, 1, 14_999, 15_000])
    return st.lists(st.tuples(passing, theme), min_size=min_size, max_size=max_size)


#: Sequences of (milliseconds that pass before the command, the command).
scripts = st.one_of(
    _timed(commands, 0, 6),
    _timed(kv_theme, 8, 20),
    _timed(catalog_theme, 8, 20),
    _timed(lock_theme, 8, 20),
    _timed(query_theme, 8, 20),
    _timed(commands, 10, 25),
)

# -- any shape ---------------------------------------------------------------------------------

_texts = st.one_of(
    st.sampled_from(["", "\0", "a", "n1", "serfHealth", "x" * 5_000]), st.text(max_size=5)
)
_integers = st.sampled_from([0, 1, -1, 2**63, 2**64 - 1, -(2**63)]) | st.integers(0, 9)
_floats = st.sampled_from([0.0, -1.0, 1e308, float("inf"), float("nan"), 15.0])


def _deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {"x": [found]}
    return found


_objects = st.sampled_from([{}, {"a": [1, {"b": None}]}, _deep(10), _deep(200)])
#: Bodies of entries that may be anything where a list or an object should be.
_bodies = st.dictionaries(
    st.sampled_from(["Sources", "Routes", "Splits", "Subsets", "Redirect", "Listeners", "Meta"]),
    _objects | st.lists(_objects | st.integers(0, 3), max_size=2) | st.text(max_size=3),
    max_size=3,
)
_tuples = st.lists(_texts, max_size=3).map(tuple)
_maps = st.dictionaries(_texts, _texts, max_size=2)
_nodes = st.builds(Node, name=_texts, id=_texts, address=_texts, meta=_maps)
_services = st.builds(
    ServiceInstance,
    node=_texts,
    id=_texts,
    name=_texts,
    tags=_tuples,
    port=_integers,
    proxy=_objects,
)
_checks = st.builds(
    Check,
    node=_texts,
    check_id=_texts,
    name=_texts,
    status=statuses,
    service_id=_texts,
    definition=_objects,
)
_sessions = st.builds(
    Session,
    id=_texts,
    node=_texts,
    behavior=st.sampled_from(list(SessionBehavior)),
    ttl_s=_floats,
    lock_delay_s=_floats,
    node_checks=_tuples,
)
_kv_ops = st.builds(
    KVOp,
    verb=st.sampled_from(list(KVVerb)),
    key=_texts,
    value=st.binary(max_size=4),
    flags=_integers,
    index=_integers,
    session=_texts,
    ttl_ms=_integers,
)
_operations = st.one_of(
    _kv_ops,
    st.builds(NodeOp, verb=catalog_verbs, node=_nodes, index=_integers),
    st.builds(ServiceOp, verb=catalog_verbs, service=_services, index=_integers),
    st.builds(CheckOp, verb=catalog_verbs, check=_checks, index=_integers),
)
#: Any value that a command can have.
wild_commands: st.SearchStrategy[Command] = st.one_of(
    _kv_ops,
    st.builds(
        Register,
        node=_nodes,
        service=st.none() | _services,
        checks=st.lists(_checks, max_size=2).map(tuple),
        skip_node_update=st.booleans(),
    ),
    st.builds(Deregister, node=_texts, service_id=_texts, check_id=_texts),
    st.builds(
        NodeSync,
        node=_nodes,
        services=st.lists(_services, max_size=2).map(tuple),
        checks=st.lists(_checks, max_size=2).map(tuple),
        remove_services=_tuples,
        remove_checks=_tuples,
        full=st.booleans(),
    ),
    st.builds(SetLiveness, node=_texts, alive=st.booleans(), output=_texts),
    st.builds(SessionCreate, session=_sessions),
    st.builds(SessionDestroy, id=_texts),
    st.builds(Txn, operations=st.lists(_operations, max_size=3).map(tuple)),
    st.builds(
        ConfigSet,
        entry=st.builds(ConfigEntry, kind=_texts, name=_texts, body=_objects),
        cas=st.none() | _integers,
    ),
    st.builds(
        ConfigSet,
        entry=st.builds(ConfigEntry, kind=st.sampled_from(list(KINDS)), name=_texts, body=_bodies),
    ),
    st.builds(ConfigDelete, kind=_texts, name=_texts, cas=st.none() | _integers),
    st.builds(
        IntentionSet,
        source=_texts,
        destination=_texts,
        id=_texts,
        update=st.booleans(),
        action=_texts,
        permissions=st.lists(_objects, max_size=2).map(tuple),
        meta=_maps,
    ),
    st.builds(IntentionDelete, id=_texts, source=_texts, destination=_texts),
    st.builds(
        AuthoritySet,
        previous=_texts,
        cluster_id=_texts,
        root=st.none()
        | st.builds(
            Root,
            id=_texts,
            name=_texts,
            serial=_integers,
            certificate=_texts,
            key=st.builds(SecretText, _texts),
            signing_key_id=_texts,
            not_before=_integers,
            not_after=_integers,
        ),
        leaf_ttl_s=_floats,
        root_ttl_s=_floats,
    ),
    st.builds(
        QuerySet,
        query=st.builds(
            PreparedQuery,
            id=_texts,
            name=_texts,
            session=_texts,
            dns_ttl=_texts,
            template=st.builds(QueryTemplate, type=_texts, regexp=_texts),
            service=st.builds(QueryService, service=_texts, tags=_tuples, node_meta=_maps),
        ),
        update=st.booleans(),
        keep_name=st.booleans(),
    ),
    st.builds(QueryDelete, id=_texts),
    st.builds(
        CoordinateUpdate,
        rows=st.lists(
            st.builds(
                NodeCoordinate,
                node=_texts,
                segment=_texts,
                coordinate=st.builds(
                    Coordinate,
                    vec=st.lists(_floats, max_size=9).map(tuple),
                    error=_floats,
                    adjustment=_floats,
                    height=_floats,
                ),
            ),
            max_size=3,
        ).map(tuple),
    ),
    st.builds(ReapTombstones, up_to_index=_integers),
    st.builds(KVExpire, keys_max=_integers),
    st.builds(
        RestoreChunk,
        restore_id=_texts,
        sequence=st.sampled_from([0, 0, 1, -1, 2**63]),
        data=st.binary(max_size=8),
        last=st.booleans(),
        sha256=_texts,
    ),
)
