"""Reads that only servers can answer, asked once for all who ask the same.

A default read at an agent must hold what was acknowledged before it came, so a server confirms it.
Those who come with one question while it is on its way share the next one. A blocking query is
checked so when it comes; then it waits for the *view* to hear of a change, which costs the servers
nothing, and is checked again. The view decides when to ask, never what is answered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import structlog

from raftreg.client.http import Response
from raftreg.client.options import ParamValue
from raftreg.errors import RaftregError
from raftreg.http.catalog_query import CatalogQuery
from raftreg.http.discovery import CatalogSource
from raftreg.http.params import ReadOptions, query_from
from raftreg.http.reply import GZIP_BYTES_MIN, GZIP_HEAD, gzip_bytes
from raftreg.http.watch import ALL
from raftreg.http.wire.answers import Answer
from raftreg.http.wire.gate import ReadGate, Spawn
from raftreg.http.wire.reads import ReadDesk, refuse, settle
from raftreg.http.wire.road import Caller, ShortRoute
from raftreg_agent.proxy import handed_on_bytes

QUESTIONS_KEPT_MAX: Final = 1024
#: These say how to wait, not what is asked.
_WAITING: Final = frozenset({"index", "wait"})

_log = structlog.get_logger(__name__)

Params = Mapping[str, ParamValue]
Moment = Callable[[], object]


class Servers(Protocol):
    """Whom to ask (`raftreg_agent.proxy.ServerProxy`)."""

    async def read(self, path: str, params: Params, wait_s: float = 0.0) -> Response:
        """Asks a server, and the next one when it fails.

        Raises:
            RaftregError: None could answer; the text is for clients.
        """
        ...


class Question:
    """One question to the servers, for all who ask it.

    Args:
        servers: Whom to ask.
        path: Path of the request.
        params: Its options, without index and wait.
        moment: Names the moment of the view as far as this question is concerned: another one means
            that the answer may be another.
        spawn: Runs a coroutine in the agent's group of tasks.

    Attributes:
        gate: Those who join it are let in with a new answer.
        response: That answer, while they are let in.
        before: The view's moment before it was asked for: what changes after, the view still tells.
    """

    def __init__(
        self, servers: Servers, path: str, params: Params, moment: Moment, spawn: Spawn
    ) -> None:
        self.gate = ReadGate(self._ask, spawn)
        self.response: Response | None = None
        self.moment = moment
        self.before: object = None
        self._servers = servers
        self._path = path
        self._params = params
        self._answers: dict[bool, Answer] = {}

    @property
    def index(self) -> int:
        """Index of the answer; 0 when it has none."""
        return 0 if self.response is None else index_of(self.response)

    def answer(self, *, gzip: bool) -> Answer:
        """The answer, as bytes that all share."""
        assert self.response is not None
        answer = self._answers.get(gzip)
        if answer is None:
            answer = self._answers[gzip] = whole_answer(self.response, gzip=gzip)
        return answer

    async def _ask(self) -> None:
        self.before = self.moment()
        self.response = await self._servers.read(self._path, self._params)
        # The gate lets everybody in before the loop turns. Kept longer, it would be of no use.
        asyncio.get_running_loop().call_soon(self._forget)

    def _forget(self) -> None:
        self.response = None
        self._answers.clear()


class SharedReads:
    """Makes routes that share their questions.

    Args:
        desk: Clock, dates, figures, and the view's hub.
        source: The view.
        servers: Whom to ask.
        spawn: Runs a coroutine in the agent's group of tasks.
        ready: Whether the view can tell of changes.
    """

    def __init__(
        self,
        desk: ReadDesk,
        source: CatalogSource,
        servers: Servers,
        spawn: Spawn,
        ready: Callable[[], bool],
    ) -> None:
        self.desk = desk
        self.source = source
        self.servers = servers
        self.spawn = spawn
        self.ready = ready
        self._questions: OrderedDict[tuple[str, str], Question] = OrderedDict()

    def route(
        self, label: str, path: str, text: str, options: ReadOptions, asked: CatalogQuery
    ) -> ShortRoute:
        """The route of one request line; see `raftreg.http.wire.catalog.Elsewhere`."""
        query = query_from(text)
        params = {name: list(query.all(name)) for name in query if name not in _WAITING}
        key = (path, repr(params))
        question = self._questions.get(key)
        if question is None:
            question = Question(self.servers, path, params, self._moment(asked), self.spawn)
            self._questions[key] = question
            if len(self._questions) > QUESTIONS_KEPT_MAX:
                self._questions.popitem(last=False)
        all_params = {name: list(query.all(name)) for name in query}
        return SharedRead(self, question, label, options, asked, (path, all_params))

    def _moment(self, asked: CatalogQuery) -> Moment:
        source, topics = self.source, asked.topics
        return lambda: (source.catalog().last_change(topics), source.rendered.clearings)


class SharedRead:
    """One request line.

    Args:
        shared: What it shares with others.
        question: What is asked.
        label: Path pattern, for the figures.
        options: Of the request.
        asked: The same question to the view.
        target: Path and options of the request, as they are.
    """

    def __init__(
        self,
        shared: SharedReads,
        question: Question,
        label: str,
        options: ReadOptions,
        asked: CatalogQuery,
        target: tuple[str, Params],
    ) -> None:
        self.shared = shared
        self.question = question
        self.label = label
        self.options = options
        self.topics = (*asked.topics, (ALL, ""))
        self.target = target

    def serve(self, caller: Caller) -> bool:
        """See `ShortRoute.serve`."""
        if not self.shared.ready():
            return False
        desk, wait_s = self.shared.desk, 0.0
        if self.options.index:
            wait_s = self.options.wait_s * (1 + desk.jitter() / 16)
        self.question.gate.join(_Asking(self, desk.now() + wait_s), caller)
        return True


class _Asking:
    """One request on its way; a `Confirmed` of the gate, then a `Waiter` of the hub."""

    __slots__ = ("_before", "_caller", "_due", "_over", "_route", "_timer", "_until_s", "topics")

    def __init__(self, route: SharedRead, until_s: float) -> None:
        self._route = route
        self._until_s = until_s
        self._before: object = None
        self._caller: Caller | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        self._over = True
        self.topics = route.topics

    # -- the servers have spoken

    def confirmed(self, caller: Caller, error: RaftregError | None) -> None:
        """See `Confirmed.confirmed`."""
        route, desk = self._route, self._route.shared.desk
        if error is not None:
            refuse(desk, route.label, caller, error, timed=not route.options.index)
            return
        asked, found = route.options.index, route.question.index
        left_s = self._until_s - desk.now()
        if not asked or not found or found > asked or left_s <= 0:
            answer = route.question.answer(gzip=caller.gzip)
            settle(desk, route.label, caller, answer, timed=not asked)
        elif found < asked:
            # From another question, or from another history: a server can tell.
            route.shared.spawn(self._ask_alone(caller, left_s))
        else:
            self._wait(caller, left_s)

    async def _ask_alone(self, caller: Caller, wait_s: float) -> None:
        route, desk = self._route, self._route.shared.desk
        path, params = route.target
        task = asyncio.current_task()
        assert task is not None
        if not caller.wait(partial(_cancel, task)):
            return
        try:
            response = await route.shared.servers.read(path, params, wait_s)
        except RaftregError as error:
            refuse(desk, route.label, caller, error, timed=False)
        except asyncio.CancelledError:
            desk.meter.observe(route.label, "GET", 499, 0.0)
            raise
        except Exception:  # noqa: BLE001 - the last line of defence; the fault is logged in full
            _log.exception("request_failed", method="GET", path=path)
            caller.abort()
        else:
            answer = whole_answer(response, gzip=caller.gzip)
            settle(desk, route.label, caller, answer, timed=False)

    # -- nothing new: until the view hears of a change

    def _wait(self, caller: Caller, wait_s: float) -> None:
        route, desk = self._route, self._route.shared.desk
        try:
            desk.hub.join(self)
        except RaftregError as error:
            refuse(desk, route.label, caller, error, timed=False)
            return
        self._over = False
        self._caller = caller
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._ask_again)
        if not caller.wait(self._gone):
            self._gone()
            return
        self._before = route.question.before
        self.look()  # the view may have heard of a change while the answer was on its way

    def wake(self) -> None:
        """See `Waiter.wake`."""
        if not self._due:
            self._due = True
            self._route.shared.desk.wake(self)

    def look(self) -> None:
        """See `Woken.look`."""
        self._due = False
        if not self._over and self._route.question.moment() != self._before:
            self._ask_again()

    def fail(self, reason: RaftregError) -> None:
        """See `Waiter.fail`."""
        if not self._over:
            caller = self._leave()
            refuse(self._route.shared.desk, self._route.label, caller, reason, timed=False)

    def _ask_again(self) -> None:
        self._route.question.gate.join(self, self._leave())

    def _gone(self) -> None:
        self._leave()
        self._route.shared.desk.meter.observe(self._route.label, "GET", 499, 0.0)

    def _leave(self) -> Caller:
        caller, self._caller = self._caller, None
        assert caller is not None
        self._over = True
        caller.on_gone = None
        self._route.shared.desk.hub.leave(self)
        if self._timer is not None:
            self._timer.cancel()
        return caller


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


def index_of(response: Response) -> int:
    """X-Consul-Index of an answer; 0 when it has none."""
    text = response.headers.get("X-Consul-Index", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def whole_answer(response: Response, *, gzip: bool) -> Answer:
    """A server's answer as it is handed on."""
    kind, head = handed_on_bytes(response.headers)
    body = response.body
    if gzip and len(body) >= GZIP_BYTES_MIN:
        body, head = gzip_bytes(body), head + GZIP_HEAD
    return Answer(body, response.status, kind, head)
