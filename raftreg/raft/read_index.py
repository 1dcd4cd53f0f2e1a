"""Linearizable reads without a log entry: ReadIndex (Raft dissertation, section 6.4).

The leader notes its commit index, asks whether it still leads by a numbered ping, and answers
when a majority has echoed it in the same term. Whoever asks while a round is under way joins the
next one, so that any number of reads costs one round trip. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

#: Takes the read index, or None when leadership was lost.
ReadDone = Callable[[int | None], None]
READS_WAITING_MAX: Final = 100_000


class Echoers:
    """Whom a leader asks for an echo first: no more than a majority needs, the quickest of late.

    Each ping and echo costs two processes a system call and a message's authentication; those of
    peers whose echo comes after the majority's are for nothing.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def note(self, peer: str, sequence: int) -> None:
        """A peer's echo counted in this round."""
        self._last[peer] = sequence

    def first(self, peers: Iterable[str], needed: int) -> list[str]:
        """Those to ask at once.

        Args:
            peers: Voters that can be asked, without the leader.
            needed: Echoes that make a majority.
        """
        return sorted(peers, key=lambda peer: (-self._last.get(peer, 0), peer))[:needed]


class ReadRounds:
    """The leader's side."""

    def __init__(self) -> None:
        self._sequence = 0
        self._waiting: list[ReadDone] = []
        self._open: list[ReadDone] = []
        self._open_index = 0
        self._echoes: set[str] = set()
        self.rounds_total = 0

    def ask(self, done: ReadDone) -> bool:
        """Queues a reader; False when too many wait."""
        if len(self._waiting) >= READS_WAITING_MAX:
            return False
        self._waiting.append(done)
        return True

    @property
    def open_sequence(self) -> int | None:
        """Number of the round under way."""
        return self._sequence if self._open else None

    @property
    def idle_with_work(self) -> bool:
        """True when a round should be started."""
        return bool(self._waiting) and not self._open

    def start(self, commit_index: int) -> int:
        """Begins a round for all who wait; gives its number.

        Args:
            commit_index: Of the leader now; it must be at or past the no-op of its term.
        """
        self._open, self._waiting = self._waiting, []
        self._open_index = commit_index
        self._echoes = set()
        self._sequence += 1
        self.rounds_total += 1
        return self._sequence

    def echo(self, voter: str, sequence: int, majority: int) -> bool:
        """Counts an echo (the caller checked its term and that it comes from a voter).

        Returns:
            Whether it counted; one that comes when the round is closed does not.
        """
        if not self._open or sequence != self._sequence:
            return False
        self._echoes.add(voter)
        self.close_if(majority)
        return True

    def close_if(self, majority: int) -> None:
        """Answers the round when this server and the echoes make a majority."""
        if self._open and len(self._echoes) + 1 >= majority:
            done, self._open = self._open, []
            for reader in done:
                reader(self._open_index)

    def fail(self) -> None:
        """Leadership is lost: nobody may read on the strength of it."""
        readers = self._open + self._waiting
        self._open, self._waiting = [], []
        for reader in readers:
            reader(None)


class ReadRequests:
    """A follower's side: one question at a time to the leader, for all who wait.

    Args:
        retry_s: Seconds after which an unanswered question is repeated.
    """

    def __init__(self, retry_s: float) -> None:
        self.retry_s = retry_s
        self._waiting: list[ReadDone] = []
        self._asked: list[ReadDone] = []
        self._id = 0
        self._asked_at = 0.0

    def ask(self, done: ReadDone) -> bool:
        """Queues a reader; False when too many wait."""
        if len(self._waiting) + len(self._asked) >= READS_WAITING_MAX:
            return False
        self._waiting.append(done)
        return True

    def due(self) -> float | None:
        """When the question is to be repeated; None when none is out."""
        return self._asked_at + self.retry_s if self._asked else None

    def next_question(self, now: float) -> int | None:
        """Number of the question to send now, or None when there is none to send."""
        if self._asked and now >= self._asked_at + self.retry_s:
            self._waiting = self._asked + self._waiting
            self._asked = []
        if self._asked or not self._waiting:
            return None
        self._asked, self._waiting = self._waiting, []
        self._id += 1
        self._asked_at = now
        return self._id

    def leader_changed(self) -> None:
        """The question may be lost: ask again."""
        self._waiting = self._asked + self._waiting
        self._asked = []

    def answered(self, question: int, index: int | None) -> list[ReadDone]:
        """Takes an answer; gives those who may read once `index` is applied.

        A None (the leader could not confirm itself) puts them back into the queue.
        """
        if question != self._id or not self._asked:
            return []
        readers, self._asked = self._asked, []
        if index is None:
            self._waiting = readers + self._waiting
            self._asked = []
            return []
        return readers

    def take_all(self) -> list[ReadDone]:
        """Empties the queue: this server leads now, or stops."""
        readers = self._asked + self._waiting
        self._asked, self._waiting = [], []
        return readers
