"""The samples of settings and definitions: raftreg's own loaders read them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from raftreg.config import AgentSettings, ServerSettings, load
from raftreg.http.decode import CheckKind
from raftreg_agent.definitions import load as load_definitions

DEPLOY = Path(__file__).parents[2] / "deploy"
CONFIG = DEPLOY / "config"
KINDS: dict[str, type[ServerSettings | AgentSettings]] = {
    "server": ServerSettings,
    "agent": AgentSettings,
}
#: Set by the process itself, not by a person.
INTERNAL = {"agent": {"server", "raft_port"}, "server": set[str]()}
#: Either a shared key or certificates: a sample can't hold both.
TLS = ("ca_file", "cert_file", "key_file")
COMMENTED_KEY = re.compile(r"^# (\w+ = .+)$", re.MULTILINE)


def plain(value: object) -> Any:
    """A default as TOML would show it: tuples are lists."""
    return msgspec.json.decode(msgspec.json.encode(value))


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_loads(kind: str) -> None:
    """The sample as it stands is accepted for its process."""
    settings = load(
        KINDS[kind], flags={"advertise": "10.0.0.11"}, env={}, file=CONFIG / f"{kind}.toml"
    )
    assert settings.data_dir == "/var/lib/raftreg"
    assert settings.join == ("10.0.0.11", "10.0.0.12", "10.0.0.13")


@pytest.mark.parametrize("kind", KINDS)
def test_each_commented_key_may_be_uncommented(kind: str, tmp_path: Path) -> None:
    """A key taken out of its comment is accepted, under the name and of the type that it has."""
    text = (CONFIG / f"{kind}.toml").read_text()
    file = tmp_path / "all.toml"
    file.write_text(
        "\n".join(
            line for line in COMMENTED_KEY.sub(r"\1", text).splitlines() if not line.startswith(TLS)
        )
    )
    load(KINDS[kind], flags={}, env={}, file=file)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sample_shows_every_setting_with_its_default(kind: str) -> None:
    """No setting is left out, and a value in a comment is the default (addresses are examples)."""
    text = (CONFIG / f"{kind}.toml").read_text()
    shown = tomllib.loads(COMMENTED_KEY.sub(r"\1", text))
    fields = {field.name: field for field in msgspec.structs.fields(KINDS[kind])}
    assert set(shown) == set(fields) - INTERNAL[kind]
    for table in {"dns", "http", "external_checks"} & set(fields):
        defaults = plain(fields[table].default)
        known = {name: value for name, value in defaults.items() if name in shown[table]}
        assert shown[table] == known
        assert set(defaults) - set(shown[table]) <= {"datacenter", "recursors"}
    commented = tomllib.loads("\n".join(COMMENTED_KEY.findall(text.partition("[dns]")[0])))
    examples = {"node", "advertise", "recursors", *TLS}
    for name in commented.keys() - examples:
        assert commented[name] == plain(fields[name].default), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_environment_file_names_real_variables(kind: str) -> None:
    """Each variable in the environment file is a setting of the process."""
    names = re.findall(
        r"^(?:# )?RAFTREG_(\w+)=", (CONFIG / f"{kind}.env").read_text(), re.MULTILINE
    )
    assert names
    assert {name.lower() for name in names} <= set(KINDS[kind].__struct_fields__)


def test_prometheus_scrapes_and_discovers() -> None:
    """The scrape file asks for the text format, and finds services through the agent's API."""
    text = (DEPLOY / "examples" / "prometheus" / "prometheus.yml").read_text()
    raftreg, discovered = yaml.safe_load(text)["scrape_configs"]
    assert raftreg["metrics_path"] == "/v1/agent/metrics"
    assert raftreg["params"] == {"format": ["prometheus"]}
    assert discovered["consul_sd_configs"][0]["server"] == "127.0.0.1:8500"


def test_the_agent_reads_the_sample_definitions() -> None:
    """The agent's loader takes every sample, and finds what each is there to show."""
    found = load_definitions(CONFIG / "services", "web-1")
    assert set(found.services) == {"web-1", "queue", "worker"}
    assert [check.kind for check in found.services["web-1"].checks] == [
        CheckKind.HTTP,
        CheckKind.TCP,
    ]
    assert {name: check.kind for name, check in found.checks.items()} == {
        "disk": CheckKind.SCRIPT,
        "search": CheckKind.GRPC,
    }
    assert set(load_definitions(DEPLOY / "docker" / "services", "a").services) == {"registry-api"}
