"""A ring of hashes: each instance owns the arcs that end at its points.

Consistent hashing (Karger et al., STOC 1997) with many points an instance, as in libketama
(https://github.com/RJ/ketama). Bounds of the ring's size and weights follow Envoy's `RingHash`; but
the points of a weight are fixed, and change by powers of two alone when the heaviest instance or a
bound asks for it. So the points of those that stay hardly ever change when others come and go,
and only the keys of those move.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import msgspec

from raftreg.mesh.balance.hash_key import HashPolicy, check_policies
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Instance, MeshConfigError

#: Points of the heaviest instance at least: its share of the keys then varies by 1/sqrt(512).
_POINTS: Final = 512
_SIZE_LIMIT: Final = 8_388_608


class RingHashSettings(msgspec.Struct, frozen=True, kw_only=True, tag="ring-hash"):
    """Settings of a ring of hashes.

    Attributes:
        policies: What calls are hashed by.
        size_min: Points that the ring has at least.
        size_max: Points that it has at most, 1 to 8,388,608; but each instance has one.

    Raises:
        MeshConfigError: A field is out of its bounds.
    """

    policies: tuple[HashPolicy, ...] = ()
    size_min: int = 1024
    size_max: int = 131_072

    def __post_init__(self) -> None:
        check_policies(self.policies)
        within("size_min", self.size_min, 1, _SIZE_LIMIT)
        within("size_max", self.size_max, 1, _SIZE_LIMIT)
        if self.size_min > self.size_max:
            raise MeshConfigError(
                f"size_min: must not be above size_max ({self.size_max}), is {self.size_min}"
            )


def points_of(weights: Sequence[int], size_min: int, size_max: int) -> list[int]:
    """How many points each instance has, by its weight; one at least.

    The heaviest has 512 to 1023 where no bound says otherwise, so that it alone matters to the
    points of the others.
    """
    exponent = _POINTS.bit_length() - max(weights).bit_length()
    while _ring_size(weights, exponent) < size_min:
        exponent += 1
    while exponent > -max(weights).bit_length() and _ring_size(weights, exponent) > size_max:
        exponent -= 1
    return [_points(weight, exponent) for weight in weights]


def _points(weight: int, exponent: int) -> int:
    return max(1, weight << exponent if exponent >= 0 else weight >> -exponent)


def _ring_size(weights: Sequence[int], exponent: int) -> int:
    return sum(_points(weight, exponent) for weight in weights)


def _hashes(key: str, count: int) -> array[int]:
    """The first points of an instance; more of them begin with the same ones."""
    points = array("Q", hashlib.shake_128(key.encode("utf-8", "surrogatepass")).digest(8 * count))
    if sys.byteorder == "big":
        points.byteswap()
    return points


class Ring:
    """A ring of hashes.

    Args:
        size_min: Points that it has at least.
        size_max: Points that it has at most; but each instance has one.
    """

    def __init__(self, size_min: int, size_max: int) -> None:
        self._bounds = size_min, size_max
        self._instances: Sequence[Instance] = ()
        self._points = array("Q")
        self._owners = array("L")

    def __len__(self) -> int:
        """Its points."""
        return len(self._points)

    def update(self, instances: Sequence[Instance]) -> None:
        """Replaces the instances; their order does not matter."""
        self._instances = sorted(instances, key=lambda each: each.key)
        owner_of: dict[int, int] = {}
        if instances:
            counts = points_of([each.weight for each in self._instances], *self._bounds)
            for owner, (instance, count) in enumerate(zip(self._instances, counts, strict=True)):
                owner_of.update(dict.fromkeys(_hashes(instance.key, count), owner))
        points = sorted(owner_of)
        self._points = array("Q", points)
        self._owners = array("L", [owner_of[point] for point in points])

    def find(self, hashed: int) -> Instance | None:
        """The instance whose point is the first at or after a hash; None when there is none."""
        if not self._points:
            return None
        place = bisect_left(self._points, hashed)
        return self._instances[self._owners[place if place < len(self._owners) else 0]]
