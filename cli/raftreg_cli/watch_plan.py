"""What `raftreg watch` can watch: the read behind each type, and what is news of it (pure)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Container
from typing import Any, assert_never

import msgspec

from raftreg.client.http import Response
from raftreg.client.options import Params, flag, key_path, segment
from raftreg.errors import ConfigurationError

#: So many events are kept for a handler that is busy; the registry keeps fewer itself.
EVENTS_MAX = 1024
_FOUND = (200,)
_FOUND_OR_NOT = (200, 404)


class Kind(enum.Enum):
    """The types of `consul watch`."""

    KEY = "key"
    KEYPREFIX = "keyprefix"
    SERVICES = "services"
    NODES = "nodes"
    SERVICE = "service"
    CHECKS = "checks"
    EVENT = "event"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; what a type has no use for must be empty.

    Attributes:
        kind: The type.
        key: Of a key.
        prefix: Of a keyprefix.
        service: Of a service, or of checks.
        tags: Of a service.
        passing_only: Of a service.
        state: Of checks.
        name: Of an event.
    """

    kind: Kind
    key: str = ""
    prefix: str = ""
    service: str = ""
    tags: tuple[str, ...] = ()
    passing_only: bool = False
    state: str = ""
    name: str = ""


class Ask(msgspec.Struct, frozen=True):
    """A read of the API that can block."""

    path: str
    params: Params
    decode: Callable[[Response], Any]
    accept: Container[int] = _FOUND


_NEEDED = {Kind.KEY: "key", Kind.KEYPREFIX: "prefix", Kind.SERVICE: "service"}
_ALLOWED = {
    Kind.KEY: {"key"},
    Kind.KEYPREFIX: {"prefix"},
    Kind.SERVICES: set[str](),
    Kind.NODES: set[str](),
    Kind.SERVICE: {"service", "tags", "passing_only"},
    Kind.CHECKS: {"service", "state"},
    Kind.EVENT: {"name"},
}


def check(wanted: Wanted) -> None:
    """Refuses what does not go together.

    Raises:
        ConfigurationError: An option is missing, or has no meaning for the type.
    """
    given = {name for name in wanted.__struct_fields__[1:] if getattr(wanted, name)}
    needed = _NEEDED.get(wanted.kind)
    if needed is not None and needed not in given:
        raise ConfigurationError(f"--type {wanted.kind.value} needs --{needed}")
    for name in sorted(given - _ALLOWED[wanted.kind]):
        option = {"tags": "tag"}.get(name, name.replace("_", "-"))
        raise ConfigurationError(f"--{option} has no meaning for --type {wanted.kind.value}")
    if wanted.service and wanted.state:
        raise ConfigurationError("--service and --state exclude each other")


def ask(wanted: Wanted) -> Ask:
    """The read that tells of it."""
    match wanted.kind:
        case Kind.KEY:
            return Ask(key_path(wanted.key), {}, _first, _FOUND_OR_NOT)
        case Kind.KEYPREFIX:
            return Ask(key_path(wanted.prefix), {"recurse": ""}, _list, _FOUND_OR_NOT)
        case Kind.SERVICES:
            return Ask("/v1/catalog/services", {}, _json)
        case Kind.NODES:
            return Ask("/v1/catalog/nodes", {}, _json)
        case Kind.SERVICE:
            params: Params = {"passing": flag(wanted.passing_only), "tag": wanted.tags}
            return Ask(f"/v1/health/service/{segment(wanted.service)}", params, _json)
        case Kind.CHECKS:
            return Ask(_checks_path(wanted), {}, _json)
        case Kind.EVENT:
            return Ask("/v1/event/list", {"name": wanted.name or None}, _json)
        case _:
            assert_never(wanted.kind)


def _checks_path(wanted: Wanted) -> str:
    if wanted.service:
        return f"/v1/health/checks/{segment(wanted.service)}"
    return f"/v1/health/state/{segment(wanted.state or 'any')}"


def _json(response: Response) -> Any:
    return response.json()


def _list(response: Response) -> Any:
    return [] if response.status == 404 else response.json()


def _first(response: Response) -> Any:
    found = _list(response)
    return found[0] if found else None


class News:
    """What a handler has still to be told: the newest state, or all new events in order.

    Args:
        kind: The type that is watched.
    """

    def __init__(self, kind: Kind) -> None:
        self._events = kind is Kind.EVENT
        self._last: Any = msgspec.UNSET
        self._last_event = ""
        self._pending: tuple[int, Any] | None = None

    def __bool__(self) -> bool:
        return self._pending is not None

    def learn(self, index: int, value: Any) -> None:
        """Takes an answer of the registry; one that says the same again is no news."""
        if self._events:
            self._learn_events(index, value)
        elif value != self._last:
            self._last = value
            self._pending = (index, value)

    def _learn_events(self, index: int, events: list[dict[str, Any]]) -> None:
        ids = [event["ID"] for event in events]
        if self._last_event in ids:
            events = events[ids.index(self._last_event) + 1 :]
        if events:
            self._last_event = events[-1]["ID"]
            before = self._pending[1] if self._pending else []
            self._pending = (index, [*before, *events][-EVENTS_MAX:])

    def take(self) -> tuple[int, Any]:
        """Gives index and value, once.

        Raises:
            LookupError: There is no news.
        """
        if self._pending is None:
            raise LookupError("there is no news")
        found, self._pending = self._pending, None
        return found
