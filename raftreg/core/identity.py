"""The name of the registry's history: what indexes of two registries must not be compared by. Pure.

Agents resume their views by an index and this name. It is made once, when a registry begins; a
restore begins another history, whatever the snapshot's was called: the registry that it was taken
from may live on, and both count from the same index.
"""

from __future__ import annotations

from raftreg.core.state import State
from raftreg.model import ConfigEntry

#: The configuration entry that holds it; `/v1/config` does not serve it.
IDENTITY = ("raftreg-registry", "identity")


def identity_entry(name: str) -> ConfigEntry:
    """The entry that gives a history its name."""
    kind, entry_name = IDENTITY
    return ConfigEntry(kind=kind, name=entry_name, body={"id": name})


def identity_of(state: State) -> str:
    """The name of the history; "" before it has one."""
    entry = state.config.get(IDENTITY)
    return "" if entry is None else str(entry.body.get("id", ""))
