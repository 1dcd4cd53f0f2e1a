"""A bank: money moves between accounts by transactions; see `jepsen_like.checkers.bank`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from jepsen_like.checkers.bank import check_bank
from jepsen_like.checkers.verdict import Checker
from jepsen_like.history import Type
from jepsen_like.workloads import keys
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.keys import op
from jepsen_like.workloads.steps import Ended, Stepwise

PREFIX = "jepsen/bank/"
READ_SHARE = 0.3
_SETUP_PAUSE_S = 0.2


class Bank(Stepwise):
    """See the module.

    Args:
        accounts: How many.
        opening: What each holds at first.
        amount_max: Most that one transfer moves.
    """

    name = "bank"

    def __init__(self, *, accounts: int = 8, opening: int = 20, amount_max: int = 5) -> None:
        self._accounts = [str(number) for number in range(accounts)]
        self._opening = opening
        self._amount_max = amount_max

    async def setup(self, context: Context) -> None:
        """Opens all accounts at once, unless they are there."""
        value = b"%d" % self._opening
        create = [op("cas", PREFIX + account, value=value) for account in self._accounts]
        while True:
            node = context.rng.choice(context.servers)
            try:
                found = await keys.tree(context.door, node, PREFIX)
                if found.rows:
                    return
                await keys.transact(context.door, node, create)
            except Ended:
                await asyncio.sleep(_SETUP_PAUSE_S)

    def next(self, context: Context) -> Invocation:
        """See `Workload.next`."""
        if context.rng.random() < READ_SHARE:
            return Invocation("read")
        source, target = context.rng.sample(self._accounts, 2)
        amount = context.rng.randint(1, self._amount_max)
        return Invocation("transfer", value={"from": source, "to": target, "amount": amount})

    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """See `Stepwise.steps`."""
        if invocation.f == "read":
            return await self._read(context, node)
        source, target = (PREFIX + invocation.value[name] for name in ("from", "to"))
        amount = invocation.value["amount"]

        async def move() -> Completion:
            before = await _rows(context, node, [op("get", source), op("get", target)])
            held = before[source].parsed(int)
            if held < amount:
                raise Ended(Type.FAIL, f"the account holds {held} only")
            moves = ((source, held - amount), (target, before[target].parsed(int) + amount))
            operations = [
                op("cas", key, value=b"%d" % left, index=before[key].modify_index)
                for key, left in moves
            ]
            done = await keys.transact(context.door, node, operations)
            return Completion(Type.OK, invocation.value, node, done.index)

        return await keys.insist(context.rng, move)

    async def _read(self, context: Context, node: str) -> Completion:
        operations = [op("get-tree", PREFIX)]
        try:
            done = await keys.transact(context.door, node, operations)
        except Ended as ended:
            raise Ended(Type.FAIL, ended.reason) from ended
        balances = {row.key.removeprefix(PREFIX): row.parsed(int) for row in done.rows}
        return Completion(Type.OK, balances, node, done.index)

    def final(self, context: Context) -> Iterable[Invocation]:
        """Reads at every server."""
        return [Invocation("read", node=node) for node in context.servers]

    def checker(self) -> Checker:
        """See `jepsen_like.checkers.bank`."""
        return check_bank


async def _rows(
    context: Context, node: str, operations: list[dict[str, object]]
) -> dict[str, keys.Row]:
    """Reads rows in one transaction, before anything is written."""
    try:
        found = await keys.transact(context.door, node, operations)
    except Ended as ended:
        raise Ended(Type.FAIL, ended.reason) from ended
    return {row.key: row for row in found.rows}
