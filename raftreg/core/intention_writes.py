"""Intentions written one by one, as sources of service-intentions entries. Pure.

The API that names intentions by ids is Consul's older one. Both kinds of writes share the entries,
and one source of a destination has one intention, whoever wrote it.
"""

from __future__ import annotations

from typing import Any

from raftreg.core import config_entries, intentions
from raftreg.core.changes import Changes
from raftreg.core.commands import IntentionDelete, IntentionSet
from raftreg.core.entries import SERVICE_INTENTIONS
from raftreg.core.intentions import Intention
from raftreg.core.results import Refused, quoted
from raftreg.core.state import State
from raftreg.model import ConfigEntry

NOT_FOUND = Refused("not_found", "Intention not found", 404)
SOURCES_MAX = 4096


def write(state: State, command: IntentionSet, changes: Changes) -> bool | Refused:
    """Creates or replaces an intention."""
    table = state.config
    known = intentions.by_id(table, command.id) if command.id else None
    same = intentions.exact(table, command.source, command.destination)
    refused = _clash(command, known, same)
    if refused is not None:
        return refused
    now = intentions.timestamp(command.written_ms)
    source: dict[str, Any] = {"Name": command.source}
    if command.action:
        source["Action"] = command.action
    if command.permissions:
        source["Permissions"] = list(command.permissions)
    if command.description:
        source["Description"] = command.description
    if command.id:
        source |= {
            "LegacyID": command.id,
            "LegacyMeta": command.meta,
            "LegacyCreateTime": now if known is None else known.created,
            "LegacyUpdateTime": now,
        }
    replaced = command.source if known is None else known.source
    entry = _entry(state, command.destination)
    sources = [each for each in entry.body.get("Sources", ()) if each.get("Name") != replaced]
    if len(sources) >= SOURCES_MAX:
        return Refused("too_many", f"a service may have at most {SOURCES_MAX} intentions", 413)
    return _put(state, entry, [*sources, source], changes)


def delete(state: State, command: IntentionDelete, changes: Changes) -> bool | Refused:
    """Deletes an intention, and with the last of a destination its entry."""
    if command.id:
        found = intentions.by_id(state.config, command.id)
    else:
        found = intentions.exact(state.config, command.source, command.destination)
    if found is None:
        return False
    entry = _entry(state, found.destination)
    sources = [each for each in entry.body["Sources"] if each.get("Name") != found.source]
    if sources:
        return _put(state, entry, sources, changes)
    return config_entries.remove(state, entry, changes)


def _clash(
    command: IntentionSet, known: Intention | None, same: Intention | None
) -> Refused | None:
    """Refuses a second intention of one pair, and an id that stands for another one."""
    if command.update:
        if known is None:
            return NOT_FOUND
        if known.destination != command.destination:
            text = "Cannot modify DestinationName for an intention once it exists"
            return Refused("invalid_request", text, 400)
    elif known is not None:
        return Refused("duplicate", f"intention {quoted(command.id)} exists already", 400)
    if command.id and same is not None and same.id != command.id:
        text = f"duplicate intention found: {same.source} => {same.destination}"
        return Refused("duplicate", text, 400)
    return None


def _entry(state: State, destination: str) -> ConfigEntry:
    """The entry of a destination, a new one when there is none that could be read."""
    if state.config.body(SERVICE_INTENTIONS, destination) is not None:
        return state.config[SERVICE_INTENTIONS, destination]
    return ConfigEntry(kind=SERVICE_INTENTIONS, name=destination, body={})


def _put(
    state: State, entry: ConfigEntry, sources: list[dict[str, Any]], changes: Changes
) -> bool | Refused:
    given = ConfigEntry(kind=entry.kind, name=entry.name, body={**entry.body, "Sources": sources})
    written = intentions.normalised(given, keeps_ids=True)
    return config_entries.entry_form_refusal(written) or config_entries.put(state, written, changes)
