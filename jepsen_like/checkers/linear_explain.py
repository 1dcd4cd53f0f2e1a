"""What a person reads of a history that is not linearizable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from jepsen_like.checkers.linear_search import Op
from jepsen_like.checkers.models import ANY, IMPOSSIBLE, State

NAMED_MAX: Final = 8


def explain(
    part: Sequence[Op], ops: Sequence[Op], initial: State, describe: Callable[[Op], str]
) -> str:
    """Says in a sentence why a part of a history has no explanation.

    Args:
        part: The smallest part that fails, by call; all completed.
        ops: All operations on the object.
        initial: The state that it began with.
        describe: Names an operation in a few words.
    """
    last = max(part, key=lambda op: op.ret or 0)
    wanted = last.action.needs
    if wanted is ANY or any(_unclear(op) for op in ops):
        return _in_general(part, describe)
    sources = [op for op in ops if op.action.gives == wanted and op is not last]
    if wanted != initial and not sources:
        return f"{describe(last)}: nothing ever led to {_show(wanted)}"
    if wanted != initial and all(op.call > (last.ret or 0) for op in sources):
        return f"{describe(last)}: {_show(wanted)} was written only afterwards"
    for other in part:
        if _replaced(other, sources, last):
            return (
                f"{describe(last)} began after {describe(other)} was acknowledged; "
                f"{_show(wanted)} had been overwritten"
            )
    return _in_general(part, describe)


def _unclear(op: Op) -> bool:
    """Whether what it leads to depends on the state before."""
    return not op.action.pure and op.action.gives is ANY


def _replaced(other: Op, sources: Sequence[Op], last: Op) -> bool:
    """Whether an operation surely came after all that lead to a state, and before the last."""
    if other.ret is None or other.ret > last.call or other.action.pure:
        return False
    before = all(op.ret is not None and op.ret < other.call for op in sources)
    wanted = last.action.needs
    return before and other.action.gives != wanted and other.action.step(wanted) is not IMPOSSIBLE


def _show(state: State) -> str:
    return "absence" if state is None else str(state)


def _in_general(part: Sequence[Op], describe: Callable[[Op], str]) -> str:
    named = "; ".join(describe(op) for op in part[:NAMED_MAX])
    if len(part) > NAMED_MAX:
        named += f"; and {len(part) - NAMED_MAX} more"
    if len(part) == 1:
        return f"nothing explains {named}"
    return f"no order of these {len(part)} operations explains them all: {named}"
