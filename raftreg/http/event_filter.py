"""Which user events concern which host, and the index of a list of them. Pure.

As a Consul agent decides it (https://developer.hashicorp.com/consul/api-docs/event): the filters
are regular expressions of the host's name, of a service that runs there, and of a tag of that same
service. A Consul agent judges an event when gossip brings it; here it is judged when it is listed,
by what is registered on the host then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from raftreg.core.events import Event
from raftreg.core.patterns import compile_pattern
from raftreg.errors import InvalidRequest
from raftreg.model import ServiceInstance

_LOW_64_BITS = (1 << 64) - 1


def check_filters(event: Event) -> None:
    """Refuses filters that are no regular expressions.

    Raises:
        InvalidRequest: Naming the filter, and what is wrong with it.
    """
    for what, raw in (
        ("node", event.node_filter),
        ("service", event.service_filter),
        ("tag", event.tag_filter),
    ):
        try:
            compile_pattern(raw)
        except InvalidRequest as error:
            raise InvalidRequest(f"Invalid {what} filter: {error.message}") from error


def concerns(event: Event, node: str, services: Iterable[ServiceInstance]) -> bool:
    """Tells whether an event is for a host.

    Args:
        event: Its filters were checked when it was fired.
        node: Name of the host.
        services: What is registered there.
    """
    if event.node_filter and not compile_pattern(event.node_filter).search(node):
        return False
    if not event.service_filter:
        return True
    named = compile_pattern(event.service_filter)
    tagged = compile_pattern(event.tag_filter)
    return any(
        (named.search(row.name) or named.search(row.id))
        and (not event.tag_filter or any(tagged.search(tag) for tag in row.tags))
        for row in services
    )


def list_index(events: Sequence[Event]) -> int:
    """The index of a list: the two halves of the last event's id, one XORed with the other.

    It is no Raft index and does not rise: a watcher waits until it is another one, as with Consul.
    """
    if not events:
        return 1
    number = UUID(events[-1].id).int
    return ((number >> 64) ^ (number & _LOW_64_BITS)) or 1
