"""What the handlers of the API work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl, unquote_to_bytes

from aiohttp import web

from raftreg.clock import Clock
from raftreg.config import ServerSettings
from raftreg.errors import InvalidRequest
from raftreg.http.params import NO_QUERY, Query
from raftreg.raft.api import ReplicaAPI
from raftreg.server.leases import Leases
from raftreg.server.machine import RegistryMachine
from raftreg.server.reads import Reads
from raftreg.server.renewals import RenewalQueue
from raftreg.server.viewfeed import ViewFeed
from raftreg.server.writes import Writes

QUERY_FIELDS_MAX = 256
QUERY_KEPT_CHARS = 32  #: `stale`, `consistent`, `recurse`: what has no index in it


@dataclass(frozen=True, slots=True)
class Context:
    """The collaborators of a server.

    Attributes:
        new_id: Makes a random UUID.
    """

    settings: ServerSettings
    replica: ReplicaAPI
    machine: RegistryMachine
    reads: Reads
    writes: Writes
    renewals: RenewalQueue
    leases: Leases
    feed: ViewFeed
    clock: Clock
    new_id: Callable[[], str]


def split_target(request: web.Request, prefix: str) -> tuple[str, Query]:
    """Gives the rest of the path after a prefix, and the query, both decoded.

    Cheaper than the framework's own URL object, which the hot paths do without.

    Raises:
        InvalidRequest: An escape does not stand for UTF-8: two keys would become one.
    """
    target = request.raw_path
    if not target.startswith(prefix):  # absolute form, as proxies send it
        target = request.rel_url.raw_path_qs
    path, mark, text = target.partition("?")
    rest = path[len(prefix) :]
    if "%" in rest or not rest.isascii():
        rest = decoded(rest)
    return rest, query_from(text) if mark else NO_QUERY


def decoded(text: str) -> str:
    """A part of a path without its escapes.

    Raises:
        InvalidRequest: It is no UTF-8.
    """
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError:
        raise InvalidRequest("Invalid path: an escape in it is no UTF-8") from None


def query_from(text: str) -> Query:
    """Reads a query string; short ones, which come again and again, are read once.

    Raises:
        InvalidRequest: It holds too many fields.
    """
    return _query_kept(text) if len(text) <= QUERY_KEPT_CHARS else _query(text)


def _query(text: str) -> Query:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError as error:
        raise InvalidRequest(f"Invalid query string: {error}") from error
    return Query(pairs)


_query_kept = lru_cache(maxsize=1024)(_query)
