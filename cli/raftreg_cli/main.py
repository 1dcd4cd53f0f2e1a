"""The console script `raftreg`: finds a command, runs it, turns its errors into exit codes.

Exit codes derive from `raftreg.errors`, the one table; `raftreg --help` lists them.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import version
from typing import Any

import click
import msgspec

from raftreg.errors import RaftregError, Unreachable
from raftreg_cli.exits import epilog

#: Command to "module:attribute". Imported when needed: `--help` and completion stay quick.
COMMANDS = {
    "agent": "raftreg_cli.serve:agent",
    "completion": "raftreg_cli.completion:completion",
    "config": "raftreg_cli.config_entry:config",
    "demo": "raftreg_cli.demo.command:demo",
    "dev": "raftreg_cli.serve:dev",
    "health": "raftreg_cli.health:health",
    "intention": "raftreg_cli.intention:intention",
    "kv": "raftreg_cli.kv:kv",
    "lock": "raftreg_cli.lock:lock",
    "lookup": "raftreg_cli.lookup:lookup",
    "members": "raftreg_cli.members:members",
    "nodes": "raftreg_cli.members:nodes",
    "operator": "raftreg_cli.cluster:operator",
    "rtt": "raftreg_cli.rtt:rtt",
    "run": "raftreg_cli.run:run",
    "server": "raftreg_cli.serve:server",
    "services": "raftreg_cli.services:services",
    "session": "raftreg_cli.session:session",
    "snapshot": "raftreg_cli.snapshot:snapshot",
    "template": "raftreg_cli.template.command:template",
    "version": "raftreg_cli.version:version_command",
    "watch": "raftreg_cli.watch:watch",
}


_UNUSABLE = 2
_INTERRUPTED = 130
_BROKEN_PIPE = 141


class Failure(click.ClickException):
    """An error of ours as click shows it: one line for people, or one JSON object.

    Args:
        error: What went wrong.
        as_json: Write JSON.
    """

    def __init__(self, error: RaftregError, *, as_json: bool) -> None:
        super().__init__(error.message)
        self.exit_code = error.exit_code  # type: ignore[misc]  # differs by instance here
        self._error = error
        self._as_json = as_json

    def show(self, file: Any = None) -> None:
        """Writes it to stderr."""
        if self._as_json:
            shape = {
                "error": self._error.code,
                "message": self._error.message,
                "definite": self._error.definite,
            }
            click.echo(msgspec.json.encode(shape), err=True)
            return
        click.echo(f"Error: {self.message}", err=True)
        if hint := _hint(self._error):
            click.echo(hint, err=True)


class Commands(click.Group):
    """The root group: commands are imported on use, errors become `Failure`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command of that name."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command.

        Raises:
            Failure: The command ended with one of our errors, or with a fault of ours.
        """
        try:
            return super().invoke(ctx)
        except RaftregError as error:
            if _debug(ctx):
                raise
            raise Failure(error, as_json=_wants_json(ctx)) from error
        except click.FileError as error:
            error.exit_code = _UNUSABLE  # type: ignore[misc]  # click would make it 1
            raise
        except BrokenPipeError:
            _forget_stdout()
            ctx.exit(_BROKEN_PIPE)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)  # click would make it 1
        except BaseExceptionGroup as group:
            ours = _ours(group)
            if ours is None or _debug(ctx):
                raise
            raise Failure(ours, as_json=_wants_json(ctx)) from group


@click.group(
    cls=Commands,
    epilog=epilog(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(version("raftreg"), prog_name="raftreg")
@click.option("--debug", is_flag=True, envvar="RAFTREG_DEBUG", help="Show tracebacks of errors.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """A service registry replicated by Raft, with agents, health checks, DNS and Consul's API.

    `raftreg dev` starts one server in memory to try things on; `raftreg demo` a whole cluster.
    Every command that asks the registry takes --http-addr (RAFTREG_HTTP_ADDR), a token from
    RAFTREG_HTTP_TOKEN, and --output json.
    """
    ctx.meta["raftreg.debug"] = debug


def main() -> None:
    """Entry point of the console script. Never shows a traceback unless --debug is given."""
    try:
        cli.main(prog_name="raftreg")
    except Exception as fault:
        if "--debug" in sys.argv or os.environ.get("RAFTREG_DEBUG"):
            raise
        click.echo(f"Error: a fault of raftreg itself: {type(fault).__name__}: {fault}", err=True)
        click.echo("Run it again with --debug for the traceback, and report it please.", err=True)
        sys.exit(1)


def _debug(ctx: click.Context) -> bool:
    return bool(ctx.meta.get("raftreg.debug"))


def _wants_json(ctx: click.Context) -> bool:
    return ctx.meta.get("raftreg.output") == "json"


def _hint(error: RaftregError) -> str:
    """What to do next, where the error's own text can't know it."""
    if isinstance(error, Unreachable):
        return (
            "Is an agent or server running there? Say where with --http-addr HOST:PORT or "
            "RAFTREG_HTTP_ADDR; `raftreg dev` starts one to try."
        )
    if not error.definite:
        return "The change may have taken effect all the same: look before you repeat it."
    return ""


def _ours(group: BaseExceptionGroup[BaseException]) -> RaftregError | None:
    """The error of ours that a task group wrapped, if all it holds are such."""
    ours, others = group.split(RaftregError)
    if others is not None or ours is None:
        return None
    first: Any = ours
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first if isinstance(first, RaftregError) else None


def _forget_stdout() -> None:
    """The reader of our output is gone: keep the interpreter from complaining at its exit."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  # a device
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main()
