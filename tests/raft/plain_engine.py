"""PySyncObj as shipped, stepped by hand: real objects, a transport in memory, a clock that we move.

Runs in a process of its own (`python -m tests.raft.plain_engine SCENARIO`), since our engine
replaces parts of PySyncObj when it is imported. Prints what a scenario of `audit_scenarios` found.
"""

# ruff: noqa: D102 - the methods are those of `audit_scenarios.Lab`
# The stubs in typings/ hold only what our engine uses.
# mypy: disable-error-code="attr-defined, untyped-decorator"

from __future__ import annotations

import copy
import json
import logging
import struct
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated, syncobj
from pysyncobj.journal import FIRST_RECORD_OFFSET, LAST_RECORD_OFFSET_OFFSET
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from tests.raft.audit_scenarios import SCENARIOS

_FAR = 1e9
_NOW = [1000.0]


class _Port(Transport):
    def __init__(self, lab: PlainLab, name: str) -> None:
        super().__init__(None, None, [])
        self._lab = lab
        self._name = name

    def send(self, node: Node, message: Any) -> bool:
        link = (self._name, node.id)
        if link in self._lab.up:
            self._lab.queues[link].append(copy.deepcopy(message))
        return link in self._lab.up

    def took(self, sender: str, message: Any) -> None:
        self._onMessageReceived(Node(sender), message)

    def linked(self, peer: str, up: bool) -> None:
        (self._onNodeConnected if up else self._onNodeDisconnected)(Node(peer))


class _Machine(SyncObj):
    def __init__(self, name: str, ids: Iterable[str], conf: SyncObjConf, port: _Port) -> None:
        super().__init__(Node(name), [Node(i) for i in ids if i != name], conf, transport=port)
        self.values: dict[str, int] = {}

    @replicated
    def add(self, key: str, padding: bytes = b"") -> int:
        """Counts how often a key was written; its last call may fail."""
        if key == "poison":
            raise ValueError(key)
        self.values[key] = self.values.get(key, 0) + 1
        return self.values[key]


class PlainLab:
    """A cluster of plain engines; see `audit_scenarios.Lab`."""

    kind = "plain"

    def __init__(self, ids: str, **options: Any) -> None:
        self.ids = list(ids)
        self.up: set[tuple[str, str]] = set()
        self.queues: dict[tuple[str, str], list[Any]] = defaultdict(list)
        self.nodes: dict[str, _Machine] = {}
        self.faults = 0
        self._ports: dict[str, _Port] = {}
        self._options = {"leaderFallbackTimeout": 1e6, **options}
        self._durable = bool(self._options.pop("durable", True))
        self._directory = Path(tempfile.mkdtemp(prefix="plain-engine-"))
        for name in ids:
            self.start(name)
        for a in ids:
            for b in ids:
                if a < b:
                    self.connect(a, b)

    def private(self, name: str, attribute: str) -> Any:
        """A private attribute of an engine."""
        return getattr(self.nodes[name], f"_SyncObj__{attribute}")

    def start(self, name: str) -> None:
        journal = str(self._directory / f"{name}.journal") if self._durable else None
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesPeriod=0.1,
            journalFile=journal,
            useFork=False,
            logCompactionMinEntries=10**9,
            logCompactionMinTime=10**9,
            logCompactionBatchSize=64,
            **self._options,
        )
        self._ports[name] = _Port(self, name)
        self.nodes[name] = _Machine(name, self.ids, conf, self._ports[name])
        for other in self.ids:
            if (name, other) in self.up:
                self._ports[name].linked(other, True)
        self._hold()

    def crash(self, name: str) -> None:
        del self.nodes[name], self._ports[name]
        for other in self.ids:
            self.queues[name, other].clear()
            self.queues[other, name].clear()

    def connect(self, a: str, b: str) -> None:
        self._link(a, b, True)

    def cut(self, a: str, b: str) -> None:
        self._link(a, b, False)

    def _link(self, a: str, b: str, up: bool) -> None:
        for link in ((a, b), (b, a)):
            if (link in self.up) != up:
                (self.up.add if up else self.up.discard)(link)
                self.queues[link].clear()
                if link[0] in self._ports:
                    self._ports[link[0]].linked(link[1], up)

    def _hold(self) -> None:
        for node in self.nodes.values():
            node._SyncObj__raftElectionDeadline = _NOW[0] + _FAR

    def tick(self, *names: str, dt: float = 0.11) -> None:
        _NOW[0] += dt
        for name in names:
            if name in self.nodes:
                try:
                    self.nodes[name].doTick(0.0)
                except (ValueError, RuntimeError):
                    self.faults += 1
        self._hold()

    def deliver(self, source: str, target: str, count: int | None = None) -> int:
        queue = self.queues[source, target]
        batch = queue[:count]
        del queue[: len(batch)]
        for message in batch:
            if target in self._ports:
                self._ports[target].took(source, message)
        self._hold()
        return len(batch)

    def flow(self, names: str, rounds: int = 6) -> None:
        for _ in range(rounds):
            self.tick(*names)
            for a in names:
                for b in names:
                    self.deliver(a, b)

    def stand(self, name: str) -> None:
        self.nodes[name]._SyncObj__raftElectionDeadline = 0
        self.tick(name, dt=0.01)

    def elect(self, name: str, voters: str) -> bool:
        self.stand(name)
        for voter in voters:
            self.deliver(name, voter)
        for voter in voters:
            self.deliver(voter, name)
        return self.leads(name)

    def write(self, name: str, key: str, size_bytes: int = 0, *, fails: bool = False) -> list[str]:
        told: list[str] = []

        def done(result: Any, reason: int) -> None:
            names = {value: key for key, value in vars(FAIL_REASON).items()}
            told.append("ok" if reason == FAIL_REASON.SUCCESS else names[reason])
            if fails:
                raise RuntimeError("the caller went away")

        self.nodes[name].add(key, b"x" * size_bytes, callback=done)
        return told

    def compact(self, name: str) -> None:
        self.nodes[name].forceLogCompaction()

    def drop(self, source: str, target: str) -> None:
        self.queues[source, target].clear()

    def stall_disks(self) -> None:
        """Nothing to stall: it never syncs."""

    def lose_unsynced_tail(self, name: str) -> None:
        """The header's page is older than the records, the commit index is not."""
        self.private(name, "raftLog").onOneSecondTimer()
        self.crash(name)
        path = self._directory / f"{name}.journal"
        data = bytearray(path.read_bytes())
        end = FIRST_RECORD_OFFSET
        for _ in range(5):
            end += struct.unpack_from("<I", data, end)[0] + 8
        struct.pack_into("<I", data, LAST_RECORD_OFFSET_OFFSET, end)
        path.write_bytes(data)
        self.start(name)

    def leads(self, name: str) -> bool:
        return bool(self.private(name, "raftState") == 2)

    def term(self, name: str) -> int:
        return int(self.private(name, "raftCurrentTerm"))

    def last(self, name: str) -> tuple[int, int]:
        entry = self.private(name, "raftLog")[-1]
        return entry[1], entry[2]

    def values(self, name: str) -> dict[str, int]:
        return dict(self.nodes[name].values)


def main(scenario: str) -> None:
    """Runs one scenario and prints its findings as JSON."""
    logging.disable(logging.CRITICAL)
    syncobj.monotonicTime = lambda: _NOW[0]
    sys.stdout.write(json.dumps(SCENARIOS[scenario](PlainLab)))


if __name__ == "__main__":
    main(sys.argv[1])
