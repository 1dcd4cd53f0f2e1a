"""What must hold after any sequence of commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from raftreg.core import coordinates, queries, query
from raftreg.core.apply import Applied, apply
from raftreg.core.catalog import Catalog
from raftreg.core.changes import ALL, Topic, covers
from raftreg.core.commands import Command, RestoreChunk, decode, encode
from raftreg.core.delta import decode_deltas, encode_deltas
from raftreg.core.identity import IDENTITY
from raftreg.core.results import Outcome, Refused, TxnResult, decode_outcome, encode_outcome
from raftreg.core.snapshot import restore, snapshot
from raftreg.core.state import State
from raftreg.model import NodeCoordinate, Status
from tests.core import strategies as world
from tests.core.plain_model import PlainModel

scripts = world.scripts
#: The state space is large and an example is cheap: more of them than the profile says.
often = settings(max_examples=max(300, settings().max_examples))


def visible(state: State) -> tuple[dict[Any, Any], ...]:
    """The content of a state, in the form of `PlainModel.content`; a restore gives it a name."""
    catalog = state.catalog
    return (
        state.kv.rows,
        catalog.nodes,
        {(row.node, row.id): row for row in catalog.all_services()},
        {(row.node, row.check_id): row for row in catalog.all_checks()},
        state.sessions,
        {key: row for key, row in state.config.items() if key != IDENTITY},
        state.queries.rows,
        {(row.node, row.segment): row for row in places(state)},
    )


def places(state: State) -> list[NodeCoordinate]:
    """All coordinates."""
    return coordinates.coordinates(state).value


def outcome(applied: Applied) -> Any:
    """A result in the form of `PlainModel.run`."""
    match applied.result:
        case Refused():
            return "refused"
        case TxnResult() as txn:
            return (txn.ok, [number for number, _ in txn.errors])
        case result:
            return result


def run(state: State, script: Iterable[tuple[int, Command]]) -> None:
    """Applies all commands of a script."""
    for passed_ms, command in script:
        apply(state, command, state.time_ms + passed_ms)


@often
@given(scripts)
def test_every_command_does_what_plain_dicts_do(script: list[tuple[int, Command]]) -> None:
    """Results and all visible rows, with their indexes, are those of the plain model."""
    state, model, now = State(), PlainModel(), 0
    for passed_ms, command in script:
        now += passed_ms
        applied = apply(state, command, now)
        assert outcome(applied) == model.run(command, now)
        assert visible(state) == model.content()
        assert state.kv.deadlines == model.ends
        if outcome(applied) in ("refused", False) or (
            isinstance(applied.result, TxnResult) and not applied.result.ok
        ):
            assert applied.topics == ()
            assert applied.deltas == ()


@given(st.lists(world.wild_commands, max_size=8))
def test_no_command_whatever_it_holds_raises(script: list[Command]) -> None:
    """`apply` is total; what it leaves can be written and read again, as can its results."""
    state = State()
    for command in script:
        applied = apply(state, command, 0)
        known = Outcome(state.index, applied.result)
        assert decode_outcome(encode_outcome(known)) == known
    image = b"".join(snapshot(state))
    assert b"".join(snapshot(restore([image]))) == image


@often
@given(scripts, st.integers(0, 20))
def test_the_same_commands_give_the_same_bytes(script: list[tuple[int, Command]], cut: int) -> None:
    """And the same answers, over the wire, and from a snapshot in the middle too."""
    one, other = State(), State()
    run(one, script)
    run(other, script[:cut])
    other = restore(snapshot(other))
    run(other, [(ms, decode(encode(command))) for ms, command in script[cut:]])
    assert visible(one) == visible(other)
    assert list(snapshot(one)) == list(snapshot(other))
    asked = [answers(catalog_watches(s.catalog) | state_watches(s)) for s in (one, other)]
    assert asked[0] == asked[1]


# -- watches -------------------------------------------------------------------------------------

Watch = tuple[Callable[[], query.Found[Any]], tuple[Topic, ...]]


def catalog_watches(catalog: Catalog) -> dict[str, Watch]:
    """Every query over the catalog, with what its watchers wait on."""
    found: dict[str, Watch] = {}
    for name in (*world.NODES, *world.NODE_IDS, "none"):
        found[f"node {name}"] = (partial(query.node, catalog, name), query.topics_node(name))
        found[f"checks of node {name}"] = (
            partial(query.checks_of_node, catalog, name),
            query.topics_checks_of_node(name),
        )
    for meta in ((), (("env", "prod"),)):
        found |= filtered_watches(catalog, meta)
    return found


def filtered_watches(catalog: Catalog, meta: query.MetaFilter) -> dict[str, Watch]:
    """The queries that can be restricted to some nodes."""
    found: dict[str, Watch] = {
        f"nodes {meta}": (partial(query.nodes, catalog, meta), query.topics_nodes()),
        f"services {meta}": (
            partial(query.services, catalog, meta),
            query.topics_services(meta),
        ),
    }
    for state in ("any", *Status):
        found[f"state {state} {meta}"] = (
            partial(query.checks_in_state, catalog, state, meta),
            query.topics_checks_in_state(state, meta),
        )
    for name in (*world.SERVICES, "none"):
        found[f"service {name} {meta}"] = (
            partial(query.service_instances, catalog, name, ("blue",), meta),
            query.topics_service(name),
        )
        found[f"checks of {name} {meta}"] = (
            partial(query.checks_of_service, catalog, name, meta),
            query.topics_checks_of_service(name),
        )
        for passing in (False, True):
            found[f"health {name} {passing} {meta}"] = (
                partial(query.health_service, catalog, name, (), passing, meta),
                query.topics_health_service(name),
            )
    return found


def state_watches(state: State) -> dict[str, Watch]:
    """Every other query, likewise."""
    found: dict[str, Watch] = {
        "sessions": (partial(query.sessions, state), query.topics_sessions())
    }
    for key in (*world.KEYS, "none"):
        found[f"key {key}"] = (partial(query.kv_get, state, key), query.topics_kv(key))
    for prefix in world.PREFIXES:
        topics = query.topics_kv_prefix(prefix)
        found[f"tree {prefix}"] = (partial(query.kv_list, state, prefix), topics)
        found[f"keys {prefix}"] = (partial(query.kv_keys, state, prefix, "/"), topics)
    for name in (*world.SESSIONS, "none"):
        found[f"session {name}"] = (
            partial(query.session_info, state, name),
            query.topics_session(name),
        )
    for name in (*world.NODES, "none"):
        found[f"sessions of {name}"] = (
            partial(query.sessions_of_node, state, name),
            query.topics_sessions_of_node(name),
        )
    found["queries"] = (partial(queries.query_list, state), queries.topics_queries())
    for name in (*world.QUERIES, "none"):
        found[f"query {name}"] = (
            partial(queries.query_get, state, name),
            queries.topics_query(name),
        )
    places = coordinates.topics_coordinates()
    found["coordinates"] = (partial(coordinates.coordinates, state), places)
    for name in (*world.NODES, "none"):
        found[f"coordinates of {name}"] = (
            partial(coordinates.coordinates_of_node, state, name),
            coordinates.topics_coordinates_of_node(name),
        )
    for kind in ("service-defaults", "service-resolver", "none"):
        topics = query.topics_config(kind)
        found[f"config {kind}"] = (partial(query.config_list, state, kind), topics)
        found[f"config web {kind}"] = (partial(query.config_get, state, kind, "web"), topics)
    return found


def answers(watches: dict[str, Watch]) -> dict[str, query.Found[Any]]:
    """What every query answers now."""
    return {name: ask() for name, (ask, _) in watches.items()}


def check_watches(
    watches: dict[str, Watch], before: dict[str, query.Found[Any]], topics: tuple[Topic, ...]
) -> dict[str, query.Found[Any]]:
    """Asserts what watchers rely on; gives the new answers."""
    now = answers(watches)
    for name, (_, waits_on) in watches.items():
        assert now[name].index >= max(1, before[name].index), name
        if now[name].value != before[name].value:
            assert now[name].index > before[name].index, name
            assert any(covers(w, t) for w in waits_on for t in topics), name
    return now


@often
@given(scripts)
def test_indexes_never_go_back_and_every_change_wakes_its_watchers(
    script: list[tuple[int, Command]],
) -> None:
    """A changed answer has a higher index, and one of its topics is published; on views too."""
    state, view = State(), Catalog()
    seen = answers(catalog_watches(state.catalog) | state_watches(state))
    seen_by_view = answers(catalog_watches(view))
    for passed_ms, command in script:
        applied = apply(state, command, state.time_ms + passed_ms)
        watches = catalog_watches(state.catalog) | state_watches(state)
        seen = check_watches(watches, seen, applied.topics)
        published: list[Topic] = []
        for delta in decode_deltas(encode_deltas(applied.deltas)):
            published.extend(view.apply_delta(delta))
        assert set(published) <= set(applied.topics)
        seen_by_view = check_watches(catalog_watches(view), seen_by_view, tuple(published))
        assert {n: f.value for n, f in seen_by_view.items()} == {
            n: seen[n].value for n in seen_by_view
        }


def restore_chunks(image: bytes, parts: int) -> list[RestoreChunk]:
    """A snapshot as the commands that restore it."""
    size = -(-len(image) // parts)
    return [
        RestoreChunk(
            restore_id="r",
            sequence=number,
            data=image[number * size : (number + 1) * size],
            last=number == parts - 1,
            sha256=sha256(image).hexdigest(),
        )
        for number in range(parts)
    ]


@given(scripts, scripts, scripts, st.integers(1, 3))
def test_a_restore_sets_content_back_but_no_index(
    saved: list[tuple[int, Command]],
    more: list[tuple[int, Command]],
    after: list[tuple[int, Command]],
    parts: int,
) -> None:
    """Also into a cluster with a lower index than the snapshot's; watches work on after it."""
    source = State()
    run(source, saved)
    image = b"".join(snapshot(source))
    state = State()
    run(state, more)
    seen = answers(catalog_watches(state.catalog) | state_watches(state))
    topics: tuple[Topic, ...] = ()
    for chunk in restore_chunks(image, parts):
        applied = apply(state, chunk, state.time_ms)
        assert applied.result is True
        topics = applied.topics
    assert topics == (ALL,)
    assert state.index > source.index
    assert visible(state) == visible(source)
    watches = catalog_watches(state.catalog) | state_watches(state)
    seen = check_watches(watches, seen, topics)
    assert {found.index for found in seen.values()} == {state.index}
    for passed_ms, command in after:
        applied = apply(state, command, state.time_ms + passed_ms)
        seen = check_watches(watches, seen, applied.topics)


