"""Figure `divergent`: how soon a leader rejoins that alone has thousands of other entries."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import ClassVar, Final

from jepsen_like.door import NoAnswer, NotSent
from jepsen_like.figures.figure import Done, Figure, Row, none_lost, within
from jepsen_like.figures.lab import Cluster, Lab, Trouble, cluster, settings_file, until
from jepsen_like.figures.record import Record, Round
from jepsen_like.ground.api import Host, Need, Rule

ENTRIES: Final = 10_000
QUICK_ENTRIES: Final = 500
AT_ONCE: Final = 400
FILLS_MAX: Final = 6  #: not all that are sent on a busy machine are taken
WRITE_TIMEOUT_S: Final = 1.0
REJOIN_S_MAX: Final = 120.0
ELECTED_S_MAX: Final = 30.0
GOAL_S: Final = 10.0
APPLIED_S_MAX: Final = 20.0
#: Answers that a proposal gets when its time is over are there by then.
ABANDONED_S: Final = WRITE_TIMEOUT_S + 2.0
_POLL_S: Final = 0.01
_ROOT: Final = "divergent"
_CUT: Final = Rule(drop=True)


class Divergent(Figure):
    """A leader is cut off, takes writes that never commit, and comes back."""

    name: ClassVar[str] = "divergent"
    rounds: ClassVar[int] = 5
    quick_rounds: ClassVar[int] = 1
    needs: ClassVar[frozenset[Need]] = frozenset({Need.NETWORK})
    lasts: ClassVar[str] = "5 min"

    async def measure(self, lab: Lab, numbers: Sequence[int], done: Done) -> list[str]:
        """See `Figure.measure`."""
        settings = f"[http]\nwrite_timeout_s = {WRITE_TIMEOUT_S}\n"
        entries = QUICK_ENTRIES if lab.quick else ENTRIES
        async with cluster(
            lab,
            self.name,
            workers=3,
            command_prefix=(sys.executable, "-m", "jepsen_like.figures.stubborn"),
            server_flags=settings_file(lab, "impatient", settings),
        ) as it:
            for number in numbers:
                done(await _round(it, number, entries))
            return await it.writers.missing_anywhere()

    def rows(self, record: Record) -> list[Row]:
        """See `Figure.rows`."""
        fewest = int(min(record.values("entries")))
        rejoin = record.values("rejoin_s")
        surviving = int(sum(record.values("surviving")))
        return [
            Row("times a leader was cut off", str(len(rejoin))),
            Row(
                "divergent entries each time, at least", f"{fewest:,}", "10,000", fewest >= ENTRIES
            ),
            within(
                f"until it has all of the others' entries, longest of {len(rejoin)}",
                max(rejoin),
                GOAL_S,
            ),
            Row("divergent writes seen anywhere afterwards", str(surviving), "0", surviving == 0),
            none_lost(record),
        ]

    def line(self, done: Round) -> str:
        """See `Figure.line`."""
        return (
            f"{done.values['entries']:,.0f} divergent entries, "
            f"rejoined after {done.values['rejoin_s']:.2f} s"
        )


async def _round(it: Cluster, number: int, entries: int) -> Round:
    network = it.ground.network
    if network is None:
        raise Trouble("there is no network that could be cut")
    await it.whole()
    name = str(number)
    it.writers.begin(name)
    old = await it.leader()
    others = [host for host in it.ground.servers if host is not old]
    pairs = [(old.name, host.name) for host in others]
    await network.set_rules({p: _CUT for pair in pairs for p in (pair, pair[::-1])})
    await _another_leads(it, old)
    taken, divergent = await _diverge(it, old, number, entries)
    await asyncio.sleep(ABANDONED_S)  # nobody waits for them any more: nobody repeats them
    healed_s = it.now_s()
    target = await _commit_index(it, others)
    await network.set_rules({})
    await _caught_up(it, old, target)
    rejoin_s = it.now_s() - healed_s
    await it.whole()
    losses, surviving = await _check(it, name, number)
    if taken:
        losses.append(f"round {name}: {taken} writes were acknowledged by a leader that was alone")
    return Round(
        number,
        values={"entries": divergent, "rejoin_s": rejoin_s, "surviving": surviving},
        facts={"leader": old.name, "acknowledged_alone": taken, "target_index": target},
        losses=tuple(losses),
    )


async def _another_leads(it: Cluster, old: Host) -> None:
    async def elected() -> bool:
        return await it.ground.leader() not in {None, old}

    await until(elected, "the others elect no leader", ELECTED_S_MAX)


async def _diverge(it: Cluster, old: Host, number: int, entries: int) -> tuple[int, float]:
    """Sends writes to the leader that is alone until so many entries of it are uncommitted.

    Returns:
        How many it acknowledged, which must be 0; how many entries are uncommitted.
    """
    sent, taken, divergent = 0, 0, 0.0
    for _ in range(FILLS_MAX):
        more = round(entries - divergent)
        taken += await _fill(it, old, number, range(sent, sent + more))
        sent += more
        divergent = await _uncommitted(it, old)
        if divergent >= entries:
            break
    return taken, divergent


async def _fill(it: Cluster, old: Host, number: int, keys: range) -> int:
    """Sends one write for each key; gives how many were acknowledged."""
    numbers = iter(keys)
    acknowledged = 0

    async def send() -> None:
        nonlocal acknowledged
        for one in numbers:
            key = f"/v1/kv/{_ROOT}/{number}/{one}"
            try:
                answer = await it.door.request(old.name, "PUT", key, body=b"divergent")
            except (NotSent, NoAnswer):
                continue
            acknowledged += answer.status == 200

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(send())
    return acknowledged


async def _uncommitted(it: Cluster, host: Host) -> float:
    metrics = await it.metrics(host)
    try:
        return metrics["raftreg_raft_last_log_index"] - metrics["raftreg_raft_commit_index"]
    except KeyError:
        raise Trouble(f"{host.name} gives no metrics") from None


async def _commit_index(it: Cluster, hosts: Sequence[Host]) -> float:
    found = [(await it.metrics(host)).get("raftreg_raft_commit_index", 0.0) for host in hosts]
    return max(found)


async def _caught_up(it: Cluster, old: Host, target: float) -> None:
    """Until it has applied all that was committed when the partition healed.

    Its own entries lie at the same indexes, but can't be applied: the others hold the majority.
    """

    async def applied() -> bool:
        return (await it.metrics(old)).get("raftreg_raft_applied_index", 0.0) >= target

    await until(applied, f"{old.name} is not back after the healing", REJOIN_S_MAX, _POLL_S)


async def _check(it: Cluster, name: str, number: int) -> tuple[list[str], int]:
    """Every server, by its own state, has what was acknowledged and nothing that diverged."""
    it.writers.begin(f"{name}-after")  # from here on nothing is added to the round
    losses: list[str] = []
    surviving = 0
    for host in it.ground.servers:
        losses += await _missing_at(it, name, host)
        found = await it.writers.read(f"{_ROOT}/{number}/", server=host.name)
        if found is None:
            raise Trouble(f"{host.name} answers no stale read")
        surviving += len(found)
    if surviving:
        losses.append(f"round {name}: {surviving} writes that nobody acknowledged came back")
    return losses, surviving


async def _missing_at(it: Cluster, name: str, host: Host) -> list[str]:
    """What a server lacks that has had time to apply what it has heard."""
    missing: list[str] = []

    async def nothing() -> bool:
        missing[:] = await it.writers.missing(name, server=host.name)
        return not missing

    with contextlib.suppress(Trouble):
        await until(nothing, f"{host.name} lacks acknowledged writes", APPLIED_S_MAX, 0.1)
    return missing
