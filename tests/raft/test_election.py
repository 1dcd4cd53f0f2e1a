"""The election timer and the pre-vote."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from raftreg.raft.election import Election, LogPosition


def election(seed: int = 0) -> Election:
    """Timeouts of 0.4 to 0.8 s, from time 100."""
    return Election(0.4, 0.8, random.Random(seed), 100.0)


@given(seed=st.integers(), now=st.floats(100, 1e6))
def test_a_sign_of_life_puts_the_deadline_off(seed: int, now: float) -> None:
    """After an append the deadline is one election timeout away, whatever it was."""
    timer = election(seed)
    timer.leader_heard(now)
    assert now + 0.4 <= timer.deadline <= now + 0.8
    assert timer.leader_contact_age_s(now + 1) == (now + 1) - now


def test_a_leader_is_heard_for_the_shortest_timeout() -> None:
    """A server that heard its leader lately says no to a pre-vote; later, or cut off, it may."""
    timer = election()
    assert not timer.hears_leader(100.0)
    timer.leader_heard(101.0)
    assert timer.hears_leader(101.39)
    assert not timer.hears_leader(101.41)
    timer.leader_heard(102.0)
    timer.leader_lost(102.1)
    assert not timer.hears_leader(102.1)
    assert timer.deadline <= 102.1 + Election.LOST_LEADER_DELAY_S


@given(
    term=st.integers(0, 5),
    own_term=st.integers(0, 5),
    theirs=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    ours=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_only_a_log_that_is_as_new_is_agreed_to(
    term: int, own_term: int, theirs: tuple[int, int], ours: tuple[int, int]
) -> None:
    """Term of the last entry first, its index second (section 5.4.1); the term must be new."""
    granted = election().may_grant(term, LogPosition(*theirs), LogPosition(*ours), own_term)
    newer = theirs[0] > ours[0] or (theirs[0] == ours[0] and theirs[1] >= ours[1])
    assert granted == (newer and term > own_term)


@given(
    voters=st.integers(1, 7),
    answers=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 2)), max_size=20),
)
def test_a_majority_says_yes_once(voters: int, answers: list[tuple[str, int]]) -> None:
    """Different peers of this very round make the majority; it is told once."""
    timer, majority = election(), voters // 2 + 1
    timer.start_round(4, 101.0)
    number = timer.start_round(5, 102.0)
    yes = [timer.granted(peer, answer, majority, 4) for peer, answer in answers]
    distinct: set[str] = set()
    expected = []
    for peer, answer in answers:
        before = len(distinct) + 1 >= majority and bool(distinct)
        distinct |= {peer} if answer == number else set()
        expected.append(answer == number and not before and len(distinct) + 1 >= majority)
    assert yes == expected


def test_a_round_is_void_once_the_term_moved_or_a_leader_spoke() -> None:
    """Answers to a question that no longer stands start no election."""
    timer = election()
    number = timer.start_round(5, 101.0)
    assert not timer.granted("a", number, 2, 5)
    timer.leader_heard(101.1)
    assert not timer.granted("a", number, 2, 4)
    assert timer.granted("a", timer.start_round(5, 103.0), 2, 4)
