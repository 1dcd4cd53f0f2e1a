"""Texts that tell which operations made them.

Where a text was put together from others of which none is used twice and none begins another (a
prefix code), there is only one way to take it apart: what was read then names the operations that
made it, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from jepsen_like.checkers.models import Action, Append, Read, Write


def named_texts(actions: Sequence[Action], initial: object) -> frozenset[str] | None:
    """The texts that stand in something that was read.

    Args:
        actions: What each operation did; one entry an operation.
        initial: The first state.

    Returns:
        Texts of writes and appends; None if what was read does not tell.
    """
    if initial != "" or not all(isinstance(a, (Read, Write, Append)) for a in actions):
        return None
    parts = sorted(_changed(actions))
    if "" in parts or any(later.startswith(earlier) for earlier, later in pairwise(parts)):
        return None
    known, sizes = frozenset(parts), sorted({len(part) for part in parts})
    found: set[str] = set()
    for text in longest(a.value for a in actions if isinstance(a, Read)):
        found.update(_taken_apart(text, known, sizes))
    return frozenset(found)


def _changed(actions: Iterable[Action]) -> list[str]:
    """What writes and appends bring; "" for what is no text."""
    texts: list[str] = []
    for action in actions:
        match action:
            case Append(text):
                texts.append(text)
            case Write(value):
                texts.append(value if isinstance(value, str) else "")
            case _:
                pass
    return texts


def _taken_apart(text: str, known: frozenset[str], sizes: Sequence[int]) -> list[str]:
    """The parts of a text, up to where it can't have come about."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        part = next((p for size in sizes if (p := text[at : at + size]) in known), None)
        if part is None:
            break
        parts.append(part)
        at += len(part)
    return parts


def longest(states: Iterable[object]) -> list[str]:
    """Those texts among some states that begin no other."""
    kept: list[str] = []
    for text in sorted({state for state in states if isinstance(state, str)}, reverse=True):
        if not kept or not kept[-1].startswith(text):
            kept.append(text)
    return kept
