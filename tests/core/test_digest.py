"""The digest of a host: equal on agent and server exactly when their content is."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from raftreg.core.commands import NodeSync
from raftreg.core.digest import node_digest
from raftreg.model import Check, Node, ServiceAddress, Status, Weights
from tests.core.registry_rig import Registry, web, web_check

NODE = Node(name="n1", id="u1", address="10.0.0.1", meta={"a": "1", "b": "2"})
SERVICE = web(tags=("x",), meta={"k": "v"}, proxy={"a": 1, "b": {"c": [1]}})
CHECK = web_check()


def test_agent_and_server_agree_after_a_sync() -> None:
    """Indexes, serfHealth and fields that follow from other rows do not count, nor any order."""
    registry = Registry()
    other = Check(node="n1", check_id="mem", status=Status.WARNING)
    registry.run(NodeSync(node=NODE, services=(SERVICE,), checks=(CHECK, other)))
    catalog = registry.state.catalog
    stored = node_digest(catalog.nodes["n1"], catalog.services_of("n1"), catalog.checks_of("n1"))
    shuffled = replace(NODE, meta={"b": "2", "a": "1"})
    assert node_digest(shuffled, [SERVICE], [other, CHECK]) == stored


@pytest.mark.parametrize(
    ("node", "service", "check"),
    [
        (replace(NODE, address="10.0.0.2"), SERVICE, CHECK),
        (replace(NODE, meta={}), SERVICE, CHECK),
        (NODE, replace(SERVICE, port=1), CHECK),
        (NODE, replace(SERVICE, tags=()), CHECK),
        (NODE, replace(SERVICE, weights=Weights(2, 1)), CHECK),
        (NODE, replace(SERVICE, tagged_addresses={"lan": ServiceAddress("::1", 1)}), CHECK),
        (NODE, replace(SERVICE, proxy={}), CHECK),
        (NODE, SERVICE, replace(CHECK, status=Status.WARNING)),
        (NODE, SERVICE, replace(CHECK, output="new")),
        (NODE, SERVICE, replace(CHECK, service_id="")),
    ],
)
def test_any_difference_shows(node: Node, service: object, check: Check) -> None:
    """One field is enough."""
    assert node_digest(node, [service], [check]) != node_digest(NODE, [SERVICE], [CHECK])  # type: ignore[list-item]


def test_a_missing_row_shows() -> None:
    """A service without its check, or a check that could pass for a service."""
    digests = {
        node_digest(NODE, [], []),
        node_digest(NODE, [SERVICE], []),
        node_digest(NODE, [], [CHECK]),
        node_digest(NODE, [SERVICE], [CHECK]),
    }
    assert len(digests) == 4


def test_objects_with_mixed_keys_have_a_digest() -> None:
    """MessagePack bodies may hold what JSON can't; it must not break a renewal."""
    odd = replace(SERVICE, proxy={"x": {1: "a", "1": "b", None: "c"}})
    assert node_digest(NODE, [odd], []) != node_digest(NODE, [SERVICE], [])
