"""What is known of the load of instances: calls that began and have not ended, by key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from raftreg.mesh.nouns import Instance


class Load:
    """Load of one instance.

    Args:
        instance: Whose it is.

    Attributes:
        instance: As the registry has it now.
        share: Its weight as a multiple of the mean weight of the set.
        pending: Calls that began and have not ended.
    """

    __slots__ = ("instance", "pending", "share")

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.share = 1.0
        self.pending = 0


L = TypeVar("L", bound=Load)


class Loads(Generic[L]):
    """Loads of a set of instances that is replaced whole.

    The load of an instance that left is kept until its last call ended, so that one that comes
    back (an ejection that is over) does not look idle; no more are kept than calls are in flight.

    Args:
        make: Makes the load of an instance that is new.
    """

    def __init__(self, make: Callable[[Instance], L]) -> None:
        self._make = make
        self._present: dict[str, L] = {}
        self._departed: dict[str, L] = {}
        self.entries: Sequence[L] = ()

    def update(self, instances: Sequence[Instance]) -> None:
        """Takes another set of instances; what is known of those that stay is kept."""
        before, self._present = self._present, {}
        mean = sum(each.weight for each in instances) / len(instances) if instances else 1.0
        for instance in instances:
            entry = before.pop(instance.key, None) or self._departed.pop(instance.key, None)
            if entry is None:
                entry = self._present.get(instance.key) or self._make(instance)
            entry.instance = instance
            entry.share = instance.weight / mean
            self._present[instance.key] = entry
        self._departed.update((key, entry) for key, entry in before.items() if entry.pending)
        self.entries = tuple(self._present.values())

    def began(self, instance: Instance) -> None:
        """A call to it began; it may have left since it was chosen."""
        entry = self._present.get(instance.key) or self._departed.get(instance.key)
        if entry is None:
            entry = self._departed[instance.key] = self._make(instance)
        entry.pending += 1

    def ended(self, instance: Instance) -> L | None:
        """A call to it ended; returns its load when it is in the set."""
        entry = self._present.get(instance.key)
        if entry is not None:
            entry.pending = max(0, entry.pending - 1)
            return entry
        gone = self._departed.get(instance.key)
        if gone is not None:
            gone.pending -= 1
            if gone.pending <= 0:
                del self._departed[instance.key]
        return None
