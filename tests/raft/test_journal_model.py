"""Any history of changes, syncs, crashes and kills, against a model that never forgets."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raftreg.raft.retained import Entry
from tests.raft.storage_rig import Rig, command


class State(NamedTuple):
    """Everything that a journal promises to keep."""

    entries: tuple[Entry, ...]
    term: int
    voted_for: str | None


class JournalMachine(RuleBasedStateMachine):
    """Drives a journal and notes its state after each change, by lsn.

    After a crash the journal must be in the state that it had at some lsn between the durable one
    and the last one: nothing durable lost, nothing invented, nothing reordered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rig: Rig
        self.history: list[tuple[int, State]] = []
        self.committed = 0

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        """A fresh journal is empty."""
        self.rig = Rig(seed)
        self.history = [(0, State((), 0, None))]
        self.changed()

    @property
    def state(self) -> State:
        """What the journal holds now."""
        journal = self.rig.journal
        return State(tuple(journal[:]), journal.getCurrentTerm(), journal.getVotedForNodeId())

    def changed(self) -> None:
        """Note the state after a change."""
        self.history.append((self.rig.journal.lsn, self.state))

    @rule(
        count=st.integers(1, 8), size=st.sampled_from([30, 200, 700]), kind=st.sampled_from([0, 2])
    )
    def append(self, count: int, size: int, kind: int) -> None:
        """New entries, some of them of the membership."""
        journal = self.rig.journal
        for index in range(journal.last_index + 1, journal.last_index + count + 1):
            term = max(journal.getCurrentTerm(), journal.last_term)
            journal.add(bytes([kind]) + command(index, term, size)[1:], index, term)
            self.changed()

    @rule(back=st.integers(0, 10))
    def append_again(self, back: int) -> None:
        """A duplicate of known entries changes nothing, not even the lsn."""
        journal = self.rig.journal
        lsn = journal.lsn
        for entry in list(journal[-back:]):
            journal.add(*entry)
        assert journal.lsn == lsn

    @rule(back=st.integers(1, 6))
    def conflict(self, back: int) -> None:
        """An uncommitted entry is replaced, with all that follows, in a new term."""
        journal = self.rig.journal
        index = journal.last_index - back + 1
        if index <= max(self.committed, journal.commit_floor, journal.first_index):
            return
        term = max(journal.last_term, journal.getCurrentTerm()) + 1
        journal.setCurrentTerm(term, None)
        self.changed()
        journal.add(command(index, term), index, term)
        self.changed()
        assert journal.last_index == index

    @rule(step=st.integers(1, 3), vote=st.sampled_from([None, "n1", "naïve-2"]))
    def new_term(self, step: int, vote: str | None) -> None:
        """Term and vote."""
        journal = self.rig.journal
        journal.setCurrentTerm(max(journal.getCurrentTerm(), journal.last_term) + step, vote)
        self.changed()

    @rule(ahead=st.integers(0, 12))
    def commit(self, ahead: int) -> None:
        """Only what is durable here counts as committed, as if this server's ack decided it."""
        journal = self.rig.journal
        self.committed = max(
            self.committed, min(journal.durable_index, journal.first_index + ahead)
        )
        journal.setRaftCommitIndex(self.committed)

    @precondition(lambda self: self.committed > 1)
    @rule(behind=st.integers(0, 3))
    def compact(self, behind: int) -> None:
        """What a snapshot covers is removed."""
        journal = self.rig.journal
        journal.compact_to(min(self.committed, journal.last_index) - behind)
        self.changed()

    @rule(ahead=st.integers(2, 40))
    def install_snapshot(self, ahead: int) -> None:
        """The log is replaced by two stubs beyond its end."""
        journal = self.rig.journal
        index, term = journal.last_index + ahead, max(journal.last_term, journal.getCurrentTerm())
        journal.reset_to(index - 1, term, index, term)
        self.changed()
        self.committed = journal.commit_floor

    @rule()
    def flush(self) -> None:
        """A sync is started."""
        self.rig.journal.flush()

    @rule(count=st.integers(1, 3))
    def disk_works(self, count: int) -> None:
        """The disk ends some operations."""
        for _ in range(count):
            self.rig.events.run_one()

    @rule()
    def settle(self) -> None:
        """Once the disk has ended all operations, everything is durable."""
        self.rig.settle()
        assert self.rig.journal.durable_lsn == self.rig.journal.lsn
        assert self.rig.journal.durable_index == self.rig.journal.last_index

    @rule(power=st.booleans())
    def restart(self, power: bool) -> None:
        """After a power cut or a kill it is in a state that it had, at or after the durable one."""
        durable_lsn, lsn = self.rig.journal.durable_lsn, self.rig.journal.lsn
        journal = self.rig.crash_and_open() if power else self.rig.kill_and_open()
        assert durable_lsn <= journal.lsn <= lsn
        position = bisect_right(self.history, journal.lsn, key=lambda at: at[0]) - 1
        assert self.state == self.history[position][1]
        assert journal.durable_lsn == journal.lsn
        del self.history[position + 1 :]
        self.committed = max(min(self.committed, journal.last_index), journal.commit_floor)
        journal.setRaftCommitIndex(self.committed)

    @rule()
    def stop_and_start(self) -> None:
        """An orderly stop loses nothing, whatever was under way."""
        before = self.state
        self.rig.journal.close()
        self.rig.crash_and_open()
        assert self.state == before

    @invariant()
    def derived_values_agree(self) -> None:
        """Sizes, membership entries and indexes are those of the entries."""
        if not self.history:
            return
        journal = self.rig.journal
        entries = journal[:]
        assert journal.size_bytes == sum(len(entry[0]) for entry in entries)
        assert journal.config_entries() == [(i, c) for c, i, _ in entries if c[:1] == b"\x02"]
        assert [i for _, i, _ in entries] == list(
            range(journal.first_index, journal.first_index + len(entries))
        )
        assert journal.getRaftCommitIndex() <= max(journal.last_index, 1)
        assert not self.rig.failures


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(max_examples=200, stateful_step_count=40)
