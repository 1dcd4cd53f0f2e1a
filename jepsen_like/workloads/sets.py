"""A growing set: every acknowledged element must be there in every later read.

Two shapes of the same set, judged alike (`jepsen_like.checkers.sets`). `set` keeps the elements in
lists, each the value of one key, changed by read and check-and-set; a list that is full is followed
by another, so that a write stays small however long the run is. `set-keys` keeps each element in a
key of its own, written blindly, and reads the whole prefix.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import msgspec

from jepsen_like.checkers.sets import check_set
from jepsen_like.checkers.verdict import Checker
from jepsen_like.history import Type
from jepsen_like.workloads import keys
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.steps import Stepwise

LIST_ELEMENTS_MAX = 400
#: Share of reads while the set is small; later they become rarer, as each grows.
READ_SHARE = 0.1
SMALL = 1_000
_LEVELS = ("default", "consistent")


class _Growing(Stepwise):
    """What both shapes share."""

    def __init__(self) -> None:
        self._elements = 0

    def next(self, context: Context) -> Invocation:
        """See `Workload.next`."""
        share = READ_SHARE * SMALL / max(SMALL, self._elements)
        if context.rng.random() < share:
            return Invocation("read")
        self._elements += 1
        return Invocation("add", value=self._elements)

    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """See `Stepwise.steps`."""
        if invocation.f == "add":
            index = await self._add(context, node, invocation.value)
            return Completion(Type.OK, invocation.value, node, index)
        elements, index = await self._read(context, node, context.rng.choice(_LEVELS))
        return Completion(Type.OK, elements, node, index)

    @abstractmethod
    async def _add(self, context: Context, node: str, element: int) -> int | None:
        """Adds; gives the index."""

    @abstractmethod
    async def _read(self, context: Context, node: str, level: str) -> tuple[list[int], int | None]:
        """Reads; gives elements and index."""

    def final(self, context: Context) -> Iterable[Invocation]:
        """Reads at every server."""
        return [Invocation("read", node=node) for node in context.servers]

    def checker(self) -> Checker:
        """See `jepsen_like.checkers.sets`."""
        return check_set


class SetInLists(_Growing):
    """Elements in lists that are changed by check-and-set."""

    name = "set"
    prefix = "jepsen/set/"

    async def _add(self, context: Context, node: str, element: int) -> int | None:
        key = f"{self.prefix}{element // LIST_ELEMENTS_MAX:06d}"

        async def add() -> int | None:
            row, _ = await keys.get(context.door, node, key)
            elements = [] if row is None else row.parsed(list[int])
            value = msgspec.json.encode([*elements, element])
            at = "0" if row is None else str(row.modify_index)
            return await keys.put(context.door, node, key, value, params={"cas": at})

        return await keys.insist(context.rng, add)

    async def _read(self, context: Context, node: str, level: str) -> tuple[list[int], int | None]:
        params = keys.LEVELS[level]
        found = await keys.tree(context.door, node, self.prefix, params=params)
        return [element for row in found.rows for element in row.parsed(list[int])], found.index


class SetInKeys(_Growing):
    """Each element in a key of its own."""

    name = "set-keys"
    prefix = "jepsen/set-keys/"

    async def _add(self, context: Context, node: str, element: int) -> int | None:
        key = f"{self.prefix}{element:09d}"
        if context.rng.randrange(2):
            return await keys.put(context.door, node, key, b"")
        return (await keys.transact(context.door, node, [keys.op("set", key)])).index

    async def _read(self, context: Context, node: str, level: str) -> tuple[list[int], int | None]:
        params = keys.LEVELS[level]
        names, index = await keys.names(context.door, node, self.prefix, params=params)
        return [int(name.removeprefix(self.prefix)) for name in names], index
