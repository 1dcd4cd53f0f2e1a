"""Figure `compaction-kills`: kill -9 while a snapshot is written or the log is being cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from jepsen_like.figures.figure import Done, Figure, Row, none_lost
from jepsen_like.figures.lab import Cluster, Lab, Trouble, cluster, settings_file, until
from jepsen_like.figures.record import Record, Round
from jepsen_like.ground.api import Host

SNAPSHOT_ENTRIES: Final = 250
TRAILING_ENTRIES: Final = 50
BALLAST: Final = 6_000  #: keys that make a snapshot take tenths of a second to write
QUICK_BALLAST: Final = 2_000
BALLAST_BYTES: Final = 400
AT_ONCE: Final = 32
SNAPSHOT_S_MAX: Final = 60.0
TRIES_MAX: Final = 20  #: for one kill that hits
KINDS: Final = ("while a snapshot was written", "just after it had taken its name")
_POLL_S: Final = 0.002
_WRITING_S: Final = 0.12  #: the kill comes up to this long after the file was first seen


class CompactionKills(Figure):
    """Small limits, so that every server makes a snapshot every few seconds under load."""

    name: ClassVar[str] = "compaction-kills"
    rounds: ClassVar[int] = 200
    quick_rounds: ClassVar[int] = 4
    lasts: ClassVar[str] = "25 min"

    async def measure(self, lab: Lab, numbers: Sequence[int], done: Done) -> list[str]:
        """See `Figure.measure`."""
        flags = settings_file(
            lab,
            "snapshots-often",
            f"raft_snapshot_threshold = {SNAPSHOT_ENTRIES}\n"
            f"raft_trailing_logs = {TRAILING_ENTRIES}\n",
        )
        async with cluster(lab, self.name, pause_s=0.01, server_flags=flags) as it:
            await _fill(it, QUICK_BALLAST if lab.quick else BALLAST)
            for number in numbers:
                done(await _round(it, number, KINDS[number % len(KINDS)]))
            return await it.writers.missing_anywhere()

    def rows(self, record: Record) -> list[Row]:
        """See `Figure.rows`."""
        kills = len(record.rounds)
        kinds = [f"{len(record.values('tries', kind))} {kind}" for kind in KINDS]
        return [
            Row("kills during compaction", str(kills), "200", kills >= self.rounds),
            Row("of them", ", ".join(kinds)),
            Row("kills that came too late to count", f"{sum(record.values('tries')) - kills:.0f}"),
            Row("writes acknowledged", f"{sum(record.values('acknowledged')):,.0f}"),
            none_lost(record),
        ]

    def line(self, done: Round) -> str:
        """See `Figure.line`."""
        return f"{done.facts['server']} killed {done.kind}: {done.facts['left']}"


async def _fill(it: Cluster, count: int) -> None:
    """Writes what makes snapshots large."""
    numbers = iter(range(count))
    names = [host.name for host in it.ground.servers]

    async def send() -> None:
        for number in numbers:
            body = f"{number}".encode().ljust(BALLAST_BYTES, b"b")
            await it.writers.put(names[number % len(names)], f"ballast/{number}", body)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(send())


async def _round(it: Cluster, number: int, kind: str) -> Round:
    name = str(number)
    it.writers.begin(name)
    tries, left = 0, ""
    while not left:
        if tries == TRIES_MAX:
            raise Trouble(f"round {number}: {TRIES_MAX} kills, none of them {kind}")
        tries += 1
        await it.whole()
        host = it.rng.choice(it.ground.servers)
        left = await _kill_in_time(it, host, kind)
        await host.start()
    await it.whole()
    losses = await it.check_round(name)
    return Round(
        number,
        kind,
        values={"tries": tries, "acknowledged": len(it.writers.acknowledged[name])},
        facts={"server": host.name, "left": left},
        losses=losses,
    )


async def _kill_in_time(it: Cluster, host: Host, kind: str) -> str:
    """Kills the server; gives what it left behind as the proof that the moment was right, or ""."""
    folder = host.data_dir / "raft"
    await _until(lambda: bool(_unfinished(folder)), f"{host.name} begins no snapshot")
    finished = _finished(folder)
    segments = _segments(folder)
    if kind == KINDS[0]:
        await asyncio.sleep(it.rng.uniform(0, _WRITING_S))
        await host.kill()
        left = _unfinished(folder)
        return f"left {left[0]}" if left else ""
    await _until(lambda: not _unfinished(folder), f"{host.name} does not finish its snapshot")
    await host.kill()
    new = sorted(_finished(folder) - finished)
    if not new:
        return ""
    uncut = "not yet cut" if _segments(folder) == segments else "cut"
    return f"left {new[-1]}, the log's files {uncut}"


async def _until(condition: Callable[[], bool], otherwise: str) -> None:
    async def holds() -> bool:
        return condition()

    await until(holds, otherwise, SNAPSHOT_S_MAX, _POLL_S)


def _unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("snapshot-*.tmp")]


def _finished(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("snapshot-*.snap")}


def _segments(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("wal-*.seg")}
