"""ReadIndex: rounds of the leader, questions of a follower."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.raft import read_index
from raftreg.raft.read_index import Echoers, ReadRequests, ReadRounds


class Readers:
    """Readers of one leader in five servers; round numbers serve as indexes."""

    MAJORITY = 3

    def __init__(self) -> None:
        self.rounds = ReadRounds()
        self.answers: list[tuple[int, list[int | None]]] = []
        self.echoed: set[str] = set()
        self.current = 0

    def ask(self, _sequence: int, _peer: str) -> None:
        """A reader comes while a round is open, or none."""
        answer: list[int | None] = []
        self.answers.append((self.current, answer))
        assert self.rounds.ask(answer.append)

    def start(self, _sequence: int, _peer: str) -> None:
        """A round begins."""
        if self.rounds.idle_with_work:
            self.current = self.rounds.start(self.current + 1)
            self.echoed = set()

    def echo(self, sequence: int, peer: str) -> None:
        """An echo of this or of an older round."""
        self.echoed |= {peer} if sequence == self.current else set()
        self.rounds.echo(peer, sequence, self.MAJORITY)

    def fail(self, _sequence: int, _peer: str) -> None:
        """Leadership is lost."""
        self.rounds.fail()


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(("ask", "start", "echo", "echo", "fail")),
            st.integers(0, 6),
            st.sampled_from("bcde"),
        ),
        max_size=60,
    )
)
def test_a_reader_is_answered_by_a_round_begun_after_it_asked(
    steps: list[tuple[str, int, str]],
) -> None:
    """Answered once; an index only with a majority's echo of a round that began after the ask."""
    readers = Readers()
    for kind, sequence, peer in steps:
        getattr(readers, kind)(sequence, peer)
    for asked_in, answer in readers.answers:
        assert len(answer) <= 1
        assert all(index is None or index > asked_in for index in answer)
    if readers.rounds.open_sequence is not None:
        assert len(readers.echoed) + 1 < readers.MAJORITY


def test_a_lone_voter_needs_no_echo() -> None:
    """With a majority of one, a round closes as soon as it has begun."""
    rounds, answers = ReadRounds(), list[int | None]()
    rounds.ask(answers.append)
    rounds.start(7)
    rounds.close_if(1)
    assert answers == [7]


def test_no_more_peers_are_asked_than_a_majority_needs() -> None:
    """The quickest of the last round first; who never echoed comes by name, after all others."""
    echoers = Echoers()
    assert echoers.first({"c", "b", "d"}, 1) == ["b"]
    echoers.note("d", 1)
    echoers.note("c", 2)
    assert echoers.first({"b", "c", "d"}, 1) == ["c"]
    assert echoers.first({"b", "c", "d"}, 2) == ["c", "d"]
    assert echoers.first({"b", "d"}, 2) == ["d", "b"]
    assert echoers.first({"b"}, 2) == ["b"]


def test_an_echo_counts_in_its_round_only() -> None:
    """One that comes after the majority's names no quick peer."""
    rounds = ReadRounds()
    rounds.ask(lambda _: None)
    sequence = rounds.start(7)
    assert rounds.echo("b", sequence, 2)
    assert not rounds.echo("c", sequence, 2)


def test_lost_leadership_answers_everyone_with_nothing() -> None:
    """Those of the open round and those who wait for the next one."""
    rounds, answers = ReadRounds(), list[int | None]()
    rounds.ask(answers.append)
    rounds.start(7)
    rounds.ask(answers.append)
    rounds.fail()
    rounds.echo("b", 1, 2)
    assert answers == [None, None]


def test_one_question_is_out_at_a_time() -> None:
    """Who asks meanwhile is in the next question; an old answer is for nobody."""
    requests = ReadRequests(retry_s=0.5)
    one, two = list[int | None](), list[int | None]()
    requests.ask(one.append)
    first = requests.next_question(10.0)
    assert first is not None
    requests.ask(two.append)
    assert requests.next_question(10.1) is None
    assert requests.due() == 10.5
    assert requests.answered(first, 7) == [one.append]
    second = requests.next_question(10.2)
    assert second is not None
    assert requests.answered(first, 7) == []
    assert requests.answered(second, 8) == [two.append]
    assert requests.due() is None


def test_an_unanswered_question_is_repeated_under_a_new_number() -> None:
    """After the retry time, after a leader change, and when the leader could not confirm."""
    requests, answers = ReadRequests(retry_s=0.5), list[int | None]()
    requests.ask(answers.append)
    numbers = [requests.next_question(10.0), requests.next_question(10.5)]
    requests.leader_changed()
    numbers.append(requests.next_question(10.6))
    last = numbers[-1]
    assert last is not None
    assert requests.answered(last, None) == []
    numbers.append(requests.next_question(10.7))
    assert len(set(numbers)) == 4
    assert requests.take_all() == [answers.append]


def test_readers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a reader is refused at once."""
    monkeypatch.setattr(read_index, "READS_WAITING_MAX", 2)
    for queue in (ReadRounds(), ReadRequests(1.0)):
        assert [queue.ask(lambda _: None) for _ in range(3)] == [True, True, False]
