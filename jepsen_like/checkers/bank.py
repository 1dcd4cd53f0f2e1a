"""The bank: money moves between accounts, none is made and none is lost.

Vocabulary:

* `total`: OK value is the opening balances `{"0": 10, "1": 10}` or their sum, an int. Optional and
  at most once, before the first transfer; without it the first read tells the sum.
* `transfer`: value `{"from": "0", "to": "1", "amount": 5}`, in one transaction. FAIL: it definitely
  did not happen (the balance was too small, or another transfer came in between). INFO: unknown.
* `read`: linearizable, all accounts in one transaction; result `{"0": 5, "1": 15}`.

Rules: the sum never changes, no balance is negative, no account comes or goes. And each balance is
one that the transfers can have left: with those that were acknowledged before the read began, and
any of those that were under way or are unknown. So a lost transfer, one that took effect twice and
a stale read show, though the sum is right. The workload reads when all transfers are over; without
that the verdict is UNKNOWN.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from jepsen_like.checkers.findings import Findings, completed, malformed, outcomes, value_of
from jepsen_like.checkers.verdict import Verdict
from jepsen_like.history import Event, Operation, Type, operations

_Balances = dict[str, int]


class _Transfer(msgspec.Struct, frozen=True):
    """The value of a transfer."""

    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    amount: int


class _Flow:
    """What transfers have moved to and from one account, up to an event.

    Attributes:
        begun_in, begun_out: By transfers that have begun and did not definitely fail.
        done_in, done_out: By those among them that were acknowledged.
    """

    __slots__ = ("begun_in", "begun_out", "done_in", "done_out")

    def __init__(self) -> None:
        self.begun_in = self.begun_out = self.done_in = self.done_out = 0


class _Opening:
    """What an account can have held at first, by all reads so far."""

    def __init__(self) -> None:
        self.low: tuple[float, Event | None] = (float("-inf"), None)
        self.high: tuple[float, Event | None] = (float("inf"), None)

    def narrow(self, low: float, high: float, shown_by: Event) -> Event | None:
        """Takes the bounds of a read; gives the read that it contradicts, if there is one."""
        if low > self.high[0]:
            return self.high[1]
        if high < self.low[0]:
            return self.low[1]
        if low > self.low[0]:
            self.low = (low, shown_by)
        if high < self.high[0]:
            self.high = (high, shown_by)
        return None


class _Bank:
    """One pass over the history.

    Args:
        found: Where anomalies go.
    """

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._flows: defaultdict[str, _Flow] = defaultdict(_Flow)
        self._openings: defaultdict[str, _Opening] = defaultdict(_Opening)
        #: The acknowledged flows in and out when a read began, by account.
        self._before: dict[int, dict[str, tuple[int, int]]] = {}
        #: The sum and the accounts, and the event that told them.
        self._total: tuple[int, Event] | None = None
        self._accounts: tuple[frozenset[str], Event] | None = None

    def open(self, event: Event) -> None:
        """Takes the answer of `total`."""
        total: int | _Balances = value_of(event, int | dict[str, int])
        if isinstance(total, int):
            self._total = (total, event)
            return
        self._total = (sum(total.values()), event)
        self._accounts = (frozenset(total), event)
        for account, balance in total.items():
            self._openings[account].narrow(balance, balance, event)

    def begin(self, operation: Operation) -> None:
        """An operation begins."""
        if operation.invoke.f == "transfer":
            transfer: _Transfer = value_of(operation.invoke, _Transfer)
            self._flows[transfer.target].begun_in += transfer.amount
            self._flows[transfer.source].begun_out += transfer.amount
        elif operation.invoke.f == "read" and operation.type is Type.OK:
            self._before[operation.invoke.index] = {
                account: (flow.done_in, flow.done_out) for account, flow in self._flows.items()
            }

    def end(self, operation: Operation) -> None:
        """An operation is acknowledged."""
        if operation.invoke.f == "transfer":
            transfer: _Transfer = value_of(operation.invoke, _Transfer)
            self._flows[transfer.target].done_in += transfer.amount
            self._flows[transfer.source].done_out += transfer.amount
        elif operation.invoke.f == "read":
            self._read(operation)
        elif operation.invoke.f == "total":
            self.open(completed(operation))

    def _read(self, operation: Operation) -> None:
        shown_by = completed(operation)
        balances: _Balances = value_of(shown_by, dict[str, int])
        before = self._before.pop(operation.invoke.index)
        self._check_sum(balances, shown_by)
        for account, balance in balances.items():
            if balance < 0:
                message = f"account {account} holds {balance}"
                self._found.add("negative-balance", message, shown_by)
            self._check_balance(account, balance, before.get(account, (0, 0)), operation)

    def _check_sum(self, balances: _Balances, shown_by: Event) -> None:
        total = sum(balances.values())
        self._total = self._total or (total, shown_by)
        self._accounts = self._accounts or (frozenset(balances), shown_by)
        if balances.keys() != self._accounts[0]:
            differ = ", ".join(sorted(balances.keys() ^ self._accounts[0])[:8])
            message = f"accounts came or went: {differ}"
            self._found.add("wrong-accounts", message, self._accounts[1], shown_by)
        elif total != self._total[0]:
            message = f"the accounts hold {total} in all, not {self._total[0]}"
            self._found.add("wrong-total", message, self._total[1], shown_by)

    def _check_balance(
        self, account: str, balance: int, before: tuple[int, int], operation: Operation
    ) -> None:
        flow = self._flows[account]
        done_in, done_out = before
        # At most: everything that began flowed in, only what was acknowledged flowed out.
        most, least = flow.begun_in - done_out, done_in - flow.begun_out
        shown_by = completed(operation)
        other = self._openings[account].narrow(balance - most, balance - least, shown_by)
        if other is not None:
            message = (
                f"account {account} shows {balance}: the acknowledged transfers since event "
                f"{other.index} can't have left that, whichever of the unknown ones happened"
            )
            self._found.add("wrong-balance", message, other, operation.invoke, shown_by)


def check_bank(events: Sequence[Event]) -> Verdict:
    """Checks a bank; see the module for vocabulary and rules.

    Raises:
        MalformedHistory: A value has another shape.
    """
    found = Findings("bank")
    everything = operations(events)
    transfers = [op for op in everything if op.invoke.f == "transfer"]
    found.figures = outcomes(transfers)
    bank = _Bank(found)
    for operation, is_end in _steps(everything):
        if is_end:
            bank.end(operation)
        else:
            bank.begin(operation)
    _say_unknown(found, everything, transfers)
    return found.verdict()


def _steps(everything: Sequence[Operation]) -> Iterable[tuple[Operation, bool]]:
    """Beginnings of what may have happened and acknowledged ends, in the order of the history."""
    steps = []
    for operation in everything:
        if operation.type is not Type.FAIL:
            steps.append((operation.invoke.index, operation, False))
        if operation.type is Type.OK:
            steps.append((completed(operation).index, operation, True))
    steps.sort(key=lambda step: step[0])
    for _, operation, is_end in steps:
        if not is_end and operation.invoke.f == "transfer":
            transfer: _Transfer = value_of(operation.invoke, _Transfer)
            if transfer.amount < 0:
                raise malformed(operation.invoke, "an amount is not negative")
        yield operation, is_end


def _say_unknown(
    found: Findings, everything: Sequence[Operation], transfers: Sequence[Operation]
) -> None:
    reads = [op for op in everything if op.invoke.f == "read" and op.type is Type.OK]
    found.figures["reads"] = len(reads)
    ends = [completed(op).index for op in transfers if op.type is Type.OK]
    if not ends:
        found.unknown("no transfer was acknowledged")
    elif not any(read.invoke.index > max(ends) for read in reads):
        found.unknown("nobody read after the last acknowledged transfer")
