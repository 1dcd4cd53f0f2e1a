"""Chains and the entries that make them up: whatever is written, what can be compiled stays so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftreg.core.chain import compile_chain
from raftreg.core.chain_graph import LEGS_MAX, Chain, ChainError
from raftreg.core.commands import (
    Command,
    ConfigDelete,
    ConfigSet,
    IntentionDelete,
    IntentionSet,
)
from raftreg.core.config_table import ConfigTable
from raftreg.core.results import Refused
from raftreg.core.snapshot import restore, snapshot
from raftreg.model import ConfigEntry
from tests.core.registry_rig import Registry

SERVICES = ("a", "b", "c", "d")
services = st.sampled_from(SERVICES)
subsets = st.sampled_from(["", "", "v1", "v2"])
places = st.fixed_dictionaries({}, optional={"Service": services, "ServiceSubset": subsets})
splits = st.one_of(
    st.builds(lambda place: [{"Weight": 100.0, **place}], places),
    st.builds(
        lambda first, second: [{"Weight": 30.0, **first}, {"Weight": 70.0, **second}],
        places,
        places,
    ),
)
failovers = st.fixed_dictionaries(
    {},
    optional={
        "Service": services,
        "Datacenters": st.lists(st.sampled_from(["dc1", "dc2"]), max_size=2),
        "Targets": st.lists(places, max_size=2),
    },
)
bodies: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "service-router": st.fixed_dictionaries(
        {"Routes": st.lists(st.fixed_dictionaries({}, optional={"Destination": places}))}
    ),
    "service-splitter": st.fixed_dictionaries({"Splits": splits}),
    "service-resolver": st.fixed_dictionaries(
        {},
        optional={
            "Subsets": st.sampled_from([{}, {"v1": {}}, {"v1": {}, "v2": {}}]),
            "DefaultSubset": subsets,
            "Redirect": places,
            "Failover": st.dictionaries(st.sampled_from(["*", "v1"]), failovers, max_size=1),
        },
    ),
    "service-defaults": st.fixed_dictionaries(
        {},
        optional={
            "Protocol": st.sampled_from(["http", "http", "http", "tcp", "grpc"]),
            "ExternalSNI": st.sampled_from(["", "", "x.example"]),
        },
    ),
    "ingress-gateway": st.builds(
        lambda name, protocol: {
            "Listeners": [{"Port": 80, "Protocol": protocol, "Services": [{"Name": name}]}]
        },
        services,
        st.sampled_from(["http", "tcp"]),
    ),
}
entries = st.one_of(
    *(
        st.builds(ConfigEntry, kind=st.just(kind), name=services, body=body)
        for kind, body in bodies.items()
    ),
    st.builds(
        ConfigEntry,
        kind=st.just("proxy-defaults"),
        name=st.just("global"),
        body=st.sampled_from([{}, {"Config": {"protocol": "http"}}]),
    ),
)
writes: st.SearchStrategy[Command] = st.one_of(
    st.builds(ConfigSet, entry=entries),
    st.builds(ConfigSet, entry=entries),
    st.builds(
        ConfigDelete,
        kind=st.sampled_from([*bodies, "service-intentions"]),
        name=services,
    ),
    st.builds(ConfigDelete, kind=st.just("proxy-defaults"), name=st.just("global")),
    st.builds(
        IntentionSet,
        source=services,
        destination=services,
        action=st.sampled_from(["allow", "deny", ""]),
        permissions=st.sampled_from([(), ({"Action": "allow", "HTTP": {"PathPrefix": "/"}},)]),
        id=st.sampled_from(["", "", "i1"]),
        update=st.booleans(),
    ),
    st.builds(IntentionDelete, source=services, destination=services),
)


def compiled(table: ConfigTable, service: str) -> Chain:
    """The chain of a service in dc1."""
    return compile_chain(table, service, datacenter="dc1", trust_domain="t.consul")


def refusal_of(table: ConfigTable, service: str) -> str | None:
    """What is wrong with a chain; None when nothing is."""
    try:
        compiled(table, service)
    except ChainError as error:
        return str(error)
    return None


@given(st.lists(entries, max_size=12), services)
def test_a_chain_is_whole_or_is_refused(given_entries: list[ConfigEntry], service: str) -> None:
    """Whatever entries there are, whoever let them in: no other fault, and no loose end."""
    table = ConfigTable(given_entries)
    if refusal_of(table, service) is not None:
        return
    chain = compiled(table, service)
    assert chain == compiled(table, service)
    nodes, targets = chain["Nodes"], chain["Targets"]
    assert chain["StartNode"] in nodes
    used: set[str] = set()
    for key, node in nodes.items():
        assert key == f"{node['Type']}:{node['Name']}"
        steps = [*node.get("Routes", ()), *node.get("Splits", ())]
        assert all(step["NextNode"] in nodes for step in steps)
        if "Splits" in node:
            assert sum(leg["Weight"] for leg in node["Splits"]) == pytest.approx(100, abs=0.1)
            kinds = {nodes[leg["NextNode"]]["Type"] for leg in node["Splits"]}
            assert kinds == {"resolver"}
        if "Resolver" in node:
            resolver = node["Resolver"]
            used |= {resolver["Target"], *resolver.get("Failover", {}).get("Targets", ())}
    assert used == set(targets)


@settings(max_examples=60)
@given(st.lists(writes, max_size=25))
def test_no_accepted_write_breaks_a_chain(commands: list[Command]) -> None:
    """After any sequence of writes every service's chain compiles; refusals leave no trace."""
    registry = Registry()
    for command in commands:
        before = list(registry.state.config.items())
        result = registry.run(command)
        if isinstance(result, Refused):
            assert list(registry.state.config.items()) == before
        for service in SERVICES:
            assert refusal_of(registry.state.config, service) is None, command
    again = restore(snapshot(registry.state))
    for service in SERVICES:
        assert compiled(again.config, service) == compiled(registry.state.config, service)
    assert again.config.dependents(SERVICES) == registry.state.config.dependents(SERVICES)


