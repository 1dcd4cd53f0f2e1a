"""Topics, configuration entries, and what is left of the small rooms."""

from __future__ import annotations

import pytest

from raftreg.core import query
from raftreg.core.catalog import Catalog
from raftreg.core.changes import ALL, Changes, Topic, covers
from raftreg.core.commands import ConfigDelete, ConfigSet
from raftreg.core.delta import CatalogDelta
from raftreg.model import ConfigEntry, Node
from tests.core.registry_rig import Registry


@pytest.mark.parametrize(
    ("waiting", "published", "woken"),
    [
        (("kv", "a"), ("kv", "a"), True),
        (("kv", "a"), ("kv", "a/b"), False),
        (("kv", "a/b"), ("kv-tree", "a/"), True),
        (("kv", "a"), ("kv-tree", "a/"), False),
        (("kv-prefix", "a/"), ("kv", "a/b"), True),
        (("kv-prefix", "a/"), ("kv", "a"), False),
        (("kv-prefix", "a/"), ("kv-tree", "a/b"), True),
        (("kv-prefix", "a/b"), ("kv-tree", "a"), True),
        (("kv-prefix", "a/"), ("kv-tree", "b"), False),
        (("kv-prefix", "a/"), ("service", "a/"), False),
        (("service", "web"), ("service", "api"), False),
        (("service", "web"), ("checks", "web"), False),
        (("service", "web"), ALL, True),
    ],
)
def test_who_is_woken_by_what(waiting: Topic, published: Topic, *, woken: bool) -> None:
    """Keys and prefixes meet in both directions."""
    assert covers(waiting, published) is woken


def test_changes_that_were_not_recorded_can_t_be_rolled_back() -> None:
    """A loud error instead of half an undo."""
    with pytest.raises(RuntimeError, match="reversible"):
        Changes().roll_back()


def test_a_configuration_entry_is_written_at_its_index_only() -> None:
    """Cas 0 creates, cas N replaces or deletes, none always does."""
    registry = Registry()

    def put(kind: str = "k", name: str = "n", cas: int | None = None) -> ConfigSet:
        return ConfigSet(entry=ConfigEntry(kind=kind, name=name, body={}), cas=cas)

    assert registry.run(put(cas=0)) is True
    at = registry.state.index
    assert registry.run(put(cas=0)) is False
    assert registry.run(put(cas=at)) is True
    assert registry.run(put()) is True
    assert registry.run(ConfigDelete(kind="k", name="n", cas=at)) is False
    assert registry.run(ConfigDelete(kind="k", name="n")) is True
    assert registry.apply(ConfigDelete(kind="k", name="n")).topics == ()
    assert "kind and name" in registry.refusal(put(name=""))


def test_a_configuration_entry_nested_too_deep_is_refused() -> None:
    """As everywhere."""
    deep: dict[str, object] = {}
    for _ in range(100):
        deep = {"x": deep}
    entry = ConfigEntry(kind="k", name="n", body=deep)
    assert "64 deep" in Registry().refusal(ConfigSet(entry=entry))


def test_a_view_survives_deltas_of_rows_it_never_had() -> None:
    """Deletions of unknown rows change nothing; a node's deletion takes all of it along."""
    view = Catalog(index_floor=7)
    for kind in ("node", "service", "check"):
        assert view.apply_delta(CatalogDelta(kind=kind, node="n", id="x", index=8)) == ()
    registry = Registry()
    registry.host()
    for delta in registry.state.catalog.rows():
        view.apply_delta(delta)
    assert list(view.nodes) == ["n1"]
    view.apply_delta(CatalogDelta(kind="node", node="n1", index=9))
    assert view.nodes == {}
    assert view.all_checks() == []
    assert query.nodes(view).index == view.index == 9


def test_a_view_has_no_index_below_its_floor() -> None:
    """It starts at the index of the content it was given."""
    view = Catalog(index_floor=50)
    row = Node(name="n1", address="10.0.0.1", create_index=3, modify_index=4)
    view.apply_delta(CatalogDelta(kind="node", node="n1", row=row, index=4))
    assert query.node(view, "n1").index == 50
    assert view.index == 50
