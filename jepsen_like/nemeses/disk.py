"""Faults of disks: full, failing, slow, without power, and rotten.

A server stops by itself when a write or sync fails (after that nobody knows what the file holds)
and refuses to start on damaged data. Healing does what docs/operations.md tells operators to do:
start it again, or give it an empty disk and let it join anew.
"""

from __future__ import annotations

import asyncio
import enum
import signal
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final

import msgspec

from jepsen_like.ground.api import DiskControl, Ground, Host, Need
from jepsen_like.nemeses import operators
from jepsen_like.nemeses.base import VIOLATION, Evidence, Fault

_STARTED_S_MAX: Final = 15.0
_SNAPSHOT_S_MAX: Final = 20.0
_LINE_CHARS_MAX: Final = 400
_SEED_BITS: Final = 48


def disk_of(host: Host) -> DiskControl:
    """The control of a host's disk.

    Raises:
        RuntimeError: The run was built without disks.
    """
    if host.disk is None:
        raise RuntimeError(f"{host.name} has no disk that could fail: the run was built without")
    return host.disk


async def cut_power(hosts: Sequence[Host], rng: Random, *, torn: bool) -> dict[str, dict[str, int]]:
    """Takes the power from some hosts at the same instant; their processes are gone afterwards.

    Args:
        hosts: Whose.
        rng: Decides what of the unsynced data is left.
        torn: The last write of a file may stay up to any byte.

    Returns:
        What each lost, by name; see `DiskControl.lose_power`.
    """
    await asyncio.gather(*(disk_of(host).freeze() for host in hosts))
    for host in hosts:
        host.send(signal.SIGKILL)
    lost = {}
    for host in hosts:
        # A process with a call in a frozen disk can't go before the call has failed.
        seed = rng.getrandbits(_SEED_BITS)
        lost[host.name] = await disk_of(host).lose_power(seed=seed, torn=torn)
        await host.kill()
    return lost


class _Failing(Fault):
    """Disks of a minority refuse; proved by the errors that were handed out."""

    needs = frozenset({Need.DISK})
    counters: ClassVar[tuple[str, ...]]
    faults: ClassVar[dict[str, bool]] = {}

    def __init__(self) -> None:
        self._before: dict[str, dict[str, int]] = {}
        self._said: dict[str, operators.Said] = {}

    async def _set(self, disk: DiskControl, rng: Random) -> dict[str, Any]:
        """Makes a disk fail; gives how."""
        del rng
        await disk.set_faults(**self.faults)
        return dict(self.faults)

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """See `Fault.inject`."""
        hosts = operators.running(ground.servers)
        count = min(len(hosts), rng.randint(1, operators.spared(ground)))
        done = {}
        for host in sorted(rng.sample(hosts, count), key=lambda host: host.name):
            disk = disk_of(host)
            self._before[host.name] = await disk.counts()
            self._said[host.name] = operators.Said(host)
            done[host.name] = await self._set(disk, rng)
        return done

    async def heal(self, ground: Ground) -> Evidence:
        """See `Fault.heal`."""
        facts = {}
        for name, before in self._before.items():
            host = ground.host(name)
            after = await disk_of(host).counts()
            acted = {key: after.get(key, 0) - before.get(key, 0) for key in self.counters}
            stopped = host.pid is None
            said = self._said[name].about("server had to stop", "replica_stopped")
            facts[name] = {**acted, "stopped": stopped, "said": [_short(line) for line in said[:2]]}
        for host in ground.servers:
            if host.disk is not None:
                await host.disk.set_faults()
        self._before, self._said = {}, {}
        await operators.revive(ground)
        if facts:
            await operators.whole(ground, ground.servers)
        acted_on = [one for one in facts.values() if any(one[key] for key in self.counters)]
        return Evidence(acted=bool(acted_on), facts=facts)


class DiskFull(_Failing):
    """No room is left: appends and new files are refused with ENOSPC."""

    name = "disk-full"
    counters = ("full_errors",)
    faults: ClassVar = {"full": True}


class FsyncError(_Failing):
    """Syncs report EIO, and what they should have made durable never is unless written anew."""

    name = "fsync-error"
    counters = ("fsync_errors",)
    faults: ClassVar = {"fsync_error": True}


class SlowDisk(_Failing):
    """Writes and syncs take 20 to 500 ms longer."""

    name = "slow-disk"
    counters = ("delayed_calls",)

    async def _set(self, disk: DiskControl, rng: Random) -> dict[str, Any]:
        delay_s = round(0.02 * 25 ** rng.random(), 3)
        await disk.set_faults(delay_s=delay_s)
        return {"delay_s": delay_s}


