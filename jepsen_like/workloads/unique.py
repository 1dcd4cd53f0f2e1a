"""Unique ids: drawn from a counter by check-and-set, alone or in a transaction."""

from __future__ import annotations

from jepsen_like.checkers.unique import check_unique
from jepsen_like.checkers.verdict import Checker
from jepsen_like.history import Type
from jepsen_like.workloads import keys
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.steps import Stepwise

COUNTER = "jepsen/unique/counter"


class Unique(Stepwise):
    """f `generate`; see `jepsen_like.checkers.unique`."""

    name = "unique"

    def next(self, context: Context) -> Invocation:
        """See `Workload.next`."""
        del context
        return Invocation("generate")

    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """See `Stepwise.steps`."""
        del invocation
        whole = bool(context.rng.randrange(2))

        async def draw() -> Completion:
            row, _ = await keys.get(context.door, node, COUNTER)
            drawn = 1 if row is None else row.parsed(int) + 1
            at = 0 if row is None else row.modify_index
            value = b"%d" % drawn
            if whole:
                operation = keys.op("cas", COUNTER, value=value, index=at)
                index = (await keys.transact(context.door, node, [operation])).index
            else:
                params = {"cas": str(at)}
                index = await keys.put(context.door, node, COUNTER, value, params=params)
            return Completion(Type.OK, drawn, node, index)

        return await keys.insist(context.rng, draw)

    def checker(self) -> Checker:
        """See `jepsen_like.checkers.unique`."""
        return check_unique
