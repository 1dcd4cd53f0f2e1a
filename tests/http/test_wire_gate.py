"""Reads confirmed together: who is in which batch, and what tables may hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from raftreg.errors import NoLeader, RaftregError
from raftreg.http.wire import road as roads
from raftreg.http.wire.gate import ReadGate
from raftreg.http.wire.road import Caller, Hot, ShortRoad


class Reader:
    """A route and its caller in one."""

    def __init__(self) -> None:
        self.gzip = False
        self.body = b""
        self.began_s = 0.0
        self.on_gone: Callable[[], None] | None = None
        self.said: list[RaftregError | None] = []
        self.aborted = False

    def confirmed(self, caller: Caller, error: RaftregError | None) -> None:
        """Takes note."""
        assert caller is self
        self.said.append(error)

    def serve(self, caller: Caller) -> bool:
        """Not asked for here."""
        raise AssertionError

    def reply(self, answer: bytes, tail: bytes = b"") -> None:
        """Not asked for here."""
        raise AssertionError

    def wait(self, on_gone: Callable[[], None]) -> bool:
        """Not asked for here."""
        raise AssertionError

    def abort(self) -> None:
        """Takes note."""
        self.aborted = True


class Broken(Reader):
    """One that fails."""

    def confirmed(self, caller: Caller, error: RaftregError | None) -> None:
        """As a bug would."""
        raise ZeroDivisionError


class Rounds:
    """Confirmations that end when they are told to."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.begun: list[asyncio.Future[None]] = []
        self._tasks = tasks
        self.gate = ReadGate(self._confirm, self._spawn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> object:
        return self._tasks.create_task(work)

    async def _confirm(self) -> None:
        self.begun.append(asyncio.get_running_loop().create_future())
        await self.begun[-1]

    def join(self, *readers: Reader) -> None:
        """They come."""
        for reader in readers:
            self.gate.join(reader, reader)

    async def running(self, number: int) -> asyncio.Future[None]:
        """The confirmation of this number, once it has begun."""
        while len(self.begun) < number:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0)
        return self.begun[number - 1]


async def test_a_read_is_confirmed_by_a_round_that_began_after_it_came() -> None:
    """Those of one turn share a round; who comes while it runs is in the next, and only there."""
    first, second, late = Reader(), Reader(), Reader()
    async with asyncio.TaskGroup() as tasks:
        rounds = Rounds(tasks)
        rounds.join(first, second)
        one = await rounds.running(1)
        rounds.join(late)
        one.set_result(None)
        two = await rounds.running(2)
        assert (first.said, second.said, late.said) == ([None], [None], [])
        two.set_result(None)
    assert late.said == [None]
    assert len(rounds.begun) == 2


async def test_a_round_that_fails_is_told_to_its_own_readers() -> None:
    """The next ones have a round of their own."""
    first, late = Reader(), Reader()
    async with asyncio.TaskGroup() as tasks:
        rounds = Rounds(tasks)
        rounds.join(first)
        one = await rounds.running(1)
        rounds.join(late)
        error = NoLeader("No cluster leader")
        one.set_exception(error)
        (await rounds.running(2)).set_result(None)
    assert (first.said, late.said) == ([error], [None])


async def test_a_bug_takes_one_connection_and_not_the_process() -> None:
    """Of one reader, or of a whole round; others are answered."""
    broken, sound, cut = Broken(), Reader(), Reader()
    async with asyncio.TaskGroup() as tasks:
        rounds = Rounds(tasks)
        rounds.join(broken, sound)
        (await rounds.running(1)).set_result(None)
        rounds.join(cut)
        (await rounds.running(2)).set_exception(ZeroDivisionError())
    assert broken.aborted
    assert sound.said == [None]
    assert cut.aborted


def test_tables_are_bounded_in_number_and_size() -> None:
    """However many different requests come, and however long they are."""
    road = ShortRoad([Hot(b"GET", b"/a", lambda _name, _text: Reader())])
    for number in range(roads.LINES_KEPT_MAX + 10):
        assert road.route(b"GET /a%d HTTP/1.1" % number) is not None
    for number in range(roads.BLOCKS_KEPT_MAX + 10):
        assert road.fields(b"\r\nHost: %d\r\n\r\n" % number) is not None
    assert len(road.lines) == roads.LINES_KEPT_MAX
    assert len(road.blocks) == roads.BLOCKS_KEPT_MAX
    long = b"x" * 4000
    assert road.route(b"GET /a" + long + b" HTTP/1.1") is not None
    assert road.fields(b"\r\nHost: x\r\nUser-Agent: " + long + b"\r\n\r\n") is not None
    assert max(map(len, road.lines)) <= roads.LINE_KEPT_BYTES_MAX
    assert max(map(len, road.blocks)) <= roads.BLOCK_KEPT_BYTES_MAX