class _PowerLoss(Fault):
    """Some servers lose their power at an instant; they start on what their disks kept."""

    needs = frozenset({Need.DISK})
    hold_s = (0.5, 3.0)
    torn: ClassVar[bool] = False

    def __init__(self) -> None:
        self._lost: dict[str, dict[str, int]] = {}
        self._pids: dict[str, int | None] = {}

    @abstractmethod
    async def _choose(self, ground: Ground, rng: Random) -> list[Host]:
        """Whose power goes."""

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """See `Fault.inject`."""
        hosts = operators.running(await self._choose(ground, rng))
        self._pids = {host.name: host.pid for host in hosts}
        self._lost = await cut_power(hosts, rng, torn=self.torn)
        return {"lost": self._lost}

    async def heal(self, ground: Ground) -> Evidence:
        """See `Fault.heal`."""
        lost, pids = self._lost, self._pids
        self._lost, self._pids = {}, {}
        gone = {name: ground.host(name).pid != pid for name, pid in pids.items()}
        saids = {name: operators.Said(ground.host(name)) for name in pids}
        await operators.revive(ground)
        back = bool(pids) and await operators.whole(ground, ground.servers)
        cut = {
            name: [_short(line) for line in said.about("log_tail_cut")]
            for name, said in saids.items()
        }
        facts = {"lost": lost, "gone": gone, "tails_cut": cut, "whole_again": back}
        return Evidence(acted=bool(gone) and all(gone.values()) and self._proved(lost), facts=facts)

    def _proved(self, lost: dict[str, dict[str, int]]) -> bool:
        return bool(lost)


class PowerLossOne(_PowerLoss):
    """Any server."""

    name = "power-loss-one"

    async def _choose(self, ground: Ground, rng: Random) -> list[Host]:
        return [rng.choice(operators.running(ground.servers) or ground.servers)]


class PowerLossLeader(_PowerLoss):
    """The leader; any server when there is none."""

    name = "power-loss-leader"

    async def _choose(self, ground: Ground, rng: Random) -> list[Host]:
        leader = await ground.leader()
        return [leader or rng.choice(ground.servers)]


class PowerLossAll(_PowerLoss):
    """All servers at the same instant: the fuse of the room."""

    name = "power-loss-all"

    async def _choose(self, ground: Ground, rng: Random) -> list[Host]:
        del rng
        return ground.servers


class TornWrite(_PowerLoss):
    """Power goes in the middle of a write, of which the first so many bytes are on disk."""

    name = "torn-write"
    torn = True

    async def _choose(self, ground: Ground, rng: Random) -> list[Host]:
        return ground.servers if rng.random() < 0.5 else [rng.choice(ground.servers)]

    def _proved(self, lost: dict[str, dict[str, int]]) -> bool:
        return any(one["bytes"] for one in lost.values())


class Outcome(enum.Enum):
    """What a server did about a flipped bit."""

    REFUSED = "refused"  #: it did not start, and named the file and the place
    CUT = "cut"  #: it took the place for the end of a torn write, and cut it off
    PASSED_OVER = "passed over"  #: it used an older snapshot, with the log that reaches back to it
    UNUSED = "unused"  #: it runs, and the byte is gone with its file
    UNDETECTED = "undetected"  #: it runs on damaged data
    NO_ANSWER = "no answer"  #: it ended for another reason, or said nothing in time


class Flip(msgspec.Struct, frozen=True):
    """A flipped bit and what came of it."""

    host: str
    file: str
    offset: int
    old: int
    new: int
    outcome: Outcome
    said: tuple[str, ...] = ()


