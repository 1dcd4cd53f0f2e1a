"""Linearizable registers: independent keys that are read, written and compared-and-set.

f `read`: its invocation carries the level ("default", "consistent" or "stale"), its completion the
value, null for an absent key. f `write`: a number that no other write of the key has. f `cas`:
[expected, new], by `?cas=` or by a transaction at the ModifyIndex of a read that showed the
expected value; since no value is written twice, another index means another value. Stale reads are
no linearizable ones; the checker holds them to less.

Keys retire after a number of operations, and new ones take their place: the cost of the search for
a linearization grows with the operations a key, not with the length of the run.
"""

from __future__ import annotations

from collections.abc import Iterable

from jepsen_like.checkers.register import MISMATCH, check_register
from jepsen_like.checkers.verdict import Checker
from jepsen_like.history import Type
from jepsen_like.workloads import keys
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.steps import Ended, Stepwise

PREFIX = "jepsen/register/"
#: Share of each operation.
_SHARES = {"read": 45, "write": 30, "cas": 25}
_LEVELS = ("default", "consistent", "default", "consistent", "stale")


class Register(Stepwise):
    """See the module.

    Args:
        keys_max: Keys in use at a time.
        ops_per_key: Operations after which a key retires.
    """

    name = "register"

    def __init__(self, *, keys_max: int = 5, ops_per_key: int = 200) -> None:
        self._ops_per_key = ops_per_key
        self._active = [f"k{number}" for number in range(keys_max)]
        self._named = keys_max
        self._uses = dict.fromkeys(self._active, 0)
        self._values = 0
        self._seen: dict[str, int] = {}  # the value last heard of, by key

    def next(self, context: Context) -> Invocation:
        """See `Workload.next`."""
        rng = context.rng
        key = self._key(rng.randrange(len(self._active)))
        f = rng.choices(tuple(_SHARES), tuple(_SHARES.values()))[0]
        if f == "read":
            return Invocation("read", key, rng.choice(_LEVELS))
        self._values += 1
        if f == "cas" and key in self._seen:
            return Invocation("cas", key, [self._seen[key], self._values])
        return Invocation("write", key, self._values)

    def _key(self, slot: int) -> str:
        key = self._active[slot]
        if self._uses[key] >= self._ops_per_key:
            del self._uses[key]
            self._seen.pop(key, None)
            key = self._active[slot] = f"k{self._named}"
            self._named += 1
            self._uses[key] = 0
        self._uses[key] += 1
        return key

    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """See `Stepwise.steps`."""
        assert invocation.key is not None
        match invocation.f:
            case "read":
                return await self._read(context, node, invocation.key, invocation.value)
            case "write":
                value = invocation.value
                index = await keys.put(context.door, node, PREFIX + invocation.key, b"%d" % value)
                self._saw(invocation.key, value)
                return Completion(Type.OK, value, node, index)
            case _:
                return await self._cas(context, node, invocation.key, *invocation.value)

    async def _read(self, context: Context, node: str, key: str, level: str) -> Completion:
        row, index = await keys.get(context.door, node, PREFIX + key, params=keys.LEVELS[level])
        value = None if row is None else _shown(row)
        if isinstance(value, int):
            self._saw(key, value)
        return Completion(Type.OK, value, node, index)

    async def _cas(
        self, context: Context, node: str, key: str, expected: int, new: int
    ) -> Completion:
        row, _ = await keys.get(context.door, node, PREFIX + key)
        value = None if row is None else _shown(row)
        if isinstance(value, int):
            self._saw(key, value)
        if row is None or value != expected:
            raise Ended(Type.FAIL, MISMATCH)
        try:
            written = await self._cas_at(context, node, PREFIX + key, b"%d" % new, row.modify_index)
        except keys.RolledBack as ended:  # another index: another write, and no value comes twice
            raise Ended(Type.FAIL, MISMATCH, ended.raft_index) from ended
        self._saw(key, new)
        return Completion(Type.OK, [expected, new], node, written)

    async def _cas_at(
        self, context: Context, node: str, path: str, value: bytes, index: int
    ) -> int | None:
        if context.rng.randrange(2):
            return await keys.put(context.door, node, path, value, params={"cas": str(index)})
        operation = keys.op("cas", path, value=value, index=index)
        return (await keys.transact(context.door, node, [operation])).index

    def _saw(self, key: str, value: int) -> None:
        if key in self._uses:
            self._seen[key] = value

    def final(self, context: Context) -> Iterable[Invocation]:
        """Reads every key in use."""
        del context
        return [Invocation("read", key, "default") for key in self._uses]

    def checker(self) -> Checker:
        """See `jepsen_like.checkers.register`."""
        return check_register


def _shown(row: keys.Row) -> int | str:
    """The value; what is no number was never written, and the checker says so."""
    return int(row.data) if row.data.isdigit() else repr(row.data)
