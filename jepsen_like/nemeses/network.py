"""Faults of the network: cuts of several shapes, and paths that lose, delay, reorder, repeat.

Each is a set of rules for the switch; the switch's counters on the lanes with a rule are the proof.
Clients reach every host all the time, so that they see what each side of a cut answers.

Shapes after Jepsen's nemeses (https://jepsen-io.github.io/jepsen/jepsen.nemesis.html).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from random import Random
from typing import Any, ClassVar, Final

from jepsen_like.ground.api import Ground, Need, Network, PairCount, Rule
from jepsen_like.nemeses.base import Evidence, Fault

CUT: Final = Rule(drop=True)

Pair = tuple[str, str]
Rules = dict[Pair, Rule]


class NoNetwork(Exception):
    """The ground has no switch: this fault can't be done on it."""


def between(left: Iterable[str], right: Iterable[str], rule: Rule = CUT) -> Rules:
    """Rules for both directions between two groups."""
    right = list(right)
    pairs = [(one, other) for one in left for other in right]
    return {pair: rule for a, b in pairs for pair in ((a, b), (b, a))}


def ring(order: Sequence[str]) -> Rules:
    """Each host sees the two beside it only; of three or fewer hosts a line stays, not a circle."""
    count = len(order)
    closed = count > 3
    far = [
        (order[i], order[j])
        for i in range(count)
        for j in range(i + 2, count)
        if not (closed and i == 0 and j == count - 1)
    ]
    return {pair: CUT for a, b in far for pair in ((a, b), (b, a))}


def bridge(order: Sequence[str]) -> Rules:
    """Two halves that don't see each other; the host in the middle sees both."""
    middle = len(order) // 2
    return between(order[:middle], order[middle + 1 :])


class Lanes(Fault):
    """A fault that is a set of rules; subclasses say which, and which counter proves it.

    Class attributes:
        counter: The field of `PairCount` that must grow.

    Attributes:
        rules: Those in force; empty while it is not injected.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.NETWORK})
    counter: ClassVar[str] = "dropped"

    def __init__(self) -> None:
        self.rules: Rules = {}
        self._before: dict[Pair, PairCount] = {}

    @abstractmethod
    async def plan(self, ground: Ground, rng: Random) -> tuple[Rules, dict[str, Any]]:
        """The rules, and what to note in the history. No rules: it can't be done now."""

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """Sets the rules.

        Raises:
            NoNetwork: The ground has none.
        """
        network = _network(ground)
        rules, done = await self.plan(ground, rng)
        await network.set_rules(rules)
        # Counted from here on: what passes a lane that is cut, passes in spite of the cut.
        self._before = await network.counts()
        self.rules = rules
        return done

    async def heal(self, ground: Ground) -> Evidence:
        """Removes all rules; the proof is what the counters say since they were set."""
        if ground.network is None:
            return Evidence(acted=False, facts={"why": "there is no switch"})
        after = await ground.network.counts()
        await ground.network.set_rules({})
        rules, self.rules = self.rules, {}
        grown = {pair: _grown(self._before.get(pair, PairCount()), after[pair]) for pair in rules}
        return self.judge(rules, grown)

    def judge(self, rules: Mapping[Pair, Rule], grown: Mapping[Pair, PairCount]) -> Evidence:
        """Whether the counters of the lanes with rules prove that the fault acted."""
        del rules
        return Evidence(acted=_sum(grown, self.counter) > 0, facts=_totals(grown))


class Cut(Lanes):
    """A partition: it acted if packets were dropped, and none passed a lane that was cut."""

    def judge(self, rules: Mapping[Pair, Rule], grown: Mapping[Pair, PairCount]) -> Evidence:
        """See the class; a cut that comes and goes must also have let packets pass."""
        leaks = any(
            rule.drop and not rule.flap_s and grown[pair].passed for pair, rule in rules.items()
        )
        dropped = {f"{a}>{b}": count.dropped for (a, b), count in grown.items() if count.dropped}
        flapping = any(rule.flap_s for rule in rules.values())
        acted = bool(dropped) and not leaks and (not flapping or _sum(grown, "passed") > 0)
        return Evidence(acted=acted, facts={**_totals(grown), "dropped_of": dropped})


