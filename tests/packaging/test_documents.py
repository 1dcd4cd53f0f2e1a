"""The documents: what they say about settings is what the program does."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import msgspec
import pytest

from raftreg.config import (
    AgentSettings,
    DnsSettings,
    ExternalCheckSettings,
    HttpLimits,
    ServerSettings,
)
from raftreg_cli.main import cli

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
#: Set by the process itself, or another table's.
INTERNAL = {"server", "dns", "http", "external_checks"}
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


@pytest.mark.parametrize(
    "kind", [ServerSettings, AgentSettings, DnsSettings, HttpLimits, ExternalCheckSettings]
)
def test_every_setting_is_documented_with_its_default(kind: type[msgspec.Struct]) -> None:
    """docs/configuration.md names every setting, and the default that it has."""
    tables = documented()
    for field in msgspec.structs.fields(kind):
        if field.name in INTERNAL or (kind is DnsSettings and field.name in IN_WORDS):
            continue
        assert field.name in tables
        if field.name not in IN_WORDS and not (kind is AgentSettings and field.name == "raft_port"):
            made = field.default_factory
            default = field.default if made is msgspec.NODEFAULT else made()
            default = msgspec.json.decode(msgspec.json.encode(default))
            assert json.loads(tables[field.name]) == default, field.name


def told_commands() -> list[list[str]]:
    """Every `raftreg …` that a document or the image tells to run, as words."""
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "deploy" / "README.md"]
    text = "\n".join(file.read_text() for file in documents)
    indented = re.findall(r"^ {4}raftreg (.+)$", text, re.MULTILINE)
    inline = re.findall(r"`raftreg ([a-z][^`…]*)`", text)
    image = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    (health,) = re.findall(r"^    CMD \[\"raftreg\", (.+)\]$", image, re.MULTILINE)
    return [shlex.split(one) for one in [*indented, *inline]] + [json.loads(f"[{health}]")]


def test_documented_commands_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command is one that `raftreg` knows, with options and arguments that it takes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backup.snap").touch()
    for words in told_commands():
        command: click.Command = cli
        context = click.Context(cli)
        while isinstance(command, click.Group) and words:
            found = command.get_command(context, words[0])
            assert found is not None, words
            command, words = found, words[1:]  # noqa: PLW2901  # walks down the groups
        if words:
            command.make_context(command.name, words, parent=context)
