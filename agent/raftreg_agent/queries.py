"""Prepared queries for the agent's name service: executed by a server, remembered for bad times."""

from __future__ import annotations

from collections import OrderedDict
from urllib.parse import quote

import structlog

from raftreg.client.api import RegistryClient
from raftreg.client.options import Consistency, Read
from raftreg.client.records import QueryResult
from raftreg.core.durations import parse_duration
from raftreg.dns.query import QueryAnswer, QueryRow
from raftreg.errors import InvalidRequest, RaftregError
from raftreg.http.asker import FORWARDED_HEADER
from raftreg.http.reply import AGENT_HEADER

DEADLINE_S = 2.0
KEPT_MAX = 1024
TTL_MAX_S = (1 << 31) - 1
_READ = Read(consistency=Consistency.STALE)

log = structlog.get_logger(__name__)


class QueryDoor:
    """Executes queries (a `raftreg.dns.query.QueryLookup`).

    A server answers from its own state, as DNS does everywhere here. While no server can be
    reached, the last answer to the same name is given again.

    Args:
        client: Where servers are.
        node: Name of this host, which `_agent` means.
    """

    def __init__(self, client: RegistryClient, node: str) -> None:
        self._client = client
        self._node = node
        self._kept: OrderedDict[str, QueryAnswer | None] = OrderedDict()

    async def __call__(self, name: str, source_address: str) -> QueryAnswer | None:
        """Executes one.

        Raises:
            RaftregError: No server answers, and none did before.
        """
        try:
            answer = await self._execute(name, source_address)
        except InvalidRequest:
            answer = None  # the id of a template is no name
        except RaftregError as error:
            if name not in self._kept:
                raise
            log.info("query answered from before", query=name, reason=error.message)
            self._kept.move_to_end(name)
            return self._kept[name]
        self._keep(name, answer)
        return answer

    async def _execute(self, name: str, source_address: str) -> QueryAnswer | None:
        headers = {AGENT_HEADER: quote(self._node), FORWARDED_HEADER: source_address}
        found = await self._client.query.execute(
            name, read=_READ, headers=headers, deadline_s=DEADLINE_S
        )
        return None if found is None else answer_of(found)

    def _keep(self, name: str, answer: QueryAnswer | None) -> None:
        self._kept[name] = answer
        self._kept.move_to_end(name)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)


def answer_of(found: QueryResult) -> QueryAnswer:
    """What a server found, as the name service takes it."""
    seconds = parse_duration(found.dns_ttl) if found.dns_ttl else None
    return QueryAnswer(
        service=found.service,
        rows=tuple(
            QueryRow(node=entry.node, instance=entry.service, status=entry.status)
            for entry in found.entries
        ),
        ttl_s=None if seconds is None else min(int(seconds), TTL_MAX_S),
        datacenter=found.datacenter,
    )
