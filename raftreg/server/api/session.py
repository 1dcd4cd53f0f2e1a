"""/v1/session: https://developer.hashicorp.com/consul/api-docs/session."""

from __future__ import annotations

from aiohttp import web

from raftreg.core import query
from raftreg.core.commands import SessionCreate, SessionDestroy
from raftreg.core.durations import parse_duration
from raftreg.errors import InvalidRequest, NotFound, Rejected
from raftreg.http import json
from raftreg.http.bodies import SessionBody
from raftreg.http.discovery import options_of, query_of, read_head_bytes
from raftreg.http.fields import Fields, name_of
from raftreg.http.json import dumps
from raftreg.http.middleware import UNTIMED
from raftreg.http.operation import DATACENTER, operation
from raftreg.http.params import ReadOptions
from raftreg.http.problems import check_datacenter
from raftreg.http.render import session_json
from raftreg.http.reply import TRUE, Reply, json_reply
from raftreg.http.shapes import IdJson, SessionJson
from raftreg.model import SERF_HEALTH, Session, SessionBehavior
from raftreg.server.api.context import Context
from raftreg.server.renewals import Renewal
from raftreg.server.writes import read_body, write_head

TTL_MIN_S = 10.0
TTL_MAX_S = 86_400.0
LOCK_DELAY_DEFAULT_S = 15.0
LOCK_DELAY_MAX_S = 60.0
#: A LockDelay below this many nanoseconds is meant in seconds (as Consul's own fix-up has it).
LOCK_DELAY_SECONDS_BELOW = 1000


