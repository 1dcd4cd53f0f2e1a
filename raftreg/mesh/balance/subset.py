"""Subsets: instances chosen by their metadata and tags, as versions of a service are."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence

import msgspec

from raftreg.mesh.nouns import Instance


class Fallback(enum.Enum):
    """What is used when no instance belongs to a subset, as Envoy's `LbSubsetFallbackPolicy`."""

    NONE = "none"  #: no instance: the call fails or goes elsewhere
    ANY = "any"  #: all instances


class Subset(msgspec.Struct, frozen=True, kw_only=True):
    """Which instances belong to a subset.

    Attributes:
        meta: Metadata that each must have.
        tags: Tags that each must have.
        only_passing: Leaves out those whose checks warn.
        fallback: What is used when none belongs to it.
    """

    meta: Mapping[str, str] = {}
    tags: tuple[str, ...] = ()
    only_passing: bool = False
    fallback: Fallback = Fallback.NONE

    def has(self, instance: Instance) -> bool:
        """Whether an instance belongs to it."""
        return (
            (instance.passing or not self.only_passing)
            and all(instance.meta.get(name) == value for name, value in self.meta.items())
            and all(tag in instance.tags for tag in self.tags)
        )

    def select(
        self, instances: Sequence[Instance], where: Callable[[Instance], bool] | None = None
    ) -> list[Instance]:
        """Those that belong to it.

        Args:
            instances: What to choose from.
            where: What must hold besides, such as a compiled filter expression.
        """
        chosen = [each for each in instances if self.has(each) and (where is None or where(each))]
        if chosen or self.fallback is Fallback.NONE:
            return chosen
        return list(instances)
