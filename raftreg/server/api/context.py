"""What the handlers of the API work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from aiohttp import web

from raftreg.clock import Clock
from raftreg.config import ServerSettings
from raftreg.errors import InvalidRequest
from raftreg.http.delta_streams import DeltaStreams
from raftreg.http.params import NO_QUERY, Query, query_from
from raftreg.raft.api import ReplicaAPI
from raftreg.server.leases import Leases
from raftreg.server.machine import RegistryMachine
from raftreg.server.reads import Reads
from raftreg.server.renewals import RenewalQueue
from raftreg.server.viewfeed import ViewFeed
from raftreg.server.writes import Writes


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
    streams: DeltaStreams
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
