"""/v1/query: https://developer.hashicorp.com/consul/api-docs/query."""

from __future__ import annotations

from aiohttp import web

from raftreg.core import queries
from raftreg.core.commands import QueryDelete, QuerySet
from raftreg.errors import InvalidRequest
from raftreg.http import json
from raftreg.http.asker import address_of, agent_of
from raftreg.http.discovery import options_of, query_of, read_head_bytes
from raftreg.http.fields import Fields
from raftreg.http.json import dumps
from raftreg.http.middleware import UNTIMED
from raftreg.http.operation import Flag, Param, Unsigned, operation
from raftreg.http.params import ReadOptions
from raftreg.http.problems import check_datacenter
from raftreg.http.query_body import (
    BODY_BYTES_MAX,
    ExecuteJson,
    ExplainJson,
    QueryBody,
    QueryJson,
    query_json,
)
from raftreg.http.query_body import query_of as prepared_query_of
from raftreg.http.render import health_entry_json
from raftreg.http.reply import TEXT, Reply, json_reply
from raftreg.http.shapes import IdJson
from raftreg.server.api.context import Context
from raftreg.server.queries import Asker, Executed, QueryRunner
from raftreg.server.writes import read_body, write_head

LIMIT_MAX = 1 << 31
_NOT_FOUND = b"Query not found"
_DC = Param("dc", "the datacenter: only this one's own name is known")
_LIMIT = Param("limit", "at most so many instances; 0 for all", Unsigned)
_NEAR = Param("near", "sort by the distance from this node, `_agent` or `_ip`")
_UNKNOWN = {404: "no such query"}


