"""Which failed attempts may be repeated.

The conditions are Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`
(https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter), which
are also those of Consul's `RetryOn`. A condition that holds is not enough: the repeat must be safe
as well. It is for methods that RFC 9110, section 9.2.2, calls idempotent, and for any method when
the request certainly was not begun: no connection was made, or the peer said so (RFC 9113, section
8.7).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from raftreg.mesh.nouns import Call, Failure, Outcome

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
#: The request was not begun: it may be sent again whatever it asks for.
NOT_BEGUN: Final = frozenset({Failure.CONNECT, Failure.REFUSED_STREAM})


class Condition(enum.Enum):
    """When an attempt may be repeated; single codes and headers are settings of their own."""

    SERVER_ERROR = "5xx"  #: any 5xx, or no answer
    GATEWAY_ERROR = "gateway-error"  #: 502, 503, 504, or no answer
    RESET = "reset"  #: no answer
    RESET_BEFORE_REQUEST = "reset-before-request"  #: no answer, and nothing was sent
    CONNECT_FAILURE = "connect-failure"  #: no connection was made
    REFUSED_STREAM = "refused-stream"  #: the peer said that it did not begin
    RETRIABLE_4XX = "retriable-4xx"  #: 409
    RATE_LIMITED = "envoy-ratelimited"  #: the answer has the header `x-envoy-ratelimited`
    GRPC_CANCELLED = "cancelled"  #: `grpc-status` 1 in the head of the answer, and so on
    GRPC_DEADLINE_EXCEEDED = "deadline-exceeded"
    GRPC_RESOURCE_EXHAUSTED = "resource-exhausted"
    GRPC_INTERNAL = "internal"
    GRPC_UNAVAILABLE = "unavailable"


_ANY_FAILURE: Final = frozenset(Failure)
_FAILURES: Final[Mapping[Condition, frozenset[Failure]]] = {
    Condition.SERVER_ERROR: _ANY_FAILURE,
    Condition.GATEWAY_ERROR: _ANY_FAILURE,
    Condition.RESET: _ANY_FAILURE,
    Condition.RESET_BEFORE_REQUEST: frozenset({Failure.CONNECT}),
    Condition.CONNECT_FAILURE: frozenset({Failure.CONNECT}),
    Condition.REFUSED_STREAM: frozenset({Failure.REFUSED_STREAM}),
}
_STATUSES: Final[Mapping[Condition, frozenset[int]]] = {
    Condition.SERVER_ERROR: frozenset(range(500, 600)),
    Condition.GATEWAY_ERROR: frozenset({502, 503, 504}),
    Condition.RETRIABLE_4XX: frozenset({409}),
}
_GRPC_STATUSES: Final[Mapping[Condition, str]] = {
    Condition.GRPC_CANCELLED: "1",
    Condition.GRPC_DEADLINE_EXCEEDED: "4",
    Condition.GRPC_RESOURCE_EXHAUSTED: "8",
    Condition.GRPC_INTERNAL: "13",
    Condition.GRPC_UNAVAILABLE: "14",
}


class Repeatable:
    """Which attempts may be repeated, made ready once so that asking is O(1).

    Args:
        conditions: Any of them is enough.
        status_codes: So is any of these.
        headers: So is a header of the answer with one of these names, in lower case.
        unsafe_methods: Repeat any method, also one that may take effect twice.
    """

    __slots__ = ("_failures", "_grpc", "_headers", "_statuses", "_unsafe")

    def __init__(
        self,
        conditions: AbstractSet[Condition],
        *,
        status_codes: frozenset[int] = frozenset(),
        headers: tuple[str, ...] = (),
        unsafe_methods: bool = False,
    ) -> None:
        none: frozenset[Failure] = frozenset()
        self._failures = none.union(*(_FAILURES.get(one, none) for one in conditions))
        self._statuses = status_codes.union(
            *(_STATUSES.get(one, frozenset()) for one in conditions)
        )
        self._grpc = {_GRPC_STATUSES.get(one, "") for one in conditions} - {""}
        limited = Condition.RATE_LIMITED in conditions
        self._headers = (*headers, *(("x-envoy-ratelimited",) if limited else ()))
        self._unsafe = unsafe_methods

    def wanted(self, outcome: Outcome, headers: Mapping[str, str]) -> bool:
        """Whether a condition holds.

        Args:
            outcome: Of the attempt.
            headers: Of the answer, by name in lower case.
        """
        if outcome.failure is not None:
            return outcome.failure in self._failures
        if outcome.status in self._statuses:
            return True
        if self._grpc and headers.get("grpc-status") in self._grpc:
            return True
        return any(name in headers for name in self._headers)

    def safe(self, call: Call, outcome: Outcome) -> bool:
        """Whether the call can't take effect twice when it is sent again (or may do so)."""
        return self._unsafe or call.method in IDEMPOTENT or outcome.failure in NOT_BEGUN
