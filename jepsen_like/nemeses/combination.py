"""Which faults come next: one, several at a time, or a seeded mixture of what can be done."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Final, Protocol

from jepsen_like.ground.api import Need
from jepsen_like.nemeses.base import Fault

NONE: Final = "none"  #: the nemesis that leaves the cluster in peace
MIXED: Final = "mixed"  #: the nemesis that draws from all
TOGETHER: Final = "+"  #: between names of faults that act at the same time
_PAIR_SHARE: Final = 0.4  #: how often the mixture has two faults at a time

#: Families whose faults stop, restart or replace servers: two of them at a time could take more
#: servers than a cluster survives, or spoil each other's proof.
_OF_SERVERS: Final = frozenset({"process", "disk", "membership", "stagger"})
#: Families whose faults are several at a time already, cuts of the network among them.
_ALONE: Final = frozenset({"stagger"})


class UnknownName(Exception):
    """There is no such thing; the text names the nearest ones."""


class Unable(Exception):
    """The machine, or the cluster of this run, cannot do it; the text says why."""


class Menu(Protocol):
    """Says what is injected next."""

    @property
    def faults(self) -> Sequence[Fault]:
        """All that may come, each once."""
        ...

    def next(self) -> Sequence[Fault]:
        """The faults of the next round, injected in this order; empty: none ever."""
        ...


class Together:
    """The same faults every round.

    Args:
        faults: In the order of their injection; none for a run in peace.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)

    def next(self) -> Sequence[Fault]:
        """Always all."""
        return self.faults


class Mixed:
    """One fault a round or two compatible ones, in an order that the seed decides.

    All come once before one comes again, so that a long run leaves none out.

    Args:
        faults: To draw from.
        rng: Decides.
    """

    def __init__(self, faults: Sequence[Fault], rng: Random) -> None:
        self.faults = tuple(faults)
        self._rng = rng
        self._bag: list[Fault] = []

    def next(self) -> Sequence[Fault]:
        """The next of the bag, at times with the next one that it can be combined with."""
        first = self._draw()
        if self._rng.random() >= _PAIR_SHARE:
            return (first,)
        at = next((i for i, one in enumerate(self._bag) if compatible(first, one)), None)
        return (first,) if at is None else (first, self._bag.pop(at))

    def _draw(self) -> Fault:
        if not self._bag:
            self._bag = list(self.faults)
            self._rng.shuffle(self._bag)
        return self._bag.pop(0)


def family(fault: Fault | type[Fault]) -> str:
    """The module that a fault is from: "network", "process", "disk", "clock", …."""
    kind = fault if isinstance(fault, type) else type(fault)
    return kind.__module__.rpartition(".")[2]


def compatible(one: Fault, other: Fault) -> bool:
    """They may act at the same time: of different families, and not both taking servers away."""
    families = {family(one), family(other)}
    return len(families) == 2 and not families <= _OF_SERVERS and not families & _ALONE


def parts(name: str, known: Mapping[str, type[Fault]]) -> list[type[Fault]]:
    """The faults that a nemesis may inject, whether or not the machine can.

    Args:
        name: "none", "mixed", the name of a fault, or names joined with "+".
        known: All faults by name.

    Raises:
        UnknownName: A name that is none of these.
        Unable: The faults joined would undo each other.
    """
    if name == NONE:
        return []
    if name == MIXED:
        return [kind for key, kind in known.items() if key != NONE]
    found = [known[one] for one in _checked(name.split(TOGETHER), known)]
    if len({family(kind) for kind in found}) < len(found):
        raise Unable(f"{name}: faults of the same family would undo each other")
    return found


def _checked(names: Iterable[str], known: Mapping[str, type[Fault]]) -> Iterable[str]:
    for name in names:
        if name not in known or name == NONE:
            raise UnknownName(unknown("nemesis", name, [*known, MIXED, NONE]))
        yield name


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The text about a name that nothing has, with the nearest ones."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
    return f"there is no {what} {name!r}: {hint}"


def missing(kind: type[Fault], lacks: Mapping[Need, str]) -> str | None:
    """Why the machine can't do a fault; None when it can.

    Args:
        kind: The fault.
        lacks: What the machine can't offer, each with the reason.
    """
    reasons = [lacks[need] for need in sorted(kind.needs, key=lambda n: n.value) if need in lacks]
    return "; ".join(reasons) or None


def menu(
    name: str,
    known: Mapping[str, type[Fault]],
    lacks: Mapping[Need, str],
    rng: Random,
    *,
    agents: int = 0,
) -> Menu:
    """Makes the menu of a nemesis.

    Args:
        name: As for `parts`.
        known: All faults by name.
        lacks: What the machine can't offer, each with the reason.
        rng: Decides what "mixed" draws.
        agents: How many agents the run has; "mixed" leaves out what needs more.

    Raises:
        UnknownName: See `parts`.
        Unable: A fault that was named can't be done, or nothing is left for "mixed".
    """
    kinds = parts(name, known)
    if name == MIXED:
        able = [k for k in kinds if missing(k, lacks) is None and k.agents <= agents]
        if not able:
            raise Unable(f"{name}: this machine can do none of the faults")
        return Mixed([kind() for kind in able], rng)
    for kind in kinds:
        if reason := missing(kind, lacks):
            raise Unable(f"{kind.name}: {reason}")
    return Together([kind() for kind in kinds])