class Sessions:
    """The session endpoints.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.put("/v1/session/create", self.create),
            web.put("/v1/session/destroy/{id:(?s:.*)}", self.destroy),
            web.put("/v1/session/renew/{id:(?s:.*)}", self.renew),
            web.get("/v1/session/info/{id:(?s:.*)}", self.info),
            web.get("/v1/session/node/{node:(?s:.*)}", self.of_node),
            web.get("/v1/session/list", self.all),
        ]

    @operation(
        "Creates a session",
        tag="session",
        query=(DATACENTER,),
        body=SessionBody,
        body_required=False,
        answer=IdJson,
    )
    async def create(self, request: web.Request) -> Reply:
        """Creates a session; answers with its id."""
        data = await read_body(request, self._context.settings.http.body_bytes_max)
        body = json.loads(data) if data.strip() else {}
        fields = Fields(body)
        check_datacenter(query_of(request).get("dc", ""), self._datacenter)
        check_datacenter(fields.text("Datacenter"), self._datacenter)
        session = session_of(
            fields, session_id=self._context.new_id(), node=self._context.settings.node
        )
        outcome = await self._context.writes.run(request, SessionCreate(session=session))
        return Reply(dumps({"ID": outcome.result}), head=write_head(outcome))

    @operation(
        "Ends a session; a dead one is fine", tag="session", query=(DATACENTER,), answer=bool
    )
    async def destroy(self, request: web.Request) -> Reply:
        """Ends a session; a dead one is fine."""
        check_datacenter(query_of(request).get("dc", ""), self._datacenter)
        outcome = await self._context.writes.run(request, SessionDestroy(id=_id_of(request)))
        return Reply(TRUE, head=write_head(outcome))

    @operation(
        "Gives a session another TTL",
        tag="session",
        query=(DATACENTER,),
        answer=list[SessionJson],
        also={404: "the session is dead"},
    )
    async def renew(self, request: web.Request) -> Reply:
        """Gives a session another TTL; 404 when it is dead."""
        check_datacenter(query_of(request).get("dc", ""), self._datacenter)
        session_id = _id_of(request)
        answer = await self._context.renewals.renew(Renewal(sessions=(session_id,)))
        if answer.sessions.get(session_id):
            # This server may be behind the leader that answered.
            await self._context.replica.read_index(self._context.settings.http.read_timeout_s)
            session = self._context.machine.state.sessions.get(session_id)
            if session is not None:
                return Reply(dumps([session_json(session)]))
        raise NotFound(f"Session id '{session_id[:64]}' not found")

    @operation("Shows a session, in a list", tag="session", reads=True, answer=list[SessionJson])
    async def info(self, request: web.Request) -> Reply:
        """One session in a list, or an empty list."""
        session_id = _id_of(request)
        options = options_of(request, self._datacenter)
        _mark_blocking(request, options)
        found = await self._context.reads.find(
            options,
            query.topics_session(session_id),
            lambda state: query.session_info(state, session_id),
        )
        rows = [] if found.value is None else [found.value]
        return self._listed(request, options, found.index, rows)

    @operation("Lists the sessions of a node", tag="session", reads=True, answer=list[SessionJson])
    async def of_node(self, request: web.Request) -> Reply:
        """Sessions of a node."""
        node = request.match_info["node"]
        if not node:
            raise InvalidRequest("Missing node name")
        options = options_of(request, self._datacenter)
        _mark_blocking(request, options)
        found = await self._context.reads.find(
            options,
            query.topics_sessions_of_node(node),
            lambda state: query.sessions_of_node(state, node),
        )
        return self._listed(request, options, found.index, found.value)

    @operation("Lists the sessions", tag="session", reads=True, answer=list[SessionJson])
    async def all(self, request: web.Request) -> Reply:
        """All sessions."""
        options = options_of(request, self._datacenter)
        _mark_blocking(request, options)
        found = await self._context.reads.find(options, query.topics_sessions(), query.sessions)
        return self._listed(request, options, found.index, found.value)

    def _listed(
        self, request: web.Request, options: ReadOptions, index: int, rows: list[Session]
    ) -> Reply:
        head = read_head_bytes(index, self._context.reads.head(options))
        body = dumps([session_json(row) for row in rows], pretty=options.pretty)
        return json_reply(request, body, head)


def _mark_blocking(request: web.Request, options: ReadOptions) -> None:
    if options.index:
        request[UNTIMED] = True


def _id_of(request: web.Request) -> str:
    session_id = request.match_info["id"]
    if not session_id:
        raise InvalidRequest("Missing session")
    return session_id


def session_of(fields: Fields, *, session_id: str, node: str) -> Session:
    """Reads a session from the body of its creation.

    Args:
        fields: The body.
        session_id: Its id.
        node: Its node when the body names none.

    Raises:
        InvalidRequest: A field is malformed.
        Rejected: The TTL is out of range.
    """
    ttl = fields.get("TTL")
    return Session(
        id=session_id,
        node=fields.text("Node") or node,
        name=name_of(fields.text("Name"), "session name"),
        behavior=_behavior(fields.text("Behavior")),
        ttl_s=_ttl_s(ttl),
        ttl=ttl if isinstance(ttl, str) else "",
        lock_delay_s=_lock_delay_s(fields),
        node_checks=_node_checks(fields),
        service_checks=_service_checks(fields),
    )


def _behavior(text: str) -> SessionBehavior:
    if not text:
        return SessionBehavior.RELEASE
    try:
        return SessionBehavior(text)
    except ValueError:
        raise InvalidRequest(
            f"Invalid Behavior setting {text[:32]!r}: it must be release or delete"
        ) from None


def _ttl_s(ttl: object) -> float:
    """Seconds, 0 for none."""
    if ttl is None or ttl == "":
        return 0.0
    try:
        seconds = parse_duration(ttl)
    except InvalidRequest as error:
        raise InvalidRequest(f"Session TTL {ttl!r} invalid: {error.message}") from error
    if seconds and not TTL_MIN_S <= seconds <= TTL_MAX_S:
        raise Rejected(
            f"Invalid Session TTL '{round(seconds * 1e9)}', must be between [10s=24h0m0s]"
        )
    return seconds


def _lock_delay_s(fields: Fields) -> float:
    """`LockDelay` as text, nanoseconds, or (small numbers) seconds."""
    value = fields.get("LockDelay")
    if isinstance(value, int) and not isinstance(value, bool) and value < LOCK_DELAY_SECONDS_BELOW:
        seconds = float(value)
    else:
        seconds = fields.duration_s("LockDelay", default=LOCK_DELAY_DEFAULT_S)
    if seconds < 0:
        raise InvalidRequest("Invalid LockDelay: it must not be negative")
    return min(seconds, LOCK_DELAY_MAX_S)


def _node_checks(fields: Fields) -> tuple[str, ...]:
    """`NodeChecks` or the older `Checks`, as given (maybe empty); else `serfHealth`."""
    if "NodeChecks" in fields:
        return fields.texts("NodeChecks")
    if "Checks" in fields:
        return fields.texts("Checks")
    return (SERF_HEALTH,)


def _service_checks(fields: Fields) -> tuple[str, ...]:
    """Ids of `ServiceChecks`: objects with an `ID`, or plain texts."""
    return tuple(
        item if isinstance(item, str) else Fields(item, "ServiceChecks").text("ID")
        for item in fields.items("ServiceChecks")
    )
