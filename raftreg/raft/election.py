"""When to stand for election: a randomised timer, and a pre-vote before any term is spent.

A server that was cut off would come back with a high term and depose a healthy leader. It first
asks whether an election could succeed; peers that hear a leader say no (Raft dissertation,
Ongaro 2014, section 9.6). Pure: time and randomness are arguments.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple


class LogPosition(NamedTuple):
    """Term and index of the last entry; the larger is the more up to date (section 3.6.1)."""

    term: int
    last_index: int


class Election:
    """Election timer and pre-vote of one server.

    Args:
        min_s, max_s: Bounds of the random timeout, in seconds.
        rng: Source of the timeouts.
        now: Present time in seconds.
    """

    #: A leader whose connection broke is probably dead: peers ask at once, but not all together.
    LOST_LEADER_DELAY_S = 0.05
    #: Who agreed to another's election lets it happen: a vote, its sync and the first append.
    GIVE_WAY_S = (0.2, 0.4)

    def __init__(self, min_s: float, max_s: float, rng: Random, now: float) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._rng = rng
        self._heard_at: float | None = None
        self._granted: set[str] = set()
        self._round = 0
        self._asking_term: int | None = None
        self.deadline = now + self._timeout_s()

    def _timeout_s(self) -> float:
        return self._rng.uniform(self._min_s, self._max_s)

    def leader_heard(self, now: float) -> None:
        """An append of the present leader arrived."""
        self._heard_at = now
        self._asking_term = None
        self.deadline = now + self._timeout_s()

    def vote_granted(self, now: float) -> None:
        """This server voted for somebody: give them time."""
        self.deadline = now + self._timeout_s()

    def give_way(self, now: float) -> None:
        """This server agreed to somebody's election: it does not stand at the same moment."""
        self._asking_term = None
        self.deadline = max(self.deadline, now + self._rng.uniform(*self.GIVE_WAY_S))

    def hurry(self, now: float) -> None:
        """Nobody can be leading yet: no need to wait for a sign of life."""
        self.deadline = now

    def leader_lost(self, now: float) -> None:
        """The connection to the leader broke."""
        self._heard_at = None
        soon = now + self._rng.uniform(0.2, 1.0) * self.LOST_LEADER_DELAY_S
        self.deadline = min(self.deadline, soon)

    def leader_contact_age_s(self, now: float) -> float | None:
        """Seconds since the leader was heard; None: not since it was lost or since the start."""
        return None if self._heard_at is None else now - self._heard_at

    def leader_is_silent(self, now: float) -> bool:
        """True when the leader was lost, or not heard for the longest election timeout."""
        return self._heard_at is None or now - self._heard_at > self._max_s

    def hears_leader(self, now: float) -> bool:
        """True while a leader was heard within the shortest election timeout."""
        return self._heard_at is not None and now - self._heard_at < self._min_s

    def start_round(self, term: int, now: float) -> int:
        """Begins to ask the peers about `term` (one more than the present); gives the round."""
        self._round += 1
        self._asking_term = term
        self._granted = set()
        self.deadline = now + self._timeout_s()
        return self._round

    def asks_for(self, term: int) -> bool:
        """True while this server itself asks about an election in that term."""
        return self._asking_term == term

    def may_grant(self, term: int, theirs: LogPosition, ours: LogPosition, own_term: int) -> bool:
        """Whether an election of the asking server could succeed, apart from leader contact.

        Args:
            term: The term it would stand in.
            theirs: End of the asking server's log.
            ours: End of the log here.
            own_term: Present term of this server.
        """
        return term > own_term and theirs >= ours

    def granted(self, peer: str, round_number: int, majority: int, term: int) -> bool:
        """Counts a yes; True once when a majority (this server included) said yes.

        Args:
            peer: Who said yes.
            round_number: The round it answers.
            majority: How many voters decide.
            term: Present term of this server: a round of an older term is void.
        """
        if round_number != self._round or self._asking_term != term + 1:
            return False
        self._granted.add(peer)
        if len(self._granted) + 1 < majority:
            return False
        self._asking_term = None
        return True
