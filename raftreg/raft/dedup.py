"""Exactly-once: what became of the requests that each proposer may still ask about.

A proposal that is repeated after a leader change may be in the log twice; the second one must
change nothing and must be answered with the first one's result (RIFL, Lee et al., SOSP 2015).
Pure and deterministic: it is part of the replicated state.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

#: Proposers remembered; beyond it the one that was silent for longest is forgotten.
PROPOSERS_MAX = 4_096
#: Results kept of one proposer; a proposer with more outstanding requests loses the oldest.
RESULTS_MAX = 4_096


class Forgotten(msgspec.Struct, frozen=True):
    """The result of a request that its proposer no longer wanted to know, or that fell out."""

    reason: str = "the request was answered before and its result is forgotten"


class _Proposer:
    __slots__ = ("floor", "results")

    def __init__(self) -> None:
        self.floor = 0  #: every sequence up to this is done and forgotten
        self.results: dict[int, Any] = {}


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One proposer in a snapshot."""

    proposer: str
    floor: int
    results: list[tuple[int, bytes]]


class AppliedRequests:
    """Memory of applied requests by proposer."""

    def __init__(self) -> None:
        self._proposers: OrderedDict[str, _Proposer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._proposers)

    def seen(self, proposer: str, sequence: int) -> tuple[bool, Any]:
        """Tells whether a request took effect before, and with what result.

        Returns:
            (False, None) for a new request, (True, result) for a repeated one; the result is a
            `Forgotten` where it is no longer known.
        """
        known = self._proposers.get(proposer)
        if known is None:
            return False, None
        if sequence in known.results:
            return True, known.results[sequence]
        if sequence <= known.floor:
            return True, Forgotten()
        return False, None

    def record(self, proposer: str, sequence: int, low: int, result: Any) -> None:
        """Remembers the result of a request that was just applied.

        Args:
            proposer: Who proposed it.
            sequence: Its number.
            low: Results of lower sequences may be forgotten.
            result: What `apply` gave.
        """
        known = self._proposers.get(proposer)
        if known is None:
            known = self._proposers[proposer] = _Proposer()
            if len(self._proposers) > PROPOSERS_MAX:
                self._proposers.popitem(last=False)
        else:
            self._proposers.move_to_end(proposer)
        known.results[sequence] = result
        self._forget_below(known, low)

    @staticmethod
    def _forget_below(known: _Proposer, low: int) -> None:
        if low - 1 > known.floor:
            known.floor = low - 1
            # Results stand in order of arrival, so the old ones come first; one that came out
            # of turn is dropped with a later call.
            while known.results and (first := next(iter(known.results))) < low:
                del known.results[first]
        while len(known.results) > RESULTS_MAX:
            oldest = min(known.results)
            del known.results[oldest]
            known.floor = max(known.floor, oldest)

    def rows(self, encode_result: Callable[[Any], bytes]) -> Iterator[Row]:
        """The content in order of last use, for a snapshot; results are copied at the call.

        Args:
            encode_result: Gives the bytes of a result; a `Forgotten` is never passed to it.
        """
        copies = [(name, p.floor, dict(p.results)) for name, p in self._proposers.items()]
        return (
            Row(name, floor, [(s, encode_result(r)) for s, r in results.items()])
            for name, floor, results in copies
        )

    @classmethod
    def from_rows(
        cls, rows: Iterator[Row], decode_result: Callable[[bytes], Any]
    ) -> AppliedRequests:
        """The reverse of `rows`."""
        applied = cls()
        for row in rows:
            known = applied._proposers[row.proposer] = _Proposer()
            known.floor = row.floor
            known.results = {sequence: decode_result(data) for sequence, data in row.results}
        return applied
