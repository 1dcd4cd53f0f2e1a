from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen_like.checkers.linear import check
from jepsen_like.checkers.linear_search import Op, Search
from jepsen_like.checkers.linear_witness import is_linearization, witness
from jepsen_like.checkers.models import CAS_REGISTER, Action, Cas, Model, Read, State, Write
from tests.jepsen.linear_cases import ACTIONS, by_definition, histories, runs


def search(ops: list[Op], initial: State) -> Search:
    """The search, done."""
    found = Search(ops, initial)
    found.run(1_000_000)
    return found


@pytest.mark.parametrize("name", ACTIONS)
@settings(max_examples=150)
@given(data=st.data())
def test_agrees_with_the_definition(name: str, data: st.DataObject) -> None:
    """Of tiny histories, the verdict is that of trying all orders, and an order given is one."""
    model, actions = ACTIONS[name]
    ops = data.draw(histories(actions))
    found = search(ops, model.initial)
    assert found.linearizable is by_definition(ops, model.initial)
    if found.linearizable:
        assert is_linearization(found.order(), ops, model.initial)


@settings(max_examples=100)
@given(run=runs())
def test_accepts_what_really_happened(run: tuple[Model, list[Op]]) -> None:
    """A run of the model itself is linearizable, however its operations overlap."""
    model, ops = run
    found = search(ops, model.initial)
    assert found.linearizable
    assert is_linearization(found.order(), ops, model.initial)


@settings(max_examples=100)
@given(run=runs(lost=False))
def test_needs_no_search_where_indexes_tell_the_order(run: tuple[Model, list[Op]]) -> None:
    """With the index of each effect, a run of the model is explained by its witness."""
    model, ops = run
    order = witness(ops, model.initial)
    assert order is not None
    assert is_linearization(order, ops, model.initial)
    assert check({None: ops}, model.initial).searched == 0


@pytest.mark.parametrize("name", ACTIONS)
@settings(max_examples=60)
@given(data=st.data())
def test_no_index_decides(name: str, data: st.DataObject) -> None:
    """Whatever indexes come with the answers, the verdict is the same as without."""
    model, actions = ACTIONS[name]
    ops = data.draw(histories(actions))
    index = st.none() | st.integers(0, 5)
    with_indexes = [Op(op.action, op.call, op.ret, data.draw(index)) for op in ops]
    found = check({None: with_indexes}, model.initial)
    assert found.linearizable is search(ops, model.initial).linearizable


@settings(max_examples=60)
@given(data=st.data())
def test_objects_are_decided_together(data: st.DataObject) -> None:
    """A history of several objects is linearizable exactly if that of each is."""
    model, actions = ACTIONS["cas-register"]
    parts = {key: data.draw(histories(actions, size_max=4)) for key in "abc"}
    found = check(parts, model.initial)
    each = {key: by_definition(ops, model.initial) for key, ops in parts.items()}
    assert found.linearizable is all(each.values())
    if not found.linearizable:
        assert not each[found.key]


def at(*actions: tuple[Action, int, int | None]) -> list[Op]:
    """Operations from what they did, call and return."""
    return [Op(*action) for action in actions]


def test_an_unknown_cas_may_take_effect_later() -> None:
    """A compare-and-set that can't take place when it is called may do so after a later write."""
    ops = at((Cas(1, 2), 0, None), (Write(1), 1, 2), (Read(2), 3, 4))
    assert search(ops, None).linearizable


def test_an_acknowledged_write_can_not_wait() -> None:
    """What was acknowledged before another write began is not read after that one."""
    ops = at((Write(1), 0, 1), (Write(2), 2, 3), (Read(1), 4, 5))
    assert search(ops, None).linearizable is False
    waiting = at((Write(1), 0, None), (Write(2), 2, 3), (Read(1), 4, 5))
    assert search(waiting, None).linearizable


def test_open_operations_take_effect_once() -> None:
    """One unknown write explains one change, not two."""
    ops = at(
        (Write(1), 0, None), (Write(2), 1, 2), (Read(1), 3, 4), (Write(3), 5, 6), (Read(1), 7, 8)
    )
    assert search(ops, None).linearizable is False


def test_many_equal_open_writes_are_cheap() -> None:
    """A thousand unknown writes of the same few values don't multiply the configurations."""
    ops = [Op(Write(n % 5), n, None) for n in range(1000)]
    ops += [Op(Read(n % 7), 1000 + 2 * n, 1001 + 2 * n) for n in range(200)]
    found = search(ops, None)
    assert found.linearizable is False  # 5 and 6 were never written
    assert found.steps < 5_000


def test_a_hard_object_does_not_keep_another_from_failing() -> None:
    """Objects are searched in turns: one that fails at once decides beside one without an end."""
    hard = [Op(Write(n), n, 1000 + n) for n in range(40)]
    hard += [Op(Cas(n, (n * 7 + 3) % 40), 100 + n, 2000 + n) for n in range(40)]
    hard.append(Op(Read("never written"), 3000, 3001))
    broken = at((Write(1), 0, 1), (Read(2), 2, 3))
    found = check({"hard": hard, "broken": broken}, None, steps_max=20_000)
    assert (found.linearizable, found.key) == (False, "broken")
    assert check({"hard": hard}, None, steps_max=2_000).linearizable is None


def test_a_budget_ends_the_search() -> None:
    """Within a budget that does not suffice, the answer is that it is unknown."""
    hard = [Op(Write(n % 3), n, 1000 + n) for n in range(40)]
    hard += [Op(Cas(n % 3, (n + 1) % 3), 100 + n, 2000 + n) for n in range(40)]
    hard.append(Op(Read("never written"), 3000, 3001))
    found = check({"hard": hard}, None, steps_max=500)
    assert found.linearizable is None
    assert found.key == "hard"
    assert found.steps <= 600


def test_a_long_history_needs_no_recursion_and_no_memory_of_success() -> None:
    """Without indexes, a long history of few concurrent operations takes a step an operation."""
    ops = [Op(Write(n // 3) if n % 3 == 0 else Read(n // 3), 2 * n, 2 * n + 5) for n in range(9000)]
    found = search([Op(op.action, op.call * 2, (op.ret or 0) * 2 + 1) for op in ops], None)
    assert found.linearizable
    assert found.steps < 10_000


def test_there_is_no_order_of_what_has_none() -> None:
    """Asking for the order of a history that is not linearizable is an error."""
    with pytest.raises(ValueError, match="no linearization"):
        search(at((Read(1), 0, 1)), CAS_REGISTER.initial).order()
