"""Lists that transactions append to and read: the history shows any break of isolation.

The vocabulary is that of `jepsen_like.checkers.append`. A list is the JSON value of one key. A
transaction that appends first reads its keys, and then does all of its steps in one /v1/txn: each
append is a check-and-set at the index that was read, and each read is answered by the transaction
itself, at its place among the steps. One that only reads is a single transaction of reads.

A key retires when so many elements were appended to it; a new one takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from jepsen_like.checkers.append import check_append
from jepsen_like.checkers.verdict import Checker
from jepsen_like.history import Type
from jepsen_like.workloads import keys
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.keys import Row, op
from jepsen_like.workloads.steps import Ended, Stepwise

PREFIX = "jepsen/append/"
STEPS_MAX = 4
FINAL_KEYS_MAX = 32

#: A step as the history shows it: ["append", key, element] or ["r", key, list or null].
Step = list[Any]


class Append(Stepwise):
    """See the module.

    Args:
        keys_max: Keys in use at a time.
        elements_max: Elements after which a key retires.
    """

    name = "append"

    def __init__(self, *, keys_max: int = 4, elements_max: int = 64) -> None:
        self._elements_max = elements_max
        self._active = [f"k{number}" for number in range(keys_max)]
        self._sizes = dict.fromkeys(self._active, 0)  # of every key that was ever in use

    def next(self, context: Context) -> Invocation:
        """See `Workload.next`."""
        rng = context.rng
        steps: list[Step] = []
        for _ in range(rng.randint(1, STEPS_MAX)):
            slot = rng.randrange(len(self._active))
            steps.append(
                self._append(slot) if rng.randrange(2) else ["r", self._active[slot], None]
            )
        return Invocation("txn", value=steps)

    def _append(self, slot: int) -> Step:
        key = self._active[slot]
        if self._sizes[key] >= self._elements_max:
            key = self._active[slot] = f"k{len(self._sizes)}"
            self._sizes[key] = 0
        self._sizes[key] += 1
        return ["append", key, self._sizes[key]]

    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """See `Stepwise.steps`."""
        steps: list[Step] = invocation.value

        async def run() -> Completion:
            rows = await _present(context, node, steps)
            done = await keys.transact(context.door, node, list(_operations(steps, rows)))
            return Completion(Type.OK, _filled(steps, done.rows), node, done.index)

        return await keys.insist(context.rng, run)

    def final(self, context: Context) -> Iterable[Invocation]:
        """Reads every key that was ever in use."""
        names = list(self._sizes)
        for start in range(0, len(names), FINAL_KEYS_MAX):
            some = names[start : start + FINAL_KEYS_MAX]
            node = context.rng.choice(context.servers)
            yield Invocation("txn", value=[["r", key, None] for key in some], node=node)

    def checker(self) -> Checker:
        """See `jepsen_like.checkers.append`."""
        return check_append


def _path(key: str) -> str:
    """The registry's key. The slash keeps the prefix of one from covering another."""
    return f"{PREFIX}{key}/"


async def _present(context: Context, node: str, steps: Sequence[Step]) -> dict[str, Row]:
    """The rows of the keys that will be appended to, as they are before."""
    wanted = sorted({key for verb, key, _ in steps if verb == "append"})
    if not wanted:
        return {}
    reads = [op("get-tree", _path(key)) for key in wanted]
    try:
        found = await keys.transact(context.door, node, reads)
    except Ended as ended:  # nothing was written yet
        raise Ended(Type.FAIL, ended.reason) from ended
    return {row.key: row for row in found.rows}


def _operations(steps: Sequence[Step], rows: dict[str, Row]) -> Iterator[dict[str, Any]]:
    lists: dict[str, list[int]] = {}
    for verb, key, element in steps:
        path = _path(key)
        if verb == "r":
            yield op("get-tree", path)
            continue
        row = rows.get(path)
        guarded = path in lists
        if not guarded:
            lists[path] = [] if row is None else row.parsed(list[int])
        lists[path].append(element)
        value = msgspec.json.encode(lists[path])
        if guarded:  # the transaction's own write stands there now, at an index yet unknown
            yield op("set", path, value=value)
        else:
            yield op("cas", path, value=value, index=0 if row is None else row.modify_index)


def _filled(steps: Sequence[Step], rows: Sequence[Row]) -> list[Step]:
    """The steps with what the reads gave; rows come in their order, none for an absent key."""
    left = list(reversed(rows))
    filled: list[Step] = []
    for verb, key, element in steps:
        mine = bool(left) and left[-1].key == _path(key)
        if verb == "append":
            if not mine or left.pop().value is not None:
                raise Ended(Type.INFO, f"the answer does not tell of the append to {key}")
            filled.append([verb, key, element])
        elif mine and left[-1].value is not None:
            filled.append([verb, key, left.pop().parsed(list[int])])
        else:
            filled.append([verb, key, []])
    return filled
