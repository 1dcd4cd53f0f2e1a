"""What stands before every call of the disk: freezing, delay and injected errors, and their counts.

One lock for everything: a call that waits here gives it up, so that the control may thaw the disk,
change the faults or cut the power meanwhile.
"""

from __future__ import annotations

import enum
import errno
import os
import threading
from collections import Counter

import msgspec


class Call(enum.Enum):
    """Kinds of calls; the values name their counters."""

    LOOK = "looks"
    READ = "reads"
    WRITE = "writes"
    SYNC = "syncs"
    NAME = "name_changes"
    SYNC_NAMES = "directory_syncs"


class Faults(msgspec.Struct, frozen=True):
    """What is wrong with the disk.

    Attributes:
        full: Nothing that needs more room is accepted (ENOSPC).
        fsync_error: Syncs report EIO and make nothing durable.
        write_error: Writes report EIO and change nothing.
        delay_s: Writes and syncs take so much longer.
    """

    full: bool = False
    fsync_error: bool = False
    write_error: bool = False
    delay_s: float = 0.0


_CHANGES = frozenset({Call.WRITE, Call.SYNC, Call.NAME, Call.SYNC_NAMES})
_SYNCS = frozenset({Call.SYNC, Call.SYNC_NAMES})


class Gate:
    """Lets calls pass, late or not at all.

    Attributes:
        lock: Held around everything, also around the model; calls wait on it.
        counts: Calls by kind, and how often each fault acted.
        epoch: Number of power losses; a handle of an earlier one is dead.
    """

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.counts: Counter[str] = Counter()
        self.epoch = 0
        self._faults = Faults()
        self._frozen = False

    def enter(self, call: Call, *, grows: bool = False) -> None:
        """A call comes; the lock is held. Returns when it may be carried out.

        Args:
            call: What it is.
            grows: It needs room that the file or directory has not got yet.

        Raises:
            OSError: The injected error, or EIO since the power went while it waited.
        """
        self.counts[call.value] += 1
        epoch = self.epoch
        if self._faults.delay_s and call in _CHANGES:
            self._delay(epoch)
        if self._frozen:
            self.counts["frozen_calls"] += 1
            self.lock.wait_for(lambda: not self._frozen or self.epoch != epoch)
        if self.epoch != epoch:
            raise _error(errno.EIO)
        self._fail(call, grows=grows)

    def set_faults(self, faults: Faults) -> None:
        """Replaces the faults; calls that are being delayed for longer than from now on go on."""
        self._faults = faults
        self.lock.notify_all()

    def freeze(self) -> None:
        """Calls wait from now on."""
        self._frozen = True

    def thaw(self, *, power_lost: bool) -> None:
        """Calls pass again; those that wait fail if the power was lost."""
        self._frozen = False
        self.epoch += power_lost
        self.lock.notify_all()

    def _delay(self, epoch: int) -> None:
        delay_s = self._faults.delay_s
        self.counts["delayed_calls"] += 1
        self.lock.wait_for(
            lambda: self.epoch != epoch or self._faults.delay_s < delay_s, timeout=delay_s
        )

    def _fail(self, call: Call, *, grows: bool) -> None:
        faults = self._faults
        if faults.write_error and call is Call.WRITE:
            self.counts["write_errors"] += 1
            raise _error(errno.EIO)
        if faults.fsync_error and call in _SYNCS:
            self.counts["fsync_errors"] += 1
            raise _error(errno.EIO)
        if faults.full and grows:
            self.counts["full_errors"] += 1
            raise _error(errno.ENOSPC)

    @property
    def full(self) -> bool:
        """No room is left."""
        return self._faults.full


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
