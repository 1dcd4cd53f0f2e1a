"""A balancer that sends like calls to the same instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from raftreg.mesh.balance.base import Unmeasured
from raftreg.mesh.balance.hash_key import HashPolicy, HashTable, hash_call, random_hash
from raftreg.mesh.nouns import Call, Instance, Randomness

#: Tables that are kept: an ejection that ends soon must not cost another 30 ms.
_TABLES_MAX: Final = 4


class Hashed(Unmeasured):
    """Hashes each call, and looks up whose the hash is.

    A table depends on keys and weights alone, and the latest few are kept.

    Args:
        make: Makes an empty ring or maglev table.
        policies: What is hashed; a call that has none of it goes to a random place of the table.
        rng: Where chance comes from.
    """

    def __init__(
        self, make: Callable[[], HashTable], policies: Sequence[HashPolicy], rng: Randomness
    ) -> None:
        self._make = make
        self._table = make()
        self._policies = policies
        self._rng = rng
        #: By keys and weights, the latest last.
        self._tables: dict[frozenset[tuple[str, int]], HashTable] = {}
        self._now: dict[str, Instance] = {}

    def update(self, instances: Sequence[Instance], now_s: float) -> None:
        """Replaces the instances to choose from."""
        self._now = {each.key: each for each in instances}
        wanted = frozenset((each.key, each.weight) for each in self._now.values())
        table = self._tables.pop(wanted, None)
        if table is None:
            table = self._make()
            table.update(tuple(self._now.values()))
        self._tables[wanted] = self._table = table
        if len(self._tables) > _TABLES_MAX:
            del self._tables[next(iter(self._tables))]

    def choose(self, call: Call, now_s: float) -> Instance | None:
        """Chooses the one that the call belongs to; None when there is none."""
        hashed = hash_call(call, self._policies)
        found = self._table.find(random_hash(self._rng) if hashed is None else hashed)
        return None if found is None else self._now[found.key]
