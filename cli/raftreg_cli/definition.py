"""A service definition from options (`services register`, `run`), as Consul's JSON object."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from raftreg.config import join_host_port, reachable, split_host_port
from raftreg.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a service.

    Attributes:
        name, service_id, address, port, tags: As in the registration.
        meta: "key=value" texts.
        check_http: URL that answers 2xx while the service is healthy.
        check_tcp: "host:port" that accepts connections, "" to use the service's own port.
        interval, timeout: Of the check, as durations ("5s").
        deregister_after: How long the check may be critical before the instance is removed.
    """

    name: str
    service_id: str | None = None
    address: str | None = None
    port: int = 0
    tags: tuple[str, ...] = ()
    meta: tuple[str, ...] = ()
    check_http: str | None = None
    check_tcp: str | None = None
    interval: str = "5s"
    timeout: str = "2s"
    deregister_after: str | None = None

    @property
    def id(self) -> str:
        """The id of the instance."""
        return self.service_id or self.name


def service_options(command: F) -> F:
    """Adds the options of a service; the command gets `wanted: Wanted`."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        mine = {name: options.pop(name) for name in Wanted.__struct_fields__}
        if mine["check_http"] and mine["check_tcp"] is not None:
            raise click.UsageError("--check-http and --check-tcp exclude each other")
        wanted = Wanted(**mine) if mine["name"] else None
        return command(*args, wanted=wanted, **options)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run  # type: ignore[return-value]  # the same function with more options


def definition(wanted: Wanted) -> dict[str, Any]:
    """The JSON object for /v1/agent/service/register.

    Raises:
        click.UsageError: A check needs what was not given.
        click.BadParameter: A text has not the form it must have.
    """
    found: dict[str, Any] = {
        "Name": wanted.name,
        "ID": wanted.id,
        "Tags": list(wanted.tags),
        "Meta": dict(_pair(text) for text in wanted.meta),
        "Port": wanted.port,
    }
    if wanted.address:
        found["Address"] = wanted.address
    if check := _check(wanted):
        found["Check"] = check
    return found


def _check(wanted: Wanted) -> dict[str, Any] | None:
    if wanted.check_http:
        target = {"HTTP": wanted.check_http}
    elif wanted.check_tcp is not None:
        target = {"TCP": _tcp_target(wanted)}
    else:
        return None
    timing = {"Interval": wanted.interval, "Timeout": wanted.timeout}
    if wanted.deregister_after:
        timing["DeregisterCriticalServiceAfter"] = wanted.deregister_after
    return {**target, **timing}


def _tcp_target(wanted: Wanted) -> str:
    if wanted.check_tcp:
        try:
            host, port = split_host_port(wanted.check_tcp, wanted.port)
        except ConfigurationError as problem:
            raise click.BadParameter(problem.message, param_hint="--check-tcp") from None
        return join_host_port(host, port)
    if not wanted.port:
        raise click.UsageError("--check-tcp needs --port, or an address: --check-tcp HOST:PORT")
    return join_host_port(reachable(wanted.address or "127.0.0.1"), wanted.port)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r}: write KEY=VALUE", param_hint="--meta")
    return key, value


_OPTIONS = (
    click.option("--name", help="Name of the service."),
    click.option("--id", "service_id", help="Id of the instance (default: the name)."),
    click.option("--address", help="Its address (default: the node's)."),
    click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Its port."),
    click.option("--tag", "tags", multiple=True, help="A tag; may be repeated."),
    click.option("--meta", multiple=True, metavar="KEY=VALUE", help="May be repeated."),
    click.option("--check-http", metavar="URL", help="Healthy while this answers 2xx."),
    click.option(
        "--check-tcp",
        is_flag=False,
        flag_value="",
        default=None,
        metavar="[HOST:PORT]",
        help="Healthy while this accepts connections (default: its own port).",
    ),
    click.option("--interval", default="5s", show_default=True, help="Between two checks."),
    click.option("--check-timeout", "timeout", default="2s", show_default=True),
    click.option(
        "--deregister-after", metavar="DURATION", help="Remove it when critical that long (1m…)."
    ),
)
