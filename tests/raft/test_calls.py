"""Questions between servers: answered, refused, lost, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from raftreg.errors import InvalidRequest, NoLeader, Unreachable
from raftreg.raft import calls
from raftreg.raft.calls import Calls, RemoteFault
from raftreg.raft.faults import ProtocolViolation


class Pair:
    """Two sides, "a" and "b"; `up` decides whether messages pass."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.group = group
        self.up = True
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.a = Calls(lambda peer, message: self._pass("a", peer, message), self._spawn)
        self.b = Calls(lambda peer, message: self._pass("b", peer, message), self._spawn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> object:
        return self.group.create_task(work)

    def _pass(self, sender: str, peer: str, message: dict[str, Any]) -> bool:
        self.sent.append((peer, message))
        if self.up:
            assert {"a": self.a, "b": self.b}[peer].receive(sender, message)
        return self.up


async def echo(payload: bytes) -> bytes:
    """Answers with what was asked."""
    return payload


async def test_a_question_gets_its_answer() -> None:
    """Each caller its own, in whatever order the answers come."""
    gates = {b"1": asyncio.Event(), b"2": asyncio.Event()}

    async def slow(payload: bytes) -> bytes:
        await gates[payload].wait()
        return payload

    async with asyncio.TaskGroup() as group:
        pair = Pair(group)
        pair.b.answer_with("x", slow)
        one = group.create_task(pair.a.ask("b", "x", b"1", 10.0))
        two = group.create_task(pair.a.ask("b", "x", b"2", 10.0))
        gates[b"2"].set()
        assert await two == b"2"
        gates[b"1"].set()
        assert await one == b"1"


async def test_an_error_of_the_other_side_arrives_as_such() -> None:
    """With its code and text; a channel that nobody answers is "no leader"."""

    async def refuse(_: bytes) -> bytes:
        raise InvalidRequest("that is wrong")

    async with asyncio.TaskGroup() as group:
        pair = Pair(group)
        pair.b.answer_with("x", refuse)
        with pytest.raises(RemoteFault, match="that is wrong") as caught:
            await pair.a.ask("b", "x", b"", 10.0)
        assert caught.value.remote_code == InvalidRequest.code
        with pytest.raises(RemoteFault) as caught:
            await pair.a.ask("b", "nobody", b"", 10.0)
        assert caught.value.remote_code == NoLeader.code


async def test_a_question_that_is_not_sent_or_lost_ends() -> None:
    """Not connected, disconnected meanwhile, no answer in time: unreachable, each time."""
    async with asyncio.TaskGroup() as group:
        pair = Pair(group)
        pair.up = False
        with pytest.raises(Unreachable, match="not connected"):
            await pair.a.ask("b", "x", b"", 10.0)
        never = Calls(lambda *_: True, lambda _: None)
        asking = asyncio.gather(never.ask("b", "x", b"", 10.0), return_exceptions=True)
        await asyncio.sleep(0)
        never.peer_lost("c")
        never.peer_lost("b")
        (error,) = await asking
        assert isinstance(error, Unreachable)
        assert "broke" in error.message
        with pytest.raises(Unreachable, match="in time"):
            await never.ask("b", "x", b"", 0.001)
        assert not never._asked


async def test_only_the_asked_peer_can_answer() -> None:
    """An answer of another server, a second one, or one to nothing, is dropped."""
    async with asyncio.TaskGroup() as group:
        side = Calls(lambda *_: True, lambda _: None)
        asking = group.create_task(side.ask("b", "x", b"", 10.0))
        await asyncio.sleep(0)
        for sender, payload in (("c", b"forged"), ("b", b"right"), ("b", b"twice")):
            assert side.receive(sender, {"type": "answer", "id": 1, "payload": payload})
        assert side.receive("b", {"type": "answer", "id": 9, "payload": b""})
        assert await asking == b"right"


async def test_questions_being_answered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a question is dropped; those before it are answered."""
    monkeypatch.setattr(calls, "ANSWERING_MAX", 2)
    async with asyncio.TaskGroup() as group:
        pair = Pair(group)
        pair.a.answer_with("x", echo)
        for number in range(3):
            question = {"type": "question", "id": number, "channel": "x", "payload": b""}
            pair.up = False
            assert pair.a.receive("b", question)
    assert [message["id"] for _, message in pair.sent] == [0, 1]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "question", "id": 1, "channel": "x"},
        {"type": "question", "id": "1", "channel": "x", "payload": b""},
        {"type": "question", "id": 1, "channel": [], "payload": b""},
        {"type": "answer"},
        {"type": "answer", "id": [], "payload": b""},
        {"type": "answer", "id": 1, "code": 5},
    ],
)
def test_a_malformed_message_is_refused(message: dict[str, Any]) -> None:
    """It is a violation of the protocol, and nothing happens."""
    with pytest.raises(ProtocolViolation):
        Calls(lambda *_: True, lambda _: None).receive("b", message)


def test_other_messages_are_not_taken() -> None:
    """They are the node's."""
    assert not Calls(lambda *_: True, lambda _: None).receive("b", {"type": "append_entries"})
