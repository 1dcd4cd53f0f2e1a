from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jepsen_like.checkers.linear_search import Op, Search
from jepsen_like.checkers.linear_shrink import smallest_part
from jepsen_like.checkers.models import CAS_REGISTER, REGISTER, Append, Read, State, Write
from tests.jepsen.linear_cases import ACTIONS, by_definition, histories


def relaxed(ops: Sequence[Op], kept: Sequence[Op]) -> list[Op]:
    """The history with all but some operations bound to nothing."""
    calls = {op.call for op in kept}
    return [
        op if op.call in calls else Op(op.action, op.call, None)
        for op in ops
        if op.call in calls or not op.action.pure
    ]


@pytest.mark.parametrize("name", ACTIONS)
@settings(max_examples=60)
@given(data=st.data())
def test_the_part_fails_alone_and_is_minimal(name: str, data: st.DataObject) -> None:
    """The part fails by itself and with all others relaxed; with one more relaxed it does not."""
    model, actions = ACTIONS[name]
    ops = data.draw(histories(actions, size_max=5))
    search = Search(ops, model.initial)
    assume(search.run(100_000) is False)
    part = smallest_part(ops, model.initial, farthest=search.farthest)
    assert part is not None
    assert all(op in ops and op.ret is not None for op in part)
    assert not by_definition(part, model.initial)
    assert not by_definition(relaxed(ops, part), model.initial)
    for op in part:
        others = [other for other in part if other is not op]
        assert by_definition(relaxed(ops, others), model.initial)


def found(ops: Sequence[Op], initial: State) -> list[Op]:
    """The part of a history that is not linearizable."""
    search = Search(ops, initial)
    assert search.run(1_000_000) is False
    part = smallest_part(ops, initial, farthest=search.farthest)
    assert part is not None
    return part


def test_a_violation_in_a_long_history_is_a_few_operations() -> None:
    """A stale read among thousands is shown with the two writes that make it stale, and no more."""
    ops = [Op(Write(n), 4 * n, 4 * n + 1) for n in range(1, 2000)]
    ops += [Op(Read(n), 4 * n + 2, 4 * n + 3) for n in range(1, 2000) if n != 1500]
    stale = Op(Read(1498), 4 * 1500 + 2, 4 * 1500 + 3)
    part = found([*ops, stale], CAS_REGISTER.initial)
    assert [op.action for op in part] == [Write(1498), Write(1500), Read(1498)]
    assert part[-1] == stale


def test_a_write_that_explains_a_read_is_no_missing_one() -> None:
    """Leaving out a write would make its read a violation; the part is the real one, elsewhere."""
    explained = [Op(Write(7), 0, 1), Op(Read(7), 2, 3)]
    lost = [Op(Write(8), 4, 5), Op(Read(7), 6, 7)]
    assert found([*explained, *lost], REGISTER.initial) == [Op(Write(7), 0, 1), *lost]


def test_an_append_that_is_missing() -> None:
    """A read that lacks an acknowledged append is shown with that append alone."""
    appends = [Op(Append(f"<{n}>"), 2 * n, 2 * n + 1) for n in range(300)]
    seen = "".join(f"<{n}>" for n in range(300) if n != 123)
    read = Op(Read(seen), 1000, 1001)
    assert found([*appends, read], "") == [appends[123], read]
