"""Settings: where they come from, which one wins, and what is said about a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raftreg import config
from raftreg.config import AgentSettings, DevSettings, ServerSettings
from raftreg.errors import ConfigurationError

DATA = {"data_dir": "d"}


def server(
    flags: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
    file: Path | None = None,
) -> ServerSettings:
    """Settings of a server from these sources, with a data directory."""
    return config.load(ServerSettings, flags={**DATA, **(flags or {})}, env=env or {}, file=file)


def toml(tmp_path: Path, text: str) -> Path:
    """A TOML file with this text."""
    file = tmp_path / "raftreg.toml"
    file.write_text(text)
    return file


def test_flag_wins_over_environment_wins_over_file(tmp_path: Path) -> None:
    """Each source overrides the next; what none names has its default."""
    file = toml(tmp_path, "http_port = 1\ndns-port = 2\nraft_port = 3\n")
    env = {"RAFTREG_DNS_PORT": "20", "RAFTREG_RAFT_PORT": "30"}
    found = server({"raft_port": 300}, env, file)
    assert (found.http_port, found.dns_port, found.raft_port) == (1, 20, 300)
    assert found.datacenter == "dc1"


def test_flags_that_were_not_given_override_nothing(tmp_path: Path) -> None:
    """None and an empty list are what click gives for an option that is not there."""
    file = toml(tmp_path, 'join = ["a", "b:1"]\nnode = "n"\n')
    found = server({"join": (), "node": None}, {}, file)
    assert (found.join, found.node) == (("a", "b:1"), "n")


@pytest.mark.parametrize("text", ["a,b:1", "a b:1", "a, b:1 "])
def test_lists_in_a_variable(text: str) -> None:
    """Commas and spaces separate."""
    assert server(env={"RAFTREG_JOIN": text}).join == ("a", "b:1")


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("True", True), ("0", False)])
def test_truth_in_a_variable(text: str, expected: bool) -> None:
    """Truth values may be written as people write them."""
    found = server(env={"RAFTREG_ENABLE_SCRIPT_CHECKS": text})
    assert found.enable_script_checks is expected


def test_nested_tables(tmp_path: Path) -> None:
    """[dns] and [http] are tables in the file and prefixes in the environment."""
    file = toml(tmp_path, "[dns]\nonly_passing = true\n[http]\nwatchers_max = 5\n")
    found = server(env={"RAFTREG_DNS_SERVICE_TTL_S": "7"}, file=file)
    assert (found.dns.only_passing, found.dns.service_ttl_s) == (True, 7)
    assert found.http.watchers_max == 5


def test_dns_knows_datacenter_and_recursors() -> None:
    """What DNS needs of the process's settings is in its own, however they were built."""
    found = ServerSettings(data_dir="d", datacenter="eu", recursors=("9.9.9.9",))
    assert (found.dns.datacenter, found.dns.recursors) == ("eu", ("9.9.9.9",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http_prot = 1", "did you mean 'http_port'"),
        ('http_port = "1"', "http_port"),
        ("http_port = 70000", "http_port"),
        ("http_port = 0", "http_port"),
        ("dns = 1", "[dns]"),
        ("[dns]\ndomian = 'x'", "did you mean 'domain'"),
        ("election_timeout_s = [0.5, 0.2]", "election_timeout_s"),
        ("lease_ttl_s = 0.5", "renew_s"),
        ("node = 'a b'", "node"),
        ("join = 'a'", "join"),
        ("join = ['a:x']", "'a:x'"),
        ("cert_file = 'c'", "all three"),
        ("= 3", "no TOML"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path: Path, text: str, said: str) -> None:
    """The error says which setting can't be used, and where it stands."""
    with pytest.raises(ConfigurationError) as error:
        server(file=toml(tmp_path, text + "\n"))
    assert said in error.value.message


@pytest.mark.parametrize(
    "variable",
    ["RAFTREG_HTTP_PORT", "RAFTREG_BOOTSTRAP_EXPECT", "RAFTREG_LOG_FORMAT", "RAFTREG_RENEW_S"],
)
def test_a_bad_variable_is_named(variable: str) -> None:
    """The error names the variable."""
    with pytest.raises(ConfigurationError, match=variable):
        server(env={variable: "many"})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(ConfigurationError, match=r"nothing\.toml"):
        server(file=tmp_path / "nothing.toml")


def test_what_a_process_can_not_do_without() -> None:
    """A server needs a directory, an agent a server too; the text says how to give them."""
    with pytest.raises(ConfigurationError, match="--data-dir"):
        config.load(ServerSettings, flags={}, env={})
    with pytest.raises(ConfigurationError, match="--join"):
        config.load(AgentSettings, flags=DATA, env={})
    assert config.load(DevSettings, flags={}, env={}).http_port == config.HTTP_PORT_DEFAULT


def test_the_agent_inside_a_server() -> None:
    """It asks its own server, keeps its files apart, and says that it is a server."""
    agent = server({"client": "0.0.0.0", "http_port": 81, "node": "s", "raft_port": 9}).agent()
    assert agent.join == ("127.0.0.1:81",)
    assert (agent.node, agent.server, agent.raft_port) == ("s", True, 9)
    assert agent.data_dir == "d/agent"


def test_a_wildcard_needs_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --advertise the only address of the host is taken; between two none is guessed."""
    monkeypatch.setattr(config, "_only_address", lambda bind: "10.0.0.7")
    assert server({"bind": "0.0.0.0"}).address == "10.0.0.7"
    assert server({"bind": "0.0.0.0", "advertise": "10.1.1.1"}).address == "10.1.1.1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host", ("host", 5)),
        ("host:6", ("host", 6)),
        ("[::1]", ("::1", 5)),
        ("[::1]:6", ("::1", 6)),
        ("fe80::1", ("fe80::1", 5)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    """Names, IPv4 and IPv6, with and without a port; writing and reading agree."""
    assert config.split_host_port(text, 5) == expected
    assert config.split_host_port(config.join_host_port(*expected), 1) == expected


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:b", "a:0", "a:70000", "http://a", "a b"])
def test_bad_addresses(text: str) -> None:
    """What is no address is refused."""
    with pytest.raises(ConfigurationError):
        config.split_host_port(text, 5)
