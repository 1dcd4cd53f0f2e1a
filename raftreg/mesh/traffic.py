"""Who calls whom, how often, how well and how fast: sums of a window, sent to the registry.

A sidecar counts its calls by source, destination, route and class of outcome. Routes and sources
may be many (or made up by a stranger), so that only the largest are kept apart: the table takes up
to twice as many keys as it keeps, and when it is full the smaller half is folded into one key for
each class, "*" everywhere else. No call is lost from the totals, a key that becomes large later
still gets its place, and a call costs O(1), amortised over the folds.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from raftreg.decoding import MsgpackDecoder
from raftreg.errors import InvalidRequest
from raftreg.mesh import histogram
from raftreg.mesh.checked import within
from raftreg.mesh.histogram import COUNT_MAX, Histogram, PlainHistogram
from raftreg.mesh.nouns import Outcome

NAME_CHARS_MAX: Final = 256
KEYS_MAX: Final = 1000
WINDOW_S_MAX: Final = 3600.0
_VERSION: Final = 1
#: Stands for all names that were folded.
OTHERS: Final = "*"


class CodeClass(enum.Enum):
    """Class of an outcome."""

    INFORMATIONAL = "1xx"
    SUCCESSFUL = "2xx"
    REDIRECTION = "3xx"
    CLIENT_ERROR = "4xx"
    SERVER_ERROR = "5xx"
    FAILED = "failed"  #: no answer, or one with no such code
    TCP = "tcp"  #: a connection that went well


_BY_HUNDREDS: Final = (
    CodeClass.TCP,
    CodeClass.INFORMATIONAL,
    CodeClass.SUCCESSFUL,
    CodeClass.REDIRECTION,
    CodeClass.CLIENT_ERROR,
    CodeClass.SERVER_ERROR,
)


def code_class(outcome: Outcome) -> CodeClass:
    """The class of an outcome."""
    hundreds = outcome.status // 100
    if outcome.failure is not None or not 0 <= hundreds < len(_BY_HUNDREDS):
        return CodeClass.FAILED
    return _BY_HUNDREDS[hundreds]


class Key(msgspec.Struct, frozen=True, array_like=True):
    """What calls are told apart by.

    Attributes:
        source: Service that calls ("" unknown).
        destination: Service that is called.
        route: Name of the route ("" none).
        code: Class of the outcome.
    """

    source: str
    destination: str
    route: str
    code: CodeClass


class Sums:
    """Sums of the calls of one key.

    Attributes:
        count: Calls.
        errors: Those that failed or were answered by 5xx.
        retries: Repeats that they took.
        latency: Their durations.
    """

    __slots__ = ("count", "errors", "latency", "retries")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.retries = 0
        self.latency = Histogram()

    def add(self, outcome: Outcome, retries: int) -> None:
        """Counts a call."""
        self.count += 1
        self.errors += outcome.failed
        self.retries += retries
        self.latency.observe(outcome.duration_s)

    def merge(self, other: Sums) -> None:
        """Adds what another one has counted."""
        self.count += other.count
        self.errors += other.errors
        self.retries += other.retries
        self.latency.merge(other.latency)


class Traffic:
    """Sums by key, at most twice `keys_max` of them and one for each class of outcome.

    Args:
        keys_max: How many keys are kept apart for certain, 1 to 1,000: the largest.

    Raises:
        MeshConfigError: `keys_max` is out of its bounds.
    """

    __slots__ = ("_keys_max", "_rows")

    def __init__(self, keys_max: int = 200) -> None:
        within("keys_max", keys_max, 1, KEYS_MAX)
        self._keys_max = keys_max
        self._rows: dict[Key, Sums] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[Key, Sums]]:
        """Gives the keys with their sums, in no order."""
        return iter(self._rows.items())

    def count(
        self, source: str, destination: str, route: str, outcome: Outcome, retries: int = 0
    ) -> None:
        """Counts a call; names are cut to 256 characters.

        Args:
            source: Service that calls ("" unknown).
            destination: Service that is called.
            route: Name of the route ("" none).
            outcome: Of the call as a whole, its duration with all repeats and waits.
            retries: How many repeats it took.
        """
        key = Key(
            source[:NAME_CHARS_MAX],
            destination[:NAME_CHARS_MAX],
            route[:NAME_CHARS_MAX],
            code_class(outcome),
        )
        self._sums(key).add(outcome, retries)

    def merge(self, other: Iterable[tuple[Key, Sums]]) -> None:
        """Adds what another one has counted."""
        for key, sums in other:
            self._sums(key).merge(sums)

    def largest(self, count: int) -> list[tuple[Key, Sums]]:
        """The keys with the most calls, the largest first; those that are equal by their names."""
        return heapq.nsmallest(count, self._rows.items(), key=_rank)

    def report(self, sequence: int, window_s: float) -> Report:
        """Gives the sums of a window, folded to the keys that are kept apart.

        Args:
            sequence: Number of the window, so that one that is sent twice counts once.
            window_s: How long it lasted.
        """
        self._fold()
        rows = tuple(
            Row(
                key=key,
                count=min(sums.count, COUNT_MAX),
                errors=min(sums.errors, COUNT_MAX),
                retries=min(sums.retries, COUNT_MAX),
                latency=sums.latency.plain(),
            )
            for key, sums in self.largest(len(self))
        )
        return Report(version=_VERSION, sequence=sequence, window_s=window_s, rows=rows)

    def _sums(self, key: Key) -> Sums:
        if (sums := self._rows.get(key)) is not None:
            return sums
        if len(self._rows) >= 2 * self._keys_max + len(CodeClass):
            self._fold()
        return self._rows.setdefault(key, Sums())

    def _fold(self) -> None:
        """Keeps the largest keys apart and adds the others up by class."""
        apart = [row for row in self._rows.items() if not _folded(row[0])]
        if len(apart) <= self._keys_max:
            return
        kept = dict(heapq.nsmallest(self._keys_max, apart, key=_rank))
        for key, sums in apart:
            if key not in kept:
                del self._rows[key]
                others = Key(OTHERS, OTHERS, OTHERS, key.code)
                self._rows.setdefault(others, Sums()).merge(sums)


def _folded(key: Key) -> bool:
    return key.source == key.destination == key.route == OTHERS


def _rank(row: tuple[Key, Sums]) -> tuple[int, str, str, str, str]:
    key, sums = row
    return -sums.count, key.source, key.destination, key.route, key.code.value


class Row(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The sums of one key on the wire; see `Sums`."""

    key: Key
    count: int
    errors: int
    retries: int
    latency: PlainHistogram


