"""Whole replicas on sockets of 127.0.0.0/8 and real files, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from raftreg.clock import SystemClock
from raftreg.raft.compaction import CompactionLimits
from raftreg.raft.replica import Replica, open_replica
from raftreg.raft.settings import ReplicaSettings
from tests.raft.transport_rig import FAST, until

#: A step that takes longer than this fails the test; none is expected to.
STEP_S = 30.0


class Words:
    """A state machine: the list of all commands."""

    def __init__(self) -> None:
        self.words: list[bytes] = []

    def apply(self, command: bytes, time_ms: int) -> int:
        """The result is the length."""
        self.words.append(command)
        return len(self.words)

    def entry_applied(self, raft_index: int) -> None:
        """Nobody watches."""

    def snapshot(self) -> Iterator[bytes]:
        """Fifty words a chunk."""
        words = list(self.words)
        return (msgspec.msgpack.encode(words[i : i + 50]) for i in range(0, len(words), 50))

    def restore(self, chunks: Iterable[bytes]) -> None:
        """See `StateMachine.restore`."""
        self.words = [
            word for chunk in chunks for word in msgspec.msgpack.decode(chunk, type=list[bytes])
        ]

    def encode_result(self, result: int) -> bytes:
        """See `StateMachine.encode_result`."""
        return msgspec.msgpack.encode(result)

    def decode_result(self, data: bytes) -> int:
        """See `StateMachine.decode_result`."""
        return msgspec.msgpack.decode(data, type=int)


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """Replicas by name, each with its directory; they find each other by their addresses."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.common = settings
        self.replicas: dict[str, Replica] = {}
        self.words: dict[str, Words] = {}
        self.hosts: dict[str, tuple[str, int]] = {}

    def place(self, *names: str) -> None:
        """Gives servers an address each."""
        for name in names:
            host = f"127.0.0.{10 + len(self.hosts)}"
            self.hosts[name] = (host, free_port(host))

    def move(self, name: str) -> None:
        """Gives a server another address and port."""
        host = f"127.0.1.{10 + len(self.replicas)}"
        self.hosts[name] = (host, free_port(host))

    async def start(self, name: str, *, expect: int | None = None, **settings: Any) -> Replica:
        """Starts a server on what is in its directory."""
        host, port = self.hosts[name]
        seeds = tuple(f"{h}:{p}" for h, p in self.hosts.values())
        self.words[name] = Words()
        defaults: dict[str, Any] = {"transport": FAST, "seeds": seeds, **self.common, **settings}
        replica = open_replica(
            ReplicaSettings(
                name=name,
                data_dir=str(self.folder / name),
                bind_host=host,
                bind_port=port,
                bootstrap_expect=expect,
                **defaults,
            ),
            self.words[name],
            SystemClock(),
            random.Random(name),
        )
        await replica.start()
        self.replicas[name] = replica
        return replica

    async def begin(self, *names: str) -> None:
        """Forms a new cluster of these; returns when one leads."""
        self.place(*names)
        for name in names:
            await self.start(name, expect=len(names))
        await self.leader()

    async def stop(self, name: str) -> None:
        """An orderly end."""
        await self.replicas.pop(name).stop()

    async def kill(self, name: str) -> None:
        """An end without a word: nothing is handed over, nothing more is synced."""
        replica = self.replicas.pop(name)
        replica._fail(RuntimeError("killed by the test"))
        await replica.stop()

    def wipe(self, name: str) -> None:
        """The directory of a stopped server is lost."""
        shutil.rmtree(self.folder / name)

    async def leader(self) -> str:
        """Waits until exactly one server leads and all others follow it; gives its name."""
        await until(lambda: self._leader_name() is not None, STEP_S)
        name = self._leader_name()
        assert name is not None
        return name

    def _leader_name(self) -> str | None:
        leaders = [name for name, replica in self.replicas.items() if replica.node.leads]
        followed = {replica.status().leader_id for replica in self.replicas.values()}
        if len(leaders) != 1 or followed != {self.id_of(leaders[0])}:
            return None
        return leaders[0]

    def id_of(self, name: str) -> str:
        """The id of a running server."""
        return self.replicas[name].status().id

    def followers(self, leader: str) -> list[str]:
        """The other running servers."""
        return sorted(set(self.replicas) - {leader})

    def voters(self, name: str) -> set[str]:
        """Names of the voters that a server knows."""
        return {s.name for s in self.replicas[name].status().servers if s.voter}

    async def all_have(self, word: bytes) -> None:
        """Waits until every running server has applied a word."""
        await until(lambda: all(word in self.words[name].words for name in self.replicas), STEP_S)

    def cut_off(self, name: str) -> Callable[[], None]:
        """Drops everything that a server sends or is sent from now on; the result ends that."""
        replica = self.replicas[name]
        transport = replica.transport
        send, on_message = transport.send, transport._on_message
        transport.send = lambda *_: False  # type: ignore[method-assign]
        transport._on_message = lambda *_: None

        def restore() -> None:
            transport.send = send  # type: ignore[method-assign]
            transport._on_message = on_message

        return restore


SMALL = CompactionLimits(entries_max=30, trailing_entries=5, piece_bytes=4096)


@contextlib.asynccontextmanager
async def cluster_in(folder: Path, **settings: Any) -> AsyncIterator[Cluster]:
    """A cluster whose servers are all stopped at the end."""
    cluster = Cluster(folder, **settings)
    try:
        yield cluster
    finally:
        async with asyncio.timeout(STEP_S):
            for name in list(cluster.replicas):
                await cluster.kill(name)
