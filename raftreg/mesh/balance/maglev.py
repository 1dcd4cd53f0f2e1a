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
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, cycle
from math import isqrt
from typing import Final

import msgspec

from raftreg.mesh.balance.hash_key import HashPolicy, check_policies
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Instance, MeshConfigError

#: The paper's small table; with 65 instances of one weight their shares differ by 1/1000 at most.
SLOTS: Final = 65_537
_SLOTS_MAX: Final = 5_000_011


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
        self._table = array("L")

    def update(self, instances: Sequence[Instance]) -> None:
        """Replaces the instances; their order does not matter.

        With more instances than slots, those that come last in the order of keys own none.
        """
        self._instances = sorted(instances, key=lambda each: each.key)
        if self._instances:
            self._table = array("L", populate(self._instances, self._slots))

    def find(self, hashed: int) -> Instance | None:
        """The instance of a hash; None when there is none."""
        if not self._instances:
            return None
        return self._instances[self._table[hashed % self._slots]]


def offset_and_skip(key: str, slots: int) -> tuple[int, int]:
    """What gives the order in which an instance wants the slots.

    The slot in place j of its order is (offset + j * skip) mod slots; as the number of slots is
    prime, each comes once.
    """
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    offset = int.from_bytes(digest[:8]) % slots
    return offset, int.from_bytes(digest[8:]) % (slots - 1) + 1


def _walk(offset: int, skip: int, free: bytearray) -> Iterator[int]:
    """Slots of an order that are still free when they come."""
    slot, slots = offset, len(free)
    while True:
        if free[slot]:
            yield slot
        slot += skip
        if slot >= slots:
            slot -= slots


def _finish(offset: int, skip: int, free: bytearray, left: Iterable[int]) -> Iterator[int]:
    """The same for when few are left: sorts them by their places, and walks those alone."""
    slots = len(free)
    inverse = pow(skip, -1, slots)
    wanted = sorted(left, key=lambda slot: (slot - offset) * inverse % slots)
    return (slot for slot in wanted if free[slot])


def _turns(weights: Sequence[int]) -> Iterator[int]:
    """Whose turn it is: without end, in rounds in which the heaviest always has one."""
    heaviest = max(weights)
    if min(weights) == heaviest:
        yield from cycle(range(len(weights)))
    had = [0] * len(weights)
    for round_number in count(1):
        for owner, weight in enumerate(weights):
            if round_number * weight >= had[owner] * heaviest:
                had[owner] += 1
                yield owner


def populate(instances: Sequence[Instance], slots: int) -> list[int]:
    """Fills a table; returns for each slot the index of the instance that owns it.

    Walking the orders to the end takes slots * ln(slots) steps, most of them for the last slots.
    So when slots / instances are left free, each instance sorts those by its own order once.

    Args:
        instances: At least one, in an order that is the same everywhere.
        slots: Size of the table, a prime number.
    """
    places = [offset_and_skip(each.key, slots) for each in instances]
    free = bytearray(b"\x01") * slots
    orders = [_walk(*place, free) for place in places]
    table = [0] * slots
    few_left_at = slots - slots // len(instances)
    for filled, owner in enumerate(_turns([each.weight for each in instances]), start=1):
        slot = next(orders[owner])
        free[slot] = 0
        table[slot] = owner
        if filled == slots:
            break
        if filled == few_left_at:
            left = [slot for slot, is_free in enumerate(free) if is_free]
            orders = [_finish(*place, free, left) for place in places]
    return table
