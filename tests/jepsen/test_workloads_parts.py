"""Parts of workloads that no run without faults reaches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen_like.door import Answer, NoAnswer, NotSent
from jepsen_like.history import Type
from jepsen_like.workloads import WORKLOADS
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.once import Once
from jepsen_like.workloads.register import Register
from jepsen_like.workloads.steps import Ended
from jepsen_like.workloads.viewfeed import Frame, Position, Turn, frames
from tests.jepsen.lying import LyingDoor

# -- the stream ------------------------------------------------------------------------------------


def _frame(kind: str, index: int, *rows: tuple[str, int], epoch: str = "") -> bytes:
    deltas = [
        ["service", "host", name, index, {"id": name, "modify_index": at, "meta": {"value": "1"}}]
        for name, at in rows
    ]
    fields: dict[str, Any] = {"kind": kind, "index": index}
    if rows:
        fields["deltas"] = deltas
    if epoch:
        fields["epoch"] = epoch
    data = msgspec.msgpack.encode(fields)
    return len(data).to_bytes(4, "big") + data


async def _read(data: bytes, cuts: list[int]) -> list[Frame]:
    async def chunks() -> AsyncIterator[bytes]:
        last = 0
        for cut in sorted(cuts):
            yield data[last:cut]
            last = cut
        yield data[last:]

    return [frame async for frame in frames(chunks())]


def _turn(since: Position, told: list[Frame]) -> Turn:
    turn = Turn(since)
    for frame in told:
        turn.take(frame)
    return turn


STREAM = b"".join(
    [
        _frame("reset", 9, epoch="e"),
        _frame("deltas", 7, ("b", 7), ("a", 3)),
        _frame("deltas", 7, ("d", 2), ("c", 5)),
        _frame("deltas", 8, ("e", 8)),
        _frame("beat", 9),
        _frame("deltas", 10, ("f", 10)),
    ]
)


@given(st.lists(st.integers(0, len(STREAM))))
async def test_a_stream_is_read_alike_however_it_is_cut(cuts: list[int]) -> None:
    """Chunks mean nothing; what is not whole at the end is left out."""
    whole = await _read(STREAM, [])
    assert await _read(STREAM, cuts) == whole
    assert await _read(STREAM[:-1], cuts) == whole[:-1]


async def test_a_content_sent_anew_shows_what_is_new_in_the_order_of_time() -> None:
    """Tables come in the order of names; what the client had is left out."""
    turn = _turn(Position(3, "old"), await _read(STREAM, []))
    assert [(name, at) for name, _, at in turn.rows] == [("c", 5), ("b", 7), ("e", 8), ("f", 10)]
    assert (turn.settled, turn.position) == (True, Position(10, "e"))


async def test_a_content_that_is_not_whole_counts_for_nothing() -> None:
    """Before the first beat nobody knows what of the content is still to come."""
    turn = _turn(Position(3, "old"), (await _read(STREAM, []))[:4])
    assert (turn.settled, turn.rows) == (False, [])


async def test_a_stream_that_is_resumed_shows_everything_as_it_comes() -> None:
    """Also what should not be: a repetition, and an index that goes back, are for the checker."""
    data = _frame("resume", 5, epoch="e") + _frame("deltas", 6, ("a", 6)) * 2 + _frame("beat", 4)
    turn = _turn(Position(5, "e"), await _read(data, []))
    assert [at for _, _, at in turn.rows] == [6, 6]
    assert turn.position.index == 4


@pytest.mark.parametrize("data", [b"\xff" * 8, b"\x00\x00\x00\x01\xc1"], ids=["huge", "nonsense"])
async def test_what_is_no_stream_ends_the_operation(data: bytes) -> None:
    """A frame beyond all bounds, or one that can't be read."""
    with pytest.raises(Ended):
        await _read(data, [])


# -- outcomes --------------------------------------------------------------------------------------


class Scripted(LyingDoor):
    """Does to each request what comes next in a script."""

    def __init__(self, *script: Answer | Exception) -> None:
        self.script = list(script)
        self.sent: list[tuple[str, str, Mapping[str, str]]] = []

    async def request(
        self,
        node: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 5.0,
    ) -> Answer:
        """See `Door.request`."""
        self.sent.append((method, path, dict(headers or {})))
        told = self.script.pop(0)
        if isinstance(told, Exception):
            raise told
        return told


