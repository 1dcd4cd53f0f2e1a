"""Deadlines: how long a call may take, told from hop to hop, and what is left of it.

A deadline is a moment of this host's monotonic clock; between hosts only what is left travels, for
their clocks differ (as in gRPC). Three headers are understood, and the shortest of them counts:

* `X-Raftreg-Deadline`: what is left, in whole milliseconds; 0: nothing is.
* `grpc-timeout`: up to 8 digits and a unit (gRPC over HTTP2, "Requests").
* `X-Envoy-Expected-Rq-Timeout-Ms`: whole milliseconds, set by Envoy; 0: no limit, as Envoy has it.

What is passed on is rounded down, so that no hop believes it has more time than its caller gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec

from raftreg.errors import RaftregError
from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Call

RAFTREG_DEADLINE = "x-raftreg-deadline"
GRPC_TIMEOUT = "grpc-timeout"
ENVOY_EXPECTED = "x-envoy-expected-rq-timeout-ms"

_MS_DIGITS_MAX = 15
_GRPC_DIGITS_MAX = 8
_GRPC_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class BadDeadline(RaftregError):
    """A header of a call tells a time that can't be understood; the text names the header."""

    code = "bad_deadline"
    http_status = 400


class TimeoutSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long calls may take.

    Attributes:
        request_s: The whole call, all tries and waits of it; 0: no limit of ours.
        per_try_s: One try, to the head of its answer; 0: what is left of the call.
        idle_s: Time without a byte in either direction; 0: no limit.
        heed_caller: Whether a caller may shorten the call by a header. It never lengthens it.
        hop_s: Time kept back from what is passed on, for the way of the answer.

    Raises:
        MeshConfigError: A value is out of bounds.
    """

    request_s: float = 15.0
    per_try_s: float = 0.0
    idle_s: float = 300.0
    heed_caller: bool = True
    hop_s: float = 0.0

    def __post_init__(self) -> None:
        """Checks each value."""
        within("request_s", self.request_s, 0, 86_400)
        within("per_try_s", self.per_try_s, 0, 86_400)
        within("idle_s", self.idle_s, 0, 86_400)
        within("hop_s", self.hop_s, 0, 60)


def deadline_s(call: Call, settings: TimeoutSettings, now_s: float) -> float:
    """When a call that begins now must have ended.

    Returns:
        Monotonic seconds; infinite when nobody sets a limit.

    Raises:
        BadDeadline: A header can't be understood.
    """
    left_s = settings.request_s or math.inf
    if settings.heed_caller:
        left_s = min(left_s, told_s(call.headers))
    return now_s + left_s


def told_s(headers: Mapping[str, str]) -> float:
    """What the caller gives, in seconds: the shortest of the headers; infinite without any.

    Raises:
        BadDeadline: A header can't be understood.
    """
    shortest_s = math.inf
    for name, read in _READ_BY_HEADER.items():
        text = headers.get(name)
        if text is not None:
            shortest_s = min(shortest_s, read(name, text))
    return shortest_s


def remaining_s(deadline: float, now_s: float) -> float:
    """What is left until a deadline, in seconds, not less than 0; infinite without one."""
    return max(0.0, deadline - now_s)


def try_s(deadline: float, settings: TimeoutSettings, now_s: float) -> float:
    """Seconds that a try which begins now may take; 0: it is too late; infinite: no limit."""
    return min(settings.per_try_s or math.inf, remaining_s(deadline, now_s))


def has_time_for(deadline: float, now_s: float, wait_s: float, needs_s: float = 0.0) -> bool:
    """Whether after a wait some time is left, at least `needs_s`: else another try is in vain."""
    left_s = deadline - now_s - wait_s
    return left_s > 0.0 and left_s >= needs_s


def passed_on(call: Call, attempt_s: float, settings: TimeoutSettings) -> dict[str, str]:
    """Headers that tell the next hop how long it has; they replace those of the call.

    Args:
        call: The call as it came: a gRPC one is told in gRPC's way as well.
        attempt_s: What the try has, in seconds (see `try_s`).
        settings: What is kept back for the way.

    Returns:
        Values by name in lower case; empty when there is no limit.
    """
    if math.isinf(attempt_s):
        return {}
    left_s = max(0.0, attempt_s - settings.hop_s)
    left_ms = math.floor(left_s * 1000)
    told = {RAFTREG_DEADLINE: str(left_ms)}
    if left_ms:  # 0 means "no limit" there
        told[ENVOY_EXPECTED] = str(left_ms)
    if GRPC_TIMEOUT in call.headers or _is_grpc(call):
        told[GRPC_TIMEOUT] = grpc_timeout(left_s)
    return told


def grpc_timeout(left_s: float) -> str:
    """A time as `grpc-timeout` has it, rounded down to the finest unit that 8 digits hold.

    Args:
        left_s: Seconds, finite and not negative.
    """
    for unit, a_second in (("n", 1_000_000_000), ("u", 1_000_000), ("m", 1000), ("S", 1)):
        count = math.floor(left_s * a_second)
        if count < 10**_GRPC_DIGITS_MAX:
            return f"{count}{unit}"
    return f"{min(math.floor(left_s / 3600), 10**_GRPC_DIGITS_MAX - 1)}H"


def _is_grpc(call: Call) -> bool:
    return call.headers.get("content-type", "").startswith("application/grpc")


def _read_ms(name: str, text: str) -> float:
    if not (text.isascii() and text.isdecimal()) or len(text) > _MS_DIGITS_MAX:
        raise BadDeadline(
            f"{name}: must be whole milliseconds of at most {_MS_DIGITS_MAX} digits, "
            f"not {_cut(text)}"
        )
    return int(text) / 1000


def _read_envoy(name: str, text: str) -> float:
    return _read_ms(name, text) or math.inf


def _read_grpc(name: str, text: str) -> float:
    count, unit_s = text[:-1], _GRPC_UNITS_S.get(text[-1:])
    digits = count.isascii() and count.isdecimal() and len(count) <= _GRPC_DIGITS_MAX
    if unit_s is None or not digits:
        raise BadDeadline(
            f"{name}: must be 1 to {_GRPC_DIGITS_MAX} digits and one of H, M, S, m, u, n, "
            f"not {_cut(text)}"
        )
    return int(count) * unit_s


def _cut(text: str) -> str:
    """Text of a stranger, short and printable, for a message."""
    return repr(text if len(text) <= 40 else text[:40] + "…")


_READ_BY_HEADER: dict[str, Callable[[str, str], float]] = {
    RAFTREG_DEADLINE: _read_ms,
    GRPC_TIMEOUT: _read_grpc,
    ENVOY_EXPECTED: _read_envoy,
}
