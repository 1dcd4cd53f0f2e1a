"""/v1/kv: https://developer.hashicorp.com/consul/api-docs/kv."""

from __future__ import annotations

from collections.abc import Hashable

from aiohttp import web
from msgspec.structs import replace

from raftreg.core import query
from raftreg.core.commands import KVOp, KVVerb
from raftreg.core.durations import format_duration, parse_duration
from raftreg.core.results import Outcome
from raftreg.errors import InvalidRequest, TooLarge
from raftreg.http.delta_streams import wants_events
from raftreg.http.deltas import DeltaQuery
from raftreg.http.discovery import read_head_bytes, read_head_fields, shared_reply
from raftreg.http.fields import key_ttl_ms_of
from raftreg.http.json import dumps
from raftreg.http.middleware import UNTIMED, Handler
from raftreg.http.operation import BYTES, DATACENTER, Duration, Flag, Param, Unsigned, operation
from raftreg.http.params import (
    Query,
    ReadOptions,
    parse_uint,
    read_options,
)
from raftreg.http.problems import check_datacenter
from raftreg.http.render import kv_json
from raftreg.http.reply import FALSE, TEXT, TRUE, Reply, header, json_reply
from raftreg.http.shapes import KVJson
from raftreg.model import KV_KEY_BYTES_MAX, KV_VALUE_BYTES_MAX, KVEntry
from raftreg.server.api.context import Context, split_target
from raftreg.server.writes import read_body, write_head

PREFIX = "/v1/kv/"
ROUTE = "/v1/kv/{key}"  #: as the router names it
#: How long a key with a TTL has left, as a Go duration; not in the answers about several keys.
EXPIRES_IN_HEADER = "X-Raftreg-Expires-In"
NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"
_LEADER = (
    b"X-Consul-KnownLeader: true\r\nX-Consul-LastContact: 0\r\n"
    b"X-Consul-Effective-Consistency: leader\r\n"
)


