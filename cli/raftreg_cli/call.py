"""What all commands share that ask the registry: where it is, who asks, how to answer.

@kv.command("get")
@click.argument("key")
@with_client
async def get(call: Call, key: str) -> None: ...
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

import click
import msgspec

from raftreg.client.api import RegistryClient
from raftreg.client.options import Consistency, ParamValue, Read
from raftreg.client.retry import base_url
from raftreg.clock import SystemClock
from raftreg.errors import ConfigurationError, Unreachable
from raftreg_cli import process
from raftreg_cli.output import Columns, Output, show, show_line

P = ParamSpec("P")
Command = Callable[Concatenate["Call", P], Awaitable[int | None]]
F = TypeVar("F", bound=Callable[..., Any])
HTTP_ADDR_DEFAULT = "127.0.0.1:8500"
TOKEN_BYTES_MAX = 4096
CONNECT_S_MAX = 2.0


class Call(msgspec.Struct, frozen=True):
    """One run of a command.

    Attributes:
        client: The client of the registry.
        output: The form of the answer.
    """

    client: RegistryClient
    output: Output

    async def get(self, path: str, **params: ParamValue) -> Any:
        """Reads JSON from a path of the API, as it came."""
        return (await self.client.request("GET", path, params=params)).json()

    def show(self, data: Any, table: Columns | str) -> None:
        """Prints the answer."""
        show(self.output, data, table)

    def show_line(self, data: Any, text: str) -> None:
        """Prints one event."""
        show_line(self.output, data, text)


def _remember_output(ctx: click.Context, param: click.Parameter, value: str) -> Output:
    del param
    ctx.meta["raftreg.output"] = value
    return Output(value)


def _remember_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if value:
        ctx.meta["raftreg.debug"] = True


def with_output(command: F) -> F:
    """Adds `--output` (and `--debug`) to a command."""
    command = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        hidden=True,
        callback=_remember_debug,
    )(command)
    return click.option(
        "--output",
        "-o",
        type=click.Choice([form.value for form in Output]),
        default=Output.TABLE.value,
        envvar="RAFTREG_OUTPUT",
        show_envvar=True,
        is_eager=True,
        callback=_remember_output,
        help="Tables for people, JSON for programs.",
    )(command)


def with_client(command: Command[P]) -> Callable[..., None]:
    """Adds the options of a client to a command, and runs it with a `Call`.

    When nobody listens at any of the addresses it ends at once: a person waits. A number that the
    command gives back is the exit code.
    """
    return _with_client(command, patient=False)


def with_patient_client(command: Command[P]) -> Callable[..., None]:
    """As `with_client`, for a command that has work to do also while nobody is there."""
    return _with_client(command, patient=True)


def _with_client(command: Command[P], *, patient: bool) -> Callable[..., None]:
    @with_output
    @click.option(
        "--http-addr",
        "addresses",
        envvar=["RAFTREG_HTTP_ADDR", "CONSUL_HTTP_ADDR"],
        show_envvar=True,
        default=HTTP_ADDR_DEFAULT,
        show_default=True,
        metavar="HOST:PORT",
        help="Agent or server to ask; several, separated by commas, stand in for each other.",
    )
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        envvar=["RAFTREG_HTTP_TOKEN_FILE", "CONSUL_HTTP_TOKEN_FILE"],
        show_envvar=True,
        metavar="FILE",
        help="File with the token (or put it into RAFTREG_HTTP_TOKEN).",
    )
    @click.option(
        "--token",
        envvar=["RAFTREG_HTTP_TOKEN", "CONSUL_HTTP_TOKEN"],
        hidden=True,  # on a command line every user of the host could read it
    )
    @click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to keep trying.",
    )
    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        output: Output = options.pop("output")
        addresses: str = options.pop("addresses")
        timeout_s: float = options.pop("timeout_s")
        token = _token(options.pop("token"), options.pop("token_file"))

        async def connected() -> int | None:
            asked = [part.strip() for part in addresses.split(",") if part.strip()]
            if not patient:
                await _somebody_listens(asked, min(timeout_s, CONNECT_S_MAX))
            async with RegistryClient(
                asked,
                token=token,
                timeout_s=timeout_s,
                clock=SystemClock(),
                rng=SystemRandom(),
            ) as client:
                return await command(Call(client, output), *args, **options)

        if code := process.run(connected()):
            sys.exit(code)

    return run


async def _somebody_listens(addresses: Sequence[str], limit_s: float) -> None:
    """Tries to connect, once each.

    Raises:
        Unreachable: Nobody listens at any of the addresses.
    """
    reasons = []
    for address in addresses:
        url = urlsplit(base_url(address))
        where = f"{url.hostname}:{url.port}"
        try:
            async with asyncio.timeout(limit_s):
                _, writer = await asyncio.open_connection(url.hostname, url.port)
        except TimeoutError:
            reasons.append(f"{where} does not answer")
        except OSError as error:
            reasons.append(f"can't connect to {where}: {_why(error)}")
        else:
            writer.close()
            return
    if reasons:
        raise Unreachable("; ".join(reasons))


def _why(error: OSError) -> str:
    """The reason alone: asyncio's own texts repeat the address."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)


def reads(command: F) -> F:
    """Adds `--stale` and `--consistent`; the command gets `read: Read`."""

    @click.option("--stale", is_flag=True, help="Answer from any server, even without a leader.")
    @click.option("--consistent", is_flag=True, help="Linearizable read (also the default).")
    @functools.wraps(command)
    def run(*args: Any, stale: bool, consistent: bool, **options: Any) -> Any:
        if stale and consistent:
            raise click.UsageError("--stale and --consistent exclude each other")
        mode = Consistency.STALE if stale else Consistency.DEFAULT
        if consistent:
            mode = Consistency.CONSISTENT
        return command(*args, read=Read(consistency=mode), **options)

    return run  # type: ignore[return-value]  # the same function with two options more


def _token(token: str | None, file: Path | None) -> str | None:
    if token or file is None:
        return token
    try:
        data = file.read_bytes()
    except OSError as problem:
        raise ConfigurationError(f"can't read the token file {file}: {problem.strerror}") from None
    if len(data) > TOKEN_BYTES_MAX:
        raise ConfigurationError(f"{file} is too large for a token")
    return data.decode("ascii", "replace").strip() or None
