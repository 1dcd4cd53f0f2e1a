"""The container files: Compose's own verdict, and that they agree with the program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from raftreg.config import AgentSettings, ServerSettings, load

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
COMPOSE = DOCKER / "compose.yaml"
IMAGE_ENV = {"RAFTREG_DATA_DIR": "/var/lib/raftreg"}


def services() -> dict[str, dict[str, Any]]:
    """The services of the compose file, anchors and merges resolved."""
    parsed: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(COMPOSE.read_text())
    return parsed["services"]


def compose_command() -> list[str] | None:
    """How this machine runs Compose: the plugin, the program, or not at all."""
    if shutil.which("docker"):
        probe = subprocess.run(
            ["docker", "compose", "version"], capture_output=True, timeout=60, check=False
        )
        if probe.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def test_three_servers_expect_each_other() -> None:
    """Three servers and three agents, all given the same list of servers to join."""
    found = services()
    servers = {name for name in found if name.startswith("server-")}
    assert servers == {"server-1", "server-2", "server-3"}
    assert {name for name in found if name.startswith("agent-")} == {
        "agent-1",
        "agent-2",
        "agent-3",
    }
    for service in found.values():
        assert set(service["environment"]["RAFTREG_JOIN"].split(",")) == servers
    assert {found[name]["environment"]["RAFTREG_BOOTSTRAP_EXPECT"] for name in servers} == {"3"}


def test_the_environment_is_one_that_raftreg_accepts() -> None:
    """Each container's variables load as the settings of its process; none is misspelt."""
    for name, service in services().items():
        kind = ServerSettings if service["command"][0] == "server" else AgentSettings
        environment = IMAGE_ENV | service["environment"]
        settings = load(kind, flags={"node": service["command"][2]}, env=environment)
        assert settings.node == name == service["hostname"]
        known = {"RAFTREG_" + field.upper() for field in kind.__struct_fields__}
        assert set(environment) <= known


def test_every_container_is_locked_down() -> None:
    """Read-only, without capabilities or a way to more rights, and published on loopback only."""
    for service in services().values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_image_runs_as_nobody_special_from_hashed_requirements() -> None:
    """The image installs only hashed packages, runs unprivileged, and copies what exists."""
    text = (DOCKER / "Dockerfile").read_text()
    installs = re.findall(r"pip install (.+?)(?: \\|\n)", text)
    assert all("--require-hashes" in one or "--no-deps" in one for one in installs)
    assert len(installs) == 3
    final = text[text.rindex("FROM ") :]
    assert "\nUSER raftreg\n" in final
    assert "\nHEALTHCHECK " in final
    variables = dict(re.findall(r"(RAFTREG_\w+)=(\S+)", final))
    assert load(ServerSettings, flags={"advertise": "10.0.0.1"}, env=variables).client == "0.0.0.0"
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split()), line


COMMAND = compose_command()

if COMMAND is not None:  # .ci/run installs it

    def test_compose_accepts_the_file() -> None:
        """`docker compose config` reads the file as it is, and a misspelt key is refused."""
        command = [
            *(COMMAND or ()),
            "-f",
            "-",
            "--project-directory",
            str(DOCKER),
            "config",
            "--quiet",
        ]
        good = COMPOSE.read_text()
        for text, accepted in ((good, True), (good.replace("read_only:", "readonly:"), False)):
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode == 0) is accepted, done.stderr
