"""Texts by key, one event a line in EDN: `put` replaces, `append` adds at the end, `get` reads.

    {:process 9, :type :invoke, :f :append, :key "0", :value "x 9 0 y"}

Every key begins as the empty text. An operation without `:ok` stays open to the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from jepsen_like.checkers.models import TEXT, Action, Append, Read, Write
from jepsen_like.judge.parts import Clients, Pending, Recorded, Unreadable

_TEXT: Final = r'"(?:[^"\\]|\\.)*"'
LINE: Final = re.compile(
    r"\{\s*:process\s+(\d+)\s*,\s*:type\s+:(invoke|ok|fail|info)\s*,\s*:f\s+:(get|put|append)\s*,"
    rf"\s*:key\s+({_TEXT})\s*,\s*:value\s+(nil|{_TEXT})\s*\}}\s*"
)
_decoder = msgspec.json.Decoder(str)


def read(lines: Iterable[str]) -> Recorded:
    """Reads a history of texts.

    Raises:
        Unreadable: A line is no event, or not where it can be.
    """
    recorded, clients = Recorded(TEXT), Clients(may_abandon=True)
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        found = LINE.fullmatch(line)
        if found is None:
            raise Unreadable(f"line {at + 1}: no event: {line[:60]!r}")
        process, kind, f, key, value = found.groups()
        event = Pending(at, f, None if value == "nil" else _text(value, at), _text(key, at))
        _event(recorded, clients, process, kind, event)
    for pending in clients.left():
        _open(recorded, pending)
    return recorded


def _event(recorded: Recorded, clients: Clients, process: str, kind: str, event: Pending) -> None:
    if kind == "invoke":
        if event.f != "get" and event.value is None:
            raise Unreadable(f"line {event.at + 1}: {event.f} of nothing")
        clients.invoke(process, event)
        return
    begun = clients.end(process, event.at, event.f)
    if begun.key != event.key:
        raise Unreadable(f"line {event.at + 1}: another key than in line {begun.at + 1}")
    if kind == "info":
        _open(recorded, begun)
    elif kind == "ok":
        if event.f == "get" and event.value is None:
            raise Unreadable(f"line {event.at + 1}: get gives a text")
        action = Read(event.value) if event.f == "get" else _change(begun)
        recorded.add(event.key, action, begun.at, event.at)


def _open(recorded: Recorded, pending: Pending) -> None:
    if pending.f != "get":
        recorded.add(pending.key, _change(pending), pending.at, None)


def _change(pending: Pending) -> Action:
    return Write(pending.value) if pending.f == "put" else Append(pending.value)


def _text(quoted: str, at: int) -> str:
    try:
        return _decoder.decode(quoted)
    except msgspec.DecodeError as error:
        raise Unreadable(f"line {at + 1}: no text: {quoted[:60]!r}") from error
