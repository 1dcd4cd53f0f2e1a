"""The KV table: rows, sorted keys, the keys of each lock holder, and tombstones.

A tombstone remembers the index at which a key was deleted, so that the index of the key and of its
prefixes does not fall with it. Tombstones are bounded: beyond the limit, and when they are reaped,
`floor` rises to the highest index that was forgotten, which then counts for every missing key.

A key with a TTL has a deadline in cluster time. Deadlines lie beside the rows: to move one is no
change of the entry, so its index stays and whoever watches it sleeps on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial

from sortedcontainers import SortedList

from raftreg.model import KVEntry

TOMBSTONES_MAX = 65_536
#: A tree deletion of more keys leaves no tombstones but raises the floor.
TREE_TOMBSTONES_MAX = 1_024
#: Most keys that one command may expire: what an entry of the log does must be done soon.
EXPIRED_TOGETHER_MAX = 256

Undo = list[Callable[[], object]]


def upper_bound(prefix: str) -> str | None:
    """Gives the smallest string above all that start with a prefix; None when there is none.

    Strings compare by code point. The result may hold a lone surrogate: compare it, no more.
    """
    head = prefix.rstrip(chr(sys.maxunicode))
    return head[:-1] + chr(ord(head[-1]) + 1) if head else None


class KVStore:
    """Rows by key, in order.

    Attributes:
        rows: The entries, in order of creation.
        tombstones: Index of the deletion of keys that are not there.
        floor: Highest index of a forgotten tombstone.
        held: Keys locked by each session that holds any.
        deadlines: Cluster time in milliseconds at which each key with a TTL ends.
    """

    def __init__(self) -> None:
        self.rows: dict[str, KVEntry] = {}
        self.tombstones: dict[str, int] = {}
        self.floor = 0
        self.held: dict[str, set[str]] = {}
        self.deadlines: dict[str, int] = {}
        self._keys: SortedList = SortedList()
        self._buried: SortedList = SortedList()
        #: (deadline, key): the first to end comes first.
        self._ending: SortedList = SortedList()

    def load(
        self,
        entries: Iterable[KVEntry],
        tombstones: dict[str, int],
        floor: int,
        deadlines: dict[str, int] | None = None,
    ) -> None:
        """Replaces everything."""
        self.rows = {entry.key: entry for entry in entries}
        self.tombstones = tombstones
        self.floor = floor
        self._keys = SortedList(self.rows)
        self._buried = SortedList(tombstones)
        self.held = {}
        for entry in self.rows.values():
            if entry.session is not None:
                self.held.setdefault(entry.session, set()).add(entry.key)
        self.deadlines = deadlines or {}
        self._ending = SortedList((at_ms, key) for key, at_ms in self.deadlines.items())

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, key: str) -> KVEntry | None:
        """One entry by its key."""
        return self.rows.get(key)

    def keys_under(self, prefix: str) -> list[str]:
        """Keys that start with a prefix, in order."""
        return list(self._keys.irange(prefix, upper_bound(prefix), inclusive=(True, False)))

    def under(self, prefix: str) -> list[KVEntry]:
        """Entries whose keys start with a prefix, in order."""
        rows = self.rows
        bound = upper_bound(prefix)
        return [rows[key] for key in self._keys.irange(prefix, bound, inclusive=(True, False))]

    def tombstones_under(self, prefix: str) -> Iterable[int]:
        """Indexes of the tombstones of keys that start with a prefix."""
        if not self.tombstones:
            return ()
        keys = self._buried.irange(prefix, upper_bound(prefix), inclusive=(True, False))
        return map(self.tombstones.__getitem__, keys)

    def next_deadline_ms(self) -> int | None:
        """Cluster time at which the next key ends; None when none will."""
        return self._ending[0][0] if self._ending else None

    def ended(self, now_ms: int, count_max: int) -> list[str]:
        """Keys whose deadline is not after now, the first to end first; at most so many."""
        found: list[str] = []
        for at_ms, key in self._ending:
            if at_ms > now_ms or len(found) >= count_max:
                break
            found.append(key)
        return found

    def endings(self) -> list[tuple[str, int, int]]:
        """(key, TTL, deadline) of the keys that end, in the order in which they do."""
        return [(key, self.rows[key].ttl_ms, at_ms) for at_ms, key in self._ending]

    # -- writes ------------------------------------------------------------------------------

    def put(self, entry: KVEntry, undo: Undo | None, ends_ms: int | None = None) -> None:
        """Writes an entry; its tombstone is not needed any more.

        Args:
            entry: What to write.
            undo: Takes the step back.
            ends_ms: Deadline in cluster time; None leaves an entry with a TTL the one it has.
        """
        key = entry.key
        old = self.rows.get(key)
        if undo is not None:
            undo.append(partial(self._set_deadline, key, self.deadlines.get(key)))
            undo.append(partial(self._revert, key, old, self.tombstones.get(key)))
        self._place(key, old, entry)
        if ends_ms is not None or not entry.ttl_ms:
            self._set_deadline(key, ends_ms)
        if old is None and key in self.tombstones:
            self._set_tombstone(key, None)

    def delete(self, entry: KVEntry, index: int, undo: Undo | None) -> None:
        """Deletes an entry and leaves a tombstone."""
        if undo is not None:
            undo.append(partial(self._set_deadline, entry.key, self.deadlines.get(entry.key)))
            undo.append(partial(self._revert, entry.key, entry, None))
        self._place(entry.key, entry, None)
        self._set_deadline(entry.key, None)
        if len(self.tombstones) >= TOMBSTONES_MAX:
            self.forget_tombstones(index, undo)
        self._set_tombstone(entry.key, index)

    def delete_tree(self, prefix: str, index: int, undo: Undo | None) -> int:
        """Deletes all entries under a prefix; gives how many there were."""
        entries = self.under(prefix)
        if len(entries) <= TREE_TOMBSTONES_MAX:
            for entry in entries:
                self.delete(entry, index, undo)
            return len(entries)
        self._raise_floor(index, undo)
        first = self._keys.bisect_left(prefix)
        del self._keys[first : first + len(entries)]
        for entry in entries:
            if undo is not None:
                undo.append(partial(self._set_deadline, entry.key, self.deadlines.get(entry.key)))
                undo.append(partial(self._revert, entry.key, entry, None))
            del self.rows[entry.key]
            self._hold(entry.key, entry.session, None)
            self._set_deadline(entry.key, None)
        return len(entries)

    def renew(self, key: str, ends_ms: int, undo: Undo | None) -> None:
        """Moves the deadline of a key with a TTL; the entry stays as it is."""
        if undo is not None:
            undo.append(partial(self._set_deadline, key, self.deadlines.get(key)))
        self._set_deadline(key, ends_ms)

    def shift_deadlines(self, by_ms: int) -> None:
        """Moves all deadlines: these rows now live by another cluster's time."""
        self.deadlines = {key: at_ms + by_ms for key, at_ms in self.deadlines.items()}
        self._ending = SortedList((at_ms, key) for key, at_ms in self.deadlines.items())

    def forget_tombstones(self, up_to_index: int, undo: Undo | None) -> None:
        """Drops tombstones up to and including an index, and raises the floor to the highest."""
        dropped = {key: at for key, at in self.tombstones.items() if at <= up_to_index}
        if not dropped:
            return
        self._raise_floor(max(dropped.values()), undo)
        kept = {key: at for key, at in self.tombstones.items() if at > up_to_index}
        if undo is not None:
            undo.append(partial(self._adopt_tombstones, self.tombstones, self._buried))
        self._adopt_tombstones(kept, SortedList(kept))

    # -- primitives --------------------------------------------------------------------------

    def _place(self, key: str, old: KVEntry | None, new: KVEntry | None) -> None:
        if new is None:
            del self.rows[key]
            self._keys.remove(key)
        else:
            self.rows[key] = new
            if old is None:
                self._keys.add(key)
        before = old.session if old is not None else None
        after = new.session if new is not None else None
        if before != after:
            self._hold(key, before, after)

    def _hold(self, key: str, before: str | None, after: str | None) -> None:
        if before is not None:
            keys = self.held[before]
            keys.discard(key)
            if not keys:
                del self.held[before]
        if after is not None:
            self.held.setdefault(after, set()).add(key)

    def _set_deadline(self, key: str, at_ms: int | None) -> None:
        before = self.deadlines.get(key)
        if before == at_ms:
            return
        if before is not None:
            self._ending.remove((before, key))
            del self.deadlines[key]
        if at_ms is not None:
            self._ending.add((at_ms, key))
            self.deadlines[key] = at_ms

    def _set_tombstone(self, key: str, index: int | None) -> None:
        if key in self.tombstones:
            if index is None:
                del self.tombstones[key]
                self._buried.remove(key)
                return
        elif index is not None:
            self._buried.add(key)
        if index is not None:
            self.tombstones[key] = index

    def _adopt_tombstones(self, tombstones: dict[str, int], buried: SortedList) -> None:
        self.tombstones, self._buried = tombstones, buried

    def _raise_floor(self, index: int, undo: Undo | None) -> None:
        if undo is not None:
            undo.append(partial(setattr, self, "floor", self.floor))
        self.floor = max(self.floor, index)

    def _revert(self, key: str, entry: KVEntry | None, tombstone: int | None) -> None:
        self._place(key, self.rows.get(key), entry)
        self._set_tombstone(key, tombstone)
