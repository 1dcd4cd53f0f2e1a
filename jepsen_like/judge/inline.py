"""Small cases as one JSON object: a model, and rows of operations with their times.

    {"model": "register(init 0)", "ops": [[client, f, input, output, call time, return time], …]}

f is `put`, `get` (register), `add`, `read` (set). Where times are equal, calls come before returns:
an operation may take no time. The output "unknown" says nothing.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from jepsen_like.checkers.models import REGISTER, SET, Action, Add, Model, Read, Write
from jepsen_like.judge.parts import Recorded, Unreadable

_UNKNOWN: Final = "unknown"
_MODELS: Final[dict[str, Model]] = {"register": REGISTER, "set": SET}


class Case(msgspec.Struct):
    """The file."""

    model: str
    ops: list[tuple[int, str, Any, Any, float, float]]


def read(data: bytes) -> Recorded:
    """Reads a case.

    Raises:
        Unreadable: It is none.
    """
    try:
        case = msgspec.json.decode(data, type=Case)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"no history in JSON: {error}") from error
    model = _MODELS.get(case.model.partition("(")[0].strip())
    if model is None:
        raise Unreadable(f"unknown model {case.model!r}; known: {', '.join(_MODELS)}")
    recorded = Recorded(model)
    times = sorted(
        (time, is_return, row)
        for row, op in enumerate(case.ops)
        for is_return, time in enumerate(op[4:])
    )
    at = {(row, is_return): position for position, (_, is_return, row) in enumerate(times)}
    for row, (_, f, given, seen, call, ret) in enumerate(case.ops):
        if call > ret:
            raise Unreadable(f"ops[{row}]: returns before its call")
        action = _action(model, f, given, seen, row)
        if action is not None:
            recorded.add(None, action, at[row, 0], at[row, 1])
    return recorded


def _action(model: Model, f: str, given: Any, seen: Any, row: int) -> Action | None:
    """What an operation did; None if it says nothing."""
    if f == ("get" if model is REGISTER else "read"):
        return None if seen == _UNKNOWN else Read(_state(model, seen, row))
    if f == ("put" if model is REGISTER else "add"):
        if isinstance(given, bool) or not isinstance(given, int):
            raise Unreadable(f"ops[{row}]: {f} needs a number")
        return Write(given) if model is REGISTER else Add(given)
    raise Unreadable(f"ops[{row}]: no operation of a {model.name}: {f!r}")


def _state(model: Model, seen: Any, row: int) -> Any:
    if model is REGISTER:
        if isinstance(seen, bool) or not isinstance(seen, int):
            raise Unreadable(f"ops[{row}]: get gives a number")
        return seen
    return elements(seen, f"ops[{row}]")


def elements(seen: Any, where: str) -> Any:
    """What a read of a set showed, as a state; no state of a set if an element stands twice.

    Raises:
        Unreadable: It is no list of numbers or texts.
    """
    if not isinstance(seen, list) or not all(isinstance(one, (int, str)) for one in seen):
        raise Unreadable(f"{where}: a set is read as a list of numbers or texts")
    found = frozenset(seen)
    return found if len(found) == len(seen) else tuple(seen)
