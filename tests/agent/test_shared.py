"""Reads that an agent asks servers once for all who ask the same; and who may share what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import pytest

from raftreg.client.http import Response
from raftreg.core.catalog import Catalog
from raftreg.errors import NoLeader, NotProposed
from raftreg.http.catalog_query import CatalogQuery
from raftreg.http.discovery import CatalogSource
from raftreg.http.meter import HttpMeter
from raftreg.http.params import query_from, read_options
from raftreg.http.watch import RenderedCache, WatchHub
from raftreg.http.wire.reads import ReadDesk
from raftreg_agent.shared import SharedRead, SharedReads

PATH = "/v1/health/service/web"
TOPIC = ("service", "web")


class Caller:
    """Who waits for an answer."""

    def __init__(self) -> None:
        self.gzip = False
        self.body = b""
        self.began_s = 0.0
        self.on_gone: Callable[[], None] | None = None
        self.answers: list[bytes] = []
        self.is_gone = False

    def reply(self, answer: bytes, tail: bytes = b"") -> None:
        """Keeps it."""
        self.answers.append(answer + tail)

    def wait(self, on_gone: Callable[[], None]) -> bool:
        """Keeps whom to tell."""
        if self.is_gone:
            return False
        self.on_gone = on_gone
        return True

    def abort(self) -> None:
        """Must not be needed."""
        raise AssertionError


class View:
    """The agent's copy of the catalog, as far as one question goes."""

    datacenter = "dc1"

    def __init__(self) -> None:
        self.hub = WatchHub()
        self.rendered = RenderedCache()
        self.index = 5

    def catalog(self) -> Catalog:
        """Stands in for it."""
        return cast(Catalog, self)

    def last_change(self, topics: object) -> int:
        """Of the one question."""
        assert topics == (TOPIC,)
        return self.index

    def change(self, index: int) -> None:
        """The feed told of a change."""
        self.index = index
        self.hub.publish([TOPIC])


class Servers:
    """Answers each read when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], float]] = []
        self._answers: list[asyncio.Future[Response]] = []

    async def read(self, path: str, params: Any, wait_s: float = 0.0) -> Response:
        """Waits for `answer`."""
        assert path == PATH
        self.asked.append((dict(params), wait_s))
        self._answers.append(asyncio.get_running_loop().create_future())
        return await self._answers[-1]

    async def answer(self, index: int, body: bytes = b"[]") -> None:
        """Answers the oldest read that waits, once there is one."""
        await _until(lambda: self._answers)
        headers = {"Content-Type": "application/json", "X-Consul-Index": str(index)}
        answer = Response(status=200, headers=headers, body=body, address="")
        self._answers.pop(0).set_result(answer)

    def is_left_alone(self) -> bool:
        """Whether those who asked wait no more."""
        return all(answer.cancelled() for answer in self._answers)

    async def fail(self) -> None:
        """Fails it."""
        await _until(lambda: self._answers)
        self._answers.pop(0).set_exception(NoLeader("No cluster leader"))


async def _until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - any condition, not only those with an event
        await asyncio.sleep(0)


class Rig:
    """Shared reads over all of these."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.view = View()
        self.servers = Servers()
        self.meter = HttpMeter()
        self.now_s = 100.0
        self.ready = True
        desk = ReadDesk(self.view.hub, self.meter, lambda: self.now_s, lambda: 0.0)
        source = cast(CatalogSource, self.view)

        def spawn(work: Coroutine[Any, Any, None]) -> object:
            return tasks.create_task(work)

        self._shared = SharedReads(desk, source, self.servers, spawn, lambda: self.ready)

    def route(self, text: str) -> SharedRead:
        """The route of a request line."""
        options = read_options(query_from(text))
        asked = CatalogQuery(("web",), (TOPIC,), lambda _: [])
        made = self._shared.route(f"{PATH}/{{name}}", PATH, text, options, asked)
        return cast(SharedRead, made)

    def ask(self, text: str) -> Caller:
        """A request comes."""
        caller = Caller()
        assert self.route(text).serve(caller)
        return caller


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A rig in a group of tasks."""
    async with asyncio.TaskGroup() as tasks:
        yield Rig(tasks)


def _indexes(*callers: Caller) -> list[int]:
    """The index that each was told, once."""
    found = []
    for caller in callers:
        (answer,) = caller.answers
        found.append(int(answer.partition(b"X-Consul-Index: ")[2].partition(b"\r\n")[0]))
    return found


async def test_who_comes_while_a_read_is_on_its_way_shares_the_next(rig: Rig) -> None:
    """Never the one on its way: it may be older than what they know of."""
    first = rig.ask("passing")
    await _until(lambda: rig.servers.asked)
    later = [rig.ask("passing") for _ in range(5)]
    await rig.servers.answer(7)
    await rig.servers.answer(8)
    await _until(lambda: later[-1].answers)
    assert _indexes(first, *later) == [7, 8, 8, 8, 8, 8]
    assert [params for params, _ in rig.servers.asked] == [{"passing": [""]}] * 2


async def test_other_questions_are_asked_for_themselves(rig: Rig) -> None:
    """Only what says how to wait may differ among those who share."""
    callers = [rig.ask("passing"), rig.ask("passing&tag=a"), rig.ask("passing&index=3&wait=1s")]
    await rig.servers.answer(7)
    await rig.servers.answer(8)
    await _until(lambda: all(caller.answers for caller in callers))
    assert _indexes(*callers) == [7, 8, 7]


async def test_a_blocked_query_is_checked_then_waits_for_the_view(rig: Rig) -> None:
    """Nothing is asked while nothing changes; a change is told by a server, not by the view."""
    callers = [rig.ask("index=7&wait=60s") for _ in range(3)]
    await rig.servers.answer(7)
    await _until(lambda: rig.view.hub.count == 3)
    assert len(rig.servers.asked) == 1
    rig.view.change(8)
    await rig.servers.answer(9)
    await _until(lambda: callers[-1].answers)
    assert _indexes(*callers) == [9, 9, 9]
    assert len(rig.servers.asked) == 2
    assert rig.view.hub.count == 0


async def test_a_change_while_the_check_is_on_its_way_is_not_missed(rig: Rig) -> None:
    """The view may hear of it before the answer, older than it, arrives."""
    caller = rig.ask("index=7&wait=60s")
    await _until(lambda: rig.servers.asked)
    rig.view.change(8)
    await rig.servers.answer(7)
    await rig.servers.answer(8)
    await _until(lambda: caller.answers)
    assert _indexes(caller) == [8]


async def test_a_view_that_is_ahead_of_the_clients_index_asks_no_further(rig: Rig) -> None:
    """As after a reset of the view: its index is above the question's for ever."""
    rig.view.index = 500
    caller = rig.ask("index=7&wait=60s")
    await rig.servers.answer(7)
    await _until(lambda: rig.view.hub.count == 1)
    rig.view.change(501)
    await rig.servers.answer(7)
    await _until(lambda: rig.view.hub.count == 1)
    assert len(rig.servers.asked) == 2
    rig.view.change(502)
    await rig.servers.answer(8)
    await _until(lambda: caller.answers)


