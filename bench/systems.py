"""What is measured: how the servers and agents of a system are started."""

from __future__ import annotations

from typing import Protocol

from raftreg_cli.demo import plan as plans
from raftreg_cli.demo import stage
from raftreg_cli.demo.plan import Host, Plan


class System(Protocol):
    """A registry with Consul's HTTP and DNS interface."""

    @property
    def name(self) -> str:
        """What people call it, with its version if that matters."""
        ...

    def write_files(self, layout: Plan) -> None:
        """Writes what its processes read."""
        ...

    def server_command(self, layout: Plan, host: Host) -> list[str]:
        """The command line of a server."""
        ...

    def agent_command(self, layout: Plan, host: Host) -> list[str]:
        """The command line of an agent."""
        ...


class Raftreg:
    """This project, as it is installed here."""

    name = "raftreg"

    def write_files(self, layout: Plan) -> None:
        """Writes the key that the servers share."""
        stage.write_files(layout)

    def server_command(self, layout: Plan, host: Host) -> list[str]:
        """`raftreg server …`."""
        return plans.server_command(layout, host)

    def agent_command(self, layout: Plan, host: Host) -> list[str]:
        """`raftreg agent …`."""
        return plans.agent_command(layout, host)
