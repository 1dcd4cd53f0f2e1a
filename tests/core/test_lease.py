"""Leases: nothing expires early, nothing is forgotten, pending expiry beats renewal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from raftreg.core.lease import LeaseTable

_KEYS = st.sampled_from(["a", "b", "c"])


class LeasesAgainstDicts(RuleBasedStateMachine):
    """A lease table beside a dict of deadlines."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable()
        self.deadlines: dict[str, float] = {}
        self.pending: set[str] = set()
        self.now = 0.0

    @rule(key=_KEYS, ttl_s=st.integers(0, 5))
    def renew(self, key: str, ttl_s: int) -> None:
        """A renewal counts from now, unless the expiry is pending."""
        assert self.table.renew(key, ttl_s, self.now) is (key not in self.pending)
        if key not in self.pending:
            self.deadlines[key] = self.now + ttl_s

    @rule(key=_KEYS)
    def forget(self, key: str) -> None:
        """Gone, whatever it was."""
        self.table.forget(key)
        self.deadlines.pop(key, None)
        self.pending.discard(key)

    @rule(key=_KEYS, ttl_s=st.integers(0, 5))
    def reopen(self, key: str, ttl_s: int) -> None:
        """Only a pending key is given another term."""
        self.table.reopen(key, ttl_s, self.now)
        if key in self.pending:
            self.pending.discard(key)
            self.deadlines[key] = self.now + ttl_s

    @rule(seconds=st.integers(0, 4))
    def let_time_pass(self, seconds: int) -> None:
        """Exactly the keys whose term is over are due, once, in order."""
        self.now += seconds
        expected = sorted(
            (deadline, key)
            for key, deadline in self.deadlines.items()
            if deadline <= self.now and key not in self.pending
        )
        assert self.table.due(self.now) == [key for _, key in expected]
        self.pending.update(key for _, key in expected)

    @rule(ttls_s=st.dictionaries(_KEYS, st.integers(1, 5)))
    def promote(self, ttls_s: dict[str, int]) -> None:
        """A new leader gives every key a full term and knows no other."""
        self.table.promote(ttls_s, self.now)
        self.deadlines = {key: self.now + ttl_s for key, ttl_s in ttls_s.items()}
        self.pending.clear()

    @invariant()
    def agrees(self) -> None:
        """The same keys, and a wake-up that is never too late."""
        assert self.table.pending == self.pending
        assert {key for key in "abc" if key in self.table} == self.deadlines.keys()
        assert len(self.table) == len(self.deadlines)
        waiting = [d for key, d in self.deadlines.items() if key not in self.pending]
        due = self.table.next_due()
        assert (due is None) == (not waiting)
        assert due is None or due <= min(waiting)


TestLeasesAgainstDicts = LeasesAgainstDicts.TestCase


@given(st.integers(1, 50))
def test_renewals_and_forgetting_leave_no_growth_behind(rounds: int) -> None:
    """One heap entry a key, however often it is renewed, forgotten and taken again."""
    table = LeaseTable()
    for number in range(rounds * 10):
        table.renew("a", 3.0, float(number))
        table.forget("a")
        table.renew("b", 3.0, float(number))
    assert len(table._heap) <= 64 + 2 * len(table) + 1
