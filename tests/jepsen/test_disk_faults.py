"""Faults of disks, clocks and membership on a real cluster: each acts, is proved, and is healed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
import pytest_asyncio

from jepsen_like.ground import clock, disk
from jepsen_like.ground.api import Ground, Host
from jepsen_like.ground.build import LocalGround, Settings, build
from jepsen_like.ground.hosts import ProcessHost
from jepsen_like.nemeses import operators
from jepsen_like.nemeses.base import Fault
from jepsen_like.nemeses.clock import ClockJump
from jepsen_like.nemeses.disk import (
    FlipLog,
    FsyncError,
    Outcome,
    PowerLossAll,
    TornWrite,
    _outcome,
)
from jepsen_like.nemeses.membership import TransferLeader, WipeOne
from tests.e2e.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

KEYS = 30


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalGround]:
    """Three servers on loopback with what faults need, where this machine has it."""
    settings = Settings(
        logs=tmp_path_factory.mktemp("logs"),
        servers=3,
        loopback=True,
        disk=disk.available() is None,
        clock=clock.available() is None,
    )
    async with build(settings) as built:
        yield built


async def write(ground: LocalGround, prefix: str) -> None:
    """Writes keys; each is acknowledged, by whichever server is asked."""
    for number in range(KEYS):
        host = ground.servers[number % len(ground.servers)]

        async def acknowledged(number: int = number, host: Host = host) -> bool:
            return await ground.ask(host, f"/v1/kv/{prefix}/{number}", "PUT", number) is True

        await until("the write is acknowledged", acknowledged)


async def keys(ground: LocalGround, prefix: str) -> int:
    """How many of them a linearizable read finds."""
    found = await ground.ask(ground.servers[0], f"/v1/kv/{prefix}/?keys&consistent")
    return len(found) if isinstance(found, list) else 0


@pytest.mark.parametrize(
    "kind", [PowerLossAll, TornWrite, FsyncError, FlipLog, ClockJump, WipeOne, TransferLeader]
)
async def test_a_fault_acts_and_what_was_acknowledged_is_there(
    kind: type[Fault], ground: LocalGround
) -> None:
    """It is proved to have acted, all servers are members again, and no write is missing."""
    control = ground.servers[0].disk if "disk" in kind.__module__ else ground.servers[0].clock
    if kind.needs and control is None:
        with pytest.raises(RuntimeError, match="without"):
            await kind().inject(cast("Ground", ground), Random(1))
        return
    fault = kind()
    await write(ground, kind.name)
    done = await fault.inject(cast("Ground", ground), Random(1))
    if kind is FsyncError:  # it acts on the next writes, and the server stops
        stopped = ground.host(next(iter(done)))
        await ground.ask(stopped, "/v1/kv/more", "PUT", 1)
        assert await operators.ended(stopped, 30.0)
    evidence = await fault.heal(cast("Ground", ground))
    assert evidence.acted, evidence
    assert "violation" not in evidence.facts
    assert await operators.whole(cast("Ground", ground), ground.servers)
    assert await keys(ground, kind.name) == KEYS
    again = await fault.heal(cast("Ground", ground))
    assert not again.acted


@pytest.mark.parametrize(
    ("line", "runs", "wanted"),
    [
        ("Error: wal-1.seg: corrupt at byte 3: …", False, Outcome.REFUSED),
        ("event=log_tail_cut file=wal-1.seg", True, Outcome.CUT),
        ("event=snapshot_passed_over file=wal-1.seg", True, Outcome.PASSED_OVER),
        ("Traceback wal-1.seg", False, Outcome.NO_ANSWER),
        ("", True, Outcome.UNDETECTED),
        ("rewritten", True, Outcome.UNUSED),
    ],
)
async def test_what_came_of_a_flipped_byte_is_told_apart(
    line: str, runs: bool, wanted: Outcome, tmp_path: Path
) -> None:
    """A server that runs on the damaged byte without a word is the violation."""
    (tmp_path / "raft").mkdir()
    (tmp_path / "raft" / "wal-1.seg").write_bytes(b"aXc" if line != "rewritten" else b"abc")

    class Stub:
        pid = 1 if runs else None
        data_dir = tmp_path

    flipped: dict[str, Any] = {"file": "raft/wal-1.seg", "offset": 1, "new": ord("X")}
    assert _outcome(cast("ProcessHost", Stub()), flipped, [line]) is wanted
