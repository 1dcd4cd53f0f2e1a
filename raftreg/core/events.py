"""User events: short messages to whoever lists or watches them, the newest few kept.

Consul spreads them by gossip and each agent keeps a ring of those that concern it. Here the ring is
replicated: every server has the same events in the same order, so an agent may ask any of them.
Which host an event concerns is decided where it is listed (`raftreg.http.event_filter`), since
regular expressions have no place in the pure core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from raftreg.core.changes import Changes
from raftreg.core.results import Refused

EVENTS_MAX = 256  #: as many as a Consul agent keeps
EVENT_NAME_BYTES_MAX = 512
EVENT_FILTER_BYTES_MAX = 1024
EVENT_PAYLOAD_BYTES_MAX = 8 * 1024


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One user event.

    Attributes:
        id: UUID text, made where the event was fired.
        name: What happened.
        payload: Opaque bytes, at most `EVENT_PAYLOAD_BYTES_MAX`.
        node_filter, service_filter, tag_filter: Regular expressions (RE2) of the hosts, services
            and tags that it is for; "" is for all.
        ltime: Its place among all events (1, 2, …), given by `EventRing.add`.
    """

    id: str
    name: str
    payload: bytes = b""
    node_filter: str = ""
    service_filter: str = ""
    tag_filter: str = ""
    ltime: int = 0


class EventRing:
    """The newest events, the oldest first.

    Args:
        events: What is known already.
    """

    __slots__ = ("_events",)

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._events: deque[Event] = deque(events, EVENTS_MAX)

    def __len__(self) -> int:
        return len(self._events)

    def all(self) -> list[Event]:
        """All of them, the oldest first."""
        return list(self._events)

    def add(self, event: Event) -> Event:
        """Appends an event with the next place in time; the oldest may go."""
        ltime = self._events[-1].ltime + 1 if self._events else 1
        placed = msgspec.structs.replace(event, ltime=ltime)
        self._events.append(placed)
        return placed


def fire(ring: EventRing, event: Event, changes: Changes) -> bool | Refused:
    """Adds an event and wakes those who watch."""
    refused = _refusal(event)
    if refused is not None:
        return refused
    ring.add(event)
    changes.topics["events", ""] = None
    return True


def _refusal(event: Event) -> Refused | None:
    if not event.id or not event.name:
        return Refused("invalid_request", "User event missing name", 400)
    if len(event.name.encode()) > EVENT_NAME_BYTES_MAX:
        return Refused("invalid_request", f"User event name over {EVENT_NAME_BYTES_MAX} bytes", 400)
    if len(event.payload) > EVENT_PAYLOAD_BYTES_MAX:
        return Refused("too_large", f"User event payload over {EVENT_PAYLOAD_BYTES_MAX} bytes", 413)
    if event.tag_filter and not event.service_filter:
        text = "Cannot provide tag filter without service filter"
        return Refused("invalid_request", text, 400)
    filters = (event.node_filter, event.service_filter, event.tag_filter)
    if any(len(text.encode()) > EVENT_FILTER_BYTES_MAX for text in filters):
        return Refused("invalid_request", f"event filter over {EVENT_FILTER_BYTES_MAX} bytes", 400)
    return None
