"""`raftreg server`, `agent`, `dev`: the processes that stay."""

from __future__ import annotations

import click

from raftreg.config import AgentSettings, DevSettings, ServerSettings
from raftreg_cli import logs, process
from raftreg_cli.settings_options import settings_options


@click.command()
@settings_options(ServerSettings)
def server(settings: ServerSettings) -> None:
    """Run a member of the cluster: Raft, the registry, HTTP, DNS, and this host's agent.

    SIGTERM hands leadership over and keeps the host registered, so that a restart costs nothing;
    SIGHUP reads definitions and certificates again.
    """
    process.collect_rarely()
    from raftreg_cli.run_server import run_server  # noqa: PLC0415  # heavy; not for --help

    logs.configure(settings.log_format, settings.log_level)
    process.run(run_server(settings), stays=True)


@click.command()
@settings_options(AgentSettings)
def agent(settings: AgentSettings) -> None:
    """Run the agent of this host: registration, checks, lease, HTTP, DNS.

    SIGTERM takes the host out of the registry, SIGHUP reads definitions again.
    """
    process.collect_rarely()
    from raftreg_cli.run_agent import run_agent  # noqa: PLC0415  # heavy; not for --help

    logs.configure(settings.log_format, settings.log_level)
    process.run(run_agent(settings), stays=True)


@click.command()
@settings_options(DevSettings)
def dev(settings: DevSettings) -> None:
    """Run one server in memory, with its agent: to try things on. Nothing is kept."""
    process.collect_rarely()
    from raftreg_cli.run_dev import run_dev  # noqa: PLC0415  # heavy; not for --help

    logs.configure(settings.log_format, settings.log_level)
    process.run(run_dev(settings), stays=True)
