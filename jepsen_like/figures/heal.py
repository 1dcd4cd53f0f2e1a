"""Figure `heal`: when writes are back through every server after a partition has healed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import ClassVar, Final

from jepsen_like.figures.figure import Done, Figure, Row, median, none_lost, within
from jepsen_like.figures.lab import Cluster, Lab, Trouble, cluster
from jepsen_like.figures.record import Record, Round
from jepsen_like.ground.api import Host, Need, Rule

HOLD_S: Final = (3.0, 12.0)
BACK_S_MAX: Final = 60.0
GOAL_S: Final = 3.0
PROBE_S_MAX: Final = 0.5  #: a probe that is not answered is begun anew after this long
_PAUSE_S: Final = 0.005
_CUT: Final = Rule(drop=True)


class Heal(Figure):
    """A partition is held for 3 to 12 s, then healed."""

    name: ClassVar[str] = "heal"
    rounds: ClassVar[int] = 30
    quick_rounds: ClassVar[int] = 3
    needs: ClassVar[frozenset[Need]] = frozenset({Need.NETWORK})
    lasts: ClassVar[str] = "7 min"

    async def measure(self, lab: Lab, numbers: Sequence[int], done: Done) -> list[str]:
        """See `Figure.measure`."""
        async with cluster(lab, self.name, workers=6) as it:
            for number in numbers:
                done(await _round(it, number, KINDS[number % len(KINDS)]))
            return await it.writers.missing_anywhere()

    def rows(self, record: Record) -> list[Row]:
        """See `Figure.rows`."""
        every = record.values("back_s")
        rows = [Row("partitions healed", str(len(every)), "30", len(every) >= self.rounds)]
        for kind in KINDS:
            if some := record.values("back_s", kind):
                rows.append(
                    within(
                        f"writes back through every server, {kind}, median", median(some), GOAL_S
                    )
                )
                rows.append(within(f"the same, longest of {len(some)}", max(some), GOAL_S))
        dropped = sum(one.facts.get("dropped", 0) for one in record.rounds)
        return [*rows, Row("packets dropped", f"{dropped:,}"), none_lost(record)]

    def line(self, done: Round) -> str:
        """See `Figure.line`."""
        return (
            f"{done.kind} for {done.values['held_s']:.1f} s: "
            f"back after {done.values['back_s']:.2f} s"
        )


KINDS: Final = ("every server alone", "leader alone", "a follower alone")


async def _round(it: Cluster, number: int, kind: str) -> Round:
    network = it.ground.network
    if network is None:
        raise Trouble("there is no network that could be cut")
    await it.whole()
    name = str(number)
    it.writers.begin(name)
    rules = _rules(it, kind, await it.leader())
    before = await _dropped(it, rules)
    await network.set_rules(rules)
    held_s = it.rng.uniform(*HOLD_S)
    await asyncio.sleep(held_s)
    dropped = await _dropped(it, rules) - before
    healed_s = it.now_s()
    await network.set_rules({})
    back = await asyncio.gather(*(_back(it, host, healed_s) for host in it.ground.servers))
    if not dropped:
        raise Trouble(f"round {number}: the partition dropped no packet: it did not act")
    losses = await it.check_round(name)
    return Round(
        number,
        kind,
        values={"back_s": max(back), "held_s": held_s, "first_back_s": min(back)},
        facts={
            "dropped": dropped,
            "back_s": {h.name: round(s, 3) for h, s in zip(it.ground.servers, back, strict=True)},
        },
        losses=losses,
    )


def _rules(it: Cluster, kind: str, leader: Host) -> Mapping[tuple[str, str], Rule]:
    names = [host.name for host in it.ground.servers]
    follower = it.rng.choice([name for name in names if name != leader.name])
    alone = {
        "every server alone": set(names),
        "leader alone": {leader.name},
        "a follower alone": {follower},
    }[kind]
    return {pair: _CUT for pair in permutations(names, 2) if alone & set(pair)}


async def _dropped(it: Cluster, rules: Mapping[tuple[str, str], Rule]) -> int:
    network = it.ground.network
    assert network is not None
    counts = await network.counts()
    return sum(counts[pair].dropped for pair in rules if pair in counts)


async def _back(it: Cluster, host: Host, healed_s: float) -> float:
    """Seconds from the healing to the first acknowledgement by this server of a later write."""
    attempt = 0
    try:
        async with asyncio.timeout(BACK_S_MAX):
            while True:
                attempt += 1
                key = f"probe/{host.name}/{attempt}"
                if await it.writers.put(host.name, key, b"probe", PROBE_S_MAX):
                    return it.now_s() - healed_s
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        raise Trouble(f"no write through {host.name} {BACK_S_MAX:g} s after the healing") from None
