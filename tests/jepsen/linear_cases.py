"""Small histories at random, and the definition of linearizability, tried out in full."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

from hypothesis import strategies as st

from jepsen_like.checkers.linear_search import Op
from jepsen_like.checkers.linear_witness import is_linearization
from jepsen_like.checkers.models import (
    CAS_REGISTER,
    REGISTER,
    SET,
    TEXT,
    Action,
    Add,
    Append,
    Cas,
    Mismatch,
    Model,
    Read,
    State,
    Write,
)


def by_definition(ops: Sequence[Op], initial: State) -> bool:
    """Whether any order of all completed and some open operations is a linearization."""
    completed = [op for op in ops if op.ret is not None]
    unknown = [op for op in ops if op.ret is None]
    return any(
        is_linearization(order, ops, initial)
        for size in range(len(unknown) + 1)
        for chosen in combinations(unknown, size)
        for order in permutations((*completed, *chosen))
    )


_numbers = st.integers(0, 2)
_register: st.SearchStrategy[Action] = st.one_of(
    st.builds(Read, _numbers), st.builds(Write, _numbers)
)
_cas_register: st.SearchStrategy[Action] = st.one_of(
    st.builds(Read, st.none() | _numbers),
    st.builds(Write, _numbers),
    st.builds(Cas, _numbers, _numbers),
)
_with_mismatch: st.SearchStrategy[Action] = st.one_of(_cas_register, st.builds(Mismatch, _numbers))
_letters = st.sampled_from(["a", "b", "c"])
_text: st.SearchStrategy[Action] = st.one_of(
    st.builds(Read, st.text("abc", max_size=3)),
    st.builds(Write, _letters),
    st.builds(Append, _letters),
)
_words = st.text("ab", max_size=2)
_ambiguous: st.SearchStrategy[Action] = st.one_of(
    st.builds(Read, st.text("ab", max_size=3)),
    st.builds(Write, _words),
    st.builds(Append, _words),
)
_set: st.SearchStrategy[Action] = st.one_of(
    st.builds(Read, st.frozensets(_numbers)), st.builds(Add, _numbers)
)

ACTIONS: dict[str, tuple[Model, st.SearchStrategy[Action]]] = {
    "register": (REGISTER, _register),
    "cas-register": (CAS_REGISTER, _cas_register),
    "cas-register with mismatches": (CAS_REGISTER, _with_mismatch),
    "text": (TEXT, _text),
    "ambiguous text": (TEXT, _ambiguous),
    "set": (SET, _set),
}


@st.composite
def histories(
    draw: st.DrawFn, actions: st.SearchStrategy[Action], *, size_max: int = 6
) -> list[Op]:
    """Operations whose calls and returns lie in any order, some of them open."""
    drawn = draw(
        st.lists(st.tuples(actions, st.sampled_from([True, True, False])), max_size=size_max)
    )
    ends = [number for number in range(len(drawn)) for _ in range(2)]
    return placed(drawn, draw(st.permutations(ends)))


def placed(drawn: Sequence[tuple[Action, bool]], ends: Sequence[int]) -> list[Op]:
    """Operations from actions (with whether they completed) and the order of their ends."""
    calls: dict[int, int] = {}
    rets: dict[int, int] = {}
    for position, number in enumerate(ends):
        (rets if number in calls else calls)[number] = position
    return [
        Op(action, calls[number], rets[number] if completed else None)
        for number, (action, completed) in enumerate(drawn)
    ]


@st.composite
def runs(draw: st.DrawFn, *, size_max: int = 40, lost: bool = True) -> tuple[Model, list[Op]]:
    """A real sequential run, whose operations then overlap, with indexes as a registry gives them.

    Each takes effect at its turn, and its call and return are moved away from there; some answers
    are lost, and some operations of unknown outcome never take effect.
    """
    name = draw(st.sampled_from(["register", "cas-register", "text", "set"]))
    model, state, index = _MODELS[name], _MODELS[name].initial, 0
    timed: list[tuple[float, int, bool]] = []
    actions: list[tuple[Action, int, bool]] = []
    for turn in range(draw(st.integers(0, size_max))):
        action, after = _applied(draw, name, state, turn)
        completed = not lost or draw(st.integers(0, 9)) > 0
        if completed or draw(st.booleans()):
            index += not action.pure
            state = after
        number = len(actions)
        actions.append((action, index, completed))
        timed.append((turn - draw(st.floats(0, 5)), number, False))
        timed.append((turn + draw(st.floats(0.001, 5)), number, True))
    timed.sort()
    calls = {number: at for at, (_, number, is_end) in enumerate(timed) if not is_end}
    ends = {number: at for at, (_, number, is_end) in enumerate(timed) if is_end}
    return model, [
        Op(action, calls[number], ends[number], at)
        if completed
        else Op(action, calls[number], None)
        for number, (action, at, completed) in enumerate(actions)
    ]


_MODELS = {model.name: model for model in (REGISTER, CAS_REGISTER, TEXT, SET)}


def _applied(draw: st.DrawFn, name: str, state: State, turn: int) -> tuple[Action, State]:
    """An action that the state allows, and the state after it."""
    kind = draw(st.sampled_from(["read", "write", "other"]))
    if kind == "read":
        action: Action = Read(state)
    elif name == "set":
        action = Add(draw(st.integers(0, 20)))
    elif name == "text":
        text = draw(st.sampled_from([f"<{turn}>", "again"]))
        action = Write(text) if kind == "write" else Append(text)
    else:
        value = draw(st.sampled_from([turn, 1, 2]))
        action = Cas(state, value) if kind == "other" and state is not None else Write(value)
    return action, action.step(state)
