"""What every reader makes of a file: operations by object, and the model of the objects."""

from __future__ import annotations

from typing import Any

import msgspec

from jepsen_like.checkers.linear_search import Op
from jepsen_like.checkers.models import Action, Model


class Unreadable(Exception):
    """A file is no history, or a broken one; the text says where and how."""


class Recorded(msgspec.Struct):
    """A history as the search needs it.

    Attributes:
        model: What the objects are.
        parts: The operations on each.
    """

    model: Model
    parts: dict[Any, list[Op]] = {}

    def add(
        self, key: Any, action: Action, call: int, ret: int | None, index: int | None = None
    ) -> None:
        """Adds an operation on an object; the arguments are those of `Op`."""
        self.parts.setdefault(key, []).append(Op(action, call, ret, index))


class Pending(msgspec.Struct, frozen=True):
    """An invocation that has not returned."""

    at: int
    f: str
    value: Any
    key: str | None = None


class Clients:
    """Which process is doing what; each does one thing at a time.

    Args:
        may_abandon: A process may begin anew without an end of what it began; that stays open.
    """

    def __init__(self, *, may_abandon: bool = False) -> None:
        self._busy: dict[str, Pending] = {}
        self._abandoned: list[Pending] = []
        self._may_abandon = may_abandon

    def invoke(self, process: str, pending: Pending) -> None:
        """A process begins an operation.

        Raises:
            Unreadable: It has another open, and may not abandon it.
        """
        if process in self._busy:
            if not self._may_abandon:
                raise Unreadable(f"line {pending.at + 1}: process {process} has an operation open")
            self._abandoned.append(self._busy[process])
        self._busy[process] = pending

    def end(self, process: str, at: int, f: str) -> Pending:
        """A process ends its operation; gives it.

        Raises:
            Unreadable: It has none open, or another one.
        """
        pending = self._busy.pop(process, None)
        if pending is None:
            raise Unreadable(f"line {at + 1}: process {process} has no operation open")
        if pending.f != f:
            raise Unreadable(f"line {at + 1}: process {process} ends {f}, but began {pending.f}")
        return pending

    def left(self) -> list[Pending]:
        """Operations that never ended."""
        return [*self._abandoned, *self._busy.values()]
