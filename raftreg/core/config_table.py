"""The table of configuration entries, with what refers to what. Pure.

A write goes through `raftreg.core.config_entries`, which holds it to the rules; a restored snapshot
may hold entries that no rule has seen, so each row is typed once, when it enters, and what does not
fit its kind is shown to those who ask for it and decides over nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from raftreg.core.entries import (
    KINDS,
    PROXY_DEFAULTS,
    SERVICE_DEFAULTS,
    SERVICE_RESOLVER,
    SERVICE_ROUTER,
    SERVICE_SPLITTER,
)
from raftreg.core.entries.routing import (
    ProxyDefaults,
    ServiceDefaults,
    ServiceResolver,
    ServiceRouter,
    ServiceSplitter,
)
from raftreg.model import ConfigEntry

GLOBAL = "global"
#: Kinds that make up chains, beside the defaults.
CHAIN_KINDS = (SERVICE_ROUTER, SERVICE_SPLITTER, SERVICE_RESOLVER)
Key = tuple[str, str]


class ConfigTable(dict[Key, ConfigEntry]):
    """Entries by (kind, name), in the order in which they were first written.

    Args:
        entries: What it holds at first.
    """

    def __init__(self, entries: Iterable[ConfigEntry] = ()) -> None:
        super().__init__()
        self._names: dict[str, dict[str, None]] = {}
        self._sound: set[Key] = set()
        self._referrers: dict[str, dict[Key, None]] = {}
        for entry in entries:
            self[entry.kind, entry.name] = entry

    def __setitem__(self, key: Key, entry: ConfigEntry) -> None:
        self.hide(key)
        super().__setitem__(key, entry)
        self._names.setdefault(entry.kind, {})[entry.name] = None
        if misfit(entry) is not None:
            return
        self._sound.add(key)
        for service in references(entry):
            self._referrers.setdefault(service, {})[key] = None

    def __delitem__(self, key: Key) -> None:
        self.hide(key)
        super().__delitem__(key)
        names = self._names[key[0]]
        del names[key[1]]
        if not names:
            del self._names[key[0]]

    def names(self, kind: str) -> list[str]:
        """Names of the entries of a kind."""
        return sorted(self._names.get(kind, ()))

    def of_kind(self, kind: str) -> Iterator[ConfigEntry]:
        """Entries of a kind, by name."""
        for name in self.names(kind):
            yield self[kind, name]

    def body(self, kind: str, name: str) -> Any:
        """The body of an entry that fits its kind; None when there is none."""
        return self[kind, name].body if (kind, name) in self._sound else None

    def defaults(self, service: str) -> ServiceDefaults:
        """The service-defaults of a service; empty ones when there are none."""
        found: ServiceDefaults | None = self.body(SERVICE_DEFAULTS, service)
        return found or ServiceDefaults(Kind="service-defaults")

    def proxy_defaults(self) -> ProxyDefaults:
        """The defaults of all proxies; empty ones when there are none."""
        found: ProxyDefaults | None = self.body(PROXY_DEFAULTS, GLOBAL)
        return found or ProxyDefaults(Kind="proxy-defaults")

    def router(self, service: str) -> ServiceRouter | None:
        """The routes of a service."""
        found: ServiceRouter | None = self.body(SERVICE_ROUTER, service)
        return found

    def splitter(self, service: str) -> ServiceSplitter | None:
        """The splits of a service."""
        found: ServiceSplitter | None = self.body(SERVICE_SPLITTER, service)
        return found

    def resolver(self, service: str) -> ServiceResolver | None:
        """How a service is resolved."""
        found: ServiceResolver | None = self.body(SERVICE_RESOLVER, service)
        return found

    def protocol(self, service: str) -> str:
        """Protocol of a service by its own defaults, else by those of all proxies, else "tcp"."""
        own = self.defaults(service).get("Protocol")
        found = own or self.proxy_defaults().get("Config", {}).get("protocol")
        return found.lower() if isinstance(found, str) and found else "tcp"

    def dependents(self, services: Iterable[str]) -> list[str]:
        """These services, and all whose chains lead to one of them; each once."""
        found = dict.fromkeys(services)
        todo = list(found)
        while todo:
            for _, name in self._referrers.get(todo.pop(), ()):
                if name not in found:
                    found[name] = None
                    todo.append(name)
        return list(found)

    def chained(self) -> list[str]:
        """Services that have an entry of the kinds that make up chains."""
        return list(dict.fromkeys(name for kind in CHAIN_KINDS for name in self.names(kind)))

    def last_change(self, kind: str) -> int:
        """Index of the last write of an entry of this kind that is still there; 0 for none."""
        rows = (self[kind, name] for name in self._names.get(kind, ()))
        return max((row.modify_index for row in rows), default=0)

    def hide(self, key: Key) -> None:
        """Lets an entry decide over nothing until it is written again; it keeps its place."""
        if key not in self._sound:
            return
        self._sound.discard(key)
        for service in references(self[key]):
            referrers = self._referrers[service]
            del referrers[key]
            if not referrers:
                del self._referrers[service]


def misfit(entry: ConfigEntry) -> str | None:
    """Tells where a body does not fit its kind; kinds that are not known here fit nothing."""
    wanted = KINDS.get(entry.kind)
    if wanted is None:
        return f"unknown kind {entry.kind[:64]!r}"
    try:
        msgspec.convert({**entry.body, "Kind": entry.kind, "Name": entry.name}, wanted)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def references(entry: ConfigEntry) -> list[str]:
    """Other services that the chain of this entry's service may lead to, each once."""
    body: Any = entry.body
    match entry.kind:
        case "service-router":
            places = [route.get("Destination", {}) for route in body.get("Routes", ())]
        case "service-splitter":
            places = list(body.get("Splits", ()))
        case "service-resolver":
            places = [body.get("Redirect", {})]
            for failover in body.get("Failover", {}).values():
                places += [failover, *failover.get("Targets", ())]
        case _:
            return []
    names = dict.fromkeys(place.get("Service", "") for place in places)
    return [name for name in names if name and name != entry.name]
