"""One error tree for everything raftreg tells its callers.

Two questions decide what a caller may do next, and every class answers both:

* whose fault was it? (`http_status`, `exit_code`)
* may the request have taken effect all the same? (`definite`: False means that it may)

HTTP answers, exit codes of the CLI and the retries of the client derive from these attributes
alone, so that there is one table and not three.
"""

from __future__ import annotations

from typing import ClassVar


class RaftregError(Exception):
    """Base of all errors of raftreg.

    Args:
        message: One sentence for a person: what was wrong, where, and what to do next.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    #: True: nothing happened and nothing will. False: the request may still take effect.
    definite: ClassVar[bool] = True
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(RaftregError):
    """The caller sent something that can't be understood; sending it again will not help."""

    code = "invalid_request"
    http_status = 400
    exit_code = 2


class Forbidden(RaftregError):
    """The caller is known and is not allowed to do this."""

    code = "forbidden"
    http_status = 403
    exit_code = 3


class NotFound(RaftregError):
    """What was named does not exist."""

    code = "not_found"
    http_status = 404
    exit_code = 4


class MethodNotAllowed(RaftregError):
    """The path exists, the method does not fit it."""

    code = "method_not_allowed"
    http_status = 405
    exit_code = 2


class Conflict(RaftregError):
    """A transaction was rolled back, or a precondition did not hold."""

    code = "conflict"
    http_status = 409
    exit_code = 5


class TooLarge(RaftregError):
    """A body, value or frame is over its limit."""

    code = "too_large"
    http_status = 413
    exit_code = 2


class Rejected(RaftregError):
    """The state machine refused the command by its rules (a value of `apply`, raised later)."""

    code = "rejected"
    http_status = 500
    exit_code = 5


class NoLeader(RaftregError):
    """No leader is known, and the request was not proposed: safe to repeat."""

    code = "no_leader"
    http_status = 500
    exit_code = 6


class NotProposed(RaftregError):
    """The request never entered a log (a queue was full, or the server is stopping)."""

    code = "not_proposed"
    http_status = 503
    exit_code = 6


class UnknownOutcome(RaftregError):
    """The request was proposed and its fate is unknown: it may still commit."""

    code = "unknown_outcome"
    http_status = 503
    definite = False
    exit_code = 7


class Unreachable(RaftregError):
    """No server could be reached; nothing was sent."""

    code = "unreachable"
    http_status = 503
    exit_code = 8


class ConnectionLost(RaftregError):
    """The connection broke after the request had been sent; it may have taken effect."""

    code = "connection_lost"
    http_status = 503
    definite = False
    exit_code = 7


class DeadlineExceeded(RaftregError):
    """The deadline passed before there was an answer; the request may have taken effect."""

    code = "deadline_exceeded"
    http_status = 504
    definite = False
    exit_code = 7


class ConfigurationError(RaftregError):
    """A flag, an environment variable or a file holds something that can't be used."""

    code = "configuration"
    http_status = 400
    exit_code = 2
