"""What decisions about calls are made of: instances, requests, and what became of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

import msgspec

from raftreg.errors import RaftregError


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of an upstream, as the registry has it now.

    Attributes:
        key: Names it as long as it lives (`node/service id`).
        address: IP address or host name.
        port: TCP port.
        weight: Share of the traffic among its like, 1 to 65,535; that of its present status.
        zone: Where it runs ("" unknown); instances in the caller's zone are near.
        passing: False for one whose checks warn.
        since_s: When it was first seen, in monotonic seconds: slow start counts from there.
        meta: Metadata of the instance; subsets choose by it.
        tags: Its tags; subsets choose by them too.
    """

    key: str
    address: str
    port: int
    weight: int = 1
    zone: str = ""
    passing: bool = True
    since_s: float = 0.0
    meta: Mapping[str, str] = {}
    tags: tuple[str, ...] = ()


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request, as far as decisions look at it.

    Attributes:
        method: HTTP method in upper case; "" for plain TCP.
        path: Decoded path without the query, beginning with "/".
        query: First value of each query parameter.
        headers: Values by name in lower case; several lines of one name are joined by ", ".
        source: Service that calls ("" unknown).
        source_address: Its IP address.
    """

    method: str = ""
    path: str = "/"
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    source: str = ""
    source_address: str = ""


class Failure(enum.Enum):
    """How an attempt failed before it had an answer."""

    CONNECT = "connect-failure"  #: no connection was made: nothing was sent
    RESET = "reset"  #: it broke before the head of the answer
    TIMEOUT = "timeout"  #: the attempt's own time was up
    REFUSED_STREAM = "refused-stream"  #: the peer said that it did not begin


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one attempt.

    Attributes:
        status: HTTP status, 0 when there was no answer (or the call is plain TCP and went well).
        failure: Set when there was no answer.
        duration_s: From the attempt's beginning to the head of the answer, or to the failure.
    """

    status: int = 0
    failure: Failure | None = None
    duration_s: float = 0.0

    @property
    def failed(self) -> bool:
        """No answer, or one that says the server failed (5xx)."""
        return self.failure is not None or self.status >= 500


class Reason(enum.Enum):
    """Why the mesh itself answered; goes into the `X-Raftreg-Reason` header and into metrics."""

    NO_ROUTE = "no-route"
    NO_INSTANCE = "no-healthy-instance"
    CIRCUIT_OPEN = "circuit-open"
    OVERLOAD = "overload"
    RATE_LIMIT = "rate-limit"
    DEADLINE = "deadline-exceeded"
    FAULT = "injected-fault"
    DENIED = "denied-by-intention"
    UPSTREAM_FAILED = "upstream-failed"
    BAD_REQUEST = "bad-request"


class MeshConfigError(RaftregError):
    """Settings of the mesh that contradict themselves; the text names the field."""

    code = "mesh_config"
    http_status = 400


class Randomness(Protocol):
    """What decisions draw from (`random.Random` is one)."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def randrange(self, stop: int, /) -> int:
        """A whole number in [0, stop)."""
        ...
