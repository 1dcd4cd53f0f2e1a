"""What happened in a run: one event a line, in the order in which the recorder saw them.

The format follows Jepsen's histories (https://jepsen-io.github.io/history/): an operation is two
events of the same process, an invocation and a completion.

    {"index":0,"time_ns":1200345,"process":3,"type":"invoke","f":"write","key":"k1","value":7,"node":"n2"}
    {"index":1,"time_ns":4200111,"process":3,"type":"ok","f":"write","key":"k1","value":7,"node":"n2","raft_index":42}

* `ok`: it happened. `fail`: it definitely did not. `info`: unknown, it may take effect at any later
  time or never; its process never invokes again (the client goes on under a new number).
* The nemesis is the process -1; its events are all of type `info`. A fault is in force from the
  first `start-<fault>` (a second one tells what was done) to `stop-<fault>`, when it is healed.
* A process has at most one operation open. Invocations without a completion are open for ever.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

NEMESIS: Final = -1  #: the process number of the nemesis
LINE_BYTES_MAX: Final = 16 << 20


class Type(enum.Enum):
    """Kinds of events."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a history.

    Attributes:
        index: Its position in the history, from 0.
        time_ns: Monotonic time since the run began.
        process: Logical process: a strictly sequential client, or `NEMESIS`.
        type: See the module.
        f: What was done: "read", "write", "cas", "add", "txn", ….
        key: The object it was done to, where the workload has several independent ones.
        value: Argument at the invocation, result at the completion; JSON.
        node: The server or agent that was asked.
        raft_index: The registry's index that came with the answer.
        error: Why it failed, or why the outcome is unknown.
    """

    index: int
    time_ns: int
    process: int
    type: Type
    f: str
    key: str | None = None
    value: Any = None
    node: str | None = None
    raft_index: int | None = None
    error: str | None = None


class Operation(msgspec.Struct, frozen=True):
    """An invocation with its completion.

    Attributes:
        invoke: The invocation.
        completion: Its completion; None where the history ends before it.
    """

    invoke: Event
    completion: Event | None

    @property
    def type(self) -> Type:
        """OK, FAIL or INFO; an operation that never completed counts as INFO."""
        return Type.INFO if self.completion is None else self.completion.type

    @property
    def result(self) -> Any:
        """The value of the completion; None without one."""
        return None if self.completion is None else self.completion.value

    @property
    def raft_index(self) -> int | None:
        """The index that came with the answer."""
        return None if self.completion is None else self.completion.raft_index


class MalformedHistory(Exception):
    """A history breaks the rules of the module; the text says in which line and how."""


_decoder = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """One line of JSON with its newline."""
    return msgspec.json.encode(event) + b"\n"


def decode(lines: Iterable[bytes], source: str = "history") -> Iterator[Event]:
    """Reads events and checks that they are numbered in order.

    A last line without newline is what a harness left that was killed; it is left out.

    Args:
        lines: Lines with their newlines.
        source: Named in errors.

    Raises:
        MalformedHistory: A line is no event, or out of order.
    """
    for number, line in enumerate(lines):
        if not line.endswith(b"\n"):
            return
        try:
            event = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedHistory(f"{source}:{number + 1}: {error}") from error
        if event.index != number:
            raise MalformedHistory(f"{source}:{number + 1}: index {event.index}, not {number}")
        yield event


def read(path: Path) -> list[Event]:
    """Reads a history file.

    Raises:
        MalformedHistory: See `decode`.
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        return list(decode(iter(lambda: file.readline(LINE_BYTES_MAX), b""), str(path)))


def operations(events: Sequence[Event]) -> list[Operation]:
    """Pairs invocations with completions, in the order of the invocations; the nemesis is left out.

    Raises:
        MalformedHistory: A completion without invocation, or two operations open in a process.
    """
    open_at: dict[int, int] = {}
    found: list[tuple[Event, Event | None]] = []
    for event in events:
        if event.process == NEMESIS:
            continue
        if event.type is Type.INVOKE:
            if event.process in open_at:
                raise MalformedHistory(f"event {event.index}: process {event.process} is busy")
            open_at[event.process] = len(found)
            found.append((event, None))
            continue
        at = open_at.pop(event.process, None)
        if at is None:
            raise MalformedHistory(f"event {event.index}: a completion of nothing")
        found[at] = (found[at][0], event)
    return [Operation(invoke, completion) for invoke, completion in found]
