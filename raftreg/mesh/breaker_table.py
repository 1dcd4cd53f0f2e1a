"""The breakers of one upstream: its own, and one for each of its instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raftreg.mesh.breaker import Breaker, BreakerSettings, Transition
from raftreg.mesh.nouns import Randomness


class InstanceBreakers:
    """Breakers by key of the instance; what one has learned stays as long as its key does.

    Args:
        upstream: Name of the upstream; a breaker is told as `upstream/key`.
        settings: Of every breaker.
        rng: What jitter is drawn from.
        sink: Is told each transition.
    """

    def __init__(
        self,
        upstream: str,
        settings: BreakerSettings,
        rng: Randomness,
        sink: Callable[[Transition], None] | None = None,
    ) -> None:
        self._upstream = upstream
        self._settings = settings
        self._rng = rng
        self._sink = sink
        self._breakers: dict[str, Breaker] = {}

    def __len__(self) -> int:
        return len(self._breakers)

    def update(self, keys: Iterable[str]) -> None:
        """Replaces the instances: a new one begins closed, one that is gone is forgotten."""
        old = self._breakers
        self._breakers = {key: old.get(key) or self._make(key) for key in keys}

    def get(self, key: str) -> Breaker | None:
        """The breaker of an instance; None when it is gone."""
        return self._breakers.get(key)

    def _make(self, key: str) -> Breaker:
        return Breaker(f"{self._upstream}/{key}", self._settings, self._rng, self._sink)
