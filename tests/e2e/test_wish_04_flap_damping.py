"""Wish 4: a check that flaps is damped, so that its service does not come and go."""

from __future__ import annotations

import itertools

from tests.e2e.ask import Ask
from tests.e2e.cluster import Cluster
from tests.e2e.deltas import following
from tests.e2e.targets import target
from tests.e2e.waiting import until

_SHOWN_FALLS_MAX = 5  # the fifth fall within a minute is over the limit of four
_PROBES = 14


async def test_wish_04_a_flapping_check_is_held_critical(mesh: Cluster, ask: Ask) -> None:
    """A check that fails every second time is shown a few times, then held, and says why."""
    agent, server = mesh.agents[0], mesh.servers[0]
    check_id = "flapping-check"
    async with target() as service, following([server]) as deltas:
        service.answers(lambda number: number % 2 == 0)
        check = {"CheckID": check_id, "HTTP": service.url, "Interval": "1s", "Timeout": "1s"}
        await ask.register(agent, "flapping", Check=check)

        async def probed() -> bool:
            return service.probes >= _PROBES

        async def held() -> bool:
            row = (await ask.get(agent, "/v1/agent/checks")).json()[check_id]
            return row["Status"] == "critical" and "flapping: held critical" in row["Output"]

        await until(f"{_PROBES} probes", probed)
        await until("a success is held back, with the reason", held)
        shown = [d for d in deltas.seen[server.name] if d.kind == "check" and d.id == check_id]
        await ask.put(agent, f"/v1/agent/service/deregister/flapping-at-{agent.name}")
    statuses = [delta.row.status.value for delta in shown if delta.row is not None]  # type: ignore[union-attr]
    falls = sum(
        before == "passing" and after == "critical"
        for before, after in itertools.pairwise(statuses)
    )
    assert 0 < falls <= _SHOWN_FALLS_MAX, statuses


async def test_wish_04_thresholds_keep_single_failures_from_discovery(
    mesh: Cluster, ask: Ask
) -> None:
    """With FailuresBeforeCritical 3, a single failure among successes is never shown."""
    agent, server = mesh.agents[0], mesh.servers[0]
    check_id = "steady-check"
    async with target() as service, following([server]) as deltas:
        service.answers(lambda number: number % 3 != 1)
        check = {
            "CheckID": check_id,
            "HTTP": service.url,
            "Interval": "1s",
            "Status": "passing",
            "FailuresBeforeCritical": 3,
        }
        await ask.register(agent, "steady", Check=check)

        async def probed() -> bool:
            return service.probes >= 7

        await until("seven probes, two of them failed", probed)
        await ask.put(agent, f"/v1/agent/service/deregister/steady-at-{agent.name}")
    assert deltas.statuses(check_id) <= {"passing", "gone"}
