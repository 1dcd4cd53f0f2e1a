"""Prepared queries and coordinates in the state: names, limits, what goes with what."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from raftreg.core import coordinates, distances, queries
from raftreg.core.commands import (
    Command,
    CoordinateUpdate,
    Deregister,
    NodeSync,
    QueryDelete,
    QuerySet,
    SessionDestroy,
)
from raftreg.core.snapshot import restore, snapshot
from raftreg.core.vivaldi import origin
from raftreg.model import (
    Node,
    NodeCoordinate,
    PreparedQuery,
    QueryFailover,
    QueryService,
    QueryTarget,
    QueryTemplate,
)
from tests.core.registry_rig import Registry, web

TEMPLATE = QueryTemplate(type="name_prefix_match")


def prepared(query_id: str, name: str = "", **fields: object) -> PreparedQuery:
    """A query for `web`."""
    service = QueryService(service="web")
    return PreparedQuery(id=query_id, name=name, **{"service": service, **fields})  # type: ignore[arg-type]


def keep(registry: Registry, *rows: PreparedQuery) -> None:
    """Creates queries."""
    for row in rows:
        assert registry.run(QuerySet(query=row)) == row.id


def place(registry: Registry, node: str, x: float, segment: str = "") -> None:
    """Puts a node on the first axis, so many seconds from the origin."""
    coordinate = replace(origin(), vec=(x,) + (0.0,) * 7)
    row = NodeCoordinate(node=node, segment=segment, coordinate=coordinate)
    assert registry.run(CoordinateUpdate(rows=(row,))) is True


def test_the_longest_prefix_wins_and_an_exact_name_before_it() -> None:
    """Without letter case; without a template for everything the rest is unknown."""
    registry = Registry()
    keep(
        registry,
        prepared("1", "geo", template=TEMPLATE),
        prepared("2", "geo-db", template=TEMPLATE),
        prepared("3", "geo-db-x"),
    )
    table = registry.state.queries

    def found(name: str) -> str:
        row = table.named(name)
        return "" if row is None else row.id

    asked = ("ge", "geo", "GEO-d", "geo-db", "Geo-DB-y", "geo-db-x", "geo-db-xy", "")
    assert [found(name) for name in asked] == ["", "1", "1", "2", "2", "3", "2", ""]
    keep(registry, prepared("4", template=TEMPLATE))
    assert (found("ge"), found("")) == ("4", "4")


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An update goes through at the limit, a new one does not."""
    monkeypatch.setattr(queries, "QUERIES_MAX", 2)
    registry = Registry()
    keep(registry, prepared("1", "a"), prepared("2", "b"))
    assert "2 prepared queries" in registry.refusal(QuerySet(query=prepared("3", "c")))
    assert registry.run(QuerySet(query=prepared("1", "d"), update=True)) == "1"


def test_names_are_free_again() -> None:
    """After a deletion, and after a change of the name."""
    registry = Registry()
    keep(registry, prepared("1", "a"), prepared("2", "b"))
    assert "aliases" in registry.refusal(QuerySet(query=prepared("3", "A")))
    assert registry.run(QueryDelete(id="1")) is True
    registry.run(QuerySet(query=prepared("2", "c"), update=True))
    keep(registry, prepared("3", "a"), prepared("4", "B"))


def test_the_end_of_a_session_tells_those_who_watch_its_queries() -> None:
    """Its queries go with the same command, whatever ended it."""
    registry = Registry()
    registry.host("n1")
    ends: tuple[Command, ...] = (SessionDestroy(id="s0"), Deregister(node="n1"))
    for number, end in enumerate(ends):
        registry.session(f"s{number}")
        keep(registry, prepared(f"q{number}", session=f"s{number}"))
        applied = registry.apply(end)
        assert ("query", f"q{number}") in applied.topics
        assert ("queries", "") in applied.topics
    assert registry.state.queries.rows == {}
    assert queries.query_list(registry.state).index == registry.state.index