class _FlipByte(Fault):
    """One durable byte of a stopped server rots; it must refuse the file, or do without it.

    Only ever one server, and only while all others are healthy: a majority keeps everything. It
    gets an empty disk afterwards, whatever it said.
    """

    needs = frozenset({Need.DISK})
    hold_s = (0.5, 2.0)
    pattern: ClassVar[str]
    flags: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._flip: Flip | None = None
        self._damaged: str | None = None

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """See `Fault.inject`."""
        if not await operators.whole(ground, ground.servers, _STARTED_S_MAX):
            return {"skipped": "not all servers are healthy"}
        host = rng.choice(ground.servers)
        if not await self._prepare(ground, host):
            return {"skipped": f"{host.name} has no file {self.pattern}"}
        await host.stop()
        self._damaged = host.name
        flipped = await disk_of(host).flip(self.pattern, rng)
        said = operators.Said(host)
        await host.start()
        self._flip = await _judge(ground, host, flipped, said)
        return {"flip": msgspec.to_builtins(self._flip)}

    async def _prepare(self, ground: Ground, host: Host) -> bool:
        """Sees to it that there is something to flip."""
        del ground, host
        return True

    async def heal(self, ground: Ground) -> Evidence:
        """See `Fault.heal`."""
        flip, name = self._flip, self._damaged
        if name is not None:
            host = ground.host(name)
            await operators.empty(host)
            await operators.remove(ground, host)
            rejoined = await operators.rejoin(ground, host)
            self._damaged = None
        self._flip = None
        await operators.revive(ground)
        if flip is None:
            return Evidence(acted=False)
        facts = {"flip": msgspec.to_builtins(flip), "rejoined": rejoined}
        if flip.outcome is Outcome.UNDETECTED:
            facts[VIOLATION] = f"{flip.host} runs on {flip.file} with a flipped bit"
        return Evidence(acted=flip.outcome is not Outcome.NO_ANSWER, facts=facts)


class FlipLog(_FlipByte):
    """A byte of a segment of the write-ahead log."""

    name = "flip-log"
    pattern = "wal-*.seg"


class FlipSnapshot(_FlipByte):
    """A byte of a snapshot; the server is first made to write one."""

    name = "flip-snapshot"
    pattern = "snapshot-*.snap"

    async def _prepare(self, ground: Ground, host: Host) -> bool:
        if _files(host, self.pattern):
            return True
        await host.stop()
        await host.start(small_snapshots(host))

        async def written() -> bool:
            return bool(_files(host, self.pattern))

        found = await operators.until(written, _SNAPSHOT_S_MAX)
        return found and await operators.whole(ground, ground.servers, _STARTED_S_MAX)


def small_snapshots(host: Host) -> tuple[str, ...]:
    """Flags with which a server makes a snapshot every 20 entries and keeps 5 below it."""
    file = host.data_dir.parent / f"{host.name}-small-snapshots.toml"
    file.write_text("raft_snapshot_threshold = 20\nraft_trailing_logs = 5\n", encoding="ascii")
    return ("--config", str(file))


def _files(host: Host, pattern: str) -> list[Path]:
    return sorted((host.data_dir / "raft").glob(pattern))


async def _judge(ground: Ground, host: Host, flipped: dict[str, Any], said: operators.Said) -> Flip:
    """Waits until the server has refused or serves, and tells which."""

    async def decided() -> bool:
        return host.pid is None or await operators.answers(ground, host)

    in_time = await operators.until(decided, _STARTED_S_MAX)
    name = Path(flipped["file"]).name
    about = [line for line in said.lines() if name in line]
    outcome = _outcome(host, flipped, about) if in_time else Outcome.NO_ANSWER
    return Flip(
        host=host.name,
        file=flipped["file"],
        offset=flipped["offset"],
        old=flipped["old"],
        new=flipped["new"],
        outcome=outcome,
        said=tuple(_short(line) for line in about[:3]),
    )


def _outcome(host: Host, flipped: dict[str, Any], about: list[str]) -> Outcome:
    if host.pid is None:
        refused = any("corrupt at byte" in line for line in about)
        return Outcome.REFUSED if refused else Outcome.NO_ANSWER
    for word, outcome in (
        ("log_tail_cut", Outcome.CUT),
        ("snapshot_passed_over", Outcome.PASSED_OVER),
    ):
        if any(word in line for line in about):
            return outcome
    return Outcome.UNDETECTED if _still_there(host, flipped) else Outcome.UNUSED


def _still_there(host: Host, flipped: dict[str, Any]) -> bool:
    """Whether the rotten byte is in a file that the server would still read."""
    path = host.data_dir / str(flipped["file"])
    newest = _files(host, "snapshot-*.snap")
    if path in newest[:-1]:
        return False  # an older snapshot: the newest one is whole, or it would have been told
    try:
        with path.open("rb") as file:
            file.seek(flipped["offset"])
            return file.read(1) == bytes([int(flipped["new"])])
    except FileNotFoundError:
        return False


def _short(line: str) -> str:
    return line[:_LINE_CHARS_MAX]


FAULTS: tuple[type[Fault], ...] = (
    DiskFull,
    FsyncError,
    SlowDisk,
    PowerLossOne,
    PowerLossLeader,
    PowerLossAll,
    TornWrite,
    FlipLog,
    FlipSnapshot,
)
