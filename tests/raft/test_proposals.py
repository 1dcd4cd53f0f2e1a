"""Proposals on their way: every caller hears once, and what it hears is true."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.errors import NotProposed, RaftregError, UnknownOutcome
from raftreg.raft import proposals
from raftreg.raft.api import RequestId
from raftreg.raft.proposals import ProposalQueue

Answers = list[tuple[Any, RaftregError | None]]


def queue() -> ProposalQueue:
    """A queue of the server "s"."""
    return ProposalQueue("s", retry_s=0.5)


def add(target: ProposalQueue, answers: Answers, in_term: int | None = None) -> tuple[str, int]:
    """Adds one that notes its answer."""
    return target.add(b"c", None, in_term, lambda *told: answers.append(told))


class Callers:
    """Many callers of one queue, and what each was told."""

    def __init__(self) -> None:
        self.target = queue()
        self.answers: dict[int, Answers] = {}
        self.taken: set[int] = set()
        self.applied: set[int] = set()
        self.abandoned: dict[int, bool] = {}

    def _waiting(self) -> list[int]:
        return [n for n, told in self.answers.items() if not told and n not in self.abandoned]

    def add(self) -> None:
        """A new caller."""
        told: Answers = []
        self.answers[add(self.target, told)[1]] = told

    def take(self) -> None:
        """The next batch is in the order of the callers."""
        if self.target.ready:
            batch = [proposal.sequence for proposal in self.target.take_batch(1.0, None)]
            assert batch == [n for n in self._waiting() if n in batch]
            self.taken |= set(batch)

    def apply(self) -> None:
        """The first of those that were taken is applied."""
        out = [n for n in self._waiting() if n in self.taken]
        if out:
            pending = self.target.applied("s", out[0])
            assert pending is not None
            pending.finish("done", None)
            self.applied.add(out[0])

    def apply_twice(self) -> None:
        """A repetition in the log is nobody's."""
        if self.applied:
            assert self.target.applied("s", min(self.applied)) is None

    def requeue(self) -> None:
        """The leader has changed."""
        self.target.requeue()

    def abandon(self) -> None:
        """The last caller gives up."""
        if waiting := self._waiting():
            self.abandoned[waiting[-1]] = self.target.abandon(("s", waiting[-1]))

    def expected(self, number: int) -> list[object]:
        """What kind of answer a caller must have had in the end."""
        if number in self.abandoned:
            return []
        if number in self.applied:
            return [type(None)]
        return [UnknownOutcome if number in self.taken else NotProposed]


@given(
    steps=st.lists(
        st.sampled_from(("add", "take", "apply", "requeue", "abandon", "apply_twice")), max_size=60
    )
)
def test_every_caller_hears_once_and_the_truth(steps: list[str]) -> None:
    """Abandoned is definite only when it was never taken; a taken batch stays in order."""
    callers = Callers()
    for step in steps:
        getattr(callers, step)()
    for number, may_commit in callers.abandoned.items():
        assert may_commit == (number in callers.taken)
    callers.target.fail_all("stop")
    for number, told in callers.answers.items():
        assert [type(error) for _, error in told] == callers.expected(number)
    assert len(callers.target) == 0


def test_batches_carry_the_lowest_open_sequence() -> None:
    """`low` of a batch is the first sequence of this server whose caller still waits."""
    target, answers = queue(), Answers()
    keys = [add(target, answers) for _ in range(3)]
    assert {proposal.low for proposal in target.take_batch(1.0, None)} == {1}
    assert target.applied(*keys[0]) is not None
    target.requeue()
    assert {proposal.low for proposal in target.take_batch(2.0, None)} == {2}


def test_a_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By count and by bytes; one command over the bytes still goes, alone."""
    monkeypatch.setattr(proposals, "BATCH_PROPOSALS_MAX", 3)
    monkeypatch.setattr(proposals, "BATCH_BYTES_MAX", 10)
    target = ProposalQueue("s", 0.5, in_flight_max=10)
    for size in (1, 1, 1, 1, 50, 5):
        target.add(b"c" * size, None, None, lambda *_: None)
    sizes = []
    while target.ready:
        sizes.append([len(proposal.command) for proposal in target.take_batch(1.0, None)])
    assert sizes == [[1, 1, 1], [1, 50], [5]]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the count or the bytes a proposal is refused, definitely."""
    monkeypatch.setattr(proposals, "WAITING_MAX", 2)
    target, answers = queue(), Answers()
    add(target, answers)
    add(target, answers)
    with pytest.raises(NotProposed, match="nothing was proposed"):
        add(target, answers)
    monkeypatch.setattr(proposals, "WAITING_MAX", 100)
    monkeypatch.setattr(proposals, "WAITING_BYTES_MAX", 2)
    with pytest.raises(NotProposed):
        add(target, answers)


def test_a_proposal_bound_to_a_term_is_never_repeated() -> None:
    """In another term it is refused; once it was out and leadership is lost, it is unknown."""
    target, answers = queue(), Answers()
    add(target, answers, in_term=4)
    assert target.take_batch(1.0, 5) == []
    assert isinstance(answers[0][1], NotProposed)
    add(target, answers, in_term=5)
    assert len(target.take_batch(1.0, 5)) == 1
    target.requeue()
    assert isinstance(answers[1][1], UnknownOutcome)
    assert not target.ready


def test_the_same_request_at_the_same_time_is_proposed_once() -> None:
    """Two callers with one request id share the proposal and its result."""
    target, answers = queue(), Answers()
    for _ in range(2):
        target.add(b"c", RequestId("p", 1, 1), None, lambda *told: answers.append(told))
    assert len(target.take_batch(1.0, None)) == 1
    pending = target.applied("p", 1)
    assert pending is not None
    pending.finish("r", None)
    assert answers == [("r", None), ("r", None)]


def test_the_next_batch_waits_for_the_one_that_is_out() -> None:
    """What comes meanwhile forms one entry; a retry is due after its time."""
    target, answers = queue(), Answers()
    first = add(target, answers)
    target.take_batch(3.0, None)
    add(target, answers)
    add(target, answers)
    assert not target.ready
    assert target.retry_due() == 3.5
    assert target.applied(*first) is not None
    assert target.ready
    assert len(target.take_batch(4.0, None)) == 2
