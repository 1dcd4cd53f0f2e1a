"""The configuration in force at one node: followed through the log, changed by the leader."""

from __future__ import annotations

from collections.abc import Callable

from raftreg.errors import InvalidRequest, NotProposed, RaftregError
from raftreg.raft.compaction import Compaction
from raftreg.raft.engine import Engine
from raftreg.raft.entries import decode_configuration_entry, encode_configuration_entry
from raftreg.raft.journal import DurableJournal
from raftreg.raft.membership import Configuration, voters_changed

#: Is called with None once a change is committed, or with why it is not known to be.
Changed = Callable[[RaftregError | None], None]


class ConfigurationKeeper:
    """Follows the newest configuration of the log, committed or not, also over truncations.

    Args:
        engine: Takes each configuration into force.
        journal: The log.
        compaction: Knows the configuration of the newest snapshot.
        base: In force where neither log nor snapshot holds one.
    """

    def __init__(
        self,
        engine: Engine,
        journal: DurableJournal,
        compaction: Compaction,
        base: Configuration | None,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._compaction = compaction
        self._base = base
        self._version = -1
        self._index = 0
        self._waiters: list[tuple[int, int, Changed]] = []
        self.current = Configuration()
        self.refresh()

    def set_base(self, base: Configuration) -> None:
        """The bootstrap agreed on the first configuration."""
        self._base = base
        self._version = -1
        self.refresh()

    def refresh(self) -> None:
        """Takes the newest configuration into force when the log has changed it."""
        if self._journal.config_version == self._version:
            return
        self._version = self._journal.config_version
        entries = self._journal.config_entries()
        if entries:
            self._index, command = entries[-1]
            self.current = decode_configuration_entry(command)
        else:
            self._index = 0
            self.current = self._compaction.configuration or self._base or Configuration()
        self._engine.adopt(self.current)

    def at(self, index: int) -> Configuration:
        """The configuration in force at an applied index, for a snapshot."""
        entries = [entry for entry in self._journal.config_entries() if entry[0] <= index]
        if entries:
            return decode_configuration_entry(entries[-1][1])
        return self._compaction.configuration or self._base or Configuration()

    def change(self, after: Configuration, done: Changed) -> None:
        """Appends a new configuration; the caller leads.

        Raises:
            InvalidRequest: More than one voter differs, or this server would not be one.
            NotProposed: The change before this one is not committed yet.
        """
        if self._engine.selfNode.id not in after.voters():
            # A leader counts itself in every majority.
            raise InvalidRequest("a leader can't remove itself: hand leadership over first")
        if voters_changed(self.current, after) > 1:
            raise InvalidRequest("one membership change at a time: at most one voter may differ")
        if self._engine.commit_index < self._index:
            raise NotProposed("another membership change is under way; try again when it is done")
        index = self._engine.append_configuration(encode_configuration_entry(after))
        self._waiters.append((index, self._engine.term, done))
        self.refresh()

    def applied(self, index: int, term: int) -> None:
        """A configuration entry was applied: answers those who wait."""
        waiting, self._waiters = self._waiters, []
        for at, in_term, done in waiting:
            if at > index:
                self._waiters.append((at, in_term, done))
            elif (at, in_term) == (index, term):
                done(None)
            else:
                done(NotProposed("another leader took over; the change did not happen"))

    def leadership_lost(self) -> None:
        """Changes under way may or may not happen."""
        waiting, self._waiters = self._waiters, []
        for _, _, done in waiting:
            done(NotProposed("leadership was lost; look whether the change took effect"))
