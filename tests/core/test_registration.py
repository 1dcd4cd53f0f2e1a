"""Registration: what a host has, who wins, who is told; with the wishes of users."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from raftreg.core import query
from raftreg.core.commands import Deregister, NodeSync, Register, SetLiveness
from raftreg.model import SERF_HEALTH, Check, Node, ServiceInstance, Status
from tests.core.registry_rig import Registry, web, web_check

NODE = Node(name="n1", id="id-n1", address="10.0.0.1")


def ids(registry: Registry, node: str = "n1") -> tuple[list[str], list[str]]:
    """Ids of the services and checks of a node."""
    catalog = registry.state.catalog
    return (
        [row.id for row in catalog.services_of(node)],
        [row.check_id for row in catalog.checks_of(node)],
    )


def test_a_registration_fills_in_what_follows() -> None:
    """Rows belong to the node named, ids default to names, checks know their service."""
    registry = Registry()
    service = ServiceInstance(node="", id="", name="web", tags=("blue",))
    check = Check(node="", check_id="", name="alive", service_id="web")
    command = Register(node=NODE, service=service, checks=(check,))
    assert registry.run(command) is True
    assert ids(registry) == (["web"], ["alive"])
    stored = registry.state.catalog.check("n1", "alive")
    assert stored is not None
    assert (stored.service_name, stored.service_tags) == ("web", ("blue",))


def test_checks_follow_their_service() -> None:
    """A new name or new tags of the service show in its checks."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    registry.run(Register(node=NODE, service=replace(web(), name="shop", tags=("x",))))
    stored = registry.state.catalog.check("n1", "service:web-1")
    assert stored is not None
    assert (stored.service_name, stored.service_tags) == ("shop", ("x",))
    assert query.checks_of_service(registry.state.catalog, "web").value == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Register(node=Node(name="", address="1")), "Must provide node and address"),
        (NodeSync(node=Node(name="", address="1")), "Must provide node and address"),
        (
            Register(node=NODE, service=ServiceInstance(node="n1", id="x", name="")),
            "Must provide service name with ID",
        ),
        (
            Register(node=NODE, checks=(Check(node="n1", check_id=""),)),
            "Must provide check ID or name",
        ),
        (Register(node=NODE, checks=(web_check(),)), "Missing service registration"),
        (NodeSync(node=NODE, checks=(web_check(),)), "Missing service registration"),
        (
            NodeSync(node=NODE, services=(ServiceInstance(node="n1", id="x", name=""),)),
            "Must provide service name with ID",
        ),
    ],
)
def test_a_refused_registration_leaves_nothing(command: Register | NodeSync, message: str) -> None:
    """Not even the node."""
    registry = Registry()
    assert registry.refusal(command) == message
    assert registry.state.catalog.nodes == {}


def test_objects_nested_too_deep_are_refused() -> None:
    """Whatever compares or encodes them must not run out of stack later."""
    deep: dict[str, object] = {}
    for _ in range(65):
        deep = {"x": [deep]}
    registry = Registry()
    refused = registry.refusal(Register(node=NODE, service=web(proxy=deep)))
    assert refused == "objects may be nested at most 64 deep"
    assert registry.run(Register(node=NODE, service=web(proxy={"a": [{"b": [1]}]}))) is True


def test_skip_node_update_leaves_the_node_as_it_is() -> None:
    """It still creates a missing one."""
    registry = Registry()
    moved = replace(NODE, address="10.9.9.9")
    assert registry.run(Register(node=NODE, skip_node_update=True)) is True
    assert registry.run(Register(node=moved, skip_node_update=True)) is True
    assert registry.state.catalog.nodes["n1"].address == "10.0.0.1"
    registry.run(Register(node=moved))
    assert registry.state.catalog.nodes["n1"].address == "10.9.9.9"


def test_deregistration_takes_along_what_belongs_to_it() -> None:
    """A service its checks, a node everything; what is not there is fine."""
    registry = Registry()
    registry.host("n1", web(), web("n1", "web-2"), checks=(web_check(),))
    assert registry.run(Deregister(node="n1", service_id="web-1")) is True
    assert ids(registry) == (["web-2"], [SERF_HEALTH])
    assert registry.run(Deregister(node="n1", check_id=SERF_HEALTH)) is True
    assert ids(registry) == (["web-2"], [])
    assert registry.run(Deregister(node="n1")) is True
    assert registry.state.catalog.nodes == {}
    applied = registry.apply(Deregister(node="n1"))
    assert applied.result is True
    assert applied.topics == ()


def test_a_partial_sync_touches_what_it_names_only() -> None:
    """An edge of one check moves one row."""
    registry = Registry()
    registry.host("n1", web(), web("n1", "web-2"), checks=(web_check(),))
    applied = registry.apply(NodeSync(node=NODE, checks=(web_check(Status.WARNING),)))
    assert [(d.kind, d.id) for d in applied.deltas] == [("check", "service:web-1")]
    registry.run(NodeSync(node=NODE, remove_services=("web-2",), remove_checks=("service:web-1",)))
    assert ids(registry) == (["web-1"], [SERF_HEALTH])


def test_the_lease_of_a_host_belongs_to_the_registry() -> None:
    """An agent's sync adds serfHealth and can neither set nor remove it."""
    registry = Registry()
    registry.host()
    registry.run(SetLiveness(node="n1", alive=False))
    forged = Check(node="n1", check_id=SERF_HEALTH, status=Status.PASSING)
    registry.run(NodeSync(node=NODE, checks=(forged,), remove_checks=(SERF_HEALTH,), full=True))
    stored = registry.state.catalog.check("n1", SERF_HEALTH)
    assert stored is not None
    assert stored.status is Status.CRITICAL
    assert stored.output == "Agent not live or unreachable"
    assert registry.run(SetLiveness(node="n1", alive=True, output="back")) is True
    assert registry.state.catalog.checks_of("n1")[0].output == "back"


