"""The process `raftreg server`: replica, registry, this host's agent and DNS, wired together."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom

import structlog

from raftreg.clock import SystemClock
from raftreg.config import ServerSettings, is_loopback
from raftreg.raft.compaction import CompactionLimits
from raftreg.raft.node import Timing
from raftreg.raft.replica import open_replica
from raftreg.raft.settings import ReplicaSettings
from raftreg.server.machine import RegistryMachine
from raftreg_cli.host import Host, serve

_log = structlog.get_logger(__name__)


async def run_server(settings: ServerSettings) -> None:
    """Runs a server until SIGTERM, SIGINT, a request to leave, or a fault of its disk.

    Raises:
        RaftregError: It could not start, or had to stop by itself; the text says why.
    """
    clock, rng = SystemClock(), SystemRandom()
    _warn_when_open(settings)
    machine = RegistryMachine()
    replica = open_replica(replica_settings(settings), machine, clock, rng)
    await serve(
        Host(
            settings=settings,
            replica=replica,
            machine=machine,
            clock=clock,
            rng=rng,
            reload=replica.reload,
            failed=lambda: replica.failed,
        )
    )


def replica_settings(settings: ServerSettings) -> ReplicaSettings:
    """What the consensus room needs to know of a server's settings."""
    shortest_s, longest_s = settings.election_timeout_s
    # In the proportions of the defaults: several heartbeats fit into the shortest timeout, and a
    # leader that was cut off steps down at about the time when the others elect another one.
    timing = Timing(
        heartbeat_s=shortest_s / 5,
        election_min_s=shortest_s,
        election_max_s=longest_s,
        fallback_s=shortest_s * 1.5,
    )
    return ReplicaSettings(
        name=settings.node,
        data_dir=str(Path(settings.data_dir) / "raft"),
        bind_host=settings.bind,
        bind_port=settings.raft_port,
        advertise_host=settings.advertise,
        http_address=settings.public_http,
        datacenter=settings.datacenter,
        bootstrap_expect=settings.bootstrap_expect,
        seeds=settings.join,
        encrypt_key_file=settings.encrypt_key_file,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        timing=timing,
        limits=CompactionLimits(
            entries_max=settings.raft_snapshot_threshold,
            trailing_entries=settings.raft_trailing_logs,
        ),
    )


def _warn_when_open(settings: ServerSettings) -> None:
    if is_loopback(settings.bind) or settings.encrypt_key_file or settings.cert_file:
        return
    _log.warning(
        "raft_port_is_open_to_anybody",
        bind=settings.bind,
        port=settings.raft_port,
        consequence="whoever reaches this port can become a member and read and change everything",
        remedy="set encrypt_key_file, or ca_file, cert_file and key_file",
    )
