"""A balancer that sends like calls to the same instance."""

from __future__ import annotations

from collections.abc import Sequence

from raftreg.mesh.balance.base import Unmeasured
from raftreg.mesh.balance.hash_key import HashPolicy, HashTable, hash_call, random_hash
from raftreg.mesh.nouns import Call, Instance, Randomness


class Hashed(Unmeasured):
    """Hashes each call, and looks up whose the hash is.

    The table is built again only when keys or weights change.

    Args:
        table: A ring or a maglev table.
        policies: What is hashed; a call that has none of it goes to a random place of the table.
        rng: Where chance comes from.
    """

    def __init__(self, table: HashTable, policies: Sequence[HashPolicy], rng: Randomness) -> None:
        self._table = table
        self._policies = policies
        self._rng = rng
        self._built: frozenset[tuple[str, int]] = frozenset()
        self._now: dict[str, Instance] = {}

    def update(self, instances: Sequence[Instance], now_s: float) -> None:
        """Replaces the instances to choose from."""
        self._now = {each.key: each for each in instances}
        wanted = frozenset((each.key, each.weight) for each in self._now.values())
        if wanted != self._built:
            self._table.update(tuple(self._now.values()))
            self._built = wanted

    def choose(self, call: Call, now_s: float) -> Instance | None:
        """Chooses the one that the call belongs to; None when there is none."""
        hashed = hash_call(call, self._policies)
        found = self._table.find(random_hash(self._rng) if hashed is None else hashed)
        return None if found is None else self._now[found.key]
