"""Builds a whole ground in a private world and injects every fault of the network once.

`… faults LOGS` writes one JSON object to standard output: what the ground offers, and for each
fault whether it is proved to have acted.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from jepsen_like.ground.build import LocalGround, Settings, build
from jepsen_like.ground.hosts import DNS_PORT
from jepsen_like.nemeses.network import FAULTS, Everywhere, Lanes, PartitionFlapping
from tests.e2e.waiting import until

BODY_BYTES = 8000  #: several times what a narrow path passes at once


async def main(logs: Path) -> dict[str, Any]:
    """One small cluster; each fault is held until the switch has counted it."""
    async with build(Settings(servers=3, agents=1, spares=1, logs=logs, disk=True)) as ground:
        leader = await ground.leader()
        assert leader is not None
        first = ground.servers[0]
        found: dict[str, Any] = {
            "leader": leader.name,
            "data": sorted(path.name for path in first.data_dir.iterdir()),
            "writes": 0 if first.disk is None else (await first.disk.counts())["writes"],
            "dns": await asyncio.to_thread(answers_dns, ground.host("a1").address),
            "acted": {kind.name: await acted(kind, ground) for kind in FAULTS},
        }
        found["leader_after"] = (await ground.leader(20.0)) is not None
        return found


async def acted(kind: Any, ground: LocalGround) -> bool:
    """Injects, holds, heals."""
    fault: Lanes = kind()
    network = ground.network
    assert network is not None
    # A rule may leave room to chance: a ring of three servers cuts one pair, which may be silent
    # until it loses its leader.
    await fault.inject(ground, Random(3))
    start = await network.counts()

    async def counted() -> bool:
        # An idle cluster's heartbeats fit through any path, however narrow.
        if isinstance(fault, Everywhere):
            await ground.ask(ground.servers[0], "/v1/kv/load", "PUT", "x" * BODY_BYTES)
        counts = await network.counts()
        fields = {fault.counter} | ({"passed"} if isinstance(fault, PartitionFlapping) else set())
        return all(
            any(getattr(counts[pair], field) > getattr(start[pair], field) for pair in fault.rules)
            for field in fields
        )

    await until(f"{fault.name} is counted", counted)
    return (await fault.heal(ground)).acted


def answers_dns(address: str) -> bool:
    """Asks for the root, a question that everybody can answer (RFC 1035, section 4.1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(10.0)
        asker.sendto(bytes.fromhex("1234010000010000000000000000020001"), (address, DNS_PORT))
        return asker.recv(4096)[:2] == b"\x12\x34"


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(main(Path(sys.argv[1])))))
