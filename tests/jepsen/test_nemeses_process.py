"""Faults of processes, on a real cluster: each acts, is proved, and leaves a whole cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from typing import cast

import pytest
import pytest_asyncio

from jepsen_like.ground.api import Ground, Host
from jepsen_like.ground.build import LocalGround, Settings, build
from jepsen_like.ground.hosts import ProcessHost
from jepsen_like.nemeses import process
from jepsen_like.nemeses.base import Fault
from tests.e2e.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalGround]:
    """Three servers on loopback; each test leaves them whole."""
    logs = tmp_path_factory.mktemp("logs")
    async with build(Settings(logs=logs, servers=3, loopback=True)) as built:
        yield built


async def whole(ground: LocalGround) -> None:
    """Waits until every server runs, is not paused, and answers a linearizable read."""

    async def answers() -> bool:
        asked = [await ground.ask(h, "/v1/kv/none?keys&consistent") for h in ground.servers]
        return all(a == [] or (isinstance(a, dict) and a["status"] == 404) for a in asked)

    await until("all servers answer", answers)


@pytest.mark.timeout(120)
async def test_every_fault_acts_is_proved_and_healed(ground: LocalGround) -> None:
    """One after the other on the same cluster; healing twice is harmless and claims nothing."""
    for number, kind in enumerate(process.FAULTS):
        fault: Fault = kind()
        await fault.inject(ground, Random(number))
        assert (await fault.heal(ground)).acted, kind.name
        assert not (await fault.heal(ground)).acted, kind.name
        await whole(ground)


async def test_kills_and_pauses_hit_whom_they_name(ground: LocalGround) -> None:
    """The leader; a majority at once; the states are what the kernel says."""
    leader = await ground.leader()
    assert leader is not None
    kill = process.KillLeader()
    assert list((await kill.inject(ground, Random(1)))["killed"]) == [leader.name]
    assert leader.state() == "-"
    await kill.heal(ground)
    await whole(ground)
    majority = process.KillMajority()
    assert len((await majority.inject(ground, Random(1)))["killed"]) == 2
    assert sorted(host.state() == "-" for host in ground.servers) == [False, True, True]
    await majority.heal(ground)
    await whole(ground)
    pause = process.PauseLeader()
    paused = ground.host((await pause.inject(ground, Random(1)))["paused"])
    assert paused.state() == "T"
    await pause.heal(ground)
    assert paused.state() != "T"


async def test_healing_without_injection_leaves_a_whole_cluster(ground: LocalGround) -> None:
    """Whatever state servers are in, all run afterwards; nothing is claimed."""
    one, other, _ = ground.servers
    await one.kill()
    assert isinstance(other, ProcessHost)
    pause = process.PauseOne()
    assert not (await pause.heal(ground)).acted
    await whole(ground)


async def test_a_process_that_ended_under_the_pause_is_no_proof(ground: LocalGround) -> None:
    """It was not paused until the end; it runs again after healing."""
    pause = process.PauseOne()
    paused = ground.host((await pause.inject(ground, Random(1)))["paused"])
    await paused.kill()
    assert not (await pause.heal(ground)).acted
    await whole(ground)


class Leaderless:
    """A ground in which nobody leads."""

    def __init__(self) -> None:
        self.servers: list[Host] = []

    async def leader(self, timeout_s: float = 5.0) -> Host | None:
        """Nobody."""
        del timeout_s
        return None


async def test_without_a_leader_nobody_is_hit() -> None:
    """A fault that found nobody says so and is not proved."""
    empty = cast(Ground, Leaderless())
    kill, pause = process.KillLeader(), process.PauseLeader()
    assert await kill.inject(empty, Random(1)) == {"killed": {}}
    assert await pause.inject(empty, Random(1)) == {"paused": None}
    assert not (await pause.heal(empty)).acted
    assert not (await kill.heal(empty)).acted
