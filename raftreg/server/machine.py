"""The registry as a replicated state machine: bytes in, results out, watchers woken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
import structlog

from raftreg.core import commands, snapshot
from raftreg.core.apply import apply
from raftreg.core.changes import ALL, Topic
from raftreg.core.delta import CatalogDelta
from raftreg.core.results import Outcome, Refused, decode_outcome, encode_outcome
from raftreg.core.state import State

_log = structlog.get_logger(__name__)

#: Called after each log entry with what it changed: topics, catalog rows, and the index now.
Listener = Callable[[tuple[Topic, ...], tuple[CatalogDelta, ...], int], None]


class RegistryMachine:
    """The state with what hangs on it (see `raftreg.raft.api.StateMachine`).

    Attributes:
        state: The present state; a restore replaces the object.
    """

    def __init__(self) -> None:
        self.state = State()
        self._listeners: list[Listener] = []
        self._topics: dict[Topic, None] = {}
        self._deltas: list[CatalogDelta] = []

    def on_change(self, listener: Listener) -> None:
        """Adds a listener; it is called on the loop, after each log entry that changed something.

        Topics that hold `ALL` mean that everything may differ: the deltas are no whole story then.
        """
        self._listeners.append(listener)

    def apply(self, command: bytes, time_ms: int) -> Outcome:
        """Applies one command; bytes that are none are refused and count like any other."""
        try:
            decoded = commands.decode(command)
        except msgspec.DecodeError as error:
            self.state.index += 1
            _log.error("undecodable_command", index=self.state.index, reason=str(error))
            refused = Refused("undecodable", f"the command can't be decoded: {error}", 400)
            return Outcome(self.state.index, refused)
        applied = apply(self.state, decoded, time_ms)
        if applied.topics:
            self._topics.update(dict.fromkeys(applied.topics))
        if applied.deltas:
            self._deltas.extend(applied.deltas)
        return Outcome(self.state.index, applied.result)

    def entry_applied(self, raft_index: int) -> None:
        """Tells the listeners what the commands of one entry changed together."""
        del raft_index
        if not self._topics:
            return
        topics, deltas = tuple(self._topics), tuple(self._deltas)
        self._topics.clear()
        self._deltas.clear()
        for listener in self._listeners:
            listener(topics, deltas, self.state.index)

    def snapshot(self) -> Iterator[bytes]:
        """Shallow copies now, bytes later (`raftreg.core.snapshot`)."""
        return snapshot.snapshot(self.state)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replaces the state and wakes everyone.

        Raises:
            SnapshotError: The chunks are no whole snapshot; the state stays as it was.
        """
        self.state = snapshot.restore(chunks)
        self._topics.clear()
        self._deltas.clear()
        for listener in self._listeners:
            listener((ALL,), (), self.state.index)

    def encode_result(self, result: Outcome) -> bytes:
        """Bytes of what `apply` gave."""
        return encode_outcome(result)

    def decode_result(self, data: bytes) -> Outcome:
        """The reverse of `encode_result`."""
        return decode_outcome(data)