def test_liveness_of_a_host_without_a_lease_is_no_news() -> None:
    """Nodes that were registered through the catalog alone are not leased."""
    registry = Registry()
    registry.run(Register(node=NODE))
    applied = registry.apply(SetLiveness(node="n1", alive=False))
    assert applied.result is False
    assert applied.topics == ()


def test_wish_01_no_ghosts_a_full_sync_removes_what_the_agent_does_not_have() -> None:
    """Instances and checks put there by others, or left from before, go."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    registry.run(Register(node=NODE, service=web("n1", "ghost")))
    registry.run(Register(node=NODE, checks=(Check(node="n1", check_id="ghost-check"),)))
    sync = NodeSync(node=NODE, services=(web(),), checks=(web_check(),), full=True)
    assert registry.run(sync) is True
    assert ids(registry) == (["web-1"], [SERF_HEALTH, "service:web-1"])


def test_wish_02_a_watch_wakes_only_for_what_changed() -> None:
    """Another service on the same host, or its check, is none of the watcher's business."""
    registry = Registry()
    api = ServiceInstance(node="n1", id="api-1", name="api")
    registry.host("n1", web(), api, checks=(web_check(),))
    catalog = registry.state.catalog
    before = query.health_service(catalog, "api")
    listed = query.services(catalog)
    for command in (
        NodeSync(node=NODE, checks=(web_check(Status.CRITICAL),)),
        NodeSync(node=NODE, services=(web(port=81),)),
        NodeSync(node=NODE, services=(web("n1", "web-2"),)),
    ):
        topics = registry.apply(command).topics
        assert not {("service", "api"), ("checks", "api"), ("services", "")} & set(topics)
    assert query.health_service(catalog, "api") == before
    assert query.services(catalog) == listed
    assert ("services", "") in registry.apply(
        NodeSync(node=NODE, services=(web(tags=("new",)),))
    ).topics


def test_wish_05_registering_again_changes_and_wakes_nothing() -> None:
    """The same rows keep their indexes."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    again = NodeSync(node=NODE, services=(web(),), checks=(web_check(),), full=True)
    before = query.health_service(registry.state.catalog, "web")
    applied = registry.apply(again)
    assert (applied.result, applied.topics, applied.deltas) == (True, (), ())
    assert query.health_service(registry.state.catalog, "web") == before


def test_wish_08_a_service_that_goes_and_returns_never_lowers_its_index() -> None:
    """A watcher of the name learns of its end and of its return."""
    registry = Registry()
    registry.host("n1", web())
    catalog = registry.state.catalog
    seen = catalog.service_index("web")
    registry.run(Deregister(node="n1", service_id="web-1"))
    gone = query.health_service(catalog, "web")
    assert (gone.value, gone.index) == ([], registry.state.index)
    assert gone.index > seen
    registry.host("n2", ServiceInstance(node="n2", id="x", name="other"))
    assert query.health_service(catalog, "web").index == gone.index
    registry.host("n1", web())
    assert catalog.service_index("web") == registry.state.index
    assert catalog.node_index("n1") == registry.state.index


def test_wish_10_a_renamed_node_leaves_nothing_of_its_old_name() -> None:
    """Same id, other name: the old row goes with its instances and checks."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    renamed = Node(name="n9", id="id-n1", address="10.0.0.1")
    assert registry.run(NodeSync(node=renamed, services=(web("n9"),))) is True
    catalog = registry.state.catalog
    assert list(catalog.nodes) == ["n9"]
    assert [row.node for row in catalog.instances("web")] == ["n9"]
    found = query.node(catalog, "id-n1").value
    assert found is not None
    assert found.node.name == "n9"


def test_wish_10_a_reinstalled_node_takes_its_name_over() -> None:
    """Same name, other id and address: no "name reserved", the id points to the new host."""
    registry = Registry()
    registry.host("n1", web())
    again = Node(name="n1", id="id-new", address="10.0.0.99")
    assert registry.run(NodeSync(node=again, full=True)) is True
    catalog = registry.state.catalog
    assert catalog.nodes["n1"].address == "10.0.0.99"
    assert catalog.find_node("id-n1") is None
    assert query.health_service(catalog, "web").value == []


def test_a_registration_without_an_id_keeps_the_one_known() -> None:
    """Catalog clients that know the name alone do not cut a node from its agent."""
    registry = Registry()
    registry.host()
    registry.run(Register(node=Node(name="n1", address="10.0.0.1")))
    assert registry.state.catalog.nodes["n1"].id == "id-n1"


def test_health_tells_passing_from_warning_and_critical() -> None:
    """`passing_only` drops a warning; checks of the node count for its instances."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(Status.WARNING),))
    registry.host("n2", web("n2", tags=("Blue", "v1")))
    catalog = registry.state.catalog
    entries = query.health_service(catalog, "web").value
    assert [e.status for e in entries] == [Status.WARNING, Status.PASSING]
    passing = query.health_service(catalog, "web", passing_only=True).value
    assert [e.node.name for e in passing] == ["n2"]
    registry.run(SetLiveness(node="n2", alive=False))
    assert query.health_service(catalog, "web", passing_only=True).value == []
    assert query.health_service(catalog, "web").value[1].status is Status.CRITICAL
    assert len(query.service_instances(catalog, "web", ("blue", "V1")).value) == 1
    assert query.service_instances(catalog, "web", ("blue", "v2")).value == []
    with pytest.raises(ValueError, match="nonsense"):
        query.checks_in_state(catalog, "nonsense")