async def test_a_wait_that_is_over_is_answered_with_what_there_is(rig: Rig) -> None:
    """By a server, and without a change."""
    caller = rig.ask("index=7&wait=1ms")
    await rig.servers.answer(7)
    await _until(lambda: rig.view.hub.count == 1)
    rig.now_s += 1.0
    await rig.servers.answer(7)
    await _until(lambda: caller.answers)
    assert _indexes(caller) == [7]


async def test_an_index_from_elsewhere_is_for_a_server_to_judge(rig: Rig) -> None:
    """It is asked alone, as the client put it."""
    caller = rig.ask("index=900&wait=60s")
    await rig.servers.answer(7)
    await _until(lambda: len(rig.servers.asked) == 2)
    params, wait_s = rig.servers.asked[1]
    assert (params, wait_s) == ({"index": ["900"], "wait": ["60s"]}, 60.0)
    await rig.servers.answer(8)
    await _until(lambda: caller.answers)
    assert _indexes(caller) == [8]


async def test_without_a_server_all_are_refused(rig: Rig) -> None:
    """In the words that clients know; also those who wait when the agent stops."""
    caller, blocked = rig.ask("passing"), rig.ask("index=7")
    await rig.servers.fail()
    await rig.servers.answer(7)
    await _until(lambda: rig.view.hub.count == 1)
    rig.view.hub.close(NotProposed("the agent is stopping"))
    for refused in (caller, blocked):
        (answer,) = refused.answers
        assert answer.startswith(b"HTTP/1.1 5")
    assert caller.answers[0].endswith(b"No cluster leader")


async def test_a_client_that_goes_is_forgotten(rig: Rig) -> None:
    """Its place among the waiters is free at once."""
    caller = rig.ask("index=7")
    await rig.servers.answer(7)
    await _until(lambda: rig.view.hub.count == 1)
    assert caller.on_gone is not None
    caller.on_gone()
    assert rig.view.hub.count == 0


@pytest.mark.parametrize("asked", ["index=7", "index=900&wait=60s"])
async def test_a_client_that_goes_before_it_has_to_wait_is_not_waited_for(
    rig: Rig, asked: str
) -> None:
    """Neither at the view nor at a server."""
    caller = rig.ask(asked)
    caller.is_gone = True
    await rig.servers.answer(7)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(rig.servers.asked) == 1
    assert rig.view.hub.count == 0


async def test_a_client_that_goes_ends_the_query_asked_for_it_alone(rig: Rig) -> None:
    """A server must not be kept waiting for nobody."""
    caller = rig.ask("index=900&wait=60s")
    await rig.servers.answer(7)
    await _until(lambda: len(rig.servers.asked) == 2)
    assert caller.on_gone is not None
    caller.on_gone()
    await _until(rig.servers.is_left_alone)
    assert not caller.answers


async def test_a_view_that_may_not_hear_of_changes_is_not_relied_on(rig: Rig) -> None:
    """Such requests take the plain road."""
    rig.ready = False
    assert not rig.route("passing").serve(Caller())
