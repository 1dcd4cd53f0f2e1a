from __future__ import annotations

from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.catalog import Catalog
from raftreg.core.delta import CatalogDelta, decode_deltas, encode_deltas
from raftreg.core.sharing import share_check, share_instance, share_node
from raftreg.model import Check, Node, ServiceAddress, ServiceInstance, Status

TEXTS = st.sampled_from(["", "a", "web", "a longer text than most"])
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=2)
TAGS = st.lists(TEXTS, max_size=2).map(tuple)
INDEXES = st.integers(0, 10**6)
NODES = st.builds(
    Node, name=TEXTS, address=TEXTS, datacenter=TEXTS, meta=MAPS, tagged_addresses=MAPS,
    create_index=INDEXES, modify_index=INDEXES,
)  # fmt: skip
INSTANCES = st.builds(
    ServiceInstance, node=TEXTS, id=TEXTS, name=TEXTS, tags=TAGS, meta=MAPS, proxy=MAPS,
    tagged_addresses=st.dictionaries(TEXTS, st.builds(ServiceAddress, TEXTS, INDEXES), max_size=1),
    create_index=INDEXES, modify_index=INDEXES,
)  # fmt: skip
CHECKS = st.builds(
    Check, node=TEXTS, check_id=TEXTS, name=TEXTS, output=TEXTS, service_id=TEXTS,
    service_name=TEXTS, service_tags=TAGS, definition=MAPS,
    create_index=INDEXES, modify_index=INDEXES,
)  # fmt: skip


@given(NODES, NODES, INSTANCES, INSTANCES, CHECKS, CHECKS)
def test_sharing_changes_no_value(
    node: Node,
    other_node: Node,
    instance: ServiceInstance,
    other_instance: ServiceInstance,
    check: Check,
    other_check: Check,
) -> None:
    """Whatever a row shares with, it says what it said before; so does the other one."""
    rows = (node, other_node, instance, other_instance, check, other_check)
    before = msgspec.msgpack.encode(rows)
    share_node(node, other_node)
    share_instance(instance, node, other_instance)
    share_check(check, instance, other_check)
    assert msgspec.msgpack.encode(rows) == before


def test_rows_of_a_service_share_what_is_equal() -> None:
    """However the rows arrive, texts, tags and tables that repeat are there once."""
    deltas = []
    for number in range(60):
        node, service = f"node-{number % 20}", f"web-{number % 3}"
        deltas += [
            CatalogDelta(kind="node", node=node, row=Node(name=node, address="10.0.0.1")),
            CatalogDelta(
                kind="service",
                node=node,
                id=f"{service}-{number}",
                row=ServiceInstance(
                    node=node,
                    id=f"{service}-{number}",
                    name=service,
                    tags=("v1", "a tag of its own"),
                    meta={"version": "1.4.2"},
                ),
            ),
            CatalogDelta(
                kind="check",
                node=node,
                id=f"service:{number}",
                row=Check(
                    node=node,
                    check_id=f"service:{number}",
                    name=f"Service '{service}' check",
                    status=Random(number).choice(list(Status)),
                    output="200 OK, and more of the like",
                    service_id=f"{service}-{number}",
                    service_name=service,
                    service_tags=("v1", "a tag of its own"),
                ),
            ),
        ]
    catalog = Catalog()
    for delta in decode_deltas(encode_deltas(deltas)):
        catalog.apply_delta(delta)
    services, checks = catalog.all_services(), catalog.all_checks()
    assert (len(services), len(checks)) == (60, 60)
    names = {id(row.name) for row in services} | {id(row.service_name) for row in checks}
    assert len(names) == 3
    assert len({id(row.tags) for row in services} | {id(row.service_tags) for row in checks}) == 3
    assert len({id(row.meta) for row in services}) == 3
    assert len({id(row.node) for row in services} | {id(row.node) for row in checks}) == 20
    assert len({id(row.proxy) for row in services} | {id(row.definition) for row in checks}) == 1
    assert len({id(row.name) for row in checks} | {id(row.output) for row in checks}) <= 6
