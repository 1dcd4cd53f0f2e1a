"""What a figure is: rounds that are measured, and the rows that are made of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec

from jepsen_like.figures.lab import Lab
from jepsen_like.figures.record import Record, Round
from jepsen_like.ground.api import Need

Done = Callable[[Round], None]


class Row(msgspec.Struct, frozen=True):
    """A line of a figure's table.

    Attributes:
        what: What was measured.
        value: The result.
        goal: What it is held against; "" for nothing.
        met: Whether it is reached; None without a goal.
    """

    what: str
    value: str
    goal: str = ""
    met: bool | None = None


class Figure(ABC):
    """One figure of docs/resilience.md.

    Class attributes:
        name: As the command line and the document know it.
        rounds, quick_rounds: How many repetitions.
        needs: What the machine must offer.
        lasts: How long all rounds take, roughly.
    """

    name: ClassVar[str]
    rounds: ClassVar[int]
    quick_rounds: ClassVar[int]
    needs: ClassVar[frozenset[Need]] = frozenset()
    lasts: ClassVar[str]

    @abstractmethod
    async def measure(self, lab: Lab, numbers: Sequence[int], done: Done) -> list[str]:
        """Does rounds.

        Args:
            lab: Where.
            numbers: Of the rounds that are to be done.
            done: Is called with each as it ends.

        Returns:
            What is lost at the end, in sentences, besides what the rounds tell.

        Raises:
            Trouble: It can't go on.
        """

    @abstractmethod
    def rows(self, record: Record) -> list[Row]:
        """The table of what was measured; a record has at least one round."""

    @abstractmethod
    def line(self, done: Round) -> str:
        """A round in a few words, for whoever waits."""


def median(values: Sequence[float]) -> float:
    """The middle one; of two the lower."""
    return quantile(values, 0.5)


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that this share of all does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def seconds(value: float) -> str:
    """Such as "0.43 s"."""
    return f"{value:.2f} s"


def within(what: str, value: float, goal_s: float) -> Row:
    """A row for a time that is to be at most `goal_s`."""
    return Row(what, seconds(value), f"at most {goal_s:g} s", value <= goal_s)


def none_lost(record: Record, what: str = "acknowledged writes lost") -> Row:
    """The row for what must be zero."""
    lost = len(record.all_losses)
    return Row(what, str(lost), "0", lost == 0)
