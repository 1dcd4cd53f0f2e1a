"""Settings as flags: `raftreg.config` field by field, with the environment variable in the help.

click reads no variable here: `raftreg.config.load` is the one place where flags, environment and
file meet.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from raftreg import config

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", config.AgentSettings, config.DevSettings, config.ServerSettings)

_PORT = click.IntRange(1, 65_535)
_COMMON: dict[str, dict[str, Any]] = {
    "node": {"help": "Name of this host in the registry.  [default: the host name]"},
    "data_dir": {"metavar": "DIR", "help": "Directory that this process alone writes to."},
    "bind": {
        "metavar": "ADDR",
        "help": "Address of this host in the registry (and for Raft).  [default: 127.0.0.1]",
    },
    "advertise": {"metavar": "ADDR", "help": "Address others use, when it is not --bind."},
    "client": {
        "metavar": "ADDR",
        "help": "Address that HTTP and DNS listen on.  [default: 127.0.0.1]",
    },
    "http_port": {"type": _PORT, "help": "[default: 8500]"},
    "dns_port": {"type": click.IntRange(-1, 65_535), "help": "-1: no DNS.  [default: 8600]"},
    "datacenter": {"help": "[default: dc1]"},
    "config_dir": {"metavar": "DIR", "help": "Service and check definitions (*.json)."},
    "enable_script_checks": {
        "is_flag": True,
        "default": None,
        "help": "Let definitions run programs on this host.",
    },
    "recursors": {
        "multiple": True,
        "flag": "--recursor",
        "metavar": "HOST[:PORT]",
        "help": "Resolver for names outside the domain; may be repeated.",
    },
    "log_format": {"type": click.Choice(["text", "json"]), "help": "[default: text]"},
    "log_level": {
        "type": click.Choice(["debug", "info", "warning", "error"]),
        "help": "[default: info]",
    },
}
_JOIN = {"multiple": True, "help": "A server to find the cluster by; may be repeated."}
_SERVER: dict[str, dict[str, Any]] = {
    "join": {**_JOIN, "metavar": "ADDR[:RAFTPORT]"},
    "raft_port": {"type": _PORT, "help": "[default: 8300]"},
    "bootstrap_expect": {
        "type": click.IntRange(1, 15),
        "metavar": "N",
        "help": "Start a new cluster when N servers have found each other.",
    },
    "encrypt_key_file": {"metavar": "FILE", "help": "Key that all servers share."},
    "ca_file": {"metavar": "FILE", "help": "Mutual TLS among servers: the authority,"},
    "cert_file": {"metavar": "FILE", "help": "this server's certificate,"},
    "key_file": {"metavar": "FILE", "help": "and its key."},
}
_AGENT: dict[str, dict[str, Any]] = {"join": {**_JOIN, "metavar": "ADDR[:HTTPPORT]"}}
_BY_KIND: dict[type, dict[str, dict[str, Any]]] = {
    config.ServerSettings: {**_COMMON, **_SERVER},
    config.AgentSettings: {**_COMMON, **_AGENT},
    config.DevSettings: {name: _COMMON[name] for name in _COMMON if name != "data_dir"},
}


def settings_options(kind: type[S]) -> Callable[[Callable[[S], None]], Callable[..., None]]:
    """Adds a flag for each setting of a process; the command gets the loaded settings."""

    def decorate(command: Callable[[S], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(config_file: Path | None, **flags: Any) -> None:
            command(config.load(kind, flags=flags, env=os.environ, file=config_file))

        result: Callable[..., None] = run
        for field, how in reversed(_BY_KIND[kind].items()):
            result = _option(field, dict(how))(result)
        return click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            envvar="RAFTREG_CONFIG",
            show_envvar=True,
            metavar="FILE.toml",
            help="Settings; flags and variables win over it.",
        )(result)

    return decorate


def _option(field: str, how: dict[str, Any]) -> Callable[[F], F]:
    flag = how.pop("flag", "--" + field.replace("_", "-"))
    text = f"{how.pop('help', '')}  [env var: {config.env_name(field)}]".strip()
    if how.get("is_flag"):
        flag = f"{flag}/--no-{flag[2:]}"
        how.pop("is_flag")
    return click.option(flag, field, help=text, **how)
