"""The documents: what they say about settings is what the program does."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from raftreg.config import AgentSettings, DnsSettings, HttpLimits, ServerSettings

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
#: Set by the process itself, or another table's.
INTERNAL = {"server", "dns", "http"}
#: The document tells these in words.
IN_WORDS = {"node", "data_dir", "advertise", "bootstrap_expect", "datacenter", "recursors"}


def documented() -> dict[str, str]:
    """Setting to default, as the tables of the document have them."""
    found = {}
    for line in CONFIGURATION.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            for name in cells[0].split(", "):
                found[name.strip("`")] = cells[1].strip("`")
    return found


@pytest.mark.parametrize("kind", [ServerSettings, AgentSettings, DnsSettings, HttpLimits])
def test_every_setting_is_documented_with_its_default(kind: type[msgspec.Struct]) -> None:
    """docs/configuration.md names every setting, and the default that it has."""
    tables = documented()
    for field in msgspec.structs.fields(kind):
        if field.name in INTERNAL or (kind is DnsSettings and field.name in IN_WORDS):
            continue
        assert field.name in tables
        if field.name not in IN_WORDS and not (kind is AgentSettings and field.name == "raft_port"):
            default = msgspec.json.decode(msgspec.json.encode(field.default))
            assert json.loads(tables[field.name]) == default, field.name
