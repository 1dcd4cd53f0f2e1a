"""What handlers of replicated reads have in common: wait, answer, headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from raftreg.core.query import Found
from raftreg.core.state import State
from raftreg.http.discovery import options_of, read_head_bytes
from raftreg.http.json import dumps
from raftreg.http.middleware import UNTIMED
from raftreg.http.params import ReadOptions
from raftreg.http.reply import Reply, json_reply
from raftreg.http.watch import Topic
from raftreg.server.api.context import Context

_T = TypeVar("_T")


class Reading:
    """One read: its options, and the answer to it.

    Args:
        context: The collaborators.
        request: Whose query string holds the options.

    Raises:
        InvalidRequest: An option is malformed.
        NoPathToDatacenter: Another datacenter is asked for.
    """

    def __init__(self, context: Context, request: web.Request) -> None:
        self.options: ReadOptions = options_of(request, context.settings.datacenter)
        self._reads = context.reads
        self._request = request
        if self.options.index:
            request[UNTIMED] = True

    async def find(
        self, topics: tuple[Topic, ...], query: Callable[[State], Found[_T]]
    ) -> Found[_T]:
        """Asks, blocking when the options say so; see `Reads.find`."""
        return await self._reads.find(self.options, topics, query)

    def reply(self, index: int, body: Any, status: int = 200) -> Reply:
        """The answer as JSON, with the headers of a read."""
        data = dumps(body, pretty=self.options.pretty)
        return json_reply(self._request, data, self.head(index), status)

    def head(self, index: int) -> bytes:
        """Header lines of the answer."""
        return read_head_bytes(index, self._reads.head(self.options))
