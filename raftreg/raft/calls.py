"""Questions to the leader outside the log, over the servers' own connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from raftreg.errors import NoLeader, RaftregError, Unreachable
from raftreg.raft.messages import check_form

log = structlog.get_logger(__name__)

Message = dict[str, Any]
Answerer = Callable[[bytes], Awaitable[bytes]]
#: Questions of others that are being answered at once; more are dropped, and asked again.
ANSWERING_MAX = 4_096
PAYLOAD_BYTES_MAX = 8 * 1024 * 1024


class RemoteFault(RaftregError):
    """The leader answered with an error; its class is told by `code`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.remote_code = code


class Calls:
    """Both sides of the questions.

    Args:
        send: Sends a message to a peer; False when it was dropped.
        spawn: Runs a coroutine as a task that the owner ends.
    """

    def __init__(
        self,
        send: Callable[[str, Message], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._send = send
        self._spawn = spawn
        self._next = 0
        self._asked: dict[int, tuple[str, asyncio.Future[bytes]]] = {}
        self._answerers: dict[str, Answerer] = {}
        self._answering = 0

    def answer_with(self, channel: str, answer: Answerer) -> None:
        """Sets who answers the questions of a channel here."""
        self._answerers[channel] = answer

    async def ask_here(self, channel: str, payload: bytes) -> bytes:
        """Answers a question of this server itself."""
        answer = self._answerers.get(channel)
        if answer is None:
            raise NoLeader("No cluster leader")
        return await answer(payload)

    async def ask(self, peer: str, channel: str, payload: bytes, timeout_s: float) -> bytes:
        """Asks a peer.

        Raises:
            Unreachable: The question was not sent, or no answer came in time.
            RemoteFault: The peer answered with an error.
        """
        self._next += 1
        number = self._next
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = (peer, future)
        question = {"type": "question", "id": number, "channel": channel, "payload": payload}
        try:
            if not self._send(peer, question):
                raise Unreachable("the leader is not connected")
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise Unreachable("the leader did not answer in time") from None
        finally:
            del self._asked[number]

    def peer_lost(self, peer: str) -> None:
        """A connection broke: its questions may be lost."""
        for asked_peer, future in list(self._asked.values()):
            if asked_peer == peer and not future.done():
                future.set_exception(Unreachable("the connection to the leader broke"))

    def receive(self, sender: str, message: Message) -> bool:
        """Takes a message; False when it is none of these.

        Raises:
            ProtocolViolation: It is one, and lacks something.
        """
        if message["type"] not in {"question", "answer"}:
            return False
        check_form(sender, message)
        if message["type"] == "question":
            self._on_question(sender, message)
        else:
            self._on_answer(sender, message)
        return True

    def _on_question(self, sender: str, message: Message) -> None:
        if self._answering < ANSWERING_MAX:
            self._answering += 1
            self._spawn(self._reply(sender, message))

    async def _reply(self, sender: str, message: Message) -> None:
        answer: Message = {"type": "answer", "id": message["id"]}
        try:
            answer["payload"] = await self.ask_here(message["channel"], message["payload"])
        except RaftregError as error:
            answer["code"], answer["error"] = error.code, error.message
        finally:
            self._answering -= 1
        self._send(sender, answer)

    def _on_answer(self, sender: str, message: Message) -> None:
        peer, future = self._asked.get(message["id"], ("", None))
        if future is None or future.done() or peer != sender:
            return
        if "payload" in message:
            future.set_result(message["payload"])
        else:
            future.set_exception(RemoteFault(message["code"], message["error"]))
