"""The processes that stay: their flags, their word to the supervisor, their signals."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import click
import msgspec
import pytest
from structlog.testing import capture_logs

from raftreg import config
from raftreg.client.api import RegistryClient
from raftreg.config import ServerSettings
from raftreg_cli import leash, run_server, serve
from tests.cli.conftest import Dev, command_line, free_address

_WAIT_S_MAX = 30.0


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (serve.server, config.ServerSettings),
        (serve.agent, config.AgentSettings),
        (serve.dev, config.DevSettings),
    ],
)
def test_every_flag_has_a_variable_and_a_key(
    command: click.Command, kind: type[msgspec.Struct]
) -> None:
    """Whatever can be given as a flag can be given in the environment and the file too."""
    text = command.get_help(click.Context(command, info_name="raftreg"))
    flags = {str(option.name) for option in command.params} - {"config_file"}
    assert flags <= set(kind.__struct_fields__)
    for name in flags:
        assert config.env_name(name) in "".join(text.split())


def _settings(**fields: object) -> ServerSettings:
    return config.load(ServerSettings, flags={"data_dir": "d", **fields}, env={})


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({"bind": "127.0.0.1"}, False),
        ({"bind": "10.0.0.1"}, True),
        ({"bind": "0.0.0.0", "advertise": "10.0.0.1"}, True),  # that is the point
        ({"bind": "10.0.0.1", "encrypt_key_file": "k"}, False),
    ],
)
def test_an_open_raft_port_is_warned_of(fields: dict[str, object], warned: bool) -> None:
    """Without key or certificates on a reachable address the log says what that means."""
    with capture_logs() as logs:
        run_server._warn_when_open(_settings(**fields))
    assert [entry["log_level"] for entry in logs] == ["warning"] * warned


def test_the_replica_gets_what_the_settings_say() -> None:
    """Addresses, files and times arrive; the Raft log has a directory of its own."""
    made = run_server.replica_settings(
        _settings(node="n", bind="10.0.0.1", raft_port=1, join=("a", "b:2"), client="10.0.0.1")
    )
    assert (made.name, made.bind_host, made.bind_port, made.seeds) == (
        *("n", "10.0.0.1", 1),
        ("a", "b:2"),
    )
    assert made.http_address == "10.0.0.1:8500"
    assert made.data_dir == "d/raft"
    shortest_s, longest_s = _settings().election_timeout_s
    assert (made.timing.election_min_s, made.timing.election_max_s) == (shortest_s, longest_s)
    assert made.timing.heartbeat_s < shortest_s / 3


class Supervised:
    """A server with a definitions directory, and the socket that systemd would listen on.

    Args:
        directory: For all files.
    """

    def __init__(self, directory: Path) -> None:
        self.address = free_address()
        self.http = f"{self.address}:8500"
        self.definitions = directory / "definitions"
        self.definitions.mkdir()
        self._notify = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._notify)
        self._socket.setblocking(False)
        self._data = directory / "data"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> asyncio.subprocess.Process:
        """Starts the server."""
        environment = Dev(self.address, self.http).environment()
        command = command_line(
            *("server", "--node", "s1", "--bind", self.address, "--client", self.address),
            *("--data-dir", str(self._data), "--config-dir", str(self.definitions)),
            *("--log-format", "json"),
        )
        self.process = await asyncio.create_subprocess_exec(
            *leash.command(command),
            env={**environment, "NOTIFY_SOCKET": self._notify},
            stderr=asyncio.subprocess.PIPE,
        )
        return self.process

    async def told(self) -> str:
        """The next thing it tells the supervisor."""
        async with asyncio.timeout(_WAIT_S_MAX):
            data = await asyncio.get_running_loop().sock_recv(self._socket, 100)
        return data.decode()

    async def close(self) -> None:
        """Ends what still runs."""
        self._socket.close()
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.communicate()


@pytest.fixture
async def supervised(tmp_path: Path) -> AsyncIterator[Supervised]:
    """A server that is not started."""
    found = Supervised(tmp_path)
    yield found
    await found.close()


async def test_a_supervised_life(supervised: Supervised) -> None:
    """READY when it serves, SIGHUP takes new definitions, SIGTERM ends it with 0, in order."""
    process = await supervised.start()
    assert await supervised.told() == "READY=1"
    definition = {"service": {"name": "fresh", "port": 1}}
    (supervised.definitions / "fresh.json").write_text(json.dumps(definition))
    process.send_signal(signal.SIGHUP)
    assert await supervised.told() == "RELOADING=1"
    assert await supervised.told() == "READY=1"
    async with RegistryClient([supervised.http]) as client, asyncio.timeout(_WAIT_S_MAX):
        async for change in client.health.watch("fresh", passing=True):
            if change.value:
                break
    process.send_signal(signal.SIGTERM)
    assert await supervised.told() == "STOPPING=1"
    _, err = await process.communicate()
    assert process.returncode == 0
    for line in err.decode().splitlines():
        assert json.loads(line)["level"] in ("info", "warning"), line


async def test_a_bad_reload_changes_nothing(supervised: Supervised) -> None:
    """A broken definition file is logged; the last good set stays, the server too."""
    good = {"service": {"name": "good", "port": 1}}
    (supervised.definitions / "good.json").write_text(json.dumps(good))
    process = await supervised.start()
    assert await supervised.told() == "READY=1"
    (supervised.definitions / "good.json").write_text("{")
    process.send_signal(signal.SIGHUP)
    assert await supervised.told() == "RELOADING=1"
    assert await supervised.told() == "READY=1"
    async with RegistryClient([supervised.http]) as client, asyncio.timeout(_WAIT_S_MAX):
        async for change in client.health.watch("good", passing=True):
            if change.value:
                break
    process.send_signal(signal.SIGTERM)
    _, err = await process.communicate()
    assert process.returncode == 0
    assert b"reload_refused" in err
    assert b"good.json" in err


async def test_a_taken_port_is_one_sentence(dev: Dev) -> None:
    """Exit code 2, the address in the text, no traceback."""
    process = await asyncio.create_subprocess_exec(
        *command_line("dev", "--bind", dev.address, "--client", dev.address),
        env=dev.environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert f"{dev.address}:8500" in err.decode()
    assert b"Traceback" not in err
