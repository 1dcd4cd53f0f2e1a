"""Jepsen's log lines of one compare-and-set register that begins absent.

    INFO  jepsen.util - 3	:invoke	:cas	[2 4]

Process, kind of event, operation and value stand between white space; the order of the lines is
that of real time; all other lines are passed over. `:fail :cas [2 4]` saw another value than 2.
`:timed-out` is an unknown outcome: such a read says nothing, such a write or compare-and-set may
take place at any later time, or never.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from jepsen_like.checkers.models import CAS_REGISTER, Action, Cas, Mismatch, Read, Write
from jepsen_like.judge.parts import Clients, Pending, Recorded, Unreadable

LINE: Final = re.compile(r"INFO\s+jepsen\.util\s+-\s+(\d+)\s+:(invoke|ok|fail|info)(?:\s+(.*))?")
_CALL: Final = re.compile(r":(read|write|cas)\s+(\S.*)")
_PAIR: Final = re.compile(r"\[\s*(nil|-?\d+)\s+(nil|-?\d+)\s*\]")
_NUMBER: Final = re.compile(r"nil|-?\d+")
_TIMED_OUT: Final = ":timed-out"

_Value: TypeAlias = int | None


def read(lines: Iterable[str]) -> Recorded:
    """Reads a log.

    Raises:
        Unreadable: A line of an operation is broken, or not where it can be.
    """
    recorded, clients = Recorded(CAS_REGISTER), Clients()
    for at, line in enumerate(lines):
        if found := LINE.match(line):
            process, kind, rest = found.groups()
            _event(recorded, clients, at, process, kind, (rest or "").strip())
    for pending in clients.left():
        _open(recorded, pending)
    return recorded


def _event(
    recorded: Recorded, clients: Clients, at: int, process: str, kind: str, rest: str
) -> None:
    found = _CALL.fullmatch(rest)
    if found is None:
        raise Unreadable(f"line {at + 1}: no operation of a register: {rest[:60]!r}")
    f, value = found.groups()
    if kind == "invoke":
        clients.invoke(process, Pending(at, f, _value(f, value, at)))
        return
    pending = clients.end(process, at, f)
    if kind == "info" or value == _TIMED_OUT:
        _open(recorded, pending)
    elif kind == "ok":
        recorded.add(None, _action(f, _value(f, value, at)), pending.at, at)
    elif f == "cas":
        recorded.add(None, Mismatch(_value(f, value, at)[0]), pending.at, at)


def _open(recorded: Recorded, pending: Pending) -> None:
    if pending.f != "read":
        recorded.add(None, _action(pending.f, pending.value), pending.at, None)


def _value(f: str, text: str, at: int) -> tuple[_Value, ...]:
    """The value of a read or write alone, the two of a compare-and-set."""
    found = _PAIR.fullmatch(text) if f == "cas" else _NUMBER.fullmatch(text)
    if found is None:
        raise Unreadable(f"line {at + 1}: no value of a {f}: {text[:60]!r}")
    return tuple(_number(one) for one in found.groups() or (text,))


def _number(text: str) -> _Value:
    return None if text == "nil" else int(text)


def _action(f: str, value: tuple[_Value, ...]) -> Action:
    if f == "cas":
        return Cas(*value)
    return Read(value[0]) if f == "read" else Write(value[0])
