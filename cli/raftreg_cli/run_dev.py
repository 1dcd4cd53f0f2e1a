"""The process `raftreg dev`: a server in memory with its agent."""

from __future__ import annotations

import tempfile
from random import SystemRandom

import structlog

from raftreg.clock import SystemClock, new_id
from raftreg.config import DevSettings, join_host_port
from raftreg.raft.api import Server
from raftreg.raft.solo import SoloReplica
from raftreg.server.machine import RegistryMachine
from raftreg_cli.host import Host, serve

_log = structlog.get_logger(__name__)


async def run_dev(settings: DevSettings) -> None:
    """Runs until SIGTERM or SIGINT; nothing stays behind.

    Raises:
        RaftregError: It could not start; the text says why.
    """
    clock, rng = SystemClock(), SystemRandom()
    machine = RegistryMachine()
    with tempfile.TemporaryDirectory(prefix="raftreg-dev-") as directory:
        server = settings.server(directory)
        address = join_host_port(server.address, server.raft_port)
        replica = SoloReplica(
            Server(id=new_id(rng), name=server.node, address=address), machine, clock
        )
        _log.warning("nothing_is_kept", mode="dev", remedy="use `raftreg server` to keep it")
        await serve(Host(settings=server, replica=replica, machine=machine, clock=clock, rng=rng))
