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
from collections.abc import Hashable
from typing import Final, TypeAlias

import msgspec

State: TypeAlias = Hashable


class Mark(enum.Enum):
    """What is no state."""

    ANY = "any"
    IMPOSSIBLE = "impossible"


ANY: Final = Mark.ANY
IMPOSSIBLE: Final = Mark.IMPOSSIBLE


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
