"""Keeps the answers to a changing set of questions current, by one watch for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import structlog

from raftreg.client.api import RegistryClient
from raftreg.errors import RaftregError
from raftreg_cli.template.queries import Query, request

#: After this long without an answer people are told; the asking goes on.
SILENCE_S = 10.0
_log = structlog.get_logger(__name__)


class Follower:
    """Asks and goes on asking; an answer stays while the registry is out of reach.

    Args:
        client: Where to ask.
        group: Owns the watches.
        learned: Called with a question when its answer is there or has changed.
        patience_s: Seconds of failures after which a watch gives up for good, failing the group;
            None: it never does.
    """

    def __init__(
        self,
        client: RegistryClient,
        group: asyncio.TaskGroup,
        learned: Callable[[Query], None],
        patience_s: float | None = None,
    ) -> None:
        self._client = client
        self._group = group
        self._learned = learned
        self._patience_s = patience_s
        self._watches: dict[Query, asyncio.Task[None]] = {}
        self._answers: dict[Query, Any] = {}

    @property
    def answers(self) -> Mapping[Query, Any]:
        """What is known."""
        return self._answers

    def use(self, queries: Iterable[Query]) -> None:
        """Asks exactly these from now on; the answers to others are forgotten."""
        wanted = set(queries)
        for query in self._watches.keys() - wanted:
            self._watches.pop(query).cancel()
            self._answers.pop(query, None)
        for query in wanted - self._watches.keys():
            self._watches[query] = self._group.create_task(self._follow(query))

    async def _follow(self, query: Query) -> None:
        failures = 0
        while True:
            try:
                await self._watch(query)
            except RaftregError as error:
                if self._patience_s is not None:
                    raise
                _log.warning("not_answered", question=repr(query), reason=error.message)
            await self._client.pause(failures)
            failures += 1

    async def _watch(self, query: Query) -> None:
        ask = request(query)
        patience_s = SILENCE_S if self._patience_s is None else self._patience_s
        watch = self._client.watch(
            ask.path, ask.decode, params=ask.params, accept=ask.accept, patience_s=patience_s
        )
        async with aclosing(watch) as changes:
            async for change in changes:
                if query not in self._answers or self._answers[query] != change.value:
                    self._answers[query] = change.value
                    self._learned(query)
