"""The short way of an agent: words about TTL checks, and hot reads of the view."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from raftreg.errors import RaftregError
from raftreg.http.middleware import RequestMeter
from raftreg.http.params import query_from
from raftreg.http.wire.answers import Answer, fault, refusal
from raftreg.http.wire.catalog import catalog_hot
from raftreg.http.wire.gate import Spawn
from raftreg.http.wire.reads import ReadDesk
from raftreg.http.wire.road import Caller, Hot, ShortRoad, ShortRoute
from raftreg_agent.discovery import ViewSource, allows
from raftreg_agent.local import LocalAgent
from raftreg_agent.routes import CHECK_VERBS, check_update
from raftreg_agent.shared import Servers, SharedReads
from raftreg_agent.view import SILENCE_S, CatalogView

_PREFIX: Final = "/v1/agent/check/"
_WORD_ROUTE: Final = "/v1/agent/check/{verb}/{id}"  #: as the router names it
_UPDATE_ROUTE: Final = "/v1/agent/check/update/{id}"
_ID = re.compile(r"[A-Za-z0-9._~:@/-]+")
#: Escapes of ASCII alone: what others stand for is said on the plain road.
_QUERY = re.compile(r"(?:[A-Za-z0-9=&._~:/+-]|%[2-7][0-9A-Fa-f])*")

_log = structlog.get_logger(__name__)


def agent_road(
    local: LocalAgent,
    view: CatalogView,
    source: ViewSource,
    servers: Servers,
    meter: RequestMeter,
    spawn: Spawn,
) -> ShortRoad:
    """The hot requests of an agent.

    Args:
        local: What is registered on this host.
        view: The copy of the catalog.
        source: Reads of it.
        servers: Answer what the view may not.
        meter: Counts answers.
        spawn: Runs a coroutine in the agent's group of tasks.
    """
    desk = ReadDesk(source.hub, meter, source.now, source.jitter)
    shared = SharedReads(desk, source, servers, spawn, lambda: _hears(view))
    reads = catalog_hot(
        desk,
        source,
        lambda options: view.ready.is_set(),
        lambda options: allows(options, 0.0),
        shared.route,
    )
    return ShortRoad((*check_hot(local)(desk, spawn), *reads))


def _hears(view: CatalogView) -> bool:
    """Whether a change would reach the view at once."""
    age_s = view.age_s
    return view.ready.is_set() and age_s is not None and age_s < SILENCE_S


def check_hot(local: LocalAgent) -> Callable[[ReadDesk, Spawn], tuple[Hot, ...]]:
    """The hot requests about checks of this host, for an agent's road or a server's."""

    def hot(desk: ReadDesk, spawn: Spawn) -> tuple[Hot, ...]:
        def word(verb: str) -> Callable[[str, str], ShortRoute | None]:
            def make(check_id: str, text: str) -> ShortRoute | None:
                if not _ID.fullmatch(check_id) or not _QUERY.fullmatch(text):
                    return None
                query = query_from(text)
                if not {"note"}.issuperset(query):
                    return None
                return Word(local, desk, spawn, check_id, verb, query.get("note", ""))

            return make

        def update(check_id: str, text: str) -> ShortRoute | None:
            if text or not _ID.fullmatch(check_id):
                return None
            return Word(local, desk, spawn, check_id, "", "")

        makers = {**{verb: word(verb) for verb in CHECK_VERBS}, "update": update}
        return tuple(
            Hot(b"PUT", f"{_PREFIX}{verb}/".encode("ascii"), make) for verb, make in makers.items()
        )

    return hot


class Word:
    """PUT /v1/agent/check/(pass, warn, fail or update)/ID.

    Args:
        local: What is registered on this host.
        desk: Clock, dates and figures.
        spawn: Runs a coroutine in the process's group of tasks.
        check_id: The check.
        verb: What is said of it; "": the body tells.
        note: Likewise.
    """

    __slots__ = ("_check_id", "_desk", "_local", "_note", "_spawn", "_verb")

    def __init__(
        self,
        local: LocalAgent,
        desk: ReadDesk,
        spawn: Spawn,
        check_id: str,
        verb: str,
        note: str,
    ) -> None:
        self._local = local
        self._desk = desk
        self._spawn = spawn
        self._check_id = check_id
        self._verb = verb
        self._note = note

    def serve(self, caller: Caller) -> bool:
        """See `ShortRoute.serve`."""
        try:
            change = self._take(caller.body)
        except RaftregError as error:
            self._tell(caller, error.http_status, refusal(error, self._date()))
            return True
        if change is None:
            self._tell(caller, 200, _TAKEN.at(self._date()))
        else:
            self._spawn(self._settle(caller, change))
        return True

    def _take(self, body: bytes) -> Coroutine[Any, Any, None] | None:
        if self._verb:
            status, note = CHECK_VERBS[self._verb], self._note
        else:
            status, note = check_update(body)
        return self._local.take_word(self._check_id, status, note)

    async def _settle(self, caller: Caller, change: Coroutine[Any, Any, None]) -> None:
        """Answers once the change is in the catalog."""
        try:
            await change
        except RaftregError as error:
            self._tell(caller, error.http_status, refusal(error, self._date()))
        except Exception:  # noqa: BLE001 - the last line of defence; the fault is logged in full
            _log.exception("request_failed", method="PUT", check=self._check_id)
            self._tell(caller, 500, fault(self._date()))
        else:
            self._tell(caller, 200, _TAKEN.at(self._date()))

    def _tell(self, caller: Caller, status: int, answer: bytes) -> None:
        desk = self._desk
        route = _WORD_ROUTE if self._verb else _UPDATE_ROUTE
        desk.meter.observe(route, "PUT", status, desk.now() - caller.began_s)
        caller.reply(answer)

    def _date(self) -> bytes:
        return self._desk.dates.at(self._desk.now())


_TAKEN = Answer(b"", 200, b"", b"")