def _ok(body: str, index: int = 7) -> Answer:
    return Answer(200, {"x-consul-index": str(index)}, body.encode())


def _context(door: Scripted) -> Context:
    return Context(door=door, servers=("n1", "n2"), agents=(), rng=Random(1), worker=0)


UNKNOWN = Answer(503, {"x-raftreg-error": "unknown_outcome"}, b"")
NO_LEADER = Answer(500, {"x-raftreg-error": "no_leader"}, b"No cluster leader")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (_ok("true"), Type.OK),
        (NotSent("refused"), Type.FAIL),
        (NoAnswer("cut off"), Type.INFO),
        (UNKNOWN, Type.INFO),
        (NO_LEADER, Type.FAIL),
        (Answer(500, {}, b"Internal error"), Type.INFO),
        (_ok("who knows"), Type.INFO),
    ],
)
async def test_a_write_ends_as_its_answer_says(told: Answer | Exception, expected: Type) -> None:
    """FAIL only where it certainly had no effect; and then its index is the answer's."""
    completion = await Register().invoke(_context(Scripted(told)), Invocation("write", "k0", 1))
    assert completion.type is expected
    assert completion.raft_index == (7 if expected is Type.OK else None)


@pytest.mark.parametrize("told", [NoAnswer("cut off"), UNKNOWN, NO_LEADER, _ok("who knows")])
async def test_a_read_without_an_answer_failed(told: Answer | Exception) -> None:
    """It had no effect that could be unknown, so its process may go on."""
    invocation = Invocation("read", "k0", "default")
    completion = await Register().invoke(_context(Scripted(told)), invocation)
    assert completion.type is Type.FAIL


async def test_a_cas_whose_read_fails_failed() -> None:
    """Nothing was written yet."""
    invocation = Invocation("cas", "k0", [1, 2])
    completion = await Register().invoke(_context(Scripted(NoAnswer("cut off"))), invocation)
    assert completion.type is Type.FAIL


async def _appended(*script: Answer | Exception) -> tuple[Completion, Scripted]:
    door = Scripted(*script)
    return await Once().invoke(_context(door), Invocation("append", "rows", 1)), door


async def test_a_write_is_repeated_under_one_name_until_it_is_known() -> None:
    """A definite failure of a later attempt does not end it: an earlier one may have worked."""
    script = (NoAnswer("cut off"), NO_LEADER, NotSent("refused"), UNKNOWN, _ok("true"))
    completion, door = await _appended(*script)
    assert (completion.type, completion.raft_index) == (Type.OK, 7)
    names = {headers["X-Raftreg-Request-Id"] for _, _, headers in door.sent}
    assert (len(names), len(door.sent)) == (1, len(script))


async def test_the_patience_with_an_unknown_outcome_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """INFO when any attempt may have had its effect, FAIL when none can."""
    monkeypatch.setattr("jepsen_like.workloads.once.PATIENCE_S", 0.0)
    assert (await _appended(NO_LEADER))[0].type is Type.FAIL
    assert (await _appended(UNKNOWN))[0].type is Type.INFO


async def test_who_reads_a_key_written_twice_is_told_so() -> None:
    """Its id is given at both of its indexes."""
    rows = [
        {"Key": f"jepsen/once/rows/{name}", "CreateIndex": create, "ModifyIndex": modify}
        for name, create, modify in ((1, 3, 9), (2, 5, 5))
    ]
    door = Scripted(_ok(msgspec.json.encode(rows).decode()))
    completion = await Once().invoke(_context(door), Invocation("read", "rows"))
    assert completion.value == [1, 2, 1]


@pytest.mark.parametrize("name", WORKLOADS)
async def test_a_seed_gives_the_same_operations_again(name: str) -> None:
    """The simulator replays a run from its seed alone."""

    def run() -> list[Invocation]:
        workload = WORKLOADS[name]()
        context = _context(Scripted())
        context.agents = ("a1", "a2")
        return [workload.next(context) for _ in range(50)]

    assert run() == run()
