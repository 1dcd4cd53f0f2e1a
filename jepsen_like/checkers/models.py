"""Sequential models: what each operation does to one object, as small pure classes.

An *action* is an operation together with the result that was seen. It says in which states it can
take place (`step`), and, for the search, what is known of it without a state at hand:

* `pure`: it changes no state, whatever the state is;
* `needs`: the one state in which it can take place or matter, `ANY` if there are several;
* `gives`: the state that it always leads to, `ANY` if that depends on the state before.

A `Write` is *blind*: it can take place in every state and always leads to the same.

The four models: a compare-and-set register that begins absent, an integer register that begins at
0, texts by key with put, append and get, and a set. All four are built from the actions here; a
map is one text per key, since linearizability is a local property (Herlihy and Wing 1990,
"Linearizability: a correctness condition for concurrent objects", theorem 1).
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable
from typing import Final, TypeAlias

import msgspec

State: TypeAlias = Hashable


class Mark(enum.Enum):
    """What is no state."""

    ANY = "any"
    IMPOSSIBLE = "impossible"
    UNSEEN = "unseen"


ANY: Final = Mark.ANY
IMPOSSIBLE: Final = Mark.IMPOSSIBLE
UNSEEN: Final = Mark.UNSEEN  #: stands for all states that nobody can tell apart, see `fold`


class Read(msgspec.Struct, frozen=True):
    """The whole state was seen."""

    value: State

    pure = True

    @property
    def needs(self) -> State:
        """What was seen."""
        return self.value

    @property
    def gives(self) -> State:
        """As it was."""
        return ANY

    def step(self, state: State) -> State:
        """The state after it, or IMPOSSIBLE."""
        return state if state == self.value else IMPOSSIBLE


class Write(msgspec.Struct, frozen=True):
    """The state was replaced."""

    value: State

    pure = False

    @property
    def needs(self) -> State:
        """Nothing."""
        return ANY

    @property
    def gives(self) -> State:
        """What was written."""
        return self.value

    def step(self, state: State) -> State:
        """The state after it."""
        del state
        return self.value


class Cas(msgspec.Struct, frozen=True):
    """The state was what was expected, and was replaced.

    With an unknown outcome it is the same action: where the state was another, it changed nothing,
    and so it need not take place at all.
    """

    expected: State
    new: State

    pure = False

    @property
    def needs(self) -> State:
        """What was expected."""
        return self.expected

    @property
    def gives(self) -> State:
        """What was written."""
        return self.new

    def step(self, state: State) -> State:
        """The state after it, or IMPOSSIBLE."""
        return self.new if state == self.expected else IMPOSSIBLE


class Mismatch(msgspec.Struct, frozen=True):
    """A compare-and-set that found another state than it expected."""

    expected: State

    pure = True

    @property
    def needs(self) -> State:
        """All but one."""
        return ANY

    @property
    def gives(self) -> State:
        """As it was."""
        return ANY

    def step(self, state: State) -> State:
        """The state after it, or IMPOSSIBLE."""
        return state if state != self.expected else IMPOSSIBLE


class Append(msgspec.Struct, frozen=True):
    """A text was put at the end of a text."""

    text: str

    pure = False

    @property
    def needs(self) -> State:
        """Nothing."""
        return ANY

    @property
    def gives(self) -> State:
        """More than before."""
        return ANY

    def step(self, state: State) -> State:
        """The state after it; IMPOSSIBLE if that is no text."""
        if state is UNSEEN:
            return UNSEEN
        return state + self.text if isinstance(state, str) else IMPOSSIBLE


class Add(msgspec.Struct, frozen=True):
    """An element was put into a set."""

    element: Hashable

    pure = False

    @property
    def needs(self) -> State:
        """Nothing."""
        return ANY

    @property
    def gives(self) -> State:
        """More than before, or the same."""
        return ANY

    def step(self, state: State) -> State:
        """The state after it; IMPOSSIBLE if that is no set."""
        if state is UNSEEN:
            return UNSEEN
        return state | {self.element} if isinstance(state, frozenset) else IMPOSSIBLE


Action: TypeAlias = Read | Write | Cas | Mismatch | Append | Add


class Model(msgspec.Struct, frozen=True):
    """A kind of object.

    Attributes:
        name: As verdicts name it.
        initial: Its first state.
    """

    name: str
    initial: State


CAS_REGISTER: Final = Model("cas-register", None)
REGISTER: Final = Model("register", 0)
TEXT: Final = Model("text", "")
SET: Final = Model("set", frozenset())


def fold(actions: Iterable[Action]) -> Callable[[State], State]:
    """Gives a function that maps states to UNSEEN which none of some actions can ever tell apart.

    What is asked for is what the actions name: what was read, or expected by a compare-and-set. A
    state that is not asked for, nor (where actions append or add) could grow into one that is,
    admits no read until it is replaced, and of the compare-and-sets only those that fail; so do all
    states to which additions lead from it. All of these behave alike.

    Args:
        actions: All that will ever be tried on the states.
    """
    actions = tuple(actions)
    kinds = {type(action) for action in actions}
    named = {action.needs for action in actions} - {ANY}
    named |= {action.expected for action in actions if isinstance(action, Mismatch)}
    texts = sorted(state for state in named if isinstance(state, str)) if Append in kinds else []
    sets = [state for state in named if isinstance(state, frozenset)] if Add in kinds else []

    def folded(state: State) -> State:
        if state in named:
            return state
        if isinstance(state, str):
            # the least text that is not below `state` begins with it, if any does
            at = bisect_left(texts, state)
            return state if at < len(texts) and texts[at].startswith(state) else UNSEEN
        if isinstance(state, frozenset):
            return state if any(state <= larger for larger in sets) else UNSEEN
        return UNSEEN

    return folded
