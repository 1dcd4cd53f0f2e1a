"""How new an agent's view is, for its name service."""

from __future__ import annotations

import asyncio

import msgspec

from raftreg.client.api import RegistryClient
from raftreg_agent.view import CatalogView

INDEX_PATH = "/v1/internal/view-index"
WAIT_S = 1.0  #: a lost wake-up costs no more than this
#: What changes with any change of the catalog.
_ANYTHING = (("nodes", ""), ("instances", ""), ("check-state", ""))


class _Newest(msgspec.Struct):
    """What a server answers."""

    index: int


class ViewFreshness:
    """A `raftreg.dns.query.Freshness` of a view.

    Args:
        view: The view.
        client: Where servers are.
        timeout_s: Longest wait for a server's confirmation and for the view, in seconds.
    """

    def __init__(self, view: CatalogView, client: RegistryClient, timeout_s: float) -> None:
        self._view = view
        self._client = client
        self._timeout_s = timeout_s

    def age_s(self) -> float | None:
        """Seconds since the view was known to be up to date; None before its first content."""
        return self._view.age_s

    async def confirm(self) -> None:
        """Asks a server how far the catalog has come, and waits until the view has come so far.

        Raises:
            RaftregError: No server could say it.
            TimeoutError: The view did not come so far in time.
        """
        async with asyncio.timeout(self._timeout_s):
            answer = await self._client.request("GET", INDEX_PATH, deadline_s=self._timeout_s)
            newest: int = answer.json(_Newest).index
            while self._view.catalog.index < newest:
                await self._view.hub.wait(_ANYTHING, WAIT_S)
