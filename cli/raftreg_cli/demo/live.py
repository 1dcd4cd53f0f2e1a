"""The demo for people: a table that stays up to date, and what to try."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from raftreg.errors import RaftregError
from raftreg_cli.demo.plan import WEB, Host
from raftreg_cli.demo.probe import Probe, View
from raftreg_cli.demo.stage import Stage
from raftreg_cli.output import Columns, columns, plain_lines, rich_table

REFRESH_S = 0.5


async def run_live(stage: Stage, probe: Probe) -> None:
    """Shows the mesh until it is cancelled; `r` (or SIGUSR1) starts dead servers again."""
    restart = asyncio.Event()
    with _on_keys(restart):
        if sys.stdout.isatty():
            await _live(stage, probe, restart)
        else:
            await _plain(stage, probe, restart)


async def _live(stage: Stage, probe: Probe, restart: asyncio.Event) -> None:
    console = Console()
    console.print(Text(hints_text(stage)))
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            view = await _look(stage, probe)
            tables = [rich_table(table, title) for title, table in tables_of(stage, view)]
            spaced: list[RenderableType] = [part for table in tables for part in ("", table)]
            live.update(Group(*spaced), refresh=True)
            await _pause(stage, restart)


async def _plain(stage: Stage, probe: Probe, restart: asyncio.Event) -> None:
    """Not a terminal: the tables as text, anew whenever who leads or what lives has changed."""
    click.echo(hints_text(stage))
    shown = ""
    while True:
        view = await _look(stage, probe)
        if (now := _essence(stage, view)) != shown:
            shown = now
            for title, table in tables_of(stage, view):
                click.echo("\n".join(["", title, *plain_lines(table)]))
        await _pause(stage, restart)


async def _look(stage: Stage, probe: Probe) -> View | None:
    up = tuple(host for host in stage.plan.servers if stage.servers[host.name].running)
    try:
        return await probe.view((*up, *stage.plan.agents))
    except RaftregError:
        return None


async def _pause(stage: Stage, restart: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REFRESH_S):
            await restart.wait()
    if restart.is_set():
        restart.clear()
        for process in [*stage.servers.values(), *stage.agents.values()]:
            if not process.running:
                await process.start()


def tables_of(stage: Stage, view: View | None) -> list[tuple[str, Columns]]:
    """The tables with their titles: nodes, services."""
    return [("Nodes", _nodes(stage, view)), ("Services", _services(view))]


def _nodes(stage: Stage, view: View | None) -> Columns:
    processes = {**stage.servers, **stage.agents}
    rows = []
    for host in stage.plan.hosts:
        running = processes[host.name].running
        known = view.servers.get(host.name, {}) if view and host.raft_port and running else {}
        rows.append(
            (
                host.name,
                host.http,
                view.nodes.get(host.name, "-") if view else "-",
                _role(host, view) if running else "stopped",
                known.get("LastTerm", "-"),
                known.get("LastIndex", "-"),
                processes[host.name].pid,
            )
        )
    return columns(("NODE", "HTTP", "LEASE", "ROLE", "TERM", "INDEX", "PID"), rows)


def _role(host: Host, view: View | None) -> str:
    if not host.raft_port:
        return "agent"
    leads = view is not None and view.leader.rpartition(":")[0] == host.address
    return "leader" if leads else "follower"


def _services(view: View | None) -> Columns:
    rows = [
        (name, entry.service.id, f"{entry.address}:{entry.service.port}", entry.status.value)
        for name, entries in (view.services.items() if view else ())
        for entry in sorted(entries, key=lambda entry: entry.service.id)
    ]
    return columns(("SERVICE", "INSTANCE", "ADDRESS", "HEALTH"), rows)


def _essence(stage: Stage, view: View | None) -> str:
    """What makes it worth to print the tables again: not the indexes."""
    up = [name for name, process in stage.servers.items() if process.running]
    if view is None:
        return repr(up)
    health = {
        name: sorted((e.service.id, e.status.value) for e in entries)
        for name, entries in view.services.items()
    }
    return repr((up, view.leader, sorted(view.nodes.items()), health))


def hints_text(stage: Stage) -> str:
    """What to try, ready to paste into another terminal."""
    server, agent = stage.plan.servers[0], stage.plan.agents[0]
    sample = f"{agent.address}:{WEB.port}"
    raftreg = f"{os.path.dirname(sys.executable)}/raftreg"  # noqa: PTH120  # only text
    return "\n".join(
        [
            "Try, in another terminal:",
            f"  {raftreg} lookup {WEB.name} --http-addr {agent.http}",
            f"  curl 'http://{agent.http}/v1/health/service/{WEB.name}?passing&pretty'",
            f"  dig @{agent.address} -p {agent.dns_port} {WEB.name}.service.consul SRV",
            f"  curl -X PUT -d failing http://{sample}/health    # and see it go (then: -d ok)",
            f"  kill -9 {stage.servers[server.name].pid}    # {server.name} dies; the rest go on",
            f"  kill -USR1 {os.getpid()}    # start what is dead again (here: press r)",
            f"Logs are in {stage.plan.directory}/logs. Ctrl-C ends everything.",
        ]
    )


@contextlib.contextmanager
def _on_keys(restart: asyncio.Event) -> Iterator[None]:
    """Sets the event on `r` (when stdin is a terminal) and on SIGUSR1."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, restart.set)
    stack = contextlib.ExitStack()
    stack.callback(loop.remove_signal_handler, signal.SIGUSR1)
    if sys.stdin.isatty():
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor)
        stack.callback(termios.tcsetattr, descriptor, termios.TCSADRAIN, before)

        def pressed() -> None:
            if os.read(descriptor, 64).lower().startswith(b"r"):
                restart.set()

        loop.add_reader(descriptor, pressed)
        stack.callback(loop.remove_reader, descriptor)
    with stack:
        yield