def http(*services: str) -> Registry:
    """A registry whose services speak http."""
    registry = Registry()
    for service in services:
        put(registry, "service-defaults", service, Protocol="http")
    return registry


def put(registry: Registry, kind: str, name: str, **body: Any) -> None:
    """Writes an entry that must be taken."""
    entry = ConfigEntry(kind=kind, name=name, body=body)
    assert registry.run(ConfigSet(entry=entry)) is True


def test_a_chain_that_is_broken_already_stands_in_nobody_s_way() -> None:
    """A restored snapshot may bring one; other entries can be written, and it can be mended."""
    broken = ConfigEntry(
        kind="service-splitter", name="a", body={"Splits": [{"Weight": 100.0, "Service": "b"}]}
    )
    registry = Registry()
    registry.state.config = ConfigTable([broken])
    put(registry, "service-resolver", "b", ConnectTimeout="1s")
    assert "does not permit" in registry.refusal(ConfigSet(entry=broken))
    assert registry.run(ConfigDelete(kind="service-splitter", name="a")) is True


def test_entries_that_do_not_fit_their_kind_decide_over_nothing() -> None:
    """They come from snapshots alone: they are kept and shown."""
    odd = ConfigEntry(kind="service-splitter", name="a", body={"Splits": "none"})
    table = ConfigTable([odd])
    assert table["service-splitter", "a"] is odd
    assert compiled(table, "a")["Default"]


def test_splitters_that_stand_for_too_many_legs_are_refused() -> None:
    """Each level doubles the legs of the one above: a few entries, and a great many legs."""
    names = [f"s{level}{side}" for level in range(14) for side in "lr"]
    registry = http(*names, "end")
    for level in range(12, -1, -1):
        for side in "lr":
            below = [{"Weight": 50.0, "Service": f"s{level + 1}{other}"} for other in ("l", "r")]
            entry = ConfigEntry(
                kind="service-splitter", name=f"s{level}{side}", body={"Splits": below}
            )
            result = registry.run(ConfigSet(entry=entry))
            if 2 ** (13 - level) > LEGS_MAX:
                assert isinstance(result, Refused)
                assert "legs" in result.message
                return
            assert result is True
    raise AssertionError("no splitter was refused")


def test_long_ways_are_refused_before_they_are_walked() -> None:
    """Redirects and nested splitters end somewhere."""
    names = [f"s{number}" for number in range(60)]
    registry = http(*names)
    for name, below in zip(reversed(names[:-1]), reversed(names[1:]), strict=True):
        body = {"Splits": [{"Weight": 50.0}, {"Weight": 50.0, "Service": below}]}
        entry = ConfigEntry(kind="service-splitter", name=name, body=body)
        result = registry.run(ConfigSet(entry=entry))
        if isinstance(result, Refused):
            assert "nests more than" in result.message
            return
    raise AssertionError("no splitter was refused")
