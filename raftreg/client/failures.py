"""What an answer or a broken connection means: the client's one table from HTTP to errors.

`classify` reads a status with its body; `repeatable` decides what may be sent again. A failure is
*definite* when nothing happened (`RaftregError.definite`): those may always be repeated, the
others only when a repetition is harmless (a read, or a write that carries a request id).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raftreg.errors import (
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NoLeader,
    NotFound,
    NotProposed,
    RaftregError,
    Rejected,
    TooLarge,
    UnknownOutcome,
    Unreachable,
)

ERROR_HEADER: Final = "X-Raftreg-Error"
NO_LEADER_TEXT: Final = "No cluster leader"
BODY_IN_MESSAGE_MAX: Final = 500


class BadAnswer(RaftregError):
    """What came back is no answer of this API (another program on that port, a broken proxy)."""

    code = "bad_answer"
    http_status = 502
    definite = False
    exit_code = 8


class LockLost(RaftregError):
    """A lock or session that was held has ended; the work under it must stop."""

    code = "lock_lost"
    http_status = 409
    exit_code = 5


_BY_STATUS: Final[dict[int, type[RaftregError]]] = {
    400: InvalidRequest,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    408: NotProposed,
    409: Conflict,
    413: TooLarge,
    429: NotProposed,
    500: Rejected,
    504: DeadlineExceeded,
}

_NAMED: Final[tuple[type[RaftregError], ...]] = (
    *_BY_STATUS.values(),
    ConnectionLost,
    NoLeader,
    UnknownOutcome,
    Unreachable,
)
_BY_CODE: Final = {error.code: error for error in _NAMED}

#: Failures of a server or of the way to it; another server, or the same one later, may do better.
_TRANSIENT: Final = (
    BadAnswer,
    ConnectionLost,
    DeadlineExceeded,
    NoLeader,
    NotProposed,
    UnknownOutcome,
    Unreachable,
)


def classify(status: int, body: bytes, headers: Mapping[str, str]) -> RaftregError:
    """Gives the error that an HTTP answer of status 400 or more (or an odd one) stands for.

    Args:
        status: The HTTP status.
        body: The answer's body; its text becomes the message.
        headers: The answer's headers; `X-Raftreg-Error` names the class when it is there.
    """
    text = body[:BODY_IN_MESSAGE_MAX].decode("utf-8", "replace").strip()
    message = text or f"the server answered {status} without a text"
    named = _BY_CODE.get(headers.get(ERROR_HEADER, ""))
    if named is not None:
        return named(message)
    if NO_LEADER_TEXT in text:
        return NoLeader(message)
    if status in _BY_STATUS:
        return _BY_STATUS[status](message)
    if status >= 500:
        return _unavailable(status, text, message)
    return BadAnswer(f"unexpected status {status}: {message}")


def _unavailable(status: int, text: str, message: str) -> RaftregError:
    """A 5xx without a class of its own: unless it says that nothing was done, it may have been."""
    if status == 503 and "not proposed" in text.lower():
        return NotProposed(message)
    return UnknownOutcome(message)


def transient(error: RaftregError) -> bool:
    """Tells whether another attempt could end differently."""
    return isinstance(error, _TRANSIENT)


def repeatable(error: RaftregError, *, idempotent: bool) -> bool:
    """Tells whether the request may be sent again after this failure.

    Args:
        error: How the attempt failed.
        idempotent: A repetition of the request has no further effect.
    """
    return transient(error) and (error.definite or idempotent)
