"""Whole answers as bytes, made once and sent to all who ask the same.

An answer differs from the last one to the same question only in its index, in what it says of its
source, and in the second of its `Date`. So the bytes are kept, and made anew when one of these
changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp.helpers import rfc822_formatted_time

from raftreg.errors import RaftregError
from raftreg.http.problems import INTERNAL_ERROR_TEXT, problem_text
from raftreg.http.reply import TEXT, head_bytes

#: Copying less costs less than a second piece to write.
LARGE_BYTES_MIN: Final = 32 * 1024
#: How often the second is looked up.
_DATE_S: Final = 0.1


class DateLine:
    """The `Date` line of now; the same object as long as the second is the same.

    Args:
        make: Gives the time as RFC 9110 wants it.
    """

    __slots__ = ("_line", "_make", "_until_s")

    def __init__(self, make: Callable[[], str] = rfc822_formatted_time) -> None:
        self._make = make
        self._line = b""
        self._until_s = float("-inf")

    def at(self, now_s: float) -> bytes:
        """The line, with its CRLF.

        Args:
            now_s: Monotonic seconds.
        """
        if now_s >= self._until_s:
            self._until_s = now_s + _DATE_S
            line = b"Date: %b\r\n" % self._make().encode("ascii")
            if line != self._line:
                self._line = line
        return self._line


class Answer:
    """An answer with room for the date in it.

    Args:
        body: Body.
        status: HTTP status.
        kind: Content-Type.
        head: Further header lines, each ended by CRLF.

    Attributes:
        tail: The body when it is large, so that it is never copied: to be sent after `at`.
        size_bytes: About what it takes in memory.
    """

    __slots__ = ("_after", "_before", "_date", "_whole", "size_bytes", "status", "tail")

    def __init__(self, body: bytes, status: int, kind: bytes, head: bytes) -> None:
        self._before = head_bytes(status, kind, head)
        self.tail = body if len(body) >= LARGE_BYTES_MIN else b""
        self._after = b"Content-Length: %d\r\n\r\n%b" % (len(body), b"" if self.tail else body)
        self._date = self._whole = b""
        self.status = status
        self.size_bytes = 2 * len(self._after) + len(self.tail)

    def at(self, date: bytes) -> bytes:
        """The bytes to send, but for `tail`.

        Args:
            date: Of `DateLine.at`.
        """
        if self._date is not date:
            self._date = date
            self._whole = b"%b%b%b" % (self._before, date, self._after)
        return self._whole


def refusal(error: RaftregError, date: bytes) -> bytes:
    """The answer to a request that failed, as `raftreg.http.problems.problem` words it."""
    head = b"X-Raftreg-Error: %b\r\n" % error.code.encode("ascii")
    body = problem_text(error).encode()
    return Answer(body, error.http_status, TEXT, head).at(date)


def fault(date: bytes) -> bytes:
    """The answer when something failed that should not; the log holds what."""
    return Answer(INTERNAL_ERROR_TEXT.encode(), 500, TEXT, b"").at(date)
