"""How long answers about a service may be remembered."""

from __future__ import annotations

from collections.abc import Mapping

ANYTHING = "*"


class ServiceTtls:
    """TTLs by name: an exact one counts first, then the longest prefix, then the default.

    Args:
        by_name: Seconds by name in any letter case; a name that ends with `*` is a prefix.
        default_s: Seconds for all others.
    """

    def __init__(self, by_name: Mapping[str, int], default_s: int) -> None:
        lower = {name.lower(): ttl_s for name, ttl_s in by_name.items()}
        self._exact = {name: ttl_s for name, ttl_s in lower.items() if not name.endswith(ANYTHING)}
        self._prefixes = sorted(
            ((name[:-1], ttl_s) for name, ttl_s in lower.items() if name.endswith(ANYTHING)),
            key=lambda one: len(one[0]),
            reverse=True,
        )
        self._default_s = default_s

    def of(self, service: str) -> int:
        """Seconds for a service, by its name in lower case."""
        exact = self._exact.get(service)
        if exact is not None:
            return exact
        for prefix, ttl_s in self._prefixes:
            if service.startswith(prefix):
                return ttl_s
        return self._default_s