class Report(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The sums of a window on the wire.

    Attributes:
        version: 1.
        sequence: Number of the window at its sidecar.
        window_s: How long it lasted, in seconds.
        rows: Its sums, the largest first.
    """

    version: int
    sequence: int
    window_s: float
    rows: tuple[Row, ...]

    def encode(self) -> bytes:
        """Its bytes, as msgpack."""
        return msgspec.msgpack.encode(self)

    def sums(self) -> Iterator[tuple[Key, Sums]]:
        """Its keys with their sums.

        Raises:
            InvalidRequest: A number or a name is out of bounds.
        """
        for row in self.rows:
            yield row.key, _sums_of(row)


_DECODER: Final[MsgpackDecoder[Report]] = MsgpackDecoder(Report)
_ROWS_MAX: Final = KEYS_MAX + len(CodeClass)


def decode(data: bytes) -> Report:
    """Reads a report and checks all of it, so that `sums` gives no error.

    Raises:
        InvalidRequest: It is none; the text says why.
    """
    try:
        report = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"traffic: {error}") from error
    if report.version != _VERSION:
        raise InvalidRequest(f"traffic: version {report.version} is not known")
    if not 0 < report.window_s <= WINDOW_S_MAX:
        raise InvalidRequest(f"traffic: a window of {report.window_s} s")
    if report.sequence < 0:
        raise InvalidRequest(f"traffic: sequence {report.sequence}")
    if len(report.rows) > _ROWS_MAX:
        raise InvalidRequest(f"traffic: {len(report.rows)} rows; at most {_ROWS_MAX}")
    if len({row.key for row in report.rows}) < len(report.rows):
        raise InvalidRequest("traffic: a key is there twice")
    for row in report.rows:
        _sums_of(row)
    return report


def _sums_of(row: Row) -> Sums:
    names = (row.key.source, row.key.destination, row.key.route)
    if any(len(name) > NAME_CHARS_MAX for name in names):
        raise InvalidRequest(f"traffic: a name has more than {NAME_CHARS_MAX} characters")
    counts = (row.count, row.errors, row.retries)
    if not all(0 <= count <= COUNT_MAX for count in counts) or row.errors > row.count:
        raise InvalidRequest(f"traffic: counts {counts}")
    sums = Sums()
    sums.count, sums.errors, sums.retries = counts
    sums.latency = histogram.from_plain(row.latency)
    if sums.latency.count != row.count:
        raise InvalidRequest(f"traffic: {row.count} calls with {sums.latency.count} durations")
    return sums
