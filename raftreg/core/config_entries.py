"""Writes of configuration entries: held to the rules, and to what else is configured. Pure.

A change is refused when a chain that was whole would not compile with it, whoever refers to what
(`raftreg.core.chain`). Chains that are broken already, as a restored snapshot may bring them, do
not stand in the way of other changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

import msgspec

from raftreg.core import intentions
from raftreg.core.chain import compile_chain, is_http
from raftreg.core.chain_graph import ChainError
from raftreg.core.changes import Changes
from raftreg.core.commands import ConfigDelete, ConfigSet
from raftreg.core.config_table import ConfigTable, Key
from raftreg.core.entries import (
    INGRESS_GATEWAY,
    KINDS,
    PROXY_DEFAULTS,
    SERVICE_DEFAULTS,
    SERVICE_INTENTIONS,
    SERVICE_RESOLVER,
    SERVICE_ROUTER,
    SERVICE_SPLITTER,
)
from raftreg.core.entries.gateways import IngressGateway
from raftreg.core.entry_rules import WILDCARD, entry_refusal
from raftreg.core.registration import nesting_refusal
from raftreg.core.results import Refused, quoted
from raftreg.core.state import State
from raftreg.model import ConfigEntry

ENTRIES_MAX = 20_000

_OF_CHAINS = frozenset({SERVICE_DEFAULTS, SERVICE_ROUTER, SERVICE_SPLITTER, SERVICE_RESOLVER})


def write(state: State, command: ConfigSet, changes: Changes) -> bool | Refused:
    """Writes an entry; False when it is not at the index that was asked for."""
    entry = command.entry
    if entry.kind == SERVICE_INTENTIONS:
        entry = intentions.normalised(entry)
    refused = entry_form_refusal(entry)
    if refused is not None:
        return refused
    old = state.config.get((entry.kind, entry.name))
    if command.cas is not None and command.cas != (0 if old is None else old.modify_index):
        return False
    return put(state, entry, changes)


def delete(state: State, command: ConfigDelete, changes: Changes) -> bool | Refused:
    """Deletes an entry; one that is not there is fine, unless another index was asked for."""
    old = state.config.get((command.kind, command.name))
    if old is None:
        return True
    if command.cas is not None and command.cas != old.modify_index:
        return False
    return remove(state, old, changes)


def entry_form_refusal(entry: ConfigEntry) -> Refused | None:
    """Tells what is wrong with an entry by itself.

    Kinds that are not known here pass: a server of a later version wrote them, and all servers must
    hold the same. Over HTTP they are refused.
    """
    refused = nesting_refusal(entry.body)
    if not entry.kind or not entry.name:
        refused = Refused("invalid_request", "Must provide kind and name of the entry", 400)
    if refused is None and entry.kind in KINDS:
        text = entry_refusal(entry)
        if text is not None:
            refused = Refused("invalid_entry", f"{entry.kind} {quoted(entry.name)}: {text}", 400)
    return refused


def put(state: State, entry: ConfigEntry, changes: Changes) -> bool | Refused:
    """Writes an entry of sound form, unless a chain would break."""
    table = state.config
    key = (entry.kind, entry.name)
    old = table.get(key)
    if old is None and len(table) >= ENTRIES_MAX:
        return Refused("too_many", f"there are {ENTRIES_MAX} configuration entries already", 413)
    created = state.index if old is None else old.create_index
    row = msgspec.structs.replace(entry, create_index=created, modify_index=state.index)
    refused = _try(table, key, row)
    if refused is None:
        changes.topics["config", entry.kind] = None
    return refused or True


def remove(state: State, old: ConfigEntry, changes: Changes) -> bool | Refused:
    """Deletes an entry that is there, unless a chain would break."""
    table = state.config
    key = (old.kind, old.name)
    refused = _try(table, key, None)
    if refused is not None:
        return refused
    del table[key]
    state.config_deleted = state.index
    changes.topics["config", old.kind] = None
    return True


# -- what else is configured -----------------------------------------------------------------------


def _try(table: ConfigTable, key: Key, row: ConfigEntry | None) -> Refused | None:
    """Puts a row in place (None: out of sight), unless a chain would break that was whole.

    The chain of the entry itself must be whole after a write, whatever it was before.
    """
    old = table.get(key)
    touched = _touched(table, key)
    _show(table, key, row)
    touched |= _touched(table, key)
    after = _problems(table, touched)
    if not after:
        return None
    _show(table, key, old)
    before = _problems(table, touched)
    own = "" if row is None else key[1]
    text = next((after[name] for name in after if name == own or name not in before), None)
    if text is None:
        _show(table, key, row)
        return None
    if old is None:
        del table[key]
    return Refused("graph", text, 400)


def _show(table: ConfigTable, key: Key, row: ConfigEntry | None) -> None:
    if row is None:
        table.hide(key)
    else:
        table[key] = row


def _touched(table: ConfigTable, key: Key) -> dict[str, None]:
    """Names of the services whose chains an entry may change."""
    kind, name = key
    if kind in _OF_CHAINS:
        names = table.dependents([name])
    elif kind == PROXY_DEFAULTS:
        names = [*table.chained(), *table.names(SERVICE_INTENTIONS), *_behind_ingress(table)]
    elif kind == INGRESS_GATEWAY:
        names = list(_listened(table, name))
    else:
        names = [name] if kind == SERVICE_INTENTIONS else []
    return dict.fromkeys(names)


def _problems(table: ConfigTable, names: Iterable[str]) -> dict[str, str]:
    """What is wrong with the chains of these services, by name."""
    found: dict[str, str] = {}
    spoken: dict[str, set[str]] = {}
    for gateway in table.names(INGRESS_GATEWAY):
        for service, protocols in _listened(table, gateway).items():
            spoken.setdefault(service, set()).update(protocols)
    for name in names:
        text = _problem(table, name, spoken.get(name, frozenset()))
        if text is not None:
            found[name] = text
    return found


def _problem(table: ConfigTable, name: str, listeners: Set[str]) -> str | None:
    """What is wrong with one chain, or with what is asked of it."""
    try:
        # The rest of what is compiled by does not decide whether it can be.
        chain = compile_chain(table, name, datacenter="dc", trust_domain="check")
    except ChainError as error:
        return str(error)
    protocol = chain["Protocol"]
    for listener in sorted(listeners):
        if listener != protocol:
            return (
                f"service {quoted(name)} has protocol {quoted(protocol)}, which is incompatible "
                f"with listener protocol {quoted(listener)}"
            )
    if not is_http(table.protocol(name)) and intentions.needs_http(table, name):
        return (
            f"service {quoted(name)} has protocol {quoted(protocol)}, which is incompatible with "
            "L7 intentions permissions"
        )
    return None


def _listened(table: ConfigTable, gateway: str) -> dict[str, list[str]]:
    """Protocols that the listeners of an ingress gateway want of each service that they name."""
    body: IngressGateway | None = table.body(INGRESS_GATEWAY, gateway)
    found: dict[str, list[str]] = {}
    for listener in body.get("Listeners", ()) if body else ():
        for service in listener.get("Services", ()):
            name = service.get("Name", "")
            if name and name != WILDCARD:
                found.setdefault(name, []).append(listener.get("Protocol") or "tcp")
    return found


def _behind_ingress(table: ConfigTable) -> Iterator[str]:
    for gateway in table.names(INGRESS_GATEWAY):
        yield from _listened(table, gateway)
