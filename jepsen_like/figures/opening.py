"""Opens a server's data directory by the code with which a server starts, and says what came of it.

`opened` runs a real `Replica` in this process: log, snapshot, state machine, until everything is
applied that the log says is committed. Its Raft listener is on a free port of the loopback and
its peers are out of reach, so it goes no further.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
from structlog.testing import capture_logs

from raftreg.clock import SystemClock
from raftreg.raft.disk import RealDisk
from raftreg.raft.faults import CorruptLog, CorruptSnapshot, StorageFault
from raftreg.raft.journal import DurableJournal
from raftreg.raft.replica import open_replica
from raftreg.raft.settings import ReplicaSettings
from raftreg.raft.snapshots import SnapshotStore
from raftreg.server.machine import RegistryMachine

APPLY_S_MAX: Final = 20.0


class Opened(msgspec.Struct, frozen=True):
    """What a start made of a data directory.

    Attributes:
        fault: Why the server refused it; "" when it did not.
        file, offset: Where the fault says that the damage is.
        applied, last: Indexes of the last applied and the last log entry.
        state: Digest of the state machine's snapshot; equal states have equal ones.
        log: Digest of all entries, with term and vote.
        said: Names of the warnings in its log, such as "log_tail_cut", and the files they name.
    """

    fault: str = ""
    file: str = ""
    offset: int = -1
    applied: int = 0
    last: int = 0
    state: str = ""
    log: str = ""
    said: tuple[tuple[str, str], ...] = ()

    def same_as(self, other: Opened) -> bool:
        """Nothing that a client or a peer could ever see differs."""
        mine = (self.applied, self.last, self.state, self.log)
        return mine == (other.applied, other.last, other.state, other.log)


async def opened(folder: Path, applied_at_least: int = 0) -> Opened:
    """Starts a replica on a directory, waits until it has applied what it has to, stops it.

    Args:
        folder: The `raft` directory of a server that does not run. The start may change it.
        applied_at_least: An index to wait for; beyond it the log says itself what is committed.
    """
    machine = RegistryMachine()
    settings = ReplicaSettings(
        name="figures", data_dir=str(folder), bind_host="127.0.0.1", bind_port=0
    )
    with capture_logs() as events:
        replica = open_replica(settings, machine, SystemClock(), Random(0))
        try:
            await replica.start()
        except StorageFault as fault:
            return _refused(fault)
        with contextlib.suppress(TimeoutError):  # the digests will differ then, and say so
            await replica.until(lambda: _applied(replica.status(), applied_at_least), APPLY_S_MAX)
        status = replica.status()
        state = _digest(machine.snapshot())
        await replica.stop()
    return Opened(
        applied=status.applied_index,
        last=status.last_log_index,
        state=state,
        log=_log_digest(folder),
        said=tuple(
            (str(event["event"]), str(event.get("file", "")))
            for event in events
            if event["log_level"] in {"warning", "error", "critical"}
        ),
    )


def found_when_read(folder: Path, snapshot: str) -> bool:
    """Whether reading a snapshot finds it damaged."""
    disk = RealDisk.open(folder, _at_once)
    try:
        SnapshotStore(disk).verify(snapshot)
    except CorruptSnapshot:
        return True
    finally:
        disk.close()
    return False


def _applied(status: Any, at_least: int) -> bool:
    return bool(status.applied_index >= max(at_least, status.commit_index))


def _refused(fault: StorageFault) -> Opened:
    text = f"{type(fault).__name__}: {fault}"
    if isinstance(fault, CorruptLog | CorruptSnapshot):
        return Opened(fault=text, file=fault.file, offset=fault.offset)
    return Opened(fault=text)


def _log_digest(folder: Path) -> str:
    disk = RealDisk.open(folder, _at_once)
    journal = DurableJournal.open(disk)
    try:
        entries = journal.entries(journal.first_index, journal.last_index)
        head = repr((journal.getCurrentTerm(), journal.getVotedForNodeId())).encode()
        return _digest([head, *(repr(entry[:3]).encode() for entry in entries)])
    finally:
        journal.close()
        disk.close()


def _digest(chunks: Any) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _at_once(job: Any) -> None:
    job()
