"""Doors that lie: between a workload and a registry that does nothing wrong."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any

import msgspec

from jepsen_like.door import Answer, Door


class Call(msgspec.Struct):
    """One request."""

    node: str
    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes
    timeout_s: float

    async def through(self, door: Door) -> Answer:
        """Sends it as it is."""
        return await door.request(
            self.node,
            self.method,
            self.path,
            params=self.params,
            headers=self.headers,
            body=self.body,
            timeout_s=self.timeout_s,
        )

    @property
    def operations(self) -> list[dict[str, Any]]:
        """The operations of a transaction on keys; none for anything else."""
        if self.path != "/v1/txn":
            return []
        return [item["KV"] for item in json.loads(self.body)]

    @property
    def writes(self) -> bool:
        """Tells whether it would change something."""
        if self.path == "/v1/txn":
            return any(operation["Verb"] in {"cas", "set"} for operation in self.operations)
        return self.method == "PUT"


class LyingDoor:
    """Passes everything on, but for what a subclass does instead.

    Args:
        door: The true one.

    Attributes:
        lies: How often something else than the truth was told or done.
    """

    def __init__(self, door: Door) -> None:
        self.door = door
        self.rng = Random(3)
        self.lies = 0

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
        call = Call(node, method, path, dict(params or {}), dict(headers or {}), body, timeout_s)
        return await self.answer(call)

    async def answer(self, call: Call) -> Answer:
        """What is told; the truth unless a subclass knows better."""
        return await call.through(self.door)

    def stream(
        self, node: str, path: str, *, params: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See `Door.stream`."""
        return self.door.stream(node, path, params=params)

    async def resolve(self, node: str, name: str, kind: str, timeout_s: float = 2.0) -> list[str]:
        """See `Door.resolve`."""
        return await self.door.resolve(node, name, kind, timeout_s)

    def sometimes(self, share: float) -> bool:
        """True in a share of all cases."""
        return self.rng.random() < share


def json_answer(body: Any, like: Answer | None = None) -> Answer:
    """A success with a JSON body."""
    headers = {"x-consul-index": "1"} if like is None else like.headers
    return Answer(200, headers, json.dumps(body).encode())


class DropsWrites(LyingDoor):
    """Acknowledges some writes without doing them."""

    async def answer(self, call: Call) -> Answer:
        """See `LyingDoor.answer`."""
        if not call.writes or "/host" in call.path or not self.sometimes(0.1):
            return await call.through(self.door)
        self.lies += 1
        if call.path != "/v1/txn":
            return json_answer(True)
        reads = [op for op in call.operations if op["Verb"] not in {"cas", "set"}]
        rows = [
            {"KV": {"Key": op["Key"], "ModifyIndex": 1, "Value": None}}
            for op in call.operations
            if op not in reads
        ]
        return json_answer({"Results": rows, "Errors": None})


class AnswersLate(LyingDoor):
    """Answers some reads with what an earlier one of the same was told."""

    def __init__(self, door: Door) -> None:
        super().__init__(door)
        self._told: defaultdict[tuple[Any, ...], deque[Answer]] = defaultdict(
            lambda: deque(maxlen=3)
        )

    async def answer(self, call: Call) -> Answer:
        """See `LyingDoor.answer`."""
        if call.writes:
            return await call.through(self.door)
        told = self._told[call.path, tuple(call.params), call.body]
        answer = await call.through(self.door)
        if len(told) == told.maxlen and self.sometimes(0.5):
            self.lies += told[0].body != answer.body
            return told[0]
        told.append(answer)
        return answer


class WritesTwice(LyingDoor):
    """Sends writes a second time, under no name."""

    async def answer(self, call: Call) -> Answer:
        """See `LyingDoor.answer`."""
        answer = await call.through(self.door)
        if call.writes and self.sometimes(0.1):
            self.lies += 1
            call.headers = {}
            await call.through(self.door)
        return answer


