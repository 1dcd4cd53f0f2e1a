"""Watches: blocking queries as an async iterator that outlives servers.

The rules for the index are those of Consul's documentation ("Blocking Queries"): an index that
goes back starts the watch anew, an answer without progress is no news, and a server that answers
early again and again is not asked in a tight loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Container
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from raftreg.client.failures import transient
from raftreg.client.http import Response
from raftreg.client.options import Params
from raftreg.client.records import duration_text
from raftreg.errors import RaftregError

if TYPE_CHECKING:
    from raftreg.client.api import RegistryClient

T = TypeVar("T")


class Change(msgspec.Struct, Generic[T], frozen=True):
    """What a watch found: the whole value, and the index at which it was so."""

    index: int
    value: T


class Cursor:
    """Where a watch stands (pure): turns the indexes of answers into what to do next."""

    def __init__(self) -> None:
        self.index = 0
        self._seen: bytes | None = None

    def observe(self, response: Response) -> bool:
        """Takes an answer; tells whether it is news.

        An index that went back (a restored or replaced registry) is forgotten: the next query
        answers at once and is news by all means. An index of 0 means that the server keeps none;
        then a changed body is news.
        """
        index = response.index
        if index < self.index:
            self.index = 0
            self._seen = None
            return False
        if index == self.index:
            # Equal numbers happen only on a time-out, or without an index (0 == 0).
            return index == 0 and self._differs(response.body)
        self.index = index
        self._seen = response.body
        return True

    def _differs(self, body: bytes) -> bool:
        differs = body != self._seen
        self._seen = body
        return differs


async def watch(
    client: RegistryClient,
    path: str,
    decode: Callable[[Response], T],
    *,
    params: Params,
    accept: Container[int],
    wait_s: float,
    patience_s: float | None,
) -> AsyncGenerator[Change[T], None]:
    """See `RegistryClient.watch`."""
    cursor = Cursor()
    idle_rounds = 0
    failing_since: float | None = None
    while True:
        asked_at = client.clock.monotonic()
        # After a failure, and without an index, the first question does not wait: if all this is
        # another registry by now, its indexes may be lower and the wait would be in vain.
        may_wait = cursor.index > 0 and failing_since is None
        blocking: Params = (
            {"index": cursor.index, "wait": duration_text(wait_s)} if may_wait else {}
        )
        try:
            response = await client.request(
                "GET",
                path,
                params={**params, **blocking},
                wait_s=wait_s if may_wait else 0.0,
                accept=accept,
            )
            value = decode(response)  # before the cursor moves: what can't be read is not seen
            news = cursor.observe(response)
        except RaftregError as error:
            failing_since = asked_at if failing_since is None else failing_since
            failing_s = client.clock.monotonic() - failing_since
            if not transient(error) or _is_over(patience_s, failing_s):
                raise
            await client.pause(idle_rounds)
            idle_rounds += 1
            continue
        recovered, failing_since = failing_since is not None, None
        if news:
            idle_rounds = 0
            yield Change(cursor.index, value)
        elif not recovered and client.clock.monotonic() - asked_at < wait_s / 2:
            await client.pause(idle_rounds)  # an early answer without news: not in a tight loop
            idle_rounds += 1


def _is_over(patience_s: float | None, failing_s: float) -> bool:
    return patience_s is not None and failing_s >= patience_s
