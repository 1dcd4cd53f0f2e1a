"""The form of every message between servers: which fields it must have, and of what kind.

The codec lets any plain values through. What is checked here once need not be feared behind it:
PySyncObj's code acts on the first fields of a message before it looks at the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raftreg.raft.faults import ProtocolViolation

Check = Callable[[Any], bool]

_U64_END = 1 << 64


def _number(value: Any) -> bool:
    return type(value) is int and 0 <= value < _U64_END


def _maybe_number(value: Any) -> bool:
    return value is None or _number(value)


def _flag(value: Any) -> bool:
    return type(value) is bool


def _bytes(value: Any) -> bool:
    return type(value) is bytes


def _text(value: Any) -> bool:
    return type(value) is str


def _entries(value: Any) -> bool:
    return type(value) is list and all(map(_entry, value))


def _entry(value: Any) -> bool:
    if type(value) not in (list, tuple) or len(value) != 3:
        return False
    command, index, term = value
    return type(command) is bytes and _number(index) and _number(term)


def _piece(value: Any) -> bool:
    """The next piece of a snapshot, or None where there is none to send now."""
    if value is None:
        return True
    if type(value) is not list or len(value) != 4:
        return False
    piece, first, last, name = value
    return _bytes(piece) and _flag(first) and _flag(last) and _text(name)


_HEAD: Mapping[str, Check] = {"term": _number, "commit_index": _number}
_APPEND: Mapping[str, Check] = {
    **_HEAD,
    "prevLogIdx": _maybe_number,
    "prevLogTerm": _maybe_number,
    "entries": _entries,
}
_SNAPSHOT: Mapping[str, Check] = {**_HEAD, "serialized": _piece}
_LOG_END: Mapping[str, Check] = {
    "term": _number,
    "last_log_index": _number,
    "last_log_term": _number,
}
_FORMS: Mapping[str, Mapping[str, Check]] = {
    "next_node_idx": {
        "term": _number,
        "next_node_idx": _number,
        "reset": _flag,
        "success": _flag,
    },
    "request_vote": _LOG_END,
    "response_vote": {"term": _number},
    "apply_command": {"command": _bytes},
    "timeout_now": {"term": _number},
    "stale_term": {"term": _number},
    "pre_vote": {**_LOG_END, "round": _number},
    "pre_vote_reply": {"term": _number, "round": _number, "granted": _flag},
    "read_ping": {"term": _number, "sequence": _number},
    "read_echo": {"term": _number, "sequence": _number},
    "read_request": {"id": _number},
    "read_reply": {"id": _number, "index": _maybe_number},
    "question": {"id": _number, "channel": _text, "payload": _bytes},
}
_ANSWER: Mapping[str, Check] = {"id": _number, "payload": _bytes}
_REFUSAL: Mapping[str, Check] = {"id": _number, "code": _text, "error": _text}


def _form(message: Mapping[str, Any]) -> Mapping[str, Check]:
    kind = message["type"]
    if kind == "append_entries":
        return _APPEND if "prevLogIdx" in message else _SNAPSHOT
    if kind == "answer":
        return _ANSWER if "payload" in message else _REFUSAL
    return _FORMS.get(kind, {})


def check_form(sender: str, message: Mapping[str, Any]) -> None:
    """Refuses a message that lacks a field or has one of another kind; more fields are ignored.

    Raises:
        ProtocolViolation: Says which field.
    """
    for field, is_good in _form(message).items():
        if field not in message or not is_good(message[field]):
            raise ProtocolViolation(
                f"{message['type']} of {sender}: field {field!r} is missing or of a wrong kind"
            )