class KV:
    """The key-value endpoints.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter
        self._read_timeout_s = context.settings.http.read_timeout_s

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        path = PREFIX + "{key:(?s:.*)}"
        return [
            web.get(path, self.get),
            web.put(path, self.put),
            web.delete(path, self.delete),
        ]

    def by_method(self) -> dict[str, Handler]:
        """The handlers by method, for the way around the router (`raftreg.http.express`)."""
        return {"GET": self.get, "PUT": self.put, "DELETE": self.delete}

    @operation(
        "Reads a key, a tree or names of keys",
        tag="kv",
        about="`keys` answers with a list of names. An absent key, or an empty tree, is a 404.",
        reads=True,
        query=(
            Param("recurse", "all keys that begin so", Flag),
            Param("keys", "the names alone", Flag),
            Param("separator", "with `keys`: cut names behind the first of these"),
            Param("raw", "the value alone, as it is", Flag),
        ),
        answer=list[KVJson | str],
        also={404: "no such key"},
    )
    async def get(self, request: web.Request) -> web.StreamResponse:
        """One key, a tree (`?recurse`) or key names (`?keys`)."""
        key, params = split_target(request, PREFIX)
        if not params:
            return await self._get_now(request, key)
        options = read_options(params)
        check_datacenter(options.dc, self._datacenter)
        if options.index:
            request[UNTIMED] = True
        if "keys" in params:
            return await self._keys(request, key, params, options)
        if "recurse" in params:
            if wants_events(request):
                return await self._follow(request, key, options)
            return await self._tree(request, key, options)
        return await self._get(request, key, params, options)

    async def _get_now(self, request: web.Request, key: str) -> Reply:
        """The hot path: one key, no options."""
        _check_key(key)
        await self._context.replica.read_index(self._read_timeout_s)
        found = query.kv_get(self._context.machine.state, key)
        head = b"X-Consul-Index: %d\r\n" % found.index + _LEADER
        if found.value is None:
            return Reply(b"", 404, TEXT, head)
        if found.value.ttl_ms:
            head += left_head(self._context, found.value)
        return json_reply(request, dumps([kv_json(found.value)]), head)

    async def _get(
        self, request: web.Request, key: str, params: Query, options: ReadOptions
    ) -> Reply:
        _check_key(key)
        found = await self._context.reads.find(
            options, query.topics_kv(key), lambda state: query.kv_get(state, key)
        )
        head = read_head_bytes(found.index, self._context.reads.head(options))
        entry = found.value
        if entry is None:
            return Reply(b"", 404, TEXT, head)
        if entry.ttl_ms:
            head += left_head(self._context, entry)
        if "raw" in params:
            return Reply(entry.value, 200, TEXT, head + NOSNIFF)
        return json_reply(request, dumps([kv_json(entry)], pretty=options.pretty), head)

    async def _tree(self, request: web.Request, prefix: str, options: ReadOptions) -> Reply:
        found = await self._context.reads.find(
            options, query.topics_kv_prefix(prefix), lambda state: query.kv_list(state, prefix)
        )

        def body() -> bytes:
            return dumps([kv_json(entry) for entry in found.value], pretty=options.pretty)

        head = read_head_bytes(found.index, self._context.reads.head(options))
        if not found.value:
            return Reply(b"", 404, TEXT, head)
        if not options.index:
            return json_reply(request, body(), head)
        key = ("kv-tree", prefix, options.pretty)
        return shared_reply(self._context.reads.rendered, request, key, found.index, head, body)

    async def _follow(
        self, request: web.Request, prefix: str, options: ReadOptions
    ) -> web.StreamResponse:
        """A tree as a stream of events."""
        context = self._context

        def find() -> tuple[int, dict[Hashable, KVEntry]]:
            found = query.kv_list(context.machine.state, prefix)
            return found.index, {entry.key: entry for entry in found.value}

        question = DeltaQuery(("kv", prefix), query.topics_kv_prefix(prefix), find, kv_json)
        return await context.streams.stream(
            request,
            options,
            question,
            lambda index: read_head_fields(index, context.reads.head(options)),
        )

    async def _keys(
        self, request: web.Request, prefix: str, params: Query, options: ReadOptions
    ) -> Reply:
        separator = params.get("separator", "")
        found = await self._context.reads.find(
            options,
            query.topics_kv_prefix(prefix),
            lambda state: query.kv_keys(state, prefix, separator),
        )
        head = read_head_bytes(found.index, self._context.reads.head(options))
        if not found.value:
            return Reply(b"", 404, TEXT, head)
        return json_reply(request, dumps(found.value, pretty=options.pretty), head)

    @operation(
        "Writes a key",
        tag="kv",
        about=(
            "`false` says that a condition (`cas`, `acquire`, `release`) does not hold, or that a "
            "key to `renew` is not there. A write without `ttl` lets the key live for ever."
        ),
        query=(
            DATACENTER,
            Param("flags", "an opaque number kept with the value", Unsigned),
            Param(
                "cas", "only if the key's ModifyIndex is this; 0: only if it is absent", Unsigned
            ),
            Param("acquire", "lock it for this session"),
            Param("release", "unlock it for this session"),
            Param("ttl", "it ends so long after its last write or renewal", Duration),
            Param("renew", "only begin its TTL anew, and keep its value; the body is empty", Flag),
        ),
        body=BYTES,
        body_required=False,
        answer=bool,
    )
    async def put(self, request: web.Request) -> Reply:
        """Writes a key; `false` when a condition (`?cas`, `?acquire`, `?release`) does not hold."""
        key, params = split_target(request, PREFIX)
        _check_key(key)
        _check_conflicts(params, ("cas", "acquire", "release"))
        check_datacenter(params.get("dc", ""), self._datacenter)
        value = await read_value(request)
        if "renew" in params:
            outcome = await self._context.writes.run(request, _renew_op(key, params, value))
            # Without an index: the key's ModifyIndex is not that of its renewal.
            return Reply(TRUE if outcome.result is True else FALSE)
        return _written(await self._context.writes.run(request, _put_op(key, params, value)))

    @operation(
        "Deletes a key, or a tree",
        tag="kv",
        query=(
            DATACENTER,
            Param("recurse", "all keys that begin so", Flag),
            Param("cas", "only if the key's ModifyIndex is this", Unsigned),
        ),
        answer=bool,
    )
    async def delete(self, request: web.Request) -> Reply:
        """Deletes a key, or a tree (`?recurse`)."""
        key, params = split_target(request, PREFIX)
        _check_conflicts(params, ("recurse", "cas"))
        check_datacenter(params.get("dc", ""), self._datacenter)
        if "recurse" in params:
            _check_length(key)
            op = KVOp(verb=KVVerb.DELETE_TREE, key=key)
        elif "cas" in params:
            _check_key(key)
            op = KVOp(verb=KVVerb.DELETE_CAS, key=key, index=_number(params, "cas"))
        else:
            _check_key(key)
            op = KVOp(verb=KVVerb.DELETE, key=key)
        return _written(await self._context.writes.run(request, op))


def left_head(context: Context, entry: KVEntry) -> bytes:
    """Header line that tells how long a key with a TTL has left.

    Not in the body: what is rendered at one index is the same for all who ask.
    """
    ends_ms = context.machine.state.kv.deadlines[entry.key]
    left_ms = max(ends_ms - context.replica.cluster_time_ms(), 0)
    return header(EXPIRES_IN_HEADER, format_duration(left_ms / 1000))


def _written(outcome: Outcome) -> Reply:
    return Reply(TRUE if outcome.result is True else FALSE, head=write_head(outcome))


def _put_op(key: str, params: Query, value: bytes) -> KVOp:
    """The operation that a PUT asks for."""
    if not params:
        return KVOp(verb=KVVerb.SET, key=key, value=value)
    op = KVOp(
        verb=KVVerb.SET,
        key=key,
        value=value,
        flags=_number(params, "flags"),
        ttl_ms=_ttl_ms(params),
    )
    if "cas" in params:
        return replace(op, verb=KVVerb.CAS, index=_number(params, "cas"))
    for name, verb in (("acquire", KVVerb.LOCK), ("release", KVVerb.UNLOCK)):
        if name in params:
            return replace(op, verb=verb, session=params[name])
    return op


def _renew_op(key: str, params: Query, value: bytes) -> KVOp:
    """The operation that a PUT with `?renew` asks for.

    Raises:
        InvalidRequest: It asks for more than a renewal can do.
    """
    _check_conflicts(params, ("renew", "acquire", "release", "flags"))
    if value:
        raise InvalidRequest("?renew keeps the value of the key: send no body")
    index = _number(params, "cas")
    if "cas" in params and not index:
        raise InvalidRequest("?renew with ?cas=0: a key that is not there can't be renewed")
    return KVOp(verb=KVVerb.RENEW, key=key, index=index, ttl_ms=_ttl_ms(params))


def _ttl_ms(params: Query) -> int:
    """`?ttl` in milliseconds, 0 when there is none."""
    text = params.get("ttl")
    return 0 if text is None else key_ttl_ms_of(parse_duration(text), text)


async def read_value(request: web.Request) -> bytes:
    """The body of a KV write.

    Raises:
        TooLarge: It is over 512 KiB.
    """
    return await read_body(request, KV_VALUE_BYTES_MAX)


def _number(params: Query, name: str) -> int:
    text = params.get(name)
    if text is None:
        return 0
    return parse_uint(text, f"Invalid {name} value {text[:32]!r}: it must be an unsigned number")


def _check_key(key: str) -> None:
    if not key:
        raise InvalidRequest("Missing key name")
    _check_length(key)


def _check_length(key: str) -> None:
    if len(key) * 4 > KV_KEY_BYTES_MAX and len(key.encode()) > KV_KEY_BYTES_MAX:
        raise TooLarge(f"Key name too long, max size: {KV_KEY_BYTES_MAX} bytes.")


def _check_conflicts(params: Query, names: tuple[str, ...]) -> None:
    if not params:
        return
    given = [name for name in names if name in params]
    if len(given) > 1:
        raise InvalidRequest(f"Conflicting flags: {', '.join(given)}")
