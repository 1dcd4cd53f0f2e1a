"""Maglev hashing: a table of a prime size in which each instance owns an equal share.

D. E. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
section 3.4: each instance has its own order of all the slots, and in turn each takes the first
free slot of its order. Shares are more even than a ring's, look-ups O(1); when an instance leaves,
a few keys of the others move too. Weights follow Envoy: an instance takes its turn in a round only
if its weight, as a share of the heaviest, has grown to the next whole turn.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from math import isqrt
from typing import Final

import msgspec

from raftreg.mesh.balance.hash_key import HashPolicy, check_policies
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Instance, MeshConfigError

#: The paper's small table; with 65 instances of one weight their shares differ by 1/1000 at most.
SLOTS: Final = 65_537
_SLOTS_MAX: Final = 5_000_011
_FREE: Final = -1


class MaglevSettings(msgspec.Struct, frozen=True, kw_only=True, tag="maglev"):
    """Settings of a maglev table.

    Attributes:
        policies: What calls are hashed by.
        slots: Size of the table, a prime number up to 5,000,011; should be 100 times the number of
            instances or more.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    policies: tuple[HashPolicy, ...] = ()
    slots: int = SLOTS

    def __post_init__(self) -> None:
        check_policies(self.policies)
        within("slots", self.slots, 3, _SLOTS_MAX)
        if any(self.slots % divisor == 0 for divisor in range(2, isqrt(self.slots) + 1)):
            raise MeshConfigError(f"slots: must be a prime number, not {self.slots}")


class Maglev:
    """A maglev table.

    Args:
        slots: Its size, a prime number.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = slots
        self._instances: Sequence[Instance] = ()
        self._table = array("l")

    def update(self, instances: Sequence[Instance]) -> None:
        """Replaces the instances; their order does not matter.

        With more instances than slots, those that come last in the order of keys own none.
        """
        self._instances = sorted(instances, key=lambda each: each.key)
        if self._instances:
            self._table = array("l", populate(self._instances, self._slots))

    def find(self, hashed: int) -> Instance | None:
        """The instance of a hash; None when there is none."""
        if not self._instances:
            return None
        return self._instances[self._table[hashed % self._slots]]


class _Order:
    """The slots in the order in which one instance wants them.

    Slot number j of the order is (offset + j * skip) mod slots; as the size is a prime number,
    every slot comes once.
    """

    __slots__ = ("at", "share", "skip", "slots", "turns", "waiting")

    def __init__(self, instance: Instance, heaviest: int, slots: int) -> None:
        encoded = instance.key.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(encoded, digest_size=16).digest()
        self.at = int.from_bytes(digest[:8]) % slots
        self.skip = int.from_bytes(digest[8:]) % (slots - 1) + 1
        self.slots = slots
        self.share = instance.weight / heaviest
        self.turns = 0.0
        #: Slots still wanted, the next one last; None while the whole order is walked.
        self.waiting: list[int] | None = None

    def takes_turn(self, round_number: int) -> bool:
        """Whether it takes a slot in this round (counted from 1)."""
        if round_number * self.share < self.turns:
            return False
        self.turns += 1.0
        return True

    def take(self, table: list[int], owner: int) -> None:
        """Takes the first free slot of its order."""
        if self.waiting is not None:
            waiting = self.waiting
            while table[slot := waiting.pop()] != _FREE:
                pass
        else:
            slot, skip, slots = self.at, self.skip, self.slots
            while table[slot] != _FREE:
                slot += skip
                if slot >= slots:
                    slot -= slots
            self.at = slot
        table[slot] = owner

    def narrow(self, free: Sequence[int]) -> None:
        """Goes on with the free slots alone, in its order: few are left, and walking is long."""
        inverse, at, slots = pow(self.skip, -1, self.slots), self.at, self.slots
        self.waiting = sorted(free, key=lambda slot: (slot - at) * inverse % slots, reverse=True)


def populate(instances: Sequence[Instance], slots: int) -> list[int]:
    """Fills a table; returns for each slot the index of the instance that owns it.

    Walking the orders costs slots * ln(slots) steps, most of them for the last slots. So when
    slots / instances are left free, each instance sorts those by its own order once.

    Args:
        instances: At least one, in an order that is the same everywhere.
        slots: Size of the table, a prime number.
    """
    heaviest = max(each.weight for each in instances)
    orders = [_Order(each, heaviest, slots) for each in instances]
    table = [_FREE] * slots
    left, narrow_at, round_number = slots, slots // len(instances), 0
    while True:
        round_number += 1
        for owner, order in enumerate(orders):
            if not order.takes_turn(round_number):
                continue
            order.take(table, owner)
            left -= 1
            if left == narrow_at:
                free = [slot for slot, taken in enumerate(table) if taken == _FREE]
                for each in orders:
                    each.narrow(free)
            if left == 0:
                return table
