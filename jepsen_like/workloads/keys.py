"""Keys and transactions of the registry as workloads use them (`/v1/kv`, `/v1/txn`)."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

import msgspec

from jepsen_like.door import Answer, Door, NoAnswer, NotSent, outcome
from jepsen_like.history import Type
from jepsen_like.workloads.steps import Ended, decoded, read, readable, refusal, shown, write

ATTEMPTS_MAX = 8
PAUSE_S = 0.01  #: longest pause before the second attempt; it grows by as much with each
Parsed = TypeVar("Parsed")

#: Query of a read at each level.
LEVELS: dict[str, dict[str, str]] = {
    "default": {},
    "consistent": {"consistent": ""},
    "stale": {"stale": ""},
}


class Row(msgspec.Struct, frozen=True, rename="pascal"):
    """A key as the registry shows it."""

    key: str
    modify_index: int
    value: str | None = None
    lock_index: int = 0
    session: str = ""

    @property
    def data(self) -> bytes:
        """Its value."""
        return b64decode(self.value or "")

    def parsed(self, type_: type[Parsed]) -> Parsed:
        """Its value as JSON of a type.

        Raises:
            Ended: INFO: it is something else.
        """
        found: Parsed = readable(self.data, type_)
        return found


class Item(msgspec.Struct, frozen=True):
    """One result of a transaction."""

    row: Row = msgspec.field(name="KV")


class TxnAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """What a transaction answers that took effect."""

    results: list[Item] | None = None


class Found(msgspec.Struct, frozen=True):
    """Rows that a read found.

    Attributes:
        rows: Ascending by key.
        index: The index that came with them.
    """

    rows: list[Row]
    index: int | None


class Committed(msgspec.Struct, frozen=True):
    """A transaction that took effect.

    Attributes:
        rows: Results in the order of the operations that have some.
        index: The index at which it did.
    """

    rows: list[Row]
    index: int | None


class RolledBack(Ended):
    """A write that certainly did not take effect, since a condition of it did not hold."""


Result = TypeVar("Result")


async def insist(rng: Random, step: Callable[[], Awaitable[Result]]) -> Result:
    """Does a step, again and again while others come in between.

    Args:
        rng: Draws the pauses.
        step: Reads and writes on condition; `RolledBack` means that it had no effect.

    Raises:
        RolledBack: It was so every time.
        Ended: It ended otherwise.
    """
    for attempt in range(ATTEMPTS_MAX - 1):
        try:
            return await step()
        except RolledBack:
            await asyncio.sleep(rng.uniform(0.0, PAUSE_S * (attempt + 1)))
    return await step()


async def get(
    door: Door, node: str, key: str, *, params: Mapping[str, str] | None = None
) -> tuple[Row | None, int | None]:
    """Reads a key; gives it (None when it is absent) and the index.

    Raises:
        Ended: FAIL: there was no answer.
    """
    found = await rows(door, node, key, params=params)
    return (found.rows[0] if found.rows else None), found.index


async def tree(
    door: Door, node: str, prefix: str, *, params: Mapping[str, str] | None = None
) -> Found:
    """Reads all keys under a prefix; raises as `get`."""
    return await rows(door, node, prefix, params={"recurse": "", **(params or {})})


async def rows(
    door: Door,
    node: str,
    key: str,
    *,
    params: Mapping[str, str] | None = None,
    timeout_s: float = 5.0,
) -> Found:
    """Reads with any query; raises as `get`."""
    return _rows(await read(door, node, f"/v1/kv/{key}", params=params, timeout_s=timeout_s))


async def names(
    door: Door, node: str, prefix: str, *, params: Mapping[str, str] | None = None
) -> tuple[list[str], int | None]:
    """Reads the names of all keys under a prefix, and the index; raises as `get`."""
    answer = await read(door, node, f"/v1/kv/{prefix}", params={"keys": "", **(params or {})})
    found: list[str] = [] if answer.status == 404 else shown(answer, list[str])
    return found, answer.index


def _rows(answer: Answer) -> Found:
    if answer.status == 404:
        return Found([], answer.index)
    return Found(shown(answer, list[Row]), answer.index)


async def put(
    door: Door,
    node: str,
    key: str,
    value: bytes,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> int | None:
    """Writes a key; gives the index.

    Raises:
        RolledBack: A condition in `params` did not hold.
        Ended: It failed otherwise, or nobody knows.
    """
    answer = await write(
        door, node, "PUT", f"/v1/kv/{key}", params=params, headers=headers, body=value
    )
    if decoded(answer, bool):
        return answer.index
    raise RolledBack(Type.FAIL, "the condition does not hold", answer.index)


async def transact(
    door: Door,
    node: str,
    operations: Sequence[dict[str, Any]],
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Committed:
    """Runs KV operations in one transaction.

    Raises:
        RolledBack: A condition did not hold.
        Ended: It failed otherwise, or nobody knows.
    """
    body = msgspec.json.encode([{"KV": operation} for operation in operations])
    try:
        answer = await door.request(
            node, "PUT", "/v1/txn", params=params, headers=headers, body=body
        )
    except NotSent as error:
        raise Ended(Type.FAIL, f"not sent: {error}") from error
    except NoAnswer as error:
        raise Ended(Type.INFO, f"no answer: {error}") from error
    if answer.status == 409:
        raise RolledBack(Type.FAIL, refusal(answer), answer.index)
    kind = outcome(answer)
    if kind is not Type.OK:
        raise Ended(kind, refusal(answer), answer.index)
    return Committed([item.row for item in decoded(answer, TxnAnswer).results or []], answer.index)


def op(verb: str, key: str, *, value: bytes = b"", index: int = 0, session: str = "") -> Any:
    """One operation of a transaction on a key, as JSON."""
    fields: dict[str, Any] = {"Verb": verb, "Key": key}
    if value:
        fields["Value"] = b64encode(value).decode("ascii")
    if index:
        fields["Index"] = index
    if session:
        fields["Session"] = session
    return fields
