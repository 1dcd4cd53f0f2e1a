"""The part of the Raft log that is kept in memory: what compaction has not yet removed. Pure.

Indexes are consecutive, so an index is a position plus `first_index`. Beside each entry stands the
sequence number (lsn) of the record that made it durable; these rise with the index, because an
entry that replaces another is written later than everything before it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TypeAlias

#: (command, index, term), the shape that PySyncObj works with.
Entry: TypeAlias = tuple[bytes, int, int]
ConfigEntry: TypeAlias = tuple[int, bytes]

#: First byte of a command that changes the membership.
MEMBERSHIP_BYTE = b"\x02"


class RetainedLog:
    """Entries by index, their size, and the membership entries among them.

    Attributes:
        entries: In order of index, without gaps.
        size_bytes: Sum of the commands' sizes.
        config_entries: (index, command) of the retained membership entries, in order.
        config_version: Rises whenever `config_entries` changes.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.size_bytes = 0
        self.config_entries: list[ConfigEntry] = []
        self.config_version = 0
        self._lsns: list[int] = []

    @property
    def first_index(self) -> int:
        """Lowest index, 0 when empty."""
        return self.entries[0][1] if self.entries else 0

    @property
    def last_index(self) -> int:
        """Highest index, 0 when empty."""
        return self.entries[-1][1] if self.entries else 0

    @property
    def first_lsn(self) -> int:
        """Sequence number of the oldest record that is still needed, 0 when empty."""
        return self._lsns[0] if self._lsns else 0

    def term_at(self, index: int) -> int | None:
        """Term of the entry at `index`, None if it is not retained."""
        position = index - self.first_index
        if 0 <= position < len(self.entries):
            return self.entries[position][2]
        return None

    def durable_index(self, durable_lsn: int) -> int:
        """Highest index that is on disk with everything before it; `first_index - 1` for none."""
        return self.first_index + bisect_right(self._lsns, durable_lsn) - 1

    def append(self, command: bytes, index: int, term: int, lsn: int) -> None:
        """Append an entry.

        Raises:
            ValueError: It does not follow the last one.
        """
        if self.entries and index != self.entries[-1][1] + 1:
            raise ValueError(f"entry {index} can't follow entry {self.last_index}")
        self.entries.append((command, index, term))
        self._lsns.append(lsn)
        self.size_bytes += len(command)
        if command.startswith(MEMBERSHIP_BYTE):
            self.config_entries.append((index, command))
            self.config_version += 1

    def truncate_from(self, index: int) -> None:
        """Remove the entries at `index` and above."""
        position = max(index - self.first_index, 0)
        self.size_bytes -= sum(len(entry[0]) for entry in self.entries[position:])
        del self.entries[position:]
        del self._lsns[position:]
        self._keep_config([one for one in self.config_entries if one[0] < index])

    def drop_below(self, index: int) -> None:
        """Remove the entries below `index`."""
        position = max(index - self.first_index, 0)
        self.size_bytes -= sum(len(entry[0]) for entry in self.entries[:position])
        del self.entries[:position]
        del self._lsns[:position]
        self._keep_config([one for one in self.config_entries if one[0] >= index])

    def clear(self) -> None:
        """Remove everything."""
        self.entries.clear()
        self._lsns.clear()
        self.size_bytes = 0
        self._keep_config([])

    def _keep_config(self, kept: list[ConfigEntry]) -> None:
        if len(kept) != len(self.config_entries):
            self.config_entries = kept
            self.config_version += 1