class ForgetsNames(LyingDoor):
    """Loses the first answer to a write, and does the repetition as a new one."""

    async def answer(self, call: Call) -> Answer:
        """See `LyingDoor.answer`."""
        if call.writes and call.headers and self.sometimes(0.3):
            self.lies += 1
            call.headers = {}
            await call.through(self.door)
            return Answer(503, {"x-raftreg-error": "unknown_outcome"}, b"")
        return await call.through(self.door)


class Unfenced(LyingDoor):
    """Lets every token through to the resources of locks."""

    async def answer(self, call: Call) -> Answer:
        """See `LyingDoor.answer`."""
        if call.method == "GET" and "/resource/" in call.path:
            return Answer(404, {"x-consul-index": "1"}, b"")
        for operation in call.operations:
            if "/resource/" in operation["Key"]:
                self.lies += 1
                path, token = f"/v1/kv/{operation['Key']}", b64decode(operation["Value"])
                answer = await self.door.request(call.node, "PUT", path, body=token)
                return json_answer({"Results": []}, answer)
        return await call.through(self.door)


class LocksForAll(LyingDoor):
    """Says that a lock was got, whoever holds it."""

    async def answer(self, call: Call) -> Answer:
        """See `LyingDoor.answer`."""
        answer = await call.through(self.door)
        locks = [op for op in call.operations if op["Verb"] == "lock"]
        if answer.status == 409 and locks:
            key = locks[0]["Key"]
            held = await self.door.request(call.node, "GET", f"/v1/kv/{key}")
            if held.status == 200:
                self.lies += 1
                return json_answer({"Results": [{"KV": json.loads(held.body)[0]}]}, held)
        return answer


EditRows = Callable[[list[Any], Random], list[Any]]


def edits(name: str, matches: Callable[[Call], bool], edit: EditRows) -> type[LyingDoor]:
    """A door that edits the lists in the answers to some requests.

    Args:
        name: Of the class.
        matches: Which requests.
        edit: Gives what is told instead of a list.
    """

    class Edits(LyingDoor):
        """See `edits`."""

        async def answer(self, call: Call) -> Answer:
            """See `LyingDoor.answer`."""
            answer = await call.through(self.door)
            if answer.status != 200 or not matches(call):
                return answer
            edited = json_answer(edit(json.loads(answer.body), self.rng), answer)
            self.lies += json.loads(edited.body) != json.loads(answer.body)
            return edited

    Edits.__name__ = name
    return Edits


def without_one(rows: list[Any], rng: Random) -> list[Any]:
    """Leaves one out, often."""
    if len(rows) > 1 and rng.randrange(2):
        rows.pop(rng.randrange(len(rows)))
    return rows


def without_newest(rows: list[Any], rng: Random) -> list[Any]:
    """Leaves the row out that was written last, often."""
    if len(rows) > 1 and rng.randrange(2):
        rows.remove(max(rows, key=lambda row: int(row["ModifyIndex"])))
    return rows


EditFrames = Callable[[bytes, Random], bytes]


def edits_frames(name: str, edit: EditFrames) -> type[LyingDoor]:
    """A door that edits the frames of streams.

    Args:
        name: Of the class.
        edit: Gives what is sent instead of a frame with deltas: none, one or several.
    """

    class Edits(LyingDoor):
        """See `edits_frames`."""

        @asynccontextmanager
        async def stream(
            self, node: str, path: str, *, params: Mapping[str, str] | None = None
        ) -> AsyncIterator[AsyncIterator[bytes]]:
            """See `Door.stream`."""
            async with self.door.stream(node, path, params=params) as chunks:
                yield self._edited(chunks)

        async def _edited(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for frame in _frames(chunks):
                is_deltas = msgspec.msgpack.decode(frame[4:])["kind"] == "deltas"
                edited = edit(frame, self.rng) if is_deltas else frame
                self.lies += edited != frame
                yield edited

    Edits.__name__ = name
    return Edits


async def _frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The frames of a stream, each with its length."""
    buffer = b""
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= 4 and len(buffer) >= (end := 4 + int.from_bytes(buffer[:4], "big")):
            frame, buffer = buffer[:end], buffer[end:]
            yield frame