def test_failover_goes_on_until_something_is_found() -> None:
    """Each place once, in order; what lies elsewhere is a try in vain."""
    registry = Registry()
    registry.host("n1", web())
    catalog = registry.state.catalog

    def run(**failover: object) -> tuple[str, int, int]:
        service = QueryService(service="gone", failover=QueryFailover(**failover))  # type: ignore[arg-type]
        found = queries.run(catalog, service, "dc1")
        return found.service, len(found.entries), found.failovers

    assert run() == ("gone", 0, 0)
    assert run(nearest_n=3) == ("gone", 0, 0)
    assert run(datacenters=("dc1", "dc2", "dc2", "dc3")) == ("gone", 0, 2)
    away, here = QueryTarget(datacenter="dc2"), QueryTarget(service="web", datacenter="dc1")
    assert run(targets=(away, here, away)) == ("web", 1, 2)
    assert run(targets=(replace(here, peer="p"),)) == ("gone", 0, 1)


def test_a_coordinate_follows_its_node() -> None:
    """Deleted with it, also when it is the same host under a new name."""
    registry = Registry()
    registry.host("n1")
    place(registry, "n1", 0.5)
    renamed = Node(name="n2", id="id-n1", address="10.0.0.1")
    applied = registry.apply(NodeSync(node=renamed))
    assert ("coordinate", "n1") in applied.topics
    assert registry.state.coordinates.rows == {}


def test_the_same_coordinate_again_changes_nothing() -> None:
    """Neither an index nor a watcher."""
    registry = Registry()
    registry.host("n1")
    place(registry, "n1", 0.5)
    changed = registry.state.coordinates.changed
    row = NodeCoordinate(node="n1", coordinate=replace(origin(), vec=(0.5,) + (0.0,) * 7))
    assert registry.apply(CoordinateUpdate(rows=(row, row))).topics == ()
    assert registry.state.coordinates.changed == changed


def test_segments_of_a_node_are_limited() -> None:
    """Anybody may name them."""
    registry = Registry()
    registry.host("n1")
    for number in range(distances.SEGMENTS_MAX + 5):
        place(registry, "n1", 0.5, segment=str(number))
    assert len(registry.state.coordinates.rows["n1"]) == distances.SEGMENTS_MAX


def test_distances_between_segments() -> None:
    """A host in one segment is measured there; two with nothing in common are not known."""
    registry = Registry()
    for name, segments in (("server", ("", "a", "b")), ("a", ("a",)), ("b", ("b",)), ("c", ("",))):
        registry.host(name)
        for number, segment in enumerate(segments):
            place(registry, name, float(number), segment)
    distance_s = registry.state.coordinates.distance_s
    assert distance_s("server", "a") == pytest.approx(1.0, abs=1e-3)
    assert distance_s("b", "server") == pytest.approx(2.0, abs=1e-3)
    assert distance_s("server", "c") == pytest.approx(0.0, abs=1e-3)
    for one, other in (("a", "b"), ("a", "c"), ("a", "nobody")):
        assert distance_s(one, other) == math.inf


def test_sorting_is_stable() -> None:
    """Rows at one distance, and all that are not known, keep their order."""
    registry = Registry()
    for name, x in (("n1", 0.0), ("n2", 0.4), ("n3", 0.4), ("n4", 0.1)):
        registry.host(name)
        place(registry, name, x)
    table = registry.state.coordinates
    nodes = ["u2", "n3", "n2", "u1", "n4", "n3"]
    rows = list(range(len(nodes)))
    assert distances.nearest_first(rows, nodes, "n1", table) == [4, 1, 2, 5, 0, 3]
    assert distances.nearest_first(rows, nodes, "u1", table) == rows


def test_who_is_near() -> None:
    """A name is itself, the agent its node, an address the node that has it."""
    registry = Registry()
    registry.host("n1")
    catalog = registry.state.catalog

    def source(near: str, address: str = "10.0.0.1") -> str:
        return distances.source_node(catalog, near, agent="a1", address=address)

    assert [source(near) for near in ("n7", "_agent", "_ip")] == ["n7", "a1", "n1"]
    assert [source("_ip", address) for address in ("10.9.9.9", "")] == ["", ""]


def test_a_restored_state_keeps_the_indexes_of_what_is_gone() -> None:
    """A watcher of a deleted query or coordinate sees no lower index after a restart."""
    registry = Registry()
    registry.host("n1")
    keep(registry, prepared("1", "a"))
    place(registry, "n1", 0.5)
    registry.run(QueryDelete(id="1"))
    registry.run(Deregister(node="n1"))

    again = restore(snapshot(registry.state))
    for state in (registry.state, again):
        gone = queries.query_get(state, "1")
        assert gone.index == registry.state.index - 1
        assert coordinates.coordinates_of_node(state, "n1").index == registry.state.index
