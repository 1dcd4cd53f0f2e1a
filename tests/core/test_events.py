"""User events: their order, their bounds, and what a snapshot keeps of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.commands import EventFire, RestoreChunk
from raftreg.core.events import EVENT_NAME_BYTES_MAX, EVENT_PAYLOAD_BYTES_MAX, EVENTS_MAX, Event
from raftreg.core.snapshot import restore, snapshot
from raftreg.core.staging import Staging
from tests.core.registry_rig import Registry


def _fire(registry: Registry, name: str, **fields: object) -> Event:
    event = Event(id=f"id-{name}", name=name, **fields)  # type: ignore[arg-type]
    applied = registry.apply(EventFire(event=event))
    assert applied.result is True
    assert applied.topics == (("events", ""),)
    return event


def test_events_keep_their_order_and_the_oldest_go() -> None:
    """The ring holds the newest; each has the place in time after the one before."""
    registry = Registry()
    for number in range(EVENTS_MAX + 3):
        _fire(registry, f"e{number}")
    kept = registry.state.events.all()
    assert [event.name for event in kept] == [f"e{n}" for n in range(3, EVENTS_MAX + 3)]
    assert [event.ltime for event in kept] == list(range(4, EVENTS_MAX + 4))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": ""}, "missing name"),
        ({"name": "x" * (EVENT_NAME_BYTES_MAX + 1)}, "name over"),
        ({"name": "x", "payload": b"x" * (EVENT_PAYLOAD_BYTES_MAX + 1)}, "payload over"),
        ({"name": "x", "tag_filter": "t"}, "tag filter without service filter"),
        ({"name": "x", "node_filter": "n" * 2000}, "filter over"),
    ],
)
def test_events_that_break_a_rule(fields: dict[str, object], text: str) -> None:
    """They are refused, and nothing is kept."""
    registry = Registry()
    event = Event(id="1", **fields)  # type: ignore[arg-type]
    assert text in registry.refusal(EventFire(event=event))
    assert registry.state.events.all() == []


@given(st.lists(st.tuples(st.text(min_size=1, max_size=9), st.binary(max_size=99)), max_size=9))
def test_a_snapshot_keeps_the_events(fired: list[tuple[str, bytes]]) -> None:
    """Byte for byte: a server that installs it goes on with the same ring."""
    registry = Registry()
    for name, payload in fired:
        _fire(registry, name, payload=payload)
    image = list(snapshot(registry.state))
    copy = restore(image)
    assert copy.events.all() == registry.state.events.all()
    assert list(snapshot(copy)) == image


def test_an_operators_restore_announces_nothing_again() -> None:
    """What a snapshot remembers was announced long ago; what was announced here stays."""
    other = Registry()
    _fire(other, "old")
    image = b"".join(snapshot(other.state))
    registry = Registry()
    event = _fire(registry, "present")
    staging = Staging("r", 0, [image])
    chunk = RestoreChunk(restore_id="r", sequence=0, data=image, last=True, sha256=staging.sha256())
    assert registry.run(chunk) is True
    assert [kept.id for kept in registry.state.events.all()] == [event.id]
