"""Exactly once: writes that are sent again under one request id until their outcome is known.

The vocabulary is that of `jepsen_like.checkers.once`: f `append`, value an id that is new; the key
says in what way:

* `list`: an element of a list, by check-and-set. Its second answer must be that of the first: who
  hears "the condition does not hold" of what took effect would do it again.
* `rows`: a key of its own, written blindly. A key whose ModifyIndex is not its CreateIndex was
  written twice, and its id is given twice.
* `sessions`: a session with a name. A repetition that takes effect makes a second one.

f `read` gives the ids under a key in the order of their indexes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

import msgspec

from jepsen_like.checkers.once import check_once
from jepsen_like.checkers.verdict import Checker
from jepsen_like.history import Type
from jepsen_like.workloads import keys
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.catalog_calls import add_host
from jepsen_like.workloads.steps import Ended, Stepwise, read, shown, write

HOST: Final = "jepsen-once"
ADDRESS: Final = "192.0.2.31"
LIST: Final = "jepsen/once/list"
ROWS: Final = "jepsen/once/rows/"
REQUEST_ID: Final = "X-Raftreg-Request-Id"
PATIENCE_S: Final = 15.0
PAUSE_S: Final = 0.1
READ_SHARE: Final = 0.08
SMALL: Final = 300
#: How often each way is taken.
_SHARES: Final = {"list": 40, "rows": 40, "sessions": 20}
_LIST_IDS_MAX: Final = 2_000

Attempt = Callable[[str], Awaitable[int | None]]


class _Keyed(msgspec.Struct, frozen=True, rename="pascal"):
    """A row, or a session, with its place in time."""

    create_index: int
    modify_index: int
    key: str = ""
    name: str = ""


class Once(Stepwise):
    """See the module."""

    name = "once"
    timeout_s = PATIENCE_S + 10.0

    def __init__(self) -> None:
        self._ids = 0
        self._in_list = 0
        self._proposers = 0

    async def setup(self, context: Context) -> None:
        """Registers the host of the sessions."""
        await add_host(context, HOST, ADDRESS)

    def next(self, context: Context) -> Invocation:
        """See `Workload.next`."""
        rng = context.rng
        key = rng.choices(tuple(_SHARES), tuple(_SHARES.values()))[0]
        if rng.random() < READ_SHARE * SMALL / max(SMALL, self._ids):
            return Invocation("read", key)
        if key == "list":
            self._in_list += 1
            key = "list" if self._in_list <= _LIST_IDS_MAX else "rows"
        self._ids += 1
        return Invocation("append", key, self._ids)

    def final(self, context: Context) -> Iterator[Invocation]:
        """Reads all at every server."""
        return (Invocation("read", key, node=node) for node in context.servers for key in _SHARES)

    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """See `Stepwise.steps`."""
        if invocation.f == "read":
            ids, index = await self._read(context, node, invocation.key)
            return Completion(Type.OK, ids, node, index)
        identity: int = invocation.value
        match invocation.key:
            case "list":
                index = await keys.insist(context.rng, lambda: self._extend(context, identity))
            case "rows":
                index = await self._until_known(context, _put(context, f"{ROWS}{identity}", b""))
            case _:
                index = await self._until_known(context, _session(context, identity))
        return Completion(Type.OK, identity, raft_index=index)

    async def _extend(self, context: Context, identity: int) -> int | None:
        """Reads the list, and appends to it if it is still the same."""
        node = context.rng.choice(context.servers)
        row, _ = await keys.get(context.door, node, LIST)
        value = msgspec.json.encode([*([] if row is None else row.parsed(list[int])), identity])
        params = {"cas": "0" if row is None else str(row.modify_index)}
        return await self._until_known(context, _put(context, LIST, value, params))

    async def _until_known(self, context: Context, attempt: Attempt) -> int | None:
        """Sends one write under one request id, to one server after the other, until its outcome
        is known.

        A definite failure of one attempt says nothing of those before it, unless it is the state
        machine's own word (`RolledBack`), which is remembered like a success.

        Raises:
            RolledBack: It was refused, and every attempt with it.
            Ended: INFO when the patience was over before.
        """
        request_id = self._request_id(context)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + PATIENCE_S
        unknown = False
        while True:
            try:
                return await attempt(request_id)
            except keys.RolledBack:
                raise
            except Ended as ended:
                unknown = unknown or ended.type is Type.INFO
                if loop.time() >= end_s:
                    kind = Type.INFO if unknown else Type.FAIL
                    raise Ended(kind, f"gave up: {ended.reason}") from ended
            await asyncio.sleep(context.rng.uniform(PAUSE_S / 2, PAUSE_S))

    def _request_id(self, context: Context) -> str:
        """A fresh name: each worker names its writes 1, 2, 3, …, one at a time."""
        if "proposer" not in context.memory:
            self._proposers += 1
            token = f"{context.rng.getrandbits(64):016x}"
            context.memory["proposer"] = f"jepsen-{self._proposers}-{token}"
        sequence = context.memory["sequence"] = context.memory.get("sequence", 0) + 1
        return f"{context.memory['proposer']}/{sequence}/{sequence}"

    async def _read(
        self, context: Context, node: str, key: str | None
    ) -> tuple[list[int], int | None]:
        if key == "list":
            row, index = await keys.get(context.door, node, LIST)
            return ([] if row is None else row.parsed(list[int])), index
        if key == "rows":
            answer = await read(context.door, node, f"/v1/kv/{ROWS}", params={"recurse": ""})
            found = [] if answer.status == 404 else shown(answer, list[_Keyed])
            writes = {(row.create_index, row.key) for row in found}
            writes |= {(row.modify_index, row.key) for row in found}
            return [int(name.removeprefix(ROWS)) for _, name in sorted(writes)], answer.index
        answer = await read(context.door, node, f"/v1/session/node/{HOST}")
        sessions = sorted((row.create_index, row.name) for row in shown(answer, list[_Keyed]))
        return [int(name) for _, name in sessions], answer.index

    def checker(self) -> Checker:
        """See `jepsen_like.checkers.once`."""
        return check_once


def _put(
    context: Context, key: str, value: bytes, params: Mapping[str, str] | None = None
) -> Attempt:
    async def attempt(request_id: str) -> int | None:
        node = context.rng.choice(context.servers)
        headers = {REQUEST_ID: request_id}
        return await keys.put(context.door, node, key, value, params=params, headers=headers)

    return attempt


def _session(context: Context, identity: int) -> Attempt:
    async def attempt(request_id: str) -> int | None:
        node = context.rng.choice(context.servers)
        body = msgspec.json.encode({"Node": HOST, "NodeChecks": [], "Name": str(identity)})
        headers = {REQUEST_ID: request_id}
        path = "/v1/session/create"
        answer = await write(context.door, node, "PUT", path, headers=headers, body=body)
        return answer.index

    return attempt