@given(scripts)
def test_a_fresh_view_gets_everything(script: list[tuple[int, Command]]) -> None:
    """The rows of a catalog build up an equal one, with no lower index."""
    state = State()
    run(state, script)
    view = Catalog(index_floor=state.index)
    for delta in decode_deltas(encode_deltas(state.catalog.rows())):
        view.apply_delta(delta)
    server = answers(catalog_watches(state.catalog))
    for name, found in answers(catalog_watches(view)).items():
        assert found.value == server[name].value
        assert found.index >= server[name].index


@often
@given(scripts)
def test_names_that_are_gone_leave_nothing_behind(script: list[tuple[int, Command]]) -> None:
    """Last changes are kept for names that have rows alone, held keys for sessions alone."""
    state = State()
    run(state, script)
    catalog = state.catalog
    changed, _ = catalog.last_changes()
    for kind, name, _ in changed:
        assert kind not in {"kv", "kv-tree", "session", "session-node", "config", "query"}
        if kind in {"service", "checks"}:
            assert name in catalog.service_names()
        elif kind in {"node", "node-checks"}:
            assert catalog.find_node(name) is not None
    for name in world.SERVICES:
        assert (name in catalog.service_names()) is bool(catalog.instances(name))
    assert state.kv.held.keys() <= state.sessions.keys()
    assert sorted(state.kv.rows) == state.kv.keys_under("")
    assert not state.kv.rows.keys() & state.kv.tombstones.keys()
    assert state.kv.deadlines.keys() == {k for k, row in state.kv.rows.items() if row.ttl_ms}
    assert state.kv.next_deadline_ms() == min(state.kv.deadlines.values(), default=None)
