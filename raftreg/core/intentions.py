"""Intentions: who may call whom. They are the sources of service-intentions entries. Pure.

Each pair of source and destination has one intention at most. Of those that cover a call the one
with the highest precedence decides, and the default where there is none: "allow" as long as there
are no ACLs (https://developer.hashicorp.com/consul/docs/connect/intentions).

=============  =======  ==========
destination    source   precedence
=============  =======  ==========
exact          exact    9
exact          `*`      8
`*`            exact    6
`*`            `*`      5
=============  =======  ==========
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from raftreg.core.config_table import ConfigTable
from raftreg.core.entries import SERVICE_INTENTIONS
from raftreg.core.entries.access import Permission, ServiceIntentions, SourceIntention
from raftreg.model import ConfigEntry

WILDCARD = "*"
_LEGACY = ("LegacyID", "LegacyMeta", "LegacyCreateTime", "LegacyUpdateTime")


class Intention(msgspec.Struct, frozen=True, kw_only=True):
    """One intention.

    Attributes:
        id: Given by the API that names intentions by ids; "" for those written as entries.
        action: "allow" or "deny"; "" where permissions decide request by request.
        precedence: See the table above.
        created, updated: ISO 8601, "" for those written as entries.
    """

    source: str
    destination: str
    action: str = ""
    permissions: tuple[Permission, ...] = ()
    id: str = ""
    description: str = ""
    meta: dict[str, str] = {}
    precedence: int = 0
    created: str = ""
    updated: str = ""
    create_index: int = 0
    modify_index: int = 0


def precedence(source: str, destination: str) -> int:
    """Which intention decides where several cover a call: the highest number."""
    if destination != WILDCARD:
        return 8 if source == WILDCARD else 9
    return 5 if source == WILDCARD else 6


def normalised(entry: ConfigEntry, *, keeps_ids: bool = False) -> ConfigEntry:
    """The entry as it is kept: sources by precedence, in capital letters what are methods.

    Args:
        entry: As it came; one that does not fit its kind stays as it is.
        keeps_ids: It was written by id. What is written as an entry has no ids.
    """
    body = dict(entry.body)
    given = body.get("Sources")
    if not isinstance(given, list) or not all(isinstance(source, dict) for source in given):
        return entry
    dropped = {"Precedence", "Type"} | (set() if keeps_ids else set(_LEGACY))
    sources = []
    for one in given:
        source = {name: value for name, value in one.items() if name not in dropped}
        source["Type"] = "consul"
        source["Precedence"] = precedence(str(source.get("Name")), entry.name)
        sources.append(source)
    body["Sources"] = sorted(sources, key=lambda source: -int(source["Precedence"]))
    return msgspec.structs.replace(entry, body=body)


def needs_http(table: ConfigTable, service: str) -> bool:
    """Tells whether an intention of this destination looks into requests."""
    body: ServiceIntentions | None = table.body(SERVICE_INTENTIONS, service)
    return body is not None and any(each.get("Permissions") for each in body.get("Sources", ()))


def of_destination(table: ConfigTable, destination: str) -> list[Intention]:
    """Intentions written for this destination exactly, by precedence."""
    body: ServiceIntentions | None = table.body(SERVICE_INTENTIONS, destination)
    if body is None:
        return []
    entry = table[SERVICE_INTENTIONS, destination]
    return [_intention(entry, body, source) for source in body.get("Sources", ())]


def all_intentions(table: ConfigTable) -> list[Intention]:
    """All intentions, by precedence, destination and source."""
    found = [
        intention
        for name in table.names(SERVICE_INTENTIONS)
        for intention in of_destination(table, name)
    ]
    return _sorted(found)


def by_id(table: ConfigTable, intention_id: str) -> Intention | None:
    """The intention with this id."""
    return next((one for one in all_intentions(table) if one.id == intention_id), None)


def exact(table: ConfigTable, source: str, destination: str) -> Intention | None:
    """The intention of this pair, wildcards taken as they are."""
    return next((one for one in of_destination(table, destination) if one.source == source), None)


def matching_destination(table: ConfigTable, service: str) -> list[Intention]:
    """Intentions that cover calls to a service, by precedence."""
    names = dict.fromkeys((service, WILDCARD))
    return _sorted(one for name in names for one in of_destination(table, name))


def matching_source(table: ConfigTable, service: str) -> list[Intention]:
    """Intentions that cover calls from a service, by precedence."""
    return [one for one in all_intentions(table) if one.source in (service, WILDCARD)]


def deciding(table: ConfigTable, source: str, destination: str) -> Intention | None:
    """The intention that decides over calls from source to destination."""
    covering = matching_destination(table, destination)
    return next((one for one in covering if one.source in (source, WILDCARD)), None)


def is_allowed(intention: Intention | None, *, default: bool = True) -> bool:
    """Tells whether a connection may be opened, whatever is asked over it.

    Where permissions decide request by request the answer is no, as Consul gives it: it can't be
    known from names alone.
    """
    if intention is None:
        return default
    return intention.action == "allow"


def timestamp(time_ms: int) -> str:
    """Milliseconds since the Unix epoch as intentions show them."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sorted(found: Iterable[Intention]) -> list[Intention]:
    return sorted(found, key=lambda one: (-one.precedence, one.destination, one.source))


def _intention(entry: ConfigEntry, body: ServiceIntentions, source: SourceIntention) -> Intention:
    own_id = source.get("LegacyID", "")
    meta: Any = source.get("LegacyMeta") if own_id else body.get("Meta")
    return Intention(
        id=own_id,
        source=source.get("Name", ""),
        destination=entry.name,
        action=source.get("Action", ""),
        permissions=tuple(source.get("Permissions", ())),
        description=source.get("Description", ""),
        meta=meta or {},
        precedence=precedence(source.get("Name", ""), entry.name),
        created=source.get("LegacyCreateTime", ""),
        updated=source.get("LegacyUpdateTime", ""),
        create_index=entry.create_index,
        modify_index=entry.modify_index,
    )
