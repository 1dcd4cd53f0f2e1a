from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftreg_agent.checks.schedule import Schedule

keys = st.sampled_from("abcdef")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), keys, st.integers(0, 20)),
        st.tuples(st.just("remove"), keys, st.just(0)),
        st.tuples(st.just("pop"), st.just(""), st.integers(0, 20)),
    ),
    max_size=200,
)


@given(steps)
def test_a_schedule_agrees_with_a_dict(given_steps: list[tuple[str, str, int]]) -> None:
    """Whatever is set, moved and removed: what is due is what a dict of deadlines says."""
    schedule, model = Schedule(), dict[str, float]()
    for verb, key, at_s in given_steps:
        if verb == "set":
            schedule.set(key, at_s)
            model[key] = at_s
        elif verb == "remove":
            schedule.remove(key)
            model.pop(key, None)
        else:
            due = schedule.pop_due(at_s)
            assert sorted(due) == sorted(key for key, due_s in model.items() if due_s <= at_s)
            for key_due in due:
                del model[key_due]
        assert len(schedule) == len(model)
        assert schedule.next_due_s() == min(model.values(), default=None)


def test_moving_one_key_for_ever_keeps_the_heap_small() -> None:
    """A TTL that is renewed for years does not grow memory."""
    schedule = Schedule()
    for at_s in range(10_000):
        schedule.set("web", at_s)
    assert len(schedule._heap) < 200
