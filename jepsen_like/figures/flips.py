"""Figure `flips`: one byte of a stopped server's log or snapshot is changed, then it is started.

Every flip must be refused at the start, repaired from what else is there, or proved to change
nothing: state, log, term and vote are byte for byte those of an unchanged copy. All flips are
opened by the server's own code in this process (`opening.py`); each twentieth also by a real
`raftreg server`, which must come to the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import ClassVar, Final

import msgspec

from jepsen_like.door import NoAnswer, NotSent
from jepsen_like.figures.figure import Done, Figure, Row, none_lost
from jepsen_like.figures.lab import Cluster, Lab, Trouble, cluster, settings_file, until
from jepsen_like.figures.opening import Opened, found_when_read, opened
from jepsen_like.figures.record import Record, Round
from jepsen_like.ground import leash, loopback
from jepsen_like.ground.hosts import ProcessHost
from jepsen_like.http import Endpoint, HttpDoor

WRITES: Final = 2_500
SNAPSHOT_ENTRIES: Final = 300
TRAILING_ENTRIES: Final = 60
#: So many that the log reaches back to the older snapshot, which then can take over.
LONG_TRAILING_ENTRIES: Final = 450
WRITTEN_S_MAX: Final = 180.0
REAL_EVERY: Final = 20
START_S_MAX: Final = 30.0
EDGE_BYTES: Final = 80
EDGE_SHARE: Final = 0.1
KINDS: Final = ("log", "snapshot")
_PATTERNS: Final = {"log": "wal-*.seg", "snapshot": "snapshot-*.snap"}
_SAID_SHARE: Final = 50


class Original(msgspec.Struct, frozen=True):
    """A data directory as a server left it, and what an unchanged start makes of it.

    Attributes:
        how: How its server ended.
        folder: Its `raft` directory; copies are changed, never this.
        whole: The start of an unchanged copy.
    """

    how: str
    folder: Path
    whole: Opened


class Flip(msgspec.Struct, frozen=True):
    """A changed byte."""

    file: str
    offset: int
    old: int
    new: int


class Flips(Figure):
    """Directories of servers that were killed under load, and stopped in order."""

    name: ClassVar[str] = "flips"
    rounds: ClassVar[int] = 1_000
    quick_rounds: ClassVar[int] = 60
    lasts: ClassVar[str] = "4 min"

    async def measure(self, lab: Lab, numbers: Sequence[int], done: Done) -> list[str]:
        """See `Figure.measure`."""
        originals = await _originals(lab)
        rng = Random(lab.seed)
        with loopback.claimed() as net:
            for number in numbers:
                original = originals[number // 2 % len(originals)]
                one = await _round(lab, number, original, rng, net)
                done(one)
        return []

    def rows(self, record: Record) -> list[Row]:
        """See `Figure.rows`."""
        count = len(record.rounds)
        rows = [Row("bytes flipped", f"{count:,}", "1,000", count >= self.rounds)]
        for kind in KINDS:
            outcomes = Counter(
                str(one.facts["outcome"]) for one in record.rounds if one.kind == kind
            )
            told = ", ".join(f"{n:,} {outcome}" for outcome, n in outcomes.most_common())
            rows.append(Row(f"in a {kind}", told or "none"))
        real = sum(one.values.get("real", 0) for one in record.rounds)
        return [
            *rows,
            Row("of them started as a real process too, with the same outcome", f"{real:,.0f}"),
            none_lost(record, "flips neither detected nor proved harmless"),
        ]

    def line(self, done: Round) -> str:
        """See `Figure.line`."""
        if done.number % _SAID_SHARE:
            return ""
        facts = done.facts
        return f"{facts['file']} at byte {facts['offset']}: {facts['outcome']}"


async def _originals(lab: Lab) -> list[Original]:
    """Makes a cluster, writes, and ends its servers in several ways under load."""
    often = f"raft_snapshot_threshold = {SNAPSHOT_ENTRIES}\nraft_trailing_logs = "
    flags = settings_file(lab, "short", f"{often}{TRAILING_ENTRIES}\n")
    longer = settings_file(lab, "long", f"{often}{LONG_TRAILING_ENTRIES}\n")
    folders: dict[str, Path] = {}
    async with cluster(lab, "flips", workers=4, pause_s=0.002, server_flags=flags) as it:
        n1, n2, n3 = it.ground.servers
        await n2.stop()
        await n2.start(longer)
        await it.whole()
        await _written(it, WRITES)
        for how, host in (("killed under load", n1), ("stopped in order", n2)):
            await (host.kill() if host is n1 else host.stop())
            folders[how] = _copy(host.data_dir / "raft", lab.scratch / host.name)
        await n3.kill()
        folders["killed, alone"] = _copy(n3.data_dir / "raft", lab.scratch / n3.name)
    return [await _original(how, folder, lab) for how, folder in folders.items()]


async def _written(it: Cluster, count: int) -> None:
    async def written() -> bool:
        return it.writers.total >= count

    await until(written, f"{count} writes are not acknowledged", WRITTEN_S_MAX)


async def _original(how: str, folder: Path, lab: Lab) -> Original:
    whole = await opened(_copy(folder, lab.scratch / "copy"))
    again = await opened(lab.scratch / "copy", whole.applied)
    if whole.fault or not whole.same_as(again):
        raise Trouble(f"an unchanged directory ({how}) does not open twice alike: {whole.fault}")
    sizes = {kind: len(_files(folder, kind)) for kind in KINDS}
    if not all(sizes.values()):
        raise Trouble(f"the directory of a server {how} holds {sizes}")
    lab.say(f"a server {how} left entries up to {whole.last}, {sizes['snapshot']} snapshots")
    return Original(how, folder, whole)


def _files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(_PATTERNS[kind]))


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


async def _round(lab: Lab, number: int, original: Original, rng: Random, net: str) -> Round:
    kind = KINDS[number % len(KINDS)]
    folder = _copy(original.folder, lab.scratch / "copy")
    flip = _flip(folder, kind, rng)
    start = await opened(folder, original.whole.applied)
    outcome, losses = _judge(folder, kind, flip, start, original)
    real = number % (2 * REAL_EVERY) in {0, 1} and not losses  # as many logs as snapshots
    if real:
        losses = await _real(lab, original, flip, start, net)
    return Round(
        number,
        kind,
        values={"real": float(real)},
        facts={**msgspec.structs.asdict(flip), "server": original.how, "outcome": outcome},
        losses=tuple(f"{flip.file} of a server {original.how}, {flip}: {x}" for x in losses),
    )


def _flip(folder: Path, kind: str, rng: Random) -> Flip:
    """Changes a byte anywhere in a file; its edges, with header and footer, more often."""
    path = rng.choice(_files(folder, kind))
    data = bytearray(path.read_bytes())
    edge = min(EDGE_BYTES, len(data))
    where = rng.random()
    if where < EDGE_SHARE:
        offset = rng.randrange(edge)
    elif where < 2 * EDGE_SHARE:
        offset = len(data) - 1 - rng.randrange(edge)
    else:
        offset = rng.randrange(len(data))
    old = data[offset]
    data[offset] = old ^ rng.randrange(1, 256)
    path.write_bytes(data)
    return Flip(path.name, offset, old, data[offset])


def _judge(
    folder: Path, kind: str, flip: Flip, start: Opened, original: Original
) -> tuple[str, list[str]]:
    """What came of a flip, and what is wrong with that."""
    if start.fault:
        named = start.file == flip.file
        return "refused at the start", [] if named else [f"the refusal blames {start.fault}"]
    if not start.same_as(original.whole):
        return "served", [f"it started, and differs: {start}"]
    said = [event for event, file in start.said if file in {flip.file, ""}]
    if "snapshot_passed_over" in said:
        return "repaired from the older snapshot and the log", []
    if "log_tail_cut" in said:
        return "cut off with a tail that held nothing, nothing differs", []
    if kind == "snapshot" and found_when_read(folder, flip.file):
        return "not read at the start, found when read, nothing differs", []
    return "not noticed", ["nothing noticed it"]


async def _real(lab: Lab, original: Original, flip: Flip, start: Opened, net: str) -> list[str]:
    """Starts a real process on the same flip; gives in what it differs from `start`."""
    data = lab.scratch / "real"
    shutil.rmtree(data, ignore_errors=True)
    path = _copy(original.folder, data / "raft") / flip.file
    changed = bytearray(path.read_bytes())
    changed[flip.offset] = flip.new
    path.write_bytes(changed)
    log = lab.scratch / "real.log"
    log.write_bytes(b"")
    host = _server(f"{net}.1", data, log)
    await host.start()
    try:
        answered = await _answers(host)
        refused = host.pid is None
        code = await host.stop() if refused else 0
    finally:
        await host.kill()
    text = log.read_text("utf-8", "replace")
    if start.fault:
        right = refused and code == 1 and flip.file in text
        return [] if right else [f"a real process does not refuse it (exit {code}): {text[-300:]}"]
    return [] if answered else [f"a real process does not serve it: {text[-300:]}"]


def _server(address: str, data: Path, log: Path) -> ProcessHost:
    command = [
        *(sys.executable, "-m", "raftreg_cli.main", "server", "--node", "figures"),
        *("--data-dir", str(data), "--bind", address, "--client", address),
    ]
    return ProcessHost("figures", address, leash.command(command), data_dir=data, log=log)


async def _answers(host: ProcessHost) -> bool:
    """Waits until it answers a stale read or has ended; tells which."""
    async with HttpDoor({host.name: Endpoint(host.address)}) as door:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S_MAX):
                while host.pid is not None:
                    with contextlib.suppress(NotSent, NoAnswer):
                        answer = await door.request(
                            host.name, "GET", "/v1/kv/figures?keys&stale", timeout_s=2.0
                        )
                        if answer.status == 200:
                            return True
                    await asyncio.sleep(0.02)
    return False