class PartitionLeader(Cut):
    """The leader alone on one side, all others on the other."""

    name = "partition-leader"

    async def plan(self, ground: Ground, rng: Random) -> tuple[Rules, dict[str, Any]]:
        """Finds the leader."""
        del rng
        leader = await ground.leader()
        if leader is None:
            return {}, {"leader": None}
        rest = [name for name in _servers(ground) if name != leader.name]
        return between([leader.name], rest), {"leader": leader.name, "sides": [[leader.name], rest]}


class PartitionMinority(Cut):
    """As many followers as the cluster can spare are cut off; the leader keeps its majority."""

    name = "partition-minority"

    async def plan(self, ground: Ground, rng: Random) -> tuple[Rules, dict[str, Any]]:
        """Draws the followers."""
        leader = await ground.leader()
        names = _servers(ground)
        followers = [name for name in names if leader is None or name != leader.name]
        few = sorted(rng.sample(followers, (len(names) - 1) // 2))
        rest = [name for name in names if name not in few]
        return between(few, rest), {"sides": [few, rest]}


class PartitionMajority(Cut):
    """Two halves at random; the larger one may have to elect a leader."""

    name = "partition-majority"

    async def plan(self, ground: Ground, rng: Random) -> tuple[Rules, dict[str, Any]]:
        """Draws the halves."""
        order = _shuffled(_servers(ground), rng)
        half = len(order) // 2
        some, others = sorted(order[:half]), sorted(order[half:])
        return between(some, others), {"sides": [some, others]}


class PartitionRing(Cut):
    """A ring: each server sees its two neighbours only, every one another majority."""

    name = "partition-ring"

    async def plan(self, ground: Ground, rng: Random) -> tuple[Rules, dict[str, Any]]:
        """Draws the order."""
        order = _shuffled(_servers(ground), rng)
        return ring(order), {"order": order}


class PartitionBridge(Cut):
    """Two halves that only one server sees both of."""

    name = "partition-bridge"

    async def plan(self, ground: Ground, rng: Random) -> tuple[Rules, dict[str, Any]]:
        """Draws the order."""
        order = _shuffled(_servers(ground), rng)
        middle = len(order) // 2
        return bridge(order), {"bridge": order[middle], "order": order}


class PartitionOneWay(Cut):
    """One server, often the leader, is heard but hears nothing, or the other way round."""

    name = "partition-one-way"

    async def plan(self, ground: Ground, rng: Random) -> tuple[Rules, dict[str, Any]]:
        """Draws the server and the direction."""
        leader = await ground.leader() if rng.random() < 0.5 else None
        names = _servers(ground)
        one = leader.name if leader is not None else rng.choice(names)
        outward = rng.random() < 0.5
        others = [name for name in names if name != one]
        pairs = [(one, other) if outward else (other, one) for other in others]
        side = "nobody hears it" if outward else "it hears nobody"
        return dict.fromkeys(pairs, CUT), {"server": one, "cut": side}


class PartitionFlapping(Cut):
    """A cut around one server, the leader if there is one, that comes and goes."""

    name = "partition-flapping"
    hold_s = (4.0, 8.0)

    async def plan(self, ground: Ground, rng: Random) -> tuple[Rules, dict[str, Any]]:
        """Draws the period, from shorter than an election timeout to longer."""
        leader = await ground.leader()
        names = _servers(ground)
        one = leader.name if leader is not None else rng.choice(names)
        flap_s = round(rng.uniform(0.2, 1.5), 3)
        rest = [name for name in names if name != one]
        return between([one], rest, Rule(drop=True, flap_s=flap_s)), {
            "sides": [[one], rest],
            "flap_s": flap_s,
        }


class PartitionAgents(Cut):
    """All agents on one side, all servers on the other."""

    name = "partition-agents"
    agents = 1

    async def plan(self, ground: Ground, rng: Random) -> tuple[Rules, dict[str, Any]]:
        """There is nothing to draw."""
        del rng
        agents = [host.name for host in ground.agents]
        servers = [host.name for host in (*ground.servers, *ground.spares)]
        return between(agents, servers), {"sides": [agents, servers]}


class Everywhere(Lanes):
    """The same rule on every lane among servers and agents."""

    @abstractmethod
    def rule(self, rng: Random) -> Rule:
        """Draws it."""

    async def plan(self, ground: Ground, rng: Random) -> tuple[Rules, dict[str, Any]]:
        """Every lane but those of clients."""
        rule = self.rule(rng)
        names = [host.name for host in (*ground.servers, *ground.spares, *ground.agents)]
        default = Rule()
        changed = {
            field: getattr(rule, field)
            for field in rule.__struct_fields__
            if getattr(rule, field) != getattr(default, field)
        }
        return dict.fromkeys(permutations(names, 2), rule), changed


class Loss(Everywhere):
    """Packets are lost here and there."""

    name = "loss"

    def rule(self, rng: Random) -> Rule:
        """From what is bad to what is hardly a network."""
        return Rule(loss=round(rng.uniform(0.05, 0.3), 3))


class Delay(Everywhere):
    """Every packet takes longer."""

    name = "delay"
    counter = "delayed"

    def rule(self, rng: Random) -> Rule:
        """From another town to another continent, one way."""
        delay_s = round(rng.uniform(0.02, 0.15), 3)
        return Rule(delay_s=delay_s, jitter_s=delay_s / 10)


class Reorder(Everywhere):
    """Packets overtake each other."""

    name = "reorder"
    counter = "reordered"

    def rule(self, rng: Random) -> Rule:
        """Some milliseconds, more or less."""
        return Rule(delay_s=0.001, jitter_s=round(rng.uniform(0.01, 0.05), 3))


class Bandwidth(Everywhere):
    """Every path is narrow; what does not fit in its queue is lost."""

    name = "bandwidth"
    counter = "throttled"

    def rule(self, rng: Random) -> Rule:
        """A lane carries about 12 KiB/s at 50 operations a second: about that, or less."""
        return Rule(rate_bytes_per_s=rng.randrange(4, 13) << 10)


class Duplicate(Everywhere):
    """Packets come twice, the second time later."""

    name = "duplicate"
    counter = "duplicated"

    def rule(self, rng: Random) -> Rule:
        """A good part of them."""
        return Rule(duplicate=round(rng.uniform(0.1, 0.5), 3), jitter_s=0.005)


FAULTS: Final[tuple[type[Fault], ...]] = (
    PartitionLeader,
    PartitionMinority,
    PartitionMajority,
    PartitionRing,
    PartitionBridge,
    PartitionOneWay,
    PartitionFlapping,
    PartitionAgents,
    Loss,
    Delay,
    Reorder,
    Bandwidth,
    Duplicate,
)


def _network(ground: Ground) -> Network:
    if ground.network is None:
        raise NoNetwork("the hosts share this machine's loopback: there is no switch between them")
    return ground.network


def _servers(ground: Ground) -> list[str]:
    return [host.name for host in ground.servers]


def _shuffled(names: Sequence[str], rng: Random) -> list[str]:
    return rng.sample(names, len(names))


def _grown(before: PairCount, after: PairCount) -> PairCount:
    return PairCount(
        **{
            field: getattr(after, field) - getattr(before, field)
            for field in PairCount.__struct_fields__
        }
    )


def _sum(counts: Mapping[Pair, PairCount], field: str) -> int:
    return sum(getattr(count, field) for count in counts.values())


def _totals(counts: Mapping[Pair, PairCount]) -> dict[str, int]:
    """Sums over the lanes with rules, without zeros except what passed."""
    sums = {field: _sum(counts, field) for field in PairCount.__struct_fields__}
    return {field: number for field, number in sums.items() if number or field == "passed"}