class PreparedQueries:
    """The endpoints of prepared queries.

    Args:
        context: The collaborators.
        runner: Executes them.
    """

    def __init__(self, context: Context, runner: QueryRunner) -> None:
        self._context = context
        self._runner = runner
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount; names may hold slashes, so what they end in decides first."""
        return [
            web.post("/v1/query", self.create),
            web.get("/v1/query", self.all),
            web.get("/v1/query/{id:(?s:.+)}/execute", self.execute),
            web.get("/v1/query/{id:(?s:.+)}/explain", self.explain),
            web.get("/v1/query/{id:[^/]*}", self.one),
            web.put("/v1/query/{id:[^/]*}", self.update),
            web.delete("/v1/query/{id:[^/]*}", self.delete),
        ]

    # -- writes ------------------------------------------------------------------------------

    @operation("Creates a prepared query", tag="query", query=(_DC,), body=QueryBody, answer=IdJson)
    async def create(self, request: web.Request) -> Reply:
        """Creates a query; answers with its id."""
        fields = await self._body(request)
        if fields.text("ID"):
            raise InvalidRequest("ID must be empty when creating a new prepared query")
        query = prepared_query_of(fields, self._context.new_id())
        outcome = await self._context.writes.run(request, QuerySet(query=query))
        return Reply(dumps({"ID": outcome.result}), head=write_head(outcome))

    @operation(
        "Replaces a prepared query",
        tag="query",
        about="A body without `Name` keeps the name that the query has.",
        query=(_DC,),
        body=QueryBody,
        also=_UNKNOWN,
    )
    async def update(self, request: web.Request) -> Reply:
        """Replaces a query; without a `Name` it keeps its own."""
        query_id = _id_of(request)
        fields = await self._body(request)
        query = prepared_query_of(fields, query_id)
        command = QuerySet(query=query, update=True, keep_name="Name" not in fields)
        outcome = await self._context.writes.run(request, command)
        return Reply(b"", kind=TEXT, head=write_head(outcome))

    @operation("Deletes a prepared query", tag="query", query=(_DC,), also=_UNKNOWN)
    async def delete(self, request: web.Request) -> Reply:
        """Deletes a query."""
        check_datacenter(query_of(request).get("dc", ""), self._datacenter)
        outcome = await self._context.writes.run(request, QueryDelete(id=_id_of(request)))
        return Reply(b"", kind=TEXT, head=write_head(outcome))

    async def _body(self, request: web.Request) -> Fields:
        check_datacenter(query_of(request).get("dc", ""), self._datacenter)
        fields = Fields(json.loads(await read_body(request, BODY_BYTES_MAX)))
        check_datacenter(fields.text("Datacenter"), self._datacenter)
        return fields

    # -- reads -------------------------------------------------------------------------------

    @operation("Lists the prepared queries", tag="query", reads=True, answer=list[QueryJson])
    async def all(self, request: web.Request) -> Reply:
        """All queries."""
        options = self._options(request)
        reads = self._context.reads
        found = await reads.find(options, queries.topics_queries(), queries.query_list)
        body = dumps([query_json(row) for row in found.value], pretty=options.pretty)
        return json_reply(request, body, read_head_bytes(found.index, reads.head(options)))

    @operation(
        "Shows a prepared query", tag="query", reads=True, answer=list[QueryJson], also=_UNKNOWN
    )
    async def one(self, request: web.Request) -> Reply:
        """One query in a list."""
        query_id = _id_of(request)
        options = self._options(request)
        reads = self._context.reads
        found = await reads.find(
            options,
            queries.topics_query(query_id),
            lambda state: queries.query_get(state, query_id),
        )
        head = read_head_bytes(found.index, reads.head(options))
        if found.value is None:
            return Reply(_NOT_FOUND, 404, TEXT, head)
        return json_reply(request, dumps([query_json(found.value)], pretty=options.pretty), head)

    @operation(
        "Executes a prepared query, by id or name",
        tag="query",
        reads=True,
        query=(_NEAR, _LIMIT, Param("connect", "only Connect-capable instances", Flag)),
        answer=ExecuteJson,
        also=_UNKNOWN,
    )
    async def execute(self, request: web.Request) -> Reply:
        """What a query finds now."""
        options = self._options(request)
        limit = _limit_of(request)
        await self._context.reads.ready(options)
        done = self._runner.execute(
            request.match_info["id"],
            Asker(agent_of(request), address_of(request)),
            near=options.near,
            limit=limit,
            connect=_wants(request, "connect"),
        )
        head = self._head(options)
        if done is None:
            return Reply(_NOT_FOUND, 404, TEXT, head)
        return json_reply(request, dumps(self._executed(done), pretty=options.pretty), head)

    @operation(
        "Shows which query a name leads to, rendered",
        tag="query",
        reads=True,
        answer=ExplainJson,
        also=_UNKNOWN,
    )
    async def explain(self, request: web.Request) -> Reply:
        """The query that would be executed."""
        options = self._options(request)
        await self._context.reads.ready(options)
        query = self._runner.resolve(request.match_info["id"])
        head = self._head(options)
        if query is None:
            return Reply(_NOT_FOUND, 404, TEXT, head)
        body: ExplainJson = {"Query": query_json(query)}
        return json_reply(request, dumps(body, pretty=options.pretty), head)

    def _options(self, request: web.Request) -> ReadOptions:
        options = options_of(request, self._datacenter)
        if options.index:
            request[UNTIMED] = True
        return options

    def _head(self, options: ReadOptions) -> bytes:
        """An execution has no index of its own, as in Consul: it can't be waited for."""
        reads = self._context.reads
        return read_head_bytes(reads.state.index, reads.head(options))

    def _executed(self, done: Executed) -> ExecuteJson:
        return {
            "Service": done.service,
            "Nodes": [
                health_entry_json(entry.node, entry.service, entry.checks) for entry in done.entries
            ],
            "DNS": {"TTL": done.query.dns_ttl},
            "Datacenter": self._datacenter,
            "Failovers": done.failovers,
        }


def _id_of(request: web.Request) -> str:
    query_id = request.match_info["id"]
    if not query_id:
        raise InvalidRequest("Missing Query ID")
    return query_id


def _limit_of(request: web.Request) -> int:
    text = query_of(request).get("limit", "")
    if not text:
        return 0
    try:
        limit = int(text)
    except ValueError:
        raise InvalidRequest(f"Bad limit: {text[:32]!r} is no number") from None
    if not -LIMIT_MAX < limit < LIMIT_MAX:
        raise InvalidRequest(f"Bad limit: {text[:32]!r} is out of range")
    return limit


def _wants(request: web.Request, name: str) -> bool:
    """A flag that counts when it is there, unless it says false."""
    return query_of(request).get(name, "false") not in {"false", "0"}
