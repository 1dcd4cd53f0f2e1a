"""The document of a whole server process (its own routes and its agent's), without running one."""

from __future__ import annotations

import tempfile
from random import Random
from typing import Any

from aiohttp import web

from raftreg.client.api import RegistryClient
from raftreg.clock import ManualClock
from raftreg.config import ServerSettings
from raftreg.http import openapi
from raftreg.raft.api import Server
from raftreg.raft.solo import SoloReplica
from raftreg.server.app import RegistryServer
from raftreg.server.machine import RegistryMachine
from raftreg_agent.local import LocalAgent
from raftreg_agent.routes import agent_routes


def application() -> web.Application:
    """The web application of a server, as `raftreg server` and `raftreg dev` mount it."""
    clock, rng, machine = ManualClock(), Random(1), RegistryMachine()
    settings = ServerSettings(node="s1", data_dir=tempfile.mkdtemp(prefix="raftreg-openapi-"))
    replica = SoloReplica(Server(id="1", name="s1", address="127.0.0.1:8300"), machine, clock)
    client = RegistryClient([settings.local_http], clock=clock, rng=rng)
    local = LocalAgent(settings.agent(), client, clock, rng, catalog=lambda: machine.state.catalog)
    server = RegistryServer(
        settings,
        replica,
        machine,
        clock,
        rng,
        extra_routes=agent_routes(local, lambda: machine.state.catalog),
    )
    return server.application()


def document() -> dict[str, Any]:
    """What `/v1/openapi.json` serves."""
    return openapi.document(application().router.routes(), "0")
